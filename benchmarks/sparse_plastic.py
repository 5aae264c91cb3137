"""How fast is a sparse plastic network, against Brian2, numpy and the memory itself?

One tick, for n neurons with k synapses each (float32, everyone the same):

    x_i <- tanh(sum_j w_ij x_j + b_i)            x_j: a tick ago
    w_ij <- w_ij + eta x_i (x_j - x_i w_ij)      x_i: as it is now

A synapse needs 12 bytes of memory traffic a tick: its weight read (4) and written (4), its pre neuron's number read
(4). The neurons' own 4 bytes per k synapses are left out. Bandwidth is a triad, measured in the same rounds: over
arrays of the size of the weights and of their indices, and over arrays that no cache holds.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp
from common import LARGE, agree, arguments, clock, in_turn, peer, ratio, report, triad

from engrax import Simulator, networks as nets, rules

ETA = 1e-4
BYTES = 12  # a synapse and tick, see above
# Rounding differs by 1e-7 a sum; the network is stable, so that a few hundred ticks gather little more. A tick out of
# step or a transposed weight differs by 1e-1.
TOLERANCE = 1e-4


def spec(n: int, k: int) -> dict[str, np.ndarray]:
    """The network in plain arrays, synapses in row order: ``pre`` (n, k), ``w`` (n, k), ``bias`` (n,)."""
    rng = np.random.default_rng(0)
    pre = np.sort(np.stack([rng.choice(n, k, replace=False) for _ in range(n)]), axis=1)
    w = rng.normal(0, 1 / np.sqrt(k), (n, k))
    return {"pre": pre.astype(np.int32), "w": w.astype(np.float32), "bias": rng.normal(0, 0.5, n).astype(np.float32)}


def engrax_network(net: dict[str, np.ndarray]) -> Simulator:
    n, k = net["pre"].shape
    matrix = sp.csr_array((net["w"].ravel(), net["pre"].ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    graph = nx.MultiDiGraph()
    graph.add_node("cells", neuron=nets.Rate(bias=net["bias"]), size=n)
    graph.add_edge("cells", "cells", topology=matrix, rule=rules.Oja(eta=ETA), delay=1)
    return Simulator(graph)


class Numpy:
    """The same tick with scipy's CSR product and indexing."""

    def __init__(self, net: dict[str, np.ndarray]) -> None:
        n, k = net["pre"].shape
        self.matrix = sp.csr_array((net["w"].ravel().copy(), net["pre"].ravel(), np.arange(0, n * k + 1, k)), (n, n))
        self.post = np.repeat(np.arange(n), k)
        self.bias = net["bias"]
        self.x = np.zeros(n, np.float32)

    def run(self, ticks: int) -> None:
        w, pre, eta = self.matrix.data, self.matrix.indices, np.float32(ETA)
        for _ in range(ticks):
            y = np.tanh(self.matrix @ self.x + self.bias)
            post = y[self.post]
            w += eta * post * (self.x[pre] - post * w)
            self.x = y


def brian2_network(brian2: Any, net: dict[str, np.ndarray]) -> tuple[Any, Any, Any]:
    """The same tick in Brian2: sums, then neurons, then weights."""
    n, k = net["pre"].shape
    brian2.prefs.core.default_float_dtype = np.float32
    brian2.defaultclock.dt = 1 * brian2.ms
    cells = brian2.NeuronGroup(n, "x : 1\nprevious : 1\ndrive : 1\nbias : 1 (constant)", name="cells")
    cells.bias = net["bias"]
    cells.run_regularly("previous = x; x = tanh(drive + bias)", when="thresholds")
    synapses = brian2.Synapses(cells, cells, "w : 1\ndrive_post = w * x_pre : 1 (summed)", name="synapses")
    synapses.connect(i=net["pre"].ravel(), j=np.repeat(np.arange(n), k))
    synapses.w = net["w"].ravel()
    synapses.run_regularly(f"w += {ETA} * x_post * (previous_pre - x_post * w)", when="synapses")
    return brian2.Network(cells, synapses), cells, synapses


def build_standalone(directory: Path, threads: int, ticks: int) -> None:
    """Write, compile and run Brian2's C++ program once (in a process of its own: one device for each)."""
    import brian2

    net = dict(np.load(directory / "net.npz"))
    brian2.set_device("cpp_standalone", directory=str(directory / "project"), build_on_run=True)
    brian2.prefs.devices.cpp_standalone.openmp_threads = threads
    network, cells, synapses = brian2_network(brian2, net)
    network.run(ticks * brian2.ms, namespace={})
    np.savez(directory / "result.npz", x=cells.x[:], w=synapses.w[:])


def run_cython(brian2: Any, network: Any, ticks: int) -> float:
    """Seconds of simulation, as Brian2 measures them: without looking its compiled code up."""
    network.run(ticks * brian2.ms, namespace={})
    return float(brian2.get_device()._last_run_time)


def run_standalone(directory: Path) -> float:
    """Seconds of simulation, as Brian2's program measures them."""
    project = directory / "project"
    subprocess.run([str(project / "main")], cwd=project, check=True, stdout=subprocess.DEVNULL)
    return float((project / "results" / "last_run_info.txt").read_text().split()[0])


def main() -> None:
    if sys.argv[1:2] == ["--standalone"]:
        build_standalone(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    quick = arguments(__doc__ or "")
    n, k, ticks, rounds = (1000, 50, 20, 3) if quick else (10_000, 100, 100, 9)
    numbers = LARGE // 16 if quick else LARGE
    net = spec(n, k)
    result: dict[str, Any] = {"neurons": n, "synapses": n * k, "ticks": ticks}

    begun = time.perf_counter()
    sim = engrax_network(net)
    sim.run(ticks=ticks)
    from_start = time.perf_counter() - begun
    x, w = np.asarray(sim.state.neurons["cells"].x), np.asarray(sim.params["cells->cells"].w)
    contestants: dict[str, Callable[[], float]] = {}
    contestants["engrax"] = lambda: clock(lambda: (sim.run(ticks=ticks), sim.state)[1])

    plain = Numpy(net)
    plain.run(ticks)
    agree("numpy x", x, plain.x, TOLERANCE)
    agree("numpy w", w, plain.matrix.data, TOLERANCE)
    contestants["numpy_scipy"] = lambda: clock(lambda: plain.run(ticks))

    brian2 = peer("brian2")
    starts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if brian2 is not None:
            network, cells, synapses = brian2_network(brian2, net)
            network.run(ticks * brian2.ms, namespace={})
            agree("Brian2 Cython x", x, cells.x[:], TOLERANCE)
            agree("Brian2 Cython w", w, synapses.w[:], TOLERANCE)
            contestants["brian2_cython"] = lambda: run_cython(brian2, network, ticks)
            cores = os.cpu_count() or 1
            for name, threads in (("brian2_cpp", 0), *([] if quick else [("brian2_cpp_openmp", cores)])):
                directory = Path(folder) / name
                directory.mkdir()
                np.savez(directory / "net.npz", **net)
                begun = time.perf_counter()
                command = [sys.executable, __file__, "--standalone", str(directory), str(threads), str(ticks)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"{name} is left out: {done.stderr[-400:]}", file=sys.stderr)
                    continue
                starts[name] = time.perf_counter() - begun
                theirs = np.load(directory / "result.npz")
                agree(f"{name} x", x, theirs["x"], TOLERANCE)
                agree(f"{name} w", w, theirs["w"], TOLERANCE)
                contestants[name] = lambda directory=directory: run_standalone(directory)
        contestants["triad"] = triad(n * k, ticks)
        contestants["triad_large"] = triad(numbers, 2)
        seconds = in_turn(contestants, rounds)

    passes = {"triad": seconds.pop("triad"), "triad_large": seconds.pop("triad_large")}
    tick = {name: value / ticks for name, value in seconds.items()}
    peers = ("brian2_cpp", "brian2_cpp_openmp", "brian2_cython", "numpy_scipy")
    needed = BYTES * n * k / tick["engrax"] / 1e9
    same, large = 12 * n * k / passes["triad"] / 1e9, 12 * numbers / passes["triad_large"] / 1e9
    result |= {
        "ms_per_tick": {"engrax": 1e3 * tick["engrax"]} | {p: 1e3 * tick[p] if p in tick else None for p in peers},
        "speedup_over": {p: ratio(tick.get(p), tick["engrax"]) for p in peers},
        "seconds_from_start": {"engrax": from_start} | {p: starts.get(p) for p in peers[:2]},
        "bytes_per_synapse_and_tick": BYTES,
        "GB_per_second": {"engrax": needed, "triad_same_size": same, "triad_beyond_cache": large},
        "bandwidth_fraction": {"of_same_size": needed / same, "of_beyond_cache": needed / large},
        "targets": {"5x Brian2 C++": ratio(tick.get("brian2_cpp"), tick["engrax"]), "half of bandwidth": needed / same},
    }
    report("sparse_plastic", quick, result)


if __name__ == "__main__":
    main()
