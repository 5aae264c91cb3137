"""The operators of genetics against what is known of the children: whose genes they have, and how many are linked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engrax import SimulationError
from engrax.meta import couples, crossed, crossed_once, fittest, mutated

CHILDREN, GENES = 4000, 21
KEY = jax.random.key(3)
SIGMAS = 4.5  # 1 in 150,000 by chance, for each of a few hundred comparisons with one fixed key

MOTHERS = jnp.ones((CHILDREN, GENES), bool)
WAYS = {
    "free": (jax.jit(crossed), lambda d: 0.5 * np.ones_like(d)),
    "linked": (jax.jit(functools.partial(crossed, r=0.1)), lambda d: 0.5 * (1 - 0.8**d)),
    "none": (jax.jit(functools.partial(crossed, r=0.0)), np.zeros_like),
    "one point": (jax.jit(crossed_once), lambda d: d / (GENES - 1)),
}


@pytest.mark.parametrize("way", WAYS)
def test_genes_recombine_as_often_as_their_distance_says(way):
    """Of children of all-ones and all-zeros, every pair of genes; and half of every gene is from the mother."""
    cross, fraction = WAYS[way]
    child = np.asarray(cross(KEY, MOTHERS, ~MOTHERS))
    d = np.abs(np.subtract.outer(np.arange(GENES), np.arange(GENES))).astype(float)
    expected = fraction(d) * (d > 0)
    found = (child[:, :, None] != child[:, None, :]).mean(0)
    assert np.all(np.abs(found - expected) <= SIGMAS * np.sqrt(expected * (1 - expected) / CHILDREN))
    np.testing.assert_allclose(child.mean(0), 0.5, atol=SIGMAS * 0.5 / np.sqrt(CHILDREN))


def test_one_point_crossover_has_one_point():
    child = np.asarray(crossed_once(KEY, MOTHERS, ~MOTHERS))
    np.testing.assert_array_equal((child[:, 1:] != child[:, :-1]).sum(1), 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float64])
def test_every_gene_is_one_parents_gene_of_that_place(way, dtype):
    parents = jnp.arange(2 * 30 * GENES, dtype=dtype).reshape(2, 30, GENES)
    child = WAYS[way][0](KEY, *parents)
    assert child.dtype == dtype
    assert np.all((child == parents[0]) | (child == parents[1]))
    np.testing.assert_array_equal(WAYS[way][0](KEY, parents[0], parents[0]), parents[0])


@pytest.mark.parametrize("way", WAYS)
def test_what_a_gene_means_does_not_matter(way):
    """Genes with other names, or other signs, are inherited alike."""
    mothers, fathers = jax.random.bernoulli(KEY, shape=(2, 50, GENES))
    cross = WAYS[way][0]
    np.testing.assert_array_equal(cross(KEY, ~mothers, ~fathers), ~cross(KEY, mothers, fathers))


def test_each_pair_of_neighbours_has_its_own_recombination_fraction():
    child = np.asarray(jax.jit(crossed)(KEY, MOTHERS[:, :4], ~MOTHERS[:, :4], jnp.array([0.0, 0.5, 0.0])))
    np.testing.assert_array_equal(child[:, 0], child[:, 1])
    np.testing.assert_array_equal(child[:, 2], child[:, 3])
    assert abs((child[:, 1] != child[:, 2]).mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(CHILDREN)


def test_mutation_flips_each_gene_at_its_rate():
    rates = jnp.linspace(0, 1, GENES)
    genomes = jax.random.bernoulli(KEY, shape=(CHILDREN, GENES))
    flipped = np.asarray(mutated(jax.random.key(4), genomes, rates) != genomes)
    tolerance = SIGMAS * np.sqrt(rates * (1 - rates) / CHILDREN)  # none at 0 and 1
    assert np.all(np.abs(flipped.mean(0) - rates) <= tolerance)
    np.testing.assert_array_equal(mutated(KEY, genomes, 0.0), genomes)
    np.testing.assert_array_equal(mutated(KEY, genomes, 1.0), ~genomes)


def test_the_fittest_stay():
    """In falling order, and of two equals the first first."""
    genomes = jnp.arange(10).reshape(5, 2)
    found = fittest(genomes, jnp.array([0.5, 2.0, -1.0, 2.0, 1.0]), 3)
    np.testing.assert_array_equal(found, genomes[jnp.array([1, 3, 4])])


def test_everyone_mates_once_and_at_random():
    pairs = np.stack(jax.jit(jax.vmap(lambda key: couples(key, 6)))(jax.random.split(KEY, 3000)), 1)
    assert pairs.shape == (3000, 2, 3)
    np.testing.assert_array_equal(np.sort(pairs.reshape(3000, 6), 1), np.tile(np.arange(6), (3000, 1)))
    mate_of_first = np.where(pairs == 0, pairs[:, ::-1], 0).sum((1, 2))
    counts = np.bincount(mate_of_first, minlength=6)[1:]
    assert np.all(np.abs(counts - 600) < SIGMAS * np.sqrt(3000 * 0.2 * 0.8))
    with pytest.raises(SimulationError, match="even number"):
        couples(KEY, 5)


def test_a_generation_is_one_program_for_all_rates_and_populations():
    """Jitted and vmapped over keys, genomes and rates it makes what it makes one by one, traced once."""
    traced = []

    def generation(key, genomes, rate, r):
        traced.append(1)
        one, two, three = jax.random.split(key, 3)
        mothers, fathers = couples(one, len(genomes))
        parents = (jnp.tile(genomes[each], (4, 1)) for each in (mothers, fathers))
        children = mutated(three, crossed(two, *parents, r), rate)
        return fittest(children, children.sum(-1), len(genomes))

    keys, rates, r = jax.random.split(KEY, 3), jnp.array([0.0, 0.01, 0.3]), jnp.array([0.5, 0.1, 0.0])
    genomes = jax.random.bernoulli(KEY, shape=(3, 8, GENES))
    alone = jax.jit(generation)
    one_by_one = jnp.stack([alone(*each) for each in zip(keys, genomes, rates, r, strict=True)])
    assert len(traced) == 1
    together = jax.jit(jax.vmap(generation))
    np.testing.assert_array_equal(together(keys, genomes, rates, r), one_by_one)
    together(keys, genomes, 2 * rates, r / 2)
    assert len(traced) == 2
