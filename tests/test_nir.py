"""NIR graphs mean what engrax runs: an interpreter of the nodes' equations and two other readers simulate them."""

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import ExportError, Fields, Simulator, networks as nets, rules, sweep, to_nir
from engrax.cli import main

nir = pytest.importorskip("nir")
SPIKING, MEMORY = (nir.LIF, nir.CubaLIF), (nir.LIF, nir.CubaLIF, nir.LI, nir.I)


def late(graph: Any) -> set[tuple[str, str]]:
    """Edges that are heard a step late: every loop has one, which leaves the last of its neurons."""
    found, wiring, place = set(), nx.DiGraph(graph.edges), list(graph.nodes).index
    wiring.remove_edges_from([edge for edge in graph.edges if isinstance(graph.nodes[edge[1]], nir.Delay)])
    while not nx.is_directed_acyclic_graph(wiring):
        leaving = [edge for edge in nx.find_cycle(wiring) if isinstance(graph.nodes[edge[0]], MEMORY)]
        last = max(leaving, key=lambda edge: (isinstance(graph.nodes[edge[0]], SPIKING), place(edge[0])))
        wiring.remove_edge(*last)
        found.add(last)
    return found


def stepped(graph: Any, inputs: Mapping[str, np.ndarray], dt: float) -> dict[str, np.ndarray]:
    """The equations of the nodes in forward Euler steps of ``dt``, from 0: every node's output, and as ``name.v`` its
    potential."""
    delayed = late(graph)
    into: dict[str, list[str]] = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    now = nx.DiGraph([(a, b) for a, b in graph.edges if (a, b) not in delayed])
    now.remove_edges_from([(a, b) for a, b in graph.edges if isinstance(graph.nodes[b], nir.Delay)])
    order = list(nx.topological_sort(now))
    sizes = {name: int(np.prod(node.output_type["output"])) for name, node in graph.nodes.items()}
    ticks = len(next(iter(inputs.values())))
    # The last row is what was before the first step.
    out, v, g = ({name: np.zeros((ticks + 1, size)) for name, size in sizes.items()} for _ in range(3))
    for n in range(ticks):
        for name in order:
            node, old = graph.nodes[name], v[name][n - 1]
            i = sum((out[a][n - ((a, name) in delayed)] for a in into[name]), np.zeros(1))
            match node:
                case nir.Input():
                    out[name][n] = inputs[name][n]
                case nir.Output():
                    out[name][n] = i
                case nir.Linear():
                    out[name][n] = node.weight @ i
                case nir.Affine():
                    out[name][n] = node.weight @ i + node.bias
                case nir.Scale():
                    out[name][n] = node.scale * i
                case nir.Delay():
                    ago = round(float(node.delay[0]) / dt)
                    out[name][n] = sum(out[a][n - ago] for a in into[name]) if n >= ago else 0.0
                case nir.I():
                    out[name][n] = v[name][n] = old + dt * node.r * i
                case nir.LI():
                    out[name][n] = v[name][n] = old + dt / node.tau * (node.v_leak - old + node.r * i)
                case nir.LIF() | nir.CubaLIF():
                    tau = node.tau if isinstance(node, nir.LIF) else node.tau_mem
                    if isinstance(node, nir.CubaLIF):
                        i = g[name][n] = g[name][n - 1] + dt / node.tau_syn * (node.w_in * i - g[name][n - 1])
                    moved = old + dt / tau * (node.v_leak - old + node.r * i)
                    out[name][n] = moved > node.v_threshold
                    v[name][n] = np.where(out[name][n], node.v_reset, moved)
                case _:
                    raise TypeError(node)
    return {name: x[:-1] for name, x in out.items()} | {f"{name}.v": x[:-1] for name, x in v.items()}


def arrays(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)


def spikes(seed: int, ticks: int, size: int, probability: float) -> np.ndarray:
    return (np.random.default_rng(seed).random((ticks, size)) < probability).astype(float)


def test_without_time_constants_all_is_the_same() -> None:
    """Delays, loops, sparse and parallel projections, sums, biases: to rounding, for there is no equation to solve."""
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=(3, 2))
    net.add_node("always", neuron=nets.Constant(0.5), size=1)
    net.add_node("a", neuron=nets.Linear(bias=np.array([0.1, -0.2, 0.3, 0.0])), size=4)
    net.add_node("b", neuron=nets.Integrator(rate=0.1), size=3)
    net.add_node("relay", neuron=nets.Input(), size=3)
    net.add_node("echo", neuron=nets.Linear(), size=2)
    net.add_edge("input", "a", delay=3)
    net.add_edge("input", "a", topology=nets.Probability(0.5, seed=1), weights=nets.Normal(0.3))
    net.add_edge("always", "a", port="lateral")
    net.add_edge("a", "a", delay=1, port="lateral")
    net.add_edge("a", "b")
    net.add_edge("b", "a", delay=2)
    net.add_edge("b", "b", delay=1)
    net.add_edge("b", "relay", topology=nets.OneToOne())
    net.add_edge("a", "echo")
    net.add_edge("echo", "echo", delay=1)
    sim = Simulator(net, seed=1)
    drive = {"input": arrays(0, 50, 6), "relay": arrays(1, 50, 3)}
    graph = to_nir(sim, drive)
    given = {"input": drive["input"], "always": np.full((50, 1), 0.5), "relay_drive": drive["relay"]}
    found = stepped(graph, given, 1e-3)
    ours = sim.run(drive, record={"a.x": 1, "b.x": 1, "relay.x": 1, "echo.x": 1})
    for name in ("a", "b", "relay", "echo"):
        np.testing.assert_allclose(found[name], ours[f"{name}.x"], rtol=1e-12, atol=1e-14)
    assert np.ptp(found["relay"], axis=0).min() > 0.1
    np.testing.assert_array_equal(found["relay_output"], found["relay"])


STILL = {"refractory": 0.0, "threshold": 1e3}  # no spikes
LEAKY = {"rest": -60.0, "start": -60.0, **STILL}
TAUS = np.array([0.01, 0.02, 0.04])
# By population: the neuron, the ports at which something arrives, its nodes, the potential at rest.
MODELS: dict[str, tuple[nets.Neuron, tuple[str, ...], tuple[str, ...], float]] = {
    "two": (nets.LIF(tau=TAUS, **LEAKY), ("excitatory", "inhibitory", "drive"), ("LI", "LI", "LIF"), -60.0),
    "one": (nets.LIF(tau_inhibitory=TAUS, **LEAKY), ("inhibitory",), ("CubaLIF",), -60.0),
    "same": (nets.LIF(tau_excitatory=0.01, **LEAKY), ("excitatory", "inhibitory"), ("CubaLIF",), -60.0),
    "driven": (nets.LIF(**LEAKY), ("excitatory", "drive"), ("LI", "LIF"), -60.0),
    "held": (nets.LIF(**LEAKY), ("drive",), ("LIF",), -60.0),
    "jumping": (nets.AdaptiveLIF(beta=0.0, **STILL), ("excitatory",), ("LIF",), -65.0),
    "scaled": (nets.AdaptiveLIF(beta=0.0, tau=TAUS, **STILL), ("inhibitory", "drive"), ("LIF", "Scale"), -65.0),
    "still": (nets.AdaptiveLIF(beta=0.0, **STILL), ("drive",), ("LIF",), -65.0),
    "rate": (nets.LeakyRate(tau=TAUS, activation=jax.nn.identity, bias=2.0), ("drive", "lateral"), ("LI",), 0.0),
}


def test_potentials_converge() -> None:
    """Below threshold the Euler steps of the graph come to the exact ones of engrax in proportion to their length."""
    errors: dict[str, list[float]] = {name: [] for name in MODELS}
    for dt in (1e-4, 5e-5):
        repeat = round(1e-4 / dt)
        net = nx.MultiDiGraph()
        net.add_node("input", neuron=nets.Input(), size=10)
        given = {"input": np.zeros((400 * repeat, 10))}
        given["input"][::repeat] = spikes(0, 400, 10, 0.02)
        drive = dict(given)
        for name, (neuron, ports, _, _) in MODELS.items():
            net.add_node(name, neuron=neuron, size=3)
            for port in ports:
                net.add_edge("input", name, port=port, weights=nets.Uniform(-2.0, 2.0))
            if "drive" in ports:
                drive[f"{name}.drive"] = given[f"{name}_drive"] = np.repeat(10 * arrays(1, 8, 3), 50 * repeat, axis=0)
        sim = Simulator(net, seed=2, dt=dt)
        graph = to_nir(sim, drive)
        found = stepped(graph, given, dt)
        ours = sim.run(drive, record={f"{name}.v": 1 for name in MODELS})
        for name, (_, ports, nodes, rest) in MODELS.items():
            made = [type(node).__name__ for node_name, node in graph.nodes.items() if node_name.startswith(name)]
            assert sorted(made) == sorted([*nodes, "Output", *(["Input"] if "drive" in ports else [])])
            exact = ours[f"{name}.v"] - rest
            assert np.ptp(exact, axis=0).min() > 0.1
            errors[name].append(np.abs(found[f"{name}.v"] - exact).max() / np.abs(exact).max())
    for long, short in errors.values():
        assert long < 0.02  # dt / tau of the fastest equation
        assert 1.8 < long / short < 2.2  # first order


@pytest.mark.parametrize("delays", [(0, 1), (2, 1), (1, 1), (0, 3), (2, 2), (1, 4)])
def test_spikes_take_as_long(delays: tuple[int, int]) -> None:
    """Two cells hand a spike round a loop, each jumping over its threshold at once: tick by tick the same."""
    jumping = nets.AdaptiveLIF(beta=0.0, refractory=0.0)
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=1)
    for name in ("a", "b", "c"):
        net.add_node(name, neuron=jumping, size=1)
    net.add_edge("input", "a", weights=100.0, delay=1)
    net.add_edge("a", "b", weights=100.0, delay=delays[0])
    net.add_edge("b", "a", weights=100.0, delay=delays[1])
    net.add_edge("b", "c", weights=100.0, delay=2)
    sim = Simulator(net, dt=1e-4)
    kick = np.zeros((30, 1))
    kick[4] = 1
    graph = to_nir(sim)
    assert ("b_a_delay" in graph.nodes) == (delays != (0, 1))
    found = stepped(graph, {"input": kick}, 1e-4)
    ours = sim.run({"input": kick}, record={"a.x": 1, "b.x": 1, "c.x": 1})
    for name in ("a", "b", "c"):
        np.testing.assert_array_equal(found[name], ours[f"{name}.x"])
        assert 4 <= ours[f"{name}.x"].sum() <= 26


CELL = nets.LIF(refractory=0.0, rest=-65.0, reset=-65.0, start=-65.0, tau_excitatory=0.01)


def layers(*, loop: bool = False) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=20)
    net.add_node("hidden", neuron=CELL, size=10)
    net.add_node("out", neuron=CELL, size=5)
    net.add_edge("input", "hidden", weights=nets.Uniform(0.0, 12.0))
    net.add_edge("hidden", "out", weights=nets.Uniform(0.0, 16.0))
    if loop:
        net.add_edge("out", "out", weights=nets.Uniform(-2.0, 2.0), delay=1)
    return net


@pytest.mark.parametrize("loop", [False, True])
def test_norse_runs_it(tmp_path: Path, loop: bool) -> None:
    """Norse takes Euler steps too: the interpreter's spikes one by one, and as many as engrax's."""
    torch = pytest.importorskip("torch")
    norse = pytest.importorskip("norse.torch")
    dt = 1e-4
    sim = Simulator(layers(loop=loop), seed=2, dt=dt)
    given = {"input": spikes(1, 2000, 20, 0.005)}
    nir.write(tmp_path / "network.nir", to_nir(sim))
    graph = nir.read(tmp_path / "network.nir")
    with pytest.warns(DeprecationWarning, match=r"nirtorch\.load"):  # by which norse 1.1 reads
        module = norse.from_nir(graph, dt=dt)
    state, found = None, []
    with torch.no_grad():
        for row in torch.tensor(given["input"], dtype=torch.float32):
            out, state = module(row[None]) if state is None else module(row[None], state)
            found.append(out[0].numpy())
    # In 32 bits a potential that comes within rounding of the threshold may pass it a step later: none here does.
    np.testing.assert_array_equal(np.array(found), stepped(graph, given, dt)["out"])
    ours = sim.run(given, record={"out.x": 1})["out.x"].sum(0)
    assert ours.min() > 30
    np.testing.assert_allclose(np.sum(found, axis=0), ours, atol=1)  # one may fall before or after the end


def test_jaxsnn_runs_it(tmp_path: Path) -> None:
    """jaxsnn goes from event to event exactly, and finds the spikes of engrax, which wait for the end of their tick.

    jaxsnn 0.3 takes time constants in ms and weights as (pre, post); its synapses jump by the weight, ``w_in`` or not.
    """
    pytest.importorskip("jaxsnn")
    from jaxsnn.event.types import Spike
    from jaxsnn.event.utils.from_nir import ConversionConfig, from_nir

    logging.getLogger("jaxsnn").setLevel(logging.ERROR)
    dt, ticks = 1e-5, 4000
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=8)
    net.add_node("out", neuron=CELL, size=4)
    net.add_edge("input", "out", weights=nets.Uniform(0.0, 30.0))
    sim = Simulator(net, seed=2, dt=dt)
    given = spikes(1, ticks, 8, 0.001)
    nir.write(tmp_path / "network.nir", to_nir(sim))
    graph = nir.read(tmp_path / "network.nir")
    graph.nodes["input_out"].weight = graph.nodes["input_out"].weight.T.copy()
    cell = graph.nodes["out"]
    cell.tau_syn, cell.tau_mem = 1e3 * cell.tau_syn, 1e3 * cell.tau_mem
    ours = sim.run({"input": given}, record={"out.spikes": 1})["out.spikes"]
    tick, ids = np.nonzero(given)
    n = len(tick)
    config = ConversionConfig(t_max=ticks * dt, n_steps={"out": n + len(ours.times) + 5})
    init, apply = from_nir(graph, config).done()
    sent = Spike(jnp.array(tick * dt), jnp.array(ids), jnp.zeros(n), jnp.zeros(n, int), jnp.ones(n, bool))
    theirs = apply({"input": jax.tree.map(lambda x: x[None], sent)}, init(jax.random.key(0)))["out"]
    own = np.asarray(theirs.internal[0]) & (np.asarray(theirs.time[0]) < ticks * dt)
    times, cells = np.asarray(theirs.time[0])[own] / dt, np.asarray(theirs.idx[0])[own]
    for k in range(4):
        exact, on_grid = np.sort(times[cells == k]), ours.times[ours.ids == k] + 1  # the end of the tick
        assert len(exact) == len(on_grid) > 3
        late = on_grid - exact  # each reset comes up to a tick late, and what follows it with it
        assert late.min() > 0 and np.all(late < 1 + np.arange(len(late)))


def test_the_file_holds_the_graph(tmp_path: Path) -> None:
    net = layers(loop=True)
    net.add_node("slow", neuron=nets.LIF(refractory=0.0, tau=np.linspace(0.01, 0.03, 4)), size=4)
    net.add_edge("out", "slow", delay=5)
    net.add_edge("input", "slow", port="inhibitory")
    graph = to_nir(Simulator(net, dt=1e-4), ["slow"])
    nir.write(tmp_path / "network.nir", graph)
    read = nir.read(tmp_path / "network.nir")
    assert sorted(read.edges) == sorted(graph.edges)
    assert set(read.nodes) == set(graph.nodes)
    assert read.metadata == graph.metadata == {"simulator": "engrax", "dt": 1e-4}
    for name, node in graph.nodes.items():
        assert type(read.nodes[name]) is type(node)
        for field, value in node.to_dict().items():
            np.testing.assert_array_equal(read.nodes[name].to_dict()[field], value)
    assert graph.nodes["out_slow_delay"].delay.tolist() == [5e-4] * 5  # seconds
    slow = graph.nodes["slow"]
    assert (slow.v_leak[0], slow.v_threshold[0], slow.v_reset[0]) == (0.0, -1.0, -11.0)  # mV above a rest of -49


def test_the_weights_are_those_that_were_learned() -> None:
    """After a run with a batch, which is another state and the same weights."""
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=6)
    net.add_node("cell", neuron=nets.Linear(), size=2)
    net.add_edge("input", "cell", rule=rules.Oja(eta=0.1))
    sim = Simulator(net)
    before = to_nir(sim).nodes["input_cell"].weight
    sim.run({"input": arrays(0, 20, 4, 6)})
    after = to_nir(sim).nodes["input_cell"].weight
    np.testing.assert_array_equal(after, sim.params["input->cell"].w)
    assert np.abs(after - before).min() > 1e-3


def test_inputs_and_outputs_are_those_asked_for() -> None:
    net = layers()
    net.add_node("restless", neuron=nets.LIF(refractory=0.0), size=2)
    net.add_edge("restless", "out")
    graph = to_nir(net)
    assert set(graph.inputs) == {"input", "restless_drive"}
    assert set(graph.outputs) == {"out_output"}
    assert set(to_nir(net, outputs=["hidden", "out"]).outputs) == {"hidden_output", "out_output"}
    loop = nx.MultiDiGraph()
    for name in ("e", "i"):
        loop.add_node(name, neuron=nets.LIF(refractory=0.0), size=3)
    loop.add_edge("e", "i")
    loop.add_edge("i", "e", port="inhibitory")
    assert set(to_nir(loop, {"e": np.zeros((5, 3))}).outputs) == {"e_output", "i_output"}
    with pytest.raises(ExportError, match="nothing drives this network"):
        to_nir(loop)
    with pytest.raises(ExportError, match="no population 'x' to read; populations: e, i"):
        to_nir(loop, ["e"], outputs=["x"])


class Doubling(nets.Linear):
    """A neuron of one's own, though it is a `Linear`."""

    ports: ClassVar[tuple[str, ...]] = ("drive",)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=2 * ports.drive)


def between(neuron: nets.Neuron, pre: nets.Neuron | None = None, **edge: Any) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=pre or nets.Input(), size=2)
    net.add_node("b", neuron=neuron, size=2)
    net.add_edge("a", "b", **edge)
    return net


REFUSED: dict[str, Callable[[], Any]] = {
    r"population 'b' \(LIF\) has a refractory time": lambda: between(nets.LIF()),
    r"'b' \(AdaptiveLIF\) has a refractory time": lambda: between(nets.AdaptiveLIF(beta=0.0)),
    r"'b' \(AdaptiveLIF\) has a threshold that adapts": lambda: between(nets.AdaptiveLIF(refractory=0.0)),
    r"'b' \(Izhikevich\) has no equivalent in NIR; these neurons have: LIF": lambda: between(nets.Izhikevich()),
    r"'b' \(Rate\) has no equivalent": lambda: between(nets.Rate()),
    r"'b' \(Doubling\) has no equivalent": lambda: between(Doubling()),
    r"'b' \(LeakyRate\) has an activation function": lambda: between(nets.LeakyRate()),
    r"'b' \(Integrator\) starts from another value": lambda: between(nets.Integrator(start=1.0)),
    r"'b' \(Linear\): Softmax looks at the whole population": lambda: between(nets.Linear(lateral=nets.Softmax())),
    r"'b' \(Poisson\) is a source, .* remove 'a->b'": lambda: between(nets.Poisson()),
    "projection 'a->b' ends at a port that only rules read": lambda: between(nets.Linear(), port="learning"),
    "projection 'a->b' carries 'v'": lambda: between(nets.Linear(), nets.LIF(refractory=0.0), field="v"),
    "projection 'a->b' lives in some phases": lambda: between(nets.Linear(), phases={"wake"}),
    "without a sweep": lambda: sweep(between(nets.Linear()), {"seed": range(2)}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_nir_cannot_express_is_said(message: str) -> None:
    with pytest.raises(ExportError, match=message):
        to_nir(REFUSED[message]())


def test_the_command_writes_what_a_run_learned(tmp_path: Path) -> None:
    net = between(nets.Linear(), rule=rules.Oja(eta=0.1))
    sim = Simulator(net, dt=2e-3)
    with sim.record(tmp_path / "run.h5", {"b.x": 1}):
        sim.run({"a": arrays(0, 20, 2), "b.lateral": arrays(1, 20, 2)})

    def export(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["export", str(tmp_path / "run.h5"), *arguments])

    out = tmp_path / "network.nir"
    done = export(str(out))
    assert done.exit_code == 0, done.output
    graph = nir.read(out)
    np.testing.assert_array_equal(graph.nodes["a_b"].weight, sim.params["a->b"].w)
    assert set(graph.inputs) == {"a", "b_lateral"}
    assert float(graph.metadata["dt"]) == 2e-3
    assert "exists already" in export(str(out)).output
    assert export(str(out), "--overwrite").exit_code == 0
    assert "leave fields and --ticks out" in export(str(tmp_path / "other.nir"), "b.x").output


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ExportError, match=r"pip install 'engrax\[nir\]'"):
        to_nir(layers())


def test_nodes_have_names_of_their_own() -> None:
    """Also where a population is called what another's output would be."""
    net = between(nets.Linear())
    net.add_node("b_output", neuron=nets.Linear(), size=3)
    net.add_edge("a", "b_output")
    graph = to_nir(net)
    assert len(graph.nodes) == 7
    assert {name for name, node in graph.nodes.items() if isinstance(node, nir.Output)} == {
        "b_output2",
        "b_output_output",
    }
