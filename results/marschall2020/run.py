"""Marschall, Cho & Savin (2020): one network and one task, Add(5, 9), and ten ways to learn it. See README.md."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax

from engrax import Phase, Simulator, networks as nets, rules

SIZES = (2, 32, 2)
TESTED = 5000  # ticks
WINDOW = 12  # ticks of truncated backpropagation through time


def clipped(eta: Any) -> optax.GradientTransformation:
    """Gradient descent in steps of at most 5 eta."""
    return optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(eta))


class Learner(NamedTuple):
    """Of all weights, or of the recurrent layer's alone where the feedback is."""

    rule: Any
    feedback: str | None = None


READOUT = rules.RFLO(eta=0.03)
LEARNERS = {
    "RTRL": Learner(rules.RTRL(eta=0.03, optimiser=clipped)),
    "BPTT": Learner(rules.BPTT(eta=0.03, window=WINDOW, optimiser=clipped)),
    "KF-RTRL": Learner(rules.KFRTRL(eta=0.01, optimiser=clipped)),
    "SnAp-1": Learner(rules.SnAp(eta=0.003, n=1, optimiser=clipped)),
    "DNI": Learner(rules.DNI(eta=0.003, rate=0.03, optimiser=clipped)),
    "KeRNL": Learner(rules.KeRNL(eta=0.003, optimiser=clipped)),
    "UORO": Learner(rules.UORO(eta=0.001, optimiser=clipped)),
    "RFLO": Learner(rules.RFLO(eta=0.003), "symmetric"),
    "RFLO, random feedback": Learner(rules.RFLO(eta=0.001), "random"),
    "readout only": Learner(None),
}
QUICK = ("RTRL", "RFLO", "RFLO, random feedback", "readout only")


def run(out: Path, *, seed: int = 0, quick: bool = False, ticks: int = 100_000, seeds: int = 2) -> dict[str, Any]:
    """Learn online for so many ``ticks`` with each of ``LEARNERS``, from as many ``seeds``; then test.

    ``quick``: 20,000 ticks of one seed with four of the learners. Writes curves.png and metrics.json.
    """
    names = QUICK if quick else tuple(LEARNERS)
    if quick:
        ticks, seeds = min(ticks, 20_000), 1
    curves: dict[str, list[np.ndarray]] = {name: [] for name in names}
    tested: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for k in range(seed, seed + seeds):
            online, test = learn(LEARNERS[name], ticks, k)
            curves[name].append(online)
            tested[name].append(test)
    floors = dict(nets.tasks.add(1).floors)
    figure(out / "curves.png", {name: np.mean(found, axis=0) for name, found in curves.items()}, floors, ticks)
    metrics = {"floors": floors, "cross_entropy": tested}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def network(learner: Learner) -> nx.MultiDiGraph:
    """The same for all but for the rule: orthogonal recurrent weights, softmax outputs."""
    output = nets.LeakyOutput(lateral=nets.Softmax())
    readout = READOUT if learner.rule is None else learner.rule
    net = nets.recurrent(SIZES, learner.rule, readout=readout, feedback=None, output=output)
    if learner.feedback == "random":
        nets.add_feedback(net, kind="random", weights=nets.Normal(SIZES[-1] ** -0.5))
    elif learner.feedback is not None:
        nets.add_feedback(net, kind="symmetric")
    return net


def learn(learner: Learner, ticks: int, seed: int) -> tuple[np.ndarray, float]:
    """The cross-entropy (nats) of every tick while it learns, and on other bits after that."""
    sim = Simulator(network(learner), seed=seed)
    online = nets.tasks.add(ticks, seed=seed)
    x = sim.run(online.drive, record={"output.x": 1})["output.x"]
    test = nets.tasks.add(TESTED, seed=10_000 + seed)
    answers = sim.run(test.drive, trial=Phase("test", ticks=TESTED, plastic="never"), record={"output.x": 1})
    return -(online.target * np.log(np.maximum(x, 1e-30))).sum(-1), test.error(answers["output.x"])


def figure(path: Path, curves: dict[str, np.ndarray], floors: dict[str, float], ticks: int) -> None:
    drawing, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    width = max(ticks // 40, 1)
    for name, online in curves.items():
        means = online[: len(online) // width * width].reshape(-1, width).mean(-1)
        axis.plot((np.arange(len(means)) + 0.5) * width / 1000, means, label=name, lw=1.4)
    for name, floor in floors.items():
        axis.axhline(floor, color="0.6", lw=0.8, ls="--")
        axis.text(1.01, floor, name, transform=axis.get_yaxis_transform(), va="center", color="0.4", fontsize=8)
    axis.set(xlabel="ticks (thousands)", ylabel="cross-entropy while learning (nats)", xlim=(0, ticks / 1000))
    axis.legend(fontsize=8, ncols=2, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
