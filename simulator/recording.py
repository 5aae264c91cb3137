"""Recordings: HDF5 files that netCDF readers open, and the same samples in memory.

One group per population and projection; every axis of every dataset has a dimension scale attached, so that h5py,
xarray and h5netcdf find the names. Samples taken every n ticks lie along ``tick`` (n = 1) or ``tick_n``, whose values
are the ticks after which they were taken. The root's attributes say, in JSON, what made the file.
"""

import dataclasses
import datetime
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import equinox as eqx
import h5py
import jax
import numpy as np

from .errors import RecordingError, SimulationError
from .locality import locality
from .protocol import Phase
from .rules.base import LocalRule

if TYPE_CHECKING:
    from .simulator import Simulator

FORMAT = 1
CHUNK_BYTES = 2**18


class Recorder:
    """Keeps fields of a simulator while its context is open; made by `Simulator.record`."""

    def __init__(self, sim: "Simulator", fields: Mapping[str, int], writer: "_Writer | None") -> None:
        known = known_fields(sim)
        for field, period in fields.items():
            if field not in known:
                raise SimulationError(f"nothing to record called {field!r}; there are: {', '.join(known)}")
            if isinstance(period, bool) or not isinstance(period, (int, np.integer)) or period < 1:
                raise SimulationError(f"record {field!r} every {period!r} ticks: give a whole number, at least 1")
        self.fields = {field: int(period) for field, period in fields.items()}
        self._sim = sim
        self._writer = writer
        self._kept: dict[str, list[np.ndarray]] = {field: [] for field in fields}

    @classmethod
    def in_memory(cls, sim: "Simulator", fields: Mapping[str, int]) -> "Recorder":
        return cls(sim, fields, None)

    @classmethod
    def to_file(cls, sim: "Simulator", path: str | Path, fields: Mapping[str, int], overwrite: bool) -> "Recorder":
        recorder = cls(sim, fields, None)  # checks the names before a file is made
        recorder._writer = _Writer(Path(path), describe(sim), overwrite)
        return recorder

    @property
    def bytes_per_tick(self) -> float:
        sizes = known_fields(self._sim)
        return sum(sizes[field] / period for field, period in self.fields.items())

    def begin(self, phases: Sequence[Phase], units: int) -> None:
        """Note the protocol of a run of ``units`` trials of these phases, or ticks if there are none."""
        if self._writer is not None:
            self._writer.protocol(phases, units)

    def take(self, field: str, ticks: np.ndarray, values: Any, before: int | None) -> None:
        """Keep those samples (time first, after the axis of points) that are due, up to tick ``before``."""
        sim, period = self._sim, self.fields[field]
        due = (ticks + 1) % period == 0
        if before is not None:
            due &= ticks < before
        owner = field.rpartition(".")[0]
        array = sim._layouts[owner].unpack(values) if owner in sim._layouts else values
        array = np.asarray(array)
        if sim.points is not None:
            array = np.moveaxis(array, 0, 1)
        array, ticks = array[due], ticks[due]
        if self._writer is None:
            self._kept[field].append(array)
        elif len(ticks):
            self._writer.put(field, period, ticks, array, axes_of(sim, field), coordinates_of(sim, field))

    def arrays(self) -> dict[str, np.ndarray]:
        return {field: np.concatenate(parts) for field, parts in self._kept.items() if parts}

    def __enter__(self) -> "Recorder":
        self._sim._recorders.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sim._recorders.remove(self)
        if self._writer is not None:
            self._writer.close()


def known_fields(sim: "Simulator") -> dict[str, int]:
    """Every name that can be recorded, with its size in bytes."""
    sizes = {
        f"{name}.{field}": value.nbytes for name, fields in sim.state.neurons.items() for field, value in fields.items()
    }
    for name, synapses in sim.state.synapses.items():
        weights = sum(block.nbytes for block in synapses.w)
        sizes |= {f"{name}.{field}": weights for field in sim._fields_of(name)}
    return sizes


def axes_of(sim: "Simulator", field: str) -> list[tuple[str, int]]:
    """Names and lengths of a field's axes after time."""
    owner, _, name = field.rpartition(".")
    axes = [("point", len(sim.points))] if sim.points is not None else []
    batch = [("batch", sim.batch)] if sim.batch is not None else []
    if owner not in sim._layouts:
        return [*axes, *batch, ("neuron", sim.network.circuit.populations[owner].size)]
    layout = sim._layouts[owner]
    rule = sim._rules.get(owner)
    if name != "w" and rule is not None and rule.sharing == "each":
        axes += batch
    if layout.dense:
        return [*axes, ("post", layout.n_post), ("pre", layout.n_pre)]
    return [*axes, ("synapse", len(layout.synapses[0]))]


def coordinates_of(sim: "Simulator", field: str) -> dict[str, np.ndarray]:
    """For a sparse projection the post and pre neuron of every synapse."""
    owner = field.rpartition(".")[0]
    if owner not in sim._layouts or sim._layouts[owner].dense:
        return {}
    return dict(zip(("post", "pre"), sim.synapses(owner), strict=True))


def describe(sim: "Simulator") -> dict[str, Any]:
    """What made a recording: network, rules with their locality, seed, versions, command line."""
    circuit = sim.network.circuit
    populations = {
        name: {"neuron": _module(p.neuron), "shape": list(p.shape)} for name, p in circuit.populations.items()
    }
    projections = {}
    for name, p in circuit.projections.items():
        entry = {
            "pre": p.pre,
            "post": p.post,
            "topology": type(p.topology).__name__,
            "synapses": None if sim._layouts[name].dense else len(sim.synapses(name)[0]),
            "delay": p.delay,
            "port": p.port,
            "field": p.field,
            "phases": sorted(p.phases) if p.phases is not None else None,
            "rule": _module(p.rule) if p.rule is not None else None,
        }
        if isinstance(p.rule, LocalRule):
            entry["locality"] = locality(p.rule).level
        projections[name] = entry
    return {
        "engrax_format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "network": json.dumps({"populations": populations, "projections": projections, "signals": circuit.signals}),
        "seed": sim.seed,
        "dt": sim.dt,
        "points": json.dumps(sim.points, default=float) if sim.points is not None else "null",
        "versions": json.dumps(_versions()),
        "command_line": " ".join(sys.argv),
        "git_commit": _commit(),
    }


def _module(module: Any) -> dict[str, Any]:
    """Class and parameters of a neuron or rule; functions by name."""
    out: dict[str, Any] = {"class": type(module).__name__}
    for field in dataclasses.fields(module):
        name, value = field.name, getattr(module, field.name)
        if isinstance(value, eqx.Module):
            out[name] = _module(value)
        elif isinstance(value, (np.ndarray, jax.Array)):
            out[name] = np.asarray(value).tolist()
        elif isinstance(value, str | int | float | bool) or value is None:
            out[name] = value
        else:
            out[name] = getattr(value, "__qualname__", repr(value))
    return out


def _versions() -> dict[str, str]:
    names = ("engrax", "jax", "numpy", "h5py", "networkx")
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in names}}


def _commit() -> str:
    """The git commit of the user's working directory, where it is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class _Writer:
    """Appends to one file from a thread of its own, while the next chunk computes. At most a few chunks wait."""

    def __init__(self, path: Path, attributes: Mapping[str, Any], overwrite: bool) -> None:
        self.path = path
        if path.exists() and not overwrite:
            raise RecordingError(f"{path} exists already: choose another name, or pass overwrite=True to replace it")
        try:
            self._file = h5py.File(path, "w")
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error}") from error
        self._file.attrs.update(attributes)
        self._protocols: list[Any] = []
        self._failed: Exception | None = None
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._work, name=f"engrax writer of {path}", daemon=True)
        self._thread.start()

    def protocol(self, phases: Sequence[Phase], units: int) -> None:
        described: list[dict[str, Any]] = [
            {
                "name": p.name,
                "ticks": p.ticks,
                "plastic": p.plastic,
                "hold": p.hold,
                "reset": p.reset if isinstance(p.reset, bool) else sorted(p.reset),
                "signals": dict(p.signals),
            }
            for p in phases
        ]
        self._put(("protocol", {"phases": described, "trials" if phases else "ticks": units}))

    def put(
        self,
        field: str,
        period: int,
        ticks: np.ndarray,
        values: np.ndarray,
        axes: list[tuple[str, int]],
        coordinates: Mapping[str, np.ndarray],
    ) -> None:
        self._put(("samples", field, period, ticks, values, axes, coordinates))

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        try:
            self._file.close()
        except Exception as error:
            self._failed = self._failed or error
        self._check()

    def _put(self, item: Any) -> None:
        self._check()
        self._queue.put(item)

    def _check(self) -> None:
        if self._failed is not None:
            raise RecordingError(
                f"{self.path}: writing failed, it holds what came before: {self._failed}"
            ) from self._failed

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failed is not None:
                continue
            try:
                if item[0] == "protocol":
                    self._protocols.append(item[1])
                    self._file.attrs["protocol"] = json.dumps(self._protocols)
                else:
                    self._append(*item[1:])
                self._file.flush()
            except Exception as error:  # handed to the run at its next step
                self._failed = error

    def _append(
        self,
        field: str,
        period: int,
        ticks: np.ndarray,
        values: np.ndarray,
        axes: list[tuple[str, int]],
        coordinates: Mapping[str, np.ndarray],
    ) -> None:
        owner, _, name = field.rpartition(".")
        group = self._file.require_group(owner)
        time = "tick" if period == 1 else f"tick_{period}"
        if name not in group:
            self._create(group, name, time, period, values, axes)
            for axis, where in coordinates.items():
                if axis not in group:
                    place = group.create_dataset(axis, data=where)
                    place.dims[0].attach_scale(group["synapse"])
                    _label(place, f"{axis} neuron of each synapse")
        data, clock = group[name], group[time]
        old = len(data)
        data.resize(old + len(values), axis=0)
        data[old:] = values
        known = len(clock)
        if known < old + len(ticks):  # several fields share one clock
            clock.resize(old + len(ticks), axis=0)
            clock[old:] = ticks

    def _create(
        self, group: h5py.Group, name: str, time: str, period: int, values: np.ndarray, axes: list[tuple[str, int]]
    ) -> None:
        if time not in group:
            clock = group.create_dataset(time, (0,), "i8", maxshape=(None,), chunks=(4096,))
            clock.make_scale(time)
            _label(clock, f"tick after which the sample was taken, every {period}")
            clock.attrs["dt_seconds"] = self._file.attrs["dt"]
        for axis, length in axes:
            if axis not in group:
                scale = group.create_dataset(axis, data=np.arange(length))
                scale.make_scale(axis)
                _label(scale, f"{axis} index")
        row = max(int(values[:1].nbytes), 1)
        chunks = (max(1, min(4096, CHUNK_BYTES // row)), *values.shape[1:])
        data = group.create_dataset(
            name, (0, *values.shape[1:]), values.dtype, maxshape=(None, *values.shape[1:]), chunks=chunks
        )
        for number, axis in enumerate([time, *(axis for axis, _ in axes)]):
            data.dims[number].attach_scale(group[axis])
        _label(data, f"{group.name[1:]} {name}")


def _label(data: h5py.Dataset, long_name: str) -> None:
    data.attrs["long_name"] = long_name
    data.attrs["units"] = "1"
