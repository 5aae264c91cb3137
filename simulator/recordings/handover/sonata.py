"""A recording as a SONATA circuit and simulation, which libsonata, SNAP, BMTK and BlueBrain's tools read."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import RecordingError
from ..reading import Recording
from . import common
from .common import Copy

VERSION = 2.4  # of the configuration files
MAGIC, FILE_VERSION = 0x0A7A, (0, 1)  # of the circuit files
SORTING = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, "u1")


def to_sonata(path: str | Path, folder: str | Path, *, point: int = 0, batch: int = 0) -> None:
    """Write one copy of the network and what it did to a new ``folder``, in the SONATA format.

    ``circuit_config.json`` and ``network/``: one node population per population (`Input` ones are ``virtual``), one
    edge population per projection (``retina->cortex`` becomes ``retina__cortex``; its own name is in the edge types),
    with ``syn_weight`` from the last checkpoint and ``delay`` (ms), indexed both ways.
    ``simulation_config.json`` with ``spikes.h5`` (times in ms) and a node report ``<population>.<field>_report.h5``
    per recorded field of the neurons (32 bits, as the format has it). Fields sampled at uneven ticks, reduced fields,
    signals and the weights' course have no place in SONATA and stay behind: see `to_nwb` and `export`.

    Raises `RecordingError` if there is no checkpoint or no such copy, or ``folder`` holds files already.
    """
    folder = Path(folder)
    with Recording(path) as recording:
        copy = common.one_copy(recording, point=point, batch=batch)
        _, state = recording.state()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RecordingError(f"{folder} exists already: give to_sonata the name of a new or an empty folder")
        try:
            (folder / "network").mkdir(parents=True, exist_ok=True)
            nodes, edges = [], []
            for i, (name, safe) in enumerate(_safe(recording.network["populations"]).items()):
                nodes.append(_nodes(recording, folder, i, name, safe))
            for i, (name, safe) in enumerate(_safe(recording.network["projections"]).items()):
                w = state[f"{name}.w"][copy["point"]] if "point" in copy else state[f"{name}.w"]
                edges.append(_edges(recording, folder, i, name, safe, w.ravel()))
            _spikes(recording, folder, copy)
            reports = _reports(recording, folder, copy)
        except OSError as error:
            raise RecordingError(f"{folder} cannot be written: {error.strerror or error}") from error
        ms = recording.dt * 1e3
        start, stop = common.span(recording)
        configuration = {"version": VERSION, "manifest": {"$BASE_DIR": "."}}
        _json(
            folder / "circuit_config.json",
            {
                **configuration,
                "node_sets_file": "$BASE_DIR/node_sets.json",
                "networks": {"nodes": nodes, "edges": edges},
            },
        )
        _json(folder / "node_sets.json", {name: {"population": name} for name in recording.network["populations"]})
        _json(
            folder / "simulation_config.json",
            {
                **configuration,
                "network": "$BASE_DIR/circuit_config.json",
                "node_sets_file": "$BASE_DIR/node_sets.json",
                "run": {"tstart": start * ms, "tstop": stop * ms, "dt": ms, "random_seed": recording.seed},
                "output": {"output_dir": "$BASE_DIR", "spikes_file": "spikes.h5", "spikes_sort_order": "by_time"},
                "reports": reports,
            },
        )


def _nodes(recording: Recording, folder: Path, kind: int, name: str, safe: str) -> dict[str, Any]:
    model = common.neuron_model(recording, name)
    role = "virtual" if model == "Input" else "point_neuron"
    stem = folder / "network" / f"{safe}_nodes"
    n = common.size(recording, name)
    with _circuit_file(stem) as file:
        group = file.create_group(f"nodes/{name}")
        group["node_type_id"] = np.full(n, kind, np.int64)
        group["node_id"] = np.arange(n, dtype=np.uint64)
        group["node_group_id"] = np.zeros(n, np.uint32)
        group["node_group_index"] = np.arange(n, dtype=np.uint32)
        group["0/model_type"] = [role] * n
        group["0/model_template"] = [f"engrax:{model}"] * n
    row = {"node_type_id": kind, "pop_name": name, "model_type": role, "model_template": f"engrax:{model}"}
    return {**_types(stem, "node", row), "populations": {name: {"type": role}}}


def _edges(recording: Recording, folder: Path, kind: int, name: str, safe: str, weights: np.ndarray) -> dict[str, Any]:
    entry = recording.network["projections"][name]
    post, pre = (ids.astype(np.uint64) for ids in recording.synapses(name))
    stem = folder / "network" / f"{safe}_edges"
    with _circuit_file(stem) as file:
        group = file.create_group(f"edges/{safe}")
        for end, ids, population in (("source", pre, entry["pre"]), ("target", post, entry["post"])):
            group[f"{end}_node_id"] = ids
            group[f"{end}_node_id"].attrs["node_population"] = population
        group["edge_type_id"] = np.full(len(post), kind, np.int64)
        group["edge_group_id"] = np.zeros(len(post), np.uint32)
        group["edge_group_index"] = np.arange(len(post), dtype=np.uint64)
        group["0/syn_weight"] = weights
        group["0/delay"] = np.full(len(post), entry["delay"] * (recording.dt * 1e3), np.float32)
        _index(group.create_group("indices/source_to_target"), pre, common.size(recording, entry["pre"]))
        _index(group.create_group("indices/target_to_source"), post, common.size(recording, entry["post"]))
    rule = entry["rule"]["class"] if entry["rule"] else "none"
    row = {"edge_type_id": kind, "projection": name, "port": entry["port"], "rule": rule}
    return {**_types(stem, "edge", row), "populations": {safe: {"type": "chemical"}}}


def _index(group: h5py.Group, nodes: np.ndarray, count: int) -> None:
    """The edges of each node, as ranges of ranges."""
    edges = np.argsort(nodes, kind="stable")
    of = nodes[edges]
    first = np.flatnonzero(np.r_[True, (of[1:] != of[:-1]) | (np.diff(edges) != 1)])
    last = np.r_[first[1:], len(edges)] - 1
    group["range_to_edge_id"] = np.stack([edges[first], edges[last] + 1], 1).astype(np.uint64)
    bounds = np.searchsorted(of[first], np.arange(count + 1))
    group["node_id_to_ranges"] = np.stack([bounds[:-1], bounds[1:]], 1).astype(np.uint64)
    group["node_id_to_range"] = group["node_id_to_ranges"]  # the same, as BMTK calls it


def _spikes(recording: Recording, folder: Path, copy: Copy) -> None:
    with h5py.File(folder / "spikes.h5", "w") as file:
        spikes = file.create_group("spikes")
        for population, (fired, _) in common.events(recording).items():
            times, ids = common.within(fired, copy)
            group = spikes.create_group(population)
            group.attrs.create("sorting", 2, dtype=SORTING)
            group["timestamps"] = times * (recording.dt * 1e3)
            group["timestamps"].attrs["units"] = "ms"
            group["node_ids"] = ids.astype(np.uint64)


def _reports(recording: Recording, folder: Path, copy: Copy) -> dict[str, Any]:
    """Every report's entry in the configuration."""
    reports = {}
    for name, data in common.sampled(recording).items():
        population, _, field = name.rpartition(".")
        ticks, there = recording.ticks(name), common.axes(recording, data)
        every = common.period(recording, name)
        if not len(ticks) or every is None or [axis for axis in there if axis not in copy] != ["neuron"]:
            continue
        neurons = there["neuron"]
        ms = recording.dt * 1e3
        start, stop, step = ticks[0] * ms, (ticks[0] + every * len(ticks)) * ms, every * ms
        with h5py.File(folder / f"{name}_report.h5", "w") as file:
            group = file.create_group(f"report/{population}")
            values = group.create_dataset("data", (len(ticks), len(neurons)), np.float32)
            values.attrs["units"] = str(data.attrs["units"])
            for rows in common.blocks(data):
                values[rows] = common.part(recording, data, copy, rows)
            mapping = group.create_group("mapping")
            mapping["node_ids"] = neurons.astype(np.uint64)
            mapping["node_ids"].attrs["sorted"] = np.uint8(1)
            mapping["index_pointers"] = np.arange(len(neurons) + 1, dtype=np.uint64)
            mapping["index_pointer"] = mapping["index_pointers"]  # the same, as BMTK calls it
            mapping["element_ids"] = np.zeros(len(neurons), np.uint32)
            mapping["element_pos"] = np.full(len(neurons), 0.5)
            mapping["time"] = np.array([start, stop, step])
            mapping["time"].attrs["units"] = "ms"
        reports[f"{name}_report"] = {
            "cells": population, "variable_name": field, "sections": "soma", "type": "compartment",
            "unit": str(data.attrs["units"]), "file_name": f"{name}_report.h5",
            "dt": step, "start_time": start, "end_time": stop,
        }  # fmt: skip
    return reports


def _circuit_file(stem: Path) -> h5py.File:
    file = h5py.File(f"{stem}.h5", "w")
    file.attrs.create("magic", MAGIC, dtype=np.uint32)
    file.attrs.create("version", FILE_VERSION, dtype=np.uint32)
    return file


def _types(stem: Path, kind: str, row: Mapping[str, Any]) -> dict[str, str | None]:
    """Write the table of types, of one row, and say where nodes or edges are. The configuration does not name the
    table: libsonata refuses any, and what is in it is in the HDF5 file too."""
    table = stem.with_name(f"{stem.name.removesuffix('s')}_types.csv")
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=" ").writerows([row, row.values()])
    return {f"{kind}s_file": f"$BASE_DIR/{stem.parent.name}/{stem.name}.h5", f"{kind}_types_file": None}


def _safe(names: Iterable[str]) -> dict[str, str]:
    """For every name one that is good in every file system, and no other's."""
    safe: dict[str, str] = {}
    for name in names:
        wanted = plain = re.sub(r"\W+", "_", name.replace("->", "__")).strip("_") or "unnamed"
        while wanted in safe.values():
            wanted = f"{plain}_{len(safe)}"
        safe[name] = wanted
    return safe


def _json(path: Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
