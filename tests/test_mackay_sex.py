"""MacKay's populations against his theory, that against itself, the quick version, the numbers of the full run."""

import json
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import cli
from engrax.results.mackay_sex import run as result, theory

KEY = jax.random.key(0)
SHAPE = 1000, 100

generation = jax.jit(result.generation, static_argnames="sexual")


def test_the_climb_with_sex_solves_its_equation():
    """df/dt = eta sqrt(f (1 - f) / G), and f = 0.9 and 0.99 after 47.0 and 69.5 generations of 1,000 genes."""
    t, step = np.linspace(1, 70, 50), 1e-4
    f = theory.climb(t, 1000)
    rate = (theory.climb(t + step, 1000) - theory.climb(t - step, 1000)) / (2 * step)
    np.testing.assert_allclose(
        rate, theory.ETA * np.sqrt(f * (1 - f) / 1000), rtol=1e-6
    )  # differences lose half the digits
    assert theory.time_to(0.9, 1000) == pytest.approx(47.0, abs=0.05)
    assert theory.time_to(0.99, 1000) == pytest.approx(69.5, abs=0.1)


def test_the_best_rate_of_mutation_is_the_best():
    """Of (4), by trying; where it loses as much as it gains, f stays; and (5) integrated solves (5)."""
    genes, f = 500, 0.7
    m = np.geomspace(1e-5, 0.1, 20_001)  # next to each other by 0.05 %
    gain = genes * (-2 * m * (f - 0.5) + np.sqrt(m / genes))
    assert theory.best_rate(f, genes) == pytest.approx(m[gain.argmax()], rel=1e-3)
    assert theory.fastest(np.array(f)) == pytest.approx(gain.max(), rel=1e-6)
    balanced = theory.steady(np.array(3.0), genes, False) - 0.5
    assert 2 * 3 / genes * balanced == pytest.approx(np.sqrt(3 / genes / genes))
    t, step = np.array(100.0), 1e-3
    rate = genes * (theory.drift(t + step, genes, 0.6) - theory.drift(t - step, genes, 0.6)) / (2 * step)
    assert rate == pytest.approx(theory.fastest(theory.drift(t, genes, 0.6)), rel=1e-6)


def test_where_sex_and_mutation_balance():
    """What mutation takes is what selection gives, without and with the variance of mutation itself."""
    genes, mutations = 1000, np.array([3.0, 10, 60])
    for f, added in (
        (theory.steady(mutations, genes, True), 0.0),
        (theory.varied(mutations, genes), 2 * mutations / genes),
    ):
        given = theory.ETA * np.sqrt(genes * (f * (1 - f) + added))
        np.testing.assert_allclose(2 * mutations * (f - 0.5), given, rtol=1e-12)
    for sexual in (True, False):
        tolerated = theory.tolerable(0.75, genes, sexual)
        assert theory.steady(np.array(tolerated), genes, sexual) == pytest.approx(0.75)


@pytest.mark.parametrize("sexual", [True, False])
def test_the_better_half_of_random_genomes(sexual):
    """Children of unrelated random genomes vary as these do, by G / 4; their better half is sqrt(2 / pi) deviations
    up."""
    parents = jax.random.bernoulli(KEY, shape=SHAPE)
    after = generation(KEY, parents, sexual, None)
    assert after.shape == parents.shape
    gain = float(after.sum(1).mean() - parents.sum(1).mean())
    # the mean of the parents, and of children drawn from them, has an error of 5 / sqrt(1000) = 0.16 each
    assert gain == pytest.approx(np.sqrt(2 / np.pi * SHAPE[1] / 4), abs=4 * 0.23)


@pytest.mark.parametrize("sexual", [True, False])
def test_without_mutation_nothing_is_invented(sexual):
    parents = jax.random.bernoulli(KEY, 0.3, SHAPE).at[:, :10].set(False)
    after = np.asarray(generation(KEY, parents, sexual, None))
    assert not after[:, :10].any()
    clones = jnp.broadcast_to(parents[0], parents.shape)
    np.testing.assert_array_equal(generation(KEY, clones, sexual, None), clones)
    if not sexual:
        assert {row.tobytes() for row in after} <= {row.tobytes() for row in np.asarray(parents)}


def test_quick_version_climbs_faster_with_sex_and_bears_more(tmp_path):
    done = CliRunner().invoke(cli.main, ["run", "mackay_sex", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "fitness.png").stat().st_size > 10_000
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for found in metrics["sex"]["sizes"].values():
        assert found["eta / theory"] == pytest.approx(1, abs=0.08)  # 200 individuals drift; 0.03 in the full run
        assert found["largest difference from theory"] < 0.04
    assert 0.4 < metrics["sex"]["slope of initial rate"] < 0.6
    assert -0.15 < metrics["clones"]["slope of rate"] < 0.15
    bears = {name: metrics["steady"][name]["100"]["tolerable at 3/4"] for name in ("with sex", "without")}
    assert bears["with sex"] > 1.4 * bears["without"]  # 1.35 in theory, 1.7 with what mutation adds


def test_expected_numbers():
    """expected.json is what the full version gave; the claims hold there."""
    metrics = json.loads(resources.files("engrax.results.mackay_sex").joinpath("expected.json").read_text())
    sex, clones, steady = (metrics[part] for part in result.PARTS)
    thousand = sex["sizes"]["1000"]
    assert thousand["eta / theory"] == pytest.approx(1, abs=0.03)
    assert thousand["generations to 0.9"] == pytest.approx(47.0, abs=1)
    assert 0.45 < sex["slope of initial rate"] < 0.55
    assert -0.1 < clones["slope of rate"] < 0.1
    assert 0.4 < steady["with sex"]["slope of tolerable"] < 0.6
    assert -0.15 < steady["without"]["slope of tolerable"] < 0.15  # of 100 genes 4 % mutate, no longer a small part
    found = steady["with sex"]["1000"]
    for below, f, above in zip(found["theory"], found["f"], found["theory, mutation varies too"], strict=True):
        assert below - 0.005 < f < above + 0.005
