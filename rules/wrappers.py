"""Rules made of a rule: bounds, decay, sign, normalisation, gates, noise, schedules. They compose:
``Bounded(Decay(Hebb(eta=1e-3), rate=1e-4), low=0.0)``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from ..networks.fields import Fields
from .base import Environment, LocalRule, NetworkRule, Noise, Scalar


class Wrapper(LocalRule):
    """A rule around ``rule``, which it leaves as it is unless it says otherwise."""

    rule: LocalRule

    def __check_init__(self) -> None:
        rule: Any = self.rule
        if isinstance(rule, NetworkRule):
            name, learner = type(self).__name__, type(rule).__name__
            raise TypeError(
                f"{name} cannot wrap {learner}: a wrapper goes around a function of one synapse. What is done with the "
                f"gradient of a network rule its optimiser says: {learner}(optimiser=...)"
            )
        if rule.carried:
            name, inner = type(self).__name__, type(rule).__name__
            raise TypeError(f"{name} cannot wrap {inner}, which leaves the weight as it is: {inner} goes around {name}")

    @property
    def noise(self) -> Noise | None:  # type: ignore[override]
        return self.rule.noise

    @property
    def sharing(self) -> Any:  # type: ignore[override]
        return self.rule.sharing

    @property
    def transient(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.rule.transient

    @property
    def alone(self) -> bool:  # type: ignore[override]
        return self.rule.alone

    def init(self) -> Fields:
        return self.rule.init()

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        return self.rule.evaluate(env)

    def pooled(self, env: Environment) -> Fields:
        return self.rule.pooled(env)

    def constrained(self, env: Environment) -> Any:
        return self.rule.constrained(env)

    def constraint_pooled(self, env: Environment) -> Any:
        return self.rule.constraint_pooled(env)


class Bounded(Wrapper):
    r"""Hard bounds: :math:`w \leftarrow \min(\max(w, \mathrm{low}), \mathrm{high})` after each update."""

    low: float = -jnp.inf
    high: float = jnp.inf

    def constrained(self, env: Environment) -> Any:
        return jnp.clip(self.rule.constrained(env), self.low, self.high)


class Dale(Wrapper):
    r"""Dale's law: the weight keeps the ``sign`` (+1 or -1) of its presynaptic population, :math:`w \leftarrow
    s\,\max(s w, 0)`."""

    sign: float = 1.0

    def constrained(self, env: Environment) -> Any:
        return self.sign * jnp.maximum(self.sign * self.rule.constrained(env), 0)


class Normalised(Wrapper):
    r"""Weight normalisation over the afferents of a cell: :math:`w_{ij} \leftarrow c\,w_{ij} / (\sum_k
    |w_{ik}|^p)^{1/p}` after each update. Local to a neuron, not to a synapse."""

    total: float = 1.0  # c
    power: float = 2.0  # p

    def constrained(self, env: Environment) -> Any:
        return self.total * self.rule.constrained(env) / jnp.maximum(env.afferent, 1e-12) ** (1 / self.power)

    def constraint_pooled(self, env: Environment) -> Any:
        if self.rule.constraint_pooled(env) is not None:
            raise TypeError("a rule is normalised twice: Normalised cannot wrap another constraint with a pooled sum")
        return jnp.abs(self.rule.constrained(env)) ** self.power


class Decay(Wrapper):
    r"""Weight decay towards ``target``: :math:`\Delta w \mathrel{+}= -\mathrm{rate}\,(w - w_0)`."""

    rate: float = 1e-3  # per tick
    target: float = 0.0  # w_0

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        return dw - self.rate * (env.w - self.target), syn


class Gated(Wrapper):
    r"""A third factor: :math:`\Delta w \leftarrow s\,\Delta w` with the broadcast signal ``signal``. The synaptic state
    runs on meanwhile; if it ``waits``, it stays where the signal is 0."""

    signal: str = eqx.field(default="reward", static=True)
    waits: bool = eqx.field(default=False, static=True)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        s = env.signals.__getattr__(self.signal)
        if self.waits:
            syn = Fields({name: jnp.where(s != 0, value, env.syn[name]) for name, value in syn.items()})
        return s * dw, syn


class Noisy(Wrapper):
    r"""Synaptic noise: :math:`\Delta w \mathrel{+}= \sigma\,\xi` with standard normal :math:`\xi`."""

    noise: ClassVar[Noise | None] = "normal"
    scale: float = 1e-3

    def __check_init__(self) -> None:
        if self.rule.noise is not None:
            raise TypeError(f"Noisy cannot wrap {type(self.rule).__name__}, which draws noise of its own")

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        return dw + self.scale * env.noise, syn


class Released(Wrapper):
    """Only a synapse that transmitted in this tick changes (edge attribute ``release``): DropConnect, around a rule
    that follows the gradient (Wan et al., International Conference on Machine Learning, 2013)."""

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        return env.released * dw, syn


class Every(Wrapper):
    """The weight changes on every ``n``-th tick only (ticks n-1, 2n-1, ...); synaptic state runs on."""

    n: int = eqx.field(default=10, static=True)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        return jnp.where(env.signals.tick % self.n == self.n - 1, dw, 0.0), syn


class Scheduled(Wrapper):
    """A learning-rate schedule: the change is multiplied by ``schedule(count)``, where ``count`` is the number of
    trials so far in a run of trials and of ticks otherwise (any optax schedule will do)."""

    schedule: Callable[[Any], Any] = eqx.field(default=lambda count: 1.0, static=True)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        return self.schedule(env.signals.count) * dw, syn


class Momentum(Wrapper):
    r"""Momentum: :math:`v \leftarrow \mu v + \Delta w_{\mathrm{rule}}`, :math:`\Delta w = v`. A steady change moves the
    weight :math:`1/(1 - \mu)` times as far. A batch has one ``velocity``, that of the mean change (Rumelhart, Hinton &
    Williams, Nature 323:533-536, 1986)."""

    sharing: ClassVar[Any] = "mean"
    mu: float = 0.9

    def __check_init__(self) -> None:
        if "velocity" in self.rule.init():
            raise TypeError("Momentum cannot wrap a rule that has Momentum already")
        if len(self.rule.init()) and self.rule.sharing == "each":
            raise TypeError(
                f"Momentum is that of a batch's mean change: it cannot wrap {type(self.rule).__name__}, of which every "
                "copy has a state of its own"
            )

    def init(self) -> Fields:
        return self.rule.init().replace(velocity=0.0)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        velocity = self.mu * env.syn.velocity + dw
        return velocity, syn.replace(velocity=velocity)


class OfMean(Wrapper):
    """A wrapper that acts on what a batch agreed on: ``evaluate`` is called once, with the mean of the rule's changes.

    Of its own state there is one for the batch, whatever the rule's; it may read that, ``w``, ``dt`` and signals that
    are the same for all copies. What is wrapped around it acts on the mean, too.
    """

    def own(self) -> Fields:
        """The wrapper's own part of the state."""
        return Fields()

    def init(self) -> Fields:
        inner, own = self.rule.init(), self.own()
        clash = set(inner) & set(own)
        if clash:
            raise TypeError(f"{type(self).__name__} cannot wrap a rule that has a state called {clash.pop()}")
        return inner.replace(**dict(own.items()))


class Given(LocalRule):
    """A change that is there already, in the place of the rule that made it."""

    dw: Scalar

    def init(self) -> Fields:
        return Fields()

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        return self.dw, Fields()

    def pooled(self, env: Environment) -> Fields:
        return Fields()

    def constrained(self, env: Environment) -> Any:
        return env.w

    def constraint_pooled(self, env: Environment) -> Any:
        return None


def core(rule: LocalRule) -> LocalRule | None:
    """What is inside of the innermost `OfMean` around a rule; None where there is none."""
    inside = None
    while isinstance(rule, Wrapper):
        if isinstance(rule, OfMean):
            inside = rule.rule
        rule = rule.rule
    return inside


def around(rule: LocalRule, dw: Any) -> LocalRule:
    """The same wrappers with the change ``dw`` in place of their `core`."""
    if not isinstance(rule, Wrapper) or core(rule) is None:
        return Given(dw)
    return dataclasses.replace(rule, rule=around(rule.rule, dw))


class Accumulated(OfMean):
    r"""The changes of many ticks at once: :math:`g \leftarrow g + \Delta w_{\mathrm{rule}}`, and where the signal
    ``signal`` s is 1, not 0, :math:`\Delta w = g,\; g \leftarrow 0`. The signal ``last``, which is always there, is 1
    in the last tick of a trial."""

    signal: str = eqx.field(default="last", static=True)

    def own(self) -> Fields:
        return Fields(total=0.0)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        due, total = env.signals.__getattr__(self.signal) != 0, env.syn.total + dw
        return jnp.where(due, total, 0.0), syn.replace(total=jnp.where(due, 0.0, total))


class Adam(OfMean):
    r"""Adam, where the signal ``signal`` is 1: :math:`m \leftarrow \mu m + (1 - \mu)\,g`, :math:`v \leftarrow
    \rho v + (1 - \rho)\,g^2`, :math:`\Delta w = \eta\,\hat m / (\sqrt{\hat v} + \epsilon)`, with g what the rule says
    and :math:`\hat m = m / (1 - \mu^n)`, :math:`\hat v = v / (1 - \rho^n)` at the n-th step. Elsewhere nothing changes:
    around `Accumulated` a trial is a step. With ``signal=None`` every tick is (Kingma & Ba, arXiv:1412.6980, 2014)."""

    eta: float = 1e-3
    mu: float = 0.9
    rho: float = 0.999
    epsilon: float = 1e-8
    signal: str | None = eqx.field(default="last", static=True)

    def own(self) -> Fields:
        return Fields(m=0.0, v=0.0, n=0.0)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        g, syn = self.rule.evaluate(env)
        n = env.syn.n + 1
        m = env.syn.m + (1 - self.mu) * (g - env.syn.m)
        v = env.syn.v + (1 - self.rho) * (g**2 - env.syn.v)
        dw = self.eta * (m / (1 - self.mu**n)) / (jnp.sqrt(v / (1 - self.rho**n)) + self.epsilon)
        if self.signal is None:
            return dw, syn.replace(m=m, v=v, n=n)
        due = env.signals.__getattr__(self.signal) != 0
        held = {name: jnp.where(due, new, env.syn[name]) for name, new in (("m", m), ("v", v), ("n", n))}
        return jnp.where(due, dw, 0.0), syn.replace(**held)


class Fast(Wrapper):
    r"""Fast weights: what the rule would do to the weight w it does to ``fast``, A, which the synapse transmits on top,
    :math:`w + A`. A is activity: it changes in every tick, plastic or not, begins from 0 wherever a phase resets the
    post neuron, and every copy of a batch has its own. Around ``Decay(Hebb(eta), rate)``: :math:`A_t =
    (1 - \mathrm{rate})\,A_{t-1} + \eta\,x_i x_j` (Hinton & Plaut, Annual Conference of the Cognitive Science Society,
    1987; Ba et al., Advances in Neural Information Processing Systems 29, 2016)."""

    sharing: ClassVar[Any] = "each"
    carried: ClassVar[tuple[str, ...]] = ("fast",)
    alone: ClassVar[bool] = False

    def __check_init__(self) -> None:
        if core(self) is not None:
            raise TypeError(f"Fast is each copy's own: it cannot wrap {type(self.rule).__name__}, which acts on a mean")

    @property
    def transient(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.init())

    def init(self) -> Fields:
        return self.rule.init().replace(fast=0.0)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        inner = env.replace(w=env.syn.fast)
        if self.rule.constraint_pooled(inner) is not None:
            raise TypeError("Fast cannot wrap a constraint with a pooled sum: Normalised")
        dw, syn = self.rule.evaluate(inner)
        fast = self.rule.constrained(env.replace(w=env.syn.fast + dw))
        return jnp.zeros_like(env.w), syn.replace(fast=fast)

    def pooled(self, env: Environment) -> Fields:
        return self.rule.pooled(env.replace(w=env.syn.fast))

    def constrained(self, env: Environment) -> Any:
        return env.w


class SoftBounded(Wrapper):
    r"""Soft bounds, the multiplicative form of spike-timing-dependent plasticity: potentiation is scaled by
    :math:`(\mathrm{high} - w)^\mu`, depression by :math:`(w - \mathrm{low})^\mu` (Gütig et al., Journal of Neuroscience
    23:3697-3714, 2003). ``low`` and ``high`` are also hard bounds."""

    low: float = 0.0
    high: float = 1.0
    mu: float = 1.0

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        room = jnp.where(dw > 0, self.high - env.w, env.w - self.low)
        return dw * jnp.maximum(room, 1e-30) ** self.mu, syn

    def constrained(self, env: Environment) -> Any:
        return jnp.clip(self.rule.constrained(env), self.low, self.high)


class Eligible(Wrapper):
    r"""A third factor that comes later: the rule's changes go into an eligibility trace,
    :math:`\tau\,\dot e = -e`, :math:`e \leftarrow e + \Delta w_{\mathrm{rule}}`, and the weight changes by
    :math:`\Delta w = s\,e` with the broadcast signal ``signal`` (per tick). Around `STDP`: reward-modulated
    spike-timing-dependent plasticity (Izhikevich, Cerebral Cortex 17:2443-2452, 2007; Frémaux & Gerstner, Frontiers in
    Neural Circuits 9:85, 2016)."""

    tau: float = 1.0  # seconds
    signal: str = eqx.field(default="reward", static=True)

    def __check_init__(self) -> None:
        if "eligibility" in self.rule.init():
            raise TypeError("Eligible cannot wrap a rule that is Eligible already")

    def init(self) -> Fields:
        return self.rule.init().replace(eligibility=0.0)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        e = env.syn.eligibility * jnp.exp(-env.dt / self.tau) + dw
        return env.signals.__getattr__(self.signal) * e, syn.replace(eligibility=e)


class Homeostatic(Wrapper):
    r"""Synaptic scaling: :math:`\Delta w \mathrel{+}= \eta\,(\rho_0 - \rho_i)\,w\,\mathrm{dt}`, where
    :math:`\rho_i` is the post neuron's rate (spikes per second, or ``x`` / dt), low-passed with ``tau``. All
    synapses of a cell are scaled alike (Turrigiano et al., Nature 391:892-896, 1998; van Rossum, Bi & Turrigiano,
    Journal of Neuroscience 20:8812-8821, 2000)."""

    eta: float = 0.1  # per second and Hz
    rate: float = 5.0  # rho_0, Hz
    tau: float = 1.0  # seconds

    def __check_init__(self) -> None:
        if "rate" in self.rule.init():
            raise TypeError("Homeostatic cannot wrap a rule that has a state called rate")

    def init(self) -> Fields:
        return self.rule.init().replace(rate=self.rate)

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        dw, syn = self.rule.evaluate(env)
        rate = env.syn.rate + (env.post.x / env.dt - env.syn.rate) * -jnp.expm1(-env.dt / self.tau)
        return dw + self.eta * (self.rate - rate) * env.w * env.dt, syn.replace(rate=rate)
