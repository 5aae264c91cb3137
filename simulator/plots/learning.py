"""Spectra, and learning over time: what the weights' singular values, norms and changes do, and reduced fields."""

import math
from typing import Any

import numpy as np
import scipy.signal
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from .axes import COLOURS, GREY, above, beside, clock, from_zero, line, nothing, plain, whole
from .parts import BLOCK, Index, Samples

SAMPLES = 200  # of a curve over weights
NEURONS = 1000  # of a power spectrum
SEGMENT = 4096  # samples, at most, in one of the pieces whose spectra are averaged
LARGEST = 1_000_000  # weights whose singular values are computed


def spectrum(frame: SubFigure, part: Samples) -> None:
    """The power spectral density of a population's field, the singular values of weights."""
    ax = frame.subplots()
    if part.form == "population":
        _power(ax, part)
    else:
        _singular_values(ax, part)


def _power(ax: Axes, part: Samples) -> None:
    """By Welch's method."""
    periods = np.unique(np.diff(part.ticks))
    if len(part) < 8 or len(periods) > 1:
        nothing(ax, "fewer than 8 samples" if len(part) < 8 else "the samples are not evenly spaced")
        return
    segment = min(SEGMENT, max(8, len(part) // 4))
    size = max(segment, BLOCK // min(part.data.shape[-1], NEURONS))
    total: Any = 0.0
    count = 0
    for start in range(0, len(part) - segment + 1, size):
        block = part.read(slice(start, start + size), (*part.first, slice(0, NEURONS)))
        rate = 1 / (float(periods[0]) * part.source.dt)
        frequencies, power = scipy.signal.welch(block, rate, nperseg=segment, axis=0)
        total, count = total + len(block) * power, count + len(block)
    power = total[1:] / count  # without the constant, which the method takes out
    mean, (low, high) = power.mean(1), np.percentile(power, (10, 90), axis=1)
    of = "neurons" if power.shape[1] < NEURONS else f"the first {NEURONS} neurons"
    ax.fill_between(frequencies[1:], low, high, alpha=0.3, lw=0, color=COLOURS[0], label=f"10 to 90 % of {of}")
    ax.plot(frequencies[1:], mean, lw=1.2, color=COLOURS[0], label=f"mean over {of}")
    unit = "1/Hz" if part.unit == "dimensionless" else f"({part.unit})²/Hz"
    ax.set(xlabel="frequency (Hz)", ylabel=plain(f"power spectral density\nof {part.field} ({unit})"))
    if mean.min() > 0:
        ax.set(xscale="log", yscale="log", ylim=(max(low.min(), mean.min() / 30), None))
        ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(x=0)
    beside(ax)


def _singular_values(ax: Axes, part: Samples) -> None:
    if math.prod(part.size) > LARGEST:
        nothing(ax, f"singular values: more than {LARGEST} weights")
        return
    for k, colour in zip(sorted({0, len(part) // 2, len(part) - 1}), (GREY, COLOURS[1], COLOURS[0]), strict=False):
        values = np.linalg.svd(np.nan_to_num(part.matrix(part.read(k))), compute_uv=False)
        place = np.arange(1, len(values) + 1)
        ax.plot(place, values, "o-", ms=3, lw=1, color=colour, label=f"after tick {part.ticks[k]}")
    ax.set(xlabel="rank", ylabel=part.label("singular values of {}\n"), xlim=(0.5, len(values) + 0.5))
    from_zero(ax)
    whole(ax.xaxis)
    beside(ax)


def curve(frame: SubFigure, part: Samples) -> None:
    """A reduced field over time; of weights, the norm for each post neuron and the norm of the change."""
    points = part.points()
    if part.form == "scalar":
        ax = frame.subplots()
        for (copy, label), colour in zip(points, COLOURS, strict=False):
            edges, values, averaged = part.binned(copy)
            ax.plot(edges[:-1], values[:, 0], **line(len(part)), color=colour, label=label)
        ax.set_ylabel(part.label())
        clock(ax, part.source.dt, averaged)
    else:
        left, ax = frame.subplots(1, 2, sharex=True)
        stride = math.ceil(len(part) / SAMPLES)
        chosen = range((len(part) - 1) % stride, len(part), stride)  # to the last one
        ticks = part.ticks[chosen]
        for (copy, label), colour in zip(points, COLOURS, strict=False):
            norms, changes = _learning(part, chosen, copy)
            low, middle, high = np.percentile(norms, (0, 50, 100), axis=1)
            if len(points) == 1:
                left.fill_between(ticks, low, high, alpha=0.3, lw=0, color=colour, label="smallest to largest")
            left.plot(ticks, middle, **line(len(part)), color=colour, label="median")
            ax.plot(ticks[1:], changes, **line(len(part)), color=colour, label=label)
        left.set_ylabel(part.label("norm of {} per post neuron\n"))
        gaps = np.unique(np.diff(ticks))
        apart = f"{gaps[0]} ticks" if len(gaps) == 1 else "a sample"
        ax.set_ylabel(part.label(f"norm of the change of {{}}\nin {apart}"))
        for each in (left, ax):
            clock(each, part.source.dt)
            from_zero(each)
        if len(points) == 1:
            above(left)
    if len(points) > 1:
        beside(ax)


def _learning(
    part: Samples, chosen: range, copy: Index
) -> tuple[Float[np.ndarray, "samples post"], Float[np.ndarray, " changes"]]:
    """Of the weights in ``chosen`` samples, the norm onto each post neuron and the norms of the changes between."""
    norms, changes, before = [], [], None
    for k in chosen:
        w = part.read(k, copy)
        norms.append(part.norms(w))
        if before is not None:
            changes.append(np.linalg.norm(w - before))
        before = w
    return np.array(norms), np.array(changes)
