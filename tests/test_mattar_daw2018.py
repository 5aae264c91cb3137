"""Prioritised replay: one choice by hand and by enumeration, the quick version, the numbers of the full run."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import Fields, Phase, Simulator, cli, networks as nets
from engrax.networks.replay import gain
from engrax.results.mattar_daw2018 import agent, run as result

ROUNDING = 1e-12  # of a few float64 numbers of order 1


together = eqx.filter_jit(lambda cells, responses: cells.together(responses))


def told(cells: nets.Prioritised, q: Any, r: Any, need: Any, led: Any = None, asked: float = 0.0) -> Fields:
    """What the cells make late in a tick of what they hear, with the sequence ``led`` before."""
    n = np.size(q)
    start = np.zeros(n) if led is None else np.ravel(led)
    need = np.repeat(need, cells.actions)
    given = {"q": np.ravel(q), "r": np.ravel(r), "n": need, "led": start, "chosen": start, "asked": np.full(n, asked)}
    return together(cells, Fields({name: jnp.zeros(n) for name in cells.init()}).replace(**given))


def test_gain_and_need_on_a_track_of_three_places() -> None:
    """Left and right at places 0, 1 and 2, the goal; gamma is 0.6, and beta ln 3, so that a value of 1 is worth odds of
    3. From place 0, which follows the goal, need is 1, 0.6, 0.36 over 1 - 0.6 ** 3."""
    gamma, need = 0.6, np.array([1.0, 0.6, 0.36]) / 0.784
    around = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(np.linalg.inv(np.eye(3) - gamma * around)[0], need, atol=ROUNDING)
    after = np.array([0, 1, 0, 2, 2, 2])
    cells = nets.Prioritised(after, actions=2, gamma=gamma, beta=float(np.log(3)))
    q, r = np.zeros((3, 2)), np.zeros((3, 2))
    r[1, 1] = 1.0

    found = told(cells, q, r, need)  # to the right at place 1: from half to three quarters of a reward of 1
    assert found.chosen.argmax() == 3
    np.testing.assert_allclose(found.worth[3], need[1] * 0.25, atol=ROUNDING)
    np.testing.assert_allclose(found.worth[:3], [0, need[0] * 1e-6, need[1] * 1e-6], atol=ROUNDING)

    q[1, 1] = 1.0  # and then back: what was a reward is a value of the place before
    found = told(cells, q, r, need, led=np.eye(6)[3])
    odds = 3**gamma
    assert found.chosen.argmax() == 1 and found.led.sum() == 1
    np.testing.assert_allclose(found.worth[1], need[0] * (odds / (1 + odds) - 0.5) * gamma, atol=ROUNDING)

    q[0, 1] = gamma  # nothing is left to gain; what is needed first comes first, and then the sequence grows
    found = told(cells, q, r, need)
    assert found.chosen.argmax() == 1
    found = told(cells, q, r, need, led=found.led)
    assert found.chosen.argmax() == 3
    np.testing.assert_allclose(found.led, [0, gamma, 0, 1, 0, 0], atol=ROUNDING)
    np.testing.assert_allclose(found.worth[3], need[1] * 2e-6, atol=ROUNDING)

    kept = told(cells, q, r, need, led=np.eye(6)[1], asked=1.0)  # while it is replayed nothing else is chosen
    np.testing.assert_array_equal(kept.chosen, np.eye(6)[1])


def test_what_a_policy_gains() -> None:
    """Two actions, beta ln 3: from even odds to 3 : 1; bad news of an action that is worth more than the other; and of
    the only one that is worth anything, when nothing is better."""
    q = np.array([[0.0, 0.0], [1.0, 0.5], [1.0, 0.0]])
    change = np.array([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    before = 3 / (3 + np.sqrt(3))
    expected = [0.25, (np.sqrt(3) / (1 + np.sqrt(3)) - (1 - before)) * 0.5, 0.0]
    np.testing.assert_allclose(gain(q, change, float(np.log(3)))[:, 0], expected, atol=ROUNDING)


def test_choices_are_those_of_an_enumeration() -> None:
    """Of all backups of one step, and of the sequence that has one more, by loops, in a grid with random values, few of
    which are wrong, so that sequences grow."""
    world = agent.grid(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]), (0, 2))
    cells = nets.Prioritised(world.after.ravel(), 4)
    rng = np.random.default_rng(0)
    grown = 0
    for _ in range(100):
        q, need = rng.random((8, 4)) * (world.after != np.arange(8)[:, None]), rng.random(8)
        r = q - 0.9 * q.max(1)[world.after] + 0.3 * (rng.random((8, 4)) < 0.02)
        sequence = walk(world, rng)
        led = np.zeros((8, 4))
        for back, event in enumerate(reversed(sequence)):
            led[event] = 0.9**back
        chosen, expected = enumerated(world, q, r, need, sequence)
        found = told(cells, q, r, need, led)
        assert found.chosen.argmax() == np.ravel_multi_index(chosen, (8, 4))
        np.testing.assert_allclose(found.led.reshape(8, 4), expected, atol=ROUNDING)
        grown += expected.sum() > 1
    assert 10 < grown < 90  # both kinds were tried


def walk(world: agent.World, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Some events, each where the last one led, no place twice."""
    place, been, events = int(rng.integers(8)), set(), []
    for _ in range(rng.integers(4)):
        been.add(place)
        ways = [a for a in range(4) if int(world.after[place, a]) not in been]
        if not ways:
            break
        events.append((place, int(rng.choice(ways))))
        place = int(world.after[events[-1]])
    return events


def enumerated(world: agent.World, q: Any, r: Any, need: Any, sequence: Any) -> tuple[tuple[int, int], Any]:
    """The event to replay and the trace of its sequence, as the paper has it."""

    def pi(values: Any) -> Any:
        odds = np.exp(5.0 * (values - values.max()))
        return odds / odds.sum()

    def gained(place: int, action: int, target: float) -> float:
        new = q[place].copy()
        new[action] = target
        return max(float((pi(new) - pi(q[place])) @ new), 1e-6)

    best, value, trace = (0, 0), -1.0, {}
    for place in range(8):
        for action in range(4):
            to = world.after[place, action]
            worth = need[place] * gained(place, action, r[place, action] + 0.9 * q[to].max())
            if to != place and worth > value:
                best, value, trace = (place, action), worth, {(place, action): 1.0}
    if sequence:
        place = int(world.after[sequence[-1]])
        event = place, int(q[place].argmax())
        to = int(world.after[event])
        if to not in {place, *(s for s, _ in sequence)}:
            delta = r[event] + 0.9 * q[to].max() - q[event]
            longer = [*sequence, event]
            reach = {e: 0.9 ** (len(longer) - 1 - k) for k, e in enumerate(longer)}
            worth = need[place] * sum(gained(*e, q[e] + z * delta) for e, z in reach.items())
            if worth > value:
                best, trace = event, reach
    table = np.zeros((8, 4))
    for event, z in trace.items():
        table[event] = z
    return best, table


def test_a_sequence_that_grows_backs_up_all_its_events() -> None:
    """Nothing but the start is needed first, then nothing but the place after it, from which a step pays 1, twice what
    it was thought to be worth: both steps learn of it at once, the first as a backup of two steps."""
    world = agent.track(3)
    first, second = world.event(0, 1), world.event(1, 2)
    sim = Simulator(agent.network(world))
    sim.set_weights("reward->index", np.eye(12)[:, [second]])
    sim.set_weights("index->critic", 0.5 * np.eye(12)[[second]])
    needed = np.repeat(np.eye(3)[[0, 0, 1, 1]], 4, 1)
    turns = np.array([0.0, 1.0, 0.0, 1.0])
    drive = {"index.need": needed, "index.ask": np.repeat(turns[:, None], 12, 1)}
    rest = Phase("rest", 4, signals={"encode": 0.0})
    x = sim.run(drive, trial=rest, signals={"learn": turns}, record={"index.x": 1})["index.x"]
    np.testing.assert_array_equal(x[1::2], np.eye(12)[[first, second]])
    values = agent.GAMMA * np.eye(12)[first] + np.eye(12)[second]
    np.testing.assert_allclose(np.asarray(sim.params["index->critic"].w)[0], values, atol=ROUNDING)


def test_directions_and_sequences() -> None:
    world = agent.track(6)
    right = [world.event(k, k + 1) for k in range(5)]
    steps = result.directions(world, np.array([*right[1:], *right[::-1], right[4]]))
    np.testing.assert_array_equal(steps, [1, 1, 1, 0, -1, -1, -1, -1, 0])
    assert (result.sequences(steps, 1), result.sequences(steps, -1)) == (0, 1)  # of five places or more


@pytest.mark.parametrize("places", [10, 20])
def test_one_walk_along_the_track_is_enough_if_it_is_replayed_in_reverse(places: int) -> None:
    """At a rate of 1, what a reward is worth travels the whole way in one reverse replay, and one step in each walk, or
    forward replay of it."""
    assert result.exact_after(places) == {"forward TD(0)": places, "forward replay": places, "reverse replay": 1}


def test_quick_version_is_reversed_after_and_forward_before_a_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["run", "mattar_daw2018", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "replay.png").stat().st_size > 10_000
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["order"]["need, difference"] < 10 * agent.GAMMA**agent.SETTLE  # at most 1 / (1 - gamma) is to come
    ordered(metrics)
    assert len(metrics["track"]["random"]["backups"]) == 5


def ordered(metrics: Any) -> None:
    """What holds of any number of animals and runs."""
    before, after = metrics["order"]["before"], metrics["order"]["after"]
    assert before["forward"]["first steps"] == 1.0 and before["reverse"]["sequences"] == 0.0
    assert before["forward"]["steps"] > 0.85  # two walks along the track; the step between them is neither
    assert after["forward"]["first steps"] == 0.0 and after["reverse"]["steps that gain"] > 0.95
    assert before["steps that gain per lap"] < after["steps that gain per lap"] / 5
    assert metrics["order"]["reverse"] == {"after more": pytest.approx(1, abs=0.05), "after less": 0.0}
    track = metrics["track"]
    places = result.PLACES - 2  # between the start and what the last step of the run has learned
    assert track["prioritised"]["backups"] == [places]
    # one after the other they are to be drawn out of the 17 events that lead somewhere
    deviation = (places * 17 * 16 / len(track["random"]["backups"])) ** 0.5
    assert abs(np.mean(track["random"]["backups"]) - places * 17) < 4 * deviation


def test_expected_numbers() -> None:
    metrics = json.loads(resources.files("engrax.results.mattar_daw2018").joinpath("expected.json").read_text())
    ordered(metrics)
    for places, found in metrics["walks"].items():
        assert found == {"forward TD(0)": int(places), "forward replay": int(places), "reverse replay": 1}
    maze = metrics["maze"]
    assert maze["prioritised"]["backups"][0] < min(maze["random"]["backups"]) / 5
