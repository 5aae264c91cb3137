"""Every rule against the same checks, one table line a rule: a two-synapse case worked by hand, then what must hold of
any rule on any network."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
import scipy.sparse as sp
import sympy

import engrax
from engrax import Fields, NetworkError, RuleError, Simulator, networks as nets, rules
from engrax.rules import latex
from engrax.rules.base import LocalRule, Rule
from engrax.rules.wrappers import core

# Sums of a dozen float64 numbers of order 1 to 10 in two orders differ by some 1e-15.
ROUNDING = 1e-13
HALF = 1e-3 / np.log(2)  # a time constant with which a trace halves in a tick


class Trace(Rule):
    """A user's rule with a state that every copy of the network has for itself: an eligibility trace."""

    eta: float = 0.1
    keep: float = 0.5

    def init(self) -> Fields:
        return Fields(trace=0.0)

    def update(self, pre: Any, post: Any, syn: Any, signals: Any) -> Any:
        trace = self.keep * syn.trace + post.x * pre.x
        return self.eta * signals.reward * trace, Fields(trace=trace)


@dataclass(frozen=True)
class Case:
    """Weights ``w`` (post, pre), the two neurons' fields, and the change of the weights computed by hand.

    ``still``: the rule at zero learning rate, if it has one. ``shows``: what its LaTeX must say.
    """

    rule: LocalRule
    still: LocalRule | None
    change: Any
    pre: dict[str, Any] = field(default_factory=lambda: {"x": [2.0, -1.0]})
    post: dict[str, Any] = field(default_factory=lambda: {"x": [3.0]})
    w: Any = ((0.5, -2.0),)
    syn: dict[str, Any] = field(default_factory=dict)
    new_syn: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, float] = field(default_factory=dict)
    tick: int = 0
    shows: tuple[str, ...] = ()
    ordered: bool = False  # the post neurons' order matters
    linear: bool = True  # in the mean over a batch
    constrained: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return np.shape(self.w)  # type: ignore[return-value]


HEBB = rules.Hebb(eta=0.1)  # its change here: 0.1 * 3 * (2, -1) = (0.6, -0.3)
STILL = rules.Hebb(eta=0.0)
Y = {"post": {"y": [1.0]}}
U = {"post": {"drive": [3.0], "v": [-1.0]}}


def cubic(u: Any) -> Any:
    return -(u**3)


def halving(count: Any) -> Any:
    return 0.5**count


CASES = {
    "Hebb": Case(HEBB, STILL, (0.6, -0.3), shows=(r"\eta x_{i} x_{j}",)),
    # 0.1 * 3 * (2 - 3 * 0.5), 0.1 * 3 * (-1 - 3 * -2)
    "Oja": Case(rules.Oja(eta=0.1), rules.Oja(eta=0.0), (0.15, 1.5), shows=(r"\eta x_{i}", r"- w_{ij} x_{i} + x_{j}")),
    "Delta": Case(
        rules.Delta(eta=0.1),
        rules.Delta(eta=0.0),
        (0.6, -0.3),
        post={"error": [3.0]},
        shows=(r"\eta \mathrm{error}_{i} x_{j}",),
    ),
    "KolenPollack": Case(
        rules.KolenPollack(eta=0.1),
        rules.KolenPollack(eta=0.0),
        (0.6, -0.3),
        pre={"error": [2.0, -1.0]},
        shows=(r"\eta \mathrm{error}_{j} x_{i}",),
    ),
    # 0.1 * (2 * 3 - 1 * 5 - 0.2 * 0.5), 0.1 * (2 * -1 - 1 * 2 + 0.2 * 2)
    "Metz2018": Case(
        rules.Metz2018(eta=0.1, decay=0.2),
        rules.Metz2018(eta=0.0),
        (0.09, -0.36),
        pre={"e0": [3.0, -1.0], "e1": [5.0, 2.0]},
        post={"c0": [2.0], "c1": [-1.0]},
        shows=(r"\mathrm{c0}", r"\mathrm{e1}"),
    ),
    # 0.1 * (3 * 2 - 5 * 1 - 0.2 * 0.5), 0.1 * (-1 * 2 - 2 * 1 + 0.2 * 2)
    "Metz2018Backward": Case(
        rules.Metz2018Backward(eta=0.1, decay=0.2),
        rules.Metz2018Backward(eta=0.0),
        (0.09, -0.36),
        pre={"c0": [3.0, -1.0], "c1": [5.0, 2.0]},
        post={"e0": [2.0], "e1": [-1.0]},
        shows=(r"\mathrm{c0}", r"\mathrm{e1}"),
    ),
    # 0.1 * (3 - 1) * 2, 0.1 * (3 - 2) * -1; 1 + (3 - 1) / 10, 2 + (3 - 2) / 10
    "WeightMirror": Case(
        rules.WeightMirror(eta=0.1, window=10.0),
        rules.WeightMirror(eta=0.0),
        (0.4, -0.1),
        pre={"drive": [2.0, -1.0]},
        syn={"mean": [[1.0, 2.0]]},
        new_syn={"mean": [[1.2, 2.1]]},
        shows=(r"\eta \mathrm{drive}_{j}", r"\mathrm{mean}_{ij} \leftarrow"),
    ),
    "LearnedInverse": Case(
        rules.LearnedInverse(eta=0.1),
        rules.LearnedInverse(eta=0.0),
        (0.6, -0.3),
        post={"miss": [3.0]},
        shows=(r"\eta \mathrm{miss}_{i} x_{j}",),
    ),
    # 0.1 * (3 * (2, -1) - 3^2 * w^2 + 0.5 * 3 - (2, 1)^2)
    "Volterra": Case(
        rules.Volterra.of({"110": 1.0, "022": -1.0, "010": 0.5, "200": -1.0}, eta=0.1),
        rules.Volterra(eta=0.0),
        (0.6 - 0.225 + 0.15 - 0.4, -0.3 - 3.6 + 0.15 - 0.1),
        shows=(r"\theta_{110} x_{i} x_{j}", r"\theta_{022} w_{ij}^{2} x_{i}^{2}", r"\theta_{000} +"),
    ),
    # 0.1 * (2 * 3 * (2, -1) + (2, -1) - 2 * 3 + 5)
    "ABCD": Case(
        rules.ABCD(eta=0.1, a=2.0, b=1.0, c=-2.0, d=5.0),
        rules.ABCD(eta=0.0),
        (1.3, -0.8),
        shows=(r"a x_{i} x_{j}", r"c x_{i}"),
    ),
    # (0.1, 0.2) * ((2, 1) * 3 * (2, -1) + 5)
    "ABCD-each": Case(
        rules.ABCD(eta=np.array([[0.1, 0.2]]), a=np.array([[2.0, 1.0]]), d=5.0),
        None,
        (1.7, 0.4),
        new_syn={"eta": [[0.1, 0.2]], "a": [[2.0, 1.0]]},
    ),
    # 0.1 times -(2, -1) - 2 * -(0.5, 3) + 3 * 3 * ((2, -1) - (1, 2)) + 4 * 3 * (2, -1) + 5 * 3 * (0.5, 3)
    # - 6 * 9 * w - 7 * w - 8 * w + 9 * 3 - 10
    "Pool": Case(
        rules.Pool.of({str(n): n + 1.0 for n in range(10)}, eta=0.1),
        rules.Pool(eta=0.0),
        (0.1 * (-2 + 1 + 9 + 24 + 7.5 - 69 * 0.5 + 17), 0.1 * (1 + 6 - 27 - 12 + 45 + 69 * 2 + 17)),
        pre={"x": [2.0, -1.0], "error": [0.5, 3.0], "echo": [1.0, 2.0]},
        post={"x": [3.0], "error": [-1.0]},
        shows=(r"\mathrm{error}_{i} \theta_{0} x_{j}", r"\mathrm{echo}_{j}"),
    ),
    # 0.25 * 3 + 0.75 * 5 = 4.5: 0.1 * 0.5 * (4.5 * 2 - 4.5^2 * 0.5, -4.5 + 4.5^2 * 2)
    "Lindsey2020": Case(
        rules.Lindsey2020(0.5, eta=0.1, beta=0.75),
        rules.Lindsey2020(eta=0.0),
        (-0.05625, 1.8),
        post={"x": [3.0], "apical": [5.0]},
        shows=(r"\mathrm{plasticity}", r"\max\left(0, \mathrm{apical}_{i}\right)"),
    ),
    "Lindsey2020-each": Case(
        rules.Lindsey2020(np.array([[0.5, 2.0]]), eta=0.1, beta=0.75),
        None,
        (-0.05625, 7.2),
        post={"x": [3.0], "apical": [5.0]},
        new_syn={"plasticity": [[0.5, 2.0]]},
    ),
    # feedback below 0 is none: 0.1 * 0.5 * 3 * (2, -1)
    "Lindsey2020-hebb": Case(
        rules.Lindsey2020(eta=0.1, beta=0.5, oja=False),
        None,
        (0.3, -0.15),
        post={"x": [3.0], "apical": [-5.0]},
    ),
    # two post neurons and one pre: 0.1 * 3 * (2 - 3 * 0.5), 0.1 * 1 * (2 - (3 * 0.5 + 1 * -2))
    "Sanger": Case(
        rules.Sanger(eta=0.1),
        rules.Sanger(eta=0.0),
        ((0.15,), (0.25,)),
        pre={"x": [2.0]},
        post={"x": [3.0, 1.0]},
        w=((0.5,), (-2.0,)),
        shows=(r"E_{ij} = \sum_{k \le i} w_{kj} x_{k}", r"- E_{ij} + x_{j}"),
        ordered=True,
    ),
    "PredictiveCoding": Case(
        rules.PredictiveCoding(eta=0.1),
        rules.PredictiveCoding(eta=0.0),
        (0.6, -0.3),
        post={"error": [3.0]},
        shows=(r"\eta \mathrm{error}_{i} x_{j}",),
    ),
    # 0.1 / 0.5 * ((6, -3) - (1, 2)), and half of it over twice the nudging; in the free phase the product is kept
    "EquilibriumPropagation": Case(
        rules.EquilibriumPropagation(eta=0.1),
        rules.EquilibriumPropagation(eta=0.0),
        (1.0, -1.0),
        syn={"product": [[1.0, 2.0]]},
        new_syn={"product": [[1.0, 2.0]]},
        signals={"nudge": 0.5},
        shows=(r"\mathrm{product}_{ij} \leftarrow",),
    ),
    "EquilibriumPropagation-centred": Case(
        rules.EquilibriumPropagation(eta=0.1, centred=True),
        None,
        (0.5, -0.5),
        syn={"product": [[1.0, 2.0]]},
        new_syn={"product": [[1.0, 2.0]]},
        signals={"nudge": 0.5},
    ),
    "EquilibriumPropagation-free": Case(
        rules.EquilibriumPropagation(eta=0.1),
        None,
        (0.0, 0.0),
        syn={"product": [[1.0, 2.0]]},
        new_syn={"product": [[6.0, -3.0]]},
        signals={"nudge": -0.5},
    ),
    # the logistic function of -(4 - 2) / 2 is 0.26894...: 0.1 * 2 / 2 * that * 3 * (2, -1)
    "ForwardForward": Case(
        rules.ForwardForward(eta=0.1, theta=2.0, temperature=2.0),
        rules.ForwardForward(eta=0.0),
        (0.1613648528219971, -0.0806824264109985),
        post={"y": [3.0], "learning": [4.0]},
        signals={"hebbian": 1.0},
        shows=(r"\theta", r"\mathrm{hebbian}", r"y_{i}"),
    ),
    # of (4 - 2) / 2 it is 0.73105...
    "ForwardForward-negative": Case(
        rules.ForwardForward(eta=0.1, theta=2.0, temperature=2.0),
        None,
        (-0.4386351471780029, 0.2193175735890015),
        post={"y": [3.0], "learning": [4.0]},
        signals={"hebbian": -1.0},
    ),
    # 0.1 * (3 - 1) * (2, -1)
    "DendriticPrediction": Case(
        rules.DendriticPrediction(eta=0.1),
        rules.DendriticPrediction(eta=0.0),
        (0.4, -0.2),
        post={"x": [3.0], "prediction": [1.0]},
        shows=(r"\mathrm{prediction}_{i} + x_{i}",),
    ),
    "ApicalCancellation": Case(
        rules.ApicalCancellation(eta=0.1),
        rules.ApicalCancellation(eta=0.0),
        (-0.6, 0.3),
        post={"apical": [3.0]},
        shows=(r"- \eta \mathrm{apical}_{i} x_{j}",),
    ),
    # 0.1 * 3 * (3 - 1) * 2, 0.1 * 3 * (3 - 2) * -1; 1 + (9 - 1) / 10, 2 + (9 - 2) / 10
    "BCM": Case(
        rules.BCM(eta=0.1, tau=10.0),
        rules.BCM(eta=0.0),
        (1.2, -0.3),
        syn={"theta": [[1.0, 2.0]]},
        new_syn={"theta": [[1.8, 2.7]]},
        shows=(r"- \theta_{ij} + x_{i}", r"\theta_{ij} \leftarrow", r"x_{i}^{2}", r"{\tau}"),
    ),
    # 0.1 * (3 - 1) * (2 - 1), 0.1 * (3 - 2) * (-1 - 1); halfway from 1 to 2 and to -1, from 1 and from 2 to 3
    "Covariance": Case(
        rules.Covariance(eta=0.1, rate=0.5),
        rules.Covariance(eta=0.0),
        (0.2, -0.2),
        syn={"pre_mean": [[1.0, 1.0]], "post_mean": [[1.0, 2.0]]},
        new_syn={"pre_mean": [[1.5, 0.0]], "post_mean": [[2.0, 2.5]]},
        shows=(r"\Delta w_{ij} = \eta", r"+ x_{i}", r"+ x_{j}"),
    ),
    # 0.1 * 1 * (2 - 0.5), 0.1 * 1 * (-1 + 2)
    "FoldiakFeedforward": Case(
        rules.FoldiakFeedforward(beta=0.1),
        rules.FoldiakFeedforward(beta=0.0),
        (0.15, 0.1),
        **Y,
        shows=(r"\beta y_{i}", r"- w_{ij} + x_{j}"),
    ),
    # 0.1 * (2 * 0 - 1) * 3 * (2, -1)
    "Boltzmann": Case(
        rules.Boltzmann(eta=0.1),
        rules.Boltzmann(eta=0.0),
        (-0.6, 0.3),
        signals={"awake": 0.0},
        shows=(r"2 \mathrm{awake} - 1", r"x_{i} x_{j}"),
    ),
    "Boltzmann-awake": Case(rules.Boltzmann(eta=0.1), rules.Boltzmann(eta=0.0), (0.6, -0.3), signals={"awake": 1.0}),
    # asleep: 0.1 * (1 - 3 * 2), 0.1 * (4 + 3 * 1); what was seen awake stays
    "ContrastiveDivergence": Case(
        rules.ContrastiveDivergence(eta=0.1),
        rules.ContrastiveDivergence(eta=0.0),
        (-0.5, 0.7),
        post={"mean": [3.0]},
        signals={"awake": 0.0},
        syn={"clamped": [[1.0, 4.0]]},
        new_syn={"clamped": [[1.0, 4.0]]},
        shows=(r"1 - \mathrm{awake}", r"\mathrm{clamped}_{ij} \leftarrow"),
    ),
    "ContrastiveDivergence-awake": Case(
        rules.ContrastiveDivergence(eta=0.1),
        rules.ContrastiveDivergence(eta=0.0),
        (0.0, 0.0),
        post={"mean": [3.0]},
        signals={"awake": 1.0},
        syn={"clamped": [[1.0, 4.0]]},
        new_syn={"clamped": [[6.0, -3.0]]},
    ),
    # 0.1 * -0.5 * (2, -1)
    "WakeSleepGenerative": Case(
        rules.WakeSleepGenerative(eta=0.1),
        rules.WakeSleepGenerative(eta=0.0),
        (-0.1, 0.05),
        post={"error": [-0.5]},
        signals={"awake": 1.0},
        shows=(r"\mathrm{error}_{i}", r"x_{j}"),
    ),
    "WakeSleepGenerative-asleep": Case(
        rules.WakeSleepGenerative(eta=0.1),
        rules.WakeSleepGenerative(eta=0.0),
        (0.0, 0.0),
        post={"error": [-0.5]},
        signals={"awake": 0.0},
    ),
    "WakeSleepRecognition": Case(
        rules.WakeSleepRecognition(eta=0.1),
        rules.WakeSleepRecognition(eta=0.0),
        (-0.1, 0.05),
        post={"error": [-0.5]},
        signals={"awake": 0.0},
        shows=(r"\mathrm{error}_{i}", r"1 - \mathrm{awake}"),
    ),
    # 0.1 * 1 * (2 - 0.5), 0.1 * 1 * (-1 + 2)
    "Competitive": Case(
        rules.Competitive(eta=0.1),
        rules.Competitive(eta=0.0),
        (0.15, 0.1),
        post={"x": [1.0]},
        shows=(r"\eta x_{i}", r"- w_{ij} + x_{j}"),
    ),
    # 2 - 0.5, -1 + 2
    "OneShot": Case(
        rules.OneShot(),
        None,
        (1.5, 1.0),
        post={"x": [1.0]},
        signals={"encode": 1.0},
        shows=(r"\mathrm{encode}", r"- w_{ij} + x_{j}"),
    ),
    # 0.1 * 0.5 * (2 - 3 * 0.5), 0.1 * 0.5 * (-1 + 3 * 2)
    "SoftHebb": Case(
        rules.SoftHebb(eta=0.1),
        rules.SoftHebb(eta=0.0),
        (0.025, 0.25),
        post={"x": [0.5], "drive": [3.0]},
        shows=(r"- \mathrm{drive}_{i} w_{ij} + x_{j}",),
    ),
    # 0.1 * (0.25 * 4 - 1), 0.1 * (0.25 * 16 - 1)
    "SoftHebbBias": Case(
        rules.SoftHebbBias(eta=0.1, beta=2.0),
        rules.SoftHebbBias(eta=0.0),
        (0.0, 0.3),
        post={"x": [0.25]},
        w=((-np.log(2.0), -np.log(4.0)),),
        shows=(r"e^{- \beta w_{ij}}",),
    ),
    # p = 3, v = (1/2, -1), so w = (1/4, -1): 0.1 * 2 * -0.5 * (1/2 * 2 - 3 / 4), 0.1 * 2 * -0.5 * (1 * -1 + 3 * 1)
    "KrotovHopfield": Case(
        rules.KrotovHopfield(eta=0.1, p=3.0),
        rules.KrotovHopfield(eta=0.0, p=3.0),
        (-0.025, -0.2),
        post={"x": [-0.5], "drive": [3.0]},
        w=((0.25, -1.0),),
        shows=(r"\left|{w_{ij}}\right|^{0.5}", r"- \mathrm{drive}_{i} w_{ij}"),
    ),
    # p = 2: 0.1 * -0.5 * (2 - 3 * 0.5), 0.1 * -0.5 * (-1 + 3 * 2)
    "KrotovHopfield-euclid": Case(
        rules.KrotovHopfield(eta=0.1),
        rules.KrotovHopfield(eta=0.0),
        (-0.025, -0.25),
        post={"x": [-0.5], "drive": [3.0]},
    ),
    # 0.5 - 0.1 * (1 - 0.25) is above 0 and cut to it; -0.1 * (0 - 0.25)
    "FoldiakLateral": Case(
        rules.FoldiakLateral(alpha=0.1, p=0.5),
        rules.FoldiakLateral(alpha=0.0),
        (-0.5, 0.025),
        **Y,
        pre={"y": [1.0, 0.0]},
        shows=(r"- \alpha", r"- p^{2} + y_{i} y_{j}", r"w_{ij} \leftarrow \min\left(0, w_{ij}\right)"),
        constrained=True,
    ),
    # -0.1 * (1 - 0.5)
    "FoldiakThreshold": Case(
        rules.FoldiakThreshold(gamma=0.1, p=0.5),
        rules.FoldiakThreshold(gamma=0.0),
        (-0.05, -0.05),
        **Y,
        shows=(r"- \gamma", r"- p + y_{i}"),
    ),
    # (3 * 2 - 0.5) / 10, (3 * -1 + 2) / 10
    "InfomaxLateral": Case(
        rules.InfomaxLateral(window=10.0),
        rules.InfomaxLateral(window=np.inf),
        (0.55, -0.1),
        **U,
        pre={"drive": [2.0, -1.0]},
        shows=(r"\mathrm{drive}_{i} \mathrm{drive}_{j} - w_{ij}", r"{\mathrm{window}}"),
    ),
    # sensing: 0.1 * (-1 - 2 * 0.5 * 3) * (2, -1)
    "Infomax": Case(
        rules.Infomax(eta=0.1, price=0.5),
        rules.Infomax(eta=0.0),
        (-0.8, 0.4),
        **U,
        signals={"hebbian": 1.0},
        shows=(r"\eta x_{j}", r"\mathrm{hebbian} v_{i}"),
    ),
    # noise: 0.1 * +1 * (2, -1), the price is not paid
    "Infomax-noise": Case(
        rules.Infomax(eta=0.1, price=0.5),
        rules.Infomax(eta=0.0),
        (0.2, -0.1),
        **U,
        signals={"hebbian": -1.0},
    ),
    # 0.1 * (-1 - 2 * 0.25 * 3) * (2, -1)
    "InfomaxSharedPrice": Case(
        rules.InfomaxSharedPrice(eta=0.1),
        rules.InfomaxSharedPrice(eta=0.0),
        (-0.5, 0.25),
        **U,
        signals={"hebbian": 1.0, "price": 0.25},
        shows=(r"\mathrm{price}", r"\mathrm{hebbian} v_{i}"),
    ),
    # prices 0.5 * (4 - 2) and 0.5 * (1 - 2): 0.1 * (-1 - 2 * 1 * 3) * 2, 0.1 * (-1 + 2 * 0.5 * 3) * -1
    "InfomaxHomeostatic": Case(
        rules.InfomaxHomeostatic(eta=0.1, power=2.0, gain=0.5, window=10.0),
        rules.InfomaxHomeostatic(eta=0.0),
        (-1.4, -0.2),
        **U,
        signals={"hebbian": 1.0},
        syn={"power": [[4.0, 1.0]]},
        new_syn={"power": [[4.5, 1.8]]},
        shows=(r"\mathrm{gain}", r"- \mathrm{power} + \mathrm{power}_{ij}", r"\mathrm{power}_{ij} \leftarrow"),
    ),
    # 0.1 * (-1 - 3**3) * (2, -1)
    "LocalICA": Case(
        rules.LocalICA(eta=0.1, phi=cubic),
        rules.LocalICA(eta=0.0),
        (-5.6, 2.8),
        **U,
        shows=(r"\eta x_{j}", "v_{i}"),
    ),
    # tanh(30) is 1 to 26 digits: 0.1 * (-1 - 2**0.5) * (2, -1)
    "LocalICA-laplace": Case(
        rules.LocalICA(eta=0.1),
        rules.LocalICA(eta=0.0),
        (-0.4828427124746190, 0.2414213562373095),
        **U,
        shows=(r"\tanh",),
    ),
    # 2 * 0.1 * (-1 * 2 - 0.5), 2 * 0.1 * (-1 * -1 + 2)
    "SimilarityMatching": Case(
        rules.SimilarityMatching(eta=0.1),
        rules.SimilarityMatching(eta=0.0),
        (-0.5, 0.6),
        **U,
        shows=(r"2 \eta", r"v_{i} x_{j} - w_{ij}"),
    ),
    # 0.1 / 0.5 * (-1 * 4 - 0.5), 0.1 / 0.5 * (-1 * -3 + 2)
    "SimilarityMatchingLateral": Case(
        rules.SimilarityMatchingLateral(eta=0.1, tau=0.5),
        rules.SimilarityMatchingLateral(eta=0.0),
        (-0.9, 1.0),
        **U,
        pre={"v": [4.0, -3.0]},
        shows=(r"v_{i} v_{j} - w_{ij}", r"{\tau}"),
    ),
    # 0.5 * 1 + 3 * 2, 0.5 * 4 + 3 * -1; times 0.1 * -2
    "Trace": Case(
        Trace(),
        Trace(eta=0.0),
        (-1.3, 0.2),
        signals={"reward": -2.0},
        syn={"trace": [[1.0, 4.0]]},
        new_syn={"trace": [[6.5, -1.0]]},
        shows=(r"\mathrm{reward}", r"\mathrm{trace}_{ij} \leftarrow"),
    ),
    # traces halve: r = (2, 1), o = (3, -1); 0.1 * r * 3 - 0.2 * o * x
    "STDP": Case(
        rules.STDP(a_plus=0.1, a_minus=0.2, tau_plus=HALF, tau_minus=HALF),
        rules.STDP(a_plus=0.0, a_minus=0.0),
        (-0.6, 0.1),
        syn={"r": [[4.0, 2.0]], "o": [[6.0, -2.0]]},
        new_syn={"r": [[4.0, 0.0]], "o": [[6.0, 2.0]]},
        shows=(r"r_{ij} \leftarrow", r"\mathrm{a\,plus}"),
    ),
    # only the first pre neuron spikes
    "STDP-nearest": Case(
        rules.STDP(a_plus=0.1, a_minus=0.2, tau_plus=HALF, tau_minus=HALF, nearest=True),
        rules.STDP(a_plus=0.0, a_minus=0.0),
        (-0.6, 0.1),
        syn={"r": [[4.0, 2.0]], "o": [[6.0, -2.0]]},
        new_syn={"r": [[1.0, 1.0]], "o": [[1.0, 1.0]]},
    ),
    # 3 * (2, 1) * (0.1 + 0.2 * (1, 2)) - (2, -1) * (3, -1) * (0.3 + 0.4 * (1, -1))
    "TripletSTDP": Case(
        rules.TripletSTDP(0.1, 0.2, 0.3, 0.4, HALF, HALF, HALF, HALF),
        rules.TripletSTDP(0.0, 0.0, 0.0, 0.0),
        (-2.4, 1.6),
        syn={"r1": [[4.0, 2.0]], "r2": [[2.0, -2.0]], "o1": [[6.0, -2.0]], "o2": [[2.0, 4.0]]},
        new_syn={"r1": [[4.0, 0.0]], "r2": [[3.0, -2.0]], "o1": [[6.0, 2.0]], "o2": [[4.0, 5.0]]},
        shows=(r"\Delta w_{ij}",),
    ),
    # alpha = 1: 0.1 * ((2, -1) * ((3, -1) - 1) + 3 * (2, 1))
    "Vogels2011": Case(
        rules.Vogels2011(eta=0.1, rate=0.5 / HALF, tau=HALF),
        rules.Vogels2011(eta=0.0),
        (1.0, 0.5),
        syn={"r": [[4.0, 2.0]], "o": [[6.0, -2.0]]},
        new_syn={"r": [[4.0, 0.0]], "o": [[6.0, 2.0]]},
        shows=(r"\eta",),
    ),
    # traces halve and quarter: r = (2, 1), o = (1.5, -0.5); 0.1 * ((2, -1) * (0.5 + 2 * o) + 3 * (-1 + 0.5 * r))
    "SpikES": Case(
        rules.SpikES(0.1, np.log(HALF), np.log(HALF / 2), alpha=0.5, beta=-1.0, kappa=2.0, gamma=0.5),
        rules.SpikES(eta=0.0),
        (0.7, -0.1),
        syn={"r": [[4.0, 2.0]], "o": [[6.0, -2.0]]},
        new_syn={"r": [[4.0, 0.0]], "o": [[4.5, 2.5]]},
        shows=(r"\kappa", r"\gamma", r"\mathrm{log\,tau\,pre}"),
    ),
    # a spike of 2 ms at 33 mV: 0.002 * (0.5, 0.25) * 80 * (5, 10) - 0.01 * (2, -1) * (10, 20)
    "Clopath2010": Case(
        rules.Clopath2010(0.01, 0.001, HALF, HALF, HALF, -70.0, -47.0),
        rules.Clopath2010(a_minus=0.0, a_plus=0.0),
        (0.2, 0.6),
        post={"x": [3.0], "v": [-50.0]},
        syn={"x_bar": [[0.5, 0.25]], "u_minus": [[-60.0, -50.0]], "u_plus": [[-65.0, -60.0]]},
        new_syn={"x_bar": [[1.25, -0.375]], "u_minus": [[9.75, 12.25]], "u_plus": [[8.5, 9.75]]},
        shows=(r"\mathrm{peak}",),
    ),
    # the first synapse is used: 0.5 * (0.65 * 0.66 / 0.48 - 1), -2 * (0.6 * 0.75 / 0.35 - 1)
    "TsodyksMarkram": Case(
        rules.TsodyksMarkram(use=0.5, tau_d=HALF, tau_f=HALF),
        None,
        (-0.053125, -4 / 7),
        syn={"u": [[0.2, 0.4]], "r": [[0.8, 0.5]]},
        new_syn={"u": [[0.3, 0.2]], "r": [[0.66, 0.75]]},
        shows=(r"\mathrm{use}",),
    ),
    # 0.6 * (1 - 0.5), -0.3 * (-2 + 3)
    "SoftBounded": Case(
        rules.SoftBounded(HEBB, low=-3.0, high=1.0),
        rules.SoftBounded(STILL, low=-3.0, high=1.0),
        (0.3, -0.3),
        shows=(r"\mu",),
        constrained=True,
    ),
    # -2 * ((1, 4) / 2 + (0.6, -0.3))
    "Eligible": Case(
        rules.Eligible(HEBB, tau=HALF),
        rules.Eligible(STILL, tau=1e-9),
        (-2.2, -3.4),
        signals={"reward": -2.0},
        syn={"eligibility": [[1.0, 4.0]]},
        new_syn={"eligibility": [[1.1, 1.7]]},
        shows=(r"\mathrm{eligibility}_{ij}",),
    ),
    # 3 Hz after 1 and 2 Hz; (0.0006, -0.0003) + 0.1 * (4 - (2, 2.5)) * w * 0.001
    "Homeostatic": Case(
        rules.Homeostatic(HEBB, eta=0.1, rate=4.0, tau=HALF),
        rules.Homeostatic(STILL, eta=0.0),
        (0.0007, -0.0006),
        post={"x": [0.003]},
        syn={"rate": [[1.0, 2.0]]},
        new_syn={"rate": [[2.0, 2.5]]},
        shows=(r"\mathrm{rate}_{ij}",),
    ),
    # 0.5 + 0.6 is cut to 1, -2 - 0.3 to -2.1
    "Bounded": Case(
        rules.Bounded(HEBB, low=-2.1, high=1.0),
        rules.Bounded(STILL, low=-2.1, high=1.0),
        (0.5, -0.1),
        shows=(r"w_{ij} \leftarrow", r"\mathrm{low}", r"\mathrm{high}"),
        constrained=True,
    ),
    # an inhibitory pre neuron: 1.1 is cut to 0
    "Dale": Case(
        rules.Dale(HEBB, sign=-1.0),
        rules.Dale(STILL, sign=-1.0),
        (-0.5, -0.3),
        shows=(r"\mathrm{sign} \max\left(0, \mathrm{sign} w_{ij}\right)",),
        constrained=True,
    ),
    # (2.4, -3.7) + (0.6, -0.3) = (3, -4), of length 5, becomes (6, -8)
    "Normalised": Case(
        rules.Normalised(HEBB, total=10.0),
        rules.Normalised(STILL, total=10.0),
        (3.6, -4.3),
        w=((2.4, -3.7),),
        shows=(r"A_{i} = \sum_{k} \left|{w_{ik}}\right|^{\mathrm{power}}", r"\mathrm{total} w_{ij}"),
        constrained=True,
    ),
    # 0.6 - 0.1 * (0.5 - 0.5), -0.3 - 0.1 * (-2 - 0.5)
    "Decay": Case(
        rules.Decay(HEBB, rate=0.1, target=0.5),
        rules.Decay(STILL, rate=0.0),
        (0.6, -0.05),
        shows=(r"- \mathrm{rate} \left(- \mathrm{target} + w_{ij}\right)",),
    ),
    # 0.5 * 1 + 0.6, 0.5 * 2 - 0.3
    "Momentum": Case(
        rules.Momentum(HEBB, mu=0.5),
        None,
        (1.1, 0.7),
        syn={"velocity": [[1.0, 2.0]]},
        new_syn={"velocity": [[1.1, 0.7]]},
        shows=(r"\Delta w_{ij} = \eta x_{i} x_{j} + \mathrm{velocity}_{ij} \mu",),
    ),
    # 1 + 0.6, 2 - 0.3
    "Fast": Case(
        rules.Fast(HEBB),
        rules.Fast(STILL),
        (0.0, 0.0),
        syn={"fast": [[1.0, 2.0]]},
        new_syn={"fast": [[1.6, 1.7]]},
        shows=(r"\mathrm{fast}_{ij} \leftarrow \eta x_{i} x_{j} + \mathrm{fast}_{ij}",),
    ),
    "Gated": Case(
        rules.Gated(HEBB),
        rules.Gated(STILL),
        (-1.2, 0.6),
        signals={"reward": -2.0},
        shows=(r"\mathrm{reward} x_{i} x_{j}",),
    ),
    "Noisy": Case(
        rules.Noisy(HEBB, scale=0.0),
        rules.Noisy(STILL, scale=0.0),
        (0.6, -0.3),
        shows=(r"\mathrm{scale} \xi_{ij}",),
    ),
    # (-2 - 1) * 0.1 * 3 * (2, -1); 1 - 3 / 2
    "Reinforce": Case(
        rules.Reinforce(eta=0.1, rate=0.5),
        rules.Reinforce(eta=0.0),
        (-1.8, 0.9),
        post={"score": [3.0]},
        signals={"reward": -2.0},
        syn={"baseline": [[1.0, 1.0]]},
        new_syn={"baseline": [[-0.5, -0.5]]},
        shows=(r"\mathrm{reward}", r"\mathrm{baseline}_{ij}"),
    ),
    # (-2 - 4, -2 + 1) * 0.1 * 3 * (2, -1); 4 - 0.05 * 9 * 6, -1 - 0.05 * 9
    "ReinforceOptimal": Case(
        rules.ReinforceOptimal(eta=0.1, rate=0.05),
        rules.ReinforceOptimal(eta=0.0),
        (-3.6, 0.3),
        post={"score": [3.0]},
        signals={"reward": -2.0},
        syn={"baseline": [[4.0, -1.0]]},
        new_syn={"baseline": [[1.3, -1.45]]},
        shows=(r"\mathrm{score}_{i}^{2}",),
    ),
    # 0.1 * -2 * 3 * (2, -1)
    "NodePerturbation": Case(
        rules.NodePerturbation(eta=0.1),
        rules.NodePerturbation(eta=0.0),
        (-1.2, 0.6),
        post={"score": [3.0]},
        signals={"change": -2.0},
        shows=(r"\eta \mathrm{change} \mathrm{score}_{i} x_{j}",),
    ),
    # (0.1 * -2 / 0.5 - 0.5) * (1, -3); it tries its noise at any learning rate
    "WeightPerturbation": Case(
        rules.WeightPerturbation(eta=0.1, sigma=0.5),
        None,
        (-0.9, 2.7),
        signals={"change": -2.0},
        syn={"tried": [[1.0, -3.0]]},
        new_syn={"tried": [[0.0, 0.0]]},
        shows=(r"\sigma",),
    ),
    # 0.1 * 3 * (2, -1)
    "StraightThrough": Case(
        rules.StraightThrough(eta=0.1),
        rules.StraightThrough(eta=0.0),
        (0.6, -0.3),
        post={"apical": [3.0]},
        shows=(r"\eta \mathrm{apical}_{i} x_{j}",),
    ),
    # s = 2 in the middle: 0.1 * 3 * 2 / 4 * (2, -1)
    "SlopeAnnealing": Case(
        rules.SlopeAnnealing(eta=0.1, start=1.0, end=3.0, over=10.0),
        rules.SlopeAnnealing(eta=0.0),
        (0.3, -0.15),
        post={"apical": [3.0], "drive": [0.0]},
        tick=5,
        shows=(r"\mathrm{apical}_{i}",),
    ),
    # 0.1 * -2 * (0.5 - 0.75) * (2, -1)
    "ARM": Case(
        rules.ARM(eta=0.1),
        rules.ARM(eta=0.0),
        (0.1, -0.05),
        post={"u": [0.75], "again": [1.0]},
        signals={"change": -2.0},
        shows=(r"\mathrm{again}_{i}",),
    ),
    # 0.5 * (1, 4) + 0.5 * (2, -1) = (1.5, 1.5), times 0.1 * -2
    "RFLO": Case(
        rules.RFLO(eta=0.1),
        rules.RFLO(eta=0.0),
        (-0.3, -0.3),
        post={"keep": [0.5], "slope": [0.5], "credit": [-2.0]},
        syn={"trace": [[1.0, 4.0]]},
        new_syn={"trace": [[1.5, 1.5]]},
        shows=(r"\mathrm{keep}_{i}", r"\mathrm{credit}_{i}"),
    ),
    # 0.5 * (1, 4) + (0.5, 2) * 3 = (2, 8), times 0.1 * (-2, 1)
    "RFLOFeedback": Case(
        rules.RFLOFeedback(eta=0.1),
        rules.RFLOFeedback(eta=0.0),
        (-0.4, 0.8),
        pre={"keep": [0.5, 0.5], "slope": [0.5, 2.0], "credit": [-2.0, 1.0]},
        syn={"trace": [[1.0, 4.0]]},
        new_syn={"trace": [[2.0, 8.0]]},
        shows=(r"\mathrm{keep}_{j}", r"\mathrm{credit}_{j}"),
    ),
    # potential (4, 0) / 2 + (2, -1) = (4, -1); trace (1, 1) / 2 + 0.5 * (4, -1) = (2.5, 0), times 0.1 * -2
    "EProp": Case(
        rules.EProp(eta=0.1, tau=HALF, tau_out=HALF),
        rules.EProp(eta=0.0),
        (-0.5, 0.0),
        post={"slope": [0.5], "credit": [-2.0]},
        syn={"potential": [[4.0, 0.0]], "trace": [[1.0, 1.0]]},
        new_syn={"potential": [[4.0, -1.0]], "trace": [[2.5, 0.0]]},
        shows=(r"\mathrm{slope}_{i}",),
    ),
    # e = 0.5 * (4, -1) - 0.25 * (2, 2) = (1.5, -1); trace (1, 1) / 2 + e = (2, -0.5), times 0.1 * -2
    "EPropAdaptive": Case(
        rules.EPropAdaptive(eta=0.1, tau=HALF, tau_adaptation=HALF, tau_out=HALF),
        rules.EPropAdaptive(eta=0.0),
        (-0.4, 0.1),
        post={"slope": [0.5], "slope_a": [-0.25], "credit": [-2.0]},
        syn={"potential": [[4.0, 0.0]], "adaptation": [[2.0, 2.0]], "trace": [[1.0, 1.0]]},
        new_syn={"potential": [[4.0, -1.0]], "adaptation": [[2.5, 0.0]], "trace": [[2.0, -0.5]]},
        shows=(r"\mathrm{slope\,a}_{i}",),
    ),
    "Backup": Case(
        rules.Backup(eta=0.1),
        rules.Backup(eta=0.0),
        (-0.2, -0.8),
        pre={"trace": [1.0, 4.0]},
        signals={"dopamine": -2.0},
        shows=(r"\eta \mathrm{dopamine} \mathrm{trace}_{j}",),
    ),
    # 0.1 * -2 * (1, 4), then 0.45 * (1, 4) + (2, -1)
    "TD": Case(
        rules.TD(eta=0.1, gamma=0.9, decay=0.5),
        rules.TD(eta=0.0),
        (-0.2, -0.8),
        signals={"dopamine": -2.0},
        syn={"trace": [[1.0, 4.0]]},
        new_syn={"trace": [[2.45, 0.8]]},
        shows=(r"\eta \mathrm{dopamine} \mathrm{trace}_{ij}",),
    ),
    # trace (1, 4) + 3 * (2, -1) = (7, 1), times 0.1 * (-2 - 1); the baseline goes half of the way to -2
    "PerturbationTrace": Case(
        rules.PerturbationTrace(eta=0.1, rate=0.5),
        rules.PerturbationTrace(eta=0.0),
        (-2.1, -0.3),
        post={"score": [3.0]},
        signals={"reward": -2.0},
        syn={"trace": [[1.0, 4.0]], "baseline": [[1.0, 1.0]]},
        new_syn={"trace": [[0.0, 0.0]], "baseline": [[-0.5, -0.5]]},
        shows=(r"\mathrm{reward}", r"\mathrm{score}_{i}"),
    ),
    "PerturbationTrace-between": Case(
        rules.PerturbationTrace(eta=0.1, rate=0.5),
        None,
        (0.0, 0.0),
        post={"score": [3.0]},
        signals={"reward": -2.0, "last": 0.0},
        syn={"trace": [[1.0, 4.0]], "baseline": [[1.0, 1.0]]},
        new_syn={"trace": [[7.0, 1.0]], "baseline": [[1.0, 1.0]]},
    ),
    # trace (1, 4) + (2, -1)^3 = (9, 3), times 0.1 * (-2 - 1)
    "Miconi2017": Case(
        rules.Miconi2017(eta=0.1, rate=0.5),
        rules.Miconi2017(eta=0.0),
        (-2.7, -0.9),
        post={"deviation": [1.0]},
        signals={"reward": -2.0},
        syn={"trace": [[1.0, 4.0]], "baseline": [[1.0, 1.0]]},
        new_syn={"trace": [[0.0, 0.0]], "baseline": [[-0.5, -0.5]]},
        shows=(r"\mathrm{deviation}_{i}^{3}",),
    ),
    # (0.6, -0.3) and what was there
    "Accumulated": Case(
        rules.Accumulated(HEBB),
        None,
        (1.6, 0.7),
        syn={"total": [[1.0, 1.0]]},
        new_syn={"total": [[0.0, 0.0]]},
        shows=(r"\mathrm{last}", r"\mathrm{total}_{ij}"),
    ),
    "Accumulated-between": Case(
        rules.Accumulated(HEBB),
        None,
        (0.0, 0.0),
        signals={"last": 0.0},
        syn={"total": [[1.0, 1.0]]},
        new_syn={"total": [[1.6, 0.7]]},
    ),
    # at the first step each weight goes eta in the direction of its change
    "Adam": Case(
        rules.Adam(HEBB, eta=0.01, epsilon=0.0),
        None,
        (0.01, -0.01),
        linear=False,
        new_syn={"m": [[0.06, -0.03]], "v": [[3.6e-4, 9e-5]], "n": [[1.0, 1.0]]},
        shows=(r"\mu", r"\rho"),
    ),
    "Adam-between": Case(
        rules.Adam(HEBB),
        None,
        (0.0, 0.0),
        signals={"last": 0.0},
        syn={"m": [[1.0, 1.0]], "v": [[1.0, 1.0]], "n": [[1.0, 1.0]]},
        new_syn={"m": [[1.0, 1.0]], "v": [[1.0, 1.0]], "n": [[1.0, 1.0]]},
    ),
    # where every synapse transmits
    "Released": Case(rules.Released(HEBB), rules.Released(STILL), (0.6, -0.3), shows=(r"\mathrm{released}_{ij}",)),
    "Every": Case(
        rules.Every(HEBB, n=3), rules.Every(STILL), (0.6, -0.3), tick=5, shows=(r"\mathrm{tick} \bmod 3 = 2",)
    ),
    "Every-between": Case(rules.Every(HEBB, n=3), rules.Every(STILL), (0.0, 0.0), tick=4),
    # the learning rate halves every tick
    "Scheduled": Case(
        rules.Scheduled(HEBB, schedule=halving),
        rules.Scheduled(STILL),
        (0.15, -0.075),
        tick=2,
        shows=(r"\mathrm{count}",),
    ),
    # wrappers of wrappers: -2 * (0.6, -0.3) + 0.1 * (0 - w), cut at 0
    "Bounded-Decay-Gated": Case(
        rules.Bounded(rules.Decay(rules.Gated(HEBB), rate=0.1), low=-1.5),
        rules.Bounded(rules.Decay(rules.Gated(STILL), rate=0.0)),
        (-1.25, 0.8),
        signals={"reward": -2.0},
        constrained=True,
    ),
}
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
ONCE = {name: case for name, case in CASES.items() if "-" not in name}
EVERY_RULE = pytest.mark.parametrize("case", ONCE.values(), ids=ONCE.keys())


class Free(rules.Wrapper):
    """A rule without its constraint."""

    def constrained(self, env: Any) -> Any:
        return env.w

    def constraint_pooled(self, env: Any) -> Any:
        return None


def some(case: Case, n_pre: int, n_post: int, batch: int | None = None, seed: int = 0) -> dict[str, Any]:
    """A random situation for a rule: everything that it reads."""
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    reads = {*engrax.locality(case.rule).reads}
    return {
        "w": rng.normal(size=(n_post, n_pre)),
        "pre": {n[4:]: rng.normal(size=(*lead, n_pre)) for n in sorted(reads) if n.startswith("pre.")},
        "post": {n[5:]: rng.normal(size=(*lead, n_post)) for n in sorted(reads) if n.startswith("post.")},
        "syn": {name: rng.normal(size=(n_post, n_pre)) for name in case.rule.init()},
        "signals": case.signals,
        "tick": case.tick,
    }


def test_table_has_every_rule() -> None:
    public = {getattr(rules, name) for name in rules.__all__}
    classes = {c for c in public if isinstance(c, type) and issubclass(c, LocalRule)}
    assert {type(case.rule) for case in CASES.values()} >= classes - {LocalRule, rules.Rule, rules.Wrapper}


@ALL
def test_two_synapses_by_hand(bench: Any, case: Case) -> None:
    n_post, n_pre = case.shape
    new, syn = bench(case.rule, n_pre, n_post)(
        case.w, case.pre, case.post, syn=case.syn or None, signals=case.signals, tick=case.tick
    )
    np.testing.assert_allclose(new - np.asarray(case.w), np.reshape(case.change, case.shape), rtol=0, atol=ROUNDING)
    assert syn.keys() == case.new_syn.keys()
    for name, expected in case.new_syn.items():
        np.testing.assert_allclose(syn[name], expected, rtol=0, atol=ROUNDING)


@EVERY_RULE
def test_zero_learning_rate_changes_nothing(bench: Any, case: Case) -> None:
    if case.still is None:
        return
    run = bench(case.still, 4, 3)
    situation = some(case, 4, 3)
    w, _ = run(**situation)
    if not case.constrained:
        assert np.array_equal(w, situation["w"])
    again, _ = run(**{**situation, "w": w})  # a constraint moves the weights once and never again
    np.testing.assert_allclose(again, w, rtol=0, atol=ROUNDING)


@EVERY_RULE
def test_shape_and_dtype_are_kept_and_nothing_is_compiled_twice(case: Case) -> None:
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    names = {name.partition(".")[::2] for name in engrax.locality(case.rule).reads}
    fields = {f for group, f in names if group in ("pre", "post")} - {"x", "drive"}
    with jax.enable_x64(False):
        net = nx.MultiDiGraph()
        net.add_node("a", neuron=_relay(fields), size=4)
        net.add_node("b", neuron=_relay(fields), size=3)
        net.add_edge("a", "b", rule=case.rule)
        sim = Simulator(net)
        lead = (5,) if case.rule.alone else (5, 2)
        drive = {"a": np.full((*lead, 4), 0.1), "b": np.full((*lead, 3), 0.1)}
        signals = {name: np.ones(5) for name in case.signals}
        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            sim.run(drive, signals=signals)
            before = {name: (np.shape(v), np.asarray(v).dtype) for name, v in sim.params["a->b"].items()}
            assert compiled  # the listener hears
            compiled.clear()
            sim.run(drive, signals=signals)
            assert compiled == []
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
        after = {name: (np.shape(v), np.asarray(v).dtype) for name, v in sim.params["a->b"].items()}
        assert after == before
        assert after["w"][0] == (3, 4)
        assert {dtype for _, dtype in after.values()} == {np.dtype("float32")}


def _relay(fields: set[str]) -> nets.Neuron:
    class Relay(nets.Neuron):
        def init(self) -> Fields:
            return Fields(dict.fromkeys(["x", *sorted(fields)], 0.0))

        def step(self, ports: Fields) -> Fields:
            return Fields(dict.fromkeys(["x", *sorted(fields)], ports.drive))

    return Relay()


@EVERY_RULE
def test_permuting_neurons_permutes_the_result(bench: Any, case: Case) -> None:
    n_pre, n_post = 5, 4
    run = bench(case.rule, n_pre, n_post)
    before = some(case, n_pre, n_post)
    new, syn = run(**before)
    pre = np.array([3, 0, 4, 1, 2])
    post = np.arange(n_post) if case.ordered else np.array([2, 3, 1, 0])
    shuffled = {
        **before,
        "w": before["w"][post][:, pre],
        "pre": {name: values[pre] for name, values in before["pre"].items()},
        "post": {name: values[post] for name, values in before["post"].items()},
        "syn": {name: values[post][:, pre] for name, values in before["syn"].items()},
    }
    new_shuffled, syn_shuffled = run(**shuffled)
    np.testing.assert_allclose(new_shuffled, new[post][:, pre], rtol=0, atol=ROUNDING)
    for name in syn:
        np.testing.assert_allclose(syn_shuffled[name], syn[name][post][:, pre], rtol=0, atol=ROUNDING)


def test_sanger_depends_on_the_order_of_its_units(bench: Any) -> None:
    case = CASES["Sanger"]
    run, before = bench(case.rule, 3, 2), some(case, 3, 2)
    flipped = {**before, "w": before["w"][::-1], "post": {"x": before["post"]["x"][::-1]}}
    assert not np.allclose(run(**flipped)[0], run(**before)[0][::-1])


@EVERY_RULE
def test_batch_update_is_the_mean_of_single_updates(bench: Any, case: Case) -> None:
    if not case.linear or case.rule.alone or case.rule.carried:
        return
    n_pre, n_post, batch = 3, 2, 4
    rule = Free(case.rule)
    together = some(case, n_pre, n_post, batch)
    each_own = set((core(rule) or rule).init()) if rule.sharing == "each" else set()
    run = bench(rule, n_pre, n_post)
    alone = []
    for b in range(batch):
        one = {group: {name: v[b] for name, v in together[group].items()} for group in ("pre", "post")}
        alone.append(run(**{**together, **one}))
    lead = {name: (batch,) if name in each_own else () for name in together["syn"]}
    together["syn"] = {name: np.broadcast_to(v, (*lead[name], *v.shape)) for name, v in together["syn"].items()}
    new, syn = bench(rule, n_pre, n_post)(**together)
    np.testing.assert_allclose(new, np.mean([w for w, _ in alone], axis=0), rtol=0, atol=ROUNDING)
    for name in syn:
        copies = np.stack([state[name] for _, state in alone])
        np.testing.assert_allclose(syn[name], copies if name in each_own else copies.mean(0), rtol=0, atol=ROUNDING)


def test_constraint_acts_after_the_batch_mean(bench: Any) -> None:
    # Hebb gives 0.1 * (mean of 3 and -5) = -0.1; bounding each sample first, 0.3 -> 0.2, would give (0.2 - 0.5) / 2.
    new, _ = bench(rules.Bounded(HEBB, high=0.2), 1, 1)([[0.0]], {"x": [[1.0], [1.0]]}, {"x": [[3.0], [-5.0]]})
    np.testing.assert_allclose(new, [[-0.1]], atol=ROUNDING)


@EVERY_RULE
def test_dense_and_sparse_learn_the_same(bench: Any, case: Case) -> None:
    """On a batch, so that matrix products are held against the running sum."""
    n_pre, n_post, batch = 4, 3, None if case.rule.alone else 3
    everyone = nets.FromMatrix(sp.csr_array(np.ones((n_post, n_pre))))
    if case.ordered:
        with pytest.raises(NetworkError, match=r"'a->b'.*dense projection.*leave topology out"):
            bench(case.rule, n_pre, n_post, topology=everyone)
        return
    before = some(case, n_pre, n_post, batch)
    if case.rule.sharing == "each":  # then every copy starts from init()
        before["syn"] = {}
    dense, dense_syn = bench(case.rule, n_pre, n_post)(**{**before, "syn": before["syn"] or None})
    flat = {name: values.reshape(-1) for name, values in before["syn"].items()}
    sparse, sparse_syn = bench(case.rule, n_pre, n_post, topology=everyone)(
        **{**before, "w": before["w"].reshape(-1), "syn": flat or None}
    )
    np.testing.assert_allclose(sparse, dense.reshape(-1), rtol=0, atol=ROUNDING)
    for name in dense_syn:
        np.testing.assert_allclose(
            sparse_syn[name].reshape(dense_syn[name].shape), dense_syn[name], rtol=0, atol=ROUNDING
        )


@pytest.mark.parametrize(
    "rule", [HEBB, rules.Normalised(HEBB, total=2.0), CASES["BCM"].rule], ids=["Hebb", "Normalised", "BCM"]
)
def test_rows_of_unequal_length_learn_as_the_same_synapses_of_a_dense_projection(bench: Any, rule: LocalRule) -> None:
    """Padding neither learns nor takes part in sums. Rows of 3 and 4 synapses share a block, so do those of 0 and 1."""
    rng = np.random.default_rng(1)
    present = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 0, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 1]], bool)
    w = np.where(present, rng.normal(size=(5, 5)), 0)
    x, y = rng.normal(size=5), rng.normal(size=5)
    run = bench(rule, 5, 5, topology=nets.FromMatrix(sp.csr_array(present.astype(float))))
    new, _ = run(w[present], {"x": x}, {"x": y})
    expected = np.zeros((5, 5))
    for i in np.flatnonzero(present.any(1)):  # each cell alone, with nothing but its own afferents
        mine = present[i]
        alone = bench(rule, int(mine.sum()), 1)
        expected[i, mine] = alone(w[i, mine][None], {"x": x[mine]}, {"x": y[i : i + 1]})[0][0]
    np.testing.assert_allclose(new, expected[present], rtol=0, atol=ROUNDING)
    layout, packed = run.sim._layouts["a->b"], run.sim.state.synapses["a->b"].w
    assert len(packed) == 2
    np.testing.assert_allclose(layout.propagate(packed, jnp.asarray(x)), expected @ x, rtol=0, atol=ROUNDING)


class TestWrappers:
    def run(self, bench: Any, rule: LocalRule, ticks: int, **signals: Any) -> np.ndarray:
        """The weight after each tick, both neurons at 1."""
        run = bench(rule, 1, 1)
        drive = {"a.x_in": np.ones((ticks, 1)), "b.x_in": np.ones((ticks, 1))}
        given = {name: np.asarray(values, float) for name, values in signals.items()}
        return run.sim.run(drive, signals=given, record={"a->b.w": 1})["a->b.w"][:, 0, 0]

    def test_decay_is_exponential(self, bench: Any) -> None:
        w = self.run(bench, rules.Decay(STILL, rate=0.25, target=2.0), 20)
        np.testing.assert_allclose(w, 2 - 2 * 0.75 ** np.arange(1, 21), atol=ROUNDING)

    def test_every_updates_on_its_ticks_while_the_state_runs_on(self, bench: Any) -> None:
        w = self.run(bench, rules.Every(HEBB, n=3), 7)
        np.testing.assert_allclose(w, [0, 0, 0.1, 0.1, 0.1, 0.2, 0.2], atol=ROUNDING)
        run = bench(rules.Every(rules.BCM(tau=2.0), n=3), 1, 1)
        run.sim.run({"b.x_in": np.ones((2, 1))})
        np.testing.assert_allclose(run.sim.params["a->b"].theta, [[0.75]], atol=ROUNDING)  # 0, 1/2, 3/4

    def test_scheduled_counts_ticks_and_takes_optax_schedules(self, bench: Any) -> None:
        schedule = optax.linear_schedule(1.0, 0.0, 4)
        w = self.run(bench, rules.Scheduled(HEBB, schedule=schedule), 6)
        np.testing.assert_allclose(np.diff(w, prepend=0), [0.1, 0.075, 0.05, 0.025, 0, 0], atol=ROUNDING)

    def test_gate_opens_and_shuts(self, bench: Any) -> None:
        w = self.run(bench, rules.Gated(HEBB, signal="dopamine"), 3, dopamine=[1, 0, -3])
        np.testing.assert_allclose(w, [0.1, 0.1, -0.2], atol=ROUNDING)

    def test_normalised_keeps_the_chosen_norm_of_every_row(self, bench: Any) -> None:
        w = np.random.default_rng(0).normal(size=(4, 6))
        for power, total in ((1.0, 2.0), (2.0, 0.5), (3.0, 1.0)):
            new, _ = bench(rules.Normalised(HEBB, total=total, power=power), 6, 4)(
                w, {"x": np.arange(6)}, {"x": np.arange(4)}
            )
            np.testing.assert_allclose((np.abs(new) ** power).sum(1) ** (1 / power), total, rtol=1e-12)

    def test_normalising_twice_is_refused(self) -> None:
        with pytest.raises(RuleError, match="Normalised: a rule is normalised twice"):
            rules.trace(rules.Normalised(rules.Normalised(HEBB)), "constraint_pooled")

    def test_wrappers_compose_in_the_order_written(self, bench: Any) -> None:
        w = ((0.5, -2.0),)  # becomes (1.1, -2.3)
        inner = rules.Normalised(rules.Bounded(HEBB, low=0.0), total=3.0)  # (1.1, 0) scaled to length 3
        outer = rules.Bounded(rules.Normalised(HEBB, total=3.0), low=0.0)  # scaled to length 3, then cut
        pre, post = {"x": [2.0, -1.0]}, {"x": [3.0]}
        np.testing.assert_allclose(bench(inner, 2, 1)(w, pre, post)[0], [[3, 0]], atol=ROUNDING)
        length = (1.1**2 + 2.3**2) ** 0.5
        np.testing.assert_allclose(bench(outer, 2, 1)(w, pre, post)[0], [[3.3 / length, 0]], atol=ROUNDING)

    def test_noise_is_normal_independent_and_seeded(self, bench: Any) -> None:
        n, scale = 100, 0.5
        quiet = {"a.x_in": np.zeros((2, n)), "b.x_in": np.zeros((2, n))}

        def changes(seed: int) -> np.ndarray:
            sim = bench(rules.Noisy(HEBB, scale=scale), n, n, seed=seed).sim
            return np.diff(sim.run(quiet, record={"a->b.w": 1})["a->b.w"], axis=0, prepend=0) / scale

        one, other = changes(0), changes(1)
        assert np.array_equal(one, changes(0))
        z = one[0].ravel()
        count = z.size
        # Four standard errors of the mean, variance, third and fourth moment of 10,000 standard normal numbers.
        for moment, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs((z**moment).mean() - expected) < 4 * (variance / count) ** 0.5
        for apart in (one[1].ravel(), other[0].ravel(), one[0].T.ravel(), np.roll(one[0], 1, 0).ravel()):
            assert abs((z * apart).mean()) < 4 * (2 / count) ** 0.5  # tick, seed, place; the diagonal is its own mirror

    def test_noise_of_the_inner_rule_is_its_own(self) -> None:
        """A synapse has one random number a tick: a rule that draws it cannot share it with the wrapper."""

        class Jitter(Rule):
            noise: ClassVar[Any] = "uniform"

            def update(self, noise: Any) -> Any:
                return noise

        for rule in (Jitter(), rules.Bounded(Jitter()), rules.Noisy(HEBB)):
            with pytest.raises(
                TypeError, match=rf"Noisy cannot wrap {type(rule).__name__}, which draws noise of its own"
            ):
                rules.Noisy(rule)


def numbers(rule: LocalRule, rng: np.random.Generator) -> tuple[LocalRule, Fields]:
    """The rule with other hyper-parameters, and an environment, all random."""
    leaves, structure = jax.tree.flatten(rule)
    rule = jax.tree.unflatten(structure, list(rng.uniform(0.5, 1.5, len(leaves))))
    reads = {name for part in ("evaluate", "pooled", "constrained") for name in rules.trace(rule, part).inputs}

    def group(name: str) -> Fields:
        return Fields({n.partition(".")[2]: rng.normal() for n in sorted(reads) if n.startswith(f"{name}.")})

    signals = group("signals")
    signals = signals.replace(**{name: int(rng.integers(20)) for name in ("tick", "count") if name in signals})
    values = {name: float(rng.normal()) for name in ("w", "noise", "released", "efferent", "dt")}
    return rule, Fields(
        values, afferent=rng.uniform(1, 2), pre=group("pre"), post=group("post"), syn=group("syn"), signals=signals
    )


@EVERY_RULE
def test_latex_comes_from_the_code_that_runs(case: Case) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        rule, env = numbers(case.rule, rng)
        values = {"rule." + _path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(rule)}
        values |= {name: env[name] for name in ("w", "noise", "released", "efferent", "afferent", "dt")}
        for group in ("pre", "post", "syn", "signals"):
            values |= {f"{group}.{name}": value for name, value in env[group].items()}
        dw, syn = rule.evaluate(env)
        found = {
            "evaluate": {"dw": dw, **{f"syn.{k}": v for k, v in syn.items()}},
            "pooled": dict(rule.pooled(env).items()),
        }
        found["constrained"] = {"w": rule.constrained(env)}
        total = rule.constraint_pooled(env)
        found["constraint_pooled"] = {} if total is None else {"afferent": total}
        for part, numeric in found.items():
            inputs = rules.trace(rule, part).inputs
            symbols = dict(zip(latex._symbols(inputs), inputs, strict=True))
            printed = latex.expressions(rule, part)
            assert printed.keys() == numeric.keys()
            for name, expression in printed.items():
                assert expression.free_symbols <= symbols.keys()
                evaluated = expression.subs({s: values[symbols[s]] for s in expression.free_symbols})
                if np.isnan(numeric[name]):
                    continue  # the root of a negative number
                # constants are printed with the eight digits of float32
                np.testing.assert_allclose(float(sympy.N(evaluated)), float(numeric[name]), rtol=1e-6, atol=1e-12)


def _path(path: Any) -> str:
    return ".".join(str(getattr(key, "name", key)) for key in path)


@EVERY_RULE
def test_latex_shows_the_equation(case: Case) -> None:
    text = case.rule.latex()
    assert r"\Delta w_{ij} = " in text
    for piece in case.shows:
        assert piece in text
    assert text.count("{") == text.count("}")
    sums = text.count("A_{i} =") + text.count("E_{ij} =")
    assert len(text.splitlines()) == 1 + len(case.rule.init()) + case.constrained + sums


@EVERY_RULE
def test_latex_has_one_subscript_a_symbol(case: Case) -> None:
    assert not re.search(r"_\{[^{}]*\}_\{", case.rule.latex())


def test_latex_of_a_greek_name_with_an_underscore() -> None:
    class Slow(Rule):
        def init(self) -> Fields:
            return Fields(theta_slow=0.0)

        def update(self, syn: Any) -> Any:
            return syn.theta_slow, syn

    assert not re.search(r"_\{[^{}]*\}_\{", Slow().latex())


def test_equal_names_of_nested_rules_get_primes() -> None:
    text = rules.Decay(rules.Covariance()).latex()
    assert r"\mathrm{rate} " in text
    assert r"\mathrm{rate}'" in text


def test_latex_names_the_operation_it_has_no_symbol_for() -> None:
    class Strange(Rule):
        def update(self, w: Any) -> Any:
            return jax.lax.nextafter(w, 1.0)

    with pytest.raises(RuleError, match=r"Strange uses 'nextafter'"):
        Strange().latex()


class Branching(Rule):
    def update(self, w: Any, post: Any) -> Any:
        return -w if post.x > 0 else w


class Numpy(Rule):
    def update(self, w: Any) -> Any:
        return np.sin(w)


class Forgetful(Rule):
    def init(self) -> Fields:
        return Fields(trace=0.0, age=0.0)

    def update(self, syn: Any) -> Any:
        return syn.trace, Fields(trace=syn.trace)


class NoFields(Rule):
    def init(self) -> Fields:
        return Fields(trace=0.0)

    def update(self, syn: Any) -> Any:
        return syn.trace, 0.5 * syn.trace


class Vector(Rule):
    def update(self, pre: Any) -> Any:
        return pre.x * jnp.ones(3)


class Unknown(Rule):
    def update(self, w: Any, weight: Any) -> Any:
        return w


class Unpooled(Rule):
    def update(self, w: Any, afferent: Any) -> Any:
        return w * afferent


class NoState(Rule):
    def update(self, syn: Any) -> Any:
        return syn.trace


REFUSED = [
    (Branching, r"Branching: .*cannot branch on values with `if`.*jnp\.where"),
    (Numpy, r"Numpy: .*jnp\.where and jnp functions"),
    (
        Forgetful,
        r"Forgetful\.update.*init\(\) has the fields trace, age: return \(dw, Fields\(\.\.\.\)\) with the same names",
    ),
    (NoFields, r"NoFields\.update.*init\(\) has the fields trace"),
    (Vector, r"Vector: dw has shape \(3,\); a rule gives one number per synapse"),
    (Unknown, r"Unknown\.update names the argument 'weight', which does not exist; it may name: w, pre, post, syn"),
    (Unpooled, r"Unpooled\.update names `afferent` but the class does not define it"),
    (NoState, r"NoState: no field 'trace' here; fields: none"),
]


@pytest.mark.parametrize(("rule", "message"), REFUSED, ids=[rule.__name__ for rule, _ in REFUSED])
def test_what_is_no_function_of_one_synapse_is_refused_with_the_remedy(rule: type[Rule], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        engrax.locality(rule())
    net = nx.MultiDiGraph()
    net.add_node("a", neuron=nets.Linear(), size=2)
    net.add_edge("a", "a", rule=rule())
    with pytest.raises(RuleError, match=message):
        Simulator(net)


def test_hyper_parameters_are_leaves_and_rules_are_frozen() -> None:
    assert sorted(jax.tree.leaves(rules.Decay(rules.Hebb(eta=0.5), rate=0.25))) == [0.0, 0.25, 0.5]
    with pytest.raises(AttributeError):
        HEBB.eta = 1.0  # type: ignore[misc]
    assert replace(HEBB, eta=1.0) == eqx.tree_at(lambda r: r.eta, HEBB, 1.0)


def test_a_constraint_sees_weights_and_signals_only(bench: Any) -> None:
    """It acts after the mean over the batch, when there is no one pre or post neuron's value to read."""

    class Peeking(Rule):
        def update(self, w: Any) -> Any:
            return w

        def constrained(self, env: Any) -> Any:
            return env.w * env.post.x

    with pytest.raises(RuleError, match=r"Peeking\.constrained reads post\.x; .*may read w, afferent, signals and dt"):
        bench(Peeking(), 2, 2)
