"""Running a network: chunks of compiled ticks, recording between them, and errors that say where."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from tqdm import tqdm

from . import program
from .chunks import Chunks
from .cluster import Slices, cuts, joined
from .errors import SimulationError
from .failure import explain, locate
from .feed import Feed, target_of
from .network import Model, State, initial_weights, make_network
from .networks.fields import Fields, parameters
from .networks.graph import Circuit, read_graph
from .probes import Probe
from .protocol import Phase
from .recordings import reading, recorder as recording, resume as resuming
from .recordings.recorder import Memory, Pace, Recorder

Drive = Mapping[str, Any]
Callback = Callable[["Simulator"], Any]


class Simulator:
    """Runs the network that a networkx graph describes.

    ``seed`` fixes every random number of the run by name, tick and seed: the same run whatever the chunking, the
    recording or the seeds beside it. ``dt`` is the length of a tick in seconds. ``points`` runs one copy of the whole
    network per point in one program, or over a cluster (see `sweep`).

    >>> sim = Simulator(net, seed=0)                              # doctest: +SKIP
    >>> with sim.record("run.h5", {"cortex.x": 1, "retina->cortex.w": 100}):  # doctest: +SKIP
    ...     sim.run({"retina": images}, progress=True)            # images: (ticks, [batch,] n)
    >>> sim.params["retina->cortex"].w                            # (post, pre), doctest: +SKIP

    Raises `NetworkError` if the graph is no network, before anything runs.
    """

    def __init__(
        self,
        graph: nx.Graph,
        *,
        seed: int = 0,
        dt: float = 1e-3,
        points: Sequence[Mapping[str, Any]] | None = None,
        client: Any = None,
        slices: int = 8,
    ) -> None:
        if client is not None and points is None:
            raise SimulationError("a client runs the points of a sweep: use sweep(..., client=client)")
        if not dt > 0:
            raise SimulationError(f"dt={dt} must be a positive number of seconds")
        self.graph = graph
        self.seed = seed
        self.dt = dt
        self.points = None if points is None else [dict(point) for point in points]
        circuit = read_graph(graph)
        self.network, self._neurons, self._rules, self._layouts = make_network(circuit, dt)
        self.batch: int | None = None
        self._recorders: list[Recorder] = []
        self._compiled: dict[Any, Any] = {}
        self._client, self._slices = client, slices
        self._shapes: dict[Any, tuple[tuple[int, ...], np.dtype[Any]]] = {}  # of samples
        self.model: Model
        self.state: State
        self._start(circuit)

    # The state of the run

    @property
    def tick(self) -> int:
        """Ticks since the start."""
        return int(np.ravel(self.state.tick)[0])

    @property
    def trial(self) -> int:
        """Trials since the start."""
        return int(np.ravel(self.state.trial)[0])

    @property
    def params(self) -> dict[str, Fields]:
        """Per projection the weights ``w`` and the rule's synaptic state, as arrays (post, pre) if dense or, if sparse,
        one value per synapse in the order of `synapses`. A sweep has a leading axis of points."""
        projections = self.network.circuit.projections
        return {
            name: Fields(
                {field: layout.unpack(program.emit(self.state, f"{name}.{field}"))
                 for field in self._fields_of(name)}
            )
            if projections[name].tied is None
            else Fields(w=self.network.carried(projections[name], self.state)[0])
            for name, layout in self._layouts.items()
        }  # fmt: skip

    def set_weights(self, projection: str, weights: Any) -> None:
        """Replace a projection's weights (shape as in `params`; without the axis of points, all points get them)."""
        if projection not in self._layouts:
            raise SimulationError(f"no projection {projection!r}; projections: {', '.join(self._layouts)}")
        tied = self.network.circuit.projections[projection].tied
        if tied is not None:
            raise SimulationError(f"projection {projection!r} is tied to {tied!r}: set the weights of that one")
        old = self.params[projection].w
        values = np.asarray(weights, float)
        single = old.shape[1:] if self.points is not None else old.shape
        if values.shape not in (old.shape, single):
            raise SimulationError(f"projection {projection!r}: weights have shape {values.shape}; it has {single}")
        if not np.all(np.isfinite(values)):
            raise SimulationError(f"projection {projection!r}: weights must be finite")
        layout = self._layouts[projection]
        packed = layout.pack(np.broadcast_to(values, old.shape))

        def bounded(model: Model, packed: Any) -> Any:
            return self.network.within_bounds(model, projection, packed)

        packed = self._each_point(bounded, (0,))(self.model, packed)
        self.state = eqx.tree_at(lambda s: s.synapses[projection].w, self.state, packed)

    def synapses(self, projection: str) -> tuple[np.ndarray, np.ndarray]:
        """(post, pre) neuron of every synapse, in the order of the weights (row by row)."""
        return self._layouts[projection].synapses

    def step(self, model: Model, state: State, drive: Drive, signals: Mapping[str, Any] | None = None) -> State:
        """One tick as a pure function: differentiate it, scan it, map it. Start from ``sim.model, sim.state``.

        ``sim.model`` also holds the random key and the wiring, which have no gradient: differentiate with
        ``equinox.filter_grad``, or with respect to the parameters that you put in with ``equinox.tree_at``.
        """
        given = {target_of(self.network.circuit, name): value for name, value in drive.items()}
        return self.network.step(model, state, given, Fields(signals or {}))

    # Running

    def run(
        self,
        drive: Drive | None = None,
        ticks: int | None = None,
        *,
        trial: Phase | Sequence[Phase] = (),
        trials: int | None = None,
        signals: Mapping[str, Any] | None = None,
        record: Mapping[str, int | Probe] | None = None,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
        chunk: int | None = None,
    ) -> dict[str, Any]:
        """Run ``ticks`` ticks, or ``trials`` trials of the phases in ``trial``.

        ``drive`` maps a population (or ``"population.port"``) to its source: an array (presentations, [batch,] n), a
        function of (index, key), or an iterator (see networks/sources.py); with phases, to one source for all of them
        or a dict by phase. ``signals`` maps a signal to a source of scalars ([batch] per presentation) likewise. The
        number of ticks or trials may be left to the arrays. ``record`` keeps fields in memory, every so many ticks,
        and returns them, time first. After every ``chunk`` units (ticks or trials) each callback gets the simulator;
        one that returns True ends the run.

        Raises `SimulationError` naming population or projection and tick when a value becomes infinite or NaN; the
        simulator is then left as it was at the last good chunk, and recordings hold all samples before that tick.
        """
        phases = (trial,) if isinstance(trial, Phase) else tuple(trial)
        self._check_phases(phases)
        if phases and ticks is not None:
            raise SimulationError("a run of trials takes trials=, not ticks=")
        if trials is not None and not phases:
            raise SimulationError("trials= needs the phases of a trial: trial=[Phase(...), ...]")
        feed = Feed(self.network.circuit, phases, drive or {}, signals or {})
        return self._go(feed, ticks if not phases else trials, record or {}, progress, callbacks, chunk)

    def record(
        self,
        path: str | Path,
        fields: Mapping[str, int | Probe] | None = None,
        *,
        overwrite: bool = False,
        append: bool = False,
        known: Iterable[Any] = (),
        flush_every: float | str = 1.0,
        checkpoint_every: float | str | None = 60.0,
        compression: str | int | None = None,
        chunk: int | None = None,
        keep_drive: int = 2**28,
    ) -> Recorder:
        """Record ``fields`` to an HDF5 file while the returned context is open.

        ``fields`` maps names to every so many ticks, or to a `Probe`. Names are ``population.<state field or port>``,
        ``population.spikes`` (outputs that are not 0, as flat events), ``projection.<w or synaptic state>`` and
        ``signals.<name>``. The file is whole at every moment, whatever kills the process: it holds all samples up to
        the last flush, ``flush_every`` so many seconds (a number) or ticks (``"1000 ticks"``); ``checkpoint_every``
        likewise says how often the network's whole state is saved, from which `Simulator.resume` goes on.
        ``compression``: ``"gzip"``, ``"lzf"`` or gzip's level; samples are then written by whole chunks. ``chunk``:
        samples that lie together on disk (default: about half a MiB). ``keep_drive``: arrays of drive up to so many
        bytes are kept in the file; of larger ones only a digest is.

        ``append=True`` goes on with a recording, from a simulator that `Simulator.resume` made of it (and with the
        same ``known``): the file says what is recorded, so leave ``fields`` out.

        Raises `SimulationError` for an unknown name (listing those that exist) and `RecordingError` for a file that
        exists already or cannot be written.
        """
        flush, checkpoint = Pace.of("flush_every", flush_every), Pace.of("checkpoint_every", checkpoint_every)
        if append:
            if fields is not None:
                raise SimulationError("append=True goes on with the fields of the file: leave them out")
            return resuming.appending(self, Path(path), known, flush, checkpoint, keep_drive)
        if fields is None:
            raise SimulationError('say what to record: {"population.x": 1, ...}')
        return recording.create(
            self,
            Path(path),
            fields,
            overwrite=overwrite,
            flush=flush,
            checkpoint=checkpoint,
            compression=compression,
            chunk=chunk,
            keep_drive=keep_drive,
        )

    @classmethod
    def resume(cls, path: str | Path, *, known: Iterable[Any] = (), strict: bool = True) -> "Simulator":
        """The simulator of a recording, as it was at the last checkpoint (or the end).

        ``with sim.record(path, append=True): sim.run(...)`` goes on with the recording as well; `engrax.resume` does
        both. ``known``: your own classes and functions that the file names. ``strict=False`` accepts other versions of
        engrax and JAX and rules that changed.

        Raises `RecordingError` where the file is damaged, names something unknown, or was made by something else.
        """
        with reading.Recording(path) as opened:
            return resuming.simulator_of(opened, known, strict)

    # What follows is not public

    def _go(
        self,
        feed: Feed,
        units: int | None,
        record: Mapping[str, int | Probe],
        progress: bool,
        callbacks: Sequence[Callback] = (),
        chunk: int | None = None,
    ) -> dict[str, Any]:
        """Run so many ticks or trials of a feed."""
        phases = feed.trial
        total = feed.units(units, "trials" if phases else "ticks")
        self._match_batch(feed.batch)
        per_unit = sum(phase.ticks for phase in phases) or 1
        sink = Memory()
        memory = Recorder(self, recording.channels_of(self, record), sink)
        recorders = [*self._recorders, memory]
        chunks = Chunks(self, total, feed, recorders, chunk, per_unit, bool(progress), bool(callbacks))
        done = 0
        for recorder in recorders:
            recorder.begin(feed, total)
        with tqdm(total=total, unit="trial" if phases else "tick", disable=not progress) as bar:
            while done < total:
                units = chunks.next(self._unit(phases), total - done)
                with chunks.timed(units):
                    self._advance(phases, feed, units, recorders, per_unit)
                for recorder in recorders:
                    recorder.passed(units)
                done += units
                bar.update(units)
                stop = [callback(self) is True for callback in callbacks]  # every one is called
                if any(stop):
                    break
                for recorder in recorders:
                    if recorder.interfered and done < total:
                        recorder.begin(feed, total - done)
        return sink.arrays()

    def _start(self, circuit: Circuit) -> None:
        if self.points is None:
            self.model, self.state = self._fresh(circuit, {})
            return
        if not self.points:
            raise SimulationError("a sweep needs at least one point")
        models, states = zip(*[self._fresh(circuit, point) for point in self.points], strict=True)
        bare = [dataclasses.replace(model, layouts={}) for model in models]
        stacked, self.state = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), (bare[0], states[0]), *zip(bare[1:], states[1:], strict=True)
        )
        self.model = dataclasses.replace(stacked, layouts=self._layouts)

    def _fresh(self, circuit: Circuit, point: Mapping[str, Any]) -> tuple[Model, State]:
        neurons, rules = dict(self._neurons), dict(self._rules)
        for name, value in point.items():
            if name != "seed":
                self._set_parameter(neurons, rules, name, value)
        key = jax.random.key(int(point.get("seed", self.seed)))
        model = Model(neurons, rules, self._layouts, key)
        drawn = initial_weights(circuit, self._layouts, key)
        weights = {name: self.network.within_bounds(model, name, blocks) for name, blocks in drawn.items()}
        return model, self.network.initial(model, weights, self.batch)

    def _set_parameter(self, neurons: dict[str, Any], rules: dict[str, Any], name: str, value: Any) -> None:
        owners = {**neurons, **rules}
        owner = next((o for o in owners if name.startswith(o + ".")), None)
        if owner is None:
            raise SimulationError(f"no population or plastic projection in {name!r}; known: {', '.join(owners)}, seed")
        known = parameters(owners[owner])
        path = name[len(owner) + 1 :]
        if path not in known:
            raise SimulationError(f"{owner!r} has no parameter {path!r}; parameters: {', '.join(known) or 'none'}")

        def get(module: Any) -> Any:
            for part in path.split("."):
                module = getattr(module, part)
            return module

        new = eqx.tree_at(get, owners[owner], jnp.asarray(value, float))
        group = next((group for group in self.network.groups.values() if owner in group.members), None)
        for name in (owner,) if group is None else group.members:  # they learn by one rule
            (neurons if owner in neurons else rules)[name] = new

    def _fields_of(self, owner: str) -> tuple[str, ...]:
        if owner in self.state.neurons:
            return tuple(self.state.neurons[owner])
        rule = self.network.circuit.projections[owner].rule if owner in self.network.traced else None
        return ("w", *(() if rule is None else rule.init()))

    def _check_phases(self, phases: Sequence[Phase]) -> None:
        names = [phase.name for phase in phases]
        if len(set(names)) < len(names):
            raise SimulationError(f"two phases of the trial have one name: {', '.join(names)}")
        circuit = self.network.circuit
        for phase in phases:
            unknown = set(() if isinstance(phase.reset, bool) else phase.reset) - set(circuit.populations)
            if unknown:
                raise SimulationError(f"phase {phase.name!r} resets {unknown.pop()!r}, which is no population")
        for projection in circuit.projections.values():
            if projection.phases and not projection.phases & set(names):
                raise SimulationError(
                    f"projection {projection.name!r} lives in {', '.join(sorted(projection.phases))} only, this run "
                    f"has {'the phases ' + ', '.join(names) if names else 'no trial'}: pass trial=[Phase(...)] with it"
                )

    def _match_batch(self, batch: int | None) -> None:
        if batch == self.batch:
            return
        alone = [name for name in self.network.traced if self.network.local(self.model, name).alone]
        if alone:
            raise SimulationError(
                f"a batch of {batch}, but what {alone[0]!r} learns is one copy's own past: give drive without a batch"
            )
        if self.tick == 0:
            self._reset(batch)
            return
        raise SimulationError(
            f"this drive has a batch of {batch}, the run so far one of {self.batch}: keep it, or start a new Simulator"
        )

    def _reset(self, batch: int | None) -> None:
        """As at tick 0, with the weights as they are."""
        self.batch = batch
        weights = {name: s.w for name, s in self.state.synapses.items()}

        def begin(model: Model, weights: Mapping[str, Any]) -> State:
            return self.network.initial(model, weights, batch)

        self.state = self._each_point(begin, (0,))(self.model, weights)

    def _unit(self, phases: Sequence[Phase]) -> int:
        return self.trial if phases else self.tick

    def _advance(
        self, phases: tuple[Phase, ...], feed: Feed, units: int, recorders: Sequence[Recorder], per_unit: int
    ) -> None:
        start, first = self._unit(phases), self.tick
        rows = feed.take(units)
        wanted = {channel.key: channel for recorder in recorders for channel in recorder.channels}
        whole = first == start * per_unit  # if not, ticks and trials were mixed: sample at every trial's end
        every_tick, ends, periods = [], [], {}
        for key, channel in wanted.items():
            at, period = channel.probe.at, channel.probe.every
            if at is not None:
                due = [tick - first + 1 for tick in at if first <= tick < first + units * per_unit]
                if due == [units * per_unit]:
                    ends.append(key)
                elif due:
                    every_tick.append(key)
            elif channel.every_tick or (phases and period % per_unit):
                every_tick.append(key)
            elif "before" in channel.probe.arguments():
                periods[key] = 1
            else:
                periods[key] = period // per_unit
        levels = dict.fromkeys(ends, units) | program.levels(periods, start, units)
        if not whole:
            levels = dict.fromkeys(levels, 1)
        samples = tuple(wanted[key].sample(level) for key, level in sorted(levels.items()))
        within = tuple(wanted[key].sample(1) for key in sorted(every_tick))
        run = self._program(_Stretch(feed, samples, within, units))
        state, finite, out = run(self.model, self.state, rows, np.True_, feed.held)
        failed = np.flatnonzero(~np.atleast_1d(finite))
        bad = self._diagnose(phases, feed, units, rows, failed) if len(failed) else None
        for recorder in recorders:
            for channel in recorder.channels:
                if channel.key in out:
                    level = per_unit * levels[channel.key] if channel.key in levels else 1
                    ticks = first + np.arange(level - 1, units * per_unit, level)
                    recorder.take(channel, ticks, out[channel.key], bad[0] if bad else None)
        if bad:
            raise SimulationError(bad[1])
        self.state = state

    def _diagnose(
        self, phases: tuple[Phase, ...], feed: Feed, units: int, rows: Any, failed: np.ndarray
    ) -> tuple[int, str]:
        """The tick at which the chunk (of the points ``failed`` of a sweep) failed first, and why."""
        found = []
        for point in failed:
            model, state, where = self.model, self.state, ""
            if self.points is not None:
                state = jax.tree.map(lambda leaf, p=point: leaf[p], self.state)
                bare = jax.tree.map(lambda leaf, p=point: leaf[p], dataclasses.replace(self.model, layouts={}))
                model = dataclasses.replace(bare, layouts=self._layouts)
                where = f" (point {point}: {self.points[point]})"
            before, after = locate(self.network, phases, feed.inputs, self.batch, model, state, units, rows)
            found.append((int(before.tick), explain(self.network, before, after) + where))
        return min(found)

    def _each_point(self, function: Callable[..., Any], others: tuple[int | None, ...]) -> Callable[..., Any]:
        """``function(model, ...)`` over the points of a sweep; ``others``: the axis of points of further arguments."""
        if self.points is None:
            return function
        axes = dataclasses.replace(jax.tree.map(lambda _: 0, self.model), layouts=None)
        return jax.vmap(function, in_axes=(axes, *others))

    def _program(self, stretch: "_Stretch") -> Callable[..., Any]:
        feed = stretch.feed
        given = tuple(str(dict(phase.signals)) for phase in feed.trial)
        key = (feed.trial, given, feed.identity, stretch.samples, stretch.within, stretch.units, self.batch)
        if key not in self._compiled:
            made = self._whole if self._client is None else self._sliced
            self._compiled[key] = made(stretch), feed  # the feed keeps its functions, and so their ids, alive
        return self._compiled[key][0]  # type: ignore[no-any-return]

    def _whole(self, stretch: "_Stretch") -> Callable[..., Any]:
        """The program over all points."""

        def run(model: Model, state: State, rows: Any, alive: Any, held: Any) -> Any:
            inputs = stretch.feed.holding(held)
            one = program.unit(self.network, stretch.feed.trial, inputs, stretch.within, self.batch, alive)
            state, out = program.chunk(self.network, one, stretch.samples, stretch.units)(model, state, rows)
            return state, program.all_finite(state), out

        return jax.jit(self._each_point(run, (0, None, None, None)))

    def _sliced(self, stretch: "_Stretch") -> Callable[..., Any]:
        """The program over slices of the points, on the workers of the cluster."""
        sent = dataclasses.replace(stretch, feed=stretch.feed.bare())
        run = Slices(self._client, _slice_program, self.graph, self.dt, self.batch, sent)

        def sliced(model: Model, state: State, rows: Any, alive: Any, held: Any) -> Any:
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((_plain(model), state))]
            parts = [([leaf[cut] for leaf in leaves],) for cut in cuts(len(self.points or ()), self._slices)]
            after, finite, out = joined(run(parts, shared=jax.tree.map(np.asarray, (rows, jax.tree.leaves(held)))))
            return jax.tree.map(jnp.asarray, (jax.tree.unflatten(jax.tree.structure(state), after), finite, out))

        return sliced


@dataclass(frozen=True)
class _Stretch:
    """What a program is made for: so many units of a feed, what is sampled at the end of some of them, and within."""

    feed: Feed
    samples: tuple[program.Sample, ...]
    within: tuple[program.Sample, ...]
    units: int


def _slice_program(graph: nx.Graph, dt: float, batch: int | None, stretch: _Stretch) -> Callable[..., Any]:
    """What a worker does with some points of a sweep of this network."""
    sim = Simulator(graph, dt=dt, points=[{}])
    sim._match_batch(batch)
    run = sim._program(stretch)
    functions, given = (jax.tree.structure(tree) for tree in (stretch.feed.held, (_plain(sim.model), sim.state)))

    def part(shared: tuple[Any, list[Any]], leaves: list[Any]) -> Any:
        model, state = jax.tree.unflatten(given, leaves)
        model = dataclasses.replace(model, layouts=sim._layouts, key=jax.random.wrap_key_data(model.key))
        held = jax.tree.unflatten(functions, shared[1])
        state, finite, out = run(model, state, shared[0], np.True_, held)
        return jax.tree.leaves(state), finite, out

    return part


def _plain(model: Model) -> Model:
    """Without the layouts, which follow from the network, and with the bits of the key."""
    return dataclasses.replace(model, layouts={}, key=jax.random.key_data(model.key))


def sweep(
    graph: nx.Graph,
    over: Mapping[str, Iterable[Any]],
    *,
    seed: int = 0,
    dt: float = 1e-3,
    client: Any = None,
    slices: int = 8,
) -> Simulator:
    """One copy of the network for every combination of the values in ``over``, all in one vectorised program.

    Keys are ``"seed"`` and parameters of neurons and rules (``"cortex.bias"``, ``"retina->cortex.eta"``; a wrapped
    rule's are ``"retina->cortex.rule.eta"``). The copies are ``sim.points``, in this order, the leading axis of
    everything in ``sim.params``, ``sim.state`` and recordings.

    With a ``client`` (a ``distributed.Client``) the points are cut into so many ``slices``, which its workers run chunk
    by chunk: the numbers depend on the slices, in their last bits, but not on how many workers there are, nor on their
    dying. All else is as on one machine.

    >>> sim = sweep(net, {"seed": range(4), "retina->cortex.eta": [1e-3, 1e-2]})  # doctest: +SKIP
    """
    points = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    return Simulator(graph, seed=seed, dt=dt, points=points, client=client, slices=slices)
