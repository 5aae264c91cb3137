"""Small versions of published results, each against theory or an exact computation of the same thing."""

from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

from engrax import Phase, Simulator, networks as nets, rules
from engrax.networks.sources import gaussian, rows_of


def feedforward(n: int, m: int, rule: Any, neuron: nets.Neuron | None = None, **edge: Any) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("retina", neuron=nets.Input(), size=n)
    net.add_node("cortex", neuron=neuron or nets.Linear(), size=m)
    net.add_edge("retina", "cortex", rule=rule, **edge)
    return net


def components(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components (rows) with variances 4, 2, 1, ..., and a factor of their covariance."""
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return basis.T, basis * np.sqrt(4 * 2.0 ** -np.arange(n))


def cosines(w: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return np.abs(w @ directions.T) / np.linalg.norm(w, axis=1)[:, None]


def subspace_error(w: np.ndarray, directions: np.ndarray) -> float:
    """Distance of the projectors, 0 for the same subspace and 1 for orthogonal ones."""
    basis, _ = np.linalg.qr(w.T)
    k = len(directions)
    return float(np.linalg.norm(basis @ basis.T - directions.T @ directions) / np.sqrt(2 * k))


def slower(steps: float) -> Any:
    """A learning rate that falls as 1/t from about ``steps`` on, which averages the noise of single updates out."""
    return lambda count: 1 / (1 + count / steps)


def test_oja_finds_the_first_component() -> None:
    directions, factor = components(np.random.default_rng(0), 8)
    sim = Simulator(feedforward(8, 1, rules.Scheduled(rules.Oja(eta=0.02), schedule=slower(500))))
    sim.run({"retina": gaussian(factor, batch=10)}, 6000)
    w = np.asarray(sim.params["retina->cortex"].w)
    assert cosines(w, directions)[0, 0] > 0.99
    # Oja's fixed point is of length 1; fluctuations of order eta are left, 0.02 / 13 at the end
    assert abs(np.linalg.norm(w) - 1) < 0.01


def test_sanger_finds_the_components_in_order() -> None:
    directions, factor = components(np.random.default_rng(1), 8)
    sim = Simulator(feedforward(8, 4, rules.Scheduled(rules.Sanger(eta=0.02), schedule=slower(1000))))
    sim.run({"retina": gaussian(factor, batch=10)}, 12000)
    w = np.asarray(sim.params["retina->cortex"].w)
    assert cosines(w, directions)[np.arange(4), np.arange(4)].min() > 0.99
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=0.1)  # orthonormal up to the angles allowed above


def test_oja_with_several_units_finds_the_same_component_in_all() -> None:
    """Without lateral connections nothing makes them differ: what Sanger and Földiák add."""
    directions, factor = components(np.random.default_rng(1), 8)
    sim = Simulator(feedforward(8, 3, rules.Scheduled(rules.Oja(eta=0.02), schedule=slower(500))))
    sim.run({"retina": gaussian(factor, batch=10)}, 6000)
    assert cosines(np.asarray(sim.params["retina->cortex"].w), directions)[:, 0].min() > 0.99


def test_foldiak_1989_decorrelates_the_principal_subspace() -> None:
    k, eta = 3, 0.01
    directions, factor = components(np.random.default_rng(2), 8)
    net = feedforward(8, k, rules.Scheduled(rules.Oja(eta=eta), schedule=slower(1000)))
    # anti-Hebbian, five times as fast, no self-connections
    net.add_edge(
        "cortex", "cortex", port="lateral", topology=nx.complete_graph(k), weights=0.0,
        rule=rules.Scheduled(rules.Hebb(eta=-5 * eta), schedule=slower(1000)),
    )  # fmt: skip
    sim = Simulator(net)
    settle = Phase("settle", 12, plastic="last", hold=True, reset=True)
    sim.run({"retina": gaussian(factor, batch=20)}, trial=settle, trials=5000)
    w, lateral = np.asarray(sim.params["retina->cortex"].w), np.zeros((k, k))
    lateral[sim.synapses("cortex->cortex")] = sim.params["cortex->cortex"].w
    assert np.abs(np.linalg.eigvals(lateral)).max() < 1  # y <- W x + L y settles
    assert subspace_error(w, directions[:k]) < 0.05  # 0.007 to 0.014 after 60,000 samples at eta 0.002
    out = np.linalg.solve(np.eye(k) - lateral, w) @ factor
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    assert np.abs(out @ out.T - np.eye(k)).max() < 0.1  # correlations of 0.05 to 0.09 there


def test_bcm_selects_one_pattern() -> None:
    """With K independent patterns of probability 1/K, BCM with the squared threshold has its stable fixed points where
    one pattern drives the cell at K and the others at 0: theta = <y^2> = K^2 / K = y."""
    patterns = np.array([[1.0, 0.2, 0.1], [0.3, 1.0, 0.2], [0.1, 0.4, 1.0]])
    sim = Simulator(feedforward(3, 4, rules.BCM(eta=1e-3, tau=100.0), weights=nets.Uniform(0.2, 0.6)))
    sim.run({"retina": rows_of(patterns)}, 60_000)
    response = np.sort(np.asarray(sim.params["retina->cortex"].w) @ patterns.T, axis=1)
    # theta follows the mean square of 100 ticks and fluctuates by some 10 % of it, which moves w little at eta = 1e-3
    np.testing.assert_allclose(response, np.tile([0.0, 0.0, 3.0], (4, 1)), atol=0.25)
    threshold = np.asarray(sim.params["retina->cortex"].theta)
    np.testing.assert_allclose(threshold.mean(), 3.0, atol=0.9)


def test_covariance_rule_learns_the_covariance_whatever_the_means() -> None:
    rng = np.random.default_rng(0)
    ticks, rate = 40_000, 0.2
    mixing = rng.normal(size=(5, 5))
    both = rng.normal(size=(ticks, 5)) @ mixing.T + [5.0, -3.0, 1.0, 10.0, -7.0]
    pre, post = both[:, :3], both[:, 3:]
    net = feedforward(3, 2, rules.Covariance(eta=1.0, rate=rate), port="apical", weights=0.0)  # post does not hear pre
    sim = Simulator(net)
    warm = 1000  # the means start at 0; (1 - rate)**1000 is 1e-97
    w = sim.run({"retina": pre, "cortex": post}, record={"retina->cortex.w": warm})["retina->cortex.w"]
    found = (w[-1] - w[0]) / (ticks - warm)
    # The running means are means of past samples, independent of the present one, with a share rate / (2 - rate) of
    # the covariance.
    cov = (mixing @ mixing.T)[3:, :3]
    variances = np.outer(np.diag(mixing @ mixing.T)[3:], np.diag(mixing @ mixing.T)[:3])
    share = 2 / (2 - rate)
    error = 4 * share * np.sqrt((variances + cov**2) / (ticks - warm))  # four standard errors of a covariance
    assert np.all(np.abs(found - cov * share) < error)
    assert np.any(np.abs(cov * share - cov) > 2 * error)  # so fine that leaving out one of the means would show


def test_similarity_matching_is_nearly_as_good_as_offline_pca() -> None:
    n, k, samples = 64, 4, 6000
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    variances = np.concatenate([np.linspace(1, 0.5, k), np.full(n - k, 0.002)])
    x = rng.normal(size=(samples, n)) @ (basis * np.sqrt(variances)).T
    x /= np.linalg.norm(x, axis=1).mean()
    schedule = lambda count: 1 / (count + 5)  # noqa: E731
    net = feedforward(
        n, k, rules.Scheduled(rules.SimilarityMatching(eta=1.0), schedule=schedule),
        nets.ScaledSettling(relaxation=1.8), weights=nets.Normal(1 / n**0.5),
    )  # fmt: skip
    net.add_edge(
        "cortex", "cortex", field="v", port="lateral", weights=nets.Identity(),
        rule=rules.Scheduled(rules.SimilarityMatchingLateral(eta=1.0, tau=0.5), schedule=schedule),
    )  # fmt: skip
    sim = Simulator(net)
    sim.run({"retina": x}, trial=Phase("settle", 40, plastic="last", hold=True))
    filters = np.linalg.solve(sim.params["cortex->cortex"].w, sim.params["retina->cortex"].w)

    def error(f: np.ndarray) -> float:
        truth = basis[:, :k]
        return float(np.linalg.norm(f.T @ f - truth @ truth.T) / np.sqrt(k))

    _, _, offline = np.linalg.svd(x, full_matrices=False)
    assert error(filters) < 1.25 * error(offline[:k])
    assert np.linalg.norm(filters @ filters.T - np.eye(k)) < 0.03


def test_foldiak_1990_finds_the_bars() -> None:
    side, units, p, before = 8, 16, 1 / 8, 100
    lines = np.zeros((16, side, side))
    for k in range(side):
        lines[k, k, :] = 1
        lines[side + k, :, k] = 1
    rng = np.random.default_rng(0)
    present = rng.random((before + 2000, 16)) < p
    images = np.stack([lines[chosen].max(0, initial=0) for chosen in present]).reshape(-1, side * side)

    def after(share: float) -> Any:
        """1 in the first patterns, in which only thresholds learn; then ``share``."""
        return lambda count: jnp.where(count < before, 1 - (share == 1), share)

    net = feedforward(
        side * side, units, rules.Scheduled(rules.FoldiakFeedforward(beta=0.02), schedule=after(1)),
        nets.LeakyBinary(steepness=10.0, rate=0.2), weights=nets.UnitRows(positive=True),
    )  # fmt: skip
    net.add_edge(
        "cortex", "cortex", port="lateral", topology=nx.complete_graph(units), weights=0.0,
        rule=rules.Scheduled(rules.FoldiakLateral(alpha=0.1, p=p), schedule=after(1)),
    )  # fmt: skip
    net.add_node("on", neuron=nets.Constant(), size=1)
    thresholds = rules.Scheduled(rules.FoldiakThreshold(gamma=0.1, p=p), schedule=after(0.2))
    net.add_edge("on", "cortex", rule=thresholds, weights=-0.5)
    sim = Simulator(net)
    sim.run({"retina": images}, trial=Phase("look", 50, plastic="last", hold=True, reset=True))
    look = Phase("look", 50, plastic="never", hold=True, reset=True)
    answers = sim.run({"retina": lines.reshape(16, -1)}, trial=look, record={"cortex.y": 50})["cortex.y"]
    np.testing.assert_array_equal(answers.sum(1), 1)  # each line has one unit
    np.testing.assert_array_equal(answers.sum(0), 1)  # each unit has one line
    lateral = sim.params["cortex->cortex"].w
    assert lateral.max() <= 0
    firing = sim.run({"retina": images[-500:]}, trial=look, record={"cortex.y": 50})["cortex.y"].mean()
    # the thresholds hold the mean rate; 8,000 answers, of which the 16 to one image are not independent
    assert abs(firing - p) < 0.03


def amari(mixing: np.ndarray) -> float:
    """0 for a permutation with scales."""
    size = np.abs(mixing)
    n = len(size)
    rows = (size / size.max(1, keepdims=True)).sum(1) - 1
    columns = (size / size.max(0, keepdims=True)).sum(0) - 1
    return float((rows.sum() + columns.sum()) / (2 * n * (n - 1)))


def test_local_ica_unmixes_as_well_as_the_exact_inverse() -> None:
    n, batch, trials = 8, 50, 3000
    rng = np.random.default_rng(0)
    sources = rng.laplace(scale=2**-0.5, size=(trials, batch, n))
    mixing = rng.normal(size=(n, n))
    values, vectors = np.linalg.eigh(mixing @ mixing.T)
    mixing = (vectors / np.sqrt(values)) @ vectors.T @ mixing  # whitened
    x = sources @ mixing.T
    eta, fall = 0.05, 500

    net = feedforward(
        n, n, rules.Scheduled(rules.LocalICA(eta=eta), schedule=slower(fall)), nets.ScaledSettling(relaxation=1.8),
        weights=nets.Identity(),
    )  # fmt: skip
    net.add_edge(
        "cortex", "cortex", field="v", port="lateral", weights=nets.Identity(), rule=rules.InfomaxLateral(window=20.0)
    )
    sim = Simulator(net)
    sim.run({"retina": x}, trial=Phase("settle", 40, plastic="last", hold=True))
    local = np.asarray(sim.params["retina->cortex"].w)

    def step(c: Any, item: Any) -> Any:
        """Bell and Sejnowski's gradient, with the inverse."""
        t, rows = item
        u = rows @ c.T
        gradient = jnp.linalg.inv(c).T + rules.laplace_score(u).T @ rows / batch
        return c + eta / (1 + t / fall) * gradient, None

    exact, _ = jax.lax.scan(step, jnp.eye(n), (jnp.arange(trials), jnp.asarray(x)))
    start, found, best = amari(mixing), amari(local @ mixing), amari(np.asarray(exact) @ mixing)
    assert start > 0.2
    assert found < 0.02
    assert found < 1.5 * best  # the running Q lags behind C by its window, which costs some 20 % after 3000 steps


def test_settled_lateral_signal_is_the_inverse_transpose() -> None:
    """Linsker (1997): with Q = <u u^T>, <v x^T> = C^-T. Exact for the sample's own Q and settled v."""
    n, batch = 4, 200
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(batch, n)), np.eye(n) + 0.2 * rng.normal(size=(n, n))
    q = c @ (x.T @ x / batch) @ c.T
    net = feedforward(
        n, n, rules.LocalICA(eta=1.0, phi=lambda u: 0 * u), nets.ScaledSettling(relaxation=1.9), weights=c
    )
    net.add_edge("cortex", "cortex", field="v", port="lateral", weights=q)
    sim = Simulator(net)
    sim.run({"retina": x[None]}, trial=Phase("settle", 3000, plastic="last", hold=True))
    change = np.asarray(sim.params["retina->cortex"].w) - c
    np.testing.assert_allclose(change, np.linalg.inv(c).T, rtol=1e-6, atol=1e-9)  # settled to below 1e-9
