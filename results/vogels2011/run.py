"""Vogels et al. (2011): inhibitory plasticity balances one cell channel by channel, and a network. See README.md."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from . import channels, recurrent

GREY, BLUE, RED = "0.55", "tab:blue", "tab:red"


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    seconds: float = 150.0,
    dt: float = 2e-4,
    excitatory: int = recurrent.EXCITATORY,
    network_seconds: float = 30.0,
    observed: float = 30.0,
) -> dict[str, Any]:
    """One cell learns for so many ``seconds`` in ticks of ``dt`` (seconds), a network of so many ``excitatory`` cells
    for ``network_seconds``. Before and after that the cell is ``observed`` (seconds), after it the network for a third
    of this time.

    ``quick``: 15 s in ticks of 1 ms with ten times the rate of learning, 800 excitatory cells for 4 s, observed for
    9 s and 3 s. Writes cell.h5 (output spikes, inhibitory weights every second), network.h5 (all spikes), balance.png
    and metrics.json.
    """
    faster = 1.0
    if quick:
        seconds, dt, faster = min(seconds, 15.0), 1e-3, 10.0
        excitatory, network_seconds, observed = min(excitatory, 800), min(network_seconds, 4.0), min(observed, 9.0)
    cell = channels.learn(
        out / "cell.h5", seed=seed, dt=dt, eta=faster * channels.ETA, seconds=seconds, observed=observed
    )
    network = recurrent.learn(
        out / "network.h5", seed=seed, excitatory=excitatory, seconds=network_seconds, observed=observed / 3
    )
    metrics = {
        "cell": {
            "cotuning": float(np.corrcoef(cell.tuning, cell.after["weights"])[0, 1]),
            "tuning": cell.tuning.tolist(),
            "before": cell.before,
            "after": cell.after,
        },
        "network": {
            "before": recurrent.described(network, recurrent.EARLY, recurrent.BEFORE),
            "after": recurrent.described(network, network.learned, network.e.seconds),
        },
    }
    figure(out / "balance.png", cell, network)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def figure(path: Path, cell: channels.Course, network: recurrent.Course) -> None:
    drawing = plt.figure(figsize=(11, 6.6), layout="constrained")
    grid = drawing.add_gridspec(2, 3)
    tuned(drawing.add_subplot(grid[0, 0]), cell)
    currents(drawing.add_subplot(grid[0, 1]), cell)
    regulated(drawing.add_subplot(grid[0, 2]), cell)
    converging(drawing.add_subplot(grid[1, 0]), network)
    narrow(drawing.add_subplot(grid[1, 1]), network)
    inner = grid[1, 2].subgridspec(2, 1, hspace=0.12)
    spans = {"before learning": recurrent.BEFORE, "after learning": network.e.seconds}
    for row, (name, end) in enumerate(spans.items()):
        raster(drawing.add_subplot(inner[row]), network, name, end - 0.4, last=row == 1)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def tuned(axis: Axes, cell: channels.Course) -> None:
    number = np.arange(1, channels.CHANNELS + 1)
    excitatory = axis.bar(number, cell.tuning, color="0.88", label="excitatory")
    axis.set(xlabel="channel", ylabel="excitatory weight / leak", xticks=number)
    right = axis.twinx()
    before = right.plot(number, cell.before["weights"], "o--", color=GREY, label="inhibitory, before")
    after = right.plot(number, cell.after["weights"], "o-", color=BLUE, label="inhibitory, after")
    right.set(ylim=(0, None))
    right.set_ylabel("inhibitory weight / leak", color=BLUE)
    right.spines["top"].set_visible(False)
    right.legend(handles=[excitatory, *before, *after], frameon=False, fontsize=7, loc="upper left")
    titled(axis, "Inhibition follows the tuning of excitation")


def currents(axis: Axes, cell: channels.Course) -> None:
    number = np.arange(1, channels.CHANNELS + 1)
    axis.plot(number, cell.after["excitation"], "o-", color=RED, label="excitation")
    axis.plot(number, cell.before["inhibition"], "o--", color=GREY, label="inhibition, before")
    axis.plot(number, cell.after["inhibition"], "o-", color=BLUE, label="inhibition, after")
    axis.set(xlabel="channel", ylabel="mean current / leak (mV)", xticks=number, ylim=(0, None))
    axis.legend(frameon=False, fontsize=7, loc="upper left")
    titled(axis, "Currents cancel channel by channel")


def regulated(axis: Axes, cell: channels.Course) -> None:
    seconds = len(cell.weights)
    rates = np.histogram(cell.times, np.arange(seconds + 1))[0]
    axis.plot(np.arange(seconds) + 0.5, rates, color="black", linewidth=1)
    axis.axhline(channels.TARGET, color=RED, linestyle=":", label="target")
    axis.set(xlabel="time (s)", ylabel="output rate (Hz)", xlim=(0, seconds), ylim=(0, None))
    axis.legend(frameon=False, fontsize=7)
    titled(axis, "The cell comes to its target rate")


def converging(axis: Axes, network: recurrent.Course) -> None:
    edges = np.arange(0, network.e.seconds + 1e-9, 0.1)
    rates = np.histogram(network.e.times, edges)[0] / network.e.cells / 0.1
    axis.plot(edges[1:] - 0.05, rates, color="black", linewidth=1)
    axis.axhline(recurrent.TARGET, color=RED, linestyle=":", label="target")
    axis.axvspan(recurrent.BEFORE, network.learned, color=BLUE, alpha=0.08, linewidth=0, label="learning")
    axis.set(xlabel="time (s)", ylabel="mean excitatory rate (Hz)", yscale="log", xlim=(0, network.e.seconds))
    axis.legend(frameon=False, fontsize=7)
    titled(axis, "The network leaves saturation")


def narrow(axis: Axes, network: recurrent.Course) -> None:
    rates = network.e.between(network.learned, network.e.seconds).rates()
    edges = np.arange(-0.05, 3 * recurrent.TARGET, 0.3)  # three tenths each: rates are whole tenths
    axis.stairs(np.histogram(rates, edges)[0], edges, color=BLUE, alpha=0.7, fill=True)
    axis.axvline(recurrent.TARGET, color=RED, linestyle=":", label="target")
    axis.set(xlabel="rate after learning (Hz)", ylabel="excitatory cells")
    axis.legend(frameon=False, fontsize=7)
    titled(axis, "All of its cells come to much the same rate")


def raster(axis: Axes, network: recurrent.Course, name: str, start: float, last: bool) -> None:
    shown = network.e.between(start, start + 0.4)
    some = shown.ids < 100
    axis.plot(1000 * shown.times[some], shown.ids[some], "k.", markersize=1.5)
    axis.set(ylabel="cell", xlim=(0, 400), ylim=(0, 100), xlabel="time (ms)" if last else "")
    axis.tick_params(labelbottom=last)
    titled(axis, name)


def titled(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.spines["top"].set_visible(False)
