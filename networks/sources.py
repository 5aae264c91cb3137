"""Where drive comes from. A source of a run is one of

- an array of shape (presentations, [batch,] n): row k is the k-th presentation of the run,
- a function ``f(index, key) -> ([batch,] n)`` of the tick (or, in a held phase, the trial), traced with the step,
- an iterator of rows: it is read as the run goes, so it may be endless.

The functions here make the second kind.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Source = Callable[[Any, Any], Array]


class Gaussian(eqx.Module):
    """What `gaussian` makes."""

    factor: Float[Array, "n k"]
    batch: int | None = eqx.field(default=None, static=True)

    def __call__(self, index: Any, key: Any) -> Array:
        lead = () if self.batch is None else (self.batch,)
        factor = jnp.asarray(self.factor, float)
        return jax.random.normal(key, (*lead, factor.shape[1]), factor.dtype) @ factor.T


class RowsOf(eqx.Module):
    """What `rows_of` makes."""

    data: Float[Array, "rows n"]
    batch: int | None = eqx.field(default=None, static=True)

    def __call__(self, index: Any, key: Any) -> Array:
        shape = () if self.batch is None else (self.batch,)
        return jnp.asarray(self.data, float)[jax.random.randint(key, shape, 0, self.data.shape[0])]


class NoisySource(eqx.Module):
    """What `noisy` makes."""

    source: Source
    deviation: float

    def __call__(self, index: Any, key: Any) -> Array:
        signal_key, noise_key = jax.random.split(key)
        signal = self.source(index, signal_key)
        return signal + self.deviation * jax.random.normal(noise_key, signal.shape, signal.dtype)


class Steady(eqx.Module):
    """The same number at every presentation: what a number given as a source becomes."""

    value: float

    def __call__(self, index: Any, key: Any) -> Array:
        return jnp.asarray(self.value, float)


SOURCES = (Gaussian, RowsOf, NoisySource, Steady)


def gaussian(factor: Float[np.ndarray, "n k"], batch: int | None = None) -> Source:
    r"""Zero-mean Gaussian vectors with covariance :math:`F F^\top`, independent at every presentation."""
    return Gaussian(jnp.asarray(factor, float), batch)


def rows_of(data: Float[np.ndarray, "rows n"], batch: int | None = None) -> Source:
    """Rows of ``data`` drawn at random with replacement, ``batch`` at a time."""
    return RowsOf(jnp.asarray(data, float), batch)


def noisy(source: Source, deviation: float) -> Source:
    """``source`` plus independent normal noise of standard deviation ``deviation``."""
    return NoisySource(source, deviation)
