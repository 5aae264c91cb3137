"""Neurons for learning from errors: activity goes forward, and errors come back late in the same tick."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .fields import Fields
from .neurons import Activation, Neuron


class Hidden(Neuron):
    r"""A unit that others lie above, :math:`x = f(d)`: what they send back becomes its ``error``.

    .. math::
        e = a\,f'(d)

    ``slope`` is :math:`f'(d)`, by automatic differentiation of any scalar ``activation``; :math:`a` arrives late, at
    ``apical``: the errors of the layer above through feedback weights (see `add_feedback`).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "apical")
    late: ClassVar[tuple[str, ...]] = ("apical",)
    activation: Activation = eqx.field(default=jax.nn.sigmoid, static=True)

    def init(self) -> Fields:
        zero = jnp.zeros(())
        return Fields(x=self.activation(zero), slope=jax.grad(self.activation)(zero), error=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=self.activation(ports.drive), slope=jax.grad(self.activation)(ports.drive))

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=ports.apical * state.slope)


class LeakyHidden(Neuron):
    r"""A recurrent unit, :math:`x_t = (1 - \alpha)\,x_{t-1} + \alpha f(d_t)`, for rules that keep a trace of the past.

    .. math::
        c = a, \qquad e = c\,s, \qquad s = \alpha f'(d), \qquad k = 1 - \alpha

    The ``credit`` c is what arrives late at ``apical``: minus the derivative of this tick's loss by ``x``. ``slope``
    is the derivative of ``x`` by the drive, and ``error`` their product, as in `Hidden`; ``keep`` is the derivative of
    ``x`` by itself a tick ago. ``start`` is ``x`` at tick 0.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "apical")
    late: ClassVar[tuple[str, ...]] = ("apical",)
    alpha: float | np.ndarray = 1.0  # per tick
    start: float | np.ndarray = 0.0
    activation: Activation = eqx.field(default=jnp.tanh, static=True)

    def init(self) -> Fields:
        slope = self.alpha * jax.grad(self.activation)(jnp.zeros(()))
        return Fields(x=self.start, slope=slope, keep=1 - self.alpha, credit=0.0, error=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        x = (1 - self.alpha) * state.x + self.alpha * self.activation(ports.drive)
        slope = self.alpha * jax.grad(self.activation)(ports.drive)
        return Fields(x=x, slope=slope, keep=jnp.asarray(1 - self.alpha))

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(credit=ports.apical, error=ports.apical * state.slope)


class Output(Neuron):
    r"""A unit that is told what it should have been, :math:`x = f(d)`, :math:`e = t - x`.

    The target :math:`t` arrives late, at ``target``. :math:`e` is minus the derivative of a loss with respect to
    :math:`d`: as it is, of half the squared error; with ``lateral=Softmax()`` or ``activation=jax.nn.sigmoid``, of the
    cross-entropy. Without a target the unit takes it to be 0.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "target")
    late: ClassVar[tuple[str, ...]] = ("target",)
    activation: Activation = eqx.field(default=jax.nn.identity, static=True)

    def init(self) -> Fields:
        return Fields(x=self.activation(jnp.zeros(())), error=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=self.activation(ports.drive))

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=ports.target - state.x)


class LeakyOutput(Output):
    r"""An `Output` that integrates its drive, :math:`v_t = (1 - \alpha)\,v_{t-1} + \alpha d_t`, :math:`x = f(v)`.

    .. math::
        c = (1 - m)\,(t - x), \qquad e = c\,s, \qquad s = \alpha, \qquad k = 1 - \alpha

    The ``credit`` c is minus the derivative of this tick's loss by ``v``; ``slope``, ``keep`` and ``error`` are as in
    `LeakyHidden`. What arrives late at ``mute``, m, is 1 in ticks that do not count.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "target", "mute")
    late: ClassVar[tuple[str, ...]] = ("target", "mute")
    alpha: float | np.ndarray = 1.0  # per tick

    def init(self) -> Fields:
        v = jnp.zeros(())
        return Fields(x=self.activation(v), v=v, slope=self.alpha, keep=1 - self.alpha, credit=0.0, error=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:  # type: ignore[override]
        v = (1 - self.alpha) * state.v + self.alpha * ports.drive
        return Fields(x=self.activation(v), v=v, slope=jnp.asarray(self.alpha), keep=jnp.asarray(1 - self.alpha))

    def respond(self, state: Fields, ports: Fields) -> Fields:
        credit = (1 - ports.mute) * (ports.target - state.x)
        return Fields(credit=credit, error=credit * state.slope)
