"""Graphs that are no networks and what the errors say, wiring, memory layout, and neurons against closed forms."""

import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings, strategies as st

from engrax import Fields, NetworkError, Phase, RuleError, Simulator, networks as nets, rules
from engrax.layout import make_layout
from engrax.networks import read_graph
from engrax.networks.fields import picked

# Sums of up to a hundred float64 numbers of order 1 in two orders differ by some 1e-14.
ROUNDING = 1e-12


def network(node: dict[str, Any] | None = None, edge: dict[str, Any] | None = None, **graph: Any) -> nx.MultiDiGraph:
    """retina (3 inputs) -> cortex (2 linear neurons), with changes. A value of ... takes the attribute out."""
    net = nx.MultiDiGraph(**graph)
    net.add_node("retina", neuron=nets.Input(), size=3)
    attributes = {"neuron": nets.Linear(), "size": 2, **(node or {})}
    net.add_node("cortex", **{key: value for key, value in attributes.items() if value is not ...})
    net.add_edge("retina", "cortex", **(edge or {}))
    return net


def says(*pieces: str) -> str:
    """A pattern that finds all pieces, in this order."""
    return "(?s)" + ".*".join(re.escape(piece) for piece in pieces)


class NoOutput(nets.Neuron):
    def init(self) -> Fields:
        return Fields(v=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(v=ports.drive)


class Clash(nets.Neuron):
    def init(self) -> Fields:
        return Fields(x=0.0, drive=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=0.0, drive=0.0)


class Loses(nets.Neuron):
    def init(self) -> Fields:
        return Fields(x=0.0, v=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive)


class Asks(nets.Neuron):
    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, weather: Any) -> Fields:
        return Fields(x=weather)


class Branches(nets.Neuron):
    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=1.0 if ports.drive > 0 else 0.0)


class Vector(nets.Neuron):
    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive * jnp.ones(2))


class Loud(nets.Neuron):
    noise: ClassVar[Any] = "pink"

    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self) -> Fields:
        return Fields(x=0.0)


class ReadsTrace(rules.Rule):
    def update(self, pre: Any, post: Any) -> Any:
        return pre.trace * post.x


HEBB = rules.Hebb()
GRAPH3 = nx.path_graph(3)
NAN = np.array([[1, 2, 3], [4, np.nan, 6]])

MISTAKES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "unknown node attribute": (
        lambda: network({"neurons": nets.Linear()}),
        ("'cortex'", "unknown attribute 'neurons'", "did you mean 'neuron'?", "neuron, size, meta", "meta={...}"),
    ),
    "unknown edge attribute": (
        lambda: network(edge={"dealy": 1}),
        (
            "'retina->cortex'",
            "unknown attribute 'dealy'",
            "did you mean 'delay'?",
            "topology, weights, rule",
            "meta={...}",
        ),
    ),
    "unknown graph attribute": (lambda: network(signal={}), ("the graph", "'signal'", "did you mean 'signals'?")),
    "unknown attribute like nothing": (lambda: network({"qqq": 1}), ("'cortex'", "'qqq': Known: neuron, size, meta")),
    "no neuron": (lambda: network({"neuron": ...}), ("'cortex' has no neuron", "add_node('cortex', neuron=")),
    "neuron class": (lambda: network({"neuron": nets.Linear}), ("'cortex'", "neuron=Linear is a class", "Linear()")),
    "neuron of another kind": (lambda: network({"neuron": "lif"}), ("'cortex'", "'lif' is no Neuron", "engrax list")),
    "no size": (lambda: network({"size": ...}), ("'cortex' has no size", "add_node('cortex', ..., size=")),
    "size zero": (lambda: network({"size": 0}), ("'cortex'", "size=0 must be a whole number")),
    "size not whole": (lambda: network({"size": 2.5}), ("'cortex'", "size=2.5 must be a whole number", "tuple")),
    "grid with a zero": (lambda: network({"size": (3, 0)}), ("'cortex'", "size=(3, 0) must be")),
    "empty grid": (lambda: network({"size": ()}), ("'cortex'", "size=() must be")),
    "size is a truth value": (lambda: network({"size": True}), ("'cortex'", "size=True must be")),
    "parameter per neuron of wrong length": (
        lambda: network({"neuron": nets.Linear(bias=np.zeros(3))}),
        ("'cortex'", "bias has shape (3,)", "one number", "shape (2,)"),
    ),
    "parameter not finite": (lambda: network({"neuron": nets.Linear(bias=np.inf)}), ("'cortex'", "bias is not finite")),
    "neuron without output": (lambda: network({"neuron": NoOutput()}), ("'cortex'", "NoOutput.init() has no field x")),
    "port named as state": (
        lambda: network({"neuron": Clash()}),
        ("'cortex'", "Clash", "both a port and a state field 'drive'"),
    ),
    "state lost in step": (
        lambda: network({"neuron": Loses()}),
        ("'cortex'", "Loses.step returns x", "init() has x, v", "the same fields"),
    ),
    "step asks for what is not there": (
        lambda: network({"neuron": Asks()}),
        ("'cortex'", "Asks.step", "'weather'", "may name: state, ports, noise, dt"),
    ),
    "step branches": (lambda: network({"neuron": Branches()}), ("'cortex'", "Branches.step cannot be run")),
    "step gives an array": (
        lambda: network({"neuron": Vector()}),
        ("'cortex'", "Vector.step returns an array for 'x'", "one number"),
    ),
    "noise of another colour": (
        lambda: network({"neuron": Loud()}),
        ("'cortex'", "noise='pink'", "'uniform', 'normal' or None"),
    ),
    "transposed weights": (
        lambda: network(edge={"weights": np.ones((3, 2))}),
        ("'retina->cortex'", "weights have shape (3, 2)", "(post, pre) is (2, 3)", "transpose it"),
    ),
    "weights of another shape": (
        lambda: network(edge={"weights": np.ones((4, 4))}),
        ("'retina->cortex'", "weights have shape (4, 4)", "(post, pre) is (2, 3)", "reshape it, or leave weights out"),
    ),
    "sparse weights of another shape": (
        lambda: network(edge={"topology": nets.Probability(1.0), "weights": sp.csr_array(np.ones((3, 2)))}),
        ("'retina->cortex'", "weights have shape (3, 2)", "(post, pre) is (2, 3)"),
    ),
    "one weight too many": (
        lambda: network(edge={"topology": nets.FixedInDegree(1), "weights": np.ones(3)}),
        ("'retina->cortex'", "weights have shape (3,)", "2 synapses"),
    ),
    "NaN weight": (
        lambda: network(edge={"weights": NAN}),
        ("'retina->cortex'", "initial weight at [1, 1] is nan", "must be finite"),
    ),
    "infinite sparse weight": (
        lambda: network(edge={"topology": nets.FixedInDegree(1), "weights": np.array([1, np.inf])}),
        ("'retina->cortex'", "initial weight at [1] is inf"),
    ),
    "initialiser class": (
        lambda: network(edge={"weights": nets.Normal}),
        ("'retina->cortex'", "no initialiser", "networks.Normal(0.1)"),
    ),
    "unknown port": (
        lambda: network(edge={"port": "soma"}),
        (
            "'retina->cortex'",
            "Linear neurons have no port 'soma'",
            "ports of 'cortex': drive, lateral, apical, learning",
        ),
    ),
    "unknown field": (
        lambda: network(edge={"field": "v"}),
        ("'retina->cortex'", "'retina' has no field 'v'", "fields: x, drive"),
    ),
    "phases as one string": (
        lambda: network(edge={"phases": "wake"}),
        ("'retina->cortex'", "phases='wake' must be a set", "phases={'wake'}"),
    ),
    "delay negative": (
        lambda: network(edge={"delay": -1}),
        ("'retina->cortex'", "delay=-1", "whole number of ticks, 0 or more"),
    ),
    "delay fractional": (lambda: network(edge={"delay": 0.5}), ("'retina->cortex'", "delay=0.5", "whole number")),
    "delay is a truth value": (lambda: network(edge={"delay": True}), ("'retina->cortex'", "delay=True")),
    "one-to-one of unequal sizes": (
        lambda: network(edge={"topology": nets.OneToOne()}),
        ("'retina->cortex'", "one-to-one", "not 3 and 2"),
    ),
    "matrix transposed": (
        lambda: network(edge={"topology": sp.csr_array(np.ones((3, 2)))}),
        ("'retina->cortex'", "the matrix has shape (3, 2)", "(post, pre) is (2, 3)"),
    ),
    "graph of another size": (
        lambda: network(edge={"topology": GRAPH3}),
        ("'retina->cortex'", "the graph has 3 nodes", "3 and 2 neurons"),
    ),
    "grids of other dimension": (
        lambda: network({"size": (2, 2)}, {"topology": nets.ReceptiveFields(1)}),
        ("'retina->cortex'", "grids of the same dimension", "(3,) and (2, 2)"),
    ),
    "negative radius": (
        lambda: network(edge={"topology": nets.ReceptiveFields(-1)}),
        ("'retina->cortex'", "radius=-1"),
    ),
    "in-degree above size": (
        lambda: network(edge={"topology": nets.FixedInDegree(4)}),
        ("'retina->cortex'", "k=4 synapses", "3 pre neurons"),
    ),
    "in-degree zero": (lambda: network(edge={"topology": nets.FixedInDegree(0)}), ("'retina->cortex'", "k=0")),
    "no probability": (
        lambda: network(edge={"topology": nets.Probability(1.5)}),
        ("'retina->cortex'", "p=1.5 is not a probability"),
    ),
    "topology of another kind": (
        lambda: network(edge={"topology": "dense"}),
        ("'retina->cortex'", "str is no topology", "Dense()", "networkx graph"),
    ),
    "empty topology": (
        lambda: network(edge={"topology": nets.Probability(0.0)}),
        ("'retina->cortex' has no synapses", "Probability is empty", "remove the edge"),
    ),
    "empty graph as topology": (
        lambda: network({"size": 3}, {"topology": nx.empty_graph(3)}),
        ("'retina->cortex' has no synapses", "FromGraph"),
    ),
    "rule class": (lambda: network(edge={"rule": rules.Hebb}), ("'retina->cortex'", "no rule", "make one with Hebb()")),
    "rule of another kind": (
        lambda: network(edge={"rule": "hebb"}),
        ("'retina->cortex'", "'hebb' is no rule", "engrax list"),
    ),
    "rule reads what pre neurons lack": (
        lambda: network(edge={"rule": ReadsTrace()}),
        ("'retina->cortex'", "ReadsTrace reads pre.trace", "Input neurons ('retina') have only x, drive"),
    ),
    "rule reads what post neurons lack": (
        lambda: network(edge={"rule": rules.LocalICA()}),
        ("'retina->cortex'", "LocalICA reads post.v", "Linear neurons ('cortex') have only x, drive"),
    ),
    "population rule on a sparse projection": (
        lambda: network(edge={"rule": rules.Sanger(), "topology": nets.FixedInDegree(2)}),
        ("'retina->cortex'", "Sanger", "only a dense projection", "leave topology out"),
    ),
    "signal from nowhere": (
        lambda: network(signals={"dopamine": "vta"}),
        ("signal 'dopamine'", "'vta'", "populations: retina, cortex"),
    ),
    "dense initialiser on sparse synapses": (
        lambda: network(edge={"weights": nets.UnitRows(), "topology": nets.FixedInDegree(1)}),
        ("'retina->cortex'", "UnitRows needs a dense projection", "FanIn"),
    ),
    "orthogonal initialiser on sparse synapses": (
        lambda: network(edge={"weights": nets.Orthogonal(), "topology": nets.FixedInDegree(1)}),
        ("'retina->cortex'", "Orthogonal needs a dense projection", "FanIn"),
    ),
    "Xavier weights of a sparse projection": (
        lambda: network(edge={"weights": nets.Xavier(), "topology": nets.FixedInDegree(1)}),
        ("'retina->cortex'", "Xavier needs a dense projection", "FanIn"),
    ),
    "not a graph": (lambda: {"retina": 3}, ("a network is a networkx graph, not dict",)),
    "undirected": (
        lambda: nx.Graph(network()),
        ("projections have a direction", "nx.MultiDiGraph", "networks.from_neurons"),
    ),
    "empty network": (nx.MultiDiGraph, ("no populations", "net.add_node(name, neuron=..., size=...)")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named_with_its_place_and_a_remedy(mistake: str) -> None:
    make, pieces = MISTAKES[mistake]
    with pytest.raises(NetworkError, match=says(*pieces)):
        Simulator(make())


def test_the_network_without_a_mistake_is_one() -> None:
    assert Simulator(network()).tick == 0


@pytest.mark.parametrize("name", ["a.b", "a->b", "a/b", "a[0]", "", 7])
def test_names_that_recordings_cannot_hold(name: Any) -> None:
    net = network()
    net.add_node(name, neuron=nets.Linear(), size=2)
    net.add_edge("retina", name)
    with pytest.raises(NetworkError, match=says(f"population {name!r}", "a name is a string without / . -> [ ]")):
        read_graph(net)


def test_disconnected_population() -> None:
    net = network()
    net.add_node("island", neuron=nets.Linear(), size=2)
    with pytest.raises(NetworkError, match=says("'island' has no projections", "net.add_edge", "remove it")):
        read_graph(net)


def test_two_projections_of_one_name() -> None:
    net = network(edge={"name": "up"})
    net.add_edge("retina", "cortex", name="up")
    with pytest.raises(NetworkError, match=says("two projections", "'up'", "another name=")):
        read_graph(net)


def test_cycle_without_delay_names_its_edges() -> None:
    net = network(edge={"delay": 0})
    net.add_node("v2", neuron=nets.Linear(), size=2)
    net.add_edge("cortex", "v2", delay=0, name="up")
    net.add_edge("v2", "cortex", delay=0)
    with pytest.raises(NetworkError) as raised:
        read_graph(net)
    message = str(raised.value)
    assert "'up'" in message
    assert "'v2->cortex'" in message
    assert "retina" not in message
    assert "cycle without delay: set delay=1 on one of them" in message


def test_self_projection_without_delay_is_a_cycle() -> None:
    net = network()
    net.add_edge("cortex", "cortex", delay=0)
    with pytest.raises(NetworkError, match=says("'cortex->cortex'", "set delay=1")):
        read_graph(net)


def test_signal_nobody_sends() -> None:
    sim = Simulator(network(edge={"rule": rules.Gated(HEBB, signal="dopamine")}))
    pieces = ("'retina->cortex'", "signals.dopamine", "nothing sends", "Phase(signals=", "net.graph['signals']")
    with pytest.raises(RuleError, match=says(*pieces)):
        sim.run({"retina": np.ones((1, 3))})


def test_topology_from_an_array_without_warnings() -> None:
    read_graph(network(edge={"topology": np.ones((2, 3))}))


# Reading a graph


def test_default_delays() -> None:
    """0 where that leaves no cycle, 1 on self-projections and where the cycle would close; given delays come first."""
    net = network()
    net.add_node("v2", neuron=nets.Linear(), size=2)
    net.add_edge("cortex", "cortex")
    net.add_edge("cortex", "v2")
    net.add_edge("v2", "cortex")
    net.add_edge("v2", "retina")
    delays = {name: p.delay for name, p in read_graph(net).projections.items()}
    assert delays == {"retina->cortex": 0, "cortex->cortex": 1, "cortex->v2": 0, "v2->cortex": 1, "v2->retina": 1}
    net.edges["v2", "cortex", 0]["delay"] = 0
    delays = {name: p.delay for name, p in read_graph(net).projections.items()}
    assert delays["cortex->v2"] == 1
    assert delays["v2->cortex"] == 0
    assert delays["v2->retina"] == 0
    assert read_graph(net).order == ("v2", "retina", "cortex")


def test_order_within_a_tick_follows_the_edges_and_not_the_nodes() -> None:
    net = nx.MultiDiGraph()
    for name in ("c", "b", "a"):
        net.add_node(name, neuron=nets.Linear(), size=1)
    net.add_edge("a", "b", weights=2.0)
    net.add_edge("b", "c", weights=3.0)
    assert read_graph(net).order == ("a", "b", "c")
    assert Simulator(net).run({"a": np.ones((1, 1))}, record={"c.x": 1})["c.x"] == [[6.0]]


def test_parallel_edges_have_names_of_their_own() -> None:
    net = network()
    net.add_edge("retina", "cortex", port="lateral")
    net.add_edge("retina", "cortex", key="fast")
    net.add_edge("retina", "cortex", name="named")
    assert list(read_graph(net).projections) == ["retina->cortex", "retina->cortex[1]", "retina->cortex[fast]", "named"]


def test_a_plain_digraph_is_a_network_too() -> None:
    net = nx.DiGraph()
    net.add_node("a", neuron=nets.Input(), size=2)
    net.add_edge("a", "b", weights=np.array([[1.0, 2.0]]))
    net.nodes["b"].update(neuron=nets.Linear(), size=1)
    assert Simulator(net).run({"a": np.array([[3.0, 5.0]])}, record={"b.x": 1})["b.x"] == [[13.0]]


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_delay_shifts_by_exactly_that_many_ticks(delay: int) -> None:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=2)
    net.add_node("b", neuron=nets.Linear(), size=2)
    net.add_edge("a", "b", delay=delay, weights=nets.Identity())
    x = np.random.default_rng(0).normal(size=(12, 2))
    sim = Simulator(net)
    out = sim.run({"a": x}, record={"b.x": 1})["b.x"]
    np.testing.assert_array_equal(out[delay:], x[: 12 - delay])
    np.testing.assert_array_equal(out[:delay], 0)
    late = sim.run({"a": x}, record={"b.x": 1})["b.x"]  # what is under way stays under way between runs
    np.testing.assert_array_equal(late, np.concatenate([x[12 - delay :], x])[:12])


@pytest.mark.parametrize("delay", [1, 3])
def test_rules_see_pre_neurons_as_the_synapse_did(delay: int) -> None:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=1)
    net.add_node("b", neuron=nets.Linear(), size=1)
    net.add_edge("a", "b", delay=delay, weights=0.0, port="apical", rule=rules.Hebb(eta=1.0))
    x, y = np.random.default_rng(0).normal(size=(2, 10, 1))
    w = Simulator(net).run({"a": x, "b": y}, record={"a->b.w": 1})["a->b.w"].ravel()
    seen = np.concatenate([np.zeros(delay), x.ravel()])[:10]
    np.testing.assert_allclose(w, np.cumsum(seen * y.ravel()), atol=ROUNDING)


def test_parallel_projections_with_different_delays_and_fields_add_up() -> None:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.LeakyRate(activation=jnp.tanh), size=1)
    net.add_node("b", neuron=nets.Linear(), size=1)
    for delay, field, w in ((0, "x", 1.0), (2, "v", 2.0), (4, "drive", 4.0)):
        net.add_edge("a", "b", delay=delay, field=field, weights=w)
    record = dict.fromkeys(("a.x", "a.v", "a.drive", "b.x"), 1)
    out = Simulator(net).run({"a": np.random.default_rng(0).normal(size=(9, 1))}, record=record)

    def late(name: str, delay: int) -> np.ndarray:
        return np.concatenate([np.zeros((delay, 1)), out[name]])[:9]

    np.testing.assert_allclose(out["b.x"], late("a.x", 0) + 2 * late("a.v", 2) + 4 * late("a.drive", 4), atol=ROUNDING)


def test_signal_is_the_mean_output_of_its_population() -> None:
    class Reads(rules.Rule):
        def update(self, signals: Any) -> Any:
            return signals.dopamine

    net = network(edge={"rule": Reads(), "weights": 0.0}, signals={"dopamine": "retina"})
    sim = Simulator(net)
    sim.run({"retina": np.array([[1.0, 2.0, 6.0]])})
    np.testing.assert_allclose(sim.params["retina->cortex"].w, np.full((2, 3), 3.0))


def test_projection_lives_in_its_phases_only() -> None:
    net = network(edge={"phases": {"on"}, "weights": 1.0})
    out = Simulator(net).run(
        {"retina": lambda index, key: jnp.ones(3)}, trial=[Phase("on"), Phase("off")], trials=2, record={"cortex.x": 1}
    )["cortex.x"]
    np.testing.assert_array_equal(out[:, 0], [3, 0, 3, 0])


# set_rule


def test_set_rule() -> None:
    net = network(edge={"rule": HEBB})
    net.add_edge("cortex", "cortex")
    oja = rules.Oja()
    nets.set_rule(net, oja)
    assert net.edges["retina", "cortex", 0]["rule"] is oja
    assert "rule" not in net.edges["cortex", "cortex", 0]
    nets.set_rule(net, HEBB, ["cortex->cortex"])
    assert net.edges["cortex", "cortex", 0]["rule"] is HEBB
    assert net.edges["retina", "cortex", 0]["rule"] is oja
    with pytest.raises(
        NetworkError, match=says("no projection 'cortex->retina'", "projections: retina->cortex, cortex->cortex")
    ):
        nets.set_rule(net, oja, ["cortex->retina"])
    with pytest.raises(NetworkError, match=says("no edge has a rule", "set_rule(net, rule, [...])")):
        nets.set_rule(network(), oja)


# set_delays


def echo(delays: Any, **edge: Any) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("retina", neuron=nets.Input(), size=3)
    net.add_node("cortex", neuron=nets.Linear(), size=2)
    net.add_edge("retina", "cortex", **edge)
    nets.set_delays(net, "retina->cortex", delays)
    return net


@pytest.mark.parametrize("form", ["array", "function", "sparse", "synapses"])
def test_every_synapse_has_its_own_delay(form: str) -> None:
    """Each pre neuron sends one pulse, of which every target hears the weight when the delay has passed."""
    delays, w = np.array([[0, 1, 2], [4, 2, 1]]), np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    given: Any = {
        "array": delays,
        "function": lambda post, pre: delays[post, pre],
        "sparse": delays,
        "synapses": delays.ravel(),
    }[form]
    edge: dict[str, Any] = {"topology": sp.csr_array(w)} if form == "sparse" else {"weights": w}
    net = echo(given, **edge)
    assert sorted(d["name"] for _, _, d in net.edges(data=True)) == [f"retina->cortex@{d}" for d in (0, 1, 2, 4)]
    drive = np.zeros((6, 3))
    drive[0] = 1
    heard = Simulator(net).run({"retina": drive}, record={"cortex.x": 1})["cortex.x"]
    expected = np.zeros((6, 2))
    for post, pre in np.ndindex(2, 3):
        expected[delays[post, pre], post] += w[post, pre]
    np.testing.assert_array_equal(heard, expected)


def test_a_rule_sees_its_synapse_late() -> None:
    net = echo(np.array([[1, 2, 3], [3, 2, 1]]), weights=0.0, rule=rules.Hebb(eta=1.0))
    drive = {"retina": np.eye(3)[[0, 1, 2, 0, 0]], "cortex": np.arange(10.0).reshape(5, 2)}
    sim = Simulator(net)
    found = sim.run(drive, record={"cortex.x": 1})["cortex.x"]
    for name in sim.params:
        delay, (post, pre) = int(name.rpartition("@")[2]), sim.synapses(name)
        late = np.concatenate([np.zeros((delay, 3)), drive["retina"]])[:5]
        np.testing.assert_allclose(sim.params[name].w, (found.T @ late)[post, pre], err_msg=name)


def test_delays_that_do_not_fit_are_told() -> None:
    ones = np.ones((2, 3))
    for delays, edge, message in [
        (np.ones((3, 2)), {}, ("delays have shape (3, 2)", "(2, 3)", "one for each of 6 synapses")),
        (ones * 1.5, {}, ("delay 1.5 from neuron 0 to neuron 0", "whole number of ticks")),
        (-ones, {}, ("delay -1.0", "whole number")),
        (ones * np.nan, {}, ("delay nan", "whole number")),
        (ones, {"weights": nets.FanIn()}, ("fan-in", "networks.Normal")),
    ]:
        with pytest.raises(NetworkError, match=says("'retina->cortex'", *message)):
            echo(delays, **edge)
    with pytest.raises(NetworkError, match=says("no projection 'a->b'", "retina->cortex")):
        nets.set_delays(network(), "a->b", 1)
    with pytest.raises(NetworkError, match="MultiDiGraph"):
        nets.set_delays(nx.DiGraph(), "a->b", 1)


# Topologies


def connect(topology: nets.Topology, pre: Any, post: Any) -> np.ndarray:
    return (read_connections(topology, pre, post) != 0).toarray()


def read_connections(topology: nets.Topology, pre: Any, post: Any) -> Any:
    return topology.connect(*(n if isinstance(n, tuple) else (n,) for n in (pre, post)))


def test_one_to_one() -> None:
    np.testing.assert_array_equal(connect(nets.OneToOne(), 4, (2, 2)), np.eye(4))


def test_from_matrix_keeps_entries_explicit_zeros_and_values() -> None:
    matrix = sp.csr_array((np.array([2.0, 0.0, -1.0]), ([0, 1, 1], [2, 0, 1])), shape=(2, 3))
    sim = Simulator(network(edge={"topology": matrix}))
    post, pre = sim.synapses("retina->cortex")
    assert list(zip(post.tolist(), pre.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 1)]
    np.testing.assert_array_equal(sim.params["retina->cortex"].w, [2, 0, -1])
    unsorted = sp.csr_array((np.array([1.0, 2.0]), np.array([2, 0]), np.array([0, 2, 2])), shape=(2, 3))
    sim = Simulator(network(edge={"topology": unsorted}))
    assert sim.synapses("retina->cortex")[1].tolist() == [0, 2]
    np.testing.assert_array_equal(sim.params["retina->cortex"].w, [2, 1])


def test_weights_of_a_sparse_projection_from_a_matrix_a_list_or_a_number() -> None:
    dense = np.arange(6.0).reshape(2, 3)
    topology = sp.csr_array(np.array([[1.0, 0, 1], [0, 1, 0]]))
    for weights in (dense, sp.csr_array(dense), np.array([0.0, 2.0, 4.0])):
        sim = Simulator(network(edge={"topology": topology, "weights": weights}))
        np.testing.assert_array_equal(sim.params["retina->cortex"].w, [0, 2, 4])
    sim = Simulator(network(edge={"topology": topology, "weights": 0.5}))
    np.testing.assert_array_equal(sim.params["retina->cortex"].w, [0.5] * 3)


def test_from_graph_goes_from_u_to_v() -> None:
    graph = nx.DiGraph([("p", "q", {"weight": 5.0}), ("q", "r")])
    matrix = read_connections(nets.FromGraph(graph), 3, 3).toarray()
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [5, 0, 0], [0, 1, 0]])
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=3)
    net.add_node("b", neuron=nets.Linear(), size=3)
    net.add_edge("a", "b", topology=graph)
    out = Simulator(net).run({"a": np.array([[1.0, 10.0, 100.0]])}, record={"b.x": 1})["b.x"]
    np.testing.assert_array_equal(out, [[0, 5, 10]])
    both_ways = read_connections(nets.FromGraph(nx.path_graph(3)), 3, 3).toarray()
    np.testing.assert_array_equal(both_ways, [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_probability(p: float) -> None:
    n, m = 200, 150
    found = connect(nets.Probability(p, seed=3), n, m)
    assert abs(found.sum() - p * n * m) < 4 * (n * m * p * (1 - p)) ** 0.5  # four standard deviations of the binomial
    # columns and rows too, by their variance: binomial counts, whose sample variance has a relative error of (2/k)**0.5
    for counts, size in ((found.sum(0), m), (found.sum(1), n)):
        assert abs(counts.var() / (size * p * (1 - p)) - 1) < 4 * (2 / len(counts)) ** 0.5
    assert np.array_equal(found, connect(nets.Probability(p, seed=3), n, m))
    assert not np.array_equal(found, connect(nets.Probability(p, seed=4), n, m))
    assert not np.diag(connect(nets.Probability(0.9, self_connections=False), 50, 50)).any()
    assert connect(nets.Probability(1.0), 3, 2).all()


def test_fixed_in_degree() -> None:
    for k, self_connections in ((1, True), (5, True), (20, True), (19, False), (3, False)):
        found = connect(nets.FixedInDegree(k, seed=1, self_connections=self_connections), 20, 20)
        np.testing.assert_array_equal(found.sum(1), k)
        assert self_connections or not np.diag(found).any()
    # every pre neuron equally often: counts of 3000 draws of 5 among 20, four standard deviations
    out = connect(nets.FixedInDegree(5, seed=2), 20, 3000).sum(0)
    assert np.all(np.abs(out - 750) < 4 * (3000 * 0.25 * 0.75) ** 0.5)
    out = connect(nets.FixedInDegree(1, self_connections=False), 500, 500)
    # the cell left out is not replaced by its neighbour: one in 500 draws is expected there, ten have probability 1e-7
    assert out[:-1, 1:].diagonal().sum() < 10


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    ("pre", "post", "radius"),
    [(12, 12, 2), (12, 5, 1.5), (5, 12, 1), ((4, 6), (4, 6), 1), ((6, 9), (3, 2), 2), (7, 7, 0)],
)
def test_receptive_fields_against_brute_force(pre: Any, post: Any, radius: float, wrap: bool) -> None:
    shape_pre, shape_post = np.atleast_1d(pre), np.atleast_1d(post)
    expected = np.ones((np.prod(shape_post), np.prod(shape_pre)), bool)
    for i, target in enumerate(np.ndindex(*shape_post)):
        for j, source in enumerate(np.ndindex(*shape_pre)):
            for t, s, n_post, n_pre in zip(target, source, shape_post, shape_pre, strict=True):
                centre = (t + 0.5) * n_pre / n_post - 0.5  # both grids cover the same area
                images = [s - n_pre, s, s + n_pre] if wrap else [s]
                if min(abs(centre - image) for image in images) > radius + 1e-9:
                    expected[i, j] = False
    np.testing.assert_array_equal(connect(nets.ReceptiveFields(radius, wrap), pre, post), expected)


def test_receptive_fields_have_the_size_they_say() -> None:
    found = connect(nets.ReceptiveFields(1), (8, 8), (8, 8)).sum(1).reshape(8, 8)
    assert found[4, 4] == 9
    assert found[0, 0] == 4
    assert (connect(nets.ReceptiveFields(2, wrap=True), (8, 8), (8, 8)).sum(1) == 25).all()


# Layout


@st.composite
def matrices(draw: Any) -> sp.csr_array:
    m, n = draw(st.sampled_from([(12, 5), (40, 30)]))  # few shapes: each new one is compiled
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    dense = rng.normal(size=(m, n)) * (rng.random((m, n)) < rng.random((m, 1)) ** 2)  # some rows empty, some full
    dense[rng.integers(m), rng.integers(n)] = 1.0
    return sp.csr_array(dense)


def check_layout(matrix: sp.csr_array) -> int:
    """Round trip, propagation, load; returns how many slots the layout has."""
    layout = make_layout(matrix, matrix.shape[1], matrix.shape[0])
    packed = layout.pack(matrix.data)
    np.testing.assert_array_equal(layout.unpack(packed), matrix.data)
    post, pre = layout.synapses
    np.testing.assert_array_equal(matrix.toarray()[post, pre], matrix.data)
    np.testing.assert_array_equal(post * matrix.shape[1] + pre, np.sort(post * matrix.shape[1] + pre))
    x = np.random.default_rng(0).normal(size=(3, matrix.shape[1]))
    np.testing.assert_allclose(layout.propagate(packed, jnp.asarray(x)), x @ matrix.toarray().T, atol=ROUNDING)
    np.testing.assert_allclose(layout.propagate(packed, jnp.asarray(x[0])), matrix @ x[0], atol=ROUNDING)
    np.testing.assert_allclose(layout.load(packed), np.abs(matrix.toarray()).sum(1), atol=ROUNDING)
    stacked = tuple(jnp.stack([block, 2 * block]) for block in packed)  # leading axes, as in a recording
    np.testing.assert_array_equal(layout.unpack(stacked), np.stack([matrix.data, 2 * matrix.data]))
    return sum(block.size for block in packed)


@given(matrix=matrices())
@settings(max_examples=2)  # ten seconds of compiling each
def test_layout_of_random_matrices(matrix: sp.csr_array) -> None:
    slots = check_layout(matrix)
    empty = int((np.diff(matrix.indptr) == 0).sum())
    assert slots <= max(2 * matrix.nnz + empty, 1.25 * matrix.nnz)


@pytest.mark.parametrize(
    "graph",
    [
        nx.barabasi_albert_graph(200, 3, seed=0),
        nx.scale_free_graph(200, seed=1),
        nx.star_graph(200),
        nx.random_regular_graph(4, 100, seed=0),
    ],
    ids=["barabasi-albert", "scale-free, in-degrees of zero", "star", "regular"],
)
def test_layout_of_graphs_wastes_less_than_half(graph: nx.Graph) -> None:
    matrix = nets.FromGraph(graph).connect((len(graph),), (len(graph),))
    assert matrix is not None
    degrees = np.diff(matrix.indptr)
    slots = check_layout(matrix)
    heard = int((degrees == 0).sum())  # a cell that hears nobody still has one slot
    assert slots - heard < 2 * matrix.nnz
    assert len(make_layout(matrix, len(graph), len(graph)).blocks) <= 2 + np.log2(degrees.max())


def test_dense_layout() -> None:
    w = np.random.default_rng(0).normal(size=(2, 3))
    layout = make_layout(None, 3, 2)
    x = np.arange(3.0)
    np.testing.assert_allclose(layout.propagate(layout.pack(w), jnp.asarray(x)), w @ x)
    np.testing.assert_allclose(layout.load(layout.pack(w)), np.abs(w).sum(1))
    np.testing.assert_array_equal(layout.unpack(layout.pack(w)), w)


# Graphs whose nodes are neurons


def settle(net: nx.MultiDiGraph, drive: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    record = {f"{name}.x": 1 for name in net.nodes}
    return Simulator(net).run(drive, record=record)


def test_from_neurons_directed_is_the_matrix_product() -> None:
    rng = np.random.default_rng(0)
    graph = nx.gnp_random_graph(12, 0.3, seed=0, directed=True)
    for _, _, data in graph.edges(data=True):
        data["weight"] = rng.normal() / 3
    w = nx.to_numpy_array(graph).T  # edge u -> v is entry (v, u)
    net = nets.from_neurons(graph, nets.Rate(), delay=1)
    drive = rng.normal(size=(6, 12))
    out = settle(net, {"neurons": drive})["neurons.x"]
    x = np.zeros(12)
    for t in range(6):
        x = np.tanh(drive[t] + w @ x)
        np.testing.assert_allclose(out[t], x, atol=ROUNDING)
    assert net.nodes["neurons"]["meta"]["nodes"] == list(graph)


def test_from_neurons_undirected_goes_both_ways() -> None:
    graph = nx.path_graph(4)
    net = nets.from_neurons(graph, nets.Linear())
    out = settle(net, {"neurons": np.eye(4)[:2] * [[1], [0]]})["neurons.x"]
    np.testing.assert_array_equal(out, [[1, 0, 0, 0], [0, 1, 0, 0]])
    assert len(Simulator(net).synapses("neurons->neurons")[0]) == 6


def test_from_neurons_by_group() -> None:
    rng = np.random.default_rng(1)
    graph = nx.gnp_random_graph(15, 0.4, seed=2, directed=True)
    for node in graph:
        graph.nodes[node]["layer"] = "even" if node % 2 == 0 else "odd"
    for _, _, data in graph.edges(data=True):
        data["weight"] = rng.normal() / 3
    w = nx.to_numpy_array(graph).T
    net = nets.from_neurons(graph, {"even": nets.Rate(), "odd": nets.Linear()}, HEBB, by="layer", delay=1)
    assert set(net.nodes) == {"even", "odd"}
    assert net.nodes["odd"]["meta"]["nodes"] == [1, 3, 5, 7, 9, 11, 13]
    assert all(data["rule"] is HEBB for *_, data in net.edges(data=True))
    nets.set_rule(net, rules.Hebb(eta=0.0))
    drive = rng.normal(size=(4, 15))
    out = settle(net, {"even": drive[:, ::2], "odd": drive[:, 1::2]})
    x = np.zeros(15)
    for t in range(4):
        x = drive[t] + w @ x
        x[::2] = np.tanh(x[::2])
        np.testing.assert_allclose(out["even.x"][t], x[::2], atol=ROUNDING)
        np.testing.assert_allclose(out["odd.x"][t], x[1::2], atol=ROUNDING)


def test_from_neurons_mistakes() -> None:
    graph = nx.path_graph(3)
    graph.nodes[0]["population"] = "a"
    with pytest.raises(NetworkError, match=says("node 1 has no attribute 'population'", "set it on every node")):
        nets.from_neurons(graph, nets.Linear())
    with pytest.raises(NetworkError, match=says("'neurons' has no neuron model", "neuron=")):
        nets.from_neurons(nx.path_graph(3))
    nx.set_node_attributes(graph, "b", "population")
    with pytest.raises(NetworkError, match=says("'b' has no neuron model", "a dict with 'b'")):
        nets.from_neurons(graph, {"a": nets.Linear()})


# Initialisers


def test_initialisers() -> None:
    key = jax.random.key(0)
    shape = (300, 400)
    count = 300 * 400
    w = np.asarray(nets.Normal(0.5, mean=2.0)(key, shape, 400))
    assert abs(w.mean() - 2) < 4 * 0.5 / count**0.5  # four standard errors, here and below
    assert abs(w.std() / 0.5 - 1) < 4 / (2 * count) ** 0.5
    w = np.asarray(nets.FanIn(3.0)(key, shape, 400))
    assert abs(w.std() / (3 / 20) - 1) < 4 / (2 * count) ** 0.5
    w = np.asarray(nets.Uniform(-1.0, 3.0)(key, shape, 400))
    assert w.min() >= -1
    assert w.max() < 3
    assert abs(w.mean() - 1) < 4 * (16 / 12 / count) ** 0.5
    w = np.asarray(nets.UnitRows()(key, (5, 7), 7))
    np.testing.assert_allclose((w**2).sum(1), 1, atol=ROUNDING)
    w = np.asarray(nets.UnitRows(order=1, positive=True)(key, (5, 7), 7))
    np.testing.assert_allclose(w.sum(1), 1, atol=ROUNDING)
    assert w.min() >= 0
    w = np.asarray(nets.Xavier(2.0)(key, (100, 50), 50))
    assert 0.99 * 0.4 < np.abs(w).max() <= 0.4  # 2 * sqrt(6 / 150)
    assert abs(w.mean()) < 4 * 0.4 / np.sqrt(3 * w.size)  # four standard errors
    wide, tall = np.asarray(nets.Orthogonal(2.0)(key, (3, 5), 5)), np.asarray(nets.Orthogonal()(key, (5, 3), 3))
    np.testing.assert_allclose(wide @ wide.T, 4 * np.eye(3), atol=ROUNDING)
    np.testing.assert_allclose(tall.T @ tall, np.eye(3), atol=ROUNDING)
    np.testing.assert_array_equal(nets.Identity(2.0)(key, (2, 3), 3), [[2, 0, 0], [0, 2, 0]])
    np.testing.assert_array_equal(nets.Identity(2.0)(key, (4,), 3), [2] * 4)
    np.testing.assert_array_equal(nets.Fixed(0.5)(key, (2, 2), 2), np.full((2, 2), 0.5))


def test_initial_weights_are_seeded_by_name() -> None:
    net = network(edge={"name": "one"})
    net.add_edge("retina", "cortex", name="other")
    a, b = Simulator(net, seed=0).params, Simulator(net, seed=1).params
    assert not np.allclose(a["one"].w, a["other"].w)
    assert not np.allclose(a["one"].w, b["one"].w)
    alone = network(edge={"name": "other"})  # another order, another network: the same weights
    np.testing.assert_array_equal(Simulator(alone, seed=0).params["other"].w, a["other"].w)
    assert abs(Simulator(network({"size": 4000})).params["retina->cortex"].w.std() - 0.1) < 4 * 0.1 / (2 * 12000) ** 0.5


def test_fan_in_of_a_sparse_projection_is_its_in_degree() -> None:
    net = network({"size": 1000}, {"weights": nets.FanIn(), "topology": nets.FixedInDegree(2)})
    assert abs(Simulator(net).params["retina->cortex"].w.std() * 2**0.5 - 1) < 4 / (2 * 2000) ** 0.5


# Neurons


def neuron_run(neuron: nets.Neuron, drive: Any, field: str = "x", dt: float = 1e-3, **ports: Any) -> np.ndarray:
    """A field of isolated neurons over time; ``drive`` and ports are (ticks, n)."""
    drive = np.asarray(drive, float)
    net = nx.MultiDiGraph()
    net.add_node("n", neuron=neuron, size=drive.shape[1])
    net.add_node("sink", neuron=nets.Linear(), size=1)
    net.add_edge("n", "sink")
    given = {f"n.{port}": values for port, values in ports.items()}
    if neuron.ports:
        given["n"] = drive
    return Simulator(net, dt=dt).run(given, len(drive), record={f"n.{field}": 1})[f"n.{field}"]


@pytest.mark.parametrize("dt", [1e-4, 3e-3])
def test_leaky_rate_decays_exponentially(dt: float) -> None:
    tau, ticks = 0.02, 40
    t = dt * np.arange(1, ticks + 1)[:, None]
    drive = np.tile([[1.0, -2.0]], (ticks, 1))
    v = neuron_run(nets.LeakyRate(tau=tau, bias=0.5), drive, "v", dt)
    np.testing.assert_allclose(v, (drive + 0.5) * (1 - np.exp(-t / tau)), rtol=1e-12)  # exact, but for 40 roundings
    x = neuron_run(nets.LeakyRate(tau=tau), drive, "x", dt)
    np.testing.assert_allclose(x, np.tanh(drive * (1 - np.exp(-t / tau))), rtol=1e-12)


def test_rate_linear_input_constant_integrator() -> None:
    d = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(neuron_run(nets.Input(), d), d)
    np.testing.assert_allclose(
        neuron_run(nets.Linear(bias=0.5), d, lateral=2 * d, apical=9 * d), 3 * d + 0.5, atol=ROUNDING
    )
    np.testing.assert_allclose(neuron_run(nets.Rate(bias=0.5), d, lateral=d), np.tanh(2 * d + 0.5), atol=ROUNDING)
    np.testing.assert_allclose(neuron_run(nets.Rate(activation=jax.nn.relu), d), np.maximum(d, 0))
    np.testing.assert_array_equal(neuron_run(nets.Constant(2.5), d), np.full_like(d, 2.5))
    np.testing.assert_allclose(
        neuron_run(nets.Integrator(rate=0.1, start=2.0), d), 2 + 0.1 * np.cumsum(d, 0), atol=ROUNDING
    )


def test_leaky_binary_settles_to_the_logistic() -> None:
    d = np.tile([[0.05, -0.05, 1.0]], (400, 1))
    neuron = nets.LeakyBinary(steepness=10.0, rate=0.1)
    expected = 1 / (1 + np.exp(-10 * d[0]))
    np.testing.assert_allclose(neuron_run(neuron, d)[-1], expected, rtol=1e-12)  # 0.9**400 is 1e-18
    np.testing.assert_allclose(neuron_run(neuron, d)[4], expected * (1 - 0.9**5), rtol=1e-12)
    np.testing.assert_array_equal(neuron_run(neuron, d, "y")[-1], [1, 0, 1])


def test_parameters_may_be_one_per_neuron() -> None:
    d = np.ones((3, 3))
    np.testing.assert_allclose(neuron_run(nets.Linear(bias=np.arange(3.0)), d), d + np.arange(3))
    tau = np.array([0.01, 0.02, 0.05])
    v = neuron_run(nets.LeakyRate(tau=tau), d, "v")
    np.testing.assert_allclose(v[-1], 1 - np.exp(-3e-3 / tau), rtol=1e-12)


def test_parameters_per_neuron_under_a_batch() -> None:
    net = network({"neuron": nets.Linear(bias=np.array([1.0, 2.0]))}, {"weights": 0.0})
    out = Simulator(net).run({"retina": np.ones((1, 5, 3))}, record={"cortex.x": 1})["cortex.x"]
    np.testing.assert_array_equal(out, np.broadcast_to([1.0, 2.0], (1, 5, 2)))


def test_softmax_and_winners() -> None:
    d = np.array([[1.0, 3.0, 2.0, -1.0], [0.5, 0.5, 0.0, 0.5]])
    soft = neuron_run(nets.Linear(lateral=nets.Softmax(beta=2.0)), d)
    np.testing.assert_allclose(soft, np.exp(2 * d) / np.exp(2 * d).sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(
        neuron_run(nets.Linear(lateral=nets.KWinners(2)), d), [[0, 3, 2, 0], [0.5, 0.5, 0, 0]]
    )
    np.testing.assert_array_equal(neuron_run(nets.Linear(lateral=nets.KWinners(9)), d), d)
    with pytest.raises(ValueError, match=says("KWinners(k=0)", "at least 1")):
        nets.KWinners(0)


def test_competition_is_within_each_copy_of_the_network() -> None:
    net = network({"neuron": nets.Linear(lateral=nets.KWinners(1))}, {"weights": 0.0})
    drive = np.random.default_rng(0).normal(size=(1, 6, 2)) + 5
    out = Simulator(net).run({"cortex": drive}, record={"cortex.x": 1})["cortex.x"]
    np.testing.assert_allclose(out, np.where(drive == drive.max(-1, keepdims=True), drive, 0))


def definite(rng: np.random.Generator, n: int, condition: float) -> np.ndarray:
    """A random positive definite matrix with eigenvalues from 1/condition to 1."""
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (basis * np.geomspace(1 / condition, 1, n)) @ basis.T


def settled(neuron: nets.Neuron, w: np.ndarray, d: np.ndarray, ticks: int) -> np.ndarray:
    net = nx.MultiDiGraph()
    net.add_node("u", neuron=neuron, size=len(d))
    net.add_edge("u", "u", field="v", port="lateral", weights=w)
    return Simulator(net).run({"u": np.tile(d, (ticks, 1))}, record={"u.v": 1})["u.v"]


def test_settling_is_linskers_iteration_and_ends_at_the_inverse() -> None:
    rng = np.random.default_rng(0)
    leak = 0.3
    w, d = definite(rng, 6, 10.0), rng.normal(size=6)
    q = w + leak * np.eye(6)
    alpha = 1 / np.linalg.eigvalsh(q).max()
    v = settled(nets.Settling(alpha=alpha, leak=leak), w, d, 200)
    f, y = np.eye(6) - alpha * q, d.copy()
    for t in range(5):  # y <- Y + F y, v = alpha y
        np.testing.assert_allclose(v[t], alpha * y, rtol=1e-12, atol=1e-14)
        y = d + f @ y
    # the slowest mode shrinks by 1 - 0.4/1.3 a tick: 0.7**200 is 1e-32
    np.testing.assert_allclose(v[-1], np.linalg.solve(q, d), rtol=1e-10)


@pytest.mark.parametrize(("times", "converges"), [(1.99, True), (2.01, False)])
def test_settling_converges_up_to_two_over_the_largest_eigenvalue(times: float, converges: bool) -> None:
    rng = np.random.default_rng(1)
    w, d = definite(rng, 5, 10.0), rng.normal(size=5)
    target = np.linalg.solve(w, d)
    v = settled(nets.Settling(alpha=times / np.linalg.eigvalsh(w).max()), w, d, 2000)
    error = np.linalg.norm(v - target, axis=1)
    # the fastest mode is multiplied by -0.99 or -1.01 a tick: 2e-9 or 4e8 in 2000 ticks
    assert (error[-1] < 1e-6 * error[0]) if converges else (error[-1] > 1e6 * error[0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("relaxation", [0.5, 1.0, 1.9])
def test_scaled_settling_converges_for_every_definite_matrix(seed: int, relaxation: float) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.1, 30, 6)  # rows of very different strength, known to nobody
    w, d, leak = definite(rng, 6, 20.0) * np.outer(scales, scales), rng.normal(size=6), 0.1
    q = w + leak * np.eye(6)
    steps = relaxation / (leak + np.abs(w).sum(1))
    slowest = np.abs(np.linalg.eigvals(np.eye(6) - steps[:, None] * q)).max()
    assert slowest < 1  # Gershgorin, as the neuron's documentation says
    ticks = min(int(np.log(1e-9) / np.log(slowest)) + 10, 60_000)
    v = settled(nets.ScaledSettling(relaxation=relaxation, leak=leak), w, d, ticks)
    error = np.linalg.norm(v - np.linalg.solve(q, d), axis=1)
    assert error[-1] < 1e-5 * error[0] + 1e-12
    np.testing.assert_allclose(v[0], steps * d, rtol=1e-12)


def test_noise_of_settling_reaches_the_output_only() -> None:
    d, noise = np.ones((3, 2)), np.full((3, 2), 0.25)
    np.testing.assert_array_equal(neuron_run(nets.Settling(alpha=0.5), d, "x", noise=noise), d + 0.25)
    np.testing.assert_array_equal(neuron_run(nets.Settling(alpha=0.5), d, "v", noise=noise)[:, 0], [0.5, 1.0, 1.5])


class Dice(nets.Neuron):
    noise: ClassVar[Any] = "uniform"

    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, noise: Any) -> Fields:
        return Fields(x=noise)


class Gauss(Dice):
    noise: ClassVar[Any] = "normal"


def test_noise_of_neurons() -> None:
    for neuron, mean, variance, kurtosis in ((Dice(), 0.5, 1 / 12, 1 / 180), (Gauss(), 0.0, 1.0, 2.0)):
        x = neuron_run(neuron, np.zeros((50, 100)))
        count = x.size
        assert abs(x.mean() - mean) < 4 * (variance / count) ** 0.5  # four standard errors of mean and variance
        assert abs(x.var() - variance) < 4 * (kurtosis / count) ** 0.5
        centred = x - mean
        assert abs((centred[1:] * centred[:-1]).mean()) < 4 * variance / (count - 100) ** 0.5  # ticks are independent
        assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 4 * variance / (count - 50) ** 0.5  # neurons too


def test_the_worm_has_300_neurons() -> None:
    worm = nets.c_elegans()
    assert worm.number_of_nodes() == 300
    assert worm.size(weight="weight") == 6509
    assert sum(t == "GABA" for _, t in worm.nodes(data="transmitter")) == 26
    signed = nets.c_elegans(signed=True)
    assert all(w < 0 for _, _, w in signed.out_edges("DD1", data="weight"))
    assert signed.edges["AVAL", "AS11"]["weight"] == worm.edges["AVAL", "AS11"]["weight"] == 4
    assert "LegacyBodyWallMuscles" in nets.c_elegans(muscles=True)
    gaps = nets.c_elegans("electrical")
    assert not gaps.is_directed()
    assert gaps.has_edge("AS10", "AVAL")
    with pytest.raises(ValueError, match="'chemical' or 'electrical'"):
        nets.c_elegans("optical")  # type: ignore[arg-type]
    net = nets.from_neurons(worm, neuron=nets.LeakyRate(), delay=1)
    assert Simulator(net).params["neurons->neurons"].w.sum() == 6509


def test_block_models_have_the_probabilities_of_their_table() -> None:
    net = nets.block_model(
        {"E": 300, "I": 100}, [[0.1, 0.3], [0.0, 0.2]], nets.LIF(), seed=3, delay=1,
        weights=lambda pre, post: 1.0 if pre == "E" else -4.0, port=lambda pre, post: "excitatory",
    )  # fmt: skip
    assert sorted(net.edges()) == [("E", "E"), ("I", "E"), ("I", "I")]
    sim = Simulator(net)
    for name, n, p, w in (("E->E", 90_000, 0.1, 1), ("I->E", 30_000, 0.3, -4), ("I->I", 10_000, 0.2, -4)):
        assert abs(len(sim.synapses(name)[0]) - n * p) < 5 * (n * p * (1 - p)) ** 0.5
        assert (np.asarray(sim.params[name].w) == w).all()
    with pytest.raises(NetworkError, match=r"shape \(1, 2\); 2 populations need \(2, 2\)"):
        nets.block_model({"E": 3, "I": 1}, [[0.1, 0.3]], nets.LIF())
    with pytest.raises(NetworkError, match=r"from 'I' to 'E' is 2\.0, which is no probability"):
        nets.block_model({"E": 3, "I": 1}, [[0.1, 2.0], [0, 0]], nets.LIF())
    column = nets.microcircuit(nets.LIF(), scale=0.01, delay=1)
    assert sum(size for _, size in column.nodes(data="size")) == pytest.approx(771.69, abs=5)
    assert column.number_of_edges() == 8 * 8 - 9


def test_spatial_wiring_falls_off_as_a_gaussian() -> None:
    for wrap in (False, True):
        matrix = nets.Spatial(sigma=2.0, p=0.8, seed=1, wrap=wrap).connect((40, 40), (40, 40))
        assert matrix is not None
        post, pre = (np.array(np.divmod(ids, 40)) for ids in matrix.nonzero())
        apart = np.abs(post - pre)
        if wrap:
            apart = np.minimum(apart, 40 - apart)
        for dx, dy in ((0, 0), (1, 0), (2, 2), (5, 0)):
            pairs = (40 if wrap else 40 - dx) * (40 if wrap else 40 - dy) * (2 if dx else 1) * (2 if dy else 1)
            p = 0.8 * np.exp(-(dx**2 + dy**2) / 8)
            found = ((apart[0] == dx) & (apart[1] == dy)).sum()
            assert abs(found - pairs * p) < 5 * (pairs * p) ** 0.5
    alone = nets.Spatial(sigma=1.0, self_connections=False).connect((9,), (9,))
    assert alone is not None
    assert alone.diagonal().sum() == 0
    for bad in ({"sigma": 0.0}, {"p": 2.0}):
        with pytest.raises(ValueError, match="must be positive"):
            nets.Spatial(**bad).connect((3,), (3,))
    with pytest.raises(ValueError, match="same dimension"):
        nets.Spatial().connect((3,), (3, 3))


@pytest.mark.parametrize("initialiser", [nets.Normal(0.3, 0.1), nets.Uniform(-1.0, 2.0), nets.FanIn(2.0)])
@pytest.mark.parametrize("shape", [(3, 5), (7,), (64, 64), (65, 64)])
def test_weights_do_not_depend_on_how_they_are_drawn(initialiser: nets.Initialiser, shape: tuple[int, ...]) -> None:
    """Small arrays are the beginning of a larger draw: the numbers are those that JAX draws for the shape."""
    key = jax.random.key(3)
    direct = {
        nets.Normal: lambda: 0.1 + 0.3 * jax.random.normal(key, shape),
        nets.Uniform: lambda: jax.random.uniform(key, shape, minval=-1.0, maxval=2.0),
        nets.FanIn: lambda: 2.0 / jnp.sqrt(11) * jax.random.normal(key, shape),
    }[type(initialiser)]()
    np.testing.assert_array_equal(initialiser(key, shape, 11), direct)


def test_orthogonal_weights_are_those_of_the_library() -> None:
    key = jax.random.key(5)
    ours = nets.Orthogonal(0.5)(key, (6, 9), 9)
    np.testing.assert_allclose(ours, 0.5 * jax.random.orthogonal(key, 9)[:6], rtol=1e-14)


@pytest.mark.parametrize(
    "places",
    [
        ([[2, 3, 4]],),
        ([[2, 4, 3]],),
        ([[1]],),
        ([[1, 1, 1]],),
        ([3, 4, 5],),  # 5 is behind the last
        ([[1]], [[[0, 1, 2]]]),
        ([[0, 1, 2]], [[2]]),
        ([0, 1, 2], [1, 2, 3]),
        ([[1], [0]], [[0, 1, 2, 3]]),
        ([[4]], [[[0, 1, 5]]]),
    ],
)
def test_numbers_at_places_known_beforehand(places: Any) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 5))
    arrays = [np.asarray(place) for place in places]
    expected = np.pad(values, [(0, 0)] * (3 - len(arrays)) + [(0, 1)] * len(arrays))[..., *arrays]
    np.testing.assert_array_equal(picked(jnp.asarray(values), *arrays), expected)
