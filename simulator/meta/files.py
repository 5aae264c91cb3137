"""Learned rules and neurons as files: plain JSON, which people and other tools read."""

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..errors import RecordingError
from ..recordings.provenance import Known, described, versions

FORMAT = "engrax learned 1"


def save(learned: Any, path: str | Path, about: str = "") -> None:
    """Write a rule or a neuron, or a dict of such and of arrays, to a JSON file; ``about`` says what it is.

    Classes and functions are named, numbers written so that they come back bit for bit. Raises `RecordingError` for a
    file that is there already.
    """
    entry = {
        "format": FORMAT,
        "about": about,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "learned": _plain({k: described(v) for k, v in learned.items()} if _several(learned) else described(learned)),
    }
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            json.dump(entry, file, indent=1)
            file.write("\n")
    except FileExistsError as error:
        raise RecordingError(f"{path} is there already: choose another name, or delete it") from error


def load(path: str | Path, known: Iterable[Any] = ()) -> Any:
    """The rule or neuron, or the dict of several, of a file that `save` wrote.

    Nothing in the file is executed: a class that is not engrax's own is used only if it is one of ``known``. Raises
    `RecordingError` for a file that is none, or names something unknown.
    """
    entry = read(path)
    kept, learned = Known(_Kept(Path(path)), known), entry["learned"]
    if "class" in learned:
        return kept.build(learned)
    return {name: kept.build(value) for name, value in learned.items()}


def read(path: str | Path) -> dict[str, Any]:
    """What is written in a file of `save`."""
    try:
        entry = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read as a learned rule ({error})") from error
    if not isinstance(entry, dict) or entry.get("format") != FORMAT or not isinstance(entry.get("learned"), dict):
        raise RecordingError(f"{path} is not a learned rule that engrax wrote")
    return entry


@dataclass(frozen=True)
class _Kept:
    """The arrays of a file, which are in it where they are named."""

    path: Path

    def array(self, described: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(described["values"], described["dtype"]).reshape(described["shape"])


def _several(learned: Any) -> bool:
    if isinstance(learned, dict) and learned:
        return True
    if not isinstance(learned, eqx.Module):
        raise RecordingError(f"{learned!r} is no rule or neuron, nor a dict of such: nothing to save")
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return {"array": {"dtype": str(array.dtype), "shape": list(array.shape), "values": array.tolist()}}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
