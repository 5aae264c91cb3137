r"""Random feedback local online learning: what a synapse did to its neuron decays as the neuron forgets.

(1)  :math:`p_{ij} \leftarrow k_i\,p_{ij} + s_i\,x_j`
(2)  :math:`\Delta w_{ij} = \eta\,c_i\,p_{ij}`
(3)  :math:`p_{ij} \leftarrow k_j\,p_{ij} + s_j\,x_i, \qquad \Delta b_{ij} = \eta\,c_j\,p_{ij}`

``keep`` k, ``slope`` s and ``credit`` c are the neuron's own fields (`networks.LeakyHidden`, `networks.LeakyOutput`):
(1) is the derivative of its output by the weight, as far as it does not go through other neurons. So (2) is real-time
recurrent learning where the recurrent weights are 0, and it is exact for the readout. The credit comes back through
feedback weights (see `networks.add_feedback`); those that learn from the same two factors as the forward weights beside
them, whose ends are theirs the other way round, learn by (3).

Source: Murray, eLife 8:e43299 (2019).
"""

from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class RFLO(Rule):
    """(1) and (2); ``eta`` per tick."""

    transient: ClassVar = ("trace",)
    eta: float = 0.01

    def init(self) -> Fields:
        return Fields(trace=0.0)

    def update(self, pre: Any, post: Any, syn: Any) -> Any:
        return _traced(self.eta, post, pre, syn)


class RFLOFeedback(Rule):
    """(3); ``eta`` per tick."""

    transient: ClassVar = ("trace",)
    eta: float = 0.01

    def init(self) -> Fields:
        return Fields(trace=0.0)

    def update(self, pre: Any, post: Any, syn: Any) -> Any:
        return _traced(self.eta, pre, post, syn)


def _traced(eta: Any, neuron: Any, heard: Any, syn: Any) -> Any:
    """Of the end of the synapse to which credit comes back, and the one that it heard."""
    trace = neuron.keep * syn.trace + neuron.slope * heard.x
    return eta * neuron.credit * trace, Fields(trace=trace)
