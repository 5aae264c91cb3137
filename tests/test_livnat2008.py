"""Two loci by hand and in closed form, multiplicative weights, the quick version, the numbers of the full run."""

import json
from importlib import resources

import numpy as np
import pytest
from click.testing import CliRunner

from engrax import cli
from engrax.results.livnat2008 import run as result

ROUNDING = 1e-12  # of a few float64 numbers of order 1


@pytest.fixture
def start():
    p = np.random.default_rng(1).uniform(size=(3, 4))
    return p / p.sum()


def after(p, w, r, generations):
    for _ in range(generations):
        p = result.next_generation(p, w, r)
    return p


def test_one_generation_by_hand():
    """P w = 0.1, 0.4, 0.6, 0.4, of 1.5 in all; of A1 there is 1/3, of B1 7/15, and a quarter of all recombines."""
    p, w = np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[1.0, 2.0], [2.0, 1.0]])
    selected = np.array([[1, 4], [6, 4]]) / 15
    freely = np.outer([1 / 3, 2 / 3], [7 / 15, 8 / 15])
    np.testing.assert_allclose(result.next_generation(p, w, 0.25), 0.75 * selected + 0.25 * freely, atol=ROUNDING)
    # A1 and B2 are worth 1.5 in all combinations, as are the others
    assert result.mixability(p, w) == pytest.approx(1.5)
    assert result.mixability(p, np.array([[1.0, 2.0], [3.0, 5.0]])) == pytest.approx(
        (0.3 * 1.5 + 0.7 * 4 + 0.4 * 2 + 0.6 * 3.5) / 2
    )


def test_without_recombination_it_is_the_replicator_equation(start):
    w = np.random.default_rng(2).uniform(0.5, 1.5, start.shape)
    expected = start * w**30
    np.testing.assert_allclose(after(start, w, 0.0, 30), expected / expected.sum(), atol=ROUNDING)


def test_without_selection_linkage_decays_and_alleles_stay(start):
    ones = np.ones_like(start)
    linked = start - np.outer(start.sum(1), start.sum(0))
    p = after(start, ones, 0.2, 10)
    np.testing.assert_allclose(p - np.outer(p.sum(1), p.sum(0)), 0.8**10 * linked, atol=ROUNDING)
    np.testing.assert_allclose(p.sum(1), start.sum(1), atol=ROUNDING)


def test_alleles_that_multiply_never_link(start):
    """Without epistasis recombination has nothing to do."""
    rng = np.random.default_rng(3)
    w, p = np.outer(rng.uniform(0.5, 1.5, 3), rng.uniform(0.5, 1.5, 4)), np.outer(start.sum(1), start.sum(0))
    np.testing.assert_allclose(after(p, w, 0.5, 20), after(p, w, 0.0, 20), atol=ROUNDING)


def test_compiled_histories_are_the_same():
    w, r = np.random.default_rng(4).uniform(0.9, 1.1, (2, 3, 3)), np.array([0.0, 0.3])
    p, fitness, mixed = result.histories(w, r, 2)
    equal = np.full((3, 3), 1 / 9)
    for i in range(2):
        for j in range(2):
            alone = after(equal, w[i], r[j], 80)
            np.testing.assert_allclose(p[i, j, 40], alone, atol=1e-9)  # rounding grows with selection
            assert fitness[i, j, 40] == pytest.approx((alone * w[i]).sum())
            assert mixed[i, j, 40] == pytest.approx(result.mixability(alone, w[i]))


def test_the_best_genotype_wins_at_any_recombination_once_it_is_common():
    """What sex changes is who becomes common: A1B3, the best, cannot be invaded, nor can A2B2 if r > 0.0094."""
    for cell in ((0, 2), (1, 1)):
        p = np.full((3, 3), 0.01 / 8)
        p[cell] = 0.99
        assert after(p, result.MATRIX, 0.5, 3000)[cell] > 0.999


def test_weak_selection_is_multiplicative_weights():
    """Within O(epsilon^2) in a step if there is recombination, within O(epsilon) if there is none: linkage grows."""
    slopes = result.of_weak_selection(np.random.default_rng(5))["slopes"]
    for r in ("0.1", "0.5"):
        assert slopes[r]["in a step"] == pytest.approx(2, abs=0.2)  # the next order, at epsilon = 1/8
    assert slopes["0"]["in a step"] == pytest.approx(1, abs=0.1)
    assert slopes["0.5"]["along the way"] == pytest.approx(1, abs=0.1)
    assert slopes["0.5"]["leader"] == pytest.approx(1, abs=0.1)
    x, y = result.multiplied(np.array([0.25, 0.75]), np.array([0.5, 0.5]), np.array([[1.0, 0.0], [0.0, 0.0]]), 0.5)
    np.testing.assert_allclose([x[0], y[0]], [0.3125 / 1.0625, 0.5625 / 1.0625], atol=ROUNDING)  # by hand


def test_quick_version(tmp_path):
    done = CliRunner().invoke(cli.main, ["run", "livnat2008", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mixability.png").stat().st_size > 10_000
    flipped(json.loads((tmp_path / "metrics.json").read_text()))


def flipped(metrics):
    """What holds in the full run and the quick one."""
    winners = {r: found["winner"] for r, found in metrics["matrix"]["winners"].items()}
    assert winners == {"0": "A1B3", "0.1": "A1B3", "0.2": "A2B2", "0.5": "A2B2"}
    ((low, high),) = metrics["matrix"]["flips between"]
    assert 0.1 <= low < high <= 0.2
    for found in metrics["matrix"]["winners"].values():
        assert found["frequency"] > 0.999
        best = found["winner"] == "A1B3"
        assert found["mean fitness"] == pytest.approx(1.06 if best else 1.05, abs=1e-4)
        assert found["mixability"] == pytest.approx(1.0033 if best else 1.0167, abs=1e-4)


def test_expected_numbers():
    """expected.json is what the full version gave: sex adds mixability and costs fitness, once r is not less than s."""
    metrics = json.loads(resources.files("engrax.results.livnat2008").joinpath("expected.json").read_text())
    flipped(metrics)
    last = len(result.FRACTIONS) - 1
    assert metrics["landscapes"]["fractions"][last] == 0.5
    for s, found in metrics["landscapes"]["spreads"].items():
        more = found["mixability, more than without sex"]
        assert more["mean"][last] > 5 * more["standard error"][last]
        assert found["fitness"]["mean"][last] < found["fitness"]["mean"][0]
        assert found["landscapes with more"][last] > 5 * found["landscapes with less"][last]
        for k, r in enumerate(result.FRACTIONS):
            if r < float(s) / 20:
                assert abs(more["mean"][k]) < 0.01
