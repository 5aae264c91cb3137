"""A rule that is a sum of terms, with one number each to be learned."""

from collections.abc import Mapping
from typing import ClassVar, Self

from ..networks.fields import Fields
from .base import Rule


class Terms(Rule):
    """``eta`` times the sum of terms whose coefficients are ``theta``, by their names: each a leaf.

    ``theta`` may have some of the ``known`` terms only. Then the others are not there: nothing of them is computed,
    learned or read.
    """

    known: ClassVar[tuple[str, ...]]
    eta: float
    theta: Fields

    @classmethod
    def of(cls, terms: Mapping[str, float], eta: float = 1.0) -> Self:
        """The rule with these coefficients, and 0 for all other terms.

        Raises ``ValueError`` naming a term that there is not.
        """
        unknown = [name for name in terms if name not in cls.known]
        if unknown:
            raise ValueError(f"{cls.__name__} has no term {unknown[0]!r}; terms: {', '.join(cls.known)}")
        return cls(eta, Fields({name: float(terms.get(name, 0.0)) for name in cls.known}))
