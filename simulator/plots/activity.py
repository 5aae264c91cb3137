"""What neurons do over time: spikes as marks and as rates, sampled fields as lines or heat maps."""

import math
from typing import Any

import numpy as np
import scipy.ndimage
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from .axes import (
    COLOURS,
    GREY,
    above,
    beside,
    beyond,
    clock,
    colours,
    from_zero,
    line,
    numbered,
    seconds,
    seconds_above,
    whole,
)
from .parts import COLUMNS, SIDE, Samples, Spikes, coarse, span

FEW = 8  # neurons that are still told apart as lines
DOTS = 50_000  # spikes of a raster; more are counted
BINS = 4000  # of time for a rate


def raster(frame: SubFigure, *parts: Spikes) -> None:
    """Each spike as a mark, or where they are very many their rate in bins; one panel per population."""
    start, stop = span(parts)
    dt = parts[0].source.dt
    heights = [inches(part) for part in parts]
    axes = frame.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, part, height in zip(axes, parts, heights, strict=True):
        if len(part) > DOTS * math.prod(part.copies.values()):
            _counted(frame, ax, part, start, stop)
        else:
            times, ids = (np.concatenate(column) for column in zip(*part.blocks(), strict=True))
            mark = max(2.0, 0.7 * 72 * height / part.size)  # its length in points: most of a neuron's share
            ax.scatter(times, ids, s=mark**2, marker="|", lw=0.8, color=part.colour, rasterized=True)
        ax.set(ylabel=f"{part.label}\nneuron", ylim=(-0.5, part.size - 0.5), xlim=(start - 0.5, stop - 0.5))
        whole(ax.yaxis)
    clock(axes[-1], dt)
    seconds_above(axes[0], dt)


def inches(part: Spikes) -> float:
    """The height of a population's raster: more for more neurons, within limits."""
    return float(np.clip(part.size**0.5 / 4, 0.8, 2))


def _counted(frame: SubFigure, ax: Axes, part: Spikes, start: int, stop: int) -> None:
    width, step = math.ceil((stop - start) / COLUMNS), math.ceil(part.size / SIDE)
    shape = math.ceil(part.size / step), math.ceil((stop - start) / width)
    counts = np.zeros(math.prod(shape))
    for times, ids in part.blocks():
        counts += np.bincount(ids // step * shape[1] + (times - start) // width, minlength=len(counts))
    rates = counts.reshape(shape) / (step * width * part.source.dt)
    extent = (start - 0.5, start + shape[1] * width - 0.5, -0.5, shape[0] * step - 0.5)
    image = ax.imshow(rates, aspect="auto", origin="lower", extent=extent, interpolation="nearest", **colours(rates))
    frame.colorbar(image, ax=ax, label="rate (spikes/s)", extend=beyond(rates))


def rate(frame: SubFigure, *parts: Any) -> None:
    """Spikes per second and neuron of populations together, or mean and standard deviation of one sampled field."""
    ax, dt = frame.subplots(), parts[0].source.dt
    if isinstance(parts[0], Samples):
        _mean_and_deviation(ax, parts[0], *parts[0].binned())
    else:
        start, stop = span(parts)
        size = math.ceil((stop - start) / BINS)
        kernel = max(float(size), float(f"{(stop - start) / 150:.0e}"))  # ticks, one digit
        for part in parts:
            counts = np.zeros(math.ceil((stop - start) / size))
            for times, _ in part.blocks():
                counts += np.bincount((times - start) // size, minlength=len(counts))
            rates = scipy.ndimage.gaussian_filter1d(counts, kernel / size) / (part.neurons * size * dt)
            mean = counts.sum() / (part.neurons * (stop - start) * dt)
            ticks = start + size * np.arange(len(rates)) + (size - 1) / 2
            ax.plot(ticks, rates, lw=1.2, color=part.colour, label=f"{part.label}\nmean {mean:.3g} spikes/s")
        ax.set_ylabel(f"rate (spikes/s per neuron)\nGaussian kernel, s.d. {seconds(kernel * dt)}")
        ax.set_xlim(start - 0.5, stop - 0.5)
        from_zero(ax)
        clock(ax, dt)
    beside(ax)
    seconds_above(ax, dt)


def activity(frame: SubFigure, part: Samples) -> None:
    """A field of a few neurons as lines, of many as a heat map with mean and deviation; a histogram likewise."""
    edges, values, averaged = part.binned()
    across = " x ".join(part.axes)
    places = part.coordinates(0) if len(part.axes) == 1 else np.arange(values.shape[1])
    if values.shape[1] <= FEW:
        ax = frame.subplots()
        for place, trace, colour in zip(places, values.T, COLOURS, strict=False):
            ax.plot(edges[:-1], trace, **line(len(part)), label=f"{place:g}", color=colour)
        ax.set_ylabel(part.label())
        clock(ax, part.source.dt, averaged)
        beside(ax, across)
        return
    heat, side = frame.subplots(1, 2, width_ratios=(2.2, 1))
    step = math.ceil(values.shape[1] / SIDE)
    shown = coarse(values, 1, step).T
    rows = np.append(np.arange(len(shown)) * step, values.shape[1]) - 0.5
    if part.form == "population":
        numbered(heat.yaxis, places)
        _mean_and_deviation(side, part, edges, values, averaged)
    else:
        rows = places[0] + rows * (places[1] - places[0])
        for profile, tick, colour in ((values[0], edges[0], GREY), (values[-1], edges[-2], COLOURS[0])):
            side.plot(places, profile, lw=1.2, color=colour, label=f"tick {tick:g}")
        side.set(xlabel=across, ylabel=part.label())
    above(side)
    image = heat.pcolorfast(edges, rows, shown, **colours(shown))
    heat.set_ylabel(across + (f", means of {step}" if step > 1 else ""))
    clock(heat, part.source.dt, averaged)
    frame.colorbar(image, ax=heat, label=part.label(), extend=beyond(shown))


def _mean_and_deviation(
    ax: Axes, part: Samples, edges: Any, values: Float[np.ndarray, "bins n"], averaged: int
) -> None:
    mean, deviation = values.mean(1), values.std(1)
    ax.fill_between(
        edges[:-1], mean - deviation, mean + deviation, alpha=0.3, lw=0, color=COLOURS[0], label="± s.d. over neurons"
    )
    ax.plot(edges[:-1], mean, **line(len(part)), color=COLOURS[0], label="mean over neurons")
    ax.set_ylabel(part.label())
    clock(ax, part.source.dt, averaged)
