"""Learning to classify: epochs over a labelled data set, and errors on what was kept apart."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from engrax import Phase, Simulator, locality, networks as nets

TESTED = 500  # samples that are looked at in a tick
BROADCAST = ("reward", "change", "nudge", "hebbian", "awake")
LEVELS = ("synapse", "neuron", "population", "batch", "global")


@dataclass(frozen=True)
class Task:
    """Samples in rows, their classes, and those kept apart for the test."""

    train_x: Float[np.ndarray, "train n"]
    train_y: Int[np.ndarray, " train"]
    test_x: Float[np.ndarray, "test n"]
    test_y: Int[np.ndarray, " test"]
    classes: int

    @staticmethod
    def of(data: nets.Dataset, train: int | None = None, test: int | None = None) -> "Task":
        """The data set's own split; or its first ``train`` samples, tested on the ``test`` that follow them."""
        classes = len(data.classes)
        if train is None or test is None:
            return Task(data.train_x, data.train_y, data.test_x, data.test_y, classes)
        x, y, end = data.train_x, data.train_y, train + test
        return Task(x[:train], y[:train], x[train:end], y[train:end], classes)

    def updates(self, batch: int) -> int:
        """Of an epoch: what is left of the samples that make no whole batch is passed over."""
        return len(self.train_x) // batch

    def batches(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of an epoch in an order drawn anew, (updates, batch, n), and their classes."""
        order = rng.permutation(len(self.train_x))[: self.updates(batch) * batch].reshape(-1, batch)
        return self.train_x[order], self.train_y[order]

    def epoch(
        self, rng: np.random.Generator, batch: int, told: tuple[str, ...] = ("output.target",)
    ) -> dict[str, np.ndarray]:
        """Drive for an epoch, see `told_at`."""
        x, y = self.batches(rng, batch)
        return told_at(x, y, self.classes, told)


def told_at(x: np.ndarray, y: np.ndarray, classes: int, told: tuple[str, ...] = ("output.target",)) -> dict[str, Any]:
    """Drive: images, and at the ports ``told`` 1 for the class, 0 for the others."""
    return {"input": x, **dict.fromkeys(told, np.eye(classes)[y])}


class Reader:
    """A copy of a network that only looks: it does not learn, and if it answers in one tick it carries no errors back.
    ``mean``: stochastic units send what they send on average. The answer is the ``field`` after so many ``ticks``."""

    def __init__(
        self, net: nx.MultiDiGraph, *, mean: bool = True, seed: int = 0, field: str = "output.x", ticks: int = 1
    ) -> None:
        looking = nets.mean_field(net) if mean else net.copy()
        if ticks == 1:
            back = [
                (pre, post, key)
                for pre, post, key, data in looking.edges(keys=True, data=True)
                if data.get("field", "x") in ("error", "goal")
            ]
            looking.remove_edges_from(back)
        for *_, data in looking.edges(data=True):
            data.pop("rule", None)
        looking.graph.pop("signals", None)
        self.sim = Simulator(looking, seed=seed)
        self._field = field
        self._look = Phase("look", ticks, plastic="never", hold=True, reset=True)

    def outputs(self, learner: Simulator, x: Float[np.ndarray, "samples n"], times: int = 1) -> Any:
        """What the output units send, (samples, classes), with the learner's weights; averaged over so many looks."""
        for name in self.sim.state.synapses:
            self.sim.set_weights(name, learner.params[name].w)
        whole = np.concatenate([x, np.zeros((-len(x) % TESTED, x.shape[1]), x.dtype)]).reshape(-1, TESTED, x.shape[1])
        looks = [self._looked(whole) for _ in range(times)]
        mean = np.mean(looks, axis=0)
        return mean.reshape(-1, mean.shape[-1])[: len(x)]

    def _looked(self, x: Float[np.ndarray, "ticks samples n"]) -> Any:
        found = self.sim.run({"input": x}, trial=self._look, record={self._field: 1})[self._field]
        return found[self._look.ticks - 1 :: self._look.ticks]

    def errors(
        self, learner: Simulator, x: Float[np.ndarray, "samples n"], y: Int[np.ndarray, " samples"], times: int = 1
    ) -> float:
        """The fraction of samples that are taken for another class."""
        return float(np.mean(self.outputs(learner, x, times).argmax(-1) != y))


def epochs(
    learner: Simulator,
    task: Task,
    count: int,
    batch: int,
    rng: np.random.Generator,
    told: tuple[str, ...] = ("output.target",),
) -> Iterator[int]:
    """Train for so many epochs, the number of each (from 1) when it is done."""
    for number in range(1, count + 1):
        learner.run(task.epoch(rng, batch, told))
        yield number


def add_reward(net: nx.MultiDiGraph, classes: int, *, change: bool = False) -> nx.MultiDiGraph:
    """The log probability of the right class, which ``critic.target`` says, as the broadcast signal ``reward``; or how
    it changed since the last tick, as ``change``."""
    net.add_node("critic", neuron=nets.LogLikelihood(), size=classes)
    net.add_edge("output", "critic", topology=nets.OneToOne(), weights=nets.Fixed(1.0))
    name = "change" if change else "reward"
    net.add_node(name, neuron=nets.Change() if change else nets.Linear(), size=1)
    net.add_edge("critic", name, weights=nets.Fixed(1.0))
    net.graph["signals"] = {name: name}
    return net


def audited(net: nx.MultiDiGraph, sim: Simulator, hidden: str) -> dict[str, Any]:
    """How far the rules reach, a competition among the ``hidden`` units included; whether weights are read backwards,
    and which signals are broadcast."""
    circuit = sim.network.circuit
    audits = [locality(data["rule"]) for *_, data in net.edges(data=True) if data.get("rule") is not None]
    competes = locality(circuit.populations[hidden].neuron).level == "population"
    levels = [audit.level for audit in audits] + ["population"] * competes
    tied = [p for p in circuit.projections.values() if p.tied is not None]
    return {
        "level": max(levels, key=LEVELS.index) if levels else "",
        "transport": any(circuit.transposed(p) for p in tied),
        "signals": sorted(set().union(*(audit.reads for audit in audits)) & {f"signals.{name}" for name in BROADCAST}),
    }


def falling(count: Any, updates: int) -> Any:
    """A schedule: 1 at first, and linearly to 0 at the last of the ``updates``."""
    return jnp.maximum(1 - count / updates, 0.0)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def mean_and_error(values: np.ndarray) -> dict[str, float]:
    """The mean and its standard error."""
    return {"mean": float(values.mean()), "error": float(values.std(ddof=1) / np.sqrt(len(values)))}


def pooled(images: np.ndarray, side: int) -> np.ndarray:
    """Images of 28 x 28 pixels as ``side`` x ``side`` means over squares of pixels, in rows; what is left over at the
    edges is not there."""
    by = 28 // side
    inside = slice((28 - side * by) // 2, (28 + side * by) // 2)
    square = images.reshape(-1, 28, 28)[:, inside, inside].reshape(-1, side, by, side, by)
    return square.mean((2, 4)).reshape(-1, side**2)  # type: ignore[no-any-return]
