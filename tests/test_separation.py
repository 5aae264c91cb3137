"""Random rules: the matrix products that a separable rule becomes give the mean of its single updates, and what is not
a sum of products is recognised and averaged all the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings, strategies as st

from engrax import Fields, plasticity, rules, separation
from engrax.layout import make_layout
from engrax.rules.base import LocalRule, Rule

N_PRE, N_POST, BATCH = 3, 2, 4
LEAVES = ("w", "pre.x", "post.x", "post.drive", "signals.s", "rule.eta")
GROUP = {"w": "syn", "pre.x": "pre", "post.x": "post", "post.drive": "post", "signals.s": "const", "rule.eta": "const"}
EXACT = 2.0**-52


@dataclass(frozen=True)
class Node:
    """An expression: a leaf's name or a number, or an operation on others."""

    op: str
    args: tuple["Node", ...] = ()
    value: float = 0.0

    def groups(self) -> frozenset[str]:
        if self.op in GROUP:
            return frozenset({GROUP[self.op]}) - {"const"}
        return frozenset().union(*(arg.groups() for arg in self.args))

    def terms(self) -> int | None:
        """How many products its expansion has, or None if it is no sum of products."""
        counts = [arg.terms() for arg in self.args]
        if None in counts:
            return None
        if len(self.groups()) <= 1:
            return 1
        sizes = [count for count in counts if count is not None]
        count = {
            "+": sum(sizes),
            "-": sum(sizes),
            "*": int(np.prod(sizes)),
            "square": sizes[0] ** 2,
            "/": sizes[0] if len(self.args[-1].groups()) <= 1 else None,
        }.get(self.op)
        return None if count is None or count > separation.MAX_TERMS else count

    def __str__(self) -> str:
        if not self.args:
            return str(self.value) if self.op == "number" else self.op
        return f"{self.op}({', '.join(map(str, self.args))})"


def compute(node: Node, leaf: Callable[[str], Any]) -> tuple[Any, Any]:
    """The value, and the sum of the absolute values of everything that is added up on the way, each term weighted with
    how strongly it moves the result: rounding errors are a few times the machine epsilon times that."""
    if node.op == "number":
        return node.value, abs(node.value)
    if node.op in GROUP:
        return leaf(node.op), jnp.abs(leaf(node.op))
    parts = [compute(arg, leaf) for arg in node.args]
    (a, a_size), (b, b_size) = parts[0], parts[-1]
    if node.op in "+-":
        return (a + b if node.op == "+" else a - b), a_size + b_size
    if node.op == "*":
        return a * b, a_size * b_size
    if node.op == "square":
        return jnp.square(a), a_size**2
    if node.op == "/":  # the denominator is at least 1
        return a / (1 + b**2), a_size * (1 + 2 * b_size**2)
    if node.op == "tanh":
        return jnp.tanh(a), 1 + a_size
    if node.op == "exp":
        return jnp.exp(jnp.sin(a)), np.e * (1 + a_size)
    # A generic threshold: a tie, where rounding would choose the branch, does not happen.
    return jnp.where(a > 0.1234567, b, parts[1][0]), a_size + b_size + parts[1][1]


class Random(Rule):
    tree: Node = eqx.field(static=True)
    eta: float = 0.7

    def update(self, w: Any, pre: Any, post: Any, signals: Any) -> Any:
        leaves = {
            "w": w,
            "pre.x": pre.x,
            "post.x": post.x,
            "post.drive": post.drive,
            "signals.s": signals.s,
            "rule.eta": self.eta,
        }
        return compute(self.tree, leaves.__getitem__)[0]


leaves = st.sampled_from(LEAVES).map(Node) | st.floats(-2, 2).map(lambda v: Node("number", value=round(v, 3)))


def grow(inner: Any) -> Any:
    return (
        st.tuples(st.sampled_from(["+", "-", "*", "*"]), st.tuples(inner, inner)).map(lambda t: Node(*t))
        | st.tuples(inner, st.sampled_from(LEAVES).map(Node)).map(lambda pair: Node("/", pair))
        | inner.map(lambda arg: Node("square", (arg,)))
        | st.tuples(st.sampled_from(["tanh", "exp"]), inner | leaves).map(lambda t: Node(t[0], (t[1],)))
        | st.tuples(st.sampled_from(LEAVES).map(Node), inner, inner).map(lambda args: Node("where", args))
    )


trees = st.recursive(leaves, grow, max_leaves=8)


def situation(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "w": ("syn", jnp.asarray(rng.normal(size=(N_POST, N_PRE)))),
        "pre.x": ("pre", jnp.asarray(rng.normal(size=(BATCH, N_PRE)))),
        "post.x": ("post", jnp.asarray(rng.normal(size=(BATCH, N_POST)))),
        "post.drive": ("post", jnp.asarray(rng.normal(size=(BATCH, N_POST)))),
        "signals.s": ("const", jnp.asarray(rng.normal())),
        "rule.eta": ("const", jnp.asarray(0.7)),
    }


def spread(values: dict[str, Any], name: str) -> Any:
    """A leaf over (batch, post, pre)."""
    group, array = values[name]
    return {
        "syn": lambda: array[None],
        "pre": lambda: array[:, None, :],
        "post": lambda: array[:, :, None],
        "const": lambda: array,
    }[group]()


def separated(rule: LocalRule, values: dict[str, Any]) -> Any:
    traced = rules.trace(rule)
    given = {name: values.get(name, ("const", jnp.asarray(0.0))) for name in traced.inputs}
    outputs = separation.separate(traced, given)
    return None if outputs is None else np.broadcast_to(outputs[0], (N_POST, N_PRE))


@given(tree=trees, seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_separated_mean_is_the_mapped_mean(tree: Node, seed: int) -> None:
    values = situation(seed)
    value, size = compute(tree, lambda name: spread(values, name))
    shape = (BATCH, N_POST, N_PRE)
    expected, bound = np.broadcast_to(value, shape).mean(0), np.broadcast_to(size, shape).max(0)
    found = separated(Random(tree), values)
    assert (found is None) == (tree.terms() is None), "separates if and only if it is a sum of products"
    if found is not None:
        # some hundred operations, each with a rounding error of at most EXACT times what it handles
        np.testing.assert_array_less(np.abs(found - expected), 100 * EXACT * (1 + bound))


@given(tree=trees, seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_simulated_batch_is_the_mean_of_single_updates(tree: Node, seed: int) -> None:
    values = situation(seed)
    value, size = compute(tree, lambda name: spread(values, name))
    shape = (BATCH, N_POST, N_PRE)
    expected, bound = np.broadcast_to(value, shape).mean(0), np.broadcast_to(size, shape).max(0)
    w = values["w"][1]
    rule = Random(tree)
    traced = plasticity.trace_rule(rule)
    fields = {
        group: Fields({name.partition(".")[2]: v[1] for name, v in values.items() if name.startswith(group)})
        for group in ("pre", "post", "signals")
    }
    for topology in (None, _everyone()):
        layout = make_layout(topology, N_PRE, N_POST)
        (new,), _ = plasticity.learn(
            rule,
            traced,
            layout,
            (w,),
            Fields(),
            *(fields[group] for group in ("pre", "post", "signals")),
            jax.random.key(0),
            1e-3,
            BATCH,
        )
        np.testing.assert_array_less(np.abs(new - w - expected), 100 * EXACT * (1 + np.abs(w) + bound))


def _everyone() -> Any:
    return sp.csr_array(np.ones((N_POST, N_PRE)))


def update(function: Callable[..., Any]) -> Rule:
    """A rule of one function of w, pre.x, post.x and post.drive."""

    class Made(Rule):
        def update(self, w: Any, pre: Any, post: Any) -> Any:
            return function(w, pre.x, post.x, post.drive)

    return Made()


NOT_PRODUCTS = {
    "tanh of a product": lambda w, x, y, d: jnp.tanh(x * y),
    "exp of a sum": lambda w, x, y, d: jnp.exp(w + x),
    "division by a product": lambda w, x, y, d: 1 / (2 + jnp.square(x * y)),
    "branch on a product": lambda w, x, y, d: jnp.where(x * y > 0, 1.0, -1.0),
    "branches of two groups": lambda w, x, y, d: jnp.where(y > 0, x, 0.0),
    "bound of a difference": lambda w, x, y, d: jnp.maximum(x - w, 0),
    "too many terms": lambda w, x, y, d: (w + x + y) ** 3 * (w + x),
    "reciprocal power": lambda w, x, y, d: (2 + jnp.square(x * y)) ** -1,
}


@pytest.mark.parametrize("name", NOT_PRODUCTS)
def test_no_sum_of_products_is_recognised(name: str) -> None:
    assert separated(update(NOT_PRODUCTS[name]), situation(0)) is None


PRODUCTS = {
    "cube": lambda w, x, y, d: (x * y) ** 3,
    "power of a sum": lambda w, x, y, d: (x - w * y) ** 2,
    "functions of one group": lambda w, x, y, d: jnp.exp(w) * jnp.tanh(x) * jnp.where(y > d, y, jnp.sin(d)),
    "divided by one group": lambda w, x, y, d: (x - y) / (1 + jnp.abs(w)),
    "relu of one group": lambda w, x, y, d: jax.nn.relu(y) * x - jax.nn.relu(w),
    "no batch at all": lambda w, x, y, d: -w,
    "number": lambda w, x, y, d: 1.0,
    "pre only": lambda w, x, y, d: x,
    "post only": lambda w, x, y, d: y - d,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_sums_of_products_separate(name: str) -> None:
    values = situation(1)
    found = separated(update(PRODUCTS[name]), values)
    assert found is not None
    mapped = PRODUCTS[name](*(spread(values, leaf) for leaf in ("w", "pre.x", "post.x", "post.drive")))
    expected = np.broadcast_to(mapped, (BATCH, N_POST, N_PRE)).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)  # some ten roundings of numbers of order 1


def test_truncation_to_an_integer_is_no_product() -> None:
    values = situation(0)
    found = separated(update(lambda w, x, y, d: (3 * x * y).astype(int)), values)
    mapped = np.trunc(3 * spread(values, "pre.x") * spread(values, "post.x")).mean(0)
    assert found is None or np.allclose(found, mapped)


@pytest.mark.parametrize(
    "rule",
    [
        rules.Hebb(),
        rules.Oja(),
        rules.BCM(),
        rules.Covariance(),
        rules.Infomax(price=0.1),
        rules.InfomaxSharedPrice(),
        rules.InfomaxHomeostatic(),
        rules.InfomaxLateral(),
        rules.LocalICA(),
        rules.SimilarityMatching(),
        rules.SimilarityMatchingLateral(),
        rules.FoldiakFeedforward(),
        rules.FoldiakLateral(),
        rules.FoldiakThreshold(),
        rules.Bounded(rules.Decay(rules.Gated(rules.Oja()))),
        rules.Noisy(rules.Hebb()),
        rules.Scheduled(rules.Oja()),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_published_rules_become_matrix_products(rule: LocalRule) -> None:
    rng = np.random.default_rng(0)
    traced = rules.trace(rule)
    shapes = {"pre": (BATCH, N_PRE), "post": (BATCH, N_POST), "syn": (N_POST, N_PRE), "w": (N_POST, N_PRE)}
    given = {}
    for name in traced.inputs:
        group = "syn" if name in ("w", "noise") else name.partition(".")[0]
        group = group if group in shapes else "const"
        given[name] = (group, jnp.asarray(rng.uniform(0.5, 1.5, shapes.get(group, ()))))
    assert separation.separate(traced, given) is not None


@pytest.mark.parametrize("rule", [rules.Oja(), rules.STDP()], ids=["no state", "traces of either neuron"])
def test_a_batch_makes_no_array_of_batch_times_synapses(rule: rules.Rule) -> None:
    """The reason for separating: Oja on 64 x 50 synapses and a batch of 16 never holds 16 x 64 x 50 numbers."""
    traced = plasticity.trace_rule(rule)
    layout = make_layout(None, 50, 64)
    w = jnp.ones((64, 50))
    syn = plasticity.initial_synapses(rule, traced, layout, (w,), 16)

    def learn(w: Any, pre: Any, post: Any) -> Any:
        return plasticity.learn(
            rule,
            traced,
            layout,
            (w,),
            syn,
            Fields(x=pre),
            Fields(x=post),
            Fields(),
            jax.random.key(0),
            1e-3,
            16,
        )[0]

    jaxpr = jax.make_jaxpr(learn)(w, jnp.ones((16, 50)), jnp.ones((16, 64)))
    assert "16,64,50" not in str(jaxpr)
    assert "dot_general" in str(jaxpr)
    assert "scan" not in str(jaxpr)
