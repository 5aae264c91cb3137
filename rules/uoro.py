r"""Unbiased online recurrent optimisation: the influence of RTRL as one outer product, right on average.

With random signs :math:`\nu`, one for each carried number that the weights reach within a tick,
:math:`M_t = dc_t / dw \approx A_t B_t`:

(1)  :math:`A_t = \rho_0\,J_t A_{t-1} + \rho_1 \nu`
(2)  :math:`B_t = B_{t-1} / \rho_0 + \nu^\top (\partial F / \partial w) / \rho_1`
(3)  :math:`\rho_0 = \sqrt{|B_{t-1}| / |J_t A_{t-1}|}, \quad \rho_1 = \sqrt{|\nu^\top \partial F / \partial w| / |\nu|}`
(4)  :math:`dL_t / dw \approx \partial L_t / \partial w + (\partial L_t / \partial c_{t-1} \cdot A_{t-1})\,B_{t-1}`

The mean of :math:`A_t B_t` over the signs is the influence. (3) keeps its variance small. As many numbers as weights,
and as many products.

Source: Tallec & Ollivier, International Conference on Learning Representations (2018).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .base import NetworkRule, Synaptic, Tick, Vector

EPSILON = 1e-7  # keeps (3) finite where there is no past


def norm(parts: Any, copies: int) -> Any:
    """The Euclidean norm over all axes but those of the copies."""
    return jnp.sqrt(sum(jnp.sum(p * p, axis=tuple(range(copies, p.ndim))) for p in jax.tree.leaves(parts)))


def balance(large: Any, small: Any) -> Any:
    """The root of the ratio of two norms."""
    return jnp.sqrt((large + EPSILON) / (small + EPSILON))


def each(factor: Any, value: Any) -> Any:
    """A factor of every copy times that copy's values."""
    return factor.reshape(*factor.shape, *(1,) * (value.ndim - factor.ndim)) * value


class UORO(NetworkRule):
    """An unbiased, noisy estimate of the gradient at the price of the network itself: n^2 numbers and products."""

    eta: float = 1e-3

    def init(self, tick: Tick) -> tuple[Vector, Synaptic]:
        return jnp.zeros((*tick.copies, tick.size)), tick.zeros(*tick.copies)

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        (a, b), copies = past, len(tick.copies)
        credit, arrived = tick.pull()
        weight = jnp.sum(credit * a, -1)
        told = jax.tree.map(lambda b: jnp.tensordot(weight, b, copies), b)
        gradient = jax.tree.map(jnp.add, tick.explicit(arrived), tick.gathered(told))  # (4)
        direct = np.any([tick.reach(target, 1).any(1) for target in tick.targets], axis=0)
        signs = direct * tick.signs("", *tick.copies, tick.size)  # elsewhere they would be noise alone
        pushed, (_, arrived) = tick.push(a), tick.pull(signs, loss=False)
        now = tick.outer(arrived, tick.seen)
        rho0 = balance(norm(b, copies), norm(pushed, copies))  # (3)
        rho1 = balance(norm(now, copies), norm(signs, copies))
        a = each(rho0, pushed) + each(rho1, signs)  # (1)
        b = jax.tree.map(lambda b, now: each(1 / rho0, b) + each(1 / rho1, now), b, now)  # (2)
        return (a, b), gradient, True
