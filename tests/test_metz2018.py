"""Learned neurons and the rule between them: against a formula, under permutation; few-shot tasks; the result."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import Ridge

from engrax import Simulator, cli, learned, locality, meta, networks as nets, rules
from engrax.results.metz2018 import run as result

N, HIDDEN, BATCH = 6, 4, 5


def layers(neuron: nets.LearnedNeuron, **options: Any) -> Any:
    forward, back = rules.Metz2018(eta=0.1, decay=0.3), rules.Metz2018Backward(eta=0.1, decay=0.3)
    return nets.learned_layers((N, HIDDEN), neuron, forward, back, **options)


def as_oja() -> nets.LearnedNeuron:
    """c = x, e = x - a, delta = x, without saturation."""
    neuron = nets.LearnedNeuron.make(3, 2, scale=1e6)
    zero = {name: np.zeros(np.shape(getattr(neuron, name))) for name in ("inner", "outer")}
    linear = np.asarray(result.oja(neuron)["linear"], float)
    return nets.LearnedNeuron(**zero, linear=linear, scale=1e6, activation=jax.nn.identity)


def test_among_these_rules_is_ojas() -> None:
    """By hand, with the weights that go back as they are: dW = eta (y (x - V y) - decay W)."""
    sim = Simulator(layers(as_oja()), seed=1)
    w, v = (np.asarray(sim.params[name].w) for name in ("input->layer1", "layer1->input"))
    x = np.random.default_rng(0).normal(size=(3, BATCH, N))
    sim.run({"input": x})
    for row in x:
        y = row @ w.T
        change = np.mean(y[:, :, None] * (row - y @ v.T)[:, None, :], 0)
        w, v = w + 0.1 * (change - 0.3 * w), v + 0.1 * (change.T - 0.3 * v)
    np.testing.assert_allclose(sim.params["input->layer1"].w, w, rtol=1e-6)  # tanh(x / 1e6) 1e6 is x to 1e-12 x^3
    np.testing.assert_allclose(sim.params["layer1->input"].w, v, rtol=1e-6)


def test_permuted_neurons_learn_permuted_weights() -> None:
    """Of the inputs and of the cells; the sums are then in another order."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, BATCH, N))
    of_input, of_cell = rng.permutation(N), rng.permutation(HIDDEN)
    one, other = (Simulator(layers(nets.LearnedNeuron.make(seed=3, size=1.0), lateral=rules.Metz2018())) for _ in "ab")
    other.set_weights("input->layer1", np.asarray(one.params["input->layer1"].w)[of_cell][:, of_input])
    other.set_weights("layer1->input", np.asarray(one.params["layer1->input"].w)[of_input][:, of_cell])
    other.set_weights("layer1->layer1", np.asarray(one.params["layer1->layer1"].w)[of_cell][:, of_cell])
    one.run({"input": x})
    other.run({"input": x[..., of_input]})
    changed = np.asarray(one.params["input->layer1"].w)[of_cell][:, of_input]
    np.testing.assert_allclose(other.params["input->layer1"].w, changed, rtol=1e-10, atol=1e-12)


def test_neurons_hear_the_mean_of_their_layer() -> None:
    """With c = l and e = 1 a tick adds eta times the mean activity to every weight, less the decay."""
    neuron = as_oja()
    linear = np.zeros_like(neuron.linear)
    linear[0, 3] = linear[2, 5] = 1.0
    sim = Simulator(layers(eqx.tree_at(lambda n: n.linear, neuron, linear), mean=True), seed=1)
    w = np.asarray(sim.params["input->layer1"].w)
    x = np.random.default_rng(0).normal(size=(1, BATCH, N))
    sim.run({"input": x})
    expected = w + 0.1 * ((x[0] @ w.T).mean() - 0.3 * w)
    np.testing.assert_allclose(sim.params["input->layer1"].w, expected, rtol=1e-6)


def test_the_rule_is_local() -> None:
    for rule in (rules.Metz2018(), rules.Metz2018Backward()):
        assert locality(rule).level == "synapse"
    assert locality(nets.LearnedNeuron.make()).level == "neuron"


def test_shapes_that_do_not_fit_are_named() -> None:
    neuron = nets.LearnedNeuron.make(4, 1)
    with pytest.raises(ValueError, match=r"LearnedNeuron: inner \(cells, 6\)"):
        nets.LearnedNeuron(neuron.inner, neuron.outer, neuron.linear[:2])
    with pytest.raises(nets.NetworkError, match="an input and others above it"):
        nets.learned_layers((3,), neuron, None, None)


def test_the_read_out_is_ridge_regression() -> None:
    """Against scikit-learn's; the intercept is next to free in ours."""
    rng = np.random.default_rng(0)
    y = np.arange(12) % 3
    x, new = rng.normal(size=(2, 12, 4)) + 2 * y[:, None] * np.array([1, -1, 0, 0])
    unit = 1 / np.sqrt(np.mean(np.sum(x**2, 1)))
    target = np.eye(3) - 1 / 3
    target = target / np.linalg.norm(target[0])
    model = Ridge(0.3).fit(unit * x, target[y])
    said = model.predict(unit * new)
    of_length_1 = said / np.linalg.norm(said, axis=1, keepdims=True)
    size = np.sum(model.coef_**2) + np.sum(model.intercept_**2)
    loss, right = meta.tasks.ridge((jnp.asarray(x), jnp.asarray(y)), (jnp.asarray(new), jnp.asarray(y)), 3)
    assert float(right) == pytest.approx(np.mean(np.argmax(said @ target.T, 1) == y))
    expected = np.mean(np.sum((of_length_1 - target[y]) ** 2, 1)) + 0.3 * size / 12
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_few_shot_tasks_keep_their_samples_apart() -> None:
    """Samples are numbered: none is shown both with and without a label, or both to fit and to test."""
    rows, classes = 30, 4
    x = np.stack([np.arange(rows * classes), -np.arange(rows * classes)], 1).astype(float)
    y = np.repeat(np.arange(classes), rows)
    task = meta.tasks.FewShot([(x, y)], layer="layer1", classes=3, shots=5, batch=64, shuffle=False)
    seen, (fit, labels), (test, truth) = task.draw(jax.random.key(4))
    shown = {int(v) for k in range(20) for v in seen(k, jax.random.key(k))[:, 0]}
    fitted, tested = ({int(v) for v in part[:, 0]} for part in (fit, test))
    assert len(fitted) == len(tested) == 15
    assert not fitted & tested
    assert not (fitted | tested) & shown
    assert len(shown) == 3 * (rows - 10)
    for part, of in ((fit, labels), (test, truth)):
        own = y[np.asarray(part[:, 0], int)]
        assert all(len(set(own[np.asarray(of) == c])) == 1 for c in range(3))
    with pytest.raises(ValueError, match="needs 5 classes"):
        meta.tasks.FewShot([(x, y)], layer="layer1", classes=5)
    with pytest.raises(ValueError, match="differ in the number of inputs"):
        meta.tasks.FewShot([(x, y), (x[:, :1], y)], layer="layer1", classes=3)


def test_samples_are_augmented_before_the_inputs_are_put_in_order() -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 9)), np.repeat(np.arange(2), 30)
    key = jax.random.key(4)

    def drawn(**options: Any) -> Any:
        task = meta.tasks.FewShot([(x, y)], layer="layer1", classes=2, shots=5, batch=8, **options)
        seen, *labelled = task.draw(key)
        return [seen(3, jax.random.key(3)), *(part for part, _ in labelled)]

    for plain, doubled in zip(drawn(), drawn(augment=lambda key, x: 2 * x), strict=True):
        np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-6)
    for part in drawn(augment=lambda key, x: x.at[:, 0].set(7.0)):  # of every sample another place of the nine
        assert np.all(np.sum(np.asarray(part) == 7.0, 0) % len(part) == 0)


def test_images_are_shifted() -> None:
    """A single pixel goes to each of the nine places about it; at the corner it leaves the image."""
    image = np.zeros((5, 5))
    image[2, 3] = 1
    augment = meta.tasks.shifts(5)
    moved = np.asarray(augment(jax.random.key(0), jnp.asarray(np.tile(image.ravel(), (200, 1)))))
    assert {tuple(place) for place in np.argwhere(moved.reshape(-1, 5, 5))[:, 1:]} == {
        (row, column) for row in (1, 2, 3) for column in (2, 3, 4)
    }
    assert np.all(moved.sum(1) == 1)
    corner = np.asarray(augment(jax.random.key(1), jnp.asarray(np.tile(np.eye(25)[24], (200, 1)))))
    assert set(corner.sum(1)) == {0.0, 1.0}


def test_mixtures_of_gaussians() -> None:
    """Within a class the covariance is that of the noise: .36 A A + .49 B B + 1, two directions each."""
    x, y = meta.tasks.gaussian_mixture(0, 20, classes=3, rank=2, rows=20000)
    assert x.shape == (60000, 20)
    assert np.all(np.bincount(y) == 20000)
    centres = np.stack([x[y == c].mean(0) for c in range(3)])
    variances = np.linalg.eigvalsh(np.cov((x - centres[y]).T))
    np.testing.assert_allclose(variances[:16], 1, atol=0.05)
    assert np.all(variances[16:] > 3)
    useful, idle = np.random.default_rng(0).normal(size=(2, 2, 20))
    expected = np.linalg.eigvalsh(0.36 * useful.T @ useful + 0.49 * idle.T @ idle + np.eye(20))
    np.testing.assert_allclose(variances[16:], expected[16:], rtol=0.05)
    assert np.linalg.norm(centres - centres @ np.linalg.pinv(useful) @ useful, axis=1).max() < 0.5


def test_the_two_classes_of_points() -> None:
    """Moons are on their circles but for the noise; the clouds have their means and deviations."""
    y = jnp.arange(2000) % 2
    moons = np.asarray(meta.tasks.two_moons(jax.random.key(1), noise=0.0)(jax.random.key(0), y))
    for c in (0, 1):
        centre = np.linalg.lstsq(np.c_[2 * moons[y == c], np.ones(1000)], np.sum(moons[y == c] ** 2, 1), rcond=None)[0]
        np.testing.assert_allclose(np.linalg.norm(moons[y == c] - centre[:2], axis=1), 1, rtol=1e-4)
    clouds = np.asarray(meta.tasks.two_gaussians(jax.random.key(1))(jax.random.key(0), y))
    np.testing.assert_allclose(np.linalg.norm(clouds[y == 1].mean(0)), 1, atol=0.1)
    np.testing.assert_allclose(np.sqrt(np.linalg.eigvalsh(np.cov(clouds[y == 0].T))), (0.15, 0.6), rtol=0.1)


def test_the_full_run() -> None:
    """On MNIST, of which the rule saw nothing, more than three standard errors above what it is held to; also wider."""
    found = json.loads(resources.files(result.__package__).joinpath("expected.json").read_text())
    for way in ("random", "Oja", "PCA", "PCA, both signs", "VAE", "inputs"):
        held = found["others"]["MNIST"][way]
        assert held["behind"] > 3 * held["behind_error"], way
    for way in ("random", "Oja", "PCA"):
        wider = found["width"]["MNIST"]["256"][way]
        assert wider["behind"] > 3 * wider["behind_error"], way
    for right in found["order"].values():
        assert right["in order"] == pytest.approx(right["permuted"], abs=0.01)
    for name in ("digits", "new mixtures", "MNIST"):
        for way in ("as drawn", "random"):
            held = found["released"]["right"][name][way]["behind"]
            assert held["mean"] > 3 * held["error"], (name, way)
    shipped = learned.metz2018["neuron"]
    assert found["numbers"] == sum(np.size(getattr(shipped, name)) for name in ("inner", "outer", "linear"))


@pytest.mark.slow
def test_the_quick_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "metz2018", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["numbers"] == 8 * 6 + 5 * 8 + 5 * 6
    assert found["others"]["digits"]["inputs"]["mean"] > 0.6
    assert (tmp_path / "metz2018.png").stat().st_size > 10_000
    assert set(meta.load(tmp_path / "rule.json")) == {"neuron", "forward", "back"}


def test_what_is_shipped_can_be_plugged_in() -> None:
    """It goes into a network of any size, and learns there: the weights stay of length 1 and change."""
    parts = learned.metz2018
    net = nets.learned_layers((12, 7, 3), parts["neuron"], parts["forward"], parts["back"], weights=nets.UnitRows())
    sim = Simulator(net)
    before = np.asarray(sim.params["input->layer1"].w)
    sim.run({"input": np.random.default_rng(0).normal(size=(5, 8, 12))})
    after = np.asarray(sim.params["input->layer1"].w)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, rtol=1e-6)
    assert np.abs(after - before).max() > 1e-3
