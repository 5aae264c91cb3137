r"""Online similarity matching: principal subspace by Hebbian feedforward and anti-Hebbian lateral learning.

(1)  :math:`\Delta w_{ij} = 2\eta\,(y_i x_j - w_{ij})`               feedforward
(2)  :math:`\Delta m_{ij} = (\eta/\tau)\,(y_i y_j - m_{ij})`          lateral

``y`` is the settled output :math:`M^{-1} W x`, the field ``v`` of `networks.Settling`, whose lateral port subtracts.
Source: Pehlevan, Sengupta & Chklovskii, Neural Computation 30:84-124 (2018).
"""

from typing import Any

from .base import Rule


class SimilarityMatching(Rule):
    """(1); ``eta`` per update."""

    eta: float = 1e-2

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return 2 * self.eta * (post.v * pre.x - w)


class SimilarityMatchingLateral(Rule):
    """(2); ``eta`` as in (1), ``tau`` the ratio of the two learning rates."""

    eta: float = 1e-2
    tau: float = 0.5

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return self.eta / self.tau * (post.v * pre.v - w)
