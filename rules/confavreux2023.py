r"""A rule to be learned between spiking neurons: what a spike does by itself, and what it does by the other's trace.

(1)  :math:`\tau_{\mathrm{pre}}\,\dot r_j = -r_j`, :math:`r_j \leftarrow r_j + 1` at a spike of j; likewise
     :math:`o_i` of i with :math:`\tau_{\mathrm{post}}`
(2)  :math:`w_{ij} \leftarrow w_{ij} + \eta\,(\alpha + \kappa\,o_i)` at a spike of j
(3)  :math:`w_{ij} \leftarrow w_{ij} + \eta\,(\beta + \gamma\,r_j)` at a spike of i

`Vogels2011` is the one with :math:`\kappa = \gamma = 1,\; \beta = 0,\; \alpha = -2\rho_0\tau`. Between uncorrelated
Poisson spikes of rates :math:`\rho_j` and :math:`\rho_i` the mean change vanishes where

(4)  :math:`\alpha + \beta\,\rho_i / \rho_j + (\kappa\,\tau_{\mathrm{post}} + \gamma\,\tau_{\mathrm{pre}})\,\rho_i = 0`

Source: Confavreux, Ramesh, Gonçalves, Macke & Vogels, Advances in Neural Information Processing Systems 36 (2023). The
weight there is the strength of an inhibitory synapse, within bounds: ``Bounded(SpikES(), low=0.0, high=wmax)``.
"""

import math
from typing import Any

import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule


class SpikES(Rule):
    """(2) and (3); ``eta`` per spike. The times are their logarithms, of seconds: any number is a time then. By default
    Vogels' rule for a target of 10 Hz."""

    eta: float = 0.01
    log_tau_pre: float = math.log(0.02)
    log_tau_post: float = math.log(0.02)
    alpha: float = -0.4
    beta: float = 0.0
    kappa: float = 1.0
    gamma: float = 1.0

    def init(self) -> Fields:
        return Fields(r=0.0, o=0.0)

    def update(self, pre: Any, post: Any, syn: Fields, dt: float) -> tuple[Any, Fields]:
        r, o = (
            trace * jnp.exp(-dt * jnp.exp(-log_tau))
            for trace, log_tau in ((syn.r, self.log_tau_pre), (syn.o, self.log_tau_post))
        )
        dw = self.eta * (pre.x * (self.alpha + self.kappa * o) + post.x * (self.beta + self.gamma * r))
        return dw, Fields(r=r + pre.x, o=o + post.x)
