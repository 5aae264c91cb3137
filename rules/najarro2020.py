r"""A rule to be evolved: Hebb's with all that is linear in each neuron, for every synapse with numbers of its own.

(1)  :math:`\Delta w_{ij} = \eta_{ij}\,(A_{ij}\,x_j x_i + B_{ij}\,x_j + C_{ij}\,x_i + D_{ij})`

Each of the five is one number for all synapses, or an array (post, pre) for the synapses of a dense projection. Najarro
& Risi evolve five arrays for each layer, and draw the weights themselves anew for every life.

Source: Najarro & Risi, Advances in Neural Information Processing Systems 33 (2020).
"""

from typing import Any

from ..networks.fields import Fields
from .per_synapse import Number, PerSynapse


class ABCD(PerSynapse):
    """(1); ``eta`` per tick. An array is constant synaptic state by its name: ``sim.params["x->y"].a``."""

    eta: Number = 1e-3
    a: Number = 1.0
    b: Number = 0.0
    c: Number = 0.0
    d: Number = 0.0

    def update(self, pre: Any, post: Any, syn: Fields) -> Any:
        eta, a, b, c, d = (self.numbers(syn)[name] for name in ("eta", "a", "b", "c", "d"))
        return eta * (a * pre.x * post.x + b * pre.x + c * post.x + d), syn
