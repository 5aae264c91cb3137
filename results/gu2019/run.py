"""After Gu et al. (2019): a learned rule of neurons that hear those below, above and beside them, with few labels. See
README.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
CELLS, CHANNELS, ETA = 12, 2, 0.3
LABELS, TOLD = 20, 8  # points that have one, and of them how many in a tick's 16
WINDOWS = 4  # of an episode: a gradient goes back through one
BACKPROP = 300  # steps of Adam


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    steps: int = 400,
    episodes: int = 16,
    ticks: int = 200,
    tests: int = 200,
    lateral: bool = False,
) -> dict[str, Any]:
    """Learn a rule over moons and clouds of any direction; hold it to backpropagation with the same labels."""
    if quick:
        steps, ticks, tests = min(steps, 10), min(ticks, 50), min(tests, 20)
    neurons = beginning(seed)
    net, learned = network(neurons, lateral), neurons.learned()

    def problem(draw: Any, segments: int = 1, **options: Any) -> meta.Learning:
        task = meta.tasks.SemiSupervised(draw, output=TOP, labels=LABELS, told=TOLD, **options)
        return meta.Learning(
            net, learned, task, units=ticks // segments, segments=segments, fixed=("hidden.scale", "output.scale")
        )

    slope = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-4, steps)))
    outer = meta.gradient(slope, episodes=episodes, window=1)
    found = meta.train(problem(either, WINDOWS), outer, steps=steps, seed=seed,
                       checkpoint=out / "meta.h5", progress=True)  # fmt: skip
    keys = jax.random.split(jax.random.key(7), tests)

    def compared() -> dict[str, Any]:
        right: dict[str, Any] = {"loss": [float(v) for v in found.losses.mean(1)]}
        for name, draw in DRAWS.items():
            tried = problem(draw, score=lambda loss, right: right)
            each = {
                way: meta.evaluate(tried, theta, keys)[:, -1]
                for way, theta in (("learned", found.theta), ("start", tried.start))
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
    meta.save({**found.learned, **wrapped()}, saved, f"After Gu et al. (2019): {steps} steps, seed {seed}")
    return metrics


@dataclass(frozen=True)
class Neurons:
    """The two functions that are learned: of the neurons of all hidden layers and the input, and of the outputs."""

    hidden: nets.LearnedNeuron
    output: nets.LearnedNeuron

    def learned(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "output": self.output}


def beginning(seed: int, size: float = 0.1) -> Neurons:
    r"""Near feedback alignment with an error at the outputs, and random numbers of ``size`` times the usual.

    Hidden: c = delta = what comes from above through the gate, e = x. Output: c = delta = the teacher t less the drive
    where there is a teacher, :math:`t - |t|\,z` by the difference of two cells, with :math:`\beta` small:

    (1)  :math:`|t|\,z \approx z - \frac{1}{2\beta} (\tanh(\beta z + 3t) + \tanh(\beta z - 3t))`, t being -1, 0 or 1
    """
    gate, drive, above = 4, 1, 2
    parts: list[dict[str, Any]] = []
    for own in (seed, seed + 1):
        neuron = nets.LearnedNeuron.make(CELLS, CHANNELS, seed=own)
        parts.append({"inner": np.asarray(neuron.inner), "outer": size * np.asarray(neuron.outer),
                      "linear": size * np.asarray(neuron.linear)})  # fmt: skip
    hidden, output = parts
    c, e, delta = 0, CHANNELS, 2 * CHANNELS
    hidden["linear"][[c, delta], gate] += 1.0
    hidden["linear"][e, 0] += 1.0
    beta = 0.3
    output["inner"][:2] = 0.0
    output["inner"][:2, drive], output["inner"][:2, above] = beta, (3.0, -3.0)
    output["linear"][[c, delta], above] += 1.0
    output["linear"][[c, delta], drive] -= 1.0
    output["outer"][[[c], [delta]], [0, 1]] += 1 / (2 * beta)
    return Neurons(nets.LearnedNeuron(**hidden), nets.LearnedNeuron(**output))


def wrapped() -> dict[str, Any]:
    """The rules of what goes forward, back and to the side; a cell's afferents of each kind have a length of 1."""
    forward = rules.Normalised(rules.Metz2018(eta=ETA, channels=CHANNELS))
    back = rules.Normalised(rules.Metz2018Backward(eta=ETA, channels=CHANNELS))
    return {"forward": forward, "back": back, "lateral": forward}


def network(neurons: Neurons, lateral: bool) -> Any:
    of = wrapped()
    beside = of["lateral"] if lateral else None
    return nets.learned_layers(SIZES, neurons.hidden, of["forward"], of["back"], lateral=beside, top=neurons.output,
                               weights=nets.UnitRows())  # fmt: skip


def either(key: Any) -> Any:
    """Moons or clouds."""
    moons, clouds = (draw(key) for draw in DRAWS.values())
    which = jax.random.bernoulli(jax.random.fold_in(key, 1))
    return lambda own, y: jnp.where(which, moons(own, y), clouds(own, y))


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
