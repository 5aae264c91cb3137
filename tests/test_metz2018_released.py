"""Metz et al.'s rule as released: against the same written out sample by sample, its fixed points, what it reads."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import SimulationError, Simulator, cli, locality, meta, networks as nets, rules, to_brian2
from engrax.errors import ExportError

SIZES, BATCH = (5, 4, 3), 6


class Standing(nets.BatchNormalised):
    """Of one sample alone."""

    standardised = ()


def released(seed: int = 0, **options: Any) -> rules.Metz2018Released:
    """With no number that is 0."""
    rule = rules.Metz2018Released.make(SIZES[-1], cells=4, channels=2, seed=seed, **options)
    rng = np.random.default_rng(seed + 1)
    theta = rule.theta.map(lambda value: value + 0.2 * rng.normal(size=np.shape(value)))
    return rules.Metz2018Released(**{**vars(rule), "theta": theta})


def layers(rule: Any, **options: Any) -> nx.MultiDiGraph:
    return nets.batch_normalised_layers(SIZES, rule, **options)


def samples(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(*shape, SIZES[0]))


def rectified(a: Any) -> Any:
    return np.maximum(a, 0)


def over_neighbours(w: Any, rows: Any) -> Any:
    """rows (length, in), w (odd, in, out)."""
    half = len(w) // 2
    return np.array([
        sum(rows[t + k - half] @ w[k] for k in range(len(w)) if 0 <= t + k - half < len(rows)) for t in range(len(rows))
    ])  # fmt: skip


def by_hand(theta: Any, x: list[Any], z: list[Any], w: list[Any], v: list[Any], b: list[Any]) -> Any:
    """Activations (batch, n) of all layers; weights as the program has them, (below, above). All changes D."""
    batch = len(x[0])

    def part(name: str, rows: Any) -> Any:  # of samples, at one cell
        return over_neighbours(theta[f"{name}.w"], rows) + theta[f"{name}.b"]

    def batch_norm(a: Any) -> Any:
        return (a - a.mean((0, 1))) / np.sqrt(a.var((0, 1)) + 1e-3)

    # from the top activity to the top delta: (units, batch, channels)
    a = np.array([rectified(part("top0", x[-1][:, [i]])) for i in range(x[-1].shape[1])])
    for name in ("mix0", "mix1"):
        a = np.array([rectified(part(name, a[:, :, c].T)) for c in range(a.shape[2])]).transpose(2, 1, 0)
    for name in ("top1", "top2"):
        a = np.array([rectified(part(name, rows)) for rows in a])
    d = np.array([part("top3", rows) for rows in a]).transpose(1, 0, 2)  # batch, units, channels

    h: list[Any] = [None] * len(x)
    for layer in reversed(range(len(x))):
        units = x[layer].shape[1]
        statistics = []
        for matrix, axis in ((w[layer - 1] if layer else None, 0), (w[layer] if layer < len(w) else None, 1)):
            if matrix is not None:
                statistics += [np.abs(matrix).mean(axis), np.sqrt((matrix**2).mean(axis) + 1e-6), matrix.mean(axis),
                               np.sqrt(matrix.var(axis) + 1e-8)]  # fmt: skip
        if len(statistics) == 4:
            statistics *= 2
        stats = np.array(statistics).T
        stats = stats / np.sqrt(np.mean(stats**2) + 1e-6)
        number = np.linspace(0, 4 * np.pi, units)
        seen = np.array([
            [[x[layer][s, i], z[layer][s, i], np.sin(number[i]), np.cos(number[i]), *d[s, i]] for s in range(batch)]
            for i in range(units)
        ])  # fmt: skip
        seen = batch_norm(seen) + theta["seen.b"]
        bias = b[layer - 1] if layer else np.zeros(units)
        a = np.array([[[*stats[i], bias[i], *seen[i, s]] for s in range(batch)] for i in range(units)])
        for k in (0, 1):
            a = np.array([over_neighbours(theta[f"samples{k}.w"], rows) for rows in a])
            a = rectified(batch_norm(a) + theta[f"samples{k}.b"])
            beside = [rectified(part(f"cells{k}1", rectified(part(f"cells{k}0", a[:, s])))) for s in range(batch)]
            a = a + np.array(beside).transpose(1, 0, 2)
        h[layer] = a.transpose(1, 0, 2)
        if layer:
            delta = d / (1 + np.exp(-z[layer]))[..., None] + h[layer] @ theta["delta.w"] + theta["delta.b"]
            d = np.array([v[layer - 1] @ one for one in delta])
            d = d / np.sqrt(1e-6 + (d**2).mean(-1, keepdims=True))

    def read(name: str, state: Any) -> Any:
        return state @ theta[f"{name}.w"] + theta[f"{name}.b"]

    def low_rank(name: str, up: Any, low: Any, psd: bool = False) -> Any:
        top = read(f"{name}.post", up)
        bottom = top if psd else read(f"{name}.pre", low)
        return sum(bottom[s, :, c, None] * top[s, None, :, c] for s in range(batch) for c in range(4)) / (4 * batch)

    def standardised(a: Any) -> Any:
        return (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-6)

    def small(a: Any) -> Any:
        return a / np.sqrt(1 + (a**2).mean(0))

    changes = []
    for k in range(len(w)):
        up, low, upper, lower = h[k + 1], h[k], standardised(x[k + 1]), standardised(x[k])
        one = w[k] / np.sqrt((w[k] ** 2).mean(0) + 1e-6)
        decorrelated = one @ (upper.T @ upper / batch) / np.sqrt(upper.shape[1])
        terms = [
            one, one**2 * np.sign(one), decorrelated / np.sqrt((decorrelated**2).mean() + 1e-8),
            -lower.T @ upper / batch, low_rank("zero", up, low), np.exp(-(one**2)) * low_rank("rbf", up, low),
            one * low_rank("first", up, low),
        ]  # fmt: skip

        def symmetric(name: str, state: Any) -> Any:
            u = low_rank(name, state, state)
            u = (u + u.T) / np.sqrt(2)
            np.fill_diagonal(u, 0)
            return u / np.sqrt(len(u))

        grown, sign = np.sqrt(1 + one**2) - 1, np.sign(one)
        terms += [
            one @ symmetric("linear_above", up), symmetric("linear_below", low) @ one,
            one @ low_rank("positive_above", up, None, psd=True) / np.sqrt(one.shape[1]),
            grown @ symmetric("squared_above", up) * sign, symmetric("squared_below", low) @ grown * sign,
        ]  # fmt: skip
        merged = sum(m * small(term) for m, term in zip(theta["merge.w"], terms, strict=True)) + theta["merge.b"]
        change = merged / 12
        change = change - one * max(0, np.mean(change * one))
        change = small(change / np.sqrt(12)) - one / 7
        bias = read("bias", up)[..., 0].mean(0)
        bias = bias + max(0, -bias.mean())
        changes.append((change, bias / np.sqrt(0.5 + (bias**2).mean())))
    return changes


def test_a_tick_is_what_the_equations_say() -> None:
    """Forward with batch statistics, then every term, for two layers and weights back that are not the forward ones."""
    rule = released(eta=0.1)
    sim = Simulator(layers(rule, weights=nets.Normal(0.5)), seed=3)
    names = [("input", "layer1"), ("layer1", "layer2")]
    w = [np.asarray(sim.params[f"{i}->{j}"].w).T for i, j in names]
    v = [np.asarray(sim.params[f"{j}->{i}"].w) for i, j in names]
    b = [np.asarray(sim.params[f"bias->{j}"].w)[:, 0] for _, j in names]
    assert np.abs(w[0] - v[0]).min() > 0
    x = samples(1, BATCH)
    sim.run({"input": x})
    xs, zs = [x[0]], [x[0]]
    for weights, bias in zip(w, b, strict=True):
        drive = xs[-1] @ weights
        zs.append((drive - drive.mean(0)) / np.sqrt(drive.var(0) + 1e-6) + bias)
        xs.append(rectified(zs[-1]))
    np.testing.assert_allclose(sim.state.neurons["layer2"].x, xs[-1], rtol=1e-9, atol=1e-12)
    for k, (change, bias) in enumerate(by_hand(rule.theta, xs, zs, w, v, b)):
        (i, j) = names[k]
        np.testing.assert_allclose(sim.params[f"{i}->{j}"].w, (w[k] - 0.1 * (change + w[k])).T, rtol=1e-8)
        np.testing.assert_allclose(sim.params[f"{j}->{i}"].w, v[k] - 0.1 * (change + v[k]), rtol=1e-8)
        np.testing.assert_allclose(sim.params[f"bias->{j}"].w[:, 0], b[k] - 0.1 * (bias + b[k]), rtol=1e-8)


def test_the_weights_back_come_to_be_those_forward() -> None:
    """Their difference shrinks by 1 - eta a tick, whatever is learned: Kolen and Pollack's mirror."""
    sim = Simulator(layers(released(eta=0.05)), seed=1)

    def apart() -> Any:
        return np.asarray(sim.params["layer2->layer1"].w).T - np.asarray(sim.params["layer1->layer2"].w)

    before = apart()
    sim.run({"input": samples(20, BATCH)})
    np.testing.assert_allclose(apart(), 0.95**20 * before, rtol=1e-6, atol=1e-12)


def test_cells_keep_their_length() -> None:
    """Without any term a cell's weights go to a mean square of 1/49 along the direction that they have."""
    rule = released(eta=0.05)
    still = rules.Metz2018Released(eta=0.05, theta=rule.theta.replace(**{"merge.w": np.zeros(12), "merge.b": 0.0}))
    sim = Simulator(layers(still), seed=1)
    before = np.asarray(sim.params["input->layer1"].w)
    sim.run({"input": samples(400, BATCH)})
    after = np.asarray(sim.params["input->layer1"].w)
    np.testing.assert_allclose(np.mean(after**2, 1), 1 / 49, rtol=1e-3)
    np.testing.assert_allclose(after / np.linalg.norm(after, axis=1)[:, None],
                               before / np.linalg.norm(before, axis=1)[:, None], atol=1e-8)  # fmt: skip


def test_its_locality_is_what_it_reads() -> None:
    """A synapse's change depends on another cell's activity, on another sample, and on its neighbours' weights."""
    rule = released(eta=1.0)
    assert locality(rule).level == "batch"
    assert locality(nets.BatchNormalised()).level == "batch"

    sim = Simulator(layers(rule), seed=1)
    sim.run({"input": samples(1, BATCH)})

    @jax.jit
    def after(x: Any, next_weights: Any) -> Any:
        state = sim.network.with_weights(sim.state, {"layer1->layer2": next_weights})
        return sim.step(sim.model, state, {"input": x}).synapses["input->layer1"].w[0][0, 0]

    x, w = samples(BATCH), np.array(sim.params["layer1->layer2"].w)
    of_input, of_weight = jax.grad(after, (0, 1))(x, w)
    assert of_input[3, 4] != 0  # of sample 3, of another afferent
    assert of_weight[2, 3] != 0  # between two other cells


@pytest.mark.slow
def test_a_gradient_goes_through_it() -> None:
    """Of the loss after some ticks by what is learned: against differences."""
    rule = released(eta=0.1)
    clouds = np.random.default_rng(0).normal(size=(40, SIZES[0])) + np.repeat(np.eye(2, SIZES[0]) * 3, 20, 0)
    task = meta.tasks.FewShot([(clouds, np.repeat([0, 1], 20))], layer="layer2", classes=2, shots=3, batch=BATCH)
    problem = meta.Learning(layers(rule, weights=nets.Normal(0.3)), rule, task, units=3, fixed=("eta",))
    key = jax.random.key(0)

    def loss(theta: Any) -> Any:
        return problem.advance(theta, problem.begin(theta, key))[1]

    start = problem.start
    assert set(start) == {f"theta.{name}" for name in rule.theta}
    rng = np.random.default_rng(1)
    way = {name: jnp.asarray(rng.normal(size=np.shape(value))) for name, value in start.items()}
    slope = sum(jnp.sum(g * way[name]) for name, g in jax.grad(loss)(start).items())
    at = jax.jit(loss)
    up, down = (at({n: value + step * way[n] for n, value in start.items()}) for step in (1e-6, -1e-6))
    assert float(slope) == pytest.approx(float(up - down) / 2e-6, rel=1e-4)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    rule = released()
    meta.save(rule, tmp_path / "rule.json", "as released")
    one, other = (Simulator(layers(r), seed=2) for r in (rule, meta.load(tmp_path / "rule.json")))
    for sim in (one, other):
        sim.run({"input": samples(3, BATCH)})
    np.testing.assert_array_equal(one.params["input->layer1"].w, other.params["input->layer1"].w)
    shown = CliRunner().invoke(cli.main, ["info", str(tmp_path / "rule.json")])
    assert shown.exit_code == 0, shown.output
    assert "batch" in shown.output
    assert json.loads((tmp_path / "rule.json").read_text())["about"] == "as released"


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(nets.NetworkError, match=r"population 'layer2' has 3 units; this Metz2018Released mixes 32"):
        Simulator(layers(rules.Metz2018Released()))
    with pytest.raises(nets.NetworkError, match="the whole of a chain of layers"):
        net = layers(released())
        net.remove_edge("layer2", "layer1")
        Simulator(net)
    with pytest.raises(nets.NetworkError, match="an input and others above it"):
        nets.batch_normalised_layers((3,), None)
    sim = Simulator(layers(released()))
    with pytest.raises(nets.NetworkError, match=r"population 'layer1': BatchNormalised compares .* with other samples"):
        sim.run({"input": samples(3)})
    plain = layers(released())
    for name in ("layer1", "layer2"):
        plain.nodes[name]["neuron"] = Standing()
    with pytest.raises(nets.NetworkError, match="Metz2018Released learns from a batch"):
        Simulator(plain).run({"input": samples(3)})
    with pytest.raises(ExportError, match="compares the samples of a batch, which Brian2 cannot express"):
        net = nx.MultiDiGraph()
        net.add_node("input", neuron=nets.Input(), size=5)
        net.add_node("cell", neuron=nets.BatchNormalised(), size=5)
        net.add_edge("input", "cell")
        to_brian2(net, {"input": samples(3)})


def test_gradients_do_not_go_through_batch_statistics() -> None:
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=3)
    net.add_node("hidden", neuron=nets.BatchNormalised(), size=4)
    net.add_node("output", neuron=nets.Output(), size=2)
    net.add_edge("input", "hidden", rule=rules.BPTT())
    net.add_edge("hidden", "output", rule=rules.BPTT())
    with pytest.raises(nets.NetworkError, match="'hidden': BPTT does not follow what BatchNormalised makes of a batch"):
        Simulator(net)


def test_projections_of_no_phase_carry_nothing() -> None:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=2)
    net.add_node("b", neuron=nets.Input(), size=2)
    net.add_edge("a", "b", weights=1.0, phases=())
    sim = Simulator(net)
    sim.run({"a": np.ones((1, 2))})
    assert np.all(np.asarray(sim.state.neurons["b"].x) == 0)
    net.edges["a", "b", 0]["phases"] = {"sense"}
    with pytest.raises(SimulationError, match="lives in sense only"):
        Simulator(net).run({"a": np.ones((1, 2))})
