"""RFLO learns a sum of sines by its recurrent weights; and the numbers of the full run are those of the README."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from engrax import cli

RFLO, READOUT = "RFLO, random feedback", "readout only"


def test_quick(tmp_path: Path) -> None:
    """Two networks after 300 trials. Seen, in float64: .024 and .034 by RFLO, .042 and .096 by the readout alone;
    alignment .62 and .69, .16 and -.02."""
    done = CliRunner().invoke(cli.main, ["run", "murray2019", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert np.mean(metrics[RFLO]["final"]) < 0.6 * np.mean(metrics[READOUT]["final"])
    assert min(metrics[RFLO]["alignment"]) > 0.4 > max(map(abs, metrics[READOUT]["alignment"]))
    assert (tmp_path / "murray2019.png").stat().st_size > 10_000


def test_the_full_run() -> None:
    text = resources.files("engrax.results.murray2019").joinpath("expected.json").read_text()
    expected = json.loads(text)
    assert np.mean(expected[RFLO]["final"]) <= 0.0025
    assert np.mean(expected[RFLO]["alignment"]) >= 0.8
    assert np.mean(expected[READOUT]["final"]) >= 0.018
    assert max(expected["BPTT"]["final"]) <= 0.0015 < np.mean(expected[RFLO]["final"])
