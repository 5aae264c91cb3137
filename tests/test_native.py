"""Machine code does what the same text does in Python."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engrax import kernels, loops

pytest.importorskip("llvmlite")

N = 70
SCOPE = {"math": math, "inf": math.inf, "nan": math.nan, "float32": np.float32, "float64": np.float64}


def python(source: str) -> Callable[..., None]:
    scope: dict[str, Any] = dict(SCOPE)
    exec(source, scope)
    rows: Callable[..., None] = scope["rows"]
    return rows


def machine(source: str, arrays: Sequence[np.ndarray], mapped: tuple[tuple[bool, ...], ...] = ()) -> list[np.ndarray]:
    """The arrays, each after the text has changed it in place."""

    def plain(*arrays: Any) -> Any:
        raise AssertionError("XLA was asked")

    shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays)
    call = {"over": tuple(range(len(arrays))), "rest": 0, "mapped": mapped, "results": shapes}
    run = jax.jit(lambda *arrays: kernels.kernel.bind(*arrays, plain=plain, source=source, **call))
    return [np.asarray(array) for array in run(*arrays)]


def text(*lines: str, arrays: str = "a, b, n") -> str:
    return "\n    ".join([f"def rows({arrays}):", *lines])


SINGLE = {
    name: text("for i in range(a.shape[0]):", f"    a[i] = {expression}")
    for name, expression in {
        "sums and products": "a[i] * b[i] - 2 * a[i] + b[i] / 3",
        "integers become floats": "a[i] * n[i] + i",
        "a sign": "-a[i] - -1.5",
        "powers": "abs(a[i]) ** 1.5 + b[i] ** 2",
        "exponentials": "math.exp(a[i]) + math.log(abs(b[i])) + math.expm1(a[i]) + math.log1p(abs(b[i]))",
        "others of math": "math.tanh(a[i]) + math.sin(b[i]) * math.cos(a[i]) + math.sqrt(abs(a[i]))",
        "floor": "math.floor(a[i])",
        "a choice": "b[i] if (a[i] > b[i]) | (n[i] == 2) else -inf if a[i] < 0 else n[i]",
        "comparisons": "(a[i] >= b[i]) + 2 * (a[i] <= 0) + 4 * (n[i] != 1) + 8 * (not n[i] < 2)",
        "truth of a number": "1.0 if n[i] else 2.0",
        "both": "1.0 if (a[i] > 0) & (b[i] > 0) else 0.0",
        "a number in another type": "float32(a[i]) + float64(1) / 3",
        "NaN": "a[i] if (a[i] > nan) | (a[i] != a[i]) else b[i]",
    }.items()
}
PROGRAMS = SINGLE | {
    "a sum": text("total = 0.0", "for i in range(a.shape[0]):", "    total += a[i] * b[n[i]]", "a[0] = total"),
    "a whole array": text("a[:] = 0", "for i in range(3, b.shape[0], 4):", "    a[i] = b[i]"),
    "ranges within ranges": text(
        "count = 0",
        "for i in range(n.shape[0]):",
        "    for j in range(i, n[i] + 3):",
        "        if a[i] > b[j]:",
        "            b[count] += a[j]",
        "            count += 1",
        "n[0] = count",
    ),
    "several at once": text("x, y = a[0], b[0]", "x, y = y, x", "a[1], b[1] = x, y"),
    "bits": text("for i in range(n.shape[0]):", "    n[i] = (n[i] << i % 5) | i // 3 & 6"),
    "sums of integers": text("for i in range(1, n.shape[0]):", "    n[i] += n[i - 1] - 2 * i"),
    "nothing to do": text("for i in range(5, 5):", "    a[i] = 1"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_machine_code_does_what_python_does(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=N).astype(dtype), rng.normal(size=N).astype(dtype), rng.integers(0, 4, N)]
    expected = [array.copy() for array in arrays]
    python(PROGRAMS[name])(*expected)
    with jax.enable_x64(True):
        found = machine(PROGRAMS[name], arrays)
    tolerance = 1e-14 if dtype == "float64" else 2e-6  # another order of sums, and products fused with them
    for one, other, kind in zip(found, expected, arrays, strict=True):
        assert one.dtype == kind.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint32", "int32"])
def test_small_types_are_loaded_and_stored(dtype: str) -> None:
    source = text("for i in range(a.shape[0]):", "    n[i] = a[i]", "    a[i] = n[-0 + i] > 1", arrays="a, n")
    values = np.array([0, 1, 2, 100]).astype(dtype)
    expected = values.copy(), np.zeros(4, np.int32)
    python(source)(*expected)
    for one, other in zip(machine(source, [values, np.zeros(4, np.int32)]), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_hyperbolic_tangent_of_float32() -> None:
    """Is not C's: to 4 units of the last place, odd, within [-1, 1], and NaN's and infinity's."""
    x = np.concatenate([np.linspace(-12, 12, 100_001), np.geomspace(1e-30, 1, 10_001), [np.inf, -np.inf, np.nan]])
    x = x.astype(np.float32)
    source = text("for i in range(a.shape[0]):", "    a[i] = math.tanh(a[i])", arrays="a")
    (found,) = machine(source, [x])
    (mirrored,) = machine(source, [-x])
    exact = np.tanh(x.astype(float))
    np.testing.assert_array_less(np.abs(found - exact)[:-1], 4.0001 * np.spacing(np.abs(exact).astype(np.float32))[:-1])
    np.testing.assert_array_equal(found, -mirrored)
    np.testing.assert_array_equal(found[-3:], [1, -1, np.nan])
    assert np.nanmax(np.abs(found)) == 1


def test_copies_along_leading_axes() -> None:
    """Of which some arrays have both, some one, some none."""
    source = text("for i in range(a.shape[0]):", "    a[i] += b[i] * n[0]", "c[0] += 1", arrays="a, b, n, c")
    rng = np.random.default_rng(0)
    shapes = [(3, 2, N), (2, N), (3, 1), (3, 2)]  # c is a number for each copy
    arrays = [rng.normal(size=shape) for shape in shapes]
    mapped = (True, False, True, True), (True, True, False, True)
    expected = [array.copy() for array in arrays]
    for i, j in np.ndindex(3, 2):
        python(source)(expected[0][i, j], expected[1][j], expected[2][i], expected[3][i, j : j + 1])
    with jax.enable_x64(True):
        found = machine(source, arrays, mapped)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


@pytest.mark.parametrize(
    "line",
    [
        "a[0] = math.gamma(a[0])",
        "print(a[0])",
        "while a[0] > 0: a[0] -= 1",
        "x = 1; x = a[0]",
        "a[0] = a[0] // 2",
        "a[0] = n[0] / 2",
        "a[0] = 1 < a[0] < 2",
    ],
)
def test_what_has_no_machine_code_is_named(line: str) -> None:
    with pytest.raises(NotImplementedError, match=r"\w"):
        machine(text(*line.split("; ")), [np.ones(2, np.float32), np.ones(2, np.float32), np.ones(2, np.int32)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loops_are_those_of_python(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts of the loops that are written by hand, as Python runs them."""
    rng = np.random.default_rng(1)
    ran = []

    def spy(plain: Any, source: str, over: Any, rest: int = 0, mapped: Any = ()) -> Any:
        def function(*given: Any) -> Any:
            arrays = [np.array(array) for array in given[: len(given) - rest]]
            arrays = [array.reshape(1) if array.ndim == 0 else array for array in arrays]
            results = [arrays[one] if isinstance(one, int) else np.zeros(one.shape, one.dtype) for one in over]
            python(source)(*arrays, *(r for one, r in zip(over, results, strict=True) if not isinstance(one, int)))
            ran.append(source)
            return tuple(map(jnp.asarray, results))

        return function

    with jax.enable_x64(dtype == "float64"):
        w, x = rng.normal(size=(5, 3)).astype(dtype), np.where(rng.random(200) < 0.1, rng.normal(size=200), 0)
        x, index = x.astype(dtype), rng.integers(0, 200, (5, 3)).astype(np.int32)
        calls: list[Callable[[], Any]] = [
            lambda: loops.weighted_sum(w, index, x),
            lambda: loops.places(x)[: 1 + np.count_nonzero(x)],
            lambda: loops.added(jnp.asarray(x), x, 0.5),
            lambda: loops.kept(jnp.zeros((3, 200), dtype), x, jnp.asarray(1)),
            lambda: loops.recalled(jnp.stack([x, 2 * x]), jnp.asarray(1)),
        ]
        found = [np.asarray(jax.jit(call)()) for call in calls]
        monkeypatch.setattr(loops, "compiled", spy)
        for one, call in zip(found, calls, strict=True):
            np.testing.assert_allclose(one, call(), rtol=1e-6 if dtype == "float32" else 1e-14)
    assert len(ran) == len(calls)


def test_threads_compile_at_the_same_time() -> None:
    def run(number: int) -> float:
        source = text("for i in range(a.shape[0]):", f"    a[i] += {number}.5", arrays="a")
        return float(machine(source, [np.zeros(N)])[0].sum())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(12))) == [N * (number + 0.5) for number in range(12)]
