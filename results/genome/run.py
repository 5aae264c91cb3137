r"""Rules under a small genome: by gradient, by evolution, with sex and without. See README.md.

A perceptron with one hidden layer lives through an episode: a classification task drawn anew, one sample a tick. What
is learned is the rule of all of its synapses, `rules.Pool`,

(1)  :math:`\Delta w_{ij} = \sum_n \theta_n T_n`,

and the loss is the cross-entropy of samples of the same task that the network has not seen.
"""

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax
from jaxtyping import Array, Float
from matplotlib.ticker import NullLocator, StrMethodFormatter

from engrax import Fields, meta, networks as nets, rules
from engrax.networks.graph import edges_of
from engrax.rules.base import Environment
from engrax.rules.shervani2023 import TERMS

from ..choices import check, run_parts

PARTS = ("learners", "size", "sex", "choices")
TERM_NAMES = tuple(f"theta.{name}" for name in TERMS)
SHOTS = 100  # samples, one a tick, of which the network learns
TESTED = 64  # others of the same task
LENGTH = 5.0  # mean square of the length of a sample
INPUTS, CLASSES, BLOBS, NOISE = 16, 5, 3, 0.5  # of a mixture of Gaussians
SMALLEST, LARGEST = 3e-4, 0.5  # coefficient of a term that is there
BOUND = 2.0  # of a weight
RATES = (0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5)  # at which a pseudo-gradient alone is tried
CELLS = (8, 32)  # in each of two hidden layers
DESCENT = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
GENETIC = functools.partial(meta.genetic, episodes=4, ones=0.1)  # most terms begin at 0
FEEDBACKS = ("random", "symmetric", "direct", "kolen_pollack")
SEXUAL, ASEXUAL = "with sex", "without sex"
Sample = tuple[Float[Array, "samples n"], Float[Array, "samples classes"]]


class Reciprocal(rules.Wrapper):
    """What ``rule`` makes of the synapse that goes the other way between the same two cells. With decay, which
    `rules.Pool` has among its terms, the two become equal, as in `rules.KolenPollack`."""

    def evaluate(self, env: Environment) -> tuple[Any, Fields]:
        return self.rule.evaluate(env.replace(pre=env.post, post=env.pre))


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    seeds: int = 5,
    members: int = 64,
    steps: int = 60,
    terms: tuple[int, ...] = (1, 3, 10),
    size_bits: tuple[int, ...] = (1, 3, 6),
    dims: tuple[int, ...] = (1, 3),
    mutations: tuple[float, ...] = (0.3, 2.0, 7.0),
    tests: int = 128,
) -> dict[str, Any]:
    """Four questions, with genome.png and metrics.json.

    The parts: ``learners``, gradient, CMA-ES and a genetic algorithm with and without sex, ``steps`` times ``members``
    times 4 episodes each; ``size``, genomes of the first ``terms`` of the pool with one bit for the sign and
    ``size_bits`` for the size of each, and subspaces of ``dims`` numbers; ``choices``, the feedback scheme and the
    hidden cells as genes; ``sex``, ``mutations`` a genome. ``tests``: episodes in which what was found is tried.
    """
    check("part", parts, PARTS)
    if quick:
        parts, seeds, members, steps, tests = ("learners", "sex"), 1, 16, 6, 16
        mutations = mutations[:1]
    tried = Tried(members, steps, range(seed, seed + seeds), tests, seed)
    work = {
        "learners": lambda: tried.learners(),
        "size": lambda: tried.size(terms, size_bits, dims),
        "choices": lambda: tried.choices(),
        "sex": lambda: tried.sex(mutations),
    }
    metrics = run_parts(out, parts, work)
    figure(out / "genome.png", metrics)
    return metrics


# Tasks


def mixtures(key: Any) -> Sample:
    """Every class is ``BLOBS`` Gaussians at random places."""
    count = BLOBS * CLASSES
    rows = jax.random.normal(key, (count + SHOTS + TESTED, INPUTS + 1))  # in one draw: each takes long to compile
    centres, x, which = rows[:count, :-1], rows[count:, :-1], rows[count:, -1]
    blob = jnp.floor(jax.scipy.special.ndtr(which) * count).astype(int)
    x = centres[blob] + NOISE * x
    return x * (LENGTH / INPUTS / (1 + NOISE**2)) ** 0.5, jax.nn.one_hot(blob % CLASSES, CLASSES)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    data = nets.digits()
    x = data.train_x - data.train_x.mean(0)
    return x * (LENGTH / np.mean(np.sum(x**2, 1))) ** 0.5, np.eye(10, dtype=np.float32)[data.train_y]


def permuted_digits(key: Any) -> Sample:
    """Digits whose pixels are in another order in every episode."""
    x, y = map(jnp.asarray, _digits())
    which, order = jax.random.split(key)
    chosen = jax.random.permutation(which, len(x))[: SHOTS + TESTED]
    return x[chosen][:, jax.random.permutation(order, x.shape[1])], y[chosen]


TASKS: dict[str, tuple[Callable[[Any], Sample], int, int]] = {
    "mixtures": (mixtures, INPUTS, CLASSES),
    "digits": (permuted_digits, 64, 10),
}


def episode(draw: Callable[[Any], Sample], measure: Callable[[Any, Any], Any], key: Any) -> meta.Episode:
    x, y = draw(key)

    def loss(learnt: meta.Learnt) -> Any:
        return measure(learnt.respond({"input": x[None, SHOTS:]}, "output.x")[0], y[SHOTS:])

    return meta.Episode({"input": x[:SHOTS], "output.target": y[:SHOTS]}, loss)


def cross_entropy(said: Any, told: Any) -> Any:
    return -jnp.mean(jnp.sum(told * jnp.log(said + 1e-7), 1))


def errors(said: Any, told: Any) -> Any:
    return jnp.mean(jnp.argmax(said, 1) != jnp.argmax(told, 1))


# Networks


def network(rule: rules.Pool, sizes: Sequence[int], feedback: str) -> nx.MultiDiGraph:
    """All projections that learn do so by ``rule``; those that carry errors back, with "kolen_pollack"."""
    learned = feedback == "kolen_pollack"
    kind: Any = "random" if learned else feedback
    net = nets.echoing_perceptron(sizes, rules.Bounded(rule, -BOUND, BOUND), feedback=kind)
    if learned:
        for _, _, _, data in edges_of(net):
            if data.get("field") == "error":
                data["rule"] = rules.Bounded(Reciprocal(rule), -BOUND, BOUND)
    return net


def problem(
    task: str = "mixtures",
    measure: Callable[[Any, Any], Any] = cross_entropy,
    *,
    feedback: str = "random",
    cells: int = 16,
    layers: int = 1,
) -> meta.Learning:
    """From a rule that does nothing."""
    draw, inputs, classes = TASKS[task]
    rule = rules.Pool.of({})
    net = network(rule, (inputs, *[cells] * layers, classes), feedback)
    return meta.Learning(net, rule, functools.partial(episode, draw, measure), units=SHOTS, fixed=("eta",))


def genome(names: Sequence[str] = TERM_NAMES, size_bits: int = 4, **choices: meta.Choice) -> meta.Genome:
    return meta.Genome({**{name: meta.Signed(SMALLEST, LARGEST, size_bits) for name in names}, **choices})


# What is tried


class Tried:
    """All runs of the result; a problem is made once."""

    def __init__(self, members: int, steps: int, seeds: Sequence[int], tests: int, seed: int) -> None:
        self.members, self.steps, self.seeds, self.tests = members, steps, seeds, tests
        self._keys = jax.random.split(jax.random.key(1000 + seed), tests)
        self._tests: dict[Any, meta.Learning] = {}
        self._coded = meta.Coded(problem(), genome())

    def errors(self, theta: Mapping[str, Any], task: str, **of: Any) -> float:
        """The fraction of errors in episodes of which nothing was learned."""
        name = (task, tuple(of.items()))
        if name not in self._tests:
            self._tests[name] = problem(task, errors, **of)
        numbers = {name: jnp.asarray(theta[name], jnp.float32) for name in TERM_NAMES}
        return float(meta.evaluate(self._tests[name], numbers, self._keys)[:, -1].mean())

    def found(self, inner: Any, outer: meta.Outer, steps: int, **options: Any) -> list[tuple[meta.Trained, float]]:
        """What comes out with each seed, and the seconds that it took."""
        done = []
        for seed in self.seeds:
            begun = time.perf_counter()
            done.append((meta.train(inner, outer, steps=steps, seed=seed, **options), time.perf_counter() - begun))
        return done

    def tested(self, rules_found: Sequence[rules.Pool], **of: Any) -> dict[str, Any]:
        """Errors (%) on both kinds of tasks, of each seed."""
        thetas = [{f"theta.{name}": value for name, value in rule.theta.items()} for rule in rules_found]
        return {task: [100 * self.errors(theta, task, **of) for theta in thetas] for task in TASKS}

    def learners(self) -> dict[str, Any]:
        """By gradient and by evolution, as many episodes each."""
        steps, members = self.steps, self.members
        loops: dict[str, tuple[Any, meta.Outer, int]] = {
            "CMA-ES": (self._coded.problem, meta.cma_es(members, 0.01, episodes=4), steps),
            SEXUAL: (self._coded, GENETIC(members), steps),
            ASEXUAL: (self._coded, GENETIC(members, recombination=None), steps),
            "gradient": (self._coded.problem, meta.gradient(DESCENT, episodes=16), steps * members // 4),
        }
        told: dict[str, Any] = {}
        for name, (inner, outer, count) in loops.items():
            done = self.found(inner, outer, count)
            learned = [one.learned for one, _ in done]
            told[name] = self.tested(learned) | {
                "course": np.mean([one.losses.reshape(steps, -1).mean(1) for one, _ in done], 0).tolist(),
                "theta": [[float(value) for _, value in rule.theta.items()] for rule in learned],
                "seconds": min(seconds for _, seconds in done),
            }
            print(name, told[name]["mixtures"], file=sys.stderr, flush=True)
        return {"learners": told, "pseudo-gradient": {f: self._alone(f) for f in ("symmetric", "random")}}

    def _alone(self, feedback: str) -> dict[str, Any]:
        """The pseudo-gradient alone, at the rate that is best for the mixtures."""
        zero = dict.fromkeys(TERM_NAMES, 0.0)
        tried = {rate: self.errors(zero | {"theta.0": rate}, "mixtures", feedback=feedback) for rate in RATES}
        best = min(tried, key=lambda rate: tried[rate])
        other = self.errors(zero | {"theta.0": best}, "digits", feedback=feedback)
        return {"rate": best, "mixtures": 100 * tried[best], "digits": 100 * other}

    def size(self, terms: Sequence[int], size_bits: Sequence[int], dims: Sequence[int]) -> dict[str, Any]:
        """Accuracy against the size of the genome."""
        inner = self._coded.problem
        told: dict[str, Any] = {}
        for count in terms:
            for bits in size_bits:
                coded = meta.Coded(inner, genome(TERM_NAMES[:count], bits))
                done = self.found(coded, GENETIC(self.members), self.steps)
                told[f"{count} terms, {bits} + 1 bits"] = {"bits": coded.genome.bits, "terms": count} | self.tested(
                    [one.learned for one, _ in done]
                )
        for count in dims:
            found = self.found(meta.Subspace(inner, count), meta.cma_es(self.members, 0.01, episodes=4), self.steps)
            told[f"{count} directions"] = {"dims": count} | self.tested([one.learned for one, _ in found])
        return {"size": told}

    def choices(self) -> dict[str, Any]:
        """Feedback and architecture as genes."""
        code = genome(feedback=meta.Choice(FEEDBACKS), cells=meta.Choice(CELLS))
        varied: Any = meta.Varied(functools.partial(problem, "mixtures", cross_entropy, layers=2), code)
        told = []
        for seed in self.seeds:
            course: list[dict[str, Any]] = []

            def watch(step: int, theta: Any, losses: Any, course: list[Any] = course) -> None:
                course.append(code.choices(np.asarray(theta)))

            outer = GENETIC(self.members)
            found = meta.train(varied, outer, steps=self.steps, seed=seed, callbacks=[watch])
            tested = self.tested([found.learned], layers=2, **course[-1])
            told.append({task: value[0] for task, value in tested.items()} | {"course": course, "found": course[-1]})
            print(told[-1]["found"], tested, file=sys.stderr, flush=True)
        return {"choices": {"bits": code.bits, "seeds": told}}

    def sex(self, mutations: Sequence[float]) -> dict[str, Any]:
        """The population with and without recombination, at several mutation rates; nobody lives on as it is."""
        bits = self._coded.genome.bits
        told: dict[str, Any] = {}
        for flips in mutations:
            for name, recombination in ((SEXUAL, 0.5), (ASEXUAL, None)):
                outer = GENETIC(self.members, mutation=flips / bits, recombination=recombination, elite=0)
                done = self.found(self._coded, outer, self.steps)
                last = max(self.steps // 4, 1)
                told.setdefault(name, {})[f"{flips:g}"] = self.tested([one.learned for one, _ in done]) | {
                    "population": [float(np.nanmean(one.losses[-last:])) for one, _ in done],
                    "without half": [self._without_half(one.learned) for one, _ in done],
                    "course": np.mean([np.nanmean(one.losses, 1) for one, _ in done], 0).tolist(),
                }
        return {"sex": told}

    def _without_half(self, rule: rules.Pool, times: int = 8) -> float:
        """Errors (%) where a random half of the terms is gone."""
        rng = np.random.default_rng(0)
        left = [rng.permutation(len(TERM_NAMES)) < len(TERM_NAMES) // 2 for _ in range(times)]
        values = np.array([float(value) for _, value in rule.theta.items()])
        tried = [self.errors(dict(zip(TERM_NAMES, values * keep, strict=True)), "mixtures") for keep in left]
        return 100 * float(np.mean(tried))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


# Figure


def figure(path: Path, metrics: Mapping[str, Any]) -> None:
    shown = [part for part in PARTS if part in metrics]
    drawing, axes = plt.subplots(-(-len(shown) // 2), 2, figsize=(12, 4.2 * -(-len(shown) // 2)), squeeze=False)
    draw = {"learners": _learners, "size": _size, "choices": _choices, "sex": _sex}
    for axis, part in zip(axes.flat, shown, strict=False):
        draw[part](axis, metrics)
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def _learners(axis: Any, metrics: Mapping[str, Any]) -> None:
    for name, told in metrics["learners"].items():
        axis.plot(np.arange(1, len(told["course"]) + 1), told["course"], label=name)
    axis.set(xlabel="step (as many episodes for all)", ylabel="mean loss of those tried (nats)", title="who learns")
    axis.legend(frameon=False)


def _size(axis: Any, metrics: Mapping[str, Any]) -> None:
    told = metrics["size"].values()
    for terms in dict.fromkeys(one["terms"] for one in told if "terms" in one):
        own = [one for one in told if one.get("terms") == terms]
        bits = [one["bits"] for one in own]
        (line,) = axis.plot(bits, [np.median(one["mixtures"]) for one in own],
                            label=f"{terms} term{'s' * (terms > 1)}, median")  # fmt: skip
        for one in own:
            axis.plot([one["bits"]] * len(one["mixtures"]), one["mixtures"], "o", color=line.get_color(), alpha=0.6)
    if "pseudo-gradient" in metrics:
        for name, line in (("symmetric", "--"), ("random", ":")):
            axis.axhline(metrics["pseudo-gradient"][name]["mixtures"], color="0.5", ls=line,
                         label=f"pseudo-gradient, {name} feedback")  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set(xlabel="genome (bits)", ylabel="errors (%), each seed", title="how small a genome", ylim=(0, 85))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _choices(axis: Any, metrics: Mapping[str, Any]) -> None:
    seeds = metrics["choices"]["seeds"]
    for number, told in enumerate(seeds):
        rows = [FEEDBACKS.index(one["feedback"]) for one in told["course"]]
        end = told["found"]
        where = np.array(rows) + 0.12 * (number - (len(seeds) - 1) / 2)
        axis.plot(where, ".-", lw=0.7, label=f"{end['cells']} cells at last")
    axis.set_yticks(range(len(FEEDBACKS)), [name.replace("_", "-") for name in FEEDBACKS])
    axis.set(xlabel="generation", title="which feedback the fittest has", ylim=(-0.5, len(FEEDBACKS) - 0.5))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _sex(axis: Any, metrics: Mapping[str, Any]) -> None:
    for name, told in metrics["sex"].items():
        means, ses = zip(*[spread(one["population"]) for one in told.values()], strict=True)
        axis.errorbar([float(flips) for flips in told], means, ses, marker="o", capsize=2, label=name)
    axis.set(xscale="log", xlabel="mutations per genome and generation", ylabel="mean loss of the population (nats)",
             title="sex")  # fmt: skip
    axis.set_xticks([float(flips) for flips in told], list(told))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.legend(frameon=False)
