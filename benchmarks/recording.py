"""What does recording cost, and how does the file compare with what others write?

- A network of 1,000 neurons (dense, plastic) runs with every state field and port of every neuron recorded at every
  tick, and runs unrecorded; and so with the weights too, every 100 ticks.
- The same array is appended chunk by chunk by the recorder's store, and written by h5py in one call.
- 1,000 Brian2 neurons with a StateMonitor of as many values per tick, saved with numpy at the end.
- The file's size beside that of the bare numbers, and how long it takes to open and to cut a slice out of.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import networkx as nx
import numpy as np
from common import arguments, clock, in_turn, peer, ratio, report

import engrax
from engrax import Simulator, networks as nets, rules
from engrax.recordings.store import Column, Store

N = 1000
FIELDS = {f"out.{field}": 1 for field in ("x", "drive", "lateral", "apical", "learning")}


def network() -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=N)
    net.add_node("out", neuron=nets.Rate(), size=N)
    net.add_edge("in", "out", rule=rules.Oja(eta=1e-5), weights=nets.FanIn())
    return net


def drive(index: Any, key: Any) -> Any:
    return jnp.sin(index + jnp.arange(N) * 0.1)


def running(ticks: int, folder: Path) -> dict[str, Any]:
    """Seconds of the same run unrecorded, with all of its neurons' state, and with its weights as well."""
    sim = Simulator(network())

    def plain() -> None:
        sim.run({"in": drive}, ticks=ticks)

    def recorded(fields: dict[str, int]) -> Any:
        def go() -> None:
            with sim.record(folder / "run.h5", fields, overwrite=True):
                sim.run({"in": drive}, ticks=ticks)

        return go

    return {"plain": plain, "state": recorded(FIELDS), "weights": recorded({**FIELDS, "in->out.w": 100})}


def writing(folder: Path, array: np.ndarray) -> dict[str, Any]:
    """Seconds of writing an array (time, neurons): by chunks of 1,000 ticks through the store, and by h5py at once."""
    axes = (("neuron", np.arange(array.shape[1])),)
    column = Column("out", "x", "tick", axes, array.dtype, "x")

    def ours() -> None:
        store = Store(folder / "a.h5", "w")
        store.begin({"dt": 1e-3}, {}, {"event": "opened"})
        store.prepare([column], None)
        for start in range(0, len(array), 1000):
            store.append(column, np.arange(start, start + 1000), array[start : start + 1000])
        store.commit()
        store.close()

    def at_once() -> None:
        with h5py.File(folder / "b.h5", "w") as file:
            file["x"] = array

    def chunked() -> None:
        with h5py.File(folder / "c.h5", "w") as file:
            file.create_dataset("x", data=array, chunks=(131, array.shape[1]), maxshape=(None, array.shape[1]))

    return {"store": ours, "h5py at once": at_once, "h5py at once, chunked": chunked}


def monitored(b2: Any, ticks: int, folder: Path) -> dict[str, float]:
    """Brian2: monitors in memory, then a save. Seconds of the run, and of the same run without monitors."""
    b2.prefs.codegen.target = "cython"
    found = {}
    for name in ("unmonitored", "monitored"):
        b2.start_scope()
        group = b2.NeuronGroup(N, "x : 1\na : 1\nb : 1\nc : 1\nd : 1")
        group.run_regularly("x = sin(t / ms + i * 0.1)\na = x\nb = x\nc = x\nd = x", dt=1 * b2.ms)
        things = [group]
        if name == "monitored":
            things.append(b2.StateMonitor(group, ["x", "a", "b", "c", "d"], record=True, dt=1 * b2.ms))
        net = b2.Network(*things)
        net.run(10 * b2.ms)  # compiles
        start = time.perf_counter()
        net.run(ticks * b2.ms)
        if name == "monitored":
            np.savez(folder / "brian.npz", **{field: things[1].variables[field].get_value() for field in "xabcd"})
        found[name] = time.perf_counter() - start
    return found


def reading(folder: Path) -> dict[str, Any]:
    path = folder / "run.h5"

    def ours() -> None:
        with engrax.open(path) as tree:
            tree["out"].x[1000:1100].values.sum()

    def checked() -> None:
        with engrax.Recording(path) as recording:
            recording.fields["out.x"][1000:1100].sum()

    def plain() -> None:
        with h5py.File(path) as file:
            file["out/x"][1000:1100].sum()

    return {"engrax.open and slice": ours, "Recording and slice": checked, "h5py and slice": plain}


def main() -> None:
    quick = arguments(__doc__)
    # A multiple of the chunks that both recordings are cut into: nothing is compiled anew in a later round.
    ticks, rows, rounds = (6400, 6000, 2) if quick else (32_768, 60_000, 5)
    brian2 = peer("brian2")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = in_turn({key: partial(clock, run) for key, run in running(ticks, folder).items()}, rounds)
        size = (folder / "run.h5").stat().st_size
        with engrax.Recording(folder / "run.h5") as recording:
            bare = sum(data.nbytes for data in recording.fields.values())
        array = np.random.default_rng(0).normal(size=(rows, N)).astype(np.float32)
        writes = in_turn({key: partial(clock, run) for key, run in writing(folder, array).items()}, rounds)
        reads = in_turn({key: partial(clock, run) for key, run in reading(folder).items()}, rounds)
        brian = monitored(brian2, ticks, folder) if brian2 is not None else None
    ours = (times["state"] - times["plain"]) / ticks
    theirs = (brian["monitored"] - brian["unmonitored"]) / ticks if brian else None
    report(
        "what does recording cost?",
        quick,
        {
            "microseconds per tick": {key: value / ticks * 1e6 for key, value in times.items()},
            "cost of recording all state": times["state"] / times["plain"] - 1,
            "cost with weights every 100 ticks": times["weights"] / times["plain"] - 1,
            "megabytes per second": {key: array.nbytes / 1e6 / value for key, value in writes.items()},
            "time over h5py at once": {key: value / writes["h5py at once"] for key, value in writes.items()},
            "file over bare numbers": size / bare,
            "milliseconds to open and slice": {key: value * 1e3 for key, value in reads.items()},
            "microseconds per tick to record and save": {"engrax": ours * 1e6, "brian2": theirs and theirs * 1e6},
            "brian2 over engrax": ratio(theirs, ours),
        },
    )


if __name__ == "__main__":
    main()
