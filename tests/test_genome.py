"""Rules under a small genome: tasks, feedback that learns what goes forward, sizes; the quick version."""

import json
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import Fields, Simulator, cli, rules
from engrax.results.genome import run as result


def test_tasks_are_what_they_say() -> None:
    """Classes of one hot number, samples of a mean square length of 5, digits in another order each time."""
    for draw, inputs, classes in result.TASKS.values():
        x, y = draw(jax.random.key(0))
        assert x.shape == (result.SHOTS + result.TESTED, inputs)
        assert y.shape[1] == classes
        np.testing.assert_array_equal(np.sort(np.asarray(y), 1)[:, -2:], np.tile([0.0, 1.0], (len(y), 1)))
        assert np.mean(np.sum(np.asarray(x) ** 2, 1)) == pytest.approx(result.LENGTH, rel=0.3)  # of one episode
    spread = [np.asarray(result.permuted_digits(jax.random.key(k))[0]).std(0) for k in range(2)]
    assert np.abs(spread[0] - spread[1]).max() > 0.1


def test_reciprocal_feedback_becomes_the_transpose() -> None:
    """Both change alike, so the difference shrinks as the decay says: by 1 - theta_7 a tick."""
    decay, ticks = 0.02, 40
    rule = rules.Pool(theta=Fields({"0": 0.1, "2": 0.01, "7": decay}))
    sim = Simulator(result.network(rule, (6, 5, 3), "kolen_pollack"), seed=1)
    apart = []
    rng = np.random.default_rng(0)
    for _ in range(2):
        forward, back = (np.asarray(sim.params[name].w) for name in ("hidden->output", "output->hidden"))
        apart.append(np.linalg.norm(forward.T - back))
        sim.run({"input": rng.normal(size=(ticks, 6)), "output.target": np.eye(3)[rng.integers(3, size=ticks)]})
    assert apart[1] == pytest.approx(apart[0] * (1 - decay) ** ticks, rel=1e-9)


def test_genomes_have_the_size_that_is_said() -> None:
    """A sign and so many bits for every term; two bits for four schemes of feedback, one for the cells."""
    assert result.genome().bits == 10 * 5
    assert result.genome(result.TERM_NAMES[:3], 6).bits == 3 * 7
    choosing = result.genome(feedback=result.meta.Choice(result.FEEDBACKS), cells=result.meta.Choice(result.CELLS))
    assert choosing.bits == 50 + 3


def test_spread() -> None:
    assert result.spread([1.0, 3.0]) == (2.0, 1.0)  # the standard deviation is sqrt 2, of two


def test_the_full_run() -> None:
    """Evolution beats the pseudo-gradient with every seed, each time by Oja's term besides; descent stays at chance."""
    found = json.loads(resources.files(result.__package__).joinpath("expected.json").read_text())
    alone, learners = found["pseudo-gradient"]["random"], found["learners"]
    for name in (result.SEXUAL, result.ASEXUAL):
        for task in result.TASKS:
            assert max(learners[name][task]) < alone[task]
        assert all(theta[0] > 0.2 and theta[2] > 0 for theta in learners[name]["theta"])
    assert min(learners["gradient"]["mixtures"]) > 75


@pytest.mark.slow
def test_the_quick_version_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "genome", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "genome.png").stat().st_size > 10_000
    alone = json.loads((tmp_path / "metrics.json").read_text())["pseudo-gradient"]
    assert alone["symmetric"]["mixtures"] < alone["random"]["mixtures"] < 60  # chance is 80 %
