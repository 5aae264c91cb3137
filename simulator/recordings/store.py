"""The layout of a recording, and all that is ever written to one.

One group per population and projection (and ``signals``); every axis of every dataset has a dimension scale attached,
so that h5py, xarray, netCDF and MATLAB find the names. Samples taken every n ticks lie along ``tick`` (n = 1) or
``tick_n``, samples of given ticks along ``tick_<name>``; the scale's values are the ticks after which they were taken.
Events are flat: ``times`` and ``ids`` along ``spike``. ``provenance/log`` is a list of JSON lines, one per event of the
recording's life; arrays that it names lie in ``provenance/data``. ``checkpoints`` holds two states of the network by
turns, each with a digest: one of them is whole whatever happens.

Groups and datasets are made once, in `Store.prepare`; after that the file only grows, and each `Store.commit` is safe
(see ordered.py).
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .ordered import open_ordered
from .reading import contents, digest

CHUNK_BYTES = 2**19  # of samples that lie together on disk
META_BYTES = 4096
DIMENSION = "This is a netCDF dimension but not a netCDF variable. %10d"  # netCDF's own mark


@dataclass(frozen=True)
class Column:
    """One dataset of samples, or for ``events`` one group: its place, its clock and its axes after time."""

    owner: str
    label: str
    clock: str
    axes: tuple[tuple[str, np.ndarray], ...]  # name and coordinates
    dtype: np.dtype[Any]
    described: str
    events: bool = False

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.label}"


class Store:
    """A recording being written. Every method may raise what h5py and the system raise."""

    def __init__(
        self,
        path: Path,
        mode: str,
        compression: str | int | None = None,
        chunk: int | None = None,
        held: Iterable[dict[str, Any]] = (),
        turn: int = 0,
    ) -> None:
        self.path = path
        if mode == "x" and path.exists():
            raise FileExistsError(path)
        # A new file gets its name once it is whole: until then, one that it replaces stays.
        self._place = path if mode == "r+" else path.with_name(f".{path.name}.{os.getpid()}")
        self.file, self._raw = open_ordered(self._place, "w" if mode == "x" else mode)
        self._compression, self._chunk = compression, chunk
        self._waiting: dict[str, list[np.ndarray]] = {}  # compressed: rows short of a chunk
        self._kept = {array["digest"]: array for array in held}  # digest -> where the array lies
        self._turn = turn

    def begin(
        self,
        attributes: Mapping[str, Any],
        synapses: Mapping[str, tuple[np.ndarray, np.ndarray]],
        event: Mapping[str, Any],
    ) -> None:
        """A new file: what made it (tables and lists as JSON), who is joined by each synapse where few are, and the
        first line of the log."""
        provenance = self.file.create_group("provenance")
        for name in ("data", "log"):  # the data that a line of the log names must be there before it
            _dimension(provenance, f"{name}_byte", 0)
            self._growing(provenance, name, (f"{name}_byte",), (), np.dtype("u1"), 2**16)
        for name, value in attributes.items():
            self.file.attrs[name] = value if isinstance(value, str | int | float) else self._json(value, 2**62)
        for projection, ends in synapses.items():
            group = self.file.create_group(projection)
            _dimension(group, "synapse", len(ends[0]))
            for axis, neurons in zip(("post", "pre"), ends, strict=True):
                place = group.create_dataset(axis, data=np.asarray(neurons, np.int32))
                place.dims[0].attach_scale(group["synapse"])
                _label(place, f"{axis} neuron of each synapse")
        self.log(event, 0)
        self.commit()
        os.replace(self._place, self.path)
        self._place = self.path

    def prepare(self, columns: list[Column], state: Mapping[str, np.ndarray] | None) -> None:
        """Make the datasets, and room for two checkpoints of a state such as this."""
        dt = self.file.attrs["dt"]
        for column in columns:
            group = self.file.require_group(column.owner)
            if column.events:
                self._prepare_events(group.create_group(column.label), column, dt)
                continue
            if column.clock not in group:
                clock = self._growing(group, column.clock, (), (), np.dtype("i8"), 4096)
                clock.make_scale(column.clock)
                _label(clock, "tick after which the sample was taken")
                clock.attrs["dt_seconds"] = dt
            for axis, coordinates in column.axes:
                if axis not in group:
                    scale = group.create_dataset(axis, data=coordinates)
                    scale.make_scale(axis)
                    _label(scale, f"{axis.partition('_')[0]} index" if coordinates.dtype.kind == "i" else axis)
            names = (column.clock, *(axis for axis, _ in column.axes))
            shape = tuple(len(coordinates) for _, coordinates in column.axes)
            row = max(int(np.prod(shape)) * column.dtype.itemsize, 1)
            rows = self._chunk or min(4096, 2 ** max(0, (CHUNK_BYTES // row).bit_length() - 1))
            data = self._growing(group, column.label, names, shape, column.dtype, rows, self._compression)
            _label(data, column.described)
        if state is not None:
            self._prepare_checkpoints(state)
        self.commit()

    def append(self, column: Column, ticks: np.ndarray, values: np.ndarray) -> None:
        group = self.file[column.owner]
        data, clock = group[column.label], group[column.clock]
        if self._compression is not None:  # chunks that are written twice would waste their first place
            self._waiting.setdefault(column.name, []).append(values)
            rows = sum(len(part) for part in self._waiting[column.name])
            self._extend_clock(clock, ticks)
            if (rows + len(data)) // data.chunks[0] > len(data) // data.chunks[0]:
                ready = (rows + len(data)) // data.chunks[0] * data.chunks[0] - len(data)
                joined = np.concatenate(self._waiting[column.name])
                self._waiting[column.name] = [joined[ready:]]
                _extend(data, joined[:ready])
            return
        self._extend_clock(clock, ticks)
        _extend(data, values)

    def append_events(self, column: Column, columns: Mapping[str, np.ndarray]) -> None:
        group = self.file[column.owner][column.label]
        for name in group:
            if name != "spike":
                _extend(group[name], columns[name])
        group["spike"].resize(len(group["times"]), axis=0)

    def log(self, event: Mapping[str, Any], largest: int) -> None:
        """Add a line; arrays in it of up to ``largest`` bytes are kept, of others the digest is."""
        line = self._json(event, largest) + "\n"
        _extend(self.file["provenance/log"], np.frombuffer(line.encode(), np.uint8))

    def keep(self, array: np.ndarray, largest: int) -> Any:
        """Where ``array`` lies in ``provenance/data``; plain numbers stay what they are."""
        if array.ndim == 0:
            return array.item()
        array = np.ascontiguousarray(array)
        described = {"shape": list(array.shape), "dtype": array.dtype.str, "digest": digest(array)}
        if described["digest"] not in self._kept:
            if array.nbytes > largest:
                return {"array": described}
            data = self.file["provenance/data"]
            self._kept[described["digest"]] = {**described, "at": len(data)}
            _extend(data, array.reshape(-1).view(np.uint8))
        # the same bytes may be another array's: zeros of (n, 1) and of (n,)
        return {"array": {**described, "at": self._kept[described["digest"]]["at"]}}

    def checkpoint(self, meta: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
        """Everything so far, then the state: in the slot whose content is older."""
        self._settle()
        self.commit()
        flat = flattened(state)
        text = json.dumps({**meta, "digest": digest(flat), "sequence": self._turn}).encode()
        slots = self.file["checkpoints"]
        slots[f"state_{self._turn % 2}"][:] = flat
        slots[f"meta_{self._turn % 2}"][:] = np.frombuffer(text.ljust(META_BYTES), np.uint8)
        self._turn += 1
        self.commit()

    def cut(self, tick: int) -> None:
        """Drop every sample of ``tick`` and later: the run begins there again."""
        self._settle()
        fields, events = contents(self.file)
        clocks = {name: data.dims[0][0] for name, data in fields.items()}
        lengths = {name: int(np.searchsorted(clock[:], tick)) for name, clock in clocks.items()}
        for name, data in fields.items():
            data.resize(min(lengths[name], len(data)), axis=0)
        for name, clock in clocks.items():
            clock.resize(lengths[name], axis=0)
        for group in events.values():
            keep = int(np.searchsorted(group["times"][:], tick))
            for column in group.values():
                column.resize(min(keep, len(column)), axis=0)
        self.commit()

    def commit(self) -> None:
        """What was written so far is on disk, and the file is whole."""
        if self._raw.moved(self._place):
            raise FileNotFoundError("it was removed or replaced while being written")
        self.file.flush()
        self._raw.commit()

    def close(self) -> None:
        try:
            self._settle()
            self.file.close()
            self._raw.commit()
        finally:
            self._raw.close()

    def abandon(self) -> None:
        """After an error: the file stays as the last commit left it."""
        self._raw.abandon()

    def discard(self) -> None:
        """After an error before the file has its name: nothing stays."""
        self.abandon()
        self._place.unlink(missing_ok=True)

    def _json(self, value: Any, largest: int) -> str:
        return json.dumps(value, default=lambda array: self.keep(np.asarray(array), largest))

    def _settle(self) -> None:
        """Write the rows that wait for a chunk to be full."""
        for name, parts in self._waiting.items():
            owner, _, label = name.rpartition(".")
            _extend(self.file[owner][label], np.concatenate(parts) if parts else parts)
            self._waiting[name] = []

    def _prepare_events(self, group: h5py.Group, column: Column, dt: float) -> None:
        _dimension(group, "spike", 0)
        kinds = {"times": ("i8", "tick of each event"), "ids": ("i4", "neuron of each event")}
        kinds |= {axis: ("i4", f"{axis} of each event") for axis, _ in column.axes if axis != "neuron"}
        for name, (kind, described) in kinds.items():
            data = self._growing(group, name, ("spike",), (), np.dtype(kind), 2**15, self._compression)
            _label(data, described)
        group["times"].attrs["dt_seconds"] = dt

    def _prepare_checkpoints(self, state: Mapping[str, np.ndarray]) -> None:
        slots = self.file.create_group("checkpoints")
        layout = [[name, list(array.shape), array.dtype.str] for name, array in state.items()]
        slots.attrs["layout"] = json.dumps(layout)
        for kind, size in (("state", sum(array.nbytes for array in state.values())), ("meta", META_BYTES)):
            _dimension(slots, f"{kind}_byte", size)
            for slot in (0, 1):
                data = slots.create_dataset(f"{kind}_{slot}", (size,), "u1")
                data.dims[0].attach_scale(slots[f"{kind}_byte"])
                data[0] = 0  # so that its place in the file is its own from now on
                _label(data, f"checkpoint: {kind}")

    def _growing(
        self,
        group: h5py.Group,
        name: str,
        axes: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows: int,
        compression: str | int | None = None,
    ) -> h5py.Dataset:
        packed = {"compression": compression, "shuffle": True} if compression is not None else {}
        data = group.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape), fillvalue=None, **packed
        )
        for number, axis in enumerate(axes):
            data.dims[number].attach_scale(group[axis])
        return data

    def _extend_clock(self, clock: h5py.Dataset, ticks: np.ndarray) -> None:
        last = clock[-1] if len(clock) else -1
        _extend(clock, ticks[ticks > last])  # several fields share one clock


def flattened(state: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in state.values()])


def _extend(data: h5py.Dataset, rows: Any) -> None:
    """Add ``rows``; of uncompressed data whole chunks go past HDF5's own copy of them."""
    if not len(rows):
        return
    old, step = len(data), data.chunks[0]
    data.resize(old + len(rows), axis=0)
    first = min(-(-old // step) * step, old + len(rows))
    last = first
    if data.compression is None and rows.dtype == data.dtype:
        rows = np.ascontiguousarray(rows)
        while last + step <= old + len(rows):
            data.id.write_direct_chunk((last,) + (0,) * (data.ndim - 1), rows[last - old : last - old + step])
            last += step
    if first > old:
        data[old:first] = rows[: first - old]
    if last < old + len(rows):
        data[last:] = rows[last - old :]


def _dimension(group: h5py.Group, name: str, length: int) -> None:
    """An axis without coordinates."""
    scale = group.create_dataset(name, (length,), ">f4", maxshape=(None,), chunks=(4096,))
    scale.make_scale(DIMENSION % length)


def _label(data: h5py.Dataset, long_name: str) -> None:
    data.attrs["long_name"] = long_name
    data.attrs["units"] = "1"
