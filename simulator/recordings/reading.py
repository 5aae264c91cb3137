"""Opening a recording: checked first, since a file may be damaged or a stranger's.

Nothing in a file is ever executed or imported. What HDF5 itself could be made to do by one is refused before any data
are read: links to other files, data kept in other files, filters that would load a plug-in, types that hold pointers,
lengths beyond what the file can hold.
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

if TYPE_CHECKING:
    import xarray

T = TypeVar("T")

FORMAT = 2
OWN = ("provenance", "checkpoints")  # groups that are neither populations, projections nor signals
OBJECTS = 100_000  # more than any network has
RATIO = 1100  # the most that deflate can have packed into a byte, and some
REF = h5py.Reference
PARTS = {"populations": ("neuron", "shape", "code"), "projections": ("pre", "post", "synapses", "rule")}
RUN = ("tick", "trial", "batch", "units", "until", "position", "phases", "sources", "process", "host", "start")
SMALL = 2**20  # bytes that a dataset may claim to hold without having them on disk


@dataclass(frozen=True)
class Spikes:
    """Flat events of one population: ``times`` (ticks) and ``ids`` (neurons), in the order of the ticks; ``batch`` and
    ``point`` say in which copy, where there are several. ``size``: how many neurons there are."""

    times: np.ndarray
    ids: np.ndarray
    size: int
    batch: np.ndarray | None = None
    point: np.ndarray | None = None


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
                check(self.file)
                attributes = {name: plain(value) for name, value in self.file.attrs.items()}
                self.attributes = attributes
                self.network: dict[str, Any] = _mapping(json.loads(attributes["network"]))
                for part, needed in PARTS.items():
                    for entry in _mapping(self.network[part]).values():
                        _lacks_nothing(entry, needed)
                for entry in self.network["populations"].values():
                    _shape(entry["shape"])
                self.probes: dict[str, Any] = _mapping(json.loads(attributes["probes"]))
                self.versions: dict[str, str] = _mapping(json.loads(attributes["versions"]))
                self.points: list[dict[str, Any]] | None = json.loads(attributes["points"])
                self.seed, self.dt = int(attributes["seed"]), float(attributes["dt"])
                lines = self.file["provenance/log"][:].tobytes().decode().splitlines()
                self.log: list[dict[str, Any]] = [_mapping(json.loads(line)) for line in lines if line]
                for event in self.log:
                    _lacks_nothing(event, RUN if event["event"] == "run" else ("event",))
                self.fields, self._events = _contents(self.file)
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
                return max(found, key=lambda slot: int(slot[0]["sequence"]))
            for event in self.runs:
                if event["start"] is not None:
                    meta = {name: event[name] for name in ("tick", "trial", "batch")}
                    return {**meta, "units": 0, "sequence": -1}, self.start(event)
        raise RecordingError(f"{self.path} holds no state of the network: nothing was run while it was recorded")

    def start(self, event: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The state in which a logged run began."""
        return {name: self.array(entry["array"]) if isinstance(entry, Mapping) else np.asarray(entry, np.int32)
                for name, entry in event["start"].items()}  # fmt: skip

    def array(self, described: Mapping[str, Any]) -> np.ndarray:
        """An array that the log or the network names. Raises ``ValueError`` if the file does not hold it."""
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
    tree: xarray.DataTree = patient(lambda: _open(Path(path), xarray))
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


def patient(look: Callable[[], T]) -> T:
    """``look()``, again where it fails: a file that is being written may have changed between two reads."""
    for _ in range(8):
        try:
            return look()
        except RecordingError:
            time.sleep(0.05)
    return look()


def check(file: h5py.File) -> None:
    """Refuse what no recording holds and what would make HDF5 look outside the file. Raises ``ValueError``."""
    waiting, seen = [file["/"]], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > OBJECTS:
                raise ValueError(f"more than {OBJECTS} objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{group.name}/{name} is a link to somewhere else")
            thing = group[name]
            if h5py.h5o.get_info(thing.id).rc > 1:
                raise ValueError(f"{thing.name} has two names")
            _plain_attributes(thing)
            if isinstance(thing, h5py.Group):
                waiting.append(thing)
            elif isinstance(thing, h5py.Dataset):
                _plain_dataset(thing)
            else:
                raise ValueError(f"{thing.name} is neither group nor dataset")
    _plain_attributes(file)


def _plain_dataset(data: h5py.Dataset) -> None:
    if data.dtype.kind not in "iufbS" or data.dtype.hasobject or data.dtype.itemsize > 2**16:
        raise ValueError(f"{data.name} has the type {data.dtype}")
    creation = data.id.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
        raise ValueError(f"{data.name} keeps its data in another file")
    for i in range(creation.get_nfilters()):
        if creation.get_filter(i)[0] not in (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_LZF):
            raise ValueError(f"{data.name} needs a filter plug-in")
    # What is stored of a dataset alone is not asked: HDF5 may count forever, as far as a damaged index says.
    packed = RATIO if creation.get_nfilters() else 8 if _dimension_only(data) else 1
    if data.size * data.dtype.itemsize > data.file.id.get_filesize() * packed + SMALL:
        raise ValueError(f"{data.name} claims more than the file holds")


def _dimension_only(data: h5py.Dataset) -> bool:
    """A dimension without coordinates, as netCDF keeps it: a length and no values, which nobody reads."""
    return is_scale(data) and data.ndim == 1 and str(plain(data.attrs.get("NAME"))).startswith("This is a netCDF dim")


def _plain_attributes(thing: Any) -> None:
    for name in thing.attrs:
        attribute = thing.attrs.get_id(name)
        kind, shape = attribute.dtype, attribute.shape
        if name in ("CLASS", "NAME"):  # HDF5's own code for dimension scales trusts these four
            fits = kind.kind == "S" and shape == () and attribute.get_type().get_strpad() == h5py.h5t.STR_NULLTERM
        elif name == "DIMENSION_LIST":
            held = h5py.check_vlen_dtype(kind)
            fits = (
                len(shape) == 1
                and len(thing.shape) == shape[0]
                and held is not None
                and h5py.check_ref_dtype(held) is REF
            )
        elif name == "REFERENCE_LIST":
            fits = len(shape) == 1 and kind.names == ("dataset", "dimension") and h5py.check_ref_dtype(kind[0]) is REF
        else:
            fits = not kind.hasobject or h5py.check_string_dtype(kind) is not None
        if not fits:
            raise ValueError(f"attribute {name} of {thing.name} has the type {kind} and shape {shape}")


def plain(value: Any) -> Any:
    """An attribute as Python has it."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


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
        file = h5py.File(path, "r")
    except Exception as error:
        what = "damaged" if h5py.is_hdf5(path) else "no recording of engrax: it is not an HDF5 file"
        raise RecordingError(f"{path} is {what} ({' '.join(str(error).split())})") from error
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


def _contents(file: h5py.File) -> tuple[dict[str, h5py.Dataset], dict[str, h5py.Group]]:
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


def is_scale(data: h5py.Dataset) -> bool:
    return bool(plain(data.attrs.get("CLASS")) == "DIMENSION_SCALE")


def scales(data: h5py.Dataset) -> list[h5py.Dataset | None]:
    """The dimension scale attached to each axis, read here: HDF5's own code for it can crash on a damaged file."""
    held = data.attrs.get("DIMENSION_LIST", [()] * data.ndim)
    found = [data.file[references[0]] if len(references) else None for references in held]
    if not all(scale is None or (isinstance(scale, h5py.Dataset) and is_scale(scale)) for scale in found):
        raise ValueError(f"an axis of {data.name} is none")
    return found


def dimensions(data: h5py.Dataset) -> list[str]:
    """The names of a dataset's axes: those of the dimension scales attached to them."""
    return [f"axis {i}" if axis is None else axis.name.rpartition("/")[2] for i, axis in enumerate(scales(data))]
