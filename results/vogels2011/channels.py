"""One cell, and eight channels of inputs whose rates rise and fall: inhibition learns to follow excitation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter

from engrax import Fields, Phase, Recording, Simulator, networks as nets, rules
from engrax.networks.neurons import Noise

CHANNELS = 8
INPUTS = {"e": 100, "i": 25}  # of each channel
TARGET = 6.25  # Hz; alpha = 2 * 6.25 Hz * 20 ms = 0.25
UNIT_E, UNIT_I = 0.014, 0.035  # conductances of a synapse of strength 1, in units of the leak (10 nS)
ETA = 1e-3 * UNIT_I
CELL = nets.ConductanceLIF()

Strengths = Float[np.ndarray, " inputs"]
ByChannel = Float[np.ndarray, " channels"]


@dataclass(frozen=True)
class Course:
    """The mean excitatory weights; what `described` says of the cell before and after learning; while it learned, its
    spikes (seconds) and the mean inhibitory weights (every second)."""

    tuning: ByChannel
    before: dict[str, Any]
    after: dict[str, Any]
    times: Float[np.ndarray, " spikes"]
    weights: Float[np.ndarray, "seconds channels"]


class Channel(nets.Neuron):
    r"""The rate of a channel's spike trains, from a rectified Ornstein-Uhlenbeck process.

    .. math::
        \tau\,\dot v = -v + \sqrt{2\tau}\,\xi, \qquad r = b + \sigma\,[v]_+, \qquad x = r / (1 + r\,\tau_r)

    ``x`` (Hz) is the rate of Poisson spikes of rate ``r`` with a refractory time :math:`\tau_r` after each.
    """

    noise: ClassVar[Noise | None] = "normal"
    background: float = 5.0  # b, Hz
    deviation: float = 152.0  # sigma, Hz
    tau: float = 0.05  # seconds
    refractory: float = 0.005  # seconds

    def init(self) -> Fields:
        return Fields(x=0.0, v=0.0)

    def step(self, state: Fields, noise: Any, dt: float) -> Fields:
        decay = jnp.exp(-dt / self.tau)
        v = decay * state.v + jnp.sqrt(1 - decay**2) * noise
        rate = self.background + self.deviation * jnp.maximum(v, 0)
        return Fields(x=rate / (1 + rate * self.refractory), v=v)


def network(eta: float, seed: int) -> nx.MultiDiGraph:
    """Excitation is strongest in channel 5, inhibition weak in all."""
    net = nx.MultiDiGraph()
    net.add_node("channels", neuron=Channel(), size=CHANNELS)
    net.add_node("cell", neuron=CELL, size=1)
    for name, inputs in INPUTS.items():
        net.add_node(name, neuron=nets.Poisson(rate=0.0), size=CHANNELS * inputs)
        net.add_edge("channels", name, weights=np.repeat(np.eye(CHANNELS), inputs, axis=0))
    number = 1 + np.repeat(np.arange(CHANNELS), INPUTS["e"])
    noise = np.random.default_rng(seed).uniform(0, 0.1, len(number))
    tuning = 0.3 + 1.1 / (1 + (number - 5) ** 4) + noise
    net.add_edge("e", "cell", port="excitatory", weights=UNIT_E * tuning[None])
    rule = rules.Bounded(rules.Vogels2011(eta=eta, rate=TARGET, tau=0.02), low=0.0)
    net.add_edge("i", "cell", port="inhibitory", weights=nets.Fixed(0.1 * UNIT_I), rule=rule)
    return net


def learn(path: Path, *, seed: int, dt: float, eta: float, seconds: float, observed: float) -> Course:
    """Learn for so many ``seconds``, recorded to ``path``; before and after that the rule rests and the cell is
    ``observed``."""
    sim = Simulator(network(eta, seed), seed=seed, dt=dt)
    frozen = Phase("frozen", ticks=round(0.1 / dt), plastic="never")
    watched = {"e.spikes": 1, "i.spikes": 1, "cell.spikes": 1, "cell.v": 1}

    def observe() -> dict[str, Any]:
        start = sim.tick
        found = sim.run(trial=frozen, trials=round(observed / 0.1), record=watched, chunk=10)
        return described(found, strengths(sim, "e"), strengths(sim, "i"), start, dt)

    before = observe()
    start, chunk = sim.tick, round(1 / dt)
    with sim.record(path, {"cell.spikes": 1, "i->cell.w": chunk}, overwrite=True):
        sim.run(ticks=round(seconds / dt), chunk=chunk)
    with Recording(path) as recording:
        times = (recording.spikes("cell.spikes").times - start) * dt
        w = np.array([by_channel(one) for one in recording.values("i->cell.w")[:, 0]])
    return Course(by_channel(strengths(sim, "e")), before, observe(), times, w)


def strengths(sim: Simulator, inputs: str) -> Strengths:
    """The weights of the cell's inputs, in units of the leak conductance."""
    return np.asarray(sim.params[f"{inputs}->cell"].w[0], float)


def by_channel(w: Strengths) -> ByChannel:
    """The mean weight of each channel's synapses."""
    return np.asarray(w.reshape(CHANNELS, -1).mean(1))


def described(found: Mapping[str, Any], w_e: Strengths, w_i: Strengths, start: int, dt: float) -> dict[str, Any]:
    """How the cell fired since tick ``start``, and the mean currents of each channel (mV, as they would move a membrane
    that has the leak alone) while it was not refractory. The leak is counted with the inhibition, to equal parts of all
    channels, as in the paper's program; ``cancelled`` is what that takes away of the excitation."""
    v = found["cell.v"][:, 0].astype(float)
    free = v != CELL.reset
    g_e = conductances(found["e.spikes"], w_e, CELL.tau_excitatory, start, dt, len(v))
    g_i = conductances(found["i.spikes"], w_i, CELL.tau_inhibitory, start, dt, len(v))
    inward, outward = (g_e * (CELL.reversal_excitatory - v))[:, free], (g_i * (v - CELL.reversal_inhibitory))[:, free]
    leak = (v[free] - CELL.rest).mean()
    excitation, inhibition = inward.mean(1), outward.mean(1) + leak / CHANNELS
    intervals = np.diff(found["cell.spikes"].times)
    return {
        "rate": len(found["cell.spikes"].times) / (len(v) * dt),  # Hz
        "cv": float(intervals.std() / intervals.mean()),
        "weights": by_channel(w_i).tolist(),
        "excitation": excitation.tolist(),
        "inhibition": inhibition.tolist(),
        "cancelled": (inhibition / excitation).tolist(),
        "net": float(inward.mean(1).sum() - outward.mean(1).sum() - leak),
        "currents_correlation": float(np.corrcoef(inward.sum(0), outward.sum(0))[0, 1]),
    }


def conductances(
    spikes: Any, w: Strengths, tau: float, start: int, dt: float, ticks: int
) -> Float[np.ndarray, "channels ticks"]:
    """What the inputs of each channel add to the cell's conductance in every tick since ``start``."""
    channel = spikes.ids // (len(w) // CHANNELS)
    place = channel * ticks + spikes.times - start
    arriving = np.bincount(place, w[spikes.ids], CHANNELS * ticks).reshape(CHANNELS, ticks)
    return np.asarray(lfilter([1.0], [1.0, -np.exp(-dt / tau)], arriving))
