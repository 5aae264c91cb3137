r"""Kernel RNN learning: what a synapse did to its own neuron fades at a learned rate, and what that neuron does to all
others is one learned matrix.

With :math:`D_i` the derivative of what neuron i itself carries by what arrives there, and random signs :math:`\zeta`:

(1)  :math:`M_{k,ij} \approx A_{ki} B_{ij}, \qquad B_{ij} \leftarrow (1 - \alpha_i)\,B_{ij} + D_i\,x_j`
(2)  :math:`dL_t / dw_{ij} \approx \partial L_t / \partial w_{ij} + (\partial L_t / \partial c_{t-1} A)_i\,B_{ij}`
(3)  :math:`\delta \leftarrow J_t\,\delta + (\partial F / \partial u)\,\zeta, \quad \Gamma_i \leftarrow
     (1 - \alpha_i)\,\Gamma_i - \Omega_i, \quad \Omega_i \leftarrow (1 - \alpha_i)\,\Omega_i + D_i\,\zeta_i`
(4)  :math:`A \leftarrow A + \kappa\,(\delta - A\,\Omega)\,\Omega^\top, \quad \alpha_i \leftarrow \alpha_i +
     \kappa_\alpha \sum_k (\delta - A\,\Omega)_k A_{ki}\,\Gamma_i`, within 0 and 1

:math:`\delta` is by how much a second network, in which a little noise arrives at every neuron too, is apart from the
first, over the size of the noise where that is small. (4) learns to tell it from what each neuron's own noise does to
itself. With :math:`A = 1` and the neurons' own :math:`\alpha` that is never learned, :math:`B` is the trace of `RFLO`.
The loss of a tick is exact through that tick, as in all network rules here; (2) of the paper is RFLO's, with
:math:`\partial L_t / \partial c_t` and the present :math:`B`.

How local that is: :math:`B` is of one synapse. A learns from two factors that are there at its two ends, and
:math:`\alpha` from what comes back to the neuron; on the way back credit goes through the transpose of A. But
:math:`\delta` takes another network with the same weights at every moment, and no synapse has that: so it is a network
rule. n^2 numbers and products.

Source: Roth, Kanitscheider & Fiete, International Conference on Learning Representations (2019); as in Marschall, Cho &
Savin, Journal of Machine Learning Research 21(135):1-34 (2020).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .base import NetworkRule, Synaptic, Tick


class KeRNL(NetworkRule):
    r"""A learned matrix and learned time constants for the influence of RTRL: n^2 numbers and products.

    ``rate`` is :math:`\kappa`, which n neurons bear up to some 1 / n; ``pace`` is :math:`\kappa_\alpha`, and ``leak``
    the first :math:`\alpha`, one or an array. Neurons that carry one number each, such as `networks.LeakyHidden`.
    """

    rate: float = 1e-3
    pace: float = 1e-4
    leak: float | np.ndarray = 0.8

    def init(self, tick: Tick) -> Any:
        for target, n in tick.targets.items():
            own = tick.own(target)
            if len(own) != 1 or tick.reach(target, 1)[own[0]].sum() != n:
                raise ValueError(
                    f"KeRNL wants neurons that carry one number each and do not compete; what arrives at {target!r} "
                    f"reaches {len(own)} fields"
                )
        silence = jnp.zeros((*tick.copies, tick.size))
        leak = jnp.broadcast_to(jnp.asarray(self.leak, float), (tick.size,))
        return tick.zeros(*tick.copies), jnp.eye(tick.size), leak, (silence, silence, silence)

    def follow(self, past: Any, tick: Tick, last: bool) -> tuple[Any, Synaptic, Any]:
        b, a, leak, (delta, omega, gamma) = past
        own = {target: tick.own(target)[0] for target in tick.targets}
        credit, arrived = tick.pull()
        told = credit @ a
        effects = {
            name: tuple(
                (rows[..., None] * m).reshape(-1, *m.shape[-2:]).sum(0)
                for rows, m in zip(tick.rows(name, told[..., own[target]]), b[name], strict=True)
            )
            for name, target in tick.into.items()
        }
        gradient = jax.tree.map(jnp.add, tick.explicit(arrived), tick.gathered(effects))  # (2)

        keep = tick.linked * (1 - leak)
        slope, kicks, kicked = {}, {}, keep * omega
        for target, n in tick.targets.items():
            kicks[target] = tick.signs(target, *tick.copies, n)
            slope[target] = tick.push_arrivals({target: jnp.ones((*tick.copies, n))})[..., own[target]]
            kicked = kicked.at[..., own[target]].add(slope[target] * kicks[target])
        now = tick.outer(slope, tick.seen)
        b = {
            name: tuple(
                rows[..., None] * m + i
                for rows, m, i in zip(tick.rows(name, keep[..., own[target]]), b[name], now[name], strict=True)
            )
            for name, target in tick.into.items()
        }  # (1)
        delta = tick.push(delta) + tick.push_arrivals(kicks)
        gamma, omega = keep * gamma - tick.linked * omega, kicked  # (3)
        wrong = delta - omega @ a.T
        pairs = wrong.reshape(-1, tick.size), omega.reshape(-1, tick.size)
        change = self.pace * ((wrong @ a) * gamma).reshape(-1, tick.size).mean(0)
        a = a + self.rate * pairs[0].T @ pairs[1] / len(pairs[0])
        leak = jnp.clip(leak + change, 0.0, 1.0)  # (4)
        return (b, a, leak, (delta, omega, gamma)), gradient, True
