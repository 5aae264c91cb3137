"""Where drive comes from. A source of a run is one of

- an array of shape (presentations, [batch,] n): row k is the k-th presentation of the run,
- a function ``f(index, key) -> ([batch,] n)`` of the tick (or, in a held phase, the trial), traced with the step,
- an iterator of rows: it is read as the run goes, so it may be endless.

The functions here make the second kind.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Source = Callable[[Any, Any], Array]


def gaussian(factor: Float[np.ndarray, "n k"], batch: int | None = None) -> Source:
    r"""Zero-mean Gaussian vectors with covariance :math:`F F^\top`, independent at every presentation."""
    matrix = jnp.asarray(factor, float)
    lead = () if batch is None else (batch,)

    def draw(index: Any, key: Any) -> Array:
        return jax.random.normal(key, (*lead, matrix.shape[1]), matrix.dtype) @ matrix.T

    return draw


def rows_of(data: Float[np.ndarray, "rows n"], batch: int | None = None) -> Source:
    """Rows of ``data`` drawn at random with replacement, ``batch`` at a time."""
    rows = jnp.asarray(data, float)
    shape = () if batch is None else (batch,)

    def draw(index: Any, key: Any) -> Array:
        return rows[jax.random.randint(key, shape, 0, rows.shape[0])]

    return draw


def noisy(source: Source, deviation: float) -> Source:
    """``source`` plus independent normal noise of standard deviation ``deviation``."""

    def draw(index: Any, key: Any) -> Array:
        signal_key, noise_key = jax.random.split(key)
        signal = source(index, signal_key)
        return signal + deviation * jax.random.normal(noise_key, signal.shape, signal.dtype)

    return draw
