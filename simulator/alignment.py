"""How far updates point where the gradient points."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Float

from .errors import SimulationError
from .network import State
from .networks.graph import edges_of, set_rule
from .rules.base import LocalRule, NetworkRule
from .rules.bptt import BPTT
from .simulator import Simulator

AnyRule = LocalRule | NetworkRule


def alignment(
    net: nx.Graph,
    drive: Mapping[str, Array],
    rules: Mapping[str, AnyRule],
    *,
    reference: AnyRule | None = None,
    every: int | None = None,
    seed: int = 0,
    dt: float = 1e-3,
) -> dict[str, dict[str, Float[np.ndarray, " parts"]]]:
    r"""The cosine of the angle between each rule's update and the ``reference``'s, along one trajectory.

    .. math::
        \cos\theta = \frac{\Delta w \cdot \Delta w^*}{|\Delta w|\,|\Delta w^*|}

    Each of ``rules`` (by a name of yours) and the reference in its turn takes the place of the rules of ``net``.
    Weights stay as they are drawn by ``seed``, so that all see the same activity: that of ``drive``, arrays of (ticks,
    [batch,] n) as in `Simulator.run`. Updates are summed over ``every`` so many ticks (all, without it) and compared.
    The reference is by default `BPTT` with this window: the gradient, exact where there is one part; along several,
    `RTRL` also knows what went before each. By rule and projection an array with one number a part; NaN where nothing
    was learned.

    In 32-bit numbers an update must not be much smaller than the weights are: choose rates of learning accordingly.
    Raises `SimulationError` where ticks are no whole number of parts, and what a `Simulator` raises.
    """
    plastic = [name for name, _, _, data in edges_of(net) if data.get("rule") is not None]
    ticks = {len(rows) for rows in drive.values()}
    if len(ticks) != 1 or not plastic:
        raise SimulationError("alignment needs a network with rules, and drive for one number of ticks")
    length = ticks.pop() if every is None else every
    if any(len(rows) % length for rows in drive.values()):
        raise SimulationError(f"every={every} ticks: the drive is no whole number of these")

    def moved(rule: AnyRule) -> dict[str, np.ndarray]:
        graph = net.copy()
        set_rule(graph, rule, plastic)
        return _moved(Simulator(graph, seed=seed, dt=dt), drive, length, plastic)

    truth = moved(BPTT(window=length) if reference is None else reference)
    found = {}
    for name, rule in rules.items():
        one = moved(rule)
        found[name] = {projection: _cosine(one[projection], truth[projection]) for projection in plastic}
    return found


def _moved(sim: Simulator, drive: Mapping[str, Array], length: int, plastic: list[str]) -> dict[str, np.ndarray]:
    """The summed updates of every part, (parts, numbers), by projection."""
    batch = {rows.shape[1] for rows in map(np.asarray, drive.values()) if rows.ndim == 3}
    sim._match_batch(batch.pop() if batch else None)
    held = {name: sim.state.synapses[name] for name in plastic}
    rows = {name: jnp.asarray(v, float).reshape(-1, length, *np.shape(v)[1:]) for name, v in drive.items()}

    def tick(carry: tuple[State, Any], row: Any) -> tuple[tuple[State, Any], None]:
        state, total = carry
        after = sim.step(sim.model, state, row)
        change = {name: jax.tree.map(jnp.subtract, after.synapses[name].w, held[name].w) for name in plastic}
        return (_with_weights(after, held), jax.tree.map(jnp.add, total, change)), None

    def part(state: State, rows: Any) -> tuple[State, Any]:
        nothing = {name: jax.tree.map(jnp.zeros_like, held[name].w) for name in plastic}
        (state, total), _ = jax.lax.scan(tick, (state, nothing), rows)
        return state, total

    _, totals = jax.jit(lambda state: jax.lax.scan(part, state, rows))(sim.state)
    return {
        name: np.concatenate([np.asarray(block).reshape(len(block), -1) for block in blocks], -1)
        for name, blocks in totals.items()
    }


def _with_weights(state: State, held: Mapping[str, Any]) -> State:
    synapses = {name: s if name not in held else type(s)(held[name].w, s.syn) for name, s in state.synapses.items()}
    return dataclasses.replace(state, synapses=synapses)


def _cosine(a: Float[np.ndarray, "parts n"], b: Float[np.ndarray, "parts n"]) -> Float[np.ndarray, " parts"]:
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))
