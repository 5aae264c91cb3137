"""What a learning rule is: one function of one synapse.

A rule sees one synapse's weight and state, its two neurons and the broadcast signals, and nothing else. The simulator
maps it over all synapses, whatever the topology. Rules hold hyper-parameters only; every number in one is a pytree
leaf that can be swept, differentiated or evolved.

A `NetworkRule` is none of this: it sees the whole network. It is there to hold the others against.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol

import equinox as eqx
import numpy as np
import optax
from jaxtyping import Array, Float

from ..networks.fields import Fields, named_arguments

Scalar = Float[Array, ""]
Noise = Literal["uniform", "normal"]
Level = Literal["synapse", "neuron", "population", "batch", "global"]  # how local: see `engrax.locality`

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
    # Synaptic state that is transmitted on top of the weight, as activity is: it changes in every tick, plastic or not.
    carried: ClassVar[tuple[str, ...]] = ()
    # Weights that are of one copy's own past: no batch can share them.
    alone: ClassVar[bool] = False

    @abstractmethod
    def init(self) -> Fields:
        """The synapse's own state at tick 0: numbers, or arrays (post, pre) with one for each of a dense projection."""

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

    def latex(self, digits: int | None = None) -> str:
        r"""The rule's equations in LaTeX, derived from the code that runs.

        One equation a line: pooled sums, :math:`\Delta w_{ij}` (post i, pre j), the synaptic state, the constraint.
        With ``digits`` its numbers stand in place of their symbols, rounded to so many digits of the largest
        coefficient in a sum; terms of which nothing is left then are left out.
        """
        from .latex import latex

        return latex(self, digits)


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


# What a network rule holds of weights: of each projection the blocks in which its synapses lie (see `Tick.outer`).
Synaptic = dict[str, tuple[Array, ...]]
Vector = Float[Array, "*copies carried"]
PerTarget = dict[str, Float[Array, "*copies post"]]
Optimiser = Callable[[Any], optax.GradientTransformation]


class Tick(Protocol):
    r"""One tick of the network, linearised where it is, as a network rule sees it.

    What the past can do to the loss it does through the ``size`` numbers :math:`c` that each copy of the network
    carries from tick to tick: fields of neurons, and their past where there are delays.

    (1)  :math:`c_t = F(c_{t-1}, u_t)`
    (2)  :math:`u_{qi} = \sum_p \sum_j w_{pij}\,x_{pj}`, what the projections p that learn bring to neuron i of target q
    (3)  :math:`\partial L_t / \partial d = -e_t` where outputs with the net input d are told their error e

    A projection that is tied to one that learns brings its weights too.
    """

    @property
    def copies(self) -> tuple[int, ...]:
        """``()`` or ``(batch,)``."""

    @property
    def size(self) -> int:
        """K: how many numbers c has in each copy."""

    @property
    def targets(self) -> Mapping[str, int]:
        """The targets whose arrivals reach c, and their numbers of neurons."""

    @property
    def into(self) -> Mapping[str, str]:
        """The target of each projection that ends in one of these."""

    @property
    def after(self) -> Vector:
        """c after the tick."""

    @property
    def linked(self) -> Vector:
        """1, and 0 where c was reset before the tick: what was before has no influence then."""

    @property
    def told(self) -> Float[Array, "*copies outputs"]:
        """What came to the outputs' late port ``target``."""

    @property
    def seen(self) -> Mapping[str, Any]:
        """x of each projection: (\\*copies, pre)."""

    def pull(self, after: Vector | None = None, loss: bool = True) -> tuple[Vector, PerTarget]:
        """The derivatives with respect to c before the tick and to u, of its loss plus ``after`` times c after it."""

    def push(self, before: Vector) -> Vector:
        """The derivative of c after the tick in the direction ``before`` of c before it."""

    def push_arrivals(self, arrivals: PerTarget) -> Vector:
        """The derivative of c after the tick in a direction of u."""

    def through(self, before: Float[Array, "*copies carried rest"]) -> Float[Array, "*copies carried rest"]:
        """`push` of many directions."""

    def jacobian(self) -> Float[Array, "*copies carried carried"]:
        """dc after / dc before."""

    def arrivals(self) -> dict[str, Float[Array, "*copies carried post"]]:
        """dc after / du of each target."""

    def within(self, kept: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
        """dc after / dc before among the c ``kept`` of each neuron of the targets, (*copies, r, r, post), and dc after
        / du there, (*copies, r, post). ``kept`` is (r, post) of places in c, filled up with K, where it is 0. What it
        takes is what the ways between these take: of a dense layer, one number a neuron, not the whole Jacobian."""

    def outer(self, arrivals: Mapping[str, Any], seen: Mapping[str, Any]) -> Synaptic:
        """The products of (..., post) and (..., pre) at every synapse, (..., rows, width) for each block."""

    def rows(self, projection: str, values: Float[Array, "*axes post"]) -> tuple[Array, ...]:
        """Values of post neurons as the rows of each block have them."""

    def zeros(self, *axes: int) -> Synaptic:
        """Nothing, (\\*axes, rows, width) for each block of the projections ``into`` a target."""

    def explicit(self, arrivals: PerTarget, seen: Mapping[str, Any] | None = None) -> Synaptic:
        """The mean over the copies of `outer`, with what was seen now if nothing else: by the weights that learn."""

    def gathered(self, synaptic: Synaptic) -> Synaptic:
        """The same of products that were summed over the copies already."""

    def signs(self, name: str, *shape: int) -> Array:
        """Random signs, +1 or -1, from the run's own key."""

    def reach(self, target: str, ticks: int) -> Any:
        """Which c can tell of arrivals at a target within so many ticks, by structure: (K, post) of bool."""

    def own(self, target: str) -> Any:
        """Which c each neuron of a target itself makes of what arrives there: (fields, post)."""

    @property
    def neurons(self) -> Mapping[str, Fields]:
        """The fields of each population after the tick: (\\*copies, n)."""

    @property
    def joins(self) -> Mapping[str, tuple[str, str, str]]:
        """Of each projection that learns the pre population, the post population and the port."""

    def w(self, projection: str) -> Float[Array, "post pre"]:
        """The weights of one that learns and is dense, before the tick."""

    def snapshot(self) -> Any:
        """What `at` needs to come back to this tick."""

    def at(self, snapshot: Any) -> "Tick":
        """A tick that was, as it was, with the weights as they now are."""


class NetworkRule(eqx.Module):
    """A learner that is not local: it follows the gradient of what outputs are told, through the network's own tick.

    All projections of a network with an equal network rule learn jointly. The loss is that of the populations with a
    late port ``target`` and a field ``error``; a rule that is not ``told`` follows something else and needs none. Its
    gradient, averaged over the batch, goes to ``optimiser(eta)``, any `optax` optimiser, whenever a window ends or,
    where a phase learns on its last tick, summed over the phase.
    """

    level: ClassVar[Level] = "global"
    told: ClassVar[bool] = True
    eta: float = 1e-2  # per update
    optimiser: Optimiser = eqx.field(default=optax.sgd, static=True, kw_only=True)

    @abstractmethod
    def init(self, tick: Tick) -> Any:
        """What the rule remembers at tick 0, a pytree of arrays."""

    @abstractmethod
    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        """After a tick: what the rule then remembers, a part of the gradient, and whether what was summed so far is to
        be applied. ``last``: a phase ends, and what is owed is due."""
