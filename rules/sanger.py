r"""Sanger's generalised Hebbian algorithm: the units learn the principal components in order.

(1)  :math:`\Delta w_{ij} = \eta\, x_i\,\bigl(x_j - \sum_{k \le i} w_{kj} x_k\bigr)`

The sum runs over the other output units' weights from the same input, so the rule is not local to a synapse: its
level is population. Source: Sanger, Neural Networks 2:459-473 (1989).
"""

from typing import Any

from .base import Rule


class Sanger(Rule):
    """(1); ``eta`` per tick and unit of activity squared. Dense projections only."""

    eta: float = 1e-3

    def efferent(self, w: Any, post: Any) -> Any:
        return w * post.x

    def update(self, pre: Any, post: Any, efferent: Any) -> Any:
        return self.eta * post.x * (pre.x - efferent)
