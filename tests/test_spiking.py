"""Spiking neurons against their differential equations, and timing-dependent rules against their published curves."""

import math
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from conftest import probe
from scipy.integrate import solve_ivp

from engrax import Recording, Rule, Simulator, networks as nets, resume, rules

DT = 1e-4


def alone(neuron: nets.Neuron, drive: dict[str, np.ndarray], fields: str = "x", dt: float = DT, n: int = 1) -> Any:
    """The fields (letters, or words separated by commas) of ``n`` neurons under drive of (ticks,) per port."""
    net = nx.MultiDiGraph()
    net.add_node("cell", neuron=neuron, size=n)
    net.add_node("sink", neuron=nets.Linear(), size=1)
    net.add_edge("cell", "sink")
    ticks = len(next(iter(drive.values())))
    given = {f"cell.{port}": np.repeat(values[:, None], n, 1) for port, values in drive.items()}
    names = [f"cell.{field}" for field in fields.split(",")]
    found = Simulator(net, dt=dt).run(given, ticks=ticks, record=dict.fromkeys(names, 1))
    return [found[name][:, 0] if n == 1 else found[name] for name in names]


# Neurons


def test_lif_fires_as_often_as_the_closed_form_says() -> None:
    r"""Interval: the refractory time and :math:`\tau \ln((E + d - v_r)/(E + d - \theta))`, up to the tick."""
    neuron = nets.LIF(rest=-65.0, threshold=-50.0, reset=-60.0, refractory=0.003)
    for d in (16.0, 20.0, 40.0):
        (x,) = alone(neuron, {"drive": np.full(5000, d)})
        intervals = np.diff(np.flatnonzero(x))
        charge = 0.02 * math.log((-65 + d + 60) / (-65 + d + 50)) / DT
        assert set(intervals) == {30 - 1 + math.ceil(charge)}


@pytest.mark.parametrize("tau_s", [0.005, 0.02, 0.04])
def test_lif_response_to_one_spike_is_exact(tau_s: float) -> None:
    neuron = nets.LIF(rest=-65.0, start=-65.0, tau=0.02, tau_excitatory=tau_s)
    (v,) = alone(neuron, {"excitatory": np.eye(1, 800, 3)[0] * 5.0}, "v")
    t = np.clip((np.arange(800) - 2) * DT, 0, None)
    if tau_s == 0.02:
        expected = 5 * t / 0.02 * np.exp(-t / 0.02)
    else:
        expected = 5 * tau_s / (tau_s - 0.02) * (np.exp(-t / tau_s) - np.exp(-t / 0.02))
    np.testing.assert_allclose(v + 65, expected, atol=1e-11)


def test_refractory_neurons_keep_their_potential() -> None:
    neuron = nets.LIF(rest=-40.0, refractory=0.001)
    x, v = alone(neuron, {"drive": np.zeros(600)}, "x,v")
    first = int(np.flatnonzero(x)[0])
    assert (v[first : first + 10] == -60).all()
    assert v[first + 10] > -60
    x, v = alone(nets.LIF(rest=-40.0, refractory=0.0), {"drive": np.zeros(600)}, "x,v")
    assert v[np.flatnonzero(x)[0] + 1] > -60


def test_parameters_of_single_neurons() -> None:
    neuron = nets.LIF(rest=np.array([-60.0, -45.0, -40.0]), threshold=-50.0)
    (x,) = alone(neuron, {"drive": np.zeros(5000)}, n=3)
    counts = x.sum(0)
    assert counts[0] == 0
    assert 0 < counts[1] < counts[2]


def test_conductances_converge_to_the_differential_equation() -> None:
    neuron = nets.ConductanceLIF(threshold=0.0)
    g0 = 3.0

    def slope(t: float, v: np.ndarray) -> np.ndarray:
        g = g0 * np.exp(-t / 0.005)
        return ((-60 - v) + g * (0 - v) + 0.5 * np.exp(-t / 0.01) * (-80 - v)) / 0.02

    end = solve_ivp(slope, (0, 0.02), [-60.0], rtol=1e-10, atol=1e-10).y[0, -1]
    errors = []
    for dt in (2e-4, 1e-4):
        ticks = round(0.02 / dt)
        (v,) = alone(neuron, {"excitatory": g0 * np.eye(1, ticks)[0], "inhibitory": 0.5 * np.eye(1, ticks)[0]}, "v", dt)
        errors.append(abs(v[-1] - end))
    assert errors[1] < 0.1
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)  # first order


def test_adaptive_threshold_spreads_the_spikes() -> None:
    x, a = alone(nets.AdaptiveLIF(), {"drive": np.full(10_000, 25.0)}, "x,a")
    intervals = np.diff(np.flatnonzero(x))
    assert (np.diff(intervals[:6]) > 0).all()
    assert a.max() == pytest.approx(1 / (1 - math.exp(-intervals[-1] * DT / 0.2)), rel=0.02)  # where it settles


def spikes_of(slope: Any, start: list[float], fired: Any, reset: Any, until: float) -> list[float]:
    """Spike times of a neuron whose differential equation scipy integrates."""
    fired.terminal, fired.direction = True, 1
    t, y, found = 0.0, np.array(start), []
    while t < until:
        part = solve_ivp(slope, (t, until), y, events=fired, rtol=1e-8, atol=1e-8, max_step=until / 200)
        t, y = part.t[-1], part.y[:, -1]
        if part.t_events[0].size:
            found.append(t)
            y = reset(y)
    return found


def test_adex_spikes_when_its_equation_does() -> None:
    n = nets.AdEx()
    current = 25.0

    def slope(t: float, y: np.ndarray) -> list[float]:
        v, u = y
        upstroke = n.delta * math.exp(min((v - n.theta) / n.delta, 20))
        return [(n.rest - v + upstroke + current - u) / n.tau, (n.a * (v - n.rest) - u) / n.tau_adaptation]

    expected = spikes_of(
        slope, [n.rest, 0.0], lambda t, y: y[0] - n.peak, lambda y: np.array([n.reset, y[1] + n.b]), 0.3
    )
    (x,) = alone(n, {"drive": np.full(60_000, current)}, dt=5e-6)
    found = (np.flatnonzero(x) + 1) * 5e-6
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_izhikevich_is_regular_spiking() -> None:
    def slope(t: float, y: np.ndarray) -> list[float]:
        v, u = y
        return [0.04 * v * v + 5 * v + 140 - u + 10, 0.02 * (0.2 * v - u)]

    expected = spikes_of(slope, [-65.0, -13.0], lambda t, y: y[0] - 30, lambda y: np.array([-65.0, y[1] + 8]), 500.0)
    fine = (np.flatnonzero(alone(nets.Izhikevich(), {"drive": np.full(50_000, 10.0)}, dt=1e-5)[0]) + 1) * 0.01
    np.testing.assert_allclose(fine, expected, rtol=0.01)
    coarse = np.flatnonzero(alone(nets.Izhikevich(), {"drive": np.full(500, 10.0)}, dt=1e-3)[0])
    assert abs(len(coarse) - len(expected)) <= 2  # with the steps of the paper's program


def test_poisson_spikes_are_independent() -> None:
    (x,) = alone(nets.Poisson(rate=20.0), {"drive": np.full(20_000, 30.0)}, dt=1e-3, n=50)
    p, n = 0.05, 20_000
    counts = x.sum(0)
    assert abs(counts.mean() - n * p) < 5 * math.sqrt(n * p * (1 - p) / 50)
    assert counts.var() == pytest.approx(n * p * (1 - p), rel=0.9)
    assert abs((x[1:] * x[:-1]).mean() - p**2) < 5 * p / math.sqrt(x.size)


# Rules


def learned(
    rule: Any, pre: np.ndarray, post: np.ndarray, w: float = 0.5, dt: float = 1e-3, **signals: Any
) -> np.ndarray:
    """The weights (post, pre) after spikes of shape (ticks, n); ``post`` may be a dict of the fields that it reads."""
    fields = post if isinstance(post, dict) else {"x": post}
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=probe(frozenset({"x"})), size=pre.shape[1])
    net.add_node("b", neuron=probe(frozenset(fields)), size=fields["x"].shape[1])
    net.add_edge("a", "b", rule=rule, weights=w)
    sim = Simulator(net, dt=dt)
    drive = {f"b.{'x_in' if name == 'x' else name}": values for name, values in fields.items()}
    sim.run({"a.x_in": pre, **drive}, signals=signals)
    return np.asarray(sim.params["a->b"].w)


def train(ticks: int, *at: int) -> np.ndarray:
    x = np.zeros((ticks, 1))
    x[list(at)] = 1
    return x


def poisson(seed: int, ticks: int, n: int, rate: float, dt: float = 1e-3) -> np.ndarray:
    return (np.random.default_rng(seed).random((ticks, n)) < rate * dt).astype(float)


@pytest.mark.parametrize("nearest", [False, True])
def test_stdp_window(nearest: bool) -> None:
    rule = rules.STDP(a_plus=0.01, a_minus=0.012, tau_plus=0.017, tau_minus=0.034, nearest=nearest)
    for lag in (-60, -20, -1, 0, 1, 20, 60):
        dw = learned(rule, train(200, 100), train(200, 100 + lag))[0, 0] - 0.5
        expected = 0.01 * math.exp(-lag / 17) if lag > 0 else -0.012 * math.exp(lag / 34) if lag < 0 else 0.0
        assert dw == pytest.approx(expected, abs=1e-14)


def test_all_pairs_or_the_nearest() -> None:
    pre, post = train(100, 10, 20), train(100, 25)
    for nearest, lags in ((False, (15, 5)), (True, (5,))):
        dw = learned(rules.STDP(nearest=nearest), pre, post)[0, 0] - 0.5
        assert dw == pytest.approx(0.005 * sum(math.exp(-lag / 20) for lag in lags), abs=1e-14)


def test_triplets_by_hand() -> None:
    """Post, pre, post: the second post spike meets the trace of the first."""
    dw = learned(rules.TripletSTDP(), train(200, 60), train(200, 50, 70))[0, 0] - 0.5
    expected = -7.1e-3 * math.exp(-10 / 33.7) + 6.5e-3 * math.exp(-10 / 16.8) * math.exp(-20 / 114)
    assert dw == pytest.approx(expected, abs=1e-14)


def test_triplets_drift_as_bcm() -> None:
    """Equation (2), at rates below and above its threshold of 19 Hz."""
    ticks, n = 20_000, 40
    for rate in (8.0, 35.0):
        pre, post = poisson(1, ticks, n, 12.0), poisson(2, ticks, n, rate)
        drift = (learned(rules.TripletSTDP(), pre, post).mean() - 0.5) / (ticks * 1e-3)
        expected = 12 * rate * (6.5e-3 * 0.0168 * 0.114 * rate - 7.1e-3 * 0.0337)
        assert drift == pytest.approx(expected, rel=0.15)
    assert pytest.approx(19.2, abs=0.1) == 7.1e-3 * 0.0337 / (6.5e-3 * 0.0168 * 0.114)


def test_triplets_potentiate_at_high_frequency() -> None:
    """Sjöström et al. (2001), as Pfister & Gerstner fit them: 60 pairs of pre and post 10 ms apart."""
    change = {}
    for rate in (1, 10, 20, 40, 50):
        for lag in (10, -10):
            gap = round(1000 / rate)
            at = np.arange(60) * gap + 50
            length = 60 * gap + 200
            change[rate, lag] = learned(rules.TripletSTDP(), train(length, *at), train(length, *(at + lag)))[0, 0] - 0.5
    rising = [change[rate, 10] for rate in (1, 10, 20, 40, 50)]
    assert rising == sorted(rising)
    assert change[1, 10] < 0.02
    assert change[50, 10] > 0.3
    assert change[10, -10] < -0.1
    assert change[50, -10] > 0.2


def test_vogels_drift_vanishes_at_the_target_rate() -> None:
    ticks, n = 50_000, 30
    for rate in (2.0, 5.0, 15.0):
        pre, post = poisson(1, ticks, n, 10.0), poisson(2, ticks, n, rate)
        drift = (learned(rules.Vogels2011(eta=1e-3), pre, post).mean() - 0.5) / (ticks * 1e-3)
        assert drift == pytest.approx(2 * 1e-3 * 0.02 * 10 * (rate - 5), abs=2e-4)


def test_depression_settles_where_theory_says() -> None:
    """A depressing synapse under a regular train: R = (1 - e) / (1 - (1 - U) e), e = exp(-interval / tau_d)."""
    rule = rules.TsodyksMarkram(use=0.4, tau_d=0.3, tau_f=1e-6)
    for gap in (20, 100):
        w = learned(rule, train(gap * 60, *range(gap - 1, gap * 60, gap)), np.zeros((gap * 60, 1)), w=0.4)[0, 0]
        before = learned(rule, train(gap * 61 - 1, *range(gap - 1, gap * 60, gap)), np.zeros((gap * 61 - 1, 1)), w=0.4)
        e = math.exp(-gap / 300)
        settled = 0.4 * (1 - e) / (1 - 0.6 * e)
        assert before[0, 0] == pytest.approx(settled, rel=1e-9)
        assert w < settled


def test_facilitation() -> None:
    rule = rules.TsodyksMarkram(use=0.1, tau_d=1e-3, tau_f=0.5)
    w = learned(rule, train(60, 0, 10, 20, 30), np.zeros((60, 1)), w=0.1)[0, 0]
    u = 0.0
    for _ in range(4):
        u = (u + 0.1 * (1 - u)) * math.exp(-0.01 / 0.5)
    u *= math.exp(-0.020 / 0.5)
    assert w == pytest.approx(u + 0.1 * (1 - u), rel=1e-6)


def test_clopath_looks_at_the_voltage() -> None:
    """Artola et al. (1990): pre spikes depress with the post neuron held at middle potentials, potentiate at high."""
    pre = train(1000, *range(20, 1000, 40))
    held = {}
    for v in (-75.0, -60.0, -50.0, -30.0):
        post = {"x": np.zeros((1000, 1)), "v": np.full((1000, 1), v)}
        held[v] = learned(rules.Clopath2010(), pre, post)[0, 0] - 0.5
    assert held[-75.0] == 0
    assert held[-50.0] < held[-60.0] < 0
    assert held[-30.0] > 0


def test_clopath_pairs_at_high_frequency_potentiate() -> None:
    """A spike is followed by a depolarisation of 40 ms, as in the paper's neuron."""
    change = {}
    for rate in (1, 20, 50):
        gap, length = round(1000 / rate), 75 * round(1000 / rate) + 100
        at = np.arange(75) * gap + 20
        x = train(length, *(at + 10))
        after = 20 * np.exp(-np.arange(200) / 40)
        post = {"x": x, "v": -70.6 + np.convolve(x[:, 0], after)[:length, None]}
        change[rate] = learned(rules.Clopath2010(), train(length, *at), post)[0, 0] - 0.5
    assert abs(change[1]) < 1e-3
    assert change[1] < change[20] < change[50]


def test_reward_comes_later() -> None:
    """The weight changes when the reward does, by the pair's change decayed since."""
    reward = np.zeros(600)
    reward[500] = 1.0
    w = learned(rules.Eligible(rules.STDP(), tau=0.5), train(600, 100), train(600, 110), reward=reward)
    assert w[0, 0] - 0.5 == pytest.approx(0.005 * math.exp(-10 / 20) * math.exp(-390 / 500), rel=1e-9)
    with pytest.raises(TypeError, match="Eligible already"):
        rules.Eligible(rules.Eligible(rules.Hebb()))


def test_scaling_multiplies_all_weights_of_a_cell() -> None:
    class Nothing(Rule):
        def update(self) -> Any:
            return 0.0

    rule = rules.Homeostatic(Nothing(), eta=0.05, rate=10.0, tau=0.1)
    silent, busy = np.zeros((2000, 1)), np.ones((2000, 1)) * 0.02  # a rate of 20 Hz, held
    w = np.array([[0.2, 0.4]])
    for post, sign in ((silent, 1), (busy, -1)):
        new = learned(rule, np.zeros((2000, 2)), post, w=w)
        assert sign * math.log(new[0, 0] / 0.2) == pytest.approx(0.05 * 10 * (2 - 0.1), rel=0.02)
        assert new[0, 1] / new[0, 0] == pytest.approx(2)


def test_soft_bounds_slow_the_approach() -> None:
    rule = rules.SoftBounded(rules.STDP(a_plus=0.1, a_minus=0.1), low=0.0, high=1.0, mu=1.0)
    e = math.exp(-5 / 20)
    assert learned(rule, train(50, 10), train(50, 15), w=0.8)[0, 0] == pytest.approx(0.8 + 0.1 * e * 0.2)
    assert learned(rule, train(50, 15), train(50, 10), w=0.8)[0, 0] == pytest.approx(0.8 - 0.1 * e * 0.8)


def test_given_spikes_are_sent() -> None:
    rng = np.random.default_rng(0)
    times, ids = rng.integers(0, 30, 200), rng.integers(0, 5, 200)
    expected = np.zeros((40, 5))
    expected[times, ids] = 1.0
    net = nx.MultiDiGraph()
    net.add_node("given", neuron=nets.SpikeSource(), size=5)
    net.add_node("cells", neuron=nets.LIF(), size=2)
    net.add_edge("given", "cells")
    for source in (nets.spike_trains(times, ids, 5), nets.spike_trains(times * 5e-4, ids, 5, dt=5e-4)):
        sent = Simulator(net, dt=5e-4).run({"given": source}, 40, record={"given.x": 1})["given.x"]
        np.testing.assert_array_equal(sent, expected)
    nobody = nets.spike_trains(np.zeros(0), np.zeros(0, int), 5)
    assert not Simulator(net).run({"given": nobody}, 3, record={"given.x": 1})["given.x"].any()


def test_spikes_without_a_place_are_told() -> None:
    for times, ids, message in [
        ([0.5], [0], r"spike 0 at 0.5 of neuron 0 .* 3 neurons: give dt"),
        ([0, 1], [0, 3], r"spike 1 at 1.0 of neuron 3 has no place among 3"),
        ([0, -1], [0, 1], r"spike 1 at -1.0"),
        ([float("nan")], [1], r"spike 0 at nan"),
        ([0, 1], [0], r"two lists of the same length"),
    ]:
        with pytest.raises(ValueError, match=message):
            nets.spike_trains(np.array(times), np.array(ids), 3)


def test_a_recording_of_given_spikes_is_verified_and_resumed(tmp_path: Path) -> None:
    net = nx.MultiDiGraph()
    net.add_node("given", neuron=nets.SpikeSource(), size=3)
    net.add_node("cells", neuron=nets.LIF(), size=2)
    net.add_edge("given", "cells")
    source = nets.spike_trains(np.array([0, 3, 7, 12]), np.array([0, 2, 1, 0]), 3)
    sim = Simulator(net)
    with sim.record(tmp_path / "run.h5", {"given.spikes": 1}):
        sim.run({"given": source}, 8)
    again = resume(tmp_path / "run.h5", ticks=8)
    assert again.tick == 16
    with Recording(tmp_path / "run.h5") as recording:
        spikes = recording.spikes("given.spikes")
    np.testing.assert_array_equal(spikes.times, [0, 3, 7, 12])
    np.testing.assert_array_equal(spikes.ids, [0, 2, 1, 0])
