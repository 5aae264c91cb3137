"""Initial weights: functions of a random key, the number of synapses and the fan-in."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

Weights = Float[Array, "..."] | Float[np.ndarray, "..."]
SMALL = 4096  # numbers


class Initialiser(eqx.Module):
    """``shape`` is (post, pre) for a dense projection and (synapses,) for a sparse one."""

    @abstractmethod
    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        """The initial weights."""


class Normal(Initialiser):
    """Independent normal weights with standard deviation ``scale``."""

    scale: float = 0.1
    mean: float = 0.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        return self.mean + self.scale * drawn(jax.random.normal, key, shape)


class TruncatedNormal(Initialiser):
    """`Normal` weights about 0, drawn anew beyond two standard deviations ``scale``."""

    scale: float = 0.1

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        return self.scale * drawn(lambda key, shape: jax.random.truncated_normal(key, -2.0, 2.0, shape), key, shape)


class Uniform(Initialiser):
    """Independent weights, uniform between ``low`` and ``high``."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        return drawn(functools.partial(jax.random.uniform, minval=self.low, maxval=self.high), key, shape)


class FanIn(Initialiser):
    r"""Normal weights with standard deviation ``gain`` :math:`/\sqrt{\text{fan-in}}`, which keeps the variance of a
    population's drive independent of how many synapses it has."""

    gain: float = 1.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        w = drawn(jax.random.normal, key, shape)
        scaled: Weights = self.gain / np.sqrt(np.asarray(max(fan_in, 1), w.dtype)) * w
        return scaled


class Xavier(Initialiser):
    r"""Uniform weights between plus and minus ``gain`` :math:`\sqrt{6 / (\text{fan-in} + \text{fan-out})}`; dense
    projections only.

    Source: Glorot & Bengio, International Conference on Artificial Intelligence and Statistics (2010).
    """

    gain: float = 1.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        if len(shape) != 2:
            raise ValueError("Xavier needs a dense projection; use FanIn for a sparse one")
        limit = self.gain * math.sqrt(6 / max(sum(shape), 1))
        return limit * drawn(functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0), key, shape)


class UnitRows(Initialiser):
    """Random rows of length 1 in the chosen norm order (2: Euclidean, 1: sum of weights); dense projections only.

    ``positive`` draws from the uniform distribution on (0, 1) instead of the normal.
    """

    order: int = eqx.field(default=2, static=True)
    positive: bool = eqx.field(default=False, static=True)

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        if len(shape) != 2:
            raise ValueError("UnitRows needs a dense projection; use FanIn for a sparse one")
        w = drawn(jax.random.uniform if self.positive else jax.random.normal, key, shape)
        lengths: Array = jnp.linalg.norm(w, ord=self.order, axis=1, keepdims=True)
        return w / lengths


class Orthogonal(Initialiser):
    """A random matrix with orthonormal rows or columns, times ``gain``; dense projections only."""

    gain: float = 1.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        if len(shape) != 2:
            raise ValueError("Orthogonal needs a dense projection; use FanIn for a sparse one")
        q, r = jnp.linalg.qr(drawn(jax.random.normal, key, (max(shape), max(shape))))
        square = q * jnp.sign(jnp.diagonal(r))  # unique, and so uniform: Mezzadri (2007)
        scaled: Weights = self.gain * square[: shape[0], : shape[1]]
        return scaled


class Identity(Initialiser):
    """``scale`` on the diagonal and 0 elsewhere (dense), or ``scale`` on every synapse (sparse)."""

    scale: float = 1.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        return self.scale * (jnp.eye(*shape) if len(shape) == 2 else jnp.ones(shape))


class Fixed(Initialiser):
    """Every weight is ``value``."""

    value: float = 1.0

    def __call__(self, key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int) -> Weights:
        return jnp.full(shape, self.value)


def drawn(
    sample: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: PRNGKeyArray, shape: tuple[int, ...]
) -> Weights:
    """``sample(key, shape)``. A number drawn depends on its place and not on how many there are, so a small array is
    the beginning of a larger one, and networks of all small sizes share what is compiled."""
    count = math.prod(shape)
    if count > SMALL:
        return sample(key, shape)
    many: Weights = sample(key, (SMALL,))
    if not isinstance(key, jax.core.Tracer):
        many = np.asarray(many)  # to cut an array of JAX is compiled for every size
    return many[:count].reshape(shape)
