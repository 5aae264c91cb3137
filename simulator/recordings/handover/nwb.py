"""A recording as a file of Neurodata Without Borders, which pynwb, neo and MatNWB read."""

import datetime
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..check import dimensions
from ..reading import Recording
from . import common
from .common import Copy

RANK = 4  # the most axes that the format gives a TimeSeries


def to_nwb(
    path: str | Path,
    out: str | Path,
    *,
    session_description: str | None = None,
    identifier: str | None = None,
    session_start_time: datetime.datetime | None = None,
    overwrite: bool = False,
) -> None:
    """Write the recording to the NWB file ``out``, streaming the samples.

    - ``units``: one row per recorded neuron and copy of the network, with ``spike_times`` (s), ``obs_intervals`` (the
      span of the recording), ``population``, ``neuron`` and, where there are several copies, ``point`` and ``batch``.
      ``block``, ``segment`` and ``_name`` are for neo's reader, which makes the segments of `to_neo` of them.
    - ``acquisition``: one `TimeSeries` (time, ...) per copy and field of a population, or signal.
    - ``processing/simulation``: one `TimeSeries` per point, projection and synaptic field that was recorded, (time,
      post, pre) if dense or (time, synapse) if sparse; of weights that were not recorded those of the last checkpoint.
      A table ``<projection> synapses`` has ``post`` and ``pre`` of each synapse of a sparse one.
    - ``general/notes``: network, seed, dt, points and versions as JSON; the versions also in ``was_generated_by``.

    The session starts at ``session_start_time``, by default when the recording was made (with its time zone).
    ``identifier`` is a new UUID by default. Raises `RecordingError` if pynwb is not installed, ``out`` exists or cannot
    be written, or the file is no recording.
    """
    pynwb = common.needs("pynwb", "to_nwb", "nwb")
    with Recording(path) as recording, common.written(out, overwrite) as place:
        told = recording.attributes
        notes = {name: told[name] for name in ("seed", "dt", "created", "command_line", "git_commit") if name in told}
        notes |= {"network": recording.network, "points": recording.points, "versions": recording.versions}
        file = pynwb.NWBFile(
            session_description=session_description or f"A simulation with engrax, recorded in {recording.path.name}.",
            identifier=identifier or str(uuid.uuid4()),
            session_start_time=session_start_time or datetime.datetime.fromisoformat(told["created"]),
            notes=json.dumps(notes),
            was_generated_by=[[name, version] for name, version in recording.versions.items()],
        )
        if recording.spike_names:
            file.units = _units(pynwb, recording)
        for name, data in common.sampled(recording).items():
            for series in _series(pynwb, recording, name, data):
                file.add_acquisition(series)
        if recording.runs and recording.network["projections"]:
            module = file.create_processing_module("simulation", "Synaptic state: weights, and what the rules keep.")
            for name, data in recording.fields.items():
                if name.rpartition(".")[0] in recording.network["projections"]:
                    for series in _series(pynwb, recording, name, data):
                        module.add(series)
            for series in _last_weights(pynwb, recording):
                module.add(series)
            for name, projection in recording.network["projections"].items():
                if projection["synapses"] is not None:
                    module.add(_synapses(recording, name))
        with pynwb.NWBHDF5IO(place, "w") as io:
            io.write(file)


def _units(pynwb: Any, recording: Recording) -> Any:
    """The table of neurons, column by column."""
    start, stop = (tick * recording.dt for tick in common.span(recording))
    times, ends, rows = [np.zeros(0)], [np.zeros(1, int)], []
    for population, (spikes, neurons) in common.events(recording).items():
        for copy in common.copies(recording):
            ticks, end = common.by_neuron(*common.within(spikes, copy), neurons)
            times.append(ticks * recording.dt)
            ends.append(end + ends[-1][-1])
            rows += [
                {"population": population, "neuron": i, "model": common.neuron_model(recording, population), **copy,
                 "block": recording.path.stem, "segment": common.title(copy), "_name": f"{population}/{i}"}
                for i in neurons.tolist()
            ]  # fmt: skip
    said = {
        "population": "name of the population", "neuron": "index in its population", "model": "class of the neuron",
        "point": "point of the sweep", "batch": "element of the batch", "block": "neo: name of the Block",
        "segment": "neo: name of the Segment", "_name": "neo: name of the SpikeTrain",
    }  # fmt: skip
    hdmf = common.needs("hdmf.common", "to_nwb", "nwb")
    spike_times = hdmf.VectorData(
        name="spike_times", description="start of the tick of each spike, s", data=np.concatenate(times)
    )
    intervals = hdmf.VectorData(
        name="obs_intervals", description="the recording's span, s", data=np.tile([start, stop], (len(rows), 1))
    )
    columns = [
        spike_times,
        hdmf.VectorIndex(name="spike_times_index", data=np.concatenate(ends[1:]), target=spike_times),
        intervals,
        hdmf.VectorIndex(name="obs_intervals_index", data=np.arange(1, len(rows) + 1), target=intervals),
        *(
            hdmf.VectorData(name=name, description=described, data=[row[name] for row in rows])
            for name, described in said.items()
            if name in rows[0]
        ),
    ]
    return pynwb.misc.Units(
        name="units",
        description="The neurons whose spikes were recorded; spikes are outputs other than 0.",
        id=list(range(len(rows))),
        columns=columns,
        resolution=recording.dt,
    )


def _series(pynwb: Any, recording: Recording, name: str, data: h5py.Dataset) -> Iterator[Any]:
    """One TimeSeries for every copy that ``data`` tells apart."""
    ticks = recording.ticks(name)
    if not len(ticks):
        return
    every = common.period(recording, name)
    time = (
        {"timestamps": ticks * recording.dt}
        if every is None
        else {"starting_time": float(ticks[0] * recording.dt), "rate": 1 / (every * recording.dt)}
    )
    own = dimensions(data)[1:]
    there = [{axis: i for axis, i in copy.items() if axis in own} for copy in common.copies(recording)]
    for copy in {common.title(copy): copy for copy in there}.values():
        inner = {axis: at for axis, at in common.axes(recording, data).items() if axis not in copy}
        described = f"{data.attrs['long_name']}: (time{''.join(f', {axis}' for axis in inner)})"
        for axis, at in inner.items():
            if not np.array_equal(at, np.arange(len(at))):
                described += f"; {axis}: {', '.join(map(str, at.tolist()))}"
        unit = str(data.attrs["units"])
        yield pynwb.TimeSeries(
            name=_plain(f"{name} {common.title(copy)}" if copy else name),
            data=_rows(recording, data, copy),
            unit="dimensionless" if unit == "1" else unit,
            description=described,
            comments=json.dumps({"block": recording.path.stem, "segment": common.title(copy)}),  # where neo puts it
            continuity="step",
            **time,
        )


def _last_weights(pynwb: Any, recording: Recording) -> Iterator[Any]:
    """The weights of the last checkpoint, where none were recorded."""
    about, state = recording.state()
    for name, projection in recording.network["projections"].items():
        if f"{name}.w" in recording.fields:
            continue
        axes = "post, pre" if projection["synapses"] is None else "synapse"
        for point in range(len(recording.points)) if recording.points is not None else [None]:
            yield pynwb.TimeSeries(
                name=_plain(f"{name}.w" if point is None else f"{name}.w point {point}"),
                data=state[f"{name}.w"][None] if point is None else state[f"{name}.w"][point][None],
                unit="dimensionless",
                description=f"{name} w at the last checkpoint: (time, {axes})",
                timestamps=[max(about["tick"] - 1, 0) * recording.dt],
                continuity="step",
            )


def _rows(recording: Recording, data: h5py.Dataset, copy: Copy) -> Any:
    """The samples of one copy, read and written in blocks."""
    iterator = common.needs("hdmf.data_utils", "to_nwb", "nwb").DataChunkIterator
    shape = common.part(recording, data, copy, slice(0, 1)).shape[1:]
    shape = shape if len(shape) < RANK else (int(np.prod(shape)),)
    steps = common.blocks(data)
    rows = (row for rows in steps for row in common.part(recording, data, copy, rows).reshape(-1, *shape))
    return iterator(data=rows, maxshape=(len(data), *shape), dtype=data.dtype, buffer_size=steps[0].stop)


def _synapses(recording: Recording, projection: str) -> Any:
    hdmf = common.needs("hdmf.common", "to_nwb", "nwb")
    post, pre = recording.synapses(projection)
    entry = recording.network["projections"][projection]
    return hdmf.DynamicTable(
        name=_plain(f"{projection} synapses"),
        description=f"Who is joined by each synapse of {projection}; delay: {entry['delay']} ticks.",
        columns=[
            hdmf.VectorData(name="post", description=f"neuron of {entry['post']}", data=post),
            hdmf.VectorData(name="pre", description=f"neuron of {entry['pre']}", data=pre),
        ],
        id=list(range(len(post))),
    )


def _plain(name: str) -> str:
    """A name without the letters that the format keeps to itself."""
    return name.replace("/", "_").replace(":", "_")
