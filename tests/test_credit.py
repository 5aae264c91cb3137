"""Errors that come back: each way against the gradient, a closed form or a known outcome."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import engrax
from engrax import NetworkError, Phase, Simulator, networks as nets, rules

IDENTITY = jax.nn.identity


def degrees(a: Any, b: Any) -> float:
    """The angle between two arrays."""
    a, b = np.ravel(a), np.ravel(b)
    return float(np.degrees(np.arccos(a @ b / np.sqrt((a @ a) * (b @ b)))))


def weights(sim: Simulator) -> dict[str, np.ndarray]:
    return {name: np.asarray(params.w) for name, params in sim.params.items()}


# Backpropagation


OUTPUTS = {
    "softmax": (nets.Output(lateral=nets.Softmax()), lambda d, t: -(t * jax.nn.log_softmax(d)).sum()),
    "logistic": (
        nets.Output(activation=jax.nn.sigmoid),
        lambda d, t: -(t * jax.nn.log_sigmoid(d) + (1 - t) * jax.nn.log_sigmoid(-d)).sum(),
    ),
    "linear": (nets.Output(), lambda d, t: ((t - d) ** 2).sum() / 2),
}


@settings(max_examples=6)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    activation=st.sampled_from([jax.nn.sigmoid, jnp.tanh, jax.nn.softplus, jnp.sin]),
    output=st.sampled_from(sorted(OUTPUTS)),
    batch=st.sampled_from([None, 1, 4]),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_symmetric_feedback_is_the_gradient(
    sizes: list[int], activation: Any, output: str, batch: int | None, bias: bool, seed: int
) -> None:
    model, loss = OUTPUTS[output]
    hidden = nets.Hidden(activation=activation)
    net = nets.perceptron(sizes, rules.Delta(eta=1.0), hidden=hidden, output=model, weights=nets.Normal(1.0), bias=bias)
    sim = Simulator(net, seed=seed)
    rng = np.random.default_rng(seed)
    names = ["input", *(name for name in net if name.startswith("hidden")), "output"]
    if bias:
        for name in names[1:]:
            sim.set_weights(f"bias->{name}", rng.normal(size=(net.nodes[name]["size"], 1)))
    lead = (batch or 1,)
    x, t = rng.normal(size=(*lead, sizes[0])), rng.dirichlet(np.ones(sizes[-1]), size=lead)
    before = weights(sim)

    def mean_loss(w: dict[str, Any]) -> Any:
        def one(x: Any, t: Any) -> Any:
            for pre, post in itertools.pairwise(names):
                drive = w[f"{pre}->{post}"] @ x + (w[f"bias->{post}"][:, 0] if bias else 0.0)
                x = activation(drive)
            return loss(drive, t)

        return jax.vmap(one)(x, t).mean()

    gradient = jax.jit(jax.grad(mean_loss))(before)
    drive = {"input": x, "output.target": t}
    sim.run({name: (rows if batch else rows[0])[None] for name, rows in drive.items()})
    after = weights(sim)
    for name, rule in nx.get_edge_attributes(net, "rule").items():
        projection = f"{name[0]}->{name[1]}"
        if rule is not None:
            # sums of at most five float64 products in a row, four layers deep, of the order 10
            scale = 1 + np.abs(gradient[projection]).max()
            difference = after[projection] - before[projection] + gradient[projection]
            assert np.abs(difference).max() < 1e-12 * scale, projection


# Feedback alignment and its kin

DIGITS = nets.digits()
EYE = np.eye(10)
ORDER = np.random.default_rng(0).permutation(1430).reshape(-1, 10)


def epochs(n: int) -> dict[str, Any]:
    rows = np.concatenate([ORDER] * n)
    return {"input": DIGITS.train_x[rows], "output.target": EYE[DIGITS.train_y[rows]]}


def accuracy(sim: Simulator) -> float:
    """On the test set; nothing learns."""
    w = weights(sim)
    x = DIGITS.test_x
    for pre, post in (("input", "hidden"), ("hidden", "output")):
        d = x @ w[f"{pre}->{post}"].T + w[f"bias->{post}"].T
        x = 1 / (1 + np.exp(-d))
    return float((x.argmax(-1) == DIGITS.test_y).mean())


@pytest.fixture(scope="module")
def trained() -> dict[str, Simulator]:
    """64-50-10 after two epochs of digits, by every way back that needs no phases."""
    made = {}
    for kind in ("symmetric", "random", "direct", "kolen_pollack"):
        made[kind] = Simulator(nets.perceptron((64, 50, 10), rules.Delta(eta=0.5), feedback=kind))
        made[kind].run(epochs(2))
    return made


@pytest.mark.parametrize("kind", ["symmetric", "random", "direct", "kolen_pollack"])
def test_digits_are_learned(kind: str, trained: dict[str, Simulator]) -> None:
    """10 % are right by chance. Seen: 86 % by the gradient, 82 to 84 % by the others, after two epochs."""
    assert accuracy(trained[kind]) > 0.7


def test_feedback_alignment_aligns(trained: dict[str, Simulator]) -> None:
    """The hidden layer's errors are within 90 degrees of the gradient's, which at the start they are not bound to be:
    the weights themselves have turned towards the feedback. Lillicrap et al. (2016)."""
    sim, w = trained["random"], weights(trained["random"])
    start = weights(Simulator(sim.graph))
    np.testing.assert_array_equal(w["output->hidden"], start["output->hidden"])
    first = degrees(start["hidden->output"].T, w["output->hidden"])
    assert 80 < first < 100  # 500 random pairs: the cosine has a standard error of 1 / sqrt(500), 2.6 degrees
    state = sim.state.neurons
    by_gradient = np.asarray(state["output"].error) @ w["hidden->output"] * np.asarray(state["hidden"].slope)
    assert degrees(by_gradient, state["hidden"].error) < 60
    assert degrees(w["hidden->output"].T, w["output->hidden"]) < 60


def test_in_a_linear_network_the_angle_falls_below_45_degrees() -> None:
    """Lillicrap et al. (2016), the linear task: 30-20-10 units learn a random linear map."""
    rng = np.random.default_rng(0)
    teacher = rng.uniform(-1, 1, (10, 30))
    linear = nets.Hidden(activation=IDENTITY)
    small = nets.Uniform(-0.01, 0.01)
    net = nets.perceptron(
        (30, 20, 10), rules.Delta(eta=1e-3), feedback=None, hidden=linear, output=nets.Output(), weights=small,
        bias=False,
    )  # fmt: skip
    nets.add_feedback(net, "hidden->output", "random", weights=nets.Uniform(-0.5, 0.5))
    sim = Simulator(net)
    angles, losses = [], []
    for _ in range(3):
        w = weights(sim)
        x = rng.normal(size=(200, 30))
        errors = x @ (teacher - w["hidden->output"] @ w["input->hidden"]).T
        losses.append((errors**2).mean())
        angles.append(np.mean([degrees(e @ w["hidden->output"], e @ w["output->hidden"].T) for e in errors]))
        x = rng.normal(size=(1000, 30))
        sim.run({"input": x, "output.target": x @ teacher.T})
    assert angles[0] > 70 and angles[1] < 45 and angles[2] < 45
    assert losses[2] < 0.01 * losses[0]


def test_kolen_pollack_shrinks_the_difference_by_the_decay_and_nothing_else() -> None:
    rule = rules.Momentum(rules.Delta(eta=0.1), mu=0.5)
    net = nets.perceptron((6, 5, 4, 3), rule, feedback=None)
    assert nets.add_feedback(net, kind="kolen_pollack", decay=0.01) == ["hidden2->hidden1", "output->hidden2"]
    sim = Simulator(net)
    rng = np.random.default_rng(0)
    before = weights(sim)
    sim.run({"input": rng.normal(size=(200, 4, 6)), "output.target": np.eye(3)[rng.integers(0, 3, (200, 4))]})
    after = weights(sim)
    for forward, back in (("hidden1->hidden2", "hidden2->hidden1"), ("hidden2->output", "output->hidden2")):
        apart = after[back] - after[forward].T
        np.testing.assert_allclose(apart, 0.99**200 * (before[back] - before[forward].T), atol=1e-13)  # rounding
        assert np.abs(after[forward] - 0.99**200 * before[forward]).max() > 1e-3  # it learned, too


def test_a_weight_mirror_becomes_the_transpose() -> None:
    """Also of the lower of two layers; the forward weights rest meanwhile."""
    net = nets.perceptron((3, 6, 5, 4), rules.Delta(eta=0.5), feedback=None, hidden=nets.Hidden(activation=jnp.tanh))
    made = nets.add_feedback(net, kind="mirror", eta=0.05, decay=0.005)
    assert made == ["hidden2->hidden1", "output->hidden2"]
    sim = Simulator(net)
    before = weights(sim)
    names = ("mirror_hidden1", "mirror_hidden2")
    trial = [Phase(n, 10, signals={"learn": 0.0, **{m: float(m == n) for m in names}}) for n in names]
    source = nets.gaussian(np.eye(6), batch=20), nets.gaussian(np.eye(5), batch=20)
    noise = {n[7:]: {n: s} for n, s in zip(names, source, strict=True)}
    sim.run(noise, trial=trial, trials=400)
    after = weights(sim)
    variance = np.tanh(np.random.default_rng(0).normal(size=10**6)).var()
    for forward, back in (("hidden1->hidden2", "hidden2->hidden1"), ("hidden2->output", "output->hidden2")):
        np.testing.assert_array_equal(after[forward], before[forward])
        # A running mean of 1 / decay = 200 updates of 20 samples: each weight has a standard error of some
        # sqrt(variance * drive's / (2 * 200 * 20)) * 0.05 / 0.005 = 0.07 beside weights of the order 4 * 0.5.
        np.testing.assert_allclose(after[back], 0.05 * variance / 0.005 * after[forward].T, atol=0.5)
        assert degrees(after[back], after[forward].T) < 10 < degrees(before[back], before[forward].T)


def test_a_weight_mirror_does_not_listen_to_the_task() -> None:
    """Rectified units that are far more active in the task than in noise: the mean that the mirror subtracts is of
    noise alone. With the mean of both, the angle is above 60 degrees."""
    net = nets.perceptron((3, 6, 4), rules.Delta(eta=0.0), feedback=None, hidden=nets.Hidden(activation=jax.nn.relu))
    nets.add_feedback(net, kind="mirror", eta=0.02, decay=0.01)
    sim = Simulator(net)
    sim.set_weights("input->hidden", np.full((6, 3), 2.0))
    trial = [
        Phase("learn", signals={"learn": 1.0, "mirror_hidden": 0.0}),
        Phase("mirror", signals={"learn": 0.0, "mirror_hidden": 1.0}),
    ]
    noise = {"mirror": nets.gaussian(np.eye(6), batch=50)}
    sim.run({"input": {"learn": np.ones((1500, 50, 3))}, "hidden": noise}, trial=trial)
    after = weights(sim)
    assert degrees(after["output->hidden"], after["hidden->output"].T) < 20


def test_direct_feedback_goes_to_every_hidden_layer() -> None:
    net = nets.perceptron((4, 5, 6, 3), rules.Delta(), feedback="direct")
    sim = Simulator(net)
    circuit = sim.network.circuit
    assert {name: p.delay for name, p in circuit.projections.items() if p.field == "error"} == {
        "output->hidden1": 0, "output->hidden2": 0,
    }  # fmt: skip
    sim.run({"input": np.ones((1, 4)), "output.target": np.ones((1, 3))})
    state, w = sim.state.neurons, weights(Simulator(net))
    for name in ("hidden1", "hidden2"):
        expected = w[f"output->{name}"] @ state["output"].error * state[name].slope
        np.testing.assert_allclose(state[name].error, expected, atol=1e-14)


def test_a_recording_of_every_kind_is_run_again(tmp_path: Any) -> None:
    for kind in ("symmetric", "kolen_pollack"):
        sim = Simulator(nets.perceptron((6, 5, 3), rules.Delta(), feedback=kind))
        with sim.record(tmp_path / f"{kind}.h5", {"hidden.error": 1}):
            sim.run({"input": np.ones((3, 2, 6)), "output.target": np.ones((3, 2, 3))})
        assert engrax.verify(tmp_path / f"{kind}.h5")[0] == []


# Difference target propagation


def targeted(sizes: tuple[int, ...], eta: float = 0.1) -> nx.MultiDiGraph:
    output = nets.TargetOutput(lateral=nets.Softmax(), stride=0.3)
    net = nets.perceptron(sizes, rules.Delta(eta=0.1), feedback=None, hidden=nets.TargetHidden(), output=output)
    nets.add_inverses(net, eta=eta)
    return net


def test_targets_come_back_with_the_difference_correction() -> None:
    sim = Simulator(targeted((4, 5, 6, 3)))
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=4), np.array([0.0, 1.0, 0.0])
    w = weights(sim)
    sim.run(
        {"input": x[None], "output.target": t[None]},
        signals={"learn": [0.0], "invert_hidden1": [0], "invert_hidden2": [0]},
    )
    state = sim.state.neurons
    first = np.tanh(w["input->hidden1"] @ x)
    second = np.tanh(w["hidden1->hidden2"] @ first)
    scores = np.exp(w["hidden2->output"] @ second)
    out = scores / scores.sum()
    goal = out + 0.3 * (t - out)
    two = second + np.tanh(w["output->hidden2"] @ goal) - np.tanh(w["output->hidden2"] @ out)
    one = first + np.tanh(w["hidden2->hidden1"] @ two) - np.tanh(w["hidden2->hidden1"] @ second)
    for got, expected in ((state["output"].goal, goal), (state["hidden2"].goal, two), (state["hidden1"].goal, one)):
        np.testing.assert_allclose(got, expected, atol=1e-14)
    np.testing.assert_allclose(state["hidden1"].error, (one - first) * (1 - first**2), atol=1e-14)
    guess = np.tanh(w["hidden2->hidden1"] @ second)
    np.testing.assert_allclose(state["hidden1"].miss, (first - guess) * (1 - guess**2), atol=1e-14)


def test_the_inverse_descends_the_gradient_of_what_it_misses() -> None:
    """Its change is minus the derivative of |h - g(f(h))|^2 / 2, h being the noisy activity."""
    sim = Simulator(targeted((4, 5, 3), eta=1.0))
    before = weights(sim)
    signals = {"learn": [0.0], "invert_hidden": [1.0]}
    sim.run({"input": np.ones((1, 4)), "hidden.noise": np.full((1, 5), 0.2)}, signals=signals)
    h, above = (np.asarray(sim.state.neurons[name].x) for name in ("hidden", "output"))

    def miss(b: Any) -> Any:
        return ((h - jnp.tanh(b @ above)) ** 2).sum() / 2

    change = weights(sim)["output->hidden"] - before["output->hidden"]
    np.testing.assert_allclose(change, -jax.grad(miss)(before["output->hidden"]), atol=1e-14)
    np.testing.assert_array_equal(weights(sim)["hidden->output"], before["hidden->output"])


def test_difference_target_propagation_learns_digits() -> None:
    """Seen: 83 % right in the second epoch, with two hidden layers; 10 % are by chance."""
    sim = Simulator(targeted((64, 50, 50, 10)))
    names = ("learn", "invert_hidden1", "invert_hidden2")
    trial = [Phase(name, signals={n: float(n == name) for n in names}) for name in names]
    drive = epochs(2)
    noise = {f"{n[7:]}.noise": {n: nets.gaussian(0.1 * np.eye(50), batch=10)} for n in names[1:]}
    got = sim.run({"input": drive["input"], "output.target": {"learn": drive["output.target"]}, **noise}, trial=trial,
                  record={"output.x": 1, "hidden1.miss": 1})  # fmt: skip
    right = got["output.x"][::3].argmax(-1) == drive["output.target"].argmax(-1)
    assert right[143:].mean() > 0.65
    misses = (got["hidden1.miss"][1::3] ** 2).mean((1, 2))
    assert misses[-20:].mean() < 0.5 * misses[:20].mean()


# Structure and errors


def test_a_perceptron_is_what_it_says() -> None:
    net = nets.perceptron(((2, 3), 5, 4), rules.Delta(eta=0.2))
    assert set(net) == {"input", "hidden", "output", "bias"}
    assert {(a, b) for a, b in net.edges()} == {
        ("input", "hidden"), ("hidden", "output"), ("bias", "hidden"), ("bias", "output"), ("output", "hidden"),
    }  # fmt: skip
    assert net.edges["output", "hidden", 0]["tied"] == "hidden->output"
    w = weights(Simulator(net))
    assert w["input->hidden"].shape == (5, 6) and not w["bias->output"].any()
    assert set(nets.perceptron((3, 2), rules.Delta())) == {"input", "output", "bias"}


def plain(rule: Any = None) -> nx.MultiDiGraph:
    return nets.perceptron((3, 4, 4, 2), rule or rules.Delta(), feedback=None)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: nets.perceptron((3,)), "a perceptron has at least two layers, not sizes=(3,)"),
        (lambda: nets.add_feedback(plain(), kind="sideways"), "kind='sideways' is no feedback; there are: symmetric, "),
        (
            lambda: nets.add_feedback(plain(), "input->hidden1"),
            "errors cannot come back along 'input->hidden1': it must go from a population with a port 'apical' to one "
            "with a field 'error'; such are: hidden1->hidden2, hidden2->output",
        ),
        (lambda: nets.add_feedback(nets.perceptron((3, 2))), "no population with a port 'apical' feeds one with a fie"),
        (
            lambda: nets.add_feedback(plain(), "hidden1->hidden2", "direct"),
            "direct feedback comes from an output: name a projection that ends in one",
        ),
        (
            lambda: nets.add_feedback(plain(rules.Hebb()), kind="kolen_pollack"),
            "projection 'hidden1->hidden2' learns by Hebb: kind='kolen_pollack' needs rules.Delta or rules.RFLO there",
        ),
        (lambda: nets.add_inverses(plain()), "no population with a port 'above' feeds one with a field 'goal'"),
    ],
)
def test_what_has_no_way_back_is_one_clear_error(run: Any, message: str) -> None:
    with pytest.raises(NetworkError) as error:
        run()
    assert message in str(error.value)


def test_momentum_sums_the_past() -> None:
    """A steady change of 1 gives the velocity (1 - mu^n) / (1 - mu) at update n."""

    class Steady(engrax.Rule):
        def update(self, w: Any) -> Any:
            return jnp.ones_like(w)

    net = nx.MultiDiGraph()
    for name in ("a", "b"):
        net.add_node(name, neuron=nets.Input(), size=1)
    net.add_edge("a", "b", weights=0.0, rule=rules.Momentum(Steady(), mu=0.9))
    got = Simulator(net).run(ticks=20, record={"a->b.w": 1, "a->b.velocity": 1})
    expected = (1 - 0.9 ** np.arange(1, 21)) / (1 - 0.9)
    np.testing.assert_allclose(got["a->b.velocity"].ravel(), expected, rtol=1e-13)
    np.testing.assert_allclose(got["a->b.w"].ravel(), np.cumsum(expected), rtol=1e-13)


def test_momentum_refuses_what_it_cannot_average() -> None:
    with pytest.raises(TypeError, match="cannot wrap a rule that has Momentum already"):
        rules.Momentum(rules.Momentum(rules.Delta()))
    with pytest.raises(TypeError, match="cannot wrap STDP, of which every copy has a state of its own"):
        rules.Momentum(rules.STDP())
