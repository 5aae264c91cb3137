"""The engine: what a tick means, chunks, trials, sweeps, gradients, and how a run fails."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from engrax import Phase, Rule, SimulationError, Simulator, networks as nets, rules, sweep


def two_layers(rule=None, **edge):
    net = nx.MultiDiGraph()
    net.add_node("retina", neuron=nets.Input(), size=4)
    net.add_node("cortex", neuron=nets.Rate(), size=3)
    net.add_edge("retina", "cortex", rule=rule, **edge)
    return net


def recurrent(rule=None):
    net = two_layers(rule)
    net.add_edge("cortex", "cortex", weights=nets.FanIn(0.8), rule=rule)
    net.add_edge("cortex", "retina", weights=nets.Normal(0.2), delay=3, rule=rule)
    return net


def data(ticks, n=4, seed=0, batch=None):
    shape = (ticks, n) if batch is None else (ticks, batch, n)
    return np.random.default_rng(seed).normal(size=shape)


class Jittery(nets.Neuron):
    """Adds noise to its drive."""

    noise = "normal"

    def init(self):
        return nets.Fields(x=0.0)

    def step(self, ports, noise):
        return nets.Fields(x=ports.drive + noise)


def test_a_tick_is_what_the_manual_says():
    """Drives arrive, neurons update, then the rule sees them as they are now: three ticks by hand."""
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=1)
    net.add_node("b", neuron=nets.Linear(), size=1)
    net.add_edge("a", "b", weights=np.array([[2.0]]), rule=rules.Hebb(eta=0.1))
    net.add_edge("b", "b", weights=np.array([[0.5]]))
    sim = Simulator(net)
    out = sim.run({"a": np.array([[1.0], [0.0], [3.0]])}, record={"b.x": 1, "a->b.w": 1})
    # b = 2*1 + .5*0 = 2, w = 2 + .1*2*1 = 2.2; b = 0 + .5*2 = 1, w same; b = 2.2*3 + .5*1 = 7.1, w += .1*7.1*3
    np.testing.assert_allclose(out["b.x"].ravel(), [2, 1, 7.1], rtol=1e-12)
    np.testing.assert_allclose(out["a->b.w"].ravel(), [2.2, 2.2, 4.33], rtol=1e-12)


def test_pre_is_what_the_synapse_saw():
    """With a delay of 2 the rule multiplies the pre neuron of two ticks ago with the post neuron of now."""

    class Trace(Rule):
        def update(self, pre, post):
            return pre.x

    net = two_layers(Trace(), delay=2)
    x = data(5)
    w = Simulator(net).run({"retina": x}, record={"retina->cortex.w": 1})["retina->cortex.w"]
    np.testing.assert_allclose(np.diff(w[:, 0], axis=0)[1:], x[:3], rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_the_run_does_not_depend_on_chunks(chunk):
    fields = {"cortex.x": 1, "retina->cortex.w": 10, "cortex->cortex.w": 4}
    x = data(120)
    whole, cut = Simulator(recurrent(rules.Oja())), Simulator(recurrent(rules.Oja()))
    a = whole.run({"retina": x}, record=fields)
    b = cut.run({"retina": x}, record=fields, chunk=chunk)
    for field in fields:
        assert a[field].shape == b[field].shape
        np.testing.assert_array_equal(a[field], b[field])


def test_samples_are_those_of_every_tick():
    """Whatever the periods, and wherever a run starts, a sample is the value after its tick."""
    x = data(90)
    every = Simulator(recurrent(rules.Oja())).run({"retina": x}, record={"retina->cortex.w": 1})["retina->cortex.w"]
    sim = Simulator(recurrent(rules.Oja()))
    sim.run({"retina": x[:13]})
    some = sim.run({"retina": x[13:]}, record={"retina->cortex.w": 6, "cortex.x": 10, "cortex->cortex.w": 1})
    np.testing.assert_array_equal(some["retina->cortex.w"], every[17::6])
    assert len(some["cortex.x"]) == 8 and len(some["cortex->cortex.w"]) == 77


def test_noise_depends_on_name_and_tick_only():
    """Not on the chunking, nor on which other populations there are."""

    def noisy(extra):
        net = nx.MultiDiGraph()
        if extra:
            net.add_node("another", neuron=Jittery(), size=2)
        net.add_node("a", neuron=Jittery(), size=3)
        net.add_node("b", neuron=nets.Linear(), size=2)
        if extra:
            net.add_edge("another", "b")
        net.add_edge("a", "b")
        return net

    x = [
        Simulator(noisy(extra), seed=5).run(ticks=20, record={"a.x": 1}, chunk=c)["a.x"]
        for extra, c in ((0, 20), (1, 3))
    ]
    np.testing.assert_array_equal(*x)
    assert abs(x[0].std() - 1) < 0.3  # 60 standard normal numbers: 3 standard errors


def test_a_seed_in_a_sweep_is_that_seed_alone():
    x = data(40)
    net = recurrent(rules.Oja())
    together = sweep(net, {"seed": [3, 4], "retina->cortex.eta": [1e-3, 5e-2]})
    rates = together.run({"retina": x}, record={"cortex.x": 1})["cortex.x"]
    assert together.points[2] == {"seed": 4, "retina->cortex.eta": 1e-3}
    assert rates.shape == (40, 4, 3)
    for number, point in enumerate(together.points):
        net.edges["retina", "cortex", 0]["rule"] = rules.Oja(eta=point["retina->cortex.eta"])
        alone = Simulator(net, seed=point["seed"])
        x_alone = alone.run({"retina": x}, record={"cortex.x": 1})["cortex.x"]
        # One program or another, the same sums in another order: rounding of float64 over 40 ticks.
        np.testing.assert_allclose(rates[:, number], x_alone, rtol=1e-9)
        np.testing.assert_allclose(
            together.params["retina->cortex"].w[number], alone.params["retina->cortex"].w, rtol=1e-9
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [("cortex.gain", "parameters: bias"), ("retina->cortex.beta", "parameters: eta"), ("nowhere.x", "no population")],
)
def test_a_sweep_over_an_unknown_parameter_lists_the_known(name, message):
    with pytest.raises(SimulationError, match=message):
        sweep(two_layers(rules.Oja()), {name: [1.0]})


# Gradients


def unrolled(sim, x):
    """Loss of a run as a function of (initial dense weights, eta of every rule)."""

    def loss(weights, eta):
        model = eqx.tree_at(lambda m: [r.eta for r in m.rules.values()], sim.model, [eta] * len(sim.model.rules))
        state = sim.network.with_weights(sim.state, weights)

        def tick(state, row):
            state = sim.step(model, state, {"retina": row})
            return state, jnp.sum(state.neurons["cortex"].x ** 2)

        _, losses = jax.lax.scan(tick, state, x)
        return losses.sum()

    return loss


@pytest.fixture
def differentiable():
    sim = Simulator(recurrent(rules.Oja(eta=0.05)), seed=1)
    x = jnp.asarray(data(20))
    return sim, x, unrolled(sim, x), sim.network.weights(sim.model, sim.state)


def test_gradient_through_a_plastic_run_equals_finite_differences(differentiable):
    _, _, loss, weights = differentiable
    eta = jnp.asarray(0.05)
    by_weights, by_eta = jax.grad(loss, argnums=(0, 1))(weights, eta)
    h = 1e-6  # error h^2 of the central difference and 1e-16 / h of rounding: about 1e-10
    numeric = (loss(weights, eta + h) - loss(weights, eta - h)) / (2 * h)
    np.testing.assert_allclose(by_eta, numeric, rtol=1e-6)
    assert abs(float(by_eta)) > 1e-3
    rng = np.random.default_rng(0)
    for _ in range(5):
        direction = {name: jnp.asarray(rng.normal(size=w.shape)) for name, w in weights.items()}
        moved = [loss({n: w + s * h * direction[n] for n, w in weights.items()}, eta) for s in (1, -1)]
        along = sum(jnp.vdot(by_weights[n], direction[n]) for n in weights)
        np.testing.assert_allclose(along, (moved[0] - moved[1]) / (2 * h), rtol=1e-6)


def test_real_time_recurrent_learning_equals_the_gradient(differentiable):
    """Carry the influence d state / d parameters forward tick by tick, M <- J M + I: no history, the same gradient."""
    sim, x, loss, weights = differentiable
    names = list(weights)
    flat, unflatten = ravel_pytree(weights)

    def with_flat(p):
        return sim.network.with_weights(sim.state, unflatten(p))

    def split(state):
        return eqx.partition(state, eqx.is_inexact_array)

    start, rest = split(with_flat(flat))
    vector, rebuild = ravel_pytree(start)
    influence = jax.jacfwd(lambda p: ravel_pytree(split(with_flat(p))[0])[0])(flat)
    total = jnp.zeros_like(flat)

    @jax.jit
    def tick(vector, influence, counters, row):
        def go(v):
            new = sim.step(sim.model, eqx.combine(rebuild(v), counters), {"retina": row})
            moving, counted = split(new)
            return ravel_pytree(moving)[0], (counted, jnp.sum(new.neurons["cortex"].x ** 2))

        jacobian, (counted, _) = jax.jacfwd(go, has_aux=True)(vector)
        new, _ = go(vector)
        error = jax.grad(lambda v: jnp.sum(rebuild(v).neurons["cortex"].x ** 2))(new)
        influence = jacobian @ influence
        return new, influence, counted, error @ influence

    counters = rest
    for row in x:
        vector, influence, counters, part = tick(vector, influence, counters, row)
        total = total + part
    reverse = jax.grad(loss)(weights, jnp.asarray(0.05))
    expected = ravel_pytree({n: reverse[n] for n in names})[0]
    np.testing.assert_allclose(total, expected, rtol=1e-9, atol=1e-12)  # two exact sums in another order


def test_a_batched_run_is_differentiable():
    sim = Simulator(two_layers(rules.Oja(eta=0.05)))
    x = data(6, batch=5)
    sim.run({"retina": x[:1]})

    def loss(eta):
        model = eqx.tree_at(lambda m: m.rules["retina->cortex"].eta, sim.model, eta)
        state = sim.state
        for row in x[1:]:
            state = sim.step(model, state, {"retina": jnp.asarray(row)})
        return jnp.sum(state.neurons["cortex"].x ** 2)

    h = 1e-6
    np.testing.assert_allclose(jax.grad(loss)(0.05), (loss(0.05 + h) - loss(0.05 - h)) / (2 * h), rtol=1e-6)


# Trials


def test_phases_say_when_rules_run():
    x = data(4)
    counts = {}
    for plastic, updates in (("every", 3), ("last", 1), ("never", 0)):

        class Count(Rule):
            def update(self, w):
                return 1.0

        sim = Simulator(two_layers(Count(), weights=nets.Fixed(0.0)))
        sim.run({"retina": x}, trial=[Phase("only", 3, plastic=plastic, hold=True)], trials=4)
        counts[plastic] = float(sim.params["retina->cortex"].w[0, 0])
        assert counts[plastic] == 4 * updates
        assert (sim.tick, sim.trial) == (12, 4)


def test_held_and_running_phases_read_their_sources_alike():
    """Held: one row a trial. Running: one row a tick of the phase. Functions get the same index."""
    rows = data(6)
    phases = [Phase("hold", 2, hold=True), Phase("move", 3)]
    seen = Simulator(two_layers()).run(
        {"retina": {"hold": rows[:2], "move": rows}}, trial=phases, record={"retina.x": 1}
    )["retina.x"]
    expected = np.concatenate([rows[[0, 0]], rows[:3], rows[[1, 1]], rows[3:]])
    np.testing.assert_array_equal(seen, expected)
    table = jnp.asarray(rows)
    called = Simulator(two_layers()).run(
        {"retina": lambda index, key: table[index]}, trial=phases, trials=2, record={"retina.x": 1}
    )["retina.x"]
    np.testing.assert_array_equal(called, expected)


def test_reset_starts_the_phase_anew():
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=1)
    net.add_node("sum", neuron=nets.Integrator(rate=1.0), size=1)
    net.add_node("kept", neuron=nets.Integrator(rate=1.0), size=1)
    net.add_edge("in", "sum", weights=nets.Fixed(1.0))
    net.add_edge("in", "kept", weights=nets.Fixed(1.0))
    out = Simulator(net).run(
        {"in": np.ones((3, 1))}, trial=Phase("go", 2, hold=True, reset={"sum"}), record={"sum.x": 1, "kept.x": 1}
    )
    np.testing.assert_array_equal(out["sum.x"].ravel(), [1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(out["kept.x"].ravel(), [1, 2, 3, 4, 5, 6])


def test_signals_come_from_phases_runs_and_populations():
    class Read(Rule):
        def update(self, signals):
            return signals.level

    def weight(net, **how):
        sim = Simulator(net)
        sim.run({"retina": np.ones((4, 4))}, **how)
        return float(sim.params["retina->cortex"].w[0, 0])

    net = two_layers(Read(), weights=nets.Fixed(0.0))
    assert weight(net, signals={"level": np.array([1.0, 2.0, 3.0, 4.0])}) == 10
    assert weight(net, signals={"level": 2.0}) == 8
    assert weight(net, trial=Phase("p", 1, hold=True, signals={"level": 5.0})) == 20
    net.graph["signals"] = {"level": "retina"}
    assert weight(net) == 4


def test_an_edge_lives_in_its_phases_only():
    net = two_layers(rules.Hebb(eta=1.0), weights=nets.Fixed(1.0), phases={"on"})
    phases = [Phase("on", 1, hold=True), Phase("off", 1, hold=True)]
    out = Simulator(net).run(
        {"retina": np.ones((2, 4))}, trial=phases, record={"cortex.drive": 1, "retina->cortex.w": 1}
    )
    assert out["cortex.drive"][1].sum() == 0 and out["cortex.drive"][0].sum() == 12
    np.testing.assert_array_equal(out["retina->cortex.w"][0], out["retina->cortex.w"][1])
    with pytest.raises(SimulationError, match="lives in on only"):
        Simulator(net).run({"retina": np.ones((2, 4))})


# Sources and control


def test_arrays_functions_and_iterators_drive_alike():
    x = data(30)
    table = jnp.asarray(x)
    runs = [
        Simulator(recurrent(rules.Oja())).run({"retina": source}, ticks=30, record={"cortex.x": 1}, chunk=7)["cortex.x"]
        for source in (x, lambda index, key: table[index], iter(x), itertools.cycle(x))
    ]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0], other)


def test_callbacks_can_end_a_run():
    sim = Simulator(two_layers(rules.Oja()))
    seen = []
    sim.run({"retina": data(100)}, chunk=10, callbacks=[lambda s: seen.append(s.tick) or s.tick >= 30])
    assert seen == [10, 20, 30] and sim.tick == 30


def test_progress_is_shown(capsys):
    Simulator(two_layers()).run({"retina": data(100)}, progress=True)
    assert "100/100" in capsys.readouterr().err


def test_drive_reaches_the_port_it_names():
    out = Simulator(two_layers()).run(
        {"retina": np.zeros((1, 4)), "cortex.apical": np.ones((1, 3))}, record={"cortex.apical": 1, "cortex.x": 1}
    )
    assert out["cortex.apical"].sum() == 3 and out["cortex.x"].sum() == 0


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"drive": {"retinna": data(3)}}, "did you mean 'retina'"),
        ({"drive": {"retina": data(3, 5)}}, r"shape \(5,\); it needs \(\[batch,\] 4\)"),
        ({"drive": {"retina": data(3)}, "ticks": 9}, "has 3 ticks, ticks=9"),
        ({"drive": {"retina.nowhere": data(3)}}, "ports drive"),
        ({"drive": {"retina": lambda i, k: jnp.ones(4)}}, "pass ticks="),
        ({"drive": {"retina": np.full((3, 4), np.nan)}}, r"not finite at \[0, 0\]"),
        ({"drive": {"retina": data(3)}, "trials": 2}, "needs the phases"),
        ({"drive": {"retina": data(3)}, "record": {"cortex.y": 1}}, "there are: retina.x"),
        ({"drive": {"retina": data(3)}, "record": {"cortex.x": 0}}, "at least 1"),
        ({"drive": {"retina": data(3)}, "signals": {"tick": 1.0}}, "own count"),
        ({"drive": {"retina": object()}}, "no array, number, function"),
        ({"drive": {"retina": iter(data(3))}, "ticks": 5}, "ended early"),
        ({"drive": {"retina": data(3, batch=2), "cortex": data(3, 3, batch=4)}}, "different batch sizes"),
    ],
)
def test_bad_input_is_one_clear_error(run, message):
    with pytest.raises(SimulationError, match=message):
        Simulator(two_layers()).run(**run)


def test_the_batch_of_a_run_stays():
    sim = Simulator(two_layers())
    sim.run({"retina": data(3, batch=2)})
    with pytest.raises(SimulationError, match="batch of 3"):
        sim.run({"retina": data(3, batch=3)})


def test_set_weights():
    sim = Simulator(two_layers())
    sim.set_weights("retina->cortex", np.ones((3, 4)))
    assert sim.params["retina->cortex"].w.sum() == 12
    with pytest.raises(SimulationError, match=r"shape \(4, 3\); it has \(3, 4\)"):
        sim.set_weights("retina->cortex", np.ones((4, 3)))
    with pytest.raises(SimulationError, match="projections: retina->cortex"):
        sim.set_weights("cortex->retina", np.ones((4, 3)))


# Failing


def exploding():
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=2)
    net.add_node("b", neuron=nets.Linear(), size=2)
    net.add_edge("a", "b", weights=nets.Fixed(1.0), rule=rules.Hebb(eta=1.0))
    return net


def test_overflow_names_tick_and_place_and_keeps_what_was_recorded(tmp_path):
    import h5py

    # Hebb with eta = 1 and x = 1 triples the weights at every tick (w + 2w): past 1.8e308 after 645 ticks.
    weights, ticks = 1.0, 0
    while np.isfinite(weights):
        weights, ticks = weights + (2 * weights), ticks + 1
    for chunk in (10_000, 100):
        sim = Simulator(exploding())
        path = tmp_path / f"{chunk}.h5"
        with pytest.raises(SimulationError) as caught, sim.record(path, {"b.x": 1, "a->b.w": 100}):
            sim.run({"a": np.ones((2000, 2))}, chunk=chunk)
        found = int(str(caught.value).split(":")[0].removeprefix("tick "))
        assert abs(found - ticks) <= 1
        assert "'b'" in str(caught.value) or "'a->b'" in str(caught.value)
        with h5py.File(path) as file:
            assert len(file["b/x"]) == found
            assert np.isfinite(file["b/x"][:]).all() and np.isfinite(file["a->b/w"][:]).all()
            assert len(file["a->b/w"]) == found // 100


def test_nan_in_a_trial_and_in_a_sweep_is_found():
    net = exploding()
    sim = sweep(net, {"a->b.eta": [1e-9, 1.0]})
    with pytest.raises(SimulationError, match=r"point 1: \{'a->b.eta': 1.0\}"):
        sim.run({"a": np.ones((500, 2))}, trial=[Phase("x", 3, hold=True)], trials=500)


def test_a_source_that_breaks_is_named():
    sim = Simulator(two_layers())
    with pytest.raises(SimulationError, match=r"tick 7: population 'retina'.*check the source"):
        sim.run({"retina": lambda index, key: jnp.where(index == 7, jnp.nan, 1.0) * jnp.ones(4)}, ticks=8)


def test_a_number_as_drive_is_an_array_of_it() -> None:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=3)
    net.add_node("out", neuron=nets.Linear(), size=2)
    net.add_edge("in", "out")
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    given = [Simulator(net).run({"in": x, "out": d}, record={"out.x": 1}) for d in (0.25, np.full((4, 5, 2), 0.25))]
    assert np.array_equal(given[0]["out.x"], given[1]["out.x"])
    assert given[0]["out.x"].shape == (4, 5, 2)


def test_sources_made_anew_are_not_compiled_anew():
    """The arrays in a source are told to the compiled run; its numbers, and other functions, are part of it."""
    net = nx.MultiDiGraph()
    for name in "ab":
        net.add_node(name, neuron=nets.Input(), size=2)
    net.add_edge("a", "b")
    sim = Simulator(net)

    def ran(source):
        return sim.run({"a": source}, 3, record={"a.x": 1})["a.x"]

    first, other = ran(nets.gaussian(np.eye(2))), ran(nets.gaussian(3 * np.eye(2)))
    assert len(sim._compiled) == 1
    again = Simulator(net)
    again.run({"a": nets.gaussian(3 * np.eye(2))}, 3)
    expected = again.run({"a": nets.gaussian(3 * np.eye(2))}, 3, record={"a.x": 1})["a.x"]
    np.testing.assert_array_equal(other, expected)
    assert np.abs(other).max() > np.abs(first).max()
    np.testing.assert_array_equal(ran(lambda index, key: jnp.full(2, 7.0)), np.full((3, 2), 7.0))
    np.testing.assert_array_equal(ran(lambda index, key: jnp.full(2, 8.0)), np.full((3, 2), 8.0))
    for value in (1.0, 2.0):
        np.testing.assert_array_equal(ran(value), np.full((3, 2), value))
