"""One recurrent network and every way to learn through time: the quick version, each learner, what is kept."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from engrax import Simulator, cli, networks as nets
from engrax.results.temporal_real import run as result

SIZES = (8, 6, 10)
TICKS = 8


def test_the_quick_run_learns(tmp_path: Path) -> None:
    """2,000 digits, a row a tick; chance is one in ten."""
    given = ["run", "temporal_real", "--quick", "--set", "learners=BPTT,readout only"]
    done = CliRunner().invoke(cli.main, [*given, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "metrics.json").read_text())["digits"]
    assert found["BPTT"]["right"][-1] > 0.5
    assert found["readout only"]["right"][-1] > 0.2
    assert (found["BPTT"]["level"], found["readout only"]["level"]) == ("global", "synapse")
    assert len((tmp_path / "table.md").read_text().splitlines()) == 4
    assert (tmp_path / "temporal_real.png").stat().st_size > 10_000


def test_unknown_learners_are_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "temporal_real", "--set", "learners=magic", "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert "no learner 'magic'; there are: BPTT, " in done.output


def test_what_is_kept_is_counted() -> None:
    """Of a synapse by eligibility: its trace, the sum, Adam's two moments and the number of its steps."""
    nothing = result.kept(Simulator(result.LEARNERS["readout only"].network(SIZES, TICKS, 10)))
    rflo = result.kept(Simulator(result.LEARNERS["RFLO random"].network(SIZES, TICKS, 10)))
    rtrl = result.kept(Simulator(result.LEARNERS["RTRL"].network(SIZES, TICKS, 10)))
    n_in, n, _ = SIZES
    synapses = n * (n_in + n + 1)
    number = np.dtype(float).itemsize
    assert rflo - nothing == 5 * synapses * number
    assert rtrl > n * synapses * number  # the influence of each on every unit


@pytest.mark.slow
@pytest.mark.parametrize("name", result.LEARNERS)
def test_every_learner_changes_what_it_should(name: str) -> None:
    """Two samples: the weights of the hidden units, but where only the readout learns; never those of the
    feedback, unless they are those of the way forward."""
    learner, data = result.LEARNERS[name], nets.digits()
    sim = Simulator(learner.network(SIZES, TICKS, 10), dt=result.DT)
    before = {key: np.asarray(value.w) for key, value in sim.params.items()}
    sim.run(learner.drive(nets.tasks.rows(data, 2)), trial=learner.trial(TICKS))
    changed = {key for key, w in before.items() if np.any(np.asarray(sim.params[key].w) != w)}
    hidden = {"input->hidden", "hidden->hidden", "bias->hidden"}
    assert {"hidden->output", "bias->output"} <= changed
    assert changed & hidden == (set() if "readout only" in name else hidden)
    feedback = sim.network.circuit.projections.get("output->hidden")
    assert feedback is None or ("output->hidden" in changed) == (feedback.tied is not None)


def test_the_full_run() -> None:
    """The exact gradient is best; eligibility is between it and a readout alone."""
    text = resources.files("engrax.results.temporal_real").joinpath("expected.json").read_text()
    for source, found in json.loads(text).items():
        last = {name: of["right"][-1] for name, of in found.items()}
        assert set(last) == set(result.LEARNERS), source
        assert last["BPTT"] > last["RFLO random"] > last["readout only"], source
