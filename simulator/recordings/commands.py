"""The commands that read, watch, resume, check and convert recordings."""

import contextlib
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import h5py
import jax
import numpy as np

from ..console import UserError, load, short_errors, table
from ..locality import locality
from ..rules import LocalRule, RuleError
from .check import dimensions
from .reading import Recording

FILE = click.argument("file", type=click.Path(path_type=Path))
KNOWN = click.option(
    "--known",
    "modules",
    multiple=True,
    metavar="FILE.py",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A script of yours with the classes and functions that the recording names; it is executed. Repeatable.",
)
ANYWAY = click.option("--anyway", is_flag=True, help="Go on though versions or rules differ from the recording's.")


@click.command()
@FILE
def info(file: Path) -> None:
    """What a recording, or a file with a learned rule (.json), holds and what made it."""
    if file.suffix == ".json":
        with short_errors(UserError):
            _learned(file)
        return
    with short_errors(UserError), Recording(file) as recording:
        facts = [
            ["file", f"{file} ({file.stat().st_size / 2**20:.3g} MiB, format {recording.attributes['engrax_format']})"],
            ["created", recording.attributes["created"]],
            ["state", _state(recording)],
            ["seed", str(recording.seed)],
            ["tick", f"{recording.dt:g} s"],
            ["versions", ", ".join(f"{name} {version}" for name, version in recording.versions.items())],
            ["command", recording.attributes["command_line"]],
            ["commit", recording.attributes["git_commit"]],
            *[["signals", f"{name} from {source}"] for name, source in recording.network["signals"].items()],
            *[["points", line] for line in _points(recording.points)],
            *[["protocol", line] for line in _protocol(recording.runs)],
        ]
        click.echo(table([], [row for row in facts if row[1]]))
        populations = [
            [name, " x ".join(map(str, p["shape"])), _described(p["neuron"])]
            for name, p in recording.network["populations"].items()
        ]
        click.echo("\n" + table(["POPULATION", "SIZE", "NEURON"], populations))
        projections = [
            [name, f"{p['pre']}.{p['field']} -> {p['post']}.{p['port']}", str(p["delay"]),
             p["topology"] + (f" ({p['synapses']})" if p["synapses"] is not None else ""),
             ", ".join(p["phases"]) if p["phases"] else "all",
             _described(p["rule"]) if p["rule"] else f"tied to {p['tied']}" if p["tied"] else "fixed",
             p.get("locality", "")]
            for name, p in recording.network["projections"].items()
        ]  # fmt: skip
        head = ["PROJECTION", "FROM -> TO", "DELAY", "SYNAPSES", "PHASES", "RULE", "LOCALITY"]
        click.echo("\n" + table(head, projections))
        fields = [[name, *_dataset(data)] for name, data in recording.fields.items()]
        for name in recording.spike_names:
            times = recording.spikes(name).times
            span = f"{times[0]} to {times[-1]}" if len(times) else "none"
            fields.append([name, f"spike {len(times)}", "events", "", span])
        click.echo("\n" + table(["FIELD", "DIMENSIONS", "DTYPE", "UNITS", "TICKS"], fields or [["(none)"] + [""] * 4]))


@click.command()
@FILE
@click.option("--ticks", type=click.IntRange(min=1), metavar="N", help="So many ticks more.  [default: to the end]")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="So many trials more.")
@KNOWN
@ANYWAY
def resume(file: Path, ticks: int | None, trials: int | None, modules: tuple[Path, ...], anyway: bool) -> None:
    """Go on with a recorded run from its last checkpoint, in the same file.

    What follows is bit for bit what a run would have given that was never stopped.
    """
    from .resume import resume as go_on

    with short_errors():
        sim = go_on(file, ticks, trials=trials, known=_known(modules), strict=not anyway, progress=sys.stderr.isatty())
    click.echo(f"{file}: recorded up to tick {sim.tick}")


@click.command()
@FILE
@KNOWN
@ANYWAY
def verify(file: Path, modules: tuple[Path, ...], anyway: bool) -> None:
    """Run the recorded network again and compare every sample.

    Ends with exit code 1 where one differs.
    """
    from .resume import verify as run_again

    with short_errors():
        found, compared = run_again(file, known=_known(modules), strict=not anyway, progress=sys.stderr.isatty())
    for difference in found:
        click.echo(str(difference))
    click.echo(f"{file}: {compared} numbers compared, {'all equal' if not found else f'{len(found)} fields differ'}")
    sys.exit(bool(found))


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
def diff(a: Path, b: Path) -> None:
    """What two recordings differ in: settings first, then data.

    Ends with exit code 1 where they differ.
    """
    from .compare import diff as compare

    with short_errors(UserError):
        settings, fields = compare(a, b)
    for title, found in (("settings", settings), ("data", fields)):
        click.echo(f"{title}: " + ("the same" if not found else ""))
        for difference in found:
            click.echo(f"  {difference}")
    sys.exit(bool(settings or fields))


@click.command()
@FILE
@click.option("--every", type=click.FloatRange(min=0.05), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once and end.")
def watch(file: Path, every: float, once: bool) -> None:
    """Follow a run that another process records."""
    from .watch import follow

    before: tuple[float, int] | None = None
    try:
        with short_errors(UserError):
            for seen, now in follow(file, every):
                speed = (seen.tick - before[1]) / (now - before[0]) if before and now > before[0] else 0.0
                before = now, seen.tick
                share = f" of {seen.end} ({seen.tick / seen.end:.0%})" if seen.end else ""
                left = f", {(seen.end - seen.tick) / speed:.0f} s left" if speed > 0 and not seen.complete else ""
                closed = "complete" if seen.tick >= seen.end else "stopped"
                state = closed if seen.complete else "its writer is gone" if seen.alive is False else "recording"
                rows = [[name, f"{mean:.4g}", f"{spread:.3g}"] for name, (mean, spread) in seen.values.items()]
                click.echo(
                    f"{file}: {state}, tick {seen.tick}{share}, {speed:.0f} ticks/s{left}, {seen.megabytes:.3g} MiB"
                )
                click.echo(table(["FIELD", "MEAN", "S.D."], rows) + "\n")
                if once:
                    return
    except KeyboardInterrupt:
        return
    if not seen.complete:
        click.echo(f"go on with it by: engrax resume {file}")


@click.command()
@FILE
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("fields", nargs=-1, metavar="[FIELD]...")
@click.option("--ticks", metavar="FIRST:LAST", help="Only samples from tick FIRST up to, without, LAST.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@KNOWN
@ANYWAY
def export(
    file: Path,
    out: Path,
    fields: tuple[str, ...],
    ticks: str | None,
    overwrite: bool,
    modules: tuple[Path, ...],
    anyway: bool,
) -> None:
    """Write fields as a table (OUT.csv, OUT.parquet, OUT.npz), the recorded run as a Brian2 script (OUT.py), or the
    network that it ended with as a NIR graph (OUT.nir)."""
    if out.suffix in (".py", ".nir"):
        from .handover.brian2 import recorded_script
        from .handover.nir import recorded_graph

        if fields or ticks:
            raise UserError(f"{out}: a {out.suffix} file has the whole network: leave fields and --ticks out")
        with short_errors(UserError):
            write_network = recorded_script if out.suffix == ".py" else recorded_graph
            write_network(file, out, known=_known(modules), strict=not anyway, overwrite=overwrite)
        click.echo(str(out))
        return
    from .export import export as write

    try:
        first, _, last = (ticks or ":").partition(":")
        span = slice(int(first) if first else None, int(last) if last else None) if ticks else None
    except ValueError:
        raise UserError(f"--ticks {ticks}: write it as FIRST:LAST") from None
    with short_errors(UserError):
        write(file, out, list(fields) or None, span, overwrite=overwrite)
    click.echo(str(out))


@click.command()
@FILE
@click.argument("what", nargs=-1, metavar="[WHAT]...")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The picture (.png, .pdf, .svg).  [default: FILE.png]"
)
def plot(file: Path, what: tuple[str, ...], out: Path | None) -> None:
    """Draw a recording, one row for each thing.

    WHAT is a kind of picture (raster, rate, activity, weights, fields, spectrum, curve), the name of a field
    (cortex.x, cortex.spikes, retina->cortex.w), or several of both: then each kind draws those of the fields that it
    can. A kind alone draws all that it can; nothing at all, every field in the way that suits it.
    """
    from .. import plots  # matplotlib takes half a second that the other commands need not pay

    target = file.with_suffix(".png") if out is None else out
    with short_errors(UserError), Recording(file) as recording:
        figure = plots.recording(recording, what, title=file.name)
    try:
        figure.savefig(target, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"{target} cannot be written: {error}") from error
    click.echo(str(target))


def _learned(file: Path) -> None:
    from ..meta import files

    entry, learned = files.read(file), files.load(file)
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    facts = [["file", str(file)], ["about", entry["about"]], ["created", entry["created"]], ["versions", versions]]
    for name, thing in (learned if isinstance(learned, dict) else {"": learned}).items():
        what = name or "learned"
        if isinstance(thing, np.ndarray):
            facts.append([what, f"an array, {' x '.join(map(str, thing.shape))}"])
            continue
        numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(thing))
        facts.append([what, f"{type(thing).__name__}, {numbers} numbers, locality {locality(thing).level}"])
        if isinstance(thing, LocalRule):
            with contextlib.suppress(RuleError):  # it has no equation that fits a line
                facts.append(["equation", thing.latex(digits=3)])
    click.echo(table([], [row for row in facts if row[1]]))


def _known(modules: Sequence[Path]) -> list[Any]:
    """The classes and functions that the user's own scripts define."""
    found: list[Any] = []
    for number, path in enumerate(modules):
        try:
            module = load(path, f"engrax_known_{number}")
        except Exception as error:
            raise UserError(f"{path} cannot be executed: {type(error).__name__}: {error}") from error
        found += [thing for thing in vars(module).values() if inspect.isclass(thing) or inspect.isfunction(thing)]
    return found


def _state(recording: Recording) -> str:
    if not recording.runs:
        return "nothing was run"
    if recording.complete:
        return f"closed at tick {recording.log[-1]['tick']}"
    writing = {
        True: "being recorded",
        False: "its writer was killed: engrax resume goes on with it",
        None: "not complete",
    }
    return writing[recording.alive]


def _dataset(data: h5py.Dataset) -> list[str]:
    names = dimensions(data)
    ticks = "no samples"
    if len(data):
        clock = data.dims[0][0]
        every = names[0].removeprefix("tick_")
        ticks = f"{clock[0]} to {clock[len(data) - 1]}" + (f", every {every}" if every.isdecimal() else "")
    axes = " x ".join(f"{name} {length}" for name, length in zip(names, data.shape, strict=True))
    return [axes, str(data.dtype), str(data.attrs.get("units", "")), ticks]


def _described(thing: Mapping[str, Any]) -> str:
    """``Bounded(rule=Oja(eta=0.001), low=0)`` from a recording's JSON."""
    parameters = [f"{k}={_parameter(v)}" for k, v in thing.items() if k != "class" and v is not None]
    return f"{thing['class']}({', '.join(parameters)})"


def _parameter(value: Any) -> str:
    if isinstance(value, Mapping) and "array" in value:
        return f"<{' x '.join(map(str, value['array']['shape']))} values>"
    if isinstance(value, Mapping):
        return str(value["function"]) if "function" in value else _described(value)
    if isinstance(value, list):
        return f"<{' x '.join(map(str, np.shape(value)))} values>"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _protocol(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    def described(run: Mapping[str, Any]) -> str:
        phases = ", then ".join(map(_phase, run["phases"] or ()))
        return f"{run['units']} trials of {phases}" if phases else f"{run['units']} ticks"

    for description, same in itertools.groupby(map(described, runs)):
        times = len(list(same))
        yield description + (f"  ({times} runs)" if times > 1 else "")


def _phase(phase: Mapping[str, Any]) -> str:
    plastic = {"every": "plastic", "last": "plastic on the last", "never": "not plastic"}[phase["plastic"]]
    parts = [f"{phase['ticks']} ticks" if phase["ticks"] != 1 else "1 tick", plastic]
    parts += ["drive held"] if phase["hold"] else []
    if phase["reset"]:
        parts.append("reset" if phase["reset"] is True else f"reset of {', '.join(phase['reset'])}")
    parts += [f"{name}={value:g}" for name, value in phase["signals"].items()]
    return f"{phase['name']} ({', '.join(parts)})"


def _points(points: Sequence[Mapping[str, Any]] | None) -> list[str]:
    lines = [f"{i}: " + ", ".join(f"{k}={_parameter(v)}" for k, v in p.items()) for i, p in enumerate(points or ())]
    return lines if len(lines) <= 8 else [*lines[:7], f"... {len(lines)} in all"]


ALL = (info, plot, watch, resume, verify, diff, export)
