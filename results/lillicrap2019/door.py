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
(4)  "TVT", temporal value transport: (2), and the memory is read at every moment t by its colour. Where a read finds
     something (the best match, a cosine, is above `THRESHOLD`), what it finds, with the weights w, is to the critic
     one more feature of the moment, and the actor learns at the moments s that were found as if they had paid
     :math:`\alpha\,w_{ts} V_t` more

Source: Hung et al., Nature Communications 10:5223 (2019).
"""

from typing import Any, ClassVar

import jax.numpy as jnp
import networkx as nx
import numpy as np

from engrax import Fields, Phase, Rule, networks as nets, rules

DELAY = 30
TICKS = DELAY + 2
MOMENTS = TICKS + 1  # of an episode with "TVT": when the door is seen it has not paid yet
COLOURS = 16  # dimensions
CAPACITY = 64  # events: two episodes
GAMMA, LAMBDA = 0.92, 0.9
ALPHA = 0.9
THRESHOLD = 0.9
LEARNERS = ("recall", "TD", "undiscounted", "TVT")
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


class Found(nets.Softmax):
    """What is found, if the best match is above ``threshold``."""

    threshold: float = THRESHOLD

    def __call__(self, x: Any) -> Any:
        return super().__call__(x) * (x.max() > self.threshold)


class TracedWhenActed(Traced):
    """The same where acting and learning have ticks of their own."""

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        dw, after = super().update(pre, post, syn, signals)
        return signals.learn * dw, Fields(trace=jnp.where(signals.encode > 0, after.trace, syn.trace))


def key_and_door(
    learner: str, episodes: int, sigma: float, seed: int
) -> tuple[nx.MultiDiGraph, dict[str, Any], list[Phase]]:
    """The network, the drive and the trial, which is an episode (of "TVT", a moment, of `MOMENTS`); ``sigma`` is the
    standard deviation of a tick's apples."""
    net = agent(None if learner != "TVT" else {"act"})
    rng = np.random.default_rng(seed)
    room = np.tile(np.eye(3)[[0, *[1] * DELAY, 2]], (episodes, 1))
    apples = sigma * rng.normal(size=(episodes, TICKS, 1)) * (room[:TICKS, 1:2] > 0)
    drive: dict[str, Any] = {"room": {"live": room}, "world.apples": {"live": apples.reshape(-1, 1)}}
    live = Phase("live", TICKS, reset=True, signals={"encode": 1.0, "recalled": 0.0})
    if learner == "recall":
        net.add_edge("room", "actor", weights=0.0, rule=rules.Gated(rules.Reinforce(eta=0.01, rate=0.0), "recalled"))
        remember(net, "recall", nets.Softmax(beta=32.0))
        net.add_node("dopamine", neuron=nets.Linear(), size=1)
        net.add_edge("world", "dopamine", weights=1.0, delay=1)
        net.graph["signals"] = {"reward": "dopamine"}
        drive |= {
            "colour": {"live": coloured(rng, episodes).reshape(-1, COLOURS)},
            "index": {"live": nets.replay_drive(TICKS, CAPACITY)["index"]["live"]},
            "index.ask": {"recall": 1.0},
            "actor.clamp": {"recall": 1.0},
        }
        return net, drive, [live, Phase("recall", signals={"encode": 0.0, "recalled": 1.0})]
    if learner == "TVT":
        return net, *value_transport(net, episodes, apples, coloured(rng, episodes))
    gamma, decay = (GAMMA, LAMBDA) if learner == "TD" else (1.0, 1.0)
    net.add_edge("room", "actor", weights=0.0, rule=Traced(keep=gamma * decay))
    net.add_node("critic", neuron=nets.Linear(), size=1)
    net.add_node("dopamine", neuron=nets.TDError(gamma=gamma), size=1)
    net.add_edge("room", "critic", weights=0.0, rule=rules.TD(eta=0.05, gamma=gamma, decay=decay))
    net.add_edge("critic", "dopamine", weights=1.0)
    net.add_edge("world", "dopamine", port="reward", weights=1.0)
    net.graph["signals"] = {"dopamine": "dopamine"}
    return net, drive, [live]


def agent(acts: set[str] | None) -> nx.MultiDiGraph:
    """Room, actor and world, which hears of the room and what is done in the phases ``acts`` (None: always)."""
    net = nx.MultiDiGraph()
    net.add_node("room", neuron=nets.Input(), size=3)
    net.add_node("actor", neuron=Actor(), size=1)
    net.add_node("world", neuron=World(), size=1)
    net.add_edge("actor", "world", weights=1.0, phases=acts)
    for port in ("key", "door"):
        net.add_edge("room", "world", port=port, weights=np.eye(3)[ROOMS[port]][None], phases=acts)
    return net


def remember(net: nx.MultiDiGraph, phase: str, contest: nets.Competition) -> None:
    """A memory of moments that answers in ``phase`` to their colour."""
    net.add_node("colour", neuron=nets.Input(), size=COLOURS)
    contents = {"colour": "drive", "room": "drive", "actor": "recall"}
    nets.add_memory(net, CAPACITY, contents, cue={"colour"}, phases={phase}, contest=contest)


def coloured(rng: np.random.Generator, episodes: int) -> Any:
    """Unit vectors, (episodes, ticks, dimensions): the last of an episode is the first."""
    colour = rng.normal(size=(episodes, TICKS, COLOURS))
    colour[:, -1] = colour[:, 0]
    return colour / np.linalg.norm(colour, axis=-1, keepdims=True)


def value_transport(net: nx.MultiDiGraph, episodes: int, apples: Any, colour: Any) -> tuple[dict[str, Any], Any]:
    """(4): a moment is seen, then the memory is read and all that learns does so, then something is done.

    The critic sees the ``scene``, which stays while the room is that of another time, and what is read. In the read of
    a moment dopamine knows its value, that of the moment before, and what was paid there.
    """
    remember(net, "read", Found(beta=32.0))
    net.add_node("scene", neuron=nets.Input(), size=3)
    for name in ("critic", "dopamine", "transport"):
        net.add_node(name, neuron=nets.Linear(), size=1)
    for seen in ("scene", "actor"):
        net.add_edge(seen, "critic", weights=0.0, rule=rules.TD(eta=0.05, gamma=GAMMA), phases={"read"})
    net.add_edge("critic", "dopamine", name="value", weights=GAMMA)
    net.add_edge("critic", "dopamine", name="value before", weights=-1.0, delay=3)
    net.add_edge("world", "dopamine", weights=1.0, delay=2)
    net.add_edge("critic", "transport", weights=ALPHA)
    net.add_edge("room", "actor", weights=0.0, rule=TracedWhenActed())
    transported = rules.Gated(rules.Reinforce(eta=0.01, rate=0.0), "learn")
    net.add_edge("room", "actor", name="room->actor, transport", weights=0.0, rule=transported)
    net.graph["signals"] = {"dopamine": "dopamine", "reward": "transport"}

    def moments(rows: Any) -> Any:
        """(episodes, ticks, n) with nothing after the last tick, as (episodes * moments, n)."""
        return np.concatenate([rows, np.zeros((len(rows), 1, rows.shape[-1]))], 1).reshape(-1, rows.shape[-1])

    room = moments(np.tile(np.eye(3)[[0, *[1] * DELAY, 2]], (episodes, 1, 1)))
    colours = moments(colour)
    drive = {
        "scene": {"read": room},
        "room": {"act": room},
        "colour": {"see": colours, "act": colours},
        "world.apples": {"act": moments(apples)},
        "index": {"act": nets.replay_drive(1, CAPACITY)["index"]["live"]},
        "index.ask": {"read": 1.0},
        "actor.clamp": {"read": 1.0},
    }
    signals = {"see": (0.0, 0.0), "read": (0.0, 1.0), "act": (1.0, 0.0)}
    return drive, [Phase(name, signals={"encode": e, "learn": learns}) for name, (e, learns) in signals.items()]
