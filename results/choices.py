"""What a result is asked to run: checked against what there is, and run part by part."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from engrax import SimulationError


def check(kind: str, given: Iterable[str], known: Iterable[str], said: str = "there are") -> None:
    """Raises `SimulationError` naming the first that is unknown, and what there is, after the words ``said``."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SimulationError(f"no {kind} {unknown[0]!r}; {said}: {', '.join(known)}")


def run_parts(out: Path, parts: Iterable[str], work: Mapping[str, Callable[[], dict[str, Any]]]) -> dict[str, Any]:
    """The metrics of the parts together, written to metrics.json in ``out`` after each."""
    metrics: dict[str, Any] = {}
    for part in parts:
        begun = time.perf_counter()
        metrics |= work[part]()
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")  # what is done survives what fails
        print(f"{part}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return metrics
