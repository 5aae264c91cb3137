"""The architecture that Metz et al. released, smaller: learned, and tried on what it was not learned on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from engrax import meta, networks as nets, rules

from ..classification import mean_and_error

SIZES = (64, 32)  # of the layers; theirs are 128, 128, 128, 128, 32
CELLS, CHANNELS = 16, 8  # theirs are 64, 32
ETA, TICKS, BATCH = 0.03, 50, 32  # theirs are 1e-4, thousands, 128
STRENGTH = 0.3


def problem(rule: Any, sources: list[Any], segments: int = 1, **options: Any) -> Any:
    task = meta.tasks.FewShot(sources, layer=f"layer{len(SIZES)}", batch=BATCH, strength=STRENGTH, **options)
    net = nets.batch_normalised_layers((task.inputs, *SIZES), rule)
    return meta.Learning(net, rule, task, units=TICKS // segments, segments=segments, fixed=("eta",))


def learn(
    seen: list[Any], others: Mapping[str, list[Any]], *, seed: int, steps: int, episodes: int, tests: int, kept: Path
) -> dict[str, Any]:
    """The loss while it is learned, and the part that is right before and after, and where nothing changes."""
    rule, still = (rules.Metz2018Released.make(SIZES[-1], cells=CELLS, channels=CHANNELS, seed=seed, eta=eta)
                   for eta in (ETA, 0.0))  # fmt: skip
    slope = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, steps)))
    found = meta.train(problem(rule, seen, segments=2), meta.gradient(slope, episodes=episodes, window=1), steps=steps,
                       seed=seed, checkpoint=kept, progress=True)  # fmt: skip
    keys = jax.random.split(jax.random.key(99), tests)
    right: dict[str, Any] = {}
    for name, sources in others.items():
        classes = min(len(np.unique(y)) for _, y in sources)
        ways = {"learned": (rule, found.theta), "as drawn": (rule, None), "random": (still, None)}
        each = {}
        for way, (one, theta) in ways.items():
            tried = problem(one, sources, classes=classes, score=lambda loss, right: right)
            each[way] = meta.evaluate(tried, tried.start if theta is None else theta, keys, together=2).ravel()
        right[name] = {
            way: {**mean_and_error(values), "behind": mean_and_error(each["learned"] - values)}
            for way, values in each.items()
        }
    saved = kept.with_suffix(".json")
    saved.unlink(missing_ok=True)
    meta.save(found.learned, saved, f"After Metz et al. (2019), as released but smaller: {steps} steps, seed {seed}")
    numbers = sum(int(np.size(value)) for value in found.theta.values())
    return {"loss": [float(v) for v in found.losses.mean(1)], "numbers": numbers, "right": right}
