"""Layered networks in which a layer also hears its echo: what the one above would make of it, sent back."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import networkx as nx

from .credit import Output
from .feedback import Feedback, add_feedback, perceptron, ways_back
from .fields import Fields
from .graph import read_graph
from .initialisers import Initialiser, Xavier
from .neurons import Neuron, Softmax


class SoftplusHidden(Neuron):
    r"""A unit that others lie above, :math:`x = \ln(1 + e^{\beta d}) / \beta`, with an ``error`` and an echo.

    .. math::
        e = a\,s, \qquad s = 1 - e^{-\beta x}

    The ``slope`` s is the derivative of x by the drive. Late in the tick :math:`a` arrives at ``apical`` (see
    `add_feedback`); what arrives at ``echo`` is there for rules to read (see `add_echo`).

    Source: Shervani-Tabar & Rosenbaum, Nature Communications 14:1805 (2023).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "apical", "echo")
    late: ClassVar[tuple[str, ...]] = ("apical", "echo")
    beta: float = 10.0  # 1 / unit of drive

    def init(self) -> Fields:
        x = self.output(jnp.zeros(()))
        return Fields(x=x, slope=self.slope(x), error=0.0)

    def output(self, drive: Any) -> Any:
        return jax.nn.softplus(self.beta * drive) / self.beta

    def slope(self, x: Any) -> Any:
        return -jnp.expm1(-self.beta * x)

    def step(self, ports: Fields) -> Fields:
        x = self.output(ports.drive)
        return Fields(x=x, slope=self.slope(x))

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=ports.apical * state.slope)


class SoftplusInput(SoftplusHidden):
    """The same of a unit whose drive says what its output is: where errors come back as far as the input."""

    def output(self, drive: Any) -> Any:
        return drive


def add_echo(net: nx.MultiDiGraph, forward: str | Iterable[str] | None = None) -> list[str]:
    r"""Projections that bring :math:`h_j = \sum_i x_i w_{ij}` back to the port ``echo`` of the neurons j below.

    They are tied to the projections ``forward``, by default all from a population that has that port. For Oja's rule in
    a layer, :math:`x_i (x_j - h_j)`, what two neurons know is then enough. Returns the names of the projections.

    Raises `NetworkError` where there is nothing to come back from.
    """
    circuit = read_graph(net)
    chosen = ways_back(circuit, forward, "echo", "x")
    added = []
    for name in chosen:
        top, below = circuit.projections[name].post, circuit.projections[name].pre
        key = net.add_edge(top, below, tied=name, port="echo")
        added.append(f"{top}->{below}" + (f"[{key}]" if key else ""))
    return added


def echoing_perceptron(
    sizes: Sequence[int | tuple[int, ...]],
    rule: Any = None,
    *,
    feedback: Feedback = "random",
    beta: float = 10.0,
    weights: Initialiser | None = None,
) -> nx.MultiDiGraph:
    """The network of Shervani-Tabar & Rosenbaum (2023): a `perceptron` of softplus units without biases, with errors
    that come back as far as the input, and an echo of every layer in the one below.

    Forward weights, and those of ``feedback`` where it has its own, begin from ``weights`` (`Xavier`). ``feedback`` is
    a kind of `add_feedback`.

    >>> net = echoing_perceptron((784, 170, 130, 47), rules.Pool())                         # doctest: +SKIP
    >>> Simulator(net).run({"input": images, "output.target": targets})                     # doctest: +SKIP
    """
    drawn = Xavier() if weights is None else weights
    output = Output(lateral=Softmax())
    net = perceptron(sizes, rule, feedback=None, hidden=SoftplusHidden(beta), output=output, weights=drawn, bias=False)
    net.nodes["input"]["neuron"] = SoftplusInput(beta)
    add_feedback(net, kind=feedback, weights=drawn)
    add_echo(net)
    return net
