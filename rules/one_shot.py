r"""One-shot learning: the active cell takes down, once and for all, what is there.

(1)  :math:`\Delta w_{ij} = s\,y_i\,(f_j - w_{ij})`

y is the output of an index cell (`networks.Index`), 1 for the one cell that is to learn and 0 for the others, f a field
of the pre neuron, and s the broadcast signal ``encode``, 1 while there is something to remember. What the cell had
learned before is overwritten. Through the same synapses the other way, from the cell to the neurons, its activity puts
them where they were (see `networks.add_memory`).

The weights are shared by the copies of a batch, which do not have one past in common: a network with this rule has no
batch.

Source: Teyler & DiScenna, Behavioral Neuroscience 100:147-154 (1986), for the index.
"""

from typing import Any, ClassVar

import equinox as eqx

from .base import Rule


class OneShot(Rule):
    """(1); ``field`` of the pre neuron's state, or one of its ports."""

    alone: ClassVar = True
    field: str = eqx.field(default="x", static=True)

    def update(self, w: Any, pre: Any, post: Any, signals: Any) -> Any:
        return signals.encode * post.x * (getattr(pre, self.field) - w)
