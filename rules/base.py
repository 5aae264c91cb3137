"""What a learning rule is: one function of one synapse.

A rule sees one synapse's weight and state, its two neurons and the broadcast signals, and nothing else. The simulator
maps it over all synapses, whatever the topology. Rules hold hyper-parameters only; every number in one is a pytree
leaf that can be swept, differentiated or evolved.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import equinox as eqx
from jaxtyping import Array, Float

from ..networks.fields import Fields, named_arguments

Scalar = Float[Array, ""]
Noise = Literal["uniform", "normal"]

# What a rule's functions may name: the weight, the pre neuron as the synapse saw it (`delay` ticks ago), the post
# neuron as it is now, the synapse's own state, the signals, one random number, whether the synapse transmitted in this
# tick (1 or 0), pooled sums, the tick's length.
ARGUMENTS = ("w", "pre", "post", "syn", "signals", "noise", "released", "afferent", "efferent", "dt")
Environment = Fields


class LocalRule(eqx.Module):
    """What the simulator asks of a rule or of a wrapper around one. Users subclass `Rule`."""

    # One random number per synapse and tick, where asked for.
    noise: ClassVar[Noise | None] = None
    # Synaptic state under a batch: "each" copy has its own (eligibility traces), or one state holds their "mean"
    # (statistics such as a running variance).
    sharing: ClassVar[Literal["each", "mean"]] = "each"
    # Synaptic state that remembers what the post neuron did of late: where a phase resets the neuron it begins anew.
    transient: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def init(self) -> Fields:
        """The synapse's own state at tick 0."""

    @abstractmethod
    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        """The change of the weight and the new synaptic state."""

    @abstractmethod
    def pooled(self, env: Environment) -> Fields:
        """This synapse's parts of the sums ``afferent`` and ``efferent``, where the rule uses them."""

    @abstractmethod
    def constrained(self, env: Environment) -> Any:
        """The weight after the (batch-averaged) change was added: bounds, normalisation, sign."""

    @abstractmethod
    def constraint_pooled(self, env: Environment) -> Any:
        """This synapse's part of the sum over its cell's afferents that ``constrained`` sees as ``env.afferent``."""

    def latex(self) -> str:
        r"""The rule's equations in LaTeX, derived from the code that runs.

        One equation a line: pooled sums, :math:`\Delta w_{ij}` (post i, pre j), the synaptic state, the constraint.
        """
        from .latex import latex

        return latex(self)


class Rule(LocalRule):
    """One learning rule. Subclass it with hyper-parameters as fields and an ``update``:

    ``update(w, pre, post, ...) -> dw`` or ``(dw, syn)`` takes the arguments that it names out of ``w``, ``pre``,
    ``post`` (fields of the neurons' state and their ports: ``post.x``, ``post.apical``), ``syn`` (own state, as
    ``init()`` made it), ``signals``, ``noise``, ``released`` (1 if the synapse transmitted in this tick, else 0: the
    edge attribute ``release``), ``dt``, ``afferent`` and ``efferent``.

    ``afferent`` is the sum of ``self.afferent(...)`` over all synapses of this projection onto the post neuron: a
    rule that uses it is local to a neuron, not a synapse. ``efferent`` is the sum of ``self.efferent(...)`` over the
    synapses that leave the pre neuron, up to and including this one in the order of the post neurons (dense
    projections only): population level. The simulator and `engrax.locality` say so.

    >>> class MyOja(Rule):
    ...     eta: float = 1e-3
    ...     def update(self, w, pre, post):
    ...         return self.eta * post.x * (pre.x - w * post.x)
    """

    def init(self) -> Fields:
        return Fields()

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> Any:
        """The change of one weight, or (change, new synaptic state)."""

    def afferent(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.update names `afferent` but the class does not define it")

    def efferent(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.update names `efferent` but the class does not define it")

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        result = self._call("update", env)
        if isinstance(result, tuple):
            dw, syn = result
            return dw, syn
        return result, env.syn

    def pooled(self, env: Environment) -> Fields:
        named = self._arguments("update")
        return Fields({name: self._call(name, env) for name in ("afferent", "efferent") if name in named})

    def constrained(self, env: Environment) -> Any:
        return env.w

    def constraint_pooled(self, env: Environment) -> Any:
        return None

    def _arguments(self, method: str) -> tuple[str, ...]:
        return named_arguments(getattr(self, method), ARGUMENTS, f"{type(self).__name__}.{method}")

    def _call(self, method: str, env: Environment) -> Any:
        return getattr(self, method)(**{name: env[name] for name in self._arguments(method)})
