r"""Decoupled neural interfaces: what later ticks will say of the present is predicted, and the prediction learned.

A linear map of what the network carries and of the targets predicts the credit that comes from later ticks:

(1)  :math:`\hat\lambda_t = A\,\tilde a_t, \qquad \tilde a_t = (c_t, y^*_t, 1)`
(2)  :math:`\lambda^*_{t-1} = \partial L_t / \partial c_{t-1} + (A' \tilde a_t)\,\partial F / \partial c_{t-1}`
(3)  :math:`A \leftarrow A + \kappa\,(\lambda^*_{t-1} - A\,\tilde a_{t-1})\,\tilde a_{t-1}^\top`
(4)  :math:`dL / dw \approx \partial L_t / \partial w + \hat\lambda_t\,\partial F / \partial w`

(2) bootstraps as temporal difference learning does: one tick of truth and the prediction from then on, with a copy
:math:`A'` of the map that is renewed every so many ticks. The loss of the tick itself is exact. K (K + y) numbers.

Source: Jaderberg, Czarnecki, Osindero, Vinyals, Graves, Silver & Kavukcuoglu, International Conference on Machine
Learning 70:1627-1635 (2017); as in Marschall, Cho & Savin, Journal of Machine Learning Research 21(135):1-34 (2020).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .base import NetworkRule, Synaptic, Tick


class DNI(NetworkRule):
    r"""The gradient with a learned prediction of what later ticks will say: n^2 numbers and products.

    ``rate`` is :math:`\kappa`, ``renew`` the ticks between copies of the map.
    """

    rate: float = 1e-2
    renew: int = eqx.field(default=5, static=True)

    def init(self, tick: Tick) -> Any:
        features = tick.size + tick.told.shape[-1] + 1
        a = jnp.zeros((tick.size, features))
        return a, a, jnp.zeros((*tick.copies, features)), jnp.zeros((), jnp.int32)

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        a, copy, before, count = past
        one = jnp.ones((*tick.copies, 1))
        now = jnp.concatenate([tick.after, tick.told, one], -1)
        wanted, _ = tick.pull(now @ copy.T)  # (2)
        wrong = (wanted - before @ a.T).reshape(-1, tick.size)
        a = a + self.rate * wrong.T @ before.reshape(len(wrong), -1) / len(wrong)  # (3)
        _, arrived = tick.pull(now @ a.T)  # (1)
        copy = jnp.where((count + 1) % self.renew == 0, a, copy)
        return (a, copy, now, count + 1), tick.explicit(arrived), True  # (4)
