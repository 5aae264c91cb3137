r"""Inhibitory plasticity that balances excitation and holds the post neuron at a target rate.

(1)  :math:`\Delta w_{ij} = \eta\,\bigl(x_j\,(o_i - \alpha) + x_i\,r_j\bigr)`, :math:`\quad \alpha = 2\rho_0\tau`

with traces ``r`` and ``o`` of both neurons' spikes that decay with :math:`\tau`. For uncorrelated Poisson spikes the
mean change is :math:`2\eta\tau\rho_j(\rho_i - \rho_0)`: it vanishes at the target rate :math:`\rho_0`.

Source: Vogels, Sprekeler, Zenke, Clopath & Gerstner, Science 334:1569-1573 (2011). The weight is the strength of an
inhibitory synapse: wrap the rule in ``Bounded(..., low=0)``. Where inhibition is a negative weight (`networks.LIF`),
give a negative ``eta`` and ``Bounded(..., high=0)``.
"""

from typing import Any

import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule


class Vogels2011(Rule):
    """(1); ``eta`` per spike, ``rate`` (target, Hz), ``tau`` in seconds."""

    eta: float = 1e-3
    rate: float = 5.0
    tau: float = 0.02

    def init(self) -> Fields:
        return Fields(r=0.0, o=0.0)

    def update(self, pre: Any, post: Any, syn: Fields, dt: float) -> tuple[Any, Fields]:
        decay = jnp.exp(-dt / self.tau)
        r, o = syn.r * decay, syn.o * decay
        dw = self.eta * (pre.x * (o - 2 * self.rate * self.tau) + post.x * r)
        return dw, Fields(r=r + pre.x, o=o + post.x)
