"""A stretch of a run as one compiled program: scans over ticks or trials that also emit what is recorded.

The unit of a run is a tick, or a trial where phases are given. A field that is recorded every n ticks is emitted by the
loop level at which it is due and by no other, so that sparse samples of large arrays cost nothing in between.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import kernels
from .bits import packed
from .keys import named_key
from .layout import Layout
from .nests import marked, nested
from .network import Model, Network, State
from .networks.fields import Fields
from .probes import Probe
from .protocol import RUN, Phase
from .ticks import scan

SMALL = 2**11  # numbers in a sample that is put together with others
FEW = 2**16  # numbers in an array that is looked through together with others

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
    """What ``probe`` reads at the end of every ``level`` units, under a ``key`` of its own. ``layout``: that of the
    projection, if it is one's. ``packed``: which values are not 0, as the bits of words."""

    key: str
    probe: Probe
    level: int
    layout: Layout | None = field(default=None, compare=False)
    packed: bool = False


def tick_once(
    network: Network,
    model: Model,
    state: State,
    given: Mapping[Target, Any],
    phase: Phase,
    plastic: bool,
    alive: Any = True,
) -> State:
    """One tick, compiled as a piece of its own, so that rounding depends neither on what is recorded nor on how a run
    is cut: on a CPU a function that is called and never written into what calls it; else a branch, of which the
    compiler cannot know that ``alive`` is True. Where the tick is made of loops, these were compiled before; that of a
    small network becomes loops here, if it can."""
    drive = {target: value for target, value in given.items() if target[0]}
    if _in_loops(network, state):
        return network.step(model, state, drive, signals_of(given), phase=phase, plastic=plastic)
    # What a tick leaves as it is stays outside: it would be copied.
    learned = network.learned(phase, plastic)
    fixed = {name: synapses for name, synapses in state.synapses.items() if name not in learned}

    def joined(state: State) -> State:
        return dataclasses.replace(state, synapses={**state.synapses, **fixed})

    def parted(state: State) -> State:
        return dataclasses.replace(state, synapses={name: state.synapses[name] for name in learned})

    def tick(state: State) -> State:
        return parted(network.step(model, joined(state), drive, signals_of(given), phase=phase, plastic=plastic))

    if jax.default_backend() == "cpu":

        def piece(state: State) -> State:
            return marked(jax.jit(tick)(state), inlineable="false")  # type: ignore[no-any-return]

        return joined(nested(piece, parted(state)) if _in_nests(network, state) else piece(parted(state)))
    return joined(jax.lax.cond(alive, tick, lambda state: state, parted(state)))


def _in_loops(network: Network, state: State) -> bool:
    """Whether its ticks are made of loops that were compiled before."""
    return network.in_loops and _unbatched(state)


def _in_nests(network: Network, state: State) -> bool:
    """Whether it is so small that its ticks are tried as nests of loops."""
    small = kernels.small([synapses.w for synapses in state.synapses.values()])
    return small and not network.in_loops and _unbatched(state)


def _of_kernels(network: Network, state: State) -> bool:
    return _in_loops(network, state) or _in_nests(network, state)


def _unbatched(state: State) -> bool:
    return all(neurons.x.ndim == 1 for neurons in state.neurons.values())


def signals_of(given: Mapping[Target, Any]) -> Fields:
    return Fields({name: value for (population, name), value in given.items() if not population})


def present(inputs: Inputs, model: Model, index: Any, row: Mapping[Target, Any]) -> dict[Target, Any]:
    """The drive of one presentation."""
    called = {}
    for target, source in inputs.functions.items():
        key = jax.random.fold_in(named_key(model.key, "source:" + ".".join(target)), index)
        called[target] = source(index, key)
    return {**called, **row}


def emit(state: State, field: str) -> Any:
    """``population.x``, ``projection.w``, ``projection.<synaptic field>``: an array, or what a layout unpacks.
    ``population.spikes`` are the outputs that are not 0."""
    owner, _, name = field.rpartition(".")
    if owner in state.neurons:
        neurons = state.neurons[owner]
        return neurons.x != 0 if name == "spikes" and name not in neurons else neurons[name]
    synapses = state.synapses[owner]
    return synapses.w if name == "w" else synapses.syn[name]


def read(state: State, before: State, sample: Sample) -> Any:
    """What a probe makes of a field, in place of what `emit` gives."""
    probe, layout = sample.probe, sample.layout
    if probe.neurons is None and probe.reduce is None:
        return emit(state, probe.field)
    own_axes = 2 if layout is not None and layout.dense else 1

    def values(state: State) -> Any:
        array = emit(state, probe.field)
        if layout is not None:
            array = layout.flat(array)
        if probe.neurons is None:
            return array
        chosen = np.asarray(probe.neurons)
        if layout is None or layout.dense:
            return jnp.take(array, chosen, axis=-own_axes)
        with jax.ensure_compile_time_eval():
            synapses = np.flatnonzero(np.isin(layout.synapses[0], chosen))
        return jnp.take(array, synapses, axis=-1)

    if probe.reduce is None:
        return values(state)
    names, reduction = probe.arguments(), probe.reduce

    def reduced() -> Any:
        arguments = {name: values(state if name == "now" else before) for name in names}
        function: Callable[..., Any] = lambda given: reduction(**given)  # noqa: E731
        for _ in range(next(iter(arguments.values())).ndim - own_axes):  # the copies of a batch
            function = jax.vmap(function)
        return jnp.asarray(function(arguments))

    if "before" not in names:
        return reduced()
    due = state.tick % probe.every == 0 if probe.at is None else jnp.isin(state.tick - 1, jnp.asarray(probe.at))
    return jax.lax.cond(due, reduced, lambda: jax.tree.map(jnp.zeros_like, jax.eval_shape(reduced)))


def unit(
    network: Network,
    trial: tuple[Phase, ...],
    inputs: Mapping[str, Inputs],
    every_tick: tuple[Sample, ...],
    batch: int | None,
    alive: Any = True,
) -> Callable[[Model, State, Any], tuple[State, dict[str, Any]]]:
    """One tick, or one trial: ``(model, state, rows) -> (state, samples of every tick)``.

    ``alive``: see `tick_once`.
    """

    def samples(before: State, state: State, given: Mapping[Target, Any], phase: Phase) -> dict[str, Any]:
        out = {}
        for sample in every_tick:
            owner, _, name = sample.probe.field.rpartition(".")
            if owner == "signals":
                sent = network.signals(before, state.neurons, signals_of(given), phase)
                value = jnp.asarray(dict(sent.items()).get(name, jnp.nan), float)
                out[sample.key] = jnp.broadcast_to(value, () if batch is None else (batch,))
            else:
                value = read(state, before, sample)
                out[sample.key] = packed(value) if sample.packed else value
        return out

    if not trial:

        def one_tick(model: Model, state: State, rows: Any) -> tuple[State, dict[str, Any]]:
            given = present(inputs[RUN.name], model, state.tick, rows[RUN.name])
            after = tick_once(network, model, state, given, RUN, True, alive)
            return after, jax.tree.map(lambda a: a[None], samples(state, after, given, RUN))

        return one_tick

    def one_phase(model: Model, state: State, phase: Phase, rows: Any) -> tuple[State, dict[str, Any]]:
        source = inputs[phase.name]
        state = network.reset(model, state, phase.reset, batch)
        held = present(source, model, state.trial, rows) if phase.hold else None
        final = phase is trial[-1]

        def stretch(state: State, start: int, length: int, plastic: bool) -> tuple[State, dict[str, Any]]:
            ends = final and start + length == phase.ticks

            def body(state: State, item: Any) -> tuple[State, dict[str, Any]]:
                offset, row = item
                given = present(source, model, state.trial * phase.ticks + offset, row) if held is None else held
                last = jnp.asarray(offset == phase.ticks - 1, float) if ends and length > 1 else float(ends)
                given = {**given, ("", "last"): last}
                after = tick_once(network, model, state, given, phase, plastic, alive)
                return after, samples(state, after, given, phase)

            part = {} if phase.hold else {target: array[start : start + length] for target, array in rows.items()}
            looped = scan if _of_kernels(network, state) else jax.lax.scan
            return looped(body, state, (jnp.arange(start, start + length), part), length)

        # Where a rule waits for the last tick, the others are compiled without what it does there.
        waits = final and any("last" in rule.fields("signals") for rule in network.traced.values())
        if phase.ticks > 1 and (phase.plastic == "last" or (phase.plastic == "every" and waits)):
            state, first = stretch(state, 0, phase.ticks - 1, phase.plastic == "every")
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
    """``units`` units in one program: ``(model, state, rows) -> (state, {key: (time, ...)})``.

    The levels of ``samples`` must divide each other in turn, and the largest must divide ``units`` (see `levels`).
    """
    ladder = sorted({1, *(sample.level for sample in samples), units})

    def climb(rung: int) -> Callable[[Model, State, Any], tuple[State, dict[str, Any]]]:
        # For an axis of length 1 between two levels XLA would copy all of the drive.
        straight = rung == 1 and not any(sample.level == 1 for sample in samples)
        body = one if rung == 0 or straight else climb(rung - 1)
        repeats = ladder[rung] // ladder[rung - 1] if rung else 1
        due = [sample for sample in samples if sample.level == ladder[rung]]

        def level(model: Model, state: State, rows: Any) -> tuple[State, dict[str, Any]]:
            before = state
            if rung == 0:
                state, out = body(model, state, jax.tree.map(lambda row: row[0], rows))
            else:
                split = rows if straight else jax.tree.map(lambda row: row.reshape(repeats, -1, *row.shape[1:]), rows)
                looped = scan if rung <= 1 and _of_kernels(network, state) else jax.lax.scan
                state, out = _scan(looped, lambda s, r: body(model, s, r), state, split, repeats)
            emitted = {sample.key: read(state, before, sample) for sample in due}
            return state, {**out, **jax.tree.map(lambda a: a[None], emitted)}

        return level

    return climb(len(ladder) - 1)


def _scan(
    looped: Callable[..., Any],
    body: Callable[[State, Any], tuple[State, dict[str, Any]]],
    state: State,
    rows: Any,
    length: int,
) -> Any:
    """A scan of a body whose outputs have a time axis already. Out of XLA's own scan small ones travel as one array: to
    write each into its place costs it more than the writing."""
    shapes: dict[Any, dict[str, tuple[int, ...]]] = {}  # of the small ones, by type

    def packing(state: State, row: Any) -> tuple[State, Any]:
        state, out = body(state, row)
        for name, value in out.items():
            if looped is not scan and isinstance(value, jax.Array) and value.shape[0] == 1 and value.size <= SMALL:
                shapes.setdefault(value.dtype, {})[name] = value.shape[1:]
        return state, (
            {kind: jnp.concatenate([out.pop(name).ravel() for name in named]) for kind, named in shapes.items()},
            out,
        )

    state, (packed, out) = looped(packing, state, rows, length=length)
    out = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)
    for kind, named in shapes.items():
        ends = np.cumsum([math.prod(shape) for shape in named.values()])[:-1]
        for (name, shape), part in zip(named.items(), jnp.split(packed[kind], ends, axis=1), strict=True):
            out[name] = part.reshape(-1, *shape)
    return state, out


def levels(periods: Mapping[str, int], start: int, units: int) -> dict[str, int]:
    """For each key due every ``period`` units, counted from unit 0, the level at which to emit it in a stretch of
    ``units`` units from ``start``: the coarsest ladder of divisors that meets every due time."""
    chosen: dict[str, int] = {}
    rung = units
    for key, period in sorted(periods.items(), key=lambda item: -item[1]):
        rung = reduce(math.gcd, (period, start, rung)) or 1
        chosen[key] = rung
    return chosen


def all_finite(state: State) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    small = [leaf.ravel() for leaf in leaves if leaf.size <= FEW]
    several = [leaf for leaf in leaves if leaf.size > FEW]
    if small:  # as one, which XLA compiles sooner
        several.append(jnp.concatenate(small))
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in several]))
