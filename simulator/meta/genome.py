"""Genomes: strings of bits, or few numbers, that decode to a rule, and to what else is chosen of a network."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..errors import SimulationError
from .genetics import couples, crossed, fittest, mutated
from .inner import Inner, Loss, Theta
from .outer import Loop, Losses, Outer

Bits = Bool[Array, " bits"]


class Gene:
    """A stretch of a genome: so many ``bits``, first bit first."""

    bits: int


class Numeric(Gene):
    """A gene that is a number, and can be traced."""

    @abstractmethod
    def decode(self, bits: Bool[Array, "*shape bits"]) -> Float[Array, "*shape"]:
        """The number."""


@dataclass(frozen=True)
class Number(Numeric):
    r"""One of :math:`2^b` numbers from ``low`` to ``high``, in equal steps or, with ``log``, in equal ratios.

    (1)  :math:`v = l + (h - l)\,k / (2^b - 1)`; with ``log`` :math:`v = l\,(h / l)^{k / (2^b - 1)}`

    k is read in Gray's code, in which one flip leads to each neighbour.
    """

    low: float
    high: float
    bits: int = 8
    log: bool = False

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if self.log and not (self.low > 0 and self.high > 0):
            raise SimulationError(f"{self}: equal ratios need low and high above 0")

    def decode(self, bits: Bool[Array, "*shape bits"]) -> Float[Array, "*shape"]:
        part: Array = gray(bits) / (2**self.bits - 1)
        return self.low * (self.high / self.low) ** part if self.log else self.low + (self.high - self.low) * part


@dataclass(frozen=True)
class Signed(Numeric):
    r"""0, or a number of either sign whose size is one of :math:`2^b - 1` from ``low`` to ``high`` in equal ratios: a
    term of an equation that may be absent. One bit more than ``size_bits``, for the sign."""

    low: float
    high: float
    size_bits: int = 4

    def __post_init__(self) -> None:
        _check_bits(self.size_bits)
        if not 0 < self.low <= self.high:
            raise SimulationError(f"{self}: low must be above 0 and not above high")

    @property
    def bits(self) -> int:  # type: ignore[override]
        return 1 + self.size_bits

    def decode(self, bits: Bool[Array, "*shape bits"]) -> Float[Array, "*shape"]:
        k = gray(bits[..., 1:])
        size = self.low * (self.high / self.low) ** ((k - 1) / max(2**self.size_bits - 2, 1))
        return jnp.where(k == 0, 0.0, jnp.where(bits[..., 0], -size, size))


@dataclass(frozen=True)
class Choice(Gene):
    """One of a few ``options``, of any kind: a feedback scheme, a number of cells. Where there are fewer options than
    codes, the first ones have two."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise SimulationError(f"{self}: a choice has two options at least")

    @property
    def bits(self) -> int:  # type: ignore[override]
        return math.ceil(math.log2(len(self.options)))

    def decode(self, bits: Bool[np.ndarray, " bits"]) -> Any:
        return self.options[int(gray(np.asarray(bits))) % len(self.options)]


class Genome:
    """A fixed-length string of bits. ``genes``: a gene by the name of what it says; with a ``shape`` for a name it is
    there once for each number of an array.

    >>> genome = Genome({"eta": Number(1e-4, 1e-1, bits=6, log=True), "feedback": Choice(("random", "symmetric"))})
    >>> genome.bits
    7
    """

    def __init__(self, genes: Mapping[str, Gene], shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
        if not genes:
            raise SimulationError("a genome has at least one gene")
        self.genes = dict(genes)
        self.shapes = {name: tuple((shapes or {}).get(name, ())) for name in genes}
        lengths = [gene.bits * math.prod(self.shapes[name]) for name, gene in self.genes.items()]
        ends = np.cumsum(lengths)
        self._parts = {name: slice(end - n, end) for name, n, end in zip(self.genes, lengths, ends, strict=True)}
        self.bits = int(ends[-1])

    def numbers(self, bits: Bits) -> dict[str, Array]:
        """What the numeric genes say; can be traced."""
        return {
            name: gene.decode(bits[self._parts[name]].reshape(*self.shapes[name], gene.bits))
            for name, gene in self.genes.items()
            if isinstance(gene, Numeric)
        }

    def choices(self, bits: Bool[np.ndarray, " bits"]) -> dict[str, Any]:
        """What the others say."""
        return {
            name: gene.decode(np.asarray(bits)[self._parts[name]])
            for name, gene in self.genes.items()
            if isinstance(gene, Choice)
        }


class Coded:
    """An inner problem whose theta is a genome: ``problem`` with the numbers that the genome says, and the others as
    they are at its start."""

    def __init__(self, problem: Inner, genome: Genome) -> None:
        self.problem, self.genome, self.segments = problem, genome, problem.segments
        for name, value in genome.numbers(self.start).items():
            if name not in problem.start:
                raise SimulationError(f"the genome says {name!r}; the problem has: {', '.join(problem.start)}")
            if value.shape != jnp.shape(problem.start[name]):
                raise SimulationError(
                    f"the genome says {name!r} of shape {value.shape}, in the problem it has the shape "
                    f"{jnp.shape(problem.start[name])}: Genome(..., shapes={{{name!r}: ...}})"
                )

    @property
    def start(self) -> Bits:
        return jnp.zeros(self.genome.bits, bool)

    def theta(self, bits: Bits) -> Theta:
        """The problem's own theta."""
        said = self.genome.numbers(bits)
        return {name: jnp.asarray(said.get(name, value), value.dtype) for name, value in self.problem.start.items()}

    def begin(self, theta: Bits, key: PRNGKeyArray) -> Any:
        return self.problem.begin(self.theta(theta), key)

    def advance(self, theta: Bits, state: Any) -> tuple[Any, Loss]:
        return self.problem.advance(self.theta(theta), state)

    def decode(self, theta: Bits) -> Any:
        """What is learned, with the numbers of a genome (see `Learning.decode`)."""
        return self.problem.decode(self.theta(theta))


class Varied:
    """Inner problems among which the genome chooses: ``make(**choices)`` is that for its choices. Each is a program of
    its own, so a step runs one program for every combination that some member has; a step is a whole problem."""

    def __init__(self, make: Callable[..., Inner], genome: Genome) -> None:
        self.genome, self._make, self._made = genome, make, {}
        self.segments = self.variant(self.start).segments

    _made: dict[Any, Coded]

    @property
    def start(self) -> Bits:
        return jnp.zeros(self.genome.bits, bool)

    def variant(self, bits: Any) -> Coded:
        """The problem for the choices of a genome."""
        choices = self.genome.choices(bits)
        key = tuple(choices.items())
        if key not in self._made:
            self._made[key] = Coded(self._make(**choices), self.genome)
        return self._made[key]

    def decode(self, theta: Bits) -> Any:
        """What is learned, with the numbers of a genome."""
        return self.variant(theta).decode(theta)


class Subspace:
    r"""An inner problem seen in few directions, drawn at random: a genome of ``dims`` numbers.

    (1)  :math:`\theta = \theta_0 + P z`, the columns of P normal numbers over :math:`\sqrt{d}`

    Source: Li, Farkhoor, Liu & Yosinski, Measuring the intrinsic dimension of objective landscapes, ICLR (2018).
    """

    def __init__(self, problem: Inner, dims: int, *, scale: float = 1.0, seed: int = 0) -> None:
        if dims < 1:
            raise SimulationError(f"dims={dims} must be at least 1")
        self.problem, self.segments = problem, problem.segments
        flat, self._unravel = jax.flatten_util.ravel_pytree(problem.start)
        self._base = flat
        self._directions = (
            scale / math.sqrt(dims) * jax.random.normal(jax.random.key(seed), (flat.size, dims), flat.dtype)
        )

    @property
    def start(self) -> dict[str, Float[Array, " dims"]]:
        return {"z": jnp.zeros(self._directions.shape[1], self._base.dtype)}

    def theta(self, theta: Mapping[str, Array]) -> Theta:
        """The problem's own theta."""
        return self._unravel(self._base + self._directions @ theta["z"])

    def begin(self, theta: Mapping[str, Array], key: PRNGKeyArray) -> Any:
        return self.problem.begin(self.theta(theta), key)

    def advance(self, theta: Mapping[str, Array], state: Any) -> tuple[Any, Loss]:
        return self.problem.advance(self.theta(theta), state)

    def decode(self, theta: Mapping[str, Array]) -> Any:
        """What is learned, at a place of the subspace (see `Learning.decode`)."""
        return self.problem.decode(self.theta(theta))


def genetic(
    members: int = 64,
    *,
    parents: int | None = None,
    mutation: float | None = None,
    recombination: float | None = 0.5,
    elite: int = 1,
    episodes: int = 1,
    ones: float = 0.5,
) -> Outer:
    """A genetic algorithm on the genomes of a `Coded` or `Varied` problem.

    A step: all members try the same inner problems; the fittest ``parents`` (half) stay; couples of them, at random,
    have children by `crossed` with the recombination fraction ``recombination`` between neighbouring bits (1/2: free;
    None: no sex, a child has one parent), of whose bits each is flipped with the probability ``mutation`` (one a
    genome). The ``elite`` fittest live on as they are. What was found is the fittest of the last step. In the first
    step a bit is 1 with the probability ``ones``: with few, most numbers that are `Signed` begin at 0.

    Raises `SimulationError` for numbers that make no population.
    """
    kept = members // 2 if parents is None else parents
    if not (0 <= elite < members and 2 <= kept <= members and kept % 2 == 0):
        raise SimulationError(
            f"members={members}, parents={kept}, elite={elite}: an even number of parents, 2 to all members, and fewer "
            "elite than members"
        )

    def of(inner: Inner) -> Loop:
        if not isinstance(inner, Coded | Varied):
            raise SimulationError("a genetic algorithm is of genomes: give it a Coded or a Varied problem")
        bits = inner.genome.bits
        rate = 1 / bits if mutation is None else mutation

        def init(key: PRNGKeyArray) -> Any:
            return jax.random.bernoulli(key, ones, (members, bits)), jnp.zeros(bits, bool)

        def ask(state: Any, key: PRNGKeyArray) -> tuple[Theta, Any]:
            return state[0], state

        @jax.jit
        def tell(state: Any, thetas: Theta, losses: Losses, gradients: None, key: PRNGKeyArray) -> Any:
            fitness = jnp.where(jnp.isfinite(losses), -losses, -jnp.inf)
            best = fittest(thetas, fitness, max(kept, elite, 1))
            able, children = best[:kept], members - elite
            mating, crossing, flipping = jax.random.split(key, 3)
            rounds = -(-children // (kept // 2))
            pairs = [couples(jax.random.fold_in(mating, n), kept) for n in range(rounds)]
            mothers, fathers = (able[jnp.concatenate(side)[:children]] for side in zip(*pairs, strict=True))
            born = mothers if recombination is None else crossed(crossing, mothers, fathers, recombination)
            return jnp.concatenate([best[:elite], mutated(flipping, born, rate)]), best[0]

        return Loop(members, episodes, None, "all", False, init, ask, tell, lambda state: state[1])

    return of


def gray(bits: Any) -> Any:
    """The number that Gray's code says, first bit first: those of neighbours differ in one bit."""
    last: Any = False
    total: Any = 0
    for bit in range(bits.shape[-1]):
        last = bits[..., bit] ^ last
        total = 2 * total + last
    return total


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 24:
        raise SimulationError(f"a number has 1 to 24 bits, not {bits}")
