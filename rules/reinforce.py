r"""REINFORCE: what was sent by chance is reinforced where the reward that followed was better than usual.

With :math:`s_i = \partial_{a_i} \log P(x_i)`, the ``score`` of `networks.Bernoulli` and its kin (x - p for logistic
units), and a broadcast reward r:

(1)  :math:`\Delta w_{ij} = \eta\,(r - b)\,s_i\,x_j`
(2)  :math:`b \leftarrow b + \kappa\,(r - b)`, to the mean reward
(3)  :math:`b_i \leftarrow b_i + \kappa\,s_i^2\,(r - b_i)`, to :math:`\langle s_i^2 r\rangle / \langle s_i^2\rangle`, of
     which the variance is least

On average over what is sent (1) climbs the gradient of the expected reward, whatever the baseline, as long as that does
not depend on the message of this tick: b is the one of the tick before. Every synapse keeps its own b, of what it can
see; under a batch that is one mean over all copies.

Sources: Williams, Machine Learning 8:229-256 (1992); Bengio, Léonard & Courville, arXiv:1308.3432 (2013).
"""

from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class Reinforce(Rule):
    """(1) and (2); ``rate`` is kappa, per tick."""

    sharing: ClassVar = "mean"
    eta: float = 0.01
    rate: float = 0.05

    def init(self) -> Fields:
        return Fields(baseline=0.0)

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        return _reinforced(self.eta, self.rate, pre, post, syn, signals)


class ReinforceOptimal(Rule):
    """(1) and (3); ``rate`` is kappa, per tick."""

    sharing: ClassVar = "mean"
    eta: float = 0.01
    rate: float = 0.05

    def init(self) -> Fields:
        return Fields(baseline=0.0)

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        return _reinforced(self.eta, self.rate * post.score**2, pre, post, syn, signals)


def _reinforced(eta: Any, rate: Any, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
    advantage = signals.reward - syn.baseline
    return eta * advantage * post.score * pre.x, Fields(baseline=syn.baseline + rate * advantage)
