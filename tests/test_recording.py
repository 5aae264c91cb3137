"""The HDF5 file: what it says of itself, and what other readers see in it."""

import json

import h5py
import networkx as nx
import numpy as np
import pytest
import xarray

from engrax import Phase, RecordingError, SimulationError, Simulator, networks as nets, rules, sweep


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
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
    made = json.loads(attributes["network"])
    assert made["populations"]["cortex"] == {
        "neuron": {"class": "Rate", "lateral": None, "activation": "tanh", "bias": 0.0}, "shape": [3],
    }  # fmt: skip
    edge = made["projections"]["retina->cortex"]
    assert edge["locality"] == "synapse"
    assert edge["rule"]["rule"]["class"] == "BCM"
    assert edge["rule"]["rule"]["eta"] == 0.01
    assert (attributes["seed"], attributes["dt"]) == (3, 1e-3)
    assert {"engrax", "jax", "python"} <= set(json.loads(attributes["versions"]))
    assert [run["ticks"] for run in json.loads(attributes["protocol"])] == [60, 60]


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
        assert json.loads(file.attrs["protocol"])[0]["trials"] == 10


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
    with h5py.File(path) as file:
        assert list(file) == ["cortex"]


def test_unknown_names_make_no_file(tmp_path):
    with pytest.raises(SimulationError, match=r"'cortex.y'; there are: .*cortex.x.*retina->cortex.theta"):
        Simulator(network()).record(tmp_path / "no.h5", {"cortex.y": 1})
    assert not (tmp_path / "no.h5").exists()
    with pytest.raises(RecordingError, match="cannot be written"):
        Simulator(network()).record(tmp_path / "nowhere" / "no.h5", {"cortex.x": 1})


def test_a_failing_disk_is_told_once_and_what_was_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "full.h5"
    sim = Simulator(network())
    recorder = sim.record(path, {"cortex.x": 1})
    append = recorder._writer._append
    calls = []

    def failing(*args):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        append(*args)

    monkeypatch.setattr(recorder._writer, "_append", failing)
    with pytest.raises(RecordingError, match=r"full.h5.*it holds what came before.*No space left"), recorder:
        sim.run({"retina": data(100)}, chunk=10)
    with h5py.File(path) as file:
        assert len(file["cortex/x"]) == 20


def test_recording_does_not_grow_memory(tmp_path):
    """The writer's queue is bounded: at most a few chunks are held, however long the run."""
    sim = Simulator(network())
    recorder = sim.record(tmp_path / "long.h5", {"cortex.x": 1})
    held = []
    with recorder:
        sim.run(
            {"retina": lambda index, key: np.zeros(4)}, ticks=2000, chunk=20,
            callbacks=[lambda s: held.append(recorder._writer._queue.qsize())],
        )  # fmt: skip
    assert max(held) <= 4
    assert not any(recorder._kept.values())
