"""Credit through time by local rules: each against the exact gradient of what it claims to be the gradient of."""

from typing import Any

import numpy as np
import pytest

from engrax import NetworkError, Simulator, networks as nets, rules


def weights(sim: Simulator) -> dict[str, np.ndarray]:
    return {name: np.asarray(params.w) for name, params in sim.params.items()}


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
