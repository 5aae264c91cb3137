r"""Backups of replayed events: dopamine says by how much, cells which events led there.

(1)  :math:`\Delta w_{ij} = \eta\,\delta\,z_j`

:math:`\delta` is the broadcast signal ``dopamine``, and z the ``trace`` that the pre cell itself keeps of a sequence
that is replayed (`networks.Prioritised`): 1 for its last event, :math:`\gamma^k` for the one k steps before. The post
neuron is a critic, and w the value of an event.

Source: Mattar & Daw, Nature Neuroscience 21:1609-1617 (2018), for replay as a backup of many steps.
"""

from typing import Any

from .base import Rule


class Backup(Rule):
    """(1); ``eta`` per update."""

    eta: float = 1.0

    def update(self, pre: Any, signals: Any) -> Any:
        return self.eta * signals.dopamine * pre.trace
