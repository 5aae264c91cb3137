"""Tasks: what they show and tell by an independent reading, their floors by enumeration, the same from one seed."""

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest

from engrax import Phase, Simulator, networks as nets, rules
from engrax.networks.tasks import Task

tasks = nets.tasks

MADE = {
    "add": lambda seed=0, **k: tasks.add(300, seed=seed, **k),
    "mimic": lambda seed=0, **k: tasks.mimic(50, seed=seed, inputs=4, hidden=8, outputs=3, **k),
    "copy": lambda seed=0, **k: tasks.copy(6, delay=5, seed=seed, **k),
    "adding": lambda seed=0, **k: tasks.adding(6, ticks=11, seed=seed, **k),
    "match": lambda seed=0, **k: tasks.delayed_match(6, stimuli=3, seed=seed, **k),
    "flip-flop": lambda seed=0, **k: tasks.flip_flop(200, seed=seed, **k),
    "evidence": lambda seed=0, **k: tasks.evidence(2, cues=3, lasts=20, every=30, delay=40, recall=25, seed=seed, **k),
    "rows": lambda seed=0, **k: tasks.rows(nets.digits(), 6, seed=seed, **k),
    "retrieval": lambda seed=0, **k: tasks.associative_retrieval(6, pairs=2, seed=seed, **k),
    "key": lambda seed=0, **k: tasks.key_to_door(6, seed=seed, **k),
}


@pytest.mark.parametrize("name", MADE)
def test_a_task_is_the_drive_of_a_recurrent_network(name: str) -> None:
    for batch in (None, 3):
        task: Task = MADE[name](batch=batch)
        time = len(task.target)
        lead = (time,) if batch is None else (time, batch)
        assert task.drive["input"].shape == (*lead, task.inputs) and task.target.shape == (*lead, task.outputs)
        assert task.counts.shape == lead and task.counts.any()
        assert task.ticks is None or time % task.ticks == 0
        assert (task.target[~task.counts] == 0).all()
        assert ("output.mute" in task.drive) == (not task.counts.all())
        if "output.mute" in task.drive:
            heard = np.broadcast_to(task.counts[..., None], task.target.shape)
            np.testing.assert_array_equal(task.drive["output.mute"] == 0, heard)
        again, other = MADE[name](batch=batch), MADE[name](seed=1, batch=batch)
        for key, values in task.drive.items():
            np.testing.assert_array_equal(values, again.drive[key])
        assert any((task.drive[key] != other.drive[key]).any() for key in task.drive)


def test_it_runs() -> None:
    task = tasks.delayed_match(4, batch=3)
    net = nets.recurrent((task.inputs, 6, task.outputs), rules.RFLO(), output=nets.LeakyOutput(lateral=nets.Softmax()))
    sim = Simulator(net)
    x = sim.run(task.drive, trial=Phase("trial", ticks=task.ticks or 1, reset=True), record={"output.x": 1})["output.x"]
    assert 0 < task.error(x) < 3 and 0 <= task.wrong(x) <= 1
    assert task.wrong(task.target) == 0 and task.error(task.target) == 0


def xent(y: Any, p: Any) -> float:
    return float(-np.mean(np.sum(np.asarray(y) * np.log(np.asarray(p)), -1)))


@pytest.mark.parametrize("coin", [False, True])
def test_add(coin: bool) -> None:
    """Its floors, as the best guess from a table of what was seen."""
    task = tasks.add(60_000, coin=coin)
    x, y = task.drive["input"][:, 0], task.target
    np.testing.assert_array_equal(task.drive["input"].sum(-1), 1)
    np.testing.assert_allclose(y.sum(-1), 1)
    now = np.arange(9, len(x))
    if not coin:
        np.testing.assert_allclose(y[now, 0], 0.5 + 0.5 * x[now - 5] - 0.25 * x[now - 9])
    seen = {"no memory": np.zeros(len(now), int), "the first bit": x[now - 5], "both bits": 2 * x[now - 5] + x[now - 9]}
    for name, key in seen.items():
        guess = np.zeros((len(now), 2))
        for value in np.unique(key):
            guess[key == value] = y[now][key == value].mean(0)
        # the standard error of 60,000 throws is some .002
        assert xent(y[now], np.maximum(guess, 1e-12)) == pytest.approx(task.floors[name], abs=0.008), name
    assert [round(value, 4) for value in task.floors.values()] == [0.6616, 0.5192, 0.4545]


def test_add_stretched_waits_longer() -> None:
    fast, slow = tasks.add(50), tasks.add(150, stretch=3)
    for key in fast.drive:
        np.testing.assert_array_equal(np.repeat(fast.drive[key], 3, 0), slow.drive[key])


def test_mimic_is_a_network_of_the_same_kind() -> None:
    """Its outputs are a linear map of so many hidden units, and have no more dimensions than those."""
    task = tasks.mimic(400, inputs=4, hidden=3, outputs=6, alpha=0.5)
    assert np.linalg.matrix_rank(task.target, tol=1e-8) == 3
    mean = np.broadcast_to(task.target.mean(0), task.target.shape)
    assert task.error(mean) == pytest.approx(task.floors["the mean"])


def test_copy() -> None:
    task = tasks.copy(400, delay=30, symbols=5, length=4)
    ticks = task.ticks or 0
    assert ticks == 38
    x, y = (task.drive[key].argmax(-1).reshape(400, ticks) for key in ("input", "output.target"))
    np.testing.assert_array_equal(y[:, -4:], x[:, :4])
    assert (y[:, :-4] == 5).all() and (x[:, 4:33] == 5).all() and (x[:, 33] == 6).all() and (x[:, 34:] == 5).all()
    blind = np.zeros((400, ticks, 6))
    blind[:, :-4, 5], blind[:, -4:, :5] = 1.0, 0.2
    assert task.error(blind.reshape(-1, 6)) == pytest.approx(task.floors["no memory"])
    assert tasks.copy(1, delay=100).floors["no memory"] == pytest.approx(10 * np.log(8) / 120)


def test_adding() -> None:
    task = tasks.adding(4000, ticks=10)
    x = task.drive["input"].reshape(4000, 10, 2)
    assert (x[..., 1].sum(1) == 2).all() and (x[:, :5, 1].sum(1) == 1).all()
    y = task.target.reshape(4000, 10)[:, -1]
    np.testing.assert_allclose(y, (x[..., 0] * x[..., 1]).sum(1))
    # a variance of 1/6 of 4,000 numbers has a standard error of 2 %
    assert np.mean((y - 1) ** 2) == pytest.approx(task.floors["the mean"], rel=0.1)
    second = (x[:, 5:, 0] * x[:, 5:, 1]).sum(1)
    assert np.mean((y - second - 0.5) ** 2) == pytest.approx(task.floors["one of the numbers"], rel=0.1)
    assert task.error(np.ones_like(task.target)) == pytest.approx(np.mean((y - 1) ** 2))


@pytest.mark.parametrize("match", [True, False])
def test_delayed_match(match: bool) -> None:
    task = tasks.delayed_match(2000, stimuli=4, delay=7, shown=3, match=match)
    x = task.drive["input"].reshape(2000, task.ticks or 0, 4)
    first, second = x[:, 0].argmax(-1), x[:, 10].argmax(-1)
    answer = task.target.reshape(2000, -1, 2)[:, -1].argmax(-1)
    np.testing.assert_array_equal(answer == 0, (first == second) == match)
    assert np.mean(first == second) == pytest.approx(0.5, abs=0.05)  # four standard errors
    np.testing.assert_array_equal(x.sum((1, 2)), 6)
    for value in range(4):  # neither stimulus alone says anything
        assert np.mean(answer[second == value]) == pytest.approx(0.5, abs=0.1)
    half = np.full(task.target.shape, 0.5)
    assert task.error(half) == pytest.approx(task.floors["no memory"])


def test_flip_flop() -> None:
    task = tasks.flip_flop(3000, bits=2, p=0.1)
    state = np.zeros(2)
    for x, y in zip(task.drive["input"], task.target, strict=True):
        state = np.where(x != 0, x, state)
        np.testing.assert_array_equal(y, state)
    assert task.error(task.drive["input"]) == pytest.approx(task.floors["no memory"], rel=0.02)


def test_evidence() -> None:
    batch = 40
    task = tasks.evidence(1, batch=batch, rate=200.0, background=50.0)
    assert task.ticks == 2250
    x = task.drive["input"].reshape(2250, batch, 4, 10)
    heard = x.mean(-1)
    cues = [heard[150 * k : 150 * k + 100, :, :2].mean(0).argmax(-1) for k in range(7)]
    np.testing.assert_array_equal(task.target[-1].argmax(-1), (np.sum(cues, 0) > 3.5).astype(int))
    for part, group, rate in ((slice(2100, None), 2, 200), (slice(None), 3, 50)):
        counted = x[part, :, group].mean() / 1e-3
        assert counted == pytest.approx(rate, rel=0.05)  # 12,000 spikes and more
    assert x[:2100, :, 2].sum() == 0 and x[1000:, :, :2].sum() == 0
    assert not task.counts[:2100].any() and task.counts[2100:].all()
    # a side is drawn with .7, or with .3: five cues or more of seven agree with it, or four by a small majority
    assert 0.3 < task.target[-1, :, 1].mean() < 0.7


def test_sines_and_patterns() -> None:
    sines = tasks.sines(3, ticks=50)
    angle = np.linspace(0, 2 * np.pi, 50)
    y = np.sin(angle) + 0.5 * np.sin(2 * angle) + 0.25 * np.sin(4 * angle)
    np.testing.assert_allclose(sines.target[:, 0], np.tile(y, 3), atol=1e-12)
    assert (sines.drive["input"] == 0).all()
    pattern = tasks.pattern(2, ticks=1000, seed=3)
    np.testing.assert_array_equal(*pattern.drive["input"].reshape(2, 1000, 100))
    assert pattern.drive["input"].mean() / 1e-3 == pytest.approx(50, rel=0.06)  # 5,000 spikes
    assert np.abs(pattern.target).max() == pytest.approx(1)
    spectrum = np.abs(np.fft.rfft(pattern.target[:1000, 0]))
    assert set(np.argsort(spectrum)[-4:]) <= {1, 2, 3, 5}
    for task in (sines, pattern):
        assert task.error(np.full(task.target.shape, task.target.mean())) == pytest.approx(task.floors["the mean"])


def test_rows_of_images() -> None:
    data = nets.digits()
    task = tasks.rows(data, 100, batch=20)
    images = np.moveaxis(task.drive["input"].reshape(100, 8, 20, 8), 2, 1).reshape(2000, 64)
    labels = np.moveaxis(task.target.reshape(100, 8, 20, 10), 2, 1)[:, :, -1].reshape(2000, 10).argmax(-1)
    found = {image.tobytes(): label for image, label in zip(data.train_x, data.train_y, strict=True)}
    assert all(found[image.astype(np.float32).tobytes()] == label for image, label in zip(images, labels, strict=True))
    assert len({image.tobytes() for image in images[:1437]}) == len(found)  # each once before any twice
    assert task.counts.reshape(100, 8, 20).sum(1).max() == 1


def test_rows_of_utterances_end_when_they_end() -> None:
    lengths = np.array([2, 5, 3, 4], np.int32)
    x = np.zeros((4, 5, 2), np.float32)
    for k, length in enumerate(lengths):
        x[k, :length] = k + 1
    y = np.array([0, 1, 0, 1], np.int32)
    data = nets.Dataset("made up", x, y, x, y, (5, 2), ("a", "b"), lengths, lengths)
    for every in (False, True):
        task = tasks.rows(data, 4, every=every)
        shown = task.drive["input"].reshape(4, 5, 2)[..., 0]
        for row, counts, target in zip(shown, task.counts.reshape(4, 5), task.target.reshape(4, 5, 2), strict=True):
            k = int(row[0]) - 1
            last = np.arange(5) == lengths[k] - 1
            np.testing.assert_array_equal(counts, np.arange(5) < lengths[k] if every else last)
            np.testing.assert_array_equal(target, counts[:, None] * np.eye(2)[y[k]])


@pytest.mark.parametrize("places", [10, 20])
def test_the_start_of_a_linear_track_learns_after_as_many_walks_as_places(places: int) -> None:
    """By one-step learning on the network itself, and by the same updates in reverse."""
    task = tasks.linear_track(places + 2, places=places)
    sim = Simulator(track(places))
    trial = Phase("walk", ticks=places + 1, reset=True)
    field = {"place->value.w": places + 1}
    drive = {"place": task.drive["input"], "vta.reward": task.target}
    w = sim.run(drive, trial=trial, record=field)["place->value.w"][:, 0]
    exact = 1 + int(np.argmax(w[:, 0] == 1.0))
    assert exact == task.floors["one step, forward"] == places
    value = np.zeros(places + 1)
    for place in reversed(range(places)):
        value[place] = (place == places - 1) + value[place + 1]
    assert value[0] == 1 and task.floors["reverse replay"] == 1


def track(places: int) -> Any:
    net = nx.MultiDiGraph()
    net.add_node("place", neuron=nets.Input(), size=places)
    net.add_node("value", neuron=nets.Linear(), size=1)
    net.add_node("vta", neuron=nets.TDError(gamma=1.0), size=1)
    net.add_edge("place", "value", weights=0.0, rule=rules.TD(eta=1.0, gamma=1.0))
    net.add_edge("value", "vta", weights=1.0)
    net.graph["signals"] = {"dopamine": "vta"}
    return net


def test_key_to_door() -> None:
    task = tasks.key_to_door(4000, delay=6, sigma=2.0, reward=3.0, p=0.3)
    x, y = task.drive["input"].reshape(4000, 8, 4), task.target.reshape(4000, 8)
    key = x[:, 0, 0] == 1
    np.testing.assert_array_equal(y[:, -1], 3.0 * key)
    np.testing.assert_array_equal(x[:, 0, 1], ~key)
    assert key.mean() == pytest.approx(0.3, abs=0.03)  # four standard errors
    apples = y[:, 1:-1]
    assert apples.std() == pytest.approx(2, rel=0.03) and abs(np.corrcoef(apples.sum(1), key)[0, 1]) < 0.07
    guess = np.zeros_like(y)
    guess[:, -1] = 3.0 * 0.3
    assert task.error(guess.reshape(-1, 1)) == pytest.approx(task.floors["no memory"], rel=0.04)
    guess[:, -1] = 3.0 * key
    assert task.error(guess.reshape(-1, 1)) == pytest.approx(task.floors["the whole"], rel=0.04)


def test_floors_by_enumeration() -> None:
    """Add: every pair of bits is as likely as any other."""
    p = {bits: 0.5 + 0.5 * bits[0] - 0.25 * bits[1] for bits in itertools.product((0, 1), repeat=2)}
    both = np.mean([xent([q, 1 - q], np.clip([q, 1 - q], 1e-300, 1)) for q in p.values()])
    assert tasks.add(1).floors["both bits"] == pytest.approx(both)


def test_associative_retrieval() -> None:
    task = tasks.associative_retrieval(4000, pairs=3, letters=5, digits=4)
    shown = task.drive["input"].argmax(-1).reshape(4000, 9)
    keys, values = shown[:, :6:2], shown[:, 1:6:2] - 5
    assert (shown[:, 6:8] == 9).all() and keys.max() < 5 and values.min() >= 0 and values.max() == 3
    assert all(len(set(row)) == 3 for row in keys)
    asked = shown[:, 8:] == keys
    assert (asked.sum(1) == 1).all() and (asked.mean(0) > 0.3).all()  # a third each, within four deviations
    np.testing.assert_array_equal(task.target[8::9].argmax(-1), values[asked])
    # of the digits that came, each as likely as often as it came
    held = (values[:, :, None] == np.arange(4)).mean(1)
    found = -np.log(held[np.arange(4000), values[asked]])
    assert abs(found.mean() - task.floors["the digits"]) < 4 * found.std() / np.sqrt(4000)
    assert task.floors["nothing"] == np.log(4) and task.floors["the whole"] == 0
