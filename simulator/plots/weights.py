"""Weights at the start and at the end: as matrices with their distribution, and as receptive fields."""

import math

import numpy as np
from jaxtyping import Float
from matplotlib.figure import SubFigure

from .axes import COLOURS, above, beside, beyond, colours, finite, numbered, whole
from .parts import SIDE, Samples

FIELDS = 60  # receptive fields drawn as images
LINES = 8  # and as lines


def weights(frame: SubFigure, part: Samples) -> None:
    """The matrix of the weights (grey: no synapse) and their distribution, at the start and at the end."""
    left, middle, right = frame.subplots(1, 3)
    step = math.ceil(max(part.size) / SIDE)
    ends = np.stack([part.read(0), part.read(len(part) - 1)])
    shown = np.stack([part.matrix(w, step) for w in ends])
    titles = [f"after tick {tick}" for tick in part.ticks[[0, -1]]]
    extent = (-0.5, part.size[1] - 0.5, part.size[0] - 0.5, -0.5)
    for ax, matrix, title in zip((left, middle), shown, titles, strict=True):
        image = ax.imshow(matrix, aspect="auto", extent=extent, interpolation="nearest", **colours(shown))
        ax.set_facecolor("0.9")
        ax.set_title(title, fontsize="small")
        ax.set(xlabel="pre neuron", ylabel="post neuron")
        whole(ax.xaxis)
        numbered(ax.yaxis, part.post)
    means = f"\nmeans over {step} x {step} neurons" if step > 1 else ""
    frame.colorbar(image, ax=[left, middle], label=part.label() + means, extend=beyond(shown))
    edges = np.histogram_bin_edges(finite(ends), 40)
    right.hist(ends[0].ravel(), edges, histtype="step", color="black", label=titles[0], zorder=2)
    right.hist(ends[1].ravel(), edges, color=COLOURS[0], alpha=0.5, label=titles[1])
    right.set(xlabel=part.label(), ylabel="synapses")
    above(right)


def fields(frame: SubFigure, part: Samples) -> None:
    """The weights onto each post neuron: as an image where the pre population is a grid, as a line where not."""
    images = len(part.grid) == 2
    most = FIELDS if images else LINES
    shown = np.stack([part.rows(k, most) for k in (0, len(part) - 1)])
    some = f", {most} of {part.size[0]}" if part.size[0] > most else ""
    axes = frame.subplots(1, 2, sharey=not images)
    for ax, rows, tick in zip(axes, shown, part.ticks[[0, -1]], strict=True):
        ax.set_title(f"after tick {tick}", fontsize="small")
        if images:
            grid = part.grid[0], part.grid[1]
            if part.form == "sparse":  # grey: no synapse
                ax.imshow(mosaic(np.full_like(rows, 0.9), grid), cmap="gray", vmin=0, vmax=1)
            image = ax.imshow(mosaic(rows, grid), interpolation="nearest", **colours(shown))
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(f"{part.grid[0]} x {part.grid[1]} pre neurons per post neuron{some}", fontsize="small")
        else:
            for post, row, colour in zip(part.post, rows, COLOURS, strict=False):
                ax.plot(row, "." if np.isnan(row).any() else "-", lw=1, color=colour, label=str(post))
            ax.set(xlabel="pre neuron", ylabel=part.label())
            whole(ax.xaxis)
    if images:
        frame.colorbar(image, ax=axes, label=part.label(), extend=beyond(shown))
    else:
        beside(axes[1], f"post neuron{some}")


def mosaic(rows: Float[np.ndarray, "post pre"], grid: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """Each row as an image, side by side with gaps (NaN), over all wider than high."""
    across = min(len(rows), math.ceil(math.sqrt(1.6 * len(rows) * grid[0] / grid[1])))
    down = math.ceil(len(rows) / across)
    canvas = np.full((down * (grid[0] + 1) - 1, across * (grid[1] + 1) - 1), np.nan)
    for k, row in enumerate(rows):
        y, x = (k // across) * (grid[0] + 1), (k % across) * (grid[1] + 1)
        canvas[y : y + grid[0], x : x + grid[1]] = row.reshape(grid)
    return canvas
