r"""The covariance rule.

(1)  :math:`\Delta w_{ij} = \eta\,(x_i - m_i)(x_j - m_j)`
(2)  :math:`m \leftarrow m + \kappa\,(x - m)` for both neurons, kept by the synapse

Source: Sejnowski, Journal of Mathematical Biology 4:303-321 (1977).
"""

from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class Covariance(Rule):
    """(1)-(2); ``rate`` is kappa per tick, ``eta`` per tick and unit of activity squared."""

    sharing: ClassVar = "mean"
    eta: float = 1e-3
    rate: float = 1e-2  # kappa

    def init(self) -> Fields:
        return Fields(pre_mean=0.0, post_mean=0.0)

    def update(self, pre: Any, post: Any, syn: Any) -> Any:
        dw = self.eta * (post.x - syn.post_mean) * (pre.x - syn.pre_mean)
        return dw, Fields(
            pre_mean=syn.pre_mean + self.rate * (pre.x - syn.pre_mean),
            post_mean=syn.post_mean + self.rate * (post.x - syn.post_mean),
        )
