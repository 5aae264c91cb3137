r"""The unsupervised update rule of Metz et al. as they released it: convolutions over the cells of a layer and over the
samples of a batch make of each cell what it says, and twelve terms make of that the change of a weight.

For layers x^0 .. x^L with z = what is `networks.BatchNormalised` before the rectifier (x itself in the inputs), and B
samples:

(1)  :math:`d^L = \mathrm{top}(x^L)`: at each cell convolutions over the samples, between them two that mix the cells
(2)  :math:`h^l = \mathrm{cell}(x, z, \sin\theta, \cos\theta, d, b, s)` of the layer l: a convolution over the samples
     and one over the cells, twice; :math:`\theta` numbers the cells from 0 to :math:`4\pi`, s are four statistics each
     of the weights that a cell gets and of those that it sends
(3)  :math:`\delta^l = d^l\,\sigma(z^l) + A h^l`, :math:`\quad d^{l-1} = V^l \delta^l`, scaled to a mean square of 1
     over its channels
(4)  :math:`R(h, h')_{ij} = \frac1{4B} \sum_{b,k} (P h)_{ibk} (Q h')_{jbk}`, a product of four learned read-outs

With weights scaled to a mean square of 1 over each cell's afferents, w, the terms T of a weight from j to i above are

(5)  :math:`w`; :math:`w^2 \mathrm{sgn}\,w`; :math:`C w` of the correlations C of the cells above, to a mean square of
     1; minus the correlation of i and j; R; :math:`e^{-w^2} R`; :math:`w R`; and, with U = R(h, h) of the layer above
     or below, over the root of its size, symmetric without a diagonal (or, above, P = Q): :math:`U w`, three of them;
     :math:`(U (\sqrt{1 + w^2} - 1))\,\mathrm{sgn}\,w`, two
(6)  :math:`D = \frac1{12} (\sum_k m_k N(T_k) + m_0)`, less its part that makes w smaller;
     :math:`D \leftarrow N(D / \sqrt{12}) - w / 7`, with :math:`N(T) = T / \sqrt{1 + \langle T_{ij}^2 \rangle_j}`
(7)  :math:`\Delta W = -\eta\,(D + W)`, :math:`\quad \Delta V = -\eta\,(D^\top + V)`, and the same for b with a read-out
     of h, averaged over the samples

so that V comes to be :math:`W^\top`, as `KolenPollack` has it, and :math:`w / 7` holds a cell's weights at a mean
square of 1/49. Batch normalisation with running averages, which the program has in (1) and in the convolutions over
cells and never moves from where they began, is an offset here. The numbers that were learned then are not at hand.

Source: Metz, Maheswaranathan, Cheung & Sohl-Dickstein, ICLR (2019); their program in github.com/tensorflow/models,
research/learning_unsupervised_learning.
"""

import itertools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

from ..networks.fields import Fields
from ..networks.graph import NetworkError
from .base import Level, NetworkRule, Synaptic, Tick

STATISTICS = 8  # of the weights of a cell
SEEN = 4  # x, z and the two of a cell's number
PAIRS = ("zero", "rbf", "first")  # R in (5)
WITHIN = ("linear_above", "linear_below", "squared_above", "squared_below", "positive_above")  # U in (5)
TERMS = 12
CHANNELWISE = (0, 1)  # over cells and samples


class Metz2018Released(NetworkRule):
    """Learned convolutions over cells and samples, and twelve terms, for `networks.batch_normalised_layers`: a change
    depends on other cells and samples. ``theta`` is what is learned, see `make`; ``eta`` per tick."""

    level: ClassVar[Level] = "batch"
    told: ClassVar[bool] = False
    eta: float = 1e-4
    theta: Fields = eqx.field(default_factory=lambda: drawn())

    @classmethod
    def make(
        cls, top: int = 32, *, cells: int = 64, channels: int = 32, seed: int = 0, **options: Any
    ) -> "Metz2018Released":
        """Random numbers, for a top layer of so many units (the program mixes them by name); ``cells`` is the width of
        the convolutions, ``channels`` that of what comes back. As released: 32, 64, 32."""
        return cls(theta=drawn(top, cells=cells, channels=channels, seed=seed), **options)

    def init(self, tick: Tick) -> Any:
        layers = _layers(tick)[0]
        top, units = tick.neurons[layers[-1]].x.shape[-1], np.shape(self.theta["mix0.w"])[-1]
        if top != units:
            raise NetworkError(
                f"population {layers[-1]!r} has {top} units; this Metz2018Released mixes {units}: make(top={top})"
            )
        return ()

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        if not tick.copies:
            raise NetworkError("Metz2018Released learns from a batch: drive the network with arrays (ticks, batch, n)")
        layers, forward, back, bias = _layers(tick)
        weights = [tick.w(name) for name in forward]
        x = [tick.neurons[name].x.T for name in layers]  # (n, batch), and (n, batch, channels) from here on
        z = [x[0], *(tick.neurons[name].z.T for name in layers[1:])]
        biases = [jnp.zeros(len(x[0])), *(tick.w(name)[:, 0] for name in bias)]
        d = self._top(x[-1])
        h: list[Any] = []
        for layer in range(len(layers) - 1, -1, -1):
            afferent = weights[layer - 1] if layer else None
            efferent = weights[layer] if layer < len(weights) else None
            h.insert(0, self._cell(x[layer], z[layer], d, biases[layer], _statistics(afferent, efferent)))
            if layer:
                delta = d * jax.nn.sigmoid(z[layer])[..., None] + self._read("delta", h[0])  # (3)
                d = jnp.einsum("ji,ibk->jbk", tick.w(back[layer - 1]), delta)
                d = d * jax.lax.rsqrt(1e-6 + jnp.mean(d**2, -1, keepdims=True))
        found: Synaptic = {}
        for k, name in enumerate(forward):
            change = self._change(weights[k], h[k + 1], h[k], x[k + 1], x[k])
            v = tick.w(back[k])
            found |= {name: (change + weights[k],), back[k]: (change.T + v,)}
            found[bias[k]] = ((self._bias_change(h[k + 1]) + biases[k + 1])[:, None],)
        return past, found, True

    def _top(self, x: Any) -> Any:
        """(1)"""
        a = self._convolved("top0", x[..., None], 1)
        for name in ("mix0", "mix1"):  # the cells are its channels
            a = jnp.swapaxes(self._convolved(name, jnp.swapaxes(a, 0, 2), 1), 0, 2)
        a = self._convolved("top2", self._convolved("top1", a, 1), 1)
        return self._convolved("top3", a, 1, activation=lambda a: a)

    def _cell(self, x: Any, z: Any, d: Any, b: Any, statistics: Any) -> Any:
        """(2)"""
        number = jnp.linspace(0.0, 4 * jnp.pi, len(x))
        own = jnp.stack([x, z, *(jnp.broadcast_to(f(number)[:, None], x.shape) for f in (jnp.sin, jnp.cos))], -1)
        seen = _standardised(jnp.concatenate([own, d], -1), CHANNELWISE, 1e-3) + self.theta["seen.b"]
        still = jnp.concatenate([statistics, b[:, None]], -1)
        a = jnp.concatenate([jnp.broadcast_to(still[:, None], (*x.shape, still.shape[-1])), seen], -1)
        for k in (0, 1):
            a = self._convolved(f"samples{k}", a, 1, normalised=True)
            a = a + self._convolved(f"cells{k}1", self._convolved(f"cells{k}0", a, 0), 0)
        return a

    def _change(self, weights: Any, above: Any, below: Any, x_above: Any, x_below: Any) -> Any:
        """D of (6)."""
        w = weights * jax.lax.rsqrt(jnp.mean(weights**2, 1, keepdims=True) + 1e-6)
        post, pre = (_standardised(x, (1,), 1e-6) for x in (x_above, x_below))
        batch = post.shape[1]
        correlated = post @ post.T @ w / (batch * len(w) ** 0.5)
        zero, rbf, first = (self._product(name, above, below) for name in PAIRS)
        within = {name: self._within(name, above if name.endswith("above") else below) for name in WITHIN}
        grown = jnp.sqrt(1 + w**2) - 1
        terms = {
            "weight": w,
            "square": w**2 * jnp.sign(w),
            "decorrelation": correlated * jax.lax.rsqrt(jnp.mean(correlated**2) + 1e-8),
            "correlation": -post @ pre.T / batch,
            "zero": zero,
            "rbf": jnp.exp(-(w**2)) * rbf,
            "first": w * first,
            "linear_above": within["linear_above"] @ w,
            "linear_below": w @ within["linear_below"],
            "positive_above": within["positive_above"] @ w,
            "squared_above": within["squared_above"] @ grown * jnp.sign(w),
            "squared_below": grown @ within["squared_below"] * jnp.sign(w),
        }
        scaled = jnp.stack([_bounded(term) for term in terms.values()], -1)
        change = (scaled @ self.theta["merge.w"] + self.theta["merge.b"]) / TERMS
        change = change - w * jax.nn.relu(jnp.mean(change * w))
        return _bounded(change / TERMS**0.5) - w / 7

    def _bias_change(self, above: Any) -> Any:
        change = jnp.mean(self._read("bias", above)[..., 0], 1)
        change = change + jax.nn.relu(-jnp.mean(change))
        return change / jnp.sqrt(0.5 + jnp.mean(change**2))

    def _product(self, name: str, above: Any, below: Any) -> Any:
        """(4); with one read-out where there is no other."""
        p = self._read(f"{name}.post", above)
        q = self._read(f"{name}.pre", below) if f"{name}.pre.w" in self.theta else p
        return jnp.einsum("ibk,jbk->ij", p, q) / (p.shape[1] * p.shape[2])

    def _within(self, name: str, h: Any) -> Any:
        u = self._product(name, h, h)
        if f"{name}.pre.w" in self.theta:
            u = (u + u.T) / 2**0.5
            u = u - jnp.diag(jnp.diagonal(u))
        return u / len(u) ** 0.5

    def _read(self, name: str, h: Any) -> Any:
        return h @ self.theta[f"{name}.w"] + self.theta[f"{name}.b"]

    def _convolved(
        self, name: str, a: Any, axis: int, *, normalised: bool = False, activation: Any = jax.nn.relu
    ) -> Any:
        """Over an odd number of neighbours on an axis, with nothing beyond its ends."""
        kernel = self.theta[f"{name}.w"]
        half, length = len(kernel) // 2, a.shape[axis]
        padded = jnp.pad(a, [(half, half) if k == axis else (0, 0) for k in range(a.ndim)])
        seen = [jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(len(kernel))]
        made = jnp.concatenate(seen, -1) @ kernel.reshape(-1, kernel.shape[-1])
        return activation((_standardised(made, CHANNELWISE, 1e-3) if normalised else made) + self.theta[f"{name}.b"])


def drawn(top: int = 32, *, cells: int = 64, channels: int = 32, seed: int = 0) -> Fields:
    """The theta at which learning begins: normal within two of the deviations 1 over the root of the fan-in, offsets 0,
    each of the twelve terms with 0.1."""
    readouts = 4
    known = STATISTICS + 1 + SEEN + channels
    shapes: dict[str, tuple[int, ...]] = {
        "top0": (5, 1, cells), "mix0": (3, top, top), "mix1": (3, top, top),
        "top1": (3, cells, cells), "top2": (3, cells, cells), "top3": (3, cells, channels),
        "samples0": (3, known, cells), "samples1": (3, cells, cells),
        **{f"cells{k}{n}": (3, cells, cells) for k in (0, 1) for n in (0, 1)},
        "delta": (cells, channels), "bias": (cells, 1),
        **{f"{name}.{end}": (cells, readouts) for name in (*PAIRS, *WITHIN) for end in ("post", "pre")
           if (name, end) != ("positive_above", "pre")},
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    theta: dict[str, Any] = {"seen.b": np.zeros(SEEN + channels, np.float32)}
    for name, shape in shapes.items():
        draws = rng.normal(size=(4, *shape))  # some draw lies within two deviations, next to always
        within = np.take_along_axis(draws, np.argmax(np.abs(draws) < 2, 0)[None], 0)[0].clip(-2, 2)
        theta[f"{name}.w"] = (within / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
        theta[f"{name}.b"] = np.zeros(shape[-1], np.float32)
    return Fields(theta, **{"merge.w": np.full(TERMS, 0.1, np.float32), "merge.b": np.zeros((), np.float32)})


def _layers(tick: Tick) -> tuple[list[str], list[str], list[str], list[str]]:
    """The populations from the input up, and between each and the next the projections forward, back and of biases."""
    ports = ("drive", "apical", "bias")
    up, down, biases = ({(i, j): name for name, (i, j, at) in tick.joins.items() if at == port} for port in ports)
    ways = nx.DiGraph(list(up))
    pairs = list(itertools.pairwise(nx.topological_sort(ways))) if nx.is_directed_acyclic_graph(ways) else []
    bias = {post: name for (_, post), name in biases.items()}
    if set(pairs) != set(up) or any((j, i) not in down or j not in bias for i, j in pairs):
        raise NetworkError(
            "Metz2018Released learns the whole of a chain of layers: from each to the next a projection at the port "
            "drive, one back at apical, and one of biases at bias: see networks.batch_normalised_layers"
        )
    layers = [pairs[0][0], *(post for _, post in pairs)]
    return layers, [up[i, j] for i, j in pairs], [down[j, i] for i, j in pairs], [bias[j] for _, j in pairs]


def _statistics(afferent: Any, efferent: Any) -> Any:
    """(n, 8): of the weights that each cell gets and sends, or twice of those that there are."""
    found = [
        statistic
        for w, axis in ((afferent, 1), (efferent, 0))
        if w is not None
        for statistic in (
            jnp.mean(jnp.abs(w), axis),
            jnp.sqrt(jnp.mean(w**2, axis) + 1e-6),
            jnp.mean(w, axis),
            jnp.sqrt(jnp.var(w, axis) + 1e-8),
        )
    ]
    s = jnp.stack(found * (STATISTICS // len(found)), -1)
    return s * jax.lax.rsqrt(jnp.mean(s**2) + 1e-6)


def _standardised(a: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    about = a - a.mean(axes, keepdims=True)
    return about * jax.lax.rsqrt(jnp.mean(about**2, axes, keepdims=True) + epsilon)


def _bounded(term: Any) -> Any:
    """N of (6)."""
    return term * jax.lax.rsqrt(1 + jnp.mean(term**2, 1, keepdims=True))
