"""A trace in scalars computes what the trace computes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun

from engrax.rules.equations import NoWord, Traced
from engrax.rules.scalars import elements, scalars

WORDS = ("add", "add_any", "sub", "mul", "div", "neg", "tanh", "exp", "max", "min", "lt", "gt", "select_n", "copy",
         "stop_gradient", "square", "clamp")  # fmt: skip

FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "matrix": lambda m, a, b: (jnp.tanh(m @ jnp.stack([a, b, 1.0])) @ m)[1],
    "matrices": lambda m, a, b: (m @ (a * m.T) @ m)[1, 2],
    "outer": lambda m, a, b: jnp.outer(m[0] * a, m[1] + b).sum(),
    "batch": lambda m, a, b: jnp.einsum("bij,bkj->bki", m[:, None, :] * a, jnp.stack([m, m * b], 1)).max(0)[1, 0],
    "two axes": lambda m, a, b: jnp.einsum("ijk,kji->", (m * a)[None], (m.T * b)[:, :, None]),
    "sum of all": lambda m, a, b: jnp.sum(jnp.where(m > a, m, b)),
    "extremes": lambda m, a, b: (m * a).max(1).min() + (m * b).min(axis=(0, 1)),
    "product": lambda m, a, b: jnp.prod(m[:, 0] + a),
    "running": lambda m, a, b: jnp.cumsum(m * a, 0)[1] @ jnp.cumprod(m[0] + b),
    "running back": lambda m, a, b: lax.cumsum(m * a, axis=1, reverse=True)[0] @ lax.cummax(m[1] * b, reverse=True),
    "moved": lambda m, a, b: jnp.concatenate([m[::-1, 1] * a, jnp.flip(m[0])[::2], m.T.ravel()])[jnp.array([0, 3, 6])]
    @ jnp.array([1.0, 2.0, 3.0]),
    "put": lambda m, a, b: (m.at[0, 1].set(a).at[1].set(b) * jnp.arange(6.0).reshape(2, 3)).sum(),
    "cut": lambda m, a, b: lax.dynamic_slice(m * a, (1, 0), (1, 2)).sum() + jnp.split(m * b, 3, 1)[2][0, 0],
    "softmax": lambda m, a, b: jax.nn.softmax(m @ jnp.array([a, b, a * b]))[1],
    "slope": lambda m, a, b: jax.grad(lambda z: jnp.tanh(m * z).sum())(a) + b**2,
    "scalars": lambda m, a, b: jnp.where(a < b, a, jnp.exp(b)),
    "constant": lambda m, a, b: a * jnp.linalg.norm(jnp.sort(jnp.array([3.0, 4.0]))),
}  # fmt: skip
NUMBERS = st.floats(-2, 2, allow_subnormal=False)


def traced(function: Callable[[Any, Any, Any], Any]) -> Traced:
    closed = jax.make_jaxpr(lambda *given: [function(*given)])(jnp.ones((2, 3)), jnp.ones(()), jnp.ones(()))
    return Traced(closed, ("m", "a", "b"), ("out",), frozenset("mab"))


@pytest.mark.parametrize("name", FUNCTIONS)
@given(values=st.lists(NUMBERS, min_size=8, max_size=8))
@settings(max_examples=10, deadline=None)
def test_the_same_in_scalars(name: str, values: list[float]) -> None:
    whole = traced(FUNCTIONS[name])
    given = {"m": np.reshape(values[:6], (2, 3)), "a": values[6], "b": values[7]}
    apart = scalars(whole, WORDS)
    named = {key: number for of, value in given.items() for key, number in elements(of, value).items()}
    assert apart.inputs == tuple(named)
    assert {v.aval.shape for e in apart.jaxpr.jaxpr.eqns for v in (*e.invars, *e.outvars)} <= {()}
    theirs = jaxpr_as_fun(whole.jaxpr)(*map(jnp.asarray, given.values()))
    ours = jaxpr_as_fun(apart.jaxpr)(*map(jnp.asarray, named.values()))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_what_is_read_is_said_by_element() -> None:
    whole = traced(lambda m, a, b: m[1] @ jnp.stack([a, 0.0 * b, 1.0]))
    assert scalars(whole, WORDS).reads == {"m.1,0", "m.1,1", "m.1,2", "a", "b"}
    unread = scalars(dataclasses.replace(whole, reads=frozenset("a")), WORDS)
    assert (unread.inputs, unread.reads) == (("a", "b"), {"a"})


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda m, a, b: jnp.sort(m[0] * a)[0], "sort"),
        (lambda m, a, b: jnp.argmax(m[0] * a).astype(float), "argmax"),
        (lambda m, a, b: lax.dynamic_slice(m, (0, a.astype(int)), (1, 1))[0, 0], "dynamic_slice"),
        (lambda m, a, b: (m * a).at[jnp.array([0, 5])].get(mode="fill").sum(), "gather"),  # beyond its end
        (lambda m, a, b: lax.fori_loop(0, 3, lambda _, x: m @ (m.T @ x), m[:, 0] * a)[0], "scan"),
        (lambda m, a, b: jnp.sin(m * a).sum(), "sin"),
    ],
)
def test_what_has_no_word_is_named(function: Any, name: str) -> None:
    with pytest.raises(NoWord) as error:
        scalars(traced(function), WORDS)
    assert error.value.args == (name,)
