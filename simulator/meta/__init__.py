"""Rules that are learned: inner problems, and outer loops over them by gradient and by evolution."""

from . import tasks
from .files import load, save
from .genetics import couples, crossed, crossed_once, fittest, mutated
from .genome import Choice, Coded, Gene, Genome, Number, Signed, Subspace, Varied, genetic
from .inner import Episode, Inner, Learning, Learnt
from .members import evaluate
from .outer import Loop, Outer, cma_es, evolution, gradient, openai_es, pes, shrinking
from .train import Trained, train

__all__ = [
    "Choice",
    "Coded",
    "Episode",
    "Gene",
    "Genome",
    "Inner",
    "Learning",
    "Learnt",
    "Loop",
    "Number",
    "Outer",
    "Signed",
    "Subspace",
    "Trained",
    "Varied",
    "cma_es",
    "couples",
    "crossed",
    "crossed_once",
    "evaluate",
    "evolution",
    "fittest",
    "genetic",
    "gradient",
    "load",
    "mutated",
    "openai_es",
    "pes",
    "save",
    "shrinking",
    "tasks",
    "train",
]
