"""A run that was stopped and resumed is bit for bit the run that never was; a recording can be run again."""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import h5py
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

import engrax
from engrax import (
    Fields,
    Phase,
    Probe,
    Recording,
    RecordingError,
    Rule,
    Simulator,
    cli,
    networks as nets,
    probes,
    rules,
)
from engrax.recordings.compare import diff


class Spiking(nets.Neuron):
    """A leaky integrator with a noisy threshold and a refractory tick."""

    ports: ClassVar = ("drive", "lateral")
    noise: ClassVar = "normal"
    tau: float = 0.01

    def init(self):
        return Fields(x=0.0, v=0.0)

    def step(self, state, ports, noise, dt):
        v = (1 - dt / self.tau) * state.v + ports.drive + ports.lateral + 0.3 * noise
        spike = jnp.where((v > 1) & (state.x == 0), 1.0, 0.0)
        return Fields(x=spike, v=v * (1 - spike))


class Traced(Rule):
    """An eligibility trace with a noisy change."""

    noise: ClassVar = "normal"
    eta: float = 0.01
    decay: float = 0.9

    def init(self):
        return Fields(trace=0.0)

    def update(self, w, pre, post, syn, noise):
        trace = self.decay * syn.trace + pre.x * post.x
        return self.eta * (trace - w * post.x) + 1e-4 * noise, Fields(trace=trace)


KNOWN = [Spiking, Traced]


def spiking(batch: int | None = None) -> tuple[nx.MultiDiGraph, dict[str, Any], dict[str, Any]]:
    """Delays, noise in neurons and synapses, spikes, traces, sparse and dense: run by ticks from arrays."""
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=5)
    net.add_node("out", neuron=Spiking(), size=6)
    net.add_edge("in", "out", rule=Traced(), delay=3, weights=nets.Normal(0.5))
    net.add_edge("out", "out", rule=rules.Bounded(Traced(), low=0.0, high=1.0), delay=2, port="lateral",
                 topology=nets.Probability(0.5, seed=3), weights=nets.Uniform(0.0, 0.2))  # fmt: skip
    lead = () if batch is None else (batch,)
    drive = np.random.default_rng(1).normal(1, 1, size=(120, *lead, 5)).astype(np.float32)
    fields = {
        "out.spikes": 1, "out.v": 2, "in->out.w": 10, "in->out.trace": 30, "out->out.w": 10,
        "out.rate": Probe("out.x", every=2, reduce=probes.mean), "in->out.few": Probe("in->out.w", at=[29, 89]),
        "in->out.change": Probe("in->out.w", every=5, reduce=probes.update_norm),
    }  # fmt: skip
    return net, {"drive": {"in": drive}}, fields


def batched() -> Any:
    return spiking(batch=4)


def phased() -> Any:
    """Linsker's circuit: phases, held drive, resets, signals, a batch, drive made by functions."""
    net = nx.MultiDiGraph()
    net.add_node("retina", neuron=nets.Input(), size=6)
    net.add_node("cortex", neuron=nets.ScaledSettling(leak=1.0), size=5)
    net.add_edge("retina", "cortex", rule=rules.InfomaxHomeostatic(eta=0.02))
    for phase in ("sense", "noise"):
        net.add_edge("cortex", "cortex", name=f"lateral {phase}", phases={phase}, port="lateral", field="v",
                     weights=nets.Fixed(0.0), rule=rules.InfomaxLateral(window=50.0))  # fmt: skip
    kinds: Any = {"ticks": 4, "plastic": "last", "hold": True, "reset": True}
    trial = [Phase("sense", **kinds, signals={"hebbian": 1.0}), Phase("noise", **kinds, signals={"hebbian": -1.0})]
    sense = nets.noisy(nets.gaussian(np.eye(6) + 0.3, batch=3), 0.3)
    drive = {"retina": {"sense": sense, "noise": nets.gaussian(0.3 * np.eye(6), batch=3)}}
    fields = {"cortex.x": 8, "cortex.v": 1, "retina->cortex.w": 80, "signals.hebbian": 1}
    return net, {"drive": drive, "trial": trial, "trials": 60}, fields


def mixed() -> Any:
    """A function beside an array, with a signal from outside."""
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=4)
    net.add_node("b", neuron=nets.Rate(), size=4)
    net.add_edge("a", "b", rule=rules.Gated(rules.Oja(eta=0.05), "reward"))
    net.add_edge("b", "b", topology=nets.OneToOne(), weights=nets.Fixed(0.5), delay=4)
    rng = np.random.default_rng(2)
    given = {"drive": {"a": nets.gaussian(np.eye(4)), "b.lateral": rng.normal(size=(90, 4))}}
    return net, {**given, "signals": {"reward": rng.normal(size=90)}}, {"b.x": 1, "a->b.w": 5, "b.lateral": 5}


CASES = {case.__name__: case for case in (spiking, batched, phased, mixed)}


def contents(path: Path) -> dict[str, np.ndarray]:
    with Recording(path) as recording:
        found = {name: recording.values(name) for name in recording.fields}
        found |= {f"{name} at": recording.ticks(name) for name in recording.fields}
        for name in recording.spike_names:
            columns = dataclasses.asdict(recording.spikes(name))
            found |= {f"{name} {key}": np.asarray(value) for key, value in columns.items() if value is not None}
        found |= {f"state {name}": array for name, array in recording.state()[1].items()}
    return found


def same(a: Path, b: Path) -> None:
    one, other = contents(a), contents(b)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def stop_at(tick: int) -> Any:
    return [lambda sim: sim.tick >= tick]


@pytest.mark.parametrize(
    ("case", "precision"), [*((case, 32) for case in CASES), pytest.param("spiking", 64, marks=pytest.mark.slow)]
)
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path, case: str, precision: int) -> None:
    jax.config.update("jax_enable_x64", precision == 64)
    try:
        net, run, fields = CASES[case]()
        whole, parts = tmp_path / "whole.h5", tmp_path / "parts.h5"
        sim = Simulator(net, seed=7)
        with sim.record(whole, fields):
            sim.run(**run)
        sim = Simulator(net, seed=7)
        with sim.record(parts, fields):
            sim.run(**run, callbacks=stop_at(30), chunk=10)
        assert (
            engrax.resume(parts, known=KNOWN, **({"trials": 30} if "trial" in run else {"ticks": 30})).tick > sim.tick
        )
        engrax.resume(parts, known=KNOWN)
        same(whole, parts)
        found, compared = engrax.verify(parts, known=KNOWN)
        assert not found
        assert compared > 500
        assert diff(whole, parts)[1] == []
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_sweep_is_resumed(tmp_path: Path) -> None:
    net, run, fields = mixed()
    over = {"seed": [1, 2, 3], "a->b.rule.eta": [0.01, 0.1]}
    paths = [tmp_path / "whole.h5", tmp_path / "parts.h5"]
    for path, stop in zip(paths, (1000, 30), strict=True):
        sim = engrax.sweep(net, over)
        with sim.record(path, fields):
            sim.run(**run, callbacks=stop_at(stop), chunk=15)
    assert engrax.resume(paths[1]).tick == 90
    same(*paths)


def test_rounding_depends_neither_on_chunks_nor_on_what_is_recorded() -> None:
    """In float32: a tick is compiled as a piece of its own."""
    jax.config.update("jax_enable_x64", False)
    try:
        net, run, fields = spiking()
        ends = []
        for chunk, record in ((None, {}), (1, {}), (60, {"in->out.w": 1}), (120, fields)):
            sim = Simulator(net, seed=7)
            sim.run(**run, chunk=chunk, record=record)
            ends.append(jax.tree.leaves(sim.state))
        for leaves in ends[1:]:
            for one, other in zip(ends[0], leaves, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("batch", [None, 3])
def test_rounding_of_sums_depends_on_neither(batch: int | None) -> None:
    """BCM's does where the compiler may join a tick with what is around it."""
    rng = np.random.default_rng(0)
    net = nx.MultiDiGraph()
    net.add_node("given", neuron=nets.Input(), size=20)
    net.add_node("cells", neuron=nets.Rate(bias=rng.normal(size=30)), size=30)
    net.add_edge("given", "cells", rule=rules.BCM())
    net.add_edge("cells", "cells", rule=rules.BCM(), delay=2)
    drive = {"given": rng.normal(size=(40, 20) if batch is None else (40, batch, 20))}
    outcomes = []
    for record in ({}, {"cells.x": 1, "given->cells.w": 1, "cells->cells.w": 7}, {"cells.x": 3}):
        for chunk in (None, 10, 1):
            sim = Simulator(net)
            sim.run(drive, record=record, chunk=chunk)
            outcomes.append((sim.state.neurons, sim.state.synapses))
    for outcome in outcomes[1:]:
        jax.tree.map(np.testing.assert_array_equal, outcomes[0], outcome)


def test_weights_set_by_hand_are_part_of_the_story(tmp_path: Path) -> None:
    """Between runs and within one: the log holds the state that was set, so that the run can be repeated."""
    net, run, _ = mixed()
    path = tmp_path / "run.h5"
    sim = Simulator(net)

    def meddle(sim: Simulator) -> None:
        if sim.tick == 40:
            sim.set_weights("a->b", np.eye(4))

    with sim.record(path, {"b.x": 1, "a->b.w": 5}):
        sim.run(**run, callbacks=[meddle], chunk=20)
        sim.set_weights("a->b", -np.eye(4))
        sim.run(**run, ticks=20)
    with Recording(path) as recording:
        assert [(r["tick"], r["start"] is not None) for r in recording.runs] == [(0, True), (40, True), (90, True)]
    assert engrax.verify(path) == ([], 110 * 4 + 22 * 16)


def test_verify_finds_what_was_changed(tmp_path: Path) -> None:
    net, run, fields = mixed()
    path = tmp_path / "run.h5"
    sim = Simulator(net)
    with sim.record(path, fields):
        sim.run(**run)
    with h5py.File(path, "r+") as file:
        file["b/x"][17, 2] += 1e-9
    (found,), _ = engrax.verify(path)
    assert (found.field, found.tick) == ("b.x", 17)
    result = CliRunner().invoke(cli.main, ["verify", str(path)])
    assert result.exit_code == 1
    assert "b.x: differs from tick 17 on" in result.output


def test_diff_says_settings_first(tmp_path: Path) -> None:
    net, run, fields = mixed()
    for name, eta, seed in (("a", 0.05, 0), ("b", 0.06, 1)):
        nets.set_rule(net, rules.Gated(rules.Oja(eta=eta), "reward"))
        sim = Simulator(net, seed=seed)
        with sim.record(tmp_path / f"{name}.h5", fields if name == "a" else {"b.x": 1}):
            sim.run(**run)
    settings, fields_ = diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert {d.field for d in settings} == {"network.projections.a->b.rule.rule.eta", "seed"}
    assert "0.05 | 0.06" in str(settings[0])
    assert {d.field for d in fields_} == {"b.x", "b.lateral", "a->b.w"}
    result = CliRunner().invoke(cli.main, ["diff", str(tmp_path / "a.h5"), str(tmp_path / "b.h5")])
    assert result.exit_code == 1
    assert result.output.index("settings") < result.output.index("data")
    result = CliRunner().invoke(cli.main, ["diff", str(tmp_path / "a.h5"), str(tmp_path / "a.h5")])
    assert (result.exit_code, result.output) == (0, "settings: the same\ndata: the same\n")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    net, run, fields = spiking()
    path = tmp_path / "run.h5"
    sim = Simulator(net, seed=7)
    with sim.record(path, fields):
        sim.run(**run, callbacks=stop_at(30), chunk=10)
    return path


def test_the_command_line_resumes(stopped: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(Path(__file__).read_text())
    refused = CliRunner().invoke(cli.main, ["resume", str(stopped), "--ticks", "20"])
    assert refused.exit_code == 1
    assert "pass yours, known=[Spiking]" in refused.output
    given = ["resume", str(stopped), "--ticks", "30", "--known", str(script)]
    assert "recorded up to tick 60" in CliRunner().invoke(cli.main, given).output
    result = CliRunner().invoke(cli.main, [*given[:2], *given[4:]])
    assert "recorded up to tick 120" in result.output
    again = CliRunner().invoke(cli.main, [*given[:2], *given[4:]])
    assert again.exit_code == 1
    assert "is complete: say how much further, with ticks (--ticks N)" in again.output
    far = CliRunner().invoke(cli.main, given)
    assert "has 0 ticks left, ticks=30 were asked for" in far.output
    assert engrax.verify(stopped, known=KNOWN)[0] == []


def test_a_changed_rule_or_version_is_told(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(Traced):
        def update(self, w, pre, post, syn, noise):
            return 2 * self.eta * pre.x * post.x + 1e-4 * noise, Fields(trace=syn.trace)

    Changed.__name__ = "Traced"
    with pytest.raises(RecordingError, match=r"Traced of projection 'in->out' computes something else now.*strict="):
        Simulator.resume(stopped, known=[Spiking, Changed])
    assert Simulator.resume(stopped, known=[Spiking, Changed], strict=False).tick == 30
    fewer = type("Traced", (Rule,), {"update": lambda self, w: w, "__doc__": "."})
    with pytest.raises(RecordingError, match=r"made with another Traced: it has decay, eta"):
        Simulator.resume(stopped, known=[Spiking, fewer])
    now = engrax.recordings.provenance.versions()
    monkeypatch.setattr(engrax.recordings.provenance, "versions", lambda: {**now, "engrax": "9.9"})
    with pytest.raises(RecordingError, match=rf"made with engrax {now['engrax']}, here is 9.9"):
        Simulator.resume(stopped, known=KNOWN)


def test_precision_is_told(stopped: Path) -> None:
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(RecordingError, match="made with precision float64, here is float32"):
            Simulator.resume(stopped, known=KNOWN)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_drive_that_the_file_could_not_keep(tmp_path: Path) -> None:
    net, run, fields = mixed()
    whole, path = tmp_path / "whole.h5", tmp_path / "run.h5"
    sim = Simulator(net)
    with sim.record(whole, fields):
        sim.run(**run)
    sim = Simulator(net)
    with sim.record(path, fields, keep_drive=100):
        sim.run(**run, callbacks=stop_at(30), chunk=10)
    with pytest.raises(RecordingError, match=r"only the digest of an array of shape \(.*\).*pass the drive"):
        engrax.resume(path)
    with Recording(path) as recording:
        assert not recording.runs[0]["sources"]["run"]["b.lateral"]["array"].get("at")
    engrax.resume(path, drive=run["drive"], signals=run["signals"])
    same(whole, path)

    sim = Simulator(net)
    rows = iter(np.zeros((100, 4)))
    with sim.record(tmp_path / "i.h5", fields):
        sim.run({"a": rows}, ticks=20, signals={"reward": 1.0}, callbacks=stop_at(10), chunk=5)
    with pytest.raises(RecordingError, match="came from an iterator"):
        engrax.resume(tmp_path / "i.h5")
    assert engrax.resume(tmp_path / "i.h5", drive={"a": iter(np.zeros((100, 4)))}).tick == 20


def test_only_the_simulator_of_the_file_goes_on_with_it(stopped: Path) -> None:
    net, run, _ = spiking()
    before = contents(stopped)
    with pytest.raises(RecordingError, match=r"saved at tick 30, this simulator is at 0.*Simulator.resume"):
        Simulator(net, seed=7).record(stopped, append=True, known=KNOWN)
    sim = Simulator.resume(stopped, known=KNOWN)
    with sim.record(stopped, append=True, known=KNOWN):
        sim.run({"in": run["drive"]["in"][30:60]})
    after = contents(stopped)
    np.testing.assert_array_equal(after["out.v"][:15], before["out.v"])
    assert len(after["out.v"]) == 30


def test_a_file_without_a_run(tmp_path: Path) -> None:
    net, *_ = mixed()
    with Simulator(net).record(tmp_path / "empty.h5", {"b.x": 1}):
        pass
    with pytest.raises(RecordingError, match="nothing was run"):
        Simulator.resume(tmp_path / "empty.h5")
    assert json.loads(h5py.File(tmp_path / "empty.h5").attrs["probes"])["b.x"]["class"] == "Probe"
