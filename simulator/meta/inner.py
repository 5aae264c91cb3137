"""What an outer loop improves: an inner problem, most of all a network that learns by rules which are learned."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
from jaxtyping import Array, Float, PRNGKeyArray, UInt

from .. import program
from ..errors import SimulationError
from ..feed import Feed
from ..keys import named_key
from ..network import Model, State, initial_weights, make_network
from ..networks.graph import read_graph
from ..protocol import Phase
from ..rules.equations import named_leaves

Theta = Any  # a pytree of arrays
Loss = Float[Array, ""]


class Inner(Protocol):
    """An inner problem. It lasts ``segments`` segments, then it begins anew: a full unroll is all of them."""

    segments: int

    @property
    def start(self) -> Theta:
        """The theta at which an outer loop may begin."""

    def begin(self, theta: Theta, key: PRNGKeyArray) -> Any:
        """A problem drawn from the distribution of them, at its first segment: a pytree of arrays of numbers (of a
        random key its ``jax.random.key_data``)."""

    def advance(self, theta: Theta, state: Any) -> tuple[Any, Loss]:
        """One segment: the state after it, and the loss of it."""

    def decode(self, theta: Theta) -> Any:
        """What has the numbers of theta: the rule, for instance."""


@dataclass(frozen=True)
class Episode:
    """What one network lives through. ``drive`` and ``signals``: sources, as `Simulator.run` takes them (an array's
    row k is the k-th presentation). ``loss``: of what has been learned (a `Learnt`), at the end of a segment."""

    drive: Mapping[str, Any]
    loss: Callable[["Learnt"], Loss]
    signals: Mapping[str, Any] = field(default_factory=dict)


Task = Callable[[PRNGKeyArray], Episode]


class Lives(eqx.Module):
    """A network in an episode; the episode is drawn from ``key`` whenever it is needed."""

    key: UInt[Array, "..."]
    state: State


class Learning:
    """A network that learns by rules or neurons which are learned themselves: an inner problem.

    ``learned``: the rule (or neuron) whose numbers an outer loop changes, the very object that the network has on its
    edges (or nodes), alone or inside of wrappers; or a dict of several. A dict may also have initial weights, an array
    (post, pre) under the name of a dense projection and ``.w`` (``"retina->cortex.w"``). The theta of the problem has
    the numbers by their names: ``eta``, or in a dict ``rule.eta``. Those in ``log`` must be above 0 and are searched
    by their logarithms; those in ``fixed`` stay as they are. A name stands for all that begin with it and a dot.

    ``task`` draws an `Episode` from a random key. A segment is ``units`` ticks, or trials of the phases in ``trial``;
    an episode has so many ``segments``, each of which ends with the episode's loss. A gradient is computed with no
    more held than the network's state at every unit.

    Raises `NetworkError` or `SimulationError` before anything runs.
    """

    def __init__(
        self,
        graph: nx.Graph,
        learned: Any,
        task: Task,
        *,
        units: int,
        segments: int = 1,
        trial: Phase | Sequence[Phase] = (),
        log: Collection[str] = (),
        fixed: Collection[str] = (),
        dt: float = 1e-3,
    ) -> None:
        for name, number in (("units", units), ("segments", segments)):
            if number < 1:
                raise SimulationError(f"{name}={number} must be at least 1")
        options: dict[str, Any] = {
            "units": units,
            "segments": segments,
            "trial": trial,
            "log": log,
            "fixed": fixed,
            "dt": dt,
        }
        self._made_of = (graph, learned, task, options)
        self.graph, self.task, self.units, self.segments = graph, task, units, segments
        self.trial = (trial,) if isinstance(trial, Phase) else tuple(trial)
        self.learned = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), learned)
        self._circuit = read_graph(graph)
        self.network, neurons, rules, self._layouts = make_network(self._circuit, dt)
        self._given = {**neurons, **rules}
        self._neurons = tuple(neurons)
        self._places = self._found(learned)
        self._weights = [name.removesuffix(".w") for name in self._arrays(learned)]
        names = named_leaves(self.learned)
        chosen = {"log": _named(log, names), "fixed": _named(fixed, names)}
        self._names, self._log = [name for name in names if name not in chosen["fixed"]], chosen["log"]
        bad = [name for name, leaf in zip(names, jax.tree.leaves(self.learned), strict=True)
               if name in self._log and not jnp.all(leaf > 0)]  # fmt: skip
        if bad:
            raise SimulationError(f"{bad[0]} is to be searched by its logarithm: start it above 0")
        jax.eval_shape(lambda key: self.advance(self.start, self.begin(self.start, key)), jax.random.key(0))

    def __reduce__(self) -> Any:
        """It travels as what it was made of."""
        graph, learned, task, options = self._made_of
        return functools.partial(Learning, **options), (graph, learned, task)

    @property
    def start(self) -> dict[str, Array]:
        """The numbers of what is learned, as it was given."""
        leaves = dict(zip(named_leaves(self.learned), jax.tree.leaves(self.learned), strict=True))
        return {name: jnp.log(leaves[name]) if name in self._log else leaves[name] for name in self._names}

    def decode(self, theta: Mapping[str, Array]) -> Any:
        """What is learned (the rule, or the dict of several) with the numbers of ``theta``."""
        leaves, structure = jax.tree.flatten(self.learned)
        there = dict(zip(named_leaves(self.learned), leaves, strict=True))
        new = {name: jnp.exp(value) if name in self._log else value for name, value in theta.items()}
        return jax.tree.unflatten(structure, list((there | new).values()))

    def begin(self, theta: Mapping[str, Array], key: PRNGKeyArray) -> Lives:
        learned, model = self._model(theta, key)
        drawn = initial_weights(self._circuit, self._layouts, model.key)
        drawn |= {name: self._layouts[name].pack(learned[f"{name}.w"]) for name in self._weights}
        weights = {name: self.network.within_bounds(model, name, blocks) for name, blocks in drawn.items()}
        _, feed = self._fed(key)
        return Lives(jax.random.key_data(key), self.network.initial(model, weights, feed.batch))

    def advance(self, theta: Mapping[str, Array], state: Lives) -> tuple[Lives, Loss]:
        key = jax.random.wrap_key_data(state.key)
        _, model = self._model(theta, key)
        episode, feed = self._fed(key)
        after = self.lived(model, state.state, feed, self.units, ())[0]
        return Lives(state.key, after), episode.loss(Learnt(self, model, after))

    def learnt(self, theta: Mapping[str, Array], state: Lives) -> "Learnt":
        """The network in its episode, to look at."""
        return Learnt(self, self._model(theta, jax.random.wrap_key_data(state.key))[1], state.state)

    def lived(
        self, model: Model, state: State, feed: Feed, units: int, fields: Sequence[str]
    ) -> tuple[State, dict[str, Any]]:
        """So many units, and what ``fields`` are after each."""
        one = program.unit(self.network, feed.trial, feed.inputs, (), feed.batch)
        rows: dict[str, Any] = {phase.name: {} for phase in feed.phases}

        @jax.checkpoint
        def unit(state: State, _: None) -> tuple[State, dict[str, Any]]:
            after = one(model, state, rows)[0]
            return after, {name: program.emit(after, name) for name in fields}

        return jax.lax.scan(unit, state, None, length=units)

    def feed(self, drive: Mapping[str, Any], signals: Mapping[str, Any], trial: tuple[Phase, ...]) -> Feed:
        """Drive and signals, in which arrays may be traced."""
        sources = {name: _by_phase(source) for name, source in drive.items()}
        return Feed(self.network.circuit, trial, sources, {name: _by_phase(s) for name, s in signals.items()})

    def _fed(self, key: PRNGKeyArray) -> tuple[Episode, Feed]:
        episode = self.task(task_key(key))
        return episode, self.feed(episode.drive, episode.signals, self.trial)

    def _model(self, theta: Mapping[str, Array], key: PRNGKeyArray) -> tuple[Any, Model]:
        learned = self.decode(theta)
        modules = {name: place(learned) for name, place in self._places.items()}
        whole = {**self._given, **modules}
        neurons = {name: whole[name] for name in self._neurons}
        rules = {name: module for name, module in whole.items() if name not in neurons}
        return learned, Model(neurons, rules, self._layouts, named_key(key, "network"))

    def _found(self, learned: Any) -> dict[str, Callable[[Any], Any]]:
        """Of each neuron or rule of the network in which something learned is, how to make it anew."""
        several: dict[Any, Any] = learned if isinstance(learned, dict) else {None: learned}
        modules = {key: module for key, module in several.items() if isinstance(module, eqx.Module)}
        owners = {name: p.neuron for name, p in self._circuit.populations.items()}
        owners |= {name: p.rule for name, p in self._circuit.projections.items() if p.rule is not None}
        found: dict[str, Callable[[Any], Any]] = {}
        seen = set()
        for name, owner in owners.items():
            leaves, structure = jax.tree.flatten(owner, is_leaf=lambda n: any(n is m for m in modules.values()))
            keys = [next((key for key, m in modules.items() if leaf is m), _NOTHING) for leaf in leaves]
            if any(key is not _NOTHING for key in keys):
                others = [
                    None if k is not _NOTHING else jnp.asarray(leaf, float)
                    for k, leaf in zip(keys, leaves, strict=True)
                ]
                found[name] = functools.partial(_placed, structure, keys, others)
                seen |= set(keys)
        lost = [key for key in modules if key not in seen]
        if lost:
            called = type(modules[lost[0]]).__name__ + ("" if lost[0] is None else f" ({lost[0]!r})")
            raise SimulationError(
                f"what is learned, {called}, is nowhere in the network: put this very object on edges (rule=) or nodes "
                "(neuron=)"
            )
        return found

    def _arrays(self, learned: Any) -> list[str]:
        given: dict[str, Any] = learned if isinstance(learned, dict) else {}
        names = [name for name, value in given.items() if not isinstance(value, eqx.Module)]
        for name in names:
            layout = self._layouts.get(str(name).removesuffix(".w"))
            if not str(name).endswith(".w") or layout is None or not layout.dense:
                known = ", ".join(f"{n}.w" for n, other in self._layouts.items() if other.dense)
                raise SimulationError(f"{name!r} is neither a rule nor a neuron nor the weights of one of: {known}")
            if jnp.shape(given[name]) != (layout.n_post, layout.n_pre):
                raise SimulationError(
                    f"{name!r} has the shape {jnp.shape(given[name])}; it needs {(layout.n_post, layout.n_pre)}"
                )
        return names


def task_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """The random key that a task gets where a `Learning` begins with ``key``."""
    own: PRNGKeyArray = named_key(key, "task")
    return own


_NOTHING = object()


def _placed(structure: Any, keys: Sequence[Any], others: Sequence[Any], learned: Any) -> Any:
    """A neuron or rule with the parts of it that are learned."""
    chosen = [
        other if key is _NOTHING else learned if key is None else learned[key]
        for key, other in zip(keys, others, strict=True)
    ]
    return jax.tree.unflatten(structure, chosen)


def _named(asked: Collection[str], names: Sequence[str]) -> set[str]:
    """The names that are asked for or begin with one that is."""
    chosen: set[str] = set()
    for name in asked:
        meant = {known for known in names if known == name or known.startswith(f"{name}.")}
        if not meant:
            raise SimulationError(f"no number {name!r} is learned; there are: {', '.join(names)}")
        chosen |= meant
    return chosen


def _by_phase(source: Any) -> Any:
    if isinstance(source, Mapping):
        return {phase: _source(one) for phase, one in source.items()}
    return _source(source)


def _source(given: Any) -> Any:
    if callable(given) or isinstance(given, float | int):
        return given
    return functools.partial(_row, jnp.asarray(given, float))


def _row(array: Array, index: Any, key: PRNGKeyArray) -> Array:
    return array[index]


@dataclass(frozen=True)
class Learnt:
    """A network as it is at the end of a segment: what an episode's loss is a function of."""

    problem: Learning
    model: Model
    state: State

    def w(self, projection: str) -> Float[Array, "post pre"]:
        """The weights of a dense projection; of a sparse one its rows (see `Layout.pack`)."""
        circuit = self.problem.network.circuit
        if projection not in circuit.projections:
            raise SimulationError(f"no projection {projection!r}; projections: {', '.join(circuit.projections)}")
        return self.problem.network.carried(circuit.projections[projection], self.state)[0]

    def x(self, field: str) -> Array:
        """A field of a population (``"cortex.x"``) at the end of the segment, ([batch,] n)."""
        return jnp.asarray(program.emit(self.state, field))

    def respond(
        self,
        drive: Mapping[str, Any],
        *fields: str,
        trial: Phase | Sequence[Phase] = (),
        signals: Mapping[str, Any] | None = None,
    ) -> Any:
        """What the network does with this drive while it does not learn, all neurons first as at tick 0.

        ``drive``: arrays (presentations, [batch,] n). ``trial``: a presentation's phases, one tick if not given. One
        array (presentations, [batch,] n) for each field, as it is after each presentation.
        """
        phases = (trial,) if isinstance(trial, Phase) else tuple(trial) or (Phase("respond"),)
        phases = tuple(dataclasses.replace(phase, plastic="never") for phase in phases)
        lengths = {jnp.shape(a)[0] // (1 if p.hold else p.ticks) for source in drive.values()
                   for p, a in _arrays_of(source, phases)}  # fmt: skip
        if len(lengths) != 1:
            raise SimulationError("respond needs arrays as drive, all with the same number of presentations")
        feed = self.problem.feed(drive, signals or {}, phases)
        weights = {name: synapses.w for name, synapses in self.state.synapses.items()}
        begun = self.problem.network.initial(self.model, weights, feed.batch)
        _, out = self.problem.lived(self.model, begun, feed, lengths.pop(), fields)
        return tuple(out[name] for name in fields) if len(fields) != 1 else out[fields[0]]


def _arrays_of(source: Any, phases: Sequence[Phase]) -> list[tuple[Phase, Any]]:
    given = source if isinstance(source, Mapping) else {phase.name: source for phase in phases}
    return [
        (p, given[p.name])
        for p in phases
        if p.name in given and not callable(given[p.name]) and jnp.ndim(given[p.name])
    ]
