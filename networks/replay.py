r"""Which memory to go through next: the one whose replay is worth most (Mattar & Daw 2018).

Event (s, a) is action a at place s, which led to place s' and paid r; its value is q.

(1)  A backup of an event moves its value by :math:`\eta\,\delta`, :math:`\delta = r + \gamma \max_{a'} q_{s'a'} - q`.
(2)  The policy is :math:`\pi_{sa} = e^{\beta q_{sa}} / \sum_b e^{\beta q_{sb}}`, and what a backup gains is what the
     policy :math:`\pi'` that it leads to earns more at s:

     .. math::
         g = \sum_b (\pi'_{sb} - \pi_{sb})\,q'_{sb}

(3)  The need of s is how often, discounted, it is going to be visited from here: a row of
     :math:`(I - \gamma T)^{-1}`, the successor representation of transitions T between places.
(4)  The expected value of a backup is :math:`n_s \max(g, \epsilon)`.
(5)  A sequence may grow instead: the best action at the place where it has come to is backed up, and moves the value
     of the event k steps before by :math:`\gamma^k \eta\,\delta` (at a rate of 1 these are backups of many steps). That
     is worth the need of the place times the sum of the gains. No place comes twice in a sequence.

Source: Mattar & Daw, Nature Neuroscience 21:1609-1617 (2018).
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .fields import Fields
from .neurons import Neuron


def gain(
    q: Float[Array, "places actions"], change: Float[Array, "places actions"], beta: float
) -> Float[Array, "places actions"]:
    """(2) of each event, if its value alone changes by its ``change``."""
    then = q[:, None, :] + change[:, :, None] * jnp.eye(q.shape[1])
    return ((jax.nn.softmax(beta * then) - jax.nn.softmax(beta * q)[:, None, :]) * then).sum(-1)


class Prioritised(Neuron):
    r"""A cell that stands for an event, and is active again, where asked, if the value of its backup is the greatest.

    .. math::
        x_t = d_t + a_t\,c_{t-1}, \qquad z_t = d_t + a_t\,l_{t-1}, \qquad \mathrm{goal}_t = x_t\,\gamma \max q_{s'}

    Cell number s times ``actions`` plus a is action a at place s, and leads to the place ``after``; where that is s, it
    leads nowhere and is not replayed. Late in a tick cells are told the ``value`` and the ``reward`` that their events
    have, and the ``need`` of their places. Then (4) and (5) choose one, c, unless they are asked in this tick: choice
    and replay take turns. The ``trace`` z, which `rules.Backup` reads, is 1 in the cell that is active and
    :math:`\gamma^k` in that of the event k steps before, l. The choice looks at the whole population.
    """

    ports: ClassVar[tuple[str, ...]] = ("drive", "ask", "value", "reward", "need")
    late: ClassVar[tuple[str, ...]] = ("value", "reward", "need")
    collective: ClassVar[bool] = True
    after: np.ndarray  # (n,), places
    actions: int = eqx.field(static=True)
    gamma: float = 0.9
    beta: float = 5.0  # 1 / unit of value
    eta: float = 1.0  # that of the rule
    least: float = 1e-6  # epsilon: above what rounding makes of no gain

    def init(self) -> Fields:
        names = ("x", "trace", "goal", "chosen", "led", "ahead", "q", "r", "n", "asked", "worth")
        return Fields(dict.fromkeys(names, 0.0))

    def step(self, state: Fields, ports: Fields) -> Fields:
        x = ports.drive + ports.ask * state.chosen
        return Fields(x=x, trace=ports.drive + ports.ask * state.led, goal=x * state.ahead)

    def respond(self, state: Fields, ports: Fields) -> Fields:
        return Fields(
            q=ports.value, r=ports.reward, n=ports.need, asked=ports.ask,
            chosen=state.chosen, led=state.led, ahead=state.ahead, worth=state.worth,
        )  # fmt: skip

    def together(self, responses: Fields) -> Fields:
        def table(values: Any) -> Any:
            return values.reshape(-1, self.actions)

        q, r, need, led = (table(responses[name]) for name in ("q", "r", "n", "led"))
        after = table(jnp.asarray(self.after).astype(int))
        leads = after != jnp.arange(len(after))[:, None]
        ahead = self.gamma * q.max(1)[after]
        change = self.eta * (r + ahead - q)

        def gained(change: Any) -> Any:
            return jnp.maximum(gain(q, change, self.beta), self.least)

        once = jnp.where(leads, need * gained(change), 0.0)

        here = after.ravel()[led.argmax()]  # the last event of the sequence has the trace 1
        next_event = (here, q[here].argmax())
        longer = (self.gamma * led).at[next_event].set(1.0)
        grown = need[next_event] * jnp.where(longer > 0, gained(longer * change[next_event]), 0.0).sum()
        may = led.any() & leads[next_event] & ~(led > 0).any(1)[after[next_event]]
        grows = may & (grown > once.max())

        best = jax.nn.one_hot(once.argmax(), once.size, dtype=q.dtype)
        alone = jax.nn.one_hot(jnp.ravel_multi_index(next_event, q.shape, mode="clip"), once.size, dtype=q.dtype)
        chosen = jnp.where(grows, alone, best)
        new = {
            "chosen": chosen,
            "led": jnp.where(grows, longer.ravel(), chosen),
            "worth": jnp.where(grows, jnp.maximum(once.ravel(), alone * grown), once.ravel()),
        }
        asked = responses.asked > 0
        kept = {name: jnp.where(asked, responses[name], value) for name, value in new.items()}
        return responses.replace(ahead=ahead.ravel(), **kept)
