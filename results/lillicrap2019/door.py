r"""An agent that takes a key or leaves it, and long after finds out what that was worth.

A tabular stand-in for Hung et al. (2019), in which the world is a population of the network. In the first tick of an
episode there is a key, in the last a door that pays 10 if the key was taken, and between them `DELAY` ticks of apples,
worth 0 on average and much or little in each, that have nothing to do with it. Door and key have the same
colour, a random one in every episode; apples have colours of their own. The actor takes the key with the probability p,
p = 1/2 at first, and learns what to do in which room, from what a population that follows the world broadcasts:

(1)  "recall": when the door has paid, the memory answers to its colour, by content, with the room, the action and the
     colour of the moment like it. These populations are put where they were, and the actor learns there:
     :math:`\Delta w_{ij} = \eta\,r\,(x_i - p_i)\,x_j`
(2)  "TD": an actor and a critic, :math:`\Delta w_{ij} = \eta\,\delta\,e_{ij}` with
     :math:`e_{ij} \leftarrow \gamma\lambda\,e_{ij} + (x_i - p_i)\,x_j` and the critic's TD error :math:`\delta`
(3)  "undiscounted": (2) with :math:`\gamma = \lambda = 1`: all rewards after an action count for it, apples too

Source: Hung et al., Nature Communications 10:5223 (2019).
"""

from typing import Any, ClassVar

import jax.numpy as jnp
import networkx as nx
import numpy as np

from engrax import Fields, Phase, Rule, networks as nets, rules

DELAY = 30
TICKS = DELAY + 2
COLOURS = 16  # dimensions
CAPACITY = 64  # events: two episodes
GAMMA, LAMBDA = 0.92, 0.9
LEARNERS = ("recall", "TD", "undiscounted")
ROOMS = {"key": 0, "apples": 1, "door": 2}


class Actor(nets.Bernoulli):
    """Takes or leaves; where it is clamped, it did what is recalled."""

    ports: ClassVar = ("drive", "recall", "clamp", "apical")

    def step(self, ports: Fields, noise: Any) -> Fields:  # type: ignore[override]
        now = super().step(ports, noise)
        x = now.x + ports.clamp * (ports.recall - now.x)
        return now.replace(x=x, score=x - now.p)


class World(nets.Neuron):
    """Its output is the reward."""

    ports: ClassVar = ("drive", "key", "door", "apples")

    def init(self) -> Fields:
        return Fields(x=0.0, taken=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        taken = jnp.where(ports.key > 0, ports.drive, state.taken)
        return Fields(x=10.0 * ports.door * taken + ports.apples, taken=taken)


class Traced(Rule):
    """(2) of the actor: what it did before this tick led to what dopamine now tells."""

    transient: ClassVar = ("trace",)
    eta: float = 0.01
    keep: float = GAMMA * LAMBDA

    def init(self) -> Fields:
        return Fields(trace=0.0)

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        return self.eta * signals.dopamine * syn.trace, Fields(trace=self.keep * syn.trace + post.score * pre.x)


def key_and_door(
    learner: str, episodes: int, sigma: float, seed: int
) -> tuple[nx.MultiDiGraph, dict[str, Any], list[Phase]]:
    """The network, the drive and the trial; ``sigma`` is the standard deviation of a tick's apples."""
    net = nx.MultiDiGraph()
    net.add_node("room", neuron=nets.Input(), size=3)
    net.add_node("actor", neuron=Actor(), size=1)
    net.add_node("world", neuron=World(), size=1)
    net.add_edge("actor", "world", weights=1.0)
    for port in ("key", "door"):
        net.add_edge("room", "world", port=port, weights=np.eye(3)[ROOMS[port]][None])
    rng = np.random.default_rng(seed)
    room = np.tile(np.eye(3)[[0, *[1] * DELAY, 2]], (episodes, 1))
    apples = sigma * rng.normal(size=(episodes, TICKS, 1)) * (room[:TICKS, 1:2] > 0)
    drive: dict[str, Any] = {"room": {"live": room}, "world.apples": {"live": apples.reshape(-1, 1)}}
    live = Phase("live", TICKS, reset=True, signals={"encode": 1.0, "recalled": 0.0})
    if learner == "recall":
        net.add_edge("room", "actor", weights=0.0, rule=rules.Gated(rules.Reinforce(eta=0.01, rate=0.0), "recalled"))
        net.add_node("colour", neuron=nets.Input(), size=COLOURS)
        contents = {"colour": "drive", "room": "drive", "actor": "recall"}
        nets.add_memory(net, CAPACITY, contents, cue={"colour"}, phases={"recall"}, contest=nets.Softmax(beta=32.0))
        net.add_node("dopamine", neuron=nets.Linear(), size=1)
        net.add_edge("world", "dopamine", weights=1.0, delay=1)
        net.graph["signals"] = {"reward": "dopamine"}
        colour = rng.normal(size=(episodes, TICKS, COLOURS))
        colour[:, -1] = colour[:, 0]
        colour /= np.linalg.norm(colour, axis=-1, keepdims=True)
        drive |= {
            "colour": {"live": colour.reshape(-1, COLOURS)},
            "index": {"live": nets.replay_drive(TICKS, CAPACITY)["index"]["live"]},
            "index.ask": {"recall": 1.0},
            "actor.clamp": {"recall": 1.0},
        }
        return net, drive, [live, Phase("recall", signals={"encode": 0.0, "recalled": 1.0})]
    gamma, decay = (GAMMA, LAMBDA) if learner == "TD" else (1.0, 1.0)
    net.add_edge("room", "actor", weights=0.0, rule=Traced(keep=gamma * decay))
    net.add_node("critic", neuron=nets.Linear(), size=1)
    net.add_node("dopamine", neuron=nets.TDError(gamma=gamma), size=1)
    net.add_edge("room", "critic", weights=0.0, rule=rules.TD(eta=0.05, gamma=gamma, decay=decay))
    net.add_edge("critic", "dopamine", weights=1.0)
    net.add_edge("world", "dopamine", port="reward", weights=1.0)
    net.graph["signals"] = {"dopamine": "dopamine"}
    return net, drive, [live]
