"""What of a running simulator is recorded, and where it goes: to memory, or to a file by a thread of its own."""

import dataclasses
import functools
import math
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .. import program
from ..bits import unpacked
from ..errors import RecordingError, SimulationError
from ..layout import Layout
from ..probes import Probe
from ..program import Sample
from . import provenance
from .reading import Spikes
from .store import Column, Store

if TYPE_CHECKING:
    from ..feed import Feed
    from ..simulator import Simulator

AXES = ("point", "batch", "neuron", "post", "pre", "synapse", "spike")
QUEUE = 4  # chunks that may wait for the disk
NICE = 10  # of the thread that writes


@dataclass(frozen=True)
class Channel:
    """One thing that is recorded: ``name`` as the user calls it, ``probe`` with its field filled in."""

    name: str
    probe: Probe
    layout: Layout | None = field(default=None, compare=False)
    packed: bool = False  # events travel as the bits of words

    @functools.cached_property
    def key(self) -> str:
        return f"{self.name} {self.probe!r}"

    @property
    def owner(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def label(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def events(self) -> bool:
        return self.probe.field.endswith(".spikes") and self.probe.reduce is None

    @property
    def every_tick(self) -> bool:
        """Whether it can only be sampled within a unit."""
        return self.owner == "signals" or self.events

    @property
    def rows(self) -> bool:
        """Whether the program emits a projection's own blocks."""
        return self.layout is not None and self.probe.neurons is None and self.probe.reduce is None

    def sample(self, level: int) -> Sample:
        probe = dataclasses.replace(self.probe, field=f"{self.owner}.x") if self.packed else self.probe
        return Sample(self.key, probe, level, self.layout, self.packed)

    def due(self, ticks: np.ndarray) -> np.ndarray:
        if self.probe.at is not None:
            return np.isin(ticks, self.probe.at)
        return np.asarray((ticks + 1) % self.probe.every == 0)


@dataclass(frozen=True)
class Pace:
    """``every`` so many seconds or ticks. Raises `SimulationError` where it is neither."""

    seconds: float = np.inf
    ticks: float = np.inf

    @classmethod
    def of(cls, name: str, given: float | str | None) -> "Pace":
        if given is None:
            return cls()
        match = re.fullmatch(r"(\d+) ticks?", given) if isinstance(given, str) else None
        if match and int(match[1]) > 0:
            return cls(ticks=int(match[1]))
        if isinstance(given, (int, float)) and not isinstance(given, bool) and given > 0:
            return cls(seconds=float(given))
        raise SimulationError(f"{name}={given!r}: give seconds (a number) or ticks ('1000 ticks')")

    def due(self, seconds: float, ticks: float) -> bool:
        return seconds >= self.seconds or ticks >= self.ticks


class Sink(Protocol):
    """Where samples go."""

    flush: Pace  # how closely it follows the run

    def begin(self, columns: Mapping[str, Column], event: Mapping[str, Any], feed: "Feed", state: Any) -> None:
        """A run begins, or goes on from a state that was set by hand."""

    def cut(self, tick: int) -> None:
        """What was kept of this tick and later is void: the chunk that it came from failed."""

    def samples(self, column: Column, ticks: np.ndarray, values: np.ndarray) -> None: ...

    def events(self, column: Column, columns: Mapping[str, np.ndarray]) -> None: ...

    def passed(self, meta: Mapping[str, Any], state: Any) -> None:
        """A chunk ended in this state."""

    def close(self, meta: Mapping[str, Any], state: Any) -> None: ...


class Recorder:
    """Keeps fields of a simulator while its context is open; made by `Simulator.record`."""

    def __init__(self, sim: "Simulator", channels: tuple[Channel, ...], sink: Sink, seen: Any = None) -> None:
        self.channels, self.sink = channels, sink
        self._sim = sim
        self._state = seen  # in which the recorder saw the simulator last
        self._columns: dict[str, Column] = {}
        self._done = 0
        self._torn = False  # whether the last chunk failed
        self.until = 0  # the tick to which a resumed run had been planned

    @property
    def bytes_per_tick(self) -> float:
        """What is held until a chunk's end."""
        total = 0.0
        for channel in self.channels:
            column = column_of(self._sim, channel)
            each = 1 / 8 if channel.packed else column.dtype.itemsize
            size = each * math.prod(len(coordinates) for _, coordinates in column.axes)
            total += 0 if channel.probe.at is not None else size / channel.probe.every
        return total

    def begin(self, feed: "Feed", units: int) -> None:
        """Note that a run of ``units`` trials or ticks begins here."""
        sim = self._sim
        self._columns = {channel.name: column_of(sim, channel) for channel in self.channels}
        if self._torn:
            self.sink.cut(sim.tick)
            self._torn = False
        changed = sim.state is not self._state
        self._state, self._done = sim.state, 0
        event = {"event": "run", "tick": sim.tick, "trial": sim.trial, "batch": sim.batch, "units": units}
        event |= {"position": feed.position, "until": self.until, "start": sim.state if changed else None}
        self.sink.begin(self._columns, event, feed, sim.state)

    def take(self, channel: Channel, ticks: np.ndarray, values: Any, before: int | None) -> None:
        """Keep those samples (time first, after the axis of points) that are due, up to tick ``before``."""
        due = channel.due(ticks)
        if before is not None:
            due &= ticks < before
            self._torn = True
        if not due.any():
            return
        array = np.asarray(channel.layout.unpack(values) if channel.rows and channel.layout else values)
        if self._sim.points is not None:
            array = np.moveaxis(array, 0, 1)
        if not due.all():
            array, ticks = array[due], ticks[due]
        column = self._columns[channel.name]
        if channel.events:
            # np.nonzero takes ten times as long
            found = unpacked(array) if channel.packed else np.unravel_index(np.flatnonzero(array), array.shape)
            names = ("times", *(axis for axis, _ in column.axes if axis != "neuron"), "ids")
            columns = dict(zip(names, found, strict=True))
            chosen = np.asarray(channel.probe.neurons)[found[-1]] if channel.probe.neurons else found[-1]
            self.sink.events(column, {**columns, "times": ticks[found[0]], "ids": chosen})
        else:
            self.sink.samples(column, ticks, array)

    def passed(self, units: int) -> None:
        """A chunk of ``units`` was taken."""
        self._state = self._sim.state
        self._done += units
        self.sink.passed(self._meta(), self._state)

    @property
    def interfered(self) -> bool:
        """Whether someone else changed the simulator's state since."""
        return self._state is not self._sim.state

    def __enter__(self) -> "Recorder":
        self._sim._recorders.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sim._recorders.remove(self)
        self.sink.close(self._meta(), self._state)

    def _meta(self) -> dict[str, Any]:
        return {"tick": self._sim.tick, "trial": self._sim.trial, "batch": self._sim.batch, "units": self._done}


class Memory:
    """Samples kept as arrays, events as `Spikes`."""

    flush = Pace()

    def __init__(self) -> None:
        self._samples: dict[str, list[np.ndarray]] = {}
        self._events: dict[str, list[Mapping[str, np.ndarray]]] = {}
        self._columns: Mapping[str, Column] = {}

    def begin(self, columns: Mapping[str, Column], event: Mapping[str, Any], feed: "Feed", state: Any) -> None:
        self._columns = columns

    def cut(self, tick: int) -> None: ...

    def samples(self, column: Column, ticks: np.ndarray, values: np.ndarray) -> None:
        self._samples.setdefault(column.name, []).append(values)

    def events(self, column: Column, columns: Mapping[str, np.ndarray]) -> None:
        self._events.setdefault(column.name, []).append(columns)

    def passed(self, meta: Mapping[str, Any], state: Any) -> None: ...

    def close(self, meta: Mapping[str, Any], state: Any) -> None: ...

    def arrays(self) -> dict[str, Any]:
        kept: dict[str, Any] = {name: np.concatenate(parts) for name, parts in self._samples.items()}
        for name, parts in self._events.items():
            joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            kept[name] = Spikes(size=len(self._columns[name].axes[-1][1]), **joined)
        return kept


class FileSink:
    """Writes to a `Store` from a thread of its own, while the next chunk computes. At most a few chunks wait."""

    def __init__(self, sim: "Simulator", store: Store, flush: Pace, checkpoint: Pace, largest: int) -> None:
        self.flush = flush
        self._store, self._checkpoint, self._largest = store, checkpoint, largest
        self._layouts = sim._layouts
        self._failed: Exception | None = None
        self._prepared = "checkpoints" in store.file
        self._last_checkpoint = time.monotonic(), sim.tick
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=QUEUE)
        self._thread = threading.Thread(target=self._work, name=f"engrax writer of {store.path}", daemon=True)
        self._thread.start()

    # Called by the run

    def begin(self, columns: Mapping[str, Column], event: Mapping[str, Any], feed: "Feed", state: Any) -> None:
        understood = threading.Event()
        self._put(self._begin, columns, event, feed, state, understood)
        self._understood = understood  # the run may change its arrays once it is over

    def cut(self, tick: int) -> None:
        self._put(self._store.cut, tick)

    def samples(self, column: Column, ticks: np.ndarray, values: np.ndarray) -> None:
        self._put(self._store.append, column, ticks, values)

    def events(self, column: Column, columns: Mapping[str, np.ndarray]) -> None:
        self._put(self._store.append_events, column, columns)

    def passed(self, meta: Mapping[str, Any], state: Any) -> None:
        self._understood.wait()
        now, tick = time.monotonic(), meta["tick"]
        self._put(self._passed, tick)
        if self._checkpoint.due(now - self._last_checkpoint[0], tick - self._last_checkpoint[1]):
            self._last_checkpoint = now, tick
            self._put(self._save, meta, state)

    def close(self, meta: Mapping[str, Any], state: Any) -> None:
        if state is not None:
            self._queue.put((self._save, meta, state))
        self._queue.put((self._store.log, {"event": "closed", **meta}, self._largest))
        self._queue.put(None)
        self._thread.join()
        try:
            self._store.close()
        except Exception as error:
            self._failed = self._failed or error
        self._check()

    def _put(self, *item: Any) -> None:
        self._check()
        self._queue.put(item)

    def _check(self) -> None:
        if self._failed is not None:
            said = (
                self._failed.strerror if isinstance(self._failed, OSError) and self._failed.strerror else self._failed
            )
            raise RecordingError(
                f"{self._store.path}: writing failed ({said}); what was written until then can be read, and resumed "
                "from its last checkpoint"
            ) from self._failed

    # Called in the thread

    def _work(self) -> None:
        if sys.platform == "linux":  # the run needs every core: who writes takes what it leaves
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        self._flushed = time.monotonic(), 0
        while True:
            try:
                wait = self._flushed[0] + self.flush.seconds - time.monotonic()
                item = self._queue.get(timeout=max(wait, 0.01) if wait < threading.TIMEOUT_MAX else None)
            except queue.Empty:
                item = (self._commit, self._flushed[1])
            if item is None:
                return
            if self._failed is None:
                try:
                    item[0](*item[1:])
                except Exception as error:  # handed to the run at its next step
                    self._failed = error
                    self._store.abandon()

    def _begin(
        self,
        columns: Mapping[str, Column],
        event: Mapping[str, Any],
        feed: "Feed",
        state: Any,
        understood: threading.Event,
    ) -> None:
        try:
            if not self._prepared:
                self._prepared = True
                self._store.prepare(list(columns.values()), provenance.state_arrays(self._layouts, state))
            start = event["start"]
            arrays = None if start is None else provenance.state_arrays(self._layouts, start)
            if arrays is not None:
                arrays = {name: self._store.keep(array, array.nbytes) for name, array in arrays.items()}
            given = {**provenance.process(), **provenance.describe_feed(feed)}
            self._store.log({**event, **given, "start": arrays}, self._largest)
            self._commit(event["tick"])
        finally:
            understood.set()

    def _passed(self, tick: int) -> None:
        if self.flush.due(time.monotonic() - self._flushed[0], tick - self._flushed[1]):
            self._commit(tick)

    def _save(self, meta: Mapping[str, Any], state: Any) -> None:
        self._store.checkpoint(meta, provenance.state_arrays(self._layouts, state))
        self._flushed = time.monotonic(), meta["tick"]

    def _commit(self, tick: int) -> None:
        self._store.commit()
        self._flushed = time.monotonic(), tick


def channels_of(sim: "Simulator", fields: Mapping[str, int | Probe]) -> tuple[Channel, ...]:
    """Raises `SimulationError` for a name that does not exist, listing those that do, or a probe that cannot be."""
    if not fields:  # every rule would be asked for its state, in every run
        return ()
    known = known_fields(sim)
    channels = []
    for name, given in fields.items():
        probe = given if isinstance(given, Probe) else Probe(name, every=given)
        probe = dataclasses.replace(probe, field=probe.field or name)
        owner, _, label = name.rpartition(".")
        if probe.field not in known:
            raise SimulationError(f"nothing to record called {probe.field!r}; there are: {', '.join(known)}")
        source = probe.field.rpartition(".")[0]
        if owner != source or not label or "/" in label or label.startswith("tick") or label in AXES:
            raise SimulationError(
                f"a recording of {probe.field!r} cannot be called {name!r}: call it {source + '.'!r} and a word that "
                "is no axis"
            )
        layout = sim._layouts.get(owner)
        channel = Channel(name, probe, layout)
        own = "spikes" in sim._fields_of(owner)  # a field of that name, which is no output
        channel = dataclasses.replace(channel, packed=channel.events and owner in sim.network.stepped and not own)
        if probe.neurons is not None:
            sizes = {n: p.size for n, p in sim.network.circuit.populations.items()}
            size = layout.n_post if layout is not None else sizes.get(owner, 0)
            if probe.neurons[-1] >= size:
                raise SimulationError(f"record {name!r}: neuron {probe.neurons[-1]} of {size} (the first is 0)")
        if channel.events and (probe.every != 1 or probe.at is not None):
            raise SimulationError(f"record {name!r}: events have ticks of their own, so every= and at= do not apply")
        _shape_of(sim, channel)
        channels.append(channel)
    return tuple(channels)


def known_fields(sim: "Simulator") -> list[str]:
    """Every name that can be recorded."""
    names = []
    for population, fields in sim.state.neurons.items():
        names += [f"{population}.{name}" for name in fields if name != "spikes"] + [f"{population}.spikes"]
    names += [f"{projection}.{name}" for projection in sim.state.synapses for name in sim._fields_of(projection)]
    read = {name for rule in sim.network.traced.values() for name in rule.fields("signals")}
    return [*names, *(f"signals.{name}" for name in sorted({*read, *sim.network.circuit.signals, "count"} - {"tick"}))]


def column_of(sim: "Simulator", channel: Channel) -> Column:
    """Where a channel's samples lie in a file, and along which axes."""
    probe, label = channel.probe, channel.label
    axes = [("point", np.arange(len(sim.points)))] if sim.points is not None else []
    if _batched(sim, channel):
        axes.append(("batch", np.arange(sim.batch or 0)))
    shape, dtype = _shape_of(sim, channel)
    named: list[tuple[str, np.ndarray]] = []
    if probe.reduce is not None:
        named = list(probe.axes().items()) or [(f"{label}_{i}", np.arange(n)) for i, n in enumerate(shape)]
        if tuple(len(coordinates) for _, coordinates in named) != shape:
            raise SimulationError(f"record {channel.name!r}: the reduction gives shape {shape}, its axes say otherwise")
    elif channel.owner != "signals":
        named = [(axis, np.arange(n)) for axis, n in zip(_own_axes(channel), shape, strict=True)]
        if probe.neurons is not None and not channel.events:
            chosen = np.asarray(probe.neurons)
            if channel.layout is not None and not channel.layout.dense:
                chosen = np.flatnonzero(np.isin(channel.layout.synapses[0], chosen))
            named[0] = (f"{named[0][0]}_{label}", chosen)
    clock = f"tick_{label}" if probe.at is not None else "tick" if probe.every == 1 else f"tick_{probe.every}"
    return Column(channel.owner, label, clock, (*axes, *named), dtype, _described(probe), channel.events)


def _own_axes(channel: Channel) -> tuple[str, ...]:
    if channel.layout is None:
        return ("neuron",)
    return ("post", "pre") if channel.layout.dense else ("synapse",)


def _batched(sim: "Simulator", channel: Channel) -> bool:
    if sim.batch is None or channel.layout is None:
        return sim.batch is not None
    if channel.probe.field.endswith(".w") or channel.owner not in sim.network.traced:
        return False
    return sim.network.local(sim.model, channel.owner).sharing == "each"


def _shape_of(sim: "Simulator", channel: Channel) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape (without points, batch and time) and type of a sample: asked of JAX once, as asking takes a millisecond."""
    key = channel, sim.batch
    if key not in sim._shapes:
        sim._shapes[key] = _traced_shape(sim, channel)
    return sim._shapes[key]


def _traced_shape(sim: "Simulator", channel: Channel) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if channel.owner == "signals":
        return (), np.dtype(jnp.zeros(()).dtype)
    state = sim.state
    if sim.points is not None:
        state = jax.eval_shape(lambda s: jax.tree.map(lambda leaf: leaf[0], s), state)
    try:
        made = jax.eval_shape(lambda s: program.read(s, s, channel.sample(1)), state)
    except (TypeError, ValueError, IndexError, AttributeError, jax.errors.JAXTypeError) as error:
        raise SimulationError(f"record {channel.name!r}: the reduction cannot be run: {error}") from error
    if channel.rows and channel.layout is not None:
        layout, dtype = channel.layout, jax.tree.leaves(made)[0].dtype
        return ((layout.n_post, layout.n_pre) if layout.dense else (len(layout.synapses[0]),)), np.dtype(dtype)
    return tuple(made.shape[_batched(sim, channel) :]), np.dtype(made.dtype)


def _described(probe: Probe) -> str:
    text = probe.field.replace(".", " ")
    return text if probe.reduce is None else f"{provenance.name_of(probe.reduce)} of {text}"


def create(
    sim: "Simulator",
    path: Path,
    fields: Mapping[str, int | Probe],
    *,
    overwrite: bool,
    flush: Pace,
    checkpoint: Pace,
    compression: str | int | None,
    chunk: int | None,
    keep_drive: int,
) -> Recorder:
    """A recorder to a new file. The names are checked before a file is made."""
    channels = channels_of(sim, fields)
    made_by = provenance.describe(sim, channels)
    sparse = {name: sim.synapses(name) for name, layout in sim._layouts.items() if not layout.dense}
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        store = Store(path, "w" if overwrite else "x", compression, chunk)
    except FileExistsError as error:
        raise RecordingError(
            f"{path} exists already: choose another name, or pass overwrite=True to replace it"
        ) from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        store.begin(made_by, sparse, {"event": "opened", **provenance.process()})
    except Exception as error:
        store.discard()
        raise RecordingError(f"{path} cannot be written: {error}") from error
    return Recorder(sim, channels, FileSink(sim, store, flush, checkpoint, keep_drive))
