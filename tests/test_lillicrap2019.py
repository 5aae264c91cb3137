"""Replay in place of backpropagation through time: the quick version, and what the numbers of the full run say."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from engrax import cli


@pytest.mark.slow
def test_quick_version_is_equal_decays_and_recalls(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "lillicrap2019", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "replay.png").stat().st_size > 10_000
    assert (tmp_path / "door.png").stat().st_size > 10_000
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert max(metrics["equality"].values()) < 1e-12  # the tests' numbers have 64 bits
    decayed(metrics["decay"])
    door = metrics["long_delay"]
    # 200 episodes at a rate of .01, of reward 10 in half of the first: the logit rises by .05 and then less an episode
    assert min(door["recall, apples 5"]["last"]) > 0.9
    assert np.mean(door["TD, apples 5"]["last"]) < 0.8
    # the mean of ten was .87 after 200 episodes of the full run; without what is transported this is TD
    assert np.mean(door["TVT, apples 5"]["last"]) > 0.7


def decayed(decay: Any) -> None:
    """Means of a few networks, which differ by some .01 to .1 from one to the other."""
    mean = {kind: {name: np.mean(found) for name, found in each.items()} for kind, each in decay.items()}
    assert mean["capacity"]["20"] > 0.99999  # rounding, in 32 bits
    assert mean["capacity"]["4"] < 0.9
    assert 0.8 < mean["noise"]["0.4"] < 0.99
    assert mean["release"]["0.5"] < 0.9
    assert mean["other"]["forward"] < 0.99
    assert mean["other"]["random feedback"] < 0.6
    for kind, falling in (("capacity", False), ("noise", True), ("release", False)):
        values = [mean[kind][level] for level in sorted(mean[kind], key=float, reverse=falling)]
        assert values == sorted(values), kind


def test_expected_numbers() -> None:
    metrics = json.loads(resources.files("engrax.results.lillicrap2019").joinpath("expected.json").read_text())
    assert max(metrics["equality"].values()) < 1e-5  # numbers of 32 bits
    decayed(metrics["decay"])
    door = metrics["long_delay"]
    assert min(door["recall, apples 5"]["last"]) > 0.95  # of 10 replicas, each
    assert min(door["recall, apples 20"]["last"]) > 0.95
    assert min(door["TVT, apples 5"]["last"]) > 0.95
    assert sum(last > 0.95 for last in door["TVT, apples 20"]["last"]) >= 9
    assert 0.3 < np.mean(door["TD, apples 5"]["last"]) < 0.7
    last = {name: [each[-1] for each in found] for name, found in metrics["learning"].items()}
    assert min(last["backpropagation through time"]) > 0.98
    assert min(last["replay"]) > 0.98
    assert min(metrics["decay"]["other"]["learned feedback"]) > 0.999
    assert max(metrics["decay"]["other"]["random feedback, the same weights"]) < 0.7
    assert min(last["recall"]) > 0.98
    truncated = ("the same, 8 ticks", "replay of the last 8 ticks", "no recall, replay of the last 8 ticks")
    for blind in (*truncated, "forward replay"):
        assert np.mean(last[blind]) < 0.6, blind  # chance, with a deviation of .04: all see one set of 150
    assert sorted(last["replay, random feedback"])[1] > 0.95  # three of four
