"""The HDF5 file: what it says of itself, and what other readers see in it."""

import json
from typing import ClassVar

import h5py
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import xarray

import engrax
from engrax import (
    Fields,
    Phase,
    Probe,
    Recording,
    RecordingError,
    SimulationError,
    Simulator,
    networks as nets,
    probes,
    rules,
    sweep,
)
from engrax.recordings.recorder import QUEUE


def network(**edge):
    net = nx.MultiDiGraph()
    net.add_node("retina", neuron=nets.Input(), size=4)
    net.add_node("cortex", neuron=nets.Rate(), size=3)
    net.add_edge("retina", "cortex", rule=rules.Bounded(rules.BCM(eta=0.01), low=-1.0), **edge)
    return net


def data(ticks, *shape):
    return np.random.default_rng(0).normal(size=(ticks, *(shape or (4,))))


FIELDS = {"cortex.x": 1, "cortex.drive": 1, "retina->cortex.w": 10, "retina->cortex.theta": 25}


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "run.h5"
    sim = Simulator(network(), seed=3)
    with sim.record(path, FIELDS):
        sim.run({"retina": data(60)}, chunk=20)
        sim.run({"retina": data(60)}, chunk=17)
    kept = Simulator(network(), seed=3).run({"retina": np.concatenate([data(60)] * 2)}, record=FIELDS)
    return path, kept


def test_every_axis_has_its_scale_and_every_dataset_its_units(recorded):
    path, kept = recorded
    with h5py.File(path) as file:
        for field in FIELDS:
            dataset = file[field.replace(".", "/")]
            np.testing.assert_array_equal(dataset[:], kept[field])
            assert dataset.attrs["units"] == "1"
            assert dataset.attrs["long_name"]
            for dimension, length in zip(dataset.dims, dataset.shape, strict=True):
                (scale,) = dimension.values()
                assert len(scale) == length
        np.testing.assert_array_equal(file["cortex/tick"], np.arange(120))
        np.testing.assert_array_equal(file["retina->cortex/tick_10"], np.arange(9, 120, 10))
        np.testing.assert_array_equal(file["retina->cortex/tick_25"], [24, 49, 74, 99])


@pytest.mark.parametrize("engine", ["h5netcdf"])
def test_xarray_finds_names_and_coordinates(recorded, engine):
    path, kept = recorded
    with xarray.open_dataset(path, group="retina->cortex", engine=engine) as dataset:
        assert dataset.w.dims == ("tick_10", "post", "pre")
        np.testing.assert_array_equal(dataset.w.sel(tick_10=59), kept["retina->cortex.w"][5])
    with xarray.open_datatree(path, engine=engine) as tree:
        assert tree["cortex"].x.sel(tick=slice(10, 19)).mean("tick").shape == (3,)


def test_the_file_says_what_made_it(recorded):
    path, _ = recorded
    with Recording(path) as recording:
        attributes, runs = recording.attributes, recording.runs
    made = json.loads(attributes["network"])
    assert made["populations"]["cortex"]["neuron"] == {
        "class": "Rate", "lateral": None, "activation": {"function": "tanh"}, "bias": 0.0,
    }  # fmt: skip
    assert made["populations"]["cortex"]["shape"] == [3]
    edge = made["projections"]["retina->cortex"]
    assert edge["locality"] == "synapse"
    assert edge["rule"]["rule"]["class"] == "BCM"
    assert edge["rule"]["rule"]["eta"] == 0.01
    assert (attributes["seed"], attributes["dt"]) == (3, 1e-3)
    assert {"engrax", "jax", "python"} <= set(json.loads(attributes["versions"]))
    assert [(run["tick"], run["units"]) for run in runs] == [(0, 60), (60, 60)]


def test_trials_batches_and_sweeps_have_their_axes(tmp_path):
    path = tmp_path / "sweep.h5"
    sim = sweep(network(), {"seed": [1, 2, 3]})
    with sim.record(path, {"cortex.x": 1, "retina->cortex.w": 8, "retina->cortex.theta": 4}):
        phases = [Phase("a", 3, plastic="last", hold=True), Phase("b", 1)]
        sim.run({"retina": {"a": data(10, 5, 4), "b": data(10, 5, 4)}}, trial=phases, chunk=4)
    with h5py.File(path) as file:
        assert file["cortex/x"].shape == (40, 3, 5, 3)
        assert [next(iter(d.values())).name for d in file["cortex/x"].dims] == [
            "/cortex/tick", "/cortex/point", "/cortex/batch", "/cortex/neuron",
        ]  # fmt: skip
        assert file["retina->cortex/w"].shape == (5, 3, 3, 4)
        np.testing.assert_array_equal(file["retina->cortex/tick_8"], np.arange(7, 40, 8))
        assert file["retina->cortex/theta"].shape == (10, 3, 3, 4)
        np.testing.assert_array_equal(file["retina->cortex/w"][-1], sim.params["retina->cortex"].w)
        assert json.loads(file.attrs["points"]) == [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    with Recording(path) as recording:
        assert recording.runs[0]["units"] == 10
        assert [phase["name"] for phase in recording.runs[0]["phases"]] == ["a", "b"]


def test_sparse_weights_come_with_their_neurons(tmp_path):
    path = tmp_path / "sparse.h5"
    graph = nx.barabasi_albert_graph(40, 2, seed=1)  # in-degrees from 2 to beyond 8: several blocks
    net = nx.MultiDiGraph()
    net.add_node("all", neuron=nets.Rate(), size=40)
    net.add_edge("all", "all", topology=graph, rule=rules.Oja(eta=0.01))
    sim = Simulator(net)
    with sim.record(path, {"all->all.w": 5}):
        sim.run({"all": data(20, 40)})
    with xarray.open_dataset(path, group="all->all", engine="h5netcdf") as edge:
        assert edge.w.dims == ("tick_5", "synapse")
        found = {(int(p), int(q)) for p, q in zip(edge.pre.values, edge.post.values, strict=True)}
        assert found == {(u, v) for a, b in graph.edges for u, v in ((a, b), (b, a))}
        np.testing.assert_array_equal(edge.w[-1], sim.params["all->all"].w)


def test_an_existing_file_is_kept_unless_told(recorded):
    path, _ = recorded
    size = path.stat().st_size
    sim = Simulator(network())
    with pytest.raises(RecordingError, match=r"exists already.*overwrite=True"):
        sim.record(path, FIELDS)
    assert path.stat().st_size == size
    with sim.record(path, {"cortex.x": 1}, overwrite=True):
        sim.run({"retina": data(5)})
    with Recording(path) as recording:
        assert list(recording.fields) == ["cortex.x"]


def test_unknown_names_make_no_file(tmp_path):
    with pytest.raises(SimulationError, match=r"'cortex.y'; there are: .*cortex.x.*retina->cortex.theta"):
        Simulator(network()).record(tmp_path / "no.h5", {"cortex.y": 1})
    assert not (tmp_path / "no.h5").exists()
    with pytest.raises(RecordingError, match="cannot be written"):
        Simulator(network()).record(tmp_path / "nowhere" / "no.h5", {"cortex.x": 1})


def test_recording_does_not_grow_memory(tmp_path):
    """The writer's queue is bounded: at most a few chunks are held, however long the run."""
    sim = Simulator(network())
    recorder = sim.record(tmp_path / "long.h5", {"cortex.x": 1})
    held = []
    with recorder:
        sim.run(
            {"retina": lambda index, key: np.zeros(4)}, ticks=2000, chunk=20,
            callbacks=[lambda s: held.append(recorder.sink._queue.qsize())],
        )  # fmt: skip
    assert max(held) <= QUEUE


def test_probes_reduce_choose_and_time(tmp_path):
    """Each against the same made of the full samples."""
    net = network()
    net.add_edge("cortex", "cortex", topology=nets.Probability(0.7, seed=2), rule=rules.Hebb(eta=0.01))
    fields = {
        "cortex.x": 1,
        "retina->cortex.w": 1,
        "cortex->cortex.w": 1,
        "cortex.rate": Probe("cortex.x", every=5, reduce=probes.mean),
        "cortex.two": Probe("cortex.x", neurons=[0, 2]),
        "retina->cortex.rows": Probe("retina->cortex.w", every=7, neurons=[1]),
        "cortex->cortex.onto2": Probe("cortex->cortex.w", every=7, neurons=[2]),
        "retina->cortex.given": Probe("retina->cortex.w", at=[0, 3, 41, 99]),
        "retina->cortex.length": Probe("retina->cortex.w", every=10, reduce=probes.norm),
        "cortex->cortex.change": Probe("cortex->cortex.w", every=3, reduce=probes.update_norm),
        "retina->cortex.spread": Probe("retina->cortex.w", every=20, reduce=probes.histogram(-0.2, 0.2, 8)),
        "cortex.largest": Probe("cortex.x", reduce=lambda now: now.max()),
        "signals.count": 4,
    }
    sim = Simulator(net, seed=1)
    with sim.record(tmp_path / "p.h5", fields):
        kept = sim.run({"retina": data(100)}, record=fields)
    x, w, sparse = kept["cortex.x"], kept["retina->cortex.w"], kept["cortex->cortex.w"]
    post, _ = sim.synapses("cortex->cortex")
    before = np.linalg.norm(np.diff(sparse, axis=0), axis=-1)
    expected = {
        "cortex.rate": x[4::5].mean(-1),
        "cortex.two": x[:, [0, 2]],
        "retina->cortex.rows": w[6::7][:, [1]],
        "cortex->cortex.onto2": sparse[6::7][:, post == 2],
        "retina->cortex.given": w[[0, 3, 41, 99]],
        "retina->cortex.length": np.linalg.norm(w[9::10], axis=(-2, -1)),
        "cortex->cortex.change": before[1::3],
        "retina->cortex.spread": np.stack(
            [np.histogram(np.clip(v, -0.199, 0.199), 8, (-0.2, 0.2))[0] for v in w[19::20]]
        ),
        "cortex.largest": x.max(-1),
        "signals.count": np.arange(3, 100, 4),
    }
    with Recording(tmp_path / "p.h5") as recording:
        for name, values in expected.items():
            np.testing.assert_allclose(kept[name], values, rtol=1e-12, atol=1e-15, err_msg=name)
            np.testing.assert_array_equal(recording.values(name), kept[name])
        np.testing.assert_array_equal(recording.ticks("retina->cortex.given"), [0, 3, 41, 99])
        assert recording.file["cortex/two"].dims[1][0][:].tolist() == [0, 2]
        np.testing.assert_allclose(recording.file["retina->cortex/bin"][:2], [-0.175, -0.125])


class Coin(nets.Neuron):
    """A spike with probability 0.2."""

    noise: ClassVar = "uniform"

    def init(self):
        return Fields(x=0.0)

    def step(self, noise):
        return Fields(x=jnp.where(noise < 0.2, 1.0, 0.0))


def test_spikes_are_flat_events(tmp_path):
    net = nx.MultiDiGraph()
    net.add_node("coins", neuron=Coin(), size=7)
    net.add_node("sum", neuron=nets.Linear(), size=1)
    net.add_edge("coins", "sum")
    fields = {"coins.spikes": 1, "coins.x": 1}
    sim = sweep(net, {"seed": [1, 2]})
    with sim.record(tmp_path / "s.h5", fields):
        kept = sim.run({"sum": np.zeros((50, 3, 1))}, record=fields)
    ticks, points, batches, ids = np.nonzero(kept["coins.x"])
    with Recording(tmp_path / "s.h5") as recording:
        for spikes in (recording.spikes("coins.spikes"), kept["coins.spikes"]):
            np.testing.assert_array_equal(spikes.times, ticks)
            np.testing.assert_array_equal(spikes.ids, ids)
            np.testing.assert_array_equal(spikes.batch, batches)
            np.testing.assert_array_equal(spikes.point, points)
            assert spikes.size == 7
    with xarray.open_dataset(tmp_path / "s.h5", group="coins/spikes", engine="h5netcdf") as dataset:
        assert dataset.times.dims == ("spike",)


def test_signals_of_each_phase_are_recorded(tmp_path):
    sim = Simulator(network())
    phases = [Phase("a", 2, signals={"reward": 0.5}), Phase("b", 1)]
    net = network()
    nets.set_rule(net, rules.Gated(rules.Hebb(eta=0.01), "reward"))
    sim = Simulator(net)
    given = {"a": data(6), "b": data(3)}
    with pytest.raises(rules.RuleError, match="reward"):
        sim.run({"retina": given}, trial=phases)
    phases[1] = Phase("b", 1, signals={"reward": -1.0})
    kept = sim.run({"retina": given}, trial=phases, record={"signals.reward": 1, "signals.count": 3})
    np.testing.assert_array_equal(kept["signals.reward"], [0.5, 0.5, -1.0] * 3)
    np.testing.assert_array_equal(kept["signals.count"], [0, 1, 2])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"signals.reward": 1}, "signals.count"),
        ({"cortex.y": Probe("cortex.nothing")}, "cortex.x"),
        ({"retina.y": Probe("cortex.x")}, "call it 'cortex.'"),
        ({"cortex.tick": Probe("cortex.x")}, "no axis"),
        ({"cortex.x": Probe(neurons=[3])}, "neuron 3 of 3"),
        ({"cortex.spikes": 2}, "ticks of their own"),
        ({"cortex.m": Probe("cortex.x", reduce=lambda now: now.nothing)}, "cannot be run"),
    ],
)
def test_probes_that_cannot_be(tmp_path, fields, message):
    with pytest.raises(SimulationError, match=message):
        Simulator(network()).record(tmp_path / "no.h5", fields)
    assert not (tmp_path / "no.h5").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"at": [3, 1]},
        {"neurons": []},
        {"at": [1], "every": 2},
        {"every": 1.5},
        {"reduce": lambda future: 0},
    ],
)
def test_probes_that_make_no_sense(options):
    with pytest.raises(SimulationError, match=r"record 'cortex\.x'"):
        Probe("cortex.x", **options)


@pytest.mark.parametrize("compression", ["gzip", "lzf", 4])
def test_compressed_files_hold_the_same(tmp_path, compression, recorded):
    path = tmp_path / "packed.h5"
    sim = Simulator(network(), seed=3)
    with sim.record(path, FIELDS, compression=compression, chunk=16, flush_every="5 ticks"):
        sim.run({"retina": data(60)}, chunk=20)
        sim.run({"retina": data(60)}, chunk=17)
    for field, values in recorded[1].items():
        with Recording(path) as recording:
            np.testing.assert_array_equal(recording.values(field), values)
            assert recording.fields[field].chunks[0] == 16
            assert recording.fields[field].compression


def test_open_gives_a_tree_with_named_axes_and_times(recorded):
    path, kept = recorded
    tree = engrax.open(path)
    assert tree["cortex"].x.dims == ("tick", "neuron")
    np.testing.assert_array_equal(tree["cortex"].x, kept["cortex.x"])
    np.testing.assert_allclose(tree["retina->cortex"].w.time_10, np.arange(9, 120, 10) * 1e-3)
    assert tree["cortex"].time.attrs["units"] == "s"
    assert tree.attrs["network"]["projections"]["retina->cortex"]["rule"]["class"] == "Bounded"
    assert set(tree.children) == {"cortex", "retina->cortex"}
    tree.close()
