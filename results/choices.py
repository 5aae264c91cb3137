"""What a result is asked to run, checked against what there is."""

from collections.abc import Iterable

from engrax import SimulationError


def check(kind: str, given: Iterable[str], known: Iterable[str], said: str = "there are") -> None:
    """Raises `SimulationError` naming the first that is unknown, and what there is, after the words ``said``."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SimulationError(f"no {kind} {unknown[0]!r}; {said}: {', '.join(known)}")
