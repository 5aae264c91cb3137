"""Compiled kernels of large sparse projections compute what JAX does, and stand back where they cannot."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings, strategies as st
from test_separation import Node, Random, trees

from engrax import Fields, SimulationError, Simulator, kernels, networks as nets, rules, sweep
from engrax.rules.base import LocalRule

native = pytest.importorskip("engrax.native", exc_type=ImportError)

# A kernel adds up some ten products a row in another order and fuses products with sums: a few roundings of 1e-16 (6e-8
# in float32) a tick, of numbers of order 1.
EXACT = {"float64": 1e-12, "float32": 1e-4}
N = 30


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LARGE", 1)


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources of the kernels that were called for."""
    asked: list[str] = []
    compile_ = native.rows

    def spy(source: str, *rest: Any) -> int:
        asked.append(source)
        return compile_(source, *rest)

    kernels._registered.cache_clear()
    monkeypatch.setattr(native, "rows", spy)
    return asked


def matrix(seed: int, regular: bool = False) -> sp.csr_array:
    rng = np.random.default_rng(seed)
    chance = 0.2 if regular else rng.random((N, 1)) ** 3  # a few cells hear many, some nobody
    present = rng.random((N, N)) < chance
    present[0, 0] = True
    return sp.csr_array(np.where(present, rng.normal(0, 0.3, (N, N)), 0))


def network(rule: Any, seed: int = 0, neuron: Any = None) -> nx.MultiDiGraph:
    bias = np.random.default_rng(seed).normal(0, 0.5, N)
    net = nx.MultiDiGraph()
    net.add_node("cells", neuron=nets.Rate(bias=bias) if neuron is None else neuron, size=N)
    net.add_edge("cells", "cells", topology=matrix(seed), rule=rule, delay=1)
    return net


def outcome(net: nx.Graph, ticks: int = 5, **options: Any) -> dict[str, np.ndarray]:
    sim = Simulator(net)
    sim.run(ticks=ticks, **options)
    return {name: np.asarray(value) for name, value in sim.params["cells->cells"].items()}


def without(function: Callable[[], Any]) -> Any:
    """The same by XLA alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "LARGE", sys.maxsize)
        return function()


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


RULES = {
    "Oja": rules.Oja(eta=0.1),
    "Bounded Hebb": rules.Bounded(rules.Hebb(eta=0.1), low=-0.2, high=0.25),
    "BCM": rules.BCM(),
    "Covariance": rules.Covariance(),
    "Decay": rules.Decay(rules.Oja(eta=0.1), rate=0.05, target=0.1),
    "Dale": rules.Dale(rules.Hebb(eta=0.1)),
    "Every": rules.Every(rules.Oja(eta=0.1), n=2),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float64") for name in ("Oja", "Bounded Hebb", "BCM")),
        *(pytest.param(name, "float64", marks=pytest.mark.slow) for name in ("Covariance", "Decay", "Dale", "Every")),
        ("Oja", "float32"),
    ],
)
def test_kernels_equal_xla(name: str, dtype: str, handlers: list[str]) -> None:
    with jax.enable_x64(dtype == "float64"):
        expected = without(lambda: outcome(network(RULES[name])))
        assert not handlers
        found = outcome(network(RULES[name]))
    assert found["w"].dtype == dtype
    assert any("total" in source for source in handlers), "the sum was not compiled"
    assert any("total" not in source for source in handlers), "the rule was not compiled"
    assert_same(found, expected, EXACT[dtype])
    assert not np.allclose(found["w"], matrix(0).data, atol=1e-6), "nothing was learned"


@pytest.mark.slow
@given(tree=trees, seed=st.integers(0, 3))
@settings(max_examples=10)  # seconds of compiling each
def test_random_rules_equal_xla(tree: Node, seed: int) -> None:
    rule = rules.Bounded(rules.Gated(Random(tree, eta=0.01), signal="s"), low=-1.0, high=1.0)
    signals = {"s": np.full(3, 0.3)}
    expected = without(lambda: outcome(network(rule, seed), 3, signals=signals))
    # what the rule squares and multiplies amplifies the roundings of the sums: 1e3 is room for that
    assert_same(outcome(network(rule, seed), 3, signals=signals), expected, 1e3 * EXACT["float64"])


class Squashed(rules.Rule):
    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return 0.1 * jnp.tanh(pre.x * post.x) - 0.01 * w


@pytest.mark.parametrize(
    "rule",
    [
        Squashed(),
        rules.Noisy(rules.Oja(), scale=0.1),
        rules.Normalised(rules.Hebb(eta=0.1)),
    ],
    ids=["operation without a word", "noise", "pooled sum"],
)
def test_a_rule_without_a_kernel_is_left_to_xla(rule: LocalRule, handlers: list[str]) -> None:
    found = outcome(network(rule))
    assert all("total" in source for source in handlers)
    assert_same(found, without(lambda: outcome(network(rule))), EXACT["float64"])


def test_a_batch_is_left_to_xla(handlers: list[str]) -> None:
    net = network(rules.Oja(eta=0.1), neuron=nets.Linear())
    outcome(net, 3, drive={"cells": np.random.default_rng(0).normal(size=(3, 2, N))})
    assert not handlers


@pytest.fixture
def no_llvmlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    kernels._version.cache_clear()
    yield
    kernels._version.cache_clear()


@pytest.mark.usefixtures("no_llvmlite")
def test_without_llvmlite_xla_runs(handlers: list[str]) -> None:
    found = outcome(network(rules.Oja(eta=0.1)))
    assert not handlers
    assert_same(found, without(lambda: outcome(network(rules.Oja(eta=0.1)))), 0.0)


def test_an_unknown_interface_is_left_to_xla(monkeypatch: pytest.MonkeyPatch, handlers: list[str]) -> None:
    monkeypatch.setattr(kernels, "VERSIONS", {(0, 99)})
    outcome(network(rules.Oja()))
    assert not handlers


def test_small_projections_are_left_to_xla(monkeypatch: pytest.MonkeyPatch, handlers: list[str]) -> None:
    monkeypatch.setattr(kernels, "LARGE", 100_000)
    outcome(network(rules.Oja()))
    assert not handlers


def test_a_sweep_equals_its_points() -> None:
    def run() -> dict[str, np.ndarray]:
        sim = sweep(network(rules.Oja()), {"cells->cells.eta": [0.1, 0.2]})
        sim.run(ticks=3)
        return {"w": np.asarray(sim.params["cells->cells"].w)}

    found = run()
    assert_same(found, without(run), EXACT["float64"])
    assert not np.allclose(found["w"][0], found["w"][1])
    assert_same({"w": found["w"][1]}, outcome(network(rules.Oja(eta=0.2)), 3), EXACT["float64"])


def test_gradients_equal_those_of_xla() -> None:
    def gradient() -> dict[str, np.ndarray]:
        sim = Simulator(network(rules.Oja(eta=0.1)))

        def loss(weights: Any, rules_: Any) -> Any:
            model, state = sim.model, sim.state
            model = type(model)(model.neurons, rules_, model.layouts, model.key)
            edge = "cells->cells"
            synapses = {edge: type(state.synapses[edge])(weights, state.synapses[edge].syn)}
            state = dataclasses.replace(state, synapses=synapses)
            for _ in range(3):
                state = sim.step(model, state, {})
            return jnp.sum(state.neurons["cells"].x ** 2) + sum(jnp.sum(w**2) for w in state.synapses[edge].w)

        w, of_rules = jax.jit(jax.grad(loss, (0, 1)))(sim.state.synapses["cells->cells"].w, sim.model.rules)
        eta = np.asarray(of_rules["cells->cells"].eta)
        return {"w": np.asarray(sim._layouts["cells->cells"].unpack(w)), "eta": eta}

    found = gradient()
    assert found["eta"] != 0
    assert_same(found, without(gradient), EXACT["float64"])


def test_the_state_before_a_run_stays_as_it_was() -> None:
    """Kernels write in place: XLA must have copied what the caller still holds."""
    sim = Simulator(network(rules.BCM()))
    sim.run(ticks=1)
    before = sim.state
    kept = jax.tree.map(lambda leaf: np.array(leaf, copy=True), before)
    results = []
    for _ in range(2):
        sim.state = before
        sim.run(ticks=4)
        results.append(np.asarray(sim.params["cells->cells"].w))
        jax.tree.map(np.testing.assert_array_equal, kept, before)
    np.testing.assert_array_equal(*results)
    step = jax.jit(lambda state: sim.step(sim.model, state, {}))
    after = step(before)
    jax.tree.map(np.testing.assert_array_equal, kept, before)
    changed = [jnp.any(a != b) for a, b in zip(*(s.synapses["cells->cells"].w for s in (before, after)), strict=True)]
    assert any(changed)


def test_a_failure_is_still_located() -> None:
    with pytest.raises(SimulationError) as kernel:
        outcome(network(rules.Hebb(eta=1e3), neuron=nets.Linear()), 400, drive={"cells": np.ones((400, N))})
    with pytest.raises(SimulationError) as xla:
        without(lambda: outcome(network(rules.Hebb(eta=1e3), neuron=nets.Linear()), 400,
                                drive={"cells": np.ones((400, N))}))  # fmt: skip
    assert str(kernel.value).partition(":")[0] == str(xla.value).partition(":")[0]
    assert "tick" in str(kernel.value)


def test_noise_does_not_depend_on_how_rows_are_split() -> None:
    """Without kernels, so that all that differs are the blocks."""
    rule = rules.Noisy(rules.Oja(), scale=0.1)
    whole = without(lambda: Simulator(network(rule)))
    parted = Simulator(network(rule))
    assert len(parted._layouts["cells->cells"].blocks) > len(whole._layouts["cells->cells"].blocks)
    for sim in (whole, parted):
        without(lambda sim=sim: sim.run(ticks=3))
    # sums are the same, row by row
    np.testing.assert_allclose(whole.params["cells->cells"].w, parted.params["cells->cells"].w, rtol=EXACT["float64"])


def test_nan_passes_through_bounds() -> None:
    """As jnp.clip has it."""
    sim = Simulator(network(rules.Bounded(rules.Hebb(), low=0.0, high=1.0)))
    state = sim.step(sim.model, sim.state, {"cells": jnp.full(N, jnp.nan)})
    assert np.isnan(np.asarray(sim._layouts["cells->cells"].unpack(state.synapses["cells->cells"].w))).any()


def test_fields_reach_the_kernel_by_name() -> None:
    class Mixed(rules.Rule):
        a: float = 0.1
        b: float = 0.01

        def init(self) -> Fields:
            return Fields(fast=0.0, slow=0.5)

        def update(self, w: Any, pre: Any, post: Any, syn: Any, dt: Any) -> Any:
            fast = syn.fast + self.a * (pre.x - syn.fast)
            slow = jnp.where(post.drive > 0, syn.slow - self.b * post.x**3, syn.slow)
            return self.b * (fast - slow) * post.drive - dt * jnp.abs(w), Fields(fast=fast, slow=slow)

    assert_same(outcome(network(Mixed())), without(lambda: outcome(network(Mixed()))), EXACT["float64"])
