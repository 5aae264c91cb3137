"""Learning rules: each is one function of one synapse, in a file named after its paper or method."""

from .base import LocalRule, Rule
from .bcm import BCM
from .covariance import Covariance
from .equations import RuleError, trace
from .foldiak import FoldiakFeedforward, FoldiakLateral, FoldiakThreshold
from .hebb import Hebb
from .linsker1992 import Infomax, InfomaxHomeostatic, InfomaxLateral, InfomaxSharedPrice
from .linsker1997 import LocalICA, laplace_score
from .oja import Oja
from .sanger import Sanger
from .similarity_matching import SimilarityMatching, SimilarityMatchingLateral
from .wrappers import Bounded, Dale, Decay, Every, Gated, Noisy, Normalised, Scheduled, Wrapper

__all__ = [
    "BCM",
    "Bounded",
    "Covariance",
    "Dale",
    "Decay",
    "Every",
    "FoldiakFeedforward",
    "FoldiakLateral",
    "FoldiakThreshold",
    "Gated",
    "Hebb",
    "Infomax",
    "InfomaxHomeostatic",
    "InfomaxLateral",
    "InfomaxSharedPrice",
    "LocalICA",
    "LocalRule",
    "Noisy",
    "Normalised",
    "Oja",
    "Rule",
    "RuleError",
    "Sanger",
    "Scheduled",
    "SimilarityMatching",
    "SimilarityMatchingLateral",
    "Wrapper",
    "laplace_score",
    "trace",
]
