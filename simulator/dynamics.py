"""A neuron's own tick as equations: traced once with JAX, as `rules.trace` does with a rule."""

from typing import Any

import jax
import jax.numpy as jnp

from .networks import Neuron
from .networks.neurons import Stage, one, scalars
from .rules.equations import Traced, named_leaves, reads_of


def trace_stage(neuron: Neuron, stage: Stage) -> Traced:
    """The jaxpr of a stage of one neuron's tick: inputs ``state.v``, ``ports.drive``, ``neuron.tau``, ``noise``,
    ``dt``; outputs the fields of the state that it makes. The competition of a population is no part of it."""
    arguments = {"neuron": one(neuron), "env": scalars(neuron, stage)}

    def run(arguments: Any) -> dict[str, Any]:
        new = getattr(arguments["neuron"], stage)(**arguments["env"])
        return {name: jnp.asarray(value, float) for name, value in new.items()}

    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(arguments)
    inputs = named_leaves(arguments)
    return Traced(jaxpr, inputs, tuple(shapes), reads_of(jaxpr, inputs))
