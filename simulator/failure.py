"""Finding where a run first produced an infinity or a NaN, and saying so."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from . import program
from .network import Model, Network, State
from .program import Inputs
from .protocol import Phase
from .rules.base import LocalRule, NetworkRule
from .rules.wrappers import Wrapper


def locate(
    network: Network,
    phases: tuple[Phase, ...],
    inputs: Mapping[str, Inputs],
    batch: int | None,
    model: Model,
    state: State,
    units: int,
    rows: Any,
) -> tuple[State, State]:
    """Run a failed chunk again from its start: the states before and after the tick that failed."""
    one = program.unit(network, phases, inputs, (), batch)

    def go_on(carry: Any) -> Any:
        done, _, after = carry
        return (done < units) & program.all_finite(after)

    def body(carry: Any) -> Any:
        done, _, after = carry
        return done + 1, after, one(model, after, jax.tree.map(lambda row: row[done], rows))[0]

    done, before, after = jax.jit(lambda state: jax.lax.while_loop(go_on, body, (0, state, state)))(state)
    if not phases:
        return before, after
    return _within_trial(network, phases, inputs, batch, model, before, jax.tree.map(lambda row: row[done - 1], rows))


def explain(network: Network, before: State, after: State) -> str:
    """Which value failed first within the tick: what arrived at a population, its neurons, then the weights."""
    tick = int(before.tick)
    for name, stage in network.circuit.stages:
        population = network.circuit.populations[name]
        made = [field for field in after.neurons[name] if population.stage(field) == stage]
        for field in sorted(made, key=lambda field: field not in population.neuron.ports):
            values = np.asarray(after.neurons[name][field])
            if not np.all(np.isfinite(values)):
                neuron = int(np.argwhere(~np.isfinite(values))[0][-1])
                what = f"tick {tick}: population {name!r}, neuron {neuron}: {field} became {_kind(values)}"
                return f"{what}. {_suspects(network, name, before)}"
    for name, synapses in after.synapses.items():
        for field, held in {"w": synapses.w, **dict(synapses.syn.items())}.items():
            bad = [np.asarray(part) for part in jax.tree.leaves(held) if not np.all(np.isfinite(part))]
            if bad:
                rule = _named(network.circuit.projections[name].rule)
                return (
                    f"tick {tick}: projection {name!r}: {field} became {_kind(bad[0])} under {rule}. Its weights had "
                    f"reached {_largest(before, name):.3g}: lower the learning rate, or bound the weights "
                    "(rules.Bounded, rules.Decay, rules.Normalised)"
                )
    for name, memory in after.credit.items():
        if not all(np.all(np.isfinite(np.asarray(part, float))) for part in jax.tree.leaves(memory)):
            rule = _named(network.circuit.projections[name].rule)
            return (
                f"tick {tick}: what {rule} of projection {name!r} remembers of the past became infinite or NaN: lower "
                "the recurrent weights, reset it between trials (Phase(reset=True)), or lower the learning rate"
            )
    return f"tick {tick}: a value became infinite or NaN"


def _within_trial(
    network: Network,
    phases: tuple[Phase, ...],
    inputs: Mapping[str, Inputs],
    batch: int | None,
    model: Model,
    state: State,
    rows: Any,
) -> tuple[State, State]:
    for phase in phases:
        state = network.reset(model, state, phase.reset, batch)
        for k in range(phase.ticks):
            index = state.trial if phase.hold else state.trial * phase.ticks + k
            row = rows[phase.name] if phase.hold else {t: array[k] for t, array in rows[phase.name].items()}
            given = program.present(inputs[phase.name], model, index, row)
            plastic = phase.plastic == "every" or (phase.plastic == "last" and k == phase.ticks - 1)
            after = program.tick_once(network, model, state, given, phase, plastic)
            if not bool(program.all_finite(after)):
                return state, after
            state = after
    return state, state


def _suspects(network: Network, population: str, before: State) -> str:
    incoming = [projection.name for projection in network.into[population]]
    if not incoming:
        return "Its drive is not finite: check the source"
    projections = network.circuit.projections
    largest = {name: _largest(before, projections[name].tied or name) for name in incoming}
    worst = max(incoming, key=lambda name: largest[name])
    return (
        f"Its largest incoming weight, {largest[worst]:.3g}, is in projection {worst!r}: lower the learning "
        "rate or the weights, or check the drive"
    )


def _named(rule: LocalRule | NetworkRule) -> str:
    inner = f"({_named(rule.rule)})" if isinstance(rule, Wrapper) else ""
    return type(rule).__name__ + inner


def _largest(state: State, projection: str) -> float:
    return max(float(np.max(np.abs(block))) for block in state.synapses[projection].w)


def _kind(values: np.ndarray) -> str:
    return "NaN" if np.any(np.isnan(values)) else "infinite"
