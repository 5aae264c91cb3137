"""Where a projection's synapses lie in memory, and the gathers and sums that follow from it.

A dense projection is one (post, pre) matrix. A sparse one is stored as rows padded per target (ELL): row i holds the
weights of target i's afferents and ``index`` their pre neurons. Rows of similar in-degree share a block, so that
padding wastes less than a factor of 2 whatever the degree distribution; many of them are split into several blocks,
which XLA works on side by side. Rules never see any of this.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from . import kernels, loops
from .networks.fields import Fields, floats

Blocks = tuple[Float[Array, "rows width"], ...]


class PerNeuron(eqx.Module):
    """A value that all synapses of a neuron have alike, held once for it: that of a ``pre`` or of a ``post`` neuron."""

    values: Float[Array, "*batch n"]
    side: str = eqx.field(static=True)


Held = PerNeuron | Blocks

# Of many rows: XLA runs operations side by side from about a dozen on (8 ran one after another, 12 on both cores).
PARTS = 16


class Block(eqx.Module):
    """Rows of one width. ``index`` is None where every pre neuron is heard, in order."""

    index: Int[Array, "rows width"] | None
    degree: Int[Array, " rows"] | None  # None: no padding

    @property
    def rows(self) -> int:
        assert self.index is not None
        return self.index.shape[0]

    @property
    def width(self) -> int:
        assert self.index is not None
        return self.index.shape[1]

    @property
    def degrees(self) -> Int[Array, " rows"]:
        """How many synapses each row of a sparse projection holds."""
        return jnp.full(self.rows, self.width, jnp.int32) if self.degree is None else self.degree

    def pre(self, values: Float[Array, "*batch pre"]) -> Float[Array, "*batch rows width"] | Float[Array, "*batch pre"]:
        if self.index is None:
            return values
        return values.at[..., self.index].get(mode="promise_in_bounds")

    def mask(self, values: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        """0 where there is no synapse."""
        if self.degree is None:
            return values
        present = jnp.arange(values.shape[-1])[None, :] < self.degree[:, None]
        return jnp.where(present, values, 0)

    def each(self, function: Callable[[Any], Any], env: Fields, sides: Mapping[str, str]) -> Any:
        """Map ``function`` of one synapse's environment over all of the block's synapses. ``sides`` are those of the
        synaptic state that is held per neuron: "pre" (as `pre` gives it) or "post" (one value a row)."""
        per_pre = None if self.index is None else 0
        outer = {"pre": per_pre, "post": 0, "synapse": 0}
        inner = {"pre": 0, "post": None, "synapse": 0}

        def axes(of: Mapping[str, int | None]) -> Fields:
            syn = Fields({name: of[sides.get(name, "synapse")] for name in env.syn})
            groups = dict.fromkeys(("w", "noise", "released", "efferent"), of["synapse"])
            return Fields(**groups, pre=of["pre"], post=of["post"], afferent=of["post"], syn=syn, signals=None, dt=None)

        ordered = Fields({name: env[name] for name in axes(outer)})
        return jax.vmap(jax.vmap(function, in_axes=(axes(inner),)), in_axes=(axes(outer),))(ordered)


class Layout(eqx.Module):
    """The blocks of one projection and the order of its targets in them."""

    blocks: tuple[Block, ...]
    targets: Int[Array, " post"] | None  # target of each row of the blocks put together; None: in order
    order: Int[Array, " post"] | None  # its inverse: row of each target
    n_pre: int = eqx.field(static=True)
    n_post: int = eqx.field(static=True)

    @property
    def dense(self) -> bool:
        return self.blocks[0].index is None

    def propagate(self, weights: Blocks, x: Float[Array, "*batch pre"]) -> Float[Array, "*batch post"]:
        """The weighted sum that arrives at every target: sum over j of w_ij x_j. Copies may have weights each."""
        if self.dense:
            if weights[0].ndim == 3:
                return jnp.einsum("bij,bj->bi", weights[0], x)
            return weights[0] @ x if x.ndim == 1 else x @ weights[0].T  # for one sample XLA would copy the transpose
        if x.ndim == 1 and kernels.worthwhile(weights):
            return self._join([loops.weighted_sum(w, b.index, x) for w, b in zip(weights, self.blocks, strict=True)])
        return self._join([(w * block.pre(x)).sum(-1) for w, block in zip(weights, self.blocks, strict=True)])

    def post(self, values: Float[Array, "*batch post"]) -> list[Float[Array, "*batch rows"]]:
        """The targets' values as the rows of each block have them."""
        if self.dense:
            return [values]
        ordered = values if self.targets is None else values[..., self.targets]
        return jnp.split(ordered, np.cumsum([block.rows for block in self.blocks])[:-1], axis=-1)

    def wiring(self, block: Block) -> Fields:
        """What a compiled kernel must know of a sparse block."""
        return Fields(index=block.index, degrees=block.degrees)

    def load(self, weights: Blocks) -> Float[Array, " post"]:
        """The total absolute weight onto every target."""
        return self._join([jnp.abs(w).sum(-1) for w in weights])

    def _join(self, rows: list[Float[Array, "*batch rows"]]) -> Float[Array, "*batch post"]:
        joined = rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1)
        return joined if self.order is None else joined[..., self.order]

    def pack(self, values: Any) -> Blocks:
        """The user's array, (..., post, pre) if dense or (..., synapses) in row order if sparse, as blocks."""
        if self.dense:
            return (floats(values),)
        with jax.ensure_compile_time_eval():
            slots = list(self._places())
        if isinstance(values, jax.core.Tracer):
            return tuple(jnp.where(places < 0, 0, values[..., places]) for places in slots)
        values = np.asarray(values)
        return tuple(floats(np.where(places < 0, 0, values[..., places])) for places in slots)

    def unpack(self, held: Held) -> Any:
        """The user's array, leading axes kept: (..., post, pre) or (..., synapses)."""
        if isinstance(held, PerNeuron):
            return self._spread(np.asarray(held.values), held.side, np)
        if self.dense:
            return held[0]
        values = [np.asarray(block) for block in held]
        flat = np.empty((*values[0].shape[:-2], self._degrees().sum()), values[0].dtype)
        for block, places in zip(values, self._places(), strict=True):
            flat[..., places[places >= 0]] = block[..., places >= 0]
        return flat

    def flat(self, held: Held) -> Any:
        """`unpack` within a program."""
        if isinstance(held, PerNeuron):
            return self._spread(held.values, held.side, jnp)
        if self.dense:
            return held[0]
        with jax.ensure_compile_time_eval():
            places = np.concatenate([places.ravel() for places in self._places()])
        slots = np.empty(places.max() + 1, int)
        slots[places[places >= 0]] = np.flatnonzero(places >= 0)
        return jnp.concatenate([block.reshape(*block.shape[:-2], -1) for block in held], axis=-1)[..., slots]

    def _spread(self, values: Any, side: str, numpy: Any) -> Any:
        """Every synapse's value from those of its neurons."""
        if not self.dense:
            with jax.ensure_compile_time_eval():
                post, pre = self.synapses
            return values[..., pre if side == "pre" else post]
        shape = (*values.shape[:-1], self.n_post, self.n_pre)
        return numpy.broadcast_to(values[..., None, :] if side == "pre" else values[..., :, None], shape)

    @property
    def synapses(self) -> tuple[np.ndarray, np.ndarray]:
        """(post, pre) of every synapse, in the order of `unpack`."""
        if self.dense:
            post, pre = np.indices((self.n_post, self.n_pre))
            return post.ravel(), pre.ravel()
        indices: Any = tuple(block.index for block in self.blocks)
        return np.repeat(np.arange(self.n_post), self._degrees()), self.unpack(indices)

    def _degrees(self) -> np.ndarray:
        """How many synapses each target has."""
        rows: np.ndarray = np.concatenate([np.asarray(block.degrees) for block in self.blocks])
        return rows if self.order is None else rows[np.asarray(self.order)]

    def _places(self) -> Iterator[np.ndarray]:
        """For every block (rows, width): which synapse in row order each slot holds, -1 for padding."""
        degrees = self._degrees()
        starts = self.post(jnp.asarray(np.cumsum(degrees) - degrees))
        for block, start in zip(self.blocks, starts, strict=True):
            slot = np.arange(block.width)
            yield np.where(slot < np.asarray(block.degrees)[:, None], np.asarray(start)[:, None] + slot, -1)


class EventLayout(Layout):
    """Synapses in the order of their pre neurons, where few of those send anything in a tick: what a tick costs follows
    the spikes. As blocks they are rows of one synapse each.

    The synapses of pre neuron j are ``starts[j]`` to ``starts[j + 1]``; those of target i are ``afferents`` at
    ``begins[i]`` to ``begins[i + 1]``.
    """

    starts: Int[Array, " pre+1"]
    begins: Int[Array, " post+1"]
    afferents: Int[Array, " synapses"]

    def propagate(self, weights: Blocks, x: Float[Array, "*batch pre"]) -> Float[Array, "*batch post"]:
        def arriving(x: Float[Array, " pre"]) -> Any:
            return loops.sum_of_events(weights[0], self.wiring(self.blocks[0]), x)

        return arriving(x) if x.ndim == 1 else jax.vmap(arriving)(x)  # type: ignore[no-any-return]

    def wiring(self, block: Block) -> Fields:
        order = {"starts": self.starts, "begins": self.begins, "afferents": self.afferents}
        return Fields(index=block.index, targets=self.targets, **order)

    def _join(self, rows: list[Float[Array, "*batch rows"]]) -> Float[Array, "*batch post"]:
        assert self.targets is not None
        summed = jax.ops.segment_sum(jnp.moveaxis(rows[0], -1, 0), self.targets, self.n_post)
        return jnp.moveaxis(summed, 0, -1)

    def _degrees(self) -> np.ndarray:
        return np.diff(np.asarray(self.begins))

    def _places(self) -> Iterator[np.ndarray]:
        yield _inverse(np.asarray(self.afferents))[:, None]


class Narrowed(eqx.Module):
    """A layout whose derivative by ``x``, where it is ``at``, goes through some of its synapses only."""

    whole: Layout
    part: Layout | None  # None: through no synapse
    places: Int[Array, " part"]  # of the part's synapses among all, in row order
    at: Float[Array, "*batch pre"]

    @classmethod
    def to(cls, whole: Layout, synapses: sp.csr_array | None, part: sp.csr_array, at: Any) -> "Narrowed":
        """``synapses`` of the whole, and those of them that are followed."""
        post, pre = part.nonzero()
        order = np.lexsort((pre, post))
        post, pre = post[order], pre[order]
        places = post * whole.n_pre + pre
        if synapses is not None:
            rows = np.repeat(np.arange(whole.n_post), np.diff(synapses.indptr))
            places = np.searchsorted(rows * whole.n_pre + synapses.indices, places)
        with jax.ensure_compile_time_eval():
            narrow = make_layout(part, whole.n_pre, whole.n_post) if part.nnz else None
            return cls(whole, narrow, jnp.asarray(places, jnp.int32), at)

    def propagate(self, weights: Blocks, x: Float[Array, "*batch pre"]) -> Float[Array, "*batch post"]:
        arriving = self.whole.propagate(weights, self.at)
        if self.part is None:
            return arriving
        flat = self.whole.flat(weights)
        flat = flat.reshape(*flat.shape[:-2], -1) if self.whole.dense else flat
        return arriving + self.part.propagate(self.part.pack(flat[..., self.places]), x - self.at)

    def load(self, weights: Blocks) -> Float[Array, " post"]:
        return self.whole.load(weights)


def make_layout(synapses: sp.csr_array | None, n_pre: int, n_post: int, events: bool = False) -> Layout:
    """Lay out the synapses of a (post, pre) sparse matrix, or a dense projection for None. ``events``: as an
    `EventLayout`."""
    if synapses is None:
        return Layout((Block(None, None),), None, None, n_pre, n_post)
    if events:
        return _event_layout(synapses, n_pre, n_post)
    degrees = np.diff(synapses.indptr)
    if n_post * degrees.max() <= 1.25 * synapses.nnz:
        groups = [np.arange(n_post)]
    else:
        octave = np.ceil(np.log2(np.maximum(degrees, 1))).astype(int)
        groups = [np.flatnonzero(octave == k) for k in np.unique(octave)]
    blocks = []
    for group in groups:
        slot = np.arange(max(int(degrees[group].max()), 1))
        parts = PARTS if len(group) * len(slot) >= kernels.LARGE else 1
        for targets in np.array_split(group, min(parts, len(group))):
            present = slot < degrees[targets][:, None]
            index = synapses.indices[np.where(present, synapses.indptr[targets][:, None] + slot, 0)]
            degree = None if present.all() else floats(degrees[targets], np.int32)
            blocks.append(Block(floats(np.where(present, index, 0), np.int32), degree))
    if len(groups) == 1:
        return Layout(tuple(blocks), None, None, n_pre, n_post)
    targets = np.concatenate(groups)
    order = floats(_inverse(targets), np.int32)
    return Layout(tuple(blocks), floats(targets, np.int32), order, n_pre, n_post)


def _event_layout(synapses: sp.csr_array, n_pre: int, n_post: int) -> EventLayout:
    numbered = (np.arange(synapses.nnz), synapses.indices, synapses.indptr)
    by_pre = sp.csr_array(numbered, shape=(n_post, n_pre)).tocsc()  # row-order place of each synapse here
    pre = np.repeat(np.arange(n_pre), np.diff(by_pre.indptr))
    given = (pre[:, None], by_pre.indices, by_pre.indptr, synapses.indptr, _inverse(by_pre.data))
    index, targets, *order = (floats(array, np.int32) for array in given)
    return EventLayout((Block(index, None),), targets, None, n_pre, n_post, *order)


def _inverse(permutation: np.ndarray) -> np.ndarray:
    """Where each number lies."""
    found = np.empty_like(permutation)
    found[permutation] = np.arange(len(permutation))
    return found
