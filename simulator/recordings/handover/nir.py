"""The recorded network as a NIR file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...nir import to_nir
from ..reading import Recording, damaged
from ..resume import simulator_of
from .common import needs, written


def recorded_graph(
    path: str | Path, out: str | Path, *, known: Iterable[Any] = (), strict: bool = True, overwrite: bool = False
) -> None:
    """Write the network of a recording, with the weights of its last checkpoint and an input for all that was driven.

    ``known`` and ``strict`` are as of `Simulator.resume`. Raises `ExportError` for what NIR cannot express and
    `RecordingError` where the file is damaged, does not say enough, or ``out`` exists already or cannot be written.
    """
    nir = needs("nir", "export to .nir", "nir")
    with Recording(path) as recording:
        sim = simulator_of(recording, known, strict)
        with damaged(recording.path):
            sources = [name for run in recording.runs for phase in run["sources"].values() for name in phase]
    graph = to_nir(sim, [name for name in sources if not name.startswith(".")])  # those are signals
    with written(out, overwrite) as place:
        nir.write(place, graph)
