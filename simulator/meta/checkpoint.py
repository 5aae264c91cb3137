"""An outer loop kept in a file, from which it goes on."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from ..errors import SimulationError
from .outer import Loop

FORMAT = "engrax outer loop 1"


@dataclass(frozen=True)
class Checkpoint:
    """What an outer loop remembers after a step, its inner problems and its losses, in one HDF5 file.

    A new one takes the place of the old in one stroke: whatever kills the process, one of the two is there.
    """

    path: Path
    seed: int
    loop: Loop

    @property
    def there(self) -> bool:
        return self.path.exists()

    def write(self, state: Any, lives: Any, losses: np.ndarray) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.partial")
        with h5py.File(partial, "w") as file:
            file.attrs["format"] = FORMAT
            file.attrs["about"] = json.dumps(self._about)
            file["losses"] = losses
            for group, tree in (("state", state), ("lives", lives)):
                for name, leaf in _named(tree).items():
                    file[f"{group}/{name}"] = np.asarray(leaf)
        os.replace(partial, self.path)

    def read(self, state: Any, lives: Callable[[], Any]) -> tuple[Any, Any, np.ndarray]:
        """State, inner problems and losses; ``state`` and ``lives()`` say what they look like."""
        try:
            with h5py.File(self.path) as file:
                if file.attrs.get("format") != FORMAT:
                    raise SimulationError(f"{self.path} is no checkpoint of an outer loop: choose another file")
                about = json.loads(file.attrs["about"])
                differs = [name for name, value in self._about.items() if about.get(name) != value]
                if differs:
                    raise SimulationError(
                        f"{self.path} was written with {differs[0]}={about.get(differs[0])}, here it is "
                        f"{self._about[differs[0]]}: choose another file, or take the same"
                    )
                losses = np.asarray(file["losses"])
                return self._filled(file, "state", state), self._filled(file, "lives", lives()), losses
        except OSError as error:
            raise SimulationError(f"{self.path} cannot be read as a checkpoint ({error})") from error

    @property
    def _about(self) -> dict[str, Any]:
        of = self.loop
        return {"seed": self.seed, "members": of.members, "episodes": of.episodes, "window": of.window}

    def _filled(self, file: h5py.File, group: str, like: Any) -> Any:
        there = _named(like)
        found = file.get(group, {})
        for name, leaf in there.items():
            if name not in found or found[name].shape != np.shape(leaf):
                raise SimulationError(
                    f"{self.path} is of another problem or outer loop: it has no {name} of shape {np.shape(leaf)}"
                )
        leaves = [np.asarray(found[name], np.asarray(leaf).dtype) for name, leaf in there.items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: Any) -> dict[str, Any]:
    """The leaves by their paths, as names of data sets."""
    return {
        f"{number} {jax.tree_util.keystr(path).replace('/', '|')}": leaf
        for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree))
    }
