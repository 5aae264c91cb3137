"""Confavreux et al. (2020): plasticity rules found again from what they are for. See README.md."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax
from matplotlib.axes import Axes

from engrax import meta, networks as nets, rules

from ..choices import check, run_parts

PARTS = ("component", "rate", "components", "spikes")
SPREAD = 0.01  # of the coefficients at first
RATE = 1e-2  # of Adam, falling to 0
BOUND = 2.0  # of weights: what a bad rule may do
INPUTS = 5
CELLS = 3
PENALTY = {1: 1e-3, CELLS: 3e-4}  # L1 at every step, by how many cells learn
TARGET = 10.0  # Hz
SECONDS = 3.0
ABOUT = (
    "Oja's rule, as gradient descent found it among 27 terms for a cell that is to have the first principal component "
    "as its weights (results/confavreux2020)"
)
OJA = {"110": 1.0, "021": -1.0}


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    seeds: int = 2,
    steps: int = 500,
    networks: int = 300,
    holders: int = 3,
    generations: int = 60,
) -> dict[str, Any]:
    """Learn rules and write confavreux2020.png, oja2020.json (the first rule) and metrics.json.

    The parts: ``component``, one cell that is to find the first principal component, from so many ``seeds`` in
    ``steps`` steps; ``components``, three cells, in steps of ``networks``; ``rate``, a cell that is to be held at a
    rate, from so many random rules (``holders``); ``spikes``, the same with spiking neurons, by evolution over so many
    ``generations``. ``quick``: the first part alone, one seed and few steps.
    """
    check("part", parts, PARTS)
    if quick:
        parts, seeds, steps = ("component",), 1, min(steps, 60)
    starts = range(seed, seed + seeds)
    metrics = run_parts(out, parts, {
        "component": lambda: {"component": component(out, starts, steps, 100 if quick else 300)},
        "components": lambda: {"components": components(seed, networks)},
        "rate": lambda: {"rate": rate(range(seed, seed + holders))},
        "spikes": lambda: {"spikes": spikes(starts, generations)},
    })  # fmt: skip
    figure(out / "confavreux2020.png", metrics)
    return metrics


# Principal components


def component(out: Path, seeds: Sequence[int], steps: int, units: int) -> dict[str, Any]:
    """27 coefficients by gradient; the rules that they become, and how far those are from what they should find."""
    rule = rules.Volterra(eta=0.05)
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=INPUTS)
    net.add_node("out", neuron=nets.Linear(), size=1)
    net.add_edge("in", "out", rule=rules.Bounded(rule, -BOUND, BOUND), weights=nets.Normal(0.3))
    task = functools.partial(meta.tasks.principal_components, "in", ["in->out"], INPUTS, variance=(0.5, 3.0))
    inner = meta.Learning(net, rule, task(), units=units, fixed=("eta",))
    test = meta.Learning(net, rule, located(task(batch=50), ["in->out"]), units=2000, fixed=("eta",))
    found = []
    for seed in seeds:
        learned = meta.train(inner, by_gradient(steps, 16, PENALTY[1]), steps=steps, seed=seed)
        theta = {name.removeprefix("theta."): float(value) for name, value in learned.theta.items()}
        found.append({
            "equation": learned.learned.latex(digits=2),
            "theta": theta,
            **dominant(theta),
            **located_at(test, learned.theta),
        })  # fmt: skip
        if seed == seeds[0]:
            (out / "oja2020.json").unlink(missing_ok=True)
            meta.save(learned.learned, out / "oja2020.json", ABOUT)
    return {"seeds": found, "Oja": located_at(test, thetas(theta=OJA))}


def components(seed: int, steps: int) -> dict[str, Any]:
    """One rule onto the cells and one from each cell to those after it, both learned from nothing."""
    forward, lateral = rules.Volterra(eta=0.05), rules.Volterra(eta=0.05)
    n = INPUTS + 1
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=n)
    cells = [f"out{k + 1}" for k in range(CELLS)]
    for number, cell in enumerate(cells):
        net.add_node(cell, neuron=nets.Linear(), size=1)
        net.add_edge("in", cell, rule=rules.Bounded(forward, -BOUND, BOUND), weights=nets.Normal(0.3))
        for before in cells[:number]:
            bounded = rules.Bounded(lateral, -BOUND, BOUND)
            net.add_edge(before, cell, port="lateral", rule=bounded, weights=nets.Normal(0.1))
    projections = [f"in->{cell}" for cell in cells]
    task = functools.partial(meta.tasks.principal_components, "in", projections, n, variance=(1.0, 3.0))
    both, fixed = {"forward": forward, "lateral": lateral}, ("forward.eta", "lateral.eta")
    inner = meta.Learning(net, both, task(), units=300, fixed=fixed)
    test = meta.Learning(net, both, located(task(batch=50), projections), units=3000, fixed=fixed)
    learned = meta.train(inner, by_gradient(steps, 8, PENALTY[CELLS]), steps=steps, seed=seed)
    known = thetas("forward.", OJA) | thetas("lateral.", {"110": -1.0})
    return {
        "losses": learned.losses.mean(1).tolist(),
        "learned": located_at(test, learned.theta),
        "Oja and anti-Hebb": located_at(test, known),
        "Oja alone": located_at(test, thetas("forward.", OJA) | thetas("lateral.")),
        **{name: printed(one) for name, one in learned.learned.items()},
    }


def printed(rule: rules.Volterra) -> dict[str, Any]:
    return {"equation": rule.latex(digits=2), "theta": {name: float(value) for name, value in rule.theta.items()}}


def by_gradient(steps: int, episodes: int, penalty: float) -> meta.Outer:
    """Adam from small random coefficients, with an L1 penalty at every step."""
    falling = optax.cosine_decay_schedule(RATE, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(falling), meta.shrinking(penalty))
    return meta.gradient(optimiser, episodes=episodes, spread=SPREAD)


def thetas(prefix: str = "", theta: Mapping[str, float] | None = None) -> dict[str, Any]:
    """All coefficients by the names that a problem gives them, 0 where nothing else is said."""
    return {f"{prefix}theta.{name}": jnp.asarray((theta or {}).get(name, 0.0)) for name in rules.Volterra.known}


def dominant(theta: Mapping[str, float]) -> dict[str, float]:
    """How Oja's two terms are to each other, and how large the largest of the others is beside them."""
    others = [abs(value) for name, value in theta.items() if name not in OJA]
    return {"ratio": theta["021"] / theta["110"], "others": max(others) / abs(theta["110"])}


def located(task: meta.inner.Task, projections: Sequence[str]) -> meta.inner.Task:
    """The same episodes, of which one sees the angles (degrees) of the weights to the components, and their norms."""

    def seen(key: Any) -> meta.Episode:
        episode = task(key)
        axes = episode.drive["in"].factor.T[: len(projections)]

        def looked(learnt: meta.Learnt) -> Any:
            w = jnp.concatenate([learnt.w(name) for name in projections])
            norms = jnp.linalg.norm(w, axis=1)
            cosines = jnp.abs(jnp.sum(w * axes, 1)) / (norms * jnp.linalg.norm(axes, axis=1))
            return {"angle": jnp.degrees(jnp.arccos(jnp.minimum(cosines, 1.0))), "norm": norms}

        return dataclasses.replace(episode, loss=looked)

    return seen


def located_at(test: meta.Learning, theta: Any) -> dict[str, Any]:
    """For each cell the mean angle (degrees), the largest, and the mean norm."""
    seen = lived(test, theta)
    return {
        "angle": seen["angle"].mean(0).tolist(),
        "largest_angle": seen["angle"].max(0).tolist(),
        "norm": seen["norm"].mean(0).tolist(),
    }


def lived(test: meta.Learning, theta: Any, episodes: int = 40) -> dict[str, Any]:
    """What is seen in so many new episodes."""
    found: dict[str, Any] = meta.evaluate(test, theta, jax.random.split(jax.random.key(99), episodes))
    return {name: values[:, -1] for name, values in found.items()}


# A target rate


def rate(seeds: Sequence[int]) -> dict[str, Any]:
    """Inhibition onto a cell with tuned excitation, by rules that begin far from one another."""
    rule = rules.Volterra(eta=0.03)
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=10)
    net.add_node("inhibitory", neuron=nets.Linear(), size=10)
    net.add_node("cell", neuron=nets.Rate(activation=jax.nn.softplus), size=1)
    net.add_edge("in", "inhibitory", topology=nets.OneToOne(), weights=nets.Fixed(1.0))
    net.add_edge("in", "cell", weights=nets.Uniform(0.2, 1.0))
    net.add_edge("inhibitory", "cell", rule=rules.Bounded(rule, -BOUND, 0.0), weights=nets.Uniform(-0.8, 0.0))

    def inputs(key: Any) -> dict[str, Any]:
        return {"in": Positive(jax.random.uniform(key, minval=0.5, maxval=1.5))}

    inner = meta.Learning(net, rule, meta.tasks.target_rate(inputs, "cell.x", 1.0), units=60, fixed=("eta",))
    test = meta.Learning(net, rule, measured(inputs, "cell.x"), units=400, fixed=("eta",))
    falling = optax.cosine_decay_schedule(2e-2, 150)
    outer = meta.gradient(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(falling)), episodes=8, spread=0.1)
    learned = [meta.train(inner, outer, steps=150, seed=seed) for seed in seeds]
    vectors = [np.array([float(value) for value in one.theta.values()]) for one in learned]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(vectors, 2)]
    held = [lived(test, one.theta)["rate"] for one in learned]
    still = lived(test, thetas())["rate"]
    return {
        "theta": [dict(zip(rules.Volterra.known, vector.tolist(), strict=True)) for vector in vectors],
        "held": [{"mean": float(h.mean()), "spread": float(h.std())} for h in held],
        "without": {"mean": float(still.mean()), "spread": float(still.std())},
        "cosines": {"mean": float(np.mean(cosines)), "largest": float(np.max(cosines))},
    }


def measured(inputs: Callable[[Any], Mapping[str, Any]], field: str) -> meta.inner.Task:
    """Episodes of which one sees the mean of a field over cells and batch."""

    def mean(learnt: meta.Learnt) -> Any:
        return {"rate": learnt.x(field).mean()}

    return lambda key: meta.Episode(inputs(key), mean)


class Positive(eqx.Module):
    """Ten patterns of ten positive inputs."""

    scale: Any

    def __call__(self, index: Any, key: Any) -> Any:
        return self.scale * jnp.abs(jax.random.normal(key, (10, 10)))


class Steady(eqx.Module):
    """The same rate (Hz) for all inputs, at all times."""

    rate: Any
    n: int = eqx.field(static=True)

    def __call__(self, index: Any, key: Any) -> Any:
        return jnp.full(self.n, self.rate)


def spikes(seeds: Sequence[int], generations: int) -> dict[str, Any]:
    """Six numbers of a spike-timing rule, from rules that do nothing, by evolution."""
    rule = rules.SpikES(eta=0.02, alpha=0.0, kappa=0.0, gamma=0.0)
    net = nx.MultiDiGraph()
    for name, size in (("e", 100), ("i", 25)):
        net.add_node(name, neuron=nets.Poisson(rate=0.0), size=size)
    net.add_node("cell", neuron=nets.ConductanceLIF(), size=10)
    net.add_node("meter", neuron=nets.LeakyRate(tau=1.0, activation=jax.nn.identity), size=10)
    net.add_edge("e", "cell", port="excitatory", weights=nets.Uniform(0.02, 0.08))
    net.add_edge("i", "cell", port="inhibitory", rule=rules.Bounded(rule, 0.0, 1.0), weights=0.0)
    net.add_edge("cell", "meter", topology=nets.OneToOne(), weights=nets.Fixed(1e3))

    def inputs(key: Any) -> dict[str, Any]:
        rates = jax.random.uniform(key, (2,), minval=jnp.array([10.0, 5.0]), maxval=jnp.array([20.0, 15.0]))
        return {"e": Steady(rates[0], 100), "i": Steady(rates[1], 25)}

    ticks = round(SECONDS * 1e3)
    inner = meta.Learning(net, rule, meta.tasks.target_rate(inputs, "meter.x", TARGET), units=ticks, fixed=("eta",))
    test = meta.Learning(net, rule, measured(inputs, "meter.x"), units=2 * ticks, fixed=("eta",))
    learned = [meta.train(inner, meta.cma_es(16, 0.5, episodes=4), steps=generations, seed=seed) for seed in seeds]
    known = rules.SpikES()
    vogels = {name: jnp.asarray(getattr(known, name)) for name in inner.start}
    found = [{"rule": {name: float(value) for name, value in one.theta.items()}, "losses": one.losses.min(1).tolist(),
              **held_at(test, one.theta)} for one in learned]  # fmt: skip
    return {"found": found, "Vogels et al.": held_at(test, vogels), "without": held_at(test, inner.start)}


def held_at(test: meta.Learning, theta: Any) -> dict[str, float]:
    rates = lived(test, theta, episodes=20)["rate"]
    return {"mean": float(rates.mean()), "spread": float(rates.std())}


# Figure


def figure(path: Path, metrics: Mapping[str, Any]) -> None:
    panels = {"component": coefficients, "components": angles, "rate": manifold, "spikes": regulated}
    there = [part for part in panels if part in metrics]
    drawing, axes = plt.subplots(1, len(there), figsize=(5 * len(there), 3.8), layout="constrained", squeeze=False)
    for axis, part in zip(axes.flat, there, strict=True):
        panels[part](axis, metrics[part])
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=130)
    plt.close(drawing)


def coefficients(axis: Axes, found: Mapping[str, Any]) -> None:
    at = np.arange(len(rules.Volterra.known))
    width = 0.8 / len(found["seeds"])
    for number, one in enumerate(found["seeds"]):
        values = np.array(list(one["theta"].values())) / one["theta"]["110"]
        axis.bar(at + (number + 0.5) * width - 0.4, values, width, color=f"C{number}", label=f"seed {number}")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(at, rules.Volterra.known, rotation=90, fontsize=7)
    axis.set(
        xlabel="exponents of pre, post, weight", ylabel="coefficient / that of 110", title="One component: Oja's rule"
    )
    axis.legend(frameon=False, fontsize=8)


def angles(axis: Axes, found: Mapping[str, Any]) -> None:
    names = ("learned", "Oja and anti-Hebb", "Oja alone")
    at = np.arange(CELLS)
    for number, name in enumerate(names):
        axis.bar(at + 0.27 * (number - 1), found[name]["angle"], 0.25, color=f"C{number}", label=name)
    axis.set_xticks(at, [f"cell {k + 1}" for k in at])
    axis.set(ylabel="angle to its principal component (°)", title="Several components: two rules learned together")
    axis.legend(frameon=False, fontsize=8)


def manifold(axis: Axes, found: Mapping[str, Any]) -> None:
    values = np.array([list(theta.values()) for theta in found["theta"]])
    limit = np.abs(values).max()
    image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axis.set_xticks(range(values.shape[1]), rules.Volterra.known, rotation=90, fontsize=7)
    labels = [f"seed {k}: {one['mean']:.2f}" for k, one in enumerate(found["held"])]
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set(xlabel="exponents of pre, post, weight", title="A target rate of 1: different rules hold it")
    axis.figure.colorbar(image, ax=axis, label="coefficient")


def regulated(axis: Axes, found: Mapping[str, Any]) -> None:
    entries = {f"seed {k}": one for k, one in enumerate(found["found"])}
    entries |= {name: found[name] for name in ("Vogels et al.", "without")}
    means, spreads = ([one[what] for one in entries.values()] for what in ("mean", "spread"))
    axis.errorbar(list(entries), means, spreads, fmt="o", capsize=4, color="C0")
    axis.axhline(TARGET, color="tab:red", linestyle=":", label="target")
    axis.set(ylabel="rate (Hz), over inputs that differ", title="Spiking cells: six numbers, evolved", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
