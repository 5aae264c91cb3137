"""A neuron's own step as equations: traced once with JAX, as `rules.trace` does with a rule."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from .networks import Neuron
from .networks.fields import Fields
from .rules.equations import Traced, named_leaves, reads_of


def trace_step(neuron: Neuron) -> Traced:
    """The jaxpr of one neuron's tick: inputs ``state.v``, ``ports.drive``, ``neuron.tau``, ``noise``, ``dt``; outputs
    the fields of the state. The competition of a population is no part of it."""
    one = jnp.ones(())
    arrivals = (*neuron.ports, *(f"{port}_load" for port in neuron.loads))
    available = {"state": neuron.init().map(lambda _: one), "ports": Fields(dict.fromkeys(arrivals, one)),
                 "noise": one, "dt": one}  # fmt: skip
    given = {name: available[name] for name in inspect.signature(neuron.step).parameters if name in available}
    arguments = {"neuron": jax.tree.map(lambda _: one, neuron), "env": given}

    def run(arguments: Any) -> dict[str, Any]:
        new = arguments["neuron"].step(**arguments["env"])
        return {name: jnp.asarray(value, float) for name, value in new.items()}

    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(arguments)
    inputs = named_leaves(arguments)
    return Traced(jaxpr, inputs, tuple(shapes), reads_of(jaxpr, inputs))
