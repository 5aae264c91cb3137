"""Rules that were learned and are ready to use: ``from engrax.learned import oja2020``, then ``rule=oja2020``.

Each is a file beside this one, written by `engrax.meta.save`; ``engrax list learned`` says what they are.
"""

from pathlib import Path
from typing import Any


def files() -> dict[str, Path]:
    """The file of each."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.json"))}


def __getattr__(name: str) -> Any:
    from ..meta import load

    known = files()
    if name not in known:
        raise AttributeError(f"nothing learned is called {name!r}; there are: {', '.join(known) or 'none'}")
    return load(known[name])


def __dir__() -> list[str]:
    return ["files", *files()]
