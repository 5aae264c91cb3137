"""e-prop (Bellec et al. 2020): a pattern made out of frozen noise, evidence gathered in a T-maze. See README.md."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

from engrax import Phase, Simulator, networks as nets, rules

from ..choices import check

PARTS = ("pattern", "maze")
DT = 1e-3  # seconds
STOP = 0.07  # errors in the maze at which the paper stops
BATCH = 16  # trials
CHECKED = 512  # trials over which those errors are meant


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    iterations: int = 600,
    mazes: int = 500,
    without: int = 60,
    batch: int = BATCH,
) -> dict[str, Any]:
    """Train spiking networks by e-prop; write bellec2020.png and metrics.json.

    ``pattern``: ``iterations`` of a second, by all weights or by those of the readout alone. ``maze``: up to ``mazes``
    batches of ``batch`` trials with adaptive neurons, until the error is below .07, and ``without`` batches without
    adaptation. Feedback is random. ``quick``: few and short ones.
    """
    check("part", parts, PARTS)
    if quick:
        iterations, mazes, without, batch = min(iterations, 60), min(mazes, 3), min(without, 1), min(batch, 4)
    metrics: dict[str, Any] = {}
    courses: dict[str, Any] = {}

    def keep(part: str, name: str, found: dict[str, Any], course: Any) -> None:
        metrics.setdefault(part, {})[name] = found
        courses.setdefault(part, {})[name] = course
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")  # what is done survives what fails
        print(f"{part}, {name}: {found}", file=sys.stderr, flush=True)

    if "pattern" in parts:
        for name in ("random feedback", "readout only"):
            keep("pattern", name, *pattern(name != "readout only", iterations, seed))
    if "maze" in parts:
        short = {"cues": 3, "delay": 100} if quick else {}
        keep("maze", "adaptive", *maze(True, mazes, batch, seed, short))
        keep("maze", "not adaptive", *maze(False, without, batch, seed, short))
    figure(out / "bellec2020.png", courses, CHECKED // batch)
    return metrics


def pattern(plastic: bool, iterations: int, seed: int, ticks: int = 1000) -> tuple[dict[str, Any], Any]:
    """The squared error over the variance of the target, from first to last; what is made in the end."""
    keep, tau = np.exp(-DT / 0.03), 0.03
    cells = nets.SurrogateLIF(tau=tau, threshold=0.03 / (1 - keep), cost=5e-6, target=10.0)
    learned = rules.Accumulated(rules.EProp(eta=3e-4, tau=tau, tau_out=tau)) if plastic else None
    task = nets.tasks.pattern(1, ticks=ticks, seed=seed)
    net = nets.recurrent(
        (task.inputs, 100, task.outputs),
        learned,
        readout=rules.Accumulated(rules.RFLO(eta=2e-4 if plastic else 1e-4)),
        feedback="random",
        hidden=cells,
        output=nets.LeakyOutput(alpha=1 - keep),
        recurrent=nets.FanIn(),
        bias=False,
    )
    net.edges["hidden", "output", 0].update(gain=1 / (1 - keep), weights=nets.FanIn(0.1))
    sim = Simulator(net, seed=seed, dt=DT)
    trial = Phase("trial", ticks=ticks, reset=True)
    errors, last = [], np.zeros(0)
    for _ in range(iterations):
        found = sim.run(task.drive, trial=trial, record={"output.x": 1, "hidden.x": 1})
        last = found["output.x"][:, 0]
        errors.append(float(((last - task.target[:, 0]) ** 2).mean() / task.target.var()))
    metrics = {"first": errors[0], "last": float(np.mean(errors[-10:])), "rate": float(found["hidden.x"].mean() / DT)}
    return metrics, {"errors": errors, "made": last, "target": task.target[:, 0]}


def maze(adaptive: bool, iterations: int, batch: int, seed: int, short: dict[str, int]) -> tuple[dict[str, Any], Any]:
    """The fraction of wrong turns, batch by batch, until it has been below .07 for some."""
    sim = Simulator(maze_network(adaptive), seed=seed, dt=DT)
    errors, losses, begun, rate = [], [], time.perf_counter(), 0.0
    checked = -(-CHECKED // batch)
    for number in range(iterations):
        task = nets.tasks.evidence(1, batch=batch, seed=10_000 * seed + number, **short)
        trial = Phase("trial", ticks=task.ticks or 1, reset=True)
        found = sim.run(task.drive, trial=trial, record={"output.x": 1, "hidden.frequency": task.ticks or 1})
        recall = found["output.x"][-150:].mean(0)
        errors.append(float((recall.argmax(-1) != task.target[-1].argmax(-1)).mean()))
        losses.append(task.error(found["output.x"]))
        rate = float(found["hidden.frequency"].mean())
        if number % 5 == 4:
            seconds = (time.perf_counter() - begun) / len(errors)
            now = f"{np.mean(errors[-checked:]):.3f} wrong, {losses[-1]:.3f} nats, {rate:.1f} Hz, {seconds:.1f} s each"
            print(f"{number + 1}: {now}", file=sys.stderr, flush=True)
        if len(errors) >= checked and np.mean(errors[-checked:]) < STOP:
            break
    late = errors[-checked:]
    metrics = {"iterations": len(errors), "error": float(np.mean(late)), "trials": batch * len(late), "rate": rate}
    return metrics, errors


def maze_network(adaptive: bool) -> nx.MultiDiGraph:
    """100 cells, half of them with a threshold that adapts if there is adaptation, and random feedback."""
    slow, keep = 2.0, np.exp(-DT / 0.02)
    beta = 1.7 * (1 - np.exp(-DT / slow)) / (1 - keep)
    cells = nets.SurrogateLIF(
        tau=0.02, tau_adaptation=slow, threshold=0.6, beta=beta * (np.arange(100) >= 50) * adaptive,
        refractory=0.005, cost=1e-6, target=10.0,
    )  # fmt: skip
    rule: rules.LocalRule = rules.EPropAdaptive(eta=1.0, tau=0.02, tau_adaptation=slow, tau_out=0.02)
    if not adaptive:
        rule = rules.EProp(eta=1.0, tau=0.02, tau_out=0.02)
    net = nets.recurrent(
        (40, 100, 2),
        by_trials(rule),
        readout=by_trials(rules.RFLO(eta=1.0)),
        feedback="random",
        hidden=cells,
        output=nets.LeakyOutput(alpha=1 - keep, lateral=nets.Softmax()),
        recurrent=nets.FanIn(),
    )
    net.edges["hidden", "output", 0]["gain"] = 1 / (1 - keep)
    return net


def by_trials(rule: rules.LocalRule) -> rules.LocalRule:
    """One step of Adam a batch; the steps are half as large after 60 of them, a third after 120."""
    return rules.Scheduled(rules.Adam(rules.Accumulated(rule), eta=0.005), schedule=slower)


def slower(count: Any) -> Any:
    return 1 / (1 + count / 60)


def figure(path: Path, courses: dict[str, Any], batches: int) -> None:
    """What is made of the noise, how the error falls, and the errors in the maze over so many ``batches``."""
    drawing, axes = plt.subplots(1, 3, figsize=(14, 4))
    made, falls, turns = axes
    for name, course in courses.get("pattern", {}).items():
        made.plot(course["made"], label=name, linewidth=1.2)
        falls.plot(np.arange(1, len(course["errors"]) + 1), course["errors"], label=name, linewidth=1.2)
    if "pattern" in courses:
        made.plot(next(iter(courses["pattern"].values()))["target"], "k--", linewidth=1, label="target")
        falls.set(xscale="log", yscale="log")
    for name, errors in courses.get("maze", {}).items():
        width = min(batches, len(errors))
        mean = np.convolve(errors, np.ones(width) / width, "valid")
        turns.plot(np.arange(width, len(errors) + 1), 100 * mean, label=name)
    turns.axhline(100 * STOP, color="0.6", linewidth=0.8)
    made.set(xlabel="time (ms)", ylabel="output", title="pattern, after learning")
    falls.set(xlabel="iteration", ylabel="squared error / variance", title="pattern")
    turns.set(xlabel="iteration", ylabel=f"wrong turns (%), mean of {batches} batches", title="T-maze", ylim=(0, 65))
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
