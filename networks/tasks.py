"""Tasks that need memory: what a network is shown and told, when that counts, and what is reached without memory.

A `Task` is made of arrays and a seed, and is a run's drive as it is::

    task = nets.tasks.copy(trials=100, batch=10, delay=20)
    sim.run(task.drive, trial=Phase("trial", ticks=task.ticks, reset=True))

for a network with populations ``input`` and ``output``, as ``nets.recurrent((task.inputs, 32, task.outputs), ...)`` has
them. Where time runs on without trials, ``ticks`` is None: ``sim.run(task.drive)``. The targets of ticks that do not
count are 0, and ``output.mute`` is 1 there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import comb
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from .datasets import Dataset

Loss = Literal["cross-entropy", "half squared error", "value error"]


@dataclass(frozen=True, eq=False)
class Task:
    """``drive``: (trials * ticks, [batch,] n) arrays by target, as `Simulator.run` takes them. ``counts``: which ticks
    count (bool, of the same leading shape). ``floors``: the ``loss`` per tick that counts, in nats or squared units
    summed over the outputs, that is reached with so much of the solution."""

    name: str
    drive: dict[str, Float[np.ndarray, "time *batch n"]]
    ticks: int | None
    loss: Loss
    counts: Any
    floors: Mapping[str, float] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """Channels of the input."""
        return int(self.drive["input"].shape[-1])

    @property
    def outputs(self) -> int:
        """Numbers that the network is told."""
        return int(self.drive["output.target"].shape[-1])

    @property
    def target(self) -> Float[np.ndarray, "time *batch n"]:
        return self.drive["output.target"]

    def error(self, x: Float[np.ndarray, "time *batch n"]) -> float:
        """The ``loss`` of outputs, meant over the ticks that count."""
        if self.loss == "cross-entropy":
            each = -(self.target * np.log(np.maximum(x, 1e-30))).sum(-1)
        else:
            each = ((x - self.target) ** 2).sum(-1) / (2 if self.loss == "half squared error" else 1)
        return float(each[self.counts].mean())

    def wrong(self, x: Float[np.ndarray, "time *batch n"]) -> float:
        """The fraction of the ticks that count in which the largest output is not that of the target."""
        return float((x.argmax(-1) != self.target.argmax(-1))[self.counts].mean())


def entropy(p: float) -> float:
    """Of a coin, in nats."""
    return float(-sum(q * np.log(q) for q in (p, 1 - p) if q > 0))


def add(
    ticks: int,
    *,
    first: int = 5,
    second: int = 9,
    stretch: int = 1,
    coin: bool = False,
    batch: int | None = None,
    seed: int = 0,
) -> Task:
    r"""Two bits of the past: :math:`y_t = 0.5 + 0.5\,x_{t - t_1} - 0.25\,x_{t - t_2}` of random bits x.

    ``first`` and ``second`` are :math:`t_1` and :math:`t_2`. Inputs are x and 1 - x, targets y and 1 - y, or with
    ``coin`` a coin thrown with this probability; ``stretch`` ticks go by with every bit. Bits before the first are 0.

    Source: Marschall, Cho & Savin, Journal of Machine Learning Research 21:1-34 (2020).
    """
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    bits = -(-ticks // stretch)
    x = (rng.random((bits, *lead)) < 0.5).astype(float)
    past = np.concatenate([np.zeros((max(first, second), *lead)), x])
    late = {delay: past[len(past) - bits - delay : len(past) - delay] for delay in (first, second)}
    y = 0.5 + 0.5 * late[first] - 0.25 * late[second]
    if coin:
        y = (rng.random(y.shape) < y).astype(float)
    shown, told = (np.repeat(np.stack([a, 1 - a], -1), stretch, 0)[:ticks] for a in (x, y))
    p = {(a, b): 0.5 + 0.5 * a - 0.25 * b for a, b in product((0, 1), repeat=2)}
    floors = {
        "no memory": entropy(sum(p.values()) / 4),
        "the first bit": (entropy((p[0, 0] + p[0, 1]) / 2) + entropy((p[1, 0] + p[1, 1]) / 2)) / 2,
        "both bits": sum(entropy(each) for each in p.values()) / 4,
    }
    return _told("add", shown, told, None, "cross-entropy", floors)


def mimic(
    ticks: int,
    *,
    inputs: int = 32,
    hidden: int = 32,
    outputs: int = 32,
    alpha: float = 1.0,
    p: float = 0.5,
    batch: int | None = None,
    seed: int = 0,
) -> Task:
    """The outputs of another network of the same kind: ``hidden`` leaky tanh units (``alpha`` per tick) that see random
    bits. Its recurrent weights are orthogonal, the others normal over the root of the fan-in.

    Source: Marschall, Cho & Savin, Journal of Machine Learning Research 21:1-34 (2020).
    """
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    w_in = rng.normal(size=(inputs, hidden)) / np.sqrt(inputs)
    w_rec = np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    w_out = rng.normal(size=(hidden, outputs)) / np.sqrt(hidden)
    x = (rng.random((ticks, *lead, inputs)) < p).astype(float)
    h, y = np.zeros((*lead, hidden)), np.zeros((ticks, *lead, outputs))
    for tick in range(ticks):
        h = (1 - alpha) * h + alpha * np.tanh(x[tick] @ w_in + h @ w_rec)
        y[tick] = h @ w_out
    return _told("mimic", x, y, None, "half squared error", _constant(y.reshape(-1, outputs)))


def copy(
    trials: int, *, delay: int = 20, symbols: int = 8, length: int = 10, batch: int | None = None, seed: int = 0
) -> Task:
    """``length`` symbols, then ``delay`` - 1 blanks and a marker, then they are to be repeated; blanks before.

    Inputs are the symbols, the blank and the marker, one hot; outputs the symbols and the blank. A trial has ``delay``
    + 2 * ``length`` ticks, all of which count.

    Source: Hochreiter & Schmidhuber, Neural Computation 9:1735-1780 (1997); in this form Ke et al., Advances in Neural
    Information Processing Systems 31 (2018).
    """
    rng = np.random.default_rng(seed)
    lead = (trials,) if batch is None else (trials, batch)
    ticks = delay + 2 * length
    shown = rng.integers(symbols, size=(*lead, length))
    x = np.full((*lead, ticks), symbols)
    x[..., :length] = shown
    x[..., length + delay - 1] = symbols + 1
    y = np.full((*lead, ticks), symbols)
    y[..., length + delay :] = shown
    floors = {"no memory": length * float(np.log(symbols)) / ticks, "the whole": 0.0}
    inputs, targets = _rows(np.eye(symbols + 2)[x], np.eye(symbols + 1)[y])
    return _told("copy", inputs, targets, ticks, "cross-entropy", floors)


def adding(trials: int, *, ticks: int = 50, batch: int | None = None, seed: int = 0) -> Task:
    """The sum of two of many numbers: a row of numbers from 0 to 1 and a row of two markers, one in each half. Only the
    last tick counts; the target is the sum of the marked numbers.

    Source: Hochreiter & Schmidhuber, Neural Computation 9:1735-1780 (1997).
    """
    rng = np.random.default_rng(seed)
    lead = (trials,) if batch is None else (trials, batch)
    numbers = rng.random((*lead, ticks))
    places = np.stack([rng.integers(ticks // 2, size=lead), rng.integers(ticks // 2, ticks, size=lead)], -1)
    markers = np.zeros((*lead, ticks))
    np.put_along_axis(markers, places, 1.0, -1)
    y = np.zeros((*lead, ticks, 1))
    y[..., -1, 0] = (numbers * markers).sum(-1)
    counts = np.broadcast_to(np.arange(ticks) == ticks - 1, (*lead, ticks))
    # two uniform numbers have the mean 1 and the variance 2 / 12; the second of them alone is there at the end
    floors = {"the mean": 1 / 6, "one of the numbers": 1 / 12, "the whole": 0.0}
    x, y, counts = _rows(np.stack([numbers, markers], -1), y, counts)
    return _told("adding", x, y, ticks, "value error", floors, counts)


def delayed_match(
    trials: int,
    *,
    stimuli: int = 2,
    delay: int = 20,
    shown: int = 2,
    match: bool = True,
    batch: int | None = None,
    seed: int = 0,
) -> Task:
    """Is the second stimulus the first one? One of ``stimuli`` for ``shown`` ticks, a ``delay``, the same or another
    one, and ``shown`` ticks to answer, which count. The first output is to be 1 if it is, the second if not; with
    ``match=False`` (delayed non-match to sample) the other way round. Half of the trials match."""
    rng = np.random.default_rng(seed)
    lead = (trials,) if batch is None else (trials, batch)
    ticks = delay + 3 * shown
    sample = rng.integers(stimuli, size=lead)
    same = rng.random(lead) < 0.5
    test = np.where(same, sample, (sample + rng.integers(1, stimuli, size=lead)) % stimuli)
    x = np.zeros((*lead, ticks, stimuli))
    x[..., :shown, :] = np.eye(stimuli)[sample][..., None, :]
    x[..., shown + delay : 2 * shown + delay, :] = np.eye(stimuli)[test][..., None, :]
    answer = np.where(same == match, 0, 1)
    counts = np.broadcast_to(np.arange(ticks) >= ticks - shown, (*lead, ticks))
    y = np.eye(2)[answer][..., None, :] * counts[..., None]
    x, y, counts = _rows(x, y, counts)
    name = "delayed match to sample" if match else "delayed non-match to sample"
    return _told(name, x, y, ticks, "cross-entropy", {"no memory": float(np.log(2)), "the whole": 0.0}, counts)


def flip_flop(ticks: int, *, bits: int = 3, p: float = 0.05, batch: int | None = None, seed: int = 0) -> Task:
    """A memory of so many bits: a channel has a pulse, 1 or -1, with the probability ``p`` in a tick, and its output
    is to be the last one. All have one in the first tick.

    Source: Sussillo & Barak, Neural Computation 25:626-649 (2013).
    """
    rng = np.random.default_rng(seed)
    shape = (ticks, bits) if batch is None else (ticks, batch, bits)
    pulse = rng.random(shape) < p
    pulse[0] = True
    x = np.where(pulse, rng.choice([-1.0, 1.0], shape), 0.0)
    last = np.maximum.accumulate(np.where(pulse, np.arange(ticks).reshape(-1, *[1] * (x.ndim - 1)), 0), 0)
    y = np.take_along_axis(x, last, 0)
    floors = {"no memory": bits * (1 - p) * (ticks - 1) / ticks, "the whole": 0.0}
    return _told("flip-flop", x, y, None, "value error", floors)


def evidence(
    trials: int,
    *,
    cues: int = 7,
    lasts: int = 100,
    every: int = 150,
    delay: int = 1050,
    recall: int = 150,
    group: int = 10,
    rate: float = 40.0,
    background: float = 10.0,
    p: float = 0.7,
    dt: float = 1e-3,
    batch: int | None = None,
    seed: int = 0,
) -> Task:
    """Evidence in a T-maze: on which side were there more cues?

    ``cues`` of ``lasts`` ticks come one ``every`` so many, each on the trial's side with the probability ``p``; after a
    ``delay`` comes the time to ``recall``, which counts. Four groups of so many neurons: left, right, the sign to
    recall, and noise, which is always there; they spike at ``rate`` where they say something, the noise at
    ``background`` (Hz). The target is the side of which there were more.

    Source: Bellec et al., Nature Communications 11:3625 (2020), after Morcos & Harvey, Nature Neuroscience 19:1672-1681
    (2016).
    """
    rng = np.random.default_rng(seed)
    lead = (trials,) if batch is None else (trials, batch)
    ticks = cues * every + delay + recall
    right = np.where(rng.random(lead) < 0.5, p, 1 - p)
    sides = (rng.random((*lead, cues)) < right[..., None]).astype(int)
    hertz = np.zeros((*lead, ticks, 4), np.float32)
    for cue in range(cues):
        shown = slice(cue * every, cue * every + lasts)
        hertz[..., shown, :2] = rate * np.eye(2)[sides[..., cue]][..., None, :]
    hertz[..., -recall:, 2] = rate
    hertz[..., 3] = background
    x = (rng.random((*lead, ticks, 4 * group), np.float32) < np.repeat(hertz, group, -1) * dt).astype(np.float32)
    answer = (2 * sides.sum(-1) > cues).astype(int)
    counts = np.broadcast_to(np.arange(ticks) >= ticks - recall, (*lead, ticks))
    y = np.eye(2, dtype=np.float32)[answer][..., None, :] * counts[..., None]
    x, y, counts = _rows(x, y, counts)
    floors = {"no memory": float(np.log(2)), "the whole": 0.0}
    return _told("evidence accumulation", x, y, ticks, "cross-entropy", floors, counts)


def sines(trials: int, *, ticks: int = 100, harmonics: Mapping[int, float] | None = None) -> Task:
    """A sum of sines to be made from nothing: ``harmonics`` says how much of what multiple of the angle, which goes
    from 0 to 2 pi in a trial. The one input is 0. The default is Murray's target.

    Source: Murray, eLife 8:e43299 (2019).
    """
    angle = 2 * np.pi * np.arange(ticks) / (ticks - 1)
    parts = {1: 1.0, 2: 0.5, 4: 0.25} if harmonics is None else harmonics
    y = np.sin(np.outer(angle, list(parts))) @ np.array(list(parts.values()))
    y = np.tile(y[:, None], (trials, 1))
    return _told("sines", np.zeros((trials * ticks, 1)), y, ticks, "half squared error", _constant(y))


def pattern(
    trials: int,
    *,
    ticks: int = 1000,
    inputs: int = 100,
    rate: float = 50.0,
    periods: Sequence[int] = (1000, 500, 333, 200),
    dt: float = 1e-3,
    seed: int = 0,
) -> Task:
    """A sum of sines to be made from spikes that are the same in every trial: ``inputs`` Poisson trains of ``rate`` Hz,
    drawn once. The sines have these ``periods`` (ticks), random phases and weights from 0.5 to 2; their sum is scaled
    to a greatest value of 1.

    Source: Bellec et al., Nature Communications 11:3625 (2020).
    """
    rng = np.random.default_rng(seed)
    x = np.tile((rng.random((ticks, inputs)) < rate * dt).astype(float), (trials, 1))
    weights, phases = rng.uniform(0.5, 2, len(periods)), rng.uniform(0, 2 * np.pi, len(periods))
    y = np.sin(2 * np.pi * np.arange(ticks)[:, None] / np.asarray(periods) + phases) @ weights
    y = np.tile((y / np.abs(y).max())[:, None], (trials, 1))
    return _told("pattern", x, y, ticks, "half squared error", _constant(y))


def rows(
    data: Dataset,
    trials: int,
    *,
    batch: int | None = None,
    test: bool = False,
    every: bool = False,
    seed: int = 0,
) -> Task:
    """What is it? An image a row a tick, or an utterance a frame a tick, the label told in its last tick, or in all of
    them with ``every``.

    Samples are drawn without replacement until all have been shown, and again; with ``test`` from the test set. Ticks
    after the end of an utterance do not count, and nothing is shown in them. Sequential MNIST by rows is
    ``rows(nets.mnist(), ...)``, Japanese Vowels ``rows(nets.japanese_vowels(), ...)``.
    """
    rng = np.random.default_rng(seed)
    x, labels = (data.test_x, data.test_y) if test else (data.train_x, data.train_y)
    lengths = data.test_lengths if test else data.train_lengths
    ticks = data.shape[0]
    lead = (trials,) if batch is None else (trials, batch)
    wanted = int(np.prod(lead))
    order = np.concatenate([rng.permutation(len(x)) for _ in range(-(-wanted // len(x)))])[:wanted]
    shown = x[order].reshape(*lead, ticks, -1)
    ends = (np.full(len(x), ticks) if lengths is None else lengths)[order].reshape(*lead, 1)
    counts = np.arange(ticks) < ends if every else np.arange(ticks) == ends - 1
    classes = len(data.classes)
    y = np.eye(classes)[labels[order].reshape(lead)][..., None, :] * counts[..., None]
    share = np.bincount(labels, minlength=classes) / len(labels)
    floors = {"no input": float(-(share[share > 0] * np.log(share[share > 0])).sum()), "the whole": 0.0}
    shown, y, counts = _rows(shown, y, counts)
    return _told(f"{data.name} by rows", shown, y, ticks, "cross-entropy", floors, counts)


def associative_retrieval(
    trials: int, *, pairs: int = 4, letters: int = 26, digits: int = 10, batch: int | None = None, seed: int = 0
) -> Task:
    """Which digit came after this letter? ``c9k8j3f1??c``: ``pairs`` of a letter and a digit, two blanks, and one of
    the letters again, all one hot. No letter is in two pairs, a digit may be.

    Outputs are the digits, told in the last of 2 * ``pairs`` + 3 ticks, the only one that counts. ``floors``: of who
    knows nothing, and of who knows the digits that came but not with which letters.

    Source: Ba et al., Advances in Neural Information Processing Systems 29 (2016).
    """
    rng = np.random.default_rng(seed)
    lead = (trials,) if batch is None else (trials, batch)
    ticks = 2 * pairs + 3
    keys = rng.permuted(np.broadcast_to(np.arange(letters), (*lead, letters)), axis=-1)[..., :pairs]
    values = rng.integers(digits, size=(*lead, pairs))
    asked = rng.integers(pairs, size=(*lead, 1))
    shown = np.full((*lead, ticks), letters + digits)
    shown[..., 0 : 2 * pairs : 2], shown[..., 1 : 2 * pairs : 2] = keys, letters + values
    shown[..., -1:] = np.take_along_axis(keys, asked, -1)
    y = np.zeros((*lead, ticks, digits))
    y[..., -1, :] = np.eye(digits)[np.take_along_axis(values, asked, -1)[..., 0]]
    counts = np.broadcast_to(np.arange(ticks) == ticks - 1, (*lead, ticks))
    again = [comb(pairs - 1, k) * (digits - 1) ** (pairs - 1 - k) / digits ** (pairs - 1) for k in range(pairs)]
    unbound = -sum(p * np.log((1 + k) / pairs) for k, p in enumerate(again))
    floors = {"nothing": float(np.log(digits)), "the digits": float(unbound), "the whole": 0.0}
    x, y, counts = _rows(np.eye(letters + digits + 1)[shown], y, counts)
    return _told("associative retrieval", x, y, ticks, "cross-entropy", floors, counts)


def linear_track(trials: int, *, places: int = 10, reward: float = 1.0) -> Task:
    """From one end of a track to the other, with a reward on arrival: place k in tick k, then nowhere for a tick.

    The target is the ``reward`` of the tick; drive a `networks.TDError` unit's port ``reward`` with it. With one-step
    learning and a learning rate of 1 the start learns of the reward after as many walks as there are places; if the
    walk is replayed backwards, after one: those are the ``floors`` (walks).
    """
    x = np.concatenate([np.eye(places), np.zeros((1, places))])
    y = np.zeros((places + 1, 1))
    y[places, 0] = reward
    floors = {"one step, forward": float(places), "reverse replay": 1.0}
    return _told("linear track", np.tile(x, (trials, 1)), np.tile(y, (trials, 1)), places + 1, "value error", floors)


def key_to_door(
    trials: int,
    *,
    delay: int = 30,
    sigma: float = 5.0,
    reward: float = 10.0,
    p: float = 0.5,
    batch: int | None = None,
    seed: int = 0,
) -> Task:
    """What a choice is worth long before it pays: the key, taken with the probability ``p`` in the first tick, opens a
    door worth ``reward`` in the last; in between are ``delay`` ticks of rewards (apples) that have nothing to do with
    it, of mean 0 and standard deviation ``sigma``.

    Inputs: the key taken, the key left, the apples, the door. Whether there is a key cannot be seen afterwards. The
    target is the reward of the tick. ``floors``: the squared error of predicting each by its mean, per tick, and of
    knowing of the key. Tabular, after Hung et al., Nature Communications 10:5223 (2019).
    """
    rng = np.random.default_rng(seed)
    lead = (trials,) if batch is None else (trials, batch)
    ticks = delay + 2
    key = rng.random(lead) < p
    x, y = np.zeros((*lead, ticks, 4)), np.zeros((*lead, ticks, 1))
    x[..., 0, 0], x[..., 0, 1] = key, ~key
    x[..., 1:-1, 2] = x[..., -1, 3] = 1.0
    y[..., 1:-1, 0] = sigma * rng.normal(size=(*lead, delay))
    y[..., -1, 0] = reward * key
    apples = delay * sigma**2 / ticks
    floors = {"no memory": apples + p * (1 - p) * reward**2 / ticks, "the whole": apples}
    x, y = _rows(x, y)
    return _told("key to door", x, y, ticks, "value error", floors)


def _told(
    name: str,
    x: Any,
    y: Any,
    ticks: int | None,
    loss: Loss,
    floors: Mapping[str, float],
    counts: Any = None,
) -> Task:
    """A task of an input and a target, both (time, [batch,] n); with a mute where not all ticks count."""
    drive = {"input": x, "output.target": y}
    if counts is None:
        counts = np.ones(y.shape[:-1], bool)
    else:
        drive["output.mute"] = np.repeat(~counts[..., None], y.shape[-1], -1).astype(y.dtype)
    return Task(name, drive, ticks, loss, counts, dict(floors))


def _rows(*arrays: Any) -> Any:
    """(trials, [batch,] ticks, ...) -> (trials * ticks, [batch,] ...)."""
    batched = arrays[0].ndim == 4
    moved = [np.moveaxis(array, 2, 1) if batched else array for array in arrays]
    return tuple(array.reshape(-1, *array.shape[2:]) for array in moved)


def _constant(y: Any) -> dict[str, float]:
    """Half the variance: what the best constant leaves."""
    return {"the mean": float(y.var(0).sum() / 2), "the whole": 0.0}
