r"""e-prop: spiking neurons multiply a learning signal by what the synapse did to them, whatever it did to others.

With the pseudo-derivatives of the spike by the potential, :math:`\psi_i`, and by the adaptation, :math:`\psi^a_i`
(``slope`` and ``slope_a`` of `networks.SurrogateLIF`), and :math:`k, \rho, \kappa = e^{-dt/\tau}` with the time
constants of potential, adaptation and readout:

(1)  :math:`\epsilon_j \leftarrow k\,\epsilon_j + x_j`
(2)  :math:`e_{ij} = \psi_i\,\epsilon_j`
(3)  :math:`e_{ij} = \psi_i\,\epsilon_j + \psi^a_i\,\epsilon^a_{ij}`, then :math:`\epsilon^a_{ij} \leftarrow
     \rho\,\epsilon^a_{ij} + e_{ij}`
(4)  :math:`\bar e_{ij} \leftarrow \kappa\,\bar e_{ij} + e_{ij}`
(5)  :math:`\Delta w_{ij} = \eta\,c_i\,\bar e_{ij}`

The learning signal is the ``credit`` :math:`c_i` that comes back through feedback weights: symmetric, random, learned.
(5) is the gradient of the loss, except for what one neuron's spikes do to another neuron, if the rule's time constants
are the neuron's, and ``tau_out`` is that of the readout (`networks.LeakyOutput`, which itself learns by `RFLO`).

Source: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein & Maass, Nature Communications 11:3625 (2020).
"""

from typing import Any, ClassVar

import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Rule


class EProp(Rule):
    """(1), (2), (4), (5): neurons without adaptation. Times in seconds, ``eta`` per tick."""

    transient: ClassVar = ("potential", "trace")
    eta: float = 1e-3
    tau: float = 0.02
    tau_out: float = 0.02

    def init(self) -> Fields:
        return Fields(potential=0.0, trace=0.0)

    def update(self, pre: Any, post: Any, syn: Any, dt: Any) -> Any:
        potential = jnp.exp(-dt / self.tau) * syn.potential + pre.x
        trace = jnp.exp(-dt / self.tau_out) * syn.trace + post.slope * potential
        return self.eta * post.credit * trace, Fields(potential=potential, trace=trace)


class EPropAdaptive(Rule):
    """(1), (3), (4), (5): neurons with an adaptive threshold. Times in seconds, ``eta`` per tick."""

    transient: ClassVar = ("potential", "adaptation", "trace")
    eta: float = 1e-3
    tau: float = 0.02
    tau_adaptation: float = 2.0
    tau_out: float = 0.02

    def init(self) -> Fields:
        return Fields(potential=0.0, adaptation=0.0, trace=0.0)

    def update(self, pre: Any, post: Any, syn: Any, dt: Any) -> Any:
        potential = jnp.exp(-dt / self.tau) * syn.potential + pre.x
        eligibility = post.slope * potential + post.slope_a * syn.adaptation
        adaptation = jnp.exp(-dt / self.tau_adaptation) * syn.adaptation + eligibility
        trace = jnp.exp(-dt / self.tau_out) * syn.trace + eligibility
        return self.eta * post.credit * trace, Fields(potential=potential, adaptation=adaptation, trace=trace)
