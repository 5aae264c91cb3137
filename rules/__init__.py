"""Learning rules, each in a file named after its paper or method: functions of one synapse, and, to hold them against,
rules that see the whole network."""

from .arm import ARM
from .backup import Backup
from .base import LocalRule, NetworkRule, Rule
from .bcm import BCM
from .boltzmann import Boltzmann
from .bptt import BPTT
from .clopath2010 import Clopath2010
from .competitive import Competitive
from .confavreux2020 import Volterra
from .confavreux2023 import SpikES
from .contrastive_divergence import ContrastiveDivergence
from .covariance import Covariance
from .delta import Delta
from .dni import DNI
from .eprop import EProp, EPropAdaptive
from .equations import RuleError, trace
from .equilibrium_propagation import EquilibriumPropagation
from .foldiak import FoldiakFeedforward, FoldiakLateral, FoldiakThreshold
from .forward_forward import ForwardForward
from .hebb import Hebb
from .kernl import KeRNL
from .kf_rtrl import KFRTRL
from .kolen_pollack import KolenPollack
from .krotov_hopfield import KrotovHopfield
from .lindsey2020 import Lindsey2020
from .linsker1992 import Infomax, InfomaxHomeostatic, InfomaxLateral, InfomaxSharedPrice
from .linsker1997 import LocalICA, laplace_score
from .metz2018 import Metz2018, Metz2018Backward
from .metz2018_released import Metz2018Released
from .miconi2017 import Miconi2017, PerturbationTrace
from .najarro2020 import ABCD
from .node_perturbation import NodePerturbation
from .oja import Oja
from .one_shot import OneShot
from .predictive_coding import PredictiveCoding
from .reinforce import Reinforce, ReinforceOptimal
from .reverse_kf_rtrl import ReverseKFRTRL
from .rflo import RFLO, RFLOFeedback
from .rtrl import RTRL
from .sacramento2018 import ApicalCancellation, DendriticPrediction
from .sanger import Sanger
from .shervani2023 import Pool
from .similarity_matching import SimilarityMatching, SimilarityMatchingLateral
from .slope_annealing import SlopeAnnealing
from .snap import SnAp
from .soft_hebb import SoftHebb, SoftHebbBias
from .stdp import STDP
from .straight_through import StraightThrough
from .target_propagation import LearnedInverse
from .td import TD
from .triplet_stdp import TripletSTDP
from .tsodyks_markram import TsodyksMarkram
from .uoro import UORO
from .vogels2011 import Vogels2011
from .wake_sleep import WakeSleepGenerative, WakeSleepRecognition
from .weight_mirror import WeightMirror
from .weight_perturbation import WeightPerturbation
from .wrappers import (
    Accumulated,
    Adam,
    Bounded,
    Dale,
    Decay,
    Eligible,
    Every,
    Fast,
    Gated,
    Homeostatic,
    Momentum,
    Noisy,
    Normalised,
    Released,
    Scheduled,
    SoftBounded,
    Wrapper,
)

__all__ = [
    "ABCD",
    "ARM",
    "BCM",
    "BPTT",
    "DNI",
    "KFRTRL",
    "RFLO",
    "RTRL",
    "STDP",
    "TD",
    "UORO",
    "Accumulated",
    "Adam",
    "ApicalCancellation",
    "Backup",
    "Boltzmann",
    "Bounded",
    "Clopath2010",
    "Competitive",
    "ContrastiveDivergence",
    "Covariance",
    "Dale",
    "Decay",
    "Delta",
    "DendriticPrediction",
    "EProp",
    "EPropAdaptive",
    "Eligible",
    "EquilibriumPropagation",
    "Every",
    "Fast",
    "FoldiakFeedforward",
    "FoldiakLateral",
    "FoldiakThreshold",
    "ForwardForward",
    "Gated",
    "Hebb",
    "Homeostatic",
    "Infomax",
    "InfomaxHomeostatic",
    "InfomaxLateral",
    "InfomaxSharedPrice",
    "KeRNL",
    "KolenPollack",
    "KrotovHopfield",
    "LearnedInverse",
    "Lindsey2020",
    "LocalICA",
    "LocalRule",
    "Metz2018",
    "Metz2018Backward",
    "Metz2018Released",
    "Miconi2017",
    "Momentum",
    "NetworkRule",
    "NodePerturbation",
    "Noisy",
    "Normalised",
    "Oja",
    "OneShot",
    "PerturbationTrace",
    "Pool",
    "PredictiveCoding",
    "RFLOFeedback",
    "Reinforce",
    "ReinforceOptimal",
    "Released",
    "ReverseKFRTRL",
    "Rule",
    "RuleError",
    "Sanger",
    "Scheduled",
    "SimilarityMatching",
    "SimilarityMatchingLateral",
    "SlopeAnnealing",
    "SnAp",
    "SoftBounded",
    "SoftHebb",
    "SoftHebbBias",
    "SpikES",
    "StraightThrough",
    "TripletSTDP",
    "TsodyksMarkram",
    "Vogels2011",
    "Volterra",
    "WakeSleepGenerative",
    "WakeSleepRecognition",
    "WeightMirror",
    "WeightPerturbation",
    "Wrapper",
    "laplace_score",
    "trace",
]
