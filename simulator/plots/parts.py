"""What a recording holds, as pictures need it: one copy of the network, read piece by piece."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int

from ..recordings.check import dimensions
from ..recordings.reading import Recording
from .axes import COLOURS, plain

COLUMNS = 800  # bins of time: longer recordings are averaged down to about as many
SIDE = 250  # neurons that an image shows one by one, as it has hardly more pixels; more are averaged
BLOCK = 2**20  # values or events read at once
POINTS = 8  # of a sweep, whose curves are drawn together
COPIES = ("point", "batch")

Index = tuple[int, ...]


class Samples:
    """A field sampled over ticks."""

    def __init__(self, source: Recording, name: str) -> None:
        self.source, self.name = source, name
        self.owner, _, self.field = name.rpartition(".")
        self.data: h5py.Dataset = source.fields[name]
        self.ticks: Int[np.ndarray, " samples"] = source.ticks(name)
        names = dimensions(self.data)[1:]
        self.copies = {axis: n for axis, n in zip(names, self.data.shape[1:], strict=True) if axis in COPIES}
        # Of some neurons only, the axis is called after the field, such as neuron_x.
        self.axes = tuple(axis.removesuffix(f"_{self.field}") for axis in names if axis not in COPIES)
        self.first: Index = (0,) * len(self.copies)
        unit = str(self.data.attrs.get("units", ""))
        self.unit = "dimensionless" if unit in ("", "1") else unit

    def __len__(self) -> int:
        return len(self.ticks)

    def read(self, where: Any, copy: tuple[Any, ...] | None = None) -> Float[np.ndarray, "..."]:
        """Samples ``where`` of a copy, by default the first."""
        return np.asarray(self.data[(where, *(self.first if copy is None else copy))], float)

    @property
    def form(self) -> str:
        forms = {(): "scalar", ("neuron",): "population", ("post", "pre"): "dense", ("synapse",): "sparse"}
        return forms.get(self.axes, "vector")

    @property
    def usual(self) -> str:
        """The kind of picture that suits it."""
        if self.form in ("dense", "sparse"):
            return "fields" if len(self.grid) == 2 else "weights"
        return "curve" if self.form == "scalar" else "activity"

    def label(self, text: str = "{}") -> str:
        return plain(f"{text.format(self.field)} ({self.unit})".replace("\n ", "\n"))

    def points(self) -> list[tuple[Index, str]]:
        """The copies that are the first points of a sweep, with their parameters; without a sweep the one copy."""
        if "point" not in self.copies:
            return [(self.first, "")]
        return [((k, *self.first[1:]), point(self.source, k)) for k in range(min(self.copies["point"], POINTS))]

    def coordinates(self, axis: int) -> np.ndarray:
        """Along an axis after time and copies: neurons, or the centres of bins."""
        return np.asarray(self.data.dims[1 + len(self.copies) + axis][0][:])

    def binned(self, copy: Index | None = None) -> tuple[Any, Float[np.ndarray, "bins n"], int]:
        """The ticks at which bins begin (and the last ends), means of the samples in them, how many these are."""
        size = math.ceil(len(self) / COLUMNS)
        step = max(1, BLOCK // self.read(0, copy).size)

        def mean(start: int, stop: int) -> Any:
            blocks = (self.read(slice(k, min(k + step, stop)), copy) for k in range(start, stop, step))
            return np.ravel(sum(block.sum(0) for block in blocks) / (stop - start))

        values = np.stack([mean(k, min(k + size, len(self))) for k in range(0, len(self), size)])
        period = np.median(np.diff(self.ticks)) if len(self) > 1 else 1
        return np.append(self.ticks[::size], self.ticks[-1] + period), values, size

    # Of a projection

    @property
    def grid(self) -> Index:
        """The shape of the pre population."""
        return self._shape("pre")

    @cached_property
    def post(self) -> Int[np.ndarray, " post"]:
        """The post neurons, row by row."""
        if self.form == "dense":
            return self.coordinates(0)
        return np.unique(self._ends[0]) if self._some else np.arange(math.prod(self._shape("post")))

    @property
    def size(self) -> tuple[int, int]:
        """How many post and pre neurons there are."""
        return len(self.post), math.prod(self.grid)

    @cached_property
    def synapses(self) -> tuple[Int[np.ndarray, " synapses"], Int[np.ndarray, " synapses"]]:
        """Row and column of every synapse of a sparse projection."""
        return np.searchsorted(self.post, self._ends[0]), self._ends[1]

    def matrix(self, w: Float[np.ndarray, "..."], step: int = 1) -> Float[np.ndarray, "post pre"]:
        """Weights as a matrix, NaN where there is no synapse; in means over ``step`` x ``step`` neurons."""
        if self.form == "dense":
            return coarse(coarse(w, 0, step), 1, step)
        post, pre = self.synapses
        rows, columns = (math.ceil(n / step) for n in self.size)
        place = post // step * columns + pre // step
        counts, sums = np.bincount(place, None, rows * columns), np.bincount(place, w, rows * columns)
        return np.where(counts, sums / np.maximum(counts, 1), np.nan).reshape(rows, columns)

    def rows(self, k: int, most: int) -> Float[np.ndarray, "post pre"]:
        """The weights of sample ``k`` onto the first ``most`` post neurons, NaN where there is no synapse."""
        if self.form == "dense":
            return self.read(k, (*self.first, slice(0, most)))
        post, pre = self.synapses
        rows = np.full((min(most, self.size[0]), self.size[1]), np.nan)
        chosen = post < most
        rows[post[chosen], pre[chosen]] = self.read(k)[chosen]
        return rows

    def norms(self, w: Float[np.ndarray, "..."]) -> Float[np.ndarray, " post"]:
        """The Euclidean norm of the weights onto each post neuron."""
        if self.form == "dense":
            return np.asarray(np.linalg.norm(w, axis=1))
        return np.asarray(np.sqrt(np.bincount(self.synapses[0], w**2, len(self.post))))

    @cached_property
    def _ends(self) -> tuple[Int[np.ndarray, " synapses"], Int[np.ndarray, " synapses"]]:
        """Post and pre neuron of every synapse of a sparse projection."""
        post, pre = self.source.synapses(self.owner)
        chosen = self.coordinates(0) if self._some else slice(None)
        return post[chosen], pre[chosen]

    @property
    def _some(self) -> bool:
        """Whether some synapses of a sparse projection are not recorded."""
        return "synapse" not in dimensions(self.data)

    def _shape(self, end: str) -> Index:
        network = self.source.network
        return tuple(network["populations"][network["projections"][self.owner][end]]["shape"])


class Spikes:
    """The spikes of a population."""

    form, usual = "spikes", "raster"

    def __init__(self, source: Recording, name: str) -> None:
        self.source, self.name = source, name
        self.owner, _, field = name.rpartition(".")
        self.group: h5py.Group = source.file[self.owner][field]
        lengths = {"point": len(source.points or ()), "batch": source.runs[-1]["batch"] if source.runs else 0}
        self.copies = {axis: lengths[axis] for axis in COPIES if axis in self.group}
        self.size = math.prod(source.network["populations"][self.owner]["shape"])
        chosen = source.probes.get(name, {}).get("neurons")
        self.neurons = self.size if chosen is None else len(chosen)  # how many were listened to
        self.label = plain(name.removesuffix(".spikes"))
        self.colour = COLOURS[source.spike_names.index(name) % len(COLOURS)]

    def __len__(self) -> int:
        """How many there are in all copies."""
        return min(len(self.group[column]) for column in ("times", "ids"))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ticks and neurons of the first copy, in the order of the ticks; at least one block."""
        for start in range(0, max(len(self), 1), BLOCK):
            part = slice(start, min(start + BLOCK, len(self)))
            times, ids = self.group["times"][part], self.group["ids"][part]
            here = np.ones(len(times), bool)
            for axis in self.copies:
                here &= self.group[axis][part] == 0
            yield times[here], ids[here]


def span(parts: Sequence[Spikes]) -> tuple[int, int]:
    """The first tick of a recording, and the one after the last."""
    source = parts[0].source
    firsts = [int(part.group["times"][0]) for part in parts if len(part)]
    lasts = [int(part.group["times"][len(part) - 1]) for part in parts if len(part)]
    ends = [event["tick"] for event in source.log if event["event"] == "closed"]
    return min([run["tick"] for run in source.runs] + firsts), max(ends + [last + 1 for last in lasts])


def said(part: Samples | Spikes, every_point: bool) -> str:
    """Which copies of the network are drawn, of how many."""
    text = ""
    for axis, n in part.copies.items():
        if axis == "batch" or not every_point:
            text += f", {axis} 0 of {n}" + (f" ({point(part.source, 0)})" if axis == "point" else "")
        elif n > POINTS:
            text += f", points 0 to {POINTS - 1} of {n}"
    return text


def point(source: Recording, k: int) -> str:
    """The parameters of a sweep's point."""
    values = {name.rpartition(".")[2]: value for name, value in (source.points or [{}])[k].items()}
    return ", ".join(f"{name}={value:.4g}" for name, value in values.items() if isinstance(value, int | float))


def coarse(values: Float[np.ndarray, "rows columns"], axis: int, step: int) -> Float[np.ndarray, "rows columns"]:
    """Means over ``step`` neighbours along ``axis``."""
    starts = np.arange(0, values.shape[axis], step)
    counts = np.diff(np.append(starts, values.shape[axis]))
    means: np.ndarray = np.add.reduceat(values, starts, axis) / np.expand_dims(counts, 1 - axis)
    return means
