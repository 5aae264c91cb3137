r"""Fast weights: the recent past is in synapses that learn and forget quickly, and is found there by content.

(1)  :math:`d_t = W h_{t-1} + C x_t`
(2)  :math:`h^0_t = f(d_t), \qquad h_t = f(\mathrm{LN}(d_t + A_{t-1} h^0_t))`
(3)  :math:`A_t = \lambda A_{t-1} + \eta\,h_t h_t^\top`

f is the positive part, LN layer normalisation. (2) is one step of settling; what it adds, :math:`A_{t-1} h^0_t = \eta
\sum_{\tau < t} \lambda^{t - 1 - \tau} h_\tau (h_\tau^\top h^0_t)`, is the past, each moment as far as it is like the
present one. A is Hebbian; C, W and the readout are slow.

Source: Ba, Hinton, Mnih, Leibo & Ionescu, Advances in Neural Information Processing Systems 29 (2016).
"""

from collections.abc import Sequence
from typing import Any

import jax
import networkx as nx

from .credit import LeakyOutput
from .graph import NetworkError
from .initialisers import FanIn, Identity, Initialiser, Normal
from .neurons import Constant, Input, LayerNorm, Linear, Neuron, Rate, Softmax
from .topologies import OneToOne


def fast_weights(
    sizes: Sequence[int],
    rule: Any = None,
    *,
    eta: float = 0.5,
    decay: float = 0.9,
    output: Neuron | None = None,
    weights: Initialiser | None = None,
    recurrent: Initialiser | None = None,
) -> nx.MultiDiGraph:
    """A recurrent network with fast weights: ``input``, ``first`` (:math:`h^0`), ``hidden`` (h), ``output``, ``bias``.

    ``rule`` is that of every slow projection: a network rule, whose credit goes back through the fast weights too. The
    projection ``fast`` has the weights A: ``eta`` per tick (0: none) and ``decay``, :math:`\\lambda`. Its pre neurons,
    ``first``, hear late of ``hidden``, one to one, so that (3) is Hebb's rule. ``output`` is the model of the outputs
    (`LeakyOutput` with `Softmax`), ``weights`` the initialiser of C (`Normal(1.0)`, for inputs that are one hot) and
    ``recurrent`` that of W (`Identity(0.05)`).

    Let a phase reset the neurons before every sequence: the fast weights then begin from 0.

    >>> net = fast_weights((task.inputs, 20, task.outputs), rules.BPTT(window=task.ticks))      # doctest: +SKIP
    """
    from ..rules import Decay, Fast, Hebb  # rules know networks, not the other way round

    if len(sizes) != 3:
        raise NetworkError(f"fast weights are those of one hidden layer, not of sizes={tuple(sizes)!r}")
    inputs, hidden, outputs = sizes
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=Input(), size=inputs)
    net.add_node("first", neuron=Rate(activation=jax.nn.relu), size=hidden)
    net.add_node("hidden", neuron=Linear(lateral=LayerNorm(activation=jax.nn.relu)), size=hidden)
    net.add_node("output", neuron=LeakyOutput(lateral=Softmax()) if output is None else output, size=outputs)
    net.add_node("bias", neuron=Constant(), size=1)
    net.add_edge("input", "first", rule=rule, weights=Normal(1.0) if weights is None else weights)
    net.add_edge("hidden", "first", rule=rule, weights=Identity(0.05) if recurrent is None else recurrent, delay=1)
    net.add_edge("bias", "first", rule=rule, weights=0.0)
    net.add_edge("hidden", "output", rule=rule, weights=FanIn())
    net.add_edge("bias", "output", rule=rule, weights=0.0)
    net.add_edge("first", "hidden", name="d", field="drive", topology=OneToOne(), weights=1.0)
    net.add_edge("hidden", "first", name="h", port="apical", topology=OneToOne(), weights=1.0)
    learns = Fast(Decay(Hebb(eta, field="apical"), rate=1 - decay))
    net.add_edge("first", "hidden", name="fast", port="lateral", weights=0.0, rule=learns)
    return net
