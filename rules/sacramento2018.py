r"""Errors in apical dendrites: pyramidal cells learn what their somata do beyond what their basal dendrites predict.

With cells of the model `networks.Dendritic`, soma u, output :math:`r = \phi(u)` and basal prediction :math:`\hat u`, as
`networks.dendritic_microcircuit` joins them:

(1)  :math:`\Delta w_{ij} = \eta\,\bigl(\phi(u_i) - \phi(\hat u_i)\bigr)\,r_j`     onto basal dendrites, pyramidal and
     interneurons
(2)  :math:`\Delta w_{ij} = -\eta\,v^A_i\,r_j`                                     interneurons onto apical dendrites

Interneurons get the somata of the layer above as their target. (1) makes them say what that layer would say without a
teacher, and (2) makes them cancel in the apical dendrite what it sends down: in this *self-predicting state* the apical
potential is 0. A teacher then moves the layer above away from its prediction, what is not cancelled is the error, and
with weak coupling (1) is backpropagation's update through the top-down weights.

Source: Sacramento, Ponte Costa, Bengio & Senn, Dendritic cortical microcircuits approximate the backpropagation
algorithm, NeurIPS 31 (2018).
"""

from typing import Any

from .base import Rule


class DendriticPrediction(Rule):
    """(1); ``eta`` per update."""

    eta: float = 1e-2

    def update(self, pre: Any, post: Any) -> Any:
        return self.eta * (post.x - post.prediction) * pre.x


class ApicalCancellation(Rule):
    """(2); ``eta`` per update."""

    eta: float = 1e-2

    def update(self, pre: Any, post: Any) -> Any:
        return -self.eta * post.apical * pre.x
