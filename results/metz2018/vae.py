"""A variational autoencoder (Kingma & Welling, 2014), whose means are features."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

HIDDEN, STEPS, BATCH, RATE = 128, 1000, 64, 1e-3


class Autoencoder(eqx.Module):
    """To means and log variances of ``width`` numbers, and back."""

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP

    def __init__(self, inputs: int, width: int, key: Any) -> None:
        one, other = jax.random.split(key)
        self.encoder = eqx.nn.MLP(inputs, 2 * width, HIDDEN, 1, key=one)
        self.decoder = eqx.nn.MLP(width, inputs, HIDDEN, 1, key=other)

    def means(self, x: Any) -> Any:
        return jnp.split(self.encoder(x), 2)[0]

    def bound(self, x: Any, noise: Any) -> Any:
        """Minus the evidence's lower bound, with outputs of variance 1."""
        mean, log_variance = jnp.split(self.encoder(x), 2)
        said = self.decoder(mean + jnp.exp(0.5 * log_variance) * noise)
        apart = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance)
        return 0.5 * jnp.sum((said - x) ** 2) + apart


def variational(x: Any, width: int, key: Any) -> Callable[[Any], Any]:
    """Learn from the samples x with Adam; the features are the means."""
    return jax.jit(jax.vmap(_learned(jnp.asarray(x, jnp.float32), width, key).means))


@eqx.filter_jit
def _learned(x: Any, width: int, key: Any) -> Autoencoder:
    model = Autoencoder(x.shape[1], width, key)
    numbers, rest = eqx.partition(model, eqx.is_inexact_array)
    adam = optax.adam(RATE)

    def step(carry: Any, key: Any) -> Any:
        numbers, memory = carry
        which, noise = jax.random.split(key)
        seen = x[jax.random.randint(which, (BATCH,), 0, len(x))]
        noises = jax.random.normal(noise, (BATCH, width))
        loss = lambda n: jnp.mean(jax.vmap(eqx.combine(n, rest).bound)(seen, noises))  # noqa: E731
        updates, memory = adam.update(jax.grad(loss)(numbers), memory)
        return (optax.apply_updates(numbers, updates), memory), None

    (numbers, _), _ = jax.lax.scan(step, (numbers, adam.init(numbers)), jax.random.split(key, STEPS))
    return eqx.combine(numbers, rest)  # type: ignore[no-any-return]
