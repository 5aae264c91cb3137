r"""Földiák's sparse code: Hebbian feedforward, anti-Hebbian lateral, and threshold learning.

(1)  :math:`\Delta q_{ij} = \beta\, y_i\,(x_j - q_{ij})`                    feedforward
(2)  :math:`\Delta w_{ij} = -\alpha\,(y_i y_j - p^2)`, :math:`w_{ij} \le 0`   lateral, no self-connections
(3)  :math:`\Delta t_i = \gamma\,(y_i - p)`                                 threshold, the weight -t of a constant unit

``y`` is the binary output of `networks.LeakyBinary`. Source: Földiák, Biological Cybernetics 64:165-170 (1990).
"""

from typing import Any

import jax.numpy as jnp

from .base import Environment, Rule


class FoldiakFeedforward(Rule):
    """(1); ``beta`` per update."""

    beta: float = 0.02

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return self.beta * post.y * (pre.x - w)


class FoldiakLateral(Rule):
    """(2); ``alpha`` per update, ``p`` the target probability of firing."""

    alpha: float = 0.1
    p: float = 0.125

    def update(self, pre: Any, post: Any) -> Any:
        return -self.alpha * (post.y * pre.y - self.p**2)

    def constrained(self, env: Environment) -> Any:
        return jnp.minimum(env.w, 0)


class FoldiakThreshold(Rule):
    """(3) for a projection from a `networks.Constant` unit, whose weight is minus the threshold."""

    gamma: float = 0.02
    p: float = 0.125

    def update(self, post: Any) -> Any:
        return -self.gamma * (post.y - self.p)
