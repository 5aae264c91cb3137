"""The figures of this result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Array = Float[np.ndarray, "..."]
COLOURS = plt.colormaps["viridis"]


@dataclass(frozen=True)
class Spectrum:
    """Noise gain :math:`|c(k)|^2` per channel of spatial frequency k (cycles per ring), learned and in closed form."""

    frequency: Array
    learned: Array
    earlier: Array
    optimal: Array

    @property
    def worst_error(self) -> float:
        """The largest relative error among the channels that have grown: to half of their optimum or more, and by less
        than a quarter since the earlier weights."""
        grown = (self.optimal > 0) & (self.learned > 0.5 * self.optimal) & (self.learned < 1.25 * self.earlier)
        return float(np.max(np.abs(self.learned[grown] / self.optimal[grown] - 1)))

    @property
    def peak(self) -> int:
        """The frequency of the largest learned gain."""
        return int(self.frequency[np.argmax(self.learned)])


def ring(path: Path, spectra: Mapping[float, Spectrum], curves: Mapping[float, tuple[Array, Array]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, (level, spectrum) in enumerate(spectra.items()):
        colour = COLOURS(number / max(len(spectra), 2))
        left.plot(spectrum.frequency, spectrum.optimal, color=colour, lw=1.5, label=f"{level:g}")
        left.plot(spectrum.frequency, spectrum.learned, "o", color=colour, ms=5)
        trials, ratio = curves[level]
        right.plot(trials, ratio, color=colour, lw=1.5, label=f"{level:g}")
    left.set(xlabel="spatial frequency (cycles per ring)", ylabel="power gain $|c(k)|^2$")
    left.set_title("Learned filters (dots) and the optimal ones (lines)", fontsize=10)
    left.legend(title="noise variance", frameon=False, fontsize=8)
    right.axhline(1, color="0.6", lw=1, ls="--")
    right.set(xlabel="trials", ylabel="mutual information / optimum", ylim=(None, 1.01))
    right.set_title("Learning, every synapse local", fontsize=10)
    _save(figure, path, left, right)


def ablations(
    path: Path,
    levels: Sequence[float],
    ratios: Mapping[str, Sequence[float]],
    correlations: Mapping[str, Sequence[float]],
) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    labels = ("mutual information / optimum", "mean |output correlation|")
    for axis, values, label in zip(axes, (ratios, correlations), labels, strict=True):
        places = np.arange(len(values))
        height = 0.8 / len(levels)
        for number, level in enumerate(levels):
            at = places + (number - (len(levels) - 1) / 2) * height
            found = [value[number] for value in values.values()]
            bars = axis.barh(at, found, height, color=COLOURS(0.25 + 0.4 * number), label=f"noise variance {level:g}")
            axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axis.set_yticks(places, list(values))
        axis.invert_yaxis()
        axis.set(xlabel=label, xlim=(0, 1.15))
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path, *axes)


def photographs(path: Path, images: Iterable[Array], fields: Array, trials: Array, ratio: Array, random: float) -> None:
    figure = plt.figure(figsize=(11, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1.6, 1.6))
    for row, image in enumerate(images):
        axis = figure.add_subplot(grid[row, 0])
        axis.imshow(image, cmap="gray")
        axis.set_axis_off()
    middle = figure.add_subplot(grid[:, 1])
    _tiles(middle, fields)
    middle.set_title(f"{len(fields)} receptive fields", fontsize=10)
    right = figure.add_subplot(grid[:, 2])
    right.plot(trials, ratio, color=COLOURS(0.3), label="learned")
    right.axhline(random, color="0.5", lw=1, ls=":", label="random weights, same power")
    right.axhline(1, color="0.6", lw=1, ls="--", label="optimum")
    right.set(xlabel="trials", ylabel="mutual information / optimum", ylim=(None, 1.01))
    right.legend(frameon=False, fontsize=8, loc="center right")
    _save(figure, path, right)


def independent(path: Path, fields: Array, kurtosis: Array) -> None:
    order = np.argsort(kurtosis)[::-1]
    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    _tiles(axis, fields[order])
    axis.set_title("Independent components of photographs, by Linsker's circuit (1997)", fontsize=9)
    _save(figure, path)


def stack(path: Path, results: Mapping[str, Mapping[str, float]]) -> None:
    figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
    names = list(next(iter(results.values())))
    places = np.arange(len(names))
    height = 0.8 / len(results)
    for number, (mode, values) in enumerate(results.items()):
        at = places + (number - (len(results) - 1) / 2) * height
        bars = axis.barh(at, list(values.values()), height, color=COLOURS(0.25 + 0.4 * number), label=f"trained {mode}")
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set(xlabel="mutual information with the photographs (nats)")
    axis.margins(x=0.15)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path, axis)


def _tiles(axis: Axes, fields: Array) -> None:
    """Fields side by side, each scaled to its own largest absolute value, zero in grey."""
    columns = int(np.ceil(np.sqrt(len(fields))))
    rows = int(np.ceil(len(fields) / columns))
    side = fields.shape[1]
    canvas = np.full((rows * (side + 1) + 1, columns * (side + 1) + 1), np.nan)
    for number, field in enumerate(fields):
        top, left = (1 + (side + 1) * (number // columns), 1 + (side + 1) * (number % columns))
        canvas[top : top + side, left : left + side] = field / np.abs(field).max()
    axis.imshow(canvas, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axis.set_axis_off()


def _save(figure: Figure, path: Path, *axes: Axes) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
