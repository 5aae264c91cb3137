"""What to record of a field: when, of which neurons, and reduced to what.

A reduction is a function of the field's values, traced with the run, so that only its result leaves the program. It
takes the arguments that it names: ``now``, the values of one copy of the network (a population's (n,), a dense
projection's (post, pre), a sparse one's (synapses,)), and ``before``, the same one tick (in a run of trials, one trial)
earlier.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .errors import SimulationError
from .networks.fields import named_arguments


class Reduction(eqx.Module):
    """A reduction whose result has named axes. A plain function does where it gives one number."""

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """The result, from ``now`` and ``before`` where it names them."""

    def axes(self) -> dict[str, np.ndarray]:
        """Name and coordinates of each axis of the result."""
        return {}


class Mean(Reduction):
    r"""The mean over neurons or synapses, :math:`\frac1n\sum_i x_i`: of spikes, the rate per tick."""

    def __call__(self, now: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.mean(now)


class Norm(Reduction):
    r"""The Euclidean norm :math:`\lVert x\rVert_2` over neurons or synapses."""

    def __call__(self, now: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.sqrt(jnp.sum(now * now))


class UpdateNorm(Reduction):
    r"""The norm of the last tick's (in a run of trials, the last trial's) change, :math:`\lVert x_t -
    x_{t-1}\rVert_2`."""

    def __call__(self, now: Float[Array, "..."], before: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.sqrt(jnp.sum((now - before) ** 2))


class Histogram(Reduction):
    """How many values lie in each of ``bins`` bins of one width between ``low`` and ``high``; those beyond are counted
    in the first and the last. The axis ``bin`` has the bins' centres."""

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    bins: int = eqx.field(default=50, static=True)

    def __check_init__(self) -> None:
        if not self.low < self.high or self.bins < 1:
            raise ValueError(f"Histogram({self.low}, {self.high}, {self.bins}): needs low < high and at least one bin")

    def __call__(self, now: Float[Array, "..."]) -> Float[Array, " bins"]:
        place = jnp.floor((now - self.low) / (self.high - self.low) * self.bins)
        index = jnp.clip(place, 0, self.bins - 1).astype(jnp.int32).ravel()
        return jnp.zeros(self.bins, now.dtype).at[index].add(1)

    def axes(self) -> dict[str, np.ndarray]:
        return {"bin": self.low + (np.arange(self.bins) + 0.5) * (self.high - self.low) / self.bins}


mean, norm, update_norm = Mean(), Norm(), UpdateNorm()
histogram = Histogram


@dataclass(frozen=True)
class Probe:
    """Record ``field`` after every ``every``-th tick, or after the ticks given in ``at`` (the first is 0).

    ``neurons``: of a population these neurons only, of a projection the synapses onto these post neurons. ``reduce``: a
    reduction, such as ``probes.mean``, ``probes.norm``, ``probes.update_norm``, ``probes.histogram(low, high)`` or a
    function of ``now`` (and ``before``) that JAX can trace. Without ``field``, the field is the one that the recording
    is called after: ``record("run.h5", {"cortex.x": Probe(every=10), "cortex.rate": Probe("cortex.x", reduce=mean)})``.

    Raises `SimulationError` where a number makes no sense.
    """

    field: str = ""
    every: int = 1
    at: tuple[int, ...] | None = None
    neurons: tuple[int, ...] | None = None
    reduce: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not _whole(self.every) or self.every < 1:
            raise SimulationError(f"record {self.field!r} every {self.every!r} ticks: give a whole number, at least 1")
        object.__setattr__(self, "every", int(self.every))
        for name in ("at", "neurons"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _indices(self.field, name, given))
        if self.at is not None and self.every != 1:
            raise SimulationError(f"record {self.field!r}: give every= or at=, not both")
        if self.reduce is not None:
            self.arguments()

    def arguments(self) -> tuple[str, ...]:
        """What the reduction reads."""
        if self.reduce is None:
            return ("now",)
        try:
            return named_arguments(self.reduce, ("now", "before"), f"the reduction of {self.field!r}")
        except (TypeError, ValueError) as error:
            raise SimulationError(f"record {self.field!r}: {error}") from error

    def axes(self) -> dict[str, np.ndarray]:
        return self.reduce.axes() if isinstance(self.reduce, Reduction) else {}


def _indices(field: str, name: str, given: Sequence[int]) -> tuple[int, ...]:
    values = list(given)
    if not values or not all(_whole(v) and v >= 0 for v in values) or sorted(set(values)) != values:
        raise SimulationError(f"record {field!r}: {name}={given!r} must be rising whole numbers, 0 or more")
    return tuple(int(v) for v in values)


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
