"""A network is a networkx graph: nodes are populations, edges are projections.

Node attributes: ``neuron`` (a `Neuron`), ``size`` (a number, or a tuple for a grid), ``meta`` (anything of yours).
Edge attributes: ``topology``, ``weights`` (an initialiser, an array or a scipy sparse matrix), ``rule``, ``delay``
(ticks), ``port`` (of the target), ``field`` (of the source neuron's state that the projection carries, ``x`` by
default), ``phases`` (names of the phases in which the projection lives), ``tied`` (the name of a projection whose
weights are this one's, transposed where it goes the other way), ``release`` (the probability with which a synapse
transmits, drawn for every synapse, copy of the network and tick), ``gain`` (a factor of all that is carried), ``name``,
``meta``.
Graph attributes: ``signals`` (signal name -> population whose mean output it broadcasts), ``name``, ``meta``.

`read_graph` checks all of it before anything runs.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import networkx as nx
import numpy as np
import scipy.sparse as sp

from .fields import Fields
from .initialisers import FanIn, Initialiser, Normal
from .neurons import Neuron, Stage, responses
from .topologies import Dense, FromMatrix, Topology, as_topology

NODE_ATTRIBUTES = ("neuron", "size", "meta")
EDGE_ATTRIBUTES = (
    "topology", "weights", "rule", "delay", "port", "field", "phases", "tied", "release", "gain", "name", "meta",
)  # fmt: skip
GRAPH_ATTRIBUTES = ("signals", "name", "meta")
FORBIDDEN = ("/", ".", "->", "[", "]")

Vertex = tuple[str, Stage]  # a population at one of the two stages of a tick


class NetworkError(ValueError):
    """The graph does not describe a network; the message names the node or edge and the remedy."""


@dataclass(frozen=True)
class Population:
    """One node: neurons of one model. ``shape`` has more than one number for a grid; ``responses`` are the fields of
    the state that the neurons make at the late stage of a tick."""

    name: str
    neuron: Neuron
    shape: tuple[int, ...]
    responses: tuple[str, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def stage(self, name: str) -> Stage:
        """When in a tick a port is reached, or a field made."""
        return "respond" if name in (*self.neuron.late, *self.responses) else "step"


@dataclass(frozen=True)
class Projection:
    """One edge: the synapses from one population to another."""

    name: str
    pre: str
    post: str
    topology: Topology
    synapses: sp.csr_array | None  # (post, pre); None: every pair
    weights: Any  # an Initialiser, or values: (post, pre) if dense, one per synapse in row order if sparse; tied: None
    rule: Any
    delay: int
    port: str
    field: str
    phases: frozenset[str] | None
    tied: str | None
    release: float
    gain: float


@dataclass(frozen=True)
class Circuit:
    """A checked network. ``stages`` is the order in which populations step and respond within a tick."""

    populations: dict[str, Population]
    projections: dict[str, Projection]
    stages: tuple[Vertex, ...]
    signals: dict[str, str] = field(default_factory=dict)

    def fast(self, projection: str) -> tuple[str, ...]:
        """The synaptic state that a projection carries on top of its weights (see `rules.Fast`)."""
        return getattr(self.projections[projection].rule, "carried", ())

    def transposed(self, projection: Projection) -> bool:
        """Whether a tied projection goes the other way than the one whose weights it has."""
        assert projection.tied is not None
        return self.projections[projection.tied].pre == projection.post

    @property
    def order(self) -> tuple[str, ...]:
        """The populations in the order in which their outputs are made."""
        return tuple(name for name, stage in self.stages if stage == "step")


def read_graph(graph: nx.Graph) -> Circuit:
    """Check ``graph`` and read it. Raises `NetworkError` naming the node or edge and the remedy."""
    if not isinstance(graph, nx.Graph):
        raise NetworkError(f"a network is a networkx graph, not {type(graph).__name__}")
    if not graph.is_directed():
        raise NetworkError(
            "projections have a direction: use nx.MultiDiGraph for populations, or networks.from_neurons(graph, ...) "
            "to fold a graph whose nodes are neurons"
        )
    if graph.number_of_nodes() == 0:
        raise NetworkError("the network has no populations: add one with net.add_node(name, neuron=..., size=...)")
    _known("the graph", graph.graph, GRAPH_ATTRIBUTES)
    populations = {str(name): _population(name, data) for name, data in graph.nodes(data=True)}
    projections: dict[str, Projection] = {}
    edges = list(edges_of(graph))
    delays = _delays(edges, populations)
    for (name, pre, post, data), delay in zip(edges, delays, strict=True):
        if name in projections:
            raise NetworkError(f"two projections are called {name!r}: give one of them another name=...")
        projections[name] = _projection(name, populations[pre], populations[post], data, delay)
    _connected(populations, projections)
    projections = {name: _tied(projection, projections) for name, projection in projections.items()}
    signals = _signals(graph, populations)
    return Circuit(populations, projections, _stages(populations, projections), signals)


def set_rule(graph: nx.Graph, rule: Any, projections: Iterable[str] | None = None) -> None:
    """Put ``rule`` on every plastic edge of ``graph`` (every edge that has a rule), or on the ``projections`` named.

    Raises `NetworkError` if nothing is plastic or a name is unknown.
    """
    named = {name: data for name, _, _, data in edges_of(graph)}
    chosen = list(projections) if projections is not None else [n for n, d in named.items() if d.get("rule")]
    unknown = [name for name in chosen if name not in named]
    if unknown:
        raise NetworkError(f"no projection {unknown[0]!r}; projections: {', '.join(named) or 'none'}")
    if not chosen:
        raise NetworkError("no edge has a rule: name the projections to make plastic, set_rule(net, rule, [...])")
    for name in chosen:
        named[name]["rule"] = rule


def mean_field(graph: nx.Graph) -> nx.Graph:
    """A copy of ``graph`` in which every neuron is its deterministic twin: nothing is drawn, and what is sent, or
    released, is the mean. Names and sizes stay, so that trained weights fit.

    >>> test = Simulator(mean_field(net))                              # doctest: +SKIP
    >>> test.set_weights("a->b", trained.params["a->b"].w)             # doctest: +SKIP

    Raises `NetworkError` for a neuron that draws noise and has no twin.
    """
    twin = graph.copy()
    for name, data in twin.nodes(data=True):
        try:
            data["neuron"] = data["neuron"].mean_field()
        except TypeError as error:
            raise NetworkError(f"population {name!r}: {error}") from error
    for _, _, _, data in edges_of(twin):
        if "release" in data:
            data["gain"] = data.pop("release") * data.get("gain", 1.0)
    return twin


def set_delays(graph: nx.MultiDiGraph, projection: str, delays: Any) -> list[str]:
    """Give every synapse of a projection a delay of its own: one projection for each delay takes its place.

    ``delays`` are ticks: a (post, pre) array or scipy sparse matrix, one number per synapse in row order, or a function
    of two arrays, the post and the pre neuron of every synapse, that gives them. The new projections are named after
    the old one and the delay (``"cells->cells@3"``) and returned; rule, port and weights are those of the old one, and
    ``afferent`` sums of a rule are now over the synapses of one delay.

    >>> set_delays(net, "cells->cells", lambda post, pre: 1 + abs(post - pre) // 10)  # doctest: +SKIP

    Raises `NetworkError` for an unknown projection, for delays that do not fit it, and for initial weights that depend
    on the fan-in (`FanIn`), which is no longer one projection's.
    """
    owner = f"projection {projection!r}"
    if not graph.is_multigraph():
        raise NetworkError(f"{owner}: several projections between two populations need an nx.MultiDiGraph")
    edges = {name: (pre, post, key) for (name, pre, post, _), (_, _, key) in
             zip(edges_of(graph), graph.edges(keys=True), strict=True)}  # fmt: skip
    if projection not in edges:
        raise NetworkError(f"no projection {projection!r}; projections: {', '.join(edges) or 'none'}")
    pre, post, key = edges[projection]
    data = graph.edges[pre, post, key]
    ends = tuple(_population(name, graph.nodes[name]) for name in (pre, post))
    made = _projection(projection, ends[0], ends[1], data, 1)
    if made.tied is not None:
        raise NetworkError(f"{owner} is tied to {made.tied!r}: it is dense, and has one delay")
    if isinstance(made.weights, FanIn):
        raise NetworkError(f"{owner}: the fan-in of one delay is not the cell's: give weights=networks.Normal(...)")
    pattern = made.synapses
    if pattern is None:
        pattern = sp.csr_array(np.ones((ends[1].size, ends[0].size)))
    rows, columns = _ends(pattern)
    ticks = _ticks(owner, delays, rows, columns, pattern.shape)
    names = []
    graph.remove_edge(pre, post, key)
    for delay in np.unique(ticks):
        of = ticks == delay
        part = sp.csr_array((np.ones(of.sum()), (rows[of], columns[of])), shape=pattern.shape)
        weights = made.weights
        if isinstance(weights, np.ndarray):
            weights = weights[rows[of], columns[of]] if weights.ndim == 2 else weights[of]
        names.append(f"{projection}@{delay}")
        graph.add_edge(
            pre,
            post,
            **{**data, "topology": FromMatrix(part), "weights": weights, "delay": int(delay), "name": names[-1]},
        )
    return names


def _ticks(owner: str, delays: Any, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The delay of every synapse."""
    if callable(delays):
        delays = delays(rows, columns)
    values = _each(delays, rows, columns) if np.shape(delays) == shape else np.asarray(delays)
    if values.shape != rows.shape:
        raise NetworkError(
            f"{owner}: delays have shape {np.shape(delays)}; give (post, pre) {shape} or one for each of "
            f"{len(rows)} synapses"
        )
    wrong = np.flatnonzero(~np.isfinite(values) | (values < 0) | (values != np.round(values)))
    if len(wrong):
        k = int(wrong[0])
        raise NetworkError(
            f"{owner}: the delay {values[k]} from neuron {columns[k]} to neuron {rows[k]} must be a whole number of "
            "ticks, 0 or more"
        )
    return values.astype(int)


def from_neurons(
    graph: nx.Graph,
    neuron: Neuron | Mapping[str, Neuron] | None = None,
    rule: Any = None,
    *,
    by: str = "population",
    **edge: Any,
) -> nx.MultiDiGraph:
    """Fold a graph whose nodes are neurons into a network of populations.

    Neurons are grouped by the node attribute ``by`` (all in one population, ``"neurons"``, where no node has it), and
    the synapses between two groups become one sparse projection with the edge attribute ``weight`` (default 1) as
    initial weight. An undirected edge gives both directions. ``neuron`` is one model for all or one per population;
    ``rule`` and other keywords (``delay=1``, ...) go on every projection. Within a population neurons keep the
    graph's order; ``net.nodes[p]["meta"]["nodes"]`` lists the original nodes.
    """
    labels = nx.get_node_attributes(graph, by)
    missing = [node for node in graph if node not in labels]
    if labels and missing:
        raise NetworkError(f"node {missing[0]!r} has no attribute {by!r}, though others have: set it on every node")
    members: dict[str, list[Any]] = {}
    for node in graph:
        members.setdefault(str(labels.get(node, "neurons")), []).append(node)
    net = nx.MultiDiGraph()
    for name, nodes in members.items():
        model = neuron.get(name) if isinstance(neuron, Mapping) else neuron
        if model is None:
            raise NetworkError(f"population {name!r} has no neuron model: pass neuron=... (or a dict with {name!r})")
        net.add_node(name, neuron=model, size=len(nodes), meta={"nodes": nodes})
    if graph.number_of_edges() == 0:
        return net
    order = [node for nodes in members.values() for node in nodes]
    matrix = nx.to_scipy_sparse_array(graph, nodelist=order, dtype=float, format="csr").T.tocsr()
    start = dict(zip(members, np.cumsum([0, *map(len, members.values())]), strict=False))
    for pre, pre_nodes in members.items():
        for post, post_nodes in members.items():
            rows = slice(start[post], start[post] + len(post_nodes))
            block = matrix[rows, :][:, start[pre] : start[pre] + len(pre_nodes)]
            if block.nnz:
                net.add_edge(pre, post, topology=FromMatrix(sp.csr_array(block)), rule=rule, **edge)
    return net


def _known(owner: str, data: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in data:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise NetworkError(
                f"{owner} has the unknown attribute {key!r}: {hint}Known: {', '.join(allowed)} "
                "(your own data goes into meta={...})"
            )


def _population(name: Any, data: Mapping[str, Any]) -> Population:
    owner = f"population {name!r}"
    if not isinstance(name, str) or not name or any(part in name for part in FORBIDDEN):
        raise NetworkError(f"{owner}: a name is a string without {' '.join(FORBIDDEN)}")
    _known(owner, data, NODE_ATTRIBUTES)
    if "neuron" not in data:
        raise NetworkError(f"{owner} has no neuron model: add_node({name!r}, neuron=networks.Linear(), size=...)")
    neuron = data["neuron"]
    if isinstance(neuron, type):
        raise NetworkError(f"{owner}: neuron={neuron.__name__} is a class; make one with {neuron.__name__}()")
    if not isinstance(neuron, Neuron):
        raise NetworkError(f"{owner}: neuron={neuron!r} is no Neuron; see `engrax list neurons`")
    if "size" not in data:
        raise NetworkError(f"{owner} has no size: add_node({name!r}, ..., size=<number of neurons>)")
    size = data["size"]
    shape = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in shape)
    if not shape or not whole or any(n < 1 for n in shape):
        raise NetworkError(f"{owner}: size={size!r} must be a whole number of neurons, or a tuple of them for a grid")
    population = Population(name, neuron, tuple(int(n) for n in shape), _responses(owner, neuron))
    for path, leaf in jax.tree_util.tree_leaves_with_path(neuron):
        shape_of = np.shape(leaf)
        if len(shape_of) < 2 and shape_of not in ((), (population.size,)):  # larger ones are the same in all neurons
            raise NetworkError(
                f"{owner}: parameter {jax.tree_util.keystr(path)[1:]} has shape {shape_of}; give one number, or one "
                f"per neuron with shape ({population.size},)"
            )
        if not np.all(np.isfinite(leaf)):
            raise NetworkError(f"{owner}: parameter {jax.tree_util.keystr(path)[1:]} is not finite")
    return population


def _responses(owner: str, neuron: Neuron) -> tuple[str, ...]:
    """The fields that ``respond`` makes."""
    model = type(neuron).__name__
    declared = (vars(parent).get("ports", ()) for parent in type(neuron).__mro__)
    inherited = {port for ports in declared if isinstance(ports, tuple) for port in ports}
    unknown = [port for port in neuron.late if port not in (*neuron.ports, *inherited)]
    if unknown:
        raise NetworkError(
            f"{owner}: {model}.late names {unknown[0]!r}, which is no port; ports: {', '.join(neuron.ports) or 'none'}"
        )
    try:
        made = responses(neuron)
    except (TypeError, AttributeError, jax.errors.JAXTypeError) as error:
        raise NetworkError(f"{owner}: {model}.respond cannot be run: {str(error).splitlines()[0]}") from error
    known = [name for name in neuron.init() if name != "x"]
    if not isinstance(made, Fields):
        raise NetworkError(f"{owner}: {model}.respond returns {type(made).__name__}: return Fields(...)")
    for name, value in made.items():
        if name == "x":
            raise NetworkError(f"{owner}: {model}.respond returns x, but what comes late cannot move the output")
        if name not in known:
            listed = ", ".join(known) or "none"
            raise NetworkError(f"{owner}: {model}.respond returns {name!r}, which init() has not; fields: {listed}")
        if value.shape != ():
            raise NetworkError(f"{owner}: {model}.respond returns an array for {name!r}; give one number")
    return tuple(made)


def edges_of(graph: nx.Graph) -> Iterable[tuple[str, str, str, dict[str, Any]]]:
    """(name, pre, post, attributes) of every edge. Parallel edges are told apart by their keys."""
    if graph.is_multigraph():
        for pre, post, key, data in graph.edges(keys=True, data=True):
            yield data.get("name") or (f"{pre}->{post}" + (f"[{key}]" if key != 0 else "")), pre, post, data
    else:
        for pre, post, data in graph.edges(data=True):
            yield data.get("name") or f"{pre}->{post}", pre, post, data


def _delays(edges: list[tuple[str, str, str, dict[str, Any]]], populations: Mapping[str, Population]) -> list[int]:
    """Given delays are kept; of the others, in the order in which they were added, each gets 0 unless it would close a
    cycle of zero delays; then 1."""
    instant = _within(populations)
    delays: list[int | None] = []
    ends = []
    for name, pre, post, data in edges:
        delay = data.get("delay")
        ends.append((_leaves(populations[pre], data), _arrives(populations[post], data)))
        if delay is not None:
            if isinstance(delay, bool) or not isinstance(delay, (int, np.integer)) or delay < 0:
                raise NetworkError(f"projection {name!r}: delay={delay!r} must be a whole number of ticks, 0 or more")
            if delay == 0:
                instant.add_edge(*ends[-1], name=name)
        delays.append(None if delay is None else int(delay))
    try:
        cycle = nx.find_cycle(instant)
    except nx.NetworkXNoCycle:
        pass
    else:
        named = [instant.edges[pre, post].get("name") for pre, post, *_ in cycle]
        raise NetworkError(
            f"the projections {', '.join(repr(name) for name in named if name)} form a cycle without delay: set "
            "delay=1 on one of them"
        )
    for i, (name, *_) in enumerate(edges):
        if delays[i] is None:
            leaving, arriving = ends[i]
            closes = nx.has_path(instant, arriving, leaving)
            delays[i] = int(closes)
            if not closes:
                instant.add_edge(leaving, arriving, name=name)
    return [int(delay or 0) for delay in delays]


def _within(populations: Mapping[str, Population]) -> nx.DiGraph:
    """What follows what within a tick, before there are projections: a population responds after it stepped."""
    instant = nx.DiGraph()
    instant.add_nodes_from((name, "step") for name in populations)
    instant.add_edges_from(
        ((name, "step"), (name, "respond")) for name, p in populations.items() if p.neuron.late or p.responses
    )
    return instant


def _leaves(pre: Population, data: Mapping[str, Any]) -> Vertex:
    return pre.name, pre.stage(data.get("field", "x"))


def _arrives(post: Population, data: Mapping[str, Any]) -> Vertex:
    return post.name, post.stage(data.get("port", next(iter(post.neuron.ports), "")))


def _projection(name: str, pre: Population, post: Population, data: Mapping[str, Any], delay: int) -> Projection:
    owner = f"projection {name!r}"
    _known(owner, data, EDGE_ATTRIBUTES)
    try:
        topology = as_topology(Dense() if data.get("topology") is None else data["topology"])
        synapses = topology.connect(pre.shape, post.shape)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{owner}: {error}") from error
    if synapses is not None and synapses.nnz == 0:
        raise NetworkError(f"{owner} has no synapses: its topology {type(topology).__name__} is empty; remove the edge")
    port = data.get("port", post.neuron.ports[0] if post.neuron.ports else None)
    if port not in post.neuron.ports:
        raise NetworkError(
            f"{owner}: {type(post.neuron).__name__} neurons have no port {port!r}; "
            f"ports of {post.name!r}: {', '.join(post.neuron.ports) or 'none'}"
        )
    carried = data.get("field", "x")
    known = (*pre.neuron.init(), *pre.neuron.ports)
    if carried not in known:
        raise NetworkError(f"{owner}: {pre.name!r} has no field {carried!r} to carry; fields: {', '.join(known)}")
    phases = data.get("phases")
    if isinstance(phases, str):
        raise NetworkError(f"{owner}: phases={phases!r} must be a set of names, as in phases={{{phases!r}}}")
    tied = data.get("tied")
    own = [key for key in ("weights", "topology", "rule", "release", "gain") if data.get(key) is not None]
    if tied is not None and own:
        raise NetworkError(f"{owner} is tied to {tied!r}, which has its weights: leave {own[0]} out")
    release, gain = (_number_of(owner, data, name) for name in ("release", "gain"))
    if not 0 < release <= 1:
        raise NetworkError(f"{owner}: release={release!r} must be a probability above 0")
    weights = None if tied is not None else _weights(owner, data, topology, synapses, pre, post)
    return Projection(
        name, pre.name, post.name, topology, synapses, weights, data.get("rule"), delay, port, carried,
        None if phases is None else frozenset(phases), tied, release, gain,
    )  # fmt: skip


def _tied(projection: Projection, projections: Mapping[str, Projection]) -> Projection:
    """A projection with what it has of the one that it is tied to, if that is there and fits."""
    if projection.tied is None:
        return projection
    owner, other = f"projection {projection.name!r} is tied to {projection.tied!r}", projections.get(projection.tied)
    if other is None:
        raise NetworkError(f"{owner}, which is no projection; projections: {', '.join(projections)}")
    if other.tied is not None:
        raise NetworkError(f"{owner}, which is tied itself: tie it to a projection that has weights of its own")
    if other.synapses is not None:
        raise NetworkError(f"{owner}, which is sparse: tie it to a dense one")
    if {other.pre, other.post} != {projection.pre, projection.post}:
        raise NetworkError(f"{owner}, which joins other populations, {other.pre!r} and {other.post!r}")
    return replace(projection, release=other.release, gain=other.gain)


def _number_of(owner: str, data: Mapping[str, Any], name: str) -> float:
    value = data.get(name, 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise NetworkError(f"{owner}: {name}={value!r} must be a number")
    return float(value)


def _weights(
    owner: str,
    data: Mapping[str, Any],
    topology: Topology,
    synapses: sp.csr_array | None,
    pre: Population,
    post: Population,
) -> Initialiser | np.ndarray | Callable[..., Any]:
    weights = data.get("weights")
    if weights is None:
        if synapses is None or not topology.weighted:
            return Normal(0.1)
        values = np.asarray(synapses.data, None if synapses.dtype.kind == "f" else float)
    elif isinstance(weights, Initialiser):
        return weights
    elif isinstance(weights, type) or callable(weights):
        raise NetworkError(f"{owner}: weights={weights!r} is no initialiser; give networks.Normal(0.1) or an array")
    elif synapses is None:
        values = np.asarray(weights.toarray() if sp.issparse(weights) else weights, float)
        expected: tuple[int, ...] = (post.size, pre.size)
        if values.shape == ():
            values = np.full(expected, float(values))
        if values.shape != expected:
            remedy = "transpose it" if values.shape == expected[::-1] else "reshape it, or leave weights out"
            raise NetworkError(f"{owner}: weights have shape {values.shape}; (post, pre) is {expected}: {remedy}")
    else:
        expected = (synapses.nnz,)
        if np.ndim(weights) == 2 or sp.issparse(weights):
            if np.shape(weights) != synapses.shape:
                raise NetworkError(f"{owner}: weights have shape {np.shape(weights)}; (post, pre) is {synapses.shape}")
            values = _each(weights, *_ends(synapses)).astype(float)
        else:
            values = np.asarray(weights, float)
            if values.shape == ():
                values = np.full(expected, float(values))
        if values.shape != expected:
            raise NetworkError(f"{owner}: weights have shape {values.shape}; the topology has {synapses.nnz} synapses")
    if not np.all(np.isfinite(values)):
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        raise NetworkError(f"{owner}: the initial weight at {where} is {values[tuple(where)]}; weights must be finite")
    return values


def _ends(synapses: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(post, pre) of every synapse, row by row."""
    return np.repeat(np.arange(synapses.shape[0]), np.diff(synapses.indptr)), synapses.indices


def _each(matrix: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Every synapse's value from a (post, pre) array or scipy sparse matrix."""
    return np.asarray((sp.csr_array(matrix) if sp.issparse(matrix) else np.asarray(matrix))[rows, columns]).ravel()


def _connected(populations: Mapping[str, Population], projections: Mapping[str, Projection]) -> None:
    touched = {end for projection in projections.values() for end in (projection.pre, projection.post)}
    for name in populations:
        if name not in touched:
            raise NetworkError(f"population {name!r} has no projections: connect it with net.add_edge or remove it")


def _stages(populations: Mapping[str, Population], projections: Mapping[str, Projection]) -> tuple[Vertex, ...]:
    instant = _within(populations)
    for p in projections.values():
        if p.delay == 0:
            pre, post = populations[p.pre], populations[p.post]
            instant.add_edge((p.pre, pre.stage(p.field)), (p.post, post.stage(p.port)))
    position = {name: i for i, name in enumerate(populations)}
    return tuple(nx.lexicographical_topological_sort(instant, key=lambda v: (v[1] == "respond", position[v[0]])))


def _signals(graph: nx.Graph, populations: Mapping[str, Population]) -> dict[str, str]:
    signals = dict(graph.graph.get("signals", {}))
    for name, source in signals.items():
        if source not in populations:
            raise NetworkError(
                f"signal {name!r} comes from {source!r}, which is no population; populations: {', '.join(populations)}"
            )
    return signals


__all__ = [
    "Circuit",
    "NetworkError",
    "Population",
    "Projection",
    "from_neurons",
    "mean_field",
    "read_graph",
    "set_delays",
    "set_rule",
]
