"""A sweep over learning rates and seeds: twelve networks in one vectorised program, on the same input."""

import networkx as nx
import numpy as np

from engrax import networks as nets, rules, sweep

x = np.asarray(nets.digits().train_x)
x = x - x.mean(0)
first = np.linalg.svd(x, full_matrices=False)[2][0]

net = nx.MultiDiGraph()
net.add_node("retina", neuron=nets.Input(), size=64)
net.add_node("cell", neuron=nets.Linear(), size=1)
net.add_edge("retina", "cell", rule=rules.Oja())

rates = [0.01, 0.03, 0.1]
sim = sweep(net, {"retina->cell.eta": rates, "seed": range(4)})
sim.run({"retina": x})  # one pass through 1437 digits

w = np.asarray(sim.params["retina->cell"].w)[:, 0]  # (points, 64)
cosine = np.abs(w @ first) / np.linalg.norm(w, axis=1)
print(f"{len(sim.points)} points; the last is {sim.points[-1]}")
print("   eta   |cosine| with PC1: mean over seeds   lowest")
for rate, found in zip(rates, cosine.reshape(3, 4), strict=True):
    print(f"{rate:6g}{found.mean():37.2f}{found.min():9.2f}")
