"""How fast is a sparse spiking network, with and without STDP, against Brian2, NEST and BindsNET?

The network of Vogels & Abbott, Journal of Neuroscience 25:10786-10795 (2005), in the form (CUBA) in which Brette et
al., Journal of Computational Neuroscience 23:349-398 (2007), compare simulators, in ticks of 0.1 ms:

    20 ms v' = -49 mV - v + g_e + g_i        v > -50 mV is a spike: v <- -60 mV for 5 ms
    5 ms g_e' = -g_e, 10 ms g_i' = -g_i      a spike adds w to g_e, or -9 mV to g_i, of its targets, a tick later

    20 ms r_j' = -r_j, 20 ms o_i' = -o_i     a spike of j adds 1 to r_j, a spike of i adds 1 to o_i
    a spike of i: w_ij <- w_ij + A_+ r_j     a spike of j: w_ij <- w_ij - A_- o_i, within 0 <= w_ij <= 3.24 mV

The last two lines are pair-based STDP, all to all, on the synapses between excitatory cells; without it w is 1.62 mV.
A cell has 80 synapses. Wiring and starting potentials are drawn once and handed to all. Each contestant is a process of
its own, which builds the network from the arrays, runs it from the same start as often as it is asked, keeps every
spike, and says how long the simulation took by its own account, building left out. The time from the start of the
process to its first result (imports, building, compiling, a run) is taken from outside, twice: the second start finds
what the first one compiled, where the contestant keeps it.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

DT = 1e-4  # seconds
MS = 1e3 * DT  # a tick in milliseconds
EXCITATORY, INHIBITORY = 1.62, -9.0  # mV
HIGH = 2 * EXCITATORY  # mV, the largest plastic weight
A_PLUS, A_MINUS = 0.005 * HIGH, 0.00525 * HIGH  # mV, of Song, Miller & Abbott (2000)
SEEDS = 16
UNCHANGED = np.full(1, EXCITATORY)
# Up to rounding all start alike; a hundred ticks later spikes begin to differ, first NEST's, which arrive a tick later.
TOGETHER = 0.03
# Then chaos parts them, and what agrees is the rate: at 4,000 cells that of a second differed by up to 4 %.
APART = 0.15
# Weights change with the square of the rate, by 4 % more or less there. Without depression, or with a time constant
# of half as long, they change otherwise by more. Asked of Brian2 alone: NEST changes a weight at the next spike of its
# cell, and is 10 % behind after a second, most of it after a few ticks.
LEARNED = 0.15
PARTS = 100  # of a run, in each of which spikes are counted; BindsNET runs the first alone

Net = dict[str, Any]  # what `spec` returns
Run = tuple[float, np.ndarray, np.ndarray]  # seconds, ticks of all spikes, weights between excitatory cells (mV)


def spec(cells: int, ticks: int, plastic: bool) -> Net:
    """Synapses by cell, in the order of ``post``, then ``pre``; the first four fifths of the cells are excitatory."""
    rng = np.random.default_rng(0)
    post, pre = np.divmod(np.unique(rng.integers(0, cells**2, 80 * cells)), cells)
    start = rng.uniform(-60, -50, (SEEDS, cells))  # mV
    return {"pre": pre, "post": post, "start": start, "ticks": ticks, "plastic": plastic, "excitatory": 4 * cells // 5}


def blocks(net: Net) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Names of the two populations, and the synapses between them as numbers within them."""
    edge = net["excitatory"]
    first = {"e": 0, "i": edge}
    for pre in first:
        for post in first:
            these = ((net["pre"] < edge) == (pre == "e")) & ((net["post"] < edge) == (post == "e"))
            yield pre, post, net["pre"][these] - first[pre], net["post"][these] - first[post]


# The contestants. Each builds the network and returns what runs it once from the start.


def engrax_network(net: Net) -> Any:
    import networkx as nx
    import scipy.sparse as sp

    from engrax import networks as nets, rules

    starts = np.split(net["start"][0], [net["excitatory"]])
    graph = nx.MultiDiGraph()
    for name, start in zip("ei", starts, strict=True):
        graph.add_node(name, neuron=nets.LIF(start=start), size=len(start))
    stdp = rules.Bounded(rules.STDP(a_plus=A_PLUS, a_minus=A_MINUS), low=0.0, high=HIGH)
    for name, other, pre, post in blocks(net):
        shape = tuple(len(starts["ei".index(population)]) for population in (other, name))
        weights = np.full(len(pre), EXCITATORY if name == "e" else INHIBITORY)
        graph.add_edge(
            name,
            other,
            port="excitatory" if name == "e" else "inhibitory",
            topology=sp.csr_array((weights, (post, pre)), shape),
            rule=stdp if net["plastic"] and name == other == "e" else None,
            delay=1,
        )
    return graph


def engrax(net: Net, folder: Path, seeds: int = 1) -> Callable[[], Run]:
    import jax

    from engrax import Simulator

    parts = [np.split(start, [net["excitatory"]]) for start in net["start"][:seeds]]
    points = [{"e.start": e, "i.start": i} for e, i in parts]
    sim = Simulator(engrax_network(net), dt=DT, points=points if seeds > 1 else None)
    first = jax.tree.map(np.asarray, sim.state)

    def run() -> Run:
        sim.state = jax.device_put(first)
        begun = time.perf_counter()
        found = sim.run(ticks=int(net["ticks"]), record={"e.spikes": 1, "i.spikes": 1})
        jax.block_until_ready(sim.state)
        seconds = time.perf_counter() - begun
        spikes = np.concatenate([found["e.spikes"].times, found["i.spikes"].times])
        return seconds, spikes, np.asarray(sim.params["e->e"].w)

    return run


def engrax_batch(net: Net, folder: Path) -> Callable[[], Run]:
    """All starting potentials in one program."""
    return engrax(net, folder, SEEDS)


def brian2_network(b2: Any, net: Net) -> tuple[Any, Any, Any, Any]:
    """As Brian2's documentation writes CUBA and STDP: https://brian2.readthedocs.io/en/stable/examples/."""
    b2.prefs.core.default_float_dtype = np.float32
    b2.defaultclock.dt = DT * b2.second
    cells = b2.NeuronGroup(
        len(net["start"][0]),
        """dv/dt = (ge + gi - (v + 49*mV)) / (20*ms) : volt (unless refractory)
           dge/dt = -ge / (5*ms) : volt
           dgi/dt = -gi / (10*ms) : volt""",
        threshold="v > -50*mV",
        reset="v = -60*mV",
        refractory=5 * b2.ms,
        method="exact",
        name="cells",
    )
    cells.v = net["start"][0] * b2.mV
    e, i = cells[: net["excitatory"]], cells[net["excitatory"] :]
    synapses, plastic = [], None
    for name, other, pre, post in blocks(net):
        groups = {"source": e if name == "e" else i, "target": e if other == "e" else i}
        if net["plastic"] and name == other == "e":
            between = plastic = b2.Synapses(
                **groups,
                model="""w : volt
                         dr/dt = -r / (20*ms) : 1 (event-driven)
                         do/dt = -o / (20*ms) : 1 (event-driven)""",
                on_pre="ge += w; r += 1; w = clip(w - a_minus * o, 0*mV, high)",
                on_post="o += 1; w = clip(w + a_plus * r, 0*mV, high)",
                namespace={"a_plus": A_PLUS * b2.mV, "a_minus": A_MINUS * b2.mV, "high": HIGH * b2.mV},
                name="plastic",
            )
        else:
            jump = f"ge += {EXCITATORY}*mV" if name == "e" else f"gi += {INHIBITORY}*mV"
            between = b2.Synapses(**groups, on_pre=jump)
        between.connect(i=pre, j=post)
        synapses.append(between)
    if plastic is not None:
        plastic.w = EXCITATORY * b2.mV
    monitor = b2.SpikeMonitor(cells, name="spikes")
    return b2.Network(cells, *synapses, monitor), cells, plastic, monitor


def brian2_cython(net: Net, folder: Path) -> Callable[[], Run]:
    """Brian2's default. What it compiles is kept in the folder, so that the first start finds nothing there."""
    import brian2 as b2

    b2.prefs.codegen.target = "cython"
    b2.prefs.codegen.runtime.cython.cache_dir = str(folder / "cython")
    network, _, plastic, monitor = brian2_network(b2, net)
    network.store()

    def run() -> Run:
        network.restore()
        network.run(int(net["ticks"]) * DT * b2.second, namespace={})
        seconds = float(b2.get_device()._last_run_time)
        weights = UNCHANGED if plastic is None else np.asarray(plastic.w / b2.mV)
        return seconds, np.round(np.asarray(monitor.t / b2.ms) / MS), weights

    return run


def brian2_cpp(net: Net, folder: Path) -> Callable[[], Run]:
    """C++ standalone: the program is written and compiled once, and run as often as wanted."""
    import brian2 as b2

    b2.set_device("cpp_standalone", directory=str(folder / "project"), build_on_run=False)
    network, _, plastic, monitor = brian2_network(b2, net)
    network.run(int(net["ticks"]) * DT * b2.second, namespace={})
    b2.device.build(run=False, directory=str(folder / "project"))

    def run() -> Run:
        b2.device.run(with_output=False)
        seconds = float(b2.device._last_run_time)
        weights = UNCHANGED if plastic is None else np.asarray(plastic.w / b2.mV)
        return seconds, np.round(np.asarray(monitor.t / b2.ms) / MS), weights

    return run


def brian2_cpp_batch(net: Net, folder: Path) -> Callable[[], Run]:
    """The compiled program once per starting potentials, as many at a time as there are cores."""
    project = folder.parent / "brian2_cpp" / "project"
    for seed, start in enumerate(net["start"]):
        (start / 1e3).astype(np.float32).tofile(project / f"start{seed}")

    def one(seed: int) -> tuple[np.ndarray, np.ndarray]:
        results = project / f"seed{seed}"
        results.mkdir(exist_ok=True)
        command = [str(project / "main"), "--results_dir", f"{results}/", f"cells.v=start{seed}"]
        subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
        (times,) = results.glob("_dynamic_array_spikes_t_*")
        weights = [np.fromfile(path, np.float32) for path in results.glob("_dynamic_array_plastic_w_*")]
        return np.round(np.fromfile(times) / DT), 1e3 * weights[0] if weights else UNCHANGED

    def run() -> Run:
        begun = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            spikes, weights = zip(*pool.map(one, range(SEEDS)), strict=True)
        return time.perf_counter() - begun, np.concatenate(spikes), np.concatenate(weights)

    return run


def nest(net: Net, folder: Path, threads: int = 1) -> Callable[[], Run]:
    """Potentials in mV and a capacity of 20 pF, so that a current in pA moves the membrane as 1 mV does here. NEST
    integrates in the last tick of its refractory time, and delivers a spike a tick later than the others (its
    smallest delay). Its numbers have 64 bits."""
    import nest

    cell = {
        "E_L": -49.0,
        "V_th": -50.0,
        "V_reset": -60.0,
        "t_ref": 5.0 - MS,
        "C_m": 20.0,
        "tau_m": 20.0,
        "tau_syn_ex": 5.0,
        "tau_syn_in": 10.0,
        "tau_minus": 20.0,
    }
    stdp = {"tau_plus": 20.0, "Wmax": HIGH, "lambda": A_PLUS / HIGH, "alpha": A_MINUS / A_PLUS}
    additive = {"synapse_model": "stdp_synapse", "mu_plus": 0.0, "mu_minus": 0.0}

    def run() -> Run:
        nest.ResetKernel()
        nest.verbosity = nest.VerbosityLevel.ERROR
        nest.SetKernelStatus({"resolution": MS, "local_num_threads": threads})
        cells = nest.Create("iaf_psc_exp", len(net["start"][0]), params=cell)
        cells.V_m = net["start"][0]
        populations = {"e": np.asarray(cells[: net["excitatory"]]), "i": np.asarray(cells[net["excitatory"] :])}
        recorder = nest.Create("spike_recorder")
        nest.Connect(cells, recorder)
        for name, other, pre, post in blocks(net):
            weight = np.full(len(pre), EXCITATORY if name == "e" else INHIBITORY)
            kind = stdp | additive if net["plastic"] and name == other == "e" else {"synapse_model": "static_synapse"}
            arrays = {"weight": weight, "delay": np.full(len(pre), MS)}
            nest.Connect(populations[name][pre], populations[other][post], "one_to_one", kind | arrays)
        with nest.RunManager():
            begun = time.perf_counter()
            nest.Run(int(net["ticks"]) * MS)
            seconds = time.perf_counter() - begun
        plastic = nest.GetConnections(synapse_model="stdp_synapse") if net["plastic"] else ()
        weights = np.asarray(plastic.get("weight")) if plastic else UNCHANGED
        return seconds, np.round(recorder.events["times"] / MS) - 1, weights

    return run


def nest_threads(net: Net, folder: Path) -> Callable[[], Run]:
    return nest(net, folder, os.cpu_count() or 1)


def bindsnet(net: Net, folder: Path) -> Callable[[], Run]:
    """A hundredth of the time. BindsNET has neither this neuron nor currents that decay: both are subclasses of its
    own here. Weights are dense and, where they are plastic, masked: its sparse connection does not learn, and takes
    ten times as long as a dense one."""
    import torch
    from bindsnet.learning import PostPre
    from bindsnet.network import Network
    from bindsnet.network.monitors import Monitor
    from bindsnet.network.nodes import LIFNodes
    from bindsnet.network.topology import Connection

    class Cells(LIFNodes):  # type: ignore[misc]
        """Held while refractory, where BindsNET's decay."""

        def forward(self, x: Any) -> None:
            moved = self.rest + (self.v - self.rest) * self.decay + x
            self.v = torch.where(self.refrac_count > 0, self.v, moved)
            self.refrac_count -= self.dt
            self.s = self.v > self.thresh
            self.refrac_count.masked_fill_(self.s, self.refrac)
            self.v.masked_fill_(self.s, self.reset)
            super(LIFNodes, self).forward(x)

    class Current(Connection):  # type: ignore[misc]
        """Decays with ``tau`` (ms), and moves a membrane by ``charge`` within a tick."""

        def compute(self, s: Any) -> Any:
            self.g = self.g * math.exp(-MS / self.tau) + super().compute(s)
            return self.g * self.charge

    network = Network(dt=MS)
    starts = dict(zip("ei", np.split(net["start"][0], [net["excitatory"]]), strict=True))
    cell = {"thresh": -50.0, "rest": -49.0, "reset": -60.0, "tc_decay": 20.0, "refrac": 5 - 1.5 * MS}
    for name, start in starts.items():
        network.add_layer(Cells(len(start), traces=True, traces_additive=True, tc_trace=20.0, **cell), name)
    masks = {}
    for name, other, pre, post in blocks(net):
        w = torch.zeros(len(starts[name]), len(starts[other]))
        w[pre, post] = EXCITATORY if name == "e" else INHIBITORY
        plastic = net["plastic"] and name == other == "e"
        rule = {"update_rule": PostPre, "nu": (A_MINUS, A_PLUS), "wmin": 0.0, "wmax": HIGH} if plastic else {}
        between = Current(network.layers[name], network.layers[other], w=w, **rule)
        between.tau = tau = 5.0 if name == "e" else 10.0
        between.charge = tau / (tau - 20.0) * (math.exp(-MS / tau) - math.exp(-MS / 20.0))
        network.add_connection(between, name, other)
        if plastic:
            masks[name, other] = w == 0
    ticks = int(net["ticks"]) // PARTS
    monitors = {name: Monitor(network.layers[name], ["s"], time=ticks) for name in starts}
    for name, monitor in monitors.items():
        network.add_monitor(monitor, name)
    learning = network.connections["e", "e"].w
    first = learning.clone()

    def run() -> Run:
        network.reset_state_variables()
        for name, start in starts.items():
            network.layers[name].v[:] = torch.as_tensor(start, dtype=torch.float32)
        for between in network.connections.values():
            between.g = 0.0
        learning.copy_(first)
        begun = time.perf_counter()
        network.run({}, (ticks + 0.5) * MS, masks=masks)
        seconds = PARTS * (time.perf_counter() - begun)
        spikes = [np.nonzero(monitor.get("s").reshape(ticks, -1).numpy())[0] for monitor in monitors.values()]
        return seconds, np.concatenate(spikes), learning[~masks["e", "e"]].numpy() if masks else UNCHANGED

    return run


CONTESTANTS = {f.__name__: f for f in (engrax, brian2_cpp, brian2_cython, nest, nest_threads, bindsnet)}
SMALL = ("bindsnet", "engrax_batch", "brian2_cpp_batch")  # at the smaller size alone
SLOW = ("brian2_cython",)  # takes minutes to compile: not in a quick run
BATCHES = {f.__name__: f for f in (engrax_batch, brian2_cpp_batch)}


def work(name: str, folder: Path) -> None:
    """Be a contestant: a run for every line on stdin, a line of JSON for every run."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    net = dict(np.load(folder.parent / "net.npz"))
    run = (CONTESTANTS | BATCHES)[name](net, folder)
    for _ in sys.stdin:
        seconds, spikes, weights = run()
        counts = np.bincount(spikes.astype(int) * PARTS // int(net["ticks"]), minlength=PARTS).tolist()
        change = float(np.mean(np.abs(weights - EXCITATORY)))
        print(json.dumps({"seconds": seconds, "counts": counts, "change": change}), file=answers, flush=True)


class Worker:
    """A contestant in a process of its own; ``start``: seconds from its beginning to its first result."""

    def __init__(self, name: str, folder: Path) -> None:
        own = folder / name
        own.mkdir(exist_ok=True)
        self.name, self.log = name, own / "log.txt"
        begun = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--contestant", name, str(own)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.first = self.run()
        self.start = time.perf_counter() - begun
        if name == "bindsnet":
            self.start += (1 - 1 / PARTS) * self.first["seconds"]

    def run(self) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            last = self.log.read_text().strip().splitlines()[-1:]
            raise ChildProcessError(f"{self.name} is left out: {''.join(last)}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def seconds(self) -> float:
        return float(self.run()["seconds"])

    def stop(self) -> None:
        self.process.communicate()


def check(name: str, ours: dict[str, Any], theirs: dict[str, Any], ticks: int) -> None:
    """Stop unless a contestant's cells spike as often as ours, and its weights move as far. NEST may be a tick late."""
    from common import agree

    parts = 1 if name == "bindsnet" else PARTS
    together = max(TOGETHER, PARTS / ticks) if name.startswith("nest") else TOGETHER
    agree(f"{name}, first spikes", ours["counts"][0], theirs["counts"][0], together)
    agree(f"{name}, spikes", *(np.sum(found["counts"][:parts]) for found in (ours, theirs)), APART)
    if ours["change"] > 1e-6 and name.startswith("brian2"):
        agree(f"{name}, change of the weights", ours["change"], theirs["change"], LEARNED)


def measure(net: Net, names: Iterable[str], rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds by contestant: of a run, from a start to its result, and from the next start."""
    from common import in_turn

    np.savez(folder / "net.npz", **net)
    starts: dict[str, float] = {}
    workers: dict[str, Worker] = {}
    for name in names:
        try:
            once = workers[name] = Worker(name, folder)
            if name in CONTESTANTS:
                once.stop()
                workers[name] = Worker(name, folder)
        except ChildProcessError as error:
            print(error, file=sys.stderr)
            continue
        starts[name] = once.start
        if not name.startswith("engrax"):
            check(name, workers["engrax_batch" if name in BATCHES else "engrax"].first, once.first, int(net["ticks"]))
    seconds = in_turn({name: worker.seconds for name, worker in workers.items()}, rounds)
    for worker in workers.values():
        worker.stop()
    return {"run": seconds, "start": starts, "next_start": {name: worker.start for name, worker in workers.items()}}


def main() -> None:
    if sys.argv[1:2] == ["--contestant"]:
        work(sys.argv[2], Path(sys.argv[3]))
        return
    from common import arguments, report

    quick = arguments(__doc__ or "")
    runs = {1000: (500, 1), 2000: (500, 1)} if quick else {4000: (10_000, 5), 40_000: (2000, 3)}  # ticks, rounds
    small, large = runs
    result: dict[str, Any] = {"synapses_per_cell": 80, "bits": {"nest": 64, "all others": 32}}
    for kind in ("static", "stdp"):
        found = {}
        for cells, (ticks, rounds) in runs.items():
            skipped = (*(SMALL if cells == large else ()), *(SLOW if quick else ()))
            names = [name for name in (*CONTESTANTS, *BATCHES) if name not in skipped]
            with tempfile.TemporaryDirectory() as folder:
                seconds = measure(spec(cells, ticks, kind == "stdp"), names, rounds, Path(folder))
            found[cells] = described(seconds, ticks)
        us, later = (one["us_per_tick"] for one in found.values())
        slopes = {name: math.log(later[name] / us[name], large / small) for name in us if us[name] and later[name]}
        result[kind] = {f"{cells} cells": one for cells, one in found.items()} | {"log_log_slope": slopes}
    first = {kind: result[kind][f"{small} cells"] for kind in ("static", "stdp")}
    result["targets"] = {
        "1.5x Brian2 C++": {kind: one["speedup_over"]["brian2_cpp"] for kind, one in first.items()},
        "5x from script start": {kind: one["start_speedup_over"]["brian2_cpp"] for kind, one in first.items()},
    }
    report("cuba", quick, result)


def described(seconds: dict[str, dict[str, float]], ticks: int) -> dict[str, Any]:
    """What `measure` found, as ratios too; None for who is left out."""
    from common import ratio

    run, start, next_start = ({name: part.get(name) for name in CONTESTANTS} for part in seconds.values())
    return {
        "ticks": ticks,
        "us_per_tick": {name: ratio(one, ticks / 1e6) for name, one in run.items()},
        "speedup_over": {name: ratio(one, run["engrax"]) for name, one in run.items() if name != "engrax"},
        "seconds_from_start": start,
        "start_speedup_over": {name: ratio(one, start["engrax"]) for name, one in start.items() if name != "engrax"},
        "seconds_from_next_start": next_start,
        f"seconds_for_{SEEDS}_seeds": {name: seconds["run"].get(name) for name in BATCHES},
    }


if __name__ == "__main__":
    main()
