"""The command line: ``engrax list`` and ``engrax run``; see recordings/commands.py for what is done with recordings.

A failed run ends with exit code 1, a mistake of the user's with 2, each with one line of explanation.
"""

import ast
import contextlib
import difflib
import importlib
import inspect
import itertools
import json
import math
import re
import runpy
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import equinox as eqx
import numpy as np

from . import learned, meta, networks, results, rules
from .console import Failed, UserError, load, short_errors, table
from .locality import Locality, locality
from .networks import Competition, Linear, Neuron, Topology
from .recordings import commands
from .rules import Hebb, NetworkRule, RuleError, Wrapper

Run = Callable[..., Mapping[str, Any]]
KINDS = ("rules", "neurons", "topologies", "learned", "results")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="engrax", message="%(package)s %(version)s")
def main() -> None:
    """Discrete-time simulation of biologically plausible learning."""


# engrax list


@main.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
def list_(kind: str | None) -> None:
    """What there is: rules and neurons with their locality, topologies, what was learned, results."""
    tables: dict[str, Callable[[], tuple[list[str], list[list[str]]]]] = {
        "rules": _rules, "neurons": _neurons, "topologies": _topologies, "learned": _learned, "results": _results,
    }  # fmt: skip
    for i, name in enumerate(KINDS if kind is None else (kind,)):
        head, rows = tables[name]()
        click.echo(("\n" if i else "") + table(head, rows, shutil.get_terminal_size((10_000, 0)).columns))


def _rules() -> tuple[list[str], list[list[str]]]:
    classes = [c for c in _public(rules, eqx.Module) if c is not Wrapper]
    classes.sort(key=lambda c: issubclass(c, Wrapper))
    plain = locality(Hebb()).reads
    rows = []
    for c in classes:
        wrapper = issubclass(c, Wrapper)
        level, reads = _locality(c, *([Hebb()] if wrapper else []))
        # Of a wrapper, what it reads itself: the rule inside adds its own.
        own = [f"+ {name}" for name in reads if name not in plain] if wrapper else reads
        kind = "wrapper" if wrapper else "network rule" if issubclass(c, NetworkRule) else "rule"
        rows.append([c.__name__, kind, level, ", ".join(own), _summary(c)])
    return ["RULE", "KIND", "LOCALITY", "READS", "SUMMARY"], rows


def _neurons() -> tuple[list[str], list[list[str]]]:
    rows = [[c.__name__, "neuron", *_locality_row(c), _summary(c)] for c in _public(networks, Neuron)]
    for c in _public(networks, Competition):
        level = locality(Linear(lateral=c())).level
        rows.append([c.__name__, "lateral=", level, "the population", _summary(c)])
    return ["NEURON", "KIND", "LOCALITY", "PORTS", "SUMMARY"], rows


def _topologies() -> tuple[list[str], list[list[str]]]:
    return ["TOPOLOGY", "SUMMARY"], [[c.__name__, _summary(c)] for c in _public(networks, Topology)]


def _learned() -> tuple[list[str], list[list[str]]]:
    entries = {name: meta.files.read(path) for name, path in learned.files().items()}
    rows = [[name, ", ".join(_classes(entry["learned"])), entry["about"]] for name, entry in entries.items()]
    return ["LEARNED", "CLASS", "SUMMARY"], rows or [["(none)", "", ""]]


def _classes(described: Mapping[str, Any]) -> list[str]:
    parts = [described] if "class" in described else described.values()
    return [str(part["class"]) for part in parts if "class" in part]


def _results() -> tuple[list[str], list[list[str]]]:
    # The docstring of run.py is read and the file not imported: a listing should not pay for that.
    docs = {name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for name, path in known_results().items()}
    rows = [[name, _first(doc or "")] for name, doc in docs.items()]
    return ["RESULT", "SUMMARY"], rows or [["(none)", ""]]


def known_results() -> dict[str, Path]:
    """The sub-packages of engrax.results that can be run, and their run.py."""
    found = (path for folder in results.__path__ for path in Path(folder).glob("*/run.py"))
    return {path.parent.name: path for path in sorted(found)}


def _public(package: ModuleType, base: type) -> list[type]:
    """The concrete classes on a package's public list that descend from ``base``."""
    listed = (getattr(package, name) for name in package.__all__)
    return [c for c in listed if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)]


def _locality(cls: type, *arguments: Any) -> tuple[str, tuple[str, ...]]:
    try:
        found: Locality = locality(cls(*arguments))
    except (TypeError, AttributeError, RuleError):  # it needs arguments, or is no function of one synapse
        return "-", ()
    return found.level, found.reads


def _locality_row(cls: type) -> tuple[str, str]:
    level, reads = _locality(cls)
    return level, ", ".join(reads)


def _summary(cls: type) -> str:
    """The first sentence of the class, or of its file where the class only says which of the file's equations it is."""
    own = inspect.getdoc(cls) or ""
    return _first(inspect.getdoc(sys.modules[cls.__module__]) or "" if re.match(r"\(\d", own) else own)


def _first(doc: str) -> str:
    """The first sentence, with its mathematics as plain text."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    text = re.sub(r":math:`([^`]*)`", lambda m: _plain_math(m[1]), paragraph).replace("``", "").replace("`", "")
    return re.split(r"(?<=[^.]\.)\s", text)[0].removesuffix(".").removesuffix(":")


def _plain_math(latex: str) -> str:
    marks = {"leftarrow": "←", "cdot": "·", "sum": "Σ", "infty": "∞", "dot": "d/dt "}
    dropped = ("mathrm", "mathrel", "bigl", "bigr", "left", "right")

    def word(match: re.Match[str]) -> str:
        name, size = match[1], "CAPITAL" if match[1][0].isupper() else "SMALL"
        try:
            return unicodedata.lookup(f"GREEK {size} LETTER {name.upper()}")
        except KeyError:
            return "" if name in dropped else marks.get(name, name)

    text = re.sub(r"\\([a-zA-Z]+)", word, re.sub(r"\\[,;!]", " ", latex))
    powers = re.sub(r"\^\{([^{}]{2,})\}", r"^(\1)", text)
    return re.sub(r"\s+", " ", powers.translate(str.maketrans("", "", "{}\\")))


# engrax run


@main.command()
@click.argument("target", metavar="NAME|SCRIPT.py")
@click.option("--quick", is_flag=True, help="A small version of the same run.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seed of all random numbers.  [default: 0]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting of the run; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for its files.  [default: ./NAME]")
@click.option("--json", "as_json", is_flag=True, help="Metrics as one JSON object, the last line of stdout.")
def run(target: str, quick: bool, seed: int | None, settings: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Run a result of the project by NAME, or a script.

    A script that defines `run(out, *, seed=0, quick=False, ...) -> metrics` runs as the results do; any other is
    executed as it is. Values of --set have the type of the setting's default; a tuple is written 1,2,3.
    """
    script = Path(target) if target.endswith(".py") else None
    if script is not None and not script.is_file():
        raise UserError(f"there is no script {target}")
    with short_errors():
        if script is not None:
            sys.path.insert(0, str(script.resolve().parent))
            if not _defines_run(script):
                if quick or seed is not None or settings or out is not None or as_json:
                    raise UserError(f"{target} defines no run(out, ...), so it takes no options")
                sys.argv = [target]
                runpy.run_path(target, run_name="__main__")
                return
        name = target if script is None else script.stem
        function = _named(target) if script is None else load(script, "engrax_script").run
        given = dict(_setting(function, name, text) for text in settings)
        # An option that was not given is left to the run's own default.
        for option, value in (("seed", seed), ("quick", quick or None)):
            if value is not None:
                if option not in inspect.signature(function).parameters:
                    raise UserError(f"{name} takes no --{option}")
                given[option] = value
        folder = Path(name) if out is None else out
        before = _files(_made(folder))
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            metrics = function(folder, **given)
    if not isinstance(metrics, Mapping):
        raise Failed(f"run() of {name} returned {type(metrics).__name__}; it must return a dict of metrics")
    if metrics:
        click.echo(table([], [[key, _value(value)] for key, value in _flat(metrics)]), err=as_json)
    written = [str(path) for path, time in _files(folder).items() if before.get(path) != time]
    if written:
        click.echo("\nwrote " + "\n      ".join(written), err=as_json)
    if as_json:
        click.echo(json.dumps(_jsonable(metrics), allow_nan=False))


def _defines_run(script: Path) -> bool:
    """Whether the script has a function ``run(out, ...)``: asked of its text, since executing it may do the work."""
    try:
        body = ast.parse(script.read_text("utf-8"), str(script)).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{script} is not Python: {error}") from error
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    return any(node.args.args and node.args.args[0].arg == "out" for node in functions)


def _named(name: str) -> Run:
    known = known_results()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"no result {name!r}; {hint}results: {', '.join(known) or 'none'} (or give a script.py)")
    return importlib.import_module(f"{results.__name__}.{name}.run").run  # type: ignore[no-any-return]


def _setting(function: Run, name: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write it as KEY=VALUE")
    known = {
        k: p.default for k, p in inspect.signature(function).parameters.items() if k not in ("out", "seed", "quick")
    }
    if key not in known:
        listed = ", ".join(f"{k}={_typed(v)}" for k, v in known.items()) or "none"
        raise UserError(f"{name} has no setting {key!r}; settings: {listed}")
    return key, _parse(key, value, known[key])


def _parse(key: str, text: str, default: Any) -> Any:
    """``text`` as a value of the default's type."""
    if isinstance(default, tuple):
        parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
        likes = itertools.chain(default, itertools.repeat(default[-1] if default else 0.0))
        return tuple(_parse(key, part, like) for part, like in zip(parts, likes, strict=False))
    types: dict[type, Any] = {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}
    if type(default) not in types:
        raise UserError(f"--set {key}: a setting whose default is {default!r} cannot be set from the command line")
    try:
        return types[type(default)].convert(text, None, None)
    except click.BadParameter:
        raise UserError(f"--set {key}={text}: not of type {type(default).__name__}") from None


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror}): choose another with --out") from error
    return folder


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> str:
    plain = _jsonable(value)
    if isinstance(plain, list):
        shape = np.shape(np.asarray(plain, object))
        if len(shape) > 1 or len(plain) > 8:
            return " x ".join(map(str, shape)) + " values"
        return ", ".join(map(_value, plain))
    if isinstance(plain, float):
        return f"{plain:.6g}"
    return "not finite" if plain is None else str(plain)


def _jsonable(value: Any) -> Any:
    """Plain numbers, strings, lists and dicts; null for what is not finite, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return _jsonable(np.asarray(value).tolist())


for command in commands.ALL:
    main.add_command(command)
