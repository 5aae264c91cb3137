"""One tick of learning in one projection: the rule's scalar function over all synapses, averaged over the batch."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import kernels
from .layout import Block, Blocks, Layout
from .networks.fields import Fields, parameters
from .rules.base import LocalRule
from .rules.equations import RuleError, Traced, trace
from .separation import separate

SynapticState = tuple[Fields, ...]


@dataclass(frozen=True)
class TracedRule:
    """What a rule reads and computes, found once by tracing it."""

    update: Traced
    pool: Traced
    constraint: Traced
    constraint_pool: Traced

    def fields(self, group: str) -> tuple[str, ...]:
        """The fields of ``pre``, ``post`` or ``signals`` that the rule names, whether or not its result needs them."""
        named = {name for part in (self.update, self.pool, self.constraint) for name in part.inputs}
        return tuple(sorted(name.partition(".")[2] for name in named if name.startswith(group + ".")))


def trace_rule(rule: LocalRule) -> TracedRule:
    parts = (trace(rule, part) for part in ("evaluate", "pooled", "constrained", "constraint_pooled"))
    traced = TracedRule(*parts)
    allowed = ("w", "afferent", "dt", "signals.", "rule.")
    beyond = [name for name in traced.constraint.reads if not name.startswith(allowed)]
    if beyond:
        raise RuleError(
            f"{type(rule).__name__}.constrained reads {beyond[0]}; a constraint comes after the batch was averaged and "
            "may read w, afferent, signals and dt only"
        )
    return traced


def initial_synapses(rule: LocalRule, weights: Blocks, batch: int | None) -> SynapticState:
    """The rule's ``init()`` at every synapse; with one copy per batch element unless the rule shares it."""
    lead = (batch,) if batch is not None and rule.sharing == "each" else ()

    def filled(w: Any) -> Fields:
        return rule.init().map(lambda value: jnp.full((*lead, *w.shape), value, w.dtype))

    return tuple(filled(w) for w in weights)


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
) -> tuple[Blocks, SynapticState]:
    """The new weights and synaptic states.

    ``pre`` and ``post`` hold ([batch,] n) arrays of the fields that the rule reads, ``signals`` scalars or (batch,)
    arrays. The mean over the batch is a matrix product where the rule separates and a running sum where not; either
    way no array with a batch of synapses is made, except for state that every copy has for itself.
    """
    new_weights, new_synapses = [], []
    noises = _noises(rule, weights, key)
    posts = {name: layout.post(values) for name, values in post.items()}
    kernel = None
    if batch is None and not layout.dense and kernels.worthwhile(weights):
        kernel = _Kernel.of(rule, traced, weights, pre, post, signals, dt)
    for number, (block, w, syn) in enumerate(zip(layout.blocks, weights, synapses, strict=True)):
        post_rows = Fields({name: rows[number] for name, rows in posts.items()})
        one = _OneSample(rule, traced, block, w, noises[number], dt)
        if kernel is not None:
            new, syn = kernel(rule, block, w, pre, post_rows, syn)
        elif batch is None:
            new, syn = one.learned(pre, post_rows, signals, syn)
        else:
            separated = _separated(one, pre, post_rows, signals, syn) if layout.dense else None
            dw, syn = separated or _accumulated(one, pre, post_rows, signals, syn, batch)
            new = one.constrained(w + dw, signals)
        new_weights.append(new)
        new_synapses.append(syn)
    return tuple(new_weights), tuple(new_synapses)


def _noises(rule: LocalRule, weights: Blocks, key: Any) -> list[Any]:
    """One random number for each synapse, drawn at once: how the rows are split into blocks does not matter."""
    if rule.noise is None:
        return [jnp.zeros(())] * len(weights)
    draw = jax.random.normal if rule.noise == "normal" else jax.random.uniform
    sizes = [w.size for w in weights]
    drawn = jnp.split(draw(key, (sum(sizes),), weights[0].dtype), np.cumsum(sizes)[:-1])
    return [noise.reshape(w.shape) for noise, w in zip(drawn, weights, strict=True)]


@dataclass(frozen=True)
class _Kernel:
    """A tick of learning in one block, compiled ahead of XLA."""

    source: str
    traced: TracedRule
    signals: Fields
    dt: float

    @staticmethod
    def of(
        rule: LocalRule, traced: TracedRule, weights: Blocks, pre: Fields, post: Fields, signals: Fields, dt: float
    ) -> "_Kernel | None":
        """None where there is no kernel for the rule."""
        dtype = weights[0].dtype
        broadcast = [name for name in traced.fields("signals") if name not in ("tick", "count")]  # they are integers
        signals = Fields({name: jnp.asarray(signals[name], dtype) for name in broadcast})
        groups = {"pre": pre, "post": post, "signals": signals}
        names = [f"{group}.{name}" for group, fields in groups.items() for name in fields]
        names = ["w", *(f"syn.{name}" for name in rule.init()), "index", "degrees", *names, *_parameters(rule)]
        if any(leaf.dtype != dtype for leaf in jax.tree.leaves((pre, post, rule))):
            return None
        source = kernels.learning_source(traced.update, traced.constraint, names, dt, dtype)
        return None if source is None else _Kernel(source, traced, signals, dt)

    def __call__(
        self, rule: LocalRule, block: Block, w: Any, pre: Fields, post: Fields, syn: Fields
    ) -> tuple[Any, Fields]:
        """The new weights and synaptic states."""
        arrays, structure = jax.tree.flatten((w, syn, Block(block.index, block.degrees), pre, post, self.signals, rule))

        def plain(*arrays: Any) -> tuple[Any, ...]:
            w, syn, block, pre, post, signals, rule = jax.tree.unflatten(structure, arrays)
            one = _OneSample(rule, self.traced, block, w, jnp.zeros(()), self.dt)
            return tuple(jax.tree.leaves(one.learned(pre, post, signals, syn)))

        new, *states = kernels.compiled(plain, self.source, 1 + len(syn))(*arrays)
        return new, Fields(dict(zip(syn, states, strict=True)))


@dataclass(frozen=True)
class _OneSample:
    """The mapped rule for one element of the batch: ``(rows, width)`` changes from neurons' values."""

    rule: LocalRule
    traced: TracedRule
    block: Block
    w: Any
    noise: Any
    dt: float

    def __call__(self, pre: Fields, post: Fields, signals: Fields, syn: Fields) -> tuple[Any, Fields]:
        noise = jnp.broadcast_to(self.noise, self.w.shape)
        blank = jnp.zeros(self.w.shape[0])
        env = Fields(
            w=self.w, pre=pre, post=post, syn=syn, signals=signals, noise=noise, afferent=blank, efferent=self.w,
            dt=self.dt,
        )  # fmt: skip
        used = self.traced.update.reads & {"afferent", "efferent"}
        if used:
            parts = self.block.each(self.rule.pooled, env)
            if "afferent" in used:
                env = env.replace(afferent=self.block.mask(parts.afferent).sum(1))
            if "efferent" in used:
                env = env.replace(efferent=jnp.cumsum(parts.efferent, axis=0))
        return self.block.each(self.rule.evaluate, env)  # type: ignore[no-any-return]

    def constrained(self, w: Any, signals: Fields) -> Any:
        """The changed weights ``w`` after bounds, normalisation and the like."""
        nothing, blank = Fields(), jnp.zeros(w.shape[0])
        env = Fields(
            w=w, pre=nothing, post=nothing, syn=nothing, signals=signals, noise=w, afferent=blank, efferent=w,
            dt=self.dt,
        )  # fmt: skip
        if self.traced.constraint_pool.outputs:
            env = env.replace(afferent=self.block.mask(self.block.each(self.rule.constraint_pooled, env)).sum(1))
        return self.block.mask(self.block.each(self.rule.constrained, env)).astype(self.w.dtype)

    def learned(self, pre: Fields, post: Fields, signals: Fields, syn: Fields) -> tuple[Any, Fields]:
        """The new weights and synaptic states, without a batch."""
        dw, syn = self(pre.map(self.block.pre), post, signals, syn)
        return self.constrained(self.w + dw, signals), syn


def _parameters(rule: LocalRule) -> dict[str, Any]:
    """Hyper-parameters by their names as inputs of a traced rule."""
    return {f"rule.{name}": leaf for name, leaf in parameters(rule).items()}


def _separated(one: _OneSample, pre: Fields, post: Fields, signals: Fields, syn: Fields) -> Any:
    if one.traced.update.reads & {"afferent", "efferent"} or (len(syn) and one.rule.sharing == "each"):
        return None
    n_post = one.w.shape[0]
    values: dict[str, Any] = {"w": ("syn", one.w), "dt": ("const", one.dt), "noise": ("syn", one.noise)}
    values["afferent"] = values["efferent"] = ("const", 0.0)
    values |= {f"pre.{name}": ("pre", array) for name, array in pre.items()}
    values |= {f"post.{name}": ("post", array) for name, array in post.items()}
    values |= {f"syn.{name}": ("syn", array) for name, array in syn.items()}
    for name, value in signals.items():
        own = jnp.ndim(value) == 1  # every copy of the network has its own value
        values[f"signals.{name}"] = (
            ("post", jnp.broadcast_to(value[:, None], (value.shape[0], n_post))) if own else ("const", value)
        )
    values |= {name: ("const", jnp.asarray(leaf)) for name, leaf in _parameters(one.rule).items()}
    for name in one.traced.update.inputs:  # named by the rule, read by nothing
        values.setdefault(name, ("const", jnp.zeros(())))
    outputs = separate(one.traced.update, values)
    if outputs is None:
        return None
    shaped = [jnp.broadcast_to(output, one.w.shape) for output in outputs]
    names = [name.partition(".")[2] for name in one.traced.update.outputs]
    named = dict(zip(names, shaped, strict=True))
    return named.pop(""), Fields({name: named[name] for name in syn})


def _accumulated(one: _OneSample, pre: Fields, post: Fields, signals: Fields, syn: Fields, batch: int) -> Any:
    each = one.rule.sharing == "each"
    own = {name: value for name, value in signals.items() if jnp.ndim(value) == 1}

    def sample(total: Any, item: Any) -> Any:
        pre_b, post_b, own_b, syn_b = item
        dw, new = one(pre_b.map(one.block.pre), post_b, signals.replace(**own_b), syn_b if each else syn)
        added = jax.tree.map(jnp.add, total, (dw, Fields() if each else new))
        return added, (new if each else Fields())

    zeros = jnp.zeros_like(one.w)
    start = (zeros, Fields() if each else syn.map(jnp.zeros_like))
    (dw, mean), news = jax.lax.scan(sample, start, (pre, post, own, syn if each else Fields()))
    return dw / batch, (news if each else mean.map(lambda total: total / batch))
