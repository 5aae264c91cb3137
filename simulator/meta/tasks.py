"""Distributions of tasks over which rules are learned: each function here makes a task (see `Episode`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..networks.sources import Gaussian
from .inner import Episode, Learnt, Loss, Task

Batch = tuple[Float[Array, "samples n"], Int[Array, " samples"]]
Augment = Callable[[PRNGKeyArray, Float[Array, "samples n"]], Float[Array, "samples n"]]


def ridge(fit: Batch, test: Batch, classes: int, strength: Any = 0.3) -> tuple[Array, Array]:
    r"""The linear read-out of few labelled samples: Metz et al.'s loss, and the part of the test samples that it has
    right.

    (1)  :math:`V = (A^T A + \lambda\,\mathrm{diag}(1 .. 1, 0))^{-1} A^T Y`, with A the features and a column of ones
    (2)  :math:`L = \langle |\hat y / |\hat y| - y|^2 \rangle + \lambda |V|^2 / B`

    Y: the classes as ones, less their mean, of length 1; the features are scaled to a mean square length of 1. With
    several strengths :math:`\lambda` there are both for each. Source: Metz et al., ICLR (2019), section 3.3.
    """
    if jnp.ndim(strength):
        return jax.vmap(lambda one: ridge(fit, test, classes, one))(jnp.asarray(strength))
    target = jnp.eye(classes) - 1 / classes
    target = target / jnp.linalg.norm(target[0])
    unit = jax.lax.rsqrt(jnp.mean(jnp.sum(fit[0] ** 2, -1)) + 1e-12)
    a, b = (_with_one(unit * x) for x, _ in (fit, test))
    penalty = strength * jnp.append(jnp.ones(a.shape[1] - 1), 1e-6)
    v = jnp.linalg.solve(a.T @ a + jnp.diag(penalty), a.T @ target[fit[1]])
    said = b @ v
    unit = said / jnp.sqrt(jnp.sum(said**2, -1, keepdims=True) + 1e-12)
    loss = jnp.mean(jnp.sum((unit - target[test[1]]) ** 2, -1)) + strength * jnp.sum(v**2) / len(b)
    return loss, jnp.mean(jnp.argmax(said @ target.T, -1) == test[1])


class FewShot:
    """Learn without labels what makes few labels enough, as Metz et al. do: a task.

    An episode draws one of the ``sources`` (samples and their classes), ``classes`` of its classes, and an order of the
    inputs; the population ``input`` sees ``batch`` samples of these classes a tick. The loss is `ridge` from what the
    population ``layer`` makes of ``shots`` samples a class, on as many others, which it does not see before, with this
    ``strength``; or of that loss and the part that is right what ``score`` makes. ``shuffle=False``: the inputs stay in
    their order. ``augment``: makes of a random key and of samples what is shown and asked for in their place, before
    the inputs are put in order (`shifts`).

    Raises ``ValueError`` if a source has too few classes, or too few samples of one, and if the sources differ in the
    number of inputs.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Float[np.ndarray, "rows n"], Int[np.ndarray, " rows"]]],
        *,
        layer: str,
        classes: int = 5,
        shots: int = 10,
        batch: int = 32,
        strength: Any = 0.3,
        shuffle: bool = True,
        augment: Augment = lambda key, x: x,
        score: Callable[[Array, Array], Array] = lambda loss, right: loss,
    ) -> None:
        self.layer, self.classes, self.shots, self.batch = layer, classes, shots, batch
        self.strength, self.shuffle, self.augment, self.score = strength, shuffle, augment, score
        parts = [_by_class(x, y, classes, 2 * shots) for x, y in sources]
        widths = {part.shape[1] for classes_ in parts for part in classes_}
        if len(widths) != 1:
            raise ValueError(f"the sources differ in the number of inputs: {sorted(widths)}")
        self.inputs = widths.pop()
        most = max(len(part) for of in parts for part in of)
        self._x = np.zeros((len(parts), max(map(len, parts)), most, self.inputs), np.float32)
        self._counts = np.zeros(self._x.shape[:2], int)
        for k, of in enumerate(parts):
            for c, part in enumerate(of):
                self._x[k, c, : len(part)], self._counts[k, c] = part, len(part)

    def draw(self, key: PRNGKeyArray) -> tuple[Callable[[Any, PRNGKeyArray], Array], Batch, Batch]:
        """The samples without labels, as a source of (index, key), and those with labels, to fit and to test."""
        which, chosen, order, apart = jax.random.split(key, 4)
        source = jax.random.randint(which, (), 0, len(self._x))
        x, counts = jnp.asarray(self._x), jnp.asarray(self._counts)[source]
        of = jnp.argsort(jnp.where(counts > 0, jax.random.uniform(chosen, counts.shape), jnp.inf))[: self.classes]
        permutation = jax.random.permutation(order, self.inputs) if self.shuffle else jnp.arange(self.inputs)
        first = jax.random.randint(apart, (self.classes,), 0, counts[of])  # from here on, round and round
        held = 2 * self.shots

        def samples(label: Array, place: Array, key: PRNGKeyArray) -> Array:
            rows = x[source, of[label], (first[label] + place) % counts[of[label]]]
            return self.augment(key, rows)[..., permutation]

        def seen(index: Any, key: PRNGKeyArray) -> Array:
            one, other = jax.random.split(key)
            label = jax.random.randint(one, (self.batch,), 0, self.classes)
            place = held + jax.random.randint(other, (self.batch,), 0, counts[of[label]] - held)
            return samples(label, place, jax.random.fold_in(key, 1))

        labels = jnp.repeat(jnp.arange(self.classes), self.shots)
        places = jnp.tile(jnp.arange(self.shots), self.classes)
        fit, test = (samples(labels, k * self.shots + places, jax.random.fold_in(key, k)) for k in (0, 1))
        return seen, (fit, labels), (test, labels)

    def __call__(self, key: PRNGKeyArray) -> Episode:
        seen, (fit, labels), (test, _) = self.draw(key)

        def loss(learnt: Learnt) -> Array:
            made = learnt.respond({"input": jnp.concatenate([fit, test])[None]}, f"{self.layer}.x")[0]
            a, b = jnp.split(made, 2)
            return self.score(*ridge((a, labels), (b, labels), self.classes, self.strength))

        return Episode({"input": seen}, loss)


def shifts(side: int, most: int = 1) -> Augment:
    """Moves each square image of ``side`` x ``side`` inputs by up to ``most`` of them along both axes; 0 comes in."""

    def augment(key: PRNGKeyArray, x: Float[Array, "samples n"]) -> Float[Array, "samples n"]:
        def moved(image: Array, start: Array) -> Array:
            padded = jnp.pad(image.reshape(side, side), most)
            return jax.lax.dynamic_slice(padded, start, (side, side)).ravel()

        return jax.vmap(moved)(x, jax.random.randint(key, (len(x), 2), 0, 2 * most + 1))

    return augment


def gaussian_mixture(
    seed: int, n: int = 64, *, classes: int = 10, rank: int = 6, rows: int = 200
) -> tuple[Float[np.ndarray, "samples n"], Int[np.ndarray, " samples"]]:
    r"""Gaussian clouds, so many ``rows`` of each of the ``classes``, as a source for `FewShot`:

    (1)  :math:`x = A (\mu_c + 0.6\,\xi) + 0.7\,B \eta + \nu`

    The centres, normal with a deviation of 1.5, lie in few dimensions (``rank``); as many others, B, say nothing and
    are strong. A, B and all noises are standard normal.
    """
    rng = np.random.default_rng(seed)
    useful, idle = rng.normal(size=(2, rank, n))
    y = np.repeat(np.arange(classes), rows)
    centres = 1.5 * rng.normal(size=(classes, rank))
    x = (centres[y] + 0.6 * rng.normal(size=(len(y), rank))) @ useful
    x += 0.7 * rng.normal(size=(len(y), rank)) @ idle + rng.normal(size=(len(y), n))
    return x, y


def _by_class(x: Any, y: Any, classes: int, least: int) -> list[np.ndarray]:
    labels = np.unique(y)
    parts = [np.asarray(x, np.float32)[np.asarray(y) == label] for label in labels]
    if len(parts) < classes or min(map(len, parts)) <= least:
        raise ValueError(f"a source needs {classes} classes with more than {least} samples each")
    return parts


Points = Callable[[PRNGKeyArray, Int[Array, " samples"]], Float[Array, "samples 2"]]


def two_moons(key: PRNGKeyArray, noise: float = 0.1) -> Points:
    """Points of a plane in two half circles that interlock, turned by a random angle: a function of a random key and
    of the classes, 0 or 1, of the points wanted."""
    turned = _rotation(key)

    def points(key: PRNGKeyArray, y: Int[Array, " samples"]) -> Float[Array, "samples 2"]:
        one, other = jax.random.split(key)
        t = jnp.pi * jax.random.uniform(one, y.shape)
        x = jnp.where(y == 0, jnp.stack([jnp.cos(t), jnp.sin(t)]), jnp.stack([1 - jnp.cos(t), 0.5 - jnp.sin(t)]))
        return ((x.T - jnp.array([0.5, 0.25])) + noise * jax.random.normal(other, (len(y), 2))) @ turned

    return points


def two_gaussians(key: PRNGKeyArray, distance: float = 1.0, deviations: tuple[float, float] = (0.6, 0.15)) -> Points:
    """Points of a plane in two clouds, ``distance`` times a random vector of length 1 either side of the origin, both
    with these standard deviations along two random directions: see `two_moons`."""
    one, other = jax.random.split(key)
    mean, spread = distance * _rotation(one)[0], _rotation(other) * jnp.asarray(deviations)[:, None]

    def points(key: PRNGKeyArray, y: Int[Array, " samples"]) -> Float[Array, "samples 2"]:
        return (2 * y[:, None] - 1) * mean + jax.random.normal(key, (len(y), 2)) @ spread

    return points


def _rotation(key: PRNGKeyArray) -> Float[Array, "2 2"]:
    angle = 2 * jnp.pi * jax.random.uniform(key)
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])])


class SemiSupervised:
    """Tell two classes of points apart when few of them have labels: a task.

    An episode draws the classes (``draw``: `two_moons`, `two_gaussians`) and so many ``labels``, half of each class.
    In a tick the population ``input`` sees a batch, of which ``told`` points are of those with labels and the others
    new ones; its inputs are the point and a 1. The two cells of the population ``output`` hear at the port ``apical``
    1 and -1 for the class where there is a label, and 0. The loss is the cross-entropy of so many ``tests``, by the
    softmax of ``gain`` times the drive of the outputs; or of that and of the part that is right what ``score`` makes.
    """

    def __init__(
        self,
        draw: Callable[[PRNGKeyArray], Points],
        *,
        output: str,
        labels: int = 10,
        told: int = 4,
        batch: int = 16,
        tests: int = 128,
        gain: float = 5.0,
        score: Callable[[Array, Array], Array] = lambda loss, right: loss,
    ) -> None:
        if not 0 < told <= batch or labels < 2:
            raise ValueError(f"labels={labels} and told={told}: two labels at least, and 1 to {batch} of a batch told")
        self.points, self.output, self.labels, self.told = draw, output, labels, told
        self.batch, self.tests, self.gain, self.score = batch, tests, gain, score

    def draw(self, key: PRNGKeyArray) -> tuple[Points, Batch, Batch]:
        """The distribution, the points with labels, and those to test."""
        which, one, other = jax.random.split(key, 3)
        points = self.points(which)
        few, many = jnp.arange(self.labels) % 2, jnp.arange(self.tests) % 2
        return points, (points(one, few), few), (points(other, many), many)

    def __call__(self, key: PRNGKeyArray) -> Episode:
        points, (x, y), (x_test, y_test) = self.draw(key)

        def shown(index: Any, key: PRNGKeyArray) -> tuple[Array, Array]:
            own = jax.random.fold_in(key, index)
            which, classes, new = jax.random.split(own, 3)
            chosen = jax.random.randint(which, (self.told,), 0, self.labels)
            others = jax.random.randint(classes, (self.batch - self.told,), 0, 2)
            seen = jnp.concatenate([x[chosen], points(new, others)])
            label = jnp.concatenate([2.0 * y[chosen] - 1, jnp.zeros(len(others))])
            return _with_one(seen), jnp.stack([-label, label], -1)

        drive = {
            "input": lambda index, _: shown(index, key)[0],
            f"{self.output}.apical": lambda index, _: shown(index, key)[1],
        }

        def loss(learnt: Learnt) -> Array:
            said = self.gain * learnt.respond({"input": _with_one(x_test)[None]}, f"{self.output}.z")[0]
            surprise = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(said), y_test[:, None], 1))
            return self.score(surprise, jnp.mean(jnp.argmax(said, -1) == y_test))

        return Episode(drive, loss)


def _with_one(x: Float[Array, "samples n"]) -> Float[Array, "samples n+1"]:
    return jnp.append(x, jnp.ones((len(x), 1), x.dtype), 1)


def principal_components(
    inputs: str,
    projections: Sequence[str],
    n: int,
    *,
    batch: int = 10,
    variance: tuple[float, float] = (0.5, 2.0),
    ratio: tuple[float, float] = (0.3, 0.6),
) -> Task:
    r"""To find the principal components of inputs with a covariance that is drawn anew for every episode:

    (1)  :math:`C = \sum_k \lambda_k q_k q_k^\top`, Q a random rotation of n dimensions, :math:`\lambda_k = s\,r^{k-1}`

    (2)  :math:`L = \frac1K \sum_k \min_\pm |w_k \mp q_k|^2`

    The greatest variance s and the ratio r of neighbours are drawn uniformly from ``variance`` and ``ratio``. The
    weights :math:`w_k` of cell k are the rows of ``projections``, one after the other, onto one population or several;
    ``inputs`` is the population that all come from, driven with ``batch`` samples a tick.
    """

    def task(key: PRNGKeyArray) -> Episode:
        one, two, three = jax.random.split(key, 3)
        directions = jax.random.orthogonal(one, n).T
        falling = jax.random.uniform(two, minval=ratio[0], maxval=ratio[1]) ** jnp.arange(n)
        variances = jax.random.uniform(three, minval=variance[0], maxval=variance[1]) * falling

        def loss(learnt: Learnt) -> Loss:
            w = jnp.concatenate([learnt.w(name) for name in projections])
            return jnp.mean(apart(w, directions[: len(w)]))

        return Episode({inputs: Gaussian(directions.T * jnp.sqrt(variances), batch)}, loss)

    return task


def apart(w: Float[Array, "k n"], directions: Float[Array, "k n"]) -> Float[Array, " k"]:
    """Squared distances of the rows to the directions, of either sign."""
    return jnp.minimum(jnp.sum((w - directions) ** 2, 1), jnp.sum((w + directions) ** 2, 1))


def target_rate(inputs: Callable[[PRNGKeyArray], Mapping[str, Any]], field: str, rate: float) -> Task:
    r"""To bring cells to a target rate :math:`\rho`, whatever drives them:

    (1)  :math:`L = \langle (r_i / \rho - 1)^2 \rangle_i`

    ``inputs`` draws the drive of an episode. :math:`r_i` is what the ``field`` of cell i is at the end of a segment,
    averaged over the batch where there is one: its output, or for spikes what a cell with a long memory makes of them.
    """

    def task(key: PRNGKeyArray) -> Episode:
        def loss(learnt: Learnt) -> Loss:
            found = learnt.x(field)
            return jnp.mean((found.reshape(-1, found.shape[-1]).mean(0) / rate - 1) ** 2)

        return Episode(inputs(key), loss)

    return task
