"""Rules found again: the shipped one at work, the meta-tasks by hand, what the full run says, the quick run."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import Simulator, cli, learned, meta, networks as nets, rules
from engrax.results.confavreux2020 import run as result


@pytest.fixture(scope="module")
def full() -> dict[str, Any]:
    text = resources.files("engrax.results.confavreux2020").joinpath("expected.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def cells(rule: Any, n: int, size: int) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=n)
    net.add_node("out", neuron=nets.Linear(), size=size)
    net.add_edge("in", "out", rule=rule)
    return net


def test_the_shipped_rule_finds_a_principal_component() -> None:
    """Of inputs of another dimension than those it was learned with. Five degrees are the acceptance; Oja's own rule
    at this rate and batch stays within two."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    factor = directions * np.sqrt(2 * 0.5 ** np.arange(12))
    sim = Simulator(cells(learned.oja2020, 12, 1), seed=0)
    sim.run({"in": nets.gaussian(factor, batch=50)}, ticks=2000)
    w = sim.params["in->out"].w[0]
    assert np.degrees(np.arccos(abs(w @ directions[:, 0]) / np.linalg.norm(w))) < 5
    assert np.linalg.norm(w) == pytest.approx(1, abs=0.1)  # the ratio of the two coefficients is as near to -1


def test_every_rule_that_was_found_is_ojas(full: dict[str, Any]) -> None:
    for one in full["component"]["seeds"]:
        assert one["ratio"] == pytest.approx(-1, abs=0.1)
        assert one["others"] < 0.05
        assert one["angle"][0] < 5


def test_two_rules_find_several_components(full: dict[str, Any]) -> None:
    """Where one rule finds the first in every cell; the largest are Oja's terms forward, an anti-Hebbian one aside."""
    found = full["components"]
    assert max(found["learned"]["angle"]) < 5
    assert min(found["Oja alone"]["angle"][1:]) > 80
    forward, lateral = found["forward"]["theta"], found["lateral"]["theta"]
    assert set(sorted(forward, key=lambda name: -abs(forward[name]))[:2]) == set(result.OJA)
    assert min(lateral, key=lambda name: lateral[name]) == "110"


def test_spiking_cells_are_held_at_the_rate(full: dict[str, Any]) -> None:
    found = full["spikes"]
    for one in found["found"]:
        assert one["mean"] == pytest.approx(result.TARGET, abs=1.0)
        assert one["spread"] < found["Vogels et al."]["spread"]


def test_principal_components_by_hand() -> None:
    """A tick of no learning: the loss is that of the weights at the start; the inputs have the covariance drawn."""
    rule = rules.Oja(eta=0.0)
    task = meta.tasks.principal_components("in", ["in->out"], 4, batch=20_000, variance=(1.0, 1.0), ratio=(0.5, 0.5))
    problem = meta.Learning(cells(rule, 4, 2), rule, task, units=1)
    life = problem.begin(problem.start, jax.random.key(0))
    after, loss = jax.jit(problem.advance)(problem.start, life)
    x, w = np.asarray(after.state.neurons["in"].x), np.asarray(after.state.synapses["in->out"].w[0])
    variances, axes = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(variances, [0.125, 0.25, 0.5, 1.0], rtol=0.05)  # five deviations of 20,000 samples
    apart = [min(np.sum((v - q) ** 2), np.sum((v + q) ** 2)) for v, q in zip(w, axes[:, [3, 2]].T, strict=True)]
    assert float(loss) == pytest.approx(np.mean(apart), rel=0.05)


def test_a_target_rate_by_hand() -> None:
    """Means over the batch, squares over the cells."""
    rule = rules.Oja(eta=0.0)
    task = meta.tasks.target_rate(lambda key: {"in": jnp.ones((1, 3, 4)) * jnp.arange(3.0)[:, None]}, "out.x", 2.0)
    problem = meta.Learning(cells(rule, 4, 2), rule, task, units=1)
    life, loss = problem.advance(problem.start, problem.begin(problem.start, jax.random.key(0)))
    rates = np.asarray(life.state.synapses["in->out"].w[0]).sum(1)  # the mean input is 1
    assert float(loss) == pytest.approx(np.mean((rates / 2 - 1) ** 2))


@pytest.mark.slow
def test_the_quick_run_is_on_the_way(tmp_path: Path) -> None:
    """Sixty steps: Oja's two terms are the largest, of opposite signs."""
    done = CliRunner().invoke(cli.main, ["run", "confavreux2020", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    theta = json.loads((tmp_path / "metrics.json").read_text())["component"]["seeds"][0]["theta"]
    assert set(sorted(theta, key=lambda name: -abs(theta[name]))[:2]) == set(result.OJA)
    assert theta["110"] > 0 > theta["021"]
    assert meta.load(tmp_path / "oja2020.json").theta["110"] == pytest.approx(theta["110"])
    assert (tmp_path / "confavreux2020.png").stat().st_size > 10_000
    done = CliRunner().invoke(cli.main, ["run", "confavreux2020", "--set", "parts=all", "--out", str(tmp_path)])
    assert "no part 'all'" in done.output
