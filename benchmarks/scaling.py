"""Does a tick's time grow in proportion to the synapses, and how much memory does one take?

The sparse plastic network of sparse_plastic.py (tanh units, Oja every tick): neurons grow at a fixed in-degree, then
the in-degree at a fixed number of neurons. The slope of log time over log synapses is 1 where growth is linear. Memory
is how much larger a new process's resident size is with a large network than with a small one, per plastic synapse: at
its peak (building the network counts, the user's own matrix of 8 bytes a synapse included) and at the end of the run,
when the user has let go of the graph.
"""

import gc
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import networkx as nx
import numpy as np
import psutil
import scipy.sparse as sp
from common import arguments, clock, in_turn, report

from engrax import Simulator, networks as nets, rules


def network(n: int, k: int) -> nx.MultiDiGraph:
    """Each neuron hears its k predecessors in a random order of all: fast to build at any size, irregular to read."""
    rng = np.random.default_rng(0)
    order = rng.permutation(n).astype(np.int32)
    places = np.empty(n, np.int32)
    places[order] = np.arange(n, dtype=np.int32)
    pre = np.empty((n, k), np.int32)
    for row in range(n):
        pre[row] = np.sort(order[(places[row] + np.arange(1, k + 1)) % n])
    w = rng.standard_normal((n, k), np.float32) / np.float32(np.sqrt(k))
    matrix = sp.csr_array((w.ravel(), pre.ravel(), np.arange(0, n * k + 1, k, dtype=np.int32)), shape=(n, n))
    net = nx.MultiDiGraph()
    net.add_node("cells", neuron=nets.Rate(bias=rng.normal(0, 0.5, n)), size=n)
    net.add_edge("cells", "cells", topology=matrix, rule=rules.Oja(eta=1e-4), delay=1)
    return net


def memory(n: int, k: int) -> tuple[int, int]:
    """Bytes: the peak resident size of a new process that runs the network, and its size after the run."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", str(n), str(k)], capture_output=True, text=True, check=True
    )
    peak, after = done.stdout.split()[-2:]
    return int(peak), int(after)


def run_for_memory(n: int, k: int) -> None:
    sim = Simulator(network(n, k))
    for _ in range(2):
        sim.run(ticks=2)
    jax.block_until_ready(sim.state)
    sim.graph.clear()
    gc.collect()
    print(peak_size(), psutil.Process().memory_info().rss)


def peak_size() -> int:
    """Bytes. On Linux from /proc: what getrusage tells includes the parent's size at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def slope(synapses: list[int], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(synapses), np.log(seconds), 1)[0])


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        run_for_memory(int(sys.argv[2]), int(sys.argv[3]))
        return
    quick = arguments(__doc__ or "")
    rounds = 3 if quick else 7
    by_neurons = [(n, 20 if quick else 100) for n in ((500, 1000, 2000) if quick else (3000, 10_000, 30_000, 100_000))]
    by_degree = [(1000 if quick else 10_000, k) for k in ((10, 20, 40) if quick else (30, 100, 300, 1000))]
    sizes = sorted({*by_neurons, *by_degree})
    contestants, ticks = {}, {}
    for n, k in sizes:
        ticks[n, k] = max(5, (200_000 if quick else 20_000_000) // (n * k))
        sim = Simulator(network(n, k))
        contestants[f"{n}x{k}"] = partial(clock, lambda s=sim, t=ticks[n, k]: (s.run(ticks=t), s.state)[1])
    seconds = in_turn(contestants, rounds)
    tick = {(n, k): seconds[f"{n}x{k}"] / ticks[n, k] for n, k in sizes}

    # Both of the large pair are beyond the size from which kernels are compiled: their fixed cost is no synapse's.
    small, large = ((1000, 40), (10_000, 40)) if quick else ((10_000, 100), (100_000, 100))
    more = large[0] * large[1] - small[0] * small[1]
    peak, after = ((b - a) / more for a, b in zip(memory(*small), memory(*large), strict=True))
    slopes = {
        "neurons": slope([n * k for n, k in by_neurons], [tick[size] for size in by_neurons]),
        "in_degree": slope([n * k for n, k in by_degree], [tick[size] for size in by_degree]),
    }
    result: dict[str, Any] = {
        "ms_per_tick": {f"{n} neurons x {k}": 1e3 * tick[n, k] for n, k in sizes},
        "ns_per_synapse_and_tick": {f"{n} neurons x {k}": 1e9 * tick[n, k] / (n * k) for n, k in sizes},
        "slope": slopes,
        "bytes_per_synapse": {"peak": peak, "after_run": after},
        "targets": {"slope at most 1": max(slopes.values()), "16 bytes a synapse": peak},
    }
    report("scaling", quick, result)


if __name__ == "__main__":
    main()
