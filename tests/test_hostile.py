"""Thousands of damaged and hostile recordings: each reads or raises `RecordingError`; none crashes, hangs or runs code.

HDF5 is written in C, so the files are opened in a child process: this file run as a script, which says what it is about
to open. ``python tests/test_hostile.py FOLDER SEED NUMBER`` opens one file again; ``FOLDER`` holds ``plain.h5`` and
``gzip.h5``, as the fixture makes them.
"""

import contextlib
import copy
import faulthandler
import functools
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import jax
import networkx as nx
import numpy as np
import pytest

import engrax
from engrax import Recording, RecordingError, Simulator, networks as nets, rules
from engrax.recordings import guard, reading
from engrax.recordings.compare import diff
from engrax.recordings.watch import glance

FILES = {"0": 400}  # by seed; of the slow ones 1000 each
SECONDS = 10  # for one file
SPARE = (
    2**36
)  # bytes of address space that opening a file may take: HDF5 asks for, and keeps, 4 GiB that it never fills
FORBIDDEN = (
    "import", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class",
    "marshal.loads", "ctypes.dlopen", "socket.connect", "os.remove", "os.rename", "shutil.rmtree",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense and sparse, delays, spikes, samples every so many ticks; as it is and compressed."""
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=3)
    net.add_node("out", neuron=nets.Rate(), size=4)
    net.add_edge("in", "out", rule=rules.Oja(eta=0.05), delay=2)
    net.add_edge("out", "out", topology=nets.Probability(0.6, seed=1), delay=3, weights=nets.Uniform(0.0, 0.2),
                 rule=rules.Bounded(rules.Oja(), low=0.0, high=1.0))  # fmt: skip
    drive = np.random.default_rng(0).normal(size=(50, 3))
    there = tmp_path_factory.mktemp("hostile")
    for name, compression in (("plain", None), ("gzip", "gzip")):
        sim = Simulator(net, seed=1)
        fields = {"out.x": 1, "in->out.w": 10, "out->out.w": 5, "out.spikes": 1}
        with sim.record(there / f"{name}.h5", fields, compression=compression, chunk=8):
            sim.run(ticks=50, drive={"in": drive})
    return there


@pytest.mark.parametrize("seed", ["0", *(pytest.param(str(seed), marks=pytest.mark.slow) for seed in range(1, 6))])
def test_a_hostile_file_gives_one_error(folder: Path, seed: str) -> None:
    for kind, outcome in outcomes(folder, seed).items():  # the mutations do what they should: none leaves all whole
        assert outcome.get("refused", 0) > 0, kind


@pytest.mark.parametrize("fault", ["os.abort()", "time.sleep(60)"])
def test_a_file_on_which_hdf5_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The process that looks first dies of it, or is put an end to; the next file is opened as ever."""
    script = tmp_path / "check.py"
    script.write_text(f"import os, sys, time\nsys.stdin.readline()\n{fault}\n")
    monkeypatch.setattr(guard, "GUARD", guard.Guard())
    monkeypatch.setattr(reading, "GUARD", guard.GUARD)
    monkeypatch.setattr(guard, "SECONDS", 2.0)
    with monkeypatch.context() as patched:
        patched.setattr(guard.check, "__file__", str(script))
        with pytest.raises(RecordingError, match=r"plain\.h5 is damaged, .*: HDF5 itself fails on it"):
            Recording(folder / "plain.h5")
    Recording(folder / "plain.h5").file.close()
    guard.GUARD.stop()


def outcomes(folder: Path, seed: str) -> dict[str, dict[str, int]]:
    """How many files of each kind of mutation were read and refused."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", __file__, str(folder), seed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"{said[-1] if said else ''}\n{done.stderr[-4000:]}"
    counts: dict[str, dict[str, int]] = json.loads(said[-1])
    assert sum(sum(outcome.values()) for outcome in counts.values()) == FILES.get(seed, 1000)
    return counts


# The mutations. Each takes the bytes of a recording, or its h5py file, and random numbers.


def truncated(data: bytearray, rng: random.Random) -> None:
    del data[int(len(data) * rng.random()) :]


def flipped(data: bytearray, rng: random.Random) -> None:
    places = [i for start in range(0, len(data), 512) if any(data[start : start + 512])
              for i in (start, min(start + 512, len(data)))]  # fmt: skip
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        k = 2 * rng.randrange(len(places) // 2)
        at = rng.randrange(places[k], places[k + 1]) if rng.random() < 0.9 else rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)


def blocks(data: bytearray, rng: random.Random) -> None:
    """A stretch zeroed, filled, or put where another is."""
    size = rng.choice((1, 4, 8, 64, 512, 4096))
    a, b = (rng.randrange(len(data) - size) for _ in range(2))
    how = rng.randrange(4)
    if how == 0:
        data[a : a + size] = bytes(size)
    elif how == 1:
        data[a : a + size] = b"\xff" * size
    elif how == 2:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    else:
        data[a : a + size] = rng.randbytes(size)


def sealed(data: bytearray, rng: random.Random) -> None:
    """Bits flipped in HDF5's own blocks, whose checksums are then made to fit: what a stranger would do."""
    found = _checked(bytes(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        start, end = rng.choice(found)
        at = rng.randrange(start + 4, end)
        data[at] = rng.choice((data[at] ^ (1 << rng.randrange(8)), 0, 255, 127, 128, rng.randrange(256)))
        if rng.random() < 0.2:
            data[at : min(at + 8, end)] = rng.choice((b"\xff", b"\0", b"\x7f")) * (min(at + 8, end) - at)
        data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")


def heaped(data: bytearray, rng: random.Random) -> None:
    """The same in the heaps, which have no checksum: they hold text and references."""
    heaps = [m.start() for m in re.finditer(rb"GCOL", data)]
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.choice(heaps) + rng.randrange(4, 120 if rng.random() < 0.7 else 4096)
        data[min(at, len(data) - 1)] = rng.choice((0, 255, 1, 127, rng.randrange(256)))


@functools.cache
def _checked(data: bytes) -> list[tuple[int, int]]:
    """(start, place of the checksum) of the blocks of an HDF5 file that carry one."""
    found = [(0, 44)]  # superblock of version 2 or 3
    for match in re.finditer(rb"OHDR|OCHK|FADB|FAHD|EAHD|EAIB|FRHP|FHDB|BTHD|BTLF", data):
        start = match.start()
        if data[start : start + 4] == b"OHDR":
            flags = data[start + 5]
            before = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            size = int.from_bytes(data[start + before : start + before + width], "little")
            end = start + before + width + size
            if end + 4 <= len(data):
                found.append((start, end))
            continue
        for end in range(start + 12, min(start + 300, len(data) - 4)):
            if int.from_bytes(data[end : end + 4], "little") == lookup3(data[start:end]):
                found.append((start, end))
                break
    return found


def lookup3(data: bytes) -> int:
    """Jenkins' hash, which HDF5 takes as checksum."""
    mask = 0xFFFFFFFF

    def rot(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    v = dict.fromkeys("abc", (0xDEADBEEF + len(data)) & mask)

    def add(part: bytes) -> None:
        for name, start in zip("abc", (0, 4, 8), strict=True):
            v[name] = (v[name] + int.from_bytes(part[start : start + 4], "little")) & mask

    at = 0
    while len(data) - at > 12:
        add(data[at : at + 12])
        for x, y, z, k in zip("abcabc", "cabcab", "bcabca", (4, 6, 8, 16, 19, 4), strict=True):
            v[x] = ((v[x] - v[y]) & mask) ^ rot(v[y], k)
            v[y] = (v[y] + v[z]) & mask
        at += 12
    if at < len(data):
        add(data[at:].ljust(12, b"\0"))
        for x, y, k in zip("cabcabc", "bcabcab", (14, 11, 25, 16, 4, 14, 24), strict=True):
            v[x] = ((v[x] ^ v[y]) - rot(v[y], k)) & mask
    return v["c"]


class Payload:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch sentinel",)


NAMES = (
    "os.system", "builtins.eval", "eval", "__import__", "subprocess.Popen", "Simulator", "Recording", "Feed", "Neuron",
    "Rule", "LocalRule", "Fields", "Projection", "NetworkError", "Probe", "Oja", "Input", "Mean", "Gaussian", "Dense",
    "FromMatrix", "antigravity", "this", "__class__", "tanh", "os", "Module", "Phase", "Plastic", "Population",
)  # fmt: skip
DTYPES = ("O", "V100000000", "S100000000", "U9", "M8[s]", "f4,i4", "(1000000,)f8", "f16", ">f8", "c16", "", "x" * 5000,
          "(((", "2(f8", "i0", "__import__('this')", "\0", "?", "b")  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 2, 50, 2**31, 2**40, 2**63, 2**64, -(2**63), 10**30, 10**300, 1e308, -0.0, 0.5,
    float("nan"), float("inf"), "", "x", "0", "../../x", "/dev/zero", "\0", "\ud800", "é" * 100, "9" * 5000, [], {},
    [0], [1] * 40, [-1], [[[]]], [2**20, 2**20], [2**62, 4], ["a"], {"a": 1}, {"array": None}, {"array": {}},
    {"array": {"shape": [2**40], "dtype": "<f8", "digest": "", "at": 0}}, {"function": "eval"}, {"function": []},
    {"function": "system", "module": "os"}, {"class": None}, {"class": {}}, {"class": "Input"}, {"iterator": True},
    {"array": {"shape": [0], "dtype": "O", "digest": "cae66941d9efbd404e4d88758ea67670", "at": 0}},
    {"class": "os.system", "command": "touch sentinel"}, {"class": "eval", "source": "open('sentinel', 'w')"},
    {"py/object": "os.system"}, {"class": "Probe", "field": "out.x"}, {"class": "Mean"}, {"class": "FromMatrix"},
)  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _edited(value: Any, rng: random.Random) -> str:
    """JSON with some of it swapped, taken away, renamed, doubled or nested."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = list(_places(value))
        if not places:
            return json.dumps(rng.choice(VALUES))
        there, key = rng.choice(places)
        how = rng.random()
        if key in ("class", "function") and how < 0.7:
            there[key] = rng.choice(NAMES)
        elif key == "dtype" and how < 0.7:
            there[key] = rng.choice(DTYPES)
        elif how < 0.7:
            there[key] = copy.deepcopy(rng.choice(VALUES))
        elif how < 0.78:
            del there[key]
        elif how < 0.84 and isinstance(there, dict):
            there[rng.choice(("x", "class", "array", "at", "in", "", ".", "/", "out"))] = there.pop(key)
        elif how < 0.9:
            there[key] = copy.deepcopy(rng.choice(places)[0])
        elif how < 0.95:
            for _ in range(rng.choice((3, 100, 900))):
                there[key] = [there[key]] if rng.random() < 0.5 else {"class": "Bounded", "rule": there[key]}
        else:
            there[key] = rng.choice((0.1, -1, 10**9, 1e9, 3, [3], [4], [[4], "<f4"]))
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = "[" * 2000
    how = rng.random()
    if how < 0.02:
        text = rng.choice(
            ("[" * 10**5, '{"a":' * 10**5, "", "null", "1" * 10**5, text[:-1], text * 2, text + " " * 10**6)
        )
    return text


ATTRIBUTES = ("network", "network", "network", "probes", "versions", "points")


def renamed(file: h5py.File, rng: random.Random) -> None:
    """The tables: the network, the probes, the log, the layout and place of the checkpoints."""
    where = rng.choice((*ATTRIBUTES, "log", "log", "log", "layout", "layout", "meta", "meta"))
    if where in ATTRIBUTES:
        _put(file, where, _edited(json.loads(file.attrs[where]), rng))
    elif where == "layout":
        _put(file["checkpoints"], where, _edited(json.loads(file["checkpoints"].attrs[where]), rng))
    elif where == "log":
        lines = file["provenance/log"][:].tobytes().decode().splitlines()
        number = rng.randrange(len(lines))
        lines[number] = _edited(json.loads(lines[number]), rng)
        if rng.random() < 0.1:
            lines += rng.choice(
                (["{}"], ["[]"], ["x" * 10**6], [lines[0]], ['{"event": "run"}'], ["\ud800"], lines * 50)
            )
        text = np.frombuffer(("\n".join(lines) + "\n").encode(errors="surrogatepass"), np.uint8)
        file["provenance/log"].resize((len(text),))
        file["provenance/log"][:] = text
    else:
        meta = file["checkpoints/meta_0"]
        text = _edited(json.loads(meta[:].tobytes().rstrip(b"\0 ")), rng).encode(errors="surrogatepass")
        meta[:] = np.frombuffer(text[: len(meta)].ljust(len(meta)), np.uint8)
        file["checkpoints/meta_1"][:] = meta[:]


def _put(thing: Any, name: str, value: Any) -> None:
    del thing.attrs[name]
    if isinstance(value, str):
        value = value.encode(errors="surrogatepass").replace(b"\0", b"")
    thing.attrs.create(name, value, dtype=h5py.string_dtype() if isinstance(value, bytes) else None)


def attributed(file: h5py.File, rng: random.Random) -> None:
    """Attributes of other types, of the file and of any object in it."""
    things: list[Any] = [file]
    file.visititems(lambda _, thing: things.append(thing))
    thing = rng.choice([thing for thing in things if len(thing.attrs)]) if rng.random() < 0.6 else file
    name = rng.choice(list(thing.attrs))
    refs = [thing.ref for thing in things]
    made: list[Callable[[], Any]] = [
        lambda: thing.attrs.create(name, rng.choice((2**63 - 1, -1, 0, 1e308, float("nan"), float("inf"), 2, 0.001))),
        lambda: thing.attrs.create(name, np.arange(rng.choice((0, 1, 1000)))),
        lambda: thing.attrs.create(name, h5py.Empty("f4")),
        lambda: thing.attrs.create(name, pickle.dumps(Payload()), dtype=h5py.opaque_dtype(np.dtype("V200"))),
        lambda: thing.attrs.create(name, np.void(pickle.dumps(Payload()))),
        lambda: thing.attrs.create(name, "touch sentinel"),
        lambda: thing.attrs.create(name, b"\xff\xfe\x80"),
        lambda: thing.attrs.create(name, ["a", "b"], dtype=h5py.string_dtype()),
        lambda: thing.attrs.create(name, rng.choice(refs), dtype=h5py.ref_dtype),
        lambda: thing.attrs.create(name, rng.choices(refs, k=3), dtype=h5py.ref_dtype),
        lambda: thing.attrs.create(name, h5py.Reference(), dtype=h5py.ref_dtype),
        lambda: thing.attrs.create(
            name, np.array([np.array([rng.choice(refs)], object)] * 2, object)[:, 0], dtype=h5py.ref_dtype
        ),
        lambda: thing.attrs.create(name, np.array([np.arange(3), np.arange(2)], object), dtype=h5py.vlen_dtype(int)),
        lambda: thing.attrs.create(name, np.zeros(2, "i4,f8")),
        lambda: thing.attrs.create(name, np.zeros((3, 3), bool)),
        lambda: thing.attrs.__delitem__(name),
        lambda: thing.attrs.create("scale_factor", rng.choice((0.0, float("nan"), "x"))),
        lambda: thing.attrs.create("_FillValue", rng.choice((0, float("nan"), "x"))),
        lambda: thing.attrs.create("units", "days since the flood"),
        lambda: thing.attrs.create("coordinates", "x y ../z"),
        lambda: thing.attrs.create("dtype", rng.choice(("O", "bool", "os.system"))),
        lambda: thing.attrs.create("_Netcdf4Dimid", 2**31 - 1),
        lambda: thing.attrs.create("_Netcdf4Coordinates", [2**31 - 1, -1]),
    ]
    rng.choice(made)()


def rebuilt(file: h5py.File, rng: random.Random) -> None:
    """Datasets and groups replaced by what no recording holds."""
    names: list[str] = []
    file.visit(names.append)
    name = rng.choice(names)
    other = rng.choice(names)
    old = file[name]
    shape = old.shape if isinstance(old, h5py.Dataset) else (3,)
    attributes = dict(old.attrs) if rng.random() < 0.5 else {}
    huge = rng.choice(((2**40,), (2**62,), (2**20, 2**20, 2**20), (2**31 + 1,), (10**7,)))
    create = file.create_dataset
    low = h5py.h5s.create_simple
    chunked = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    chunked.set_chunk((4,))
    chunked.set_filter(rng.choice((32015, 305, 4, 5, 6, 40000)), h5py.h5z.FLAG_OPTIONAL, (1, 1, 1, 1, 1))

    def virtual(source: str) -> None:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(source, name, (3,))
        file.create_virtual_dataset(name, layout)

    def linked() -> None:
        file[name] = file[other] if other in file else file["/"]

    def cycle() -> None:
        file.create_group(name)[rng.choice(("x", "w", "log"))] = file[name.rpartition("/")[0] or "/"]

    def deep() -> None:
        group = file.create_group(name)
        for _ in range(300):
            group = group.create_group("g")

    def wide() -> None:
        group = file.create_group(name)
        for number in range(500):
            group.create_group(f"g{number}")

    def bare() -> None:
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_INT32, low((8,), (8,)), chunked)

    def committed() -> None:
        file[name] = np.dtype("f8")

    made: list[Callable[[], Any]] = [
        lambda: None,
        lambda: file.create_group(name),
        lambda: file.__setitem__(name, h5py.SoftLink(rng.choice(("/nowhere", "/", "/" + other, "/" + name)))),
        lambda: file.__setitem__(name, h5py.ExternalLink(rng.choice(("plain.h5", "/dev/zero", "/etc/passwd")), name)),
        linked, cycle, deep, wide, bare, committed,
        lambda: create(name, (3,), h5py.vlen_dtype(np.dtype("i4"))),
        lambda: create(name, shape, h5py.string_dtype()),
        lambda: create(name, shape, h5py.ref_dtype),
        lambda: create(name, shape, h5py.regionref_dtype),
        lambda: create(name, data=np.void(pickle.dumps(Payload()))),
        lambda: create(name, data=np.frombuffer(pickle.dumps(Payload()), np.uint8)),
        lambda: create(name, shape, "S100"),
        lambda: create(name, shape, "V1000"),
        lambda: create(name, shape, np.dtype("i4,f8")),
        lambda: create(name, shape, h5py.enum_dtype({"a": 1})),
        lambda: create(name, shape, np.dtype(("f4", (1000,)))),
        lambda: create(name, shape, rng.choice(("u1", ">f8", "f2", "i8", "u8", "c8", "?"))),
        lambda: create(name, data=np.full(shape, rng.choice((-1, 2**31 - 1, 2**63 - 1, -(2**63))))),
        lambda: create(name, data=np.full(shape, float("nan"))),
        lambda: create(name, data=np.full(shape, 1e300)),
        lambda: create(name, rng.choice(((), (0,), (1,), (7,), (0, 3), (3, 0), (2, 2, 2, 2), (1,) * 32)), "f4"),
        lambda: create(name, huge, rng.choice(("f8", "u1")), chunks=tuple(min(n, 64) for n in huge)),
        lambda: create(name, huge, "u1", chunks=tuple(min(n, 64) for n in huge), compression="gzip", fillvalue=1),
        lambda: create(name, (2**16, 4), "f4", chunks=(2**14, 4), compression=1, data=np.zeros((2**16, 4))),
        lambda: create(name, (8,), "u1", external=[(rng.choice(("/dev/zero", "/etc/passwd", "plain.h5")), 0, 8)]),
        lambda: virtual(rng.choice((".", "plain.h5", "/dev/zero"))),
        lambda: create(name, data=h5py.Empty("f4")),
        lambda: create(name, (100,), "f4", chunks=(10,), fletcher32=True),
        lambda: create(name, (100,), "i4", chunks=(10,), scaleoffset=2),
    ]  # fmt: skip
    del file[name], old
    rng.choice(made)()
    if name in file and not isinstance(file.get(name, getlink=True), (h5py.SoftLink, h5py.ExternalLink)):
        for key, value in attributes.items():
            with contextlib.suppress(TypeError, OSError, ValueError):
                file[name].attrs[key] = value
        if rng.random() < 0.3 and isinstance(file[name], h5py.Dataset):
            with contextlib.suppress(RuntimeError, OSError, ValueError):
                file[name].make_scale("tick")


MUTATIONS: dict[Callable[[Any, random.Random], None], float] = {
    truncated: 0.2, flipped: 0.2, blocks: 0.08, sealed: 0.2, heaped: 0.14, renamed: 0.1, attributed: 0.03, rebuilt: 0.05
}  # fmt: skip
EDITS = (renamed, attributed, rebuilt)


def mutated(folder: Path, seed: str, number: int) -> tuple[str, Path]:
    """File ``number`` of a seed, and the kind of mutation."""
    rng = random.Random(f"{seed} {number}")
    mutation = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))[0]
    source, path = folder / rng.choice(("plain.h5", "plain.h5", "gzip.h5")), folder / "hostile" / "file.h5"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if mutation in EDITS:
        shutil.copyfile(source, path)
        with h5py.File(path, "r+") as file:
            mutation(file, rng)
    else:
        data = bytearray(source.read_bytes())
        mutation(data, rng)
        path.write_bytes(data)
    return mutation.__name__, path


# The child process.


def everything(path: Path) -> None:
    with Recording(path) as recording:
        recording.state()
        for name in recording.fields:
            recording.values(name)
            recording.ticks(name)
        for name in recording.spike_names:
            recording.spikes(name)
        for name in recording.network["projections"]:
            recording.synapses(name)
        assert recording.complete in (True, False) and recording.alive in (True, False, None)
        list(recording.arrays())


def ways(folder: Path, kind: str, number: int) -> Iterator[Callable[[Path], Any]]:
    edited = kind in [edit.__name__ for edit in EDITS]
    yield everything
    if number % (4 if edited else 16) == 0:
        yield glance
        yield lambda path: diff(path, folder / "plain.h5")
    if edited or number % 32 == 0:
        yield lambda path: Simulator.resume(path, strict=number % 2 == 0)
    if number % 16 == 1:
        yield lambda path: engrax.open(path).close()


def opened(folder: Path, path: Path, kind: str, number: int) -> str:
    """How it went. A file that reads in one way may still be refused in another: it may be the rest that is damaged."""
    said = "read"
    for way in ways(folder, kind, number):
        try:
            way(path)
        except RecordingError:
            said = "refused"
            if way is everything:  # then no other way gets further
                break
    return said


def child(folder: Path, seed: str, numbers: Sequence[int]) -> None:
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("error")
    faulthandler.enable()
    os.chdir(folder)
    reading.LOOKS = 0  # nobody else writes these files: to look again changes nothing
    guard.SECONDS = SECONDS / 4
    for number in (0, 1):  # what is imported or compiled when first needed
        for name in ("plain.h5", "gzip.h5"):
            for way in ways(folder, "renamed", number):
                way(folder / name)
    for number in range(-20, 0):
        opened(folder, mutated(folder, seed, number)[1], "renamed", number)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPARE, taken + SPARE))
    watched: list[Any] = []
    events: list[str] = []
    sys.addaudithook(
        lambda event, args: (
            events.append(f"{event} {args}"[:200])
            if watched and event in FORBIDDEN and guard.check.__file__ not in str(args)
            else None
        )
    )
    counts: dict[str, Counter[str]] = {}
    slowest = 0.0
    for number in numbers:
        kind, path = mutated(folder, seed, number)
        print(f"seed {seed}, file {number}: {kind}", flush=True)
        before, start = set(sys.modules), time.monotonic()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        watched.append(True)
        try:
            outcome = opened(folder, path, kind, number)
        finally:
            watched.clear()
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.monotonic() - start)
        new = set(sys.modules) - before
        assert not events and not new, f"it made engrax do {events[:5]} and import {sorted(new)[:5]}"
        counts.setdefault(kind, Counter())[outcome] += 1
    assert not list(folder.rglob("*sentinel*"))
    print(f"slowest {slowest:.2f} s", file=sys.stderr)
    print(json.dumps(counts))


if __name__ == "__main__":
    one = [int(number) for number in sys.argv[3:]]
    child(Path(sys.argv[1]), sys.argv[2], one or range(FILES.get(sys.argv[2], 1000)))
