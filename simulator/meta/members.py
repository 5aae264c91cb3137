"""The members of a step, each with its own theta and inner problems: in one program, or in slices over a cluster."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ..cluster import Slices, cuts, joined
from .genome import Coded, Subspace, Varied
from .inner import Inner, Theta

Each = Float[np.ndarray, "members episodes"]


class Members:
    """All members in one vectorised program."""

    def __init__(self, inner: Inner, window: int, gradient: bool) -> None:
        self._inner = inner  # its programs live as long as it does
        self._begin, self._advance = _programs(inner, window, gradient)

    def begin(self, thetas: Theta, keys: Any) -> Any:
        """New inner problems: ``keys``, the data of a random key for each of (members, episodes)."""
        return self._begin(*_shared((thetas, keys)))

    def advance(self, thetas: Theta, lives: Any) -> tuple[Any, Each, Theta | None]:
        """A window of all of them: where they are then, the losses, and the mean over the episodes of the gradients."""
        lives, losses, gradients = self._advance(*_shared((thetas, lives)))
        return lives, np.asarray(losses), gradients


_COMPILED: weakref.WeakKeyDictionary[Inner, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _once(inner: Inner, name: Any, make: Callable[[Inner], Any]) -> Any:
    """What is compiled once for an inner problem, and forgotten with it."""
    known = _COMPILED.setdefault(inner, {})
    if name not in known:
        known[name] = make(weakref.proxy(inner))
    return known[name]


def evaluate(inner: Inner, theta: Theta, keys: PRNGKeyArray, *, together: int | None = None) -> Any:
    """The losses of whole problems with ``theta``, of which nothing is learned: one problem for each of the ``keys``.

    (keys, segments), or a pytree of such where the loss of the problem is one. So many problems run ``together``, all
    if not given. The program is compiled once for an inner problem.
    """
    program = _once(inner, "evaluate", _evaluating)
    return jax.device_get(program(theta, keys, len(keys) if together is None else together))


def _evaluating(inner: Inner) -> Any:
    def evaluated(theta: Theta, keys: PRNGKeyArray, together: int) -> Any:
        def one(key: PRNGKeyArray) -> Any:
            begun = inner.begin(theta, key)
            return jax.lax.scan(lambda state, _: inner.advance(theta, state), begun, None, length=inner.segments)[1]

        return jax.lax.map(one, keys, batch_size=together)

    return jax.jit(evaluated, static_argnums=2)


def _programs(inner: Inner, window: int, gradient: bool) -> tuple[Any, Any]:
    """``begin(thetas, keys)`` and ``advance(thetas, lives)``."""
    return _once(inner, (window, gradient), lambda own: _compiled(own, window, gradient))  # type: ignore[no-any-return]


def _compiled(inner: Inner, window: int, gradient: bool) -> tuple[Any, Any]:
    def unrolled(theta: Theta, life: Any) -> tuple[Any, Any]:
        def segment(life: Any, _: None) -> tuple[Any, Any]:
            return inner.advance(theta, life)

        life, losses = jax.lax.scan(segment, life, None, length=window)
        return losses.mean(), life

    def one(theta: Theta, life: Any) -> tuple[Any, Any, Any]:
        if not gradient:
            loss, life = unrolled(theta, life)
            return life, loss, None
        (loss, life), slope = jax.value_and_grad(unrolled, has_aux=True)(theta, life)
        return life, loss, slope

    def member(theta: Theta, lives: Any) -> tuple[Any, Any, Any]:
        lives, losses, slopes = jax.vmap(functools.partial(one, theta))(lives)
        return lives, losses, jax.tree.map(lambda slope: slope.mean(0), slopes)

    def begin(theta: Theta, keys: Any) -> Any:
        return jax.vmap(functools.partial(inner.begin, theta))(jax.random.wrap_key_data(keys))

    return jax.jit(_mapped(begin)), jax.jit(_mapped(member))


def _mapped(function: Any) -> Any:
    """Over the members; a single one as it is, for which products of matrices stay such."""

    def over(thetas: Theta, others: Any) -> Any:
        if len(jax.tree.leaves(thetas)[0]) > 1:
            return jax.vmap(function)(thetas, others)
        out = function(*jax.tree.map(lambda leaf: leaf[0], (thetas, others)))
        return jax.tree.map(lambda leaf: leaf[None], out)

    return over


def _shared(tree: Any) -> Any:
    """The members shared out over the devices, where these divide them."""
    count = jax.device_count()
    if count == 1 or len(jax.tree.leaves(tree)[0]) % count:
        return tree
    mesh = jax.make_mesh((count,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members")))  # type: ignore[no-untyped-call]


class Cluster:
    """The members (of a single one its episodes) in slices, each a program on one worker of a Dask cluster."""

    def __init__(self, inner: Inner, window: int, gradient: bool, client: Any, slices: int) -> None:
        self._run, self._slices = Slices(client, _by_name, inner, window, gradient), slices

    def begin(self, thetas: Theta, keys: Any) -> Any:
        return joined(self._each("begin", thetas, keys), self._axis(keys))

    def advance(self, thetas: Theta, lives: Any) -> tuple[Any, Each, Theta | None]:
        axis = self._axis(lives)
        parts = self._each("advance", thetas, lives)
        lives, losses = joined([part[:2] for part in parts], axis)
        slopes = [part[2] for part in parts]
        if slopes[0] is None or axis == 0:
            return lives, losses, None if slopes[0] is None else joined(slopes, 0)
        share = [part[1].shape[1] / losses.shape[1] for part in parts]
        mean = jax.tree.map(lambda *leaves: sum(s * leaf for s, leaf in zip(share, leaves, strict=True)), *slopes)
        return lives, losses, mean

    def _axis(self, lives: Any) -> int:
        """Which axis is cut: that of the members, or of the episodes of a single one."""
        return 0 if len(jax.tree.leaves(lives)[0]) > 1 else 1

    def _each(self, what: str, thetas: Theta, others: Any) -> list[Any]:
        axis = self._axis(others)
        thetas, others = jax.tree.map(np.asarray, (thetas, others))
        parts = []
        for cut in cuts(jax.tree.leaves(others)[0].shape[axis], self._slices):
            ours = jax.tree.map(lambda leaf, cut=cut: leaf[cut], thetas) if axis == 0 else thetas
            parts.append((what, ours, jax.tree.map(lambda leaf, cut=cut: np.take(leaf, cut, axis), others)))
        return self._run(parts)


class Decoding:
    """Members whose thetas say those of another problem: that one's programs serve genomes of all sizes."""

    def __init__(self, inner: Coded | Subspace, members: Members | Cluster) -> None:
        self._theta, self._members = jax.jit(jax.vmap(inner.theta)), members

    def begin(self, thetas: Theta, keys: Any) -> Any:
        return self._members.begin(self._theta(thetas), keys)

    def advance(self, thetas: Theta, lives: Any) -> tuple[Any, Each, None]:
        return *self._members.advance(self._theta(thetas), lives)[:2], None


class Choosing:
    """Members whose genomes choose among inner problems (`Varied`): those with the same choices together, by
    ``of(problem)``, in lots of an eighth of all members, filled up, so that each problem is compiled for one size. A
    life is a random key's data."""

    def __init__(self, inner: Varied, of: Callable[[Inner], Members | Cluster | Decoding]) -> None:
        self._inner, self._of = inner, of
        self._made: dict[Inner, Members | Cluster | Decoding] = {}

    def begin(self, thetas: Theta, keys: Any) -> Any:
        return keys

    def advance(self, thetas: Theta, lives: Any) -> tuple[Any, Each, None]:
        problems = [self._inner.variant(bits) for bits in np.asarray(thetas)]
        losses, lot = np.zeros(lives.shape[:2]), -(-len(lives) // 8)
        for problem in dict.fromkeys(problems):
            own = np.flatnonzero([other is problem for other in problems])
            if problem not in self._made:  # to make one may send the problem to a cluster
                self._made[problem] = self._of(problem)
            members = self._made[problem]
            for filled in np.resize(own, (-(-len(own) // lot), lot)):
                losses[filled] = members.advance(thetas[filled], members.begin(thetas[filled], lives[filled]))[1]
        return lives, losses, None


def _by_name(inner: Inner, window: int, gradient: bool) -> Callable[..., Any]:
    """The programs of an inner problem."""
    programs = dict(zip(("begin", "advance"), _compiled(inner, window, gradient), strict=True))
    return lambda what, thetas, others: programs[what](thetas, others)
