r"""Sparse n-step approximation: of the influence of RTRL only what a weight reaches within n ticks.

(1)  :math:`M_t = J_t M_{t-1} + \partial F / \partial w`, entry by entry only where :math:`\sum_{s<n} J^s\,
     \partial F / \partial w` can differ from 0
(2)  :math:`dL_t / dw = \partial L_t / \partial w + (\partial L_t / \partial c_{t-1})\,M_{t-1}`

Which entries these are follows from the structure of the network (which neurons and synapses there are), not from
values. With n = 1 in a dense network of leaky units, each weight's influence on its own post neuron is left:
:math:`M_{i,ij} \leftarrow J_{ii} M_{i,ij} + (\partial F_i / \partial u_i)\,x_j`. Where n is the longest way through the
network it is RTRL.

Source: Menick, Elsen, Evci, Osindero, Simonyan & Graves, International Conference on Learning Representations (2021).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..networks.fields import picked
from .base import NetworkRule, Synaptic, Tick

FEW = 8  # up to so many numbers a neuron a sum of products, which XLA joins to one loop, beats products of matrices


class SnAp(NetworkRule):
    """`RTRL` with that part of the influence which a weight has within ``n`` ticks: for n = 1, n^2 numbers."""

    n: int = eqx.field(default=1, static=True)

    def __check_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"SnAp(n={self.n}): n is a number of ticks, at least 1")

    def init(self, tick: Tick) -> Synaptic:
        kept = {target: len(places) for target, places in self._kept(tick).items()}
        return {name: tick.zeros(*tick.copies, kept[target])[name] for name, target in tick.into.items()}

    def follow(self, past: Synaptic, tick: Tick, last: bool) -> tuple[Synaptic, Synaptic, Any]:
        credit, arrived = tick.pull()
        kept = self._kept(tick)
        own, direct = tick.within(kept)
        now = tick.outer(direct, {name: x[..., None, :] for name, x in tick.seen.items()})
        told, new = {}, {}
        for name, target in tick.into.items():
            credits = tick.rows(name, picked(credit, kept[target]))
            told[name] = tuple(
                _product(c[..., None, :, :], m).reshape(-1, *m.shape[-2:]).sum(0)
                for c, m in zip(credits, past[name], strict=True)
            )
            moved = zip(tick.rows(name, own[target]), past[name], now[name], strict=True)
            new[name] = tuple(_product(j, m) + i for j, m, i in moved)  # (1)
        gradient = jax.tree.map(jnp.add, tick.explicit(arrived), tick.gathered(told))  # (2)
        return new, gradient, True

    def _kept(self, tick: Tick) -> dict[str, np.ndarray]:
        """For every neuron of each target the carried numbers that it reaches, (r, post), filled up with K."""
        found = {}
        for target in tick.targets:
            reached = tick.reach(target, self.n)
            order = np.argsort(~reached, axis=0, kind="stable")[: int(reached.sum(0).max())]
            found[target] = np.where(np.take_along_axis(reached, order, 0), order, len(reached))
        return found


def _product(j: Any, m: Any) -> Any:
    """Of each neuron (..., a, r, rows) with (..., r, rows, width), (..., a, rows, width)."""
    if m.shape[-3] > FEW:
        return jnp.einsum("...abr,...brw->...arw", j, m)
    return sum(j[..., b, :, None] * m[..., None, b, :, :] for b in range(m.shape[-3]))
