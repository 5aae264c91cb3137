"""Every local rule on one network and the same images. See README.md."""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from engrax import Phase, SimulationError, Simulator, networks as nets, rules

from ..choices import check
from ..classification import Reader, Task, audited, epochs, falling, markdown
from .methods import METHODS, Method, Supervised, Unsupervised, log_odds

DATA = {"mnist": nets.mnist, "fashion_mnist": nets.fashion_mnist, "digits": nets.digits}
BEFORE = 10  # updates from the same weights, of which the last is compared: there are baselines of rewards then
SCALED = 1000  # images by which features are brought to a standard deviation of 1
READ_ETA, READ_MOMENTUM = 0.05, 0.9


@dataclass(frozen=True)
class Size:
    """Of a network and of its training."""

    hidden: int
    passes: int
    batch: int


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    data: tuple[str, ...] = ("mnist", "fashion_mnist"),
    methods: tuple[str, ...] = tuple(METHODS),
    hidden: int = 500,
    passes: int = 10,
    batch: int = 100,
) -> dict[str, Any]:
    """Train every method and write local_mnist.png, table.md and metrics.json.

    ``passes`` over the training images of every set in ``data``, with ``hidden`` units; what learns without a teacher
    is read by a delta rule in as many more. ``quick`` takes scikit-learn's small digits, which need no download.
    """
    if quick:
        data, hidden, passes, batch = ("digits",), 100, 5, 20
    check("data", data, DATA)
    check("method", methods, METHODS)
    metrics: dict[str, Any] = {}
    for source in data:
        task = Task.of(DATA[source]())
        for name in methods:
            try:
                found = trained(METHODS[name], task, Size(hidden, passes, batch), seed)
            except SimulationError as error:  # what diverges has no row; the others do not wait for it in vain
                print(f"{source}, {name}: {error}", file=sys.stderr, flush=True)
                continue
            metrics.setdefault(source, {})[name] = found
            (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")  # what is done survives what fails
            print(f"{source}, {name}: {100 * found['test']:.2f} % of errors", file=sys.stderr, flush=True)
    if not metrics:
        raise SimulationError(f"nothing to show: {', '.join(methods)} diverged on {', '.join(data)}")
    (out / "table.md").write_text(table(metrics))
    figure(out / "local_mnist.png", metrics)
    return metrics


def trained(method: Method, task: Task, size: Size, seed: int) -> dict[str, Any]:
    """The course of a method and what it costs."""
    net = method.network(task, size.hidden, wrapped(method.momentum, size.passes * task.updates(size.batch)))
    if isinstance(method, Supervised):
        found = supervised(method, net, task, size, seed)
    else:
        found = unsupervised(method, net, task, size, seed)
    return {"passes": size.passes, **costs(net, method), **found}


def costs(net: nx.MultiDiGraph, method: Method) -> dict[str, Any]:
    """What a presentation costs in synapses that transmit or learn, how far the rules reach, whether weights are read
    backwards, and which signals are broadcast."""
    sim = Simulator(net)
    network = sim.network
    synapses = {name: len(sim.synapses(name)[0]) for name in sim.params}
    operations = 0
    for phase in method.trial:
        alive = [n for n, p in network.circuit.projections.items() if p.phases is None or phase.name in p.phases]
        learning = {"every": phase.ticks, "last": 1, "never": 0}[phase.plastic]
        operations += phase.ticks * sum(synapses[name] for name in alive)
        operations += learning * sum(synapses[name] for name in network.learned(phase))
    return {"operations": operations, **audited(net, sim, network.circuit.projections[method.first].post)}


def table(metrics: Mapping[str, Any]) -> str:
    """In Markdown, a method a row."""
    every = {name: of[name] for of in reversed([*metrics.values()]) for name in of}
    names = dict.fromkeys(name for of in metrics.values() for name in of)
    head = [
        "rule", *(f"{source}, %" for source in metrics), "s a pass", "synaptic operations", "level", "transport",
        "broadcast", "alignment",
    ]  # fmt: skip
    rows = []
    for name in names:
        found = every[name]
        course = list(found["alignment"].values())
        signals = ", ".join(name.removeprefix("signals.") for name in found["signals"])
        rows.append([
            name, *(f"{100 * of[name]['test']:.2f}" if name in of else "diverged" for of in metrics.values()),
            f"{found['seconds'] / max(found['passes'], 1):.1f}", f"{found['operations'] / 1e6:.2f} M",
            found["level"], "yes" if found["transport"] else "", signals,
            " ".join(f"{value:.2f}" for value in dict.fromkeys((course[0], course[-1]))),
        ])  # fmt: skip
    return markdown(head, rows)


def figure(path: Path, metrics: Mapping[str, Any]) -> None:
    """Test errors at the end, and the course of errors and of alignment."""
    drawing, axes = plt.subplots(1, 3, figsize=(17, 6.5))
    names = list(next(iter(metrics.values())))
    for number, (source, found) in enumerate(metrics.items()):
        height = 0.8 / len(metrics)
        errors = [100 * found[name]["test"] if name in found else np.nan for name in names]
        axes[0].barh(np.arange(len(names)) + number * height, errors, height, label=source.replace("_", "-"))
    axes[0].set_yticks(np.arange(len(names)) + 0.4 - 0.4 / len(metrics), names)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="test errors (%)")
    axes[0].legend(frameon=False)
    source, found = next(iter(metrics.items()))
    supervised = [name for name in names if len(found[name]["alignment"]) > 1]
    colours = plt.get_cmap("tab20")
    for number, name in enumerate(supervised):
        for axis, part, scale in ((axes[1], "course", 100), (axes[2], "alignment", 1)):
            course = {int(passes): scale * value for passes, value in found[name][part].items()}
            axis.plot(list(course), list(course.values()), color=colours(number % 20), label=name)
    title = source.replace("_", "-")
    axes[1].set(yscale="log", xlabel="passes over the images", ylabel="test errors (%)", title=title)
    axes[2].set(
        xlabel="passes over the images",
        ylabel="cosine of update and gradient, first layer",
        title=title,
        ylim=(-0.3, 1.05),
    )
    axes[2].axhline(0, color="0.8", linewidth=0.8)
    axes[1].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    if supervised:
        axes[2].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def wrapped(momentum: float, updates: int) -> Callable[[rules.LocalRule], rules.LocalRule]:
    """A learning rate that falls linearly to 0 at the end, and momentum."""

    def learned(rule: rules.LocalRule) -> rules.LocalRule:
        scheduled = rules.Scheduled(rule, functools.partial(falling, updates=updates))
        return rules.Momentum(scheduled, mu=momentum) if momentum else scheduled

    return learned


def supervised(method: Supervised, net: nx.MultiDiGraph, task: Task, size: Size, seed: int) -> dict[str, Any]:
    sim, rng = Simulator(net, seed=seed), np.random.default_rng(seed)
    answers = Answers(method, net, task, size)
    course, aligned, seconds = {0: answers.errors(sim)}, {0: answers.alignment(sim)}, 0.0
    for number in range(1, size.passes + 1):
        x, y = task.batches(rng, size.batch)
        begun = time.perf_counter()
        sim.run(method.drive(x, y, size.hidden, rng), trial=method.trial)
        seconds += time.perf_counter() - begun
        course[number], aligned[number] = answers.errors(sim), answers.alignment(sim)
    return {"test": course[size.passes], "seconds": seconds, "course": course, "alignment": aligned}


def unsupervised(method: Unsupervised, net: nx.MultiDiGraph, task: Task, size: Size, seed: int) -> dict[str, Any]:
    sim, rng = Simulator(net, seed=seed), np.random.default_rng(seed)
    seconds = 0.0
    shown = of_length_1(task) if method.length else task
    for _ in range(size.passes if sim.network.learned(Phase("run")) else 0):
        x, _ = shown.batches(rng, size.batch)
        begun = time.perf_counter()
        sim.run({method.at: x}, trial=method.trial)
        seconds += time.perf_counter() - begun
    params = {name: jnp.asarray(sim.params[name].w) for name in sim.params}
    few = method.features(params, shown.train_x[:SCALED])
    mean, deviation = few.mean(0), few.std()

    @jax.jit
    def features(w: Any, x: Any) -> Any:
        return (method.features({**params, method.first: w}, x) - mean) / deviation

    read = dataclasses.replace(
        shown, train_x=np.asarray(features(params[method.first], shown.train_x)),
        test_x=np.asarray(features(params[method.first], shown.test_x)),
    )  # fmt: skip
    rule = wrapped(READ_MOMENTUM, size.passes * task.updates(size.batch))(rules.Delta(eta=READ_ETA))
    reading = nets.perceptron((size.hidden, task.classes), rule)
    delta, reader = Simulator(reading, seed=seed), Reader(reading)
    course = {}
    for number in epochs(delta, read, size.passes, size.batch, rng):
        course[number] = reader.errors(delta, read.test_x, read.test_y)
    v, b = (jnp.asarray(delta.params[name].w) for name in ("input->output", "bias->output"))
    x, y = shown.train_x[: size.batch], task.train_y[: size.batch]

    @jax.grad
    def gradient(w: Any) -> Any:
        return log_odds(features(w, x) @ v.T + b[:, 0], jnp.eye(task.classes)[y])

    bare = Simulator(method.network(task, size.hidden, lambda rule: rule), seed=seed)
    moved = update(bare, sim, method, {method.at: x[None]})
    return {
        "test": course[size.passes],
        "seconds": seconds,
        "course": course,
        "alignment": {size.passes: cosine(moved, -np.asarray(gradient(params[method.first])))},
    }


def of_length_1(task: Task) -> Task:
    """Images divided by their length; those that are black stay black."""
    train, test = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6) for x in (task.train_x, task.test_x))
    return dataclasses.replace(task, train_x=train, test_x=test)


class Answers:
    """What a learner answers to test images, and how its next update lies to the gradient of its loss."""

    def __init__(self, method: Supervised, net: nx.MultiDiGraph, task: Task, size: Size) -> None:
        self.method, self.task, self.hidden = method, task, size.hidden
        self.reader = Reader(net, field=method.asked.field, ticks=method.asked.ticks)
        self.bare = Simulator(method.network(task, size.hidden, lambda rule: rule))  # no momentum, full learning rate
        self.x, self.y = task.train_x[: size.batch], task.train_y[: size.batch]
        self.target = jnp.eye(task.classes)[self.y]
        self._gradient = jax.jit(jax.grad(self._loss))

    def errors(self, learner: Simulator) -> float:
        """On the test images."""
        asked = self.method.asked
        scores = asked.scores(self.reader.outputs(learner, asked.shown(self.task.test_x)))
        return float(np.mean(scores.argmax(-1) != self.task.test_y))

    def alignment(self, learner: Simulator) -> float:
        """The cosine between what the rule would do to the first weights now, from one batch, and minus the gradient
        of the loss on that batch, through all that the network does until it answers."""
        for _ in range(BEFORE):
            drive = self.method.drive(self.x[None], self.y[None], self.hidden, np.random.default_rng(0))
            moved = update(self.bare, learner, self.method, drive)
        weights = learner.network.weights(learner.model, learner.state)
        return cosine(moved, -np.asarray(self._gradient(weights.pop(self.method.first), weights)))

    def _loss(self, w: Any, others: Mapping[str, Any]) -> Any:
        sim, asked = self.reader.sim, self.method.asked
        x = jnp.asarray(asked.shown(self.x))
        state = sim.network.initial(sim.model, {name: s.w for name, s in sim.state.synapses.items()}, len(x))
        state = sim.network.with_weights(state, {self.method.first: w, **others})
        for _ in range(asked.ticks):
            state = sim.step(sim.model, state, {"input": x})
        population, _, field = asked.field.rpartition(".")
        return asked.loss(asked.scores(state.neurons[population][field]), self.target)


def update(sim: Simulator, learner: Simulator, method: Method, drive: Mapping[str, Any]) -> np.ndarray:
    """What one trial does to the first weights, from the learner's."""
    for name in sim.state.synapses:
        sim.set_weights(name, learner.params[name].w)
    sim.run(drive, trial=method.trial)
    moved: np.ndarray = np.asarray(sim.params[method.first].w) - np.asarray(learner.params[method.first].w)
    return moved


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """0 where there is nothing to compare."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.sum(a * b) / lengths) if lengths > 0 else 0.0
