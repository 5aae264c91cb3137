"""Predictive coding: value units, error units, and the network of both."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx

from .blocks import layered_start
from .fields import Fields
from .initialisers import FanIn, Fixed, Initialiser
from .neurons import Activation, Neuron
from .topologies import OneToOne


class PredictiveValue(Neuron):
    r"""Value unit of predictive coding: :math:`v \leftarrow v + h\,(d + f'(v)\,a)`, output :math:`x = f(v)`.

    ``drive`` brings minus the unit's own error, ``apical`` the errors of what it predicts, through the transpose of the
    weights by which it predicts. In the first tick after a reset v is the ``prediction``.

    Source: Whittington & Bogacz, Neural Computation 29:1229-1262 (2017).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "apical", "prediction")
    activation: Activation = eqx.field(default=jnp.tanh, static=True)
    rate: float = 0.1  # h, per tick

    def init(self) -> Fields:
        return Fields(x=self.activation(jnp.zeros(())), v=0.0, settling=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        slope = jax.grad(self.activation)(state.v)
        settled = state.v + self.rate * (ports.drive + slope * ports.apical)
        v = jnp.where(state.settling > 0, settled, ports.prediction)
        return Fields(x=self.activation(v), v=v, settling=1.0)


class PredictiveError(Neuron):
    r"""Error unit of predictive coding: it passes the prediction on, :math:`x = d`, and then compares it with the value
    at its port ``target``, ``error`` :math:`= (t - x) / \Sigma`.

    Source: Whittington & Bogacz, Neural Computation 29:1229-1262 (2017).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "target")
    late: ClassVar[tuple[str, ...]] = ("target",)
    variance: float = 1.0  # Sigma

    def init(self) -> Fields:
        return Fields(x=0.0, error=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=(ports.target - state.x) / self.variance)


def predictive_coding(
    sizes: Sequence[int],
    rule: Any = None,
    *,
    activation: Activation = jnp.tanh,
    rate: float = 0.1,
    variance: float = 1.0,
    weights: Initialiser = FanIn(1.0),  # noqa: B008 - frozen
) -> nx.MultiDiGraph:
    """Predictive coding of a target by an input, with value units ``value1``, ... and error units ``error1``, ...,
    ``output``.

    ``output`` are the error units of the last layer, whose values are the targets; ``variance`` is theirs, beside the
    others' 1. From a reset the first tick is the forward pass, ``output.x`` the network's answer; in those that follow
    errors travel down and values settle.

    >>> learn = Phase("learn", ticks=20, plastic="last", hold=True, reset=True)  # doctest: +SKIP
    >>> drive = {"input": images, "output.target": one_hot}  # doctest: +SKIP

    Errors go down through the transpose of the weights: weight transport. Source: see `PredictiveValue`.
    """
    net = layered_start(sizes)
    below = "input"
    for k, size in enumerate(sizes[1:], 1):
        last = k == len(sizes) - 1
        error, value = ("output" if last else f"error{k}"), f"value{k}"
        net.add_node(error, neuron=PredictiveError(variance if last else 1.0), size=size)
        net.add_edge(below, error, weights=weights, rule=rule)
        net.add_edge("bias", error, weights=Fixed(0.0), rule=rule)
        if k > 1:
            net.add_edge(error, below, tied=f"{below}->{error}", field="error", port="apical", delay=1)
        if not last:
            net.add_node(value, neuron=PredictiveValue(activation=activation, rate=rate), size=size)
            each: dict[str, Any] = {"topology": OneToOne()}
            net.add_edge(error, value, port="prediction", weights=Fixed(1.0), **each)
            net.add_edge(value, error, field="v", port="target", weights=Fixed(1.0), delay=0, **each)
            net.add_edge(
                error, value, name=f"{error}->{value}, error", field="error", weights=Fixed(-1.0), delay=1, **each
            )
            below = value
    return net
