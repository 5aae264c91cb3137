r"""Voltage-based plasticity: depression and potentiation that look at the post neuron's membrane.

(1)  :math:`\Delta w_{ij} = -A_-\,x_j\,[\bar u_- - \theta_-]_+ + A_+\,\mathrm{dt}\,\bar x_j\,[u - \theta_+]_+\,[\bar u_+
- \theta_-]_+`

:math:`\bar u_\pm` are the post neuron's potential, low-passed with :math:`\tau_\pm`, :math:`\bar x_j` is the pre
neuron's spike train, low-passed with :math:`\tau_x`; all are those of before this tick. The potential u is ``post.v``
and, in the tick of a spike, ``peak`` for as long as a spike lasts (``width``), since ``post.v`` has been reset by then.

Source: Clopath, Büsing, Vasilaki & Gerstner, Nature Neuroscience 13:344-352 (2010), Table 1, visual cortex; potentials
in mV. The paper's homeostatic factor on :math:`A_-` is left out, as in its fits of experiments.
"""

from typing import Any

import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule


class Clopath2010(Rule):
    """(1); ``a_minus`` per mV and spike, ``a_plus`` per mV^2 and ms, times in seconds, potentials in mV."""

    a_minus: float = 14e-5
    a_plus: float = 8e-5
    tau_x: float = 0.015
    tau_minus: float = 0.01
    tau_plus: float = 0.007
    theta_minus: float = -70.6
    theta_plus: float = -45.3
    rest: float = -70.6  # at which the low-passed potentials begin
    peak: float = 33.0
    width: float = 0.002

    def init(self) -> Fields:
        return Fields(x_bar=0.0, u_minus=self.rest, u_plus=self.rest)

    def update(self, pre: Any, post: Any, syn: Fields, dt: float) -> tuple[Any, Fields]:
        ms, spike = 1000 * dt, jnp.where(post.x > 0, 1.0, 0.0)
        lasts = 1 + spike * (jnp.maximum(self.width / dt, 1.0) - 1)  # ticks
        u = post.v + spike * (self.peak - post.v)
        depression = self.a_minus * pre.x * jnp.maximum(syn.u_minus - self.theta_minus, 0)
        above = jnp.maximum(u - self.theta_plus, 0) * jnp.maximum(syn.u_plus - self.theta_minus, 0)
        dw = self.a_plus * ms * lasts * syn.x_bar * above - depression
        return dw, Fields(
            x_bar=syn.x_bar + (pre.x / ms - syn.x_bar) * -jnp.expm1(-dt / self.tau_x),
            u_minus=syn.u_minus + (u - syn.u_minus) * -jnp.expm1(-dt * lasts / self.tau_minus),
            u_plus=syn.u_plus + (u - syn.u_plus) * -jnp.expm1(-dt * lasts / self.tau_plus),
        )
