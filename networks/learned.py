r"""A neuron that is learned: what it says to its synapses is a small network's function of what reaches it.

With the drive z, the output x, what comes from above a (late, at ``apical``) and from its own layer l (late, at
``lateral``), each between -s and s (``scale``), as features f:

(1)  :math:`x = g(z)`
(2)  :math:`f = s \tanh\bigl((x, z, a, l, a\,g'(z)) / s\bigr)`
(3)  :math:`(c_1 .. c_r, e_1 .. e_r, \delta) = R\,(f, 1) + Q \tanh(P\,(f, 1))`

Its synapses learn by products of c of the post and e of the pre neuron (`rules.Metz2018`); :math:`\delta` is for the
neurons below. P, Q and R are the same in all neurons that have this model, in whatever layer: the number of what is
learned does not depend on that of the neurons, and to permute the neurons permutes what they do.

After Metz, Maheswaranathan, Cheung & Sohl-Dickstein, Meta-learning update rules for unsupervised representation
learning, ICLR (2019), and Gu, Greydanus, Metz, Maheswaranathan & Sohl-Dickstein, bioRxiv 2019.12.30.891184 (2019).
Metz et al. have convolutions over the units of a layer and over the samples of a batch; here a neuron knows itself.
They too pass what comes from above through a gate, :math:`a\,\sigma(z)`, and have other functions for the top layer.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Float

from .fields import Fields
from .graph import NetworkError
from .initialisers import FanIn, Initialiser, TruncatedNormal
from .neurons import Activation, BatchNormalised, Constant, Linear, Neuron

FEATURES = 5  # x, z, a, l, a g'(z)


class LearnedNeuron(Neuron):
    """(1) to (3). ``inner``: P, (cells, 6); ``outer``: Q, (2 r + 1, cells); ``linear``: R, (2 r + 1, 6); see `make`."""

    ports: ClassVar[tuple[str, ...]] = ("drive", "apical", "lateral")
    late: ClassVar[tuple[str, ...]] = ("apical", "lateral")
    inner: Float[Array, "cells 6"] | np.ndarray
    outer: Float[Array, "out cells"] | np.ndarray
    linear: Float[Array, "out 6"] | np.ndarray
    scale: float = 3.0
    activation: Activation = eqx.field(default=jax.nn.relu, static=True)

    @classmethod
    def make(
        cls, cells: int = 8, channels: int = 2, *, seed: int = 0, size: float = 0.1, **options: Any
    ) -> "LearnedNeuron":
        """Random numbers: P of the order of 1, the others ``size``, so that its synapses learn little at first."""
        rng = np.random.default_rng(seed)
        out = 2 * channels + 1

        def drawn(width: float, *shape: int) -> np.ndarray:
            return rng.normal(0, width, shape).astype(np.float32)

        known = FEATURES + 1
        inner = drawn(known**-0.5, cells, known)
        return cls(inner, drawn(size * cells**-0.5, out, cells), drawn(size * known**-0.5, out, known), **options)

    @property
    def channels(self) -> int:
        """r: how many products make up a change."""
        return int(np.shape(self.linear)[0] - 1) // 2

    def __check_init__(self) -> None:
        rows, columns = np.shape(self.linear)[-2:]
        cells = np.shape(self.inner)[-2]
        if columns != FEATURES + 1 or rows % 2 == 0 or np.shape(self.outer)[-2:] != (rows, cells):
            raise ValueError(
                f"LearnedNeuron: inner (cells, 6), outer (2 r + 1, cells) and linear (2 r + 1, 6) do not fit: "
                f"{np.shape(self.inner)}, {np.shape(self.outer)}, {np.shape(self.linear)}"
            )

    def init(self) -> Fields:
        said = {f"{name}{k}": 0.0 for name in "ce" for k in range(self.channels)}
        return Fields(x=0.0, z=0.0, delta=0.0, **said)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=self.activation(ports.drive), z=ports.drive)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        gated = ports.apical * jax.grad(self.activation)(state.z)
        features = jnp.stack([state.x, state.z, ports.apical, ports.lateral, gated])
        known = jnp.append(self.scale * jnp.tanh(features / self.scale), 1.0)
        said = self.linear @ known + self.outer @ jnp.tanh(self.inner @ known)
        r = self.channels
        return Fields(
            {f"c{k}": said[k] for k in range(r)} | {f"e{k}": said[r + k] for k in range(r)}, delta=said[2 * r]
        )


class LearnedInput(Neuron):
    """A learned ``neuron`` whose output is its drive: where a network of them begins."""

    ports: ClassVar[tuple[str, ...]] = LearnedNeuron.ports
    late: ClassVar[tuple[str, ...]] = LearnedNeuron.late
    neuron: LearnedNeuron

    def init(self) -> Fields:
        return self.neuron.init()

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive, z=ports.drive)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return self.neuron.respond(state, ports)


def learned_layers(
    sizes: Sequence[int],
    neuron: LearnedNeuron,
    rule: Any,
    back: Any,
    *,
    weights: Initialiser | None = None,
    lateral: Any = None,
    mean: bool = False,
    top: LearnedNeuron | None = None,
) -> nx.MultiDiGraph:
    """Layers ``input``, ``layer1``, ``layer2``, ... of one learned ``neuron``. ``rule`` is that of what goes forward,
    ``back`` of the weights (of their own) by which a layer's ``delta`` comes back to the one below, ``lateral`` of what
    the neurons of a layer say to each other: not at all, without one. ``mean``: they hear the mean activity of their
    layer, through synapses that stay. ``top``: another neuron for the last layer.

    Raises `NetworkError` with fewer than two sizes.
    """
    if len(sizes) < 2:
        raise NetworkError(f"learned layers are an input and others above it, not sizes={tuple(sizes)!r}")
    net = nx.MultiDiGraph()
    below = "input"
    net.add_node("input", neuron=LearnedInput(neuron), size=sizes[0])
    drawn = FanIn() if weights is None else weights
    for k, size in enumerate(sizes[1:], 1):
        layer = f"layer{k}"
        net.add_node(layer, neuron=top if top is not None and k == len(sizes) - 1 else neuron, size=size)
        net.add_edge(below, layer, rule=rule, weights=drawn)
        net.add_edge(layer, below, rule=back, weights=drawn, port="apical", field="delta")
        if lateral is not None:
            net.add_edge(layer, layer, rule=lateral, weights=drawn, port="lateral", delay=0)
        if mean:
            net.add_edge(layer, layer, weights=1 / size, port="lateral", delay=0)
        below = layer
    return net


def batch_normalised_layers(
    sizes: Sequence[int], rule: Any, *, neuron: BatchNormalised | None = None, weights: Initialiser | None = None
) -> nx.MultiDiGraph:
    """The network of Metz et al.'s program, for `rules.Metz2018Released`: populations ``input``, ``layer1``, ... of
    `BatchNormalised` cells, the projections between them, as many back, and biases from a unit ``bias``, all with one
    ``rule``. What goes back is the rule's matter: those projections carry nothing themselves (``phases=()``).

    Raises `NetworkError` with fewer than two sizes.
    """
    if len(sizes) < 2:
        raise NetworkError(f"layers are an input and others above it, not sizes={tuple(sizes)!r}")
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=Linear(), size=sizes[0])
    net.add_node("bias", neuron=Constant(), size=1)
    drawn = TruncatedNormal(0.01) if weights is None else weights
    below = "input"
    for k, size in enumerate(sizes[1:], 1):
        layer = f"layer{k}"
        net.add_node(layer, neuron=BatchNormalised() if neuron is None else neuron, size=size)
        net.add_edge(below, layer, rule=rule, weights=drawn)
        net.add_edge("bias", layer, rule=rule, weights=TruncatedNormal(0.1), port="bias")
        net.add_edge(layer, below, rule=rule, weights=drawn, port="apical", phases=())
        below = layer
    return net
