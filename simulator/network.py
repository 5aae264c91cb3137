"""From a checked graph to one pure, differentiable step function.

``Network`` is static: names, order, delays. ``Model`` holds every number that a run does not change (neuron
parameters, rule hyper-parameters, the random key); ``State`` everything that it does. Both are pytrees, so that a run
can be differentiated with respect to, and mapped over, any of it.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from . import credit, kernels, loops
from .dynamics import trace_stage
from .events import constrain
from .keys import named_key
from .layout import Blocks, EventLayout, Layout, make_layout
from .networks.fields import Fields, floats, named_arguments, parameters, spread
from .networks.graph import Circuit, NetworkError, Population, Projection
from .networks.initialisers import Initialiser
from .networks.neurons import Neuron, Stage, arrivals
from .networks.spiking import Spiking
from .plasticity import (
    SynapticState,
    TracedRule,
    by_events,
    initial_synapses,
    learn,
    released,
    rule_parameters,
    trace_rule,
)
from .protocol import RUN, Phase
from .rules.base import LocalRule, NetworkRule
from .rules.equations import RuleError, Traced, named_leaves

# Signals that are always there: ticks since the start, trials (or, without trials, ticks) since the start, and whether
# the tick is a trial's last (1 or 0; without trials 1).
COUNTERS = ("tick", "count", "last")


class Model(eqx.Module):
    """What a run reads and does not change."""

    neurons: dict[str, Neuron]
    rules: dict[str, LocalRule | NetworkRule]
    layouts: dict[str, Layout]
    key: PRNGKeyArray


class Synapses(eqx.Module):
    """The weights and synaptic state of one projection, in blocks (see layout.py). A tied one has none."""

    w: Blocks
    syn: SynapticState


class State(eqx.Module):
    """What a run changes. ``neurons`` holds each population's state and what arrived at its ports this tick,
    ``history`` the past outputs of those with delays of two ticks or more, ``credit`` what network rules remember."""

    tick: Int[Array, ""]
    trial: Int[Array, ""]
    neurons: dict[str, Fields]
    synapses: dict[str, Synapses]
    history: dict[str, Fields]
    credit: dict[str, credit.Memory]


Drive = Mapping[tuple[str, str], Float[Array, "*batch n"]]  # (population, port) -> external input


@dataclass(frozen=True)
class Network:
    """The static part. Made by `make_network`."""

    circuit: Circuit
    dt: float
    traced: dict[str, TracedRule]
    delayed: dict[str, tuple[int, tuple[str, ...]]]  # population -> (longest delay, fields kept), from 2 ticks on
    into: dict[str, tuple[Projection, ...]] = field(default_factory=dict)
    stepped: dict[str, Traced] = field(default_factory=dict)  # of the populations whose tick is compiled as a loop
    groups: dict[str, credit.Group] = field(default_factory=dict)  # of projections that learn by a network rule
    in_loops: bool = False  # without a batch, XLA only joins loops that were compiled before

    def initial(self, model: Model, weights: Mapping[str, Blocks], batch: int | None) -> State:
        """The state at tick 0."""
        lead = () if batch is None else (batch,)
        neurons = {}
        for name, population in self.circuit.populations.items():
            start = dict(model.neurons[name].init().items())
            start |= dict.fromkeys(arrivals(model.neurons[name], "respond"), 0.0)
            shape = (*lead, population.size)
            neurons[name] = Fields({k: spread(v, shape) for k, v in start.items()})
        synapses = {
            name: Synapses(
                weights[name],
                initial_synapses(self.local(model, name), self.traced[name], model.layouts[name], weights[name], batch)
                if name in self.traced
                else Fields(),
            )
            for name, projection in self.circuit.projections.items()
            if projection.tied is None
        }
        zero = spread(0, (), jnp.int32)
        state = State(zero, zero, neurons, synapses, self._empty_history(neurons, self.delayed), {})
        memories = {name: credit.begin(self, group, model, state) for name, group in self.groups.items()}
        return dataclasses.replace(state, credit=memories)

    def reset(self, model: Model, state: State, populations: bool | frozenset[str], batch: int | None) -> State:
        """The named populations (True: all) as at tick 0. Weights stay, and of synaptic state what is not transient."""
        if not populations:
            return state
        names = set(self.circuit.populations) if populations is True else populations
        fresh = self.initial(model, {name: s.w for name, s in state.synapses.items()}, batch)
        synapses = dict(state.synapses)
        for name in self.traced:
            if self.circuit.projections[name].post in names:
                begun = {field: fresh.synapses[name].syn[field] for field in self.local(model, name).transient}
                synapses[name] = Synapses(synapses[name].w, synapses[name].syn.replace(**begun))
        return dataclasses.replace(
            state,
            neurons={name: (fresh if name in names else state).neurons[name] for name in state.neurons},
            history={name: (fresh if name in names else state).history[name] for name in state.history},
            credit={name: credit.unlinked(self.groups[name], m, populations) for name, m in state.credit.items()},
            synapses=synapses,
        )

    def step(
        self,
        model: Model,
        state: State,
        drive: Drive,
        signals: Fields | None = None,
        *,
        phase: Phase = RUN,
        plastic: bool = True,
    ) -> State:
        """One tick: drives arrive, neurons step and respond in order, rules see them as they are now. Pure.

        ``drive`` adds external input of shape ([batch,] n) to a population's port; ``signals`` are scalars or, one per
        copy of the network, (batch,) arrays.
        """
        neurons = self.activity(model, state, drive, phase)
        every = self.signals(state, neurons, signals, phase)
        synapses = dict(state.synapses)
        for name in self.learned(phase, plastic):
            if name in self.traced:
                synapses[name] = self.synapses(name, model, state, neurons, every)
        memories = dict(state.credit)
        for name, group in self.groups.items():
            if phase.plastic == "never":
                memories[name] = credit.unlinked(group, memories[name], True)
                continue
            weights, memories[name] = credit.learn(self, group, model, state, neurons, drive, phase, plastic, every)
            synapses |= {member: Synapses(w, synapses[member].syn) for member, w in weights.items()}
        history = {
            name: Fields(
                {
                    key: self._kept(past, neurons[name][key], state.tick % past.shape[0])
                    for key, past in state.history[name].items()
                }
            )
            for name in state.history
        }
        return State(state.tick + 1, state.trial, neurons, synapses, history, memories)

    def activity(self, model: Model, state: State, drive: Drive, phase: Phase | None) -> dict[str, Fields]:
        """All neurons after a tick. Without a phase every projection lives."""
        neurons = dict(state.neurons)
        for name, stage in self.circuit.stages:
            neurons[name] = self._update(name, stage, model, state, neurons, drive, phase)
        return neurons

    def learned(self, phase: Phase, plastic: bool = True) -> tuple[str, ...]:
        """The projections whose synapses change in a tick of a phase: fast weights also do where it is not plastic."""
        projections = self.circuit.projections
        lives = {name: projections[name].phases for name in self.traced if plastic or self.circuit.fast(name)}
        if plastic:
            lives |= {name: None for group in self.groups.values() for name in group.members}
        return tuple(name for name, phases in lives.items() if phases is None or phase.name in phases)

    def local(self, model: Model, name: str) -> LocalRule:
        """The rule of a projection that learns by one of a synapse."""
        rule = model.rules[name]
        assert isinstance(rule, LocalRule)
        return rule

    def carried(self, projection: Projection, state: State) -> Blocks:
        """The weights of a projection, with the fast ones; of one that is tied, the other's."""
        owner = projection.tied or projection.name
        w = state.synapses[owner].w
        for fast in self.circuit.fast(owner):
            w = tuple(jnp.add(*pair) for pair in zip(w, state.synapses[owner].syn[fast], strict=True))
        if projection.tied is None or not self.circuit.transposed(projection):
            return w
        return (jnp.swapaxes(w[0], -1, -2),)

    def weights(self, model: Model, state: State) -> dict[str, Any]:
        """The dense projections' weights (post, pre); for sparse ones see `Simulator.params`."""
        return {name: s.w[0] for name, s in state.synapses.items() if model.layouts[name].dense}

    def within_bounds(self, model: Model, name: str, weights: Blocks) -> Blocks:
        """Weights from outside as the rule's constraint has them, where it will see only synapses at which something
        happens."""
        if name not in self.traced or not isinstance(model.layouts[name], EventLayout):
            return weights
        constraint, rule = self.traced[name].constraint, rule_parameters(self.local(model, name))
        bounded = jax.jit(lambda w: constrain(constraint, rule, w.ravel()).reshape(w.shape))
        return tuple(map(bounded, weights))

    def with_weights(self, state: State, weights: Mapping[str, Any]) -> State:
        """The same state with other weights in the dense projections named."""
        synapses = {
            name: Synapses((weights[name],), s.syn) if name in weights else s for name, s in state.synapses.items()
        }
        return dataclasses.replace(state, synapses=synapses)

    def _update(
        self,
        name: str,
        stage: Stage,
        model: Model,
        state: State,
        neurons: Mapping[str, Fields],
        drive: Drive,
        phase: Phase | None,
    ) -> Fields:
        """A population after it stepped or responded."""
        neuron, population = model.neurons[name], self.circuit.populations[name]
        old = neurons[name]
        zero = jnp.zeros_like(old.x)
        here = [port for port in neuron.ports if population.stage(port) == stage]
        ports = dict.fromkeys(here, zero)
        loads = {port: jnp.zeros(zero.shape[-1:], zero.dtype) for port in neuron.loads if port in ports}
        silent = set(here)
        by_loops = name in self.stepped and zero.ndim == 1

        def arrive(port: str, value: Any, gain: float = 1) -> None:
            total = None if port in silent else ports[port]
            silent.discard(port)
            if by_loops:
                ports[port] = loops.added(total, value, gain)
            else:
                value = value if gain == 1 else gain * value
                ports[port] = value if total is None else total + value

        for (target, port), value in drive.items():
            if target == name and port in ports:
                arrive(port, jnp.broadcast_to(jnp.asarray(value, zero.dtype), zero.shape))
        for projection in self.into[name]:
            absent = projection.phases is not None and phase is not None and phase.name not in projection.phases
            if absent or projection.port not in ports:
                continue
            x = self.seen(projection, projection.field, state, neurons)
            w = self.carried(projection, state)
            arrive(projection.port, self._arriving(projection, model, state, w, x), projection.gain)
            if projection.port in loads:
                loads[projection.port] = loads[projection.port] + model.layouts[projection.name].load(w)
        ports |= {port: _standardised(ports[port], name, neuron) for port in neuron.standardised if port in ports}
        arrived = {**ports, **{f"{port}_load": jnp.broadcast_to(load, zero.shape) for port, load in loads.items()}}
        now = old.replace(**arrived)
        every = arrivals(neuron, "respond")
        own = Fields({key: now[key] for key in now if key not in every})
        there = Fields({key: now[key] for key in arrivals(neuron, stage)})
        noise = self._noise(neuron, stage, model.key, name, state.tick, zero)
        looped = (self.stepped[name], silent) if stage == "step" and name in self.stepped else None
        new = _stage_all(neuron, stage, own, there, noise, self.dt, looped)
        if neuron.lateral is not None and stage == "step":
            compete = neuron.lateral if zero.ndim == 1 else jax.vmap(neuron.lateral)
            new = new.replace(x=compete(new.x))
        if neuron.collective and stage == "respond":
            new = (neuron.together if zero.ndim == 1 else jax.vmap(neuron.together))(new)
        return now.replace(**{key: values.astype(zero.dtype) for key, values in new.items()})

    def _arriving(
        self, projection: Projection, model: Model, state: State, w: Blocks, x: Any
    ) -> Float[Array, "*batch post"]:
        """What a projection with weights ``w`` brings to its targets, before its gain. One that is tied fails where the
        other does."""
        layout = model.layouts[projection.name]
        if projection.release == 1:
            return layout.propagate(w, x)
        owner = projection.tied or projection.name
        key, shapes = _release_key(model, owner, state.tick), state.synapses[owner].w
        each = w[0].ndim > shapes[0].ndim  # every copy has its own weights

        def one(copy: Any, x: Any, w: Blocks) -> Array:
            masks = released(projection.release, shapes, key, copy)
            if projection.tied is not None and self.circuit.transposed(projection):
                masks = (masks[0].T,)
            return layout.propagate(tuple(w * mask for w, mask in zip(w, masks, strict=True)), x)

        if x.ndim == 1:
            return one(0, x, w)
        copies = jnp.arange(x.shape[0])
        every: Array = jax.lax.map(lambda given: one(*given[:2], *(given[2:] or (w,))), (copies, x, *[w] * each))
        return every

    def _noise(self, neuron: Neuron, stage: Stage, key: Any, name: str, tick: Any, like: Any) -> Any:
        kind = neuron.noise if stage == "step" else neuron.late_noise
        if kind is None:
            return None
        draw = jax.random.normal if kind == "normal" else jax.random.uniform
        own = name if stage == "step" else f"{name}.respond"
        return draw(jax.random.fold_in(named_key(key, own), tick), like.shape, like.dtype)

    def seen(self, projection: Projection, name: str, state: State, neurons: Mapping[str, Fields]) -> Any:
        """A field of the pre neurons as the synapses see it now, ``delay`` ticks late."""
        if projection.delay == 0:
            return neurons[projection.pre][name]
        if projection.delay == 1:
            return state.neurons[projection.pre][name]
        past = state.history[projection.pre][name]
        slot = (state.tick - projection.delay) % past.shape[0]
        if self.in_loops and past.ndim == 2:
            return loops.recalled(past, slot)
        return jax.lax.dynamic_index_in_dim(past, slot, 0, keepdims=False)

    def _kept(self, past: Any, values: Any, slot: Any) -> Any:
        if self.in_loops and past.ndim == 2:
            return loops.kept(past, values, slot)
        return jax.lax.dynamic_update_index_in_dim(past, values, slot, 0)

    def signals(self, state: State, neurons: Mapping[str, Fields], given: Fields | None, phase: Phase) -> Fields:
        """What every synapse may read in a tick that starts from ``state``."""
        broadcast = {name: neurons[source].x.mean(-1) for name, source in self.circuit.signals.items()}
        count = state.tick if phase is RUN else state.trial
        counters = {"tick": state.tick, "count": count, "last": jnp.ones(())}
        return Fields({**counters, **broadcast, **phase.signals, **dict((given or Fields()).items())})

    def synapses(
        self, name: str, model: Model, state: State, neurons: Mapping[str, Fields], signals: Fields
    ) -> Synapses:
        """Those of a projection after its rule saw a tick that went from ``state`` to ``neurons``."""
        projection = self.circuit.projections[name]
        traced, old = self.traced[name], state.synapses[name]
        missing = [s for s in traced.fields("signals") if s not in signals]
        if missing:
            raise RuleError(
                f"the rule of {name!r} reads signals.{missing[0]}, which nothing sends; signals here: "
                f"{', '.join(signals)}. Send it with Phase(signals=...), sim.run(signals=...) or "
                f"net.graph['signals'] = {{{missing[0]!r}: <population>}}"
            )
        pre = Fields({key: self.seen(projection, key, state, neurons) for key in traced.fields("pre")})
        post = Fields({key: neurons[projection.post][key] for key in traced.fields("post")})
        batch = state.neurons[projection.post].x.shape[0] if state.neurons[projection.post].x.ndim == 2 else None
        key = jax.random.fold_in(named_key(model.key, name), state.tick)
        used = Fields({key: signals[key] for key in signals if key in (*traced.fields("signals"), *COUNTERS)})
        w, syn = learn(
            self.local(model, name), traced, model.layouts[name], old.w, old.syn, pre, post, used, key, self.dt, batch,
            None if projection.release == 1 else (projection.release, _release_key(model, name, state.tick)),
        )  # fmt: skip
        return Synapses(w, syn)

    def _empty_history(
        self, neurons: Mapping[str, Fields], delayed: Mapping[str, tuple[int, tuple[str, ...]]]
    ) -> dict[str, Fields]:
        """Past outputs before tick 0 are those of ``init()``."""
        return {
            name: Fields(
                {key: jnp.broadcast_to(neurons[name][key], (length, *neurons[name][key].shape)) for key in keys}
            )
            for name, (length, keys) in delayed.items()
        }


def _standardised(arrived: Any, name: str, neuron: Neuron) -> Any:
    """About the mean over the batch, in standard deviations."""
    if arrived.ndim == 1:
        raise NetworkError(
            f"population {name!r}: {type(neuron).__name__} compares what arrives with other samples of a batch, and "
            "there is none: drive the network with arrays (ticks, batch, n)"
        )
    about = arrived - arrived.mean(0)
    return about * jax.lax.rsqrt(jnp.mean(about**2, 0) + 1e-6)


def _release_key(model: Model, projection: str, tick: Any) -> Any:
    return jax.random.fold_in(named_key(model.key, f"{projection}.release"), tick)


def make_network(
    circuit: Circuit, dt: float
) -> tuple[Network, dict[str, Neuron], dict[str, LocalRule | NetworkRule], dict[str, Layout]]:
    """Check rules against the neurons they join, lay out the synapses. Raises `NetworkError` or `RuleError`."""
    for population in circuit.populations.values():
        _check_neuron(population, dt)
    rules: dict[str, LocalRule | NetworkRule] = {}
    traced: dict[str, TracedRule] = {}
    for name, projection in circuit.projections.items():
        if projection.rule is None:
            continue
        if not isinstance(projection.rule, (LocalRule, NetworkRule)):
            made = f"; make one with {projection.rule.__name__}()" if isinstance(projection.rule, type) else ""
            raise NetworkError(
                f"projection {name!r}: rule={projection.rule!r} is no rule{made}; see `engrax list rules`"
            )
        rules[name] = jax.tree.map(floats, projection.rule)
        if isinstance(projection.rule, NetworkRule):
            continue
        traced[name] = trace_rule(projection.rule)
        _check_rule(projection, traced[name], circuit)
    delayed: dict[str, tuple[int, tuple[str, ...]]] = {}
    for name, projection in circuit.projections.items():
        if projection.delay >= 2:
            length, keys = delayed.get(projection.pre, (0, ()))
            more = {*keys, projection.field, *(traced[name].fields("pre") if name in traced else ())}
            delayed[projection.pre] = (max(length, projection.delay), tuple(sorted(more)))
    # The layouts hold the synapses from here on: the matrices that they came from need not stay in memory.
    projections = {name: dataclasses.replace(p, synapses=None, weights=None) for name, p in circuit.projections.items()}
    bare = dataclasses.replace(circuit, projections=projections)
    into = {name: tuple(p for p in projections.values() if p.post == name) for name in circuit.populations}
    neurons = {name: jax.tree.map(floats, p.neuron) for name, p in circuit.populations.items()}
    layouts = {
        name: make_layout(
            p.synapses,
            circuit.populations[p.pre].size,
            circuit.populations[p.post].size,
            not isinstance(p.rule, NetworkRule) and _follows_spikes(circuit, p, traced.get(name)),
        )
        for name, p in circuit.projections.items()
    }
    eventful = {end for name, p in projections.items() if isinstance(layouts[name], EventLayout)
                for end in (p.pre, p.post)}  # fmt: skip
    stepped = {}
    for name in eventful:
        neuron = circuit.populations[name].neuron
        several = [f"neuron.{path}" for path, value in parameters(neuron).items() if jnp.ndim(value)]
        if neuron.lateral is not None or circuit.populations[name].responses:
            continue
        if loops.neuron_printable(step := trace_stage(neuron, "step"), several):
            stepped[name] = step
    following = all(isinstance(layout, EventLayout) for layout in layouts.values())
    in_loops = following and stepped.keys() == circuit.populations.keys() and not circuit.signals
    groups = credit.groups_of(circuit, traced)
    return Network(bare, dt, traced, delayed, into, stepped, groups, in_loops), neurons, rules, layouts


def _follows_spikes(circuit: Circuit, projection: Projection, traced: TracedRule | None) -> bool:
    """Whether few synapses of a projection have anything to do in a tick, and looking at those alone is worth it."""
    if projection.synapses is None or projection.field != "x" or projection.release < 1:
        return False
    if circuit.fast(projection.tied or projection.name) or not kernels.by_events(projection.synapses.nnz):
        return False
    ends = (projection.pre,) if traced is None else (projection.pre, projection.post)
    spiking = all(isinstance(circuit.populations[end].neuron, Spiking) for end in ends)
    return spiking and (traced is None or by_events(projection.rule, traced))


def initial_weights(circuit: Circuit, layouts: Mapping[str, Layout], key: Any) -> dict[str, Blocks]:
    weights = {}
    for name, projection in circuit.projections.items():
        layout = layouts[name]
        values = projection.weights
        if projection.tied is not None:
            continue
        if isinstance(values, Initialiser):
            sparse = projection.synapses
            shape = (layout.n_post, layout.n_pre) if sparse is None else (sparse.nnz,)
            fan_in = layout.n_pre if sparse is None else round(sparse.nnz / layout.n_post)
            try:
                values = values(jax.random.fold_in(named_key(key, name), 0x77), shape, fan_in)
            except ValueError as error:
                raise NetworkError(f"projection {name!r}: {error}") from error
        weights[name] = layout.pack(values)
    return weights


def _stage_all(
    neuron: Neuron,
    stage: Stage,
    state: Fields,
    ports: Fields,
    noise: Any,
    dt: float,
    looped: tuple[Traced, Collection[str]] | None = None,
) -> Fields:
    """The scalar stage over all neurons, and over the batch where there is one; as a loop where its trace is given,
    with the ports at which nothing can arrive."""
    available = {"state": state, "ports": ports, "noise": noise, "dt": dt}
    names = named_arguments(getattr(neuron, stage), tuple(available), f"{type(neuron).__name__}.{stage}")
    own = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) == 1 else None, neuron)
    arguments = {name: available[name] for name in names if name != "dt"}
    extra = {"dt": dt} if "dt" in names else {}

    def one(neuron: Neuron, arguments: dict[str, Any]) -> Fields:
        return getattr(neuron, stage)(**arguments, **extra)  # type: ignore[no-any-return]

    size = state.x.shape
    function = jax.vmap(one, in_axes=(own, 0), axis_size=size[-1])
    if looped is not None:
        function = _loop(function, *looped, state, dt)
    if len(size) == 2:
        function = jax.vmap(function, in_axes=(None, 0), axis_size=size[0])
    return function(neuron, arguments)


def _loop(
    function: Callable[..., Fields], traced: Traced, silent: Collection[str], state: Fields, dt: float
) -> Callable[..., Fields]:
    """The same step of a population, compiled ahead of XLA."""
    quiet = {f"ports.{port}" for port in silent}

    def looped(neuron: Neuron, arguments: dict[str, Any]) -> Fields:
        given = {"neuron": neuron, **arguments}
        leaves, structure = jax.tree.flatten(given)
        named = dict(zip(named_leaves(given), leaves, strict=True))
        # A step that does not ask for the state has no field of it among its arguments.
        fields = {f"state.{key}": kernels.Shape(value.shape[-1:], value.dtype) for key, value in state.items()}
        ordered = {name: named.get(name, kind) for name, kind in fields.items()} | named
        ordered |= {name: jnp.zeros((), state.x.dtype) for name in quiet & named.keys()}  # one number, not an array

        def plain(values: dict[str, Any]) -> tuple[Any, ...]:
            leaves = [jnp.broadcast_to(values[name], leaf.shape) for name, leaf in named.items()]
            given = jax.tree.unflatten(structure, leaves)
            new = function(given.pop("neuron"), given)
            return tuple(new[name] for name in state)

        return Fields(dict(zip(state, loops.neurons(traced, ordered, dt, plain), strict=True)))

    return looped


def _check_neuron(population: Population, dt: float) -> None:
    neuron, owner = population.neuron, f"population {population.name!r}"
    start = neuron.init()
    if "x" not in start:
        raise NetworkError(f"{owner}: {type(neuron).__name__}.init() has no field x, which is the neuron's output")
    clash = set(start) & set(arrivals(neuron, "respond"))
    if clash:
        raise NetworkError(f"{owner}: {type(neuron).__name__} calls both a port and a state field {clash.pop()!r}")
    for name, noise in (("noise", neuron.noise), ("late_noise", neuron.late_noise)):
        if noise not in (None, "uniform", "normal"):
            raise NetworkError(f"{owner}: {name}={noise!r} must be 'uniform', 'normal' or None")
    state = start.map(lambda v: spread(v, (population.size,)))
    ports = Fields(dict.fromkeys(arrivals(neuron, "step"), spread(0.0, (population.size,))))
    try:
        new = jax.eval_shape(lambda: _stage_all(neuron, "step", state, ports, jnp.zeros(population.size), dt))
    except (TypeError, AttributeError, jax.errors.JAXTypeError) as error:
        late = f" (what arrives at {', '.join(neuron.late)} comes after step: respond reads it)" if neuron.late else ""
        raise NetworkError(
            f"{owner}: {type(neuron).__name__}.step cannot be run: {str(error).splitlines()[0]}{late}"
        ) from error
    if not isinstance(new, Fields) or not set(start) - set(population.responses) <= set(new) <= set(start):
        raise NetworkError(
            f"{owner}: {type(neuron).__name__}.step returns {', '.join(new)}; init() has {', '.join(start)}: "
            "return the same fields"
        )
    wrong = [key for key in new if new[key].shape != (population.size,)]
    if wrong:
        raise NetworkError(f"{owner}: {type(neuron).__name__}.step returns an array for {wrong[0]!r}; give one number")


def _check_rule(projection: Projection, traced: TracedRule, circuit: Circuit) -> None:
    for group, name in (("pre", projection.pre), ("post", projection.post)):
        neuron = circuit.populations[name].neuron
        known = (*neuron.init(), *arrivals(neuron, "respond"))
        for key in traced.fields(group):
            if key not in known:
                raise NetworkError(
                    f"projection {projection.name!r}: {type(projection.rule).__name__} reads {group}.{key}, but "
                    f"{type(neuron).__name__} neurons ({name!r}) have only {', '.join(known)}"
                )
    if "efferent" in traced.update.reads and projection.synapses is not None:
        raise NetworkError(
            f"projection {projection.name!r}: {type(projection.rule).__name__} sums over a pre neuron's synapses, "
            "which only a dense projection can: leave topology out"
        )
    shape = (circuit.populations[projection.post].size, circuit.populations[projection.pre].size)
    for key, value in projection.rule.init().items():
        if not jnp.ndim(value):
            continue
        owner = f"projection {projection.name!r}: {type(projection.rule).__name__}'s {key!r}"
        if projection.synapses is not None:
            raise NetworkError(
                f"{owner} is an array with a number for each synapse, which only a dense projection can have: leave "
                "topology out"
            )
        if jnp.shape(value) != shape:
            raise NetworkError(f"{owner} has shape {jnp.shape(value)}; for a number each the synapses need {shape}")
        if key in traced.held:
            raise NetworkError(f"{owner} is one neuron's, not a synapse's: begin from a number")
