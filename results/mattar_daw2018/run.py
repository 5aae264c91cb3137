"""Mattar & Daw (2018): which memory to go through next, on a track and in a maze. See README.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int

from engrax import Simulator

from ..choices import check, run_parts
from .agent import GAMMA, World, laps, line, maze, network, track, walks

PARTS = ("walks", "order", "track", "maze")
PLACES = 10
BACKUPS = 20  # in a rest, as in the paper
LONG = 5  # places of a replay that counts as a sequence, as in the paper
WORTH = 1e-4  # of a backup that gains something: without any a sequence is worth less than 3e-5
ORDERS = {"forward TD(0)": "walk", "forward replay": "first", "reverse replay": "last"}

Array = Float[np.ndarray, "..."]


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    animals: int = 20,
    runs: int = 50,
    replicas: int = 20,
) -> dict[str, Any]:
    """Run the chosen ``parts`` and write replay.png and metrics.json to ``out``.

    So many ``animals`` make so many ``runs`` each; learning with random replay has so many ``replicas``. ``quick``: on
    the track alone, two animals, ten runs, five replicas.
    """
    check("part", parts, PARTS, "parts")
    if quick:
        animals, runs, replicas = min(animals, 2), min(runs, 10), min(replicas, 5)
        parts = tuple(part for part in parts if part in ("order", "track"))
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "walks": lambda: {"walks": {str(n): exact_after(n) for n in (10, 20, 50)}},
        "order": lambda: {"order": order(range(seed, seed + animals), runs)},
        "track": lambda: {"track": on_track(range(seed, seed + replicas))},
        "maze": lambda: {"maze": in_maze(range(seed, seed + replicas))},
    }
    metrics = run_parts(out, parts, work)
    if {"order", "track"} <= set(metrics):
        figure(out / "replay.png", metrics)
    return metrics


def exact_after(places: int) -> dict[str, int]:
    """Walks until the start of a track is worth what it should be, to rounding, by how it is learned."""
    sim = Simulator(line(places))
    fresh, found = sim.state, {}
    for name, how in ORDERS.items():
        sim.state = fresh
        drive, trial, signals = walks(places, places + 1, how)
        ticks = sum(phase.ticks for phase in trial)
        values = sim.run(drive, trial=trial, signals=signals, record={"place->critic.w": ticks})["place->critic.w"]
        exact = np.isclose(values[:, 0, 0], GAMMA ** (places - 1), rtol=1e-5)
        found[name] = int(exact.argmax()) + 1 if exact.any() else places + 2
    return found


class Animal:
    """One simulator for many lives in a world."""

    def __init__(self, world: World, path: list[int]) -> None:
        self.world, self.path = world, path
        self.sim = Simulator(network(world))
        self.fresh = self.sim.state
        self.need = np.zeros(world.places)  # as place cells had it in the end

    def missing(self) -> float:
        """The largest difference between need in the last rest and the row of the successor representation."""
        t = np.asarray(self.sim.params["place->expected"].w).T
        exact = np.linalg.inv(np.eye(len(t)) - GAMMA * t)[self.path[-2]]
        return float(np.abs(self.need - exact).max())

    def live(self, rewards: Array, backups: int, **given: Any) -> tuple[Int[np.ndarray, "..."], Array, Array]:
        """A life from its beginning: the events replayed and their worth, (laps, 2, backups), and the values before
        each and after the last, (laps, 2, backups + 1, places, actions)."""
        self.sim.state = self.fresh
        drive, trial, signals = laps(self.world, self.path, rewards, backups, **given)
        lap = 2 * sum(phase.ticks for phase in trial)
        fields = {"index.x": 1, "index.worth": 1, "index.q": 1, "index->critic.w": lap // 2, "place.x": lap}
        found = self.sim.run(drive, trial=trial, signals=signals, record=fields)
        x, worth, q = (
            found[name].reshape(len(rewards), 2, -1, self.world.after.size)[:, :, -2 * backups :]
            for name in ("index.x", "index.worth", "index.q")
        )
        self.need = found["place.x"][-1]
        events = x[:, :, 1::2].argmax(-1)
        worth = np.take_along_axis(worth[:, :, 1::2], events[..., None], -1)[..., 0]
        last = found["index->critic.w"].reshape(len(rewards), 2, 1, -1)
        return events, worth, np.concatenate([q[:, :, ::2], last], 2).reshape(*q.shape[:2], -1, *self.world.after.shape)


def directions(world: World, events: Int[np.ndarray, "*rests backups"]) -> Int[np.ndarray, "*rests steps"]:
    """Of each step from one replayed event to the next: 1 forward, -1 reverse, 0 neither."""
    before, after = events // world.after.shape[1], world.after.ravel()[events]
    forward, reverse = after[..., :-1] == before[..., 1:], after[..., 1:] == before[..., :-1]
    return np.where(reverse, -1, np.where(forward, 1, 0))


def sequences(steps: Int[np.ndarray, " steps"], direction: int) -> int:
    """How many replays of `LONG` places or more go in a direction."""
    runs = "".join("x" if step == direction else " " for step in steps).split()
    return sum(len(run) + 1 >= LONG for run in runs)


def order(seeds: range, runs: int) -> dict[str, Any]:
    """In what order the track is replayed before and after a run, how often in reverse after a reward that is more or
    less than the last, and the first replays of the first animal."""
    world = track(PLACES)
    animal = Animal(world, list(range(PLACES)))
    rewards = np.stack([np.maximum(np.random.default_rng(seed).normal(1, 0.1, runs), 0) for seed in seeds])
    lives = [animal.live(each, BACKUPS)[:2] for each in rewards]
    events, worth = (np.stack(each) for each in zip(*lives, strict=True))
    steps = directions(world, events)
    found: dict[str, Any] = {}
    for k, when in enumerate(("before", "after")):
        # before the first run there is nothing to replay that was ever paid
        those, gains = (a[:, int(when == "before") :, k] for a in (steps, worth[..., 1:] > WORTH))
        rests = those.reshape(-1, BACKUPS - 1)
        found[when] = {
            name: {
                "steps": float((those == sign).mean()),
                "steps that gain": float((those == sign)[gains].mean()) if gains.any() else None,
                "first steps": float((those[..., 0] == sign).mean()),
                "sequences": float(np.mean([sequences(rest, sign) for rest in rests])),
            }
            for name, sign in (("forward", 1), ("reverse", -1))
        }
        found[when]["steps that gain per lap"] = float(gains.sum(-1).mean())
    more = np.diff(rewards) > 0
    reverse = np.array([[sequences(rest, -1) for rest in each] for each in steps[:, 1:, 1]])
    found["reverse"] = {"after more": float(reverse[more].mean()), "after less": float(reverse[~more].mean())}
    return {**found, "need, difference": animal.missing(), "events": events[0, :3].tolist()}


def on_track(seeds: range) -> dict[str, Any]:
    """The value of the start after each backup, after one rewarded run, and backups until it is exact."""
    animal = Animal(track(PLACES), list(range(PLACES)))
    target = GAMMA ** (PLACES - 2)
    backups = 40 * PLACES

    def start(**given: Any) -> tuple[list[float], int]:
        values = animal.live(np.ones(1), backups, **given)[2][0, 1, :, 0].max(-1)
        exact = np.isclose(values, target, rtol=1e-5)
        return values.tolist(), int(exact.argmax()) if exact.any() else backups + 1

    curves = {"prioritised": [start()], "random": [start(random=True, seed=seed) for seed in seeds]}
    return {
        name: {"value": np.mean([value for value, _ in each], 0).tolist(), "backups": [count for _, count in each]}
        for name, each in curves.items()
    }


def in_maze(seeds: range, backups: int = 3000) -> dict[str, Any]:
    """What the best actions earn after some of the backups, when the goal has been found once, and backups until that
    is within 1 % of what exact values earn."""
    world = maze()
    door = next(s for s in range(world.places) if s != world.goal and world.goal in world.after[s])
    animal = Animal(world, [door, world.goal])
    best = policy_value(world, optimal(world))

    def earned(**given: Any) -> tuple[Array, int]:
        values = np.array([policy_value(world, q) for q in animal.live(np.ones(1), backups, **given)[2][0, 1]])
        near = values >= 0.99 * best
        return values, int(near.argmax()) if near.any() else backups + 1

    at = np.unique(np.geomspace(1, backups + 1, 100).astype(int)) - 1
    curves = {"prioritised": [earned()], "random": [earned(random=True, seed=seed) for seed in seeds]}
    found = {
        name: {"earned": np.mean([value[at] for value, _ in each], 0).tolist(), "backups": [n for _, n in each]}
        for name, each in curves.items()
    }
    return {"best": best, "at": at.tolist(), **found}


def policy_value(world: World, q: Float[np.ndarray, "places actions"]) -> float:
    """The mean discounted reward of the best actions, drawn among equals, from a place where a run may begin."""
    best = np.isclose(q, q.max(1, keepdims=True), rtol=1e-5)
    policy = best / best.sum(1, keepdims=True)
    policy[world.goal] = 0.0
    step = (policy[..., None] * np.eye(world.places)[world.after]).sum(1)
    value = np.linalg.solve(np.eye(world.places) - GAMMA * step, step[:, world.goal])
    return float(value[world.starts].mean())


def optimal(world: World) -> Float[np.ndarray, "places actions"]:
    """Values of all events by iteration; blocked ones are never replayed and stay 0."""
    q = np.zeros(world.after.shape)
    leads = world.after != np.arange(world.places)[:, None]
    for _ in range(world.places):
        q = leads * ((world.after == world.goal) + GAMMA * q.max(1)[world.after])
    return q


def figure(path: Path, metrics: dict[str, Any]) -> None:
    maze_too = "maze" in metrics
    panels = 4 if maze_too else 3
    widths = [1.4, 0.8, 1, 1][:panels]
    drawing, axes = plt.subplots(1, panels, figsize=(3.4 * panels, 3.2), layout="constrained", width_ratios=widths)
    colors = {1: "C0", -1: "C3", 0: "0.6"}
    world = track(PLACES)
    events = np.array(metrics["order"]["events"])
    begin = 0
    for lap, k in ((0, 1), (1, 0), (1, 1), (2, 0), (2, 1)):
        replayed = events[lap, k]
        steps = directions(world, replayed)
        at = begin + np.arange(BACKUPS)
        for i, step in enumerate(steps):
            axes[0].plot(at[i : i + 2], replayed[i : i + 2] // 4 + 1, color=colors[int(step)], lw=1)
        axes[0].plot(at, replayed // 4 + 1, "k.", ms=3)
        axes[0].text(at.mean(), PLACES + 0.3, f"{'after' if k else 'before'} {lap + 1}", ha="center", fontsize=7)
        axes[0].axvline(begin + BACKUPS + 1.5, color="0.85", lw=0.8)
        begin += BACKUPS + 4
    axes[0].set(
        xlabel=f"backups, {BACKUPS} in each rest before and after a run",
        ylabel="place",
        ylim=(0.5, PLACES + 1),
        xticks=[],
    )
    for k, (name, color) in enumerate((("forward", "C0"), ("reverse", "C3"))):
        heights = [metrics["order"][when][name]["sequences"] for when in ("before", "after")]
        axes[1].bar(np.arange(2) + 0.4 * (k - 0.5), heights, 0.38, color=color, label=name)
    axes[1].set(xticks=[0, 1], ylabel=f"replays of {LONG} places or more, per run")
    axes[1].set_xticklabels(["before", "after"])
    axes[1].legend(frameon=False, fontsize=8)
    for name, color in (("prioritised", "C1"), ("random", "0.5")):
        value = metrics["track"][name]["value"]
        axes[2].plot(np.arange(len(value)), value, color=color, label=name)
        if maze_too:
            axes[3].plot(np.array(metrics["maze"]["at"]) + 1, metrics["maze"][name]["earned"], color=color, label=name)
    axes[2].set(xlabel="backups after the first rewarded run", ylabel="value of the start, track")
    axes[2].legend(frameon=False, fontsize=8)
    if maze_too:
        best = metrics["maze"]["best"]
        axes[3].axhline(best, color="k", lw=0.8, ls=":")
        axes[3].text(1, 0.98 * best, "exact values", va="top", fontsize=8)
        axes[3].set(xscale="log", xlabel="backups after the goal is found (+ 1)", ylabel="discounted reward, maze")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
