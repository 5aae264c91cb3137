"""Brian2 does the same ticks: fields and weights to 1e-12, spikes one by one."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from conftest import probe
from hypothesis import Phase, given, settings, strategies as st

from engrax import (
    ExportError,
    Fields,
    Rule,
    Simulator,
    brian2_script,
    kernels,
    learned,
    locality,
    networks as nets,
    rules,
    to_brian2,
)

b2 = pytest.importorskip("brian2")
b2.prefs.codegen.target = "numpy"
TICKS = 40


def arrays(seed: int, *shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def same(
    net: nx.MultiDiGraph,
    drive: dict[str, Any],
    signals: dict[str, Any] | None = None,
    *,
    ticks: int = TICKS,
    dt: float = 1e-3,
    tolerance: float = 1e-12,
) -> dict[str, np.ndarray]:
    """Run both; compare every field of every population and projection after every tick. Returns engrax's samples."""
    sim = Simulator(net, seed=3, dt=dt)
    brian = to_brian2(sim, drive, signals)
    fields = [
        f"{name}.{f}"
        for name, state in sim.state.neurons.items()
        for f in sim.network.circuit.populations[name].neuron.init()
    ]
    fields += [f"{name}.{f}" for name in sim.state.synapses for f in sim._fields_of(name)]
    monitors = {}
    for name in fields:
        owner, _, label = name.rpartition(".")
        owner = re.sub(r"\W+", "_", owner)
        monitor = b2.StateMonitor(brian[owner], label, record=True, when="end", order=100, dt=dt * b2.second)
        brian.add(monitor)
        monitors[name] = monitor, label
    brian.run(ticks * dt * b2.second)
    found = sim.run(drive, signals=signals, ticks=ticks, record=dict.fromkeys(fields, 1))
    for name, (monitor, label) in monitors.items():
        theirs = np.asarray(getattr(monitor, label)).T
        ours = found[name]
        if ours.ndim == 3:  # a dense projection, which Brian2 numbers by pre neuron
            ours = ours.transpose(0, 2, 1).reshape(len(ours), -1)
        np.testing.assert_allclose(theirs, ours, rtol=tolerance, atol=tolerance, err_msg=name)
    return found


NEURONS: dict[str, nets.Neuron] = {
    "Linear": nets.Linear(bias=0.1), "Rate": nets.Rate(bias=0.3), "LeakyRate": nets.LeakyRate(),
    "Hidden": nets.Hidden(), "Output": nets.Output(activation=jax.nn.sigmoid),
    "TargetHidden": nets.TargetHidden(), "TargetOutput": nets.TargetOutput(),
    "Settling": nets.Settling(leak=0.2), "ScaledSettling": nets.ScaledSettling(leak=0.2),
    "LeakyBinary": nets.LeakyBinary(), "Integrator": nets.Integrator(rate=0.1), "Constant": nets.Constant(0.7),
    "Input": nets.Input(), "LIF": nets.LIF(), "ConductanceLIF": nets.ConductanceLIF(),
    "AdaptiveLIF": nets.AdaptiveLIF(), "Izhikevich": nets.Izhikevich(), "AdEx": nets.AdEx(),
    "SpikeSource": nets.SpikeSource(), "MeanField": nets.Bernoulli().mean_field(),
    "Scaled": nets.Scaled(nets.Hidden(), 0.3), "Change": nets.Change(), "LogLikelihood": nets.LogLikelihood(),
    "PredictiveValue": nets.PredictiveValue(),
    "PredictiveError": nets.PredictiveError(2.0), "EnergyUnit": nets.EnergyUnit(), "GoodnessUnit": nets.GoodnessUnit(),
    "Dendritic": nets.Dendritic(), "LeakyHidden": nets.LeakyHidden(), "LeakyOutput": nets.LeakyOutput(),
    "SurrogateLIF": nets.SurrogateLIF(beta=0.1, refractory=0.002), "TDError": nets.TDError(),
    "LearnedNeuron": nets.LearnedNeuron.make(size=1.0), "LearnedInput": nets.LearnedInput(nets.LearnedNeuron.make(3)),
    "ReplayHidden": nets.ReplayHidden(), "SoftplusHidden": nets.SoftplusHidden(), "SoftplusInput": nets.SoftplusInput(),
}  # fmt: skip


def test_every_neuron_is_tried() -> None:
    known = {name for name in nets.__all__ if inspect.isclass(c := getattr(nets, name)) and issubclass(c, nets.Neuron)}
    bases = {"Neuron", "Spiking", "Stochastic", "NeuronWrapper"}
    random = {"Poisson", "Bernoulli", "BinomialCount", "PoissonCount", "Dropout", "OneBit", "OneBitLargest"}
    random |= {"Perturbed", "Antithetic", "Gibbs", "Helmholtz", "Kicked"}
    refused = {"Index", "Prioritised", "BatchNormalised"}  # look at the whole population, or at a batch
    assert known - bases - random - refused == set(NEURONS)


@pytest.mark.parametrize("name", NEURONS)
def test_neurons(name: str) -> None:
    """With drive on every port, and a projection to it and from it."""
    neuron = NEURONS[name]
    net = nx.MultiDiGraph()
    net.add_node("source", neuron=nets.Input(), size=3)
    net.add_node("cell", neuron=neuron, size=4)
    net.add_node("sink", neuron=nets.Linear(), size=2)
    spiking = isinstance(neuron, nets.Spiking)
    dt, scale = (1e-4, 30.0) if spiking else (1e-3, 1.0)
    low = 0.0 if spiking and name != "SpikeSource" else -1.0
    drive = {"source": scale * arrays(0, 400 if spiking else TICKS, 3, low=low)}
    if neuron.ports:
        port = "drive" if spiking else neuron.ports[-1]
        net.add_edge("source", "cell", port=port, weights=nets.Uniform(0.5, 1.0))
    net.add_edge("cell", "sink")
    if neuron.loads:
        net.add_edge("cell", "cell", port="lateral", delay=1)
    found = same(net, drive, ticks=len(drive["source"]), dt=dt, tolerance=1e-10 if spiking else 1e-12)
    if spiking:
        assert 0 < found["cell.x"].sum() < found["cell.x"].size


@pytest.mark.parametrize(
    ("neuron", "mean", "variance"),
    [
        (nets.Dropout(nets.Bernoulli(), rate=0.25), 0.3, 0.21),
        (nets.BinomialCount(ticks=5), 2.0, 1.2),
        (nets.PoissonCount(ticks=5), 2.0, 2.0),
    ],
)
def test_random_units_are_as_random_there(neuron: nets.Neuron, mean: float, variance: float) -> None:
    """The count's distribution function is a sum over the elements of an array."""
    net = nx.MultiDiGraph()
    net.add_node("source", neuron=nets.Input(), size=1)
    net.add_node("cell", neuron=neuron, size=400)
    net.add_edge("source", "cell", weights=1.0, gain=2.0)
    drive = np.full((TICKS, 1), np.log(0.4 / 0.6) / 2)
    brian = to_brian2(net, {"source": drive})
    b2.seed(1)
    monitor = b2.StateMonitor(brian["cell"], "x", record=True, when="end", order=100)
    brian.add(monitor)
    brian.run(TICKS * b2.ms)
    x = np.asarray(monitor.x)
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / x.size)  # five standard errors
    for other in (nets.OneBitLargest(nets.Hidden()), nets.Index()):
        net.nodes["cell"]["neuron"] = other
        with pytest.raises(ExportError, match=rf"{type(other).__name__} looks at the whole population"):
            to_brian2(net, {"source": drive})


MADE: dict[str, Any] = {
    "Bounded": rules.Bounded(rules.Hebb(eta=0.1), low=-0.2, high=0.2), "Dale": rules.Dale(rules.Hebb(eta=0.1)),
    "Normalised": rules.Normalised(rules.Hebb(eta=0.1)), "Decay": rules.Decay(rules.Hebb(eta=0.1), rate=0.1),
    "Gated": rules.Gated(rules.Hebb(eta=0.1)), "Every": rules.Every(rules.Hebb(eta=0.1), n=3),
    "Released": rules.Released(rules.Hebb(eta=0.1)),
    "Scheduled": rules.Scheduled(rules.Hebb(eta=0.1), schedule=lambda count: 0.9**(0.5 * count)),
    "SoftBounded": rules.SoftBounded(rules.Hebb(eta=0.1), low=-2.0, high=2.0, mu=0.5),
    "Momentum": rules.Momentum(rules.Hebb(eta=0.01), mu=0.5), "Fast": rules.Fast(rules.Hebb(eta=0.1)),
    "Accumulated": rules.Accumulated(rules.Hebb(eta=0.1), signal="gate"),
    "Adam": rules.Adam(rules.Hebb(eta=0.1), eta=0.01, signal=None),
    "Volterra": rules.Volterra.of({"110": 1.0, "021": -1.0, "202": 0.5}, eta=0.1),
    "ABCD": rules.ABCD(eta=0.1, a=arrays(1, 4, 3), b=0.2, d=arrays(2, 4, 3)),  # numbers for each synapse
    "Pool": rules.Pool.of({str(n): 0.05 + 0.01 * n for n in range(10)}),
    "Eligible": rules.Eligible(rules.STDP()), "Homeostatic": rules.Homeostatic(rules.STDP()),
}  # fmt: skip
TIMED = ("SpikES", "STDP", "TripletSTDP", "Vogels2011", "TsodyksMarkram", "Clopath2010", "Eligible")
REFUSED = {"Sanger": "sums over a pre neuron's synapses", "Fast": "has fast weights on top of the slow ones"}


def listed() -> list[str]:
    classes = {name: getattr(rules, name) for name in rules.__all__ if inspect.isclass(getattr(rules, name))}
    abstract = {"LocalRule", "Rule", "Wrapper", "Noisy", "WeightPerturbation"}
    return [name for name, c in classes.items() if issubclass(c, rules.LocalRule) and name not in abstract]


@pytest.mark.parametrize("name", listed())
def test_rules(name: str) -> None:
    """Every field that the rule reads is driven from outside; the pre neurons are heard two ticks late."""
    rule = MADE.get(name) or getattr(rules, name)()
    reads = {read.partition(".")[::2] for read in locality(rule).reads}
    fields = frozenset({field for group, field in reads if group in ("pre", "post")} | {"x"})
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=probe(fields), size=3)
    net.add_node("b", neuron=probe(fields), size=4)
    low = 0.1 if name == "TsodyksMarkram" else -0.3
    net.add_edge("a", "b", rule=rule, delay=2, weights=nets.Uniform(low, 0.3))
    drive = {}
    for number, (cell, size) in enumerate((("a", 3), ("b", 4))):
        for port in ("x_in", *sorted(fields - {"x"})):
            values = arrays(10 * number + len(drive), TICKS, size)
            if port == "x_in" and name in TIMED:
                values = np.where(values > 0.5, 1.0, 0.0)
            drive[f"{cell}.{port}"] = 60 * values if port == "v" else values
    names = {field for group, field in reads if group == "signals"} - {"tick", "count", "last"}
    signals = {signal: arrays(99, TICKS) for signal in sorted(names)}
    if name in REFUSED:
        with pytest.raises(ExportError, match=REFUSED[name]):
            to_brian2(net, drive, signals)
        return
    found = same(net, drive, signals)
    assert np.ptp(found["a->b.w"], axis=0).max() > 0


def test_a_rule_that_was_learned_and_loaded() -> None:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=3)
    net.add_node("b", neuron=nets.Linear(), size=4)
    net.add_edge("a", "b", rule=learned.oja2020)
    found = same(net, {"a": arrays(3, TICKS, 3)})
    assert np.ptp(found["a->b.w"], axis=0).max() > 1e-3


@pytest.mark.parametrize("which", ["drawn", "shipped"])
def test_a_network_of_learned_neurons(which: str) -> None:
    """Errors come back and layers learn within themselves; or with normalised weights and the layers' means."""
    if which == "drawn":
        neuron, top = nets.LearnedNeuron.make(3, 2, size=1.0), nets.LearnedNeuron.make(2, 2, seed=1, size=1.0)
        forward, back = rules.Metz2018(eta=0.02), rules.Metz2018Backward(eta=0.02)
        net = nets.learned_layers((5, 4, 3), neuron, forward, back, lateral=rules.Metz2018(eta=0.02), top=top)
    else:
        parts, neuron = learned.metz2018, learned.metz2018["neuron"]
        more: dict[str, Any] = {"weights": nets.UnitRows(), "mean": True}
        net = nets.learned_layers((5, 4, 3), neuron, parts["forward"], parts["back"], **more)
    assert all(np.all(np.asarray(leaf)) for leaf in jax.tree.leaves(neuron))
    found = same(net, {"input": arrays(3, TICKS, 5)})
    for name in ("input->layer1", "layer1->input", "layer1->layer2", "layer2->layer1"):
        assert np.ptp(found[f"{name}.w"], axis=0).min() > 1e-4, name


def test_arrays_that_all_neurons_or_synapses_share() -> None:
    """Of one's own, in names that are taken; what is shared is one array in the file."""

    class Mixture(nets.Neuron):
        inner: Any
        inner_0_1: float = 0.7

        def init(self) -> Fields:
            return Fields(x=0.0, inner_1_1=0.3, sure=0.0)

        def step(self, state: Fields, ports: Fields) -> Fields:
            cells = jnp.maximum(self.inner @ jnp.stack([ports.drive, state.inner_1_1, 1.0]), -0.2)
            share = jax.nn.softmax(cells)
            gates = jnp.where(cells > 0, jnp.arange(1.0, 13.0), -1.0)
            return Fields(x=self.inner_0_1 * share @ cells, inner_1_1=0.1 * gates.sum(), sure=share.max())

    class Polynomial(Rule):
        theta: Any

        def update(self, w: Any, pre: Any, post: Any) -> Any:
            powers = jnp.array([0.0, 1.0, 2.0])
            seen = jnp.stack([1.0, pre.x, pre.x**2])
            return 0.01 * (jnp.tanh(post.x * powers) @ self.theta @ seen - w)

    net = nx.MultiDiGraph()
    net.add_node("a", neuron=Mixture(arrays(1, 12, 3)), size=3)
    net.add_node("b", neuron=Mixture(arrays(2, 12, 3), inner_0_1=arrays(3, 2)), size=2)
    rule = Polynomial(arrays(4, 3, 3))
    net.add_edge("a", "b", rule=rule, delay=1)
    found = same(net, {"a": arrays(5, TICKS, 3)})
    assert np.ptp(found["a->b.w"], axis=0).min() > 1e-3
    assert np.ptp(found["b.inner_1_1"]) > 0.1
    assert r"\theta_{2,1}" in rule.latex()
    assert all(number in Polynomial(np.eye(3)).latex(digits=2) for number in ("0.01", r"\tanh"))


def network_of_lif(rule: Any = None, n: int = 60) -> nx.MultiDiGraph:
    """A recurrent network in the proportions of CUBA, driven by its own resting potential."""
    net = nx.MultiDiGraph()
    net.add_node("e", neuron=nets.LIF(), size=4 * n // 5)
    net.add_node("i", neuron=nets.LIF(), size=n // 5)
    for pre, sign, port in (("e", 1.6, "excitatory"), ("i", -9.0, "inhibitory")):
        for number, post in enumerate(("e", "i")):
            own = {"rule": rule if pre == post == "e" else None, "topology": nets.Probability(0.2, seed=number)}
            net.add_edge(pre, post, port=port, weights=nets.Fixed(sign), delay=1 + 3 * number, **own)
    return net


@pytest.mark.parametrize("way", ["everywhere", "by events", "a delay for each synapse"])
def test_spike_for_spike_with_plasticity_and_delays(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = rules.Bounded(rules.STDP(a_plus=0.1, a_minus=0.105), low=0.0, high=3.0)
    drive = {"e": arrays(5, 1500, 48, low=0.0, high=4.0)}
    net, plastic = network_of_lif(rule), ["e->e"]
    if way == "by events":
        pytest.importorskip("llvmlite")
        monkeypatch.setattr(kernels, "MANY", 1)
    if way == "a delay for each synapse":
        plastic = nets.set_delays(net, "e->e", lambda post, pre: 1 + (7 * post + pre) % 4)
        assert len(plastic) == 4
    found = same(net, drive, ticks=1500, dt=1e-4, tolerance=1e-9)
    assert found["e.x"].sum() > 100
    assert all(np.ptp(found[f"{name}.w"][-1]) > 0.01 for name in plastic)


@st.composite
def networks(draw: Any) -> tuple[nx.MultiDiGraph, dict[str, Any], float]:
    """Populations, projections, delays, rules and drive drawn at random."""
    spiking = draw(st.booleans())
    tame = ("Rate", "LeakyRate", "LeakyBinary")  # others run away where rules may do as they like
    kinds = [name for name, n in NEURONS.items() if (isinstance(n, nets.Spiking) if spiking else name in tame)]
    sizes = {name: draw(st.integers(1, 5)) for name in "abc"[: draw(st.integers(1, 3))]}
    net = nx.MultiDiGraph()
    net.add_node("source", neuron=nets.Input(), size=2)
    for name, size in sizes.items():
        net.add_node(name, neuron=NEURONS[draw(st.sampled_from(kinds))], size=size)
    learners = [rules.Oja(eta=0.05), rules.Hebb(eta=0.01), rules.STDP(), rules.Vogels2011()]
    learners.append(rules.Homeostatic(rules.TripletSTDP()))
    local = [None, *(rules.Bounded(rule, low=-0.3, high=0.3) for rule in learners)]
    low, high = (0.0, 40.0) if spiking else (-1.0, 1.0)
    drive = {"source": arrays(draw(st.integers(0, 99)), 60, 2, low=low, high=high)}
    for name in sizes:
        port = draw(st.sampled_from(net.nodes[name]["neuron"].ports))
        net.add_edge("source", name, weights=nets.Uniform(0.1, 1.0), port=port)
    for number in range(draw(st.integers(1, 4))):
        pre, post = draw(st.sampled_from(sorted(sizes))), draw(st.sampled_from(sorted(sizes)))
        own = {"topology": draw(st.sampled_from([nets.Dense(), nets.FixedInDegree(1, seed=number)]))}
        own |= {"delay": draw(st.integers(1, 4)), "port": draw(st.sampled_from(net.nodes[post]["neuron"].ports))}
        own |= {"rule": draw(st.sampled_from(local)), "weights": nets.Uniform(-0.2, 0.3)}
        net.add_edge(pre, post, name=f"p{number}", **own)
    return net, drive, 1e-4 if spiking else 1e-3


@given(networks())
@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])  # to shrink takes minutes
def test_networks_drawn_at_random(drawn: tuple[nx.MultiDiGraph, dict[str, Any], float]) -> None:
    net, drive, dt = drawn
    same(net, drive, ticks=60, dt=dt, tolerance=1e-9)


def test_a_rule_and_a_neuron_of_ones_own() -> None:
    class Saturating(nets.Neuron):
        ports: ClassVar = ("drive",)
        gain: float = 2.0

        def init(self) -> Fields:
            return Fields(x=0.2, slow=0.0)

        def step(self, state: Fields, ports: Fields, dt: float) -> Fields:
            slow = state.slow + dt / 0.01 * (ports.drive - state.slow)
            return Fields(
                x=jnp.where(slow > 0, jnp.log1p(self.gain * jnp.abs(slow)), jnp.minimum(slow, -0.1)), slow=slow
            )

    class Own(Rule):
        def init(self) -> Fields:
            return Fields(last=0.0, mean=1.0)

        def update(self, w: Any, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
            mean = 0.9 * syn.mean + 0.1 * jnp.sqrt(pre.x**2 + 1)
            return signals.gain * (post.x - syn.last) * pre.x / mean, Fields(last=post.x, mean=mean)

    net = nx.MultiDiGraph(signals={"gain": "b"})
    net.add_node("a", neuron=Saturating(), size=3)
    net.add_node("b", neuron=Saturating(gain=1.0), size=2)
    net.add_edge("a", "b", rule=Own())
    net.add_edge("b", "a", delay=1)
    same(net, {"a": arrays(1, TICKS, 3)})


def test_what_comes_late_in_a_tick() -> None:
    """Activity forward, errors back and learning within the tick, noise of none; errors of the tick before as well."""

    class Erring(nets.Neuron):
        ports: ClassVar = ("drive", "apical")
        late: ClassVar = ("apical",)
        loads: ClassVar = ("apical",)
        gain: float = 2.0

        def init(self) -> Fields:
            return Fields(x=0.0, slope=0.0, error=0.5)

        def step(self, state: Fields, ports: Fields) -> Fields:
            x = jnp.tanh(ports.drive + 0.1 * state.error)
            return Fields(x=x, slope=1 - x**2)

        def respond(self, state: Fields, ports: Fields) -> Fields:
            return Fields(error=self.gain * ports.apical * state.slope / (1 + ports.apical_load))

    class Corrects(Rule):
        def update(self, pre: Any, post: Any) -> Any:
            return 0.1 * post.error * pre.x

    net = nx.MultiDiGraph()
    for name, size in (("out", 2), ("hidden", 4), ("in", 3)):
        net.add_node(name, neuron=nets.Input() if name == "in" else Erring(), size=size)
    net.add_edge("in", "hidden", rule=Corrects())
    net.add_edge("hidden", "out", rule=Corrects())
    net.add_edge("out", "hidden", field="error", port="apical", rule=Corrects())
    net.add_edge("out", "hidden", field="apical", port="apical", delay=1, name="late")
    net.add_edge("out", "hidden", port="apical", delay=2, name="later")
    net.add_edge("out", "hidden", field="error", port="apical", tied="hidden->out", name="transposed")
    net.add_edge("hidden", "in", tied="in->hidden", name="generative")
    net.add_edge("hidden", "out", field="error", port="apical", tied="hidden->out", delay=1, name="as well")
    found = same(net, {"in": arrays(1, TICKS, 3), "out.apical": arrays(2, TICKS, 2)})
    assert np.abs(found["hidden.error"]).min() > 0


def test_what_is_tied_has_the_gain_of_the_other() -> None:
    net = nx.MultiDiGraph()
    for name, size in (("a", 3), ("b", 4)):
        net.add_node(name, neuron=nets.LeakyRate(), size=size)
    net.add_edge("a", "b", weights=nets.Normal(1.0), rule=rules.Oja(eta=0.1), gain=2.0)
    net.add_edge("b", "a", tied="a->b", delay=1)
    found = same(net, {"a": arrays(1, TICKS, 3)})
    net.edges["a", "b", 0]["gain"] = 1.0
    assert np.abs(found["a.x"] - same(net, {"a": arrays(1, TICKS, 3)})["a.x"]).max() > 0.01


def test_a_network_that_has_run_is_gone_on_with() -> None:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=3)
    net.add_node("out", neuron=nets.LeakyRate(), size=2)
    net.add_edge("in", "out", rule=rules.Every(rules.Oja(eta=0.1), n=3), delay=3)
    values = arrays(0, 50, 3)
    sim = Simulator(net)
    sim.run({"in": values[:20]})
    brian = to_brian2(sim, {"in": values[20:]})
    brian.run(30 * b2.ms)
    sim.run({"in": values[20:]})
    np.testing.assert_allclose(brian["in_out"].w[:], np.asarray(sim.params["in->out"].w).T.ravel(), rtol=1e-12)


def test_poisson_neurons_have_their_rate() -> None:
    net = nx.MultiDiGraph()
    net.add_node("p", neuron=nets.Poisson(rate=50.0), size=1000)
    net.add_node("out", neuron=nets.LIF(), size=1)
    net.add_edge("p", "out", weights=0.0)
    b2.seed(1)
    brian = to_brian2(net)
    monitor = b2.SpikeMonitor(brian["p"])
    brian.add(monitor)
    brian.run(1 * b2.second)
    assert abs(monitor.num_spikes - 50_000) < 5 * 50_000**0.5


def refusals() -> list[tuple[str, Any, str]]:
    def base(neuron: nets.Neuron | None = None, **edge: Any) -> nx.MultiDiGraph:
        net = nx.MultiDiGraph()
        net.add_node("a", neuron=nets.Input(), size=2)
        net.add_node("b", neuron=neuron or nets.Linear(), size=2)
        net.add_edge("a", "b", **edge)
        return net

    class Erf(Rule):
        def update(self, pre: Any) -> Any:
            return jax.scipy.special.erf(pre.x)

    class Sorts(Rule):
        theta: Any

        def update(self, pre: Any) -> Any:
            return jnp.sort(self.theta * pre.x)[0]

    class Looks(Rule):
        theta: Any

        def update(self, pre: Any) -> Any:
            return self.theta[jnp.floor(pre.x).astype(int)]

    numbers = np.arange(3.0)
    winners = nets.Linear(lateral=nets.KWinners(1))
    batched = Simulator(base())
    batched.run({"a": np.zeros((1, 4, 2))})
    return [
        (r"population 'b' \(Linear\): KWinners looks at the whole population", lambda: to_brian2(base(winners)), ""),
        (r"projection 'a->b' \(Erf\) uses 'erf', which Brian2 cannot express", lambda: to_brian2(base(rule=Erf())), ""),
        (r"'a->b' \(Sorts\) uses 'sort', which", lambda: to_brian2(base(rule=Sorts(numbers))), ""),
        (r"'a->b' \(Looks\) uses '(gather|dynamic_slice)', which", lambda: to_brian2(base(rule=Looks(numbers))), ""),
        ("'a->b' lives in some phases only", lambda: to_brian2(base(phases={"sense"})), ""),
        ("one copy", lambda: to_brian2(batched), ""),
        ("a number, or an array", lambda: to_brian2(base(), {"a": lambda index, key: jnp.zeros(2)}), ""),
        (r"rows of shape \(3,\); it needs \(2,\)", lambda: to_brian2(base(), {"a": np.zeros((5, 3))}), ""),
        ("reads signals.reward, which nothing sends", lambda: to_brian2(base(rule=rules.Gated(rules.Hebb()))), ""),
        ("a script's name ends in .py", lambda: brian2_script(base(), "x.txt"), ""),
        ("cannot be written", lambda: brian2_script(base(), "/nowhere/x.py"), ""),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(11))
def test_what_brian2_cannot_do_is_said(number: int) -> None:
    message, attempt, _ = refusals()[number]
    with pytest.raises(ExportError, match=message):
        attempt()


def test_spikes_under_way_are_told() -> None:
    net = network_of_lif()
    sim = Simulator(net, dt=1e-4)
    sim.run({"e": np.full((1, 48), 1e5)})
    with pytest.raises(ExportError, match="spikes are under way"):
        to_brian2(sim)


RUN = """
import sys
import numpy as np
import brian2
{set_up}
sys.path.insert(0, {folder!r})
from script import network, tick
from brian2 import SpikeMonitor
monitor = SpikeMonitor(network["e"])
network.add(monitor)
network.run(1500 * tick)
np.savez({out!r}, i=np.asarray(monitor.i), t=np.round(np.asarray(monitor.t / tick)).astype(int))
"""


@pytest.mark.parametrize("target", ["numpy", "standalone"])
def test_the_script_runs_by_itself(tmp_path: Path, target: str) -> None:
    """Also in C++ standalone mode, spike for spike."""
    if target == "standalone" and not any(os.access(Path(p) / "g++", os.X_OK) for p in os.environ["PATH"].split(":")):
        pytest.skip("standalone mode needs g++")
    net, drive = network_of_lif(rules.Bounded(rules.STDP(), low=0.0)), {"e": arrays(5, 1500, 48, low=0.0, high=4.0)}
    brian2_script(net, tmp_path / "script.py", drive, ticks=1500, dt=1e-4, seed=3)
    text = (tmp_path / "script.py").read_text()
    assert "e_e.run_regularly" in text
    assert max(map(len, text.splitlines())) < 300
    build = f"brian2.set_device('cpp_standalone', directory={str(tmp_path / 'build')!r})"
    set_up = build if target == "standalone" else "brian2.prefs.codegen.target = 'numpy'"
    out = tmp_path / "spikes.npz"
    code = RUN.format(set_up=set_up, folder=str(tmp_path), out=str(out))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours = Simulator(net, seed=3, dt=1e-4).run(drive, record={"e.x": 1})["e.x"]
    theirs = np.load(out)
    assert len(theirs["i"]) > 100
    assert sorted(zip(theirs["t"], theirs["i"], strict=True)) == [tuple(pair) for pair in np.argwhere(ours)]
