"""How many samples a second does a network learn from that sends random bits, or spikes, to classify images?

*Stochastic*: 784-1000-10 units, hidden ones 1 with their logistic probability, softmax outputs, errors through the
transposed weights, every weight and bias moved by the mean over a batch of 1 or 100. PyTorch does the same update by
the formula, in place and without autograd, eager and compiled, on all threads and on one. Draws differ, so what is
compared are the weights of networks whose hidden units send their mean.

*Diehl & Cook*: 784 Poisson inputs onto 100 excitatory cells, each with an inhibitory one that silences all others;
spike-timing-dependent plasticity from input to excitatory cells, whose summed weights are made equal after every image
of 250 ms (ticks of 1 ms). Numbers, and the order within a tick, are those of BindsNET's ``DiehlAndCook2015``. Of
several cells that spike in one tick one is drawn, so all must send about as many spikes.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
import networkx as nx
import numpy as np
from common import agree, arguments, clock, in_turn, peer, ratio, report

from engrax import Fields, Simulator, networks as nets, rules
from engrax.networks import Competition
from engrax.rules import Wrapper

ETA = 0.1
IMAGE = 250  # ticks
NORM, CELLS = 78.4, 100
ROUNDING = 1e-4  # of weights after some updates in float32; a wrong term differs by more than 1e-2
SPIKES = 0.15  # of counts over some images, where draws differ

Contestant = tuple[Callable[[], Any], Callable[[], Any]]  # a run, and what it came to


def patterns(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of ten images, a fifth of their pixels on, and their classes."""
    rng = np.random.default_rng(0)
    classes = rng.integers(10, size=count)
    prototypes = rng.random((10, 784)) < 0.2
    flipped = rng.random((count, 784)) < 0.1
    return (prototypes[classes] ^ flipped).astype(np.float32), classes


def engrax_stochastic(w: list[np.ndarray], x: np.ndarray, target: np.ndarray, *, draws: bool = True) -> Contestant:
    net = nets.perceptron((784, 1000, 10), rules.Delta(eta=ETA), hidden=nets.Bernoulli())
    sim = Simulator(net if draws else nets.mean_field(net))
    for name, start in zip(("input->hidden", "hidden->output"), w, strict=True):
        sim.set_weights(name, start)
    drive = {"input": x, "output.target": target}
    return lambda: (sim.run(drive), sim.state)[1], lambda: [sim.params[name].w.squeeze() for name in WEIGHTS]


WEIGHTS = ("input->hidden", "bias->hidden", "hidden->output", "bias->output")


def torch_stochastic(
    torch: Any,
    w: list[np.ndarray],
    x: np.ndarray,
    target: np.ndarray,
    *,
    draws: bool = True,
    compiled: bool = False,
    threads: int = 1,
) -> Contestant:
    w1, w2 = (torch.from_numpy(start.copy()) for start in w)
    b1, b2 = torch.zeros(1000), torch.zeros(10)
    given, wanted = torch.from_numpy(x), torch.from_numpy(target)
    step = ETA / x.shape[1]

    def update(x: Any, t: Any) -> None:
        p = torch.sigmoid(torch.addmm(b1, x, w1.T))
        h = (torch.rand_like(p) < p).float() if draws else p
        e2 = t - torch.softmax(torch.addmm(b2, h, w2.T), 1)
        e1 = (e2 @ w2) * p * (1 - p)
        w2.addmm_(e2.T, h, alpha=step)
        w1.addmm_(e1.T, x, alpha=step)
        b2.add_(e2.sum(0), alpha=step)
        b1.add_(e1.sum(0), alpha=step)

    learn = torch.compile(update) if compiled else update

    def call() -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            for row, t in zip(given, wanted, strict=True):
                learn(row, t)

    return call, lambda: [a.numpy() for a in (w1, b1, w2, b2)]


class OneOf(Competition):
    """Of those that spike, the one with the largest draw sends 1."""

    def __call__(self, x: Any) -> Any:
        return jnp.where((x > 0) & (x == jnp.max(x)), 1.0, 0.0)


class Cell(nets.Neuron):
    """BindsNET's leaky integrate-and-fire cell, whose threshold rises by ``plus`` with every spike. With ``drawn`` = 1
    it sends a random number, for `OneOf`."""

    ports: ClassVar[tuple[str, ...]] = ("drive",)
    noise: ClassVar[Any] = "uniform"
    rest: float = -65.0
    reset: float = -60.0
    threshold: float = -52.0
    tau: float = 100.0  # ticks
    refractory: float = 5.0  # ticks
    plus: float = 0.05
    drawn: float = 1.0  # or 0

    def init(self) -> Fields:
        return Fields(x=0.0, v=self.rest, theta=0.0, wait=0.0)

    def step(self, state: Fields, ports: Fields, noise: Any) -> Fields:
        v = self.rest + (state.v - self.rest) * jnp.exp(-1 / self.tau) + jnp.where(state.wait > 0, 0.0, ports.drive)
        spike = v >= self.threshold + state.theta
        return Fields(
            x=jnp.where(spike, 1 - self.drawn * noise, 0.0),
            v=jnp.where(spike, self.reset, v),
            theta=state.theta + jnp.where(spike, self.plus, 0.0),
            wait=jnp.where(spike, self.refractory, jnp.maximum(state.wait - 1, 0.0)),
        )


class AfterImages(Wrapper):
    """The summed weights of a cell are made equal after every image."""

    def constrained(self, env: Any) -> Any:
        w = self.rule.constrained(env)
        return jnp.where(env.signals.tick % IMAGE == IMAGE - 1, NORM * w / env.afferent, w)

    def constraint_pooled(self, env: Any) -> Any:
        return self.rule.constrained(env)


def engrax_spiking(w: np.ndarray, spikes: np.ndarray) -> Contestant:
    net = nx.MultiDiGraph()
    net.add_node("X", neuron=nets.Input(), size=784)
    net.add_node("Ae", neuron=Cell(lateral=OneOf()), size=CELLS)
    inhibitory = Cell(rest=-60.0, reset=-45.0, threshold=-40.0, tau=10.0, refractory=2.0, plus=0.0, drawn=0.0)
    net.add_node("Ai", neuron=inhibitory, size=CELLS)
    rule = AfterImages(rules.Bounded(rules.STDP(a_plus=1e-2, a_minus=1e-4, nearest=True), low=0.0, high=1.0))
    net.add_edge("X", "Ae", rule=rule, weights=w, delay=1)
    net.add_edge("Ae", "Ai", topology=nets.OneToOne(), weights=nets.Fixed(22.5), delay=1)
    net.add_edge("Ai", "Ae", weights=17.5 * (np.eye(CELLS) - 1), delay=1)
    sim = Simulator(net)
    counts: list[float] = []

    def call() -> None:
        counts.append(float(np.sum(sim.run({"X": spikes}, record={"Ae.x": 1})["Ae.x"] > 0)))

    return call, lambda: counts[0]


def bindsnet_spiking(w: np.ndarray, spikes: np.ndarray) -> Contestant:
    import torch
    from bindsnet.models import DiehlAndCook2015
    from bindsnet.network.monitors import Monitor

    network = DiehlAndCook2015(784, n_neurons=CELLS, inpt_shape=(784,))
    weight = network.connections["X", "Ae"].pipeline[0]
    weight.value.data.copy_(torch.from_numpy(w.T.copy()))
    monitor = Monitor(network.layers["Ae"], ["s"], time=IMAGE)
    network.add_monitor(monitor, "Ae")
    given = torch.from_numpy(spikes).byte().reshape(-1, IMAGE, 1, 784)
    counts: list[float] = []

    def call() -> None:
        torch.set_num_threads(1)  # more are slower: the network is small
        sent = 0.0
        for image in given:
            network.run({"X": image}, time=IMAGE)
            sent += float(monitor.get("s").sum())
        counts.append(sent)

    return call, lambda: counts[0]


def compare(made: dict[str, Contestant], samples: int, rounds: int) -> dict[str, Any]:
    seconds = in_turn({name: partial(clock, call) for name, (call, _) in made.items()}, rounds)
    return {
        "samples_per_second": {name: samples / taken for name, taken in seconds.items()},
        "speedup_over": {name: ratio(seconds[name], seconds["engrax"]) for name in made if name != "engrax"},
    }


def stochastic(batch: int, updates: int, rounds: int, torch: Any) -> dict[str, Any]:
    images, classes = patterns(batch * updates)
    x, target = images.reshape(updates, batch, 784), np.eye(10, dtype=np.float32)[classes].reshape(updates, batch, 10)
    rng = np.random.default_rng(1)
    w = [rng.normal(0, n**-0.5, (m, n)).astype(np.float32) for n, m in ((784, 1000), (1000, 10))]
    made = {"engrax": engrax_stochastic(w, x, target)}
    every = os.cpu_count() or 1
    if torch is not None:
        ours = engrax_stochastic(w, x[:10], target[:10], draws=False)
        ours[0]()
        for name, compiled in (("torch", False), ("torch_compiled", True)):
            theirs = torch_stochastic(torch, w, x[:10], target[:10], draws=False, compiled=compiled)
            theirs[0]()
            for which, one, other in zip(WEIGHTS, ours[1](), theirs[1](), strict=True):
                agree(f"{name} {which}, batch {batch}", one, other, ROUNDING)
            for threads, said in ((every, ""), (1, "_one_thread")):
                made[name + said] = torch_stochastic(torch, w, x, target, compiled=compiled, threads=threads)
    return compare(made, batch * updates, rounds)


def spiking(images: int, rounds: int, bindsnet: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pixels, _ = patterns(images)
    spikes = (rng.random((images, IMAGE, 784)) < 0.05 * pixels[:, None]).astype(np.float32).reshape(-1, 784)
    w = rng.random((CELLS, 784)).astype(np.float32)
    w *= NORM / w.sum(1, keepdims=True)
    made = {"engrax": engrax_spiking(w, spikes)}
    if bindsnet is not None:
        made["bindsnet"] = bindsnet_spiking(w, spikes)
    for call, _ in made.values():
        call()
    counts = {name: count() for name, (_, count) in made.items()}
    for name, count in counts.items():
        if not abs(count - counts["engrax"]) <= SPIKES * counts["engrax"]:
            raise SystemExit(f"{name} did other work than we: {count:.0f} spikes where we have {counts['engrax']:.0f}")
    return {"spikes": counts, **compare(made, images, rounds)}


def main() -> None:
    quick = arguments(__doc__ or "")
    rounds = 3 if quick else 11
    torch, bindsnet = peer("torch"), peer("bindsnet")
    result = {
        "stochastic_1": stochastic(1, 100 if quick else 2000, rounds, torch),
        "stochastic_100": stochastic(100, 20 if quick else 200, rounds, torch),
        "diehl_cook": spiking(4 if quick else 20, rounds, bindsnet),
    }
    targets = {case: min(result[case]["speedup_over"].values(), default=None) for case in result}
    report("classifiers", quick, {**result, "targets": targets})


if __name__ == "__main__":
    main()
