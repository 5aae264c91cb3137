"""What happens when: phases, and the trial that they make."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Plastic = Literal["every", "last", "never"]


@dataclass(frozen=True)
class Phase:
    """A part of a trial.

    ``ticks``: its length. ``plastic``: rules run on every tick, on the last one, or never. ``hold``: the drive is one
    presentation, held for the whole phase (a source then counts trials; otherwise it counts this phase's ticks).
    ``reset``: True, or the names of the populations, that start the phase from ``init()`` with empty delay lines.
    ``signals``: values of broadcast signals during the phase.
    """

    name: str
    ticks: int = 1
    plastic: Plastic = "every"
    hold: bool = False
    reset: bool | frozenset[str] = False
    signals: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.ticks < 1:
            raise ValueError(f"phase {self.name!r}: ticks={self.ticks} must be at least 1")
        if self.plastic not in ("every", "last", "never"):
            raise ValueError(f"phase {self.name!r}: plastic={self.plastic!r} must be 'every', 'last' or 'never'")
        if not isinstance(self.reset, bool):
            object.__setattr__(self, "reset", frozenset(_names(self.name, self.reset)))
        object.__setattr__(self, "signals", dict(self.signals))


# A run without a trial: one tick is one phase, plastic throughout.
RUN = Phase("run")


def _names(phase: str, value: Any) -> Iterable[str]:
    if isinstance(value, str):
        raise ValueError(f"phase {phase!r}: reset={value!r} must be a set of population names or True")
    return value  # type: ignore[no-any-return]
