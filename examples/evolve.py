"""Evolve a learning rule: which of five terms make a cell find the strongest direction of its inputs?"""

import networkx as nx
import numpy as np

from engrax import Fields, meta, networks as nets, rules

rule = rules.Volterra(eta=0.1, theta=Fields(dict.fromkeys(["100", "010", "110", "011", "021"], 0.0)))
net = nx.MultiDiGraph()
net.add_node("inputs", neuron=nets.Input(), size=4)
net.add_node("cell", neuron=nets.Linear(), size=1)
net.add_edge("inputs", "cell", rule=rule)  # this very rule is what is learned

task = meta.tasks.principal_components("inputs", ["inputs->cell"], 4)  # every episode has other inputs
problem = meta.Learning(net, rule, task, units=100, fixed=("eta",))
found = meta.train(problem, meta.cma_es(members=12, sigma=0.3, episodes=2), steps=60)

theta = found.learned.theta
first, last = (np.nanmedian(losses) for losses in (found.losses[0], found.losses[-5:]))
print(f"loss {first:.1f} at first, then below {0.1 * np.ceil(10 * last):.1f}")
print(f"pre x post against post^2 x w: {theta['110'] / theta['021']:.1f}")
print("kept:", ", ".join(name for name, value in theta.items() if abs(value) > 0.4 * abs(theta["110"])))
