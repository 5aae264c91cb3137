"""What all of them ask of a recording, and how they write a file."""

import contextlib
import dataclasses
import importlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import RecordingError
from ..check import dimensions
from ..reading import Recording, Spikes, damaged

BLOCK_BYTES = 2**22  # of samples read at once

Copy = dict[str, int]  # which copy of the network: {"point": 0, "batch": 3}; {} where there is one


def needs(module: str, function: str, extra: str) -> Any:
    """The optional ``module``. Raises `RecordingError` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RecordingError(f"{function} needs {package}: pip install 'engrax[{extra}]'") from error


def span(recording: Recording) -> tuple[int, int]:
    """The first tick of the recording, and the one after its last."""
    with damaged(recording.path):
        start = int(recording.runs[0]["tick"]) if recording.runs else 0
        ends = [start, int(recording.log[-1]["tick"]) if recording.complete else start]  # a failed run ends later
        clocks = [(data.dims[0][0], len(data)) for data in recording.fields.values()]
        times = [recording.file[name.replace(".", "/")]["times"] for name in recording.spike_names]
        clocks += [(clock, len(clock)) for clock in times]
        return start, max(ends + [int(clock[length - 1]) + 1 for clock, length in clocks if length])


def size(recording: Recording, population: str) -> int:
    """How many neurons it has: as many as the file holds the state of."""
    with damaged(recording.path):
        return recording.state_shapes()[f"{population}.x"][-1]


def copies(recording: Recording) -> list[Copy]:
    """All of them, point by point."""
    if not recording.runs:
        return [{}]
    with damaged(recording.path):
        shapes = recording.state_shapes()
        *lengths, _ = shapes[f"{next(iter(recording.network['populations']))}.x"]
        names = ["point", "batch"] if recording.points is not None else ["batch"]
        axes = [[(axis, i) for i in range(length)] for axis, length in zip(names, lengths, strict=False)]
        return [dict(one) for one in itertools.product(*axes)]


def one_copy(recording: Recording, **wanted: int) -> Copy:
    """The copy that ``point=`` and ``batch=`` name. Raises `RecordingError` if the recording has no such copy."""
    there = copies(recording)
    for axis, i in wanted.items():
        length = len({copy.get(axis, 0) for copy in there})
        if not 0 <= i < length:
            many = f"{axis}=0 to {axis}={length - 1}" if length > 1 else f"{axis}=0 alone"
            raise RecordingError(f"{recording.path} holds no {axis}={i}: it holds {many}")
    return {axis: wanted[axis] for axis in there[0] if axis in wanted}


def title(copy: Copy) -> str:
    return ", ".join(f"{axis} {i}" for axis, i in copy.items()) or "run"


def neuron_model(recording: Recording, population: str) -> str:
    return str(recording.network["populations"][population]["neuron"]["class"])


def probe(recording: Recording, name: str) -> dict[str, Any]:
    """How ``name`` was recorded: ``every``, ``at``, ``neurons``, ..."""
    with damaged(recording.path):
        return dict(recording.probes[name])


def events(recording: Recording) -> dict[str, tuple[Spikes, np.ndarray]]:
    """By population its spikes, and the neurons (rising) that were watched for them by one probe or several."""
    found: dict[str, tuple[Spikes, np.ndarray]] = {}
    with damaged(recording.path):
        for name in recording.spike_names:
            population, spikes = name.rpartition(".")[0], recording.spikes(name)
            chosen = probe(recording, name)["neurons"]
            neurons = np.arange(size(recording, population)) if chosen is None else np.asarray(chosen, int)
            if population in found:
                other, others = found[population]
                rows = {name: np.concatenate([other.columns[name], more]) for name, more in spikes.columns.items()}
                different = np.unique(np.stack(list(rows.values())), axis=1)
                spikes = dataclasses.replace(spikes, **dict(zip(rows, different, strict=True)))
                neurons = np.union1d(neurons, others)
            found[population] = spikes, neurons
    return found


def within(spikes: Spikes, copy: Copy) -> tuple[np.ndarray, np.ndarray]:
    """Ticks and neurons of the spikes of one copy, in the order of the ticks."""
    keep = np.ones(len(spikes.times), bool)
    for axis, i in copy.items():
        keep &= getattr(spikes, axis) == i
    return spikes.times[keep], spikes.ids[keep]


def by_neuron(times: np.ndarray, ids: np.ndarray, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spikes' ticks sorted by neuron, and where in them the spikes of each of ``neurons`` (rising) end."""
    order = np.argsort(ids, kind="stable")
    return times[order], np.searchsorted(ids[order], neurons, "right")


def sampled(recording: Recording) -> dict[str, h5py.Dataset]:
    """The fields of populations and the signals: all that are not a projection's."""
    projections = recording.network["projections"]
    return {name: data for name, data in recording.fields.items() if name.rpartition(".")[0] not in projections}


def axes(recording: Recording, data: h5py.Dataset) -> dict[str, np.ndarray]:
    """Name and coordinates of the axes of ``data`` after time. A selection of neurons lies along ``neuron`` too."""
    label = data.name.rpartition("/")[2]
    with damaged(recording.path):
        return {
            name.removesuffix(f"_{label}"): np.arange(length) if _bare(axis[0]) else np.asarray(axis[0][:length])
            for name, axis, length in list(zip(dimensions(data), data.dims, data.shape, strict=True))[1:]
        }


def _bare(scale: h5py.Dataset) -> bool:
    """Whether a dimension scale has no values of its own."""
    return bool(scale.id.get_storage_size() == 0)


def part(recording: Recording, data: h5py.Dataset, copy: Copy, rows: slice = slice(None)) -> np.ndarray:
    """The samples of one copy, time first."""
    with damaged(recording.path):
        return np.asarray(data[(rows, *(copy.get(axis, slice(None)) for axis in dimensions(data)[1:]))])


def blocks(data: h5py.Dataset) -> list[slice]:
    """The rows of ``data`` in slices of at most `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // max(data.dtype.itemsize * int(np.prod(data.shape[1:])), 1))
    return [slice(i, min(i + step, len(data))) for i in range(0, len(data), step)]


def period(recording: Recording, name: str) -> int | None:
    """How many ticks lie between two samples of a field, if it is the same number everywhere."""
    steps = np.diff(recording.ticks(name))
    if len(steps):
        return int(steps[0]) if (steps == steps[0]).all() else None
    given = probe(recording, name)
    return None if given["at"] is not None else int(given["every"])


@contextlib.contextmanager
def written(out: str | Path, overwrite: bool) -> Iterator[Path]:
    """A place to write a file to, which becomes ``out`` at the end if all went well. Raises `RecordingError` where
    ``out`` exists already or cannot be written."""
    out = Path(out)
    if out.exists() and not overwrite:
        raise RecordingError(f"{out} exists already: choose another name, or pass overwrite=True to replace it")
    place = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        yield place
        os.replace(place, out)
    except OSError as error:
        raise RecordingError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        place.unlink(missing_ok=True)
