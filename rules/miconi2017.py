r"""Node perturbation over a trial: a neuron is kicked now and then, and at the end hears whether that was a good thing.

With the kicks :math:`\xi_i`, of variance :math:`\sigma^2`, of `networks.Kicked`, and in the tick where the signal
``last`` is 1 the broadcast ``reward`` r of the trial (else 0):

(1)  :math:`e_{ij} \leftarrow e_{ij} + \alpha\,\xi_i\,x_j / \sigma^2`
(2)  :math:`e_{ij} \leftarrow e_{ij} + (v_i - \bar v_i)^3\,x_j^3`
(3)  :math:`\Delta w_{ij} = \eta\,(r - b)\,e_{ij}`, then :math:`b \leftarrow b + \beta\,(r - b)` and
     :math:`e_{ij} \leftarrow 0`, at the end

(1) knows the kicks, and on average follows the gradient of the reward: :math:`\alpha\,\xi_i / \sigma^2` is the
neuron's ``score``, where its drive moves the potential by :math:`\alpha`. (2), Miconi's, does not know them and takes
how far the potential is from its running mean: the cube keeps the short kick and not the long way back from it.

Source: Miconi, eLife 6:e20899 (2017); (1) is that of Fiete & Seung, Physical Review Letters 97:048104 (2006).
"""

from abc import abstractmethod
from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class _AtTheEnd(Rule):
    """(3) of any trace."""

    transient: ClassVar = ("trace",)
    eta: float = 0.01
    rate: float = 0.05

    def init(self) -> Fields:
        return Fields(trace=0.0, baseline=0.0)

    @abstractmethod
    def tried(self, pre: Any, post: Any) -> Any:
        """What a tick adds to the trace."""

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        trace = syn.trace + self.tried(pre, post)
        better = signals.last * (signals.reward - syn.baseline)
        after = Fields(trace=(1 - signals.last) * trace, baseline=syn.baseline + self.rate * better)
        return self.eta * better * trace, after


class PerturbationTrace(_AtTheEnd):
    """(1) and (3); ``rate`` is beta, per trial."""

    def tried(self, pre: Any, post: Any) -> Any:
        return post.score * pre.x


class Miconi2017(_AtTheEnd):
    """(2) and (3); ``rate`` is beta, per trial."""

    def tried(self, pre: Any, post: Any) -> Any:
        return (post.deviation * pre.x) ** 3
