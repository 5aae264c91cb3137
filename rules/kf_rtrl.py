r"""Kronecker-factored RTRL: the influence as one Kronecker product for each target, right on average.

For the neurons of a population at one port, with what all their synapses saw as one vector :math:`\hat a = (x_1, x_2,
\dots)` and two random signs :math:`\nu_1, \nu_2`, the influence of the synapse from j to i is
:math:`M_{k,ij} \approx A_j B_{ki}`:

(1)  :math:`A_t = \nu_1 \rho_0 A_{t-1} + \nu_2 \rho_1 \hat a`
(2)  :math:`B_t = \nu_1 J_t B_{t-1} / \rho_0 + \nu_2\,(\partial F / \partial u) / \rho_1`
(3)  :math:`\rho_0 = \sqrt{|J_t B_{t-1}| / |A_{t-1}|}, \qquad \rho_1 = \sqrt{|\partial F / \partial u| / |\hat a|}`
(4)  :math:`dL_t / dw_{ij} \approx \partial L_t / \partial w_{ij} + (\partial L_t / \partial c_{t-1} B_{t-1})_i\,A_j`

What a weight does within a tick has this form exactly, so that less noise is needed than in UORO. n^2 numbers, n^3
products. Each target has factors and signs of its own; all projections into it share :math:`B`.

Source: Mujika, Meier & Steger, Advances in Neural Information Processing Systems 31 (2018).
"""

from typing import Any

import jax
import jax.numpy as jnp

from .base import NetworkRule, Synaptic, Tick
from .uoro import balance, each, norm


class KFRTRL(NetworkRule):
    """An unbiased estimate of the gradient with the influence as a Kronecker product: n^2 numbers, n^3 products."""

    def init(self, tick: Tick) -> Any:
        a = {name: jnp.zeros_like(x) for name, x in tick.seen.items()}
        return a, {target: jnp.zeros((*tick.copies, tick.size, n)) for target, n in tick.targets.items()}

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        (a, b), copies = past, len(tick.copies)
        credit, arrived = tick.pull()
        told = {target: jnp.einsum("...k,...ki->...i", credit, b[target]) for target in b}
        gradient = jax.tree.map(jnp.add, tick.explicit(arrived), tick.explicit(told, a))  # (4)
        after_a, after_b, now = {}, {}, tick.arrivals()
        for target in tick.targets:
            one, two = tick.signs(target, 2, *tick.copies)
            pushed = tick.through(b[target])
            afferent = [name for name in a if tick.into[name] == target]
            past_norm, seen_norm = (norm([x[name] for name in afferent], copies) for x in (a, tick.seen))
            rho0, rho1 = balance(norm(pushed, copies), past_norm), balance(norm(now[target], copies), seen_norm)  # (3)
            for name in afferent:
                after_a[name] = each(one * rho0, a[name]) + each(two * rho1, tick.seen[name])  # (1)
            after_b[target] = each(one / rho0, pushed) + each(two / rho1, now[target])  # (2)
        return (after_a, after_b), gradient, True
