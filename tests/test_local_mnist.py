"""Every local rule on one network: the quick version, its yardstick, and what the full one says."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from engrax import SimulationError, Simulator, cli, networks as nets, rules
from engrax.results.classification import Task
from engrax.results.local_mnist import methods, run as result

SMALL = result.Size(hidden=12, passes=1, batch=10)


def some(count: int = 40) -> Task:
    digits = nets.digits()
    return Task(digits.train_x[:count], digits.train_y[:count], digits.test_x, digits.test_y, 10)


def test_the_quick_run_learns(tmp_path: Path) -> None:
    """Five passes over 1,437 digits; chance is 90 % of errors."""
    given = ["run", "local_mnist", "--quick", "--set", "methods=direct feedback alignment,competitive"]
    done = CliRunner().invoke(cli.main, [*given, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "metrics.json").read_text())["digits"]
    assert found["direct feedback alignment"]["test"] < 0.2
    assert found["competitive"]["test"] < 0.2
    assert not found["direct feedback alignment"]["transport"]
    assert found["competitive"]["level"] == "population"
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert (tmp_path / "local_mnist.png").stat().st_size > 10_000


def test_unknown_data_and_methods_are_named(tmp_path: Path) -> None:
    for given, expected in (("methods=magic", "no method 'magic'"), ("data=imagenet", "no data 'imagenet'")):
        done = CliRunner().invoke(cli.main, ["run", "local_mnist", "--set", given, "--out", str(tmp_path)])
        assert done.exit_code != 0
        assert expected in done.output


def test_the_update_of_backpropagation_is_the_gradient() -> None:
    """So that the yardstick of the others is right; and what knows neither weights nor errors is not aligned."""
    course = result.trained(methods.METHODS["backpropagation"], some(), SMALL, 0)["alignment"]
    assert min(course.values()) > 1 - 1e-9


def test_synaptic_operations_are_counted() -> None:
    """Of 6-12-10 units by hand: forward, back through the hidden units, and learning; biases."""
    net = nets.perceptron((6, 12, 10), rules.Delta())
    forward, back = 6 * 12 + 12 * 10 + 22, 12 * 10
    costs = result.costs(net, methods.Supervised(methods.layered()))
    assert costs["operations"] == 2 * forward + back
    assert costs["transport"]


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_learns_something(name: str) -> None:
    method = methods.METHODS[name]
    task = some()
    sim = Simulator(method.network(task, 12, lambda rule: rule), seed=0)
    before = np.asarray(sim.params[method.first].w)
    x, y = task.batches(np.random.default_rng(0), 10)
    if isinstance(method, methods.Supervised):
        sim.run(method.drive(x, y, 12, np.random.default_rng(0)), trial=method.trial)
    else:
        sim.run({method.at: x}, trial=method.trial)
    assert (np.abs(np.asarray(sim.params[method.first].w) - before).max() > 0) == (name != "random features")


def test_what_diverges_is_said_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(method: methods.Method, task: Task, size: result.Size, seed: int) -> dict[str, object]:
        if method is methods.METHODS["ARM"]:
            raise SimulationError("tick 3: a value became infinite")
        return row(0.1)

    monkeypatch.setattr(result, "trained", trained)
    given = ["run", "local_mnist", "--quick", "--set", "methods=ARM,SoftHebb", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli.main, given)
    assert done.exit_code == 0, done.output
    assert "digits, ARM: tick 3: a value became infinite" in done.output
    assert list(json.loads((tmp_path / "metrics.json").read_text())["digits"]) == ["SoftHebb"]
    both = result.table({"a": {"x": row(0.1)}, "b": {"x": row(0.2), "y": row(0.3)}}).splitlines()
    assert [line.split(" | ")[1:3] for line in both[2:]] == [["10.00", "20.00"], ["diverged", "30.00"]]


def row(test: float) -> dict[str, object]:
    costs = {"seconds": 1.0, "passes": 1, "operations": 1, "level": "synapse", "transport": False, "signals": []}
    return {"test": test, "alignment": {"0": 0.5}, "course": {"0": test}, **costs}
