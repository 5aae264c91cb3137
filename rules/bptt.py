r"""Backpropagation through time: the network remembers a window of ticks and goes back through them.

With the states and the drive of T ticks kept, from the last to the first, :math:`\lambda_T = 0`:

(1)  :math:`\lambda_{t-1} = \partial L_t / \partial c_{t-1} + \lambda_t\,\partial F_t / \partial c_{t-1}`
(2)  :math:`\Delta w = -\eta \sum_t (\partial L_t / \partial w + \lambda_t\,\partial F_t / \partial w)`

The windows follow each other, and no credit goes from one to the one before it (E-BPTT). ``sliding`` ones move on by a
tick, at T times the price: each tick's (2) is applied once, when it leaves the window, with the credit of all losses
that followed in it (F-BPTT).

Source: Werbos, Proceedings of the IEEE 78:1550-1560 (1990); Williams & Peng, Neural Computation 2:490-501 (1990).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .base import NetworkRule, Synaptic, Tick


class BPTT(NetworkRule):
    """The gradient back through every ``window`` of ticks, or through a phase: T n numbers, n^2 products a tick."""

    window: int = eqx.field(default=10, static=True)
    sliding: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"BPTT(window={self.window}): a window has at least 1 tick")

    def init(self, tick: Tick) -> Any:
        empty = jax.tree.map(lambda leaf: jnp.zeros((self.window, *leaf.shape), leaf.dtype), tick.snapshot())
        return empty, jnp.zeros((), jnp.int32)

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        window, held = past
        window = jax.tree.map(
            lambda kept, now: jax.lax.dynamic_update_index_in_dim(kept, now, held, 0), window, tick.snapshot()
        )
        held = held + 1
        due = held == self.window
        every = jnp.bool_(last or not self.sliding)  # or the oldest tick alone
        nothing = tick.gathered({})
        gradient = jax.lax.cond(due | last, lambda: self._back(window, held, tick, nothing, every), lambda: nothing)
        if last or not self.sliding:
            return (window, jnp.where(due | last, 0, held)), gradient, due | last
        window = jax.tree.map(lambda kept: jnp.where(due, jnp.roll(kept, -1, 0), kept), window)
        return (window, jnp.where(due, held - 1, held)), gradient, due

    def _back(self, window: Any, held: Any, tick: Tick, nothing: Synaptic, every: Any) -> Synaptic:
        """The gradient of the ticks that are ``held``: of ``every`` one, or of the oldest."""

        def before(carry: Any, item: Any) -> Any:
            after, gradient = carry
            number, snapshot = item
            then = tick.at(snapshot)
            credit, arrived = then.pull(after)  # (1)
            counted = (number < held) & (every | (number == 0))
            gradient = jax.tree.map(lambda g, e: jnp.where(counted, g + e, g), gradient, then.explicit(arrived))  # (2)
            return (jnp.where(number < held, credit, after), gradient), None

        start = jnp.zeros((*tick.copies, tick.size)), nothing
        (_, gradient), _ = jax.lax.scan(before, start, (jnp.arange(self.window), window), reverse=True)
        return gradient
