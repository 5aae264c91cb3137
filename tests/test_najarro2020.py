"""A body that a network moves, and what damage does to both kinds of networks."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import Simulator, cli, meta, networks as nets
from engrax.results.najarro2020 import run as result


def test_the_body_goes_where_the_muscles_pull() -> None:
    """The command of the tick before, its sign, the walls, the sum of the distances."""
    learned = dict.fromkeys(result.PROJECTIONS, None)
    net = result.network({})
    sim = Simulator(net, seed=0)
    ticks = 30
    found = sim.run(
        {"body.target": np.ones((ticks, 2)), "body.wiring": np.tile([1.0, -1.0], (ticks, 1))},
        record={"body.place": 1, "body.far": 1, "motor.x": 1, "body.v": 1},
    )
    u, place = found["motor.x"], found["body.place"]
    moved = np.diff(place, axis=0)
    free = np.abs(place[1:]) < 1.5
    assert len(learned) == len(net.edges) - 1
    np.testing.assert_allclose(moved[free], (0.2 * u[:-1] * [1.0, -1.0])[free], atol=1e-12)
    np.testing.assert_allclose(found["body.v"][1:], moved / 0.2, atol=1e-12)
    np.testing.assert_allclose(found["body.far"][-1], np.abs(1 - place).sum(0), rtol=1e-12)


def test_targets_jump_on_a_circle() -> None:
    targets = np.asarray(result.targets(jax.random.key(0), 2 * result.LIFE))
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1)
    assert len(np.unique(targets, axis=0)) == 2 * result.LIFE // result.STAY


def test_damage_is_unseen() -> None:
    """Both muscles are never reversed in evolution, and no life of it changes on the way."""
    assert result.DAMAGE["both muscles reversed"] not in result.SEEN
    assert result.DAMAGE["none"] in result.SEEN


def test_what_evolves() -> None:
    """Five numbers for every synapse, or one."""
    counts = {kind: sum(np.size(leaf) for leaf in jax.tree.leaves(result.problem(kind, 0).start))
              for kind in (result.HEBBIAN, result.STATIC)}  # fmt: skip
    synapses = sum(int(np.prod(shape)) for shape in result.PROJECTIONS.values())
    assert counts == {result.HEBBIAN: 5 * synapses, result.STATIC: synapses}


def test_summary_is_of_the_halves() -> None:
    """Before: the second half of the first life; after: the second half of what comes then."""
    course = np.repeat(np.arange(4.0), result.LIFE // 2)
    told: Any = result.summary([dict.fromkeys(result.DAMAGE, course) | {"loss": [1.0]}])
    assert told["before"] == [1.0]
    assert set(map(tuple, told["after"].values())) == {(3.0,)}


@pytest.mark.slow
def test_the_quick_version_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "najarro2020", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "najarro2020.png").stat().st_size > 10_000
    learned = meta.load(tmp_path / "hebbian_0.json")
    assert learned["hidden->motor"].a.shape == (2, result.HIDDEN)
    assert isinstance(nets.read_graph(result.network(learned)), nets.Circuit)


def test_what_the_full_version_found() -> None:
    """The claims, by three standard errors; and what does not hold: the static network is better before."""
    text = resources.files("engrax.results.najarro2020").joinpath("expected.json").read_text()
    hebbian, static = (json.loads(text)[kind] for kind in (result.HEBBIAN, result.STATIC))

    def gain(of: Any) -> float:
        a, b = np.array(of(static)), np.array(of(hebbian))
        return float((a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 3))

    assert gain(lambda told: told["after"]["both muscles reversed"]) > 3
    assert gain(lambda told: told["after"]["weights lost"]) > 3
    assert gain(lambda told: told["before"]) < -3
