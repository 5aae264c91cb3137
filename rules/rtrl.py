r"""Real-time recurrent learning: the exact gradient, forward in time.

With the influence :math:`M_t = dc_t / dw` of every weight on all that the network carries from tick to tick, and the
Jacobians of `Tick` (1):

(1)  :math:`M_t = J_t M_{t-1} + \partial F / \partial w`
(2)  :math:`dL_t / dw = \partial L_t / \partial w + (\partial L_t / \partial c_{t-1})\,M_{t-1}`

Summed over a run with weights that stay, (2) is the gradient of backpropagation through time. For n neurons each with n
synapses the influence takes n^3 numbers, and (1) n^4 products.

Source: Williams & Zipser, Neural Computation 1:270-280 (1989).
"""

from typing import Any

import jax
import jax.numpy as jnp

from .base import NetworkRule, Synaptic, Tick


class RTRL(NetworkRule):
    """The exact gradient of each tick's loss, through the whole past, forward in time: n^3 numbers, n^4 products."""

    def init(self, tick: Tick) -> Synaptic:
        return tick.zeros(*tick.copies, tick.size)

    def follow(self, past: Synaptic, tick: Tick, last: bool) -> tuple[Synaptic, Synaptic, Any]:
        credit, arrived = tick.pull()
        told = jax.tree.map(lambda m: jnp.tensordot(credit, m, credit.ndim), past)
        gradient = jax.tree.map(jnp.add, tick.explicit(arrived), tick.gathered(told))  # (2)
        seen = {name: x[..., None, :] for name, x in tick.seen.items()}
        now = tick.outer(tick.arrivals(), seen)
        new = jax.tree.map(
            lambda m, i: tick.through(m.reshape(*m.shape[:-2], -1)).reshape(m.shape) + i, past, now
        )  # (1)
        return new, gradient, True
