r"""A rule to be learned: products of what a learned function says in the two neurons of a synapse.

(1)  forward:   :math:`\Delta w_{ij} = \eta \bigl(\sum_k c_{ik}\,e_{jk} - \lambda\,w_{ij}\bigr)`
(2)  backward:  :math:`\Delta v_{ji} = \eta \bigl(\sum_k c_{ik}\,e_{jk} - \lambda\,v_{ji}\bigr)`

i is above j. c and e are fields of both neurons (`networks.LearnedNeuron`). As in the paper the weights that go back
change as those that go forward do, so that they come to be equal; each synapse does so from what it knows itself.

The published rule has, besides, statistics over the batch and over the units of a layer, twelve terms, and a
normalisation of a cell's afferents; with these it is not local.

Source: Metz, Maheswaranathan, Cheung & Sohl-Dickstein, ICLR (2019).
"""

from typing import Any

import equinox as eqx

from .base import Rule


class Metz2018(Rule):
    """(1), with so many ``channels`` k; ``eta`` and ``decay`` per tick."""

    eta: float = 1e-2
    decay: float = 0.1
    channels: int = eqx.field(default=2, static=True)

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return self.eta * (_products(post, pre, self.channels) - self.decay * w)


class Metz2018Backward(Metz2018):
    """(2)"""

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return self.eta * (_products(pre, post, self.channels) - self.decay * w)


def _products(above: Any, below: Any, channels: int) -> Any:
    return sum(getattr(above, f"c{k}") * getattr(below, f"e{k}") for k in range(channels))
