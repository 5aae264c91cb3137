"""Spike timing on the connectome of C. elegans, and on random graphs of the same degrees. See README.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import scipy.stats
from jaxtyping import Float

from engrax import Simulator, networks as nets, rules, to_networkx

DT = 1e-3  # seconds
LARGEST = 4.0  # mV, as all weights
A_PLUS = 0.02  # of the largest weight
DEPRESSION = 1.1  # A_- / A_+
BACKGROUND_RATE, BACKGROUND = 400.0, 4.0  # Hz, mV: on its own it makes a neuron fire at some 6 Hz
CELL = nets.LIF(rest=-60.0, threshold=-50.0, reset=-60.0, start=-60.0)
SWAPS = 5  # per synapse, each of three synapses, in a rewired graph
# Towlson et al., Journal of Neuroscience 33:6380-6387 (2013)
RICH_CLUB = ("AVAL", "AVAR", "AVBL", "AVBR", "AVDL", "AVDR", "AVEL", "AVER", "PVCL", "PVCR", "DVA")
MEASURES = {  # and the figure's names for them
    "reciprocity": "weighted reciprocity",
    "in_loops": "fraction of strong synapses in loops",
    "component": "neurons in largest component",
    "clustering": "weighted clustering",
    "efficiency": "efficiency of strong synapses",
    "modularity": "modularity",
    "rich_club": "weight within rich club / mean",
}


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    seconds: float = 200.0,
    worms: int = 3,
    rewired: int = 5,
    shuffles: int = 10,
) -> dict[str, Any]:
    """Learn for so many ``seconds`` on ``worms`` copies of the connectome, which differ in noise, and on ``rewired``
    ones; compare each with as many ``shuffles`` of its learned weights.

    ``quick``: 10 s, two copies, one rewired, two shuffles. Writes run.h5 (ten samples of the weights), learned.graphml
    (the first worm), measures.png and metrics.json.
    """
    if quick:
        seconds, worms, rewired, shuffles = min(seconds, 10.0), 2, 1, 2
    worm = connectome()
    graphs = {f"worm {k}": worm for k in range(worms)}
    graphs |= {f"rewired {k}": rewire(worm, seed + k) for k in range(rewired)}
    net = network(graphs)
    sim = Simulator(net, seed=seed, dt=DT)
    ticks = round(seconds / DT)
    with sim.record(out / "run.h5", {"neurons->neurons.w": ticks // 10}, overwrite=True):
        sim.run(ticks=ticks, chunk=ticks // 10)  # one size of chunk: compiled once
    learned = graphs_of(out / "run.h5", net, graphs)
    nx.write_graphml(learned["worm 0"], out / "learned.graphml")
    rng = np.random.default_rng(seed)
    measured = {
        name: {
            "before": [measures(graphs[name])],
            "after": [measures(graph)],
            "shuffled": [measures(shuffled(graph, rng)) for _ in range(shuffles)],
        }
        for name, graph in learned.items()
    }
    metrics = {
        "connectome": published(worm),
        "learned": {kind: described([g for n, g in learned.items() if n.startswith(kind)]) for kind in kinds(measured)},
        **{kind: compared([found for n, found in measured.items() if n.startswith(kind)]) for kind in kinds(measured)},
    }
    figure(out / "measures.png", learned, measured)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def kinds(names: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name.split()[0] for name in names))


def connectome() -> nx.DiGraph:
    """Chemical synapses of the largest connected part (without the pharynx), all with half of the largest weight."""
    graph = nets.c_elegans()
    return weighted(graph.subgraph(max(nx.weakly_connected_components(graph), key=len)), 0.5)


def rewire(graph: nx.DiGraph, seed: int) -> nx.DiGraph:
    """The same neurons with as many inputs and outputs each, otherwise joined at random."""
    copy = graph.copy()
    nx.directed_edge_swap(copy, nswap=SWAPS * len(copy.edges), max_tries=1000 * len(copy.edges), seed=seed)
    return weighted(copy, 0.5)


def weighted(graph: nx.DiGraph, weights: Any) -> nx.DiGraph:
    """The same neurons and synapses with these ``weights``, of the largest one: one number, or one a synapse."""
    made = nx.DiGraph()
    made.add_nodes_from(graph)
    given = np.broadcast_to(weights, len(graph.edges)).tolist()
    made.add_weighted_edges_from((pre, post, w) for (pre, post), w in zip(graph.edges, given, strict=True))
    return made


def network(graphs: Mapping[str, nx.DiGraph]) -> nx.MultiDiGraph:
    """All graphs side by side as one population, each neuron with noise of its own."""
    everyone = nx.union_all(graphs.values(), rename=[f"{name}/" for name in graphs])
    for _, _, data in everyone.edges(data=True):
        data["weight"] *= LARGEST
    pair = rules.STDP(a_plus=A_PLUS * LARGEST, a_minus=DEPRESSION * A_PLUS * LARGEST)
    additive = rules.Bounded(pair, low=0.0, high=LARGEST)
    net = nets.from_neurons(everyone, CELL, additive, port="excitatory", delay=1)
    net.add_node("background", neuron=nets.Poisson(rate=BACKGROUND_RATE), size=len(everyone))
    own = {"topology": nets.OneToOne(), "weights": nets.Fixed(BACKGROUND)}
    net.add_edge("background", "neurons", port="excitatory", **own)
    return net


def graphs_of(path: Path, net: nx.MultiDiGraph, graphs: Mapping[str, nx.DiGraph]) -> dict[str, nx.DiGraph]:
    """What was learned, from the recording: each of the graphs with its last weights (of the largest one)."""
    everything = to_networkx(path)
    place = {label: f"neurons/{k}" for k, label in enumerate(net.nodes["neurons"]["meta"]["nodes"])}

    def weight(name: str, pre: str, post: str) -> float:
        found = everything.edges[place[f"{name}/{pre}"], place[f"{name}/{post}"], "neurons->neurons"]["weight"]
        return float(found / LARGEST)

    return {
        name: weighted(graph, [weight(name, *synapse) for synapse in graph.edges]) for name, graph in graphs.items()
    }


def shuffled(graph: nx.DiGraph, rng: np.random.Generator) -> nx.DiGraph:
    """The same synapses with the same weights, each at any other's place."""
    return weighted(graph, rng.permutation(weights_of(graph)))


def weights_of(graph: nx.DiGraph) -> Float[np.ndarray, " synapses"]:
    return np.array([w for *_, w in graph.edges(data="weight")])


def measures(graph: nx.DiGraph, club: Sequence[Any] = RICH_CLUB) -> dict[str, float]:
    """Of the weighted graph, or of its strong synapses: those with at least half of the largest weight."""
    strong = nx.DiGraph()
    strong.add_nodes_from(graph)
    strong.add_edges_from((pre, post) for pre, post, w in graph.edges(data="weight") if w >= 0.5)
    back = {(post, pre): w for pre, post, w in graph.edges(data="weight")}
    both = sum(min(w, back.get((pre, post), 0.0)) for pre, post, w in graph.edges(data="weight"))
    steps = (d for _, found in nx.all_pairs_shortest_path_length(strong) for d in found.values() if d)
    parts = nx.community.louvain_communities(graph, seed=0)
    within = weights_of(graph.subgraph(club))
    return {
        "reciprocity": both / weights_of(graph).sum(),
        "in_loops": 1 - nx.flow_hierarchy(strong),
        "component": len(max(nx.strongly_connected_components(strong), key=len)),
        "clustering": nx.average_clustering(graph, weight="weight"),
        "efficiency": sum(1 / d for d in steps) / (len(strong) * (len(strong) - 1)),
        "modularity": nx.community.modularity(graph, parts),
        "rich_club": within.mean() / weights_of(graph).mean(),
    }


def published(worm: nx.DiGraph) -> dict[str, float]:
    """Measures of which others give values; ``all_*``: of chemical synapses and gap junctions without direction."""
    component = worm.subgraph(max(nx.strongly_connected_components(worm), key=len))
    everything = nx.Graph(worm.edges)
    everything.add_edges_from(nets.c_elegans("electrical").subgraph(worm).edges)
    everything.remove_edges_from(list(nx.selfloop_edges(everything)))
    counted = nets.c_elegans().subgraph(worm)
    return {
        "neurons": len(worm),
        "connections": len(worm.edges),
        "synapses": int(counted.size("weight")),
        "component": len(component),
        "path_length": nx.average_shortest_path_length(component),
        "clustering": nx.average_clustering(component),
        "all_connections": len(everything.edges),
        "all_path_length": nx.average_shortest_path_length(everything),
        "all_clustering": nx.average_clustering(everything),
    }


def described(graphs: Sequence[nx.DiGraph]) -> dict[str, float]:
    """The distribution of the learned weights; how far those of two copies of a graph agree (their correlation; between
    rewired graphs there is nothing to compare); and how a neuron's inputs weaken with their number (rank correlation of
    a neuron's in-degree and mean incoming weight)."""
    weights = np.stack([weights_of(graph) for graph in graphs])
    found = {
        "weak": (weights < 0.1).mean(),
        "middle": (np.abs(weights - 0.5) < 0.05).mean(),
        "strong": (weights > 0.9).mean(),
        "crowding": np.mean([crowding(graph) for graph in graphs]),
    }
    if all(set(graph.edges) == set(graphs[0].edges) for graph in graphs) and len(graphs) > 1:
        found["agreement"] = np.corrcoef(weights)[np.triu_indices(len(graphs), 1)].mean()
    return {name: float(value) for name, value in found.items()}


def crowding(graph: nx.DiGraph) -> float:
    inputs = {neuron: count for neuron, count in graph.in_degree() if count}
    mean = [graph.in_degree(neuron, weight="weight") / count for neuron, count in inputs.items()]
    return float(scipy.stats.spearmanr(list(inputs.values()), mean).statistic)


def compared(measured: Sequence[Mapping[str, Sequence[Mapping[str, float]]]]) -> dict[str, dict[str, float]]:
    """Means over the graphs of one kind, and the standard deviations (over graphs, and over shuffles of a graph)."""
    found = {}
    for name in MEASURES:
        values = {when: np.array([[one[name] for one in graph[when]] for graph in measured]) for when in measured[0]}
        found[name] = {when: float(v.mean()) for when, v in values.items()} | {
            "after_spread": float(values["after"].std()),
            "shuffled_spread": float(values["shuffled"].std(1).mean()),
        }
    return found


def figure(path: Path, learned: Mapping[str, nx.DiGraph], measured: Mapping[str, Any]) -> None:
    drawing, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    colours = {"worm": "tab:red", "rewired": "tab:blue"}
    bins = np.linspace(0, 1, 21)
    for name, graph in learned.items():
        w = weights_of(graph)
        axes[0, 0].stairs(np.histogram(w, bins)[0] / len(w), bins, color=colours[name.split()[0]], alpha=0.7)
    axes[0, 0].set(xlabel="learned weight / largest", ylabel="fraction of synapses")
    for axis, (measure, label) in zip(axes.flat[1:], MEASURES.items(), strict=True):
        for name, graph in measured.items():
            kind, number = name.split()
            means = [np.mean([one[measure] for one in graph[when]]) for when in ("before", "shuffled", "after")]
            label_once = {"label": kind} if number == "0" else {}
            axis.plot(means, "o-", color=colours[kind], alpha=0.7, markersize=4, linewidth=1, **label_once)
        axis.set_xticks(range(3), ["before", "shuffled", "after"])
        axis.set(ylabel=label, xlim=(-0.2, 2.2))
    axes[0, 1].legend(frameon=False, fontsize=8)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
