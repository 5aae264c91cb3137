r"""Linsker's local form of Bell and Sejnowski's independent component analysis, on the circuit of 1992.

(1)  :math:`\Delta Q_{nm} = (u_n u_m - Q_{nm}) / M_Q`
(2)  :math:`\Delta C_{nj} = \eta\,\bigl(v_n + \varphi(u_n)\bigr) x_j`

with :math:`u = C x` (the port ``drive``) and :math:`v = Q^{-1} u` settled by the lateral connections. Because
:math:`\langle v x^\top\rangle = C^{-\top}`, the mean of (2) is Bell and Sejnowski's gradient, without a matrix inverse.
:math:`\varphi = \mathrm{d}\ln g'/\mathrm{d}u` of the output nonlinearity: :math:`1 - 2g` for the logistic,
:math:`-2\tanh u` for tanh, :math:`-\sqrt2\,\mathrm{sign}\,u` for a unit-variance Laplace source. Whiten the input: the
running Q and the settling both fail at large condition numbers.

Sources: Linsker, Neural Computation 9:1661-1665 (1997); Bell & Sejnowski, Neural Computation 7:1129-1159 (1995).
The lateral rule (1) is `InfomaxLateral` here too; without output noise the settling cell has no leak.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .base import Rule


def laplace_score(u: Any) -> Any:
    r"""A smoothed :math:`-\sqrt2\,\mathrm{sign}(u)`: :math:`-\sqrt2\tanh(10u)`."""
    return -(2**0.5) * jnp.tanh(10 * u)


class LocalICA(Rule):
    """(2); ``phi`` is the score of the assumed source density."""

    eta: float = 0.01
    phi: Callable[[Any], Any] = eqx.field(default=laplace_score, static=True)

    def update(self, pre: Any, post: Any) -> Any:
        return self.eta * (post.v + self.phi(post.drive)) * pre.x
