"""Pictures of a recording. Figures are made without pyplot: no window, no global state, any thread.

A population's field is drawn over ticks, as lines for a few neurons and as a heat map for many; a projection's as its
first and last values (one image per post neuron where the pre population is a grid) and, between them, what learning
did to the length of each post neuron's weight vector.
"""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

FEW = 8  # neurons that are still told apart as lines
COLUMNS = 800  # of a heat map: longer recordings are averaged down to about as many
SAMPLES = 200  # of a curve over weights
FIELDS = 36  # receptive fields drawn

Grid = tuple[int, ...]


def recording(fields: Mapping[str, h5py.Dataset], dt: float, grids: Mapping[str, Grid], title: str = "") -> Figure:
    """One row per field (name -> dataset as `Simulator.record` wrote it).

    ``dt``: seconds per tick. ``grids``: the shape of each projection's pre population.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03)
    figure = Figure(figsize=(11, 0.5 + 2.7 * len(fields)), layout=layout)
    figure.suptitle(title, fontweight="bold")
    rows = figure.subfigures(len(fields), 1, squeeze=False)
    for row, (name, data) in zip(rows[:, 0], fields.items(), strict=True):
        axes = [axis[0].name.rpartition("/")[2] if len(axis) else "" for axis in data.dims]
        lead, kept = _first_copy(axes, data.shape)
        row.suptitle(f"{name}{lead}", x=0.01, ha="left", fontsize="medium")
        label = _labelled(name, data)
        clock = f"tick (1 tick = {_seconds(dt)})"
        if not len(data):
            _nothing(row.subplots(), "no samples")
        elif axes[-1] == "neuron":
            _population(row, data, kept, label, clock)
        else:
            grid = grids.get(name.rpartition(".")[0], ()) if axes[-1] == "pre" else ()
            _projection(row, data, kept, label, clock, grid)
    return figure


def _population(row: SubFigure, data: h5py.Dataset, kept: tuple[Any, ...], label: str, clock: str) -> None:
    ticks, values, averaged = _binned(data, kept)
    clock += f", means of {averaged}" if averaged > 1 else ""
    if values.shape[1] <= FEW:
        ax = row.subplots()
        for neuron, trace in enumerate(values.T):
            ax.plot(ticks, trace, lw=1, label=str(neuron), color=f"C{neuron}")
        ax.set(xlabel=clock, ylabel=label)
        _whole(ax.xaxis)
        ax.margins(x=0)
        ax.legend(title="neuron", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
        return
    heat, spread = row.subplots(1, 2, width_ratios=(2.2, 1))
    width = ticks[-1] - ticks[-2] if len(ticks) > 1 else 1
    extent = (ticks[0], ticks[-1] + width, -0.5, values.shape[1] - 0.5)  # each sample from its tick to the next
    image = heat.imshow(
        values.T, aspect="auto", origin="lower", extent=extent, interpolation="nearest", **_colours(values)
    )
    heat.set(xlabel=clock, ylabel="neuron")
    _whole(heat.xaxis, heat.yaxis, spread.xaxis)
    row.colorbar(image, ax=heat, label=label, extend="both" if _clipped(values) else "neither")
    mean, deviation = values.mean(1), values.std(1)
    spread.fill_between(ticks, mean - deviation, mean + deviation, alpha=0.3, lw=0, label="s.d. over neurons")
    spread.plot(ticks, mean, lw=1, label="mean over neurons")
    spread.set(xlabel=clock, ylabel=label)
    spread.margins(x=0)
    spread.legend(frameon=False, fontsize="small")


def _projection(row: SubFigure, data: h5py.Dataset, kept: tuple[Any, ...], label: str, clock: str, grid: Grid) -> None:
    ticks = data.dims[0][0][: len(data)]
    chosen = np.unique(np.linspace(0, len(data) - 1, min(SAMPLES, len(data))).astype(int))
    samples = [np.asarray(data[(int(k), *kept)], float) for k in chosen]
    first, last = samples[0], samples[-1]
    if first.ndim == 2:
        left, middle, right = row.subplots(1, 3, width_ratios=(1, 1, 1))
        both = np.stack([first, last])
        for ax, values, k in ((left, first, 0), (middle, last, len(data) - 1)):
            tiles = len(grid) == 2
            shown = _mosaic(values, (grid[0], grid[1])) if tiles else values
            image = ax.imshow(shown, aspect="equal" if tiles else "auto", interpolation="nearest", **_colours(both))
            ax.set_title(f"after tick {ticks[k]}", fontsize="small")
            if tiles:
                hidden = f", {FIELDS} of {len(values)}" if len(values) > FIELDS else ""
                ax.set(xticks=[], yticks=[])
                ax.set_xlabel(f"{grid[0]} x {grid[1]} per post neuron{hidden}", fontsize="small")
            else:
                ax.set(xlabel="pre neuron", ylabel="post neuron")
                _whole(ax.xaxis, ax.yaxis)
        row.colorbar(image, ax=[left, middle], label=label, extend="both" if _clipped(both) else "neither")
    else:
        left, right = row.subplots(1, 2)
        edges = np.histogram_bin_edges(_finite(np.concatenate([first, last])), 40)
        left.hist(first, edges, histtype="step", color="0.5", label=f"after tick {ticks[0]}")
        left.hist(last, edges, histtype="stepfilled", alpha=0.5, label=f"after tick {ticks[-1]}")
        left.set(xlabel=label, ylabel="synapses")
        left.legend(frameon=False, fontsize="small")
    _lengths(right, ticks[chosen], samples, clock)


def _lengths(ax: Axes, ticks: Any, samples: list[Any], clock: str) -> None:
    """The Euclidean norm over time: per post neuron, or of all synapses where the file does not say whose they are."""
    norms = np.array([np.linalg.norm(sample, axis=-1) for sample in samples])
    if norms.ndim == 1:
        ax.plot(ticks, norms, lw=1.2)
        ax.set(xlabel=clock, ylabel="norm of all synapses")
    else:
        low, middle, high = np.nanpercentile(norms, (0, 50, 100), axis=1)
        if norms.shape[1] > 1:
            ax.fill_between(ticks, low, high, alpha=0.25, lw=0, label="smallest to largest")
        ax.plot(ticks, middle, lw=1.2, label="median")
        ax.set(xlabel=clock, ylabel="norm per post neuron")
        ax.legend(frameon=False, fontsize="small")
    _whole(ax.xaxis)
    ax.margins(x=0)
    ax.set_ylim(0, 1.15 * float(_finite(norms).max()) or 1)


def _binned(data: h5py.Dataset, kept: tuple[Any, ...]) -> tuple[Any, Float[np.ndarray, "bins n"], int]:
    """Ticks and samples, in means of as many samples as make about `COLUMNS` bins; read bin by bin, for long files."""
    size = -(-len(data) // COLUMNS)
    starts = range(0, len(data), size)
    values = np.stack([np.asarray(data[(slice(k, k + size), *kept)], float).mean(0) for k in starts])
    return data.dims[0][0][: len(data) : size], values, size


def _first_copy(axes: list[str], shape: tuple[int, ...]) -> tuple[str, tuple[Any, ...]]:
    """Of a sweep's points and a batch's copies the first is drawn; how to say so, and how to index it."""
    copies = [(name, length) for name, length in zip(axes, shape, strict=True) if name in ("point", "batch")]
    said = "".join(f", {name} 0 of {length}" for name, length in copies)
    return said, tuple(0 for _ in copies)


def _mosaic(w: Float[np.ndarray, "post pre"], grid: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """Each row of ``w`` as an image, side by side with gaps (NaN, drawn white)."""
    shown = w[:FIELDS]
    across = int(np.ceil(np.sqrt(len(shown) * grid[0] / grid[1])))
    down = -(-len(shown) // across)
    canvas = np.full((down * (grid[0] + 1) - 1, across * (grid[1] + 1) - 1), np.nan)
    for k, image in enumerate(shown):
        y, x = (k // across) * (grid[0] + 1), (k % across) * (grid[1] + 1)
        canvas[y : y + grid[0], x : x + grid[1]] = image.reshape(grid)
    return canvas


def _colours(values: Any) -> dict[str, Any]:
    """A scale around zero where there are both signs, from zero where not; a few outliers do not set it."""
    finite = _finite(values)
    top = float(np.percentile(np.abs(finite), 99.5)) or float(np.abs(finite).max()) or 1.0
    if finite.min() >= 0:
        return {"cmap": "viridis", "vmin": 0, "vmax": top}
    return {"cmap": "RdBu_r", "vmin": -top, "vmax": top}


def _clipped(values: Any) -> bool:
    return bool(np.abs(_finite(values)).max() > _colours(values)["vmax"] * (1 + 1e-6))


def _finite(values: Any) -> Any:
    finite = np.ravel(values)[np.isfinite(np.ravel(values))]
    return finite if finite.size else np.zeros(1)


def _labelled(name: str, data: h5py.Dataset) -> str:
    unit = str(data.attrs.get("units", ""))
    return f"{name.rpartition('.')[2]} ({'dimensionless' if unit in ('', '1') else unit})"


def _seconds(dt: float) -> str:
    return f"{dt:g} s" if dt >= 1 else f"{dt * 1e3:g} ms"


def _whole(*axes: Axis) -> None:
    """Ticks at whole numbers: there is no neuron 2.5."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))


def _nothing(ax: Axes, text: str) -> None:
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="0.4")
