"""e-prop: the short version learns a pattern; the numbers of the full run are those of the README."""

import json
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from engrax import cli


@pytest.mark.slow
def test_quick(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "bellec2020", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    learned = metrics["pattern"]["random feedback"]  # in float64: from 1.14 to .14 in 60 iterations
    assert learned["last"] < 0.3 * learned["first"]
    assert metrics["maze"]["adaptive"]["iterations"] == 3
    assert (tmp_path / "bellec2020.png").stat().st_size > 10_000


def test_the_full_run() -> None:
    expected = json.loads(resources.files("engrax.results.bellec2020").joinpath("expected.json").read_text())
    maze, pattern = expected["maze"], expected["pattern"]
    assert maze["adaptive"]["error"] < 0.07 and maze["adaptive"]["iterations"] <= 500
    assert maze["not adaptive"]["error"] > 0.3
    assert pattern["random feedback"]["last"] < pattern["readout only"]["last"]


def test_an_unknown_part_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "bellec2020", "--set", "parts=('walk',)", "--out", str(tmp_path)])
    assert done.exit_code != 0 and "pattern, maze" in done.output
