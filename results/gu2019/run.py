"""After Gu et al. (2019): a learned rule of neurons that hear those below, above and beside them, with few labels. See
README.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from engrax import meta, networks as nets, rules

from ..choices import run_parts
from ..classification import mean_and_error

PARTS = ("compare", "picture")
DRAWS: dict[str, Callable[..., Any]] = {"two moons": meta.tasks.two_moons, "two Gaussians": meta.tasks.two_gaussians}
SIZES = (3, 20, 20, 2)  # a point and a 1, hidden cells, classes
TOP = f"layer{len(SIZES) - 1}"
CHANNELS, ETA, LABELS = 2, 0.03, 20
BACKPROP = 300  # steps of Adam


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    steps: int = 400,
    episodes: int = 8,
    ticks: int = 150,
    tests: int = 200,
    lateral: bool = False,
) -> dict[str, Any]:
    """Learn a rule over moons and clouds of any direction; hold it to backpropagation with the same labels."""
    if quick:
        steps, ticks, tests = min(steps, 10), min(ticks, 50), min(tests, 20)
    neuron = beginning(seed)
    net = network(neuron, lateral)

    def problem(draw: Any, **options: Any) -> meta.Learning:
        task = meta.tasks.SemiSupervised(draw, output=TOP, labels=LABELS, **options)
        return meta.Learning(net, neuron, task, units=ticks, fixed=("scale",))

    slope = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, steps)))
    found = meta.train(problem(either), meta.gradient(slope, episodes=episodes), steps=steps, seed=seed,
                       checkpoint=out / "meta.h5", progress=True)  # fmt: skip
    keys = jax.random.split(jax.random.key(7), tests)

    def compared() -> dict[str, Any]:
        right: dict[str, Any] = {"loss": [float(v) for v in found.losses.mean(1)]}
        for name, draw in DRAWS.items():
            tried = problem(draw, score=lambda loss, right: right)
            each = {
                way: _tried(tried, theta, keys) for way, theta in (("learned", found.theta), ("start", tried.start))
            }
            each |= {way: jax.lax.map(jax.jit(function(tried.task)), keys) for way, function in REFERENCES.items()}
            right[name] = {way: mean_and_error(np.asarray(values, float)) for way, values in each.items()}
        return right

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "compare": compared,
        "picture": lambda: {"picture": picture(out / "gu2019.png", problem, found.theta)},
    }
    metrics = run_parts(out, parts, work)
    saved = out / "rule.json"
    saved.unlink(missing_ok=True)
    meta.save({"neuron": found.learned, **wrapped()}, saved, f"After Gu et al. (2019): {steps} steps, seed {seed}")
    return metrics


def beginning(seed: int) -> nets.LearnedNeuron:
    """Nearly Hebb's rule with a teacher: c = what comes from above = what goes below, e = x; and random numbers."""
    neuron = nets.LearnedNeuron.make(12, CHANNELS, seed=seed)
    linear = 0.3 * np.asarray(neuron.linear)
    linear[0, 2] += 1.0
    linear[CHANNELS, 0] += 1.0
    linear[2 * CHANNELS, 2] += 1.0
    return eqx.tree_at(lambda n: n.linear, neuron, linear)  # type: ignore[no-any-return]


def wrapped() -> dict[str, Any]:
    """The rules of what goes forward, back and to the side; a cell's afferents of each kind have a length of 1."""
    forward = rules.Normalised(rules.Metz2018(eta=ETA, channels=CHANNELS))
    back = rules.Normalised(rules.Metz2018Backward(eta=ETA, channels=CHANNELS))
    return {"forward": forward, "back": back, "lateral": forward}


def network(neuron: nets.LearnedNeuron, lateral: bool) -> Any:
    of = wrapped()
    beside = of["lateral"] if lateral else None
    return nets.learned_layers(SIZES, neuron, of["forward"], of["back"], lateral=beside, weights=nets.UnitRows())


def either(key: Any) -> Any:
    """Moons or clouds."""
    moons, clouds = (draw(key) for draw in DRAWS.values())
    which = jax.random.bernoulli(jax.random.fold_in(key, 1))
    return lambda own, y: jnp.where(which, moons(own, y), clouds(own, y))


def _tried(problem: meta.Learning, theta: Any, keys: Any) -> Any:
    one = jax.jit(lambda key: problem.advance(theta, problem.begin(theta, key))[1])
    return jax.lax.map(one, keys)


def backpropagation(task: Any) -> Callable[[Any], Any]:
    """The same layers by Adam on the same labels, all at once."""

    def right(key: Any) -> Any:
        _, (x, y), (x_test, y_test) = task.draw(meta.inner.task_key(key))
        model = eqx.nn.MLP(2, 2, SIZES[1], len(SIZES) - 2, key=key)
        numbers, rest = eqx.partition(model, eqx.is_inexact_array)
        adam = optax.adam(1e-2)

        def step(carry: Any, _: None) -> Any:
            numbers, memory = carry

            def loss(numbers: Any) -> Any:
                said = jax.vmap(eqx.combine(numbers, rest))(x)
                return optax.softmax_cross_entropy_with_integer_labels(said, y).mean()

            updates, memory = adam.update(jax.grad(loss)(numbers), memory)
            return (optax.apply_updates(numbers, updates), memory), None

        (numbers, _), _ = jax.lax.scan(step, (numbers, adam.init(numbers)), None, length=BACKPROP)
        return jnp.mean(jnp.argmax(jax.vmap(eqx.combine(numbers, rest))(x_test), -1) == y_test)

    return right


def linear(task: Any) -> Callable[[Any], Any]:
    """Ridge regression from the points themselves."""

    def right(key: Any) -> Any:
        _, few, many = task.draw(meta.inner.task_key(key))
        return meta.tasks.ridge(few, many, 2)[1]

    return right


def random_features(task: Any) -> Callable[[Any], Any]:
    """Ridge regression from the last hidden layer of a random network."""

    def right(key: Any) -> Any:
        _, (x, y), (x_test, y_test) = task.draw(meta.inner.task_key(key))
        features = jax.vmap(eqx.nn.MLP(2, SIZES[2], SIZES[1], 1, final_activation=jax.nn.relu, key=key))
        return meta.tasks.ridge((features(x), y), (features(x_test), y_test), 2)[1]

    return right


REFERENCES = {"backpropagation": backpropagation, "random features": random_features, "linear": linear}


def picture(path: Path, problem: Any, theta: Mapping[str, Any]) -> str:
    """What the network says of the plane after an episode, with the labels that it had."""
    drawn, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    side = np.linspace(-2.2, 2.2, 81, dtype=np.float32)
    plane = np.stack(np.meshgrid(side, side), -1).reshape(1, -1, 2)
    plane = np.concatenate([plane, np.ones((1, len(side) ** 2, 1), np.float32)], -1)
    for axis, (name, draw) in zip(axes, DRAWS.items(), strict=True):
        key = jax.random.key(3)
        tried = problem(draw)
        _, (x, y), (new, _) = tried.task.draw(meta.inner.task_key(key))
        life, _ = jax.jit(tried.advance)(theta, tried.begin(theta, key))
        said = tried.learnt(theta, life).respond({"input": plane}, f"{TOP}.z")[0]
        said = np.asarray(said[:, 1] - said[:, 0])
        axis.contourf(side, side, said.reshape(81, 81), levels=20, cmap="RdBu", vmin=-2, vmax=2, alpha=0.6)
        axis.scatter(*np.asarray(new).T, s=6, color="0.4", label="without a label")
        axis.scatter(*np.asarray(x).T, s=45, c=np.asarray(y), cmap="RdBu", edgecolors="k", label="with one")
        axis.set(title=name, aspect="equal", xlabel="x", ylabel="y")
    axes[0].legend(loc="upper left", fontsize="small")
    drawn.savefig(path, dpi=150)
    plt.close(drawn)
    return path.name
