"""RFLO (Murray 2019): a recurrent network learns to make a sum of sines by a local rule. See README.md."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

from engrax import Phase, Simulator, networks as nets, rules, sweep

CELLS, TICKS, TAU = 50, 100, 10
ETA = 0.03 / TICKS
LOOKS = (1, 100, 1000, 10_000)  # trials at which the loss is looked up
RULES: dict[str, Any] = {  # and the way errors come back
    "BPTT": None,
    "RFLO, random feedback": "random",
    "RFLO, symmetric feedback": "symmetric",
    "readout only": "random",
}


def run(out: Path, *, seed: int = 0, quick: bool = False, trials: int = 10_000, seeds: int = 5) -> dict[str, Any]:
    """``seeds`` networks learn for so many ``trials`` by each rule; write murray2019.png and metrics.json."""
    if quick:
        trials, seeds = min(trials, 300), min(seeds, 2)
    task = nets.tasks.sines(trials, ticks=TICKS)
    metrics: dict[str, dict[str, Any]] = {}
    courses: dict[str, dict[str, Any]] = {}
    made: dict[str, Any] = {}
    for name, feedback in RULES.items():
        net, chosen, trial = network(name, feedback), range(seed, seed + seeds), Phase("trial", ticks=TICKS, reset=True)
        if feedback is None:  # one by one: in a sweep it would go back through its window in every tick
            each = [Simulator(net, seed=k).run(task.drive, trial=trial, record={"output.x": 1}) for k in chosen]
            x = np.stack([found["output.x"] for found in each], 1)
        else:
            sim, often = sweep(net, {"seed": chosen}), max(trials // 100, 1) * TICKS
            found = sim.run(task.drive, trial=trial, record={"output.x": 1, "hidden->output.w": often})
            x = found["output.x"]
        x = x[..., 0].reshape(trials, TICKS, seeds)
        losses = ((x - task.target.reshape(trials, TICKS, 1)) ** 2).mean(1) / 2
        courses[name], made[name] = {"loss": losses}, x[-1, :, 0]
        metrics[name] = {
            "loss": {str(look): losses[look - 1].tolist() for look in LOOKS if look <= trials},
            "final": losses[-1].tolist(),
        }
        if feedback is not None:
            back = np.asarray(sim.params["output->hidden"].w)  # (seeds, cells, 1)
            course = np.stack([aligned(w, back) for w in found["hidden->output.w"]])
            courses[name] |= {"trials": np.arange(1, len(course) + 1) * often // TICKS, "alignment": course}
            metrics[name]["alignment"] = course[-1].tolist()
    figure(out / "murray2019.png", made, task.target[:TICKS, 0], courses)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def network(name: str, feedback: Any) -> nx.MultiDiGraph:
    """50 leaky units with a time constant of 10 ticks, no input that says anything, and an output."""
    rule = rules.BPTT(eta=ETA, window=TICKS) if name == "BPTT" else rules.Accumulated(rules.RFLO(eta=ETA))
    net = nets.recurrent(
        (1, CELLS, 1),
        readout=rule,
        feedback=None,
        hidden=nets.LeakyHidden(alpha=1 / TAU, start=0.1),
        weights=nets.Uniform(-0.1 / CELLS**0.5, 0.1 / CELLS**0.5),
        recurrent=nets.Normal(1.5 / CELLS**0.5),
        bias=False,
    )
    if feedback is not None:
        nets.add_feedback(net, kind=feedback, weights=nets.Normal(1.0))
    if name != "readout only":
        nets.set_rule(net, rule, ["hidden->hidden"])
    return net


def aligned(w: Any, back: Any) -> Any:
    """The cosine between forward and feedback weights of every network: (seeds, 1, cells), (seeds, cells, 1)."""
    w, back = w[:, 0], back[..., 0]
    return (w * back).sum(-1) / np.sqrt((w**2).sum(-1) * (back**2).sum(-1))


def figure(path: Path, made: dict[str, Any], target: Any, courses: dict[str, Any]) -> None:
    """What the first network makes in the end, the losses of all, and how the readout turns to the feedback."""
    drawing, (outputs, losses, angles) = plt.subplots(1, 3, figsize=(14, 4))
    for number, (name, course) in enumerate(courses.items()):
        trials = np.unique(np.geomspace(1, len(course["loss"]), 200).astype(int))
        low, middle, high = (f(course["loss"][trials - 1], axis=1) for f in (np.min, np.median, np.max))
        losses.plot(trials, middle, color=f"C{number}", label=name)
        losses.fill_between(trials, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
        outputs.plot(made[name], color=f"C{number}", label=name)
        if "alignment" in course and not name.endswith("symmetric feedback"):
            angles.plot(course["trials"], np.median(course["alignment"], 1), color=f"C{number}", label=name)
    outputs.plot(target, "k--", linewidth=1, label="target")
    outputs.set(xlabel="tick", ylabel="output", title="the last trial, first network")
    losses.set(xscale="log", yscale="log", xlabel="trial", ylabel="half mean squared error", title="loss")
    angles.set(xlabel="trial", ylabel="cosine, readout and feedback", title="alignment", ylim=(-0.4, 1))
    for axis in (outputs, losses, angles):
        axis.legend(frameon=False, fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
