r"""What selection, mating, recombination and mutation do to a population of genomes, whatever its genes mean.

A child takes every gene from one of two parents: from the mother where :math:`s_g = 1`, else from the father,

.. math::
    x_g &= s_g\,m_g + (1 - s_g)\,f_g  \quad (1) \\
    s_1 &\sim \mathrm{Bernoulli}(1/2), \qquad
    s_{g+1} = s_g \oplus c_g, \quad c_g \sim \mathrm{Bernoulli}(r_g)  \quad (2)

where :math:`r_g` is the recombination fraction between two neighbours. 1/2 is free recombination (uniform crossover), 0
is none: a child is its mother or its father. Without interference between crossovers, two genes that are d apart come
from different parents with probability (Haldane, 1919)

.. math::
    r(d) = \tfrac12 \left[ 1 - (1 - 2 r)^d \right]  \quad (3)

One-point crossover has one :math:`c_g = 1`, at a place with equal chances: (2) with any equal r, given that there is
one crossover. Then :math:`r(d) = d / (G - 1)`.

J. B. S. Haldane, The combination of linkage values, and the calculation of distances between the loci of linked
factors, Journal of Genetics 8:299-309 (1919). J. H. Holland, Adaptation in Natural and Artificial Systems (1975), one
point. G. Syswerda, Uniform crossover in genetic algorithms, Proc. 3rd ICGA (1989).

All functions are pure, and can be jitted and vmapped over keys, genomes and rates.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from ..errors import SimulationError

Genomes = Shaped[Array, "n genes"]
Chance = float | Float[Array, "..."]  # a probability, or one for each gene


def mutated(key: Any, genomes: Bool[Array, "n genes"], rate: Chance) -> Bool[Array, "n genes"]:
    r"""Every gene flipped with probability ``rate``, one number or one for each gene: :math:`x_g \oplus
    \mathrm{Bernoulli}(m_g)`."""
    return genomes ^ _happens(key, rate, genomes.shape)


def crossed(key: Any, mothers: Genomes, fathers: Genomes, r: Chance = 0.5) -> Genomes:
    """One child of each couple, by (1) and (2); genes of any type.

    ``r`` is the recombination fraction between neighbours, in [0, 1/2]: one number, or (genes - 1,) of them. Repeat
    parents for more children.
    """
    genes = mothers.shape[-1]
    chances = jnp.full(genes, 0.5, jnp.float32).at[1:].set(jnp.asarray(r, jnp.float32))
    switches = _happens(key, chances, mothers.shape)
    return jnp.where(jax.lax.associative_scan(jnp.logical_xor, switches, axis=-1), mothers, fathers)


def crossed_once(key: Any, mothers: Genomes, fathers: Genomes) -> Genomes:
    """One child of each couple by one-point crossover: a head from one parent, the tail from the other. Two genes or
    more."""
    one, other = jax.random.split(key)
    children, genes = mothers.shape[:-1], mothers.shape[-1]
    cut = jax.random.randint(one, (*children, 1), 1, genes)
    mother_first = jax.random.bernoulli(other, shape=(*children, 1))
    return jnp.where((jnp.arange(genes) < cut) == mother_first, mothers, fathers)


def fittest(genomes: Genomes, fitness: Shaped[Array, " n"], n: int) -> Genomes:
    """The ``n`` genomes of the greatest fitness, in falling order: truncation selection. Of equals, the first."""
    return genomes[jax.lax.top_k(fitness, n)[1]]


def couples(key: Any, n: int) -> tuple[Int[Array, " couples"], Int[Array, " couples"]]:
    """Random mating: the indices of mothers and of fathers, every one of ``n`` individuals in one of n / 2 couples.

    Raises `SimulationError` if n is odd.
    """
    if n % 2:
        raise SimulationError(f"{n} individuals cannot all be in couples: take an even number")
    mothers, fathers = jax.random.permutation(key, n).reshape(2, n // 2)
    return mothers, fathers


def _happens(key: Any, chance: Chance, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    return jax.random.bernoulli(key, jnp.asarray(chance, jnp.float32), shape)  # 64 bits of chance would cost twice
