"""Spike timing on a connectome: the graph is the one that others measured, and what the rule must do to it."""

import json
from importlib import resources
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

from engrax import Simulator, cli, networks as nets
from engrax.results.celegans import run as result


@pytest.fixture(scope="module")
def worm() -> nx.DiGraph:
    return result.connectome()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("celegans")
    done = CliRunner().invoke(cli.main, ["run", "celegans", "--quick", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_connectome_is_the_one_that_was_published(worm: nx.DiGraph) -> None:
    """Varshney et al. (2011): counts are exact; the paper has 6,393 synapses, its data file 6,394."""
    found = result.published(worm)
    assert (found["neurons"], found["connections"], found["synapses"]) == (279, 2194, 6394)
    assert found["component"] == 237


def test_rich_club_is_the_one_that_was_published() -> None:
    """Towlson et al. (2013): the neurons with 44 or more partners, of either kind of synapse."""
    partners = nx.Graph(nets.c_elegans().edges)
    partners.add_edges_from(nets.c_elegans("electrical").edges)
    partners.remove_edges_from(list(nx.selfloop_edges(partners)))
    assert {neuron for neuron, degree in partners.degree() if degree >= 44} == set(result.RICH_CLUB)


def test_rewired_graphs_keep_degrees_and_lose_pairs(worm: nx.DiGraph) -> None:
    """By chance some 5 % of connections are returned (mean degree 8 among 279, with unequal degrees)."""
    other = result.rewire(worm, 0)
    assert dict(other.in_degree()) == dict(worm.in_degree())
    assert dict(other.out_degree()) == dict(worm.out_degree())
    assert nx.overall_reciprocity(worm) > 0.2
    assert nx.overall_reciprocity(other) < 0.08


def test_measures_by_hand() -> None:
    """0 and 1 are joined both ways, 1 -> 2 is strong, 2 -> 0 is weak: of three strong connections two lie in a loop."""
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 1, 1.0), (1, 0, 0.5), (1, 2, 1.0), (2, 0, 0.1)])
    found = result.measures(graph, club=(0, 1))
    assert found["reciprocity"] == pytest.approx(2 * 0.5 / 2.6)
    assert found["in_loops"] == pytest.approx(2 / 3)
    assert found["component"] == 2
    assert found["efficiency"] == pytest.approx((1 + 0.5 + 1 + 1) / 6)  # 0 -> 1, 0 -> 2, 1 -> 0, 1 -> 2
    assert found["rich_club"] == pytest.approx(0.75 / 0.65)


def test_no_pair_becomes_strong_both_ways(worm: nx.DiGraph) -> None:
    """Two spikes move the two weights between their neurons by A+ exp(d / tau) and -A- exp(-d / tau), with d the delay
    of 1 ms: 1.051 and -1.046 of A+. Until a bound is reached their sum stays what it was or falls, within 1 %."""
    net = result.network({"worm": worm})
    sim = Simulator(net, dt=result.DT)
    sim.run(ticks=3000)
    post, pre = sim.synapses("neurons->neurons")
    w = dict(zip(zip(pre.tolist(), post.tolist(), strict=True), sim.params["neurons->neurons"].w.tolist(), strict=True))
    assert min(w.values()) > 0
    assert max(w.values()) < result.LARGEST
    sums = np.array([w[i, j] + w[j, i] for i, j in w if (j, i) in w])
    assert len(sums) == 2 * 233
    assert sums.max() < 1.01 * result.LARGEST
    assert np.std(list(w.values())) > 0.03 * result.LARGEST  # though the weights themselves have spread


def test_learned_graphs_have_the_weights_of_their_own_synapses(quick: Path, worm: nx.DiGraph) -> None:
    """The recording's last weights, by name, and what was written of the first worm."""
    graphs = {"worm 0": worm, "worm 1": worm, "rewired 0": result.rewire(worm, 0)}
    net = result.network(graphs)
    sim = Simulator.resume(quick / "run.h5")
    labels = net.nodes["neurons"]["meta"]["nodes"]
    post, pre = sim.synapses("neurons->neurons")
    w = np.asarray(sim.params["neurons->neurons"].w) / result.LARGEST
    expected = {(labels[i], labels[j]): x for i, j, x in zip(pre, post, w, strict=True)}
    learned = result.graphs_of(quick / "run.h5", net, graphs)
    found = {(f"{n}/{i}", f"{n}/{j}"): x for n, g in learned.items() for i, j, x in g.edges(data="weight")}
    assert found == pytest.approx(expected)
    written = nx.read_graphml(quick / "learned.graphml")
    assert dict(written["AVAL"]) == dict(learned["worm 0"]["AVAL"])


def test_pairs_are_what_the_rule_undoes(quick: Path) -> None:
    """After 10 s, before weights have spread: what is left of mutual weights is less than in any shuffle."""
    metrics = json.loads((quick / "metrics.json").read_text())
    for kind in ("worm", "rewired"):
        found = metrics[kind]["reciprocity"]
        assert found["after"] < found["shuffled"] - 5 * found["shuffled_spread"]
    assert metrics["worm"]["in_loops"]["after"] < metrics["worm"]["in_loops"]["shuffled"] - 0.05
    assert (quick / "measures.png").stat().st_size > 10_000


def test_expected_rule_undoes_pairs_and_with_them_loops_and_the_rich_club() -> None:
    """Against shuffled weights, by more than five of their standard deviations; modules it leaves alone."""
    expected = json.loads(resources.files("engrax.results.celegans").joinpath("expected.json").read_text())
    found = expected["worm"]
    for measure in ("reciprocity", "in_loops", "component", "efficiency", "rich_club"):
        assert found[measure]["after"] < found[measure]["shuffled"] - 5 * found[measure]["shuffled_spread"]
    assert found["modularity"]["after"] == pytest.approx(found["modularity"]["before"], rel=0.02)
    lost = {
        kind: expected[kind]["in_loops"]["shuffled"] - expected[kind]["in_loops"]["after"]
        for kind in ("worm", "rewired")
    }
    assert lost["rewired"] < lost["worm"] / 3
    assert expected["learned"]["rewired"]["crowding"] < expected["learned"]["worm"]["crowding"] < -0.2
    assert 0.3 < expected["learned"]["worm"]["agreement"] < 0.7
