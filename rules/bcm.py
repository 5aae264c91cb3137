r"""The Bienenstock-Cooper-Munro rule with a sliding threshold.

(1)  :math:`\Delta w_{ij} = \eta\, x_i\,(x_i - \theta_{ij})\, x_j`
(2)  :math:`\theta_{ij} \leftarrow \theta_{ij} + (x_i^2 - \theta_{ij}) / \tau`

The threshold follows the mean square of the post neuron, faster than the weights change; each synapse keeps its own
copy. Sources: Bienenstock, Cooper & Munro, Journal of Neuroscience 2:32-48 (1982); the square in (2) is Intrator &
Cooper's, Neural Networks 5:3-17 (1992).
"""

from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class BCM(Rule):
    """(1)-(2); ``eta`` per tick and unit of activity cubed, ``tau`` in ticks, ``theta`` the threshold at the start."""

    sharing: ClassVar = "mean"
    eta: float = 1e-3
    tau: float = 100.0
    theta: float = 0.0

    def init(self) -> Fields:
        return Fields(theta=self.theta)

    def update(self, pre: Any, post: Any, syn: Any) -> Any:
        dw = self.eta * post.x * (post.x - syn.theta) * pre.x
        return dw, Fields(theta=syn.theta + (post.x**2 - syn.theta) / self.tau)
