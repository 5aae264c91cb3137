"""What does a tick of each learner through time cost, how does that grow with the width, and how do others do?

A vanilla network of n tanh units (two inputs, two linear outputs, no leak anywhere, batch 1, float32) whose gradient is
summed over a run of ticks and applied at its end. The theory says how many numbers a learner keeps and how many
products it takes; reported are microseconds a tick and bytes between ticks, and the power of n with which they grow
over the upper half of the widths.

- numpy: RTRL, SnAp-1, UORO and RFLO for this one cell by their formulas, batch 1, on one thread: more are slower at
  these sizes where others use the cores too;
- braintrace: SnAp-1, UORO and its diagonal RTRL on its own vanilla cell. The last leaves out all that goes through
  recurrent weights, also a neuron's onto itself, so for this cell it is RFLO.

RTRL and RFLO are held to numpy's gradient, BPTT over the whole run to RTRL's, braintrace's RFLO and SnAp-1 to numpy's.
The SnAp-1 of numpy and braintrace takes the diagonal of the last tick too, where that of engrax is exact through it.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import agree, arguments, clock, in_turn, peer, ratio, report
from threadpoolctl import threadpool_limits

from engrax import Phase, Simulator, networks as nets, rules

STILL, WHOLE = 1e-6, 1.0  # learning rates: to be timed, and for the change of weights to be the gradient
ROUNDING = 1e-2  # of the gradient, read off float32 weights of order 1
LEARNERS: dict[str, tuple[Callable[[float], Any], int, int]] = {
    # what it keeps, what it takes: powers of n
    "none": (lambda eta: None, 0, 2),
    "RFLO": (lambda eta: rules.Accumulated(rules.RFLO(eta=eta)), 2, 2),
    "BPTT, 10 ticks": (lambda eta: rules.BPTT(eta=eta, window=10), 1, 2),
    "BPTT, 10 ticks, sliding": (lambda eta: rules.BPTT(eta=eta, window=10, sliding=True), 1, 2),
    "UORO": (lambda eta: rules.UORO(eta=eta), 2, 2),
    "DNI": (lambda eta: rules.DNI(eta=eta), 2, 2),
    "KeRNL": (lambda eta: rules.KeRNL(eta=eta), 2, 2),
    "SnAp-1": (lambda eta: rules.SnAp(eta=eta, n=1), 2, 2),
    "KF-RTRL": (lambda eta: rules.KFRTRL(eta=eta), 2, 3),
    "reverse KF-RTRL": (lambda eta: rules.ReverseKFRTRL(eta=eta), 2, 3),
    "RTRL": (lambda eta: rules.RTRL(eta=eta), 3, 4),
}
PLASTIC = ("input->hidden", "hidden->hidden", "hidden->output")
BATCH, BATCHED = 32, ("RFLO", "UORO", "BPTT, 10 ticks", "RTRL")
WORK, TICKS = 2e9, (20, 5000)  # products in a run, as the theory counts them, within these ticks
HELD = 100  # ticks over which gradients are compared


def cell(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    shapes = {"input->hidden": (n, 2), "hidden->hidden": (n, n), "hidden->output": (2, n)}
    return {name: rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def task(ticks: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ticks, 2)).astype(np.float32)
    return x, (0.1 / ticks * np.roll(x, 3, 0)).astype(np.float32)


class Unit(nets.Hidden):
    """A unit without a leak that has what RFLO asks of a neuron."""

    def init(self) -> nets.Fields:
        return super().init().replace(keep=0.0, credit=0.0)

    def step(self, ports: nets.Fields) -> nets.Fields:
        return super().step(ports).replace(keep=jnp.zeros(()))

    def respond(self, state: nets.Fields, ports: nets.Fields) -> nets.Fields:
        return super().respond(state, ports).replace(credit=ports.apical)


class Engrax:
    """A run of the simulator; ``gradient()`` is how it changed the weights first."""

    def __init__(self, rule: Any, n: int, x: np.ndarray, y: np.ndarray, batch: int | None = None) -> None:
        w = cell(n)
        self.start, ticks = w["hidden->hidden"], len(x)
        cells: dict[str, Any] = {"hidden": Unit(activation=jnp.tanh), "output": nets.Output()}
        net = nets.recurrent((2, n, 2), feedback="symmetric", bias=False, **cells)
        nets.set_rule(net, rule, PLASTIC)
        if isinstance(rule, rules.Accumulated):  # RFLO is the delta rule where nothing leaks, but for its trace
            nets.set_rule(net, rules.Accumulated(rules.Delta(eta=rule.rule.eta)), PLASTIC[2:])
        self.sim = Simulator(net)
        for name, values in w.items():
            self.sim.set_weights(name, values)
        if batch is not None:
            x, y = (np.broadcast_to(a[:, None], (ticks, batch, 2)) for a in (x, y))
        self.drive = {"input": x, "output.target": y}
        plastic = "every" if isinstance(rule, rules.LocalRule) else "last"
        self.trial = Phase("trial", ticks=ticks, reset=True, plastic="never" if rule is None else plastic)

    def run(self) -> Any:
        self.sim.run(self.drive, trial=self.trial)
        return self.sim.state

    def gradient(self) -> np.ndarray:
        self.run()
        return np.asarray(self.sim.params["hidden->hidden"].w) - self.start

    @property
    def bytes(self) -> int:
        kept = (self.sim.state.credit, {name: s.syn for name, s in self.sim.state.synapses.items()})
        return sum(leaf.nbytes for leaf in jax.tree.leaves(kept))


class Plain:
    """The formulas for this one cell in numpy."""

    def __init__(self, learner: str, n: int, x: np.ndarray, y: np.ndarray) -> None:
        self.learner, self.n, self.x, self.y = learner, n, x, y
        w = cell(n)
        self.w, self.out = np.hstack([w["hidden->hidden"], w["input->hidden"]]), w["hidden->output"]
        self.total = np.zeros_like(self.w)
        self.rng = np.random.default_rng(0)

    def run(self) -> None:
        with threadpool_limits(1):
            self._run()

    def _run(self) -> None:
        n, total, a = self.n, np.zeros_like(self.w), np.zeros(self.n, np.float32)
        m = self.w.shape[1]
        influence = np.zeros((n, n * m), np.float32)
        left, right = (self.rng.normal(size=size).astype(np.float32) for size in (n, n * m))
        rows, own = np.arange(n), np.zeros_like(self.w)
        for x, y in zip(self.x, self.y, strict=True):
            seen = np.concatenate([a, x])
            a = np.tanh(self.w @ seen)
            d = 1 - a * a
            q = self.out.T @ (y - self.out @ a)
            if self.learner == "RTRL":
                influence = (d[:, None] * self.w[:, :n]) @ influence
                influence.reshape(n, n, m)[rows, rows] += d[:, None] * seen
                total += (q @ influence).reshape(n, m)
            elif self.learner == "SnAp-1":
                own = (d * np.diagonal(self.w))[:, None] * own + np.outer(d, seen)
                total += q[:, None] * own
            elif self.learner == "UORO":
                signs = self.rng.choice(np.array([-1, 1], np.float32), n)
                pushed, now = d * (self.w[:, :n] @ left), np.outer(signs * d, seen).ravel()
                before = np.sqrt(np.linalg.norm(right) / np.linalg.norm(pushed))
                here = np.sqrt(np.linalg.norm(now) / math.sqrt(n))
                left, right = before * pushed + here * signs, right / before + now / here
                total += (q @ left) * right.reshape(n, m)
            else:  # RFLO with alpha = 1 and symmetric feedback
                total += np.outer(q * d, seen)
        self.total = total

    def gradient(self) -> np.ndarray:
        self.run()
        return self.total[:, : self.n]


def braintrace_run(
    braintrace: Any, learner: Any, n: int, x: np.ndarray, y: np.ndarray, options: dict[str, int]
) -> Callable[[], Any]:
    """A run that returns the gradient, its mean over the ticks; of the recurrent weights see `recurrent_part`."""
    import brainstate

    class Net(brainstate.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = braintrace.nn.ValinaRNNCell(2, n, activation="tanh")
            self.out = braintrace.nn.Linear(n, 2)

        def update(self, x: Any) -> Any:
            return self.out(self.rnn(x))

    w, net = cell(n), Net()
    for path, values in net.states(brainstate.ParamState).items():
        weights = w["hidden->output"] if "out" in path else np.hstack([w["input->hidden"], w["hidden->hidden"]])
        values.value = {**values.value, "weight": jnp.asarray(weights.T)}
    learning = braintrace.compile(net, learner, jnp.zeros((1, 2)), batch_size=1, **options)
    xs, ys = jnp.asarray(x)[:, None], jnp.asarray(y)[:, None]

    @brainstate.transform.jit
    def run() -> Any:
        return learning.etrace_grad(xs, ys, step_fn=lambda x, y: 0.5 * jnp.sum((learning(x) - y) ** 2))

    return run


def recurrent_part(gradient: Any, ticks: int) -> np.ndarray:
    """By how much braintrace's gradient, summed over a run, would have the recurrent weights change."""
    (weights,) = (value["weight"] for path, value in gradient.items() if "rnn" in path)
    return -ticks * np.asarray(weights)[2:].T


def length(name: str, n: int, batch: int = 1) -> int:
    """The ticks of a run: many, so that a run's own start is lost in them, but seconds where a tick is long."""
    return int(np.clip(WORK / (batch * n ** LEARNERS[name][2]), *TICKS))


def at(n: int, rounds: int, braintrace: Any, heavy: int) -> dict[str, Any]:
    names = [name for name in LEARNERS if name != "RTRL" or n <= heavy]
    ours = {name: Engrax(LEARNERS[name][0](STILL), n, *task(length(name, n))) for name in names}
    contestants: dict[str, tuple[Callable[[], Any], int]] = {}
    for name, made in ours.items():
        contestants[f"engrax {name}"] = made.run, length(name, n)
    x, y = task(HELD)
    for name in ("RTRL", "UORO", "RFLO", "SnAp-1"):
        if name in ours:
            contestants[f"numpy {name}"] = Plain(name, n, *task(length(name, n))).run, length(name, n)
            if name in ("RTRL", "RFLO"):
                gradient = Engrax(LEARNERS[name][0](WHOLE), n, x, y).gradient()
                agree(f"numpy {name}, n = {n}", gradient, Plain(name, n, x, y).gradient(), ROUNDING)
    if "RTRL" in ours:
        whole = Engrax(rules.BPTT(eta=WHOLE, window=HELD), n, x, y).gradient()
        agree(f"BPTT, n = {n}", Engrax(LEARNERS["RTRL"][0](WHOLE), n, x, y).gradient(), whole, ROUNDING)
    for name in BATCHED:
        if name in ours:
            ticks = length(name, n, BATCH)
            contestants[f"engrax {name}, batch {BATCH}"] = (
                Engrax(LEARNERS[name][0](STILL), n, *task(ticks), BATCH).run,
                ticks,
            )
    if braintrace is not None:
        peers: dict[str, tuple[Any, dict[str, int]]] = {
            "RFLO": (braintrace.D_RTRL, {}),
            "SnAp-1": (braintrace.SnAp, {"n": 1}),
            "UORO": (braintrace.UORO, {}),
        }
        for name, (learner, options) in peers.items():
            try:
                run = braintrace_run(braintrace, learner, n, *task(length(name, n)), options)
                held = braintrace_run(braintrace, learner, n, x, y, options)()
            except Exception as error:
                print(f"braintrace {name}, n = {n}, is left out: {error}", flush=True)
            else:
                contestants[f"braintrace {name}"] = run, length(name, n)
                if name != "UORO":
                    theirs = recurrent_part(held, HELD)
                    agree(f"braintrace {name}, n = {n}", Plain(name, n, x, y).gradient(), theirs, ROUNDING)
    seconds = in_turn({name: partial(clock, call) for name, (call, _) in contestants.items()}, rounds)
    return {
        "us_per_tick": {name: 1e6 * taken / contestants[name][1] for name, taken in seconds.items()},
        "bytes": {name: made.bytes for name, made in ours.items()},
    }


def growth(found: dict[int, dict[str, Any]], part: str) -> dict[str, dict[str, float]]:
    """The power of n between the middle width and the largest, beside the theory's."""
    widths = sorted(found)
    powers = {}
    for name, (_, kept, products) in LEARNERS.items():
        key = f"engrax {name}" if part == "us_per_tick" else name
        there = [n for n in widths if found[n][part].get(key)]
        if len(there) > 1:
            low, high = there[len(there) // 2 - (len(there) == 2)], there[-1]
            seen = math.log(found[high][part][key] / found[low][part][key]) / math.log(high / low)
            powers[name] = {"seen": seen, "theory": products if part == "us_per_tick" else kept}
    return powers


def main() -> None:
    quick = arguments(__doc__ or "")
    braintrace = peer("braintrace")
    widths, rounds, heavy = ((8, 32), 3, 32) if quick else ((8, 16, 32, 64, 128, 256), 5, 128)
    found = {n: at(n, rounds, braintrace, heavy) for n in widths}
    targets = {}
    for n in (32, 128):
        if n in found:
            taken = found[n]["us_per_tick"]
            for name in ("RTRL", "UORO", "RFLO", "SnAp-1"):
                for other in ("numpy", "braintrace"):
                    if f"{other} {name}" in taken:
                        targets[f"{name} over {other}, n = {n}"] = ratio(
                            taken[f"{other} {name}"], taken[f"engrax {name}"]
                        )
            for name in BATCHED:
                targets[f"batch {BATCH} of {name} over batch 1, n = {n}"] = (
                    taken[f"engrax {name}, batch {BATCH}"] / taken[f"engrax {name}"]
                )
    report("temporal", quick, {
        "widths": {str(n): value for n, value in found.items()},
        "growth_of_time": growth(found, "us_per_tick"),
        "growth_of_memory": growth(found, "bytes"),
        "targets": targets,
    })  # fmt: skip


if __name__ == "__main__":
    main()
