r"""A rule to be learned in a network whose feedback is learned, too: Oja's, where feedback moves the post neuron.

(1)  :math:`t_i = \max(0, a_i)`, :math:`\quad \tilde x_i = (1 - \beta)\,x_i + \beta\,t_i`
(2)  :math:`\Delta w_{ij} = \eta\,p_{ij}\,(\tilde x_i x_j - \tilde x_i^2\,w_{ij})`; without the second term, Hebb's rule

:math:`a_i` arrives at the port ``apical`` of the post neuron: the way there is the network's own, of one layer or of
several, from the outputs or from their errors (`networks.Output`), with a bias where a `networks.Constant` unit takes
part. The ``plasticity`` p is one number for all synapses, or an array (post, pre) for those of a dense projection.
Lindsey & Litwin-Kumar learn p, :math:`\beta`, the feedback and the weights at the beginning of a life by gradient
through it.

Source: Lindsey & Litwin-Kumar, Advances in Neural Information Processing Systems 33 (2020).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..networks.fields import Fields
from .per_synapse import Number, PerSynapse


class Lindsey2020(PerSynapse):
    """(1) and (2); ``eta`` per tick. ``beta``: how far feedback replaces the neuron's own activity, which at 1, their
    Omniglot's, has no part in learning. With ``oja=False`` Hebb's rule."""

    plasticity: Number = 1.0
    eta: float = 1e-3
    beta: float = 1.0
    oja: bool = eqx.field(default=True, static=True)

    def update(self, w: Any, pre: Any, post: Any, syn: Fields) -> Any:
        x = (1 - self.beta) * post.x + self.beta * jnp.maximum(post.apical, 0.0)
        change = x * pre.x - x**2 * w if self.oja else x * pre.x
        return self.eta * self.numbers(syn).plasticity * change, syn
