"""The late stage of a tick: what arrives when all outputs are made, and what neurons make of it."""

import json
from typing import Any, ClassVar

import h5py
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

import engrax
from engrax import Fields, NetworkError, Rule, SimulationError, Simulator, cli, kernels, networks as nets, rules

# Sums of a few float64 numbers of order 1 in two orders.
ROUNDING = 1e-14


class Hidden(nets.Neuron):
    """tanh, with the error that its apical port gets times its slope."""

    ports: ClassVar = ("drive", "apical")
    late: ClassVar = ("apical",)

    def init(self) -> Fields:
        return Fields(x=0.0, slope=0.0, error=0.0)

    def step(self, ports: Fields) -> Fields:
        x = jnp.tanh(ports.drive)
        return Fields(x=x, slope=1 - x**2)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=ports.apical * state.slope)


class Compared(nets.Neuron):
    """Relays its drive and compares it with its target."""

    ports: ClassVar = ("drive", "target")
    late: ClassVar = ("target",)

    def init(self) -> Fields:
        return Fields(x=0.0, error=0.0)

    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.drive)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=ports.target - state.x)


class Corrects(Rule):
    def update(self, pre: Any, post: Any) -> Any:
        return 0.1 * post.error * pre.x


SIZES = {"in": 3, "first": 4, "second": 5, "out": 2}


def layers(**back: Any) -> tuple[nx.MultiDiGraph, dict[str, np.ndarray]]:
    """Two hidden layers with plastic weights and fixed feedback, in an order that suits nobody."""
    rng = np.random.default_rng(0)
    net = nx.MultiDiGraph()
    for name in ("out", "second", "in", "first"):
        neuron = {"in": nets.Input(), "out": Compared()}.get(name, Hidden())
        net.add_node(name, neuron=neuron, size=SIZES[name])
    weights = {}
    for pre, post in (("out", "second"), ("second", "first")):
        weights[f"{pre}->{post}"] = rng.normal(size=(SIZES[post], SIZES[pre]))
        net.add_edge(pre, post, field="error", port="apical", weights=weights[f"{pre}->{post}"], **back)
    for pre, post in (("in", "first"), ("first", "second"), ("second", "out")):
        weights[f"{pre}->{post}"] = rng.normal(size=(SIZES[post], SIZES[pre]))
        net.add_edge(pre, post, weights=weights[f"{pre}->{post}"], rule=Corrects())
    return net, weights


@pytest.mark.parametrize("batch", [None, 6])
def test_forward_back_and_learning_in_one_tick(batch: int | None) -> None:
    net, w = layers()
    sim = Simulator(net)
    lead = () if batch is None else (batch,)
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(*lead, 3)), rng.normal(size=(*lead, 2))
    sim.run({"in": x[None], "out.target": target[None]})
    first = np.tanh(x @ w["in->first"].T)
    second = np.tanh(first @ w["first->second"].T)
    errors = {"out": target - second @ w["second->out"].T}
    errors["second"] = errors["out"] @ w["out->second"].T * (1 - second**2)
    errors["first"] = errors["second"] @ w["second->first"].T * (1 - first**2)
    for name, error in errors.items():
        np.testing.assert_allclose(sim.state.neurons[name].error, error, atol=100 * ROUNDING)
    for pre, post, activity in (("in", "first", x), ("first", "second", first), ("second", "out", second)):
        pairs = np.einsum("...i,...j->...ij", errors[post], activity).reshape(-1, SIZES[post], SIZES[pre])
        change = sim.params[f"{pre}->{post}"].w - w[f"{pre}->{post}"]
        np.testing.assert_allclose(change, 0.1 * pairs.mean(0), atol=100 * ROUNDING)


def test_with_a_delay_errors_come_later() -> None:
    """With one tick on each way back, the first layer's error of tick 2 is of the output's of tick 0."""
    net, w = layers(delay=1)
    nets.set_rule(net, rules.Hebb(eta=0.0))
    x = np.random.default_rng(1).normal(size=(3, 3))
    fields = {"out.error": 1, "second.slope": 1, "first.slope": 1, "first.error": 1}
    got = Simulator(net).run({"in": x}, record=fields)
    second = got["out.error"][0] @ w["out->second"].T * got["second.slope"][1]
    expected = second @ w["second->first"].T * got["first.slope"][2]
    np.testing.assert_allclose(got["first.error"][2], expected, atol=100 * ROUNDING)
    np.testing.assert_array_equal(got["first.error"][0], 0)


def delays(*edges: tuple[str, str, dict[str, Any]]) -> list[int]:
    net = nx.MultiDiGraph()
    for pre, post, data in edges:
        for name in (pre, post):
            net.add_node(name, neuron=Hidden(), size=2)
        net.add_edge(pre, post, **data)
    return [projection.delay for projection in nets.read_graph(net).projections.values()]


BACK = {"field": "error", "port": "apical"}


def test_default_delays() -> None:
    assert delays(("a", "b", {}), ("b", "a", BACK)) == [0, 0]
    assert delays(("a", "b", {}), ("b", "a", {"port": "apical"})) == [0, 0]
    # from an output to a late port of the same population, and from a late field to it
    assert delays(("a", "a", {"port": "apical"})) == [0]
    assert delays(("a", "a", BACK)) == [1]
    assert delays(("a", "a", {})) == [1]
    # an error that drives a cell which feeds the first
    assert delays(("a", "b", {"field": "error"}), ("b", "a", {})) == [0, 1]
    assert delays(("a", "b", {"field": "error"}), ("b", "a", {"port": "apical"})) == [0, 1]
    # a port that is late can be carried too
    assert delays(("a", "b", {"field": "apical"}), ("b", "a", {"port": "apical"})) == [0, 1]
    assert delays(("a", "b", BACK), ("b", "a", BACK)) == [0, 1]


def test_apical_feedback_onto_the_models_of_the_library_has_no_delay() -> None:
    for neuron in (nets.Linear(), nets.Rate(), nets.LeakyRate()):
        for port in ("apical", "learning"):
            net = nx.MultiDiGraph()
            net.add_node("a", neuron=neuron, size=1)
            net.add_node("b", neuron=neuron, size=1)
            net.add_edge("a", "b", weights=1.0)
            net.add_edge("b", "a", port=port, weights=2.0)
            sim = Simulator(net)
            sim.run({"a": np.ones((1, 1))})
            got = sim.state.neurons["a"][port]
            np.testing.assert_array_equal(got, 2 * sim.state.neurons["b"].x)
            assert got != 0


def test_a_cycle_of_late_projections_without_delay_is_named() -> None:
    message = "'a->b', 'b->a' form a cycle without delay"
    with pytest.raises(NetworkError, match=message):
        delays(("a", "b", {**BACK, "delay": 0}), ("b", "a", {**BACK, "delay": 0}))
    # through both stages of a cell
    message = "'a->b', 'b->a' form a cycle without delay|'b->a', 'a->b' form a cycle without delay"
    with pytest.raises(NetworkError, match=message):
        delays(("a", "b", {"field": "error", "delay": 0}), ("b", "a", {"delay": 0}))


class Own(nets.Neuron):
    """A neuron to be spoilt."""

    ports: ClassVar = ("drive", "top")
    late: ClassVar = ("top",)

    def init(self) -> Fields:
        return Fields(x=0.0, e=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        return Fields(x=ports.drive, e=state.e)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(e=ports.top)


class ReturnsX(Own):
    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(x=ports.top)


class ReturnsUnknown(Own):
    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(f=ports.top)


class ReturnsArray(Own):
    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(e=jnp.zeros(2))


class ReturnsNumber(Own):
    def respond(self, state: Fields, ports: Fields) -> Any:
        return ports.top


class ReadsNothing(Own):
    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(e=ports.bottom)


class NamesNothing(Own):
    def respond(self, reward: Any) -> Fields:
        return Fields(e=reward)


class StepsOnLate(Own):
    def step(self, ports: Fields) -> Fields:
        return Fields(x=ports.top, e=0.0)


class ForgetsAField(Own):
    def init(self) -> Fields:
        return Fields(x=0.0, e=0.0, v=0.0)


class LateIsNoPort(Own):
    late: ClassVar = ("topp",)


class OddNoise(Own):
    late_noise: ClassVar = "pink"


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (ReturnsX, "population 'a': ReturnsX.respond returns x, but what comes late cannot move the output"),
        (ReturnsUnknown, "population 'a': ReturnsUnknown.respond returns 'f', which init() has not; fields: e"),
        (ReturnsArray, "population 'a': ReturnsArray.respond returns an array for 'e'; give one number"),
        (ReturnsNumber, "population 'a': ReturnsNumber.respond returns ShapeDtypeStruct: return Fields(...)"),
        (ReadsNothing, "population 'a': ReadsNothing.respond cannot be run: no field 'bottom' here"),
        (NamesNothing, "population 'a': NamesNothing.respond cannot be run: NamesNothing.respond names the argument"),
        (StepsOnLate, "no field 'top' here; fields: drive (what arrives at top comes after step: respond reads it)"),
        (ForgetsAField, "ForgetsAField.step returns x, e; init() has x, e, v: return the same fields"),
        (LateIsNoPort, "population 'a': LateIsNoPort.late names 'topp', which is no port; ports: drive, top"),
        (OddNoise, "population 'a': late_noise='pink' must be 'uniform', 'normal' or None"),
    ],
)
def test_a_bad_late_stage_is_one_clear_error(neuron: type[nets.Neuron], message: str) -> None:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=neuron(), size=1)
    net.add_edge("a", "a")
    with pytest.raises(NetworkError) as error:
        Simulator(net)
    assert message in str(error.value)


class Drawing(nets.Neuron):
    """Draws at both stages."""

    noise: ClassVar = "normal"
    late_noise: ClassVar = "normal"

    def init(self) -> Fields:
        return Fields(x=0.0, e=0.0)

    def step(self, noise: Any) -> Fields:
        return Fields(x=noise)

    def respond(self, noise: Any) -> Fields:
        return Fields(e=noise)


class DrawingOnce(Drawing):
    def respond(self) -> Fields:
        return Fields(e=jnp.zeros(()))


def test_late_noise_is_of_its_own() -> None:
    def run(neuron: nets.Neuron) -> dict[str, np.ndarray]:
        net = nx.MultiDiGraph()
        net.add_node("a", neuron=neuron, size=50)
        net.add_edge("a", "a")
        return Simulator(net).run(ticks=40, record={"a.x": 1, "a.e": 1})

    got = run(Drawing())
    # 2,000 pairs of standard normal numbers: the correlation has a standard error of 0.022
    assert abs(np.corrcoef(got["a.x"].ravel(), got["a.e"].ravel())[0, 1]) < 0.09
    assert abs(got["a.e"].std() - 1) < 0.064  # 4 standard errors, 1 / sqrt(2 * 2000)
    np.testing.assert_array_equal(got["a.x"], run(DrawingOnce())["a.x"])


class Supervised(nets.LIF):
    """A LIF neuron with a late port for rules to read."""

    ports: ClassVar = (*nets.LIF.ports, "apical")
    late: ClassVar = ("apical",)


class Responding(Supervised):
    """One that also makes something of it."""

    def init(self) -> Fields:
        return super().init().replace(error=0.0)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(error=ports.apical * state.x)


@pytest.mark.parametrize("neuron", [Supervised, Responding])
def test_spiking_neurons_with_late_ports_as_loops_and_without(
    neuron: type[nets.LIF], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    n, present = 40, {}
    for name in ("forward", "back"):
        present[name] = np.where(rng.random((n, n)) < 0.2, rng.normal(2.0, 1.0, (n, n)), 0.0)
    net = nx.MultiDiGraph()
    net.add_node("cells", neuron=neuron(start=np.linspace(-60, -50, n)), size=n)
    stdp = rules.Bounded(rules.STDP(), low=-5.0, high=5.0)
    net.add_edge("cells", "cells", name="forward", topology=present["forward"], port="excitatory", rule=stdp)
    net.add_edge("cells", "cells", name="back", topology=present["back"], port="apical")
    found = []
    for way in (True, False):
        monkeypatch.setattr(kernels, "by_events", lambda _, way=way: way)
        sim = Simulator(net, dt=1e-3)
        # Only neurons without a response step as a loop, and only where their projections follow spikes.
        assert ("cells" in sim.network.stepped) == (way and neuron is Supervised)
        fields = {"cells.x": 1, "cells.v": 1, "cells.apical": 1, "forward.w": 1}
        fields |= {"cells.error": 1} if neuron is Responding else {}
        found.append(sim.run(ticks=200, record=fields))
    assert found[0]["cells.x"].sum() > 100
    assert sim.network.circuit.projections["back"].delay == 0
    expected = np.einsum("ij,tj->ti", present["back"], found[0]["cells.x"])
    np.testing.assert_allclose(found[0]["cells.apical"], expected, atol=1e-12)
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], atol=1e-9, err_msg=name)  # mV; rounding over 200 ticks


def test_a_recording_is_rebuilt_and_gone_on_with(tmp_path: Any) -> None:
    net, _ = layers()
    rng = np.random.default_rng(1)
    drive = {"in": rng.normal(size=(40, 3)), "out.target": rng.normal(size=(40, 2))}
    known = [Hidden, Compared, Corrects]
    fields = {"first.error": 1, "in->first.w": 1}
    whole = Simulator(net).run(drive, record=fields)
    sim = Simulator(net)
    with sim.record(tmp_path / "run.h5", fields):
        sim.run({name: rows[:25] for name, rows in drive.items()})
    assert engrax.verify(tmp_path / "run.h5", known=known)[0] == []
    again = Simulator.resume(tmp_path / "run.h5", known=known)
    with again.record(tmp_path / "run.h5", append=True, known=known):
        again.run({name: rows[25:] for name, rows in drive.items()})
    with engrax.Recording(tmp_path / "run.h5") as recording:
        for name, values in whole.items():
            np.testing.assert_array_equal(recording.values(name), values)


def test_another_response_is_another_neuron(tmp_path: Any) -> None:
    net, _ = layers()
    sim = Simulator(net)
    with sim.record(tmp_path / "run.h5", {"out.error": 1}):
        sim.run(ticks=2)

    def respond(self: Any, state: Fields, ports: Fields) -> Fields:
        return Fields(error=2 * (ports.target - state.x))

    other = type("Compared", (Compared,), {"respond": respond, "__module__": __name__})
    with pytest.raises(engrax.RecordingError, match="Compared of population 'out' computes something else now"):
        Simulator.resume(tmp_path / "run.h5", known=[Hidden, other, Corrects])


def test_an_infinite_error_is_found_where_it_was_made() -> None:
    """The hidden layers step before the output does, but the output's error came first."""
    net, _ = layers()
    with pytest.raises(SimulationError, match="population 'out', neuron 1: target became infinite"):
        Simulator(net).run({"out.target": lambda index, key: jnp.array([0.0, jnp.inf])}, ticks=1)


def test_the_step_is_differentiated_through_both_stages() -> None:
    """The gradient of an error that went back through both layers, against a central difference."""
    net, _ = layers()
    sim = Simulator(net)

    @jax.jit
    def error(x: Any) -> Any:
        state = sim.step(sim.model, sim.state, {"in": x, "out.target": jnp.ones(2)})
        return (state.neurons["first"].error ** 2).sum() + (state.synapses["in->first"].w[0] ** 2).sum()

    x, along = jnp.array([0.3, -0.2, 0.5]), jnp.array([1.0, 2.0, -1.0])
    slope = jax.jit(jax.grad(error))(x) @ along
    h = 1e-5
    expected = (error(x + h * along) - error(x - h * along)) / (2 * h)
    # the error of a central difference, h^2, and rounding, 1e-16 / h, of values of the order 10
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


# Tied weights


def there_and_back(rule: Any = None, **edge: Any) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Linear(), size=3)
    net.add_node("b", neuron=nets.Linear(), size=2)
    net.add_edge("a", "b", rule=rule)
    net.add_edge("b", "a", **{"tied": "a->b", "port": "apical", **edge})
    return net


@pytest.mark.parametrize("batch", [None, 4])
def test_a_tied_projection_carries_the_transpose_as_it_is_now(batch: int | None) -> None:
    sim = Simulator(there_and_back(rules.Oja(eta=0.1)))
    rng = np.random.default_rng(0)
    shape = (20, 3) if batch is None else (20, batch, 3)
    got = sim.run({"a": rng.normal(size=shape)}, record={"a.apical": 1, "b.x": 1, "a->b.w": 1})
    for t in range(1, 20):
        expected = got["b.x"][t] @ got["a->b.w"][t - 1]
        np.testing.assert_allclose(got["a.apical"][t], expected, atol=10 * ROUNDING)
    np.testing.assert_array_equal(sim.params["b->a"].w, np.asarray(sim.params["a->b"].w).T)


def test_a_tied_projection_in_a_sweep() -> None:
    sim = engrax.sweep(there_and_back(rules.Oja(eta=0.1)), {"seed": range(3)})
    sim.run({"a": np.ones((2, 3))})
    assert sim.params["b->a"].w.shape == (3, 3, 2)
    np.testing.assert_array_equal(sim.params["b->a"].w, np.swapaxes(sim.params["a->b"].w, 1, 2))


def test_the_gradient_is_that_of_both_uses() -> None:
    """y = W^T W x: the derivative of |y|^2 / 2 with respect to W is W (x y^T + y x^T)."""
    sim = Simulator(there_and_back())
    x, w = jnp.array([1.0, -2.0, 0.5]), np.asarray(sim.params["a->b"].w)

    @jax.jit
    @jax.grad
    def gradient(w: Any) -> Any:
        state = sim.step(sim.model, sim.network.with_weights(sim.state, {"a->b": w}), {"a": x})
        return (state.neurons["a"].apical ** 2).sum() / 2

    y = w.T @ w @ x
    np.testing.assert_allclose(gradient(w), w @ (np.outer(x, y) + np.outer(y, x)), atol=10 * ROUNDING)


def test_tied_weights_are_recorded_once_and_come_back(tmp_path: Any) -> None:
    net = there_and_back(rules.Oja(eta=0.1))
    x = nets.gaussian(np.eye(3))
    whole = Simulator(net).run({"a": x}, ticks=30, record={"a.apical": 1})["a.apical"]
    sim = Simulator(net)
    with sim.record(tmp_path / "run.h5", {"a.apical": 1}):
        sim.run({"a": x}, ticks=20)
    assert engrax.verify(tmp_path / "run.h5")[0] == []
    sim = engrax.resume(tmp_path / "run.h5", 10)
    with engrax.Recording(tmp_path / "run.h5") as recording:
        np.testing.assert_array_equal(recording.weights("b->a"), recording.weights("a->b").T)
        np.testing.assert_array_equal(recording.values("a.apical"), whole)
        assert "b->a.w" not in recording.state_shapes()
    graph = engrax.to_networkx(tmp_path / "run.h5")
    assert graph.edges["b/1", "a/2", "b->a"]["weight"] == graph.edges["a/2", "b/1", "a->b"]["weight"]
    np.testing.assert_array_equal(sim.params["b->a"].w, np.asarray(sim.params["a->b"].w).T)


def test_recordings_from_before_there_were_ties_are_read(tmp_path: Any) -> None:
    """And synapses that fail, and gains: their projections do not say that they have none."""
    path = tmp_path / "run.h5"
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Input(), size=3)
    net.add_node("b", neuron=nets.Linear(), size=2)
    net.add_edge("a", "b", rule=rules.Oja(eta=0.1))
    sim = Simulator(net)
    with sim.record(path, {"b.x": 1}):
        sim.run({"a": nets.gaussian(np.eye(3))}, ticks=10)
    with h5py.File(path, "r+") as file:
        network = json.loads(file.attrs["network"])
        for name in ("tied", "release", "gain"):
            del network["projections"]["a->b"][name]
        file.attrs["network"] = json.dumps(network)
    assert engrax.verify(path)[0] == []
    with engrax.Recording(path) as recording:
        np.testing.assert_array_equal(recording.weights("a->b"), sim.params["a->b"].w)
    shown = CliRunner().invoke(cli.main, ["info", str(path)])
    assert shown.exit_code == 0, shown.output


def sparse() -> nx.MultiDiGraph:
    net = there_and_back()
    net.edges["a", "b", 0]["topology"] = nets.FixedInDegree(1)
    return net


def twice() -> nx.MultiDiGraph:
    net = there_and_back()
    net.add_edge("a", "b", tied="b->a", port="apical", name="again")
    return net


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: there_and_back(tied="a->c"), "'b->a' is tied to 'a->c', which is no projection; projections: a->b"),
        (lambda: there_and_back(tied="b->a"), "'b->a' is tied to 'b->a', which is tied itself"),
        (lambda: there_and_back(rule=None, weights=1.0), "'b->a' is tied to 'a->b', which has its weights: leave weig"),
        (lambda: there_and_back(topology=nets.Dense()), "'b->a' is tied to 'a->b', which has its weights: leave topol"),
        (sparse, "'b->a' is tied to 'a->b', which is sparse: tie it to a dense one"),
        (twice, "'again' is tied to 'b->a', which is tied itself: tie it to a projection that has weights of its own"),
    ],
)
def test_a_tie_that_cannot_be_is_one_clear_error(make: Any, message: str) -> None:
    with pytest.raises(NetworkError) as error:
        Simulator(make())
    assert message in str(error.value)


def test_a_tie_to_other_populations_is_told() -> None:
    net = there_and_back()
    net.add_node("c", neuron=nets.Linear(), size=3)
    net.add_edge("b", "c", tied="a->b", port="apical", name="same")
    with pytest.raises(NetworkError, match="'same' is tied to 'a->b', which joins other populations, 'a' and 'b'"):
        Simulator(net)


def test_the_same_weights_carry_two_fields(tmp_path: Any) -> None:
    """Recorded and rebuilt as well; of a population's projection to itself the tied one is the transpose."""
    net = there_and_back()
    net.add_edge("a", "b", tied="a->b", field="apical", port="learning", name="more")
    net.add_edge("a", "a", name="self", weights=np.arange(9.0).reshape(3, 3))
    net.add_edge("a", "a", name="back", tied="self", port="learning")
    sim = Simulator(net)
    with sim.record(tmp_path / "run.h5", {"b.learning": 1}):
        sim.run({"a": np.ones((1, 3))})
    state, w = sim.state.neurons, np.asarray(sim.params["a->b"].w)
    np.testing.assert_allclose(state["b"].learning, w @ state["a"].apical, atol=ROUNDING)
    np.testing.assert_allclose(state["a"].learning, np.arange(9.0).reshape(3, 3).T @ state["a"].x, atol=10 * ROUNDING)
    np.testing.assert_array_equal(sim.params["more"].w, w)
    with engrax.Recording(tmp_path / "run.h5") as recording:
        np.testing.assert_array_equal(recording.weights("more"), w)
        np.testing.assert_array_equal(recording.weights("back"), np.arange(9.0).reshape(3, 3).T)
    assert engrax.verify(tmp_path / "run.h5")[0] == []


def test_weights_and_delays_of_a_tied_projection_are_the_others() -> None:
    with pytest.raises(SimulationError, match="'b->a' is tied to 'a->b': set the weights of that one"):
        Simulator(there_and_back()).set_weights("b->a", np.zeros((3, 2)))
    with pytest.raises(NetworkError, match="'b->a' is tied to 'a->b': it is dense, and has one delay"):
        nets.set_delays(there_and_back(), "b->a", lambda post, pre: 1 + post)
