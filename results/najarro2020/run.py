r"""Rules evolved for every synapse of a network whose weights are random at birth, and damage. See README.md.

A body in the plane hears a motor command of the tick before, :math:`u`, and tells how far its target is:

(1)  :math:`p \leftarrow \mathrm{clip}(p + r s u, -b, b)`, :math:`x = t - p`, :math:`v = (p_t - p_{t-1}) / r`

for either coordinate, with a reach r and walls at b. The sign s is how the muscle is wired. The network between x, v
and u learns by `rules.ABCD`, with five numbers for each synapse, or has weights that evolved themselves and stay.
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import optax
from jaxtyping import Array, Float

from engrax import Fields, meta, networks as nets, rules

HIDDEN = 16
LIFE = 100  # ticks
STAY = 25  # ticks, after which the target jumps
BOUND = 3.0  # of a weight
SPREAD = 0.1  # weights at birth are uniform between -SPREAD and SPREAD
HEBBIAN, STATIC = "Hebbian", "static"
SEEN = ((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0))  # as the muscles are wired in the lives of evolution
DAMAGE: dict[str, tuple[float, float]] = {  # what happens half-way through a life of a test
    "none": (1.0, 1.0),
    "one muscle reversed": (-1.0, 1.0),
    "both muscles reversed": (-1.0, -1.0),
    "weights lost": (1.0, 1.0),
}
PROJECTIONS = {"body->hidden": (HIDDEN, 2), "body->hidden[1]": (HIDDEN, 2), "bias->hidden": (HIDDEN, 1),
               "hidden->motor": (2, HIDDEN), "bias->motor": (2, 1)}  # fmt: skip


class Body(nets.Neuron):
    """(1), one coordinate of it; ``far`` is the sum of the distances so far."""

    ports: ClassVar[tuple[str, ...]] = ("muscle", "target", "wiring")
    reach: float = 0.2  # r
    wall: float = 1.5  # b

    def init(self) -> Fields:
        return Fields(x=0.0, v=0.0, place=0.0, far=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        place = jnp.clip(state.place + self.reach * ports.wiring * ports.muscle, -self.wall, self.wall)
        x = ports.target - place
        return Fields(x=x, v=(place - state.place) / self.reach, place=place, far=state.far + jnp.abs(x))


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    seeds: int = 3,
    members: int = 64,
    episodes: int = 6,
    steps: int = 150,
    tests: int = 128,
) -> dict[str, Any]:
    """Evolve both kinds of networks, damage them, and write najarro2020.png and metrics.json.

    ``members`` of OpenAI-ES, each of which lives ``episodes`` lives in each of the ``steps``; ``tests``: lives in which
    what was found is damaged. ``quick``: few of everything.
    """
    if quick:
        seeds, members, episodes, steps, tests = 1, 16, 2, 3, 8
    metrics: dict[str, Any] = {}
    for kind in (HEBBIAN, STATIC):
        inner = problem(kind, 0)
        found = []
        for number in range(seed, seed + seeds):
            begun = time.perf_counter()
            inner = problem(kind, number)
            outer = meta.openai_es(members, 0.1, optax.adam(rate(kind)), episodes=episodes)
            trained = meta.train(inner, outer, steps=steps, seed=number)
            told = damaged(kind, trained.theta, tests, number)
            found.append(told | {"loss": np.nanmean(trained.losses, 1).tolist()})
            meta.save(trained.learned, out / f"{kind.lower()}_{number}.json", f"najarro2020, {kind}, seed {number}")
            print(f"{kind}, seed {number}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        metrics[kind] = summary(found) | {"numbers": sum(np.size(leaf) for leaf in jax.tree.leaves(inner.start))}
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")  # what is done survives what fails
    figure(out / "najarro2020.png", metrics)
    return metrics


def rate(kind: str) -> optax.Schedule:
    """The learning rate of evolution: the numbers of a rule are about 1, weights at first about 0.1."""
    return optax.exponential_decay(0.2 if kind == HEBBIAN else 0.05, 1, 0.99)


# Networks


def network(learned: Mapping[str, rules.ABCD]) -> nx.MultiDiGraph:
    """The body is a population whose state is the next input."""
    net = nx.MultiDiGraph()
    net.add_node("body", neuron=Body(), size=2)
    net.add_node("bias", neuron=nets.Constant(), size=1)
    net.add_node("hidden", neuron=nets.Rate(), size=HIDDEN)
    net.add_node("motor", neuron=nets.Rate(), size=2)
    for name in PROJECTIONS:
        pre, post = name.removesuffix("[1]").split("->")
        rule = rules.Bounded(learned[name], -BOUND, BOUND) if name in learned else None
        field = "v" if name.endswith("[1]") else "x"
        net.add_edge(pre, post, rule=rule, field=field, port="drive", weights=nets.Uniform(-SPREAD, SPREAD))
    net.add_edge("motor", "body", port="muscle", topology=nets.OneToOne(), weights=1.0, delay=1)
    return net


def problem(kind: str, seed: int, task: meta.inner.Task | None = None, segments: int = 1) -> meta.Learning:
    """From numbers drawn at random: standard normal ones for a rule, a third of that for its rates."""
    rng = np.random.default_rng(seed)
    learned: dict[str, Any]
    if kind == HEBBIAN:
        learned = {
            name: rules.ABCD(0.3 * rng.normal(size=shape), *(rng.normal(size=shape) for _ in "abcd"))
            for name, shape in PROJECTIONS.items()
        }
        net = network(learned)
    else:
        learned = {f"{name}.w": SPREAD * rng.normal(size=shape) for name, shape in PROJECTIONS.items()}
        net = network({})
    return meta.Learning(net, learned, life if task is None else task, units=LIFE // segments, segments=segments)


# Lives


def targets(key: Any, ticks: int) -> Float[Array, "ticks 2"]:
    """On a circle around the middle, elsewhere every `STAY` ticks."""
    angles = jax.random.uniform(key, (-(-ticks // STAY),), maxval=2 * jnp.pi)
    return jnp.repeat(jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1), STAY, axis=0)[:ticks]


def life(key: Any) -> meta.Episode:
    """A life of evolution; its loss is the mean distance."""
    where, how = jax.random.split(key)
    wiring = jnp.asarray(SEEN)[jax.random.randint(how, (), 0, len(SEEN))]
    drive = {"body.target": targets(where, LIFE), "body.wiring": jnp.broadcast_to(wiring, (LIFE, 2))}
    return meta.Episode(drive, lambda learnt: jnp.sum(learnt.x("body.far")) / LIFE)


def half(now: Sequence[float], key: Any) -> meta.Episode:
    """Half of a life of a test; its loss is the distance at the end of a segment."""
    drive = {"body.target": targets(key, 2 * LIFE), "body.wiring": jnp.broadcast_to(jnp.asarray(now), (2 * LIFE, 2))}
    return meta.Episode(drive, lambda learnt: jnp.sum(jnp.abs(learnt.x("body.x"))))


def damaged(kind: str, theta: Any, tests: int, seed: int) -> dict[str, Any]:
    """The distance in every tick, before and after each kind of damage, averaged over lives."""
    keys = jax.random.split(jax.random.key(1000 + seed), tests)
    return {
        name: np.asarray(_lives(kind, wiring)(theta, keys, name == "weights lost")).tolist()
        for name, wiring in DAMAGE.items()
    }


@functools.cache
def _lives(kind: str, wiring: Sequence[float]) -> Any:
    """The mean distance in every tick, with the muscles wired like this in the second half of a life."""
    newborn = problem(HEBBIAN, 0)
    before, after = (problem(kind, 0, functools.partial(half, now), LIFE) for now in (DAMAGE["none"], wiring))

    def lived(theta: Any, key: Any, lost: Any) -> Any:
        def ticks(of: Any, state: Any) -> Any:
            return jax.lax.scan(lambda state, _: of.advance(theta, state), state, None, length=LIFE)

        state, first = ticks(before, before.begin(theta, key))
        fresh = newborn.begin(newborn.start, jax.random.fold_in(key, 1)).state.synapses
        here = dict(state.state.synapses)
        for name in PROJECTIONS:
            drawn = tuple(jnp.where(lost, new, old) for new, old in zip(fresh[name].w, here[name].w, strict=True))
            here[name] = dataclasses.replace(here[name], w=drawn)
        state = eqx.tree_at(lambda life: life.state.synapses, state, here)
        return jnp.concatenate([first, ticks(after, state)[1]])

    return jax.jit(lambda theta, keys, lost: jax.vmap(lived, (None, 0, None))(theta, keys, lost).mean(0))


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each seed the distance in the half of a life before, and in the last half of that after the damage."""
    lives = {name: np.array([one[name] for one in found]) for name in DAMAGE}
    return {
        "before": lives["none"][:, LIFE // 2 : LIFE].mean(1).tolist(),
        "after": {name: each[:, -LIFE // 2 :].mean(1).tolist() for name, each in lives.items()},
        "course": {name: each.mean(0).tolist() for name, each in lives.items()},
        "loss": np.mean([one["loss"] for one in found], 0).tolist(),
    }


# Figure


def figure(path: Path, metrics: Mapping[str, Any]) -> None:
    drawing, axes = plt.subplots(1, 1 + len(DAMAGE), figsize=(15, 3.6))
    for kind, told in metrics.items():
        axes[0].plot(told["loss"], label=kind)
        for axis, name in zip(axes[1:], DAMAGE, strict=True):
            axis.plot(told["course"][name], label=kind)
            axis.set(title=name, xlabel="tick of a life", ylim=(0, 4.5))
            axis.axvline(LIFE, color="0.6", lw=0.8, ls=":")
    axes[0].set(xlabel="generation", ylabel="mean distance in evolution (lengths)", ylim=(0, None))
    axes[1].set(ylabel="distance (lengths)")
    axes[0].legend(frameon=False)
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
