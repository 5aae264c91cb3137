"""Random feedback and local terms: angles by hand, episodes, what the full run says, the quick run."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import cli, meta, networks as nets, rules
from engrax.results.shervani2023 import run as result


@pytest.fixture(scope="module")
def full() -> dict[str, Any]:
    text = resources.files("engrax.results.shervani2023").joinpath("expected.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def test_accuracy_and_angles_by_hand() -> None:
    """After two images, of which nothing is learned: a forward and a backward pass in numpy, by random feedback and by
    the transpose."""
    data = jnp.asarray(np.random.default_rng(0).random((6, 12, 7)))
    kept: dict[str, Any] = {}

    def judged(learnt: meta.Learnt, images: Any, classes: Any) -> Any:
        kept.update(w=[learnt.w(f"{a}->{b}") for a, b in (("input", "hidden1"), ("hidden1", "hidden2"),
                                                          ("hidden2", "output"))],
                    b=[learnt.w(f"{b}->{a}") for a, b in (("hidden1", "hidden2"), ("hidden2", "output"))],
                    images=images, classes=classes, seen=result.looked(learnt, images, classes))  # fmt: skip
        return 0.0 * jnp.sum(images)

    rule = rules.Pool.of({"0": 0.0})
    net = nets.echoing_perceptron((7, 6, 5, result.WAYS), rule, feedback="random")
    problem = meta.Learning(net, rule, result.few_shot(data, 2, judged), units=2, fixed=("eta",))
    problem.advance(problem.start, problem.begin(problem.start, jax.random.key(0)))
    (w1, w2, w3), (b2, b3) = (jax.tree.map(np.asarray, kept[name]) for name in "wb")
    x, y = np.asarray(kept["images"]), np.asarray(kept["classes"])
    h1 = np.logaddexp(0, 10 * x @ w1.T) / 10
    h2 = np.logaddexp(0, 10 * h1 @ w2.T) / 10
    out = np.exp(h2 @ w3.T)
    out /= out.sum(1, keepdims=True)
    s1, s2 = (1 - np.exp(-10 * h) for h in (h1, h2))
    expected = []
    for back in ((b2, b3), (w2.T, w3.T)):
        e2 = s2 * ((y - out) @ back[1].T)
        expected.append((s1 * (e2 @ back[0].T), e2))
    for own, true, angle in zip(*expected, kept["seen"]["angles"], strict=True):
        cosines = (own * true).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(true, axis=1)
        assert float(angle) == pytest.approx(np.degrees(np.arccos(cosines)).mean(), rel=1e-9)
    assert float(kept["seen"]["accuracy"]) == pytest.approx(np.mean(out.argmax(1) == y.argmax(1)))
    assert len({tuple(row) for row in x.round(6)}) == result.WAYS * result.QUERIES


def test_learned_terms_bring_random_feedback_up(full: dict[str, Any]) -> None:
    """Above feedback alignment by more than three standard errors."""
    plain, learned = full["random"], full["random, Oja and eHebb"]
    gain = plain["less than backprop"]["mean"] - learned["less than backprop"]["mean"]
    errors = [one["less than backprop"]["error"] for one in (plain, learned)]
    assert gain > 3 * np.hypot(*errors)
    assert np.mean([a["mean"] for a in learned["angles"]]) < np.mean([a["mean"] for a in plain["angles"]])


@pytest.mark.slow
def test_the_quick_run_learns_by_the_transpose(tmp_path: Path) -> None:
    """Digits of five classes, chance is a fifth; errors come back by the transpose and so without an angle."""
    given = ["run", "shervani2023", "--quick", "--set", "methods=backprop", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli.main, given)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "metrics.json").read_text())["backprop"]
    assert found["theta"]["0"] > result.FIRST
    assert found["accuracy"]["mean"] > 0.2
    assert max(angle["mean"] for angle in found["angles"]) < 0.1
    assert (tmp_path / "shervani2023.png").stat().st_size > 10_000
    done = CliRunner().invoke(cli.main, ["run", "shervani2023", "--set", "methods=magic", "--out", str(tmp_path)])
    assert "no method 'magic'" in done.output
