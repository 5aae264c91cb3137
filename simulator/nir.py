r"""A network as a graph of the Neuromorphic Intermediate Representation (NIR), for simulators and chips that read it.

NIR describes each node by an equation in continuous time and leaves its solution to the reader. A tick's exact
integration stays behind: a reader takes steps of its own. Times are in seconds, potentials in mV above rest: then
``v_leak`` is 0, where readers start a neuron, and the only leak that some of them know. NIR's spike is a 1 for as long
as a step lasts; for a synapse to jump by the weight w at each it has the resistance :math:`R = \tau / \mathrm{dt}`:

.. math::
    \tau\,\dot g = -g + R\,w\,z

Source: Pedersen et al., Nature Communications 15:8122 (2024).
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import networkx as nx
import numpy as np

from .brian import _Names
from .errors import ExportError
from .feed import target_of
from .networks import LIF, AdaptiveLIF, Constant, Input, Integrator, LeakyRate, Linear, Poisson, Spiking
from .networks.graph import Projection
from .simulator import Simulator

if TYPE_CHECKING:
    import nir

SOURCES = (Input, Constant, Poisson)
MEMORY = (Spiking, LeakyRate, Integrator)
SYNAPTIC = ("excitatory", "inhibitory")


def to_nir(
    network: nx.Graph | Simulator,
    drive: Iterable[str] = (),
    *,
    outputs: Iterable[str] = (),
    seed: int = 0,
    dt: float = 1e-3,
) -> "nir.NIRGraph":
    """The network of ``Simulator(network, seed=seed, dt=dt)`` as a ``nir.NIRGraph``, which ``nir.write`` writes.

    Nodes have the names of populations and projections, with ``_`` for every character that a Python name cannot have:

    - `Input`, `Constant` and `Poisson` become ``Input``: their output (drive, value, spikes) is fed to the graph;
    - `LIF` becomes ``CubaLIF``; with drive or two synaptic time constants, ``LIF`` and an ``LI`` per synaptic port;
    - `AdaptiveLIF` with ``beta=0`` becomes ``LIF``, `LeakyRate` with ``jax.nn.identity`` ``LI``, `Integrator` ``I``,
      `Linear` (and `Input` with afferents) an ``Affine`` of the identity;
    - a projection becomes ``Linear`` (post, pre), after a ``Delay`` (seconds) where it has one. Where the only delays
      of a loop are the single ticks that close it, they are left out: whoever runs a loop in steps adds a step.

    ``drive`` names the populations, or ``"population.port"``, that are driven from outside, each an ``Input`` too; the
    drive of `Simulator.run` will do. Populations that feed no other have an ``Output``, and those that ``outputs``
    names; all, where none has. Run the graph in steps of ``dt`` (in its metadata): a spike weighs as much as a step is
    long.

    The weights of a `Simulator` are those that it has now. Rules are not part of NIR: a plastic projection keeps what
    it has learned, and learns no more. Nor is the state: potentials start from rest, spikes under way are lost.

    Raises `ExportError` naming what NIR cannot express: another neuron, one with a competition or a refractory time of
    more than a tick; a projection that lives in phases, carries another field than ``x`` or ends at a port that only
    rules read; a sweep; a network without inputs. Needs nir (``pip install 'engrax[nir]'``).
    """
    try:
        import nir
    except ImportError as error:
        raise ExportError("to_nir needs nir: pip install 'engrax[nir]'") from error
    sim = network if isinstance(network, Simulator) else Simulator(network, seed=seed, dt=dt)
    if sim.points is not None:
        raise ExportError("a NIR graph is one network: export a Simulator without a sweep")
    graph = _Graph(nir, sim, drive, outputs)
    return nir.NIRGraph(graph.nodes, graph.edges, metadata={"simulator": "engrax", "dt": sim.dt})


class _Graph:
    """The ``nodes`` by name, and the ``edges`` between them."""

    def __init__(self, nir: Any, sim: Simulator, drive: Iterable[str], outputs: Iterable[str]) -> None:
        self.nir, self.sim, self.circuit = nir, sim, sim.network.circuit
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self._names = _Names(())
        for name in (*self.circuit.populations, *self.circuit.projections):
            self._names(name)
        projections = self.circuit.projections.values()
        driven = [target_of(self.circuit, name) for name in drive]
        self._used = {*((p.post, p.port) for p in projections), *driven}
        self._closing = self._single_steps()
        reached = {name for name, _ in self._used}
        driven += [(name, "drive") for name in self.circuit.order if name not in reached]
        self._entries = {name: self._population(name) for name in self.circuit.order}
        for name, port in dict.fromkeys(driven):
            if self._entries[name]:  # else it is an Input already
                entry = self._entry(f"drive for '{name}.{port}'", name, port)
                size = self.circuit.populations[name].size
                self._put(f"{name}/{port}", nir.Input({"input": np.array([size])}), before=entry)
        for projection in projections:
            self._projection(projection)
        for name in self._read(outputs):
            output = nir.Output({"output": np.array([self.circuit.populations[name].size])})
            self._put(f"{name}/output", output, after=self._names(name))
        if not any(isinstance(node, nir.Input) for node in self.nodes.values()):
            raise ExportError("a NIR graph has inputs, and nothing drives this network: say what does, drive=[...]")

    def _put(self, thing: str, node: Any, after: str | None = None, before: str | None = None) -> str:
        """Add a node with its edges. Returns its name."""
        name = self._names(thing)
        self.nodes[name] = node
        self.edges += [(after, name)] if after else []
        self.edges += [(name, before)] if before else []
        return name

    def _read(self, outputs: Iterable[str]) -> Iterable[str]:
        """The populations that have an output."""
        wanted = dict.fromkeys(outputs)
        for name in wanted:
            if name not in self.circuit.populations:
                raise ExportError(f"no population {name!r} to read; populations: {', '.join(self.circuit.populations)}")
        own = [name for name, entries in self._entries.items() if entries]
        feeding = {p.pre for p in self.circuit.projections.values() if p.pre != p.post}
        return wanted | dict.fromkeys(name for name in own if name not in feeding) or own

    # Populations: each makes its nodes and returns the node at which what arrives at a port enters

    def _population(self, name: str) -> dict[str, str]:
        population = self.circuit.populations[name]
        neuron, owner = population.neuron, f"population {name!r} ({type(population.neuron).__name__})"
        if neuron.standardised:
            raise ExportError(f"{owner} compares the samples of a batch, which NIR cannot express")
        if neuron.lateral is not None or neuron.collective:
            who = type(neuron if neuron.lateral is None else neuron.lateral).__name__
            raise ExportError(f"{owner}: {who} looks at the whole population, which NIR cannot express")
        afferents = [p.name for p in self.circuit.projections.values() if p.post == name]
        if type(neuron) in SOURCES and not (isinstance(neuron, Input) and afferents):
            if afferents:
                raise ExportError(f"{owner} is a source, whose output NIR gets from outside: remove {afferents[0]!r}")
            self._put(name, self.nir.Input({"input": np.array([population.size])}))
            return {}
        makers: dict[type, Callable[[str, Any, str], dict[str, str]]] = {
            LIF: self._lif, AdaptiveLIF: self._adaptive, LeakyRate: self._leaky, Integrator: self._integrator,
            Linear: self._linear, Input: self._linear,
        }  # fmt: skip
        if type(neuron) not in makers:
            known = ", ".join(dict.fromkeys(model.__name__ for model in (*makers, *SOURCES)))
            raise ExportError(f"{owner} has no equivalent in NIR; these neurons have: {known}")
        return makers[type(neuron)](name, neuron, owner)

    def _each(self, name: str, value: Any) -> np.ndarray:
        """One value per neuron."""
        return np.array(np.broadcast_to(value, (self.circuit.populations[name].size,)), float)

    def _membrane(self, name: str, neuron: Any, owner: str) -> dict[str, np.ndarray]:
        if np.any(np.round(neuron.refractory / self.sim.dt) > 1):
            raise ExportError(f"{owner} has a refractory time, which NIR has not: give it refractory=0")
        rest = self._each(name, neuron.rest)
        return {"r": np.ones_like(rest), "v_leak": np.zeros_like(rest), "v_threshold": neuron.threshold - rest,
                "v_reset": neuron.reset - rest}  # fmt: skip

    def _lif(self, name: str, neuron: LIF, owner: str) -> dict[str, str]:
        membrane, tau = self._membrane(name, neuron, owner), self._each(name, neuron.tau)
        taus = {
            port: self._each(name, getattr(neuron, f"tau_{port}")) for port in SYNAPTIC if (name, port) in self._used
        }
        if taus and (name, "drive") not in self._used and np.ptp(list(taus.values()), axis=0).max() == 0:
            synapse = next(iter(taus.values()))
            cell = self.nir.CubaLIF(tau_syn=synapse, tau_mem=tau, w_in=synapse / self.sim.dt, **membrane)
            return dict.fromkeys(taus, self._put(name, cell))
        entries = {"drive": self._put(name, self.nir.LIF(tau=tau, **membrane))}
        for port, synapse in taus.items():
            node = self.nir.LI(tau=synapse, r=synapse / self.sim.dt, v_leak=np.zeros_like(synapse))
            entries[port] = self._put(f"{name}/{port}/synapse", node, before=entries["drive"])
        return entries

    def _adaptive(self, name: str, neuron: AdaptiveLIF, owner: str) -> dict[str, str]:
        """The membrane itself jumps: what is held over a step is scaled down to the same resistance."""
        if np.any(neuron.beta):
            raise ExportError(f"{owner} has a threshold that adapts, which NIR has not: give it beta=0")
        membrane, tau = self._membrane(name, neuron, owner), self._each(name, neuron.tau)
        if {(name, port) for port in SYNAPTIC}.isdisjoint(self._used):
            return {"drive": self._put(name, self.nir.LIF(tau=tau, **membrane))}
        cell = self._put(name, self.nir.LIF(tau=tau, **{**membrane, "r": tau / self.sim.dt}))
        entries = dict.fromkeys(SYNAPTIC, cell)
        if (name, "drive") in self._used:
            entries["drive"] = self._put(f"{name}/scale", self.nir.Scale(self.sim.dt / tau), before=cell)
        return entries

    def _leaky(self, name: str, neuron: LeakyRate, owner: str) -> dict[str, str]:
        if neuron.activation is not jax.nn.identity:
            raise ExportError(f"{owner} has an activation function, which NIR has not: give it jax.nn.identity")
        tau, bias = self._each(name, neuron.tau), self._each(name, neuron.bias)
        node = self.nir.LI(tau=tau, r=np.ones_like(tau), v_leak=bias)
        return dict.fromkeys(("drive", "lateral"), self._put(name, node))

    def _integrator(self, name: str, neuron: Integrator, owner: str) -> dict[str, str]:
        if np.any(neuron.start):
            raise ExportError(f"{owner} starts from another value than 0, which NIR does not know")
        return {"drive": self._put(name, self.nir.I(r=self._each(name, neuron.rate) / self.sim.dt))}

    def _linear(self, name: str, neuron: Linear | Input, owner: str) -> dict[str, str]:
        bias = self._each(name, getattr(neuron, "bias", 0.0))
        node = self._put(name, self.nir.Affine(weight=np.eye(len(bias)), bias=bias))
        return dict.fromkeys(("drive", "lateral"), node)

    # Projections

    def _entry(self, owner: str, population: str, port: str) -> str:
        if port not in self._entries[population]:
            raise ExportError(f"{owner} ends at a port that only rules read, which NIR has not: remove it")
        return self._entries[population][port]

    def _projection(self, projection: Projection) -> None:
        name, pre, owner = projection.name, projection.pre, f"projection {projection.name!r}"
        if projection.phases is not None:
            raise ExportError(f"{owner} lives in some phases only, which NIR does not have")
        if projection.release < 1:
            raise ExportError(f"{owner}: its synapses fail at random, which NIR has not: remove release")
        if self.circuit.fast(projection.tied or name):
            raise ExportError(f"{owner} has fast weights, which NIR has not: take its rule away")
        if projection.field != "x":
            raise ExportError(f"{owner} carries {projection.field!r}: what a node of NIR sends is its output x")
        entry, source = self._entry(owner, projection.post, projection.port), self._names(pre)
        if projection.delay and name not in self._closing:
            delay = self.nir.Delay(self._each(pre, projection.delay * self.sim.dt))
            source = self._put(f"{name}/delay", delay, after=source)
        self._put(name, self.nir.Linear(weight=projection.gain * self._weights(name)), after=source, before=entry)

    def _single_steps(self) -> set[str]:
        """The projections of loops that have no delay but the one tick that closes them, after a neuron with memory."""
        projections, place = self.circuit.projections.values(), self.circuit.order.index
        found: set[str] = set()
        for loop in nx.strongly_connected_components(nx.DiGraph([(p.pre, p.post) for p in projections])):
            inner = [p for p in projections if p.pre in loop and p.post in loop]
            back = {p.name: p.pre for p in inner if place(p.post) <= place(p.pre)}
            remember = all(isinstance(self.circuit.populations[pre].neuron, MEMORY) for pre in back.values())
            if remember and all(p.delay == (p.name in back) for p in inner):
                found.update(back)
        return found

    def _weights(self, projection: str) -> np.ndarray:
        layout, values = self.sim._layouts[projection], np.asarray(self.sim.params[projection].w)
        if layout.dense:
            return values
        dense = np.zeros((layout.n_post, layout.n_pre), values.dtype)
        np.add.at(dense, self.sim.synapses(projection), values)
        return dense
