"""Outer loops over inner problems: gradients against finite differences, biased and unbiased ones, clusters, files."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cloudpickle
import distributed
import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from click.testing import CliRunner

from engrax import (
    Phase,
    Recording,
    RecordingError,
    SimulationError,
    Simulator,
    cli,
    learned,
    meta,
    networks as nets,
    rules,
    sweep,
)
from engrax.meta.train import _keys, _members

N = 6


class Directed(eqx.Module):
    """Inputs with one strong direction."""

    direction: Any

    def __call__(self, index: Any, key: Any) -> Any:
        own, common = jax.random.split(key)
        noise = 0.3 * jax.random.normal(own, (8, N))
        return noise + jax.random.normal(common, (8, 1)) * self.direction


def strongest(key: Any) -> meta.Episode:
    """Find the strongest direction."""
    v = jax.random.normal(key, (N,))
    v = v / jnp.linalg.norm(v)

    def loss(learnt: meta.Learnt) -> Any:
        w = learnt.w("in->out")[0]
        return 1 - (w @ v) ** 2 / (w @ w)

    return meta.Episode({"in": Directed(v)}, loss)


def one_cell(rule: Any) -> nx.MultiDiGraph:
    net = nx.MultiDiGraph()
    net.add_node("in", neuron=nets.Input(), size=N)
    net.add_node("out", neuron=nets.Linear(), size=1)
    net.add_edge("in", "out", rule=rule)
    return net


def finding(rule: Any = None, **options: Any) -> meta.Learning:
    rule = rules.Oja(eta=1e-2) if rule is None else rule
    return meta.Learning(one_cell(rule), rule, strongest, **{"units": 10, "log": ("eta",), **options})


class Balance:
    """Influence balancing: s <- A s + (theta, ..., theta, -theta, ..., -theta), with more of theta's influence of the
    wrong sign at once and of the right one later. Source: Tallec & Ollivier, arXiv:1702.05043 (2017)."""

    segments = 200
    n, positive = 23, 10

    def __init__(self) -> None:
        self.a = 0.5 * np.eye(self.n) + 0.5 * np.eye(self.n, k=1)
        self.push = np.where(np.arange(self.n) < self.positive, 1.0, -1.0)

    @property
    def start(self) -> Any:
        return {"theta": jnp.asarray(0.5)}

    def begin(self, theta: Any, key: Any) -> Any:
        """In the steady state of the start, so that only what theta does counts."""
        return jnp.linalg.solve(jnp.eye(self.n) - self.a, 0.5 * self.push)

    def advance(self, theta: Any, state: Any) -> Any:
        state = self.a @ state + theta["theta"] * self.push
        return state, 0.5 * (state[0] - 1) ** 2

    def decode(self, theta: Any) -> Any:
        return theta["theta"]


def test_the_gradient_is_that_of_the_run() -> None:
    """Against central differences of the same episodes; errors of order h^2 and of rounding / h."""
    problem = finding(units=5, segments=2)
    key = jax.random.key(3)

    @jax.jit
    def loss(theta: Any) -> Any:
        state = problem.begin(theta, key)
        state, first = problem.advance(theta, state)
        return first + problem.advance(theta, state)[1]

    h = 1e-5
    slope = jax.grad(loss)(problem.start)["eta"]
    difference = (loss({"eta": problem.start["eta"] + h}) - loss({"eta": problem.start["eta"] - h})) / (2 * h)
    assert abs(slope) > 1e-4
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)


def test_the_inner_problem_is_what_the_simulator_runs() -> None:
    """The weights after an episode are those that the formula gives for the same inputs."""
    problem = finding(units=3)
    life = problem.begin(problem.start, jax.random.key(0))
    w = np.asarray(life.state.synapses["in->out"].w[0])
    seen = []

    def watching(key: Any) -> meta.Episode:
        episode = strongest(key)
        return meta.Episode(episode.drive, lambda learnt: seen.append(learnt) or episode.loss(learnt))

    same = meta.Learning(problem.graph, problem.graph.edges["in", "out", 0]["rule"], watching, units=1, log=("eta",))
    advance = jax.jit(same.advance)
    for _ in range(3):
        life, _ = advance(same.start, life)
        x = np.asarray(life.state.neurons["in"].x)
        y = x @ w[0]
        w = w + 1e-2 * np.mean(y[:, None] * (x - y[:, None] * w), 0)
        np.testing.assert_allclose(life.state.synapses["in->out"].w[0], w, rtol=1e-12)
    assert isinstance(seen[-1], meta.Learnt)


@pytest.mark.parametrize("together", [None, 2])
def test_losses_of_new_problems_are_those_of_living_through_them(together: int | None) -> None:
    problem = finding(units=2, segments=2)
    keys = jax.random.split(jax.random.key(5), 3)
    found = meta.evaluate(problem, problem.start, keys, together=together)
    assert found.shape == (3, 2)
    advance = jax.jit(problem.advance)
    for key, row in zip(keys, found, strict=True):
        life = problem.begin(problem.start, key)
        for loss in row:
            life, expected = advance(problem.start, life)
            assert loss == pytest.approx(float(expected), rel=1e-12)


@pytest.fixture(scope="module")
def problem() -> meta.Learning:
    """One for all, so that its programs are compiled once."""
    return finding(segments=2, units=10)


LOOPS = {
    "gradient": meta.gradient(optax.adam(0.3), episodes=2),
    "OpenAI-ES": meta.openai_es(8, 0.3, optax.adam(0.3), episodes=2),
    "CMA-ES": meta.cma_es(8, 0.5, episodes=2),
    "PES": meta.pes(8, 0.3, optax.adam(0.3), window=1, episodes=2),
}


@pytest.mark.parametrize("name", LOOPS)
def test_every_outer_loop_finds_a_faster_rule(problem: meta.Learning, name: str) -> None:
    """Twenty presentations at eta = .01 teach little; at a rate ten times as high they are enough."""
    found = meta.train(problem, LOOPS[name], steps=30)
    assert len(found.losses) == 30
    assert 0.03 < float(found.learned.eta) < 2
    assert np.nanmedian(found.losses[-8:]) < np.nanmedian(found.losses[:4]) - 0.1


@pytest.mark.parametrize("name", ["gradient", "CMA-ES", "PES"])
def test_a_loop_that_was_stopped_goes_on_as_if_it_had_not(problem: meta.Learning, name: str, tmp_path: Path) -> None:
    """PES stops in the middle of its inner problems."""
    path = tmp_path / "loop.h5"
    whole = meta.train(problem, LOOPS[name], steps=6)
    meta.train(problem, LOOPS[name], steps=3, checkpoint=path)
    rest = meta.train(problem, LOOPS[name], steps=6, checkpoint=path)
    assert np.array_equal(whole.losses, rest.losses, equal_nan=True)
    assert whole.theta["eta"] == rest.theta["eta"]


def slope(problem: Balance, outer: Any, seeds: int = 1) -> float:
    """The gradient that an outer loop sees at first, averaged over one whole inner problem: what sgd at a rate too
    small to matter goes down, per unit of the rate."""
    rate = 1e-9
    window = outer(optax.sgd(rate))(problem).window or problem.segments
    steps = problem.segments // window
    moved = [
        float(meta.train(problem, outer(optax.sgd(rate)), steps=steps, seed=seed).theta["theta"]) - 0.5
        for seed in range(seeds)
    ]
    return -float(np.mean(moved)) / rate / steps


def test_persistent_evolution_is_not_fooled_where_truncation_is() -> None:
    """Influence balancing: at theta = .5 the loss falls with growing |influence| of the cells that answer late."""
    problem = Balance()
    true = slope(problem, lambda sgd: meta.gradient(sgd, episodes=1))
    truncated = slope(problem, lambda sgd: meta.gradient(sgd, episodes=1, window=1))
    few = slope(problem, lambda sgd: meta.openai_es(64, 0.01, sgd, window=1, ranks=False))
    persistent = slope(problem, lambda sgd: meta.pes(64, 0.01, sgd, window=1), seeds=8)
    assert np.sign(truncated) == np.sign(few) == -np.sign(true)
    assert np.sign(persistent) == np.sign(true)


def test_shrinking_is_the_proximal_step_of_an_l1_penalty() -> None:
    """It minimises (v - u)^2 / 2 + penalty |v|, u being where the update leads; with a schedule, step by step."""
    theta, updates = {"a": jnp.array([0.5, -0.5, 0.05, 0.0])}, {"a": jnp.array([0.1, 0.1, 0.0, -0.05])}
    shrinking = meta.shrinking(lambda count: 0.1 / (1 + count))
    state = shrinking.init(theta)
    for expected in ([0.5, -0.3, 0.0, 0.0], [0.55, -0.15, 0.0, 0.0]):
        change, state = shrinking.update(updates, state, theta)
        theta = optax.apply_updates(theta, change)
        np.testing.assert_allclose(theta["a"], expected, atol=1e-15)


def test_descent_begins_around_the_start_by_seed(problem: meta.Learning) -> None:
    starts = [
        float(meta.train(problem, meta.gradient(episodes=2, spread=0.5), steps=0, seed=seed).theta["eta"])
        for seed in (0, 0, 1)
    ]
    assert starts[0] == starts[1] != starts[2]
    assert all(0 < abs(start - float(problem.start["eta"])) < 3 for start in starts)  # six deviations


def test_members_of_a_pair_try_the_same_problems() -> None:
    loop = meta.openai_es(6, episodes=2)(finding())
    keys = np.asarray(_keys(loop, jax.random.key(0)))
    assert keys.shape[:2] == (6, 2)
    assert np.array_equal(keys[:3], keys[3:])
    assert len({bytes(k) for k in keys[:3].reshape(-1, keys.shape[-1])}) == 6


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    problem, path = finding(), tmp_path / "loop.h5"
    meta.train(problem, meta.cma_es(4), steps=1, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(SimulationError, match=r"loop.h5 was written with members=4, here it is 6"):
        meta.train(problem, meta.cma_es(6), steps=2, checkpoint=path)
    with pytest.raises(SimulationError, match=r"of another problem or outer loop"):
        meta.train(problem, meta.openai_es(4), steps=2, checkpoint=path)
    assert path.read_bytes() == before
    (tmp_path / "other").write_text("no HDF5")
    with pytest.raises(SimulationError, match="cannot be read as a checkpoint"):
        meta.train(problem, meta.cma_es(4), steps=2, checkpoint=tmp_path / "other")


def test_wrapped_rules_and_initial_weights_are_learned() -> None:
    """The rule inside of a wrapper, and the weights to begin with; a gradient for each."""
    rule = rules.Oja(eta=1e-2)
    net = one_cell(rules.Bounded(rule, -1.0, 1.0))
    problem = meta.Learning(net, {"rule": rule, "in->out.w": np.full((1, N), 0.1)}, strongest, units=4)
    assert set(problem.start) == {"rule.eta", "in->out.w"}
    life = problem.begin(problem.start, jax.random.key(0))
    assert np.all(np.asarray(life.state.synapses["in->out"].w[0]) == 0.1)
    slopes = jax.grad(lambda theta: problem.advance(theta, problem.begin(theta, jax.random.key(0)))[1])(problem.start)
    assert all(np.any(np.asarray(slope) != 0) for slope in slopes.values())
    assert problem.decode(problem.start)["rule"].eta == 1e-2


def test_fixed_numbers_stay() -> None:
    rule = rules.BCM()
    problem = meta.Learning(one_cell(rule), rule, strongest, units=2, fixed=("eta",))
    assert "eta" not in problem.start
    assert len(problem.start) == len(jax.tree.leaves(rule)) - 1
    assert problem.decode(problem.start).eta == rule.eta


def test_respond_does_not_learn() -> None:
    """What the network does with other inputs, as many as one likes, with the weights that it has."""
    held = {}

    def task(key: Any) -> meta.Episode:
        def loss(learnt: meta.Learnt) -> Any:
            x = jnp.arange(5.0 * N).reshape(1, 5, N)
            held["error"] = jnp.abs(learnt.respond({"in": x}, "out.x") - x @ learnt.w("in->out").T).max()
            return (
                held["error"]
                + jnp.abs(
                    learnt.respond({"in": x}, "out.x", trial=Phase("a", ticks=1)) - x @ learnt.w("in->out").T
                ).max()
            )

        return meta.Episode(strongest(key).drive, loss)

    rule = rules.Oja(eta=1e-2)
    problem = meta.Learning(one_cell(rule), rule, task, units=3)
    _, loss = problem.advance(problem.start, problem.begin(problem.start, jax.random.key(0)))
    assert loss == 0


@pytest.mark.parametrize(("make", "said"), [
    (lambda: meta.Coded(finding(), meta.Genome({"beta": meta.Number(0, 1)})), "'beta'; the problem has: eta"),
    (lambda: meta.Coded(finding(), meta.Genome({"eta": meta.Number(0, 1)}, {"eta": (2,)})), "'eta' of shape (2,)"),
    (lambda: meta.Genome({}), "at least one gene"),
    (lambda: meta.Number(0, 1, log=True), "low and high above 0"),
    (lambda: meta.genetic(8, parents=3), "members=8, parents=3"),
    (lambda: meta.Learning(one_cell(rules.Oja()), rules.Oja(), strongest, units=1), "Oja, is nowhere in the network"),
    (lambda: finding(log=("etta",)), "no number 'etta' is learned; there are: eta"),
    (lambda: finding(units=0), "units=0 must be at least 1"),
    (lambda: finding(rules.Oja(eta=-1.0)), "eta is to be searched by its logarithm: start it above 0"),
    (lambda: meta.train(finding(), meta.pes(4), steps=-1), "steps=-1"),
    (lambda: meta.train(finding(segments=3), meta.pes(4, window=2), steps=1), "window=2 must divide the 3 segments"),
    (lambda: meta.train(finding(), meta.gradient(window=2), steps=1), "window=2 must divide the 1 segments"),
    (lambda: meta.openai_es(5), "members=5 must be at least 2 and even"),
    (lambda: meta.train(finding(rules.Oja(eta=1e9), units=60), meta.cma_es(4), steps=1), "step 0: no member's loss"),
])  # fmt: skip
def test_mistakes_are_named(make: Any, said: str) -> None:
    with pytest.raises(SimulationError) as caught:
        make()
    assert said in str(caught.value)


class Ours(rules.Rule):
    """A rule of the user's."""

    power: int = eqx.field(default=1, static=True)
    eta: float = 1e-3

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return self.eta * post.x * (pre.x - w * post.x) ** self.power


def swept(path: Path, client: Any = None, callbacks: Any = ()) -> Any:
    """The recorded weights of the points of a sweep, with drive from arrays and from functions."""
    over = {"in->out.eta": [1e-3, 1e-2], "seed": range(3)}
    sim = sweep(one_cell(Ours()), over, client=client, slices=3)
    with sim.record(path, {"in->out.w": 2}):
        sim.run({"in": np.random.default_rng(0).normal(size=(8, 8, N))}, chunk=4, callbacks=callbacks)
        sim.run({"in": Directed(jnp.eye(N)[0])}, 4)
    with Recording(path) as recording:
        return np.asarray(recording.values("in->out.w"))


def test_the_same_with_any_number_of_workers_even_if_one_dies(tmp_path: Path) -> None:
    """Bit for bit among clusters; on one machine all members or points are one program, which may round otherwise."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    problem, found, points = Bowl(), [], []
    gradient, cma = meta.gradient(episodes=6), meta.cma_es(8)
    alone = meta.train(problem, cma, steps=4)
    together = swept(tmp_path / "together.h5")
    for workers in (1, 2):
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):

            def kill(now: Any, *rest: Any, client: Any = client, workers: int = workers) -> None:
                if workers == 2 and (now == 1 or getattr(now, "tick", 0) == 4):
                    pids = client.run(os.getpid)
                    os.kill(next(iter(pids.values())), signal.SIGKILL)

            found.append(meta.train(problem, cma, steps=4, client=client, callbacks=[kill]))
            points.append(swept(tmp_path / f"{workers}.h5", client, [kill]))
            graded = meta.train(problem, gradient, steps=2, client=client)
            own = meta.train(finding(Ours(eta=1e-2)), gradient, steps=1, client=client)
    assert np.array_equal(found[0].losses, found[1].losses)
    np.testing.assert_allclose(found[0].losses, alone.losses, rtol=1e-12)
    assert points[0].shape == (6, 6, 1, N)
    assert np.array_equal(points[0], points[1])
    np.testing.assert_allclose(points[0], together, rtol=1e-12)
    with pytest.raises(SimulationError, match="a client runs the points of a sweep"):
        Simulator(one_cell(rules.Oja()), client=client)
    np.testing.assert_allclose(graded.losses, meta.train(problem, gradient, steps=2).losses, rtol=1e-12)
    here = meta.train(finding(Ours(eta=1e-2)), gradient, steps=1)
    np.testing.assert_allclose(own.losses, here.losses, rtol=1e-10)
    np.testing.assert_allclose(own.theta["eta"], here.theta["eta"], rtol=1e-10)


def test_a_network_travels_to_the_workers(problem: meta.Learning) -> None:
    """What is sent makes the same programs there."""
    there = cloudpickle.loads(cloudpickle.dumps(problem))
    assert there.start == problem.start
    life = there.begin(there.start, jax.random.key(5))
    assert jax.tree.all(jax.tree.map(np.array_equal, life, problem.begin(problem.start, jax.random.key(5))))


def test_without_evosax_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("evosax.algorithms", "evosax.core.fitness_shaping"):
        monkeypatch.setitem(sys.modules, part, None)
    for strategy in (meta.openai_es, meta.pes, meta.cma_es):
        with pytest.raises(SimulationError, match=r"need evosax: pip install 'engrax\[meta\]'"):
            strategy(4)


# Genomes


def test_genes_say_what_they_should() -> None:
    """All codes of three bits: Gray's order, both ends, equal ratios, 0 and both signs."""
    codes = np.array(list(itertools.product([False, True], repeat=3)))
    order = np.argsort([int(meta.genome.gray(code)) for code in codes])
    assert all(np.sum(codes[a] != codes[b]) == 1 for a, b in itertools.pairwise(order))
    values = np.sort(meta.Number(1.0, 128.0, bits=3, log=True).decode(codes))
    np.testing.assert_allclose(values, 2.0 ** np.arange(8))
    np.testing.assert_allclose(np.sort(meta.Number(-1.0, 6.0, bits=3).decode(codes)), np.arange(-1.0, 7.0))
    np.testing.assert_allclose(np.sort(meta.Signed(1.0, 4.0, size_bits=2).decode(codes)), [-4, -2, -1, 0, 0, 1, 2, 4])
    assert [meta.Choice(("a", "b", "c")).decode(np.array(code)) for code in ([0, 0], [0, 1], [1, 1], [1, 0])] == list(
        "abca"
    )


def test_a_genome_has_as_many_bits_as_its_genes() -> None:
    genome = meta.Genome({"eta": meta.Number(0, 1, bits=4), "z": meta.Signed(0.1, 1, 2), "how": meta.Choice((1, 2, 3))},
                         shapes={"z": (2, 3)})  # fmt: skip
    assert genome.bits == 4 + 6 * 3 + 2
    numbers = genome.numbers(jnp.zeros(genome.bits, bool))
    assert {name: value.shape for name, value in numbers.items()} == {"eta": (), "z": (2, 3)}
    assert genome.choices(np.ones(genome.bits, bool)) == {"how": 3}


class Bowl:
    """The loss is n + x^2, held in n cells."""

    segments = 1

    def __init__(self, cells: int = 1) -> None:
        self.cells = cells

    @property
    def start(self) -> Any:
        return {"x": jnp.asarray(1.0)}

    def begin(self, theta: Any, key: Any) -> Any:
        return jnp.ones(self.cells)

    def advance(self, theta: Any, state: Any) -> Any:
        return state, state.sum() + theta["x"] ** 2

    def decode(self, theta: Any) -> Any:
        return theta["x"]


def test_a_genome_evolves_to_the_best_code() -> None:
    """The least square among 256 numbers, by sex and without."""
    coded = meta.Coded(Bowl(), meta.Genome({"x": meta.Number(-3.0, 5.0, bits=8)}))
    for recombination in (0.5, None):
        found = meta.train(coded, meta.genetic(32, recombination=recombination), steps=40)
        assert found.losses[-1].min() == pytest.approx(1, abs=(0.5 * 8 / 255) ** 2)


def test_recombination_only_mixes_and_mutation_only_flips() -> None:
    """Without mutation a gene that all parents share is all children's; without sex children are copies."""
    problem = meta.Coded(Bowl(), meta.Genome({"x": meta.Number(-3, 0, bits=8)}))
    for recombination in (0.5, None):
        loop = meta.genetic(8, mutation=0.0, recombination=recombination)(problem)
        state = loop.init(jax.random.key(0))
        population = np.asarray(state[0]).copy()
        population[:4, 0] = True  # the parents to be
        losses = jnp.arange(8.0)
        after = np.asarray(
            loop.tell((jnp.asarray(population), state[1]), jnp.asarray(population), losses, None, jax.random.key(1))[0]
        )
        assert after[:, 0].all()
        assert np.array_equal(after[0], population[0])  # the elite
        copies = [any(np.array_equal(child, parent) for parent in population[:4]) for child in after]
        assert all(copies) == (recombination is None)


def test_a_genome_chooses_among_programs() -> None:
    """The best choice takes over, and of its numbers the best; programs differ in the shapes of what they hold."""
    genome = meta.Genome({"cells": meta.Choice((3, 1, 2)), "x": meta.Number(-1.0, 2.0, bits=2)})
    found = meta.train(meta.Varied(Bowl, genome), meta.genetic(16, mutation=0.1), steps=20)
    assert genome.choices(np.asarray(found.theta)) == {"cells": 1}
    assert found.losses[-1].min() == 1


class Traced(Bowl):
    """Counts how often it is compiled."""

    count = 0

    def advance(self, theta: Any, state: Any) -> Any:
        Traced.count += 1
        return super().advance(theta, state)


def test_genomes_of_all_sizes_share_a_program() -> None:
    """And a problem among which genomes choose is compiled for one size, however many members have chosen it."""

    def tried(inner: Any, thetas: Any) -> np.ndarray:
        keys = jax.random.key_data(jax.random.split(jax.random.key(0), (16, 1)))
        members = _members(inner, 1, False, None, 8)
        return members.advance(thetas, members.begin(thetas, keys))[1][:, 0]

    problem, counts = Traced(), []
    for bits in (2, 5):
        coded = meta.Coded(problem, meta.Genome({"x": meta.Number(-3.0, 5.0, bits)}))
        np.testing.assert_allclose(tried(coded, jnp.zeros((16, bits), bool)), 10)
        counts.append(Traced.count)
    tried(meta.Subspace(problem, 2), {"z": jnp.zeros((16, 2))})
    assert counts[0] == counts[1] == Traced.count > 0
    varied = meta.Varied(Traced, meta.Genome({"cells": meta.Choice((1, 2)), "x": meta.Number(-1.0, 2.0, bits=2)}))
    Traced.count = 0
    for second in (1, 7, 16):
        genomes = np.zeros((16, 3), bool)
        genomes[:second, 0] = True
        np.testing.assert_allclose(tried(varied, genomes), 2 + genomes[:, 0])
    assert Traced.count == 2 * counts[0]


def test_fixed_sparse_projections_are_part_of_an_episode() -> None:
    rule = rules.Oja(eta=1e-2)
    net = one_cell(rule)
    net.add_node("relay", neuron=nets.Linear(), size=1)
    net.add_edge("out", "relay", topology=nets.OneToOne(), weights=2.0)

    def task(key: Any) -> meta.Episode:
        return meta.Episode(
            {"in": jnp.ones((3, N))}, lambda learnt: jnp.sum(learnt.x("relay.x") - 2 * learnt.x("out.x"))
        )

    problem = meta.Learning(net, rule, task, units=3)
    life, loss = jax.jit(problem.advance)(problem.start, problem.begin(problem.start, jax.random.key(0)))
    assert loss == 0
    assert np.all(np.asarray(life.state.neurons["relay"].x) != 0)


def test_a_subspace_is_one_of_the_problem() -> None:
    """z = 0 is the start; a step in z moves theta along its own directions."""
    rule = rules.Oja(eta=1e-2)
    whole = meta.Learning(one_cell(rule), {"rule": rule, "in->out.w": np.full((1, N), 0.1)}, strongest, units=2)
    few = meta.Subspace(whole, 3)
    assert jax.tree.all(jax.tree.map(np.array_equal, few.theta(few.start), whole.start))
    moved = np.stack([jax.flatten_util.ravel_pytree(few.theta({"z": z}))[0] for z in jnp.eye(3)])
    assert np.linalg.matrix_rank(moved - jax.flatten_util.ravel_pytree(whole.start)[0]) == 3


# Files


def test_what_was_learned_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rule = rules.Volterra.of({"110": 1 / 3, "021": -1.0}, eta=0.1)
    each = rules.ABCD(a=np.random.default_rng(0).normal(size=(1, N)).astype(np.float32))
    meta.save(rule, tmp_path / "rule.json", "Oja's, nearly")
    meta.save({"rule": each, "w": np.arange(3.0)}, tmp_path / "several.json")
    back, several = meta.load(tmp_path / "rule.json"), meta.load(tmp_path / "several.json")
    assert back == rule
    assert np.array_equal(several["rule"].a, each.a)
    assert several["rule"].a.dtype == np.float32
    assert np.array_equal(several["w"], np.arange(3.0))
    told = CliRunner().invoke(cli.main, ["info", str(tmp_path / "rule.json")])
    assert told.exit_code == 0
    assert "Oja's, nearly" in told.output
    assert "Volterra, 28 numbers, locality synapse" in told.output
    assert r"\Delta w_{ij} = - 0.1 " in told.output


class Own(rules.Rule):
    eta: float = 1.0

    def update(self, pre: Any) -> Any:
        return self.eta * pre.x


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    meta.save(Own(), path)
    with pytest.raises(RecordingError, match=r"own.json uses the class 'Own', which engrax does not have"):
        meta.load(path)
    assert meta.load(path, known=[Own]) == Own()
    with pytest.raises(RecordingError, match="is there already"):
        meta.save(Own(), path)
    with pytest.raises(RecordingError, match="no rule or neuron"):
        meta.save(3.0, tmp_path / "number.json")
    for text in ("", "[]", '{"format": "engrax learned 1"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RecordingError, match=r"bad.json (cannot be read|is not)"):
            meta.load(tmp_path / "bad.json")


def test_what_is_shipped_loads() -> None:
    for name in learned.files():
        assert jax.tree.leaves(getattr(learned, name))
    with pytest.raises(AttributeError, match="nothing learned is called 'magic'"):
        learned.magic  # noqa: B018
    assert CliRunner().invoke(cli.main, ["list", "learned"]).exit_code == 0


def test_the_members_of_a_step_are_shared_out_over_devices() -> None:
    """In a process with four of them, of which each has its part: the losses are those of one device."""
    script = textwrap.dedent("""
        import sys
        import jax
        from engrax import meta
        sys.path.insert(0, sys.argv[1])
        from test_meta import finding
        from engrax.meta.members import _shared
        shared = _shared({"eta": jax.numpy.zeros(8)})["eta"]
        assert len(shared.sharding.device_set) == int(sys.argv[2]), shared.sharding
        found = meta.train(finding(units=3), meta.cma_es(8, 0.1), steps=2)
        print(*found.losses.ravel())
    """)
    losses = []
    for devices in (1, 4):
        flags = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        given = [sys.executable, "-c", script, str(Path(__file__).parent), str(devices)]
        done = subprocess.run(given, env=flags, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        losses.append(np.array(done.stdout.split(), float))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)  # of 32 bits
