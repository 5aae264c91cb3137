"""Images by rows, vowels by frames: one recurrent network and every way to learn through time. See README.md."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax

from engrax import Phase, Simulator, networks as nets, rules

from ..choices import check
from ..classification import add_reward, audited, falling, markdown

DATA = {"mnist": nets.mnist, "japanese_vowels": nets.japanese_vowels, "digits": nets.digits}
DT = 1e-3  # seconds: what a tick is to spiking cells
TAU = 0.02
KEEP = float(np.exp(-DT / TAU))
SHORT = 7  # ticks of truncated backpropagation through time
LEAKY = nets.LeakyHidden(alpha=0.5)
SPIKING = nets.SurrogateLIF(tau=TAU, threshold=0.6)
ADAPTIVE = nets.SurrogateLIF(tau=TAU, threshold=0.6, tau_adaptation=0.2, beta=0.1)
FEW = 1000  # samples that are looked at at once

Makes = Callable[[float, int, int], Any]  # a rule, of the rate, the ticks of a trial and the trials


def stepped(rule: rules.LocalRule, eta: float, updates: int) -> rules.LocalRule:
    """A step of Adam a trial, from the sum of the rule's changes; they fall to 0 at the last of ``updates``."""
    return rules.Scheduled(rules.Adam(rules.Accumulated(rule), eta=eta), partial(falling, updates=updates))


def stepping(eta: Any, updates: int) -> optax.GradientTransformation:
    """The same for a network rule."""
    return optax.adam(optax.linear_schedule(eta, 0.0, updates))


@dataclass(frozen=True)
class Learner:
    """``rule`` for all synapses that go forward or around, or with a ``readout`` for all but those of the output; which
    way errors come back for it, if they do; what it needs besides."""

    rule: Makes
    eta: float = 3e-3
    feedback: Any = None
    hidden: nets.Neuron = LEAKY
    readout: Callable[[float, int], Any] | None = None
    replayed: bool = False
    rewarded: bool = False

    def network(self, sizes: tuple[int, int, int], ticks: int, updates: int) -> nx.MultiDiGraph:
        rule = self.rule(self.eta, ticks, updates)
        readout = rule if self.readout is None else self.readout(self.eta, updates)
        net = forward(sizes, self.hidden, rule, readout, self.feedback)
        if self.replayed:
            nets.add_replay(net, ticks)
        if self.rewarded:
            add_reward(net, sizes[-1])
            # it is earned where an utterance ends, and heard in the last tick
            net.nodes["reward"]["neuron"] = nets.Integrator(rate=1.0)
        return net

    def trial(self, ticks: int) -> list[Phase]:
        if self.replayed:
            live = Phase("live", ticks, reset=True, signals={"encode": 1.0})
            return [live, Phase("replay", 2 * ticks, reset=True, signals={"encode": 0.0})]
        return [Phase("live", ticks, reset=True, plastic="every" if self.local else "last")]

    @property
    def local(self) -> bool:
        return not isinstance(self.rule(1.0, 1, 1), rules.NetworkRule)

    def drive(self, task: nets.tasks.Task) -> dict[str, Any]:
        given: dict[str, Any] = dict(task.drive)
        if self.replayed:
            ticks = task.ticks or 1
            given = {name: {"live": rows} for name, rows in given.items()} | nets.replay_drive(ticks, ticks)
        return {**given, "critic.target": task.target} if self.rewarded else given


def forward(
    sizes: tuple[int, int, int], hidden: nets.Neuron, rule: Any = None, readout: Any = None, feedback: Any = None
) -> nx.MultiDiGraph:
    """The network: orthogonal recurrent weights times .9, softmax outputs, which leak where cells spike."""
    spiking = isinstance(hidden, nets.Spiking)
    output = nets.LeakyOutput(alpha=1 - KEEP if spiking else 1.0, lateral=nets.Softmax())
    around = nets.FanIn() if spiking else nets.Orthogonal(0.9)
    net = nets.recurrent(
        sizes, rule, readout=readout, feedback=feedback, hidden=hidden, output=output, recurrent=around
    )
    if spiking:
        net.edges["hidden", "output", 0]["gain"] = 1 / (1 - KEEP)
    return net


def bptt(window: int | None = None) -> Makes:
    def rule(eta: float, ticks: int, updates: int) -> rules.NetworkRule:
        return rules.BPTT(eta=eta, window=window or ticks, optimiser=partial(stepping, updates=updates))

    return rule


def whole(rule: type[rules.NetworkRule], **given: Any) -> Makes:
    return lambda eta, ticks, updates: rule(eta=eta, optimiser=partial(stepping, updates=updates), **given)


def local(rule: rules.LocalRule, part: float = 1.0) -> Makes:
    """``part`` of the rate of the outputs."""
    return lambda eta, ticks, updates: stepped(rule, part * eta, updates)


def nothing(eta: float, ticks: int, updates: int) -> None:
    """Of weights that stay as they were drawn."""


def delta(eta: float, updates: int) -> rules.LocalRule:
    """Of the outputs, whose error is their own."""
    return stepped(rules.RFLO(eta=1.0), eta, updates)


EPROP = Learner(local(rules.EProp(eta=1.0, tau=TAU, tau_out=TAU)), hidden=SPIKING, readout=delta)
EPROP_ADAPTIVE = replace(
    EPROP, rule=local(rules.EPropAdaptive(eta=1.0, tau=TAU, tau_adaptation=0.2, tau_out=TAU)), hidden=ADAPTIVE
)
KICKED = nets.Kicked(alpha=0.5, probability=0.1, size=0.5)

LEARNERS: dict[str, Learner] = {
    "BPTT": Learner(bptt()),
    f"BPTT of {SHORT} ticks": Learner(bptt(SHORT)),
    "RTRL": Learner(whole(rules.RTRL)),
    "SnAp-1": Learner(whole(rules.SnAp, n=1)),
    "KF-RTRL": Learner(whole(rules.KFRTRL), eta=1e-3),
    "reverse KF-RTRL": Learner(whole(rules.ReverseKFRTRL), eta=1e-3),
    "UORO": Learner(whole(rules.UORO), eta=1e-3),
    "KeRNL": Learner(whole(rules.KeRNL)),
    "DNI": Learner(whole(rules.DNI), eta=1e-3),
    "replay": Learner(local(rules.Delta(eta=1.0)), feedback="symmetric", replayed=True),
    "RFLO symmetric": Learner(local(rules.RFLO(eta=1.0)), feedback="symmetric"),
    "RFLO random": Learner(local(rules.RFLO(eta=1.0)), feedback="random"),
    "e-prop LIF symmetric": replace(EPROP, feedback="symmetric"),
    "e-prop LIF random": replace(EPROP, feedback="random"),
    "e-prop ALIF random": replace(EPROP_ADAPTIVE, feedback="random"),
    "node perturbation": Learner(
        local(rules.PerturbationTrace(eta=1.0), 0.1), readout=delta, hidden=KICKED, rewarded=True
    ),
    "Miconi": Learner(local(rules.Miconi2017(eta=1.0), 0.1), readout=delta, hidden=KICKED, rewarded=True),
    "readout only": Learner(nothing, readout=delta),
    "LIF readout only": Learner(nothing, readout=delta, hidden=SPIKING),
}  # fmt: skip
QUICK = ("BPTT", "RFLO random", "e-prop LIF random", "readout only")


@dataclass(frozen=True)
class Size:
    """Of a network and of its training: so many ``stages`` of as many ``samples``, with a test after each."""

    hidden: int
    stages: int
    samples: int


SIZES = {
    "mnist": Size(32, stages=10, samples=2000),
    "japanese_vowels": Size(32, stages=10, samples=720),
    "digits": Size(16, stages=2, samples=1000),
}


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    data: tuple[str, ...] = ("mnist", "japanese_vowels"),
    learners: tuple[str, ...] = tuple(LEARNERS),
    eta: float = 0.0,
    stages: int = 0,
) -> dict[str, Any]:
    """Train one network by every learner on every data set and write temporal_real.png, table.md and metrics.json.

    ``eta`` and ``stages``, where they are not 0, replace the learner's own rate and the usual number of stages.
    ``quick``: four of the learners, on scikit-learn's small digits, which need no download.
    """
    if quick:
        data, learners = ("digits",), tuple(name for name in learners if name in QUICK) or learners
    check("data", data, DATA)
    check("learner", learners, LEARNERS)
    metrics: dict[str, Any] = {}
    for source in data:
        dataset, size = DATA[source](), replace(SIZES[source], stages=stages or SIZES[source].stages)
        for name in learners:
            learner = replace(LEARNERS[name], eta=eta or LEARNERS[name].eta)
            found = learned(learner, dataset, size, seed)
            metrics.setdefault(source, {})[name] = found
            (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")  # what is done survives what fails
            print(
                f"{source}, {name}: {100 * found['right'][-1]:.1f} % right, {found['us_per_tick']:.1f} us a tick",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    (out / "table.md").write_text(table(metrics))
    figure(out / "temporal_real.png", metrics)
    return metrics


def learned(learner: Learner, data: nets.Dataset, size: Size, seed: int) -> dict[str, Any]:
    """The fraction of test samples that are right after each stage, and what the learner costs."""
    ticks, inputs = data.shape[0], int(np.prod(data.shape[1:]))
    sizes = inputs, size.hidden, len(data.classes)
    net = learner.network(sizes, ticks, size.stages * size.samples)
    sim = Simulator(net, seed=seed, dt=DT)
    tests = Tested(learner, sizes, data)
    right, taken = [], []
    for stage in range(size.stages):
        task = nets.tasks.rows(data, size.samples, seed=1000 * seed + stage)
        drive, begun = learner.drive(task), time.perf_counter()
        sim.run(drive, trial=learner.trial(ticks))
        taken.append(time.perf_counter() - begun)
        right.append(tests.right(sim))
    fastest = min(taken[1:] or taken)  # the first one has compiled it
    return {
        "right": right, "us_per_tick": 1e6 * fastest / (size.samples * ticks), "bytes": kept(sim),
        "eta": learner.eta, **audited(net, sim, "hidden"),
    }  # fmt: skip


class Tested:
    """The same network without its teachers, and the test set."""

    def __init__(self, learner: Learner, sizes: tuple[int, int, int], data: nets.Dataset) -> None:
        self.sim = Simulator(forward(sizes, still(learner.hidden)), dt=DT)
        self.samples = len(data.test_x)
        trials = -(-self.samples // FEW)
        self.task = nets.tasks.rows(data, trials, batch=min(FEW, self.samples), test=True)
        self.trial = Phase("look", self.task.ticks or 1, reset=True, plastic="never")

    def right(self, learner: Simulator) -> float:
        for name in self.sim.params:
            self.sim.set_weights(name, learner.params[name].w)
        x = self.sim.run({"input": self.task.drive["input"]}, trial=self.trial, record={"output.x": 1})["output.x"]
        return 1 - self.task.wrong(x)


def still(neuron: nets.Neuron) -> nets.Neuron:
    """Without the kicks."""
    return replace(neuron, probability=1e-9) if isinstance(neuron, nets.Kicked) else neuron


def kept(sim: Simulator) -> int:
    """Bytes that a learner keeps from tick to tick: what network rules and synapses remember, and what is written into
    one-shot synapses."""
    once = [sim.params[name].w for name, p in sim.network.circuit.projections.items() if p.post == "index"]
    remembered = [state.syn for state in sim.state.synapses.values()]
    return sum(leaf.nbytes for leaf in jax.tree.leaves((sim.state.credit, remembered, once)))


def table(metrics: Mapping[str, Any]) -> str:
    """In Markdown, a learner a row."""
    head = [
        "learner",
        *(f"{source}, % right" for source in metrics),
        "us a tick",
        "kB kept",
        "level",
        "transport",
        "rate",
    ]
    first = next(iter(metrics.values()))
    rows = [
        [
            name, *(f"{100 * metrics[source][name]['right'][-1]:.1f}" for source in metrics if name in metrics[source]),
            f"{found['us_per_tick']:.1f}", f"{found['bytes'] / 1000:.1f}", found["level"],
            "yes" if found["transport"] else "", f"{found['eta']:g}",
        ]
        for name, found in first.items()
    ]  # fmt: skip
    return markdown(head, rows)


def figure(path: Path, metrics: Mapping[str, Any]) -> None:
    drawing, axes = plt.subplots(
        1, len(metrics), figsize=(1 + 5.5 * len(metrics), 4.6), squeeze=False, layout="constrained"
    )
    for axis, (source, found) in zip(axes[0], metrics.items(), strict=True):
        for number, (name, of) in enumerate(found.items()):
            seen = np.arange(1, len(of["right"]) + 1) * SIZES[source].samples / 1000
            look = {"color": f"C{number % 10}", "ls": "-" if number < 10 else "--"}
            axis.plot(seen, 100 * np.asarray(of["right"]), lw=1.3, label=name, **look)
        axis.set(xlabel="samples seen (thousands)", ylabel="test samples right (%)", title=source.replace("_", " "))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
