"""Linsker's circuit as a networkx graph: a layer whose feedforward weights learn by the local infomax rule.

The layer is one population of settling cells. It has two lateral projections, one per phase, which track the
correlations of the feedforward responses; a trial is a sensing phase and a noise phase, each long enough to settle.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import networkx as nx

from engrax import Phase, networks as nets, rules

Constraint = Literal["homeostatic", "shared", "fixed"]


def add_layer(
    net: nx.MultiDiGraph,
    source: str,
    layer: str,
    size: int | tuple[int, ...],
    *,
    constraint: Constraint = "homeostatic",
    eta: float = 0.02,
    price: float = 0.1,
    trials: int = 1,
    output_noise: float = 1.0,
    lateral: bool = True,
    unlearn: bool = True,
    settling: int = 20,
    weights: Any = None,
    learn: bool = True,
) -> None:
    """Add a layer that learns from ``source``. The learning rate falls linearly to 5 % over ``trials``.

    ``constraint`` bounds the output power to 1 per unit (see rules/linsker1992.py): each cell's own homeostasis, one
    broadcast price, or a fixed ``price``. ``lateral=False`` leaves each cell only its own variance, ``unlearn=False``
    only the sensing phase.
    """
    made: dict[str, rules.Rule] = {
        "homeostatic": rules.InfomaxHomeostatic(eta=eta),
        "shared": rules.InfomaxSharedPrice(eta=eta),
        "fixed": rules.Infomax(eta=eta, price=price),
    }
    rule = rules.Scheduled(made[constraint], schedule=lambda trial: 1 - 0.95 * jnp.minimum(trial / trials, 1.0))
    net.add_node(layer, neuron=nets.ScaledSettling(leak=output_noise), size=size)
    net.add_edge(source, layer, weights=nets.Normal(0.1) if weights is None else weights, rule=rule if learn else None)
    for phase in ("sense", "noise") if unlearn else ("sense",):
        net.add_edge(
            layer,
            layer,
            name=f"{layer} lateral, {phase}",
            port="lateral",
            field="v",
            phases={phase},
            topology=nets.Dense() if lateral else nets.OneToOne(),
            weights=nets.Fixed(0.0),
            rule=rules.InfomaxLateral(window=100.0),
        )
    if constraint == "shared" and learn:
        _add_price(net, layer, size, settling)


def _add_price(net: nx.MultiDiGraph, layer: str, size: int | tuple[int, ...], settling: int) -> None:
    """One unit integrates the excess of the mean output power over 1 while sensing; its output is the price."""
    units = size if isinstance(size, int) else int(jnp.prod(jnp.asarray(size)))
    net.graph.setdefault("signals", {})["price"] = "price"
    net.add_node("power", neuron=nets.Rate(activation=jnp.square), size=units)
    net.add_node("budget", neuron=nets.Constant(1.0), size=1)
    net.add_node("price", neuron=nets.Integrator(rate=2e-4 / (settling + 1)), size=1)
    net.add_edge(layer, "power", topology=nets.OneToOne(), weights=nets.Fixed(1.0), field="drive")
    net.add_edge("power", "price", weights=nets.Fixed(1 / units), phases={"sense"})
    net.add_edge("budget", "price", weights=nets.Fixed(-1.0), phases={"sense"})


def trial(layers: Sequence[str], settling: int, *, unlearn: bool = True) -> list[Phase]:
    """Sensing and noise phase: one presentation each, held while the lateral connections settle, then one update."""
    reset = frozenset(layers)
    sense = Phase("sense", settling + 1, plastic="last", hold=True, reset=reset, signals={"hebbian": 1.0})
    noise = Phase("noise", settling + 1, plastic="last", hold=True, reset=reset, signals={"hebbian": -1.0})
    return [sense, noise] if unlearn else [sense]
