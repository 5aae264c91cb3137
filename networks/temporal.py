r"""Neurons for learning in time: spikes with a pseudo-derivative, kicks to try things out, a dopamine neuron.

(1)  `SurrogateLIF`: :math:`v_t = k\,v_{t-1} + d_t - \theta\,x_{t-1}, \quad a_t = \rho\,a_{t-1} + x_{t-1}, \quad
     x_t = [v_t > \theta + \beta a_t]`
(2)  pseudo-derivatives: :math:`\psi = \frac{\gamma}{\theta}\max(0, 1 - |v - \theta - \beta a| / \theta), \quad
     \psi^a = -\beta\psi`
(3)  `Kicked`: :math:`v_t = (1 - \alpha)\,v_{t-1} + \alpha\,d_t + \xi_t, \quad x = f(v)`
(4)  `TDError`: :math:`x_t = r_t + \gamma\,d_t - d_{t-1}`
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .fields import Fields
from .neurons import Activation, Neuron, Noise
from .spiking import Spiking


@jax.custom_jvp
def spike(u: Any, theta: Any, dampening: Any) -> Any:
    """1 where ``u``, a potential above the threshold ``theta``, is positive; with the derivative (2)."""
    return jnp.where(u > 0, 1.0, 0.0)


@spike.defjvp
def _spike(primals: Any, tangents: Any) -> Any:
    return spike(*primals), pseudo_derivative(*primals) * tangents[0]


def pseudo_derivative(u: Any, theta: Any, dampening: Any) -> Any:
    """(2), by the potential."""
    return dampening / theta * jnp.maximum(1 - jnp.abs(u) / theta, 0)


class SurrogateLIF(Spiking):
    r"""A leaky integrate-and-fire neuron with a pseudo-derivative, (1) and (2); adaptive where ``beta`` is not 0.

    Without units: a spike takes ``threshold`` from the potential, and raises the threshold by ``beta``. No spike
    follows another within the refractory time, when the pseudo-derivatives are 0. The ``credit`` is what arrives late
    at ``apical``, less what a rate (``frequency``, a running mean over ``tau_rate``) beyond ``target`` costs:
    ``cost`` per Hz. ``error`` is ``credit`` times ``slope``.

    Source: Bellec et al., Nature Communications 11:3625 (2020).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "apical")
    late: ClassVar[tuple[str, ...]] = ("apical",)
    tau: float = 0.02  # seconds
    tau_adaptation: float = 2.0
    threshold: float = 1.0  # theta
    beta: float | np.ndarray = 0.0
    dampening: float = 0.3  # gamma
    refractory: float = 0.0  # seconds
    cost: float = 0.0
    target: float = 10.0  # Hz
    tau_rate: float = 1.0  # seconds

    def init(self) -> Fields:
        return Fields(
            x=0.0, v=0.0, a=0.0, wait=0.0, slope=0.0, slope_a=0.0, frequency=self.target, credit=0.0, error=0.0
        )

    def step(self, state: Fields, ports: Fields, dt: float) -> Fields:
        # what its own spike takes from the potential is no way for credit to come back: as in the rule's derivation
        v = jnp.exp(-dt / self.tau) * state.v + ports.drive - self.threshold * jax.lax.stop_gradient(state.x)
        a = jnp.exp(-dt / self.tau_adaptation) * state.a + state.x
        above, ready = v - self.threshold - self.beta * a, jnp.where(state.wait > 0, 0.0, 1.0)
        x = ready * spike(above, self.threshold, self.dampening)
        slope = ready * pseudo_derivative(above, self.threshold, self.dampening)
        wait = jnp.where(x > 0, jnp.round(self.refractory / dt), jnp.maximum(state.wait - 1, 0))
        frequency = state.frequency + (x / dt - state.frequency) * -jnp.expm1(-dt / self.tau_rate)
        return Fields(x=x, v=v, a=a, wait=wait, slope=slope, slope_a=-self.beta * slope, frequency=frequency)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        credit = ports.apical - self.cost * (state.frequency - self.target)
        return Fields(credit=credit, error=credit * state.slope)


class Kicked(Neuron):
    r"""A leaky neuron (3) whose potential is kicked with ``probability`` in a tick, by a number uniform between
    ``-size`` and ``size``. ``score`` is ``alpha`` times the kick over its variance; ``deviation`` how far the potential
    is from its mean of the last ticks, which follows it at ``rate``. Source: Miconi, eLife 6:e20899 (2017)."""

    noise: ClassVar[Noise | None] = "uniform"
    alpha: float = 0.1  # per tick
    probability: float = 0.01
    size: float = 0.5
    rate: float = 0.05  # per tick
    activation: Activation = eqx.field(default=jnp.tanh, static=True)

    def init(self) -> Fields:
        return Fields(x=self.activation(jnp.zeros(())), v=0.0, average=0.0, deviation=0.0, score=0.0)

    def step(self, state: Fields, ports: Fields, noise: Any) -> Fields:
        kick = jnp.where(noise < self.probability, self.size * (2 * noise / self.probability - 1), 0.0)
        v = (1 - self.alpha) * state.v + self.alpha * ports.drive + kick
        average = state.average + self.rate * (v - state.average)
        variance = self.probability * self.size**2 / 3
        return Fields(
            x=self.activation(v), v=v, average=average, deviation=v - average, score=self.alpha * kick / variance
        )


class TDError(Neuron):
    r"""A dopamine neuron (4): its drive is the value of the state, and ``reward`` arrives at a port of that name. The
    source of the signal ``dopamine``, which `rules.TD` reads. Source: Schultz, Dayan & Montague, Science 275:1593-1599
    (1997)."""

    ports: ClassVar[tuple[str, ...]] = ("drive", "reward")
    gamma: float = 0.9

    def init(self) -> Fields:
        return Fields(x=0.0, last=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        return Fields(x=ports.reward + self.gamma * ports.drive - state.last, last=ports.drive)
