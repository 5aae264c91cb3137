r"""Livnat et al. (2008): sex selects for alleles that do well in many combinations. See README.md.

Haploid, two loci; :math:`P_{ij}` of the population carry alleles :math:`A_i B_j`, of fitness :math:`w_{ij}`:

.. math::
    \tilde P_{ij} &= P_{ij} w_{ij} / \bar w, \qquad \bar w = \sum_{ij} P_{ij} w_{ij}  \quad (1) \\
    P'_{ij} &= (1 - r) \tilde P_{ij} + r \sum_l \tilde P_{il} \sum_k \tilde P_{kj}  \quad (2) \\
    M &= \tfrac12 \Big( \sum_i x_i \langle w_{ij} \rangle_j + \sum_j y_j \langle w_{ij} \rangle_i \Big)  \quad (3)

with r the recombination fraction, x and y the frequencies of the alleles (sums of P), and mixability M of plain means.
For :math:`w = 1 + \varepsilon D` the alleles follow multiplicative weights (Chastain et al., 2014):

.. math::
    x'_i \propto x_i (1 + \varepsilon D_i), \qquad D_i = \sum_j D_{ij} y_j  \quad (4) \\
    x_i \approx \arg\max_x \sum_i x_i \sum_t D_i(t) + H(x) / \varepsilon \propto e^{\varepsilon \sum_t D_i(t)} \quad (5)

A. Livnat, C. Papadimitriou, J. Dushoff & M. W. Feldman, A mixability theory for the role of sex in evolution, PNAS
105:19803-19808 (2008). E. Chastain, A. Livnat, C. Papadimitriou & U. Vazirani, Algorithms, games, and evolution, PNAS
111:10620-10623 (2014).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from ..choices import check, run_parts

PARTS = ("matrix", "landscapes", "weights")
MATRIX = np.array([[0.96, 0.99, 1.06], [1.00, 1.05, 1.00], [0.97, 1.01, 0.95]])  # A1B3 is best, A2 and B2 mix best
GRID = np.linspace(0, 0.5, 101)  # recombination fractions of the matrix,
SHOWN = (0.0, 0.1, 0.2, 0.5)  # and those reported
FRACTIONS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5)  # of random landscapes
ALLELES = 10
SAMPLES = 200  # of a history
STRENGTHS = tuple(2.0**-k for k in range(3, 9))  # epsilon of weak selection
LINKAGES = (0.0, 0.1, 0.5)  # recombination fractions under weak selection
COLOURS = plt.colormaps["viridis"]

Array = Float[np.ndarray, "..."]
Found = tuple[dict[str, Any], dict[Any, Any]]  # metrics, and curves for the figure


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    spreads: tuple[float, ...] = (0.01, 0.1, 0.3),
    landscapes: int = 300,
    generations: int = 20_000,
) -> dict[str, Any]:
    """Iterate the chosen ``parts`` from equal frequencies; write mixability.png and metrics.json to ``out``.

    The matrix goes on for so many ``generations``, each of so many random ``landscapes`` with w ~ N(1, s^2), s of
    ``spreads``, for about 100 / s. ``quick``: 4,000 generations, 20 landscapes, the two greatest spreads.
    """
    check("part", parts, PARTS, "parts")
    if quick:
        generations, landscapes, spreads = min(generations, 4000), min(landscapes, 20), spreads[-2:]
    curves: dict[str, Any] = {}

    def kept(part: str, found: Found) -> dict[str, Any]:
        metrics, curves[part] = found
        return {part: metrics}

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "matrix": lambda: kept("matrix", of_matrix(generations)),
        "landscapes": lambda: kept("landscapes", of_landscapes(np.random.default_rng(seed), spreads, landscapes)),
        "weights": lambda: {"weights": of_weak_selection(np.random.default_rng(seed))},
    }
    metrics = run_parts(out, parts, work)
    if set(parts) == set(PARTS):
        figure(out / "mixability.png", metrics, curves)
    return metrics


def next_generation(p: Any, w: Any, r: Any) -> Any:
    """(1) and (2), on (A, B) arrays of numpy or JAX."""
    selected = p * w / (p * w).sum()
    return (1 - r) * selected + r * selected.sum(1)[:, None] * selected.sum(0)


def mixability(p: Any, w: Any) -> Any:
    """(3)."""
    return (p.sum(1) @ w.mean(1) + p.sum(0) @ w.mean(0)) / 2


@functools.partial(jax.jit, static_argnames="every")
def histories(w: Any, r: Any, every: int) -> tuple[Any, Any, Any]:
    """For all ``w`` (landscapes, A, B) and ``r`` (fractions,) from equal frequencies: `SAMPLES` + 1 populations,
    ``every`` so many generations, (landscapes, fractions, samples, A, B), and their mean fitness and M, without the
    last two axes."""

    def history(w: Any, r: Any) -> tuple[Any, Any, Any]:
        def sample(p: Any, _: None) -> tuple[Any, Any]:
            after = jax.lax.fori_loop(0, every, lambda _, p: next_generation(p, w, r), p)
            return after, after

        start = jnp.full(w.shape, 1 / w.size)
        p = jnp.concatenate([start[None], jax.lax.scan(sample, start, length=SAMPLES)[1]])
        return p, (p * w).sum((1, 2)), jax.vmap(mixability, (0, None))(p, w)

    return jax.vmap(jax.vmap(history, (None, 0)), (0, None))(jnp.asarray(w), jnp.asarray(r))


def of_matrix(generations: int) -> Found:
    """Who wins at which recombination fraction, and what that is worth; and the frequencies of A1B3 and A2B2 in every
    second of the first 400 generations."""
    p, fitness, mixed = (np.asarray(each[0]) for each in histories(MATRIX[None], GRID, generations // SAMPLES))
    winners = [f"A{k // 3 + 1}B{k % 3 + 1}" for k in p[:, -1].reshape(len(GRID), -1).argmax(1)]
    flips = [k for k in range(1, len(GRID)) if winners[k] != winners[k - 1]]
    shown = {f"{r:g}": int(np.abs(GRID - r).argmin()) for r in SHOWN}
    metrics = {
        "winners": {
            r: {
                "winner": winners[k],
                "frequency": float(p[k, -1].max()),
                "mean fitness": float(fitness[k, -1]),
                "mixability": float(mixed[k, -1]),
            }
            for r, k in shown.items()
        },
        "flips between": [[float(GRID[k - 1]), float(GRID[k])] for k in flips],
    }
    early = histories(MATRIX[None], np.array(SHOWN), 2)[0][0]
    return metrics, {r: each[:, (0, 1), (2, 1)] for r, each in zip(shown, early, strict=True)}


def of_landscapes(rng: np.random.Generator, spreads: tuple[float, ...], landscapes: int) -> Found:
    """Mean and standard error of mixability and fitness in the end, in units of s, and how often sex ends up with more
    mixability than none; and the means over time."""
    found: dict[str, Any] = {}
    curves = {}
    for s in spreads:
        w = np.maximum(rng.normal(1, s, (landscapes, ALLELES, ALLELES)), 0)  # less than lethal there is not
        every = max(round(100 / s / SAMPLES), 1)
        _, fitness, mixed = histories(w, np.array(FRACTIONS), every)
        fitness, mixed = ((np.asarray(each) - 1) / s for each in (fitness, mixed))
        change = mixed[:, :, -1] - mixed[:, :1, -1]
        same = np.abs(change) < 0.01  # the same winner, to what is left of the others
        best = (w.mean(2).max(1) + w.mean(1).max(1)) / 2
        found[f"{s:g}"] = {
            "mixability": described(mixed[:, :, -1]),
            "mixability, more than without sex": described(change),
            "fitness": described(fitness[:, :, -1]),
            "greatest mixability": float((best.mean() - 1) / s),
            "greatest fitness": float((w.max((1, 2)).mean() - 1) / s),
            "landscapes with more": np.where(same, False, change > 0).mean(0).tolist(),
            "landscapes with less": np.where(same, False, change < 0).mean(0).tolist(),
        }
        curves[s] = {"t": np.arange(SAMPLES + 1) * every, "mixability": mixed.mean(0), "fitness": fitness.mean(0)}
    return {"fractions": FRACTIONS, "spreads": found}, curves


def described(values: Array) -> dict[str, list[float]]:
    """Over landscapes, for each fraction."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    return {"mean": values.mean(0).tolist(), "standard error": error.tolist()}


def of_weak_selection(rng: np.random.Generator) -> dict[str, Any]:
    """How far alleles are from multiplicative weights, and how that depends on epsilon.

    Within 2 / epsilon generations, the largest difference of frequencies ``in a step`` of (4) from where the population
    is; ``along the way``, from (4) that has gone its own way from the start; and, in the end, from the ``leader``, (5).
    """
    payoff = rng.uniform(-1, 1, (ALLELES, ALLELES))
    differences: dict[str, dict[str, list[float]]] = {}
    for r in LINKAGES:
        by_strength = [departures(payoff, epsilon, r, round(2 / epsilon)) for epsilon in STRENGTHS]
        differences[f"{r:g}"] = {name: [each[name] for each in by_strength] for name in by_strength[0]}
    return {
        "epsilon": STRENGTHS,
        "differences": differences,
        "slopes": {
            r: {name: float(np.polyfit(np.log(STRENGTHS), np.log(each), 1)[0]) for name, each in kinds.items()}
            for r, kinds in differences.items()
        },
    }


def departures(payoff: Array, epsilon: float, r: float, generations: int) -> dict[str, float]:
    """The three largest differences of allele frequencies; numpy, 64 bits."""
    p = np.full(payoff.shape, 1 / payoff.size)
    own = p.sum(1), p.sum(0)
    gained = np.zeros(len(payoff))
    steps, paths = [], []
    for _ in range(generations):
        x, y = p.sum(1), p.sum(0)
        gained += payoff @ y
        p = next_generation(p, 1 + epsilon * payoff, r)
        own = multiplied(*own, payoff, epsilon)
        steps.append(np.abs(p.sum(1) - multiplied(x, y, payoff, epsilon)[0]).max())
        paths.append(np.abs(p.sum(1) - own[0]).max())
    leader = np.exp(epsilon * gained)
    return {
        "in a step": float(np.max(steps)),
        "along the way": float(np.max(paths)),
        "leader": float(np.abs(p.sum(1) - leader / leader.sum()).max()),
    }


def multiplied(x: Array, y: Array, payoff: Array, epsilon: float) -> tuple[Array, Array]:
    """(4), of both loci."""
    x, y = x * (1 + epsilon * payoff @ y), y * (1 + epsilon * payoff.T @ x)
    return x / x.sum(), y / y.sum()


def figure(path: Path, metrics: dict[str, Any], curves: dict[str, Any]) -> None:
    """Who wins; mixability and fitness over time, and in the end; the distance to multiplicative weights."""
    drawn, ((winning, over_time), (final, weak)) = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained")
    for k, r in enumerate(("0.1", "0.2")):
        for allele, style in enumerate(("-", "--")):
            label = f"{('A1B3, the best', 'A2B2, the mixers')[allele]}, r = {r}"
            t = 2 * np.arange(SAMPLES + 1)
            winning.plot(t, curves["matrix"][r][:, allele], style, color=COLOURS(0.2 + 0.5 * k), label=label)
    winning.set(xlabel="generations", ylabel="frequency")
    winning.set_title("One landscape of 3 x 3 alleles", fontsize=10)

    spreads = curves["landscapes"]
    middle = sorted(spreads)[len(spreads) // 2]
    for quantity, style in (("mixability", "-"), ("fitness", "--")):
        for k, linkage in enumerate((0.0, 0.1, 0.5)):
            each = spreads[middle][quantity][FRACTIONS.index(linkage)]
            label = f"{quantity}, r = {linkage:g}"
            over_time.plot(spreads[middle]["t"][1:], each[1:], style, color=COLOURS(0.4 * k), label=label)
    over_time.set(xlabel="generations", ylabel="above 1, in units of s", xscale="log", yscale="log")
    over_time.set_title(f"Random landscapes of 10 x 10 alleles, s = {middle:g}", fontsize=10)

    for k, (s, each) in enumerate(metrics["landscapes"]["spreads"].items()):
        more = (each["mixability, more than without sex"][name][1:] for name in ("mean", "standard error"))
        ratio = np.array(FRACTIONS[1:]) / float(s)
        final.errorbar(ratio, *more, fmt="o-", ms=4, lw=1, color=COLOURS(0.4 * k), label=f"s = {s}")
    final.axhline(0, color="0.6", lw=1, ls=":")
    final.set(xlabel="recombination fraction / spread of fitness, r / s", xscale="log")
    final.set_ylabel("mixability gained, in units of s")
    final.set_title("What sex adds to final mixability", fontsize=10)

    epsilon = np.array(metrics["weights"]["epsilon"])
    for k, (r, kinds) in enumerate(metrics["weights"]["differences"].items()):
        weak.loglog(epsilon, kinds["in a step"], "o-", ms=4, lw=1, color=COLOURS(0.4 * k), label=f"in a step, r = {r}")
    weak.loglog(epsilon, kinds["along the way"], "s--", ms=4, lw=1, color=COLOURS(0.8), label=f"along the way, r = {r}")
    for power in (1, 2):
        line = 6e-4 * (epsilon / epsilon[0]) ** power
        weak.loglog(epsilon, line, ":", color="0.6", lw=1)
        weak.annotate(f"slope {power}", (epsilon[-1], 1.3 * line[-1]), color="0.4", fontsize=8)
    weak.set(xlabel=r"strength of selection $\epsilon$", ylabel="difference of allele frequencies")
    weak.set_title("Distance to multiplicative weights", fontsize=10)
    for axis in (winning, over_time, final, weak):
        finish(axis)
    drawn.savefig(path, dpi=150)
    plt.close(drawn)


def finish(axis: Axes) -> None:
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
