"""Where a projection's synapses lie in memory, and the gathers and sums that follow from it.

A dense projection is one (post, pre) matrix. A sparse one is stored as rows padded per target (ELL): row i holds the
weights of target i's afferents and ``index`` their pre neurons. Rows of similar in-degree share a block, so that
padding wastes less than a factor of 2 whatever the degree distribution; many of them are split into several blocks,
which XLA works on side by side. Rules never see any of this.
"""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from . import kernels

Blocks = tuple[Float[Array, "rows width"], ...]

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

    def each(self, function: Callable[[Any], Any], env: Any) -> Any:
        """Map ``function`` of one synapse's environment over all of the block's synapses."""
        per_pre = None if self.index is None else 0
        outer = type(env)(w=0, pre=per_pre, post=0, syn=0, signals=None, noise=0, afferent=0, efferent=0, dt=None)
        inner = outer.replace(pre=0, post=None, afferent=None)
        return jax.vmap(jax.vmap(function, in_axes=(inner,)), in_axes=(outer,))(env)


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
        """The weighted sum that arrives at every target: sum over j of w_ij x_j."""
        if self.dense:
            return x @ weights[0].T
        if x.ndim == 1 and kernels.worthwhile(weights):
            return self._join([kernels.weighted_sum(w, b.index, x) for w, b in zip(weights, self.blocks, strict=True)])
        return self._join([(w * block.pre(x)).sum(-1) for w, block in zip(weights, self.blocks, strict=True)])

    def post(self, values: Float[Array, "*batch post"]) -> list[Float[Array, "*batch rows"]]:
        """The targets' values as the rows of each block have them."""
        if self.dense:
            return [values]
        ordered = values if self.targets is None else values[..., self.targets]
        return jnp.split(ordered, np.cumsum([block.rows for block in self.blocks])[:-1], axis=-1)

    def load(self, weights: Blocks) -> Float[Array, " post"]:
        """The total absolute weight onto every target."""
        return self._join([jnp.abs(w).sum(-1) for w in weights])

    def _join(self, rows: list[Float[Array, "*batch rows"]]) -> Float[Array, "*batch post"]:
        joined = rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1)
        return joined if self.order is None else joined[..., self.order]

    def pack(self, values: np.ndarray) -> Blocks:
        """The user's array, (..., post, pre) if dense or (..., synapses) in row order if sparse, as blocks."""
        if self.dense:
            return (jnp.asarray(values, float),)
        values = np.asarray(values)
        return tuple(jnp.array(np.where(places < 0, 0, values[..., places]), float) for places in self._places())

    def unpack(self, blocks: tuple[Any, ...]) -> Any:
        """The user's array from blocks, leading axes kept: (..., post, pre) or (..., synapses)."""
        if self.dense:
            return blocks[0]
        values = [np.asarray(block) for block in blocks]
        flat = np.empty((*values[0].shape[:-2], self._degrees().sum()), values[0].dtype)
        for block, places in zip(values, self._places(), strict=True):
            flat[..., places[places >= 0]] = block[..., places >= 0]
        return flat

    def flat(self, blocks: tuple[Any, ...]) -> Any:
        """`unpack` within a program."""
        if self.dense:
            return blocks[0]
        with jax.ensure_compile_time_eval():
            places = np.concatenate([places.ravel() for places in self._places()])
        slots = np.empty(places.max() + 1, int)
        slots[places[places >= 0]] = np.flatnonzero(places >= 0)
        return jnp.concatenate([block.reshape(*block.shape[:-2], -1) for block in blocks], axis=-1)[..., slots]

    @property
    def synapses(self) -> tuple[np.ndarray, np.ndarray]:
        """(post, pre) of every synapse, in the order of `unpack`."""
        if self.dense:
            post, pre = np.indices((self.n_post, self.n_pre))
            return post.ravel(), pre.ravel()
        return np.repeat(np.arange(self.n_post), self._degrees()), self.unpack(tuple(b.index for b in self.blocks))

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


def make_layout(synapses: sp.csr_array | None, n_pre: int, n_post: int) -> Layout:
    """Lay out the synapses of a (post, pre) sparse matrix, or a dense projection for None."""
    if synapses is None:
        return Layout((Block(None, None),), None, None, n_pre, n_post)
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
            degree = None if present.all() else jnp.asarray(degrees[targets], jnp.int32)
            blocks.append(Block(jnp.asarray(np.where(present, index, 0), jnp.int32), degree))
    if len(groups) == 1:
        return Layout(tuple(blocks), None, None, n_pre, n_post)
    targets = np.concatenate(groups)
    order = jnp.asarray(np.argsort(targets), jnp.int32)
    return Layout(tuple(blocks), jnp.asarray(targets, jnp.int32), order, n_pre, n_post)
