"""Following a run from another process: the file is whole at every moment, so it is simply opened again and again."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .reading import Recording, damaged, patient
from .resume import stretches

LAST = 1000  # ticks over which values are summarised


@dataclass(frozen=True)
class Glance:
    """What a recording holds at one moment. ``values``: per field the mean and standard deviation of its last sample,
    or the mean rate of events (per neuron and tick) of late."""

    tick: int  # ticks recorded
    end: int  # at which the run is to end
    complete: bool
    alive: bool | None  # whether the process that writes it is; None where that cannot be known
    megabytes: float
    values: dict[str, tuple[float, float]]


def glance(path: str | Path) -> Glance:
    """What a recording holds now. Raises `RecordingError` where it is no recording."""
    return patient(Path(path), _glance)


def _glance(path: Path) -> Glance:
    with Recording(path) as recording, damaged(recording.path):
        values, last = {}, int(recording.runs[-1]["tick"]) if recording.runs else 0
        for name, data in recording.fields.items():
            if len(data):
                sample = np.asarray(data[len(data) - 1], float)
                sample = sample[~np.isnan(sample)]
                values[name] = (float(sample.mean()), float(sample.std())) if len(sample) else (math.nan, math.nan)
                last = max(last, int(recording.ticks(name)[-1]) + 1)
        for name in recording.spike_names:
            spikes = recording.spikes(name)
            if len(spikes.times):
                last = max(last, int(spikes.times[-1]) + 1)
            counts = np.unique(spikes.ids[spikes.times >= last - LAST], return_counts=True)[1] / min(LAST, last or 1)
            mean = float(counts.sum()) / spikes.size  # of neurons that were silent nothing is kept
            values[name] = mean, math.sqrt(max(float((counts**2).sum()) / spikes.size - mean**2, 0.0))
        planned = stretches(recording.runs)
        end = planned[-1].end if planned else 0
        size = recording.path.stat().st_size / 2**20
        return Glance(last, end, recording.complete, recording.alive, size, values)


def follow(path: str | Path, every: float = 1.0) -> Iterator[tuple[Glance, float]]:
    """Look every so many seconds until the recording is complete, or its writer is gone; with the time of each look."""
    while True:
        seen = glance(path)
        yield seen, time.monotonic()
        if seen.complete or seen.alive is False:
            return
        time.sleep(every)
