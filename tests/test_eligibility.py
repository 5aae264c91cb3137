"""Credit through time by local rules: each against the exact gradient of what it claims to be the gradient of."""

from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

from engrax import NetworkError, Phase, RuleError, Simulator, networks as nets, rules


def weights(sim: Simulator) -> dict[str, np.ndarray]:
    """Those that are a projection's own."""
    return {name: np.asarray(sim.params[name].w) for name in sim.state.synapses}


# The network


def test_a_recurrent_network_is_the_leaky_rnn_of_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    hidden, output = nets.LeakyHidden(alpha=0.3, start=0.1), nets.LeakyOutput(alpha=0.5)
    sim = Simulator(nets.recurrent((2, 4, 3), hidden=hidden, output=output))
    sim.set_weights("bias->hidden", rng.normal(size=(4, 1)))
    w = weights(sim)
    np.testing.assert_allclose(w["hidden->hidden"] @ w["hidden->hidden"].T, np.eye(4), atol=1e-14)  # orthogonal
    x, t, mute = rng.normal(size=(6, 2)), rng.normal(size=(6, 3)), np.repeat([[0.0], [1.0]], 3, 1)[[0, 1, 0, 0, 1, 0]]
    found = sim.run(
        {"input": x, "output.target": t, "output.mute": mute},
        record=dict.fromkeys(("hidden.x", "hidden.credit", "hidden.error", "output.x", "output.credit"), 1),
    )
    h, v = np.full(4, 0.1), np.zeros(3)
    for tick in range(6):
        d = w["input->hidden"] @ x[tick] + w["hidden->hidden"] @ h + w["bias->hidden"][:, 0]
        h = 0.7 * h + 0.3 * np.tanh(d)
        v = 0.5 * v + 0.5 * w["hidden->output"] @ h
        credit = (1 - mute[tick]) * (t[tick] - v)
        back = w["hidden->output"].T @ (0.5 * credit)
        expected = {
            "hidden.x": h, "hidden.credit": back, "hidden.error": back * 0.3 * (1 - np.tanh(d) ** 2),
            "output.x": v, "output.credit": credit,
        }  # fmt: skip
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][tick], values, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("kind", ["symmetric", "random", "direct"])
def test_errors_come_back_from_above_and_not_round(kind: Any) -> None:
    net = nets.recurrent((2, 5, 4, 3), rules.Delta(), feedback=kind)
    back = {(pre, post) for pre, post, data in net.edges(data=True) if data.get("field") == "error"}
    top = ("output", "hidden1") if kind == "direct" else ("hidden2", "hidden1")
    assert back == {("output", "hidden2"), top}
    with pytest.raises(NetworkError, match="hidden2->hidden2"):
        nets.add_feedback(net, "hidden2->hidden2")


def test_a_readout_has_a_rule_of_its_own() -> None:
    net = nets.recurrent((2, 4, 3), rules.Hebb(), readout=rules.Delta())
    found = {(pre, post): type(data["rule"]).__name__ for pre, post, data in net.edges(data=True) if data.get("rule")}
    assert found == {
        ("input", "hidden"): "Hebb", ("hidden", "hidden"): "Hebb", ("bias", "hidden"): "Hebb",
        ("hidden", "output"): "Delta", ("bias", "output"): "Delta",
    }  # fmt: skip


def test_a_recurrent_network_has_a_hidden_layer() -> None:
    with pytest.raises(NetworkError, match="hidden"):
        nets.recurrent((2, 3))


# RFLO


def unrolled(w: dict[str, Any], x: Any, t: Any, alpha: float, alpha_out: float) -> Any:
    """The summed loss of a leaky network over all ticks, by hand."""

    def tick(carry: Any, row: Any) -> Any:
        h, v = carry
        x, t = row
        d = w["input->hidden"] @ x + w["hidden->hidden"] @ h + w["bias->hidden"][:, 0]
        h = (1 - alpha) * h + alpha * jnp.tanh(d)
        v = (1 - alpha_out) * v + alpha_out * (w["hidden->output"] @ h + w["bias->output"][:, 0])
        return (h, v), ((t - v) ** 2).sum() / 2

    start = jnp.zeros(w["hidden->hidden"].shape[0]), jnp.zeros(t.shape[1])
    return jax.lax.scan(tick, start, (x, t))[1].sum()


def changes(net: Any, drive: dict[str, Any], given: dict[str, Any], dt: float = 1e-3) -> dict[str, np.ndarray]:
    """What a trial with frozen weights adds up to."""
    for _, _, data in net.edges(data=True):
        if data.get("rule") is not None:
            data["rule"] = rules.Accumulated(data["rule"])
    sim = Simulator(net, dt=dt)
    for name, values in given.items():
        sim.set_weights(name, values)
    before, ticks = weights(sim), len(next(iter(drive.values())))
    sim.run(drive, trial=Phase("trial", ticks=ticks, reset=True))
    return {name: values - before[name] for name, values in weights(sim).items()}


@pytest.mark.parametrize(("recurrence", "alpha_out"), [(0.0, 1.0), (0.0, 0.4), (1.0, 0.4)])
def test_rflo_is_exact_without_recurrence_and_for_the_readout(recurrence: float, alpha_out: float) -> None:
    """Its recurrent weights learn too, from 0. A leaky readout spreads credit in time, which RFLO does not follow: the
    hidden layer is exact with alpha_out = 1 only."""
    rng = np.random.default_rng(0)
    w = {
        name: rng.normal(size=shape)
        for name, shape in {
            "input->hidden": (5, 2), "hidden->hidden": (5, 5), "hidden->output": (3, 5), "bias->hidden": (5, 1),
            "bias->output": (3, 1),
        }.items()
    }  # fmt: skip
    w["hidden->hidden"] *= recurrence
    x, t = rng.normal(size=(12, 2)), rng.normal(size=(12, 3))
    gradient = jax.grad(unrolled)(w, x, t, 0.3, alpha_out)
    hidden, output = nets.LeakyHidden(alpha=0.3), nets.LeakyOutput(alpha=alpha_out)
    net = nets.recurrent((2, 5, 3), rules.RFLO(eta=1.0), hidden=hidden, output=output)
    found = changes(net, {"input": x, "output.target": t}, w)
    for name in w:
        relative = np.abs(found[name] + gradient[name]).max() / np.abs(gradient[name]).max()
        if name.endswith("output") or (recurrence == 0 and alpha_out == 1):
            assert relative < 1e-12, name  # float64, some dozens of terms
        else:
            assert relative > 1e-3, name


def test_learned_feedback_becomes_the_transpose() -> None:
    """Both change by the same products and decay: their difference shrinks by 1 - decay every tick."""
    rng = np.random.default_rng(0)
    output = nets.LeakyOutput(alpha=0.5)
    net = nets.recurrent((2, 5, 3), rules.RFLO(eta=0.01), feedback=None, output=output)
    nets.add_feedback(net, kind="kolen_pollack", decay=0.01)
    sim = Simulator(net)
    first = weights(sim)
    sim.run({"input": rng.normal(size=(100, 2)), "output.target": rng.normal(size=(100, 3))})
    last = weights(sim)
    difference = [w["hidden->output"] - w["output->hidden"].T for w in (first, last)]
    np.testing.assert_allclose(difference[1], 0.99**100 * difference[0], rtol=1e-10)


# e-prop

TAUS = {"tau": 0.006, "tau_adaptation": 0.015}


def spiking(w: dict[str, Any], x: Any, t: Any, beta: Any, kappa: float) -> Any:
    """The summed loss of a spiking network, whose spikes carry no gradient from neuron to neuron, by hand."""
    k, rho = (np.exp(-1e-3 / tau) for tau in TAUS.values())
    stop = jax.lax.stop_gradient

    @jax.custom_jvp
    def heaviside(u: Any) -> Any:
        return jnp.where(u > 0, 1.0, 0.0)

    @heaviside.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return heaviside(*primals), 0.3 * jnp.maximum(0, 1 - jnp.abs(primals[0])) * tangents[0]

    def tick(carry: Any, row: Any) -> Any:
        v, a, z, wait, y = carry
        x, t = row
        v = k * v + w["input->hidden"] @ x + w["hidden->hidden"] @ stop(z) - stop(z)
        a = rho * a + z
        z = jnp.where(wait > 0, 0.0, heaviside(v - 1 - beta * a))
        wait = jnp.where(z > 0, 2.0, jnp.maximum(wait - 1, 0))
        y = kappa * y + (1 - kappa) * w["hidden->output"] @ z
        return (v, a, z, wait, y), (((t - y) ** 2).sum() / 2, z)

    zero = jnp.zeros(len(beta))
    losses, spikes = jax.lax.scan(tick, (zero, zero, zero, zero, jnp.zeros(t.shape[1])), (x, t))[1]
    return losses.sum(), spikes


@pytest.mark.parametrize("adaptive", [False, True])
def test_eprop_is_the_gradient_with_recurrent_spikes_detached(adaptive: bool) -> None:
    rng = np.random.default_rng(1)
    n, tau_out = 7, 0.004
    beta = np.where(np.arange(n) % 2, 0.4, 0.0) * adaptive
    kappa = np.exp(-1e-3 / tau_out)
    w = {
        "input->hidden": rng.normal(0.4, 0.5, (n, 4)), "hidden->hidden": rng.normal(0, 0.5, (n, n)),
        "hidden->output": rng.normal(size=(2, n)),
    }  # fmt: skip
    x, t = (rng.random((60, 4)) < 0.3) * 1.0, rng.normal(size=(60, 2))
    (_, spikes), gradient = jax.value_and_grad(spiking, has_aux=True)(w, x, t, beta, kappa)
    assert 0.05 < spikes.mean() < 0.5  # there is something to learn from
    rule: Any = rules.EPropAdaptive(eta=1.0, tau_out=tau_out, **TAUS)
    if not adaptive:
        rule = rules.EProp(eta=1.0, tau=TAUS["tau"], tau_out=tau_out)
    net = nets.recurrent(
        (4, n, 2), rule, readout=rules.RFLO(eta=1.0), bias=False, output=nets.LeakyOutput(alpha=1 - kappa),
        hidden=nets.SurrogateLIF(beta=beta, refractory=0.002, **TAUS),
    )  # fmt: skip
    found = changes(net, {"input": x, "output.target": t}, w)
    for name in w:
        assert np.abs(found[name] + gradient[name]).max() < 1e-10 * np.abs(gradient[name]).max(), name


def test_a_rate_beyond_its_target_costs_credit() -> None:
    neuron = nets.SurrogateLIF(threshold=0.1, cost=0.5, target=20.0, tau_rate=0.01)
    net = nets.recurrent((1, 1, 1), hidden=neuron, bias=False)
    found = Simulator(net).run({"input": np.full((50, 1), 0.0)}, record={"hidden.credit": 1, "hidden.frequency": 1})
    np.testing.assert_allclose(found["hidden.frequency"][:, 0], 20 * np.exp(-0.1 * np.arange(1, 51)), rtol=1e-12)
    np.testing.assert_allclose(found["hidden.credit"], 0.5 * (20 - found["hidden.frequency"]), rtol=1e-12)


# Updates by trials


def test_a_phase_that_resets_a_neuron_resets_what_its_synapses_remember_of_it() -> None:
    """Two equal trials: the changes are equal. Without the reset they are not."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(5, 2)), rng.normal(size=(5, 3))
    both = {"input": np.concatenate([x, x]), "output.target": np.concatenate([t, t])}
    for reset in (True, frozenset(["input"])):
        net = nets.recurrent((2, 4, 3), rules.Accumulated(rules.RFLO(eta=1e-9)), hidden=nets.LeakyHidden(alpha=0.2))
        sim, w = Simulator(net), []
        for part in range(2):
            rows = {name: values[5 * part : 5 * part + 5] for name, values in both.items()}
            before = weights(sim)
            sim.run(rows, trial=Phase("trial", ticks=5, reset=reset))
            w.append(weights(sim)["hidden->hidden"] - before["hidden->hidden"])
        assert np.allclose(w[0], w[1], rtol=1e-5, atol=0) == (reset is True)


@pytest.mark.parametrize("batch", [None, 4])
def test_adam_around_a_trial_is_optax_on_the_mean_of_the_batch(batch: int | None) -> None:
    rng = np.random.default_rng(0)
    lead = () if batch is None else (batch,)
    x, t = rng.normal(size=(12, *lead, 2)), rng.normal(size=(12, *lead, 3))

    def made(rule: Any) -> Simulator:
        return Simulator(nets.recurrent((2, 4, 3), rule, hidden=nets.LeakyHidden(alpha=0.2)))

    trial = Phase("trial", ticks=4, reset=True)
    sim = made(rules.Adam(rules.Accumulated(rules.RFLO(eta=1.0)), eta=0.01))
    sim.run({"input": x, "output.target": t}, trial=trial)
    plain = made(rules.Accumulated(rules.RFLO(eta=1.0)))
    optimiser = optax.adam(0.01)
    w = weights(plain)
    state = optimiser.init(w)
    for part in range(3):
        rows = slice(4 * part, 4 * part + 4)
        plain.run({"input": x[rows], "output.target": t[rows]}, trial=trial)
        gradient = {name: w[name] - values for name, values in weights(plain).items()}
        updates, state = optimiser.update(gradient, state)
        w = optax.apply_updates(w, updates)
        for name in w:
            plain.set_weights(name, w[name])
    for name, values in weights(sim).items():
        np.testing.assert_allclose(values, w[name], rtol=0, atol=1e-8)  # epsilon is added in other places


def test_what_a_batch_agreed_on_is_kept_once() -> None:
    rng = np.random.default_rng(0)
    net = nets.recurrent((2, 4, 3), rules.Adam(rules.Accumulated(rules.RFLO())))
    sim = Simulator(net)
    sim.run({"input": rng.normal(size=(3, 6, 2))}, trial=Phase("trial", ticks=3))
    shapes = {name: values.shape for name, values in sim.params["hidden->hidden"].items()}
    assert shapes == {"w": (4, 4), "trace": (6, 4, 4)} | dict.fromkeys(("total", "m", "v", "n"), (4, 4))


def test_what_is_around_a_mean_cannot_see_one_copy() -> None:
    with pytest.raises(RuleError, match=r"Homeostatic reads post\.x"):
        Simulator(nets.recurrent((2, 4, 3), rules.Homeostatic(rules.Accumulated(rules.RFLO()))))
    rule = rules.Gated(rules.Accumulated(rules.RFLO()), signal="reward")
    sim = Simulator(nets.recurrent((2, 4, 3), rule))
    with pytest.raises(RuleError, match="all copies have alike"):
        sim.run({"input": np.zeros((2, 5, 2))}, signals={"reward": np.zeros((2, 5))})
    with pytest.raises(TypeError, match="state called total"):
        rules.Accumulated(rules.Accumulated(rules.RFLO())).init()


# Reward


@pytest.mark.slow
def test_kicks_follow_the_gradient_of_the_reward_on_average() -> None:
    """4,000 trials side by side, against the gradient of the reward without kicks. They are small: what is left of
    higher order is some percent of a standard error."""
    rng = np.random.default_rng(0)
    n, ticks, copies, size = 3, 6, 4000, 1e-2
    w = rng.normal(size=(n, n)) / np.sqrt(n)
    x = rng.normal(size=(ticks, n))
    goal = rng.normal(size=n)

    def reward(w: Any, kicks: Any) -> Any:
        v, out = jnp.zeros(n), jnp.zeros(n)
        for tick in range(ticks):
            v = 0.7 * v + 0.3 * (w @ out + x[tick]) + kicks[tick]
            out = jnp.tanh(v)
        return -((out - goal) ** 2).sum()

    gradient = jax.grad(reward)(w, jnp.zeros((ticks, n)))
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=n)
    net.add_node("cells", neuron=nets.Kicked(alpha=0.3, probability=0.5, size=size), size=n)
    net.add_edge("input", "cells", topology=nets.OneToOne(), weights=1.0)
    net.add_edge("cells", "cells", weights=w, delay=1)
    drive = {"input": np.repeat(x[:, None], copies, 1)}
    names = ("cells.x", "cells.score")
    found = Simulator(net).run(drive, record=dict.fromkeys(names, 1))
    score, out = found["cells.score"], found["cells.x"]
    rewards = -((out[-1] - goal) ** 2).sum(-1)
    assert np.isin(score == 0, [True, False]).all() and 0.4 < (score != 0).mean() < 0.6
    kicks = score * (0.5 * size**2 / 3) / 0.3
    np.testing.assert_allclose(rewards[0], reward(w, kicks[:, 0]), rtol=1e-10)
    traces = np.einsum("tbi,tbj->bij", score[1:], out[:-1])
    each = (rewards - reward(w, jnp.zeros((ticks, n))))[:, None, None] * traces
    error = each.std(0) / np.sqrt(copies)
    assert (np.abs(each.mean(0) - gradient) < 3.5 * error).all()  # of nine, one in 4,000 would be beyond
    assert (np.abs(gradient) > 3.5 * error).any()
    # and this is what the rule does with them
    net.edges["cells", "cells", 0]["rule"] = rules.PerturbationTrace(eta=1.0)
    sim = Simulator(net)
    mute = np.zeros((ticks, copies))
    sim.run(drive, trial=Phase("trial", ticks=ticks, reset=True), signals={"reward": mute + rewards})
    by_rule = np.asarray(sim.params["cells->cells"].w) - w
    np.testing.assert_allclose(by_rule, (rewards[:, None, None] * traces).mean(0), rtol=1e-9)


def test_kicks_that_a_synapse_only_guesses_go_the_same_way() -> None:
    """Miconi's cube of the deviation: one unit, one kick, a reward that grows with the output."""
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Input(), size=2)
    net.add_node("cell", neuron=nets.Kicked(alpha=0.1, probability=0.05, size=0.5), size=1)
    net.add_edge("input", "cell", weights=0.0, rule=rules.Miconi2017(eta=1e-3, rate=0.2))
    net.add_node("reward", neuron=nets.Linear(), size=1)
    net.add_edge("cell", "reward", weights=1.0)
    net.graph["signals"] = {"reward": "reward"}
    sim = Simulator(net)
    x = np.tile([[1.0, -1.0]], (200 * 20, 1))
    sim.run({"input": x}, trial=Phase("trial", ticks=20, reset=True))
    w = np.asarray(sim.params["input->cell"].w)[0]
    assert w[0] > 0 and w[0] == pytest.approx(-w[1])


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_dopamine_learns_the_exact_values_of_a_chain(decay: float) -> None:
    """States 0 to 4 in a row, rewards on entering three of them: V = (I - gamma P)^-1 P r."""
    n, gamma = 5, 0.9
    rewards = np.array([0.0, 0.5, 0.0, -1.0, 2.0])
    step = np.eye(n, k=1)
    values = np.linalg.solve(np.eye(n) - gamma * step, step @ rewards)
    net = nx.MultiDiGraph()
    net.add_node("place", neuron=nets.Input(), size=n)
    net.add_node("value", neuron=nets.Linear(), size=1)
    net.add_node("vta", neuron=nets.TDError(gamma=gamma), size=1)
    net.add_edge("place", "value", weights=0.0, rule=rules.TD(eta=0.5, gamma=gamma, decay=decay))
    net.add_edge("value", "vta", weights=1.0)
    net.graph["signals"] = {"dopamine": "vta"}
    episode = np.concatenate([np.eye(n), np.zeros((1, n))])  # then nowhere, which is worth nothing
    reward = np.append(rewards, 0.0)[:, None] * (np.arange(n + 1) > 0)[:, None]
    sim = Simulator(net)
    drive = {"place": np.tile(episode, (200, 1)), "vta.reward": np.tile(reward, (200, 1))}
    found = sim.run(drive, trial=Phase("walk", ticks=n + 1, reset=True), record={"vta.x": 1})["vta.x"]
    np.testing.assert_allclose(np.asarray(sim.params["place->value"].w)[0], values, atol=1e-10)
    np.testing.assert_allclose(found[-n:], 0, atol=1e-10)  # what is expected is no surprise
