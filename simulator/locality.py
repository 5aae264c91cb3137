"""How local a rule or neuron is, derived from what its traced function reads."""

from dataclasses import dataclass

from .networks.neurons import Neuron
from .rules.base import Level, LocalRule, NetworkRule
from .rules.equations import trace


@dataclass(frozen=True)
class Locality:
    """``level``: ``synapse`` (weight, own state, its two neurons, broadcast signals), ``neuron`` (all afferents of one
    cell), ``population`` (other cells of the population), ``batch`` (statistics over samples), ``global``.
    ``reads``: the inputs that change what the rule does, by name."""

    level: Level
    reads: tuple[str, ...]


def locality(thing: LocalRule | NetworkRule | Neuron) -> Locality:
    """The locality of a rule, or of a neuron model with its competition.

    Raises `RuleError` if the rule cannot be traced.
    """
    if isinstance(thing, Neuron):
        if thing.standardised:
            return Locality("batch", tuple(thing.ports))
        level: Level = "population" if thing.lateral is not None or thing.collective else "neuron"
        return Locality(level, tuple(thing.ports))
    if isinstance(thing, NetworkRule):
        return Locality(thing.level, ("the network",))
    parts = [
        trace(thing, "evaluate"),
        trace(thing, "pooled"),
        trace(thing, "constrained"),
        trace(thing, "constraint_pooled"),
    ]
    reads = frozenset().union(*(part.reads for part in parts))
    level = "population" if "efferent" in reads else "neuron" if "afferent" in reads else "synapse"
    return Locality(level, tuple(sorted(name for name in reads if not name.startswith("rule."))))
