"""A stretch of a run as one compiled program: scans over ticks or trials that also emit what is recorded.

The unit of a run is a tick, or a trial where phases are given. A field that is recorded every n ticks is emitted by the
loop level at which it is due and by no other, so that sparse samples of large arrays cost nothing in between.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .network import Model, Network, State, named_key
from .networks.fields import Fields
from .protocol import RUN, Phase

Target = tuple[str, str]  # (population, port)
Source = Callable[[Any, Any], Any]  # (index, key) -> ([batch,] n)


@dataclass(frozen=True)
class Inputs:
    """Where drive and signals come from in one phase: ``arrays`` are consumed one row per index, ``functions`` called.
    Targets are (population, port); signals are under ("", name)."""

    functions: Mapping[Target, Source]
    arrays: frozenset[Target]


@dataclass(frozen=True)
class Sample:
    """``field`` (as `emit` understands it) at the end of every ``level`` units."""

    field: str
    level: int


def tick_once(
    network: Network, model: Model, state: State, given: Mapping[Target, Any], phase: Phase, plastic: bool
) -> State:
    drive = {target: value for target, value in given.items() if target[0]}
    signals = Fields({name: value for (population, name), value in given.items() if not population})
    return network.step(model, state, drive, signals, phase=phase, plastic=plastic)


def present(inputs: Inputs, model: Model, index: Any, row: Mapping[Target, Any]) -> dict[Target, Any]:
    """The drive of one presentation."""
    called = {}
    for target, source in inputs.functions.items():
        key = jax.random.fold_in(named_key(model.key, "source:" + ".".join(target)), index)
        called[target] = source(index, key)
    return {**called, **row}


def emit(network: Network, state: State, field: str) -> Any:
    """``population.x``, ``projection.w``, ``projection.<synaptic field>``: an array, or blocks for a projection."""
    owner, _, name = field.rpartition(".")
    if owner in state.neurons:
        return state.neurons[owner][name]
    synapses = state.synapses[owner]
    return synapses.w if name == "w" else tuple(block[name] for block in synapses.syn)


def unit(
    network: Network,
    trial: tuple[Phase, ...],
    inputs: Mapping[str, Inputs],
    every_tick: tuple[str, ...],
    batch: int | None,
) -> Callable[[Model, State, Any], tuple[State, dict[str, Any]]]:
    """One tick, or one trial: ``(model, state, rows) -> (state, samples of every tick)``."""

    def samples(state: State) -> dict[str, Any]:
        return {field: emit(network, state, field) for field in every_tick}

    if not trial:

        def one_tick(model: Model, state: State, rows: Any) -> tuple[State, dict[str, Any]]:
            given = present(inputs[RUN.name], model, state.tick, rows[RUN.name])
            state = tick_once(network, model, state, given, RUN, True)
            return state, samples(state)

        return one_tick

    def one_phase(model: Model, state: State, phase: Phase, rows: Any) -> tuple[State, dict[str, Any]]:
        source = inputs[phase.name]
        state = network.reset(model, state, phase.reset, batch)
        held = present(source, model, state.trial, rows) if phase.hold else None

        def stretch(state: State, start: int, length: int, plastic: bool) -> tuple[State, dict[str, Any]]:
            def body(state: State, item: Any) -> tuple[State, dict[str, Any]]:
                offset, row = item
                if held is None:
                    given = present(source, model, state.trial * phase.ticks + offset, row)
                else:
                    given = held
                state = tick_once(network, model, state, given, phase, plastic)
                return state, samples(state)

            part = {} if phase.hold else {target: array[start : start + length] for target, array in rows.items()}
            return jax.lax.scan(body, state, (jnp.arange(start, start + length), part))

        if phase.plastic == "last" and phase.ticks > 1:
            state, first = stretch(state, 0, phase.ticks - 1, False)
            state, last = stretch(state, phase.ticks - 1, 1, True)
            return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, last)
        return stretch(state, 0, phase.ticks, phase.plastic != "never")

    def one_trial(model: Model, state: State, rows: Any) -> tuple[State, dict[str, Any]]:
        parts = []
        for phase in trial:
            state, part = one_phase(model, state, phase, rows[phase.name])
            parts.append(part)
        state = eqx.tree_at(lambda s: s.trial, state, state.trial + 1)
        return state, jax.tree.map(lambda *ticks: jnp.concatenate(ticks), *parts)

    return one_trial


def chunk(
    network: Network, one: Callable[..., Any], samples: tuple[Sample, ...], units: int
) -> Callable[[Model, State, Any], tuple[State, dict[str, Any]]]:
    """``units`` units in one program: ``(model, state, rows) -> (state, {field: (time, ...)})``.

    The levels of ``samples`` must divide each other in turn, and the largest must divide ``units`` (see `levels`).
    """
    ladder = sorted({1, *(sample.level for sample in samples), units})

    def climb(rung: int) -> Callable[[Model, State, Any], tuple[State, dict[str, Any]]]:
        # For an axis of length 1 between two levels XLA would copy all of the drive.
        straight = rung == 1 and not any(sample.level == 1 for sample in samples)
        body = one if rung == 0 or straight else climb(rung - 1)
        repeats = ladder[rung] // ladder[rung - 1] if rung else 1
        due = [sample.field for sample in samples if sample.level == ladder[rung]]

        def level(model: Model, state: State, rows: Any) -> tuple[State, dict[str, Any]]:
            if rung == 0:
                state, out = body(model, state, jax.tree.map(lambda row: row[0], rows))
            else:
                split = rows if straight else jax.tree.map(lambda row: row.reshape(repeats, -1, *row.shape[1:]), rows)
                state, out = jax.lax.scan(lambda s, r: body(model, s, r), state, split, length=repeats)
                out = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)
            emitted = {field: jax.tree.map(lambda a: a[None], emit(network, state, field)) for field in due}
            return state, {**out, **emitted}

        return level

    return climb(len(ladder) - 1)


def levels(periods: Mapping[str, int], start: int, units: int) -> dict[str, int]:
    """For each field due every ``period`` units, counted from unit 0, the level at which to emit it in a stretch of
    ``units`` units from ``start``: the coarsest ladder of divisors that meets every due time."""
    chosen: dict[str, int] = {}
    rung = units
    for field, period in sorted(periods.items(), key=lambda item: -item[1]):
        rung = reduce(gcd, (period, start, rung)) or 1
        chosen[field] = rung
    return chosen


def all_finite(state: State) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))
