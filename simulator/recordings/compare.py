"""What two recordings differ in: first what made them, then what they hold."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .reading import Recording, damaged
from .resume import Difference, difference, unlike_events

ROWS = 2**22  # bytes that are compared at once


def diff(a: str | Path, b: str | Path) -> tuple[list[Difference], list[Difference]]:
    """Settings that differ (network, seed, runs, versions), and fields. Raises `RecordingError` for a bad file."""
    with Recording(a) as first, Recording(b) as second, damaged(f"{a} or {b}"):
        settings = [
            Difference(where, f"{_short(one)} | {_short(other)}")
            for where, one, other in _unlike("", _settings(first), _settings(second))
        ]
        return settings, list(_fields(first, second))


def _settings(recording: Recording) -> dict[str, Any]:
    return {
        "network": recording.network,
        "seed": recording.seed,
        "dt": recording.dt,
        "points": recording.points,
        "runs": {
            str(number): {key: value for key, value in run.items() if key not in ("start", "until", "process", "host")}
            for number, run in enumerate(recording.runs)
        },
        "versions": recording.versions,
    }


def _unlike(where: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """(place, value in a, value in b) of the innermost values that differ; None where one is missing."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if "digest" in a and a.get("digest") == b.get("digest"):  # the same array, wherever it lies
            return
        for key in [*a, *(key for key in b if key not in a)]:
            if key not in ("code", "at"):
                yield from _unlike(f"{where}.{key}".lstrip("."), a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _unlike(f"{where}[{number}]", one, other)
    elif a != b:
        yield where, a, b


def _fields(a: Recording, b: Recording) -> Iterator[Difference]:
    for name in [*a.fields, *(name for name in b.fields if name not in a.fields)]:
        if name not in a.fields or name not in b.fields:
            yield Difference(name, f"only in {(a if name in a.fields else b).path}")
            continue
        one, other = a.fields[name], b.fields[name]
        ticks = a.ticks(name)
        shared = min(len(one), len(other))
        step = max(1, ROWS // max(one[:1].nbytes, 1))
        parts = (
            difference(name, ticks[k : k + step], one[k : min(k + step, shared)], other[k : min(k + step, shared)])
            for k in range(0, max(shared, 1), step)
        )
        found = next((part for part in parts if part is not None), None)
        if found is not None:
            yield found
        elif not np.array_equal(ticks[:shared], b.ticks(name)[:shared]):
            yield Difference(name, "sampled at other ticks")
        elif len(one) != len(other):
            yield Difference(name, f"{len(one)} | {len(other)} samples; the same as far as they go")
    for name in sorted({*a.spike_names, *b.spike_names}):
        if name not in a.spike_names or name not in b.spike_names:
            yield Difference(name, f"only in {(a if name in a.spike_names else b).path}")
            continue
        spikes, others = a.spikes(name).columns, b.spikes(name).columns
        found = unlike_events(name, spikes, others)
        counts = len(spikes["times"]), len(others["times"])
        if found is not None:
            yield found
        elif counts[0] != counts[1]:
            yield Difference(name, f"{counts[0]} | {counts[1]} events; the same as far as they go")


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
