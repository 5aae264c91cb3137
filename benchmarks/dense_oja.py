"""What does the generality of rules cost a dense layer, and how does it compare with PyTorch?

A linear layer of 784 inputs and 400 outputs under Oja's rule (float32), one input a tick and 64 a tick. The
hand-written formula is what an expert would write for this one rule; engrax gets it from the scalar function of a
synapse. Everyone reads the same numpy array of inputs, and copies it if it has to.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from common import agree, arguments, clock, in_turn, peer, ratio, report

from engrax import Simulator, networks as nets, rules

ETA = 1e-3
# Sums of 784 products in another order differ by 1e-6, and the rule pulls the weights of all contestants to the same
# place. A wrong term differs by more than 1e-2 after the run.
TOLERANCE = 1e-4


def engrax_run(w: np.ndarray, inputs: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=w.shape[1])
    net.add_node("out", neuron=nets.Linear(), size=w.shape[0])
    net.add_edge("in", "out", rule=rules.Oja(eta=ETA), weights=w)
    sim = Simulator(net)
    return lambda: (sim.run({"in": inputs}), sim.state)[1], lambda: sim.params["in->out"].w


def formula_run(w: np.ndarray, inputs: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Oja by hand in a ``lax.scan``, weights updated in place."""

    def online(w: Any, x: Any) -> Any:
        y = w @ x
        return w + ETA * y[:, None] * (x - y[:, None] * w), None

    def batched(w: Any, x: Any) -> Any:
        y = x @ w.T
        return w + ETA / x.shape[0] * (y.T @ x - jnp.square(y).sum(0)[:, None] * w), None

    @partial(jax.jit, donate_argnums=0)
    def run(w: Any, inputs: Any) -> Any:
        return jax.lax.scan(online if inputs.ndim == 2 else batched, w, inputs)[0]

    state = {"w": jnp.asarray(w)}

    def call() -> Any:
        state["w"] = run(state["w"], inputs)
        return state["w"]

    return call, lambda: state["w"]


def numpy_run(w: np.ndarray, inputs: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    w = w.copy()

    def call() -> None:
        nonlocal w
        for x in inputs:
            if x.ndim == 1:
                y = w @ x
                w += ETA * y[:, None] * (x - y[:, None] * w)
            else:
                y = x @ w.T
                w += ETA / len(x) * (y.T @ x - np.square(y).sum(0)[:, None] * w)

    return call, lambda: w


def torch_run(
    torch: Any, w: np.ndarray, inputs: np.ndarray, threads: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The fewest passes over the weights that eager PyTorch offers: one scaling, one rank-B update, in place."""
    w = torch.from_numpy(w.copy())
    given = torch.from_numpy(inputs)

    def call() -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            for x in given:
                if x.ndim == 1:
                    y = w @ x
                    w.mul_((1 - ETA * y * y)[:, None]).addr_(y, x, alpha=ETA)
                else:
                    y = x @ w.T
                    w.mul_((1 - ETA * (y * y).mean(0))[:, None]).addmm_(y.T, x, alpha=ETA / len(x))

    return call, lambda: w.numpy()


def compare(batch: int | None, ticks: int, rounds: int, torch: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shape = (ticks, 784) if batch is None else (ticks, batch, 784)
    inputs = (rng.normal(size=shape) / 28).astype(np.float32)  # length about 1, as a normalised image has
    w = rng.normal(0, 0.1, (400, 784)).astype(np.float32)
    made = {"engrax": engrax_run(w, inputs), "jax_formula": formula_run(w, inputs), "numpy": numpy_run(w, inputs)}
    if torch is not None:
        made["torch"] = torch_run(torch, w, inputs, torch.get_num_threads())
        made["torch_one_thread"] = torch_run(torch, w, inputs, 1)
    for call, _ in made.values():
        call()
    ours = np.asarray(made["engrax"][1]())
    for name, (_, weights) in made.items():
        agree(f"{name} w, batch {batch}", ours, weights(), TOLERANCE)
    seconds = in_turn({name: partial(clock, call) for name, (call, _) in made.items()}, rounds)
    tick = {name: value / ticks for name, value in seconds.items()}
    peers = ("jax_formula", "torch", "torch_one_thread", "numpy")
    return {
        "us_per_tick": {"engrax": 1e6 * tick["engrax"]} | {p: 1e6 * tick[p] if p in tick else None for p in peers},
        "speedup_over": {p: ratio(tick.get(p), tick["engrax"]) for p in peers},
    }


def main() -> None:
    quick = arguments(__doc__ or "")
    rounds = 3 if quick else 11
    torch = peer("torch")
    result = {
        "online": compare(None, 50 if quick else 2000, rounds, torch),
        "batch_64": compare(64, 10 if quick else 300, rounds, torch),
    }
    targets = {f"{case} formula": result[case]["speedup_over"]["jax_formula"] for case in result}
    if torch is not None:  # against the better of its two settings: threads hurt where others use the cores too
        for case in result:
            ratios = result[case]["speedup_over"]
            targets[f"{case} torch"] = min(ratios["torch"], ratios["torch_one_thread"])
    report("dense_oja", quick, {"inputs": 784, "outputs": 400, **result, "targets": targets})


if __name__ == "__main__":
    main()
