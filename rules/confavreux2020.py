r"""A rule to be learned: the Volterra expansion of what both neurons and the weight have to do with its change.

(1)  :math:`\Delta w_{ij} = \eta \sum_{a, b, c \le 2} \theta_{abc}\,x_j^a\,x_i^b\,w_{ij}^c`

27 coefficients, each a leaf, named by their exponents of pre, post and weight. Among these rules are Hebb's,
:math:`\theta_{110} = 1`, and Oja's, :math:`\theta_{110} = 1,\; \theta_{021} = -1`, which Confavreux et al. found again
by gradient descent.

Source: Confavreux, Zenke, Agnes, Lillicrap & Vogels, Advances in Neural Information Processing Systems 33 (2020).
"""

import functools
import itertools
import operator
from typing import Any, ClassVar

from ..networks.fields import Fields
from .terms import Terms

NAMES = tuple(f"{a}{b}{c}" for a, b, c in itertools.product(range(3), repeat=3))


class Volterra(Terms):
    """(1); ``eta`` per tick. ``Volterra.of({"110": 1.0, "021": -1.0})`` is Oja's rule, ``rule.theta["021"]`` a
    coefficient of it; a sweep calls that ``"a->b.theta.021"``."""

    known: ClassVar = NAMES
    eta: float = 1e-3
    theta: Fields = Fields(dict.fromkeys(NAMES, 0.0))

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        powers = [(None, value, value**2) for value in (pre.x, post.x, w)]  # once: see separation.py

        def term(name: str, coefficient: Any) -> Any:
            factors = [powers[k][int(exponent)] for k, exponent in enumerate(name)]
            return functools.reduce(operator.mul, [f for f in factors if f is not None], coefficient)

        return self.eta * functools.reduce(operator.add, [term(*item) for item in self.theta.items()])
