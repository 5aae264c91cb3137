"""Which synapses exist: a topology gives the (post, pre) pairs of one projection, and no values.

A random topology carries its own ``seed``, so that the wiring is part of the network and not of the run.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import networkx as nx
import numpy as np
import scipy.sparse as sp

Shape = tuple[int, ...]


class Topology(eqx.Module):
    """``connect`` gets the shapes of both populations (a grid has two numbers) and returns a sparse (post, pre)
    matrix whose stored entries are the synapses, or None for every pair. ``weighted``: the entries' values are the
    initial weights of a projection that names none."""

    weighted: ClassVar[bool] = False

    @abstractmethod
    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        """The synapses; raises ``ValueError`` when the shapes do not fit."""


class Dense(Topology):
    """Every pre neuron to every post neuron, self-connections included."""

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        return None


class OneToOne(Topology):
    """Neuron i to neuron i."""

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        if np.prod(pre) != np.prod(post):
            raise ValueError(f"one-to-one needs populations of one size, not {np.prod(pre)} and {np.prod(post)}")
        return sp.csr_array(sp.eye_array(int(np.prod(pre)), format="csr"))


class FromMatrix(Topology):
    """The stored entries of a (post, pre) scipy sparse matrix or the non-zeros of an array.

    Where the projection names no weights, the entries' values are the initial weights.
    """

    weighted: ClassVar[bool] = True
    matrix: sp.csr_array = eqx.field(static=True, converter=sp.csr_array)

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        expected = (int(np.prod(post)), int(np.prod(pre)))
        if self.matrix.shape != expected:
            raise ValueError(f"the matrix has shape {self.matrix.shape}; (post, pre) is {expected}")
        return self.matrix if self.matrix.has_sorted_indices else self.matrix.sorted_indices()


class FromGraph(Topology):
    """The edges of a networkx graph over neurons: graph edge u -> v is the synapse from pre neuron u to post neuron v,
    nodes numbered in the graph's own order. An undirected edge gives both directions. Where the projection names no
    weights, the edge attribute ``weight`` (1 where missing) is the initial weight."""

    weighted: ClassVar[bool] = True
    graph: nx.Graph = eqx.field(static=True)

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        n = self.graph.number_of_nodes()
        if np.prod(pre) != n or np.prod(post) != n:
            raise ValueError(f"the graph has {n} nodes, the populations {np.prod(pre)} and {np.prod(post)} neurons")
        if n == 0 or self.graph.number_of_edges() == 0:
            return sp.csr_array((n, n))
        matrix = sp.csr_array(nx.to_scipy_sparse_array(self.graph, dtype=float).T)
        matrix.sort_indices()
        return matrix


class Probability(Topology):
    """Each pair independently with probability ``p``."""

    p: float = eqx.field(default=0.1, static=True)
    seed: int = eqx.field(default=0, static=True)
    self_connections: bool = eqx.field(default=True, static=True)

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p={self.p} is not a probability")
        rng = np.random.default_rng(self.seed)
        m, n = int(np.prod(post)), int(np.prod(pre))
        columns = [np.flatnonzero(rng.random(n) < self.p) for _ in range(m)]
        if not self.self_connections:
            columns = [c[c != i] for i, c in enumerate(columns)]
        return _from_rows(columns, n)


class FixedInDegree(Topology):
    """Each post neuron hears ``k`` different pre neurons, drawn uniformly."""

    k: int = eqx.field(default=10, static=True)
    seed: int = eqx.field(default=0, static=True)
    self_connections: bool = eqx.field(default=True, static=True)

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        m, n = int(np.prod(post)), int(np.prod(pre))
        candidates = n if self.self_connections else n - 1
        if not 1 <= self.k <= candidates:
            raise ValueError(f"k={self.k} synapses per neuron cannot be drawn from {candidates} pre neurons")
        rng = np.random.default_rng(self.seed)
        columns = [rng.choice(candidates, self.k, replace=False) for _ in range(m)]
        if not self.self_connections:
            columns = [c + (c >= i) for i, c in enumerate(columns)]
        return _from_rows([np.sort(c) for c in columns], n)


class ReceptiveFields(Topology):
    """Local receptive fields between two grids: each post neuron hears the pre neurons within ``radius`` of its
    position, both grids stretched over the same area.

    ``radius`` is in units of pre neurons, measured as the larger of the distances along each axis (a square field of
    side 2 * radius + 1). ``wrap`` joins opposite edges. A population of size (8, 8) is a grid, of size 64 a line.
    """

    radius: float = eqx.field(default=1.0, static=True)
    wrap: bool = eqx.field(default=False, static=True)

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        if len(pre) != len(post):
            raise ValueError(f"receptive fields join grids of the same dimension, not {pre} and {post}")
        if self.radius < 0:
            raise ValueError(f"radius={self.radius} must not be negative")
        near = np.ones((1, 1), bool)
        for n_pre, n_post in zip(pre, post, strict=True):
            near = np.kron(near, _distances(n_pre, n_post, self.wrap) <= self.radius + 1e-9)
        return sp.csr_array(near.astype(float))


class Spatial(Topology):
    r"""Neurons that lie close together: each pair of a distance d with probability :math:`p\,e^{-d^2/2\sigma^2}`.

    Both populations are grids (or lines) stretched over the same area, as in `ReceptiveFields`; distances are in units
    of pre neurons. ``wrap`` joins opposite edges.
    """

    sigma: float = eqx.field(default=2.0, static=True)
    p: float = eqx.field(default=1.0, static=True)
    seed: int = eqx.field(default=0, static=True)
    wrap: bool = eqx.field(default=False, static=True)
    self_connections: bool = eqx.field(default=True, static=True)

    def connect(self, pre: Shape, post: Shape) -> sp.csr_array | None:
        if len(pre) != len(post):
            raise ValueError(f"a spatial topology joins grids of the same dimension, not {pre} and {post}")
        if self.sigma <= 0 or not 0 <= self.p <= 1:
            raise ValueError(f"sigma={self.sigma} must be positive and p={self.p} a probability")
        axes = [_distances(n_pre, n_post, self.wrap) for n_pre, n_post in zip(pre, post, strict=True)]
        rng = np.random.default_rng(self.seed)
        columns = []
        for place in np.ndindex(*post):
            near = np.ones(1)
            for distance, k in zip(axes, place, strict=True):
                near = np.outer(near, np.exp(-(distance[k] ** 2) / (2 * self.sigma**2))).ravel()
            columns.append(np.flatnonzero(rng.random(near.size) < self.p * near))
        if not self.self_connections:
            columns = [c[c != i] for i, c in enumerate(columns)]
        return _from_rows(columns, int(np.prod(pre)))


def _distances(n_pre: int, n_post: int, wrap: bool) -> np.ndarray:
    """(post, pre) along one axis, both stretched over the same length, in units of pre neurons."""
    centre = (np.arange(n_post) + 0.5) * n_pre / n_post - 0.5
    distance = np.abs(centre[:, None] - np.arange(n_pre)[None, :])
    return np.minimum(distance, n_pre - distance) if wrap else distance


def as_topology(value: Any) -> Topology:
    """A topology as it is, or one made of a networkx graph, a scipy sparse matrix or an array."""
    if isinstance(value, Topology):
        return value
    if isinstance(value, nx.Graph):
        return FromGraph(value)
    if sp.issparse(value) or isinstance(value, np.ndarray):
        return FromMatrix(value)
    raise TypeError(
        f"{type(value).__name__} is no topology; give Dense(), OneToOne(), Probability(p), FixedInDegree(k), "
        "ReceptiveFields(radius), a networkx graph or a scipy sparse matrix"
    )


def _from_rows(columns: list[np.ndarray], n: int) -> sp.csr_array:
    indptr = np.concatenate([[0], np.cumsum([len(c) for c in columns])])
    indices = np.concatenate(columns) if columns else np.zeros(0, int)
    return sp.csr_array((np.ones(len(indices)), indices, indptr), shape=(len(columns), n))
