"""A figure of a recording: a row for each kind of picture and field. Made without pyplot: no window, no global state.

Of a sweep's points and a batch's copies the first is drawn and the row says so; learning curves show the points.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..errors import RecordingError
from ..recordings.reading import Recording, damaged
from .activity import activity, inches, raster, rate
from .axes import nothing, plain
from .learning import curve, spectrum
from .parts import Samples, Spikes, said
from .weights import fields, weights

WIDTH, HEIGHT = 11, 2.9  # of a row, in inches


@dataclass(frozen=True)
class Kind:
    """A kind of picture: which ``forms`` of data it shows, in words (``of``), and how."""

    draw: Callable[..., None]
    forms: tuple[str, ...]
    of: str


MATRICES = ("dense", "sparse")
KINDS = {
    "raster": Kind(raster, ("spikes",), "spikes"),
    "rate": Kind(rate, ("spikes", "population"), "spikes or fields of a population"),
    "activity": Kind(activity, ("population", "vector"), "fields of a population"),
    "weights": Kind(weights, MATRICES, "weights"),
    "fields": Kind(fields, MATRICES, "weights"),
    "spectrum": Kind(spectrum, ("population", *MATRICES), "fields of a population or weights"),
    "curve": Kind(curve, (*MATRICES, "scalar"), "weights or fields reduced to one number"),
}


def recording(source: Recording, what: Sequence[str] = (), title: str = "") -> Figure:
    """Draw ``what``: kinds of picture, names of fields, or both; nothing: every field in the way that suits it.

    Raises `RecordingError` for a name that the file does not have and for a kind of picture for which nothing was
    recorded.
    """
    with damaged(source.path):
        rows = _rows(source, what)
        heights = [1.1 + sum(map(inches, parts)) if kind == "raster" else HEIGHT for kind, parts in rows]
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03)
        figure = Figure(figsize=(WIDTH, 0.5 + sum(heights)), layout=layout)
        figure.suptitle(plain(title), fontweight="bold")
        frames = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
        for frame, (kind, parts) in zip(frames, rows, strict=True):
            names = textwrap.shorten(", ".join(part.name for part in parts), 100, placeholder=" ...")
            frame.suptitle(plain(names + said(parts[0], kind == "curve")), x=0.01, ha="left", fontsize="medium")
            if any(len(part) for part in parts):
                KINDS[kind].draw(frame, *parts)
            else:
                nothing(frame.subplots(), "no spikes" if parts[0].form == "spikes" else "no samples")
        return figure


def _rows(source: Recording, what: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """Which kinds of picture to draw, each of one part of the recording, or of all spikes."""
    known: dict[str, Any] = {name: Spikes(source, name) for name in source.spike_names}
    known |= {name: Samples(source, name) for name in source.fields}
    if not known:
        raise RecordingError(f"{source.path} holds no samples and no spikes: nothing to draw")
    for word in what:
        if word not in KINDS and word not in known:
            raise RecordingError(
                f"{source.path} has no field {word!r}, nor is that a kind of picture; fields: {', '.join(known)}; "
                f"kinds: {', '.join(KINDS)}"
            )
    kinds = list(dict.fromkeys(word for word in what if word in KINDS))
    named = [known[word] for word in dict.fromkeys(what) if word in known]
    parts = named or list(known.values())
    pairs = [(kind, part) for kind in kinds for part in parts if part.form in KINDS[kind].forms]
    for kind in kinds:
        if kind not in dict(pairs):
            if named:
                raise RecordingError(f"{kind} draws {KINDS[kind].of}, not {', '.join(part.name for part in named)}")
            raise RecordingError(f"no {KINDS[kind].of} in {source.path}: record {_example(source, kind)}")
    for part in named:
        if kinds and all(drawn is not part for _, drawn in pairs):
            raise RecordingError(f"{part.name} cannot be drawn as {' or '.join(kinds)}")
    rows: dict[tuple[str, str], list[Any]] = {}
    for kind, part in pairs or [(part.usual, part) for part in parts]:
        rows.setdefault((kind, "" if part.form == "spikes" else part.name), []).append(part)
    return [(kind, parts) for (kind, _), parts in rows.items()]


def _example(source: Recording, kind: str) -> str:
    """What to record for this kind of picture, as `Simulator.record` takes it."""
    network, form = source.network, KINDS[kind].forms[0]
    if form in MATRICES:
        learning = [name for name, projection in network["projections"].items() if projection["rule"]]
        return f"{{{[*network['projections'], *learning][-1] + '.w'!r}: 100}}"
    return f"{{{[*network['populations']][-1] + ('.spikes' if form == 'spikes' else '.x')!r}: 1}}"
