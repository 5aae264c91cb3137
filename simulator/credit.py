"""What network rules see: one tick of the network as a function of what it carries and of what arrives.

The projections with an equal network rule are a `Group`. What they can do to the loss goes through fields of neurons
that the network carries from tick to tick. Which these are follows from a graph of fields, in which every neuron model,
traced, says what it reads. The tick itself is `Network.activity`, differentiated where it is.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import scipy.sparse as sp
from jaxtyping import Array, Float

from .dynamics import trace_stage
from .keys import named_key
from .layout import Blocks, Narrowed, PerNeuron
from .networks.fields import Fields, picked
from .networks.graph import Circuit, NetworkError, Projection
from .plasticity import TracedRule
from .protocol import Phase
from .rules.base import NetworkRule, PerTarget, Synaptic, Vector
from .rules.equations import dependencies

if TYPE_CHECKING:
    from .network import Model, Network, State

# So many ticks ago; population, field or port; or of a projection with fast weights SYNAPSES + name, field.
Vertex = tuple[int, str, str]
SYNAPSES = "->"  # no population is called so
ONE, ALL = "one", "all"  # what a neuron's field follows from: its own neuron, or every one of the population


class Memory(eqx.Module):
    """What a group's rule holds: ``past`` is its own, ``gradient`` what is summed and not yet applied, by projection.
    ``linked`` is 0 for what is carried out of a reset: credit goes no further back."""

    past: Any
    gradient: Synaptic
    optimiser: Any
    linked: Float[Array, "*batch carried"]


@dataclass(frozen=True)
class Use:
    """A projection that brings the weights of one that learns (its own, or those it is tied to) to a target."""

    owner: str
    target: tuple[str, str]
    transposed: bool


@dataclass(frozen=True)
class Probe:
    """Directions of one field of c after the tick whose products with its Jacobian tell wanted entries: in each, what
    is wanted of one number meets no other's.

    ``directions`` (D, K) hold 0 and 1. ``ways`` are the synapses that matter, of projections that have others too.
    """

    directions: np.ndarray
    ways: dict[str, sp.csr_array]


@dataclass(frozen=True)
class Group:
    """The projections that learn jointly, and what of the network matters to them."""

    members: tuple[str, ...]
    uses: dict[str, Use]
    told: tuple[str, ...]  # populations
    carried: tuple[Vertex, ...]  # those of a tick ago first
    kept: tuple[Vertex, ...]  # what of the past the tick follows from, carried or not
    ports: tuple[tuple[str, str], ...]  # where drive matters
    gated: tuple[str, ...]  # projections that live in some phases only
    lasting: tuple[tuple[str, str], ...]  # the targets whose arrivals reach what is carried
    fast: tuple[str, ...]  # projections whose synapses' own state is carried
    heard: tuple[str, ...]  # signals that their rules read
    sizes: dict[str | tuple[str, str], int]
    ends: dict[str, str]
    wires: nx.DiGraph
    patterns: dict[str, sp.csr_array | None]  # of the projections, where sparse

    @property
    def name(self) -> str:
        return self.members[0]

    @functools.cached_property
    def places(self) -> dict[Vertex, slice]:
        ends = np.cumsum([0, *(self.width(vertex) for vertex in self.carried)])
        return {v: slice(int(a), int(b)) for v, a, b in zip(self.carried, ends, ends[1:], strict=False)}

    @functools.cached_property
    def size(self) -> int:
        return sum(self.width(vertex) for vertex in self.carried)

    def width(self, vertex: Vertex) -> int:
        """How many numbers each copy has there."""
        return self.sizes[vertex[1:] if vertex[1].startswith(SYNAPSES) else vertex[1]]

    @functools.cached_property
    def made(self) -> int:
        """How many of the carried numbers are made in the tick; the others move on by one."""
        return sum(self.width(vertex) for vertex in self.carried if vertex[0] == 1)

    @functools.cached_property
    def moved(self) -> np.ndarray:
        """Where each of the others comes from."""
        younger = [self.places[age - 1, population, name] for age, population, name in self.carried if age > 1]
        return np.concatenate([np.arange(s.start, s.stop) for s in younger] or [np.zeros(0, int)])

    def reset(self, populations: frozenset[str]) -> np.ndarray:
        """1 for what is carried by other populations."""
        stays = [self.ends.get(v[1], v[1]) not in populations for v in self.carried]
        return np.repeat(np.array(stays, float), [self.width(v) for v in self.carried])

    # Structure: which neuron's numbers can follow from which, whatever the values are.

    @functools.cached_property
    def jacobian(self) -> sp.csr_array:
        """(K, K) of bool: through one tick."""
        rows = [[self._between(before, (0, *after[1:])) for before in self.carried]
                for after in self.carried if after[0] == 1]  # fmt: skip
        made = sp.csr_array(sp.block_array(rows)) if rows else sp.csr_array((0, self.size))
        moves = sp.csr_array(
            (np.ones(len(self.moved)), (np.arange(len(self.moved)), self.moved)), (len(self.moved), self.size)
        )
        return sp.csr_array(sp.vstack([made, moves])).astype(bool)

    def reached(self, target: tuple[str, str], ticks: int) -> np.ndarray:
        """(K, post) of bool: what arrivals reach within so many ticks."""
        first = sp.vstack([self._between((0, *target), (0, *v[1:])) for v in self.carried if v[0] == 1])
        found = sp.csr_array(sp.vstack([first, sp.csr_array((len(self.moved), first.shape[1]))])).astype(bool)
        for _ in range(ticks - 1):
            further = (found + self.jacobian @ found).astype(bool)
            if further.nnz == found.nnz:
                break
            found = further
        return np.asarray(found.toarray())

    def own(self, target: tuple[str, str]) -> np.ndarray:
        """(fields, post): where the target's population has what arrivals reach within the tick."""
        places = [
            np.arange(place.start, place.stop)
            for (age, population, name), place in self.places.items()
            if age == 1 and population == target[0] and self._between((0, *target), (0, population, name)).nnz
        ]
        return np.reshape(places, (len(places), self.sizes[target[0]])).astype(int)

    def probes(self, kept: Mapping[tuple[str, str], np.ndarray]) -> tuple[list[Probe], np.ndarray]:
        """For the derivatives among the numbers ``kept`` of each neuron of the targets, (r, post), filled up with K,
        and by what arrives at it; and which direction of them all, one after another, asks for each number and, last,
        for none, (K + 1)."""
        sets = []  # (K, post) of bool
        for places in kept.values():
            column, inside = np.broadcast_to(np.arange(places.shape[1]), places.shape), places < self.size
            entries = np.ones(inside.sum(), bool), (places[inside], column[inside])
            sets.append(sp.csr_array(entries, (self.size, places.shape[1])))
        among = sum((s @ s.T for s in sets), sp.csr_array((self.size, self.size), dtype=bool))
        wanted = sp.csr_array(sp.hstack([among, *sets])).astype(bool)
        asked, count, probes = np.full(self.size + 1, -1), 0, []
        for place in self.places.values():
            rows = place.start + np.flatnonzero(wanted[place].sum(1))
            if not len(rows):
                continue
            these = np.isin(np.arange(self.size), rows).astype(float)
            ways = self._ways_of(sp.csr_array(sp.diags_array(these) @ wanted).astype(bool), kept)
            rest = dataclasses.replace(self, patterns={**self.patterns, **ways})
            hit = sp.csr_array(sp.hstack([rest.jacobian, *(rest.reached(target, 1) for target in kept)])).astype(bool)
            meet = wanted[rows] @ hit[rows].T
            shared = nx.greedy_color(nx.from_scipy_sparse_array(meet + meet.T))
            own = np.array([shared[k] for k in range(len(rows))])
            directions = np.zeros((own.max() + 1, self.size))
            directions[own, rows] = 1
            asked[rows] = count + own
            count += len(directions)
            probes.append(Probe(directions, ways))
        return probes, np.where(asked < 0, count, asked)

    def _ways_of(self, wanted: sp.csr_array, targets: Collection[tuple[str, str]]) -> dict[str, sp.csr_array]:
        """The synapses on a way that makes a wanted derivative, (K, K + all post), of projections that have others."""
        sources = [*self.carried, *((0, *target) for target in targets)]
        found: dict[str, sp.csr_array] = {}
        for source, end, ways in self.wires.edges(data="ways"):
            for name in ways - {ONE, ALL} - found.keys():
                to = sp.hstack([self._between(vertex, source) for vertex in sources])
                on = sp.vstack([self._between(end, (0, *v[1:])) for v in self.carried if v[0] == 1])
                pattern = self._way(name, self.width(end), self.width(source))
                useful = pattern * (on.T @ wanted[: self.made] @ to.T).astype(bool)
                useful.eliminate_zeros()
                if useful.nnz < pattern.nnz:
                    found[name] = sp.csr_array(useful)
        return found

    def _between(self, source: Vertex, end: Vertex) -> sp.csr_array:
        """(end, source) of bool: the ways within a tick."""
        shape = (self.width(end), self.width(source))
        if source not in self.wires or end not in self.wires:  # on its way between two ticks that matter
            return sp.csr_array(shape, dtype=bool)
        reach: dict[Vertex, Any] = {source: sp.eye_array(self.width(source), format="csr", dtype=bool)}
        between = nx.descendants(self.wires, source) & (nx.ancestors(self.wires, end) | {end})
        for vertex in nx.topological_sort(self.wires.subgraph(between | {source})):
            for _, after, ways in self.wires.out_edges(vertex, data="ways"):
                if after in between:
                    for way in ways:
                        step = self._way(way, self.width(after), self.width(vertex)) @ reach[vertex]
                        reach[after] = (reach[after] + step if after in reach else step).astype(bool)
        return reach.get(end, sp.csr_array(shape, dtype=bool))

    def _way(self, way: str, post: int, pre: int) -> sp.csr_array:
        if way == ONE:
            return sp.eye_array(post, format="csr", dtype=bool)
        pattern = None if way == ALL else self.patterns[way]
        return sp.csr_array(np.ones((post, pre), bool)) if pattern is None else (pattern != 0)


def groups_of(circuit: Circuit, traced: Mapping[str, TracedRule]) -> dict[str, Group]:
    """The groups of a network, each under its first projection's name.

    Raises `NetworkError` where a projection cannot learn by a network rule.
    """
    members: list[list[Projection]] = []
    for projection in circuit.projections.values():
        if isinstance(projection.rule, NetworkRule):
            equal = [group for group in members if eqx.tree_equal(group[0].rule, projection.rule)]
            if equal:
                equal[0].append(projection)
            else:
                members.append([projection])
    wires = _wires(circuit, traced) if members else nx.DiGraph()
    return {group[0].name: _group(circuit, traced, wires, group) for group in members}


def _group(circuit: Circuit, traced: Mapping[str, TracedRule], wires: nx.DiGraph, members: list[Projection]) -> Group:
    names = tuple(p.name for p in members)
    learner = type(members[0].rule).__name__
    sizes: dict[str | tuple[str, str], int] = {name: p.size for name, p in circuit.populations.items()}
    if isinstance(members[0].rule, NetworkRule) and not members[0].rule.told:
        return Group(names, {}, (), (), (), (), (), (), (), (), sizes, {}, wires, {})
    told = [
        n
        for n, p in circuit.populations.items()
        if "target" in p.neuron.late and {"drive", "error"} <= {*p.neuron.ports, *p.neuron.init()}
    ]
    if not told:
        raise NetworkError(
            f"projection {names[0]!r}: {learner} follows the error of populations that are told what they should have "
            "been, and there is none: add one whose neuron has a late port target and a field error (networks.Output)"
        )
    outputs = {(0, name, told_of(circuit, name)[0]) for name in told}
    uses = {}
    for name, p in circuit.projections.items():
        if (p.tied or name) in names:
            uses[name] = Use(p.tied or name, (p.post, p.port), p.tied is not None and circuit.transposed(p))
    timed = wires.copy()
    for age, population, field in wires:
        if age:
            nx.add_path(timed, [(k, population, field) for k in range(age + 1)])
    for name in told:
        makers = nx.ancestors(wires, (0, name, "x")) | {(0, name, "x")}
        own = {v for v in makers if v[:2] == (1, name) and any(ONE in w for _, _, w in wires.out_edges(v, data="ways"))}
        if own and told_of(circuit, name)[1] == "error":
            raise NetworkError(
                f"population {name!r}: {type(circuit.populations[name].neuron).__name__} has a memory, so its error is "
                f"not all that {learner} must know: give it fields v and credit as networks.LeakyOutput has them"
            )
    telling = outputs.union(*(nx.ancestors(timed, v) for v in outputs))
    uses = {name: use for name, use in uses.items() if (0, *use.target) in telling}
    for p in circuit.projections.values():
        if p.tied is not None and (0, p.post, p.port) in telling:
            for one in (p, circuit.projections[p.tied]):
                if one.phases is not None:
                    raise NetworkError(f"projection {one.name!r} shares its weights and lives in some phases only, "
                                       f"which {learner} does not follow")  # fmt: skip
    for p in members:
        owner = f"projection {p.name!r}"
        if p.name not in {use.owner for use in uses.values()}:
            raise NetworkError(f"{owner}: nothing that is told ({', '.join(told)}) can tell {learner} about it")
        if p.release < 1:
            raise NetworkError(f"{owner}: {learner} knows no synapses that fail; leave release out")
        if p.port in circuit.populations[p.post].neuron.loads:
            raise NetworkError(f"{owner}: {learner} does not follow the load of {p.post!r} at its port {p.port!r}")
    sources = {(0, *use.target) for use in uses.values()}
    touched = sources.union(*(nx.descendants(timed, v) for v in sources))
    order = [*circuit.populations, *(SYNAPSES + name for name in circuit.projections)]
    carried = sorted((v for v in touched & telling if v[0]), key=lambda v: (v[0], order.index(v[1]), v[2]))
    made = {(0, *v[1:]) for v in carried if v[0] == 1}
    behind = made.union(outputs, *(nx.ancestors(wires, v) for v in made | outputs))
    cells = [(n, f) for age, n, f in behind if age == 0 and n in circuit.populations]
    for name in sorted({n for n, _ in cells}):
        if circuit.populations[name].neuron.standardised:
            kind = type(circuit.populations[name].neuron).__name__
            raise NetworkError(f"population {name!r}: {learner} does not follow what {kind} makes of a batch")
    ports = tuple(sorted((n, f) for n, f in cells if f in circuit.populations[n].neuron.ports))
    synaptic = {n.removeprefix(SYNAPSES) for _, n, _ in behind if n.startswith(SYNAPSES)}
    for name in sorted(synaptic):
        p = circuit.projections[name]
        if p.phases is not None or p.synapses is not None:
            why = "lives in some phases only" if p.phases is not None else "is sparse"
            raise NetworkError(f"projection {name!r} has fast weights and {why}, which {learner} does not follow")
    fast = tuple(name for name in circuit.projections if SYNAPSES + name in {v[1] for v in carried})
    lasting = {v for v in sources if v in made.union(*(nx.ancestors(wires, end) for end in made))}
    return Group(
        names,
        uses,
        tuple(name for name in told if (0, name, told_of(circuit, name)[0]) in touched),
        tuple(carried),
        tuple(sorted(v for v in behind if v[0])),
        ports,
        tuple(name for name, p in circuit.projections.items() if p.phases is not None and p.tied is None),
        tuple(sorted(v[1:] for v in lasting)),
        fast,
        tuple(sorted({signal for name in fast for signal in traced[name].fields("signals")})),
        {**sizes, **_sizes(circuit, traced, synaptic)},
        {SYNAPSES + name: circuit.projections[name].post for name in synaptic},
        wires,
        {name: p.synapses for name, p in circuit.projections.items()},
    )


def told_of(circuit: Circuit, population: str) -> tuple[str, str]:
    """A field of a population that is told, and the one with minus the derivative of the loss by it: a neuron that
    integrates says what is owed to its ``v``, others what is owed to what arrives."""
    neuron = circuit.populations[population].neuron
    return ("v", "credit") if {"v", "credit"} <= set(neuron.init()) else ("drive", "error")


def _sizes(
    circuit: Circuit, traced: Mapping[str, TracedRule], projections: Collection[str]
) -> dict[str | tuple[str, str], int]:
    """How many numbers the fields of these projections' synaptic state have."""
    found: dict[str | tuple[str, str], int] = {}
    for name in projections:
        p = circuit.projections[name]
        pre, post = circuit.populations[p.pre].size, circuit.populations[p.post].size
        of = {"pre": pre, "post": post, None: post * pre}
        found |= {(SYNAPSES + name, f): of[traced[name].held.get(f)] for f in p.rule.init()}
    return found


def _wires(circuit: Circuit, traced: Mapping[str, TracedRule]) -> nx.DiGraph:
    """What follows from what within a tick, field by field; ``ways`` are ONE, ALL or projections.

    Of fast weights all are taken to follow from all neurons that they join. Signals are what they are: no credit goes
    through them.
    """
    wires = nx.DiGraph()

    def follows(source: Vertex, end: Vertex, way: str) -> None:
        if not wires.has_edge(source, end):
            wires.add_edge(source, end, ways=set())
        wires.edges[source, end]["ways"].add(way)

    for name, population in circuit.populations.items():
        neuron = population.neuron
        for stage in ("step", "respond"):
            model = trace_stage(neuron, stage)
            for output, reads in zip(model.outputs, dependencies(model.jaxpr, model.inputs), strict=True):
                together = neuron.lateral is not None and output == "x" if stage == "step" else neuron.collective
                for kind, _, field in (read.partition(".") for read in reads):
                    if kind == "ports":
                        source = (0, name, field)
                    elif kind == "state":
                        source = (int(stage == "step" or field in population.responses), name, field)
                    else:
                        continue
                    follows(source, (0, name, output), ALL if together else ONE)
    for name, p in circuit.projections.items():
        follows((p.delay, p.pre, p.field), (0, p.post, p.port), name)
        for field in circuit.fast(p.tied or name):
            follows((1, SYNAPSES + (p.tied or name), field), (0, p.post, p.port), ALL)
    for name in (name for name in traced if circuit.fast(name)):
        update, pool, held = traced[name].update, traced[name].pool, traced[name].held
        p, own = circuit.projections[name], SYNAPSES + name
        for output, reads in zip(update.outputs, dependencies(update.jaxpr, update.inputs), strict=True):
            end = (0, own, output.removeprefix("syn."))
            summed = pool.reads if reads & {"afferent", "efferent"} else frozenset()
            for kind, _, field in (read.partition(".") for read in (*reads, *summed) if output != "dw"):
                if kind == "syn":
                    apart = f"syn.{field}" in summed or held.get(field) != held.get(end[2])
                    follows((1, own, field), end, ALL if apart else ONE)
                elif kind in ("pre", "post"):
                    follows((p.delay, p.pre, field) if kind == "pre" else (0, p.post, field), end, ALL)
    return wires


class Ticked:
    """A `Tick` of a group: see `rules.base`."""

    def __init__(
        self, network: "Network", group: Group, model: "Model", state: "State", moment: Mapping[str, Any],
        phase: Phase | None, neurons: Mapping[str, Fields],
    ) -> None:  # fmt: skip
        """From ``state`` in a ``phase``; None: in one that was, of which ``moment`` says which projections lived.
        ``moment``: the drive, the errors, what lived and what was linked; ``neurons``: after the present tick."""
        self._network, self._group, self._model, self._state = network, group, model, state
        self._moment, self._phase, self._neurons = moment, phase, neurons
        self.copies: tuple[int, ...] = next(iter(neurons.values())).x.shape[:-1]
        self.size = group.size
        self.targets = {".".join(target): group.sizes[target[0]] for target in group.lasting}
        self.into = {n: ".".join(use.target) for n, use in group.uses.items() if use.target in group.lasting}

    @property
    def linked(self) -> Vector:
        return self._moment["linked"]  # type: ignore[no-any-return]

    @property
    def told(self) -> Float[Array, "*copies outputs"]:
        return jnp.concatenate([self._neurons[name].target for name in self._group.told], -1)

    @property
    def after(self) -> Vector:
        return self._pulled[0][0]  # type: ignore[no-any-return]

    @property
    def seen(self) -> dict[str, Any]:
        return {name: x for name, x in self._pulled[2].items() if name in self.into}

    def pull(self, after: Vector | None = None, loss: bool = True) -> tuple[Vector, PerTarget]:
        made, inputs = self._pulled[0]
        said = {name: -self._moment["error"][name] if loss else jnp.zeros_like(z) for name, z in inputs.items()}
        before, arrivals = self._pulled[1]((jnp.zeros_like(made) if after is None else after, said))
        return self.linked * before, arrivals

    def push(self, before: Vector) -> Vector:
        return self._pushed(self.linked * before)  # type: ignore[no-any-return]

    def push_arrivals(self, arrivals: PerTarget) -> Vector:
        names, values = tuple(arrivals), tuple(arrivals.values())
        moved: Vector = jax.jvp(functools.partial(self._of_arrivals, names), (self._silence(names),), (values,))[1]
        return moved

    def through(self, before: Float[Array, "*copies carried rest"]) -> Float[Array, "*copies carried rest"]:
        made = self.jacobian()[..., : self._group.made, :] @ before
        if self._group.made == self.size:
            return made
        return jnp.concatenate([made, (self._moment["linked"][..., None] * before)[..., self._group.moved, :]], -2)

    def jacobian(self) -> Float[Array, "*copies carried carried"]:
        return self._jacobian  # type: ignore[no-any-return]

    def arrivals(self) -> dict[str, Float[Array, "*copies carried post"]]:
        found = {}
        for target, size in self.targets.items():
            _, push = jax.linearize(functools.partial(self._of_arrivals, (target,)), self._silence((target,)))
            found[target] = self._each_direction(lambda direction, push=push: push((direction,)), size)
        return found

    def within(self, kept: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
        probes, asked = self._group.probes({_port(target): places for target, places in kept.items()})
        silence = dict(zip(kept, self._silence(tuple(kept)), strict=True))
        found = []
        for probe in probes:
            tick = functools.partial(self._tick, model=self._following(probe.ways))
            _, pull = jax.vjp(lambda c, u, tick=tick: tick(c, u)[0][0], self._start, silence)
            found.append(jax.vmap(pull)(self._to_all(probe.directions)))
        before, arrivals = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)
        rows, among, direct = jnp.moveaxis(self.linked * before, 0, -2), {}, {}
        for target, places in kept.items():
            among[target] = picked(rows, asked[places][:, None], places[None])
            columns = jnp.moveaxis(arrivals[target], 0, -2)
            direct[target] = picked(columns, asked[places], np.arange(places.shape[1])[None])
        return among, direct

    def outer(self, arrivals: Mapping[str, Any], seen: Mapping[str, Any]) -> Synaptic:
        return {
            name: self._outer(name, arrivals[target], seen[name])
            for name, target in self.into.items()
            if target in arrivals and name in seen
        }

    def rows(self, projection: str, values: Float[Array, "*axes post"]) -> Blocks:
        return tuple(self._model.layouts[projection].post(values))

    def zeros(self, *axes: int) -> Synaptic:
        return {name: tuple(jnp.zeros((*axes, *w.shape), w.dtype) for w in self._carried(name)) for name in self.into}

    def explicit(self, arrivals: PerTarget, seen: Mapping[str, Any] | None = None) -> Synaptic:
        found: Synaptic = {}
        seen = self._pulled[2] if seen is None else seen
        for name, use in self._group.uses.items():
            target = ".".join(use.target)
            if target not in arrivals or name not in seen:
                continue
            u, x = arrivals[target], seen[name]
            if self.copies and self._model.layouts[name].dense:
                found[name] = (jnp.einsum("bi,bj->ij", u, x),)
            else:
                found[name] = self._outer(name, u, x)
                if self.copies:
                    found[name] = tuple(block.sum(0) for block in found[name])
        return self.gathered(found)

    def gathered(self, synaptic: Synaptic) -> Synaptic:
        total = {name: jax.tree.map(jnp.zeros_like, self._state.synapses[name].w) for name in self._group.members}
        for name, blocks in synaptic.items():
            use = self._group.uses[name]
            own = tuple(block.T for block in blocks) if use.transposed else blocks
            total[use.owner] = jax.tree.map(lambda t, b: t + b / max(1, *self.copies, 1), total[use.owner], own)
        return total

    def signs(self, name: str, *shape: int) -> Array:
        key = jax.random.fold_in(named_key(self._model.key, "+".join(self._group.members)), self._state.tick)
        return jax.random.rademacher(named_key(key, name), shape, self.after.dtype)

    def reach(self, target: str, ticks: int) -> np.ndarray:
        return self._group.reached(_port(target), ticks)

    def own(self, target: str) -> np.ndarray:
        return self._group.own(_port(target))

    @property
    def neurons(self) -> Mapping[str, Fields]:
        return self._neurons

    @property
    def joins(self) -> dict[str, tuple[str, str, str]]:
        projections = self._network.circuit.projections
        return {n: (projections[n].pre, projections[n].post, projections[n].port) for n in self._group.members}

    def w(self, projection: str) -> Float[Array, "post pre"]:
        if not self._model.layouts[projection].dense:
            learner = type(_rule(self._group, self._model)).__name__
            raise NetworkError(f"projection {projection!r} is sparse, which {learner} cannot use: leave topology out")
        return self._carried(projection)[0]

    def snapshot(self) -> dict[str, Any]:
        """All that the tick followed from, but for the weights."""
        kept = {vertex: self._read(vertex) for vertex in self._group.kept}
        return {**self._moment, "kept": kept, "tick": self._state.tick}

    def at(self, snapshot: Any) -> "Ticked":
        state = dataclasses.replace(self._state, tick=snapshot["tick"])
        state = _with(state, snapshot["kept"])
        live = snapshot["live"]
        scaled = {
            name: dataclasses.replace(s, w=jax.tree.map(lambda w, name=name: live[name] * w, s.w))
            for name, s in state.synapses.items()
            if name in live
        }
        state = dataclasses.replace(state, synapses={**state.synapses, **scaled})
        return Ticked(self._network, self._group, self._model, state, snapshot, None, self._neurons)

    # What follows is not public

    @functools.cached_property
    def _start(self) -> Vector:
        return self._joined([self._read(vertex) for vertex in self._group.carried])

    @functools.cached_property
    def _pulled(self) -> Any:
        targets = dict.fromkeys(".".join(use.target) for use in self._group.uses.values())
        silence = dict(zip(targets, self._silence(tuple(targets)), strict=True))
        return jax.vjp(self._tick, self._start, silence, has_aux=True)

    @functools.cached_property
    def _pushed(self) -> Any:
        return jax.linearize(lambda c: self._tick(c, {})[0][0], self._start)[1]

    @functools.cached_property
    def _jacobian(self) -> Any:
        _, pull = jax.vjp(lambda c: self._tick(c, {})[0][0], self._start)
        rows = jax.vmap(lambda row: pull(row)[0])(self._directions(self.size))  # rows, as RTRL reads them
        return jnp.moveaxis(rows, 0, -2) * self.linked[..., None, :]

    def _tick(self, c: Vector, arrivals: PerTarget, model: "Model | None" = None) -> tuple[Any, dict[str, Any]]:
        """c after the tick and the net inputs of those that are told, from c before it and what arrives on top; and
        what the projections that learn saw."""
        group, network, model = self._group, self._network, model or self._model
        state, neurons = self._active(c, arrivals, model)
        signals = Fields(self._moment["signals"])
        synapses = {name: network.synapses(name, model, state, neurons, signals) for name in group.fast}
        after = dataclasses.replace(state, neurons=neurons, synapses={**state.synapses, **synapses})
        made = [_now(after, population, name) for age, population, name in group.carried if age == 1]
        inputs = {name: neurons[name][told_of(network.circuit, name)[0]] for name in group.told}
        seen = {}
        for name, use in group.uses.items():
            projection = network.circuit.projections[name]
            x = network.seen(projection, projection.field, state, neurons)
            seen[name] = projection.gain * self._moment["live"].get(use.owner, 1.0) * x
        return (self._joined([*made, c[..., group.moved]]), inputs), seen

    def _active(self, c: Vector, arrivals: PerTarget, model: "Model") -> tuple["State", dict[str, Fields]]:
        """The state before the tick, and the neurons after it."""
        state = _with(self._state, {vertex: c[..., place] for vertex, place in self._group.places.items()})
        drive = {port: d + arrivals.get(".".join(port), 0.0) for port, d in self._moment["drive"].items()}
        return state, self._network.activity(model, state, drive, self._phase)

    def _following(self, ways: Mapping[str, sp.csr_array]) -> "Model":
        """The model whose derivative goes through these synapses of these projections only."""
        layouts: dict[str, Any] = dict(self._model.layouts)
        projections = self._network.circuit.projections
        state, neurons = self._active(self._start, {}, self._model)
        for name, synapses in ways.items():
            x = self._network.seen(projections[name], projections[name].field, state, neurons)
            layouts[name] = Narrowed.to(layouts[name], self._group.patterns[name], synapses, x)
        return dataclasses.replace(self._model, layouts=layouts)

    def _of_arrivals(self, targets: tuple[str, ...], arrivals: tuple[Any, ...]) -> Vector:
        return self._tick(self._start, dict(zip(targets, arrivals, strict=True)))[0][0]  # type: ignore[no-any-return]

    def _silence(self, targets: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(jnp.zeros_like(self._neurons[target.split(".")[0]].x) for target in targets)

    def _each_direction(self, push: Any, size: int) -> Any:
        """The matrix of a linear map of (*copies, size)."""
        return jnp.moveaxis(jax.vmap(push)(self._directions(size)), 0, -1)

    def _directions(self, size: int) -> Any:
        """The unit vectors, (size, *copies, size)."""
        return self._to_all(np.eye(size))

    def _to_all(self, directions: np.ndarray) -> Any:
        """(directions, size) as (directions, *copies, size)."""
        one = jnp.asarray(directions, self._start.dtype)
        return jnp.broadcast_to(one[:, None], (len(one), *self.copies, one.shape[-1])) if self.copies else one

    def _read(self, vertex: Vertex) -> Any:
        age, population, name = vertex
        if age == 1:
            return _now(self._state, population, name)
        past = self._state.history[population][name]
        return jax.lax.dynamic_index_in_dim(past, (self._state.tick - age) % past.shape[0], 0, keepdims=False)

    def _joined(self, parts: list[Any]) -> Vector:
        some = next(iter(self._neurons.values())).x
        return jnp.concatenate([jnp.zeros((*self.copies, 0), some.dtype), *parts], -1)

    def _outer(self, name: str, post: Any, pre: Any) -> Blocks:
        layout = self._model.layouts[name]
        made = []
        for block, rows in zip(layout.blocks, layout.post(post), strict=True):
            x = block.pre(pre)
            made.append(block.mask(rows[..., :, None] * (x[..., None, :] if block.index is None else x)))
        return tuple(made)

    def _carried(self, name: str) -> Blocks:
        return self._network.carried(self._network.circuit.projections[name], self._state)


def _port(target: str) -> tuple[str, str]:
    population, port = target.split(".")
    return population, port


def _now(state: "State", owner: str, name: str) -> Any:
    """A field of neurons, or of synapses, in a row."""
    if not owner.startswith(SYNAPSES):
        return state.neurons[owner][name]
    held = state.synapses[owner.removeprefix(SYNAPSES)].syn[name]
    return held.values if isinstance(held, PerNeuron) else held[0].reshape(*held[0].shape[:-2], -1)


def _with(state: "State", values: Mapping[Vertex, Any]) -> "State":
    """The state with other values of what is so many ticks ago."""
    neurons, history, synapses = dict(state.neurons), dict(state.history), dict(state.synapses)
    for (age, population, name), value in values.items():
        if population.startswith(SYNAPSES):
            owner = population.removeprefix(SYNAPSES)
            syn = synapses[owner].syn
            new = jax.tree.map(lambda old, value=value: value.reshape(old.shape), syn[name])
            synapses[owner] = dataclasses.replace(synapses[owner], syn=syn.replace(**{name: new}))
        elif age == 1:
            neurons[population] = neurons[population].replace(**{name: value})
        else:
            past = history[population][name]
            slot = (state.tick - age) % past.shape[0]
            history[population] = history[population].replace(
                **{name: jax.lax.dynamic_update_index_in_dim(past, value, slot, 0)}
            )
    return dataclasses.replace(state, neurons=neurons, history=history, synapses=synapses)


# What the network's own step does with a group


def begin(network: "Network", group: Group, model: "Model", state: "State") -> Memory:
    """The memory at tick 0."""
    rule, weights = _rule(group, model), {name: state.synapses[name].w for name in group.members}
    copies = next(iter(state.neurons.values())).x.shape[:-1]
    linked = jnp.ones((*copies, group.size))
    moment = _moment(network, group, state.neurons, {}, linked, None, Fields())
    past = rule.init(Ticked(network, group, model, state, moment, None, state.neurons))
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return Memory(past, zeros, rule.optimiser(rule.eta).init(weights), linked)


def unlinked(group: Group, memory: Memory, populations: bool | frozenset[str]) -> Memory:
    """After these populations (True: all) were reset."""
    others = np.zeros(group.size) if populations is True else group.reset(populations or frozenset())
    return dataclasses.replace(memory, linked=memory.linked * others)


def learn(
    network: "Network", group: Group, model: "Model", state: "State", neurons: Mapping[str, Fields],
    drive: Mapping[tuple[str, str], Any], phase: Phase, plastic: bool, signals: Fields,
) -> tuple[dict[str, Blocks], Memory]:  # fmt: skip
    """The weights and the memory after a tick that went from ``state`` to ``neurons``."""
    memory, rule = state.credit[group.name], _rule(group, model)
    weights = {name: state.synapses[name].w for name in group.members}
    moment = _moment(network, group, neurons, drive, memory.linked, phase, signals)
    tick = Ticked(network, group, model, state, moment, phase, neurons)
    past, gradient, due = rule.follow(memory.past, tick, plastic and phase.plastic == "last")
    gradient = jax.tree.map(jnp.add, memory.gradient, gradient)
    linked = jnp.ones_like(memory.linked)

    def apply() -> Any:
        updates, optimiser = rule.optimiser(rule.eta).update(gradient, memory.optimiser, weights)
        return optax.apply_updates(weights, updates), jax.tree.map(jnp.zeros_like, gradient), optimiser

    def wait() -> Any:
        return weights, gradient, memory.optimiser

    new, left, optimiser = (apply() if due is True else jax.lax.cond(due, apply, wait)) if plastic else wait()
    return new, Memory(past, left, optimiser, linked)


def _moment(
    network: "Network", group: Group, neurons: Mapping[str, Fields], drive: Mapping[tuple[str, str], Any],
    linked: Any, phase: Phase | None, signals: Fields,
) -> dict[str, Any]:  # fmt: skip
    """Of a tick what the state does not tell."""
    lives = {name: network.circuit.projections[name].phases for name in group.gated}
    every = dict(signals.items())
    return {
        "drive": {port: jnp.broadcast_to(drive.get(port, 0.0), neurons[port[0]].x.shape) for port in group.ports},
        "error": {name: neurons[name][told_of(network.circuit, name)[1]] for name in group.told},
        "live": {
            name: jnp.asarray(phase is None or phase.name in (names or ()), float) for name, names in lives.items()
        },
        "linked": linked,
        "signals": {
            name: jnp.broadcast_to(jnp.asarray(every.get(name, 0.0), float), linked.shape[:-1]) for name in group.heard
        },
    }


def _rule(group: Group, model: "Model") -> NetworkRule:
    return model.rules[group.name]  # type: ignore[return-value]
