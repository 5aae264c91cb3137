"""Where drive comes from. A source of a run is one of

- an array of shape (presentations, [batch,] n): row k is the k-th presentation of the run,
- a number: the same for all neurons, at every presentation,
- a function ``f(index, key) -> ([batch,] n)`` of the tick (or, in a held phase, the trial), traced with the step,
- an iterator of rows: it is read as the run goes, so it may be endless.

The functions here make the third kind.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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


class SpikeTrains(eqx.Module):
    """What `spike_trains` makes: the neurons that spike in tick t are ``ids[starts[t]:starts[t + 1]]``."""

    starts: Int[Array, " ticks+1"]
    ids: Int[Array, " spikes+most"]  # filled up, so that ``most`` can be read anywhere
    size: int = eqx.field(static=True)
    most: int = eqx.field(static=True)  # spikes in a tick

    def __call__(self, index: Any, key: Any) -> Array:
        starts, ids = jnp.asarray(self.starts), jnp.asarray(self.ids)
        first, end = (starts.at[index + k].get(mode="clip") for k in (0, 1))
        spiking = jax.lax.dynamic_slice(ids, (first,), (self.most,))
        there = jnp.arange(self.most) < end - first
        return jnp.zeros(self.size).at[jnp.where(there, spiking, self.size)].add(1.0, mode="drop")


class Steady(eqx.Module):
    """The same number at every presentation, of a signal or of all neurons: what a number given as a source becomes."""

    value: float
    size: int | None = eqx.field(default=None, static=True)  # neurons; None: a signal

    def __call__(self, index: Any, key: Any) -> Array:
        return jnp.full(() if self.size is None else (self.size,), self.value, float)


class Written(eqx.Module):
    """The next index cell at every tick."""

    capacity: int = eqx.field(static=True)

    def __call__(self, index: Any, key: Any) -> Float[Array, " capacity"]:
        return jax.nn.one_hot(index % self.capacity, self.capacity)


class Replayed(eqx.Module):
    """Each of the events ``ago`` for two ticks, after every trial of so many ``ticks``."""

    ago: Int[np.ndarray, " events"]
    ticks: int = eqx.field(static=True)
    capacity: int = eqx.field(static=True)

    def __call__(self, index: Any, key: Any) -> Float[Array, " capacity"]:
        ago = jnp.asarray(self.ago)
        trial, tick = index // (2 * len(ago)), index % (2 * len(ago))
        event = (trial + 1) * self.ticks - 1 - ago[tick // 2]
        return jnp.where(event >= 0, jax.nn.one_hot(event % self.capacity, self.capacity), 0.0)


class Alternating(eqx.Module):
    """1 at every other tick, from the first."""

    def __call__(self, index: Any, key: Any) -> Float[Array, "1"]:
        return jnp.full(1, 1.0 - index % 2)


SOURCES = (Gaussian, RowsOf, NoisySource, SpikeTrains, Steady, Written, Replayed, Alternating)


def gaussian(factor: Float[np.ndarray, "n k"], batch: int | None = None) -> Source:
    r"""Zero-mean Gaussian vectors with covariance :math:`F F^\top`, independent at every presentation."""
    return Gaussian(jnp.asarray(factor, float), batch)


def rows_of(data: Float[np.ndarray, "rows n"], batch: int | None = None) -> Source:
    """Rows of ``data`` drawn at random with replacement, ``batch`` at a time."""
    return RowsOf(jnp.asarray(data, float), batch)


def noisy(source: Source, deviation: float) -> Source:
    """``source`` plus independent normal noise of standard deviation ``deviation``."""
    return NoisySource(source, deviation)


def spike_trains(
    times: Float[np.ndarray, " spikes"], ids: Int[np.ndarray, " spikes"], size: int, dt: float | None = None
) -> Source:
    """Given spikes, as drive of `SpikeSource` neurons: neuron ``ids[k]`` of ``size`` spikes in tick ``times[k]``, or,
    with ``dt``, at ``times[k]`` seconds. Several spikes of a neuron in one tick are one; after the last there are none.

    >>> spikes = recording.spikes("retina.spikes")               # doctest: +SKIP
    >>> source = spike_trains(spikes.times, spikes.ids, 100)     # doctest: +SKIP

    Raises ``ValueError`` naming the first spike that has no place.
    """
    times, ids = np.asarray(times, float), np.asarray(ids)
    if times.ndim != 1 or times.shape != ids.shape:
        raise ValueError(f"times {times.shape} and ids {ids.shape} must be two lists of the same length")
    ticks = times if dt is None else np.floor(times / dt + 1e-6)
    wrong = np.flatnonzero(~(ticks >= 0) | (ticks != np.round(ticks)) | (ids < 0) | (ids >= size))
    if len(wrong):
        k = int(wrong[0])
        remedy = "give dt for times in seconds" if dt is None else "times start at 0"
        raise ValueError(f"spike {k} at {times[k]} of neuron {ids[k]} has no place among {size} neurons: {remedy}")
    order = np.lexsort((ids, ticks))
    counts = np.bincount(ticks.astype(int)) if len(ticks) else np.zeros(1, int)
    starts, most = np.concatenate([[0], np.cumsum(counts)]), max(int(counts.max()), 1)
    filled = np.concatenate([ids[order], np.zeros(most, int)])
    return SpikeTrains(jnp.asarray(starts, jnp.int32), jnp.asarray(filled, jnp.int32), size, most)


def replay_drive(
    ticks: int,
    capacity: int,
    order: Literal["reverse", "forward"] | Sequence[int] = "reverse",
    *,
    depth: int | None = None,
) -> dict[str, Any]:
    """The drive that writes and replays the memory that `add_replay` makes, in trials of two phases.

    In ``live``, of so many ``ticks``, each tick is an event and has the next of the index cells, round and round: a
    cell is overwritten after ``capacity`` ticks. In ``replay`` the last ``depth`` events (those of the trial, as far as
    the memory goes back) come again, two ticks each. ``order`` is ``"reverse"``, ``"forward"``, or numbers of events
    ago, 0 the last one: ``2 * len(order)`` ticks.

    Raises ``ValueError`` for events that are forgotten.
    """
    depth = min(ticks, capacity) if depth is None else depth
    if isinstance(order, str):
        ago = np.arange(depth) if order == "reverse" else np.arange(depth)[::-1]
    else:
        ago = np.asarray(order, int)
    if not len(ago) or ago.min() < 0 or ago.max() >= capacity:
        raise ValueError(f"events ago are from 0 to {capacity - 1}, what a memory of capacity={capacity} holds: {ago}")
    return {
        "index": {"live": Written(capacity), "replay": Replayed(ago, ticks, capacity)},
        "recall": {"live": 0.0, "replay": Alternating()},
    }


def recall_drive(capacity: int) -> dict[str, Any]:
    """The drive that writes the memory that `add_replay` makes, in ``live``, and has it asked as `add_recall` wants."""
    return {
        "index": {"live": Written(capacity)},
        "index.ask": {"answer": 1.0, "recall": 1.0},
        "recall": {"recall": Alternating()},
        "relive": {"answer": 1.0},
    }
