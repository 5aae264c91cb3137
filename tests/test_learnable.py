"""Rules made to be learned: their numbers are leaves, and with other rules' numbers they are those rules."""

import itertools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from engrax import Fields, Simulator, locality, networks as nets, plasticity, rules, sweep
from engrax.networks.fields import parameters
from engrax.rules.base import LocalRule

# Sums of some thirty float64 numbers of order 1 in two orders differ by some 1e-15.
ROUNDING = 1e-13
OJA = {"110": 1.0, "021": -1.0}


def one(rule: Any, n_pre: int = 4, n_post: int = 3, **attributes: Any) -> nx.MultiDiGraph:
    """A plastic projection a -> b of linear units."""
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=n_pre)
    net.add_node("b", neuron=nets.Linear(), size=n_post)
    net.add_edge("a", "b", rule=rule, **{"weights": nets.Normal(0.5), **attributes})
    return net


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


class TestVolterra:
    @pytest.mark.parametrize("batch", [(), (5,)], ids=["one", "batch"])
    def test_two_terms_are_ojas_rule(self, batch: tuple[int, ...]) -> None:
        ours, ojas = (Simulator(one(r)) for r in (rules.Volterra.of(OJA, eta=0.01), rules.Oja(eta=0.01)))
        for sim in (ours, ojas):
            sim.run({"a": rows(0, 50, *batch, 4)})
        np.testing.assert_allclose(ours.params["a->b"].w, ojas.params["a->b"].w, rtol=0, atol=ROUNDING)
        assert np.abs(np.diff(ours.params["a->b"].w)).max() > 0.1

    def test_terms_by_name(self) -> None:
        rule = rules.Volterra.of(OJA)
        assert {name: value for name, value in rule.theta.items() if value} == OJA
        assert len(rules.Volterra().theta) == 27
        assert not any(rules.Volterra().theta[name] for name in rules.Volterra.known)
        with pytest.raises(ValueError, match=r"Volterra has no term '130'; terms: 000, 001, .*, 222"):
            rules.Volterra.of({"130": 1.0})

    def test_a_batch_is_matrix_products_even_where_every_term_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(plasticity, "_over_copies")
        Simulator(one(rules.Volterra())).run({"a": rows(0, 2, 5, 4)})

    def test_few_terms_are_few_numbers(self) -> None:
        rule = rules.Volterra(0.01, Fields(OJA))
        assert list(parameters(rule)) == ["eta", "theta.110", "theta.021"]
        sims = [Simulator(one(r)) for r in (rule, rules.Volterra.of(OJA, eta=0.01))]
        for sim in sims:
            sim.run({"a": rows(0, 20, 4)})
        np.testing.assert_allclose(sims[0].params["a->b"].w, sims[1].params["a->b"].w, rtol=0, atol=ROUNDING)

    def test_coefficients_can_be_swept_and_differentiated(self) -> None:
        few = rules.Volterra(0.01, Fields(OJA))
        many = sweep(one(few), {"a->b.theta.021": [-1.0, -0.5]})
        many.run({"a": rows(0, 20, 4)})
        alone = Simulator(one(rules.Volterra(0.01, Fields({**OJA, "021": -0.5}))))
        alone.run({"a": rows(0, 20, 4)})
        np.testing.assert_allclose(many.params["a->b"].w[1], alone.params["a->b"].w, rtol=0, atol=ROUNDING)
        sim = Simulator(one(rules.Volterra(0.01, Fields({**OJA, "212": 0.0, "000": 0.0}))))

        def length(model: Any) -> Any:
            return jnp.sum(sim.step(model, sim.state, {"a": jnp.arange(4.0)}).synapses["a->b"].w[0] ** 2)

        slopes = eqx.filter_jit(eqx.filter_grad(length))(sim.model).rules["a->b"].theta
        w, x = np.asarray(sim.params["a->b"].w), np.arange(4.0)
        y = (w @ x)[:, None]
        new = w + 0.01 * (x * y - y**2 * w)
        for a, b, c in ((1, 1, 0), (0, 2, 1), (2, 1, 2), (0, 0, 0)):
            expected = (2 * new * 0.01 * x**a * y**b * w**c).sum()
            np.testing.assert_allclose(slopes[f"{a}{b}{c}"], expected, rtol=1e-10)

    def test_a_recording_knows_them(self, tmp_path: Path) -> None:
        sim = Simulator(one(rules.Volterra.of(OJA, eta=0.01)))
        with sim.record(tmp_path / "run.h5", {"a->b.w": 1}):
            sim.run({"a": rows(0, 5, 4)})
        again = Simulator.resume(tmp_path / "run.h5")
        assert again.network.circuit.projections["a->b"].rule.theta["021"] == -1
        for s in (sim, again):
            s.run({"a": rows(1, 5, 4)})
        assert np.array_equal(again.params["a->b"].w, sim.params["a->b"].w)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (rules.Volterra.of(OJA), r"\Delta w_{ij} = - w_{ij} x_{i}^{2} + x_{i} x_{j}"),
        # 0.0123 * (0.9987, -1.02, 0.0004) = (0.01228, -0.01255, 0.000005)
        (
            rules.Volterra.of({"110": 0.9987, "021": -1.02, "222": 0.0004}, eta=0.0123),
            r"\Delta w_{ij} = - 0.0125 w_{ij} x_{i}^{2} + 0.0123 x_{i} x_{j}",
        ),
        (rules.Volterra.of({"110": 1234.5, "001": 0.3}), r"\Delta w_{ij} = 1230 x_{i} x_{j}"),
        (rules.Volterra(), r"\Delta w_{ij} = 0"),
        (
            rules.Bounded(rules.Decay(rules.Hebb(eta=0.01), rate=0.001), low=0.0),
            "\\Delta w_{ij} = - 0.001 w_{ij} + 0.01 x_{i} x_{j}\nw_{ij} \\leftarrow \\max\\left(0, w_{ij}\\right)",
        ),
        # numbers within a function have as many digits, and what is small there stays
        (
            rules.SoftHebbBias(eta=1.0, beta=1.23456),
            r"\Delta w_{ij} = x_{i} e^{- 1.23 w_{ij}} - 1",
        ),
    ],
    ids=["Oja", "nearly Oja", "large", "nothing", "wrappers", "function"],
)
def test_latex_with_numbers(rule: LocalRule, says: str) -> None:
    assert rule.latex(digits=3) == says


SHAPE = (3, 4)
NUMBERS = {name: rows(number, *SHAPE) for number, name in enumerate(("eta", "a", "b", "c", "d"))}


class TestABCD:
    @pytest.mark.parametrize("batch", [(), (3,)], ids=["one", "batch"])
    @pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in a wrapper"])
    def test_every_synapse_has_its_own_numbers(self, batch: tuple[int, ...], wrapped: bool) -> None:
        rule: Any = rules.ABCD(**{**NUMBERS, "eta": 0.1})
        if wrapped:  # which is no sum of products: no matrix products then
            rule = rules.Every(rule, n=1)
        sim = Simulator(one(rule))
        w, x = np.asarray(sim.params["a->b"].w), rows(9, 4, *batch, 4)
        sim.run({"a": x})
        for now in x.reshape(4, -1, 1, 4):
            y = (now @ w.T).swapaxes(1, 2)
            change = NUMBERS["a"] * now * y + NUMBERS["b"] * now + NUMBERS["c"] * y + NUMBERS["d"]
            w = w + 0.1 * change.mean(0)
        np.testing.assert_allclose(sim.params["a->b"].w, w, rtol=1e-12)
        assert np.array_equal(sim.params["a->b"].c, NUMBERS["c"])  # to the last bit: they do not change

    def test_equal_numbers_for_all_are_the_shared_rule(self) -> None:
        ours = rules.ABCD(a=np.full(SHAPE, 0.5), c=np.full(SHAPE, -0.2), b=0.1, eta=0.05)
        sims = [Simulator(one(r)) for r in (ours, rules.ABCD(a=0.5, c=-0.2, b=0.1, eta=0.05))]
        for sim in sims:
            sim.run({"a": rows(0, 20, 4)})
        np.testing.assert_allclose(sims[0].params["a->b"].w, sims[1].params["a->b"].w, rtol=0, atol=ROUNDING)

    def test_gradients_reach_every_synapses_numbers(self) -> None:
        """Through a life of two ticks, from its beginning; against central differences, whose error is of order h^2."""
        sim = Simulator(one(rules.ABCD(**NUMBERS)))
        start, drive = {"a->b": sim.state.synapses["a->b"].w}, rows(8, 2, 4)

        @jax.jit
        def outcome(rule: Any) -> Any:
            model = eqx.tree_at(lambda m: m.rules["a->b"], sim.model, rule)
            state = sim.network.initial(model, start, None)
            for x in drive:
                state = sim.step(model, state, {"a": jnp.asarray(x)})
            return jnp.sum(jnp.sin(state.synapses["a->b"].w[0]))

        rule = sim.model.rules["a->b"]
        slopes = jax.grad(outcome)(rule)
        for name, place in (("eta", (0, 1)), ("a", (2, 3)), ("b", (1, 0)), ("c", (2, 0)), ("d", (0, 3))):

            def moved(h: float, name: str = name, place: Any = place) -> Any:
                value = getattr(rule, name).at[place].add(h)
                return outcome(eqx.tree_at(lambda r: getattr(r, name), rule, value))

            expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
            assert abs(expected) > 1e-3
            np.testing.assert_allclose(getattr(slopes, name)[place], expected, rtol=1e-5)

    def test_a_population_of_them_is_one_program(self) -> None:
        sim = Simulator(one(rules.ABCD(**NUMBERS)))
        start = {"a->b": sim.state.synapses["a->b"].w}

        def life(a: Any) -> Any:
            model = eqx.tree_at(lambda m: m.rules["a->b"].a, sim.model, a)
            state = sim.step(model, sim.network.initial(model, start, None), {"a": jnp.arange(4.0)})
            return state.synapses["a->b"].w[0]

        several = jnp.asarray(rows(5, 6, *SHAPE))
        together = jax.jit(jax.vmap(life))(several)
        np.testing.assert_allclose(together[4], life(several[4]), rtol=0, atol=ROUNDING)
        assert np.abs(together[4] - together[3]).max() > 0.1

    def test_a_sweep_over_arrays(self) -> None:
        several = rows(5, 2, *SHAPE)
        many = sweep(one(rules.ABCD(a=np.zeros(SHAPE), eta=0.1)), {"a->b.a": list(several)})
        many.run({"a": rows(0, 5, 4)})
        for k in range(2):
            alone = Simulator(one(rules.ABCD(a=several[k], eta=0.1)))
            alone.run({"a": rows(0, 5, 4)})
            np.testing.assert_allclose(many.params["a->b"].w[k], alone.params["a->b"].w, rtol=0, atol=ROUNDING)

    def test_what_a_synapse_has_for_itself_is_printed_so(self) -> None:
        assert rules.ABCD(a=np.ones(SHAPE), b=0.25, eta=0.5).latex(digits=3) == (
            r"\Delta w_{ij} = 0.5 a_{ij} x_{i} x_{j} + 0.125 x_{j}"
        )

    def test_recorded_and_resumed(self, tmp_path: Path) -> None:
        sim = Simulator(one(rules.ABCD(**{**NUMBERS, "eta": 0.01})))
        with sim.record(tmp_path / "run.h5", {"a->b.w": 1, "a->b.c": 1}):
            sim.run({"a": rows(0, 5, 4)})
        again = Simulator.resume(tmp_path / "run.h5")
        for s in (sim, again):
            s.run({"a": rows(1, 5, 4)})
        assert np.array_equal(again.params["a->b"].w, sim.params["a->b"].w)
        assert np.array_equal(again.network.circuit.projections["a->b"].rule.d, NUMBERS["d"])

    def test_numbers_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(nets.NetworkError, match=r"'a->b': ABCD's 'b' has shape \(4, 3\).*need \(3, 4\)"):
            Simulator(one(rules.ABCD(b=np.ones((4, 3)))))
        with pytest.raises(nets.NetworkError, match=r"'a->b': Bounded's 'b' has shape \(4,\)"):
            Simulator(one(rules.Bounded(rules.ABCD(b=np.ones(4)))))
        with pytest.raises(nets.NetworkError, match=r"'a->b': ABCD's 'a' .* only a dense projection.*leave topology"):
            Simulator(one(rules.ABCD(a=np.ones(SHAPE)), topology=nets.Probability(0.5)))

        class Leaky(rules.BCM):
            def init(self) -> Fields:
                return Fields(theta=np.ones(SHAPE))

        with pytest.raises(nets.NetworkError, match=r"'a->b': Leaky's 'theta' is one neuron's"):
            Simulator(one(Leaky()))


class TestSpikES:
    def test_with_vogels_numbers_it_is_his_rule(self) -> None:
        vogels = rules.Vogels2011(eta=0.01, rate=10.0, tau=0.02)
        spikes = {name: (rows(k, 400, n) > 1.5) * 1.0 for k, (name, n) in enumerate((("a", 4), ("b", 3)))}
        sims = []
        for rule in (rules.SpikES(), vogels):
            sim = Simulator(one(rule, weights=0.0, port="learning"), seed=0)
            sim.run(spikes)
            sims.append(sim.params["a->b"].w)
        np.testing.assert_allclose(*sims, rtol=0, atol=ROUNDING)
        assert np.abs(sims[0]).max() > 0.1

    def test_only_spikes_cost_anything(self) -> None:
        for rule in (rules.SpikES(beta=0.3), rules.Bounded(rules.SpikES(beta=0.3), low=0.0, high=2.0)):
            assert plasticity.by_events(rule, plasticity.trace_rule(rule))

    def test_uncorrelated_spikes_change_nothing_at_the_fixed_point(self) -> None:
        """And away from it as much as (4) says."""
        dt, pre, post, ticks, n = 1e-3, 20.0, 10.0, 1000, 60
        own = {"log_tau_pre": np.log(0.03), "log_tau_post": np.log(0.01), "beta": 0.1, "kappa": 0.5, "gamma": 2.0}
        rng = np.random.default_rng(0)
        spikes = {"a": rng.random((ticks, n)) < pre * dt, "b": rng.random((ticks, n)) < post * dt}
        for off in (0.0, 0.2):
            # (4); the trace of Poisson spikes that begin dt ago is rate * dt / (exp(dt / tau) - 1) on average
            mean_r, mean_o = (rate * dt / np.expm1(dt / tau) for rate, tau in ((pre, 0.03), (post, 0.01)))
            alpha = off - 0.1 * post / pre - (0.5 * mean_o + 2.0 * mean_r * post / pre)
            sim = Simulator(one(rules.SpikES(eta=1.0, alpha=alpha, **own), n, n, weights=0.0, port="learning"))
            sim.run({name: np.asarray(values, float) for name, values in spikes.items()})
            change = np.asarray(sim.params["a->b"].w) / (ticks * dt * pre)
            # Synapses share neurons: what varies independently are the neurons, some 60 of them.
            error = np.hypot(change.mean(0).std(), change.mean(1).std()) / np.sqrt(n)
            assert error < 0.05
            assert abs(change.mean() - off) < 4 * error


class TestPool:
    @pytest.mark.parametrize("batch", [(), (3,)], ids=["one", "batch"])
    def test_a_network_of_three_layers_by_hand(self, batch: tuple[int, ...]) -> None:
        """With the paper's letters and signs: y is activity, e = y - t the error."""
        theta = np.linspace(-0.1, 0.2, 10)
        net = nets.echoing_perceptron((5, 4, 3, 2), rules.Pool.of({str(n): v for n, v in enumerate(theta)}))
        sim = Simulator(net, seed=1)
        names = ["input", "hidden1", "hidden2", "output"]
        before = {name: np.asarray(fields.w) for name, fields in sim.params.items()}
        x, t = np.abs(rows(0, *batch, 5)), np.eye(2)[np.zeros(batch, int)]
        sim.run({"input": x[None], "output.target": t[None]})
        changes = [[] for _ in range(3)]
        for y0, target in zip(x.reshape(-1, 5), t.reshape(-1, 2), strict=True):
            W = [before[f"{a}->{b}"] for a, b in itertools.pairwise(names)]
            B = [before[f"{b}->{a}"].T for a, b in itertools.pairwise(names)]
            y = [y0]
            for w in W[:2]:
                y.append(np.log1p(np.exp(10 * w @ y[-1])) / 10)
            y.append(np.exp(W[2] @ y[-1]) / np.exp(W[2] @ y[-1]).sum())
            e = [y[3] - target]
            for layer in (2, 1, 0):
                e.insert(0, B[layer].T @ e[0] * (1 - np.exp(-10 * y[layer])))
            for n, (w, below, above) in enumerate(zip(W, range(3), range(1, 4), strict=True)):
                y_, y1, e_, e1 = y[below], y[above][:, None], e[below], e[above][:, None]
                terms = [-e1 * y_, -e1 * e_, y1 * y_ - y1 @ y1.T @ w, y1 * y_, -y1 * e_, -(y1**2) * w, -(e1**2) * w]
                terms += [-w, y1 + 0 * w, -e1 + 0 * w]
                changes[n].append(np.tensordot(theta, terms, 1))
        for n, change in enumerate(changes):
            forward = f"{names[n]}->{names[n + 1]}"
            np.testing.assert_allclose(
                sim.params[forward].w - before[forward], np.mean(change, 0), rtol=0, atol=ROUNDING
            )
            back = f"{names[n + 1]}->{names[n]}"
            assert np.array_equal(sim.params[back].w, before[back])

    def test_the_pseudo_gradient_with_symmetric_feedback_is_backpropagation(self) -> None:
        net = nets.echoing_perceptron((5, 4, 3), rules.Pool(theta=Fields({"0": 0.1})), feedback="symmetric")
        sim = Simulator(net)
        x, t, before = np.abs(rows(0, 5)), np.eye(3)[1], sim.params
        sim.run({"input": x[None], "output.target": t[None]})

        def loss(w: Any) -> Any:
            y = jax.nn.softplus(10 * (w[0] @ x)) / 10
            return -jax.nn.log_softmax(w[1] @ y) @ t

        layers = ("input->hidden", "hidden->output")
        slopes = jax.grad(loss)([jnp.asarray(before[name].w) for name in layers])
        for name, slope in zip(layers, slopes, strict=True):
            np.testing.assert_allclose(sim.params[name].w - before[name].w, -0.1 * slope, rtol=0, atol=ROUNDING)

    def test_terms_that_are_not_there_are_not_read(self) -> None:
        assert "pre.echo" in locality(rules.Pool()).reads
        assert locality(rules.Pool(theta=Fields({"0": 1.0, "1": 1.0}))).reads == ("post.error", "pre.error", "pre.x")
        net = nets.perceptron((5, 4, 3), rules.Pool(theta=Fields({"0": 1.0, "3": 1.0})))
        Simulator(net).run({"input": np.ones((1, 5))})  # where nothing is sent back but errors

    def test_an_echo_needs_a_port(self) -> None:
        with pytest.raises(nets.NetworkError, match="no population with a port 'echo' feeds one with a field 'x'"):
            nets.add_echo(nets.perceptron((3, 2)))


def test_lindsey_without_feedback_is_oja_or_hebb() -> None:
    for oja, plain in ((True, rules.Oja(eta=0.01)), (False, rules.Hebb(eta=0.01))):
        sims = [Simulator(one(r)) for r in (rules.Lindsey2020(eta=0.01, beta=0.0, oja=oja), plain)]
        for sim in sims:
            sim.run({"a": rows(0, 20, 4)})
        np.testing.assert_allclose(sims[0].params["a->b"].w, sims[1].params["a->b"].w, rtol=0, atol=ROUNDING)


def test_lindsey_moves_the_neuron_by_what_feedback_brings() -> None:
    """From the errors of the outputs through weights of their own, by hand."""
    p, x, t = rows(3, *SHAPE), rows(4, 4), np.array([1.0, 0.0])
    net = nets.perceptron((4, 3, 2), rules.Delta(eta=0.1), feedback="random", hidden=nets.Hidden(), bias=False)
    rule = rules.Lindsey2020(p, eta=0.1, beta=0.7)
    net.edges["input", "hidden", 0]["rule"] = rule
    sim = Simulator(net)
    w, v, back = (np.asarray(sim.params[n].w) for n in ("input->hidden", "hidden->output", "output->hidden"))
    sim.run({"input": x[None], "output.target": t[None]})
    y = 1 / (1 + np.exp(-w @ x))
    out = np.exp(v @ y) / np.exp(v @ y).sum()
    moved = 0.3 * y + 0.7 * np.maximum(back @ (t - out), 0)
    assert 0 < (back @ (t - out) > 0).sum() < 3
    expected = w + 0.1 * p * (np.outer(moved, x) - (moved**2)[:, None] * w)
    np.testing.assert_allclose(sim.params["input->hidden"].w, expected, rtol=0, atol=ROUNDING)
