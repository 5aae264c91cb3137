"""MacKay (2003), chapter 19: what a population learns from selection in a generation, with sex and without. See
README.md."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array as JaxArray, Bool, Float
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from engrax.meta import couples, crossed, fittest, mutated

from ..choices import check, run_parts
from . import theory

PARTS = ("sex", "clones", "steady")
SEEN = 0.9  # the f of which the time is told
PASSED = 0.75  # the f at which the rate without sex is measured, and at which mutation is tolerated
BEFORE, WINDOW = 10, 10  # generations: clones make the variance that mutation keeps up; then the rate is measured
EARLY = slice(2, 7)  # generations of the initial rate with sex: the first two still sort random genomes
MUTATIONS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # a genome and generation, in steady states
COLOURS = plt.colormaps["viridis"]

Array = Float[np.ndarray, "..."]
Genomes = Bool[JaxArray, "n genes"]
Found = tuple[dict[str, Any], dict[Any, Any]]  # metrics, and curves for the figure


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    sizes: tuple[int, ...] = (100, 250, 1000, 4000),
    steady_sizes: tuple[int, ...] = (100, 300, 1000),
    individuals: int = 1000,
    clones: int = 300,
    replicas: int = 3,
    generations: int = 400,
) -> dict[str, Any]:
    """Let populations with genomes of every one of ``sizes`` (genes) climb, and those of ``steady_sizes`` come to rest
    under mutation; write fitness.png and metrics.json to ``out``.

    Populations have so many ``individuals`` with sex and ``clones`` without, in so many ``replicas``. Without sex the
    longest climb takes so many ``generations``. ``quick``: two small sizes, 200 individuals, 100 generations.
    """
    check("part", parts, PARTS, "parts")
    if quick:
        sizes, steady_sizes = tuple(min(size, 400) for size in (sizes[0], sizes[-1])), (steady_sizes[0],)
        individuals, clones, generations = min(individuals, 200), min(clones, 200), min(generations, 100)
    key = jax.random.key(seed)
    curves: dict[str, Any] = {}

    def kept(part: str, found: Found) -> dict[str, Any]:
        metrics, curves[part] = found
        return {part: metrics}

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "sex": lambda: kept("sex", with_sex(key, sizes, individuals, replicas)),
        "clones": lambda: kept("clones", without_sex(key, sizes, clones, replicas, generations)),
        "steady": lambda: {"steady": at_rest(key, steady_sizes, individuals, clones)},
    }
    metrics = run_parts(out, parts, work)
    if set(parts) == set(PARTS):
        figure(out / "fitness.png", metrics, curves)
    return metrics


def generation(key: Any, parents: Genomes, sexual: bool, rate: Any) -> Genomes:
    """The better half of twice as many children: four of every random couple, or two of every parent. ``rate`` is the
    probability of a mutation; None, there is none."""
    pairing, crossing, mutating = jax.random.split(key, 3)
    if sexual:
        mothers, fathers = couples(pairing, len(parents))
        children = crossed(crossing, *(jnp.tile(parents[chosen], (4, 1)) for chosen in (mothers, fathers)))
    else:
        children = jnp.tile(parents, (2, 1))
    if rate is not None:
        children = mutated(mutating, children, rate)
    return fittest(children, children.sum(-1), len(parents))


def history(
    key: Any, start: Genomes, generations: int, sexual: bool, rate: Callable[[Any], Any] = lambda f: None
) -> Float[JaxArray, " generations+1"]:
    """The mean f of a population from its ``start`` on; ``rate`` says how mutation depends on it."""

    def step(population: Genomes, key: Any) -> tuple[Genomes, Any]:
        f = population.mean(dtype=jnp.float32)
        return generation(key, population, sexual, rate(f)), f

    last, f = jax.lax.scan(step, start, jax.random.split(key, generations))
    return jnp.append(f, last.mean(dtype=jnp.float32))


@functools.partial(jax.jit, static_argnames=("genes", "individuals", "generations"))
def climbs(key: Any, genes: int, individuals: int, generations: int) -> Float[JaxArray, " generations+1"]:
    """f with sex, from random genomes, without mutation."""
    drawn, lived = jax.random.split(key)
    return history(lived, jax.random.bernoulli(drawn, shape=(individuals, genes)), generations, sexual=True)


@functools.partial(jax.jit, static_argnames=("genes", "individuals", "generations"))
def clone_climbs(
    key: Any, f: float, genes: int, individuals: int, generations: int
) -> Float[JaxArray, " generations+1"]:
    """f without sex at the best rate of mutation for it, from one genome with ``f``."""
    start = jnp.broadcast_to(jnp.arange(genes) < jnp.round(f * genes), (individuals, genes))
    return history(key, start, generations, sexual=False, rate=lambda f: theory.best_rate(f, genes))


@functools.partial(jax.jit, static_argnames=("genes", "individuals", "generations", "sexual"))
def rests(
    key: Any, rate: Any, genes: int, individuals: int, generations: int, sexual: bool
) -> Float[JaxArray, " generations+1"]:
    """f under mutation: with sex from random genomes, without from one genome with three quarters."""
    random = jax.random.bernoulli(key, shape=(individuals, genes))
    start = random if sexual else jnp.broadcast_to(jnp.arange(genes) < 3 * genes // 4, random.shape)
    return history(jax.random.fold_in(key, 1), start, generations, sexual, rate=lambda f: rate)


def with_sex(key: Any, sizes: tuple[int, ...], individuals: int, replicas: int) -> Found:
    """Climbs from random genomes: eta, fitted where (2) is a straight line; the time to f = 0.9; initial rates. The
    curves by size."""
    curves, found, initial = {}, {}, []
    for genes in sizes:
        generations = int(np.ceil(1.05 * theory.time_to(1.0, genes)))
        f = np.mean([climbs(one, genes, individuals, generations) for one in jax.random.split(key, replicas)], 0)
        expected = theory.climb(np.arange(len(f)), genes)
        initial.append(genes * float(np.diff(f)[EARLY].mean()))
        middle = (f > 0.55) & (f < 0.95)
        eta = np.polyfit(np.arange(len(f))[middle], np.arcsin(2 * f[middle] - 1), 1)[0] * np.sqrt(genes)
        curves[genes] = f
        found[str(genes)] = {
            "eta / theory": float(eta / theory.ETA),
            "generations to 0.9": float(np.interp(SEEN, f, np.arange(len(f)))),
            "theory, generations to 0.9": theory.time_to(SEEN, genes),
            "largest difference from theory": float(np.abs(f - expected).max()),
            "initial rate": initial[-1],
            "theory, initial rate": genes * float(np.diff(expected)[EARLY].mean()),
        }
    return {"sizes": found, "slope of initial rate": slope(sizes, initial)}, curves


def without_sex(key: Any, sizes: tuple[int, ...], clones: int, replicas: int, generations: int) -> Found:
    """The rate at f = 3/4, which clones should pass half-way through a window; and one long climb, of the largest
    genome with 1,000 genes or fewer, which is the curve."""
    rates = []
    lives = 8 * replicas  # a window has few bits
    for genes in sizes:
        start = float(theory.drift(np.array(-BEFORE - WINDOW / 2), genes, PASSED))
        f = np.array([
            clone_climbs(one, start, genes, clones, BEFORE + WINDOW) for one in jax.random.split(key, lives)
        ])  # fmt: skip
        rates.append(genes * (f[:, -1] - f[:, BEFORE]) / WINDOW)
    mean = [float(each.mean()) for each in rates]
    genes = max([size for size in sizes if size <= 1000], default=sizes[0])
    begun = 0.55
    f = np.mean([clone_climbs(one, begun, genes, clones, generations) for one in jax.random.split(key, replicas)], 0)
    expected = theory.drift(np.arange(len(f)), genes, begun)
    metrics = {
        "rate at 3/4": {
            str(size): {"mean": float(of_size.mean()), "standard error": float(of_size.std() / np.sqrt(lives - 1))}
            for size, of_size in zip(sizes, rates, strict=True)
        },
        "theory": float(theory.fastest(np.array(PASSED))),
        "slope of rate": slope(sizes, mean),
        "long climb": {"genes": genes, "largest difference from theory": float(np.abs(f - expected).max())},
    }
    return metrics, {"genes": genes, "begun": begun, "f": f}


def at_rest(key: Any, sizes: tuple[int, ...], individuals: int, clones: int) -> dict[str, Any]:
    """Where mutation and selection balance, and the mutations a genome that leave f at 3/4."""
    found: dict[str, Any] = {"mutations": MUTATIONS}
    mutations = np.array(MUTATIONS)
    for sexual in (True, False):
        name = "with sex" if sexual else "without"
        found[name], tolerated = {}, []
        for genes in sizes:
            # (4) relaxes within 1 / 2m generations, and sex within sqrt(G) / eta
            generations = int(5 * np.sqrt(genes)) if sexual else genes
            lived = [
                np.asarray(rests(key, m / genes, genes, individuals if sexual else clones, generations, sexual))
                for m in MUTATIONS
            ]
            f = np.array([each[-generations // 3 :].mean() for each in lived])
            tolerated.append(float(np.exp(np.interp(-PASSED, -f, np.log(MUTATIONS)))))
            found[name][str(genes)] = {
                "f": f.tolist(),
                "theory": theory.steady(mutations, genes, sexual).tolist(),
                "tolerable at 3/4": tolerated[-1],
                **({"theory, mutation varies too": theory.varied(mutations, genes).tolist()} if sexual else {}),
                "theory, tolerable at 3/4": theory.tolerable(PASSED, genes, sexual),
            }
        if len(sizes) > 1:
            found[name]["slope of tolerable"] = slope(sizes, tolerated)
    return found


def slope(sizes: tuple[int, ...], values: Any) -> float:
    """Of the logarithm of ``values`` against that of ``sizes``."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def figure(path: Path, metrics: dict[str, Any], curves: dict[str, Any]) -> None:
    """Climbs, their rates against the size of the genome, and the same for the balance with mutation; lines are
    theory."""
    drawn, ((climbing, resting), (rate, tolerance)) = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained")
    sex, clones, steady = (metrics[part] for part in PARTS)
    sizes = [int(size) for size in sex["sizes"]]
    climbed, alone = curves["sex"], curves["clones"]
    for k, genes in enumerate(sizes):
        t = np.arange(len(climbed[genes]))
        colour: Any = COLOURS(k / len(sizes))
        climbing.plot(t, theory.climb(t, genes), color=colour, lw=1)
        shown = slice(None, None, max(len(t) // 20, 1))
        climbing.plot(t[shown], climbed[genes][shown], "o", color=colour, ms=3.5, label=f"sex, G = {genes:,}")
    t = np.arange(len(alone["f"]))
    climbing.plot(t, theory.drift(t, alone["genes"], alone["begun"]), color="0.3", lw=1)
    shown = slice(None, None, max(len(t) // 20, 1))
    climbing.plot(t[shown], alone["f"][shown], "s", color="0.3", ms=3.5, label=f"no sex, G = {alone['genes']:,}")
    climbing.set(xlabel="generations", ylabel="fitness f (fraction of the genome)", xlim=(0, None))
    climbing.set_title("A population learns (dots); MacKay's theory (lines)", fontsize=10)

    wide = np.geomspace(min(sizes), max(sizes))
    initial = [each["initial rate"] for each in sex["sizes"].values()]
    rate.loglog(sizes, initial, "o", color=COLOURS(0.3), label="sex, at first")
    rate.loglog(wide, theory.ETA * np.sqrt(wide) / 2, color=COLOURS(0.3), lw=1)
    alone_rate = [each["mean"] for each in clones["rate at 3/4"].values()]
    rate.loglog(sizes, alone_rate, "s", color="0.3", label="no sex, f = 3/4")
    rate.loglog(wide, np.full(len(wide), clones["theory"]), color="0.3", lw=1)
    rate.set(xlabel="genes G", ylabel="dF/dt (bits per generation)", ylim=(0.2, None))
    rate.set_title("How fast, against the size of the genome", fontsize=10)

    fine = np.geomspace(steady["mutations"][0], steady["mutations"][-1], 200)
    for name, mark in (("with sex", "o"), ("without", "s")):
        by_size = {int(size): v for size, v in steady[name].items() if size.isdigit()}
        for k, (genes, each) in enumerate(by_size.items()):
            sexual = name == "with sex"
            colour = COLOURS(k / len(by_size)) if sexual else str(0.65 - 0.3 * k / len(by_size))
            label = f"{'sex' if sexual else 'no sex'}, G = {genes:,}"
            resting.semilogx(steady["mutations"], each["f"], mark, color=colour, ms=4, label=label)
            if sexual:
                resting.semilogx(fine, theory.varied(fine, genes), color=colour, lw=1, ls=":")
            if sexual or genes == max(by_size):
                resting.semilogx(fine, theory.steady(fine, genes, sexual), color=colour, lw=1)
        wide = np.geomspace(min(by_size), max(by_size))
        colour = COLOURS(0.3) if name == "with sex" else "0.3"
        tolerated = [each["tolerable at 3/4"] for each in by_size.values()]
        tolerance.loglog(list(by_size), tolerated, mark, color=colour, label=name.replace("without", "without sex"))
        expected = [theory.tolerable(PASSED, genes, name == "with sex") for genes in wide]
        tolerance.loglog(wide, expected, color=colour, lw=1)
    resting.set(xlabel="mutations per genome and generation, mG", ylabel="steady fitness f")
    resting.set_title("Balance with mutation (dotted: mutation varies, too)", fontsize=10)
    tolerance.set(xlabel="genes G", ylabel="mutations per genome that leave f = 3/4", ylim=(1, None))
    tolerance.set_title("Tolerable mutation, against the size of the genome", fontsize=10)
    for axis in (rate.xaxis, rate.yaxis, tolerance.xaxis, tolerance.yaxis, resting.xaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
    for axis in (climbing, rate, resting, tolerance):
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=150)
    plt.close(drawn)
