"""The rows of `local_mnist`: for every rule its network, its trial, and how an answer is read from it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

from engrax import Phase, networks as nets, rules

from ..classification import Task, add_reward, told_at

Learned = Callable[[rules.LocalRule], rules.LocalRule]  # what is put around a rule: momentum, a schedule
Make = Callable[[Task, int, Learned], nx.MultiDiGraph]  # from the number of hidden units
Drive = dict[str, Any]
RUN, TWICE = (Phase("run"),), (Phase("try", ticks=2, hold=True),)


def cross_entropy(probability: Any, target: Any) -> Any:
    return -jnp.mean(jnp.sum(target * jnp.log(jnp.maximum(probability, 1e-30)), -1))


def squares(output: Any, target: Any) -> Any:
    return 0.5 * jnp.mean(jnp.sum((target - output) ** 2, -1))


def log_odds(score: Any, target: Any) -> Any:
    return cross_entropy(jax.nn.softmax(score), target)


@dataclass(frozen=True)
class Asked:
    """How a network answers: ``field`` after so many ticks of ``shown(x)``, as ``scores``, (samples, classes), of which
    the largest is the answer and ``loss(scores, one_hot)`` is to be small."""

    loss: Callable[[Any, Any], Any] = cross_entropy
    field: str = "output.x"
    ticks: int = 1
    shown: Callable[[Any], Any] = lambda x: x
    scores: Callable[[Any], Any] = lambda found: found


def told(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    """Images (updates, batch, pixels), and their classes at the output."""
    return told_at(x, y, 10)


@dataclass(frozen=True)
class Supervised:
    """``drive(x, y, hidden, rng)`` drives a ``trial`` of the ``network``; ``first`` is the projection onto its hidden
    units."""

    network: Make
    drive: Callable[[Any, Any, int, np.random.Generator], Drive] = told
    trial: tuple[Phase, ...] = RUN
    first: str = "input->hidden"
    asked: Asked = Asked()
    momentum: float = 0.9


@dataclass(frozen=True)
class Unsupervised:
    """A network that is told no classes, driven by images at ``at``; ``features(params, x)`` are read by a delta rule
    afterwards. ``passes`` over the images, of ``length`` 1 or as they are."""

    network: Make
    features: Callable[[Mapping[str, Any], Any], Any]
    at: str = "input"
    trial: tuple[Phase, ...] = RUN
    first: str = "input->hidden"
    length: bool = False
    momentum: float = 0.0


Method = Supervised | Unsupervised


def sizes_of(task: Task, hidden: int) -> tuple[int, int, int]:
    return task.train_x.shape[1], hidden, task.classes


# Layered networks in which errors come back

RECTIFIED = nets.Hidden(activation=jax.nn.relu)


def layered(eta: float = 0.1, feedback: Any = "symmetric", hidden: nets.Neuron = RECTIFIED, **given: Any) -> Make:
    def network(task: Task, units: int, learned: Learned) -> nx.MultiDiGraph:
        rule = learned(rules.Delta(eta=eta))
        return nets.perceptron(sizes_of(task, units), rule, feedback=feedback, hidden=hidden, **given)

    return network


def below(network: Make, rule: rules.LocalRule, alone: bool = False) -> Make:
    """Another rule on the synapses of the hidden units, ``alone`` or with what is put around the others."""

    def changed(task: Task, units: int, learned: Learned) -> nx.MultiDiGraph:
        net = network(task, units, learned)
        nets.set_rule(net, rule if alone else learned(rule), ["input->hidden", "bias->hidden"])
        return net

    return changed


def rewarded(rule: rules.LocalRule, hidden: nets.Neuron, *, change: bool = True, alone: bool = False) -> Make:
    """Hidden units that know nothing but a broadcast reward, the log probability of the class, or its change."""
    network = below(layered(0.02, None, hidden), rule, alone)
    return lambda task, units, learned: add_reward(network(task, units, learned), task.classes, change=change)


def told_critic(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    return told_at(x, y, 10, ("output.target", "critic.target"))


def by_turns(signal: str) -> tuple[Phase, ...]:
    """A phase in which the network learns its task, and one in which its feedback learns."""
    return (
        Phase("learn", signals={"learn": 1.0, signal: 0.0}),
        Phase("feedback", signals={"learn": 0.0, signal: 1.0}),
    )


def mirrored(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    return {
        "hidden": {"feedback": noise(hidden, x.shape[1], 1.0)},
        **{at: {"learn": rows} for at, rows in told(x, y, hidden, rng).items()},
    }


def inverted(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    drive = told(x, y, hidden, rng)
    some = noise(hidden, x.shape[1], 0.1)
    return {"input": x, "output.target": {"learn": drive["output.target"]}, "hidden.noise": {"feedback": some}}


@functools.cache
def noise(hidden: int, batch: int, deviation: float) -> Any:
    """One object for all runs, so that it is compiled once."""
    return nets.gaussian(deviation * np.eye(hidden), batch=batch)


def weight_mirror(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    net = layered(0.3, None)(task, hidden, learned)
    nets.add_feedback(net, kind="mirror", eta=0.01, decay=0.01)  # of noise with variance 1: it becomes the transpose
    return net


def target_propagation(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    output = nets.TargetOutput(lateral=nets.Softmax())
    net = layered(0.5, None, nets.TargetHidden(), output=output)(task, hidden, learned)
    nets.add_inverses(net, eta=0.01)
    return net


# Networks in which errors settle, or layers have objectives of their own


def predictive_coding(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    return nets.predictive_coding(sizes_of(task, hidden), learned(rules.PredictiveCoding(eta=0.03)))


def equilibrium_propagation(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    return nets.equilibrium_propagation(sizes_of(task, hidden), learned(rules.EquilibriumPropagation(eta=0.3)))


def nudged(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    return {**told(x, y, hidden, rng), "nudge": {"nudged": 0.5}}


def microcircuit(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    rule = learned(rules.DendriticPrediction(eta=0.02))
    cell = nets.Dendritic(activation=jnp.tanh)
    return nets.dendritic_microcircuit(sizes_of(task, hidden), rule, interneuron_rule=rule, cell=cell)


def taught(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    return {**told(x, y, hidden, rng), "output.nudge": 0.1}


def forward_forward(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    rule = rules.ForwardForward(eta=0.05, theta=float(hidden), temperature=hidden / 10)
    return nets.forward_forward(sizes_of(task, hidden)[:2], learned(rule))


def contrasted(x: Any, y: Any, hidden: int, rng: np.random.Generator) -> Drive:
    wrong = (y + rng.integers(1, 10, y.shape)) % 10
    return {"input": {"positive": nets.embed_labels(x, y), "negative": nets.embed_labels(x, wrong)}}


def with_every_label(x: Any) -> Any:
    """(samples, pixels) to (10 * samples, pixels): every image with each label."""
    labels = np.broadcast_to(np.arange(10), (len(x), 10))
    return nets.embed_labels(np.repeat(x[:, None], 10, 1), labels).reshape(-1, x.shape[-1])


SETTLES: dict[str, Any] = {"hold": True, "plastic": "last"}


# Hidden layers without a teacher


def competing(rule: rules.LocalRule, neuron: nets.Neuron) -> Make:
    """Units that start as images of length 1 and compete."""

    def network(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
        start = task.train_x[:hidden] / np.linalg.norm(task.train_x[:hidden], axis=1, keepdims=True)
        return two_layers(task, hidden, neuron, rule=learned(rule), weights=start)

    return network


def two_layers(task: Task, hidden: int, neuron: nets.Neuron, **edge: Any) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=task.train_x.shape[1])
    net.add_node("hidden", neuron=neuron, size=hidden)
    net.add_edge("input", "hidden", **edge)
    return net


def random(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    return two_layers(task, hidden, nets.Linear())


def restricted(persistent: bool) -> Make:
    def network(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
        rule = learned(rules.ContrastiveDivergence(eta=0.05))
        n = task.train_x.shape[1]
        return nets.restricted_boltzmann_machine(n, hidden, rule, persistent=persistent, binary=False)

    return network


def helmholtz(task: Task, hidden: int, learned: Learned) -> nx.MultiDiGraph:
    downwards, upwards = (learned(rule(eta=0.05)) for rule in (rules.WakeSleepGenerative, rules.WakeSleepRecognition))
    return nets.helmholtz_machine((task.train_x.shape[1], hidden), downwards, upwards)


def rectified(params: Mapping[str, Any], x: Any) -> Any:
    return jax.nn.relu(x @ params["input->hidden"].T)


def sharpened(params: Mapping[str, Any], x: Any) -> Any:
    """Of images and weights of length 1: near 1 for the units that are most alike, 0 for the others."""
    return rectified(params, x) ** 10


def likely(first: str, bias: str) -> Callable[[Mapping[str, Any], Any], Any]:
    """The probability of a binary unit."""
    return lambda params, x: jax.nn.sigmoid(x @ params[first].T + params[bias][:, 0])


NIGHT = (Phase("wake"), Phase("sleep", plastic="last"))
DREAM: dict[str, Any] = {"reset": True, **SETTLES}
STRAIGHT = layered(0.3, "symmetric", nets.Bernoulli())
ONE_BIT = nets.OneBitLargest(nets.Output(), lateral=nets.Softmax())

METHODS: dict[str, Method] = {
    "backpropagation": Supervised(layered()),
    "feedback alignment": Supervised(layered(feedback="random")),
    "direct feedback alignment": Supervised(layered(feedback="direct")),
    "Kolen-Pollack": Supervised(layered(feedback="kolen_pollack")),
    "weight mirror": Supervised(
        weight_mirror, mirrored, by_turns("mirror_hidden"), momentum=0.0
    ),
    "difference target propagation": Supervised(
        target_propagation, inverted, by_turns("invert_hidden"), momentum=0.0
    ),
    "predictive coding": Supervised(
        predictive_coding, trial=(Phase("learn", 11, reset=True, **SETTLES),), first="input->error1",
        asked=Asked(squares),
    ),
    "equilibrium propagation": Supervised(
        equilibrium_propagation, nudged, (Phase("free", 15, reset=True, **SETTLES), Phase("nudged", 5, **SETTLES)),
        first="input->layer1", asked=Asked(squares, ticks=15), momentum=0.0,
    ),
    "dendritic microcircuit": Supervised(
        microcircuit, taught, (Phase("learn", 10, reset=True, **SETTLES),), first="input->layer1",
        asked=Asked(squares, "output.prediction", 10),
    ),
    "forward-forward": Supervised(
        forward_forward, contrasted,
        (Phase("positive", signals={"hebbian": 1.0}), Phase("negative", signals={"hebbian": -1.0})),
        first="input->layer1",
        asked=Asked(log_odds, "goodness1.x", shown=with_every_label, scores=lambda found: found.reshape(-1, 10)),
    ),
    "stochastic binary": Supervised(STRAIGHT),
    "one bit both ways": Supervised(layered(0.2, "symmetric", nets.OneBitLargest(nets.Bernoulli()), output=ONE_BIT)),
    "straight-through": Supervised(below(STRAIGHT, rules.StraightThrough(eta=0.06))),
    "slope annealing": Supervised(below(STRAIGHT, rules.SlopeAnnealing(eta=0.3, over=6000.0))),
    "REINFORCE": Supervised(
        rewarded(rules.Reinforce(eta=0.01), nets.Bernoulli(), change=False), told_critic, momentum=0.0
    ),
    "ARM": Supervised(rewarded(rules.ARM(eta=0.02), nets.Antithetic()), told_critic, TWICE, momentum=0.0),
    "node perturbation": Supervised(
        rewarded(rules.NodePerturbation(eta=0.001), nets.Perturbed(activation=jax.nn.relu)), told_critic, TWICE,
        momentum=0.0,
    ),
    "weight perturbation": Supervised(
        rewarded(rules.WeightPerturbation(eta=1e-4, sigma=1e-3), RECTIFIED, alone=True), told_critic, TWICE,
        momentum=0.0,
    ),
    "random features": Unsupervised(random, rectified),
    "competitive": Unsupervised(
        competing(rules.Competitive(eta=0.5), nets.Linear(lateral=nets.Ranked())), sharpened, length=True
    ),
    "SoftHebb": Unsupervised(
        competing(rules.SoftHebb(eta=3.0), nets.Linear(lateral=nets.Softmax(200.0))), sharpened, length=True
    ),
    "Krotov-Hopfield": Unsupervised(
        competing(rules.KrotovHopfield(eta=2.0), nets.Linear(lateral=nets.Ranked(k=2, delta=0.4))), sharpened,
        length=True,
    ),
    "contrastive divergence": Unsupervised(
        restricted(False), likely("visible->hidden", "one->hidden"), "visible.clamp", NIGHT, "visible->hidden",
        momentum=0.5,
    ),
    "persistent contrastive divergence": Unsupervised(
        restricted(True), likely("visible->hidden", "one->hidden"), "visible.clamp", NIGHT, "visible->hidden"
    ),
    "wake-sleep": Unsupervised(
        helmholtz, likely("layer0->layer1", "one->layer1 recognition"), "layer0.clamp",
        (Phase("wake", 2, **DREAM), Phase("sleep", 2, **DREAM)), "layer0->layer1",
    ),
}  # fmt: skip
