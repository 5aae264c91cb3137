"""Phases of a trial: Földiák's (1990) sparse code learns the bars that its images are made of.

In every trial an image is held while the lateral inhibition settles, and the synapses learn on the last tick.
"""

from typing import Any

import networkx as nx
import numpy as np

from engrax import Phase, Simulator, networks as nets, rules

side, units, p = 8, 16, 1 / 8
lines = np.zeros((2 * side, side, side))
for k in range(side):
    lines[k, k, :] = 1  # rows
    lines[side + k, :, k] = 1  # columns
rng = np.random.default_rng(0)
present = rng.random((3000, 2 * side)) < p  # each line by itself, so an image has two of them on average
images = np.stack([lines[chosen].max(0, initial=0) for chosen in present]).reshape(-1, side * side)


def after_100(rule: rules.LocalRule) -> rules.LocalRule:
    """For the first trials the thresholds learn alone."""
    return rules.Scheduled(rule, schedule=lambda trial: 1.0 * (trial >= 100))


def and_slower(rule: rules.LocalRule) -> rules.LocalRule:
    return rules.Scheduled(rule, schedule=lambda trial: 1 - 0.8 * (trial >= 100))


net = nx.MultiDiGraph()
net.add_node("retina", neuron=nets.Input(), size=(side, side))
net.add_node("cortex", neuron=nets.LeakyBinary(rate=0.2), size=units)
net.add_node("on", neuron=nets.Constant(), size=1)
net.add_edge("retina", "cortex", rule=after_100(rules.FoldiakFeedforward()), weights=nets.UnitRows(positive=True))
net.add_edge(
    "cortex",
    "cortex",
    port="lateral",
    topology=nx.complete_graph(units),
    weights=nets.Fixed(0.0),
    rule=after_100(rules.FoldiakLateral(p=p)),
)
net.add_edge("on", "cortex", rule=and_slower(rules.FoldiakThreshold(gamma=0.1, p=p)), weights=nets.Fixed(-0.5))

learn = Phase("look", ticks=50, plastic="last", hold=True, reset=True)
ask = Phase("look", ticks=50, plastic="never", hold=True, reset=True)
sim = Simulator(net, seed=0)


def answers(shown: Any) -> Any:
    """Which unit (column) says which line (row) is there."""
    return sim.run({"retina": shown.reshape(len(shown), -1)}, trial=ask, record={"cortex.y": ask.ticks})["cortex.y"]


sim.run({"retina": images}, trial=learn)
said = answers(lines)
print(f"{int((said.sum(1) == 1).sum())} of {len(lines)} lines have one unit that answers to them,")
print(f"{int((said.sum(0) == 1).sum())} of {units} units answer to one line")
again = answers(images[-500:])
print(f"to images each unit answers with probability {again.mean():.1f} (target {p})")

filters = np.asarray(sim.params["retina->cortex"].w).reshape(units, side, side)
unit = int(np.flatnonzero(said[2])[0])
print("the unit that answers to the third row, weights > 0.5:")
for row in filters[unit] > 0.5:
    print("  ", "".join("#" if weight else "." for weight in row))
