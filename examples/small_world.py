"""Plasticity on a neuron-level graph: in a small world, neighbours that hear the same input bind, shortcuts fade.

The graph of neurons is folded into one population with a sparse plastic projection, and the learned weights go back
onto the graph, where networkx can work with them.
"""

import networkx as nx
import numpy as np

from engrax import Simulator, networks as nets, rules

n = 200
graph = nx.watts_strogatz_graph(n, 8, 0.2, seed=0)
rule = rules.Normalised(rules.Bounded(rules.Hebb(eta=1e-3), low=0.0), total=0.5, power=1.0)
net = nets.from_neurons(graph, nets.Rate(), rule, weights=nets.Fixed(0.5 / 8))

# Input: white noise, smoothed over some ten neighbours on the ring.
place = np.arange(n)
distance = np.minimum(place, n - place)
smooth = np.exp(-(distance**2) / 20)
ring = np.stack([np.roll(smooth / np.linalg.norm(smooth), k) for k in range(n)])

sim = Simulator(net, seed=0)
sim.run({"neurons": nets.gaussian(ring)}, 5000)
post, pre = sim.synapses("neurons->neurons")
w = np.asarray(sim.params["neurons->neurons"].w)
print(f"{len(w)} synapses of at most {np.bincount(post).max()} onto one neuron")

apart = np.minimum(abs(post - pre), n - abs(post - pre))
for name, chosen in (("neighbours", apart <= 4), ("shortcuts ", apart > 15)):
    print(f"{name}  {chosen.sum():4d} synapses, mean weight {w[chosen].mean():.3f}")

learned = nx.DiGraph()
learned.add_weighted_edges_from(zip(pre.tolist(), post.tolist(), w.tolist(), strict=True))
strong = nx.Graph((u, v) for u, v, weight in learned.edges(data="weight") if weight > 0.02)
print(f"clustering of the graph {nx.average_clustering(graph):.2f}, of its strong synapses", end=" ")
print(f"{nx.average_clustering(strong):.2f}")
