"""What the benchmarks share: contestants timed in turn, the machine's memory bandwidth, one line of JSON."""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LARGE = 2**26  # numbers in an array that no cache holds (256 MiB of float32)


def arguments(description: str) -> bool:
    """Parse the command line; True for ``--quick``."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds, to see that it works")
    return bool(parser.parse_args().quick)


def peer(name: str) -> ModuleType | None:
    """The module of a contestant, or None with a note where it is not installed or does not import."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a peer built for another numpy fails with anything
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def agree(name: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Stop unless a contestant computed what ours did, within ``tolerance`` of the largest value."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.shape != theirs.shape or not np.any(ours):
        raise SystemExit(f"{name}: shapes {ours.shape} and {theirs.shape}, or nothing but zeros: nothing to compare")
    error = np.max(np.abs(ours - theirs)) / np.max(np.abs(ours))
    print(f"{name}: differs by {error:.1e} of the largest value", file=sys.stderr)
    if not error <= tolerance:
        raise SystemExit(f"{name} did other work than we: it differs by {error:.1e} where {tolerance:.0e} is allowed")


def clock(work: Callable[[], Any]) -> float:
    """Seconds that one call takes, once its arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def in_turn(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median over the rounds of what each contestant's call returns (seconds).

    Every round runs all of them, so that a noisy minute on a shared machine falls on all alike. A round before the
    first warms up (compiles, touches memory) and does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, measure in contestants.items():
            seconds = measure()
            if number:
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def triad(numbers: int, repeats: int) -> Callable[[], float]:
    """A contestant: seconds for one pass of ``a <- b + s a`` over two float32 arrays, 12 bytes a number."""

    @partial(jax.jit, donate_argnums=0)
    def passes(a: Any, b: Any) -> Any:
        return jax.lax.fori_loop(0, repeats, lambda _, a: b + jnp.float32(0.5) * a, a)

    arrays = {"a": jnp.ones(numbers, jnp.float32), "b": jnp.ones(numbers, jnp.float32)}

    def measure() -> float:
        start = time.perf_counter()
        arrays["a"] = jax.block_until_ready(passes(arrays["a"], arrays["b"]))
        return (time.perf_counter() - start) / repeats

    return measure


def ratio(theirs: float | None, ours: float) -> float | None:
    return None if theirs is None else theirs / ours


def report(question: str, quick: bool, result: Mapping[str, Any]) -> None:
    """Print the result as one JSON object on the last line, numbers to four digits."""
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    versions = {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__}
    whole = {"benchmark": question, "quick": quick, **result, "machine": machine, "versions": versions}
    print(json.dumps(_rounded(whole)))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.4g}")
    return value
