"""One tick of learning in one projection: the rule's scalar function over all synapses, averaged over the batch."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import kernels, loops
from .events import event_driven, held_by
from .layout import Block, Blocks, EventLayout, Layout, PerNeuron
from .networks.fields import Fields, parameters, spread
from .rules.base import LocalRule
from .rules.equations import NoWord, RuleError, Traced, trace
from .rules.wrappers import around, core
from .separation import separate

SynapticState = Fields  # of PerNeuron, where a field is one neuron's, or else of Blocks
SYN = "syn."  # before the names of the synaptic state that travels with a neuron's fields


@dataclass(frozen=True)
class TracedRule:
    """What a rule reads and computes, found once by tracing it. ``held``: the fields of its state that are a
    neuron's. ``core``: the same of what a batch takes the mean of, where wrappers act on that mean."""

    update: Traced
    pool: Traced
    constraint: Traced
    constraint_pool: Traced
    held: dict[str, str]
    core: "TracedRule | None" = None

    def fields(self, group: str) -> tuple[str, ...]:
        """The fields of ``pre``, ``post`` or ``signals`` that the rule names, whether or not its result needs them."""
        named = {name for part in (self.update, self.pool, self.constraint) for name in part.inputs}
        return tuple(sorted(name.partition(".")[2] for name in named if name.startswith(group + ".")))


def trace_rule(rule: LocalRule) -> TracedRule:
    update, pool, constraint, constraint_pool = (
        trace(rule, part) for part in ("evaluate", "pooled", "constrained", "constraint_pooled")
    )
    allowed = ("w", "afferent", "dt", "signals.", "rule.")
    beyond = [name for name in constraint.reads if not name.startswith(allowed)]
    if beyond:
        raise RuleError(
            f"{type(rule).__name__}.constrained reads {beyond[0]}; a constraint comes after the batch was averaged and "
            "may read w, afferent, signals and dt only"
        )
    inside = core(rule)
    if inside is not None:
        reads = trace(around(rule, 0.0)).reads
        beyond = [name for name in sorted(reads) if not name.startswith(("w", "dt", "syn.", "signals.", "rule."))]
        if beyond:
            raise RuleError(
                f"{type(rule).__name__} reads {beyond[0]}, but a wrapper inside of it acts on the mean over a batch: "
                "what is around that may read w, its own state, signals and dt only"
            )
    held = {name: side for name, side in held_by(update).items() if name not in rule.carried}
    return TracedRule(update, pool, constraint, constraint_pool, held, None if inside is None else trace_rule(inside))


def by_events(rule: LocalRule, traced: TracedRule) -> bool:
    """Whether a rule leaves a synapse as it is while neither neuron sends anything; and has a loop for the others."""
    silent = event_driven(traced.update, traced.constraint, rule_parameters(rule))
    return silent and loops.printable(traced.update, traced.constraint)


def initial_synapses(
    rule: LocalRule, traced: TracedRule, layout: Layout, weights: Blocks, batch: int | None
) -> SynapticState:
    """The rule's ``init()`` at every synapse; with one copy per batch element unless the rule shares it."""
    sizes = {"pre": layout.n_pre, "post": layout.n_post}
    of_each = (core(rule) or rule).init() if batch is not None and rule.sharing == "each" else Fields()

    def filled(name: str, value: Any) -> PerNeuron | Blocks:
        lead = (batch,) if name in of_each else ()
        if name in traced.held:
            side = traced.held[name]
            return PerNeuron(spread(value, (*lead, sizes[side]), weights[0].dtype), side)
        return tuple(spread(value, (*lead, *w.shape), w.dtype) for w in weights)

    return Fields({name: filled(name, value) for name, value in rule.init().items()})


def learn(
    rule: LocalRule,
    traced: TracedRule,
    layout: Layout,
    weights: Blocks,
    synapses: SynapticState,
    pre: Fields,
    post: Fields,
    signals: Fields,
    key: Any,
    dt: float,
    batch: int | None,
    release: tuple[float, Any] | None = None,
) -> tuple[Blocks, SynapticState]:
    """The new weights and synaptic states. ``release``: the probability and the key of `released`.

    ``pre`` and ``post`` hold ([batch,] n) arrays of the fields that the rule reads, ``signals`` scalars or (batch,)
    arrays. The mean over the batch is a matrix product where the rule separates and a running sum where not, so that no
    array with a batch of synapses is made; where every copy has synaptic state for itself, all are worked on at once.
    """
    whole, of_batch = (rule, traced), synapses
    if batch is not None and traced.core is not None:
        rule, traced = core(rule) or rule, traced.core
        synapses = Fields({name: of_batch[name] for name in rule.init()})
    shared = [name for name in of_batch if name not in synapses]
    sides = {name: value.side for name, value in synapses.items() if isinstance(value, PerNeuron)}
    pre, post = (_with_state(fields, synapses, side, batch) for side, fields in (("pre", pre), ("post", post)))
    owns = [
        Fields({name: value[number] for name, value in synapses.items() if name not in sides})
        for number in range(len(weights))
    ]
    if isinstance(layout, EventLayout) and batch is None:
        one = _OneSample(rule, traced, layout.blocks[0], weights[0], np.zeros(()), np.ones(()), dt, sides)
        new, after = _looped_by_events(one, layout, pre, post, signals, owns[0])
        return (new,), Fields({name: after[name] for name in synapses})
    noises = _noises(rule, weights, key)
    posts = {name: layout.post(values) for name, values in post.items()}
    failing = release if "released" in traced.update.reads else None
    loop = batch is None and not layout.dense and failing is None and kernels.worthwhile(weights)
    new_weights, new_owns, new_shared = [], [], []
    for number, (block, w, own) in enumerate(zip(layout.blocks, weights, owns, strict=True)):
        post_rows = Fields({name: rows[number] for name, rows in posts.items()})
        one = _OneSample(rule, traced, block, w, noises[number], np.ones(()), dt, sides)
        masks = None if failing is None else functools.partial(_released, *failing, w, number)
        if batch is None:
            looped = _looped(one, layout.wiring(block), pre, post_rows, signals, own) if loop else None
            if masks is not None:
                one = dataclasses.replace(one, released=masks(0))
            new, own = looped or one.learned(pre, post_rows, signals, own)
        else:
            separated = _separated(one, pre, post_rows, signals, own) if layout.dense and masks is None else None
            dw, own = separated or _over_copies(one, pre, post_rows, signals, own, batch, masks)
            of_mean = Fields({name: of_batch[name][number] for name in shared})
            if whole[1] is not traced:
                dw, of_mean = _of_mean(whole[0], w, dw, of_mean, signals, dt)
            new_shared.append(of_mean)
            new = dataclasses.replace(one, rule=whole[0], traced=whole[1]).constrained(w + dw, signals)
        new_weights.append(new)
        new_owns.append(own)
    after = {name: tuple(own[name] for own in new_owns) for name in owns[0]}
    for side, fields in (("pre", pre), ("post", post)):
        after |= _advanced(rule, traced, side, sides, fields, signals, dt)
    after |= {name: tuple(of_mean[name] for of_mean in new_shared) for name in shared}
    return tuple(new_weights), Fields({name: after[name] for name in of_batch})


def _of_mean(rule: LocalRule, w: Any, dw: Any, own: Fields, signals: Fields, dt: float) -> tuple[Any, Fields]:
    """What the wrappers that act on a batch's mean make of the change ``dw`` of a block's weights."""
    alike = Fields({name: value for name, value in signals.items() if jnp.ndim(value) == 0})

    def synapse(w: Any, dw: Any, own: Fields) -> tuple[Any, Fields]:
        return around(rule, dw).evaluate(Fields(w=w, syn=own, signals=alike, dt=dt))

    try:
        dw, own = jax.vmap(jax.vmap(synapse))(w, dw, own)
    except AttributeError as error:
        raise RuleError(
            f"{type(rule).__name__} acts on the mean over a batch and sees signals that all copies have alike: {error}"
        ) from error
    return dw, own.map(lambda values: values.astype(w.dtype))


def _with_state(fields: Fields, synapses: SynapticState, side: str, batch: int | None) -> Fields:
    """A side's fields and the synaptic state that is held with its neurons, ([batch,] n) all."""
    held = {SYN + name: v.values for name, v in synapses.items() if isinstance(v, PerNeuron) and v.side == side}
    if batch is not None:
        held = {name: jnp.broadcast_to(values, (batch, values.shape[-1])) for name, values in held.items()}
    return fields.replace(**held)


def _advanced(
    rule: LocalRule, traced: TracedRule, side: str, sides: Mapping[str, str], fields: Fields, signals: Fields, dt: float
) -> dict[str, PerNeuron]:
    """The synaptic state that is held with the neurons of one side, after the tick."""
    names = [name for name, of in sides.items() if of == side]
    if not names:
        return {}
    one = jnp.ones(())  # for what these fields do not read
    others = {group: Fields(dict.fromkeys(traced.fields(group), one)) for group in ("pre", "post")}
    rest = Fields(dict.fromkeys(sides, one), **dict.fromkeys(rule.init(), one))

    def neuron(fields: Fields, signals: Fields) -> list[Any]:
        state = rest.replace(**{name: fields[SYN + name] for name in names})
        groups = {**others, side: fields}
        blank = dict.fromkeys(("w", "noise", "released", "afferent", "efferent"), one)
        _, new = rule.evaluate(Fields(**groups, **blank, syn=state, signals=signals, dt=dt))
        return [new[name] for name in names]

    function = jax.vmap(neuron, in_axes=(0, None))
    batched = fields[SYN + names[0]].ndim == 2
    if batched:
        function = jax.vmap(function, in_axes=(0, signals.map(lambda value: 0 if jnp.ndim(value) == 1 else None)))
    new = function(fields, signals)
    if batched and rule.sharing == "mean":
        new = [values.mean(0) for values in new]
    dtype = fields[SYN + names[0]].dtype
    return {name: PerNeuron(values.astype(dtype), side) for name, values in zip(names, new, strict=True)}


def released(probability: float, weights: Blocks, key: Any, copy: Any) -> Blocks:
    """Which synapses transmit in one copy of the network in one tick: 1 or 0."""
    return tuple(_released(probability, key, w, number, copy) for number, w in enumerate(weights))


def _released(probability: float, key: Any, w: Any, number: int, copy: Any) -> Any:
    own = jax.random.fold_in(jax.random.fold_in(key, copy), number)
    return jax.random.bernoulli(own, probability, w.shape).astype(w.dtype)


def _noises(rule: LocalRule, weights: Blocks, key: Any) -> list[Any]:
    """One random number for each synapse, drawn at once: how the rows are split into blocks does not matter."""
    if rule.noise is None:
        return [jnp.zeros(())] * len(weights)
    draw = jax.random.normal if rule.noise == "normal" else jax.random.uniform
    sizes = [w.size for w in weights]
    drawn = jnp.split(draw(key, (sum(sizes),), weights[0].dtype), np.cumsum(sizes)[:-1])
    return [noise.reshape(w.shape) for noise, w in zip(drawn, weights, strict=True)]


def _looped(one: "_OneSample", wiring: Fields, pre: Fields, post: Fields, signals: Fields, own: Fields) -> Any:
    """`_OneSample.learned` of a sparse block, compiled ahead of XLA; None where there is no loop for the rule."""
    given, by = _named(one, wiring, pre, post, signals, own)
    rule = jax.tree.structure(one.rule)

    def plain(named: dict[str, Any]) -> tuple[Any, ...]:
        part = _Parts(named, by, rule)
        block = Block(named["index"], named["degrees"])
        sample = dataclasses.replace(one, rule=part.rule, block=block, w=named["w"], noise=jnp.zeros(()))
        w, after = sample.learned(part.fields("pre"), part.fields("post"), part.fields("signals"), part.own())
        return (w, *(value for _, value in after.items()))

    try:
        w, *states = loops.learning(one.traced.update, one.traced.constraint, given, by, one.dt, plain)
    except NoWord:
        return None
    return w, Fields(dict(zip(own, states, strict=True)))


def _looped_by_events(
    one: "_OneSample", layout: EventLayout, pre: Fields, post: Fields, signals: Fields, own: Fields
) -> Any:
    """The new weights and synaptic states of an `EventLayout`."""
    given, by = _named(one, layout.wiring(one.block), pre, post, signals, own)
    held = [name for name in given if name.startswith(SYN) and by[name] != "synapse"]
    order = ["w", *(SYN + name for name in own), *held]
    given = {name: given[name] for name in (*order, *(name for name in given if name not in order))}
    rule = jax.tree.structure(one.rule)

    def plain(named: dict[str, Any]) -> tuple[Any, ...]:
        part = _Parts(named, by, rule)
        pre, post, signals = (part.fields(group) for group in ("pre", "post", "signals"))
        block = Block(named["index"], None)
        sample = dataclasses.replace(one, rule=part.rule, block=block, w=named["w"], noise=jnp.zeros(()))
        w, after = sample.learned(pre, post.map(lambda values: values[named["targets"]]), signals, part.own())
        new = {SYN + name: value for name, value in after.items()}
        for side, fields in (("pre", pre), ("post", post)):
            moved = _advanced(part.rule, one.traced, side, one.sides, fields, signals, one.dt)
            new |= {SYN + name: value.values for name, value in moved.items()}
        return (w, *(new[name] for name in order[1:]))

    w, *states = loops.learning(one.traced.update, one.traced.constraint, given, by, one.dt, plain)
    after = dict(zip(order[1:], states, strict=True))
    return w, {
        name[len(SYN) :]: (value,) if by[name] == "synapse" else PerNeuron(value, by[name])
        for name, value in after.items()
    }


def _named(
    one: "_OneSample", wiring: Fields, pre: Fields, post: Fields, signals: Fields, own: Fields
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a loop is given, by name, and what each is held by (see `loops.learning`)."""
    groups = {"pre": pre, "post": post, "number": signals}
    given = {"w": one.w, **{SYN + name: value for name, value in own.items()}}
    by = dict.fromkeys(given, "synapse") | dict.fromkeys(wiring, "wiring")
    given |= dict(wiring.items())
    for group, fields in groups.items():
        named = _prefixed("signals" if group == "number" else group, fields)
        given, by = given | named, by | dict.fromkeys(named, group)
    numbers = rule_parameters(one.rule)
    return {name: jnp.asarray(v) for name, v in (given | numbers).items()}, by | dict.fromkeys(numbers, "number")


def _prefixed(group: str, fields: Fields) -> dict[str, Any]:
    """Fields by their names as inputs of a traced rule; the synaptic state among them has its own."""
    return {name if name.startswith(SYN) else f"{group}.{name}": value for name, value in fields.items()}


@dataclass(frozen=True)
class _Parts:
    """What `_named` put together."""

    named: Mapping[str, Any]
    by: Mapping[str, str]
    structure: Any

    @property
    def rule(self) -> Any:
        return jax.tree.unflatten(self.structure, [v for name, v in self.named.items() if name.startswith("rule.")])

    def fields(self, group: str) -> Fields:
        """Those of ``pre`` or ``post``, with the synaptic state held by them, or the signals."""
        own = {n.removeprefix(group + "."): v for n, v in self.named.items() if n.startswith(group + ".")}
        held = {n: v for n, v in self.named.items() if n.startswith(SYN) and self.by[n] == group}
        return Fields({**own, **held})

    def own(self) -> Fields:
        return Fields(
            {n[len(SYN) :]: v for n, v in self.named.items() if n.startswith(SYN) and self.by[n] == "synapse"}
        )


@dataclass(frozen=True)
class _OneSample:
    """The mapped rule for one element of the batch: ``(rows, width)`` changes from neurons' values."""

    rule: LocalRule
    traced: TracedRule
    block: Block
    w: Any
    noise: Any
    released: Any
    dt: float
    sides: Mapping[str, str]

    def __call__(self, pre: Fields, post: Fields, signals: Fields, own: Fields) -> tuple[Any, Fields]:
        """``own``: the synaptic state that is not held with a neuron's fields."""
        noise = jnp.broadcast_to(self.noise, self.w.shape)
        released = jnp.broadcast_to(self.released, self.w.shape)
        blank = jnp.zeros(self.w.shape[0])
        pre = pre.map(self.block.pre)
        held = {name: (pre if side == "pre" else post)[SYN + name] for name, side in self.sides.items()}
        env = Fields(
            w=self.w, pre=pre, post=post, syn=own.replace(**held), signals=signals, noise=noise, released=released,
            afferent=blank, efferent=self.w, dt=self.dt,
        )  # fmt: skip
        used = self.traced.update.reads & {"afferent", "efferent"}
        if used:
            parts = self.block.each(self.rule.pooled, env, self.sides)
            if "afferent" in used:
                env = env.replace(afferent=self.block.mask(parts.afferent).sum(1))
            if "efferent" in used:
                env = env.replace(efferent=jnp.cumsum(parts.efferent, axis=0))

        def synapse(env: Fields) -> tuple[Any, Fields]:
            dw, syn = self.rule.evaluate(env)
            return dw, Fields({name: syn[name] for name in own})

        return self.block.each(synapse, env, self.sides)  # type: ignore[no-any-return]

    def held_by_copies(self, own: Fields) -> bool:
        """Whether every copy of a batch has synaptic state for itself."""
        return len(own) > 0 and self.rule.sharing == "each"

    def constrained(self, w: Any, signals: Fields) -> Any:
        """The changed weights ``w`` after bounds, normalisation and the like."""
        nothing, blank = Fields(), jnp.zeros(w.shape[0])
        env = Fields(
            w=w, pre=nothing, post=nothing, syn=nothing, signals=signals, noise=w, released=w, afferent=blank,
            efferent=w, dt=self.dt,
        )  # fmt: skip
        if self.traced.constraint_pool.outputs:
            env = env.replace(afferent=self.block.mask(self.block.each(self.rule.constraint_pooled, env, {})).sum(1))
        return self.block.mask(self.block.each(self.rule.constrained, env, {})).astype(self.w.dtype)

    def learned(self, pre: Fields, post: Fields, signals: Fields, own: Fields) -> tuple[Any, Fields]:
        """The new weights and synaptic states, without a batch."""
        dw, own = self(pre, post, signals, own)
        return self.constrained(self.w + dw, signals), own


def rule_parameters(rule: LocalRule) -> dict[str, Any]:
    """Hyper-parameters by their names as inputs of a traced rule."""
    return {f"rule.{name}": leaf for name, leaf in parameters(rule).items()}


def _separated(one: _OneSample, pre: Fields, post: Fields, signals: Fields, own: Fields) -> Any:
    if one.traced.update.reads & {"afferent", "efferent"} or one.held_by_copies(own):
        return None
    n_post = one.w.shape[0]
    values: dict[str, Any] = {"w": ("syn", one.w), "dt": ("const", one.dt), "noise": ("syn", one.noise)}
    values["afferent"] = values["efferent"] = ("const", 0.0)
    values["released"] = ("const", 1.0)
    for group, fields in (("pre", pre), ("post", post)):
        values |= {name: (group, array) for name, array in _prefixed(group, fields).items()}
    values |= {f"syn.{name}": ("syn", array) for name, array in own.items()}
    for name, value in signals.items():
        several = jnp.ndim(value) == 1  # every copy of the network has its own value
        values[f"signals.{name}"] = (
            ("post", jnp.broadcast_to(value[:, None], (value.shape[0], n_post))) if several else ("const", value)
        )
    values |= {name: ("const", jnp.asarray(leaf)) for name, leaf in rule_parameters(one.rule).items()}
    for name in one.traced.update.inputs:  # named by the rule, read by nothing
        values.setdefault(name, ("const", jnp.zeros(())))
    outputs = separate(one.traced.update, values)
    if outputs is None:
        return None
    shaped = [jnp.broadcast_to(output, one.w.shape) for output in outputs]
    named = dict(zip(one.traced.update.outputs, shaped, strict=True))
    return named["dw"], Fields({name: named[SYN + name] for name in own})


def _over_copies(
    one: _OneSample, pre: Fields, post: Fields, signals: Fields, own: Fields, batch: int, masks: Any = None
) -> Any:
    each = one.held_by_copies(own)
    several = {name: value for name, value in signals.items() if jnp.ndim(value) == 1}
    copies = (pre, post, several, own if each else Fields(), jnp.arange(batch))

    def sample(item: Any) -> tuple[Any, Fields]:
        pre_b, post_b, several_b, own_b, copy = item
        sample_of = one if masks is None else dataclasses.replace(one, released=masks(copy))
        return sample_of(pre_b, post_b, signals.replace(**several_b), own_b if each else own)

    if each:  # a batch of states is held in any case
        dw, own = jax.vmap(sample)(copies)
        return dw.mean(0), own

    def added(total: Any, item: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, sample(item)), None

    start = jnp.zeros_like(one.w), own.map(jnp.zeros_like)
    (dw, mean), _ = jax.lax.scan(added, start, copies)
    kept = one.traced.update.kept  # the mean of equal numbers may round
    return dw / batch, Fields({n: own[n] if SYN + n in kept else total / batch for n, total in mean.items()})
