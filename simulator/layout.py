"""Where a projection's synapses lie in memory, and the gathers and sums that follow from it.

A dense projection is one (post, pre) matrix. A sparse one is stored as rows padded per target (ELL): row i holds the
weights of target i's afferents and ``index`` their pre neurons. Rows of similar in-degree share a block, so that
padding wastes less than a factor of 2 whatever the degree distribution. Rules never see any of this.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

Blocks = tuple[Float[Array, "rows width"], ...]


class Block(eqx.Module):
    """Rows of one width. ``index`` is None where every pre neuron is heard, in order."""

    index: Int[Array, "rows width"] | None
    targets: Int[Array, " rows"] | None  # None: all targets, in order
    degree: Int[Array, " rows"] | None  # None: no padding

    @property
    def rows(self) -> int:
        assert self.index is not None
        return self.index.shape[0]

    @property
    def width(self) -> int:
        assert self.index is not None
        return self.index.shape[1]

    def pre(self, values: Float[Array, "*batch pre"]) -> Float[Array, "*batch rows width"] | Float[Array, "*batch pre"]:
        if self.index is None:
            return values
        return values.at[..., self.index].get(mode="promise_in_bounds")

    def post(self, values: Float[Array, "*batch post"]) -> Float[Array, "*batch rows"]:
        return values if self.targets is None else values[..., self.targets]

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
    order: Int[Array, " post"] | None  # row of each target in the blocks put together; None: in order
    n_pre: int = eqx.field(static=True)
    n_post: int = eqx.field(static=True)

    @property
    def dense(self) -> bool:
        return self.blocks[0].index is None

    def propagate(self, weights: Blocks, x: Float[Array, "*batch pre"]) -> Float[Array, "*batch post"]:
        """The weighted sum that arrives at every target: sum over j of w_ij x_j."""
        if self.dense:
            return x @ weights[0].T
        return self._join([(w * block.pre(x)).sum(-1) for w, block in zip(weights, self.blocks, strict=True)])

    def load(self, weights: Blocks) -> Float[Array, " post"]:
        """The total absolute weight onto every target."""
        return self._join([jnp.abs(w).sum(-1) for w in weights])

    def _join(self, rows: list[Float[Array, "*batch rows"]]) -> Float[Array, "*batch post"]:
        joined = rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1)
        return joined if self.order is None else joined[..., self.order]

    def pack(self, values: np.ndarray) -> Blocks:
        """The user's array, (post, pre) if dense or one value per synapse in row order if sparse, as blocks."""
        if self.dense:
            return (jnp.asarray(values, float),)
        _, slots = self._slots()
        sizes = [block.rows * block.width for block in self.blocks]
        flat = np.zeros(sum(sizes))
        flat[slots] = np.asarray(values)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return tuple(
            jnp.asarray(part.reshape(block.rows, block.width), float)
            for part, block in zip(parts, self.blocks, strict=True)
        )

    def unpack(self, blocks: tuple[Any, ...]) -> Any:
        """The user's array from blocks, leading axes kept: (..., post, pre) or (..., synapses)."""
        if self.dense:
            return blocks[0]
        lead = np.shape(blocks[0])[:-2]
        flat = np.concatenate([np.asarray(block).reshape(*lead, -1) for block in blocks], axis=-1)
        return flat[..., self._slots()[1]]

    @property
    def synapses(self) -> tuple[np.ndarray, np.ndarray]:
        """(post, pre) of every synapse, in the order of `unpack`."""
        if self.dense:
            post, pre = np.indices((self.n_post, self.n_pre))
            return post.ravel(), pre.ravel()
        targets, slots = self._slots()
        return targets, np.concatenate([np.asarray(block.index).ravel() for block in self.blocks])[slots]

    def _slots(self) -> tuple[np.ndarray, np.ndarray]:
        """Target of every synapse in row order, and its place in the blocks put end to end."""
        degrees, first = np.zeros(self.n_post, int), np.zeros(self.n_post, int)
        start = 0
        for block in self.blocks:
            targets = np.arange(self.n_post) if block.targets is None else np.asarray(block.targets)
            degrees[targets] = block.width if block.degree is None else np.asarray(block.degree)
            first[targets] = start + block.width * np.arange(block.rows)
            start += block.rows * block.width
        rows = np.repeat(np.arange(self.n_post), degrees)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        return rows, first[rows] + within


def make_layout(synapses: sp.csr_array | None, n_pre: int, n_post: int) -> Layout:
    """Lay out the synapses of a (post, pre) sparse matrix, or a dense projection for None."""
    if synapses is None:
        return Layout((Block(None, None, None),), None, n_pre, n_post)
    degrees = np.diff(synapses.indptr)
    if n_post * degrees.max() <= 1.25 * synapses.nnz:
        groups = [np.arange(n_post)]
    else:
        octave = np.ceil(np.log2(np.maximum(degrees, 1))).astype(int)
        groups = [np.flatnonzero(octave == k) for k in np.unique(octave)]
    blocks = []
    for targets in groups:
        width = max(int(degrees[targets].max()), 1)
        slots = np.arange(width)[None, :]
        present = slots < degrees[targets][:, None]
        places = np.where(present, synapses.indptr[targets][:, None] + slots, 0)
        index = np.where(present, synapses.indices[places], 0)
        whole = bool(present.all())
        blocks.append(
            Block(
                jnp.asarray(index, jnp.int32),
                None if len(groups) == 1 else jnp.asarray(targets, jnp.int32),
                None if whole else jnp.asarray(degrees[targets], jnp.int32),
            )
        )
    order = None if len(groups) == 1 else jnp.asarray(np.argsort(np.concatenate(groups)), jnp.int32)
    return Layout(tuple(blocks), order, n_pre, n_post)
