"""What a rule's trace says about time: which of its state is a neuron's, and what it does while nobody spikes.

The trace of a pre neuron's spikes is the same at all of its synapses, although the rule speaks of one synapse: it is
held once per neuron. A rule that changes nothing in a tick without a spike on either side need not look at the synapse.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from .networks.fields import floats
from .rules.equations import Traced, dependencies, inline

EVERYWHERE = ("rule.", "signals.", "dt")  # what all synapses read alike
WEIGHTS = np.concatenate([np.linspace(-2, 2, 401), np.geomspace(2, 1e6, 50), -np.geomspace(2, 1e6, 50)])


def held_by(update: Traced) -> dict[str, str]:
    """For every field of the synaptic state that is one neuron's and not a synapse's: "pre" or "post"."""
    after = dict(zip(update.outputs, dependencies(update.jaxpr, update.inputs), strict=True))
    state = {name for name in after if name.startswith("syn.")}
    return {
        name.removeprefix("syn."): side
        for side in ("pre", "post")
        for name in sorted(_own_to(side + ".", state, after))
    }


def _own_to(side: str, state: set[str], after: dict[str, frozenset[str]]) -> set[str]:
    """The state that follows from the neurons of one side alone."""
    own = _largest(state, lambda name, own: all(r in own or r.startswith((side, *EVERYWHERE)) for r in after[name]))
    apart = _largest(own, lambda name, rest: not any(r.startswith(side) or r in own - rest for r in after[name]))
    return own - apart  # in what is apart the neuron has no part


def _largest(names: set[str], fits: Callable[[str, set[str]], bool]) -> set[str]:
    """The largest set of these names in which each fits."""
    while (kept := {name for name in names if fits(name, names)}) != names:
        names = kept
    return names


def event_driven(update: Traced, constraint: Traced, parameters: dict[str, Any]) -> bool:
    """Whether a tick in which neither neuron has an output leaves the weight and the synapse's own state as they are.

    ``parameters``: the rule's, by the names of its inputs.
    """
    if update.reads & {"noise", "released", "afferent", "efferent"}:
        return False
    quiet = dict(zip(update.outputs, _without_spikes(update), strict=True))
    own = {name for name in quiet if name.startswith("syn.")} - {f"syn.{name}" for name in held_by(update)}
    return _is(quiet["dw"], 0) and all(quiet[name] == name for name in own) and _idempotent(constraint, parameters)


def constrain(constraint: Traced, parameters: dict[str, Any], w: Any) -> Any:
    """Every weight of an array as a constraint that reads no sum leaves it."""
    if not constraint.reads:
        return w
    inputs = [w if name == "w" else parameters.get(name, 0.0) for name in constraint.inputs]
    function = jaxpr_as_fun(constraint.jaxpr)
    flat = jax.vmap(function, in_axes=[0 if name == "w" else None for name in constraint.inputs])
    inputs = [jnp.asarray(v, a.dtype) for v, a in zip(inputs, constraint.jaxpr.in_avals, strict=True)]
    return flat(*inputs)[0]


def _idempotent(constraint: Traced, parameters: dict[str, Any]) -> bool:
    """Whether to constrain a weight twice is to constrain it once: tried on weights of all sizes."""
    if not all(name == "w" or name.startswith("rule.") for name in constraint.reads):
        return False

    @jax.jit
    def same(weights: Any) -> Any:
        once = constrain(constraint, parameters, weights)
        return jnp.all(constrain(constraint, parameters, once) == once)

    return bool(same(floats(WEIGHTS)))


def _is(value: Any, number: float) -> bool:
    return isinstance(value, np.ndarray) and bool(np.all(value == number))


def _without_spikes(update: Traced) -> list[Any]:
    """The outputs where ``pre.x`` and ``post.x`` are 0: an array that holds their value, the name of the input that
    they are, or None where they depend on more."""

    def apply(equation: Any, values: list[Any]) -> Any:
        name, several = equation.primitive.name, equation.primitive.multiple_results
        if all(isinstance(value, np.ndarray) for value in values):
            result = equation.primitive.bind(*map(jnp.asarray, values), **equation.params)
            return list(map(np.asarray, result)) if several else np.asarray(result)
        if several:
            return [None] * len(equation.outvars)
        one, *others = values
        match name:
            case "convert_element_type" | "copy" | "stop_gradient":
                return one
            case "select_n" if isinstance(one, np.ndarray):
                return others[int(one)]
            case "select_n":
                return others[0] if all(v is not None and np.array_equal(v, others[0]) for v in others) else None
            case "mul" | "and" if any(_is(value, 0) for value in values):
                return np.zeros((), equation.outvars[0].aval.dtype)
            case "div" if _is(one, 0):
                return one
            case "add" | "add_any" if _is(one, 0):
                return others[0]
            case "add" | "add_any" | "sub" if _is(others[0], 0):
                return one
        return None

    start = [np.zeros(()) if name in ("pre.x", "post.x") else name for name in update.inputs]
    return inline(update.jaxpr.jaxpr, start, apply, np.asarray, tuple(update.jaxpr.consts))
