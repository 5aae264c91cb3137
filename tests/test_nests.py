"""Nests of loops compute what XLA does, and stand back where they cannot."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_kernels import EXACT

from engrax import Phase, Simulator, kernels, nests, networks as nets, rules, ticks

pytest.importorskip("llvmlite")

N, M = 12, 7


def state(dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"x": (N,), "y": (M,), "w": (M, N), "p": (M, N), "v": (N, N), "s": (), "line": (1, N)}
    floats = {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
    return {**floats, "on": jnp.asarray(rng.random(N) < 0.5), "tick": jnp.asarray(3)}


def arriving(x: Any, y: Any, w: Any) -> Any:
    return {"y": jnp.tanh(w @ x), "x": jnp.tanh(w.T @ y)}


def outer(x: Any, y: Any, w: Any, p: Any) -> Any:
    p = 0.5 * p + 0.1 * jnp.outer(y, x)
    return {"p": p, "w": 0.9 * w + 0.05 * (y[:, None] - jnp.tanh(w.sum(1, keepdims=True))) * p}


def sums(x: Any, y: Any, w: Any, s: Any) -> Any:
    return {"s": x @ x + s, "y": w.sum(1), "x": w.sum(0) / jnp.sqrt((w**2).sum()), "line": w.sum(0, keepdims=True)}


def swapped(w: Any, p: Any) -> Any:
    return {"w": p + 1, "p": w}


def mixed(w: Any, p: Any) -> Any:
    return {"w": p + 1, "p": w * p}


def across(v: Any) -> Any:
    """Not in place: every element needs another."""
    return {"v": v + v.T}


def chosen(x: Any, on: Any, s: Any) -> Any:
    return {"x": jnp.where(on & (x > s), jnp.maximum(x, 0.5), -x), "on": (x > 0) | ~on}


def curves(x: Any) -> Any:
    smooth = jax.nn.sigmoid(3 * x) + jax.lax.rsqrt(1 + x * x)
    return {"x": smooth + jnp.sign(x) * jnp.clip(x, -0.5, 0.5) + jax.nn.relu(x) ** 3}


def constant(x: Any, w: Any) -> Any:
    return {"x": jnp.zeros_like(x), "w": jnp.where(False, w, w * jnp.full_like(w, jnp.inf)), "line": 2 * x[None]}


def of_given_numbers(x: Any, w: Any) -> Any:
    given = jnp.asarray(np.linspace(-1, 1, N), x.dtype)
    return {"x": x * given, "w": w + given * jnp.asarray(np.linspace(0, 1, M), x.dtype)[:, None]}


def noisy(x: Any, w: Any, tick: Any) -> Any:
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), tick), x.shape, x.dtype)
    return {"x": 0.5 * x + 0.1 * (w.sum(0) + noise), "tick": tick + 1, "y": jnp.tanh(w @ (x + tick.astype(x.dtype)))}


FUNCTIONS = (arriving, outer, sums, swapped, mixed, across, chosen, curves, constant, of_given_numbers, noisy)


def whole(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Of a whole state."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return lambda state: state | function(**{name: state[name] for name in names})


def has_nests(function: Callable[..., Any], *given: Any) -> bool:
    return any(equation.primitive is nests.nest for equation in jax.make_jaxpr(function)(*given).eqns)


def close(dtype: str) -> Callable[[Any, Any], None]:
    return lambda a, b: np.testing.assert_allclose(a, b, rtol=EXACT[dtype], atol=EXACT[dtype])


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_function_is_xla_s(function: Callable[..., Any], dtype: str) -> None:
    given, expected = state(dtype), jax.jit(whole(function))(state(dtype))
    kept = jax.tree.map(np.array, given)
    in_nests = functools.partial(nests.nested, whole(function))
    assert has_nests(in_nests, given)
    found = jax.jit(in_nests)(given)
    jax.tree.map(close(dtype), found, expected)
    jax.tree.map(np.testing.assert_array_equal, given, kept)
    assert jax.tree.map(lambda a: a.dtype, found) == jax.tree.map(lambda a: a.dtype, expected)


@pytest.mark.parametrize("length", [1, 3, 10, 23])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_ticks_follow_one_another(function: Callable[..., Any], length: int) -> None:
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(length, N)))

    def body(tick: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def once(state: Any, row: Any) -> Any:
            state = tick(state | {"x": state["x"] + row})
            return state, {"x": state["x"], "w": state["w"].sum(1)}

        return once

    start = state("float64")
    expected = jax.jit(lambda: jax.lax.scan(body(whole(function)), start, rows))()
    in_nests = body(lambda state: nests.nested(jax.jit(whole(function)), state))
    jax.tree.map(close("float64"), jax.jit(lambda: ticks.scan(in_nests, start, rows, length))(), expected)


def test_several_ticks_are_one_call(calls: list[int]) -> None:
    body = lambda state, _: (nests.nested(whole(noisy), state), ())  # noqa: E731
    jax.jit(lambda start: ticks.scan(body, start, (), 20))(state("float32"))
    assert len(calls) == 1, "noise and counters are XLA's, before all else"


def later(x: Any, y: Any, w: Any) -> Any:
    return {"x": jnp.sort(w.T @ y), "y": jnp.tanh(w @ x)}


def of_integers(x: Any, tick: Any) -> Any:
    return {"tick": tick + (x.sum() > 0), "x": x + tick}


@pytest.mark.parametrize("function", [later, of_integers], ids=lambda function: function.__name__)
def test_what_has_no_loop_is_left_to_xla(function: Callable[..., Any]) -> None:
    given = state("float32")
    in_nests = functools.partial(nests.nested, whole(function))
    assert not has_nests(in_nests, given)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(in_nests)(given), jax.jit(whole(function))(given))


@pytest.mark.parametrize("function", [arriving, outer, noisy], ids=lambda function: function.__name__)
def test_maps_and_derivatives_pass(function: Callable[..., Any]) -> None:
    start = state("float64")
    moving = {name: value for name, value in start.items() if value.dtype == float}

    def after(scan: Any, tick: Any, moving: Any) -> Any:
        body = lambda state, _: (tick(state), state["x"].sum())  # noqa: E731
        return {**(out := scan(body, start | moving, (), 12))[0], "sums": out[1]}

    found = lambda moving: after(ticks.scan, lambda state: nests.nested(whole(function), state), moving)  # noqa: E731
    expected = lambda moving: after(jax.lax.scan, whole(function), moving)  # noqa: E731
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), moving)
    jax.tree.map(close("float64"), jax.jit(jax.vmap(found))(copies), jax.jit(jax.vmap(expected))(copies))
    only_w = {"w": jnp.stack([start["w"], 2 * start["w"]])}
    jax.tree.map(close("float64"), jax.jit(jax.vmap(found))(only_w), jax.jit(jax.vmap(expected))(only_w))

    def slope(function: Any) -> Any:
        return jax.jit(jax.grad(lambda moving: sum(jnp.sum(function(moving)[name]) for name in ("x", "w", "sums"))))

    jax.tree.map(close("float64"), slope(found)(moving), slope(expected)(moving))


def network(rule: Any, **cells: Any) -> Any:
    net = nets.recurrent((3, N, 2), feedback="symmetric", bias=False, **cells)
    if rule is not None:
        nets.set_rule(net, rule, ("input->hidden", "hidden->hidden"))
    return net


RULES = {
    "none": None,
    "RFLO": rules.RFLO(eta=0.1),
    "UORO": rules.UORO(eta=0.01),  # a network rule: empty arrays among those that are joined, noise
    "sum of a trial": rules.Accumulated(rules.RFLO(eta=0.1)),
    "noise": rules.Noisy(rules.Oja(eta=0.1), scale=0.1),
    "bounds": rules.Bounded(rules.Hebb(eta=0.1), low=-0.2, high=0.25),
    "Dale": rules.Dale(rules.Oja(eta=0.1)),
    "a power": rules.Normalised(rules.Hebb(eta=0.1)),  # for which there is no loop
    "signal": rules.Gated(rules.Oja(eta=0.1), signal="s"),
}


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("rule", RULES)
def test_a_network_is_as_by_xla(rule: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    drive = {"input": rng.normal(size=(23, 3)), "output.target": rng.normal(size=(23, 2))}
    signals = {"s": rng.random(23)}
    made: list[bool] = []
    cells, trial = {"hidden": nets.LeakyHidden(alpha=0.3)}, {}
    if rule == "UORO":  # what its optimiser does, in a trial's last tick, has no loop; and nothing leaks
        cells = {"hidden": nets.Hidden(activation=jnp.tanh), "output": nets.Output()}
        trial = {"trial": Phase("trial", ticks=23, plastic="last")}

    def spy(*given: Any) -> Any:
        made.append(has_nests(functools.partial(nested, given[0]), given[1]))
        return nested(*given)

    nested = nests.nested
    monkeypatch.setattr("engrax.program.nested", spy)

    def run() -> Any:
        sim = Simulator(network(RULES[rule], **cells))
        out = sim.run(drive, signals=signals, record={"hidden.x": 1, "hidden->hidden.w": 1 if trial else 5}, **trial)
        return jax.tree.map(np.asarray, (sim.state, dict(out.items())))

    with jax.enable_x64(dtype == "float64"):
        monkeypatch.setattr(kernels, "SEVERAL", 1)
        found = run()
        assert made and (any(made) if trial else all(made)) != (rule == "a power")
        monkeypatch.setattr(kernels, "SEVERAL", 10**9)
        expected = run()
    jax.tree.map(close(dtype), found, expected)
