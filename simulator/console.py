"""What the commands share: tables, and errors in one line."""

import contextlib
import importlib.util
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import click


class UserError(click.ClickException):
    """What the user asked for cannot be done; one line, exit code 2."""

    exit_code = 2


class Failed(click.ClickException):
    """It was asked for correctly and went wrong; one line, exit code 1."""


def load(script: Path, name: str) -> ModuleType:
    """A user's script, executed as a module called ``name``."""
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None or spec.loader is None:
        raise UserError(f"{script} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    if (folder := str(script.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def short_errors(kind: type[click.ClickException] = Failed) -> Iterator[None]:
    """The errors that engrax raises itself explain themselves: they need no traceback."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "engrax":
            raise
        raise kind(" ".join(str(error).split())) from error


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int = 10_000) -> str:
    """Columns side by side; the last one is cut at ``width``."""
    lines = [list(head), *rows] if head else list(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    room = max(width - sum(w + 2 for w in widths), 20)
    cut = (textwrap.shorten(line[-1], room, placeholder=" ...") if len(line[-1]) > room else line[-1] for line in lines)
    fixed = ("".join(f"{cell:<{w + 2}}" for cell, w in zip(line, widths, strict=False)) for line in lines)
    return "\n".join((start + end).rstrip() for start, end in zip(fixed, cut, strict=True))
