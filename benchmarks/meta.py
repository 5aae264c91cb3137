"""How fast is a rule learned: by gradient through a life of learned neurons, and by evolution of 1,000 members?

- gradient: meta-steps a second of `nets.learned_layers` (64 inputs, 32 cells, 50 ticks, batch 32), one life, with
  the gradient of the loss with respect to the neurons' numbers; PyTorch: the same formulas, eager, with autograd;
- evolution: evaluations of 1,000 members a second, each a rule of three Volterra terms for one cell (8 inputs, 100
  ticks, batch 16); PyTorch: the same, all members in each operation;
- workers: seconds a step of the same evolution over a Dask cluster of 1 and 2 processes; devices: in a process with 8
  simulated devices and in one with a single one.

All are held to the same losses, on the same inputs and first weights.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from common import agree, arguments, clock, in_turn, peer, ratio, report

from engrax import Fields, meta, networks as nets, rules

ETA, TERMS = 0.05, ("110", "021", "100")
WHOLE = {"ticks": 50, "members": 1000, "rounds": 7}
QUICK = {"ticks": 10, "members": 100, "rounds": 2}
SCRIPT = """
import sys; sys.path.insert(0, {folder!r})
import meta, common
step = meta.evolved(meta.evolving({members}), {members})
step(); print(min(common.clock(step) for _ in range(3)))
"""


def stream(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layered(ticks: int) -> meta.Learning:
    """Learned neurons whose last answer is to be small."""
    neuron = nets.LearnedNeuron.make(8, 2)
    x = stream((ticks, 32, 64), 0)
    net = nets.learned_layers((64, 32), neuron, rules.Metz2018(eta=ETA), rules.Metz2018Backward(eta=ETA))

    def task(key: Any) -> meta.Episode:
        return meta.Episode({"input": x}, lambda learnt: jnp.mean(learnt.x("layer1.z") ** 2))

    return meta.Learning(net, neuron, task, units=ticks, fixed=("scale",))


def by_torch(torch: Any, problem: meta.Learning, life: Any, ticks: int) -> Callable[[], Any]:
    """The same by formulas: the loss and the gradient."""
    theta = {k: torch.tensor(np.asarray(v), requires_grad=True) for k, v in problem.start.items()}
    w0, v0 = (torch.tensor(np.asarray(life.state.synapses[n].w[0])) for n in ("input->layer1", "layer1->input"))
    x = torch.tensor(stream((ticks, 32, 64), 0))

    def said(x: Any, z: Any, a: Any) -> Any:
        f = 3 * torch.tanh(torch.stack([x, z, a, torch.zeros_like(x), a * (z > 0)], -1) / 3)
        f = torch.cat([f, torch.ones_like(f[..., :1])], -1)
        return f @ theta["linear"].T + torch.tanh(f @ theta["inner"].T) @ theta["outer"].T

    def run() -> Any:
        w, v = w0, v0
        for row in x:
            z = row @ w.T
            above = said(torch.relu(z), z, torch.zeros_like(z))
            below = said(row, row, above[..., 4] @ v.T)
            change = torch.einsum("bik,bjk->ij", above[..., :2], below[..., 2:4]) / len(row)
            w, v = w + ETA * (change - 0.1 * w), v + ETA * (change.T - 0.1 * v)
        loss = (z**2).mean()
        return loss, torch.autograd.grad(loss, list(theta.values()))

    return run


def evolving(members: int) -> meta.Learning:
    rule = rules.Volterra(eta=ETA, theta=Fields(dict.fromkeys(TERMS, 0.5)))
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=8)
    net.add_node("out", neuron=nets.Linear(), size=1)
    net.add_edge("in", "out", rule=rule, weights=0.1)
    x = stream((100, 16, 8), 1)

    def task(key: Any) -> meta.Episode:
        return meta.Episode({"in": x}, lambda learnt: jnp.sum((learnt.w("in->out")[0] - 0.5) ** 2))

    return meta.Learning(net, rule, task, units=100, fixed=("eta",))


def population(members: int) -> dict[str, np.ndarray]:
    drawn = 0.3 * stream((len(TERMS), members), 2)
    return {f"theta.{name}": row for name, row in zip(TERMS, drawn, strict=True)}


def evolved(problem: meta.Learning, members: int) -> Callable[[], Any]:
    """The losses of all members, as a step of evolution has them computed."""
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), (members, 1)))
    step = meta.members.Members(problem, 1, False)
    thetas = {name: jnp.asarray(values) for name, values in population(members).items()}
    lives = step.begin(thetas, keys)
    return lambda: step.advance(thetas, lives)[1][:, 0]


def evolved_by_torch(torch: Any, members: int) -> Callable[[], Any]:
    hebb, oja, pre = (torch.tensor(row)[:, None] for row in population(members).values())
    x = torch.tensor(stream((100, 16, 8), 1))

    def run() -> Any:
        with torch.no_grad():
            w = torch.full((members, 8), 0.1)
            for row in x:
                y = w @ row.T  # (members, batch)
                w = w + ETA * (hebb * (y @ row) / 16 + oja * (y**2).mean(1, keepdim=True) * w + pre * row.mean(0))
            return ((w - 0.5) ** 2).sum(1)

    return run


def on_workers(members: int, workers: int, steps: int) -> float:
    """Seconds a step, after a first one."""
    import distributed

    problem = evolving(members)
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), (members, 1)))
    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        step = meta.members.Cluster(problem, 1, False, client, 8)
        lives = step.begin(population(members), keys)
        step.advance(population(members), lives)
        return min(clock(lambda: step.advance(population(members), lives)[1]) for _ in range(steps))


def on_devices(members: int, devices: int) -> float:
    """Seconds a step in a new process with so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    script = SCRIPT.format(folder=os.path.dirname(os.path.abspath(__file__)), members=members)
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "XLA_FLAGS": flags}, check=True,
                          capture_output=True, text=True)  # fmt: skip
    return float(done.stdout)


def main() -> None:
    quick = arguments(__doc__ or "")
    size = QUICK if quick else WHOLE
    torch = peer("torch")
    problem = layered(size["ticks"])
    life = problem.begin(problem.start, jax.random.key(0))
    slope = jax.jit(jax.value_and_grad(lambda theta: problem.advance(theta, life)[1]))
    step = evolved(evolving(size["members"]), size["members"])
    contestants = {"gradient, engrax": partial(slope, problem.start), "evolution, engrax": step}
    if torch is not None:
        contestants["gradient, PyTorch"] = by_torch(torch, problem, life, size["ticks"])
        contestants["evolution, PyTorch"] = evolved_by_torch(torch, size["members"])
        theirs = contestants["gradient, PyTorch"]()
        ours = slope(problem.start)
        agree("loss", [float(ours[0])], [float(theirs[0])], 1e-3)
        for name, gradient in zip(problem.start, theirs[1], strict=True):
            agree(f"gradient of {name}", ours[1][name], gradient.numpy(), 1e-2)
        finite = np.isfinite(np.asarray(step()))
        agree("losses of the members", np.asarray(step())[finite],
              contestants["evolution, PyTorch"]().numpy()[finite], 1e-2)  # fmt: skip
    seconds = in_turn({name: partial(clock, call) for name, call in contestants.items()}, size["rounds"])
    workers = {str(n): on_workers(size["members"], n, size["rounds"]) for n in (1, 2)}
    devices = {str(n): on_devices(size["members"], n) for n in (1, 8)}
    found = {
        "meta_steps_per_second": {n.split(", ")[1]: 1 / s for n, s in seconds.items() if n.startswith("gradient")},
        "members_per_second": {n.split(", ")[1]: size["members"] / s for n, s in seconds.items() if "evolution" in n},
        "seconds_per_step_by_workers": workers,
        "seconds_per_step_by_devices": devices,
        "targets": {"one worker over two": ratio(workers["1"], workers["2"]),
                    "one device over eight": ratio(devices["1"], devices["8"])},
    }  # fmt: skip
    if torch is not None:
        for what in ("gradient", "evolution"):
            found["targets"][f"{what}, PyTorch over engrax"] = ratio(
                seconds[f"{what}, PyTorch"], seconds[f"{what}, engrax"]
            )
    report("meta", quick, found)


if __name__ == "__main__":
    main()
