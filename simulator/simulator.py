"""Running a network: chunks of compiled ticks, recording between them, and errors that say where."""

import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from tqdm import tqdm

from .networks.fields import Fields
from .networks.graph import read_graph
from . import program
from .errors import SimulationError
from .network import COUNTERS, Model, State, initial_weights, make_network
from .program import Inputs, Sample, Target
from .protocol import RUN, Phase
from .recording import Recorder

Drive = Mapping[str, Any]
Callback = Callable[["Simulator"], Any]

CHUNK_BYTES = 64 * 2**20  # of drive and samples held at once
CHUNK_UNITS = 100_000


class Simulator:
    """Runs the network that a networkx graph describes.

    ``seed`` fixes every random number of the run by name, tick and seed: the same run whatever the chunking, the
    recording or the seeds beside it. ``dt`` is the length of a tick in seconds. ``points`` runs one copy of the whole
    network per point in one program (see `sweep`).

    >>> sim = Simulator(net, seed=0)                              # doctest: +SKIP
    >>> with sim.record("run.h5", {"cortex.x": 1, "retina->cortex.w": 100}):
    ...     sim.run({"retina": images}, progress=True)            # images: (ticks, [batch,] n)
    >>> sim.params["retina->cortex"].w                            # (post, pre)

    Raises `NetworkError` if the graph is no network, before anything runs.
    """

    def __init__(
        self, graph: nx.Graph, *, seed: int = 0, dt: float = 1e-3, points: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
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
        self._start()

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
        return {
            name: Fields(
                {field: layout.unpack(program.emit(self.network, self.state, f"{name}.{field}"))
                 for field in self._fields_of(name)}
            )
            for name, layout in self._layouts.items()
        }  # fmt: skip

    def set_weights(self, projection: str, weights: Any) -> None:
        """Replace a projection's weights (shape as in `params`; without the axis of points, all points get them)."""
        if projection not in self._layouts:
            raise SimulationError(f"no projection {projection!r}; projections: {', '.join(self._layouts)}")
        old = self.params[projection].w
        values = np.asarray(weights, float)
        single = old.shape[1:] if self.points is not None else old.shape
        if values.shape not in (old.shape, single):
            raise SimulationError(f"projection {projection!r}: weights have shape {values.shape}; it has {single}")
        if not np.all(np.isfinite(values)):
            raise SimulationError(f"projection {projection!r}: weights must be finite")
        layout = self._layouts[projection]
        if self.points is None:
            packed = layout.pack(values)
        else:
            packs = [layout.pack(v) for v in np.broadcast_to(values, old.shape)]
            packed = jax.tree.map(lambda *blocks: jnp.stack(blocks), *packs)
        self.state = eqx.tree_at(lambda s: s.synapses[projection].w, self.state, packed)

    def synapses(self, projection: str) -> tuple[np.ndarray, np.ndarray]:
        """(post, pre) neuron of every synapse, in the order of the weights (row by row)."""
        return self._layouts[projection].synapses

    def step(self, model: Model, state: State, drive: Drive, signals: Mapping[str, Any] | None = None) -> State:
        """One tick as a pure function: differentiate it, scan it, map it. Start from ``sim.model, sim.state``."""
        given = {self._target(name): value for name, value in drive.items()}
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
        record: Mapping[str, int] | None = None,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
        chunk: int | None = None,
    ) -> dict[str, np.ndarray]:
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
        feed = _Feed(self, phases, drive or {}, signals or {})
        total = feed.units(ticks if not phases else trials, "trials" if phases else "ticks")
        self._match_batch(feed.batch)
        per_unit = sum(phase.ticks for phase in phases) or 1
        memory = Recorder.in_memory(self, record or {})
        recorders = [*self._recorders, memory]
        for recorder in recorders:
            recorder.begin(phases)
        size = self._chunk_size(total, feed, recorders, chunk, per_unit, bool(progress), bool(callbacks))
        done = 0
        with tqdm(total=total, unit="trial" if phases else "tick", disable=not progress) as bar:
            while done < total:
                units = min(size - (self._unit(phases) % size if done == 0 else 0), total - done)
                self._advance(phases, feed, units, recorders, per_unit)
                done += units
                bar.update(units)
                if any([callback(self) is True for callback in callbacks]):
                    break
        return memory.arrays()

    def record(self, path: str | Path, fields: Mapping[str, int], *, overwrite: bool = False) -> Recorder:
        """Record ``fields`` (name -> every so many ticks) to an HDF5 file while the returned context is open.

        Names are ``population.<state field or port>`` and ``projection.<w or synaptic state>``. Raises
        `SimulationError` for an unknown name (listing those that exist) or a file that exists already.
        """
        return Recorder.to_file(self, path, fields, overwrite)

    # What follows is not public

    def _start(self) -> None:
        if self.points is None:
            self.model, self.state = self._fresh({})
            self._axes = None
            return
        if not self.points:
            raise SimulationError("a sweep needs at least one point")
        pairs = [self._fresh(point) for point in self.points]
        model, state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(_without_layouts(m), s) for m, s in pairs])
        self.model, self.state = eqx.tree_at(lambda m: m.layouts, model, self._layouts, is_leaf=_is_none), state
        axes = jax.tree.map(lambda _: 0, _without_layouts(self.model))
        self._axes = eqx.tree_at(lambda m: m.layouts, axes, None, is_leaf=_is_none)

    def _fresh(self, point: Mapping[str, Any]) -> tuple[Model, State]:
        neurons, rules = dict(self._neurons), dict(self._rules)
        for name, value in point.items():
            if name != "seed":
                self._set_parameter(neurons, rules, name, value)
        key = jax.random.key(int(point.get("seed", self.seed)))
        model = Model(neurons, rules, self._layouts, key)
        weights = initial_weights(self.network.circuit, self._layouts, key)
        return model, self.network.initial(model, weights, self.batch)

    def _set_parameter(self, neurons: dict[str, Any], rules: dict[str, Any], name: str, value: Any) -> None:
        owners = {**neurons, **rules}
        owner = next((o for o in owners if name.startswith(o + ".")), None)
        if owner is None:
            raise SimulationError(f"no population or plastic projection in {name!r}; known: {', '.join(owners)}, seed")
        known = {
            ".".join(str(getattr(key, "name", key)) for key in path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(owners[owner])
        }
        path = name[len(owner) + 1 :]
        if path not in known:
            raise SimulationError(f"{owner!r} has no parameter {path!r}; parameters: {', '.join(known) or 'none'}")

        def get(module: Any) -> Any:
            for part in path.split("."):
                module = getattr(module, part)
            return module

        new = eqx.tree_at(get, owners[owner], jnp.asarray(value, float))
        (neurons if owner in neurons else rules)[owner] = new

    def _fields_of(self, owner: str) -> tuple[str, ...]:
        if owner in self.state.neurons:
            return tuple(self.state.neurons[owner])
        rule = self._rules.get(owner)
        return ("w", *(rule.init() if rule is not None else ()))

    def _target(self, name: str) -> Target:
        population, _, port = name.partition(".")
        known = self.network.circuit.populations
        if population not in known:
            near = difflib.get_close_matches(population, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SimulationError(f"drive for {name!r}: no such population; {hint}Populations: {', '.join(known)}")
        ports = known[population].neuron.ports
        if port and port not in ports or not ports:
            raise SimulationError(f"drive for {name!r}: {population!r} has the ports {', '.join(ports) or '(none)'}")
        return population, port or ports[0]

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
            if projection.phases is not None and not projection.phases & set(names):
                raise SimulationError(
                    f"projection {projection.name!r} lives in {', '.join(sorted(projection.phases))} only, and this run "
                    f"has {'the phases ' + ', '.join(names) if names else 'no trial'}: pass trial=[Phase(...)] with it"
                )

    def _match_batch(self, batch: int | None) -> None:
        if batch == self.batch:
            return
        if self.tick == 0:
            self.batch = batch
            weights, axes = {name: s.w for name, s in self.state.synapses.items()}, self._axes
            make = lambda model, w: self.network.initial(model, w, batch)  # noqa: E731
            self.state = make(self.model, weights) if axes is None else jax.vmap(make, in_axes=(axes, 0))(self.model, weights)
            return
        raise SimulationError(
            f"this drive has a batch of {batch}, the run so far one of {self.batch}: keep it, or start a new Simulator"
        )

    def _unit(self, phases: Sequence[Phase]) -> int:
        return self.trial if phases else self.tick

    def _chunk_size(
        self, total: int, feed: "_Feed", recorders: Sequence[Recorder], chunk: int | None, per_unit: int,
        progress: bool, callbacks: bool,
    ) -> int:  # fmt: skip
        if chunk is not None:
            if chunk < 1:
                raise SimulationError(f"chunk={chunk} must be at least 1")
            return chunk
        spread = len(self.points) if self.points is not None else 1
        bytes_per_unit = feed.bytes_per_unit + sum(r.bytes_per_tick for r in recorders) * per_unit * spread
        size = min(CHUNK_UNITS, max(1, int(CHUNK_BYTES / max(bytes_per_unit, 1))), total)
        if progress or callbacks:
            size = min(size, max(1, total // 50))
        periods = [p // per_unit if p % per_unit == 0 else 1 for r in recorders for p in r.fields.values()]
        step = max((p for p in periods if p <= size), default=1)
        return max(size // step * step, 1)

    def _advance(
        self, phases: tuple[Phase, ...], feed: "_Feed", units: int, recorders: Sequence[Recorder], per_unit: int
    ) -> None:
        start = self._unit(phases)
        rows = feed.take(units)
        periods: dict[str, int] = {}
        every_tick: set[str] = set()
        for recorder in recorders:
            for field, period in recorder.fields.items():
                if phases and period % per_unit:
                    every_tick.add(field)
                else:
                    period //= per_unit
                    periods[field] = np.gcd(periods.get(field, period), period)
        aligned = self.tick == start * per_unit
        chosen = program.levels({f: p for f, p in periods.items() if f not in every_tick}, start, units)
        if not aligned:  # ticks and trials were mixed: sample at every trial's end and let the recorder choose
            chosen = dict.fromkeys(chosen, 1)
        samples = tuple(Sample(field, level) for field, level in sorted(chosen.items()))
        run = self._program(phases, feed, samples, tuple(sorted(every_tick)), units)
        first = self.tick
        state, finite, out = run(self.model, self.state, rows)
        bad = None if bool(np.all(finite)) else self._find_bad(phases, feed, units, rows)
        for recorder in recorders:
            for field in recorder.fields:
                level = per_unit * chosen[field] if field in chosen else 1
                ticks = first + np.arange(level - 1, units * per_unit, level)
                recorder.take(field, ticks, out[field], bad[0] if bad else None)
        if bad:
            raise SimulationError(bad[1])
        self.state = state

    def _program(
        self, phases: tuple[Phase, ...], feed: "_Feed", samples: tuple[Sample, ...], every_tick: tuple[str, ...], units: int
    ) -> Callable[..., Any]:
        key = (phases, tuple(str(dict(p.signals)) for p in phases), feed.identity, samples, every_tick, units, self.batch)
        if key not in self._compiled:
            one = program.unit(self.network, phases, feed.inputs, every_tick, self.batch)
            advance = program.chunk(self.network, one, samples, units)

            def run(model: Model, state: State, rows: Any) -> Any:
                state, out = advance(model, state, rows)
                return state, program.all_finite(state), out

            mapped = run if self._axes is None else jax.vmap(run, in_axes=(self._axes, 0, None))
            self._compiled[key] = jax.jit(mapped), feed  # the feed keeps its functions, and so their ids, alive
        return self._compiled[key][0]  # type: ignore[no-any-return]

    def _find_bad(self, phases: tuple[Phase, ...], feed: "_Feed", units: int, rows: Any) -> tuple[int, str]:
        """Run the failed chunk again from its start, unit by unit and then tick by tick."""
        one = program.unit(self.network, phases, feed.inputs, (), self.batch)

        def search(model: Model, state: State, rows: Any) -> State:
            def go_on(carry: Any) -> Any:
                done, before, after = carry
                return (done < units) & program.all_finite(after)

            def body(carry: Any) -> Any:
                done, _, after = carry
                return done + 1, after, one(model, after, jax.tree.map(lambda row: row[done], rows))[0]

            return jax.lax.while_loop(go_on, body, (0, state, state))  # type: ignore[no-any-return]

        mapped = search if self._axes is None else jax.vmap(search, in_axes=(self._axes, 0, None))
        done, before, after = jax.jit(mapped)(self.model, self.state, rows)
        point = None
        model = self.model
        if self._axes is not None:
            finite = np.array([bool(program.all_finite(_at(after, i))) for i in range(len(self.points or ()))])
            candidates = np.flatnonzero(~finite)
            point = int(candidates[np.argmin(np.asarray(done)[candidates])]) if len(candidates) else 0
            before, after, done = _at(before, point), _at(after, point), np.asarray(done)[point]
            model = eqx.tree_at(lambda m: m.layouts, _at(_without_layouts(self.model), point), self._layouts, is_leaf=_is_none)
        if phases:
            row = jax.tree.map(lambda a: a[int(done) - 1], rows)
            before, after = self._find_tick(phases, feed, model, before, row)
        where = f" (point {point}: {self.points[point]})" if point is not None and self.points else ""
        return int(before.tick), self._explain(before, after) + where

    def _find_tick(self, phases: tuple[Phase, ...], feed: "_Feed", model: Model, state: State, rows: Any) -> tuple[State, State]:
        for phase in phases:
            source = feed.inputs[phase.name]
            state = self.network.reset(model, state, phase.reset, self.batch)
            for k in range(phase.ticks):
                plastic = phase.plastic == "every" or (phase.plastic == "last" and k == phase.ticks - 1)
                index = state.trial if phase.hold else state.trial * phase.ticks + k
                row = rows[phase.name] if phase.hold else {t: a[k] for t, a in rows[phase.name].items()}
                given = program.present(source, model, index, row)
                after = program.tick_once(self.network, model, state, given, phase, plastic)
                if not bool(program.all_finite(after)):
                    return state, after
                state = after
        return state, state

    def _explain(self, before: State, after: State) -> str:
        """Which value failed first within the tick: ports and neurons in order of update, then weights."""
        tick = int(before.tick)
        for name in self.network.circuit.order:
            for field in sorted(after.neurons[name], key=lambda f: f not in self.network.circuit.populations[name].neuron.ports):
                values = np.asarray(after.neurons[name][field])
                if not np.all(np.isfinite(values)):
                    neuron = int(np.argwhere(~np.isfinite(values))[0][-1])
                    return (
                        f"tick {tick}: population {name!r}, neuron {neuron}: {field} became {_kind(values)}. "
                        + self._suspects(name, before)
                    )
        for name, synapses in after.synapses.items():
            for field in self._fields_of(name):
                blocks = program.emit(self.network, after, f"{name}.{field}")
                if not all(np.all(np.isfinite(b)) for b in blocks):
                    rule = type(self.network.circuit.projections[name].rule).__name__
                    kind = next(_kind(np.asarray(b)) for b in blocks if not np.all(np.isfinite(b)))
                    return (
                        f"tick {tick}: projection {name!r}: {field} became {kind} under {rule}. Its weights had reached "
                        f"{_largest(before, name):.3g}: lower the learning rate, or bound the weights "
                        "(rules.Bounded, rules.Decay, rules.Normalised)"
                    )
        return f"tick {tick}: a value became infinite or NaN"

    def _suspects(self, population: str, before: State) -> str:
        incoming = [p.name for p in self.network.into[population]]
        if not incoming:
            return "Its drive is not finite: check the source"
        worst = max(incoming, key=lambda name: _largest(before, name))
        return (
            f"Its largest incoming weight, {_largest(before, worst):.3g}, is in projection {worst!r}: lower the learning "
            "rate or the weights, or check the drive"
        )


def sweep(graph: nx.Graph, over: Mapping[str, Iterable[Any]], *, seed: int = 0, dt: float = 1e-3) -> Simulator:
    """One copy of the network for every combination of the values in ``over``, all in one vectorised program.

    Keys are ``"seed"`` and parameters of neurons and rules (``"cortex.bias"``, ``"retina->cortex.eta"``; a wrapped
    rule's are ``"retina->cortex.rule.eta"``). The copies are ``sim.points``, in this order, the leading axis of
    everything in ``sim.params``, ``sim.state`` and recordings.

    >>> sim = sweep(net, {"seed": range(4), "retina->cortex.eta": [1e-3, 1e-2]})  # doctest: +SKIP
    """
    points = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    return Simulator(graph, seed=seed, dt=dt, points=points)


class _Feed:
    """The drive and signals of one run, checked and cut into chunks."""

    def __init__(self, sim: Simulator, phases: tuple[Phase, ...], drive: Drive, signals: Mapping[str, Any]) -> None:
        self.phases = phases or (RUN,)
        self.trials = bool(phases)
        self.functions: dict[str, dict[Target, Any]] = {phase.name: {} for phase in self.phases}
        self.arrays: dict[str, dict[Target, np.ndarray]] = {phase.name: {} for phase in self.phases}
        self.iterators: dict[str, dict[Target, Iterator[Any]]] = {phase.name: {} for phase in self.phases}
        self.position = 0
        shapes: dict[str, tuple[int, ...]] = {}
        sizes = {name: population.size for name, population in sim.network.circuit.populations.items()}
        clash = [name for name in signals if name in COUNTERS]
        if clash:
            raise SimulationError(f"signal {clash[0]!r} is the simulator's own count; choose another name")
        sources = {sim._target(name): (name, source) for name, source in drive.items()}
        sources |= {("", name): (name, source) for name, source in signals.items()}
        for target, (name, given) in sources.items():
            by_phase = given if isinstance(given, Mapping) else {phase.name: given for phase in self.phases}
            unknown = [p for p in by_phase if p not in self.functions]
            if unknown:
                raise SimulationError(f"drive for {name!r}: no phase {unknown[0]!r}; phases: {', '.join(self.functions)}")
            for phase in self.phases:
                if phase.name in by_phase:
                    row = self._add(sim, phase, target, name, by_phase[phase.name])
                    expected = (sizes[target[0]],) if target[0] else ()
                    if row[-len(expected) or len(row) :] != expected or len(row) > len(expected) + 1:
                        raise SimulationError(
                            f"drive for {name!r} has presentations of shape {row}; it needs ([batch,] {expected[0]})"
                            if expected
                            else f"signal {name!r} has values of shape {row}; it needs one number, or (batch,)"
                        )
                    if len(row) > len(expected):
                        shapes[name] = row[: len(row) - len(expected)]
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name}: {shape[0]}" for name, shape in shapes.items())
            raise SimulationError(f"the sources have different batch sizes ({listed})")
        self.batch: int | None = next(iter(shapes.values()))[0] if shapes else None

    @property
    def inputs(self) -> dict[str, Inputs]:
        return {
            p.name: Inputs(self.functions[p.name], frozenset(self.arrays[p.name]) | frozenset(self.iterators[p.name]))
            for p in self.phases
        }

    @property
    def identity(self) -> Any:
        return tuple(
            (name, target, id(function)) for name, functions in self.functions.items() for target, function in functions.items()
        ) + tuple((name, *sorted(i.arrays)) for name, i in self.inputs.items())

    @property
    def bytes_per_unit(self) -> int:
        return sum(
            array[:1].nbytes * self._per_unit(phase) for phase in self.phases for array in self.arrays[phase.name].values()
        )

    def units(self, wanted: int | None, what: str) -> int:
        """How many units to run: as asked, or as many as the shortest array has."""
        lengths = {
            target: len(array) // self._per_unit(phase)
            for phase in self.phases
            for target, array in self.arrays[phase.name].items()
        }
        if wanted is None:
            if not lengths:
                raise SimulationError(f"say how long to run: no array tells, so pass {what}=")
            return min(lengths.values())
        if wanted < 0:
            raise SimulationError(f"{what}={wanted} must not be negative")
        for target, length in lengths.items():
            if length < wanted:
                raise SimulationError(
                    f"the drive for {'.'.join(filter(None, target))!r} has {length} {what}, {what}={wanted} were asked for"
                )
        return wanted

    def take(self, units: int) -> dict[str, dict[Target, Any]]:
        """The next ``units`` rows of every array, (units, ...) or (units, ticks, ...) where a phase is not held."""
        rows: dict[str, dict[Target, Any]] = {}
        for phase in self.phases:
            per = self._per_unit(phase)
            part = {
                target: array[self.position * per : (self.position + units) * per]
                for target, array in self.arrays[phase.name].items()
            }
            for target, iterator in self.iterators[phase.name].items():
                drawn = list(itertools.islice(iterator, units * per))
                if len(drawn) < units * per:
                    raise SimulationError(f"the iterator that drives {target[0]!r} ended early")
                part[target] = np.asarray(drawn, float)
            split = self.trials and not phase.hold
            rows[phase.name] = {
                target: jnp.asarray(array.reshape(units, per, *array.shape[1:]) if split else array, float)
                for target, array in part.items()
            }
        self.position += units
        return rows

    def _per_unit(self, phase: Phase) -> int:
        return phase.ticks if self.trials and not phase.hold else 1

    def _add(self, sim: Simulator, phase: Phase, target: Target, name: str, source: Any) -> tuple[int, ...]:
        if callable(source):
            self.functions[phase.name][target] = source
            try:
                shape = jax.eval_shape(source, jnp.zeros((), jnp.int32), jax.random.key(0)).shape
            except (TypeError, jax.errors.JAXTypeError) as error:
                raise SimulationError(
                    f"the source of {name!r} must be a function of (index, key) that JAX can trace: {error}"
                ) from error
            return tuple(shape)
        if isinstance(source, Iterator):
            first = np.asarray(next(source), float)
            self.iterators[phase.name][target] = itertools.chain([first], source)
            return first.shape
        if isinstance(source, float | int):
            self.functions[phase.name][target] = lambda index, key: jnp.asarray(source, float)
            return ()
        array = np.asarray(source)
        if array.ndim == 0 or array.dtype == object:
            raise SimulationError(f"the source of {name!r} is no array, function of (index, key) or iterator")
        if not np.all(np.isfinite(array)):
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise SimulationError(f"the drive for {name!r} is not finite at {where} (presentation first)")
        self.arrays[phase.name][target] = array
        return array.shape[1:]


def _largest(state: State, projection: str) -> float:
    return max(float(np.max(np.abs(block))) for block in state.synapses[projection].w)


def _kind(values: np.ndarray) -> str:
    return "NaN" if np.any(np.isnan(values)) else "infinite"


def _is_none(value: Any) -> bool:
    return value is None


def _without_layouts(model: Model) -> Model:
    return eqx.tree_at(lambda m: m.layouts, model, None, is_leaf=_is_none)


def _at(tree: Any, point: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[point], tree)
