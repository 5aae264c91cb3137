r"""Spike-timing-dependent plasticity by pairs of spikes.

(1)  :math:`\tau_+\,\dot r_j = -r_j`, :math:`r_j \leftarrow r_j + 1` at a spike of j (nearest: :math:`r_j \leftarrow 1`)
(2)  :math:`\tau_-\,\dot o_i = -o_i`, :math:`o_i \leftarrow o_i + 1` at a spike of i (nearest: :math:`o_i \leftarrow 1`)
(3)  :math:`\Delta w_{ij} = A_+\,r_j\,x_i - A_-\,o_i\,x_j`

so that a pair of spikes :math:`\Delta t = t_i - t_j` apart changes the weight by :math:`A_+ e^{-\Delta t/\tau_+}` or
:math:`-A_- e^{\Delta t/\tau_-}`; two spikes in one tick do nothing. Sources: Song, Miller & Abbott, Nature Neuroscience
3:919-926 (2000), whose numbers are the defaults (in units of the largest weight); Morrison, Diesmann & Gerstner,
Biological Cybernetics 98:459-478 (2008) for the ways of pairing. Unbounded by itself: `Bounded` gives the additive
rule, `SoftBounded` the multiplicative one.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule


class STDP(Rule):
    """(3); ``a_plus`` and ``a_minus`` per pair, times in seconds. ``nearest`` pairs a spike with the last one only."""

    a_plus: float = 0.005
    a_minus: float = 0.00525
    tau_plus: float = 0.02
    tau_minus: float = 0.02
    nearest: bool = eqx.field(default=False, static=True)

    def init(self) -> Fields:
        return Fields(r=0.0, o=0.0)

    def update(self, pre: Any, post: Any, syn: Fields, dt: float) -> tuple[Any, Fields]:
        r, o = syn.r * jnp.exp(-dt / self.tau_plus), syn.o * jnp.exp(-dt / self.tau_minus)
        dw = self.a_plus * r * post.x - self.a_minus * o * pre.x
        return dw, Fields(r=spiked(r, pre.x, self.nearest), o=spiked(o, post.x, self.nearest))


def spiked(trace: Any, x: Any, nearest: bool) -> Any:
    """A trace after a tick in which its neuron's output was ``x``."""
    return jnp.where(x > 0, 1.0, trace) if nearest else trace + x
