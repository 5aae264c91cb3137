"""The drive and signals of one run: checked once, then cut into chunks."""

import copy
import dataclasses
import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .errors import SimulationError
from .network import COUNTERS
from .networks.fields import floats
from .networks.graph import Circuit
from .networks.sources import Steady
from .program import Inputs, Target
from .protocol import RUN, Phase


def target_of(circuit: Circuit, name: str) -> Target:
    """``"population"`` or ``"population.port"`` as (population, port); raises `SimulationError` listing what exists."""
    population, _, port = name.partition(".")
    known = circuit.populations
    if population not in known:
        near = difflib.get_close_matches(population, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SimulationError(f"drive for {name!r}: no such population; {hint}Populations: {', '.join(known)}")
    ports = known[population].neuron.ports
    if (port and port not in ports) or not ports:
        raise SimulationError(f"drive for {name!r}: {population!r} has the ports {', '.join(ports) or '(none)'}")
    return population, port or ports[0]


class Feed:
    """The drive and signals of one run, checked and cut into chunks."""

    def __init__(
        self,
        circuit: Circuit,
        phases: tuple[Phase, ...],
        drive: Mapping[str, Any],
        signals: Mapping[str, Any],
        position: int = 0,
    ) -> None:
        self.trial = phases
        self.trials = bool(phases)
        self.phases = phases or (RUN,)
        self.functions: dict[str, dict[Target, Any]] = {phase.name: {} for phase in self.phases}
        self.arrays: dict[str, dict[Target, np.ndarray]] = {phase.name: {} for phase in self.phases}
        self.iterators: dict[str, dict[Target, Iterator[Any]]] = {phase.name: {} for phase in self.phases}
        self.position = position  # units before it are skipped
        shapes: dict[str, tuple[int, ...]] = {}
        self.sizes = {name: population.size for name, population in circuit.populations.items()}
        clash = [name for name in signals if name in COUNTERS]
        if clash:
            raise SimulationError(f"signal {clash[0]!r} is the simulator's own count; choose another name")
        sources = {target_of(circuit, name): (name, source) for name, source in drive.items()}
        sources |= {("", name): (name, source) for name, source in signals.items()}
        for target, (name, given) in sources.items():
            by_phase = given if isinstance(given, Mapping) else {phase.name: given for phase in self.phases}
            unknown = [p for p in by_phase if p not in self.functions]
            if unknown:
                raise SimulationError(
                    f"drive for {name!r}: no phase {unknown[0]!r}; phases: {', '.join(self.functions)}"
                )
            for phase in self.phases:
                if phase.name in by_phase:
                    row = self._add(phase, target, name, by_phase[phase.name])
                    expected = (self.sizes[target[0]],) if target[0] else ()
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
        for phase in self.phases:
            for iterator in self.iterators[phase.name].values():
                for _ in range(position * self._per_unit(phase)):
                    next(iterator, None)

    @property
    def inputs(self) -> dict[str, Inputs]:
        return {
            p.name: Inputs(self.functions[p.name], frozenset(self.arrays[p.name]) | frozenset(self.iterators[p.name]))
            for p in self.phases
        }

    @property
    def held(self) -> Any:
        """The arrays in the functions, of which a compiled run is told anew."""
        return eqx.filter(self.functions, eqx.is_array)

    def holding(self, held: Any) -> dict[str, Inputs]:
        """The inputs, with these arrays in the functions."""
        functions = eqx.combine(held, self.functions)
        return {name: dataclasses.replace(i, functions=functions[name]) for name, i in self.inputs.items()}

    def bare(self) -> "Feed":
        """The same without what `take` gives out."""
        feed = copy.copy(self)
        feed.arrays = {name: dict.fromkeys(arrays, np.zeros(0)) for name, arrays in self.arrays.items()}
        feed.iterators = {name: dict.fromkeys(each, iter(())) for name, each in self.iterators.items()}
        return feed

    @property
    def identity(self) -> Any:
        """What a compiled run rests on: all but the arrays in the functions."""
        rest, structure = jax.tree.flatten(eqx.filter(self.functions, eqx.is_array, inverse=True))
        numbers = tuple((type(v), v) if isinstance(v, float | int) else id(v) for v in rest)
        return structure, numbers, tuple((name, *sorted(i.arrays)) for name, i in self.inputs.items())

    @property
    def bytes_per_unit(self) -> int:
        return sum(
            array[:1].nbytes * self._per_unit(phase)
            for phase in self.phases
            for array in self.arrays[phase.name].values()
        )

    def units(self, wanted: int | None, what: str) -> int:
        """How many units to run: as asked, or as many as the shortest array has."""
        lengths = {
            target: len(array) // self._per_unit(phase) - self.position
            for phase in self.phases
            for target, array in self.arrays[phase.name].items()
        }
        if wanted is None:
            if not lengths:
                raise SimulationError(f"say how long to run: no array tells, so pass {what}=")
            return max(min(lengths.values()), 0)
        if wanted < 0:
            raise SimulationError(f"{what}={wanted} must not be negative")
        for target, length in lengths.items():
            if length < wanted:
                raise SimulationError(
                    f"the drive for {'.'.join(filter(None, target))!r} has {length} {what}"
                    f"{' left' if self.position else ''}, {what}={wanted} were asked for"
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
                target: floats(array.reshape(units, per, *array.shape[1:]) if split else array)
                for target, array in part.items()
            }
        self.position += units
        return rows

    def _per_unit(self, phase: Phase) -> int:
        return phase.ticks if self.trials and not phase.hold else 1

    def _add(self, phase: Phase, target: Target, name: str, source: Any) -> tuple[int, ...]:
        if isinstance(source, float | int):
            source = Steady(float(source), self.sizes.get(target[0]))
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
        array = np.asarray(source)
        if array.ndim == 0 or array.dtype == object:
            raise SimulationError(f"the source of {name!r} is no array, number, function of (index, key) or iterator")
        if not np.all(np.isfinite(array)):
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise SimulationError(f"the drive for {name!r} is not finite at {where} (presentation first)")
        self.arrays[phase.name][target] = array
        return array.shape[1:]
