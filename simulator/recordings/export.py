"""A recording, or a part of it, as a table or as plain arrays."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RecordingError
from .check import dimensions
from .handover.common import axes, blocks, needs, part, size, span, written
from .reading import Recording

SUFFIXES = (".csv", ".parquet", ".npz")

Table = Iterator[dict[str, np.ndarray]]  # its columns, block by block


def export(
    path: str | Path,
    out: str | Path,
    fields: Sequence[str] | None = None,
    ticks: slice | None = None,
    neurons: Sequence[int] | slice | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write ``fields`` (all by default; names as in the recording) to ``out``, whose suffix chooses the format.

    - ``.npz``: each field as an array, time first, and its ticks as ``<field>.tick``; the coordinates of axes that do
      not count from 0 (``<field>.neuron``, ``<field>.bin``), of a sparse projection's fields also ``<field>.post`` and
      ``.pre``; spikes as ``<name>.times`` (ticks), ``<name>.ids`` and, where there are several copies of the network,
      ``.point`` and ``.batch``; ``dt`` (seconds per tick).
    - ``.csv`` and ``.parquet``: one row per sample, with the columns ``tick``, ``time_s`` (tick * dt), ``point`` and
      ``batch`` where there are any, ``neuron`` or ``post`` and ``pre``, and one column per field; or one row per spike.
      One file holds one table: fields that share their dimensions.

    ``ticks`` chooses from the ticks of the recording as a slice does, ``slice(100, 200)`` or ``slice(-50, None)``;
    ``neurons`` chooses neurons of populations by their numbers and leaves what has no axis ``neuron`` alone.

    Raises `RecordingError` for an unknown suffix or field, fields that do not fit in one table, neurons that are not
    there, an ``out`` that exists already, or a missing library (pandas for tables, and pyarrow for Parquet).
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise RecordingError(f"{out}: export writes {', '.join(SUFFIXES)}: give the file one of these suffixes")
    with Recording(path) as recording:
        known = [*recording.fields, *recording.spike_names]
        names = known if fields is None else [fields] if isinstance(fields, str) else list(fields)
        for name in names:
            if name not in known:
                raise RecordingError(f"{recording.path} holds no {name!r}; there are: {', '.join(known)}")
        if not names:
            raise RecordingError(f"{recording.path}: nothing to export; there are: {', '.join(known) or 'no fields'}")
        chosen = _Chosen(recording, ticks, neurons)
        with written(out, overwrite) as place:
            if out.suffix == ".npz":
                np.savez(place, **chosen.arrays(names))
                return
            table = chosen.events_table(names[0]) if chosen.one_table(out, names) else chosen.table(names)
            _write_csv(place, table) if out.suffix == ".csv" else _write_parquet(place, table)


class _Chosen:
    """What of a recording was asked for."""

    def __init__(self, recording: Recording, ticks: slice | None, neurons: Sequence[int] | slice | None) -> None:
        self.recording = recording
        wanted = range(*(ticks or slice(None)).indices(span(recording)[1]))
        self._range = wanted if wanted.step > 0 else wanted[::-1]
        self._neurons = neurons if neurons is None or isinstance(neurons, slice) else np.atleast_1d(neurons)

    def within(self, ticks: np.ndarray) -> np.ndarray:
        wanted = self._range
        reached = (ticks >= wanted.start) & (ticks < wanted.stop)
        return np.asarray(reached & ((ticks - wanted.start) % wanted.step == 0))

    def picked(self, name: str, there: np.ndarray) -> np.ndarray:
        """Which of the neurons ``there`` were asked for."""
        wanted = self._neurons
        if wanted is None:
            return np.ones(len(there), bool)
        if isinstance(wanted, slice):
            wanted = np.arange(size(self.recording, name.rpartition(".")[0]))[wanted]
        else:
            for missing in np.setdiff1d(wanted, there):
                raise RecordingError(
                    f"{self.recording.path}: {name} has no neuron {missing}; it has {len(there)}, "
                    f"from {there.min()} to {there.max()}"
                )
        return np.isin(there, wanted)

    def places(self, name: str) -> dict[str, np.ndarray]:
        """The axes after time, of which the neurons that were asked for are left."""
        found = axes(self.recording, self.recording.fields[name])
        return {axis: at[self.picked(name, at)] if axis == "neuron" else at for axis, at in found.items()}

    def samples(self, names: Sequence[str]) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Ticks and values of fields with one shape, in blocks. The first is empty: it has the types."""
        recording = self.recording
        shortest = min(names, key=lambda name: len(recording.fields[name]))  # of a recording that was cut off
        clock, found = recording.ticks(shortest), axes(recording, recording.fields[shortest])
        keep = self.within(clock)
        number = 1 + list(found).index("neuron") if "neuron" in found else 0
        for rows in [slice(0, 0), *blocks(recording.fields[shortest])]:
            if keep[rows].any() or rows.stop == 0:
                values = [part(recording, recording.fields[name], {}, rows)[keep[rows]] for name in names]
                if number:
                    picked = self.picked(shortest, found["neuron"])
                    values = [np.compress(picked, v, axis=number) for v in values]
                yield clock[rows][keep[rows]], values

    def events(self, name: str) -> dict[str, np.ndarray]:
        spikes = self.recording.spikes(name)
        there = np.arange(size(self.recording, name.rpartition(".")[0]))
        keep = self.within(spikes.times) & np.isin(spikes.ids, there[self.picked(name, there)])
        return {column: values[keep] for column, values in spikes.columns.items()}

    def ends(self, name: str) -> dict[str, np.ndarray]:
        """Of a field of a sparse projection, post and pre neuron of each of its synapses."""
        synapses = self.places(name).get("synapse")
        if synapses is None:
            return {}
        ends = self.recording.synapses(name.rpartition(".")[0])
        return {end: ids[synapses] for end, ids in zip(("post", "pre"), ends, strict=True)}

    def arrays(self, names: Sequence[str]) -> dict[str, Any]:
        arrays: dict[str, Any] = {"dt": np.asarray(self.recording.dt)}
        for name in names:
            if name in self.recording.spike_names:
                arrays |= {f"{name}.{column}": values for column, values in self.events(name).items()}
            else:
                ticks, values = zip(*((ticks, values) for ticks, (values,) in self.samples([name])), strict=True)
                arrays |= {name: np.concatenate(values), f"{name}.tick": np.concatenate(ticks)}
                places = {axis: at for axis, at in self.places(name).items() if (at != np.arange(len(at))).any()}
                arrays |= {f"{name}.{axis}": at for axis, at in (places | self.ends(name)).items()}
        return arrays

    def one_table(self, out: Path, names: Sequence[str]) -> bool:
        """Whether it is one of events. Raises `RecordingError` if ``names`` do not fit in one table."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            events = name in self.recording.spike_names
            key = (name,) if events else (name.rpartition(".")[0], *dimensions(self.recording.fields[name]))
            groups.setdefault(key, []).append(name)
        if len(groups) > 1:
            raise RecordingError(
                f"{out}: one {out.suffix} file holds one table, of fields that share their dimensions: choose "
                f"{' or '.join(f'fields={group}' for group in groups.values())}, or write them all to .npz"
            )
        return names[0] in self.recording.spike_names

    def events_table(self, name: str) -> Table:
        columns = self.events(name)
        times, ids = columns.pop("times"), columns.pop("ids")
        yield {"tick": times, "time_s": times * self.recording.dt, **columns, "neuron": ids}

    def table(self, names: Sequence[str]) -> Table:
        labels = {axis: (number, at) for number, (axis, at) in enumerate(self.places(names[0]).items(), 1)}
        labels |= {end: (labels["synapse"][0], ids) for end, ids in self.ends(names[0]).items()}
        for ticks, values in self.samples(names):
            shape = values[0].shape

            def spread(number: int, at: np.ndarray, shape: tuple[int, ...] = shape) -> np.ndarray:
                return np.broadcast_to(at.reshape(-1, *[1] * (len(shape) - 1 - number)), shape).ravel()

            columns = {"tick": spread(0, ticks), "time_s": spread(0, ticks * self.recording.dt)}
            columns |= {axis: spread(number, at) for axis, (number, at) in labels.items()}
            yield columns | {name: v.ravel() for name, v in zip(names, values, strict=True)}


def _write_csv(place: Path, table: Table) -> None:
    pandas = needs("pandas", "export to .csv", "export")
    with place.open("w", encoding="utf-8", newline="") as file:
        for number, columns in enumerate(table):
            pandas.DataFrame(columns).to_csv(file, index=False, header=number == 0)


def _write_parquet(place: Path, table: Table) -> None:
    arrow, parquet = (needs(module, "export to .parquet", "export") for module in ("pyarrow", "pyarrow.parquet"))
    with contextlib.ExitStack() as stack:
        writer: Any = None
        for columns in table:
            rows = arrow.table(columns)
            writer = writer or stack.enter_context(parquet.ParquetWriter(place, rows.schema))
            writer.write_table(rows)
