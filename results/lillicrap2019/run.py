"""After Lillicrap & Santoro (2019): replay in place of backpropagation through time, and recall over a long delay. See
README.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax
from jaxtyping import Float

from engrax import Phase, networks as nets, rules, sweep

from ..choices import check, run_parts
from .door import LEARNERS, key_and_door

PARTS = ("equality", "decay", "learning", "long_delay")
SIZES = (2, 24, 2)
TICKS = 20  # of a trial whose gradient is taken
WAIT = 18  # ticks between the two stimuli of the task that is learned, of 24 in all
LONG = 40  # the same where it is recalled
FADING = 0.8  # gain of the recurrent weights there: at first nothing is left of the first stimulus after the wait
ETA = 3e-3  # of Adam
SHORT = 8  # ticks that truncated learners go back
HIDDEN = ("input->hidden", "hidden->hidden", "bias->hidden")
PLASTIC = (*HIDDEN, "hidden->output", "bias->output")
BACK = ("output->hidden", "hidden->hidden, back")  # where they have weights of their own
TAUGHT = 1500  # trials in which feedback learns, decaying by `FORGET` in each
FORGET = 0.005

Array = Float[np.ndarray, "..."]


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    seeds: int = 4,
    trials: int = 1500,
    episodes: int = 2000,
    replicas: int = 10,
) -> dict[str, Any]:
    """Run the chosen ``parts`` and write replay.png, door.png and metrics.json to ``out``.

    ``seeds`` networks are compared and learn, for so many ``trials``; so many ``replicas`` of the agent live for
    ``episodes``. ``quick``: two seeds, few conditions, no learning, 200 episodes of three replicas.
    """
    check("part", parts, PARTS, "parts")
    if quick:
        seeds, episodes, replicas = min(seeds, 2), min(episodes, 200), min(replicas, 3)
        parts = tuple(part for part in parts if part != "learning")
    chosen = range(seed, seed + seeds)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "equality": lambda: {"equality": equality(chosen)},
        "decay": lambda: {"decay": decay(chosen, quick)},
        "learning": lambda: {"learning": learning(chosen, trials)},
        "long_delay": lambda: {"long_delay": long_delay(range(seed, seed + replicas), episodes, quick)},
    }
    metrics = run_parts(out, parts, work)
    if "decay" in metrics:
        replay_figure(out / "replay.png", metrics)
    if "long_delay" in metrics:
        door_figure(out / "door.png", metrics["long_delay"])
    return metrics


# Replay


def network(rule: Any, *, alpha: float = 1.0, feedback: Any = "symmetric") -> nx.MultiDiGraph:
    return nets.recurrent(SIZES, rule, hidden=nets.LeakyHidden(alpha=alpha), feedback=feedback)


def classifier(rule: Any, feedback: Any = None, sizes: tuple[int, ...] = SIZES) -> nx.MultiDiGraph:
    output = nets.LeakyOutput(lateral=nets.Softmax())
    return nets.recurrent(sizes, rule, output=output, recurrent=nets.Orthogonal(FADING), feedback=feedback)


def replayed(
    drive: Mapping[str, Array], ticks: int, capacity: int, order: Any = "reverse", noise: float = 0.0
) -> tuple[dict[str, Any], list[Phase]]:
    """The drive and the phases of trials that are lived through and replayed."""
    given = {name: {"live": rows} for name, rows in drive.items()} | nets.replay_drive(ticks, capacity, order)
    if noise:
        given["hidden.recall"] = {"replay": nets.gaussian(noise * np.eye(SIZES[1]))}
    live = Phase("live", ticks, signals={"encode": 1.0}, reset=True)
    replay = Phase("replay", 2 * min(ticks, capacity), signals={"encode": 0.0}, reset=True)
    return given, [live, replay]


def change(net: nx.MultiDiGraph, drive: Any, trial: Any, seeds: range, given: Mapping[str, Array]) -> dict[str, Array]:
    """What one trial does to the weights, drawn or ``given``, (seeds, post, pre) by projection."""
    sim = sweep(net, {"seed": seeds})
    for name, w in given.items():
        if name in sim.params:
            sim.set_weights(name, w)
    before = {name: np.asarray(sim.params[name].w) for name in PLASTIC}
    sim.run(drive, trial=trial, trials=1)
    return {name: np.asarray(sim.params[name].w) - before[name] for name in PLASTIC}


def gradient(
    drive: Any, seeds: range, alpha: float = 1.0, weights: Mapping[str, Array] = MappingProxyType({})
) -> dict[str, Array]:
    net = network(rules.BPTT(eta=1.0, window=TICKS), alpha=alpha, feedback=None)
    return change(net, drive, Phase("live", TICKS, plastic="last", reset=True), seeds, weights)


def by_replay(
    drive: Any, seeds: range, *, alpha: float = 1.0, capacity: int = TICKS, order: Any = "reverse", noise: float = 0.0,
    release: float = 1.0, feedback: Any = "symmetric", weights: Mapping[str, Array] = MappingProxyType({}),
) -> dict[str, Array]:  # fmt: skip
    net = network(rules.Accumulated(rules.Delta(eta=1.0)), alpha=alpha, feedback=feedback)
    nets.add_replay(net, capacity, feedback=feedback, release=release)
    return change(net, *replayed(drive, TICKS, capacity, order, noise), seeds, weights)


def with_learned_feedback(seeds: range) -> dict[str, Array]:
    """All weights after trials with replay in which the feedback learned, too."""
    net = network(rules.Accumulated(rules.Delta(eta=0.02)), feedback=None)
    nets.add_feedback(net, kind="kolen_pollack", decay=FORGET)
    nets.add_replay(net, TICKS, feedback="kolen_pollack", decay=FORGET)
    sim = sweep(net, {"seed": seeds})
    drive, trial = replayed(nets.tasks.add(TAUGHT * TICKS).drive, TICKS, TICKS)
    sim.run(drive, trial=trial)
    return {name: np.asarray(sim.params[name].w) for name in (*PLASTIC, *BACK)}


def equality(seeds: range) -> dict[str, float]:
    """The largest difference between what replay and the gradient do, over the largest change, by leak."""
    drive = nets.tasks.add(TICKS).drive
    found = {}
    for alpha in (1.0, 0.5):
        exact, ours = gradient(drive, seeds, alpha), by_replay(drive, seeds, alpha=alpha)
        largest = max(float(np.abs(dw).max()) for dw in exact.values())
        found[f"alpha {alpha:g}"] = max(float(np.abs(ours[name] - exact[name]).max()) for name in PLASTIC) / largest
    return found


def decay(seeds: range, quick: bool) -> dict[str, Any]:
    """The cosine of replay's change of the hidden units' weights with the gradient's, of every seed."""
    drive = nets.tasks.add(TICKS).drive
    drawn = gradient(drive, seeds)

    def cosines(exact: Mapping[str, Array] = drawn, **given: Any) -> list[float]:
        ours = by_replay(drive, seeds, **given)
        a, b = (np.concatenate([dw[n].reshape(len(seeds), -1) for n in HIDDEN], 1) for dw in (ours, exact))
        return [float(c) for c in (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)]

    conditions: dict[str, dict[str, dict[str, Any]]] = {
        "capacity": {str(n): {"capacity": n} for n in ((4, 20) if quick else (1, 2, 4, 8, 12, 20))},
        "noise": {f"{s:g}": {"noise": s} for s in ((0.4,) if quick else (0.1, 0.2, 0.4, 0.8))},
        "release": {f"{p:g}": {"release": p} for p in ((0.5,) if quick else (0.9, 0.7, 0.5, 0.3))},
        "other": {"forward": {"order": "forward"}, "random feedback": {"feedback": "random"}},
    }
    if not quick:
        weights = with_learned_feedback(seeds)
        given = {"exact": gradient(drive, seeds, weights=weights), "feedback": "random"}
        forward = {name: weights[name] for name in PLASTIC}
        conditions["other"]["learned feedback"] = {**given, "weights": weights}
        conditions["other"]["random feedback, the same weights"] = {**given, "weights": forward}
    return {kind: {name: cosines(**given) for name, given in each.items()} for kind, each in conditions.items()}


def learning(seeds: range, trials: int) -> dict[str, list[list[float]]]:
    """The fraction of right answers in every tenth of the trials, by learner and seed: delayed match to sample."""
    task = nets.tasks.delayed_match(trials, delay=WAIT)
    ticks = task.ticks or trials
    plain = Phase("live", ticks, plastic="last", reset=True)
    conditions: dict[str, dict[str, Any]] = {
        "replay": {},
        f"replay of the last {SHORT} ticks": {"capacity": SHORT},
        "replay, recall with noise 0.05": {"noise": 0.05},
        "replay, random feedback": {"feedback": "random"},
        "replay, learned feedback": {"feedback": "kolen_pollack"},
        "forward replay": {"order": "forward"},
    }

    answers = task.target.reshape(trials, ticks, -1)[:, -1]

    def right(net: nx.MultiDiGraph, drive: Any, trial: Any, length: int) -> list[list[float]]:
        return tenths_right(net, drive, trial, seeds, answers, ticks - 1, length)

    found = {}
    for name, window in {"backpropagation through time": ticks, f"the same, {SHORT} ticks": SHORT}.items():
        net = classifier(rules.BPTT(eta=ETA, window=window, optimiser=optax.adam))
        found[name] = right(net, task.drive, plain, ticks)
    for name, given in conditions.items():
        feedback, capacity = given.pop("feedback", "symmetric"), given.pop("capacity", ticks)
        net = classifier(rules.Adam(rules.Accumulated(rules.Delta(eta=1.0)), eta=ETA), feedback)
        nets.add_replay(net, capacity, feedback=feedback)
        drive, trial = replayed(task.drive, ticks, capacity, **given)
        found[name] = right(net, drive, trial, ticks + 2 * capacity)
    return found | recalling(seeds, trials)


def tenths_right(
    net: nx.MultiDiGraph, drive: Any, trial: Any, seeds: range, answers: Array, at: int, length: int
) -> list[list[float]]:
    """The fraction right in every tenth of the trials, of such a length, by what the output says in tick ``at``."""
    sim = sweep(net, {"seed": seeds})
    x = sim.run(drive, trial=trial, record={"output.x": 1})["output.x"]
    said = x.reshape(len(answers), length, len(seeds), -1)[:, at].argmax(-1)
    right = said == answers.argmax(-1)[:, None]
    tenths = right[: len(right) // 10 * 10].reshape(10, -1, len(seeds)).mean(1)
    return [[float(v) for v in row] for row in tenths.T]


# Recall


def recalling(seeds: range, trials: int) -> dict[str, list[list[float]]]:
    """As `learning`, of the task in a form that can be asked for: stimuli of one tick, an input more that is 1 with
    each, and the second stimulus stays for the answer; and of a longer wait."""
    task = nets.tasks.delayed_match(trials, delay=LONG, shown=1)
    ticks = LONG + 3
    x, answers = task.drive["input"].reshape(trials, ticks, -1).copy(), task.target.reshape(trials, ticks, -1)[:, -1]
    x[:, -1] = x[:, -2]
    x = np.concatenate([x, x.sum(-1, keepdims=True)], -1)
    sizes = (x.shape[-1], *SIZES[1:])
    rule = rules.Adam(rules.Accumulated(rules.Delta(eta=1.0)), eta=ETA)
    drive = {
        "input": {"live": x[:, :-2].reshape(-1, sizes[0]), "cue": x[:, -2], "answer": x[:, -1]},
        "output.target": {"answer": answers},
        "output.mute": {"live": 1.0, "cue": 1.0},
        **nets.recall_drive(ticks - 2),
    }
    live = Phase("live", ticks - 2, signals={"encode": 1.0}, reset=True)
    trial = [live, *(Phase(name, n, signals={"encode": 0.0}) for name, n in (("cue", 1), ("answer", 1), ("recall", 2)))]
    found = {}
    for name, credit in {"recall": 1.0, "recall, no credit to the event": 0.0}.items():
        net = classifier(rule, "symmetric", sizes)
        nets.add_replay(net, ticks - 2)
        nets.add_recall(net)
        {data.get("name"): data for *_, data in net.edges(data=True)}["hidden, recalled"]["weights"] = credit
        found[name] = tenths_right(net, drive, trial, seeds, answers, ticks - 1, ticks + 2)
    net = classifier(rule, "symmetric", sizes)
    nets.add_replay(net, SHORT)
    mute = np.tile(np.arange(ticks)[:, None] < ticks - 1, (trials, SIZES[-1])).astype(float)
    shown = {"input": x.reshape(-1, sizes[0]), "output.target": np.repeat(answers, ticks, 0), "output.mute": mute}
    replay = replayed(shown, ticks, SHORT)
    name = f"no recall, replay of the last {SHORT} ticks"
    found[name] = tenths_right(net, *replay, seeds, answers, ticks - 1, ticks + 2 * SHORT)
    return found


def long_delay(seeds: range, episodes: int, quick: bool) -> dict[str, Any]:
    """The probability of taking the key at each of 20 stages and in the last episode, by learner, standard deviation of
    the apples and replica."""
    found: dict[str, Any] = {}
    agents = [("recall", 5.0), ("TD", 5.0), ("TVT", 5.0)]
    if not quick:
        agents += [("undiscounted", 5.0), ("recall", 20.0), ("undiscounted", 20.0), ("TVT", 20.0)]
    for learner, apples in agents:
        net, drive, trial = key_and_door(learner, episodes, apples, seeds[0])
        sim = sweep(net, {"seed": seeds})
        p = sim.run(drive, trial=trial, record={"actor.p": 1})["actor.p"]
        first = [phase.name for phase in trial].index("act") if learner == "TVT" else 0  # tick in which it acts
        p = p.reshape(episodes, -1, len(seeds))[:, first]
        stages = p.reshape(20, -1, len(seeds)).mean(1)
        of = {"p": [[float(v) for v in row] for row in stages.T], "last": [float(v) for v in p[-1]]}
        found[f"{learner}, apples {apples:g}"] = of
    return found


# Figures


def replay_figure(path: Path, metrics: Mapping[str, Any]) -> None:
    panels = {
        "capacity": f"events remembered, of {TICKS}",
        "noise": "noise on the recalled state (sd)",
        "release": "synapses that reactivate",
    }
    curves = metrics.get("learning")
    drawing, axes = plt.subplots(
        1, 4 if curves else 3, figsize=(14 if curves else 9.5, 3.2), layout="constrained",
        width_ratios=(1, 1, 1, 1.4) if curves else None,
    )  # fmt: skip
    perfect = metrics["decay"]["capacity"][str(TICKS)]
    for axis, (kind, label) in zip(axes, panels.items(), strict=False):
        values = dict(metrics["decay"][kind])
        if kind != "capacity":
            values["0" if kind == "noise" else "1"] = perfect
        at = sorted(values, key=float)
        x, y = [float(v) for v in at], np.array([values[v] for v in at])
        axis.plot(x, y, color="0.75", lw=0.8)
        axis.plot(x, y.mean(1), "o-", ms=4)
        for name, style in (("forward", ":"), ("random feedback", "--"), ("learned feedback", "-.")):
            if name in metrics["decay"]["other"]:
                axis.axhline(np.mean(metrics["decay"]["other"][name]), color="0.4", lw=1, ls=style, label=name)
        axis.set(xlabel=label, ylim=(0, 1.05))
    axes[0].set_ylabel("cosine with the gradient")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.2))
    if curves:
        for number, (name, found) in enumerate(curves.items()):
            tenths = np.mean(found, axis=0)
            exact = number < 2  # what replay of as many events lies on top of
            other = {"color": f"C{number - 2}", "lw": 1.4, "ls": "--" if "recall" in name.split(",")[0] else "-"}
            look: dict[str, Any] = {"color": f"C{number}", "lw": 5, "alpha": 0.3} if exact else other
            axes[3].plot(np.arange(0.05, 1, 0.1) * 100, tenths, label=name, **look)
        axes[3].axhline(0.5, color="0.6", lw=0.8, ls="--")
        axes[3].set(xlabel="trials (%)", ylabel="right answers", ylim=(0.4, 1.02))
        axes[3].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(drawing, axes, path)


def door_figure(path: Path, found: Mapping[str, Any]) -> None:
    drawing, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for name, of in found.items():
        p = np.array(of["p"]).T
        at = (np.arange(len(p)) + 0.5) / len(p) * 100
        color, style = f"C{LEARNERS.index(name.split(',')[0])}", "--" if name.endswith("20") else "-"
        axis.plot(at, p, color=color, lw=0.5, alpha=0.4, ls=style)
        axis.plot(at, p.mean(1), color=color, lw=2, ls=style, label=name)
    axis.set(xlabel="episodes (%)", ylabel="probability of taking the key", ylim=(-0.02, 1.02))
    axis.legend(frameon=False, fontsize=8)
    _finish(drawing, [axis], path)


def _finish(drawing: Any, axes: Any, path: Path) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
