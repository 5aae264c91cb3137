"""The result gu2019: its quick run, what it keeps, and what its full run must say."""

import json
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import cli, meta, networks as nets
from engrax.results.gu2019 import run as result


def test_labels_come_from_above_with_their_points() -> None:
    """Told cells hear opposite signs, the others nothing; all but the told are new in every tick."""
    task = meta.tasks.SemiSupervised(meta.tasks.two_gaussians, output="layer3", labels=6, told=2, batch=5)
    key = jax.random.key(0)
    _, (x, y), _ = task.draw(key)
    drive = task(key).drive
    points, labels = (np.stack([drive[name](k, None) for k in range(8)]) for name in ("input", "layer3.apical"))
    assert np.all(points[..., 2] == 1)
    assert np.all(labels[:, 2:] == 0)
    assert np.all(labels[:, :2, 0] == -labels[:, :2, 1])
    for point, label in zip(points[:, :2, :2].reshape(-1, 2), labels[:, :2, 1].ravel(), strict=True):
        which = int(np.argmin(np.sum((np.asarray(x) - point) ** 2, 1)))
        np.testing.assert_allclose(point, x[which], rtol=1e-6)
        assert label == 2 * y[which] - 1
    others = points[:, 2:, :2].reshape(-1, 2)
    assert len(np.unique(others, axis=0)) == len(others)
    with pytest.raises(ValueError, match="two labels at least"):
        meta.tasks.SemiSupervised(meta.tasks.two_moons, output="layer3", labels=1)


@pytest.mark.slow
def test_the_quick_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "gu2019", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["two Gaussians"]["backpropagation"]["mean"] > 0.9
    assert (tmp_path / "gu2019.png").stat().st_size > 10_000
    assert set(meta.load(tmp_path / "rule.json")) == {"hidden", "output", "forward", "back", "lateral"}


def test_the_full_run() -> None:
    """Within 3 points of backpropagation with the same labels, better than it began, on the moons than a line."""
    found = json.loads(resources.files(result.__package__).joinpath("expected.json").read_text())
    for name in result.DRAWS:
        means = {way: values["mean"] for way, values in found[name].items()}
        assert means["backpropagation"] - means["learned"] < 0.03
        assert means["learned"] > means["start"]
    moons = found["two moons"]
    assert moons["learned"]["mean"] > moons["linear"]["mean"] + 3 * moons["linear"]["error"]


def test_it_begins_as_feedback_alignment() -> None:
    """Of hidden neurons c and delta are what comes from above where they are active; of outputs the teacher less the
    drive where there is a teacher, and nothing else; a drive of 0.4, to 5 % of the error."""
    begun = result.beginning(0, size=0.0)
    for drive, above in ((0.4, 0.2), (-0.4, 0.2)):
        said = begun.hidden.respond(begun.hidden.step(at(drive)), at(drive, above))
        expected = 3 * np.tanh(above / 3) * (drive > 0)
        np.testing.assert_allclose([said.c0, said.delta], expected, atol=1e-6)
        np.testing.assert_allclose(said.e0, 3 * np.tanh(max(drive, 0) / 3), atol=1e-6)
    for teacher in (-1.0, 0.0, 1.0):
        said = begun.output.respond(begun.output.step(at(0.4)), at(0.4, teacher))
        np.testing.assert_allclose([said.c0, said.delta], teacher - abs(teacher) * 0.4, atol=0.05)


def at(drive: float, apical: float = 0.0) -> nets.Fields:
    return nets.Fields({name: jnp.asarray(value) for name, value in
                        {"drive": drive, "apical": apical, "lateral": 0.0}.items()})  # fmt: skip
