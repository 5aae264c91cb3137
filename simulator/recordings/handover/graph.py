"""A recording's learned network as a networkx graph of its neurons."""

from pathlib import Path

import networkx as nx

from ..reading import Recording
from . import common


def to_networkx(path: str | Path, *, point: int = 0) -> nx.MultiDiGraph:
    """The neurons as nodes, the synapses as edges, with the weights of the last checkpoint (of ``point`` in a sweep).

    Node ``"cortex/3"`` has ``population``, ``neuron`` (its index) and ``model``; an edge has ``weight``, ``delay``
    (ticks) and ``projection``, which is also its key. The graph has ``seed`` and ``dt`` (seconds). All of them are
    plain Python numbers and strings, so every writer of networkx takes the graph, and
    ``networks.from_neurons(graph, neuron, by="population")`` makes a network of it again (which folds parallel
    projections into one, adding their weights).

    Raises `RecordingError` if there is no checkpoint or no such point.
    """
    with Recording(path) as recording:
        copy = common.one_copy(recording, point=point)
        _, state = recording.state()
        graph = nx.MultiDiGraph(seed=recording.seed, dt=recording.dt)
        for name in recording.network["populations"]:
            known = {"population": name, "model": common.neuron_model(recording, name)}
            graph.add_nodes_from((f"{name}/{i}", {**known, "neuron": i}) for i in range(common.size(recording, name)))
        for name, projection in recording.network["projections"].items():
            post, pre = recording.synapses(name)
            weights = state[f"{name}.w"][copy["point"]] if copy else state[f"{name}.w"]
            delay = int(projection["delay"])
            graph.add_edges_from(
                (
                    f"{projection['pre']}/{i}", f"{projection['post']}/{j}", name,
                    {"weight": w, "delay": delay, "projection": name},
                )
                for j, i, w in zip(post.tolist(), pre.tolist(), weights.ravel().tolist(), strict=True)
            )  # fmt: skip
        return graph
