"""Neuron models: each is one neuron, a scalar function from its state and ports to its next state.

The simulator maps the function over the neurons of a population and over the batch. A parameter may be a number
(shared) or an array with one value per neuron.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .fields import Fields, named_arguments, spread

Noise = Literal["uniform", "normal"]
Stage = Literal["step", "respond"]
Activation = Callable[[Float[Array, ""]], Float[Array, ""]]


class Competition(eqx.Module):
    """A population-level operation on the outputs of one population, declared on its neuron as ``lateral=``.

    It reads every neuron of the population, so whatever uses it is not local to a synapse (see ``engrax.locality``).
    """

    @abstractmethod
    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The outputs after competition."""


class Softmax(Competition):
    r"""Soft winner-take-all: :math:`x_i \leftarrow e^{\beta x_i} / \sum_k e^{\beta x_k}`."""

    beta: float = 1.0  # inverse temperature, 1 / unit of x

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jax.nn.softmax(self.beta * x)


class KWinners(Competition):
    """The ``k`` largest outputs stay as they are; the others become 0. Of equal outputs the first ones win."""

    k: int = eqx.field(default=1, static=True)

    def __check_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"KWinners(k={self.k}): k is the number of neurons left active, at least 1")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        _, winners = jax.lax.top_k(x, min(self.k, x.shape[0]))
        return jnp.zeros_like(x).at[winners].set(x[winners])


class Ranked(Competition):
    r"""Winner-take-all by rank: the largest output becomes 1, the ``k``-th largest :math:`-\Delta`, all others 0.

    With ``delta`` = 0 it is plain winner-take-all; otherwise Krotov & Hopfield's (2019). Of equal ones the first wins.
    """

    k: int = eqx.field(default=2, static=True)
    delta: float = 0.0

    def __check_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"Ranked(k={self.k}): k is the rank of the unit that becomes -delta, 2 or more")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        place = jnp.arange(x.shape[0])

        def without_best(_: Any, left: Any) -> Any:
            return jnp.where(place == jnp.argmax(left), -jnp.inf, left)

        out = jnp.where(place == jnp.argmax(x), 1.0, 0.0)
        if self.k > x.shape[0]:
            return out
        left = jax.lax.fori_loop(0, self.k - 1, without_best, x)  # top_k sorts: twenty times as long, on CPUs
        return out - jnp.where(place == jnp.argmax(left), self.delta, 0.0)


class LayerNorm(Competition):
    r"""Layer normalisation, then an ``activation`` f: :math:`x_i \leftarrow f\bigl((x_i - \mu) / \sqrt{\sigma^2 +
    \epsilon}\bigr)` with the mean and the variance over the population.

    Source: Ba, Kiros & Hinton, arXiv:1607.06450 (2016), with a gain of 1 and no bias.
    """

    activation: Activation = eqx.field(default=jax.nn.identity, static=True)
    epsilon: float = 1e-5

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.activation((x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + self.epsilon))


class Neuron(eqx.Module):
    """One neuron. A subclass holds parameters only; its state is passed in and out.

    ``ports`` names the inputs where projections (and external drive) end. ``loads`` names the ports whose total
    absolute afferent weight the cell also senses: port ``p`` then arrives with ``p_load``, the sum of ``|w|``.
    ``noise`` asks for one random number per neuron and tick. ``step`` takes the arguments that it names out of
    ``state``, ``ports``, ``noise`` and ``dt`` (seconds).

    ``late`` names the ports whose input arrives after all outputs of a tick are made: ``step`` does not see them, and
    they cannot move ``x``. Rules read them, and so does ``respond``, which takes the same arguments (``late_noise`` in
    place of ``noise``) and returns those fields of the state that follow from what came late, such as an error. A
    projection that carries one of these leaves at this late stage. In a ``collective`` model ``together`` goes over
    what the population responds: like a `Competition`, it is not local to a synapse.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive",)
    late: ClassVar[tuple[str, ...]] = ()
    loads: ClassVar[tuple[str, ...]] = ()
    standardised: ClassVar[tuple[str, ...]] = ()
    noise: ClassVar[Noise | None] = None
    late_noise: ClassVar[Noise | None] = None
    collective: ClassVar[bool] = False
    lateral: Competition | None = eqx.field(default=None, kw_only=True)

    @abstractmethod
    def init(self) -> Fields:
        """The state at tick 0; the field ``x`` is the output."""

    @abstractmethod
    def step(self, *args: Any, **kwargs: Any) -> Fields:
        """The next state, with the same fields as ``init()``; those that ``respond`` makes may be left out."""

    def respond(self, *args: Any, **kwargs: Any) -> Fields:
        """The fields of the state, but not ``x``, that are made late in the tick: none, if not overridden."""
        return Fields()

    def together(self, responses: Fields) -> Fields:
        """What becomes of the responses of a whole population, (n,) arrays, where the model is ``collective``."""
        return responses

    def mean_field(self) -> "Neuron":
        """The deterministic twin, which sends what this neuron sends on average. Raises ``TypeError`` without one."""
        if self.noise is not None or self.late_noise is not None:
            raise TypeError(f"{type(self).__name__} draws noise and does not say what it sends on average")
        return self


def arrivals(neuron: Neuron, stage: Stage) -> tuple[str, ...]:
    """The ports that have been reached at a stage, with the loads that are sensed there."""
    ports = tuple(port for port in neuron.ports if stage == "respond" or port not in neuron.late)
    return (*ports, *(f"{port}_load" for port in neuron.loads if port in ports))


def scalars(neuron: Neuron, stage: Stage) -> dict[str, Any]:
    """Arguments with which a stage of one neuron can be traced: those that it names."""
    one = jnp.ones(())
    ports = Fields(dict.fromkeys(arrivals(neuron, stage), one))
    available = {"state": neuron.init().map(lambda _: one), "ports": ports, "noise": one, "dt": one}
    names = named_arguments(getattr(neuron, stage), tuple(available), f"{type(neuron).__name__}.{stage}")
    return {name: available[name] for name in names}


def responses(neuron: Neuron) -> Any:
    """The shapes of what ``respond`` returns, by field."""
    single = one(neuron)
    return jax.eval_shape(lambda: single.respond(**scalars(neuron, "respond")))


def one(neuron: Neuron) -> Neuron:
    """One neuron of a population: of parameters with a value per neuron (1-D) it has its own; larger arrays are the
    same in all."""
    single: Neuron = jax.tree.map(lambda leaf: spread(1.0, () if jnp.ndim(leaf) == 1 else jnp.shape(leaf)), neuron)
    return single


class Input(Neuron):
    r"""Relays its external drive: :math:`x = d`."""

    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive)


class Constant(Neuron):
    r"""A unit that is always on, :math:`x = c`: a plastic projection from it is a learned bias."""

    value: float = 1.0

    def init(self) -> Fields:
        return Fields(x=self.value)

    def step(self) -> Fields:
        return Fields(x=jnp.asarray(self.value))


class Linear(Neuron):
    r""":math:`x = d + l + b`, the sum of what arrives at ``drive`` and ``lateral`` plus a bias.

    ``apical`` and ``learning`` receive top-down and teaching signals, late in the tick: they are there for rules to
    read and do not move ``x``.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "lateral", "apical", "learning")
    late: ClassVar[tuple[str, ...]] = ("apical", "learning")
    bias: float = 0.0

    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive + ports.lateral + self.bias)


class Rate(Neuron):
    r""":math:`x = f(d + l + b)` with any scalar activation ``f`` (default tanh). Ports as in `Linear`."""

    ports: ClassVar[tuple[str, ...]] = ("drive", "lateral", "apical", "learning")
    late: ClassVar[tuple[str, ...]] = ("apical", "learning")
    activation: Activation = eqx.field(default=jnp.tanh, static=True)
    bias: float = 0.0

    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=self.activation(ports.drive + ports.lateral + self.bias))


class BatchNormalised(Neuron):
    r"""A cell that knows what is usual for it: its drive is standardised over the batch,

    .. math::
        z = \frac{d - \langle d \rangle}{\sqrt{\mathrm{var}(d) + 10^{-6}}} + b, \qquad x = f(z)

    with mean and variance over the samples of the tick, and b what arrives at ``bias`` (from a `Constant` unit). There
    is no running mean: a batch is also needed where nothing is learned.

    Source: Ioffe & Szegedy, International Conference on Machine Learning (2015).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "bias", "apical")
    late: ClassVar[tuple[str, ...]] = ("apical",)
    standardised: ClassVar[tuple[str, ...]] = ("drive",)
    activation: Activation = eqx.field(default=jax.nn.relu, static=True)

    def init(self) -> Fields:
        return Fields(x=0.0, z=0.0)

    def step(self, ports: Fields) -> Fields:
        z = ports.drive + ports.bias
        return Fields(x=self.activation(z), z=z)


class LeakyRate(Neuron):
    r"""Leaky integrator :math:`\tau\,\dot v = -v + d + l + b`, output :math:`x = f(v)`.

    Exact for input held over the tick: :math:`v \leftarrow v\,e^{-\mathrm{dt}/\tau} + (1 - e^{-\mathrm{dt}/\tau})
    (d + l + b)`.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "lateral", "apical", "learning")
    late: ClassVar[tuple[str, ...]] = ("apical", "learning")
    tau: float = 0.01  # seconds
    activation: Activation = eqx.field(default=jnp.tanh, static=True)
    bias: float = 0.0

    def init(self) -> Fields:
        return Fields(x=self.activation(jnp.zeros(())), v=0.0)

    def step(self, state: Fields, ports: Fields, dt: float) -> Fields:
        keep = jnp.exp(-dt / self.tau)
        v = keep * state.v + (1 - keep) * (ports.drive + ports.lateral + self.bias)
        return Fields(x=self.activation(v), v=v)


class Settling(Neuron):
    r"""Linsker's (1992) output unit: a feedforward response that lateral connections settle.

    .. math::
        v \leftarrow v + \alpha\,(d - \ell - r v), \qquad x = d + \eta

    With the running correlations :math:`W = \langle d d^\top\rangle` as weights on a self-projection of ``v`` into the
    port ``lateral`` (:math:`\ell = W v`) and constant drive, :math:`v \to Q^{-1} d` with :math:`Q = W + r I`. It is
    Linsker's iteration :math:`y \leftarrow Y + F y` with :math:`Y = d`, :math:`F = I - \alpha Q` and :math:`v = \alpha
    y`, and converges if and only if :math:`0 < \alpha < 2/\lambda_{\max}(Q)`. The leak ``r`` is the variance of the
    output noise; what arrives at ``noise`` (:math:`\eta`) is added to the output ``x`` only.

    Source: Linsker, Neural Computation 4:691-702 (1992).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "lateral", "noise")
    alpha: float = 0.1  # per tick
    leak: float = 0.0  # r

    def init(self) -> Fields:
        return Fields(x=0.0, v=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        error = ports.drive - ports.lateral - self.leak * state.v
        return Fields(x=ports.drive + ports.noise, v=state.v + self.alpha * error)


class ScaledSettling(Neuron):
    r"""`Settling` in which each cell scales its step by the total strength of the lateral synapses it receives.

    .. math::
        v_n \leftarrow v_n + \frac{c}{r + \sum_m |W_{nm}|}\,(d_n - \ell_n - r v_n)

    By Gershgorin's theorem this converges to :math:`Q^{-1} d` for every positive definite :math:`Q` when
    :math:`0 < c < 2`, with nothing known but the cell's own afferents.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "lateral", "noise")
    loads: ClassVar[tuple[str, ...]] = ("lateral",)
    relaxation: float = 1.8  # c, dimensionless
    leak: float = 0.0  # r

    def init(self) -> Fields:
        return Fields(x=0.0, v=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        step = self.relaxation / jnp.maximum(self.leak + ports.lateral_load, 1e-6)
        error = ports.drive - ports.lateral - self.leak * state.v
        return Fields(x=ports.drive + ports.noise, v=state.v + step * error)


class LeakyBinary(Neuron):
    r"""Földiák's (1990) unit: a leaky logistic potential that settles, and its binary output for learning.

    .. math::
        x \leftarrow x + h\,\bigl(\sigma(\lambda\,(d + l)) - x\bigr), \qquad y = [x > 0.5]

    The analog ``x`` travels along the projections; rules read the binary ``y``. A threshold is the weight of a
    projection from a `Constant` unit.

    Source: Földiák, Biological Cybernetics 64:165-170 (1990).
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "lateral")
    steepness: float = 10.0  # lambda
    rate: float = 0.1  # h, integration step in units of the time constant

    def init(self) -> Fields:
        return Fields(x=0.0, y=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        x = state.x + self.rate * (jax.nn.sigmoid(self.steepness * (ports.drive + ports.lateral)) - state.x)
        return Fields(x=x, y=jnp.where(x > 0.5, 1.0, 0.0))


class Integrator(Neuron):
    r"""A perfect integrator, :math:`x \leftarrow x + \kappa\, d`, from ``start``: the source of a broadcast signal
    that tracks an error to zero (a shared price, a homeostatic set point)."""

    rate: float = 1e-3  # kappa, per tick
    start: float = 0.0

    def init(self) -> Fields:
        return Fields(x=self.start)

    def step(self, state: Fields, ports: Fields) -> Fields:
        return Fields(x=state.x + self.rate * ports.drive)
