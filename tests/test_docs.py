"""What the documentation shows is what happens: examples, notebook, code on the pages, docstrings, rules.md, links."""

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engrax

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "docs" / "manual.md"]
LINKING = [
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "results/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
MODULES = sorted(m.name for m in pkgutil.walk_packages(engrax.__path__, "engrax."))


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All examples at once: much of an example's time is the import, and there is more than one core."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    started = {
        path.stem: subprocess.Popen(
            [sys.executable, "-W", "error:::__main__", str(path)],
            cwd=ROOT / "examples",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for path in EXAMPLES
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_example_prints_what_is_committed(name: str, running: dict[str, subprocess.Popen[str]]) -> None:
    out, err = running[name].communicate(timeout=300)
    assert running[name].returncode == 0, err
    assert out == (ROOT / "examples" / f"{name}.txt").read_text("utf-8")


def test_every_example_has_its_output_and_the_other_way_round() -> None:
    assert {path.stem for path in EXAMPLES} == {path.stem for path in (ROOT / "examples").glob("*.txt")}


def test_notebook_runs_and_shows_what_is_committed() -> None:
    for package in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason="the notebook needs engrax[notebook]")
    command = [sys.executable, "-c", RUN_NOTEBOOK, str(ROOT / "examples" / "equations.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


# In a process of its own: what Jupyter warns of is not ours to mend. Without streams, where others' warnings go.
RUN_NOTEBOOK = """
import sys, nbclient, nbformat
book = nbformat.read(sys.argv[1], 4)
nbformat.validate(book)
def shown(book):
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    return [dict(out.data) for out in outputs if out.output_type != "stream"]
before = shown(book)
nbclient.NotebookClient(book, timeout=240, kernel_name="python3").execute()
after = shown(book)
assert before, "committed without its outputs"
assert before == after, f"committed:\\n{before}\\nnow:\\n{after}"
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_on_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xarray", reason="the page reads a recording with engrax[read]")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up there
    blocks = list(code_blocks(page.read_text("utf-8")))
    assert blocks
    for line, block in blocks:
        # Empty lines in front put the page's line numbers into tracebacks.
        exec(compile("\n" * line + block, str(page), "exec"), module.__dict__)


def code_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Python blocks of a page, and the number of lines before each."""
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)), match[1]


@pytest.mark.parametrize("name", ["engrax", *MODULES])
def test_docstring_examples(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        # One line to skip is an example to skip: the lines after it use what it would have made.
        if not any(example.options.get(doctest.SKIP) for example in test.examples):
            assert runner.run(test).failed == 0, test.name


def test_rules_page_is_what_the_rules_say() -> None:
    spec = importlib.util.spec_from_file_location("make_rules", ROOT / "docs" / "make_rules.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = (ROOT / "docs" / "rules.md").read_text("utf-8")
    assert committed == module.render(), "run: python docs/make_rules.py"
    for name in engrax.rules.__all__:
        thing = getattr(engrax.rules, name)
        if isinstance(thing, type) and issubclass(thing, engrax.Rule) and thing is not engrax.Rule:
            assert f"| `{name}(" in committed


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<img[^>]* src=\"([^\"]+)\"", text)
    for link in links:
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{page.name} links to {link}: no such heading"


def anchors(text: str) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
