"""A recording as a neo block, which elephant and the other tools of the NeuralEnsemble read."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..reading import Recording
from . import common


def to_neo(path: str | Path) -> Any:
    """The recording as a `neo.Block`, all of it in memory: one segment per copy of the network.

    Every neuron of a recorded population has a `SpikeTrain` (s), silent ones included, named ``cortex/3`` and annotated
    with ``population`` and ``neuron``. Fields of populations and signals are an `AnalogSignal` (time, channels) each,
    or an `IrregularlySampledSignal` where the ticks are not evenly spaced, with ``population``, ``field`` and the
    neuron of each channel. Weights are no signals: see `to_nwb` and `to_networkx` for them.

    Raises `RecordingError` if neo is not installed or the file is no recording.
    """
    neo = common.needs("neo", "to_neo", "neo")
    with Recording(path) as recording:
        block = neo.Block(
            name=recording.path.stem,
            file_origin=str(path),
            seed=recording.seed,
            dt=recording.dt,
            created=recording.attributes["created"],
            network=recording.attributes["network"],
        )
        fired, (start, stop) = common.events(recording), common.span(recording)
        during = {"units": "s", "t_start": start * recording.dt, "t_stop": stop * recording.dt}
        for copy in common.copies(recording):
            segment = neo.Segment(name=common.title(copy), **copy, **_values(recording, copy))
            for population, (spikes, neurons) in fired.items():
                model = common.neuron_model(recording, population)
                times, ends = common.by_neuron(*common.within(spikes, copy), neurons)
                for neuron, ticks in zip(neurons.tolist(), np.split(times, ends[:-1]), strict=True):
                    told = {"population": population, "neuron": neuron, "model": model}
                    name = f"{population}/{neuron}"
                    segment.spiketrains.append(neo.SpikeTrain(ticks * recording.dt, name=name, **during, **told))
            for name, data in common.sampled(recording).items():
                if len(data):
                    signal = _signal(neo, recording, name, data, copy)
                    even = isinstance(signal, neo.AnalogSignal)
                    (segment.analogsignals if even else segment.irregularlysampledsignals).append(signal)
            block.segments.append(segment)
        block.check_relationships()
        return block


def _signal(neo: Any, recording: Recording, name: str, data: h5py.Dataset, copy: common.Copy) -> Any:
    pq = common.needs("quantities", "to_neo", "neo")
    population, _, field = name.rpartition(".")
    told = {"name": name, "description": data.attrs["long_name"], "population": population, "field": field}
    told["units"] = pq.dimensionless if data.attrs["units"] == "1" else data.attrs["units"]
    ticks = recording.ticks(name)
    values = common.part(recording, data, copy).reshape(len(ticks), -1)
    neurons = common.axes(recording, data).get("neuron")
    if neurons is not None:
        told["array_annotations"] = {"neuron": neurons}
    every = common.period(recording, name)
    if every is None:
        return neo.IrregularlySampledSignal(ticks * recording.dt, values, time_units="s", **told)
    start, step = (n * recording.dt * pq.s for n in (ticks[0], every))
    return neo.AnalogSignal(values, t_start=start, sampling_period=step, **told)


def _values(recording: Recording, copy: common.Copy) -> dict[str, Any]:
    """The parameters of a sweep's point, as annotations."""
    if recording.points is None:
        return {}
    return {name: value for name, value in recording.points[copy["point"]].items() if name not in copy}
