r"""An episodic memory made of populations and synapses, and what it is for: going through the past once more.

(1)  The memory is an index: `Index` cells, one of which is active in a tick. Synapses from the populations remembered
     onto the active cell take down what these do (`rules.OneShot`); through the same synapses the other way an active
     cell puts them where they were.
(2)  By content: what arrives at the cells, :math:`m = X c` with the patterns that they hold as rows of X and a cue c,
     competes, and what the winners hold comes back, :math:`X^\top \mathrm{softmax}(\beta X c)`.
(3)  Replay in reverse, of units :math:`x_t = (1 - \alpha)\,x_{t-1} + \alpha f(W x_{t-1} + \dots)`. For every event t of
     a trial, from the last to the first, two ticks: in the first its index cell puts the units to :math:`x_{t-1}`; in
     the second, with input and target as they were, the units come to :math:`x_t` by themselves.
(4)  There errors come back late, from the output as ever, and from the event that went through just before:

     .. math::
         c_t = V e_t + W^\top (s_{t+1} c_{t+1}) + (1 - \alpha)\,c_{t+1}, \qquad
         \Delta w_{ij} = \eta\, s_{t,i} c_{t,i}\,x_j

     Where the memory is perfect, V the transpose of the readout and changes are applied after the whole trial
     (`rules.Accumulated`), this is backpropagation through time, by a rule of one synapse and in a network that keeps
     no history. A memory of n events makes it that of the last n ticks.

(5)  Recall-gated credit: at a moment that asks for it, what the units were at the event most like it arrives at them,
     :math:`x_t = f(W x_{t-1} + \dots + x_s)`, and back to this event goes the credit, past all that was between,
     :math:`c_s = s_t c_t`. It comes again alone, and there the rule learns.

Sources: Teyler & DiScenna, Behavioral Neuroscience 100:147-154 (1986), for (1); Ramsauer et al., International
Conference on Learning Representations (2021), for (2); Lillicrap & Santoro, Current Opinion in Neurobiology 55:82-89
(2019), for the idea of (3) and (4); Ke et al., Advances in Neural Information Processing Systems 31 (2018), for (5).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import networkx as nx
import numpy as np

from .credit import LeakyHidden, LeakyOutput
from .feedback import kolen_pollack
from .fields import Fields
from .graph import Circuit, NetworkError, edges_of, read_graph
from .initialisers import Normal
from .neurons import Competition, Input, Neuron, Ranked, Softmax
from .topologies import OneToOne

ENCODE, RELIVED = "encode", "learn"  # signals


class Index(Neuron):
    r"""A cell that stands for an event: active where driven, or by the ``match`` of what it holds with the cue, as far
    as it is asked.

    .. math::
        x_t = d_t + a_t\,m_{t-1}

    The match m is made late, of what arrives at ``cue``, by ``contest``: modern Hopfield recall with `Softmax`, the k
    best with `KWinners`. So an answer takes a tick. What arrives at ``content`` is remembered and no part of the cue.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "ask", "cue", "content")
    late: ClassVar[tuple[str, ...]] = ("cue", "content")
    collective: ClassVar[bool] = True
    contest: Competition = Softmax(beta=8.0)

    def init(self) -> Fields:
        return Fields(x=0.0, match=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        return Fields(x=ports.drive + ports.ask * state.match)

    def respond(self, ports: Fields) -> Fields:
        return Fields(match=ports.cue)

    def together(self, responses: Fields) -> Fields:
        return Fields(match=self.contest(responses.match))


class ReplayHidden(LeakyHidden):
    """A `LeakyHidden` unit that can be put where it was: as far as ``clamp`` is 1, and not 0, ``x`` is what arrives at
    ``recall``, and nothing that comes back is its doing. ``kept`` is what it owes to itself a tick ago, keep times
    credit."""

    ports: ClassVar[tuple[str, ...]] = ("drive", "recall", "clamp", "apical")

    def init(self) -> Fields:
        return super().init().replace(kept=0.0)

    def step(self, state: Fields, ports: Fields) -> Fields:
        free = super().step(state, ports)
        return free.replace(x=free.x + ports.clamp * (ports.recall - free.x))

    def respond(self, state: Fields, ports: Fields) -> Fields:
        credit = (1 - ports.clamp) * ports.apical
        return Fields(credit=credit, error=credit * state.slope, kept=credit * state.keep)


def add_memory(
    net: nx.MultiDiGraph,
    capacity: int,
    contents: Mapping[str, str],
    *,
    name: str = "index",
    cue: Iterable[str] | None = None,
    late: Iterable[str] = (),
    phases: Iterable[str] | None = ("replay",),
    release: float = 1.0,
    contest: Competition | None = None,
) -> None:
    """A population ``name`` of ``capacity`` index cells that remembers ``contents`` and puts them back.

    ``contents`` says what is remembered and where it comes back: ``{"input": "drive", "output.target": "target"}`` is
    the output of ``input``, to its port ``drive``, and what arrives at the ``target`` of ``output``, to the same port.
    It comes back in these ``phases`` (None: always). Those in ``cue`` (all, by default) are what an event is found by;
    those in ``late`` are remembered as they were a tick ago. A synapse that brings something back transmits with
    the probability ``release``, drawn at every tick. ``contest`` is that of the `Index` cells.

    Drive the cells as `replay_drive` does, or let them answer (drive ``index.ask``), a tick later. They learn while the
    signal ``encode`` is 1: a phase sends it. There can be no batch.

    Raises `NetworkError` naming what is not there.
    """
    from ..rules import OneShot  # rules know networks, not the other way round

    cued, before = set(contents if cue is None else cue), set(late)
    unknown = [key for key in (*sorted(cued), *sorted(before)) if key not in contents]
    if unknown:
        raise NetworkError(f"{unknown[0]!r} is not remembered; contents: {', '.join(contents)}")
    net.add_node(name, neuron=Index() if contest is None else Index(contest), size=capacity)
    for key, port in contents.items():
        population, _, field = key.partition(".")
        if population not in net:
            raise NetworkError(f"contents={key!r}: no such population; populations: {', '.join(net)}")
        down: dict[str, Any] = {"field": field or "x", "delay": int(key in before), "release": release}
        number = net.add_edge(
            population, name, port="cue" if key in cued else "content", weights=0.0, rule=OneShot(field or "x"), **down
        )
        taken = f"{population}->{name}" + (f"[{number}]" if number else "")
        net.add_edge(name, population, port=port, tied=taken, phases=None if phases is None else set(phases))


def add_replay(
    net: nx.MultiDiGraph,
    capacity: int,
    *,
    feedback: Literal["symmetric", "random", "kolen_pollack"] = "symmetric",
    release: float = 1.0,
    decay: float = 1e-3,
) -> None:
    """What a `recurrent` network needs to learn from replay in place of a history, (3) and (4).

    A memory of ``capacity`` events: the inputs, what the outputs are told, and what the hidden units were a tick
    before. `LeakyHidden` populations become `ReplayHidden`. From each of them errors come back to those whose past it
    heard, with a delay of two ticks, by the transpose of the weights between them (``feedback="symmetric"``), by
    fixed random weights, or by weights that learn from the two factors of those forward, an event later, and with them
    ``decay`` at every update (``"kolen_pollack"``, as in `add_feedback`; all of the trial is to be replayed, and units
    to start from 0); what comes back from the output is as it was. A unit ``recall`` clamps; a tick after it the
    unit ``relive`` sends the signal ``learn``, where every rule of the network learns, and nowhere else. Synapses that
    bring the past back transmit with the probability ``release``.

    >>> net = recurrent((2, 16, 2), rules.Accumulated(rules.Delta(eta=0.1)))                    # doctest: +SKIP
    >>> add_replay(net, capacity=20)                                                            # doctest: +SKIP
    >>> live = Phase("live", 20, signals={"encode": 1.0}, reset=True)                           # doctest: +SKIP
    >>> replay = Phase("replay", 40, signals={"encode": 0.0}, reset=True)                       # doctest: +SKIP
    >>> drive = {"input": {"live": x}, "output.target": {"live": y}, **replay_drive(20, capacity=20)}  # doctest: +SKIP
    >>> Simulator(net).run(drive, trial=[live, replay])                                         # doctest: +SKIP

    Raises `NetworkError` where a network has what cannot be replayed: delays of two ticks or more, outputs that leak.
    """
    circuit = read_graph(net)
    hidden = [name for name, p in circuit.populations.items() if isinstance(p.neuron, LeakyHidden)]
    rounds = _rounds(circuit, hidden)
    forward = {name: data for name, _, _, data in edges_of(net) if name in rounds}
    learned = {}
    if feedback == "kolen_pollack":
        learned = {name: {"rule": _gated(kolen_pollack(name, data, decay))} for name, data in forward.items()}
    for _, _, _, data in edges_of(net):
        if data.get("rule") is not None:
            data["rule"] = _gated(data["rule"])
    for name in hidden:
        old: Any = circuit.populations[name].neuron
        net.nodes[name]["neuron"] = ReplayHidden(
            **{field.name: getattr(old, field.name) for field in dataclasses.fields(old)}
        )
    contents = {name: "drive" for name, p in circuit.populations.items() if type(p.neuron) is Input}
    for name, p in circuit.populations.items():
        if "target" in p.neuron.late and "error" in p.neuron.init():
            contents |= {f"{name}.{port}": port for port in p.neuron.late}
    contents |= dict.fromkeys(hidden, "recall")
    add_memory(net, capacity, contents, late=hidden, release=release)
    net.add_node("recall", neuron=Input(), size=1)
    net.add_node("relive", neuron=Input(), size=1)
    net.add_edge("recall", "relive", weights=1.0, delay=1)
    net.graph["signals"] = {**net.graph.get("signals", {}), RELIVED: "relive"}
    back: dict[str, Any] = {"port": "apical", "delay": 2, "phases": {"replay"}}
    for name in hidden:
        net.add_edge("recall", name, weights=1.0, port="clamp")
        net.add_edge(name, name, name=f"{name}, kept", field="kept", topology=OneToOne(), weights=1.0, **back)
    for name in rounds:
        pre, post = circuit.projections[name].pre, circuit.projections[name].post
        drawn = {"weights": Normal(circuit.populations[pre].size ** -0.5), **learned.get(name, {})}
        way = {"tied": name} if feedback == "symmetric" else drawn
        net.add_edge(post, pre, name=f"{name}, back", field="error", **way, **back)


def add_recall(net: nx.MultiDiGraph, *, contest: Competition | None = None) -> None:
    """Recall-gated credit, (5), in a network with `add_replay`: sparse attentive backtracking through one tick and one
    memory.

    A trial has two phases in place of ``replay``, which reset nothing. In ``answer``, of a tick, the cells of the
    memory answer to the input of the tick before, and what the hidden units were at the event that wins adds to their
    drive; all rules learn, from what is due then. In ``recall``, of two ticks, the event that wins by the input of the
    answer comes again. In the second of them the rules learn, from the errors of the answer alone. `recall_drive` asks;
    what is looked for is shown in a phase of its own before, with ``encode`` 0, lest it finds itself. By the
    ``contest`` one event wins, the first of those that are equally like; by another, several are mixed.

    Raises `NetworkError` where there is no memory.
    """
    from ..rules import OneShot

    circuit = read_graph(net)
    if "index" not in net or not any(isinstance(p.neuron, ReplayHidden) for p in circuit.populations.values()):
        raise NetworkError("there is nothing to recall from: networks.add_replay makes the memory, before add_recall")
    net.nodes["index"]["neuron"] = Index(Ranked(delta=0.0) if contest is None else contest)
    for pre, post, key, data in list(net.edges(keys=True, data=True)):
        if data.get("port") == "apical" and data.get("phases") == {"replay"}:  # from the event after
            net.remove_edge(pre, post, key)
        if post == "index" and type(circuit.populations[pre].neuron) is not Input:
            data["port"] = "content"
        if pre == "index":
            data["phases"] = {"recall"}
    back: dict[str, Any] = {"field": "error", "port": "apical", "delay": 2, "topology": OneToOne(), "weights": 1.0}
    for name, p in circuit.populations.items():
        if isinstance(p.neuron, ReplayHidden):
            now = f"{name}->index, now"
            net.add_edge(name, "index", name=now, port="content", weights=0.0, rule=OneShot())
            net.add_edge("index", name, tied=now, name=f"index->{name}, now", port="drive", phases={"answer"})
            net.add_edge(name, name, name=f"{name}, recalled", phases={"recall"}, **back)


def _rounds(circuit: Circuit, hidden: Sequence[str]) -> list[str]:
    """The projections through which a hidden population hears one a tick ago; all others are to be instantaneous."""
    rounds = []
    for name, p in circuit.projections.items():
        neuron = circuit.populations[p.post].neuron
        around = p.delay == 1 and p.field == "x" and {p.pre, p.post} <= set(hidden) and p.port not in neuron.late
        if p.delay and not around:
            raise NetworkError(
                f"projection {name!r} has a delay of {p.delay} ticks: what is replayed is what LeakyHidden units send "
                "each other with delay=1, and all else at once"
            )
        if around:
            rounds.append(name)
        if isinstance(neuron, LeakyOutput) and np.any(np.asarray(neuron.alpha) != 1):
            raise NetworkError(f"population {p.post!r} leaks (alpha={neuron.alpha}), which is not replayed: alpha=1")
    if not rounds:
        raise NetworkError("nothing is recurrent here: no LeakyHidden population hears one of them with delay=1")
    return rounds


def _gated(rule: Any) -> Any:
    """The rule where the signal ``learn`` is 1. What is summed over ticks is summed over these, and what is done with
    the sum is done at the end of the trial."""
    from ..rules import Gated
    from ..rules.wrappers import OfMean, core

    if core(rule) is None:
        return Gated(rule, signal=RELIVED)
    inside = dataclasses.replace(rule, rule=_gated(rule.rule))
    return inside if isinstance(rule, OfMean) else Gated(inside, signal="last")
