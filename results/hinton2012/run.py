"""Hinton's talk of 2012 as an experiment: what is lost, and won, when neurons send one random bit. See README.md."""

import functools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.ticker import StrMethodFormatter

from engrax import Simulator, networks as nets, rules

from ..choices import check
from ..classification import Reader, Task, add_reward, epochs

PARTS = ("table", "sizes", "full")
BATCH = 50
DECAY = 0.98  # of the learning rate, per epoch
MOMENTUM = 0.9
SAMPLES = 20  # looks at a test image whose outputs are averaged
REINFORCE = 0.005  # learning rate of hidden units that know the reward alone
COMPARED = ("backprop", "dropout", "stochastic binary", "one bit both ways")  # by size, and on all of MNIST


SOFTMAX, WHOLE = nets.Output(lateral=nets.Softmax()), nets.Input()


@dataclass(frozen=True)
class Method:
    """``gain``: of the weights at first, see `FanIn`; ``longer``: epochs, as a multiple of those of a network that
    sends numbers; ``random``: what the hidden units send at test time is random too, unless their mean is taken."""

    hidden: nets.Neuron
    eta: float = 0.1
    feedback: Any = "symmetric"
    output: nets.Neuron = SOFTMAX
    inputs: nets.Neuron = WHOLE
    momentum: float = MOMENTUM
    gain: float = 1.0
    longer: float = 1.0
    random: bool = False
    reinforced: bool = False


def dropped(neuron: nets.Neuron, rate: float = 0.5) -> nets.Neuron:
    """Left out at this rate; what is sent makes up for it, so that its mean is the neuron's own."""
    return nets.Scaled(nets.Dropout(neuron, rate), 1 / (1 - rate))


LOGISTIC, RECTIFIED, BINARY = nets.Hidden(), nets.Hidden(activation=jax.nn.relu), nets.Bernoulli()
ONE_BIT = nets.OneBitLargest(nets.Output(), lateral=nets.Softmax())
SOME = dropped(nets.Input(), 0.2)  # a fifth of the pixels is left out
LONGER = 5 / 3
METHODS = {
    "backprop": Method(LOGISTIC),
    "backprop, rectified": Method(RECTIFIED, eta=0.05),
    "dropout": Method(dropped(LOGISTIC), inputs=SOME, longer=LONGER),
    "dropout, rectified": Method(dropped(RECTIFIED), eta=0.05, inputs=SOME, longer=LONGER),
    "p with probability 1/2": Method(dropped(LOGISTIC), longer=LONGER),
    "stochastic binary": Method(BINARY, longer=LONGER, random=True),
    "one bit backward": Method(nets.OneBitLargest(LOGISTIC), output=ONE_BIT),
    "one bit both ways": Method(nets.OneBitLargest(BINARY), output=ONE_BIT, longer=LONGER, random=True),
    "feedback alignment": Method(LOGISTIC, feedback="random"),
    "feedback alignment, stochastic binary": Method(BINARY, feedback="random", longer=LONGER, random=True),
    "REINFORCE": Method(BINARY, 0.02, None, momentum=0.0, gain=4.0, longer=LONGER, random=True, reinforced=True),
}


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    methods: tuple[str, ...] = tuple(METHODS),
    seeds: int = 2,
    hidden: tuple[int, ...] = (400, 400),
    train: int = 4000,
    test: int = 1000,
    passes: int = 60,
    sizes: tuple[int, ...] = (100, 200, 400, 800),
    full_passes: int = 10,
) -> dict[str, Any]:
    """Train every method and write hinton2012.png and metrics.json.

    The parts: ``table``, all ``methods`` on ``train`` images of MNIST for ``passes`` epochs, tested on the ``test``
    images that follow them, with ``hidden`` units in two layers; ``sizes``, four of them with other numbers of hidden
    units; ``full``, the same four on all of MNIST. ``quick`` takes scikit-learn's small digits, which need no download,
    small layers and few epochs.
    """
    check("part", parts, PARTS)
    check("method", methods, METHODS)
    if quick:
        parts, seeds, passes, hidden = ("table",), 1, min(passes, 12), (60, 60)
        task = Task.of(nets.digits())
    else:
        task = Task.of(nets.mnist(), train, test)
    metrics: dict[str, Any] = {}

    def keep(part: str, name: str, trained: list[dict[str, Any]]) -> None:
        metrics.setdefault(part, {})[name] = averaged(trained)
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")  # what is done survives what fails

    def several(name: str, task: Task, hidden: tuple[int, ...], passes: int, seeds: int) -> list[dict[str, Any]]:
        begun = time.perf_counter()
        found = [trained(METHODS[name], task, hidden, passes, seed + number) for number in range(seeds)]
        shown = ", ".join(f"{100 * one['test']:.1f} %" for one in found)
        print(f"{name}, {hidden}: {shown} ({time.perf_counter() - begun:.0f} s)", file=sys.stderr, flush=True)
        return found

    if "table" in parts:
        for name in methods:
            keep("table", name, several(name, task, hidden, passes, seeds))
    if "sizes" in parts:
        for name in COMPARED:
            for size in sizes:
                keep("sizes", f"{name}, {size}", several(name, task, (size, size), passes, 1))
    if "full" in parts:
        for name in COMPARED:
            keep("full", name, several(name, Task.of(nets.mnist()), hidden, full_passes, 1))
    figure(out / "hinton2012.png", metrics)
    return metrics


def network(method: Method, task: Task, hidden: tuple[int, ...], updates: int) -> nx.MultiDiGraph:
    """``updates`` to an epoch, after each of which the learning rate is a little lower."""

    def learned(rule: rules.LocalRule) -> rules.LocalRule:
        return rules.Momentum(rules.Scheduled(rule, functools.partial(decayed, updates=updates)), mu=method.momentum)

    net = nets.perceptron(
        (task.train_x.shape[1], *hidden, task.classes),
        learned(rules.Delta(eta=method.eta)),
        feedback=method.feedback,
        hidden=method.hidden,
        output=method.output,
        weights=nets.FanIn(method.gain),
    )
    net.nodes["input"]["neuron"] = method.inputs
    if method.reinforced:
        below = [f"{pre}->{post}" for pre, post in net.edges() if post.startswith("hidden")]
        nets.set_rule(net, learned(rules.Reinforce(eta=REINFORCE)), below)
        add_reward(net, task.classes)
    return net


def decayed(count: Any, updates: int) -> Any:
    return DECAY ** (count // updates)


def trained(method: Method, task: Task, hidden: tuple[int, ...], passes: int, seed: int) -> dict[str, Any]:
    """The course of the test errors, and what is left at the end (fractions of the samples)."""
    net = network(method, task, hidden, task.updates(BATCH))
    sim, reader = Simulator(net, seed=seed), Reader(net)
    last = round(passes * method.longer)
    course = {}
    told = ("output.target", "critic.target") if method.reinforced else ("output.target",)
    for number in epochs(sim, task, last, BATCH, np.random.default_rng(seed), told):
        if number in (1, 2, 3, 5) or number % 10 == 0 or number == last:
            course[number] = reader.errors(sim, task.test_x, task.test_y)
    found = {"test": course[last], "train": reader.errors(sim, task.train_x, task.train_y), "course": course}
    if method.random:
        looks = Reader(net, mean=False, seed=seed)
        found["one look"] = looks.errors(sim, task.test_x, task.test_y)
        found["looks"] = looks.errors(sim, task.test_x, task.test_y, SAMPLES)
    return found


def averaged(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds, whose own test errors stay."""
    mean = {name: float(np.mean([one[name] for one in found])) for name in found[0] if name != "course"}
    course = {str(number): float(np.mean([one["course"][number] for one in found])) for number in found[0]["course"]}
    return {**mean, "each": [one["test"] for one in found], "course": course}


TITLES = {"table": "4,000 images", "sizes": "4,000 images, by size", "full": "all of MNIST"}


def figure(path: Path, metrics: dict[str, Any]) -> None:
    """Test errors over epochs, at the end, and by size."""
    shown = [part for part in PARTS if part in metrics]
    drawing, axes = plt.subplots(1, 1 + len(shown), figsize=(5.5 * (1 + len(shown)), 4.5), squeeze=False)
    first = metrics[next(part for part in ("table", "full", "sizes") if part in metrics)]
    bars, *others = axes[0]
    names = list(first)
    bars.barh(names, [100 * first[name]["test"] for name in names], color="0.75", label="units send their mean")
    looks = [name for name in names if "one look" in first[name]]
    if looks:
        bars.plot([100 * first[name]["one look"] for name in looks], looks, "k|", label="they send one sample")
    bars.invert_yaxis()
    bars.set(xlabel="test errors (%)", title="at the end")
    bars.legend(loc="upper right", frameon=False)
    for axis, part in zip(others, shown, strict=True):
        if part == "sizes":
            for name in COMPARED:
                sizes = [int(key.rpartition(", ")[2]) for key in metrics[part] if key.startswith(f"{name}, ")]
                axis.plot(sizes, [100 * metrics[part][f"{name}, {size}"]["test"] for size in sizes], "o-", label=name)
            axis.set(xscale="log", xlabel="hidden units in each of two layers")
            axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
            axis.minorticks_off()
        else:
            colours = plt.get_cmap("tab20")
            for number, (name, found) in enumerate(metrics[part].items()):
                course = {int(epoch): 100 * errors for epoch, errors in found["course"].items()}
                axis.plot(list(course), list(course.values()), color=colours(number), label=name)
            axis.set(xscale="log", yscale="log", xlabel="epoch")
            for ticks in (axis.xaxis, axis.yaxis):
                ticks.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
            axis.tick_params(which="minor", labelsize=7)
        axis.set(ylabel="test errors (%)", title=TITLES[part])
        axis.legend(fontsize=7, frameon=False)
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
