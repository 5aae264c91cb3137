r"""Linsker's local infomax for a linear layer with Gaussian signal and noise.

With :math:`Y = C x` the feedforward response (the port ``drive``) and :math:`v = Q^{-1} Y` what the lateral
connections settle it to (the field ``v`` of `networks.Settling`), in a sensing phase (signal plus noise,
``signals.hebbian`` = +1) and a noise phase (noise alone, -1):

(1)  :math:`\Delta W_{nm} = (Y_n Y_m - W_{nm}) / M_Q`                   lateral, one matrix per phase
(2)  :math:`\Delta C_{nj} = \pm\gamma\, v_n x_j`                        Hebbian when sensing, anti-Hebbian on noise

The mean of (2) over both phases is the gradient of the mutual information :math:`\frac12 \ln\det Q_S - \frac12
\ln\det Q_N`, which grows without bound with the gain: a resource constraint, in the sensing phase, sets the price
:math:`\lambda` of output power.

(3)  :math:`\Delta C_{nj} \mathrel{+}= -2\gamma\lambda\, Y_n x_j`          fixed price
(4)  as (3) with a broadcast price, which an integrator raises while the mean power exceeds its target
(5)  :math:`\lambda_n = k\,(V_n - V_0)`, :math:`\Delta V_n = (Y_n^2 - V_n)/T` each synapse tracks its cell's power

(4) needs one shared scalar and (5) nothing shared: both are local. :math:`Q = W + r I`: the variance r of the
independent output noise is the leak of the settling cell. In Linsker's notation the lateral strength is :math:`F = I -
\alpha Q`, so (1) is his anti-Hebbian :math:`\Delta F = -(\alpha/M_Q)(Y_n Y_m + r_{nm} - Q_{nm})`.

Source: Linsker, Neural Computation 4:691-702 (1992); the constraints (3)-(5) are not the paper's.
"""

from typing import Any, ClassVar

from ..networks.fields import Fields
from .base import Rule


class InfomaxLateral(Rule):
    """(1), self-connections included; ``window`` is M_Q in updates."""

    window: float = 100.0

    def update(self, w: Any, pre: Any, post: Any) -> Any:
        return (post.drive * pre.drive - w) / self.window


class Infomax(Rule):
    """(2) and (3); ``eta`` is gamma, ``price`` is lambda (nats per unit of output power)."""

    eta: float = 0.02
    price: float = 0.0

    def update(self, pre: Any, post: Any, signals: Any) -> Any:
        return _ascend(self.eta, self.price, pre, post, signals)


class InfomaxSharedPrice(Rule):
    """(2) and (4): the price is ``signals.price``."""

    eta: float = 0.02

    def update(self, pre: Any, post: Any, signals: Any) -> Any:
        return _ascend(self.eta, signals.price, pre, post, signals)


class InfomaxHomeostatic(Rule):
    """(2) and (5); ``power`` is V_0, the target of the cell's mean square response, ``gain`` is k, ``window`` is T."""

    sharing: ClassVar = "mean"
    eta: float = 0.02
    power: float = 1.0
    gain: float = 1.0
    window: float = 100.0

    def init(self) -> Fields:
        return Fields(power=self.power)

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        price = self.gain * (syn.power - self.power)
        sensing = (1 + signals.hebbian) / 2
        power = syn.power + sensing * (post.drive**2 - syn.power) / self.window
        return _ascend(self.eta, price, pre, post, signals), Fields(power=power)


def _ascend(eta: Any, price: Any, pre: Any, post: Any, signals: Any) -> Any:
    sensing = (1 + signals.hebbian) / 2
    return eta * (signals.hebbian * post.v * pre.x - 2 * sensing * price * post.drive * pre.x)
