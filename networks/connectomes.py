"""Wiring that was measured."""

import csv
from importlib import resources
from typing import Literal

import networkx as nx

# McIntire, Jorgensen, Kaplan & Horvitz, Nature 364:337-341 (1993): the 26 neurons that release GABA.
GABA = {"RMED", "RMEL", "RMER", "RMEV", "RIS", "AVL", "DVB"}
GABA |= {f"DD{i}" for i in range(1, 7)} | {f"VD{i}" for i in range(1, 14)}
OTHERS = {"LegacyBodyWallMuscles", "pm1", "pm4"}  # and the glia GLR*


def c_elegans(
    kind: Literal["chemical", "electrical"] = "chemical", *, signed: bool = False, muscles: bool = False
) -> nx.DiGraph | nx.Graph:
    """The nervous system of the worm *Caenorhabditis elegans*: a graph of its neurons by name.

    ``chemical`` synapses make an ``nx.DiGraph`` from pre to post neuron, ``electrical`` ones (gap junctions) an
    ``nx.Graph``. The edge attribute ``weight`` is how many synapses were counted. The node attribute ``transmitter``
    is ``"GABA"`` for the 26 neurons that release it; ``signed`` makes the weights of their chemical synapses negative.
    ``muscles`` keeps muscles and glia. For use as a topology or with `from_neurons`.

    >>> c_elegans().number_of_nodes()
    300

    Source: White, Southgate, Thomson & Brenner, Philosophical Transactions of the Royal Society B 314:1-340 (1986), as
    the package cect 0.3.5 (OpenWorm, MIT licence) has it; transmitters: McIntire et al., Nature 364:337-341 (1993).
    Raises ``ValueError`` for another ``kind``.
    """
    if kind not in ("chemical", "electrical"):
        raise ValueError(f"kind={kind!r}: synapses are 'chemical' or 'electrical'")
    text = resources.files(__package__).joinpath("data", "c_elegans_white1986.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    names = sorted({row[end] for row in rows for end in ("pre", "post")})
    graph = nx.DiGraph(name="C. elegans") if kind == "chemical" else nx.Graph(name="C. elegans")
    for name in names:
        if muscles or not (name in OTHERS or name.startswith("GLR")):
            graph.add_node(name, transmitter="GABA" if name in GABA else "other")
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        pre, post = row["pre"], row["post"]
        if row["type"] == kind and pre in graph and post in graph:
            ends = (pre, post) if kind == "chemical" else (min(pre, post), max(pre, post))
            counted = int(row["synapses"])
            counts[ends] = counts.get(ends, 0) + counted if kind == "chemical" else max(counts.get(ends, 0), counted)
    for (pre, post), count in counts.items():
        graph.add_edge(pre, post, weight=-count if signed and kind == "chemical" and pre in GABA else count)
    return graph
