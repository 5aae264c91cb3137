"""Spikes on their way out of a run: bits of words, of which few are not 0.

A tick then writes, and a recorder looks through, a thirty-second of the bytes that the outputs themselves take.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .kernels import Shape, compiled
from .loops import at_places, indented, places

WIDTH = 32  # bits of a word


def packed(values: Any) -> Any:
    """Which of (..., n) are not 0: bit i % 32 of word i // 32 of (..., ceil(n / 32))."""

    def plain(found: Any, x: Any) -> Any:
        padded = jnp.pad(x != 0, (0, -x.shape[0] % WIDTH)).astype(jnp.uint32).reshape(-1, WIDTH)
        return ((padded << jnp.arange(WIDTH, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32),)

    loop = at_places("found", "i", [f"words[i // {WIDTH}] |= 1 << i % {WIDTH}"])
    source = "\n".join(["def rows(found, words):", *indented(["words[:] = 0", *loop])])

    def one(x: Any) -> Any:
        words = Shape((-(-x.shape[0] // WIDTH),), jnp.uint32)
        return compiled(plain, source, (words,), 1)(places(x), x)[0]

    return jnp.vectorize(one, signature="(n)->(k)")(values)


def unpacked(words: np.ndarray) -> tuple[np.ndarray, ...]:
    """The places (as of `numpy.nonzero`) of what `packed` made words of."""
    some = np.flatnonzero(words)
    bits = words.ravel()[some][:, None] >> np.arange(WIDTH, dtype=np.uint32) & np.uint32(1)
    row, bit = np.divmod(np.flatnonzero(bits), WIDTH)
    *axes, word = np.unravel_index(some[row], words.shape)
    return (*axes, word * WIDTH + bit)
