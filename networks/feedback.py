"""Layered networks that learn from errors, and the ways in which errors come back."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import networkx as nx

from .credit import Hidden, LeakyHidden, LeakyOutput, Output
from .graph import Circuit, NetworkError, edges_of, read_graph
from .initialisers import FanIn, Initialiser, Normal, Orthogonal
from .neurons import Constant, Input, Neuron, Softmax

Feedback = Literal["symmetric", "random", "direct", "kolen_pollack", "mirror"]


def perceptron(
    sizes: Sequence[int | tuple[int, ...]],
    rule: Any = None,
    *,
    feedback: Feedback | None = "symmetric",
    hidden: Neuron | None = None,
    output: Neuron | None = None,
    weights: Initialiser | None = None,
    bias: bool = True,
) -> nx.MultiDiGraph:
    """A layered network, every projection plastic with ``rule``, and feedback as `add_feedback` makes it.

    The populations are ``input``, ``hidden`` (``hidden1``, ``hidden2``, ... where there are several) and ``output``;
    with ``bias`` also a unit ``bias`` that is always on, whose weights start from 0. ``hidden`` is the model of the
    hidden units (`Hidden`, logistic), ``output`` that of the others (`Output` with `Softmax`), ``weights`` the
    initialiser (`FanIn`). Targets are the drive of ``"output.target"``.

    >>> net = perceptron((64, 100, 10), rules.Delta(eta=0.5), feedback="random")            # doctest: +SKIP
    >>> Simulator(net).run({"input": images, "output.target": targets})  # (ticks, batch, n)        # doctest: +SKIP
    """
    inside = Hidden() if hidden is None else hidden
    last = Output(lateral=Softmax()) if output is None else output
    net = _layered("perceptron", sizes, rule, rule, inside, last, FanIn() if weights is None else weights, bias)
    if feedback is not None and len(sizes) > 2:
        add_feedback(net, kind=feedback)
    return net


def recurrent(
    sizes: Sequence[int | tuple[int, ...]],
    rule: Any = None,
    *,
    readout: Any = None,
    feedback: Feedback | None = "symmetric",
    hidden: Neuron | None = None,
    output: Neuron | None = None,
    weights: Initialiser | None = None,
    recurrent: Initialiser | None = None,
    bias: bool = True,
) -> nx.MultiDiGraph:
    """A `perceptron` whose hidden layers are recurrent: each hears itself a tick later.

    ``rule`` is that of every projection; where there is a ``readout``, that is the rule of those into ``output``.
    ``hidden`` is the model of the hidden units (`LeakyHidden`, tanh), ``output`` that of the others (`LeakyOutput`,
    linear; with ``lateral=Softmax()`` for classes), ``weights`` the initialiser of what goes forward (`FanIn`) and
    ``recurrent`` that of what goes round (`Orthogonal`). The errors come back from the output to the hidden units,
    not from one tick to the one before: how far a rule assigns credit in time is the rule's own matter.

    >>> net = recurrent((2, 32, 2), rules.RFLO(eta=0.03), feedback="random")                # doctest: +SKIP
    >>> Simulator(net).run({"input": x, "output.target": y})                                # doctest: +SKIP
    """
    if len(sizes) < 3:
        raise NetworkError(f"a recurrent network has an input, hidden layers and an output, not sizes={tuple(sizes)!r}")
    inside = LeakyHidden() if hidden is None else hidden
    last = LeakyOutput() if output is None else output
    top = rule if readout is None else readout
    net = _layered("recurrent network", sizes, rule, top, inside, last, FanIn() if weights is None else weights, bias)
    for name in [name for name in net if name.startswith("hidden")]:
        net.add_edge(name, name, rule=rule, weights=Orthogonal() if recurrent is None else recurrent, delay=1)
    if feedback is not None:
        add_feedback(net, kind=feedback)
    return net


def _layered(
    kind: str,
    sizes: Sequence[int | tuple[int, ...]],
    rule: Any,
    readout: Any,
    hidden: Neuron,
    output: Neuron,
    weights: Initialiser,
    bias: bool,
) -> nx.MultiDiGraph:
    """Layers and what goes forward between them."""
    if len(sizes) < 2:
        raise NetworkError(f"a {kind} has at least two layers, not sizes={tuple(sizes)!r}")
    inner = len(sizes) - 2
    names = ["input", *(f"hidden{k + 1}" if inner > 1 else "hidden" for k in range(inner)), "output"]
    models = [Input(), *([hidden] * inner), output]
    net = nx.MultiDiGraph()
    for name, size, model in zip(names, sizes, models, strict=True):
        net.add_node(name, neuron=model, size=size)
    for pre, post in itertools.pairwise(names):
        net.add_edge(pre, post, rule=readout if post == "output" else rule, weights=weights)
    if bias:
        net.add_node("bias", neuron=Constant(), size=1)
        for name in names[1:]:
            net.add_edge("bias", name, rule=readout if name == "output" else rule, weights=0.0)
    return net


def add_feedback(
    net: nx.MultiDiGraph,
    forward: str | Iterable[str] | None = None,
    kind: Feedback = "symmetric",
    *,
    weights: Any = None,
    eta: float = 1e-2,
    decay: float = 1e-3,
) -> list[str]:
    """Projections that carry the ``error`` of a layer back, into the port ``apical`` of the layers below.

    ``forward`` names the projections whose way back is made: by default all that join a population with a port
    ``apical`` to one with an ``error``. ``kind`` is one of

    - ``"symmetric"``: the transpose of the forward weights (``tied``). This is backpropagation, and weight transport;
    - ``"random"``: fixed random weights. Feedback alignment: Lillicrap, Cownden, Tweed & Akerman, Nature
      Communications 7:13276 (2016);
    - ``"direct"``: fixed random weights from the outputs to every hidden layer. Nøkland, Advances in Neural Information
      Processing Systems 29 (2016);
    - ``"kolen_pollack"``: learned from the two factors of the forward synapse, whose rule is `Delta` or `RFLO`, in
      wrappers or not; forward and feedback weights ``decay``, per update (`KolenPollack`);
    - ``"mirror"``: learned with ``eta`` and ``decay`` from noise (`WeightMirror`). It learns where the signal
      ``mirror_<post>`` is 1, post being the population in which the feedback ends, and all other rules of the network
      where the signal ``learn`` is 1: phases send them, and noise drives post in those that mirror.

    Random ``weights`` are by default as large as those of `FanIn` on the way forward. Returns the names of the
    projections.

    Raises `NetworkError` where there is nothing to come back from, or no rule to learn with.
    """
    from ..rules import Decay, Gated, WeightMirror  # rules know networks, not the other way round

    if kind not in get_args(Feedback):
        raise NetworkError(f"kind={kind!r} is no feedback; there are: {', '.join(get_args(Feedback))}")
    circuit = read_graph(net)
    chosen = ways_back(circuit, forward, "apical", "error")
    ends = [(circuit.projections[name].post, circuit.projections[name].pre) for name in chosen]
    if kind == "direct":
        ends = _from_outputs(circuit, ends)
    attributes = {name: data for name, _, _, data in edges_of(net)}
    added = []
    for number, (top, below) in enumerate(ends):
        scale = circuit.populations[below].size ** -0.5
        back: dict[str, Any] = {"field": "error", "port": "apical"}
        if kind == "symmetric":
            back["tied"] = chosen[number]
        else:
            back["weights"] = Normal(scale) if weights is None else weights
        if kind == "kolen_pollack":
            back["rule"] = kolen_pollack(chosen[number], attributes[chosen[number]], decay)
        if kind == "mirror":
            gate(net)
            back["rule"] = Gated(Decay(WeightMirror(eta=eta), rate=decay), signal=f"mirror_{below}", waits=True)
        key = net.add_edge(top, below, **back)
        added.append(f"{top}->{below}" + (f"[{key}]" if key else ""))
    return added


def ways_back(circuit: Circuit, forward: str | Iterable[str] | None, port: str, field: str) -> list[str]:
    """The projections named, or all, that go up from a population with such a port to one with such a field, and not
    round: from there no other projection leads back."""
    forward_only = nx.DiGraph(
        (p.pre, p.post)
        for p in circuit.projections.values()
        if p.field == "x" and p.port not in circuit.populations[p.post].neuron.late
    )
    rings = enumerate(nx.strongly_connected_components(forward_only))
    rounds = {name: number for number, ring in rings for name in ring}
    upwards = [
        name
        for name, p in circuit.projections.items()
        if p.field == "x"
        and rounds.get(p.pre) != rounds.get(p.post)
        and p.port not in circuit.populations[p.post].neuron.late
        and port in circuit.populations[p.pre].neuron.ports
        and field in circuit.populations[p.post].neuron.init()
    ]
    chosen = upwards if forward is None else [forward] if isinstance(forward, str) else list(forward)
    listed = ", ".join(upwards) or "none"
    for name in chosen:
        if name not in upwards:
            raise NetworkError(
                f"errors cannot come back along {name!r}: it must go from a population with a port {port!r} to one "
                f"with a field {field!r}; such are: {listed}"
            )
    if not chosen:
        raise NetworkError(f"no population with a port {port!r} feeds one with a field {field!r}: there is no way back")
    return chosen


def gate(net: nx.MultiDiGraph) -> None:
    """Every rule that is not gated yet learns where the signal ``learn`` is 1."""
    from ..rules import Gated

    for _, _, _, data in edges_of(net):
        rule = data.get("rule")
        if rule is not None and not (
            isinstance(rule, Gated) and rule.signal.startswith(("learn", "mirror_", "invert_"))
        ):
            data["rule"] = Gated(rule, signal="learn")


def _from_outputs(circuit: Circuit, ends: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """From the tops among these ends that feed no other, to every population below."""
    every = [circuit.projections[name] for name in ways_back(circuit, None, "apical", "error")]
    ways = nx.DiGraph([(p.pre, p.post) for p in every])
    tops = dict.fromkeys(top for top, _ in ends if not ways.out_degree(top))
    if not tops:
        raise NetworkError("direct feedback comes from an output: name a projection that ends in one")
    return [(top, below) for top in tops for below in circuit.populations if below in nx.ancestors(ways, top)]


def kolen_pollack(name: str, forward: dict[str, Any], decay: float) -> Any:
    """The rule of the way back; the forward weights decay from now on."""
    from ..rules import RFLO, Decay, Delta, KolenPollack, RFLOFeedback, Wrapper

    def with_other_factors(rule: Any) -> Any:
        if isinstance(rule, Wrapper):
            return dataclasses.replace(rule, rule=with_other_factors(rule.rule))
        if isinstance(rule, RFLO):
            return RFLOFeedback(eta=rule.eta)
        if not isinstance(rule, Delta):
            raise NetworkError(
                f"projection {name!r} learns by {type(rule).__name__ if rule is not None else 'no rule'}: "
                "kind='kolen_pollack' needs rules.Delta or rules.RFLO there"
            )
        return KolenPollack(eta=rule.eta)

    back = Decay(with_other_factors(forward.get("rule")), rate=decay)
    forward["rule"] = Decay(forward["rule"], rate=decay)
    return back
