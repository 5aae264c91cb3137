"""Between spiking neurons a tick looks only at the synapses of those that spiked; what it computes is the same."""

import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from engrax import Fields, Phase, Recording, Simulator, bits, kernels, networks as nets, rules, sweep
from engrax.layout import EventLayout, Layout

pytest.importorskip("llvmlite")

N = 30
EDGE = "cells->cells"
# Spikes are the same; weights differ by the order of sums and by what exp of two libraries differ: roundings of 1e-16.
ROUNDING = 1e-12


@pytest.fixture(autouse=True)
def by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MANY", 1)


def looking_everywhere(function: Callable[[], Any]) -> Any:
    """The same, looking at all synapses in every tick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "MANY", sys.maxsize)
        return function()


def matrix(seed: int = 0) -> sp.csr_array:
    rng = np.random.default_rng(seed)
    present = rng.random((N, N)) < 0.8 * rng.random((N, 1)) ** 2  # some hear many, some nobody
    present[:, 3] = False  # and one is heard by nobody
    return sp.csr_array(np.where(present, rng.uniform(0, 2, (N, N)), 0))


def network(rule: Any = None, delay: int = 1, neuron: Any = None, field: str = "x") -> nx.MultiDiGraph:
    """Cells that are driven to spike every few ticks, at random times."""
    rng = np.random.default_rng(1)
    if neuron is None:
        neuron = nets.LIF(rest=rng.uniform(-49, -40, N), start=rng.uniform(-60, -50, N), refractory=0.002, tau=0.01)
    net = nx.MultiDiGraph()
    net.add_node("cells", neuron=neuron, size=N)
    net.add_edge("cells", "cells", port="excitatory" if field == "x" else "drive", topology=matrix(), rule=rule,
                 delay=delay, field=field)  # fmt: skip
    return net


STDP = rules.STDP(a_plus=0.1, a_minus=0.12)


class Held(rules.Rule):
    """State that is a synapse's own and stays while nothing happens, beside one of each neuron's."""

    gain: float = 0.1

    def init(self) -> Fields:
        return Fields(count=0.0, fast=0.0, slow=1.0)

    def update(self, w: Any, pre: Any, post: Any, syn: Any, dt: Any) -> Any:
        count = jnp.where(post.x > 0, syn.count + pre.x + w, syn.count)
        fast = jnp.tanh(0.9 * syn.fast + pre.x)
        slow = syn.slow + dt * (post.v - syn.slow)
        return self.gain * (pre.x * jnp.tanh(slow) + post.x * fast * syn.count), Fields(
            count=count, fast=fast, slow=slow
        )


EVENTFUL = {
    "STDP": (STDP, {"r": "pre", "o": "post"}),
    "nearest": (rules.STDP(a_plus=0.1, nearest=True), {"r": "pre", "o": "post"}),
    "triplets": (rules.TripletSTDP(a2_plus=0.1, a3_minus=0.1), {"r1": "pre", "r2": "pre", "o1": "post", "o2": "post"}),
    "Vogels": (rules.Vogels2011(eta=0.1), {"r": "pre", "o": "post"}),
    "bounded": (rules.Bounded(STDP, low=0.3, high=1.5), {"r": "pre", "o": "post"}),
    "soft": (rules.SoftBounded(STDP, high=3.0), {"r": "pre", "o": "post"}),
    "Dale": (rules.Dale(STDP), {"r": "pre", "o": "post"}),
    "rewarded": (rules.Gated(STDP, signal="reward"), {"r": "pre", "o": "post"}),
    "every third tick": (rules.Every(STDP, n=3), {"r": "pre", "o": "post"}),
    "Hebb": (rules.Hebb(eta=0.1), {}),
    "held": (rules.Bounded(Held(), low=-3.0, high=3.0), {"fast": "pre", "slow": "post"}),
}
UNEVENTFUL = {
    "decays": rules.Decay(STDP),
    "remembers": rules.Eligible(STDP, signal="reward"),
    "scales": rules.Homeostatic(STDP),
    "recovers": rules.TsodyksMarkram(),
    "noisy": rules.Noisy(STDP),
    "sums": rules.Normalised(STDP),
    "potentials": rules.Clopath2010(),
    "shrinks twice": rules.Dale(STDP, sign=0.5),
}


def outcome(net: nx.Graph, ticks: int = 40, sim: Any = None, **options: Any) -> dict[str, np.ndarray]:
    sim = sim or Simulator(net)
    options = {"signals": {"reward": np.linspace(-1, 1, ticks)}} | options
    found = sim.run(ticks=None if "trials" in options else ticks, record={"cells.x": 1, "cells.v": 1}, **options)
    assert found["cells.x"].sum() > 3 * N, "nearly nobody spiked"
    return found | {name: np.asarray(value) for name, value in sim.params[EDGE].items()}


def layout_of(net: nx.Graph) -> Layout:
    return Simulator(net)._layouts[EDGE]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=ROUNDING, atol=ROUNDING, err_msg=name)


QUICK = ("STDP", "bounded", "rewarded", "held", "no rule")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in (*EVENTFUL, "no rule")]
)
def test_looking_at_spikes_equals_looking_everywhere(name: str) -> None:
    net = network(EVENTFUL[name][0] if name in EVENTFUL else None, delay=3 if name == "STDP" else 1)
    assert isinstance(layout_of(net), EventLayout)
    found, expected = outcome(net), looking_everywhere(lambda: outcome(net))
    np.testing.assert_array_equal(found["cells.x"], expected["cells.x"])
    assert_same(found, expected)
    changed = np.mean(~np.isclose(found["w"], matrix().data, atol=1e-6))
    assert (changed > 0) == (name in EVENTFUL)


@pytest.mark.parametrize("name", EVENTFUL)
def test_whose_state_it_is_is_read_off_the_rule(name: str) -> None:
    rule, held = EVENTFUL[name]
    sim = Simulator(network(rule))
    assert sim.network.traced[EDGE].held == held
    sizes = {field: value.values.shape for field, value in sim.state.synapses[EDGE].syn.items() if field in held}
    assert sizes == dict.fromkeys(held, (N,))
    assert {sim.params[EDGE][field].shape for field in sim.params[EDGE]} == {matrix().data.shape}


@pytest.mark.parametrize("name", UNEVENTFUL)
def test_a_rule_with_something_to_do_in_silence_looks_everywhere(name: str) -> None:
    assert not isinstance(layout_of(network(UNEVENTFUL[name])), EventLayout)


def test_neurons_that_do_not_spike_are_looked_at_in_every_tick() -> None:
    assert not isinstance(layout_of(network(STDP, field="v")), EventLayout)
    assert not isinstance(layout_of(network(rules.Hebb(), field="v")), EventLayout)
    graded = network(rules.Hebb(), neuron=nets.Rate(), field="x")
    graded.edges["cells", "cells", 0]["port"] = "drive"
    assert not isinstance(layout_of(graded), EventLayout)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_every_model_of_a_spiking_neuron(batch: tuple[int, ...]) -> None:
    models = [m for m in vars(nets).values() if inspect.isclass(m) and issubclass(m, nets.Spiking)]
    senders = {model.__name__: model for model in models if not inspect.isabstract(model)}
    assert {"LIF", "Poisson", "SpikeSource"} <= senders.keys()
    net = network()
    for name, model in senders.items():
        net.add_node(name, neuron=model(), size=N)
        net.add_edge(name, "cells", port="excitatory", topology=matrix(), rule=STDP)
    rng = np.random.default_rng(0)
    drive = {name: rng.uniform(-100, 1000, (40, *batch, N)) for name in senders}
    record = {f"{name}.x": 1 for name in ("cells", *senders)} | {f"{name}->cells.w": 40 for name in senders}

    def run() -> dict[str, np.ndarray]:
        return Simulator(net).run(drive, record=record)

    found, expected = run(), looking_everywhere(run)
    silent = [name for name in senders if not found[f"{name}.x"].any()]
    assert not silent
    for name in senders:
        np.testing.assert_array_equal(found[f"{name}.x"], expected[f"{name}.x"], err_msg=name)
    assert_same(found, expected)


def test_a_batch() -> None:
    drive = {"cells.drive": np.random.default_rng(0).normal(0, 3, (40, 3, N))}
    for rule in (None, rules.Bounded(STDP, low=0.0)):
        net = network(rule)
        found = outcome(net, drive=drive)
        assert found["cells.x"].shape == (40, 3, N)
        assert_same(found, looking_everywhere(lambda net=net: outcome(net, drive=drive)))


def test_a_sweep_equals_its_points() -> None:
    net = network(rules.Bounded(STDP, low=0.0, high=1.2))
    values = [0.05, 0.2]

    def swept(batch: bool) -> dict[str, np.ndarray]:
        drive = {"drive": {"cells.drive": np.random.default_rng(0).normal(0, 3, (40, 2, N))}} if batch else {}
        return outcome(net, sim=sweep(net, {f"{EDGE}.rule.a_plus": values}), **drive)

    for batch in (False, True):
        found = swept(batch)
        assert_same(found, looking_everywhere(lambda batch=batch: swept(batch)))
        assert not np.allclose(found["w"][0], found["w"][1])
    alone = outcome(net, sim=sweep(net, {f"{EDGE}.rule.a_plus": values[1:]}))
    np.testing.assert_allclose(swept(False)["w"][1], alone["w"][0], rtol=ROUNDING)


def test_phases_in_which_nothing_is_learned() -> None:
    trial = [Phase("listen", ticks=7, plastic="never"), Phase("learn", ticks=9, plastic="last"), Phase("act", ticks=4)]
    options: dict[str, Any] = {"trial": trial, "trials": 4, "signals": {}}
    found = outcome(network(STDP), **options)
    assert_same(found, looking_everywhere(lambda: outcome(network(STDP), **options)))


def test_weights_from_outside_are_put_within_the_bounds() -> None:
    """A constraint is applied where something happens: elsewhere, weights must be within it from the start."""
    sim = Simulator(network(rules.Bounded(STDP, low=0.5, high=1.0)))
    w = sim.params[EDGE].w
    assert w.min() == 0.5 and w.max() == 1.0
    sim.set_weights(EDGE, np.full(w.shape, 7.0))
    np.testing.assert_array_equal(sim.params[EDGE].w, 1.0)
    points = sweep(network(rules.Bounded(STDP, low=0.5)), {f"{EDGE}.high": [1.0, 2.0]})
    points.set_weights(EDGE, np.full(w.shape, 7.0))
    np.testing.assert_array_equal(points.params[EDGE].w.max(1), [1.0, 2.0])


def test_gradients_equal_those_of_looking_everywhere() -> None:
    def gradient() -> dict[str, np.ndarray]:
        sim = Simulator(network(rules.Bounded(STDP, low=-5.0)))
        for _ in range(3):
            sim.run(ticks=4)

        def loss(of_rules: Any, w: Any) -> Any:
            model = type(sim.model)(sim.model.neurons, of_rules, sim.model.layouts, sim.model.key)
            synapses = {EDGE: type(sim.state.synapses[EDGE])(w, sim.state.synapses[EDGE].syn)}
            state = dataclasses.replace(sim.state, synapses=synapses)
            for _ in range(4):
                state = sim.step(model, state, {})
            weights = sum(jnp.sum(w**2) for w in state.synapses[EDGE].w)
            return jnp.sum(state.neurons["cells"].v ** 2) + weights

        of_rules, w = jax.jit(jax.grad(loss, (0, 1)))(sim.model.rules, sim.state.synapses[EDGE].w)
        layout = sim._layouts[EDGE]
        return {"a_plus": np.asarray(of_rules[EDGE].rule.a_plus), "w": np.asarray(layout.unpack(w))}

    found = gradient()
    assert found["a_plus"] != 0
    expected = looking_everywhere(gradient)
    for name in expected:  # sums of some thousand numbers of order 1e3
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)


def test_recordings_and_resuming(tmp_path: Any) -> None:
    """Traces are kept per neuron and recorded per synapse; a run goes on bit for bit."""
    net = network(rules.Bounded(STDP, low=0.0, high=2.0), delay=2)
    path = tmp_path / "run.h5"
    sim = Simulator(net)
    with sim.record(path, {f"{EDGE}.r": 10, f"{EDGE}.w": 20, "cells.spikes": 1}):
        sim.run(ticks=60)
    again = Simulator.resume(path)
    for one in (sim, again):
        one.run(ticks=40)
    jax.tree.map(np.testing.assert_array_equal, sim.state, again.state)
    with Recording(path) as recording:
        r = recording.values(f"{EDGE}.r")
    expected = looking_everywhere(lambda: Simulator(net).run(ticks=60, record={f"{EDGE}.r": 10}))[f"{EDGE}.r"]
    np.testing.assert_allclose(r, expected, rtol=ROUNDING)


def test_without_llvmlite_all_synapses_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    kernels._version.cache_clear()
    try:
        assert not isinstance(layout_of(network(STDP)), EventLayout)
    finally:
        kernels._version.cache_clear()


def test_rounding_depends_neither_on_recording_nor_on_chunks() -> None:
    net = network(rules.Bounded(STDP, low=0.0, high=2.0), delay=2)
    assert Simulator(net).network.in_loops
    outcomes = []
    for record in ({}, {"cells.v": 1, f"{EDGE}.r": 1, f"{EDGE}.w": 10}, {"cells.spikes": 1, "cells.excitatory": 7}):
        for chunk in (None, 10, 1):
            sim = Simulator(net)
            sim.run(ticks=40, record=record, chunk=chunk)
            outcomes.append((sim.state.neurons, sim.state.synapses))
    for outcome in outcomes[1:]:
        jax.tree.map(np.testing.assert_array_equal, outcomes[0], outcome)


@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (3, 2, 200)])
def test_spikes_travel_as_bits(shape: tuple[int, ...]) -> None:
    """Of one neuron, of whole blocks and of those with a rest, under a sweep and a batch; graded, negative and NaN."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(shape) < 0.1, rng.normal(size=shape), 0.0)
    values[..., 0], values[..., -1] = np.nan, -1e-300
    words = np.asarray(jax.jit(bits.packed)(jnp.asarray(values)))
    assert words.shape == (*shape[:-1], -(-shape[-1] // 32))
    for found, expected in zip(bits.unpacked(words), np.nonzero(values), strict=True):
        np.testing.assert_array_equal(found, expected)
