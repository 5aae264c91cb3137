"""Kernels that are called as one compute what they do one by one."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from engrax import Simulator, kernels, loops, networks as nets, rules, ticks, together

pytest.importorskip("llvmlite")

N = 70


def doubled(x: Any) -> Any:
    """In place."""
    source = "def rows(x):\n    for i in range(x.shape[0]):\n        x[i] *= 2"
    return kernels.compiled(lambda x: (2 * x,), source, (0,))(x)[0]


def one_more(x: Any) -> Any:
    """Anew."""
    source = "def rows(x, out):\n    for i in range(x.shape[0]):\n        out[i] = x[i] + 1"
    return kernels.compiled(lambda x: (x + 1,), source, (kernels.Shape(x.shape, x.dtype),))(x)[0]


def chain(x: Any) -> Any:
    return doubled(one_more(doubled(x)))


def old_value_needed(x: Any) -> Any:
    """By a later kernel, and by nobody inside but the caller."""
    y = one_more(x)
    z = doubled(y)
    return one_more(y), z, doubled(x), x


def apart(x: Any) -> Any:
    """The second pair waits for XLA, which waits for the first."""
    return doubled(one_more(jnp.cumsum(doubled(one_more(x))))), one_more(x)


def repeated(x: Any) -> Any:
    return one_more(x), doubled(one_more(x)), one_more(x)


def of_a_constant(x: Any) -> Any:
    return loops.added(None, x, 0.5), loops.added(doubled(x), x, 3.0), x.sum() * 2


FUNCTIONS = {  # and how many kernels each call has
    chain: [3],
    old_value_needed: [5],  # one of them a copy
    apart: [3, 2],  # one of them a copy
    repeated: [3],  # one of them a copy
    of_a_constant: [4],  # one of them a copy
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_is_joined_computes_the_same(function: Callable[[Any], Any], calls: list[int]) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=N))
    kept = np.array(x)
    expected = function(x)
    assert not calls
    found = jax.jit(together.joined(function))(x)
    assert calls == FUNCTIONS[function]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_maps_and_derivatives_pass(function: Callable[[Any], Any], calls: list[int]) -> None:
    rng = np.random.default_rng(0)
    x, moved = (jnp.asarray(rng.normal(size=(3, N))) for _ in range(2))
    joined = together.joined(function)
    several = jax.jit(jax.vmap(joined))(x)
    assert calls == FUNCTIONS[function], "the copies were not called together"
    jax.tree.map(np.testing.assert_array_equal, several, jax.vmap(function)(x))
    # XLA may add up in another order: roundings
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12)
    jax.tree.map(close, jax.jvp(joined, (x[0],), (moved[0],)), jax.jvp(function, (x[0],), (moved[0],)))


def test_derivatives_pass_where_integers_are_between() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=N))

    def arriving(x: Any) -> Any:
        found = loops.places(x)
        source = "def rows(x, found, out):\n    out[:] = 0\n    for s in range(found[0]):\n        p = found[s + 1]\n"
        source += "        out[p] = x[p] * x[p]"
        plain = lambda x, found: (x * x,)  # noqa: E731
        return kernels.compiled(plain, source, (kernels.Shape(x.shape, x.dtype),))(x, found)[0].sum()

    for function in (arriving, together.joined(arriving)):
        np.testing.assert_allclose(jax.jit(function)(x), (x * x).sum(), rtol=1e-12)
        np.testing.assert_allclose(jax.grad(function)(x), 2 * x, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 3, 7, 10, 17, 23, 40])
def test_a_scan_is_jax_s_own(length: int) -> None:
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(length, N)))

    def body(state: Any, row: Any) -> tuple[Any, Any]:
        x, n = state
        new = loops.added(one_more(x), row, 0.5)
        return (new, n + 1), {"x": new, "n": n, "old": x}

    start = (rows[0], jnp.zeros((), int))
    expected = jax.jit(lambda: jax.lax.scan(body, start, rows))()
    found = jax.jit(lambda: ticks.scan(body, start, rows, length))()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("delay", [1, 4])
@pytest.mark.parametrize("rule", [None, rules.STDP(a_plus=0.1, a_minus=0.12)], ids=["static", "STDP"])
def test_ten_ticks_are_one_call(rule: Any, delay: int, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that spikes, with two projections into one port and drive on top."""
    monkeypatch.setattr(kernels, "MANY", 1)
    rng = np.random.default_rng(1)
    net = nx.MultiDiGraph()
    net.add_node("cells", neuron=nets.LIF(rest=rng.uniform(-49, -40, N), start=rng.uniform(-60, -50, N)), size=N)
    for key, gain in (("a", 1.0), ("b", 0.5)):
        weights = sp.csr_array(np.where(rng.random((N, N)) < 0.2, rng.uniform(0, 1, (N, N)), 0))
        net.add_edge("cells", "cells", name=key, port="excitatory", topology=weights, rule=rule, delay=delay, gain=gain)
    drive = {"cells": rng.uniform(0, 1, (43, N)), "cells.excitatory": rng.uniform(0, 0.5, (43, N))}

    def run() -> Any:
        sim = Simulator(net)
        assert sim.network.in_loops
        out = sim.run(ticks=43, drive=drive, record={"cells.spikes": 1, "cells.excitatory": 1})
        return sim.state, out["cells.spikes"].times, out["cells.spikes"].ids, out["cells.excitatory"]

    found = run()
    assert len(found[1]) > N
    assert len(calls) == 2 and calls[0] > 3 * calls[1], "ten ticks, and the three that are left"
    monkeypatch.setattr("engrax.program.scan", jax.lax.scan)
    jax.tree.map(np.testing.assert_array_equal, found, run())
    assert len(calls) == 2
