"""The driver of an outer loop: step by step, on one machine or a cluster, with checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from ..errors import SimulationError
from ..keys import named_key
from .checkpoint import Checkpoint
from .genome import Coded, Subspace, Varied
from .inner import Inner, Theta
from .members import Choosing, Cluster, Decoding, Members
from .outer import Loop, Outer


@dataclass(frozen=True)
class Trained:
    """What an outer loop found.

    ``theta``: the numbers; ``learned``: what has them, the rule for instance; ``losses``: of every step and member.
    """

    theta: Theta
    learned: Any
    losses: Float[np.ndarray, "steps members"]


def train(
    inner: Inner,
    outer: Outer,
    *,
    steps: int,
    seed: int = 0,
    client: Any = None,
    slices: int = 8,
    checkpoint: str | Path | None = None,
    every: int = 10,
    progress: bool = False,
    callbacks: Sequence[Callable[[int, Theta, np.ndarray], Any]] = (),
) -> Trained:
    """Go ``steps`` steps of the outer loop over the inner problem.

    All members of a step run in one vectorised program, shared out over JAX's devices where there are several that
    divide them. With a ``client`` (a ``distributed.Client``) they are cut into ``slices`` that its workers run: what
    comes out depends on the number of slices, but not on that of the workers, nor on their dying.

    ``checkpoint``: an HDF5 file that is written every so many steps; where it is there already the loop goes on from
    it, bit for bit as if it had never stopped. Each of the ``callbacks`` gets the step, what was found so far and the
    members' losses after every step; one that returns True ends the loop.

    Raises `SimulationError` where no loss of a step, or the gradient, is finite (with what the checkpoint last held),
    and where the checkpoint is of another problem.
    """
    if steps < 0:
        raise SimulationError(f"steps={steps} must not be negative")
    loop = outer(inner)
    window = inner.segments if loop.window is None else loop.window
    if window < 1 or inner.segments % window:
        raise SimulationError(f"window={window} must divide the {inner.segments} segments of the inner problem")
    key = jax.random.key(seed)
    members = _members(inner, window, loop.gradient, client, slices)
    state = loop.init(named_key(key, "outer"))
    lives: Any = None
    losses = np.zeros((0, loop.members))
    saved = None if checkpoint is None else Checkpoint(Path(checkpoint), seed, loop)
    if saved is not None and saved.there:
        state, lives, losses = saved.read(state, lambda: members.begin(loop.ask(state, key)[0], _keys(loop, key)))
    with tqdm(total=steps, initial=len(losses), unit="step", disable=not progress) as bar:
        for step in range(len(losses), steps):
            now = jax.random.fold_in(key, step)
            thetas, state = loop.ask(state, named_key(now, "ask"))
            if step * window % inner.segments == 0:
                lives = members.begin(thetas, _keys(loop, named_key(now, "episodes")))
            lives, each, gradients = members.advance(thetas, lives)
            mean = each.mean(1)
            _check(step, mean, gradients, saved)
            state = loop.tell(state, thetas, jnp.asarray(mean), gradients, named_key(now, "tell"))
            losses = np.concatenate([losses, mean[None]])
            bar.update()
            bar.set_postfix(loss=f"{np.nanmean(mean):.4g}", refresh=False)
            stop = [call(step, loop.found(state), mean) is True for call in callbacks]  # every one is called
            if saved is not None and ((step + 1) % every == 0 or step + 1 == steps or any(stop)):
                saved.write(state, lives, losses)
            if any(stop):
                break
    theta = loop.found(state)
    return Trained(theta, inner.decode(theta), losses)


def _members(
    inner: Inner, window: int, gradient: bool, client: Any, slices: int
) -> Members | Cluster | Decoding | Choosing:
    def plain(inner: Inner) -> Members | Cluster:
        if client is None:
            return Members(inner, window, gradient)
        return Cluster(inner, window, gradient, client, slices)

    def of(inner: Inner) -> Members | Cluster | Decoding:
        if isinstance(inner, Coded | Subspace) and not gradient:
            return Decoding(inner, plain(inner.problem))
        return plain(inner)

    return Choosing(inner, of) if isinstance(inner, Varied) else of(inner)


def _keys(loop: Loop, key: Any) -> Any:
    """The random key's data of every (member, episode); those that are to try the same inner problems have the same."""
    number = np.arange(loop.members)
    alike = {"none": number, "pairs": number % max(loop.members // 2, 1), "all": 0 * number}[loop.alike]
    return jax.random.key_data(jax.random.split(key, (loop.members, loop.episodes)))[alike]


def _check(step: int, losses: np.ndarray, gradients: Theta, saved: Checkpoint | None) -> None:
    kept = "" if saved is None else f"; {saved.path} holds the last checkpoint"
    if not np.any(np.isfinite(losses)):
        raise SimulationError(f"step {step}: no member's loss is finite: start nearer to a rule that is stable{kept}")
    if gradients is not None and not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients)):
        raise SimulationError(
            f"step {step}: the gradient is not finite: shorten the window, or clip it (optax.clip_by_global_norm){kept}"
        )
