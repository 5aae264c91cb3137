r"""Reverse Kronecker-factored RTRL: the other way of writing the influence as one product, right on average.

With random signs :math:`\nu`, one for each neuron i of a population at one port, and what its synapses saw as one
vector :math:`\hat a`, the influence of the synapse from j to i is :math:`M_{k,ij} \approx A_i B_{kj}`:

(1)  :math:`A_t = \rho_0 A_{t-1} + \rho_1 \nu`
(2)  :math:`B_t = J_t B_{t-1} / \rho_0 + ((\partial F / \partial u)\,\nu)\,\hat a^\top / \rho_1`
(3)  :math:`\rho_0 = \sqrt{|J_t B_{t-1}| / |A_{t-1}|}, \qquad \rho_1 = \sqrt{|((\partial F / \partial u)\,\nu)\,
     \hat a^\top| / |\nu|}`
(4)  :math:`dL_t / dw_{ij} \approx \partial L_t / \partial w_{ij} + A_i\,(\partial L_t / \partial c_{t-1} B_{t-1})_j`

n m numbers for n neurons of m synapses, and n^2 m products. Noisier than KF-RTRL: (2) draws for every neuron what has
this form exactly there.

Source: Marschall, Cho & Savin, Journal of Machine Learning Research 21(135):1-34 (2020).
"""

from typing import Any

import jax
import jax.numpy as jnp

from .base import NetworkRule, Synaptic, Tick
from .uoro import balance, each, norm


class ReverseKFRTRL(NetworkRule):
    """As `KFRTRL` the other way round: signs for neurons, a matrix for what they saw; n^2 numbers, n^3 products."""

    eta: float = 1e-3

    def init(self, tick: Tick) -> Any:
        a = {target: jnp.zeros((*tick.copies, n)) for target, n in tick.targets.items()}
        return a, {name: jnp.zeros((*tick.copies, tick.size, x.shape[-1])) for name, x in tick.seen.items()}

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        (a, b), copies = past, len(tick.copies)
        credit, arrived = tick.pull()
        told = {name: jnp.einsum("...k,...kj->...j", credit, b[name]) for name in b}
        gradient = jax.tree.map(jnp.add, tick.explicit(arrived), tick.explicit(a, told))  # (4)
        after_a, after_b = {}, {}
        for target, size in tick.targets.items():
            signs = tick.signs(target, *tick.copies, size)
            reached = tick.push_arrivals({target: signs})
            afferent = [name for name in b if tick.into[name] == target]
            pushed = {name: tick.through(b[name]) for name in afferent}
            now = {name: reached[..., :, None] * tick.seen[name][..., None, :] for name in afferent}
            rho0 = balance(norm(pushed, copies), norm(a[target], copies))  # (3)
            rho1 = balance(norm(now, copies), norm(signs, copies))
            after_a[target] = each(rho0, a[target]) + each(rho1, signs)  # (1)
            for name in afferent:
                after_b[name] = each(1 / rho0, pushed[name]) + each(1 / rho1, now[name])  # (2)
        return (after_a, after_b), gradient, True
