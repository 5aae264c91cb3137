"""Outer loops: how theta goes from step to step, by the gradient of inner problems or by evolution."""

import importlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..errors import SimulationError
from .inner import Inner, Theta

Losses = Float[Array, " members"]


class Loop(NamedTuple):
    """An outer loop over an inner problem, as pure functions.

    ``members``: how many thetas are tried in a step; ``episodes``: inner problems that each of them tries. ``window``:
    the segments of a step; when the inner problems are over, new ones begin. None: a step is a whole inner problem.
    ``alike``: which members try the same inner problems, so that what differs is theta. ``gradient``: what is told has
    the gradient of the loss through the window besides, averaged over the episodes.

    ``init(key) -> state``; ``ask(state, key) -> (thetas, state)``, with a leading axis of members;
    ``tell(state, thetas, losses, gradients, key) -> state``; ``found(state) -> theta``, what was found so far.
    """

    members: int
    episodes: int
    window: int | None
    alike: Literal["none", "pairs", "all"]
    gradient: bool
    init: Callable[[PRNGKeyArray], Any]
    ask: Callable[[Any, PRNGKeyArray], tuple[Theta, Any]]
    tell: Callable[[Any, Theta, Losses, Theta | None, PRNGKeyArray], Any]
    found: Callable[[Any], Theta]


Outer = Callable[[Inner], Loop]


def gradient(
    optimiser: optax.GradientTransformation | None = None,
    *,
    episodes: int = 8,
    window: int | None = None,
    spread: float = 0.0,
) -> Outer:
    r"""Descent along the gradient, averaged over ``episodes`` inner problems n, by any ``optimiser`` of optax
    (``optax.adam(1e-2)``):

    (1)  :math:`\theta \leftarrow \theta + \mathrm{optimiser}\bigl(\frac1N \sum_n \partial L_n / \partial\theta\bigr)`

    With a ``window`` it is the gradient of the loss of the last so many segments through these segments alone:
    backpropagation through the inner problem, truncated. That is biased where what theta does shows later.

    It begins at the problem's start, or somewhere around it, with normal numbers of the deviation ``spread`` added.
    """
    steps = optax.adam(1e-2) if optimiser is None else optimiser

    def of(inner: Inner) -> Loop:
        def init(key: PRNGKeyArray) -> Any:
            leaves, structure = jax.tree.flatten(inner.start)
            keys = jax.random.split(key, len(leaves))
            moved = [leaf + spread * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
            theta = jax.tree.unflatten(structure, moved)
            return theta, steps.init(theta)

        def ask(state: Any, key: PRNGKeyArray) -> tuple[Theta, Any]:
            return jax.tree.map(lambda leaf: leaf[None], state[0]), state

        @jax.jit
        def tell(state: Any, thetas: Theta, losses: Losses, gradients: Theta, key: PRNGKeyArray) -> Any:
            theta, memory = state
            updates, memory = steps.update(jax.tree.map(lambda leaf: leaf[0], gradients), memory, theta)
            return optax.apply_updates(theta, updates), memory

        return Loop(1, episodes, window, "none", True, init, ask, tell, lambda state: state[0])

    return of


def shrinking(penalty: float | optax.Schedule) -> optax.GradientTransformation:
    r"""An L1 penalty :math:`\lambda \sum_k |\theta_k|` by its proximal step, the last of a chain of optax:

    (1)  :math:`\theta \leftarrow \mathrm{sign}(\theta)\,\max(|\theta| - \lambda, 0)` after every update

    Numbers that the loss does not need become 0, and not only small. ``penalty`` is per step and may be a schedule:
    let it fall with the learning rate, ``optax.chain(optax.adam(falling), shrinking(lambda n: 0.1 * falling(n)))``.
    """
    of = penalty if callable(penalty) else optax.constant_schedule(penalty)

    def update(updates: Theta, count: Array, theta: Theta) -> tuple[Theta, Array]:
        def shrunk(update: Array, leaf: Array) -> Array:
            new = leaf + update
            return jnp.sign(new) * jnp.maximum(jnp.abs(new) - of(count), 0) - leaf

        return jax.tree.map(shrunk, updates, theta), count + 1

    return optax.GradientTransformation(lambda theta: jnp.zeros((), jnp.int32), update)


def evolution(
    algorithm: Callable[..., Any],
    members: int,
    *,
    episodes: int = 1,
    window: int | None = None,
    alike: Literal["none", "pairs", "all"] = "all",
    params: Callable[[Any, Inner], Any] = lambda params, inner: params,
    **options: Any,
) -> Outer:
    """Any distribution-based algorithm of `evosax`, around the problem's start: ``algorithm(population_size=members,
    solution=..., **options)``. ``params``: its parameters, from its default ones.

    A loss that is not finite counts as the largest of its step that is. Raises `SimulationError` where ``members`` is
    odd and they come in pairs; `openai_es`, `pes` and `cma_es` also where evosax is not installed.
    """
    if members < 2 or (alike == "pairs" and members % 2):
        raise SimulationError(f"members={members} must be at least 2{' and even' * (alike == 'pairs')}")

    def of(inner: Inner) -> Loop:
        made = algorithm(population_size=members, solution=inner.start, **options)
        given = params(made.default_params, inner)

        def init(key: PRNGKeyArray) -> Any:
            return made.init(key, inner.start, given)

        def ask(state: Any, key: PRNGKeyArray) -> tuple[Theta, Any]:
            return made.ask(key, state, given)  # type: ignore[no-any-return]

        def tell(state: Any, thetas: Theta, losses: Losses, gradients: Theta, key: PRNGKeyArray) -> Any:
            worst = jnp.max(losses, initial=-jnp.inf, where=jnp.isfinite(losses))
            losses = jnp.where(jnp.isfinite(losses), losses, jnp.where(jnp.isfinite(worst), worst, 0.0))
            return made.tell(key, thetas, losses, state, given)[0]

        return Loop(members, episodes, window, alike, False, init, ask, tell, made.get_mean)

    return of


def openai_es(
    members: int = 64,
    sigma: float = 0.05,
    optimiser: optax.GradientTransformation | None = None,
    *,
    episodes: int = 1,
    window: int | None = None,
    ranks: bool = True,
) -> Outer:
    r"""Evolution strategies with antithetic pairs:

    (1)  :math:`\hat g = \frac{1}{N\sigma} \sum_i F_i\,\epsilon_i`, :math:`\epsilon_i \sim N(0, 1)`,
         :math:`\epsilon_{i + N/2} = -\epsilon_i`

    F is the loss at :math:`\theta + \sigma\epsilon_i`, or with ``ranks`` its rank among the members, from -1/2 to 1/2.
    With a ``window`` it is the truncated strategy: biased as the truncated gradient is.

    Source: Salimans, Ho, Chen, Sidor & Sutskever, arXiv:1703.03864 (2017); the algorithm is evosax's.
    """
    algorithms, shaping = _evosax("algorithms"), _evosax("core.fitness_shaping")
    return evolution(
        algorithms.Open_ES, members, episodes=episodes, window=window, alike="pairs",
        std_schedule=optax.constant_schedule(sigma), optimizer=optax.adam(1e-2) if optimiser is None else optimiser,
        fitness_shaping_fn=shaping.centered_rank_fitness_shaping_fn if ranks else shaping.identity_fitness_shaping_fn,
    )  # fmt: skip


def pes(
    members: int = 64,
    sigma: float = 0.05,
    optimiser: optax.GradientTransformation | None = None,
    *,
    episodes: int = 1,
    window: int = 1,
) -> Outer:
    r"""Persistent evolution strategies: unbiased although a step is only a part of the inner problem.

    (1)  :math:`\xi_i \leftarrow \xi_i + \epsilon_i`, from 0 where the inner problem begins
    (2)  :math:`\hat g = \frac{1}{N\sigma^2} \sum_i L_i\,\xi_i`, :math:`\epsilon_i \sim N(0, \sigma^2)` in antithetic
         pairs, L the loss of the window at :math:`\theta + \epsilon_i`

    Each member's inner problem goes on from step to step. Source: Vicol, Metz & Sohl-Dickstein, Unbiased gradient
    estimation in unrolled computation graphs with persistent evolution strategies, ICML (2021); the algorithm is
    evosax's.
    """
    return evolution(
        _evosax("algorithms").PersistentES, members, episodes=episodes, window=window, alike="pairs",
        params=lambda params, inner: params.replace(T=inner.segments, K=window),
        std_schedule=optax.constant_schedule(sigma), optimizer=optax.adam(1e-2) if optimiser is None else optimiser,
    )  # fmt: skip


def cma_es(members: int = 32, sigma: float = 0.1, *, episodes: int = 1) -> Outer:
    """Covariance matrix adaptation, from the standard deviation ``sigma`` in all directions.

    Source: Hansen, arXiv:1604.00772 (2016); the algorithm is evosax's.
    """
    return evolution(
        _evosax("algorithms").CMA_ES, members, episodes=episodes,
        params=lambda params, _: params.replace(std_init=jnp.asarray(sigma)),
    )  # fmt: skip


def _evosax(part: str) -> Any:
    """A part of evosax, of which nothing is imported before it is asked for. Raises `SimulationError` without it."""
    try:
        return importlib.import_module(f"evosax.{part}")
    except ImportError as error:
        raise SimulationError("evolution strategies need evosax: pip install 'engrax[meta]'") from error
