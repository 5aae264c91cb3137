r"""Oja's rule: Hebbian learning with the decay that keeps the weight vector at length 1.

(1)  :math:`\Delta w_{ij} = \eta\, x_i\,(x_j - x_i w_{ij})`

For a linear unit with zero-mean input of covariance C its stable fixed points are plus and minus the first
eigenvector of C. Source: Oja, Journal of Mathematical Biology 15:267-273 (1982).
"""

from typing import Any

from .base import Rule


class Oja(Rule):
    """(1); ``eta`` per tick and unit of activity squared."""

    eta: float = 1e-3

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return self.eta * post.x * (pre.x - post.x * w)
