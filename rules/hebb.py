r"""Hebb's rule.

(1)  :math:`\Delta w_{ij} = \eta\, x_i x_j`

Source: Hebb, The Organization of Behavior (Wiley, 1949). Unbounded by itself: wrap it in `Bounded`, `Decay` or
`Normalised`. A negative ``eta`` is plain anti-Hebbian learning, e.g. the lateral rule of Földiák (1989).
"""

from typing import Any

import equinox as eqx

from .base import Rule


class Hebb(Rule):
    r"""(1); ``eta`` per tick and unit of activity squared. ``field`` is that of the pre neuron: of its state, or one of
    its ports."""

    eta: float = 1e-3
    field: str = eqx.field(default="x", static=True)

    def update(self, pre: Any, post: Any) -> Any:
        return self.eta * post.x * getattr(pre, self.field)
