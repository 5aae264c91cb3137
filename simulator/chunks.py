"""Into what pieces a run is cut: by memory, by what is recorded when, and by how closely a file follows the run."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import SimulationError
from .feed import Feed
from .recordings.recorder import Recorder

if TYPE_CHECKING:
    from .simulator import Simulator

BYTES = 64 * 2**20  # of drive and samples held at once
UNITS = 100_000
LENGTHS = 8  # that are compiled as they come
FIRST = 256  # units of a chunk while it is not known how long they take


class Chunks:
    """How many units (ticks or trials) each chunk of a run has.

    A chunk ends where a sample of given ticks is due. Where a file is to follow the run every so many seconds, chunks
    are cut to that, once two of them have told how long a unit takes; every other length is compiled anew.
    """

    def __init__(
        self, sim: "Simulator", total: int, feed: Feed, recorders: Sequence[Recorder], chunk: int | None, per_unit: int,
        progress: bool, callbacks: bool,
    ) -> None:  # fmt: skip
        if chunk is not None and chunk < 1:
            raise SimulationError(f"chunk={chunk} must be at least 1")
        channels = [channel for recorder in recorders for channel in recorder.channels]
        paces = [recorder.sink.flush for recorder in recorders]
        self._seconds = min((pace.seconds for pace in paces), default=np.inf)
        self._first = True
        ends = {tick + 1 for channel in channels for tick in channel.probe.at or ()}
        offset = sim.tick - sim._unit(feed.trial) * per_unit
        self._ends = sorted((end - offset) // per_unit for end in ends if (end - offset) % per_unit == 0)
        periods = [channel.probe.every for channel in channels if channel.probe.at is None]
        whole = [p // per_unit if p % per_unit == 0 else 1 for p in periods]
        held = feed.bytes_per_unit + sum(recorder.bytes_per_tick for recorder in recorders) * per_unit
        size = min(UNITS, max(1, int(BYTES / max(held, 1))), total)
        ticks = min((pace.ticks for pace in paces), default=np.inf)
        size = int(min(size, max(1, ticks / per_unit)))
        if progress or callbacks:
            size = min(size, max(1, total // 50))
        self._step = max((p for p in whole if p <= size), default=1)
        self._largest = self._fit(size) if chunk is None else chunk
        learns = chunk is None and np.isfinite(self._seconds)
        self._size = min(self._largest, self._fit(FIRST)) if learns else self._largest
        self._learning = learns and self._size < self._largest
        self._times: list[float] = []
        self._lengths: set[int] = set()

    def next(self, unit: int, left: int) -> int:
        """The units of the chunk that starts at ``unit`` when ``left`` are left of the run."""
        units = min(self._size - (unit % self._size if self._first else 0), left)
        self._first = False
        ahead = next((end - unit for end in self._ends if end > unit), None)
        if ahead is None:
            return units
        units = min(units, ahead)
        if units in self._lengths or len(self._lengths) < LENGTHS:
            self._lengths.add(units)
            return units
        return 1 << (units.bit_length() - 1)  # powers of two: few more lengths to compile, wherever the ends are

    @contextlib.contextmanager
    def timed(self, units: int) -> Iterator[None]:
        """Around a chunk."""
        start = time.perf_counter()
        yield
        if self._learning and units == self._size:
            self._times.append((time.perf_counter() - start) / units)
            if len(self._times) == 2:  # the first was compiled
                self._learning = False
                wanted = self._seconds / 2 / max(self._times[1], 1e-9) / self._size
                # Powers of two: the next run, a little slower or faster, finds them compiled.
                self._size = int(min(self._largest, self._size * 2.0 ** max(np.floor(np.log2(wanted)), 0)))
                self._first = True

    def _fit(self, size: int) -> int:
        return max(size // self._step * self._step, 1)
