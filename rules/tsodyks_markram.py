r"""Short-term plasticity: a synapse tires and is facilitated within fractions of a second.

(1)  :math:`\tau_f\,\dot u = -u`, :math:`\tau_d\,\dot R = 1 - R`
(2)  at a spike of j: :math:`u \leftarrow u + U(1 - u)`, then :math:`R \leftarrow R - uR`
(3)  :math:`w = A\,\hat u\,R`, :math:`\quad \hat u = u + U(1 - u)`

``w`` is what the next spike will transmit; A is what the weight was at tick 0, divided by U. Between spikes (1) is
integrated exactly. A spike is a pre neuron's ``x`` above 0.

Source: Tsodyks, Pawelzik & Markram, Neural Computation 10:821-835 (1998).
"""

from typing import Any

import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule


class TsodyksMarkram(Rule):
    """(3); ``use`` U, time constants in seconds. The defaults are a depressing synapse."""

    use: float = 0.5  # U
    tau_d: float = 0.8
    tau_f: float = 0.02

    def init(self) -> Fields:
        return Fields(u=0.0, r=1.0)

    def update(self, w: Any, pre: Any, syn: Fields, dt: float) -> tuple[Any, Fields]:
        ready = syn.u + self.use * (1 - syn.u)
        spike = pre.x > 0
        u = jnp.where(spike, ready, syn.u) * jnp.exp(-dt / self.tau_f)
        r = 1 + (jnp.where(spike, syn.r * (1 - ready), syn.r) - 1) * jnp.exp(-dt / self.tau_d)
        return w * ((u + self.use * (1 - u)) * r / (ready * syn.r) - 1), Fields(u=u, r=r)
