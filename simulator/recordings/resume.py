"""Going on from a recording, and running it again to compare."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordingError, SimulationError
from ..feed import Feed, target_of
from ..networks import NetworkError
from ..probes import Probe
from ..rules import RuleError
from . import provenance
from .reading import Recording, Spikes, damaged
from .recorder import FileSink, Pace, Recorder, channels_of
from .store import Column, Store

if TYPE_CHECKING:
    from ..simulator import Simulator

Array = np.ndarray


@dataclass(frozen=True)
class Stretch:
    """Part of a run between two ticks in which nobody interfered, as the log tells it."""

    event: Mapping[str, Any]
    start: int  # tick
    end: int

    @property
    def per_unit(self) -> int:
        return _per_unit(self.event)


def stretches(log: Iterable[Mapping[str, Any]]) -> list[Stretch]:
    """What was run, in order of the ticks: a run that began at a tick replaces all that came after that tick before."""
    found: list[Stretch] = []
    for event in log:
        if event["event"] == "run":
            tick = int(event["tick"])
            begins = next((s.event["start"] for s in found if s.start == tick), None)  # the same run, begun again
            event = {**event, "start": event["start"] or begins}
            found = [dataclasses.replace(s, end=min(s.end, tick)) for s in found if s.start < tick]
            found.append(Stretch(event, tick, _planned(event)))
        elif event["event"] == "closed" and found:
            found[-1] = dataclasses.replace(found[-1], end=min(found[-1].end, int(event["tick"])))
    return found


def _per_unit(event: Mapping[str, Any]) -> int:
    """Ticks of a trial."""
    return sum(int(phase["ticks"]) for phase in event["phases"] or ()) or 1


def _planned(event: Mapping[str, Any]) -> int:
    """The tick at which a logged run was to end."""
    return max(int(event["tick"]) + int(event["units"]) * _per_unit(event), int(event["until"]))


def simulator_of(recording: Recording, known: Iterable[Any] = (), strict: bool = True) -> "Simulator":
    """The recorded network in the state of the last checkpoint.

    Raises `RecordingError` where the file is damaged or names classes that are not at hand, and, if ``strict``, where
    versions, precision or what a rule or neuron computes differ from those that made the file.
    """
    from ..simulator import Simulator

    names = provenance.Known(recording, known)
    with damaged(recording.path):
        meta, arrays = recording.state()
        try:
            graph = provenance.graph_of(recording, names)
            differ = provenance.differences(recording, graph) if strict else []
            if differ:
                raise RecordingError(
                    f"{recording.path} cannot be gone on from bit for bit: {'; '.join(differ)}. To go on all the same, "
                    "pass strict=False (on the command line --anyway)"
                )
            sim = Simulator(graph, seed=recording.seed, dt=recording.dt, points=recording.points)
            sim.state = provenance.restore(sim, arrays, meta["batch"])
        except (NetworkError, RuleError, SimulationError) as error:
            raise RecordingError(f"{recording.path} does not describe a network: {error}") from error
    return sim


def appending(
    sim: "Simulator", path: Path, known: Iterable[Any], flush: Pace, checkpoint: Pace, keep_drive: int
) -> Recorder:
    """A recorder that goes on with the file's own fields; samples after the simulator's tick go, to be made again."""
    with Recording(path) as recording:
        fields = _fields(recording, known)
        with damaged(path):
            meta = recording.state()[0]
            filters = [data.compression for data in recording.fields.values() if data.compression]
            held = list(recording.arrays())
            if recording.alive:
                raise RecordingError(f"{path} is being written by process {recording.runs[-1]['process']}: let it end")
    if meta["tick"] != sim.tick:
        raise RecordingError(
            f"{path} was saved at tick {meta['tick']}, this simulator is at {sim.tick}: make one with "
            f"Simulator.resume({str(path)!r})"
        )
    channels = channels_of(sim, fields)
    try:
        store = Store(path, "r+", filters[0] if filters else None, held=held, turn=int(meta["sequence"]) + 1)
        store.cut(sim.tick)
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror or error}") from error
    return Recorder(sim, channels, FileSink(sim, store, flush, checkpoint, keep_drive), seen=sim.state)


def _fields(recording: Recording, known: Iterable[Any]) -> dict[str, Probe]:
    names = provenance.Known(recording, known)
    with damaged(recording.path):
        fields = {name: names.build(probe) for name, probe in recording.probes.items()}
        if not all(isinstance(probe, Probe) for probe in fields.values()):
            raise TypeError("what it records is no probe")
    return fields


def resume(
    path: str | Path,
    ticks: int | None = None,
    *,
    trials: int | None = None,
    drive: Mapping[str, Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    known: Iterable[Any] = (),
    strict: bool = True,
    progress: bool = False,
    **recording: Any,
) -> "Simulator":
    """Go on with the run in ``path`` from its last checkpoint, and with the recording in the same file.

    The result is bit for bit that of a run that was never stopped. Without ``ticks`` (or ``trials``) the run is
    finished as it was planned. ``drive`` and ``signals`` are those of the run, as it was given them, where the file
    could not keep them. ``known``: your own classes and functions that the file names; nothing else is looked up.
    ``strict=False`` goes on although versions or rules have changed. Other keywords as of `Simulator.record`.

    Raises `RecordingError` saying what the file lacks, and what a run raises.
    """
    path, known = Path(path), tuple(known)
    with Recording(path) as opened:
        sim = simulator_of(opened, known, strict)
        plan = _plan(opened, sim, ticks, trials)
        feeds = [_feed(opened, stretch, sim, known, drive or {}, signals or {}) for stretch, _ in plan]
        for feed, (_, units) in zip(feeds, plan, strict=True):
            feed.units(units, "trials" if feed.trial else "ticks")  # long enough, before the file is touched
        starts = [opened.start(stretch.event) if stretch.event["start"] else None for stretch, _ in plan]
    with sim.record(path, append=True, known=known, **recording) as recorder:
        for feed, start, (stretch, units) in zip(feeds, starts, plan, strict=True):
            if start is not None and 0 < stretch.start == sim.tick:
                sim.state = provenance.restore(sim, start, stretch.event["batch"])
            recorder.until = stretch.end
            sim._go(feed, units, {}, progress)
    return sim


def _plan(recording: Recording, sim: "Simulator", ticks: int | None, trials: int | None) -> list[tuple[Stretch, int]]:
    """Which stretches are left to run, and how many units of each."""
    path = recording.path
    found = stretches(recording.runs)
    left = [s for s in found if s.end > sim.tick]
    if ticks is None and trials is None:
        if not left:
            raise RecordingError(f"the run in {path} is complete: say how much further, with ticks (--ticks N)")
        return [(s, (s.end - max(s.start, sim.tick)) // s.per_unit) for s in left]
    left = left or found[-1:]
    if not left:
        raise RecordingError(f"{path} holds no run to go on with")
    first = left[0]
    if trials is not None and not first.event["phases"]:
        raise RecordingError(f"the run in {path} has no trials: say how much further with ticks (--ticks N)")
    wanted = ticks if ticks is not None else (trials or 0) * first.per_unit
    plan = []
    for number, stretch in enumerate(left):
        last = number == len(left) - 1
        start = max(stretch.start, sim.tick)
        length = wanted if last else min(wanted, stretch.end - start)
        if length % stretch.per_unit:
            raise RecordingError(
                f"the trials of {path} have {stretch.per_unit} ticks: {ticks} ticks are no whole number of them"
            )
        if length > 0:
            plan.append((stretch, length // stretch.per_unit))
        wanted -= length
    return plan


def _feed(
    recording: Recording,
    stretch: Stretch,
    sim: "Simulator",
    known: Iterable[Any],
    drive: Mapping[str, Any],
    signals: Mapping[str, Any],
) -> Feed:
    """The drive and signals of a stretch, from the simulator's tick on (or the stretch's start, if that is later)."""
    event = stretch.event
    with damaged(recording.path):
        names = provenance.Known(recording, known)
        own = {target_of(sim.network.circuit, name) for name in drive} | {("", name) for name in signals}
        kept = {
            phase: {target: source for target, source in targets.items() if tuple(target.split(".")) not in own}
            for phase, targets in event["sources"].items()
        }
        given = provenance.feed_of({**event, "sources": kept}, names)
        position = int(event["position"]) + max(sim.tick - stretch.start, 0) // stretch.per_unit
    sim._check_phases(given["trial"])
    return Feed(
        sim.network.circuit, given["trial"], {**given["drive"], **drive}, {**given["signals"], **signals}, position
    )


@dataclass(frozen=True)
class Difference:
    """Where a field of two recordings differs. ``tick``: of the first sample that does, None where the shape does."""

    field: str
    said: str
    tick: int | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.said}"


class _Comparison:
    """A sink that compares what arrives with what a recording holds."""

    flush = Pace()

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._spikes: dict[str, Spikes] = {}
        self._at: dict[str, int] = {}
        self.found: dict[str, Difference] = {}
        self.compared = 0

    def begin(self, columns: Mapping[str, Column], event: Mapping[str, Any], feed: Feed, state: Any) -> None: ...

    def cut(self, tick: int) -> None: ...

    def samples(self, column: Column, ticks: Array, values: Array) -> None:
        start = self._at.get(column.name, 0)
        held = self._recording.fields[column.name][start : start + len(values)]
        self._at[column.name] = start + len(values)
        self.compared += held.size
        self._note(column.name, difference(column.name, ticks[: len(held)], values[: len(held)], held))

    def events(self, column: Column, columns: Mapping[str, Array]) -> None:
        start, count = self._at.get(column.name, 0), len(columns["times"])
        self._at[column.name] = start + count
        if column.name not in self._spikes:
            self._spikes[column.name] = self._recording.spikes(column.name)
        held = {name: values[start : start + count] for name, values in self._spikes[column.name].columns.items()}
        self.compared += len(held["times"])
        self._note(column.name, unlike_events(column.name, columns, held))

    def passed(self, meta: Mapping[str, Any], state: Any) -> None: ...

    def close(self, meta: Mapping[str, Any], state: Any) -> None: ...

    def _note(self, name: str, found: Difference | None) -> None:
        if found is not None:
            self.found.setdefault(name, found)


def difference(field: str, ticks: Array, a: Array, b: Array) -> Difference | None:
    """Where two stretches of samples first differ; NaN equals NaN."""
    if a.shape[1:] != b.shape[1:] or (a.dtype != b.dtype and a.dtype.kind != b.dtype.kind):
        return Difference(field, f"{a.dtype} {a.shape[1:]} and {b.dtype} {b.shape[1:]}")
    equal = a == b
    if a.dtype.kind == "f":
        equal |= np.isnan(a) & np.isnan(b)
    rows = np.flatnonzero(~equal.reshape(len(a), -1).all(1))
    if not len(rows):
        return None
    with np.errstate(invalid="ignore"):
        largest = np.nanmax(np.abs(np.subtract(a, b, dtype=float)))
    return Difference(
        field, f"differs from tick {ticks[rows[0]]} on ({len(rows)} of {len(a)} samples), by up to {largest:.3g}",
        int(ticks[rows[0]]),
    )  # fmt: skip


def unlike_events(field: str, a: Mapping[str, Array], b: Mapping[str, Array]) -> Difference | None:
    """Where two stretches of events first differ, as far as both go."""
    if set(a) != set(b):
        return Difference(field, f"has {', '.join(sorted(a))} | {', '.join(sorted(b))}")
    shared = min(len(a["times"]), len(b["times"]))
    unlike = np.any([a[name][:shared] != b[name][:shared] for name in a], axis=0)
    if not unlike.any():
        return None
    first = int(np.flatnonzero(unlike)[0])
    tick = int(min(a["times"][first], b["times"][first]))
    return Difference(field, f"differs from tick {tick} on", tick)


def verify(
    path: str | Path, *, known: Iterable[Any] = (), strict: bool = True, progress: bool = False
) -> tuple[list[Difference], int]:
    """Run the recorded network again, from its provenance alone, and compare every sample.

    Returns the differences, one per field that has any, and how many numbers were compared. Raises `RecordingError`
    where the file does not say enough to run it again.
    """
    known = tuple(known)
    with Recording(path) as recording:
        sim = simulator_of(recording, known, strict)
        comparison = _Comparison(recording)
        recorder = Recorder(sim, channels_of(sim, _fields(recording, known)), comparison)
        with damaged(recording.path):
            found = stretches(recording.log)
            last = max(
                (int(recording.ticks(name)[-1]) for name, data in recording.fields.items() if len(data)), default=-1
            )
        with recorder:
            for stretch in found:
                if stretch.event["start"] is not None:
                    with damaged(recording.path):
                        sim.state = provenance.restore(sim, recording.start(stretch.event), stretch.event["batch"])
                elif sim.tick != stretch.start:
                    raise RecordingError(f"{path} does not say how the network came to be as it was at {stretch.start}")
                end = stretch.end if recording.complete else min(stretch.end, _up(last + 1, stretch))
                units = (end - stretch.start) // stretch.per_unit
                if units > 0:
                    sim._go(_feed(recording, stretch, sim, known, {}, {}), units, {}, progress)
        for name in recording.fields:
            held = int(np.searchsorted(recording.ticks(name), sim.tick))  # of a chunk that failed there may be more
            missing = held - comparison._at.get(name, 0)
            if missing > 0:
                comparison._note(name, Difference(name, f"{missing} samples more than the run gives"))
    return list(comparison.found.values()), comparison.compared


def _up(tick: int, stretch: Stretch) -> int:
    """``tick``, or the next end of a trial."""
    return stretch.start + -(-(tick - stretch.start) // stretch.per_unit) * stretch.per_unit
