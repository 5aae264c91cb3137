"""The recorded run as a Brian2 script."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...brian import brian2_script
from ...errors import ExportError, RecordingError
from .. import provenance
from ..reading import Recording, damaged
from ..resume import simulator_of, stretches


def recorded_script(
    path: str | Path, out: str | Path, *, known: Iterable[Any] = (), strict: bool = True, overwrite: bool = False
) -> None:
    """Write the network of a recording, in the state in which its first run began, as a Brian2 script of that run.

    ``known`` and ``strict`` are as of `Simulator.resume`. Raises `ExportError` for what Brian2 cannot express and
    `RecordingError` where the file is damaged, does not say enough, or ``out`` exists already.
    """
    out = Path(out)
    for place in (out, out.with_suffix(".npz")):
        if place.exists() and not overwrite:
            raise RecordingError(f"{place} exists already: choose another name, or pass overwrite=True to replace it")
    with Recording(path) as recording:
        sim = simulator_of(recording, known, strict)
        runs = stretches(recording.runs)
        if not runs or runs[0].event["start"] is None:
            raise RecordingError(f"{path} holds no run from its beginning")
        with damaged(recording.path):
            event = runs[0].event
            sim.state = provenance.restore(sim, recording.start(event), event["batch"])
            given = provenance.feed_of(event, provenance.Known(recording, known))
        if given["trial"]:
            raise ExportError(f"{path} was run in trials of phases, which Brian2 does not have")
    brian2_script(sim, out, given["drive"], given["signals"], ticks=runs[0].end - runs[0].start)
