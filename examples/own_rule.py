"""A neuron and a rule of one's own: cells that try out noise, and synapses that keep what a reward follows.

A critic compares the output with a target and broadcasts its verdict; no synapse is told the error of its own cell.
The mean change is the gradient of the reward (Williams, Machine Learning 8:229-256, 1992).
"""

from typing import Any, ClassVar

import jax.numpy as jnp
import networkx as nx
import numpy as np

from engrax import Fields, Rule, Simulator, locality, networks as nets


class Exploring(nets.Neuron):
    """A linear cell whose output is off by a random ``trial``, which it remembers."""

    noise: ClassVar = "normal"
    scale: float = 0.3

    def init(self) -> Fields:
        return Fields(x=0.0, trial=0.0)

    def step(self, ports: Fields, noise: Any) -> Fields:
        trial = self.scale * noise
        return Fields(x=ports.drive + trial, trial=trial)


class Reinforced(Rule):
    """What was tried, times what came in, times how much better than usual it went."""

    sharing: ClassVar = "mean"  # under a batch, one running mean of the reward
    eta: float = 0.05
    tau: float = 20.0

    def init(self) -> Fields:
        return Fields(usual=0.0)

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        surprise = signals.reward - syn.usual
        return self.eta * surprise * post.trial * pre.x, Fields(usual=syn.usual + surprise / self.tau)


net = nx.MultiDiGraph(signals={"reward": "critic"})
net.add_node("retina", neuron=nets.Input(), size=6)
net.add_node("motor", neuron=Exploring(), size=2)
net.add_node("target", neuron=nets.Input(), size=2)
net.add_node("critic", neuron=nets.Rate(activation=lambda error: -jnp.square(error)), size=2)
net.add_edge("retina", "motor", rule=Reinforced(), weights=nets.Fixed(0.0))
net.add_edge("motor", "critic", topology=nets.OneToOne(), weights=nets.Fixed(1.0))
net.add_edge("target", "critic", topology=nets.OneToOne(), weights=nets.Fixed(-1.0))

print(Reinforced().latex())
print(locality(Reinforced()))

rng = np.random.default_rng(0)
wanted = rng.normal(size=(2, 6))
x = rng.normal(size=(8000, 20, 6))
sim = Simulator(net, seed=0)
kept = sim.run({"retina": x, "target": x @ wanted.T}, record={"critic.x": 1})["critic.x"].mean((1, 2))
print(f"mean reward in the first 20 ticks {kept[:20].mean():.1f}, in the last 1000 {kept[-1000:].mean():.2f}", end=" ")
print(f"(trying out costs {-(Exploring().scale ** 2):.2f})")
print(f"largest error of a weight {np.abs(sim.params['retina->motor'].w - wanted).max():.1f}")
