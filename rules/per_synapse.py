"""A rule whose numbers a synapse may have for itself."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..networks.fields import Fields, parameters
from .base import Rule

Number = float | np.ndarray | Float[Array, "post pre"]


class PerSynapse(Rule):
    """Each number of the rule is one for all synapses, or an array (post, pre) with one for each of a dense projection.

    An array is the beginning of constant synaptic state: a synapse sees its own number there, and `Network.initial`
    lets gradients through to the leaf. ``update`` takes all numbers from ``self.numbers(syn)``, and returns ``syn``.
    """

    sharing: ClassVar[Any] = "mean"  # what is constant no copy needs for itself

    def init(self) -> Fields:
        return Fields({name: value for name, value in parameters(self).items() if jnp.ndim(value)})

    def numbers(self, syn: Fields) -> Fields:
        """All of them as one synapse has them."""
        return Fields(parameters(self), **dict(syn.items()))
