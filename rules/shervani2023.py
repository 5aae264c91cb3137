r"""A rule to be learned in a layered network whose errors come back through any weights: a pool of local terms.

With activity x and error e of both neurons (``error``: minus what the paper calls e), and what the post neuron's
layer sends back by the transpose of these weights, :math:`h_j = \sum_k x_k w_{kj}`, which arrives at the pre neuron's
port ``echo``:

(1)  :math:`\Delta w_{ij} = \eta \sum_n \theta_n T_n`, where

     | :math:`T_0 = e_i x_j`, the pseudo-gradient
     | :math:`T_1 = -e_i e_j`, "eHebb"
     | :math:`T_2 = x_i\,(x_j - h_j)`, Oja's rule for a layer
     | :math:`T_3 = x_i x_j`, :math:`T_4 = x_i e_j`, :math:`T_5 = -x_i^2 w_{ij}`, :math:`T_6 = -e_i^2 w_{ij}`,
       :math:`T_7 = -w_{ij}`, :math:`T_8 = x_i`, :math:`T_9 = e_i`

The paper learns the coefficients of ten terms by gradient, with an L1 penalty that leaves :math:`T_0, T_1, T_2`: these
are its own. The other seven here are what else two neurons with an error offer in products of two, with decays; they
are not the paper's list.

Nothing teleports: h comes along a projection that is tied to this one. That is a synapse which is as strong both ways,
and so this term asks for weight transport, though not for that of errors.

Source: Shervani-Tabar & Rosenbaum, Nature Communications 14:1805 (2023).
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar

from ..networks.fields import Fields
from .terms import Terms

TERMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "0": lambda w, pre, post: post.error * pre.x,
    "1": lambda w, pre, post: -post.error * pre.error,
    "2": lambda w, pre, post: post.x * (pre.x - pre.echo),
    "3": lambda w, pre, post: post.x * pre.x,
    "4": lambda w, pre, post: post.x * pre.error,
    "5": lambda w, pre, post: -(post.x**2) * w,
    "6": lambda w, pre, post: -(post.error**2) * w,
    "7": lambda w, pre, post: -w,
    "8": lambda w, pre, post: post.x,
    "9": lambda w, pre, post: post.error,
}


class Pool(Terms):
    """(1), the pseudo-gradient alone unless others are given; ``eta`` per update. ``Pool.of({"0": 1e-3, "2": 1e-3})``
    has all ten as leaves, ``Pool(theta=Fields({"0": 1e-3, "2": 1e-3}))`` those two. `networks.echoing_perceptron` has
    all that it reads."""

    known: ClassVar = tuple(TERMS)
    eta: float = 1.0
    theta: Fields = Fields({**dict.fromkeys(TERMS, 0.0), "0": 1e-3})

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        parts = [theta * TERMS[name](w, pre, post) for name, theta in self.theta.items()]
        return self.eta * functools.reduce(operator.add, parts)
