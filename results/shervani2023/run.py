"""Shervani-Tabar & Rosenbaum (2023): random feedback that learns as fast as backpropagation. See README.md."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jaxtyping import Array, Float

from engrax import Fields, meta, networks as nets, rules
from engrax.networks.feedback import Feedback

from ..choices import check, run_parts
from ..classification import mean_and_error, pooled

BOUND = 2.0  # of weights: what a bad rule may do
WAYS = 5  # classes of an episode
QUERIES = 10  # images of each class on which it is judged
FIRST = 1e-2  # the coefficient of the pseudo-gradient at first
RATE = 1e-3  # of Adam at first; it falls to 0
IMAGES = 1000  # of each class, at most, from which those of an episode are drawn
SEGMENTS = 5  # of a test episode: how often one looks

Images = Float[Array, "classes images pixels"]


@dataclass(frozen=True)
class Method:
    """``terms`` of the pool beside the pseudo-gradient; ``penalty``: the L1 penalty per step, of Adam's rate."""

    feedback: Feedback
    terms: tuple[str, ...] = ()
    penalty: float = 0.0


METHODS = {
    "backprop": Method("symmetric"),
    "random": Method("random"),
    "random, Oja and eHebb": Method("random", ("1", "2")),
    "random, pool": Method("random", tuple("123456789"), penalty=0.2),
}


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    methods: tuple[str, ...] = tuple(METHODS),
    sizes: tuple[int, ...] = (60, 50, 40),
    updates: int = 250,
    steps: int = 100,
    episodes: int = 50,
) -> dict[str, Any]:
    """Learn the coefficients of each of the ``methods`` in ``steps`` episodes of Fashion-MNIST, each of ``updates``
    images, with hidden layers of these ``sizes``; test them in so many ``episodes`` of MNIST. Writes shervani2023.png
    and metrics.json.

    ``quick`` takes scikit-learn's small digits, two methods, small layers and few episodes.
    """
    check("method", methods, METHODS)
    if quick:
        methods, sizes, updates, steps, episodes = methods[:2], (20, 15), 50, 20, 10
        digits = nets.digits()
        learning, testing = (by_class(x, y) for x, y in ((digits.train_x, digits.train_y),
                                                         (digits.test_x, digits.test_y)))  # fmt: skip
    else:
        learning, testing = (by_class(pooled(d.train_x, 14), d.train_y) for d in (nets.fashion_mnist(), nets.mnist()))
    found: dict[str, Any] = {}

    def one(name: str) -> dict[str, Any]:
        found[name] = tried(METHODS[name], learning, testing, sizes, updates, steps, episodes, seed)
        return {name: described(found[name], found.get("backprop"))}

    metrics = run_parts(out, methods, {name: functools.partial(one, name) for name in methods})
    figure(out / "shervani2023.png", metrics, updates)
    return metrics


def tried(
    method: Method,
    learning: Images,
    testing: Images,
    sizes: tuple[int, ...],
    updates: int,
    steps: int,
    episodes: int,
    seed: int,
) -> dict[str, Any]:
    """The coefficients that the method learned, and what it does in each test episode: accuracy and angles (degrees)
    after every fifth of the updates."""
    rule = rules.Pool(theta=Fields({"0": FIRST, **dict.fromkeys(method.terms, 0.0)}))
    bounded = rules.Bounded(rule, -BOUND, BOUND)
    net = nets.echoing_perceptron((learning.shape[-1], *sizes, WAYS), bounded, feedback=method.feedback)
    shots = updates // WAYS
    inner = meta.Learning(net, rule, few_shot(learning, shots, cross_entropy), units=updates, fixed=("eta",))
    rate = optax.cosine_decay_schedule(RATE, steps)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(rate), meta.shrinking(lambda n: method.penalty * rate(n))
    )
    learned = meta.train(inner, meta.gradient(optimiser, episodes=1), steps=steps, seed=seed)
    tests = meta.Learning(
        net, rule, few_shot(testing, shots, looked), units=updates // SEGMENTS, segments=SEGMENTS, fixed=("eta",)
    )

    seen = meta.evaluate(tests, learned.theta, jax.random.split(jax.random.key(seed + 1), episodes), together=1)
    return {
        "theta": {name: float(value) for name, value in learned.learned.theta.items()},
        "loss": float(learned.losses[-max(steps // 5, 1) :].mean()),
        **seen,
    }


def few_shot(data: Images, shots: int, judged: Any) -> meta.inner.Task:
    """Classes drawn and numbered at random, of which ``shots`` images each are shown in random order, one a tick;
    others are what ``judged(learnt, images, classes)`` judges by."""

    def task(key: Any) -> meta.Episode:
        one, two, three = jax.random.split(key, 3)
        classes = jax.random.permutation(one, data.shape[0])[:WAYS]
        chosen = jax.vmap(lambda k: jax.random.permutation(k, data.shape[1])[: shots + QUERIES])(
            jax.random.split(two, WAYS)
        )
        images = data[classes[:, None], chosen]
        order = jax.random.permutation(three, WAYS * shots)
        drive = {"input": joined(images[:, :shots])[order], "output.target": labels(shots)[order]}
        return meta.Episode(drive, lambda learnt: judged(learnt, joined(images[:, shots:]), labels(QUERIES)))

    return task


def joined(images: Images) -> Float[Array, "all pixels"]:
    return images.reshape(-1, images.shape[-1])


def labels(each: int) -> Float[Array, "all ways"]:
    return jnp.repeat(jnp.eye(WAYS), each, axis=0)


def cross_entropy(learnt: meta.Learnt, images: Any, classes: Any) -> Any:
    said = learnt.respond({"input": images[None]}, "output.x")[0]
    return -jnp.mean(jnp.sum(classes * jnp.log(said + 1e-12), 1))


def looked(learnt: meta.Learnt, images: Any, classes: Any) -> dict[str, Any]:
    """Accuracy, and for each hidden layer the mean angle (degrees) between the errors that arrive there and those that
    would by the transpose of the forward weights."""
    circuit = learnt.problem.network.circuit
    hidden = [name for name in circuit.populations if name.startswith("hidden")]
    fields = ["output.x", "output.error", *(f"{name}.{field}" for name in hidden for field in ("error", "slope"))]
    drive = {"input": images[None], "output.target": classes[None]}
    said, error, *rest = (values[0] for values in learnt.respond(drive, *fields))
    angles, above = [], "output"
    for name, own, slope in reversed(list(zip(hidden, rest[::2], rest[1::2], strict=True))):
        error = slope * (error @ learnt.w(f"{name}->{above}"))
        cosine = jnp.sum(own * error, 1) / (jnp.linalg.norm(own, axis=1) * jnp.linalg.norm(error, axis=1) + 1e-30)
        angles.append(jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1))).mean())
        above = name
    return {"accuracy": jnp.mean(said.argmax(1) == classes.argmax(1)), "angles": jnp.stack(angles[::-1])}


def by_class(x: np.ndarray, y: np.ndarray) -> Images:
    """As many images of every class as the rarest has, but not more than ``IMAGES``."""
    each = [x[y == label][:IMAGES] for label in np.unique(y)]
    return jnp.asarray(np.stack([images[: min(map(len, each))] for images in each]), jnp.float32)


def described(found: Mapping[str, Any], reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """Means over the test episodes with standard errors; accuracy less that of the ``reference`` in the same."""
    accuracy, angles = found["accuracy"], found["angles"]
    less = (
        {}
        if reference is None
        else {"less than backprop": mean_and_error(reference["accuracy"][:, -1] - accuracy[:, -1])}
    )
    return {
        "theta": found["theta"],
        "loss": found["loss"],
        "accuracy": mean_and_error(accuracy[:, -1]),
        "angles": [mean_and_error(angles[:, -1, layer]) for layer in range(angles.shape[-1])],
        "course": {"accuracy": accuracy.mean(0).tolist(), "angle": angles.mean((0, 2)).tolist()},
        **less,
    }


def figure(path: Path, metrics: Mapping[str, Any], updates: int) -> None:
    drawing, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    at = updates // SEGMENTS * np.arange(1, SEGMENTS + 1)
    for number, (name, one) in enumerate(metrics.items()):
        style = {"color": f"C{number}", "label": name, "linestyle": "--" if name.startswith("backprop") else "-"}
        left.plot(at, 100 * np.asarray(one["course"]["accuracy"]), marker=".", **style)
        middle.plot(at, one["course"]["angle"], marker=".", **style)
    left.axhline(100 / WAYS, color="0.7", linestyle=":")
    left.set(xlabel="images seen", ylabel="test accuracy (%)", ylim=(0, 100))
    middle.set(xlabel="images seen", ylabel="errors' angle to backprop's (°)", ylim=(-3, 93))
    left.legend(frameon=False, fontsize=7)
    largest = max(metrics, key=lambda name: len(metrics[name]["theta"]))
    theta = metrics[largest]["theta"]
    right.bar(list(theta), list(theta.values()), color=f"C{list(metrics).index(largest)}")
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="term", ylabel="learned coefficient", title=largest)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
