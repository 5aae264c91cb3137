"""Network rules: each against the gradient, or what it is on average, or its own limit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import Phase as Stage, given, settings, strategies as st

import engrax
from engrax import ExportError, Fields, NetworkError, Phase, SimulationError, Simulator, networks as nets, rules, sweep
from engrax.credit import Ticked, _moment

TICKS, HIDDEN = 10, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(TICKS, 2))
Y = np.eye(2)[RNG.integers(2, size=TICKS)]
OUTPUT = nets.LeakyOutput(alpha=0.5, lateral=nets.Softmax())
DRIVE = {"input": X, "output.target": Y}
# Sums of some hundred float64 products of order 1 in two orders.
EXACT = 1e-12


def summing(eta: Any) -> optax.GradientTransformation:
    """No optimiser: weights stay, and its state is the sum of all gradients."""

    def update(gradient: Any, total: Any, weights: Any = None) -> Any:
        return jax.tree.map(jnp.zeros_like, gradient), jax.tree.map(jnp.add, total, gradient)

    return optax.GradientTransformation(lambda weights: jax.tree.map(jnp.zeros_like, weights), update)


def recurrent(rule: Any, **other: Any) -> nx.MultiDiGraph:
    hidden = nets.LeakyHidden(alpha=0.5)
    return nets.recurrent((2, HIDDEN, 2), rule, feedback=None, hidden=hidden, output=OUTPUT, bias=False, **other)


def summed(net: nx.MultiDiGraph, drive: Any = DRIVE, **run: Any) -> dict[str, np.ndarray]:
    """The sum of the gradients over a run, per projection."""
    sim = Simulator(net)
    sim.run(drive, **run)
    found = {}
    for memory in sim.state.credit.values():
        found |= {name: np.asarray(sim._layouts[name].unpack(blocks)) for name, blocks in memory.optimiser.items()}
    return found


def close(a: dict[str, np.ndarray], b: dict[str, Any], tolerance: float = EXACT) -> bool:
    assert a.keys() == b.keys()
    return all(np.abs(a[name] - b[name]).max() <= tolerance * (1 + np.abs(a[name]).max()) for name in a)


@pytest.fixture(scope="module")
def by_tick() -> dict[str, np.ndarray]:
    """The derivative of the loss of tick s by the weights of tick t of `recurrent`, written out: (s, t, post, pre)."""
    w = {name: np.asarray(p.w) for name, p in Simulator(recurrent(None)).params.items()}
    every = {name: jnp.broadcast_to(value, (TICKS, *value.shape)) for name, value in w.items()}

    def losses(w: dict[str, Any]) -> Any:
        h, v, found = jnp.zeros(HIDDEN), jnp.zeros(2), []
        for t in range(TICKS):
            h = (h + jnp.tanh(w["input->hidden"][t] @ X[t] + w["hidden->hidden"][t] @ h)) / 2
            v = (v + w["hidden->output"][t] @ h) / 2
            found.append(-(Y[t] * jax.nn.log_softmax(v)).sum())
        return jnp.stack(found)

    return {name: np.asarray(g) for name, g in jax.jit(jax.jacrev(losses))(every).items()}


def credited(by_tick: dict[str, np.ndarray], which: Any) -> dict[str, np.ndarray]:
    """The gradient with the credit from tick s to tick t where ``which(s, t)``."""
    s, t = np.indices((TICKS, TICKS))
    return {name: np.einsum("st,st...->...", which(s, t).astype(float), g) for name, g in by_tick.items()}


# Exact ones


EVERY = {
    "rtrl": rules.RTRL(optimiser=summing),
    "bptt": rules.BPTT(window=TICKS, optimiser=summing),
    "snap": rules.SnAp(n=2, optimiser=summing),  # in a dense layer every cell is two ticks away
}


@pytest.mark.parametrize("name", EVERY)
def test_exact_rules_are_the_gradient(by_tick: Any, name: str) -> None:
    assert close(credited(by_tick, lambda s, t: s >= t), summed(recurrent(EVERY[name])))


def test_windows_cut_the_credit(by_tick: Any) -> None:
    whole = credited(by_tick, lambda s, t: s >= t)
    windows = credited(by_tick, lambda s, t: s // 5 == t // 5)
    found = summed(recurrent(rules.BPTT(window=5, optimiser=summing)))
    assert close(windows, found)
    assert not close(whole, found, 1e-2)
    # the oldest of each window of 4 with what its losses say; the last three ticks are still in it
    sliding = credited(by_tick, lambda s, t: (s >= t) & (s < t + 4) & (t <= TICKS - 4))
    assert close(sliding, summed(recurrent(rules.BPTT(window=4, sliding=True, optimiser=summing))))


LATER = pytest.mark.slow  # compiled like the one beside it
ENDING = [rules.BPTT(window=4), pytest.param(rules.BPTT(window=4, sliding=True), marks=LATER),
          pytest.param(rules.RTRL(), marks=LATER)]  # fmt: skip


@pytest.mark.parametrize("rule", ENDING)
def test_a_phase_that_learns_at_its_end_owes_nothing(by_tick: Any, rule: Any) -> None:
    """Two trials of five ticks; the second starts afresh."""
    rule = eqx.tree_at(lambda r: r.eta, rule, 1.0)
    sim = Simulator(recurrent(rule))
    before = {name: p.w for name, p in sim.params.items()}
    trial = Phase("trial", ticks=TICKS, plastic="last", reset=True)
    sim.run(DRIVE, trial=trial)
    window = getattr(rule, "window", None)
    if window is None:
        expected = credited(by_tick, lambda s, t: s >= t)
    elif rule.sliding:
        expected = credited(by_tick, lambda s, t: (s >= t) & (s < np.maximum(t, 0) + window))
    else:
        expected = credited(by_tick, lambda s, t: s // window == t // window)
    assert close({name: before[name] - p.w for name, p in sim.params.items()}, expected)


class Two(nets.LeakyRate):
    """Two fields that go on, `v` and a trace of it."""

    def init(self) -> Fields:
        return Fields(x=0.0, v=0.0, slow=0.0)

    def step(self, state: Fields, ports: Fields, dt: float) -> Fields:
        v = 0.5 * state.v + ports.drive - 0.3 * state.slow
        return Fields(x=jnp.tanh(v), v=v, slow=0.8 * state.slow + 0.2 * state.v)


def drawn(data: Any, seed: int) -> nx.MultiDiGraph:
    """Two recurrent populations, delays, sparse wiring, several fields."""
    models = st.sampled_from(
        [nets.LeakyHidden(alpha=0.3), Two(), nets.LeakyRate(tau=2e-3), nets.Rate(lateral=nets.Softmax())]
    )
    topologies = st.sampled_from([nets.Dense(), nets.FixedInDegree(2, seed=seed)])
    delays = st.integers(1, 3)
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=2)
    sizes = {"a": 3, "b": 4}
    for name, size in sizes.items():
        net.add_node(name, neuron=data.draw(models), size=size)
        net.add_edge(name, name, delay=data.draw(delays), topology=data.draw(topologies))
    net.add_edge("input", "a")
    net.add_edge("a", "b", delay=data.draw(st.integers(0, 2)), topology=data.draw(topologies))
    net.add_edge("b", "a", delay=data.draw(delays))
    net.add_node("output", neuron=nets.Output(), size=2)
    net.add_edge("b", "output", gain=0.5)
    net.add_edge("a", "output", delay=data.draw(st.integers(0, 2)))
    for *_, edge in net.edges(data=True):
        edge["weights"] = nets.Normal(0.7)
    return net


@pytest.mark.slow
@settings(max_examples=12, phases=[Stage.generate])  # each compiles two programs: none is shrunk
@given(data=st.data())
def test_any_network(data: Any) -> None:
    """Exact rules against `jax.grad` of the step."""
    seed = data.draw(st.integers(0, 2**16))
    net = drawn(data, seed)
    batch = data.draw(st.sampled_from([None, 2]))
    rng = np.random.default_rng(seed)
    lead = (8,) if batch is None else (8, batch)
    drive = {"input": rng.normal(size=(*lead, 2)), "output.target": rng.normal(size=(*lead, 2))}
    sim = Simulator(net)
    sim._match_batch(batch)

    def loss(weights: Any) -> Any:
        state = eqx.tree_at(lambda s: [s.synapses[n].w for n in weights], sim.state, list(weights.values()))

        def tick(state: Any, row: Any) -> Any:
            after = sim.step(sim.model, state, row)
            return after, ((after.neurons["output"].drive - row["output.target"]) ** 2).sum(-1).mean() / 2

        return jax.lax.scan(tick, state, jax.tree.map(jnp.asarray, drive))[1].sum()

    weights = {name: s.w for name, s in sim.state.synapses.items()}
    gradient = jax.jit(jax.grad(loss))(weights)
    expected = {name: np.asarray(sim._layouts[name].unpack(blocks)) for name, blocks in gradient.items()}
    learner = data.draw(st.sampled_from([rules.RTRL, rules.BPTT, rules.SnAp]))
    given_ = {rules.RTRL: {}, rules.BPTT: {"window": 8}, rules.SnAp: {"n": 30}}[learner]
    nets.set_rule(net, learner(optimiser=summing, **given_), sim.params)
    assert close(expected, summed(net, drive), 1e-10)  # weights of order 1 over 8 ticks: sums of order 100


def test_what_a_reset_cuts() -> None:
    """Two trials in a row are two runs, whatever was remembered; without the reset they are not."""
    halves = [{name: rows[part] for name, rows in DRIVE.items()} for part in (slice(0, 5), slice(5, 10))]
    first, second = (summed(recurrent(EVERY["rtrl"]), half) for half in halves)
    apart = {name: first[name] + second[name] for name in first}
    for rule in (EVERY["rtrl"], rules.BPTT(window=10, optimiser=summing)):  # one window over both
        trial = Phase("trial", ticks=5, reset=True)
        assert close(apart, summed(recurrent(rule), trial=trial))
    partly = Phase("trial", ticks=5, reset={"hidden"})
    assert not close(apart, summed(recurrent(EVERY["rtrl"]), trial=partly), 1e-3)  # v goes on


@pytest.mark.parametrize("rule", [EVERY["rtrl"], *(pytest.param(EVERY[n], marks=LATER) for n in ("bptt", "snap"))])
def test_a_batch_learns_the_mean(rule: Any) -> None:
    rng = np.random.default_rng(1)
    batch = {"input": rng.normal(size=(TICKS, 3, 2)), "output.target": np.eye(2)[rng.integers(2, size=(TICKS, 3))]}
    single = [summed(recurrent(rule), {name: rows[:, k] for name, rows in batch.items()}) for k in range(3)]
    mean = {name: np.mean([one[name] for one in single], axis=0) for name in single[0]}
    assert close(mean, summed(recurrent(rule), batch))


@pytest.mark.slow
def test_snap_keeps_what_lies_within_so_many_ticks() -> None:
    """With cells that hear only themselves one tick is all; in a ring of four, each tick is one cell further."""
    alone = {"topology": nets.OneToOne()}
    ring = {"topology": np.roll(np.eye(HIDDEN), 1, axis=0) * 0.8}

    def wired(rule: Any, wiring: dict[str, Any]) -> Any:
        net = recurrent(rule)
        net.edges["hidden", "hidden", 0].update({"weights": None, **wiring})
        return summed(net)

    exact = {name: wired(EVERY["rtrl"], wiring) for name, wiring in (("alone", alone), ("ring", ring))}
    assert close(exact["alone"], wired(rules.SnAp(n=1, optimiser=summing), alone))
    assert not close(exact["ring"], wired(rules.SnAp(n=3, optimiser=summing), ring), 1e-4)
    assert close(exact["ring"], wired(rules.SnAp(n=4, optimiser=summing), ring))


@pytest.mark.slow
@settings(max_examples=8, phases=[Stage.generate])  # each compiles two programs: none is shrunk
@given(data=st.data())
def test_what_snap_needs_of_the_jacobian(data: Any) -> None:
    """Of any network the entries that SnAp-n keeps, in few directions and through few synapses, are the Jacobian's."""
    seed = data.draw(st.integers(0, 2**16))
    net, rule = drawn(data, seed), rules.SnAp(n=data.draw(st.integers(1, 2)))
    nets.set_rule(net, rule, list(Simulator(net).params))
    sim = Simulator(net)
    rng = np.random.default_rng(seed)
    lead = data.draw(st.sampled_from([(5,), (5, 2)]))
    sim.run({"input": rng.normal(size=(*lead, 2)), "output.target": rng.normal(size=(*lead, 2))})
    state, (group,) = sim.state, sim.network.groups.values()
    row = {("input", "drive"): jnp.asarray(rng.normal(size=(*lead[1:], 2)))}
    linked = jnp.asarray(rng.integers(2, size=(*lead[1:], group.size)), float)

    @jax.jit
    def both(state: Any) -> Any:
        neurons = sim.network.activity(sim.model, state, row, None)
        moment = _moment(sim.network, group, neurons, row, linked, None, Fields())
        tick = Ticked(sim.network, group, sim.model, state, moment, None, neurons)
        return tick.within(rule._kept(tick)), (tick.jacobian(), tick.arrivals()), rule._kept(tick)

    (among, direct), (jacobian, arrivals), kept = both(state)
    for target, places in kept.items():
        for i, own in enumerate(np.asarray(places).T):
            there = own < group.size
            rows = own[there]
            ours, theirs = among[target][..., i], direct[target][..., i]
            part = ours[..., there, :][..., there]
            assert np.allclose(part, jacobian[..., rows, :][..., rows], rtol=EXACT, atol=EXACT)
            assert np.allclose(theirs[..., there], arrivals[target][..., i][..., rows], rtol=EXACT, atol=EXACT)
            assert not np.any(ours[..., ~there, :])
            assert not np.any(theirs[..., ~there])


@pytest.mark.parametrize("n", [5, 50])
def test_snap_1_asks_as_much_of_a_wide_layer_as_of_a_narrow_one(n: int) -> None:
    """All hidden cells in one direction, through their synapses onto themselves; each of two outputs in its own."""
    sim = Simulator(nets.recurrent((2, n, 2), rules.SnAp(n=1), feedback=None, hidden=nets.LeakyHidden(alpha=0.5)))
    (group,) = sim.network.groups.values()
    ports = dict.fromkeys(group.lasting)
    kept = {port: np.nonzero(group.reached(port, 1).T)[1].reshape(group.sizes[port[0]], -1).T for port in ports}
    probes, asked = group.probes(kept)
    assert [len(probe.directions) for probe in probes] == [1, 2]
    assert probes[0].ways["hidden->hidden"].nnz == n
    assert np.array_equal(asked, [*n * [0], 1, 2, 3])


# Estimates: right on average

DRAWS = 4000
MADE = {
    # of what each of them remembers, the influence (K, post, pre) that it stands for
    "UORO": lambda past: jnp.einsum("k,ij->kij", past[0], past[1]["hidden->hidden"][0]),
    "KFRTRL": lambda past: jnp.einsum("j,ki->kij", past[0]["hidden->hidden"], past[1]["hidden.drive"]),
    "ReverseKFRTRL": lambda past: jnp.einsum("i,kj->kij", past[0]["hidden.drive"], past[1]["hidden->hidden"]),
}


@pytest.mark.parametrize("name", MADE)
def test_estimates_are_the_influence_on_average(name: str) -> None:
    sim = Simulator(recurrent(rule := getattr(rules, name)()))
    sim.run(DRIVE)
    group = sim.network.groups[next(iter(sim.network.groups))]
    state, influence = sim.state, MADE[name]
    past = state.credit[group.name].past  # whatever it is by now
    row = {("input", "drive"): jnp.asarray(X[0]), ("output", "target"): jnp.asarray(Y[0])}

    def tick(key: Any) -> Ticked:
        model = eqx.tree_at(lambda m: m.key, sim.model, key)
        neurons = sim.network.activity(model, state, row, None)
        moment = _moment(sim.network, group, neurons, row, state.credit[group.name].linked, None, Fields())
        return Ticked(sim.network, group, model, state, moment, None, neurons)

    def drawn(key: Any) -> Any:
        return influence(rule.follow(past, tick(key), False)[0])

    def expected(key: Any) -> Any:
        now = tick(key)
        direct = jnp.einsum("ki,j->kij", now.arrivals()["hidden.drive"], now.seen["hidden->hidden"])
        return jnp.einsum("kl,lij->kij", now.jacobian(), influence(past)) + direct  # J M + what is new

    draws = np.asarray(jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), DRAWS)))
    error = draws.std(0) / np.sqrt(DRAWS)
    wrong = np.abs(draws.mean(0) - jax.jit(expected)(jax.random.key(0)))
    assert wrong.max() > 0
    assert np.all(wrong <= 4 * error + EXACT)  # 4 standard errors: one of the 96 entries in 150 such tests is beyond


def test_dni_learns_what_later_ticks_say() -> None:
    """With weights that stay, its prediction turns towards the true credit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2))
    y = np.eye(2)[(np.roll(x, 1, 0)[:, 0] > 0).astype(int)]
    drive = {"input": x, "output.target": y}

    def cosine(rule: Any, reference: dict[str, np.ndarray]) -> float:
        found = summed(recurrent(rule), drive)["input->hidden"].ravel()
        truth = reference["input->hidden"].ravel()
        return float(found @ truth / np.sqrt((found @ found) * (truth @ truth)))

    exact = summed(recurrent(EVERY["rtrl"]), drive)
    untaught = cosine(rules.DNI(rate=0.0, optimiser=summing), exact)
    assert cosine(rules.DNI(rate=0.02, optimiser=summing), exact) > max(0.9, untaught)


# A learned influence


def kernl(net: nx.MultiDiGraph, drive: Any = DRIVE) -> tuple[Simulator, list[tuple[Any, ...]]]:
    """What KeRNL remembers after each tick: traces, A, alpha, (delta, Omega, Gamma)."""
    sim, seen = Simulator(net), []
    name = next(iter(sim.network.groups))
    sim.run(drive, callbacks=[lambda sim: seen.append(jax.tree.map(np.array, sim.state.credit[name].past))], chunk=1)
    return sim, seen


def test_a_tick_of_kernl_by_hand() -> None:
    """All equations in numpy, from what was remembered before; what the noise did is what Omega got on top."""
    rule = rules.KeRNL(rate=0.03, pace=0.02, leak=np.array([0.2, 0.9, 0.5, 1.0, 0.3, 0.4]), optimiser=summing)
    sim, seen = kernl(recurrent(rule), {name: rows[:4] for name, rows in DRIVE.items()})
    w = {name: np.asarray(p.w) for name, p in sim.params.items()}
    h, v, total = np.zeros(HIDDEN), np.zeros(2), {name: np.zeros(value.shape) for name, value in w.items()}
    for t in range(4):
        d = w["input->hidden"] @ X[t] + w["hidden->hidden"] @ h
        slope = 0.5 * (1 - np.tanh(d) ** 2)
        jacobian = np.zeros((6, 6))  # of (h, v)
        jacobian[:4, :4] = slope[:, None] * w["hidden->hidden"] + 0.5 * np.eye(4)
        jacobian[4:] = 0.5 * np.hstack([w["hidden->output"] @ jacobian[:4, :4], np.eye(2)])
        heard = {"input->hidden": X[t], "hidden->hidden": h, "hidden->output": (h + np.tanh(d)) / 2}
        h = heard["hidden->output"]
        v = (v + w["hidden->output"] @ h) / 2
        wrong = np.exp(v) / np.exp(v).sum() - Y[t]
        owed = {"hidden": 0.5 * wrong @ w["hidden->output"] * slope, "output": 0.5 * wrong}
        if t:
            traces, a, leak, (delta, omega, gamma) = seen[t - 1]
            told = wrong @ jacobian[4:] @ a
            fresh = seen[t][3][1] - (1 - leak) * omega
            np.testing.assert_allclose(np.abs(fresh), [*slope, 0.5, 0.5], atol=EXACT)  # of kicks of 1
            moved = jacobian @ delta + fresh
            moved[4:] += 0.5 * w["hidden->output"] @ fresh[:4]
            apart = moved - a @ seen[t][3][1]
            drawn = leak + 0.02 * (apart @ a) * ((1 - leak) * gamma - omega)
            expected = (a + 0.03 * np.outer(apart, seen[t][3][1]), np.clip(drawn, 0, 1), moved)
            for ours, theirs in zip((*seen[t][1:3], seen[t][3][0]), expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=EXACT)
        for name, x in heard.items():
            part, where = ("hidden", slice(4)) if name.endswith("hidden") else ("output", slice(4, 6))
            total[name] += np.outer(owed[part], x)
            if t:
                total[name] += told[where, None] * traces[name][0]
                fading = (1 - leak[where, None]) * traces[name][0]
                fresh = np.outer(slope if part == "hidden" else [0.5, 0.5], x)
                np.testing.assert_allclose(seen[t][0][name][0], fading + fresh, atol=EXACT)
    assert close(total, {n: np.asarray(b[0]) for n, b in next(iter(sim.state.credit.values())).optimiser.items()})


@pytest.mark.parametrize("gain", [0.0, pytest.param(1.0, marks=LATER)])
def test_kernl_that_learns_nothing_of_the_network_is_rflo(gain: float) -> None:
    """Its traces always; its gradient where a cell hears no other: a tick's own loss goes through that tick exactly."""
    fixed = rules.KeRNL(rate=0.0, pace=0.0, leak=0.5, optimiser=summing)
    net = recurrent(fixed, recurrent=nets.Orthogonal(gain))
    sim = Simulator(net)
    sim.run(DRIVE)
    memory = next(iter(sim.state.credit.values()))
    nets.add_feedback(net)
    nets.set_rule(net, rules.Accumulated(rules.RFLO(eta=1.0), signal="never"), [*sim.params])
    local = Simulator(net)
    local.run(DRIVE, signals={"never": 0.0})
    for name, traces in memory.past[0].items():
        syn = local.state.synapses[name].syn
        np.testing.assert_allclose(traces[0], syn.trace[0], atol=EXACT)
        apart = np.abs(memory.optimiser[name][0] + syn.total[0]).max()
        assert apart < EXACT if gain == 0 or name.endswith("output") else apart > 1e-2, name


@pytest.mark.parametrize("learns", ["A", pytest.param("alpha", marks=LATER)])
def test_kernl_learns_what_the_network_does(learns: str) -> None:
    """A linear network, J at every tick. With leaks that stay, the best A is (1 - k^2) / (1 - k J), k = 1 - alpha, and
    the regression wanders about it by some sqrt(rate / 2) = .02 an entry, times the size of what is left over, which is
    below 1: five of these. With cells that hear only themselves and A = 1 the leak becomes 1 - J, where nothing is left
    over."""
    hidden = nets.LeakyHidden(alpha=0.5, activation=jax.nn.identity)
    w = np.diag([0.8, 0.2, -0.4]) if learns == "alpha" else 0.8 * np.roll(np.eye(3), 1, 0)
    rule = rules.KeRNL(rate=1e-3, pace=0.0, leak=0.4) if learns == "A" else rules.KeRNL(rate=0.0, pace=3e-3)
    net = nets.recurrent((1, 3, 1), eqx.tree_at(lambda r: r.eta, rule, 0.0), hidden=hidden, feedback=None, bias=False)
    net.edges["hidden", "hidden", 0]["weights"] = w
    net.edges["hidden", "output", 0]["weights"] = 0.0  # whose v is carried, too
    sim = Simulator(net)
    sim.run({"input": np.zeros((20_000, 1))})
    _, a, leak, _ = next(iter(sim.state.credit.values())).past
    jacobian = (np.eye(3) + w) / 2
    if learns == "A":
        best = (1 - 0.6**2) * np.linalg.inv(np.eye(3) - 0.6 * jacobian)
        assert np.abs(best - np.eye(3)).max() > 0.2
        np.testing.assert_allclose(a[:3, :3], best, atol=0.1)
    else:
        np.testing.assert_allclose(leak[:3], 1 - np.diag(jacobian), atol=1e-3)  # it was 0.8


@pytest.mark.slow
def test_kernl_begins_anew_where_it_is_reset_and_learns_the_mean_of_a_batch() -> None:
    fixed = rules.KeRNL(rate=0.0, pace=0.0, leak=0.3, optimiser=summing)
    halves = [{name: rows[part] for name, rows in DRIVE.items()} for part in (slice(0, 5), slice(5, 10))]
    first, second = (summed(recurrent(fixed), half) for half in halves)
    trial = Phase("trial", ticks=5, reset=True)
    assert close({name: first[name] + second[name] for name in first}, summed(recurrent(fixed), trial=trial))
    both = {name: np.stack([half[name] for half in halves], 1) for name in DRIVE}
    assert close({name: (first[name] + second[name]) / 2 for name in first}, summed(recurrent(fixed), both))


def test_kernl_wants_cells_with_one_number() -> None:
    net = recurrent(rules.KeRNL())
    net.nodes["hidden"]["neuron"] = Two()
    with pytest.raises(ValueError, match=r"what arrives at 'hidden.drive' reaches 2 fields"):
        Simulator(net)


# The engine around them


def test_local_and_network_rules_on_one_network() -> None:
    """A readout that learns by Delta, in the same run, is the same as one that follows the gradient."""
    hidden, output = nets.LeakyHidden(), nets.LeakyOutput(lateral=nets.Softmax())
    layers = {"feedback": None, "hidden": hidden, "output": output}
    both = Simulator(nets.recurrent((2, HIDDEN, 2), rules.RTRL(eta=0.1), **layers))
    mixed = Simulator(nets.recurrent((2, HIDDEN, 2), rules.RTRL(eta=0.1), readout=rules.Delta(eta=0.1), **layers))
    for sim in (both, mixed):
        sim.run(DRIVE)
    assert close({n: p.w for n, p in both.params.items()}, {n: p.w for n, p in mixed.params.items()})


@pytest.mark.parametrize(
    "rule",
    [
        rules.BPTT(eta=0.01, window=7, optimiser=optax.adam),
        pytest.param(rules.UORO(eta=0.01, optimiser=optax.adam), marks=LATER),
    ],
)
def test_resumed_bit_for_bit(tmp_path: Any, rule: Any) -> None:
    """In the middle of a window, with an optimiser that has a state."""
    whole, cut = Simulator(recurrent(rule)), Simulator(recurrent(rule))
    whole.run(DRIVE)
    with cut.record(tmp_path / "run.h5", {"hidden.x": 1}):
        cut.run({name: rows[:5] for name, rows in DRIVE.items()})
    resumed = Simulator.resume(tmp_path / "run.h5")
    resumed.run({name: rows[5:] for name, rows in DRIVE.items()})
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_sweep_is_its_points() -> None:
    net = recurrent(rules.UORO(eta=0.1))
    found = sweep(net, {"hidden->hidden.eta": [0.1, 0.2], "seed": [3]})
    found.run(DRIVE)
    single = Simulator(recurrent(rules.UORO(eta=0.2)), seed=3)
    single.run(DRIVE)
    assert close({n: p.w[1] for n, p in found.params.items()}, {n: p.w for n, p in single.params.items()})


def test_what_network_rules_cannot_do() -> None:
    with pytest.raises(TypeError, match=r"Decay cannot wrap RTRL.*optimiser"):
        rules.Decay(rules.RTRL())
    net = recurrent(rules.RTRL())
    with pytest.raises(ExportError, match="'input->hidden' learns by RTRL"):
        engrax.to_brian2(net)
    net.nodes["output"]["neuron"] = nets.Linear()
    with pytest.raises(NetworkError, match="told what they should have been"):
        Simulator(net)
    net = recurrent(rules.RTRL())
    net.add_edge("output", "hidden", port="apical", field="error", rule=rules.RTRL(), name="back")
    with pytest.raises(NetworkError, match=r"'back': nothing that is told \(output\) can tell RTRL about it"):
        Simulator(net)
    net = recurrent(rules.RTRL())
    net.edges["input", "hidden", 0]["release"] = 0.5
    with pytest.raises(NetworkError, match="synapses that fail"):
        Simulator(net)

    class Remembers(nets.Output):
        def step(self, state: Fields, ports: Fields) -> Fields:  # type: ignore[override]
            return Fields(x=0.5 * state.x + ports.drive)

    net = recurrent(rules.RTRL())
    net.nodes["output"]["neuron"] = Remembers()
    with pytest.raises(NetworkError, match="Remembers has a memory"):
        Simulator(net)
    with pytest.raises(ValueError, match="at least 1"):
        rules.BPTT(window=0)


@pytest.mark.slow
def test_influence_that_explodes_is_named() -> None:
    net = recurrent(rules.RTRL(optimiser=summing))
    net.nodes["hidden"]["neuron"] = nets.LeakyHidden(activation=jax.nn.identity)
    net.edges["hidden", "hidden", 0]["weights"] = np.eye(HIDDEN) * 1e80
    with pytest.raises(SimulationError, match=r"became infinite|remembers of the past"):
        Simulator(net).run(DRIVE)


def test_they_are_global_and_typed_so() -> None:
    assert not isinstance(rules.RTRL(), rules.LocalRule)
    assert engrax.locality(rules.BPTT()).level == "global"


def test_alignment() -> None:
    """The gradient is along the gradient; RFLO is for the readout, and nearly elsewhere; a wrong sign is against it."""
    hidden, output = nets.LeakyHidden(alpha=0.5), nets.LeakyOutput(lateral=nets.Softmax())
    net = nets.recurrent((2, HIDDEN, 2), rules.RFLO(), feedback="symmetric", hidden=hidden, output=output)
    cosines = engrax.alignment(net, DRIVE, {"RTRL": rules.RTRL(), "RFLO": rules.RFLO(), "away": rules.RFLO(eta=-0.01)})
    assert all(found.shape == (1,) for found in cosines["RTRL"].values())
    assert all(abs(found - 1) < EXACT for found in cosines["RTRL"].values())
    assert abs(cosines["RFLO"]["hidden->output"] - 1) < EXACT  # exact there
    assert 0.1 < cosines["RFLO"]["hidden->hidden"] < 1 - 1e-6
    assert all(abs(cosines["RFLO"][name] + cosines["away"][name]) < 1e-12 for name in cosines["RFLO"])
    parts = engrax.alignment(net, DRIVE, {"RTRL": rules.RTRL()}, reference=rules.SnAp(n=2), every=2)
    assert parts["RTRL"]["hidden->hidden"] == pytest.approx(np.ones(TICKS // 2), abs=EXACT)
    with pytest.raises(SimulationError, match="no whole number"):
        engrax.alignment(net, DRIVE, {}, every=3)
