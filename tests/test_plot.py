"""Pictures of small recordings: what is drawn are the recorded numbers, and every axis says its unit."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.signal

from engrax import Probe, Recording, RecordingError, Simulator, networks, plots, probes, rules, sweep
from engrax.plots import activity, learning, parts, weights

DT = 2e-3
TICKS = 400
BEAT = 40.0  # Hz, of the drive
LISTENED = (1, 4)


def net() -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    graph.add_node("retina", neuron=networks.Input(), size=(3, 4))
    graph.add_node("cortex", neuron=networks.Linear(), size=10)
    graph.add_node("pool", neuron=networks.Linear(lateral=networks.KWinners(2)), size=6)
    graph.add_edge("retina", "cortex", rule=rules.Oja(eta=1e-2))
    graph.add_edge("cortex", "pool", topology=networks.FixedInDegree(3), rule=rules.Oja(eta=1e-2))
    return graph


def small() -> nx.MultiDiGraph:
    """Dollar signs begin no formula."""
    graph = nx.MultiDiGraph()
    graph.add_node("in$", neuron=networks.Input(), size=1)
    graph.add_node("out$", neuron=networks.Linear(), size=1)
    graph.add_edge("in$", "out$", weights=0.0)
    return graph


def drive(ticks: int = TICKS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    beat = np.sin(2 * np.pi * BEAT * DT * np.arange(ticks))[:, None]
    return {"retina": (rng.random((ticks, 12)) < 0.1).astype(float), "cortex": beat + rng.normal(0, 0.1, (ticks, 10))}


FIELDS = {
    "retina.spikes": 1,
    "pool.spikes": 1,
    "cortex.x": 1,
    "pool.x": 1,
    "retina->cortex.w": 10,
    "cortex->pool.w": 20,
    "cortex.norm": Probe("cortex.x", reduce=probes.norm),
    "cortex.histogram": Probe("cortex.x", every=10, reduce=probes.histogram(-2, 2, 20)),
}
SOME = {
    "retina.some": Probe("retina.x", neurons=(0, 2, 3, 5, 6, 7, 8, 9, 11)),
    "pool.some": Probe("pool.x", neurons=LISTENED),
    "pool.heard": Probe("pool.spikes", neurons=LISTENED),
    "retina->cortex.some": Probe("retina->cortex.w", every=50, neurons=LISTENED),
    "cortex->pool.some": Probe("cortex->pool.w", every=50, neurons=LISTENED),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, recorded in several ways."""
    folder = tmp_path_factory.mktemp("plot")
    sim = Simulator(net(), seed=1, dt=DT)
    ways = {"a": FIELDS, "some": SOME, "w": {"cortex->pool.w": 20}, "x": {"cortex.x": 1}, "nothing": {}}
    with contextlib.ExitStack() as recorders:
        for name, fields in ways.items():
            recorders.enter_context(sim.record(folder / f"{name}.h5", fields))
        sim.run(drive(), chunk=TICKS)
    return folder


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "a.h5"


@pytest.fixture
def some(folder: Path) -> Path:
    return folder / "some.h5"


def draw(path: Path, *what: str) -> Any:
    with Recording(path) as source:
        return plots.recording(source, what, title=path.name)


def drawn(figure: Any) -> bool:
    """To the last label: warnings are errors."""
    figure.savefig(io.BytesIO(), dpi=30)
    return True


def values(path: Path, field: str) -> np.ndarray:
    with Recording(path) as source:
        return source.values(field)


def heads(figure: Any) -> list[str]:
    return [row._suptitle.get_text() for row in figure.subfigs]


CLOCK = "tick (1 tick = 2 ms)"
X, W = "x (dimensionless)", "w (dimensionless)"


@pytest.mark.parametrize(
    ("what", "labels"),
    [
        (["raster"], [("", "pool\nneuron"), (CLOCK, "retina\nneuron")]),
        (["rate", "pool.spikes"], [(CLOCK, "rate (spikes/s per neuron)\nGaussian kernel, s.d. 6 ms")]),
        (["rate", "cortex.x"], [(CLOCK, X)]),
        (["cortex.x"], [(CLOCK, "neuron"), (CLOCK, X), ("", X)]),
        (["pool.x"], [(CLOCK, X)]),
        (
            ["cortex.histogram"],
            [(CLOCK, "bin"), ("bin", "histogram (dimensionless)"), ("", "histogram (dimensionless)")],
        ),
        (["cortex->pool.w"], [("pre neuron", "post neuron")] * 2 + [(W, "synapses"), ("", W)]),
        (["retina->cortex.w"], [("3 x 4 pre neurons per post neuron", "")] * 2 + [("", W)]),
        (["fields", "cortex->pool.w"], [("pre neuron", W)] * 2),
        (["spectrum", "cortex.x"], [("frequency (Hz)", "power spectral density\nof x (1/Hz)")]),
        (["spectrum", "cortex->pool.w"], [("rank", "singular values of w\n(dimensionless)")]),
        (["curve", "cortex.norm"], [(CLOCK, "norm (dimensionless)")]),
        (
            ["curve", "retina->cortex.w"],
            [
                (CLOCK, "norm of w per post neuron\n(dimensionless)"),
                (CLOCK, "norm of the change of w\nin 10 ticks (dimensionless)"),
            ],
        ),
    ],
)
def test_every_axis_has_a_label_with_its_unit(path: Path, what: list[str], labels: list[tuple[str, str]]) -> None:
    figure = draw(path, *what)
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes] == labels


def test_without_a_word_every_field_is_drawn_in_the_way_that_suits_it(path: Path) -> None:
    figure = draw(path)
    assert heads(figure)[0] == "pool.spikes, retina.spikes"
    assert sorted(heads(figure)[1:]) == sorted(set(FIELDS) - {"pool.spikes", "retina.spikes"})
    assert figure._suptitle.get_text() == "a.h5"
    assert drawn(figure)


def test_a_kind_draws_all_that_it_can(path: Path) -> None:
    assert heads(draw(path, "raster", "rate")) == ["pool.spikes, retina.spikes"] * 2 + ["cortex.x", "pool.x"]
    for kind in ("weights", "fields"):
        assert heads(draw(path, kind)) == ["cortex->pool.w", "retina->cortex.w"]
    assert heads(draw(path, "spectrum")) == ["cortex.x", "cortex->pool.w", "pool.x", "retina->cortex.w"]
    assert heads(draw(path, "curve")) == ["cortex.norm", "cortex->pool.w", "retina->cortex.w"]
    assert heads(draw(path, "curve", "rate", "pool.x", "cortex.norm")) == ["cortex.norm", "pool.x"]
    assert drawn(draw(path, *plots.KINDS, "pool.spikes", "pool.x", "cortex->pool.w"))


# Spikes


def test_raster_marks_are_the_recorded_spikes(path: Path) -> None:
    figure = draw(path, "raster")
    with Recording(path) as source:
        for ax, name in zip(figure.axes, ("pool.spikes", "retina.spikes"), strict=True):
            spikes = source.spikes(name)
            assert len(spikes.times) > 100
            (marks,) = ax.collections
            np.testing.assert_array_equal(marks.get_offsets(), np.stack([spikes.times, spikes.ids], 1))
            assert ax.get_xlim() == (-0.5, TICKS - 0.5)
            assert ax.get_ylim() == (-0.5, spikes.size - 0.5)
    first, second = (ax.collections[0].get_edgecolor() for ax in figure.axes)
    assert not np.array_equal(first, second)
    seconds = figure.axes[0].child_axes[0]
    assert seconds.get_xlabel() == "time (s)"
    assert drawn(figure)
    np.testing.assert_allclose(seconds.get_xlim(), (-0.5 * DT, (TICKS - 0.5) * DT))


def test_very_many_spikes_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "DOTS", 10)
    monkeypatch.setattr(activity, "COLUMNS", 150)
    monkeypatch.setattr(activity, "SIDE", 4)
    monkeypatch.setattr(parts, "BLOCK", 64)
    ax, colours = draw(path, "raster", "retina.spikes").axes
    image = ax.images[0]
    with Recording(path) as source:
        spikes = source.spikes("retina.spikes")
    expected = np.zeros((4, 134))  # 3 neurons and 3 ticks a bin
    np.add.at(expected, (spikes.ids // 3, spikes.times // 3), 1 / (3 * 3 * DT))
    np.testing.assert_allclose(np.asarray(image.get_array()), expected)
    assert image.get_extent() == [-0.5, 401.5, -0.5, 11.5]
    assert colours.get_ylabel() == "rate (spikes/s)"


@pytest.mark.parametrize("bins", [TICKS, 90])
def test_rates_integrate_to_the_number_of_spikes(path: Path, bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "BINS", bins)
    (ax,) = draw(path, "rate", "retina.spikes", "pool.spikes").axes
    with Recording(path) as source:
        for line, name in zip(ax.lines, ("retina.spikes", "pool.spikes"), strict=True):
            spikes = source.spikes(name)
            ticks, rate = line.get_data()
            width = (ticks[1] - ticks[0]) * DT
            assert np.sum(rate) * width * spikes.size == pytest.approx(len(spikes.times))
            mean = len(spikes.times) / (spikes.size * TICKS * DT)
            assert line.get_label() == f"{name.removesuffix('.spikes')}\nmean {mean:.3g} spikes/s"


def test_the_rate_of_some_neurons_is_per_listened_neuron(some: Path) -> None:
    (ax,) = draw(some, "rate", "pool.heard").axes
    with Recording(some) as source:
        spikes = source.spikes("pool.heard")
    assert set(spikes.ids) == set(LISTENED)
    assert np.sum(ax.lines[0].get_ydata()) * DT * len(LISTENED) == pytest.approx(len(spikes.times))
    assert ax.lines[0].get_label().startswith("pool.heard\n")


def test_the_kernel_smooths_as_the_axis_says(path: Path) -> None:
    (ax,) = draw(path, "rate", "retina.spikes").axes
    assert "s.d. 6 ms" in ax.get_ylabel()
    with Recording(path) as source:
        spikes = source.spikes("retina.spikes")
    lag = np.arange(-30, 31)
    kernel = np.exp(-((lag * DT / 6e-3) ** 2) / 2)
    counts = np.bincount(spikes.times, minlength=TICKS) / (spikes.size * DT)
    expected = np.convolve(counts, kernel / kernel.sum(), "same")
    np.testing.assert_allclose(ax.lines[0].get_ydata()[30:-30], expected[30:-30], rtol=1e-3)  # it ends at 4 s.d.


# Sampled fields


def test_few_neurons_are_lines_through_the_recorded_values(path: Path) -> None:
    (ax,) = draw(path, "pool.x").axes
    recorded = values(path, "pool.x")
    assert [line.get_label() for line in ax.lines] == [str(i) for i in range(6)]
    for line, trace in zip(ax.lines, recorded.T, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), trace)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(TICKS))


def test_many_neurons_are_a_heat_map_with_mean_and_deviation(path: Path) -> None:
    heat, side, _ = draw(path, "cortex.x").axes
    recorded = values(path, "cortex.x")
    np.testing.assert_allclose(np.asarray(heat.images[0].get_array()), recorded.T)
    assert heat.get_xlim() == (0, TICKS)
    np.testing.assert_allclose(side.lines[0].get_ydata(), recorded.mean(1))
    (rate,) = draw(path, "rate", "cortex.x").axes
    corners = rate.collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx((recorded.mean(1) + recorded.std(1)).max())
    np.testing.assert_allclose(rate.lines[0].get_ydata(), recorded.mean(1))


def test_long_recordings_are_averaged_and_say_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "COLUMNS", 150)
    monkeypatch.setattr(parts, "BLOCK", 20)  # two samples at a time
    monkeypatch.setattr(activity, "SIDE", 5)
    heat = draw(path, "cortex.x").axes[0]
    recorded = values(path, "cortex.x")
    shown = np.asarray(heat.images[0].get_array())
    assert shown.shape == (5, 134)
    np.testing.assert_allclose(shown[1, 7], recorded[21:24, 2:4].mean())
    np.testing.assert_allclose(shown[4, -1], recorded[399, 8:].mean())
    assert heat.get_xlabel() == f"{CLOCK}, means of 3"
    assert heat.get_ylabel() == "neuron, means of 2"


def test_some_neurons_keep_their_numbers(some: Path) -> None:
    heat = draw(some, "retina.some").axes[0]
    assert [heat.yaxis.get_major_formatter()(row) for row in (0, 1, 8, 8.5, 9)] == ["0", "2", "11", "", ""]
    assert [line.get_label() for line in draw(some, "pool.some").axes[0].lines] == ["1", "4"]
    dense, sparse = (draw(some, "weights", name).axes[0] for name in ("retina->cortex.some", "cortex->pool.some"))
    for ax in (dense, sparse):
        assert [ax.yaxis.get_major_formatter()(row) for row in (0, 1)] == ["1", "4"]
    with Recording(some) as source:
        post, pre = source.synapses("cortex->pool")
    for row, neuron in enumerate(LISTENED):
        there = np.flatnonzero(np.isfinite(np.ma.filled(sparse.images[0].get_array()[row], np.nan)))
        np.testing.assert_array_equal(there, np.sort(pre[post == neuron]))
    np.testing.assert_allclose(np.asarray(dense.images[0].get_array()), values(some, "retina->cortex.some")[0])
    assert drawn(draw(some))


def test_histograms_are_drawn_over_their_bins(path: Path) -> None:
    heat, side, _ = draw(path, "cortex.histogram").axes
    np.testing.assert_allclose(heat.get_ylim(), (-2, 2))
    recorded = values(path, "cortex.histogram")
    for line, counts in zip(side.lines, (recorded[0], recorded[-1]), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), counts)
        np.testing.assert_allclose(line.get_xdata(), np.linspace(-1.9, 1.9, 20))


# Weights


def test_matrices_are_drawn_first_and_last_on_one_scale(path: Path) -> None:
    first, last, distribution, _ = draw(path, "weights", "retina->cortex.w").axes
    recorded = values(path, "retina->cortex.w")
    for ax, w, tick in ((first, recorded[0], 9), (last, recorded[-1], 399)):
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), w)
        assert ax.get_title() == f"after tick {tick}"
    assert first.images[0].get_clim() == last.images[0].get_clim()
    bars = [patch.get_height() for patch in distribution.patches if patch.get_label() == "_nolegend_"]
    assert sum(bars) == recorded[-1].size


def test_sparse_matrices_show_where_no_synapse_is(path: Path) -> None:
    _, last, _, _ = draw(path, "weights", "cortex->pool.w").axes
    with Recording(path) as source:
        post, pre = source.synapses("cortex->pool")
    expected = np.full((6, 10), np.nan)
    expected[post, pre] = values(path, "cortex->pool.w")[-1]
    np.testing.assert_allclose(np.ma.filled(last.images[0].get_array(), np.nan), expected)


@pytest.mark.parametrize("projection", ["retina->cortex", "cortex->pool"])
def test_large_matrices_are_averaged_over_synapses(
    path: Path, projection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SIDE", 4)
    _, last, _, bar = draw(path, "weights", f"{projection}.w").axes
    with Recording(path) as source:
        post, pre = source.synapses(projection)
    w = values(path, f"{projection}.w")[-1].ravel()
    shown = np.ma.filled(last.images[0].get_array(), np.nan)
    for row, column in np.ndindex(shown.shape):
        inside = w[(post // 3 == row) & (pre // 3 == column)]
        np.testing.assert_allclose(shown[row, column], inside.mean() if inside.size else np.nan)
    assert bar.get_ylabel() == f"{W}\nmeans over 3 x 3 neurons"


def test_fields_on_a_grid_are_images(path: Path) -> None:
    _, last, _ = draw(path, "fields", "retina->cortex.w").axes
    np.testing.assert_allclose(
        np.ma.filled(last.images[0].get_array(), np.nan), weights.mosaic(values(path, "retina->cortex.w")[-1], (3, 4))
    )
    w = np.arange(3 * 6.0).reshape(3, 6)
    canvas = weights.mosaic(w, (2, 3))
    np.testing.assert_array_equal(canvas[:2, :3], w[0].reshape(2, 3))
    np.testing.assert_array_equal(canvas[:2, 4:7], w[1].reshape(2, 3))
    np.testing.assert_array_equal(canvas[3:, :3], w[2].reshape(2, 3))
    assert np.isnan(canvas).sum() == canvas.size - w.size


def test_fields_on_a_line_are_lines_and_some_of_many_are_said_to_be_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "LINES", 4)
    monkeypatch.setattr(weights, "FIELDS", 7)
    _, last = draw(path, "fields", "cortex->pool.w").axes
    with Recording(path) as source:
        post, pre = source.synapses("cortex->pool")
    recorded = values(path, "cortex->pool.w")[-1]
    for neuron, line in enumerate(last.lines):
        np.testing.assert_array_equal(line.get_ydata()[pre[post == neuron]], recorded[post == neuron])
        assert np.isnan(line.get_ydata()).sum() == 10 - 3
    assert len(last.lines) == 4
    assert last.get_legend().get_title().get_text() == "post neuron, 4 of 6"
    assert draw(path, "fields", "retina->cortex.w").axes[0].get_xlabel().endswith("per post neuron, 7 of 10")


# Spectra and learning curves


def test_the_spectrum_peaks_at_the_drive(path: Path) -> None:
    (ax,) = draw(path, "spectrum", "cortex.x").axes
    frequencies, power = ax.lines[0].get_data()
    assert frequencies[np.argmax(power)] == pytest.approx(BEAT)  # the resolution is 5 Hz
    expected = scipy.signal.welch(values(path, "cortex.x"), 1 / DT, nperseg=TICKS // 4, axis=0)[1].mean(1)
    np.testing.assert_allclose(power, expected[1:])


def test_the_spectrum_of_a_long_recording_is_a_mean_over_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "SEGMENT", 50)
    monkeypatch.setattr(learning, "BLOCK", 150)
    monkeypatch.setattr(learning, "NEURONS", 1)
    (ax,) = draw(path, "spectrum", "cortex.x").axes
    frequencies, power = ax.lines[0].get_data()
    assert ax.lines[0].get_label() == "mean over the first 1 neurons"
    recorded = values(path, "cortex.x")[:, 0]
    blocks = [recorded[k : k + 150] for k in (0, 150, 300)]
    each = [scipy.signal.welch(block, 1 / DT, nperseg=50)[1][1:] for block in blocks]
    np.testing.assert_allclose(power, np.average(each, 0, [150, 150, 100]))
    assert frequencies[np.argmax(power)] == pytest.approx(BEAT)


def test_uneven_and_few_samples_have_no_spectrum(tmp_path: Path) -> None:
    sim = Simulator(small(), dt=DT)
    with sim.record(tmp_path / "u.h5", {"in$.uneven": Probe("in$.x", at=(0, 1, 2, 3, 4, 5, 6, 9)), "in$.x": 2}):
        sim.run({"in$": np.ones((10, 1))}, chunk=1)
    uneven, few = draw(tmp_path / "u.h5", "spectrum", "in$.uneven", "in$.x").axes
    assert uneven.texts[0].get_text() == "the samples are not evenly spaced"
    assert few.texts[0].get_text() == "fewer than 8 samples"


@pytest.mark.parametrize("projection", ["retina->cortex", "cortex->pool"])
def test_singular_values_are_numpys(path: Path, projection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (ax,) = draw(path, "spectrum", f"{projection}.w").axes
    recorded = values(path, f"{projection}.w")
    with Recording(path) as source:
        post, pre = source.synapses(projection)
    assert len(ax.lines) == 3
    for line, k in zip(ax.lines, (0, len(recorded) // 2, len(recorded) - 1), strict=True):
        matrix = np.zeros((post.max() + 1, pre.max() + 1))
        matrix[post, pre] = recorded[k].ravel()
        np.testing.assert_allclose(line.get_ydata(), np.linalg.svd(matrix)[1], atol=1e-12)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(line.get_ydata()) + 1))
    monkeypatch.setattr(learning, "LARGEST", 5)
    assert draw(path, "spectrum", f"{projection}.w").axes[0].texts


@pytest.mark.parametrize("samples", [200, 7])
def test_learning_curves_are_norms_of_weights_and_of_their_changes(
    path: Path, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "SAMPLES", samples)
    norms, changes = draw(path, "curve", "retina->cortex.w").axes
    recorded = values(path, "retina->cortex.w")
    recorded = recorded if samples == 200 else recorded[3::6]  # to the last one
    ticks = np.arange(9, TICKS, 10) if samples == 200 else np.arange(39, TICKS, 60)
    np.testing.assert_array_equal(norms.lines[0].get_xdata(), ticks)
    np.testing.assert_allclose(norms.lines[0].get_ydata(), np.median(np.linalg.norm(recorded, axis=-1), axis=-1))
    np.testing.assert_array_equal(changes.lines[0].get_xdata(), ticks[1:])
    expected = np.linalg.norm(np.diff(recorded, axis=0), axis=(1, 2))
    np.testing.assert_allclose(changes.lines[0].get_ydata(), expected)
    assert f"in {10 if samples == 200 else 60} ticks" in changes.get_ylabel()


def test_norms_of_sparse_weights_are_per_post_neuron(path: Path) -> None:
    norms, _ = draw(path, "curve", "cortex->pool.w").axes
    with Recording(path) as source:
        post, _ = source.synapses("cortex->pool")
    squares = np.stack([(values(path, "cortex->pool.w")[:, post == i] ** 2).sum(1) for i in range(6)])
    np.testing.assert_allclose(norms.lines[0].get_ydata(), np.median(np.sqrt(squares), axis=0))


def test_reduced_fields_are_curves(path: Path) -> None:
    (ax,) = draw(path, "cortex.norm").axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.linalg.norm(values(path, "cortex.x"), axis=1))


# Copies of the network


def test_of_points_and_batch_the_first_copy_is_drawn_and_curves_show_the_points(tmp_path: Path) -> None:
    sim = sweep(net(), {"retina->cortex.eta": [1e-3, 1e-2, 1e-1], "seed": range(3)}, dt=DT)
    path = tmp_path / "s.h5"
    with sim.record(
        path, {"cortex.x": 1, "pool.spikes": 1, "retina->cortex.w": 5, "cortex.norm": FIELDS["cortex.norm"]}
    ):
        sim.run({name: np.stack([d, -d], 1) for name, d in drive(20).items()})
    with Recording(path) as source:
        spikes = source.spikes("pool.spikes")
        x, w, norm = (source.values(name) for name in ("cortex.x", "retina->cortex.w", "cortex.norm"))
    first = "point 0 of 9 (eta=0.001, seed=0)"
    figure = draw(path)
    assert heads(figure) == [
        f"pool.spikes, {first}, batch 0 of 2",
        "cortex.norm, points 0 to 7 of 9, batch 0 of 2",
        f"cortex.x, {first}, batch 0 of 2",
        f"retina->cortex.w, {first}",
    ]
    raster, curve, heat = (row.axes[0] for row in figure.subfigs[:3])
    here = (spikes.point == 0) & (spikes.batch == 0)
    marks = np.stack([spikes.times[here], spikes.ids[here]], 1)
    np.testing.assert_array_equal(raster.collections[0].get_offsets(), marks)
    for k, line in enumerate(curve.lines):
        np.testing.assert_array_equal(line.get_ydata(), norm[:, k, 0])
    assert curve.lines[3].get_label() == "eta=0.01, seed=0"
    np.testing.assert_allclose(np.asarray(heat.images[0].get_array()), x[:, 0, 0].T)
    norms, _ = draw(path, "curve", "retina->cortex.w").axes
    assert len(norms.lines) == 8
    np.testing.assert_allclose(norms.lines[4].get_ydata(), np.median(np.linalg.norm(w[:, 4], axis=-1), axis=-1))


# What cannot be drawn


def refused(path: Path, *what: str) -> str:
    with pytest.raises(RecordingError) as caught:
        draw(path, *what)
    return str(caught.value)


def test_an_unknown_word_is_answered_with_the_known_ones(path: Path) -> None:
    said = refused(path, "rastr")
    assert said.startswith(f"{path} has no field 'rastr', nor is that a kind of picture; fields: pool.spikes, retina.")
    assert said.endswith("kinds: raster, rate, activity, weights, fields, spectrum, curve")


def test_a_kind_without_data_says_what_to_record(folder: Path) -> None:
    path = folder / "w.h5"
    assert refused(path, "raster") == f"no spikes in {path}: record {{'pool.spikes': 1}}"
    assert refused(path, "weights", "activity").endswith("record {'pool.x': 1}")
    for kind in ("weights", "fields", "curve"):
        assert refused(folder / "x.h5", kind).endswith("x.h5: record {'cortex->pool.w': 100}")


def test_a_field_of_another_kind_is_refused(path: Path) -> None:
    assert refused(path, "raster", "cortex.x") == "raster draws spikes, not cortex.x"
    assert refused(path, "raster", "pool.spikes", "cortex.x") == "cortex.x cannot be drawn as raster"


def test_nothing_recorded_is_nothing_to_draw(folder: Path) -> None:
    assert "nothing to draw" in refused(folder / "nothing.h5")


def test_hardly_anything_is_drawn_too(tmp_path: Path) -> None:
    sim = Simulator(small(), dt=1.0)
    fields = {"in$.spikes": 1, "in$.x": 1, "out$.x": 50, "in$->out$.w": 1}
    with sim.record(tmp_path / "1.h5", fields):
        sim.run({"in$": np.zeros((1, 1))})
    figure = draw(tmp_path / "1.h5", *plots.KINDS)
    rows = zip(heads(figure), figure.subfigs, strict=True)
    said = {head: row.axes[0].texts[0].get_text() for head, row in rows if row.axes[0].texts}
    assert said == {
        r"in\$.spikes": "no spikes",
        r"out\$.x": "no samples",
        r"in\$.x": "fewer than 8 samples",
    }
    assert "tick (1 tick = 1 s)" in [ax.get_xlabel() for ax in figure.axes]
    assert drawn(figure)


def test_a_damaged_file_is_said_to_be_one(path: Path, tmp_path: Path) -> None:
    broken: Callable[..., Any] = lambda *_: 1 / 0  # noqa: E731
    with Recording(path) as source:
        source.synapses = broken  # type: ignore[method-assign]
        with pytest.raises(RecordingError, match=r"a\.h5 is damaged"):
            plots.recording(source, ["cortex->pool.w"])
