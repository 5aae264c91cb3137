r"""An animal with a memory of events, in places of a grid, that learns what they are worth by living and by replay.

(1)  Event (s, a) has an index cell, and the synapse from it to the critic is its value q. In dopamine meet what is
     paid, what the place that it leads to is worth, and q: :math:`\delta = r + \gamma \max_{a'} q_{s'a'} - q`, by
     which `rules.Backup` learns.
(2)  What an event paid is taken down by its cell in one shot (`rules.OneShot`) and comes back with it in replay.
(3)  ``expected`` predicts the next place and is corrected by it: its weights are transitions T. While the animal rests
     its prediction comes back, :math:`x \leftarrow d + \gamma T^\top x`, and place cells settle to the row of the
     successor representation that belongs to the place d.
(4)  The cells of the memory compete for replay (`networks.Prioritised`).

Every moment of a run, and every backup, has two ticks: in the first there is something to remember, or a choice to be
made; in the second values change.

Source: Mattar & Daw, Nature Neuroscience 21:1609-1617 (2018).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from engrax import Phase, networks as nets, rules

GAMMA, BETA = 0.9, 5.0  # those of the paper, as are the rates
ETA, T_ETA = 1.0, 0.9
SETTLE = 150  # ticks: gamma to this power, some 1e-7, is what is missing of a row then
MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1))  # up, down, right, left


@dataclass(frozen=True, eq=False)
class World:
    """``after``: where each action leads from each place; where that is the place itself, nowhere. ``starts``: where
    the next run may begin after the ``goal``, from which nothing leads anywhere."""

    after: Int[np.ndarray, "places actions"]
    goal: int
    starts: Int[np.ndarray, " starts"]

    @property
    def places(self) -> int:
        return len(self.after)

    @property
    def leads(self) -> Int[np.ndarray, " events"]:
        """The events that lead somewhere."""
        return np.flatnonzero(self.after.ravel() != np.repeat(np.arange(self.places), len(MOVES)))

    def event(self, place: int, into: int) -> int:
        return place * len(MOVES) + int(np.flatnonzero(self.after[place] == into)[0])

    def transitions(self) -> Float[np.ndarray, "before after"]:
        """Of a random walk, and from the goal to where the next run begins."""
        t: Float[np.ndarray, "before after"] = np.eye(self.places)[self.after].mean(1)
        t[self.goal] = np.isin(np.arange(self.places), self.starts) / len(self.starts)
        return t


def grid(walls: Int[np.ndarray, "rows columns"], goal: tuple[int, int], start: tuple[int, int] | None = None) -> World:
    """The world of a map in which walls are 1. Without a ``start`` a run begins anywhere."""
    free = np.argwhere(walls == 0)
    number = {tuple(at): k for k, at in enumerate(free.tolist())}
    after = np.array(
        [[number.get((row + up, column + right), k) for up, right in MOVES] for k, (row, column) in enumerate(free)]
    )
    after[number[goal]] = number[goal]
    anywhere = np.delete(np.arange(len(free)), number[goal])
    return World(after, number[goal], anywhere if start is None else np.array([number[start]]))


def track(places: int) -> World:
    """From one end to the other."""
    return grid(np.zeros((1, places), int), (0, places - 1), (0, 0))


def maze() -> World:
    """The open field of the paper, after Sutton & Barto."""
    walls = np.zeros((6, 9), int)
    walls[1:4, 2] = walls[0:3, 7] = walls[4, 5] = 1
    return grid(walls, (0, 8))


def network(world: World) -> nx.MultiDiGraph:
    """(1) to (4), with the transitions of a random walk to begin with."""
    places, actions = world.after.shape
    events = places * actions
    through = nets.Hidden(activation=jax.nn.identity)  # its slope is 1: sent back, it reads all weights at once
    cells = nets.Prioritised(world.after.ravel(), actions, gamma=GAMMA, beta=BETA, eta=ETA)
    net = nx.MultiDiGraph()
    net.add_node("place", neuron=nets.Linear(), size=places)
    net.add_node("expected", neuron=nets.Output(), size=places)
    net.add_node("index", neuron=cells, size=events)
    net.add_node("reward", neuron=through, size=1)
    net.add_node("critic", neuron=through, size=1)
    net.add_node("dopamine", neuron=nets.Linear(), size=1)
    net.graph["signals"] = {"dopamine": "dopamine"}

    predicts = rules.Gated(rules.Delta(eta=T_ETA), "encode")
    net.add_edge("place", "expected", delay=1, weights=world.transitions().T, rule=predicts)
    net.add_edge("place", "expected", port="target", topology=nets.OneToOne(), weights=1.0)
    net.add_edge("expected", "place", topology=nets.OneToOne(), weights=GAMMA, phases={"rest"})
    net.add_edge("place", "index", port="need", weights=np.repeat(np.eye(places), actions, 0))

    net.add_edge("index", "critic", weights=0.0, rule=rules.Gated(rules.Backup(eta=ETA), "learn"))
    net.add_edge("critic", "index", port="value", field="slope", tied="index->critic")
    net.add_edge("reward", "index", port="reward", field="slope", weights=0.0, rule=rules.OneShot())
    net.add_edge("index", "reward", tied="reward->index", phases={"rest"})
    net.add_edge("reward", "dopamine", weights=1.0)
    net.add_edge("index", "dopamine", field="goal", weights=1.0)
    net.add_edge("critic", "dopamine", weights=-1.0)
    return net


def laps(
    world: World, path: Sequence[int], rewards: Float[np.ndarray, " laps"], backups: int, *, random: bool = False,
    seed: int = 0,
) -> tuple[dict[str, Any], list[Phase], dict[str, Any]]:  # fmt: skip
    """Drive, phases and signals of runs along a ``path`` of places, with a reward at its end.

    A lap is two trials: the animal waits where the path begins, and runs. After each it rests, with so many
    ``backups``; need is counted from where its last event began then, as in the authors' simulations. In ``random``
    order events that lead somewhere are drawn with replacement, in place of competing.
    """
    laps, moments, events = len(rewards), len(path), world.after.size
    here = np.eye(world.places)
    lived = np.zeros((2, moments, events))
    lived[1, 1:] = np.eye(events)[[world.event(*step) for step in pairwise(path)]]
    paid = np.zeros((laps, 2, moments, 1))
    paid[:, 1, -1, 0] = rewards
    goes = lived.any(-1).astype(float).reshape(-1)

    turns = np.concatenate([np.zeros(SETTLE), np.tile([0.0, 1.0], backups)])
    at = np.stack([np.full(moments, path[0]), path])
    stays = np.repeat(at[:, -2], len(turns))
    drawn = np.random.default_rng(seed).choice(world.leads, (2 * laps, len(turns)))
    asked = np.concatenate([np.ones(SETTLE), turns[SETTLE:]])  # so that nothing is chosen while need settles
    drive = {
        "place": {"run": _each(here[at], laps), "rest": np.tile(here[stays], (laps, 1))},
        "index": {
            "run": _each(lived, laps),
            "rest": (np.eye(events)[drawn] * turns[:, None] * random).reshape(-1, events),
        },
        "index.ask": {"rest": np.tile(asked[:, None] * (not random), (2 * laps, events))},
        "reward": {"run": np.repeat(paid.reshape(-1, 1), 2, 0)},
    }
    signals = {
        "encode": {"run": np.tile(np.kron(goes, [1.0, 0.0]), laps), "rest": np.zeros(2 * laps * len(turns))},
        "learn": {"run": np.tile(np.kron(goes, [0.0, 1.0]), laps), "rest": np.tile(turns, 2 * laps)},
    }
    return drive, [Phase("run", 2 * moments), Phase("rest", len(turns), reset=frozenset({"index"}))], signals


def line(places: int) -> nx.MultiDiGraph:
    """A critic that learns what places are worth, and a memory of the moments of a walk."""
    net = nx.MultiDiGraph()
    for name, size in (("place", places), ("reward", 1)):
        net.add_node(name, neuron=nets.Input(), size=size)
    net.add_node("critic", neuron=nets.Linear(), size=1)
    net.add_node("dopamine", neuron=nets.TDError(gamma=GAMMA), size=1)
    net.add_edge("place", "critic", weights=0.0, rule=rules.Gated(rules.TD(eta=1.0, gamma=GAMMA), "learn"))
    net.add_edge("critic", "dopamine", weights=1.0)
    net.add_edge("reward", "dopamine", port="reward", weights=1.0)
    net.graph["signals"] = {"dopamine": "dopamine"}
    nets.add_memory(net, places + 1, {"place": "drive", "reward": "drive"})
    return net


def walks(places: int, count: int, order: str) -> tuple[dict[str, Any], list[Phase], dict[str, Any]]:
    """Drive, phases and signals of walks along a track. TD(0) learns in every step that comes again, from the
    ``"first"`` on or from the ``"last"`` back; or in the walk itself, and in nothing that comes again (``"walk"``)."""
    task = nets.tasks.linear_track(count, places=places)
    steps = np.array([(t, t + 1) for t in range(places)])
    again = np.eye(places + 1)[(steps[::-1] if order == "last" else steps).ravel()]
    drive = {
        "place": {"live": task.drive["input"]},
        "reward": {"live": task.target},
        "index": {"live": np.tile(np.eye(places + 1), (count, 1)), "replay": np.tile(again, (count, 1))},
    }
    live = Phase("live", places + 1, signals={"encode": 1.0}, reset=True)
    replay = Phase("replay", 2 * places, signals={"encode": 0.0}, reset=True)
    in_walk = order == "walk"
    learn = {
        "live": np.full(count * (places + 1), float(in_walk)),
        "replay": np.tile([0.0, float(not in_walk)], count * places),
    }
    return drive, [live, replay], {"learn": learn}


def _each(rows: Any, laps: int) -> Any:
    """Both ticks of every moment of two trials, in every lap."""
    return np.tile(np.repeat(rows.reshape(-1, rows.shape[-1]), 2, 0), (laps, 1))
