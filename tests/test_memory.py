"""A memory of index cells, and learning from replay: against the exact gradient, and against theory of recall."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import engrax
from engrax import NetworkError, Phase, SimulationError, Simulator, networks as nets, rules

TICKS = 6
ROUNDING = 1e-12  # sums of some hundred float64 numbers of order 1, in another order


def built(rule: Any, sizes: Any = (3, 5, 2), **given: Any) -> nx.MultiDiGraph:
    hidden = nets.LeakyHidden(alpha=given.pop("alpha", 1.0), start=given.pop("start", 0.0))
    return nets.recurrent(sizes, rule, hidden=hidden, **given)


def drawn(sim: Simulator, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of order 1, given to a simulator, in every projection of the network that is to learn."""
    rng = np.random.default_rng(seed)
    names = [name for name in sim.state.synapses if "index" not in name and "reca" not in name and "kept" not in name]
    w = {name: rng.normal(size=sim.params[name].w.shape) * 0.6 for name in sorted(names)}
    for name, values in w.items():
        sim.set_weights(name, values)
    return w


def shown(trials: int, sizes: Any = (3, 5, 2), seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(trials * TICKS, sizes[0])), rng.normal(size=(trials * TICKS, sizes[-1]))
    return {"input": x, "output.target": y}


def learned(sim: Simulator, names: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(sim.params[name].w) for name in names}


def by_replay(
    net: nx.MultiDiGraph, drive: Mapping[str, Any], *, capacity: int = TICKS, order: Any = "reverse", **more: Any
) -> dict[str, np.ndarray]:
    """The weights after trials that are lived through and replayed."""
    given, trial = relived(drive, capacity, order)
    sim = Simulator(net)
    names = drawn(sim)
    sim.run({**given, **more}, trial=trial)
    return learned(sim, names)


def relived(
    drive: Mapping[str, Any], capacity: int = TICKS, order: Any = "reverse"
) -> tuple[dict[str, Any], list[Phase]]:
    """The drive and the phases of trials that are lived through and replayed."""
    replayed = nets.replay_drive(TICKS, capacity, order)
    live = Phase("live", TICKS, signals={"encode": 1.0}, reset=True)
    replay = Phase("replay", 2 * len(replayed["index"]["replay"].ago), signals={"encode": 0.0}, reset=True)
    return {**{name: {"live": rows} for name, rows in drive.items()}, **replayed}, [live, replay]


def by_gradient(net: nx.MultiDiGraph, drive: Mapping[str, Any]) -> dict[str, np.ndarray]:
    sim = Simulator(net)
    names = drawn(sim)
    sim.run(drive, trial=Phase("live", TICKS, plastic="last", reset=True))
    return learned(sim, names)


def rule() -> Any:
    return rules.Accumulated(rules.Delta(eta=0.1))


def exact(window: int = TICKS) -> Any:
    return rules.BPTT(eta=0.1, window=window)


def cosine(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]) -> float:
    first, second = (np.concatenate([(w[name] - start[name]).ravel() for name in sorted(start)]) for w in (a, b))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


# Replay


@pytest.mark.parametrize(
    ("sizes", "alpha"),
    [((3, 4, 5, 2), 0.4), *(pytest.param((3, 5, 2), alpha, marks=pytest.mark.slow) for alpha in (1.0, 0.4))],
)
def test_reverse_replay_is_backpropagation_through_time(sizes: Any, alpha: float) -> None:
    drive = shown(2, sizes)  # two trials: the second from the weights after the first
    net = built(rule(), sizes, alpha=alpha, start=0.1)
    nets.add_replay(net, TICKS)
    found = by_replay(net, drive)
    expected = by_gradient(built(exact(), sizes, alpha=alpha, start=0.1, feedback=None), drive)
    start = drawn(Simulator(built(None, sizes)))
    for name, w in expected.items():
        np.testing.assert_allclose(found[name], w, atol=ROUNDING, err_msg=name)
        assert np.abs(w - start[name]).max() > 1e-2  # it learned something


@pytest.mark.slow
def test_reverse_replay_is_the_gradient_of_a_network_written_by_hand() -> None:
    drive = shown(1)
    net = built(rule())
    nets.add_replay(net, TICKS)
    start = drawn(Simulator(built(None)))

    def loss(w: dict[str, Any]) -> Any:
        h, total = jnp.zeros(5), 0.0
        for x, y in zip(drive["input"], drive["output.target"], strict=True):
            d = w["input->hidden"] @ x + w["hidden->hidden"] @ h + w["bias->hidden"][:, 0]
            h = jnp.tanh(d)
            total = total + ((w["hidden->output"] @ h + w["bias->output"][:, 0] - y) ** 2).sum() / 2
        return total

    gradient = jax.grad(loss)({name: jnp.asarray(w) for name, w in start.items()})
    found = by_replay(net, drive)
    for name, w in start.items():
        np.testing.assert_allclose(found[name] - w, -0.1 * gradient[name], atol=ROUNDING, err_msg=name)


def test_a_memory_of_few_events_is_truncated_backpropagation() -> None:
    """Of a trial in which its last half counts, as that is all that comes again."""
    drive = shown(1)
    drive["output.mute"] = np.repeat([[1.0], [0.0]], TICKS // 2, 0).repeat(2, 1)
    net = built(rule(), alpha=0.4)
    nets.add_replay(net, TICKS // 2)
    found = by_replay(net, drive, capacity=TICKS // 2)
    expected = by_gradient(built(exact(TICKS // 2), alpha=0.4, feedback=None), drive)
    whole = by_gradient(built(exact(), alpha=0.4, feedback=None), drive)
    for name, w in expected.items():
        np.testing.assert_allclose(found[name], w, atol=ROUNDING, err_msg=name)
    assert np.abs(whole["hidden->hidden"] - expected["hidden->hidden"]).max() > 1e-2  # so it can tell them apart


@pytest.mark.slow
def test_forward_replay_random_feedback_and_a_poor_memory_are_not_the_gradient() -> None:
    drive = shown(1)
    expected = by_gradient(built(exact(), feedback=None), drive)
    start = drawn(Simulator(built(None)))

    def against(order: str = "reverse", recalled: float = 0.0, **given: Any) -> float:
        net = built(rule())
        nets.add_replay(net, TICKS, **given)
        noise = {"hidden.recall": {"replay": nets.gaussian(recalled * np.eye(5))}}
        return cosine(by_replay(net, drive, order=order, **noise), expected, start)

    assert against() > 1 - ROUNDING
    for worse in (
        against("forward"), against(recalled=0.5), against(release=0.7), against(feedback="random")
    ):  # fmt: skip
        assert 0 < worse < 0.99


@pytest.mark.slow
def test_feedback_under_replay_becomes_the_transpose() -> None:
    """It is random and changes by the products of the forward weights, and both decay: what is between them shrinks by
    1 - decay a trial, as what is between the change and the gradient does."""
    trials, decay = 200, 0.02
    drive = shown(trials + 2)
    drive["output.target"] = np.roll(drive["input"], 1, 0)[:, :2]
    net = built(rules.Accumulated(rules.Delta(eta=0.05)), feedback=None)
    nets.add_feedback(net, kind="kolen_pollack", decay=decay)
    nets.add_replay(net, TICKS, feedback="kolen_pollack", decay=decay)
    sim = Simulator(net)
    weights, at = [drawn(sim)], np.cumsum([0, 1, trials, 1]) * TICKS
    for first, last in itertools.pairwise(at):
        given, trial = relived({name: rows[first:last] for name, rows in drive.items()})
        sim.run(given, trial=trial, chunk=1)  # one program for all
        weights.append(learned(sim, weights[0]))
    truth, aligned = Simulator(built(exact(), feedback=None)), []
    forward = {"hidden->hidden, back": "hidden->hidden", "output->hidden": "hidden->output"}
    for name, own in forward.items():
        apart = [w[name] - w[own].T for w in (weights[0], weights[-1])]
        np.testing.assert_allclose(apart[1], (1 - decay) ** (trials + 2) * apart[0], atol=ROUNDING)
    for k in (0, 2):
        before = {name: w for name, w in weights[k].items() if name not in forward}
        after = {n: w + decay * before[n] * (n in forward.values()) for n, w in weights[k + 1].items() if n in before}
        for name, w in before.items():
            truth.set_weights(name, w)
        rows = slice(at[k], at[k + 1])
        truth.run({n: r[rows] for n, r in drive.items()}, trial=Phase("live", TICKS, plastic="last", reset=True))
        aligned.append(cosine(after, learned(truth, before), before))
    assert aligned[0] < 0.8 < 0.99 < aligned[1]


def test_what_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"'output' leaks \(alpha=0.5\)"):
        nets.add_replay(built(rule(), output=nets.LeakyOutput(alpha=0.5)), 3)
    late = built(rule())
    late.add_edge("hidden", "hidden", delay=2)
    with pytest.raises(NetworkError, match=r"'hidden->hidden\[1\]' has a delay of 2 ticks"):
        nets.add_replay(late, 3)
    with pytest.raises(NetworkError, match="nothing to recall from"):
        nets.add_recall(built(rule()))
    with pytest.raises(NetworkError, match="nothing is recurrent"):
        nets.add_replay(nets.perceptron((3, 4, 2), rule()), 3)
    for wrong in ([3], [-1], []):
        with pytest.raises(ValueError, match="from 0 to 2"):
            nets.replay_drive(5, 3, wrong)


def test_a_replayed_run_runs_again(tmp_path: Path) -> None:
    """Its drive is in the recording, and arrays of one content and two shapes keep theirs: zeros of (5,) and (5, 1)."""
    net = built(rule())
    nets.add_replay(net, 5)
    live = Phase("live", TICKS, signals={"encode": 1.0}, reset=True)
    replay = Phase("replay", 10, signals={"encode": 0.0}, reset=True)
    drive = {name: {"live": rows} for name, rows in shown(1).items()}
    sim = Simulator(net)
    with sim.record(tmp_path / "run.h5", {"hidden.x": 1, "index.x": 1, "hidden->index.w": TICKS}):
        sim.run({**drive, **nets.replay_drive(TICKS, 5)}, trial=[live, replay])
    differences, compared = engrax.verify(tmp_path / "run.h5")
    assert differences == [] and compared > 100


# Recall


def asked(trials: int, delay: int, seed: int = 0) -> tuple[dict[str, Any], list[Phase], dict[str, np.ndarray]]:
    """Delayed match to sample with a third input that is 1 with each stimulus, and a second stimulus that stays for the
    answer: the drive of a network with recall, its trial, and (trials, ticks, n) of what it is shown."""
    task = nets.tasks.delayed_match(trials, delay=delay, shown=1, seed=seed)
    x = task.drive["input"].reshape(trials, delay + 3, -1).copy()
    x[:, -1] = x[:, -2]
    x = np.concatenate([x, x.sum(-1, keepdims=True)], -1)
    y = task.target.reshape(x.shape[0], delay + 3, -1)[:, -1]
    given = {
        "input": {"live": x[:, :-2].reshape(-1, 3), "cue": x[:, -2], "answer": x[:, -1]},
        "output.target": {"answer": y},
        "output.mute": {"live": 1.0, "cue": 1.0},
        **nets.recall_drive(delay + 1),
    }
    trial = [
        Phase("live", delay + 1, signals={"encode": 1.0}, reset=True),
        *(Phase(name, n, signals={"encode": 0.0}) for name, n in (("cue", 1), ("answer", 1), ("recall", 2))),
    ]
    return given, trial, {"x": x, "y": y}


def test_credit_goes_to_the_moment_recalled() -> None:
    """The change is the gradient of a network written by hand, in which the answer is linked with the first tick and
    with nothing in between. That is nearer to the whole gradient than what the last ticks say, however many."""
    delay, sizes = 12, (3, 5, 2)
    given, trial, shown_ = asked(1, delay)
    net = built(rule(), sizes)
    nets.add_replay(net, delay + 1)
    nets.add_recall(net)
    sim = Simulator(net)
    plastic = [name for name in drawn(sim) if "," not in name and name != "output->hidden"]
    sim.set_weights("hidden->hidden", 0.4 * np.asarray(sim.params["hidden->hidden"].w))  # fades
    start = learned(sim, plastic)
    sim.run(given, trial=trial, trials=1)
    found = learned(sim, start)
    x, y = shown_["x"][0], shown_["y"][0]

    def loss(w: dict[str, Any], linked: Any) -> Any:
        h = [jnp.zeros(5)]
        for t in range(delay + 3):
            before = h[-1] if linked(t) else jax.lax.stop_gradient(h[-1])
            m = (h[1] if linked("memory") else jax.lax.stop_gradient(h[1])) if t == delay + 2 else 0.0
            h.append(jnp.tanh(w["input->hidden"] @ x[t] + w["hidden->hidden"] @ before + w["bias->hidden"][:, 0] + m))
        return ((w["hidden->output"] @ h[-1] + w["bias->output"][:, 0] - y) ** 2).sum() / 2

    def descended(linked: Any) -> dict[str, np.ndarray]:
        gradient = jax.grad(loss)({name: jnp.asarray(w) for name, w in start.items()}, linked)
        return {name: w - 0.1 * np.asarray(gradient[name]) for name, w in start.items()}

    for name, w in descended(lambda t: t == "memory").items():
        np.testing.assert_allclose(found[name], w, atol=ROUNDING, err_msg=name)
    whole = descended(lambda t: True)
    into = {name: w for name, w in start.items() if name.endswith("hidden")}
    last = [cosine(descended(lambda t, k=k: t != "memory" and t > delay + 2 - k), whole, into) for k in (0, 1, 4, 14)]
    assert cosine(found, whole, into) > 0.99 > 0.97 > max(last)


# The memory


def remembering(capacity: int, contest: Any, size: int = 64) -> nx.MultiDiGraph:
    """Keys, by which their values are found."""
    net = nx.MultiDiGraph()
    for name in ("key", "value"):
        net.add_node(name, neuron=nets.Input(), size=size)
    contents = {"key": "drive", "value": "drive"}
    nets.add_memory(net, capacity, contents, cue={"key"}, phases={"answer"}, contest=contest)
    return net


def recalled(net: nx.MultiDiGraph, keys: Any, values: Any, capacity: int, cues: Any) -> np.ndarray:
    """The index of the value most like what comes back for each cue, after all pairs were seen once."""
    sim = Simulator(net)
    once = Phase("store", len(keys), signals={"encode": 1.0})
    asked, answer = (Phase(name, 1, plastic="never") for name in ("ask", "answer"))
    written = nets.replay_drive(len(keys), capacity)["index"]["live"]
    drive = {"key": keys, "value": values, "index": written}
    sim.run({name: {"store": source} for name, source in drive.items()}, trial=[once, answer])
    drive = {"key": {"ask": cues}, "index.ask": {"answer": 1.0}}
    found = sim.run(drive, trial=[asked, answer], record={"value.x": 1})
    return (found["value.x"][1::2] @ values.T).argmax(1)


class Everyone(nets.Competition):
    """No competition: what comes back is a sum over all, as from a Hebbian (linear) memory."""

    def __call__(self, x: Any) -> Any:
        return x


def test_recall_by_content() -> None:
    """256 random pairs in 64 dimensions: softmax finds all, also by keys with noise of half their length. Of a linear
    memory, where the others' crosstalk is twice as long as the signal, .756 come back right in a numpy program of its
    own, with a deviation of .03 in 256: three of these."""
    rng = np.random.default_rng(0)
    keys, values = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rng.normal(size=(2, 256, 64)))
    noisy = keys + 0.5 * rng.normal(size=keys.shape) / 8
    hopfield = remembering(256, nets.Softmax(beta=32.0))
    assert (recalled(hopfield, keys, values, 256, noisy) == np.arange(256)).all()
    linear = recalled(remembering(256, Everyone()), keys, values, 256, keys) == np.arange(256)
    assert abs(linear.mean() - 0.756) < 0.09


@pytest.mark.slow
@pytest.mark.parametrize("beta", [8.0, 32.0])
@pytest.mark.parametrize("pairs", [32, 64, 128, 256])
def test_softmax_recalls_every_pair(pairs: int, beta: float) -> None:
    rng = np.random.default_rng(0)
    keys, values = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rng.normal(size=(2, pairs, 64)))
    memory = remembering(pairs, nets.Softmax(beta=beta))
    assert (recalled(memory, keys, values, pairs, keys) == np.arange(pairs)).all()


def test_a_full_memory_forgets_the_oldest() -> None:
    rng = np.random.default_rng(0)
    keys, values = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rng.normal(size=(2, 12, 64)))
    found = recalled(remembering(8, nets.KWinners(k=1)), keys, values, 8, keys)
    np.testing.assert_array_equal(found[4:], np.arange(4, 12))
    assert not np.isin(found[:4], np.arange(4)).any()


def test_a_memory_is_of_one_past_and_says_so() -> None:
    net = remembering(8, None)
    with pytest.raises(SimulationError, match=r"'key->index' learns is one copy's own past"):
        Simulator(net).run(
            {"key": np.zeros((4, 2, 64))}, signals={"encode": 1.0}, trial=[Phase("store"), Phase("answer")]
        )
    with pytest.raises(NetworkError, match="'input' is not remembered; contents: key"):
        nets.add_memory(net, 8, {"key": "drive"}, name="other", cue={"input"})
    with pytest.raises(NetworkError, match="no such population; populations: key, value"):
        nets.add_memory(net, 8, {"keys": "drive"}, name="another")


def test_the_drive_of_a_replay_goes_round_the_cells() -> None:
    drive = nets.replay_drive(5, 4, depth=3)
    active = [int(np.argmax(drive["index"]["live"](t, None))) for t in range(10)]
    assert active == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    again = [int(np.argmax(drive["index"]["replay"](t, None))) for t in range(12)]
    assert again == [0, 0, 3, 3, 2, 2, 1, 1, 0, 0, 3, 3]  # events 4, 3, 2; then 9, 8, 7
    assert [int(drive["recall"]["replay"](t, None)[0]) for t in range(4)] == [1, 0, 1, 0]
    ahead = nets.replay_drive(5, 8, "forward")["index"]["replay"]
    assert [int(np.argmax(ahead(t, None))) for t in range(0, 10, 2)] == [0, 1, 2, 3, 4]
    chosen = nets.replay_drive(5, 8, [7, 0])["index"]["replay"]
    assert float(chosen(0, None).sum()) == 0.0  # there was no such event yet
    assert int(np.argmax(chosen(4, None))) == 2  # in the second trial: event 9 - 7
