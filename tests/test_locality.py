"""Declared locality is true: what a rule does not read cannot change what it does, and what it reads does.

Rules are found by introspection, so that a new one is covered the day it is written.
"""

import inspect
from typing import Any

import numpy as np
import pytest

import engrax
from engrax import networks as nets, rules
from engrax.rules.base import LocalRule

N_PRE, N_POST = 4, 3
# Two programs that compute one number may round differently; a leak is of the order of the values, 1.
ROUNDING = 1e-12


def found() -> dict[str, LocalRule]:
    """Every public rule, wrappers around BCM, which has a state of its own, and one of the other levels inside one."""
    made: dict[str, LocalRule] = {}
    for name in rules.__all__:
        thing = getattr(rules, name)
        if (
            not inspect.isclass(thing)
            or not issubclass(thing, LocalRule)
            or thing in (LocalRule, rules.Rule, rules.Wrapper)
        ):
            continue
        made[name] = thing(rules.BCM()) if issubclass(thing, rules.Wrapper) else thing()
    made["Scheduled"] = rules.Scheduled(rules.BCM(), schedule=lambda count: 1 / (1 + count))
    made["Every"] = rules.Every(rules.BCM(), n=2)
    made["Bounded"] = rules.Bounded(rules.BCM(), low=-0.5, high=0.5)
    made["Infomax"] = rules.Infomax(price=0.3)  # at its default price of 0 it would not use what it reads
    made["ForwardForward"] = rules.ForwardForward(theta=1.0)  # at 100, numbers of order 1 change nothing to 40 digits
    made["Volterra"] = rules.Volterra.of({"110": 1.0, "021": -1.0})  # by default it changes nothing
    made["SpikES"] = rules.SpikES(beta=0.1)
    made["Pool"] = rules.Pool.of({str(n): 0.1 + 0.01 * n for n in range(10)})
    made["Lindsey2020"] = rules.Lindsey2020(beta=0.5)  # at 1 the post neuron's own activity has no part
    made["ABCD"] = rules.ABCD(a=np.full((N_POST, N_PRE), 2.0), d=0.5)
    made["Bounded(Sanger)"] = rules.Bounded(rules.Sanger(), low=-5.0)
    made["Gated(Normalised)"] = rules.Gated(rules.Normalised(rules.Oja()))
    return made


RULES = found()
ALL = pytest.mark.parametrize("name", RULES)
OTHER_LEVELS = {
    "Sanger": "population",
    "Bounded(Sanger)": "population",
    "Normalised": "neuron",
    "Gated(Normalised)": "neuron",
}

Situation = dict[str, Any]


class Trial:
    """One tick of a rule in a random situation of which any part can be changed."""

    def __init__(self, bench: Any, name: str) -> None:
        self.rule = RULES[name]
        self.reads = set(engrax.locality(self.rule).reads)
        self.bench = bench(self.rule, N_PRE, N_POST)
        rng = np.random.default_rng(0)
        signals = {n.partition(".")[2] for n in self.reads if n.startswith("signals.")} - {"tick", "count"}
        self.base: Situation = {"w": rng.normal(size=(N_POST, N_PRE)), "tick": 3}
        self.base |= {f"pre.{field}": rng.normal(size=N_PRE) for field in sorted(self.bench.fields)}
        self.base |= {f"post.{field}": rng.normal(size=N_POST) for field in sorted(self.bench.fields)}
        self.base |= {f"syn.{field}": rng.normal(size=(N_POST, N_PRE)) for field in self.rule.init()}
        self.base |= {f"signals.{field}": rng.normal() for field in sorted(signals | {"decoy"})}
        self.before = self.run(self.base)

    def run(self, situation: Situation) -> dict[str, np.ndarray]:
        """New weights, their change, and the new synaptic state, (post, pre) each."""

        def group(name: str) -> dict[str, Any]:
            return {key.partition(".")[2]: value for key, value in situation.items() if key.startswith(name + ".")}

        w, syn = self.bench(
            situation["w"],
            group("pre"),
            group("post"),
            syn=group("syn") or None,
            signals=group("signals"),
            tick=situation["tick"],
        )
        return {"w": w, "dw": w - situation["w"], **syn}

    def changed(self, name: str, where: Any = ...) -> Situation:
        """The situation with other numbers in one input (at ``where``)."""
        new = np.array(self.base[name], float)
        new[where] = np.random.default_rng(1).normal(size=new[where].shape) - 0.3
        return {**self.base, name: new if new.ndim else float(new)}

    def moved(self, situation: Situation, *outputs: str) -> np.ndarray:
        """At which synapses any of the outputs is not what it was."""
        after = self.run(situation)
        names = outputs or tuple(name for name in after if name != "dw")
        return np.any([np.abs(after[name] - self.before[name]) > ROUNDING for name in names], axis=0)


@pytest.fixture(scope="module")
def trials() -> dict[str, Trial]:
    return {}


@pytest.fixture
def trial(bench: Any, name: str, trials: dict[str, Trial]) -> Trial:
    if name not in trials:
        trials[name] = Trial(bench, name)
    return trials[name]


@ALL
def test_level(name: str) -> None:
    assert engrax.locality(RULES[name]).level == OTHER_LEVELS.get(name, "synapse")


@ALL
def test_what_is_not_read_changes_nothing(trial: Trial) -> None:
    unread = [key for key in trial.base if key not in trial.reads and key not in ("w", "tick")]
    assert "signals.decoy" in unread
    assert any(key.startswith("pre.") for key in unread)
    for key in unread:
        if key.startswith("syn."):  # a state that only itself reads
            assert not trial.moved(trial.changed(key), "w").any(), key
        else:
            assert not trial.moved(trial.changed(key)).any(), key
    if not {"signals.tick", "signals.count", "noise"} & trial.reads:
        assert not trial.moved({**trial.base, "tick": 8}).any()


@ALL
def test_what_is_read_matters(trial: Trial) -> None:
    for key in trial.reads - {"noise", "released", "afferent", "efferent", "dt", "signals.tick", "signals.count", "w"}:
        changes = [trial.changed(key)]
        if key.startswith("signals."):  # of which a rule may only ask whether they are 0
            changes.append({**trial.base, key: 0.0})
        assert any(trial.moved(change).any() for change in changes), key
    if {"signals.tick", "signals.count", "noise"} & trial.reads:
        # one that draws now and then (weight perturbation) does at the start
        start = {**trial.base, **{f"syn.{n}": np.full((N_POST, N_PRE), v) for n, v in trial.rule.init().items()}}
        first, other = trial.run(start), trial.run({**start, "tick": 4})
        assert trial.moved({**trial.base, "tick": 4}).any() or np.abs(first["w"] - other["w"]).max() > ROUNDING


@ALL
def test_weight_matters_where_it_is_read_and_only_there(trial: Trial) -> None:
    outputs = [output for output in trial.before if output != "w"]
    assert trial.moved(trial.changed("w"), *outputs).any() == ("w" in trial.reads)


@ALL
def test_other_synapses_and_neurons_matter_by_the_named_route_only(trial: Trial) -> None:
    """Change one neuron or one synapse; see which synapses notice."""
    level = engrax.locality(trial.rule).level
    i, j = 1, 2
    rows, columns = np.arange(N_POST) == i, np.arange(N_PRE) == j
    row, column = np.outer(rows, np.ones(N_PRE, bool)), np.outer(np.ones(N_POST, bool), columns)
    here = row & column

    def noticed(key: str, where: Any) -> np.ndarray:
        return trial.moved(trial.changed(key, where))

    # What each change may reach: the neuron's own synapses; with "neuron" also their siblings on the same post neuron;
    # with "population" also the synapses of the same pre neuron onto post neurons that come later.
    later = np.arange(N_POST)[:, None] >= i
    for key in [key for key in trial.base if key.startswith("pre.")]:
        assert not (noticed(key, j) & ~(True if level == "neuron" else column)).any(), key
    for key in [key for key in trial.base if key.startswith("post.")]:
        assert not (noticed(key, i) & ~(later if level == "population" else row)).any(), key
    synaptic = ["w", *(key for key in trial.base if key.startswith("syn."))]
    reach = {"synapse": here, "neuron": row, "population": column & later}[level]
    for key in synaptic:
        assert not (noticed(key, (i, j)) & ~reach).any(), key
    # and by that route it does reach
    if level == "neuron":
        others = noticed("w", (i, j)) & ~here
        assert (others == (row & ~here)).all()
    if level == "population":
        below = column & later & ~here
        assert (noticed("w", (i, j)) & ~here)[below].all()
        assert noticed("post.x", i)[i + 1 :].all()
        assert not noticed("post.x", i)[:i].any()


def test_reads_are_named() -> None:
    assert engrax.locality(rules.Hebb()).reads == ("post.x", "pre.x")
    assert engrax.locality(rules.Oja()).reads == ("post.x", "pre.x", "w")
    assert engrax.locality(rules.Sanger()).reads == ("efferent", "post.x", "pre.x", "w")
    assert "afferent" in engrax.locality(rules.Normalised(rules.Hebb())).reads
    assert "signals.dopamine" in engrax.locality(rules.Gated(rules.Hebb(), signal="dopamine")).reads
    assert "noise" in engrax.locality(rules.Noisy(rules.Hebb())).reads


def test_a_name_alone_is_no_reading() -> None:
    class Names(rules.Rule):
        def update(self, w: Any, pre: Any, post: Any, signals: Any, noise: Any, dt: Any) -> Any:
            unused = pre.x * signals.reward + noise  # noqa: F841
            return post.x * dt

    reads = engrax.locality(Names()).reads
    assert {"post.x", "dt"} <= set(reads)
    assert not {"pre.x", "signals.reward", "noise"} & set(reads)


def test_afferent_sums_make_a_rule_local_to_a_neuron(bench: Any) -> None:
    class Share(rules.Rule):
        """Synapses compete for a resource of their cell."""

        def afferent(self, w: Any, pre: Any) -> Any:
            return w * pre.x

        def update(self, w: Any, post: Any, afferent: Any) -> Any:
            return post.x * (1 - afferent) * w

    assert engrax.locality(Share()).level == "neuron"
    w, x, y = np.array([[0.5, 1.0], [2.0, -1.0]]), np.array([1.0, 3.0]), np.array([1.0, 2.0])
    new, _ = bench(Share(), 2, 2)(w, {"x": x}, {"x": y})
    np.testing.assert_allclose(new - w, y[:, None] * (1 - w @ x)[:, None] * w, atol=ROUNDING)


def test_neurons() -> None:
    plain = engrax.locality(nets.Linear())
    assert plain.level == "neuron"
    assert plain.reads == ("drive", "lateral", "apical", "learning")
    assert engrax.locality(nets.Linear(lateral=nets.Softmax())).level == "population"
    assert engrax.locality(nets.Rate(lateral=nets.KWinners(1))).level == "population"
