"""What other tools make of a recording: each is asked for the numbers that the recording holds."""

import datetime
import json
import logging
import sys
from typing import Any, ClassVar

import h5py
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from engrax import Fields, Probe, RecordingError, SimulationError, Simulator, networks as nets, probes, rules
from engrax.recordings.export import export
from engrax.recordings.handover import to_neo, to_networkx, to_nwb, to_sonata
from engrax.recordings.reading import Recording

TICKS, DT = 120, 2e-3
DURATION = TICKS * DT  # seconds
FIELDS = {
    "retina.spikes": 1,
    "cortex.spikes": 1,
    "cortex.x": 1,
    "cortex.drive": 10,
    "cortex.some": Probe("cortex.drive", every=10, neurons=(0, 2)),
    "cortex.rate": Probe("cortex.x", reduce=probes.mean),
    "signals.reward": 1,
    "retina->cortex.w": 10,
    "cortex->cortex.onto": Probe("cortex->cortex.w", every=10, neurons=(2,)),
    "retina.drive": 100,  # one sample
    "retina.x": 200,  # none
}


class Poisson(nets.Neuron):
    """Spikes at a rate that its drive moves."""

    ports: ClassVar[tuple[str, ...]] = ("drive",)
    noise: ClassVar[nets.neurons.Noise | None] = "uniform"
    rate: float = 60.0  # 1/s

    def init(self) -> Fields:
        return Fields(x=0.0)

    def step(self, ports: Fields, noise: Any, dt: float) -> Fields:
        return Fields(x=jnp.where(noise < (self.rate + ports.drive) * dt, 1.0, 0.0))


def network(rule=None):
    net = nx.MultiDiGraph(signals={"reward": "cortex"})
    net.add_node("retina", neuron=Poisson(), size=(2, 2))
    net.add_node("cortex", neuron=Poisson(40.0), size=3)
    net.add_edge("retina", "cortex", rule=rule, weights=nets.Uniform(0.0, 10.0), delay=2)
    matrix = np.array([[0.0, 1.5, 0.0], [-2.0, 0.0, 0.25], [0.0, 4.0, 0.0]])
    net.add_edge("cortex", "cortex", topology=matrix, delay=1)
    return net


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One copy of the network."""
    path = tmp_path_factory.mktemp("one") / "run.h5"
    sim = Simulator(network(rules.Oja(eta=0.01)), seed=3, dt=DT)
    with sim.record(path, FIELDS):
        sim.run(ticks=TICKS)
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two points with a batch of three each."""
    path = tmp_path_factory.mktemp("many") / "sweep.h5"
    points = [{"seed": 1, "cortex.rate": 20.0}, {"seed": 2, "cortex.rate": 200.0}]
    sim = Simulator(network(), dt=DT, points=points)
    sim.set_weights("cortex->cortex", [[0.5, 1.5, 2.5, 3.5], [-0.5, -1.5, -2.5, -3.5]])
    with sim.record(path, {"cortex.spikes": 1, "cortex.x": 2, "cortex->cortex.w": 40}):
        sim.run({"cortex": np.zeros((TICKS, 3, 3))})
    return path


@pytest.fixture(scope="module")
def counts(path):
    """Spikes of each neuron, by population."""
    with Recording(path) as recording:
        spikes = {name.removesuffix(".spikes"): recording.spikes(name) for name in recording.spike_names}
    counted = {name: np.bincount(s.ids, minlength=s.size) for name, s in spikes.items()}
    assert all(count.min() > 0 for count in counted.values())
    assert len(set(np.concatenate(list(counted.values())))) > 3  # neurons that were mixed up would show
    return counted


def values(path, field):
    with Recording(path) as recording:
        return recording.values(field)


# neo


def test_neo_has_every_spike_and_sample(path, counts):
    (segment,) = to_neo(path).segments
    assert [(t.annotations["population"], t.annotations["neuron"]) for t in segment.spiketrains] == [
        *(("cortex", i) for i in range(3)), *(("retina", i) for i in range(4)),
    ]  # fmt: skip
    with Recording(path) as recording:
        spikes = recording.spikes("cortex.spikes")
    for i, train in enumerate(segment.spiketrains[:3]):
        np.testing.assert_array_equal(train.rescale("s").magnitude, spikes.times[spikes.ids == i] * DT)
        assert (float(train.t_start), float(train.t_stop)) == (0.0, DURATION)
    signals = {signal.name: signal for signal in segment.analogsignals}
    assert set(signals) == {"cortex.x", "cortex.drive", "cortex.some", "cortex.rate", "signals.reward", "retina.drive"}
    for name, signal in signals.items():
        np.testing.assert_array_equal(signal.magnitude, values(path, name).reshape(len(signal), -1))
    drive = signals["cortex.drive"]
    assert (float(drive.t_start), float(drive.sampling_period)) == (9 * DT, pytest.approx(10 * DT, rel=1e-12))
    assert float(signals["retina.drive"].sampling_period) == pytest.approx(100 * DT, rel=1e-12)
    np.testing.assert_array_equal(signals["cortex.some"].array_annotations["neuron"], [0, 2])


def test_elephant_finds_the_rates(path, counts):
    from elephant.statistics import mean_firing_rate

    (segment,) = to_neo(path).segments
    rates = [float(mean_firing_rate(train).rescale("Hz")) for train in segment.spiketrains]
    np.testing.assert_allclose(rates, np.concatenate([counts["cortex"], counts["retina"]]) / DURATION, rtol=1e-12)


def test_neo_has_one_segment_per_copy(swept):
    block = to_neo(swept)
    x = values(swept, "cortex.x")
    with Recording(swept) as recording:
        spikes = recording.spikes("cortex.spikes")
    assert len(block.segments) == 6
    for segment in block.segments:
        point, batch = segment.annotations["point"], segment.annotations["batch"]
        assert segment.name == f"point {point}, batch {batch}"
        assert segment.annotations["cortex.rate"] == [20.0, 200.0][point]
        np.testing.assert_array_equal(segment.analogsignals[0].magnitude, x[:, point, batch])
        here = (spikes.point == point) & (spikes.batch == batch)
        assert [len(train) for train in segment.spiketrains] == np.bincount(spikes.ids[here], minlength=3).tolist()


def test_only_watched_neurons_have_trains(tmp_path):
    path = tmp_path / "some.h5"
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=Poisson(), size=4)
    net.add_edge("a", "a", weights=0.0)
    watched = {name: Probe("a.spikes", neurons=which) for name, which in (("a.some", (1, 2)), ("a.more", (2, 3)))}
    with (sim := Simulator(net, dt=DT)).record(path, {**watched, "a.x": 1}):
        sim.run(ticks=50)
    (segment,) = to_neo(path).segments
    assert [train.annotations["neuron"] for train in segment.spiketrains] == [1, 2, 3]
    assert [len(train) for train in segment.spiketrains] == values(path, "a.x").sum(0)[1:].tolist()


def test_a_recording_that_was_cut_off_or_failed_ends_with_its_last_sample(path, tmp_path):
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes())
    with h5py.File(cut, "r+") as file:
        lines = file["provenance/log"][:].tobytes().splitlines(keepends=True)
        file["provenance/log"].resize(len(b"".join(lines[:-1])), axis=0)
    assert float(to_neo(cut).segments[0].spiketrains[0].t_stop) == DURATION

    class Exploding(Poisson):
        def init(self) -> Fields:
            return Fields(x=0.0, v=1.0)

        def step(self, state: Fields, noise: Any) -> Fields:
            return Fields(x=jnp.where(noise < 0.5, 1.0, 0.0), v=state.v * 1e20)

    net = nx.MultiDiGraph()
    net.add_node("a", neuron=Exploding(), size=2)
    net.add_edge("a", "a")
    sim = Simulator(net, dt=DT)
    with pytest.raises(SimulationError), sim.record(tmp_path / "failed.h5", {"a.spikes": 1, "a.v": 1}):
        sim.run(ticks=40, chunk=10)
    (segment,) = to_neo(tmp_path / "failed.h5").segments
    assert sim.tick == 10
    assert float(segment.spiketrains[0].t_stop) == 15 * DT  # 1e20 ** 16 is no number


def test_uneven_ticks_keep_their_times(tmp_path):
    import pynwb

    path, times = tmp_path / "uneven.h5", np.array([1, 3, 4]) * DT  # few lengths to compile
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=Poisson(), size=2)
    net.add_edge("a", "a")
    with (sim := Simulator(net, dt=DT)).record(path, {"a.late": Probe("a.drive", at=(1, 3, 4))}):
        sim.run(ticks=6)
    (segment,) = to_neo(path).segments
    (late,) = segment.irregularlysampledsignals
    np.testing.assert_array_equal(late.times.rescale("s").magnitude, times)
    np.testing.assert_array_equal(late.magnitude, values(path, "a.late"))
    to_nwb(path, tmp_path / "uneven.nwb")
    assert pynwb.validate(path=tmp_path / "uneven.nwb") == []
    with pynwb.NWBHDF5IO(tmp_path / "uneven.nwb", "r") as io:
        series = io.read().acquisition["a.late"]
        np.testing.assert_array_equal(series.timestamps[:], times)
        np.testing.assert_array_equal(series.data[:], values(path, "a.late"))
    to_sonata(path, tmp_path / "circuit")
    assert not list((tmp_path / "circuit").glob("*_report.h5"))
    export(path, tmp_path / "late.csv")
    np.testing.assert_array_equal(read(tmp_path / "late.csv")["time_s"], np.repeat(times, 2))


def test_silence_and_runs_that_did_not_happen_are_handed_over(tmp_path):
    import libsonata
    import pynwb

    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=2)
    net.add_edge("a", "a", weights=0.0)
    with (sim := Simulator(net)).record(tmp_path / "silent.h5", {"a.spikes": 1}):
        sim.run(ticks=50)
    assert [len(train) for train in to_neo(tmp_path / "silent.h5").segments[0].spiketrains] == [0, 0]
    to_nwb(tmp_path / "silent.h5", tmp_path / "silent.nwb")
    assert pynwb.validate(path=tmp_path / "silent.nwb") == []
    to_sonata(tmp_path / "silent.h5", tmp_path / "silent")
    assert len(libsonata.SpikeReader(tmp_path / "silent/spikes.h5")["a"].get()) == 0
    with Simulator(net).record(tmp_path / "empty.h5", {"a.spikes": 1}):
        pass
    assert len(to_neo(tmp_path / "empty.h5").segments[0].spiketrains) == 0
    to_nwb(tmp_path / "empty.h5", tmp_path / "empty.nwb")
    assert pynwb.validate(path=tmp_path / "empty.nwb") == []
    with pytest.raises(RecordingError, match="nothing was run"):
        to_networkx(tmp_path / "empty.h5")
    with pytest.raises(RecordingError, match="nothing was run"):
        to_sonata(tmp_path / "empty.h5", tmp_path / "empty")
    with pytest.raises(RecordingError, match="nothing to export"):
        export(tmp_path / "empty.h5", tmp_path / "empty.npz")


# NWB


@pytest.fixture(scope="module")
def nwb(path, tmp_path_factory):
    out = tmp_path_factory.mktemp("nwb") / "run.nwb"
    to_nwb(path, out)
    return out


def test_nwb_is_valid_and_holds_the_numbers(path, nwb, counts):
    import pynwb

    assert pynwb.validate(path=nwb) == []
    with pynwb.NWBHDF5IO(nwb, "r") as io:
        file = io.read()
        units = file.units.to_dataframe()
        assert units["population"].tolist() == ["cortex"] * 3 + ["retina"] * 4
        assert units["neuron"].tolist() == [0, 1, 2, 0, 1, 2, 3]
        assert [len(times) for times in units["spike_times"]] == [*counts["cortex"], *counts["retina"]]
        with Recording(path) as recording:
            spikes = recording.spikes("cortex.spikes")
            created = datetime.datetime.fromisoformat(recording.attributes["created"])
            np.testing.assert_array_equal(units["spike_times"][1], spikes.times[spikes.ids == 1] * DT)
            np.testing.assert_array_equal(units["obs_intervals"][1], [[0.0, DURATION]])
            for name in ("cortex.x", "cortex.drive", "cortex.some", "cortex.rate", "signals.reward"):
                np.testing.assert_array_equal(file.acquisition[name].data[:], recording.values(name))
            state = file.processing["simulation"]
            np.testing.assert_array_equal(state["retina->cortex.w"].data[:], recording.values("retina->cortex.w"))
            np.testing.assert_array_equal(state["cortex->cortex.w"].data[:], recording.weights("cortex->cortex")[None])
            table = state["cortex->cortex synapses"].to_dataframe()
            np.testing.assert_array_equal(table[["post", "pre"]].T, recording.synapses("cortex->cortex"))
            assert json.loads(file.notes)["network"] == recording.network
            assert dict(np.asarray(file.was_generated_by).astype(str)) == recording.versions
        weights = state["retina->cortex.w"]
        assert weights.description.endswith("(time, post, pre)")
        assert weights.starting_time == pytest.approx(9 * DT)
        assert weights.rate == pytest.approx(1 / (10 * DT))
        assert state["cortex->cortex.onto"].description.endswith("(time, synapse); synapse: 3")
        assert "neuron: 0, 2" in file.acquisition["cortex.some"].description
        assert file.session_start_time == created
        assert created.tzinfo is not None


@pytest.fixture
def quiet_neo():
    """neo logs that it takes "dimensionless" for a plural."""
    logging.getLogger("Neo").setLevel(logging.ERROR)
    yield
    logging.getLogger("Neo").setLevel(logging.NOTSET)


@pytest.mark.usefixtures("quiet_neo")
def test_neo_and_elephant_read_the_nwb_file(path, nwb, counts):
    import neo
    import quantities as pq
    from elephant.kernels import GaussianKernel
    from elephant.statistics import instantaneous_rate, mean_firing_rate

    (block,) = neo.io.NWBIO(str(nwb), mode="r").read_all_blocks()
    (segment,) = block.segments
    assert [train.name for train in segment.spiketrains][2:4] == ["cortex/2", "retina/0"]
    expected = np.concatenate([counts["cortex"], counts["retina"]])
    rates = [float(mean_firing_rate(train).rescale("Hz")) for train in segment.spiketrains]
    np.testing.assert_allclose(rates, expected / DURATION, rtol=1e-12)
    kernel = GaussianKernel(0.01 * pq.s)
    smooth = instantaneous_rate(list(segment.spiketrains), DT * pq.s, kernel, border_correction=True)
    np.testing.assert_allclose(smooth.magnitude.mean(0), expected / DURATION, rtol=1e-9)
    signals = {signal.name: signal for signal in segment.analogsignals}
    np.testing.assert_array_equal(signals["cortex.x"].magnitude, values(path, "cortex.x"))


@pytest.mark.usefixtures("quiet_neo")
def test_copies_come_back_from_nwb_as_segments(swept, tmp_path):
    import neo
    import pynwb

    out = tmp_path / "sweep.nwb"
    to_nwb(swept, out, session_description="two points", identifier="a",
           session_start_time=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))  # fmt: skip
    assert pynwb.validate(path=out) == []
    (there,) = neo.io.NWBIO(str(out), mode="r").read_all_blocks()
    here = to_neo(swept)
    assert there.annotations["identifier"] == "a"
    segments = {segment.name: segment for segment in there.segments}
    for segment in here.segments:
        twin = segments[segment.name]
        assert [len(train) for train in twin.spiketrains] == [len(train) for train in segment.spiketrains]
        np.testing.assert_array_equal(twin.analogsignals[0].magnitude, segment.analogsignals[0].magnitude)
    with pynwb.NWBHDF5IO(out, "r") as io:
        state = io.read().processing["simulation"]
        np.testing.assert_array_equal(
            state["cortex->cortex.w point 1"].data[:], values(swept, "cortex->cortex.w")[:, 1]
        )
        with Recording(swept) as recording:
            for point in (0, 1):
                last = recording.weights("retina->cortex")[point]
                np.testing.assert_array_equal(state[f"retina->cortex.w point {point}"].data[:], last[None])
    with pytest.raises(RecordingError, match=r"sweep.nwb exists already.*overwrite=True"):
        to_nwb(swept, out)
    with pytest.raises(RecordingError, match="cannot be written"):
        to_nwb(swept, tmp_path / "nowhere" / "sweep.nwb")


def test_a_failed_export_leaves_nothing_behind(path, tmp_path):
    with pytest.raises(TypeError):
        to_nwb(path, tmp_path / "run.nwb", identifier=3)
    assert list(tmp_path.iterdir()) == []


# SONATA


@pytest.fixture(scope="module")
def circuit(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sonata") / "circuit"
    to_sonata(path, folder)
    return folder


def test_libsonata_reads_the_circuit(path, circuit):
    import libsonata

    config = libsonata.CircuitConfig.from_file(circuit / "circuit_config.json")
    assert config.node_populations == {"retina", "cortex"}
    assert config.edge_populations == {"retina__cortex", "cortex__cortex"}
    retina = config.node_population("retina")
    assert retina.size == 4
    assert set(retina.get_attribute("model_template", retina.select_all())) == {"engrax:Poisson"}
    assert libsonata.NodeStorage(circuit / "network/cortex_nodes.h5").open_population("cortex").size == 3
    sets = libsonata.NodeSets.from_file(config.node_sets_path)
    assert sets.materialize("retina", retina).flat_size == 4
    with Recording(path) as recording:
        for name, delay in (("retina->cortex", 2), ("cortex->cortex", 1)):
            post, pre = recording.synapses(name)
            edges = libsonata.EdgeStorage(circuit / f"network/{name.replace('->', '__')}_edges.h5")
            edges = edges.open_population(name.replace("->", "__"))
            every = edges.select_all()
            assert (edges.source, edges.target) == tuple(name.split("->"))
            np.testing.assert_array_equal(edges.target_nodes(every), post)
            np.testing.assert_array_equal(edges.source_nodes(every), pre)
            np.testing.assert_array_equal(edges.get_attribute("syn_weight", every), recording.weights(name).ravel())
            np.testing.assert_array_equal(edges.get_attribute("delay", every), delay * DT * 1e3)
            for node in range(3):
                assert edges.afferent_edges(node).flatten().tolist() == np.flatnonzero(post == node).tolist()
                assert edges.efferent_edges(node).flatten().tolist() == np.flatnonzero(pre == node).tolist()


def test_libsonatas_own_indices_say_the_same(circuit, tmp_path):
    import libsonata

    copy = tmp_path / "edges.h5"
    copy.write_bytes((circuit / "network/cortex__cortex_edges.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        del file["edges/cortex__cortex/indices"]
    libsonata.EdgePopulation.write_indices(str(copy), "cortex__cortex", 3, 3)
    with h5py.File(copy) as theirs, h5py.File(circuit / "network/cortex__cortex_edges.h5") as ours:
        for name in (f"{way}/{table}" for way in ("source_to_target", "target_to_source")
                     for table in ("node_id_to_ranges", "range_to_edge_id")):  # fmt: skip
            place = f"edges/cortex__cortex/indices/{name}"
            np.testing.assert_array_equal(ours[place], theirs[place])


def test_libsonata_reads_the_simulation(path, circuit, counts):
    import libsonata

    config = libsonata.SimulationConfig.from_file(circuit / "simulation_config.json")
    assert (config.run.tstop, config.run.dt, config.run.random_seed) == (DURATION * 1e3, DT * 1e3, 3)
    assert config.list_report_names == {
        "cortex.x_report", "cortex.drive_report", "cortex.some_report", "retina.drive_report",
    }  # fmt: skip
    reader = libsonata.SpikeReader(config.output.spikes_file)
    assert reader.get_population_names() == ["cortex", "retina"]
    with Recording(path) as recording:
        spikes = recording.spikes("cortex.spikes")
    found = reader["cortex"]
    assert str(found.sorting) == "by_time"
    np.testing.assert_allclose(found.get(), np.stack([spikes.ids, spikes.times * DT * 1e3], 1), rtol=1e-15)
    assert len(found.get(libsonata.Selection([1]))) == counts["cortex"][1]
    for name, neurons, every in (
        ("cortex.drive", [0, 1, 2], 10),
        ("cortex.some", [0, 2], 10),
        ("cortex.x", [0, 1, 2], 1),
    ):
        report = libsonata.SomaReportReader(circuit / config.report(f"{name}_report").file_name)["cortex"]
        frame = report.get()
        np.testing.assert_array_equal(frame.ids, neurons)
        np.testing.assert_array_equal(frame.data, values(path, name).astype(np.float32))
        np.testing.assert_allclose(frame.times, np.arange(every - 1, TICKS, every) * DT * 1e3, rtol=1e-12)
        assert report.time_units == "ms"
        elements = libsonata.ElementReportReader(circuit / f"{name}_report.h5")["cortex"].get(tstart=100.0)
        np.testing.assert_array_equal(elements.data, frame.data[np.asarray(frame.times) >= 100.0])


def test_sonata_holds_the_copy_that_was_asked_for(swept, tmp_path):
    import libsonata

    to_sonata(swept, tmp_path / "a", point=1, batch=2)
    with Recording(swept) as recording:
        spikes = recording.spikes("cortex.spikes")
        here = (spikes.point == 1) & (spikes.batch == 2)
        found = libsonata.SpikeReader(tmp_path / "a/spikes.h5")["cortex"].get()
        assert [node for node, _ in found] == spikes.ids[here].tolist()
        report = libsonata.SomaReportReader(tmp_path / "a/cortex.x_report.h5")["cortex"].get()
        np.testing.assert_array_equal(report.data, recording.values("cortex.x")[:, 1, 2])
        edges = libsonata.CircuitConfig.from_file(tmp_path / "a/circuit_config.json").edge_population("retina__cortex")
        np.testing.assert_array_equal(
            edges.get_attribute("syn_weight", edges.select_all()), recording.weights("retina->cortex")[1].ravel()
        )
    with pytest.raises(RecordingError, match=r"a exists already: .*empty folder"):
        to_sonata(swept, tmp_path / "a")
    with pytest.raises(RecordingError, match=r"sweep.h5 holds no batch=3: it holds batch=0 to batch=2"):
        to_sonata(swept, tmp_path / "b", batch=3)


def test_parallel_projections_get_names_of_their_own(tmp_path):
    path = tmp_path / "two.h5"
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=2)
    net.add_edge("a", "a", weights=1.0)
    net.add_edge("a", "a", key="_", weights=2.0, delay=3)
    sim = Simulator(net)
    with sim.record(path, {"a.x": 1}):
        sim.run(ticks=2)
    to_sonata(path, tmp_path / "circuit")
    assert {file.name for file in (tmp_path / "circuit/network").glob("*.h5")} == {
        "a_nodes.h5", "a__a_edges.h5", "a__a_1_edges.h5",
    }  # fmt: skip
    graph = to_networkx(path)
    assert graph.get_edge_data("a/0", "a/1") == {
        "a->a": {"weight": 1.0, "delay": 1, "projection": "a->a"},
        "a->a[_]": {"weight": 2.0, "delay": 3, "projection": "a->a[_]"},
    }


# networkx


def test_the_graph_has_the_learned_weights_and_makes_the_network_again(path):
    graph = to_networkx(path)
    assert graph.nodes["cortex/2"] == {"population": "cortex", "neuron": 2, "model": "Poisson"}
    assert graph.graph == {"seed": 3, "dt": DT}
    with Recording(path) as recording:
        learned = {name: recording.weights(name) for name in recording.network["projections"]}
        first = recording.values("retina->cortex.w")[0]
    assert not np.array_equal(first, learned["retina->cortex"])
    for post in range(3):
        for pre in range(4):
            edge = graph.edges[f"retina/{pre}", f"cortex/{post}", "retina->cortex"]
            assert edge == {"weight": learned["retina->cortex"][post, pre], "delay": 2, "projection": "retina->cortex"}
    again = Simulator(nets.from_neurons(graph, Poisson(), by="population"), dt=DT)
    np.testing.assert_array_equal(again.params["retina->cortex"].w, learned["retina->cortex"].ravel())
    np.testing.assert_array_equal(again.params["cortex->cortex"].w, learned["cortex->cortex"])


def test_networkx_writes_and_reads_the_graph(path, tmp_path):
    graph = to_networkx(path)
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    there = nx.read_graphml(tmp_path / "graph.graphml", force_multigraph=True)
    assert dict(there.nodes(data=True)) == dict(graph.nodes(data=True))
    assert sorted(there.edges(keys=True, data="weight")) == sorted(graph.edges(keys=True, data="weight"))
    text = json.dumps(nx.node_link_data(graph, edges="edges"))
    assert nx.utils.graphs_equal(nx.node_link_graph(json.loads(text), edges="edges"), graph)


def test_a_sweeps_graph_is_one_points(swept):
    with Recording(swept) as recording:
        learned = recording.weights("retina->cortex")
    for point in (0, 1):
        edge = to_networkx(swept, point=point).edges["retina/3", "cortex/1", "retina->cortex"]
        assert edge["weight"] == learned[point, 1, 3]
    with pytest.raises(RecordingError, match=r"holds no point=2: it holds point=0 to point=1"):
        to_networkx(swept, point=2)


def test_one_copy_is_point_0_alone(path):
    with pytest.raises(RecordingError, match=r"holds no point=1: it holds point=0 alone"):
        to_networkx(path, point=1)


# Tables and arrays


def test_npz_holds_every_array_with_its_ticks(path, tmp_path):
    export(path, tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as arrays, Recording(path) as recording:
        for name in recording.fields:
            np.testing.assert_array_equal(arrays[name], recording.values(name))
            np.testing.assert_array_equal(arrays[f"{name}.tick"], recording.ticks(name))
        spikes = recording.spikes("retina.spikes")
        np.testing.assert_array_equal(arrays["retina.spikes.times"], spikes.times)
        np.testing.assert_array_equal(arrays["retina.spikes.ids"], spikes.ids)
        assert arrays["dt"] == DT
        np.testing.assert_array_equal(arrays["cortex.some.neuron"], [0, 2])
        onto = [arrays[f"cortex->cortex.onto.{axis}"].item() for axis in ("synapse", "post", "pre")]
        assert onto == [3, 2, 1]
        assert "cortex.x.neuron" not in arrays


def test_npz_of_a_part(path, tmp_path):
    export(path, tmp_path / "part.npz", ["cortex.x", "cortex.spikes"], slice(20, -20, 3), [2, 1])
    wanted = np.arange(20, TICKS - 20, 3)
    with np.load(tmp_path / "part.npz") as arrays, Recording(path) as recording:
        np.testing.assert_array_equal(arrays["cortex.x.tick"], wanted)
        np.testing.assert_array_equal(arrays["cortex.x"], recording.values("cortex.x")[wanted][:, 1:])
        spikes = recording.spikes("cortex.spikes")
        keep = np.isin(spikes.times, wanted) & (spikes.ids > 0)
        np.testing.assert_array_equal(arrays["cortex.spikes.times"], spikes.times[keep])


def read(out):
    import pandas as pd

    return pd.read_csv(out) if out.suffix == ".csv" else pd.read_parquet(out)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
class TestTables:
    def test_fields_are_columns(self, path, tmp_path, suffix):
        out = tmp_path / f"table{suffix}"
        export(path, out, ["cortex.drive"])
        table = read(out)
        assert table.columns.tolist() == ["tick", "time_s", "neuron", "cortex.drive"]
        np.testing.assert_array_equal(table["time_s"], table["tick"] * DT)
        wide = table.pivot(index="tick", columns="neuron", values="cortex.drive")
        np.testing.assert_array_equal(wide, values(path, "cortex.drive"))
        np.testing.assert_array_equal(wide.index, np.arange(9, TICKS, 10))

    def test_copies_are_columns_too(self, swept, tmp_path, suffix, monkeypatch):
        import engrax.recordings.handover.common as common

        monkeypatch.setattr(common, "BLOCK_BYTES", 1000)  # several blocks
        out = tmp_path / f"table{suffix}"
        export(swept, out, ["cortex.x"], neurons=slice(1, None))
        table = read(out).set_index(["tick", "point", "batch", "neuron"])["cortex.x"]
        assert len(table) == 60 * 2 * 3 * 2
        x = values(swept, "cortex.x")
        assert all(
            table[2 * k + 1, p, b, n] == x[k, p, b, n]
            for k in (0, 7, 59)
            for p in (0, 1)
            for b in (0, 2)
            for n in (1, 2)
        )

    def test_synapses_have_their_ends(self, swept, path, tmp_path, suffix):
        out = tmp_path / f"sparse{suffix}"
        export(swept, out, ["cortex->cortex.w"], ticks=slice(-1, None))
        table = read(out)
        assert table.columns.tolist() == ["tick", "time_s", "point", "synapse", "post", "pre", "cortex->cortex.w"]
        one = table[table["point"] == 1]
        with Recording(swept) as recording:
            np.testing.assert_array_equal(one[["post", "pre"]].T, recording.synapses("cortex->cortex"))
            np.testing.assert_array_equal(one["cortex->cortex.w"], recording.weights("cortex->cortex")[1])
        out = tmp_path / f"dense{suffix}"
        export(path, out, ["retina->cortex.w"])
        table = read(out).set_index(["tick", "post", "pre"])["retina->cortex.w"]
        assert table[29, 2, 1] == values(path, "retina->cortex.w")[2, 2, 1]

    def test_spikes_are_rows(self, swept, tmp_path, suffix):
        out = tmp_path / f"spikes{suffix}"
        export(swept, out, ["cortex.spikes"])
        table = read(out)
        assert table.columns.tolist() == ["tick", "time_s", "point", "batch", "neuron"]
        with Recording(swept) as recording:
            spikes = recording.spikes("cortex.spikes")
        np.testing.assert_array_equal(
            table[["tick", "point", "batch", "neuron"]].T, [spikes.times, spikes.point, spikes.batch, spikes.ids]
        )

    def test_nothing_chosen_is_an_empty_table(self, path, tmp_path, suffix):
        out = tmp_path / f"empty{suffix}"
        export(path, out, ["cortex.x"], ticks=slice(50, 50))
        assert read(out).columns.tolist() == ["tick", "time_s", "neuron", "cortex.x"]
        assert len(read(out)) == 0

    def test_fields_of_other_dimensions_do_not_fit(self, path, tmp_path, suffix):
        with pytest.raises(RecordingError, match=r"choose fields=\['cortex.x'\] or fields=\['cortex.drive'\].*npz"):
            export(path, tmp_path / f"table{suffix}", ["cortex.x", "cortex.drive"])
        assert list(tmp_path.iterdir()) == []


def test_fields_that_share_dimensions_share_a_table(tmp_path):
    path = tmp_path / "run.h5"
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=Poisson(), size=2)
    net.add_edge("a", "a")
    with (sim := Simulator(net)).record(path, {"a.x": 1, "a.drive": 1}):
        sim.run(ticks=50)
    export(path, tmp_path / "table.csv")
    table = read(tmp_path / "table.csv")
    assert table.columns.tolist() == ["tick", "time_s", "neuron", "a.drive", "a.x"]
    np.testing.assert_array_equal(table["a.drive"], values(path, "a.drive").ravel())
    np.testing.assert_array_equal(table["a.x"], values(path, "a.x").ravel())


def test_export_says_what_there_is(path, tmp_path):
    with pytest.raises(RecordingError, match=r"run.h5 holds no 'cortex.y'; there are: .*cortex.x.*cortex.spikes"):
        export(path, tmp_path / "a.csv", ["cortex.y"])
    with pytest.raises(RecordingError, match=r"a.xlsx: export writes .csv, .parquet, .npz"):
        export(path, tmp_path / "a.xlsx")
    with pytest.raises(RecordingError, match=r"cortex.x has no neuron 3; it has 3, from 0 to 2"):
        export(path, tmp_path / "a.csv", ["cortex.x"], neurons=[1, 3])
    with pytest.raises(RecordingError, match=r"cortex.some has no neuron 1; it has 2, from 0 to 2"):
        export(path, tmp_path / "a.npz", ["cortex.some"], neurons=[1])
    export(path, tmp_path / "a.npz")
    with pytest.raises(RecordingError, match=r"a.npz exists already.*overwrite=True"):
        export(path, tmp_path / "a.npz")
    export(path, tmp_path / "a.npz", ["cortex.x"], overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


# What is missing


@pytest.mark.parametrize(
    ("module", "call", "said"),
    [
        ("neo", lambda path, out: to_neo(path), r"to_neo needs neo: pip install 'engrax\[neo\]'"),
        ("pynwb", lambda path, out: to_nwb(path, out / "a.nwb"), r"to_nwb needs pynwb: pip install 'engrax\[nwb\]'"),
        ("pandas", lambda path, out: export(path, out / "a.csv", ["cortex.x"]), r"export to .csv needs pandas: pip"),
        ("pyarrow", lambda path, out: export(path, out / "a.parquet", ["cortex.x"]), r"needs pyarrow: .*\[export\]"),
    ],
)  # fmt: skip
def test_a_missing_library_is_named(path, tmp_path, monkeypatch, module, call, said):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecordingError, match=said):
        call(path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sonata_and_networkx_need_nothing_more(path, tmp_path, monkeypatch):
    for module in ("neo", "pynwb", "libsonata", "pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    to_sonata(path, tmp_path / "circuit")
    assert to_networkx(path).number_of_edges() == 16


@pytest.mark.parametrize("out", [None, to_nwb, to_sonata, export])
def test_what_is_no_recording_is_refused(tmp_path, out):
    path = tmp_path / "no.h5"
    path.write_text("nothing")
    for call in (to_neo, to_networkx) if out is None else (lambda path: out(path, tmp_path / "a.npz"),):
        with pytest.raises(RecordingError, match=r"no.h5 is no recording"):
            call(path)
    assert list(tmp_path.iterdir()) == [path]
