"""After Metz et al. (2019): a rule, learned on some data, that makes few labels enough on other data. See README.md."""

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from engrax import meta, networks as nets, rules

from ..choices import run_parts
from ..classification import markdown, mean_and_error, pooled
from . import released
from .vae import variational

PARTS = ("train", "others", "width", "order", "released")
STRENGTHS = (0.03, 0.1, 0.3, 1.0)  # of the ridge, of which each baseline has its best
OWN, LEARNED_AT = 1, 0.3  # and the learned rule always the paper's; this is where it was learned
BATCH, TICKS = 32, 100
ETA, SCALE = 5e-3, 10.0
Labelled = tuple[Float[np.ndarray, "rows n"], Int[np.ndarray, " rows"]]


@dataclass(frozen=True)
class Parts:
    """What is learned: the function of a neuron, and the two rules (whose numbers are given) around it."""

    neuron: nets.LearnedNeuron
    forward: rules.Normalised
    back: rules.Normalised

    def network(self, inputs: int, width: int, depth: int) -> Any:
        sizes = (inputs, *[width] * depth)
        return nets.learned_layers(sizes, self.neuron, self.forward, self.back, weights=nets.UnitRows(), mean=True)

    def problem(
        self,
        sources: list[Labelled],
        width: int,
        depth: int = 1,
        segments: int = 1,
        strength: Any = STRENGTHS[OWN],
        **options: Any,
    ) -> Any:
        task = meta.tasks.FewShot(sources, layer=f"layer{depth}", batch=BATCH, strength=strength, **options)
        net = self.network(task.inputs, width, depth)
        return meta.Learning(net, self.neuron, task, units=TICKS // segments, segments=segments, fixed=("scale",))

    def test(self, sources: list[Labelled], width: int, depth: int = 1, **options: Any) -> Any:
        """All classes that there are, and as the loss the part of the test samples that is right."""
        classes = min(len(np.unique(y)) for _, y in sources)
        return self.problem(sources, width, depth, classes=classes, score=lambda loss, right: right, **options)


def parts_of(seed: int) -> Parts:
    """Near Oja's rule."""
    neuron = nets.LearnedNeuron.make(8, 2, seed=seed, scale=SCALE)
    near = 0.1 * np.asarray(neuron.linear) + oja(neuron)["linear"], 0.3 * np.asarray(neuron.outer)
    return Parts(
        eqx.tree_at(lambda n: (n.linear, n.outer), neuron, near),
        rules.Normalised(rules.Metz2018(eta=ETA, channels=2)),
        rules.Normalised(rules.Metz2018Backward(eta=ETA, channels=2)),
    )


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    steps: int = 300,
    episodes: int = 8,
    width: int = 128,
    tests: int = 100,
) -> dict[str, Any]:
    """Learn the rule on small digits, clothing and mixtures of Gaussians; try it on MNIST, utterances, new mixtures."""
    if quick:
        steps, episodes, tests = min(steps, 6), min(episodes, 2), min(tests, 4)
    learning = parts_of(seed)
    digits = scaled(nets.digits().train_x), nets.digits().train_y
    seen = [digits, *(mixture(k) for k in range(2))]
    if not quick:
        seen += 2 * [images_of(nets.fashion_mnist(), 8)]
    problem = learning.problem(seen, width, segments=4, strength=LEARNED_AT)
    slope = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, steps)))
    found = meta.train(problem, meta.gradient(slope, episodes=episodes, window=1), steps=steps, seed=seed,
                       checkpoint=out / "meta.h5", progress=True)  # fmt: skip
    others = {"new mixtures": [mixture(k) for k in range(200, 204)]}
    if quick:
        others["digits"] = [digits]
    else:
        others |= {"MNIST": [images_of(nets.mnist(), 14, 8000)], "Japanese Vowels": [spoken(nets.japanese_vowels())]}
    widths = (width // 4, 2 * width, 4 * width)
    tried = functools.partial(accuracies, learning, found.theta, tests=tests)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "train": lambda: {"loss": [float(v) for v in found.losses.mean(1)],
                          "numbers": sum(int(np.size(v)) for v in found.theta.values()),
                          "digits": tried([digits], width)},
        "others": lambda: {"others": {name: tried(sources, width) for name, sources in others.items()}},
        "width": lambda: {"width": {name: {str(w): tried(sources, w, baselines=("PCA",)) for w in widths}
                                    for name, sources in others.items()},
                          "depth": {name: {"2": tried(sources, width, 2, baselines=())}
                                    for name, sources in others.items()}},
        "released": lambda: {"released": released.learn(
            seen, {"digits": [digits], **others}, seed=seed, steps=min(steps, 250), episodes=min(episodes, 4),
            tests=tests, kept=out / "released.h5")},
        "order": lambda: {"order": {name: in_order(learning, found.theta, sources, width, tests)
                                    for name, sources in others.items()}},
    }  # fmt: skip
    metrics = run_parts(out, parts, work)
    saved = out / "rule.json"
    saved.unlink(missing_ok=True)
    about = (
        f"After Metz et al. (2019): learned on small digits, clothing and Gaussian mixtures, {steps} steps, seed {seed}"
    )
    meta.save({"neuron": found.learned, "forward": learning.forward, "back": learning.back}, saved, about)
    if "others" in metrics:
        (out / "table.md").write_text(table(metrics["others"]))
        figure(out / "metz2018.png", metrics)
    return metrics


def scaled(x: Any) -> Float[np.ndarray, "rows n"]:
    """Each input about its mean, all with one scale: of a mean square of 1."""
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    flat = flat - flat.mean(0)
    return flat / np.sqrt(np.mean(flat**2))  # type: ignore[no-any-return]


def images_of(dataset: nets.Dataset, side: int, first: int = 0, rows: int = 8000) -> Labelled:
    """Images, made smaller. Settings were chosen with the first of MNIST, and are tried on others."""
    these = slice(first, first + rows)
    return scaled(pooled(dataset.train_x[these], side)), dataset.train_y[these]


def spoken(dataset: nets.Dataset, ticks: int = 7) -> Labelled:
    """The first ticks of utterances, all channels, and the speaker."""
    x, y = (np.concatenate(both) for both in ((dataset.train_x, dataset.test_x), (dataset.train_y, dataset.test_y)))
    return scaled(x[:, :ticks]), y


def mixture(seed: int) -> Labelled:
    x, y = meta.tasks.gaussian_mixture(seed)
    return scaled(x), y


def accuracies(
    learning: Parts,
    theta: Mapping[str, Any],
    sources: list[Labelled],
    width: int,
    depth: int = 1,
    *,
    tests: int,
    baselines: tuple[str, ...] = ("PCA", "PCA, both signs", "k-means", "VAE", "inputs"),
) -> dict[str, Any]:
    """The part of the test samples that is right, with ten labels a class, for each way to features: mean and standard
    error over the tests, which are the same for all; and how far it is ``behind`` the learned rule, test by test."""
    keys = jax.random.split(jax.random.key(99), tests)
    still = {name: jnp.zeros_like(value) for name, value in theta.items()}
    problem = learning.test(sources, width, depth, strength=np.asarray(STRENGTHS))
    right = {
        way: meta.evaluate(problem, numbers, keys, together=2)[:, -1].astype(float)
        for way, numbers in {"learned rule": theta, "random": still, "Oja": oja(learning.neuron)}.items()
    }
    read = jax.jit(functools.partial(meta.tasks.ridge, classes=problem.task.classes, strength=problem.task.strength))
    each = [_read(read, baselines, problem.task, width, key) for key in keys]
    right |= {name: np.stack([of[name] for of in each]) for name in baselines}
    ours = right["learned rule"][:, OWN]
    found = {}
    for way, values in right.items():
        best = OWN if way == "learned rule" else int(np.argmax(values.mean(0)))
        behind = mean_and_error(ours - values[:, best])
        found[way] = {**mean_and_error(values[:, best]), "strength": STRENGTHS[best],
                      "behind": behind["mean"], "behind_error": behind["error"]}  # fmt: skip
    return found


def oja(neuron: nets.LearnedNeuron) -> dict[str, Any]:
    """Oja's subspace rule as a theta: c = x, e = x less what comes back, which is x from above."""
    linear = np.zeros(np.shape(neuron.linear), np.float32)
    r = neuron.channels
    linear[0, 0] = linear[r, 0] = linear[2 * r, 0] = 1.0
    linear[r, 2] = -1.0
    start = {name: jnp.zeros(np.shape(getattr(neuron, name))) for name in ("inner", "outer")}
    return {**start, "linear": jnp.asarray(linear)}


def _read(read: Any, baselines: Iterable[str], task: Any, width: int, key: Any) -> dict[str, Any]:
    """The part that is right of one episode, for each strength, with the features that each of the ``baselines`` finds
    in what the network would see."""
    x, (fit, labels), (test, truth) = _shown(task, meta.inner.task_key(key))
    seen, *labelled = (np.asarray(part, float) for part in (x, fit, test))
    right = {}
    for name in baselines:
        features = WAYS[name](seen, width, key)
        fitted, tested = (np.asarray(features(part), np.float32) for part in labelled)
        right[name] = np.asarray(read((fitted, labels), (tested, truth))[1], float)
    return right


@functools.partial(jax.jit, static_argnums=0)
def _shown(task: Any, key: Any) -> Any:
    seen, *labelled = task.draw(key)
    x = jax.vmap(lambda index: seen(index, jax.random.fold_in(key, index)))(jnp.arange(TICKS))
    return x.reshape(-1, task.inputs), *labelled


def _principal(x: Any, width: int, key: Any) -> Any:
    mean = x.mean(0)
    directions = np.linalg.eigh((x - mean).T @ (x - mean))[1][:, -width:]
    return lambda new: (new - mean) @ directions


def _both_signs(x: Any, width: int, key: Any) -> Any:
    of = _principal(x, width // 2, key)
    return lambda new: np.maximum(np.concatenate([of(new), -of(new)], -1), 0)


def _k_means(x: Any, width: int, key: Any) -> Any:
    """The triangle features of Coates, Ng & Lee, AISTATS (2011): how much nearer than the mean a centre is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a centre without samples stays where it is
        centres, _ = kmeans2(x, width, minit="points", rng=0)

    def features(new: Any) -> Any:
        far = cdist(new, centres)
        return np.maximum(far.mean(-1, keepdims=True) - far, 0)

    return features


WAYS: dict[str, Callable[[Any, int, Any], Any]] = {
    "PCA": _principal,
    "PCA, both signs": _both_signs,
    "k-means": _k_means,
    "VAE": variational,
    "inputs": lambda x, width, key: lambda new: new,
}


def in_order(learning: Parts, theta: Any, sources: list[Labelled], width: int, tests: int) -> dict[str, float]:
    """The learned rule where the inputs stay in their order, and where they do not."""
    keys = jax.random.split(jax.random.key(98), tests)
    right = {}
    for name, shuffle in (("in order", False), ("permuted", True)):
        problem = learning.test(sources, width, shuffle=shuffle)
        right[name] = float(meta.evaluate(problem, theta, keys, together=2).mean())
    return right


def table(others: Mapping[str, Any]) -> str:
    names = list(others)
    ways = list(next(iter(others.values())))
    rows = [
        [way, *(f"{100 * others[n][way]['mean']:.1f} ± {100 * others[n][way]['error']:.1f}" for n in names)]
        for way in ways
    ]
    return markdown(["features", *names], rows)


def figure(path: Path, metrics: Mapping[str, Any]) -> None:
    others = metrics["others"]
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(1, 2), layout="constrained")
    if "loss" in metrics:
        loss = np.asarray(metrics["loss"])
        left.plot(loss, color="0.8")
        smooth = max(len(loss) // 12, 1)
        left.plot(np.arange(smooth - 1, len(loss)), np.convolve(loss, np.full(smooth, 1 / smooth), "valid"), color="C0")
        left.set(xlabel="outer step", ylabel="loss of the read-out", title="on what it is learned on")
    ways = list(next(iter(others.values())))
    for k, way in enumerate(ways):
        means = [100 * others[name][way]["mean"] for name in others]
        errors = [100 * others[name][way]["error"] for name in others]
        place = np.arange(len(others)) + (k - (len(ways) - 1) / 2) * 0.8 / len(ways)
        colour = "C0" if k == 0 else str(0.35 + 0.5 * k / len(ways))
        right.bar(place, means, 0.8 / len(ways), yerr=errors, color=colour, label=way)
    right.set_xticks(np.arange(len(others)), list(others))
    right.set(ylabel="right (%)", title="ten labels a class, on data that the rule never saw", ylim=(40, 100))
    right.legend(ncols=2, fontsize="small")
    drawn.savefig(path, dpi=150)
    plt.close(drawn)
