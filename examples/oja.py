"""Oja's rule finds the first principal component of its input: the direction of the largest eigenvalue."""

import networkx as nx
import numpy as np

from engrax import Simulator, networks as nets, rules

rng = np.random.default_rng(0)
directions, _ = np.linalg.qr(rng.normal(size=(8, 8)))  # columns: eigenvectors of the input's covariance
variances = 4 * 2.0 ** -np.arange(8)

net = nx.MultiDiGraph()
net.add_node("retina", neuron=nets.Input(), size=8)
net.add_node("cell", neuron=nets.Linear(), size=1)
rule = rules.Scheduled(rules.Oja(eta=0.02), schedule=lambda tick: 1 / (1 + tick / 500))
net.add_edge("retina", "cell", rule=rule)

sim = Simulator(net, seed=0)
images = nets.gaussian(directions * np.sqrt(variances), batch=10)
print(rule.latex())
print("   ticks   |cosine| with PC1   length of w")
for ticks in (0, 5, 20, 100, 4000):
    sim.run({"retina": images}, ticks - sim.tick)
    w = np.asarray(sim.params["retina->cell"].w)[0]
    cosine = abs(w @ directions[:, 0]) / np.linalg.norm(w)
    print(f"{sim.tick:8d}{cosine:20.2f}{np.linalg.norm(w):14.2f}")
