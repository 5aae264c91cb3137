r"""TD(lambda): dopamine says by how much the world is better than expected, a trace which synapses had expected it.

With the broadcast signal ``dopamine`` :math:`\delta_t = r_t + \gamma V_t - V_{t-1}` (of a `networks.TDError` unit):

(1)  :math:`\Delta w_{ij} = \eta\,\delta_t\,z_{ij}`
(2)  :math:`z_{ij} \leftarrow \gamma\lambda\,z_{ij} + x_j`

in this order: what is in the trace led to the state, and what is seen now comes after. The post neuron's output is the
value, :math:`V = \sum_j w_{ij} x_j`.

Source: Sutton, Machine Learning 3:9-44 (1988).
"""

from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class TD(Rule):
    """(1) and (2); ``gamma`` is that of the `networks.TDError` unit, ``decay`` lambda."""

    transient: ClassVar = ("trace",)
    eta: float = 0.1
    gamma: float = 0.9
    decay: float = 0.0

    def init(self) -> Fields:
        return Fields(trace=0.0)

    def update(self, pre: Any, syn: Any, signals: Any) -> Any:
        return self.eta * signals.dopamine * syn.trace, Fields(trace=self.gamma * self.decay * syn.trace + pre.x)
