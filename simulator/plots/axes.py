"""Axes, legends and colours that all pictures share."""

from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

# Okabe & Ito's colours, told apart by the colour-blind too; for their yellow, faint on white, a brown.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D00")
GREY = "0.45"


def clock(ax: Axes, dt: float, averaged: int = 1) -> None:
    """Ticks along x; ``averaged``: how many samples each value is the mean of."""
    ax.set_xlabel(f"tick (1 tick = {seconds(dt)})" + (f", means of {averaged}" if averaged > 1 else ""))
    ax.margins(x=0)
    whole(ax.xaxis)


def seconds_above(ax: Axes, dt: float) -> None:
    above = ax.secondary_xaxis("top", functions=(lambda tick: np.multiply(tick, dt), lambda time: np.divide(time, dt)))
    above.set_xlabel("time (s)", fontsize="small")
    above.tick_params(labelsize="small")


def seconds(time: float) -> str:
    return f"{time:g} s" if time >= 1 else f"{time * 1e3:g} ms"


def whole(*axes: Axis) -> None:
    """Marks at whole numbers: there is no neuron 2.5."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))


def numbered(axis: Axis, numbers: Int[np.ndarray, " rows"]) -> None:
    """Marks at rows 0, 1, ... that are called by the neurons' own ``numbers``."""
    whole(axis)
    axis.set_major_formatter(lambda row, _: str(numbers[int(row)]) if row in range(len(numbers)) else "")


def line(samples: int) -> dict[str, Any]:
    """A line on which a few samples can still be told apart."""
    return {"lw": 1.2, "marker": "." if samples <= 50 else ""}


def from_zero(ax: Axes) -> None:
    """Heights, none below 0, that can be compared with 0."""
    top = float(ax.dataLim.y1)
    ax.set_ylim(0, 1.1 * top if 0 < top < np.inf else 1)


def beside(ax: Axes, title: str = "") -> None:
    """A legend on the right of the axes."""
    ax.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")


def above(ax: Axes) -> None:
    """A legend in one line above the axes."""
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small", columnspacing=1,
        handlelength=1.2, handletextpad=0.5, borderaxespad=0.2,
    )  # fmt: skip


def nothing(ax: Axes, text: str) -> None:
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY)


def colours(values: Any) -> dict[str, Any]:
    """A scale around zero where there are both signs, from zero where not; a few outliers do not set it."""
    shown = finite(values)
    top = float(np.percentile(np.abs(shown), 99.5)) or float(np.abs(shown).max()) or 1.0
    if shown.min() >= 0:
        return {"cmap": "viridis", "vmin": 0, "vmax": top}
    return {"cmap": "RdBu_r", "vmin": -top, "vmax": top}


def beyond(values: Any) -> str:
    """Which ends of the colour bar stand for outliers, too."""
    shown, top = finite(values), colours(values)["vmax"] * (1 + 1e-6)
    ends = {(True, True): "both", (True, False): "min", (False, True): "max"}
    return ends.get((bool(shown.min() < -top), bool(shown.max() > top)), "neither")


def finite(values: Any) -> Any:
    shown = np.ravel(values)[np.isfinite(np.ravel(values))]
    return shown if shown.size else np.zeros(1)


def plain(text: str) -> str:
    """A name from the file as it is: its dollar signs begin no formula."""
    return text.replace("$", r"\$")
