"""One tick of learning in one projection: the rule's scalar function over all synapses, averaged over the batch."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .layout import Block, Blocks, Layout
from .networks.fields import Fields
from .rules.base import LocalRule
from .rules.equations import Traced, trace
from .separation import separate

SynapticState = tuple[Fields, ...]


@dataclass(frozen=True)
class TracedRule:
    """What a rule reads and computes, found once by tracing it."""

    update: Traced
    pool: Traced
    constraint_pool: Traced

    @property
    def reads(self) -> frozenset[str]:
        """Every input that the weights' course depends on."""
        return self.update.reads | self.pool.reads

    def fields(self, group: str) -> tuple[str, ...]:
        return tuple(sorted(name.partition(".")[2] for name in self.reads if name.startswith(group + ".")))


def trace_rule(rule: LocalRule) -> TracedRule:
    return TracedRule(trace(rule), trace(rule, "pooled"), trace(rule, "constraint_pooled"))


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
    for number, (block, w, syn) in enumerate(zip(layout.blocks, weights, synapses, strict=True)):
        noise = jnp.zeros(())
        if rule.noise is not None:
            draw = jax.random.normal if rule.noise == "normal" else jax.random.uniform
            noise = draw(jax.random.fold_in(key, number), w.shape, w.dtype)
        one = _OneSample(rule, traced, block, w, noise, dt)
        post_rows = post.map(block.post)
        if batch is None:
            dw, syn = one(pre.map(block.pre), post_rows, signals, syn)
        else:
            separated = _separated(one, pre, post_rows, signals, syn) if layout.dense else None
            dw, syn = separated or _accumulated(one, pre, post_rows, signals, syn, batch)
        new = _constrained(rule, traced, block, w + dw, signals, dt)
        new_weights.append(block.mask(new).astype(w.dtype))
        new_synapses.append(syn)
    return tuple(new_weights), tuple(new_synapses)


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
    for path, leaf in jax.tree_util.tree_leaves_with_path(one.rule):
        values["rule." + ".".join(str(getattr(key, "name", key)) for key in path)] = ("const", jnp.asarray(leaf))
    for name in one.traced.update.inputs:  # named by the rule, read by nothing
        values.setdefault(name, ("const", jnp.zeros(())))
    outputs = separate(one.traced.update, values)
    if outputs is None:
        return None
    shaped = [jnp.broadcast_to(output, one.w.shape) for output in outputs]
    names = [name.partition(".")[2] for name in one.traced.update.outputs]
    named = dict(zip(names, shaped, strict=True))
    return named.pop(""), Fields(named)


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


def _constrained(rule: LocalRule, traced: TracedRule, block: Block, w: Any, signals: Fields, dt: float) -> Any:
    blank = jnp.zeros(w.shape[0])
    nothing = Fields()
    env = Fields(
        w=w, pre=nothing, post=nothing, syn=nothing, signals=signals, noise=w, afferent=blank, efferent=w, dt=dt
    )
    if traced.constraint_pool.outputs:
        env = env.replace(afferent=block.mask(block.each(rule.constraint_pooled, env)).sum(1))
    return block.each(rule.constrained, env)
