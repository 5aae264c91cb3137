"""However a recorder dies, its file opens and holds what was flushed."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import networkx as nx
import numpy as np
import pytest
import xarray
from click.testing import CliRunner

import engrax
from engrax import Recording, RecordingError, SimulationError, Simulator, cli, networks as nets, rules
from engrax.recordings import ordered
from engrax.recordings.watch import follow, glance

N = 20
FIELDS = {"out.x": 1, "out.spikes": 1, "in->out.w": 20, "out.drive": 10}

# A process that is forked for every path it is told (before JAX has begun, so that only the imports are shared), to
# record for ever and be killed. The drive is a function, so that every sample can be checked.
RECORDER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_crash import FIELDS, network
from engrax import Simulator, networks as nets
import numpy as np

def record(path):
    options = {"compression": "gzip"} if "packed" in path else {}
    sim = Simulator(network(), seed=1)
    flush, save = (1.0, 60.0) if "live" in path else (0.02, 0.1)
    with sim.record(path, FIELDS, flush_every=flush, checkpoint_every=save, chunk=50, **options):
        os.write(1, f"recording {os.getpid()}\\n".encode())
        orphaned = lambda sim: os.getppid() != parent  # never outlive the tests
        sim.run({"in": nets.gaussian(np.eye(5))}, ticks=10**7, chunk=100, callbacks=[orphaned])

parent = os.getpid()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if os.fork() == 0:
        record(line.strip())
"""


@pytest.fixture(scope="module")
def recorders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[list[Path]], list[int]]]:
    """Starts a recording process for each path, and says which."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")), "PYTHONWARNINGS": "ignore"}
    always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    environment = {**os.environ, **cache, **always, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", RECORDER, str(Path(__file__).parent)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def start(paths: list[Path]) -> list[int]:
            process.stdin.write("".join(f"{path}\n" for path in paths))
            process.stdin.flush()
            return [int(process.stdout.readline().split()[1]) for _ in paths]

        yield start
        process.kill()


def true_outputs(ticks: int) -> np.ndarray:
    run = Simulator(network(), seed=1).run({"in": nets.gaussian(np.eye(5))}, ticks=ticks, record={"out.x": 1})
    return run["out.x"]


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)


def network() -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=5)
    net.add_node("out", neuron=nets.Rate(), size=N)
    net.add_edge("in", "out", rule=rules.Oja(eta=1e-3))
    net.add_edge("out", "out", topology=nets.Probability(0.2), delay=2)
    return net


def test_every_moment_of_writing_leaves_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writes of a recording are replayed one by one: after each, the file opens and its samples are the run's."""
    writes: list[tuple[int, bytes]] = []
    put = ordered.OrderedFile._put

    def noted(self: ordered.OrderedFile, data: bytes, address: int) -> None:
        writes.append((address, bytes(data)))
        put(self, data, address)

    monkeypatch.setattr(ordered.OrderedFile, "_put", noted)
    sim = Simulator(network(), seed=1)
    fields = {"out.x": 1, "out.spikes": 1, "in->out.w": 7}
    path, moment = tmp_path / "run.h5", tmp_path / "moment.h5"
    with sim.record(path, fields, flush_every="30 ticks", checkpoint_every="60 ticks", chunk=16):
        begun = len(writes)  # until here the file has another name
        for _ in range(3):
            sim.run({"in": nets.gaussian(np.eye(5))}, ticks=200, chunk=30)
    with Recording(path) as recording:
        truth = {name: recording.values(name) for name in recording.fields}
        times = recording.spikes("out.spikes").times
    image = bytearray()
    lengths, resumable = [], 0
    for number, (address, data) in enumerate(writes):
        image.extend(bytes(max(0, address + len(data) - len(image))))
        image[address : address + len(data)] = data
        if number < begun - 1:
            continue
        moment.write_bytes(image)
        with Recording(moment) as recording:
            for name, data_ in recording.fields.items():
                held = recording.values(name)
                np.testing.assert_array_equal(held, truth[name][: len(held)], err_msg=f"write {number}: {name}")
                assert len(recording.ticks(name)) == len(data_)
            if recording.spike_names:
                held = recording.spikes("out.spikes").times
                np.testing.assert_array_equal(held, times[: len(held)])
            if recording.runs:
                assert recording.state()[0]["tick"] <= 600
                resumable += 1
            lengths.append(len(recording.fields["out.x"]) if recording.fields else 0)
    assert len(writes) > 500
    assert lengths == sorted(lengths)
    assert lengths[-1] == 600
    assert len(set(lengths)) >= 15
    assert resumable > 0.8 * len(lengths)


@pytest.mark.parametrize(
    ("kind", "kills"), [("plain", 6), ("packed", 6), pytest.param("plain", 48, marks=pytest.mark.slow)]
)
def test_killed_processes_leave_recordings(tmp_path: Path, recorders: Any, kind: str, kills: int) -> None:
    """kill -9 at random moments, dozens of times: h5py and xarray open what is left, and every sample is the run's."""
    rng = np.random.default_rng(0)
    truth = Simulator(network(), seed=1).run({"in": nets.gaussian(np.eye(5))}, ticks=40_000, record={"out.x": 1})[
        "out.x"
    ]
    held = []
    paths = [tmp_path / f"{kind}{number}.h5" for number in range(kills)]
    for together in (paths[k : k + 3] for k in range(0, kills, 3)):  # at once: starting them is most of the work
        pids = recorders(together)
        begun = time.monotonic()
        while (
            together[0] != paths[0] and time.monotonic() < begun + 60
        ):  # but for the first three: before their samples
            if all(path.stat().st_size > 200_000 for path in together):
                break
            time.sleep(0.05)
        for pid in pids:
            time.sleep(rng.uniform(0.0, 0.3))
            killed(pid)
        for path in together:
            with h5py.File(path) as file:
                x = file["out/x"][:40_000] if "out/x" in file else np.empty((0, N))
            np.testing.assert_array_equal(x, truth[: len(x)])
            with xarray.open_datatree(path, engine="h5netcdf") as tree:
                assert "in->out" in tree.children or not len(x)
            seen = glance(path)
            assert (seen.complete, seen.alive) == (False, False)
            held.append(len(x))
    assert sum(length > 0 for length in held) >= kills // 4
    path = paths[max(range(kills), key=held.__getitem__)]
    with Recording(path) as recording:
        start = recording.state()[0]["tick"]
    assert engrax.resume(path, 500).tick == start + 500
    with Recording(path) as recording:
        x = recording.values("out.x")
    assert len(x) == start + 500
    np.testing.assert_array_equal(x[:40_000], truth[: len(x)])


def test_a_full_disk_is_told_and_the_file_stays_readable(tmp_path: Path) -> None:
    """The system refuses to let the file grow, in the middle of a run."""
    path = tmp_path / "full.h5"
    sim = Simulator(network(), seed=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = sim.record(path, FIELDS, flush_every="100 ticks")
    try:
        with pytest.raises(RecordingError, match=r"full.h5: writing failed \(File too large\).*can be read"), recorder:
            sim.run({"in": nets.gaussian(np.eye(5))}, ticks=200, chunk=100)
            time.sleep(0.3)  # for the writer to be done
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20_000, before[1]))
            sim.run({"in": nets.gaussian(np.eye(5))}, ticks=20_000, chunk=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    expected = Simulator(network(), seed=1).run({"in": nets.gaussian(np.eye(5))}, ticks=400, record={"out.x": 1})[
        "out.x"
    ]
    with Recording(path) as recording:
        x = recording.values("out.x")
        assert not recording.complete
    assert 200 <= len(x) < 2000
    np.testing.assert_array_equal(x[:400], expected[: len(x)])


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_vanishes_is_told(tmp_path: Path, how: str) -> None:
    path = tmp_path / "gone.h5"
    sim = Simulator(network(), seed=1)

    def vanish(sim: Simulator) -> None:
        if sim.tick == 500:
            path.unlink()
            if how == "replaced":
                path.write_text("mine now")

    with (
        pytest.raises(RecordingError, match=r"gone.h5: writing failed \(it was removed or replaced"),
        sim.record(path, FIELDS, flush_every="100 ticks"),
    ):
        sim.run({"in": nets.gaussian(np.eye(5))}, ticks=5000, chunk=100, callbacks=[vanish])
    assert not path.exists() or path.read_text() == "mine now"


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be written: Is a directory"):
        Simulator(network()).record(tmp_path, {"out.x": 1}, overwrite=True)
    with pytest.raises(RecordingError, match="cannot be written: No such file"):
        Simulator(network()).record(tmp_path / "nowhere" / "a.h5", {"out.x": 1})


def test_a_failed_chunk_is_recorded_once(tmp_path: Path) -> None:
    """After a run that failed, the next one begins where the last good chunk ended."""
    path = tmp_path / "twice.h5"
    net = network()
    net.nodes["out"]["neuron"] = nets.Linear()
    sim = Simulator(net, seed=1)
    drive = np.ones((40, 5))
    drive[25] = 1e200
    with sim.record(path, {"out.x": 1, "in->out.w": 10}):
        with pytest.raises(SimulationError, match="tick 25"):
            sim.run({"in": drive}, chunk=20)
        assert sim.tick == 20
        sim.run({"in": np.ones((40, 5))}, chunk=20)
    with Recording(path) as recording:
        np.testing.assert_array_equal(recording.ticks("out.x"), np.arange(60))
        assert len(recording.values("out.x")) == 60
        assert len(recording.values("in->out.w")) == 6
    assert engrax.verify(path)[0] == []


def test_another_process_follows_a_run(tmp_path: Path, recorders: Any) -> None:
    """While it is recorded, ordinary readers open the file, and `engrax watch` tells when its writer is gone."""
    path = tmp_path / "live.h5"
    (pid,) = recorders([path])
    ticks = []
    for seen, _ in follow(path, 0.1):
        ticks.append(seen.tick)
        if seen.tick:
            with engrax.open(path) as tree:
                assert len(tree["out"].x) >= seen.tick - 1
        if len(set(ticks)) >= 3 and Path(f"/proc/{pid}").exists():
            killed(pid)
        assert len(ticks) < 1000
    assert ticks == sorted(ticks)
    assert len(set(ticks)) >= 3
    result = CliRunner().invoke(cli.main, ["watch", str(path)])
    assert result.exit_code == 0
    assert "its writer is gone" in result.output
    assert f"engrax resume {path}" in result.output
    assert "out.x" in result.output
