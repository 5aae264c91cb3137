"""Opening a recording: checked first (guard.py, check.py), since a file may be damaged or a stranger's.

Nothing in a file is ever executed or imported.
"""

import contextlib
import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import h5py
import numpy as np

from ..errors import RecordingError
from .check import RATIO, dimensions, is_scale, plain, scales
from .guard import GUARD

if TYPE_CHECKING:
    import xarray

T = TypeVar("T")

FORMAT = 2
OWN = ("provenance", "checkpoints")  # groups that are neither populations, projections nor signals
UNSAID = {"tied": None, "release": 1.0, "gain": 1.0}  # of a projection, in recordings from before there was that
PARTS = {"populations": ("neuron", "shape", "code"), "projections": ("pre", "post", "synapses", "rule")}
RUN = ("tick", "trial", "batch", "units", "until", "position", "phases", "sources", "process", "host", "start")
LOOKS = 8  # at a file that may have changed between two reads


@dataclass(frozen=True)
class Spikes:
    """Flat events of one population: ``times`` (ticks) and ``ids`` (neurons), in the order of the ticks; ``batch`` and
    ``point`` say in which copy, where there are several. ``size``: how many neurons there are."""

    times: np.ndarray
    ids: np.ndarray
    size: int
    batch: np.ndarray | None = None
    point: np.ndarray | None = None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What is known of each event."""
        columns = {"times": self.times, "point": self.point, "batch": self.batch, "ids": self.ids}
        return {name: values for name, values in columns.items() if values is not None}


class Recording:
    """A recording, open for reading; a context manager. Raises `RecordingError` where it is none or damaged.

    ``file`` is the open `h5py.File`, ``network`` what made it: ``network["populations"][name]`` with ``neuron`` and
    ``shape``, ``network["projections"][name]`` with ``pre``, ``post``, ``delay``, ``rule``, ...
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = _opened(self.path)
        try:
            with damaged(self.path):
                attributes = {name: plain(value) for name, value in self.file.attrs.items()}
                self.attributes = attributes
                self.network: dict[str, Any] = _mapping(json.loads(attributes["network"]))
                for part, needed in PARTS.items():
                    for entry in _mapping(self.network[part]).values():
                        _lacks_nothing(entry, needed)
                for entry in self.network["populations"].values():
                    _shape(entry["shape"])
                for entry in self.network["projections"].values():
                    entry |= {name: value for name, value in UNSAID.items() if name not in entry}
                self.probes: dict[str, Any] = _mapping(json.loads(attributes["probes"]))
                self.versions: dict[str, str] = _mapping(json.loads(attributes["versions"]))
                self.points: list[dict[str, Any]] | None = json.loads(attributes["points"])
                self.seed, self.dt = int(attributes["seed"]), float(attributes["dt"])
                lines = self.file["provenance/log"][:].tobytes().decode().splitlines()
                self.log: list[dict[str, Any]] = [_mapping(json.loads(line)) for line in lines if line]
                for event in self.log:
                    _lacks_nothing(event, RUN if event["event"] == "run" else ("event",))
                self.fields, self._events = contents(self.file)
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> "Recording":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    fields: dict[str, h5py.Dataset]  # ``cortex.x`` -> its dataset: what was sampled over ticks

    @property
    def complete(self) -> bool:
        """Whether the recorder closed the file (and was not killed, or is still at work)."""
        return bool(self.log) and self.log[-1]["event"] == "closed"

    @property
    def alive(self) -> bool | None:
        """Whether the process that writes the file is at work; None where that cannot be known from here."""
        writer = next((event for event in reversed(self.log) if "process" in event), None)
        if self.complete or writer is None:
            return False
        if writer["host"] != socket.gethostname():
            return None
        try:
            os.kill(int(writer["process"]), 0)
        except ProcessLookupError:
            return False
        except (OSError, ArithmeticError, TypeError, ValueError):
            return None
        return True

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [event for event in self.log if event["event"] == "run"]

    @property
    def spike_names(self) -> list[str]:
        return list(self._events)

    def ticks(self, field: str) -> np.ndarray:
        """The ticks after which the samples of ``field`` were taken."""
        data = self.fields[field]
        with damaged(self.path):
            clock = scales(data)[0]
            if clock is None or clock.ndim != 1:
                raise ValueError(f"the samples of {field} have no times")
            return np.asarray(clock[: len(data)])

    def values(self, field: str) -> np.ndarray:
        """All samples of ``field``, time first."""
        with damaged(self.path):
            return np.asarray(self.fields[field][:])

    def spikes(self, name: str) -> Spikes:
        """Recorded events, such as ``cortex.spikes``."""
        group = self._events[name]
        with damaged(self.path):
            length = min(len(group[column]) for column in group if column != "spike")
            columns = {column: np.asarray(group[column][:length]) for column in group if column != "spike"}
            size = math.prod(_shape(self.network["populations"][name.rpartition(".")[0]]["shape"]))
            ids = columns["ids"]
            if len(ids) and not (ids.dtype.kind == "i" and ids.min() >= 0 and ids.max() < size):
                raise ValueError(f"{name} holds events of neurons that are not there")
            return Spikes(columns["times"], columns["ids"], size, columns.get("batch"), columns.get("point"))

    def synapses(self, projection: str) -> tuple[np.ndarray, np.ndarray]:
        """(post, pre) neuron of every synapse, row by row."""
        entry = self.network["projections"][projection]
        with damaged(self.path):
            if entry["synapses"] is not None:
                group = self.file[projection]
                return np.asarray(group["post"][:]), np.asarray(group["pre"][:])
            shapes = [math.prod(_shape(self.network["populations"][entry[end]]["shape"])) for end in ("post", "pre")]
            if math.prod(shapes) > RATIO * self.path.stat().st_size:
                raise ValueError(f"{projection} is too large for what the file holds")
            post, pre = np.indices(shapes)
            return post.ravel(), pre.ravel()

    def weights(self, projection: str) -> np.ndarray:
        """The weights at the last checkpoint: (post, pre) if dense, one per synapse if sparse, points first."""
        return self.state()[1][f"{projection}.w"]

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The newest state in the file, with its tick: the last checkpoint, or else the start of the first run.

        Raises `RecordingError` if there is none, since nothing ran.
        """
        with damaged(self.path):
            found = [slot for slot in map(self._slot, (0, 1)) if slot is not None]
            if found:
                meta, arrays = max(found, key=lambda slot: int(slot[0]["sequence"]))
                return meta, arrays | self._ties(arrays)
            for event in self.runs:
                if event["start"] is not None:
                    meta = {name: event[name] for name in ("tick", "trial", "batch")}
                    arrays = self.start(event)
                    return {**meta, "units": 0, "sequence": -1}, arrays | self._ties(arrays)
        raise RecordingError(f"{self.path} holds no state of the network: nothing was run while it was recorded")

    def _ties(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The weights of projections that are tied, which no state holds."""
        projections = self.network["projections"]
        ties = {}
        for name, entry in projections.items():
            if entry["tied"] is not None:
                w = arrays[f"{entry['tied']}.w"]
                ties[f"{name}.w"] = w.swapaxes(-1, -2) if projections[entry["tied"]]["pre"] == entry["post"] else w
        return ties

    def start(self, event: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The state in which a logged run began."""
        return {name: self.array(entry["array"]) if isinstance(entry, Mapping) else np.asarray(entry, np.int32)
                for name, entry in event["start"].items()}  # fmt: skip

    def array(self, described: Mapping[str, Any]) -> np.ndarray:
        """An array that the log or the network names. Raises ``ValueError`` if the file does not hold it."""
        if "at" not in described:
            raise RecordingError(
                f"{self.path} holds only the digest of an array of shape {tuple(described['shape'])} "
                "(record with a larger keep_drive=): pass the drive"
            )
        dtype, shape = _dtype(described["dtype"]), _shape(described["shape"])
        data, start = self.file["provenance/data"], int(described["at"])
        count = math.prod(shape) * dtype.itemsize
        if not 0 <= start <= start + count <= len(data):
            raise ValueError(f"an array of type {dtype} and shape {shape} is not in the file")
        found: np.ndarray = data[start : start + count].view(dtype).reshape(shape)
        if digest(found) != described["digest"]:
            raise ValueError(f"the array of shape {shape} at {start} is not what was written")
        return found

    def arrays(self) -> Iterator[dict[str, Any]]:
        """Every array that the file keeps, as the log and the network name it."""
        waiting: list[Any] = [self.log, self.network]
        while waiting:
            value = waiting.pop()
            if isinstance(value, Mapping):
                if "at" in value and "digest" in value:
                    yield dict(value)
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """What a checkpoint holds."""
        return {name: shape for name, shape, _ in self._layout()}

    def _layout(self) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
        slots = self.file["checkpoints"]
        layout = [(str(name), _shape(shape), _dtype(dtype)) for name, shape, dtype in json.loads(slots.attrs["layout"])]
        if sum(math.prod(shape) * dtype.itemsize for _, shape, dtype in layout) != len(slots["state_0"]):
            raise ValueError("the checkpoints are not as large as they say")
        return layout

    def _slot(self, number: int) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """A checkpoint, or None where it was not written, or only in part."""
        if "checkpoints" not in self.file:
            return None
        slots = self.file["checkpoints"]
        text = slots[f"meta_{number}"][:].tobytes()
        try:
            meta = _mapping(json.loads(text.decode().rstrip("\0 ")))
            flat = slots[f"state_{number}"][:]
            if digest(flat) != meta["digest"]:
                return None
        except (ValueError, LookupError, TypeError):
            return None
        arrays, start = {}, 0
        for name, shape, dtype in self._layout():
            end = start + math.prod(shape) * dtype.itemsize
            arrays[name] = flat[start:end].view(dtype).reshape(shape)
            start = end
        return meta, arrays


def open(path: str | Path) -> "xarray.DataTree":
    """A recording as an `xarray.DataTree`: one node per population, projection and ``signals``, loaded lazily.

    Every time axis also has a coordinate ``time`` in seconds. The file may still be growing: close
    the tree and open it again to see more (HDF5 shows a process one view of a file as long as that is open).
    Needs xarray and h5netcdf (``pip install 'engrax[read]'``). Raises `RecordingError` where it is no recording.
    """
    try:
        import xarray
    except ImportError as error:
        raise RecordingError("engrax.open needs xarray: pip install 'engrax[read]'") from error
    tree: xarray.DataTree = patient(Path(path), lambda path: _open(path, xarray))
    return tree


def _open(path: Path, xarray: Any) -> Any:
    with Recording(path) as recording:
        owners = [name for name in recording.file if name not in OWN]
        events = [name.replace(".", "/") for name in recording.spike_names]
        attributes = {
            "seed": recording.seed, "dt": recording.dt, "network": recording.network, "points": recording.points,
            "versions": recording.versions, "runs": recording.runs, "complete": recording.complete,
            **{name: recording.attributes[name] for name in ("created", "command_line", "git_commit")},
        }  # fmt: skip
        dt = recording.dt
    with damaged(recording.path), contextlib.ExitStack() as opened:
        groups = {"/": xarray.Dataset(attrs=attributes)}
        for name in [*owners, *events]:
            data = xarray.open_dataset(path, group=name, engine="h5netcdf", decode_times=False)
            opened.callback(data.close)
            clocks = [clock for clock in data.coords if str(clock).startswith("tick")]
            if name in events:
                data = data.assign_coords(time=("spike", data.times.values * dt))
            for clock in clocks:
                named = "time" + str(clock).removeprefix("tick")
                data = data.assign_coords({named: (clock, data[clock].values * dt)})
            for named in data.coords:
                if str(named).startswith("time"):
                    data[named].attrs.update(units="s", long_name="start of the tick")
            groups[f"/{name}"] = data
        tree = xarray.DataTree.from_dict(groups)
        tree.set_close(opened.pop_all().close)
        return tree


def patient(path: Path, look: Callable[[Path], T]) -> T:
    """``look(path)``, again where it fails: a file that is being written may have changed between two reads."""
    for _ in range(LOOKS):
        try:
            return look(path)
        except RecordingError:
            if not path.is_file():
                raise
            time.sleep(0.05)
    return look(path)


@contextlib.contextmanager
def damaged(path: Path | str) -> Iterator[None]:
    """Whatever goes wrong inside, goes wrong because of the file."""
    try:
        yield
    except RecordingError:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise RecordingError(f"{path} is damaged, or no recording of engrax: {said[:300]}") from error


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise RecordingError(f"there is no file {path}")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    if not h5py.is_hdf5(path):
        raise RecordingError(f"{path} is no recording of engrax: it is not an HDF5 file")
    said = GUARD.ask(path)
    with damaged(path):
        if said is not None:
            raise ValueError(said)
        file = h5py.File(path, "r")
    try:
        with damaged(path):
            if "engrax_format" not in file.attrs:
                raise RecordingError(f"{path} is no recording of engrax: make one with Simulator.record")
            version = int(file.attrs["engrax_format"])
        if version != FORMAT:
            older = "an older" if version < FORMAT else "a newer"
            raise RecordingError(f"{path} was written by {older} engrax (format {version}; this one reads {FORMAT})")
    except BaseException:
        file.close()
        raise
    return file


def digest(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest_size=16).hexdigest()


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(name))
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of type {dtype}")
    return dtype


def _shape(lengths: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in lengths)
    if any(n < 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{type(value).__name__} where a table should be")
    return dict(value)


def _lacks_nothing(entry: Any, needed: Iterable[str]) -> None:
    lacking = [name for name in needed if name not in _mapping(entry)]
    if lacking:
        raise ValueError(f"a table lacks {', '.join(lacking)}")


def contents(file: h5py.File) -> tuple[dict[str, h5py.Dataset], dict[str, h5py.Group]]:
    """What was sampled over ticks, and the groups of events, by name."""
    fields: dict[str, h5py.Dataset] = {}
    events: dict[str, h5py.Group] = {}
    for owner in file:
        if owner in OWN:
            continue
        for name, thing in file[owner].items():
            if isinstance(thing, h5py.Group):
                events[f"{owner}.{name}"] = thing
            elif not is_scale(thing) and dimensions(thing)[0].startswith("tick"):
                fields[f"{owner}.{name}"] = thing
    return fields, events
