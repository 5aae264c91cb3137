r"""The triplet rule: pairs, and potentiation that grows with the post neuron's recent firing.

(1)  :math:`\Delta w_{ij} = x_i\,r_1\,(A_2^+ + A_3^+ o_2) - x_j\,o_1\,(A_2^- + A_3^- r_2)`

with traces :math:`r_1, r_2` of the pre neuron (time constants :math:`\tau_+, \tau_x`) and :math:`o_1, o_2` of the post
neuron (:math:`\tau_-, \tau_y`), each read before its own spike of this tick is added; ``nearest``: a spike sets them to
1 in place of adding 1. For uncorrelated Poisson spikes and the defaults (the minimal model: :math:`A_2^+ = A_3^- = 0`)
the mean change is that of BCM,

(2)  :math:`\langle \dot w \rangle = \rho_j\,\rho_i\,(A_3^+ \tau_+ \tau_y\,\rho_i - A_2^- \tau_-)`.

Source: Pfister & Gerstner, Journal of Neuroscience 26:9673-9682 (2006), Table 4, visual cortex, all-to-all, minimal.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule
from .stdp import spiked


class TripletSTDP(Rule):
    """(1); amplitudes per pair and triplet, times in seconds."""

    a2_plus: float = 0.0
    a3_plus: float = 6.5e-3
    a2_minus: float = 7.1e-3
    a3_minus: float = 0.0
    tau_plus: float = 0.0168
    tau_minus: float = 0.0337
    tau_x: float = 0.101
    tau_y: float = 0.114
    nearest: bool = eqx.field(default=False, static=True)

    def init(self) -> Fields:
        return Fields(r1=0.0, r2=0.0, o1=0.0, o2=0.0)

    def update(self, pre: Any, post: Any, syn: Fields, dt: float) -> tuple[Any, Fields]:
        r1, r2 = syn.r1 * jnp.exp(-dt / self.tau_plus), syn.r2 * jnp.exp(-dt / self.tau_x)
        o1, o2 = syn.o1 * jnp.exp(-dt / self.tau_minus), syn.o2 * jnp.exp(-dt / self.tau_y)
        dw = post.x * r1 * (self.a2_plus + self.a3_plus * o2) - pre.x * o1 * (self.a2_minus + self.a3_minus * r2)
        r1, r2 = (spiked(r, pre.x, self.nearest) for r in (r1, r2))
        o1, o2 = (spiked(o, post.x, self.nearest) for o in (o1, o2))
        return dw, Fields(r1=r1, r2=r2, o1=o1, o2=o2)
