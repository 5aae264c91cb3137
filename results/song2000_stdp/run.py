"""Song, Miller & Abbott (2000): synapses that compete by spike timing, at several rates of input. See README.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from engrax import Phase, Simulator, networks as nets, rules, sweep

INPUTS, INHIBITORY = 1000, 200
G_MAX = 0.015  # in units of the leak conductance, like all conductances
G_INHIBITORY = 0.05
INHIBITORY_RATE = 10.0  # Hz
TAU_SYNAPSE = 0.005  # seconds
CELL = nets.ConductanceLIF(
    tau=0.02,
    rest=-70.0,
    reversal_excitatory=0.0,
    reversal_inhibitory=-70.0,
    threshold=-54.0,
    reset=-60.0,
    start=-60.0,
    tau_excitatory=TAU_SYNAPSE,
    tau_inhibitory=TAU_SYNAPSE,
    refractory=0.0,
)
DEPRESSION = 1.05  # A_- / A_+
CORRELATED = INPUTS // 2
EVENT_RATE = 40.0  # Hz, at which correlated inputs are called to spike together,
ANSWER = 0.05  # with this probability each
CORRELATED_RATE = 20.0  # Hz, of all inputs of the run with correlated ones
SYNAPSES = "input->cell"

Weights = Float[np.ndarray, " inputs"]  # of the largest one


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    rates: tuple[float, ...] = (10.0, 20.0, 30.0, 40.0),
    seconds: float = 800.0,
    a_plus: float = 0.005,
    dt: float = 5e-4,
) -> dict[str, Any]:
    """Learn for so many ``seconds`` at each of the ``rates`` of input (Hz), and half as long with correlated inputs.

    ``a_plus`` is a pair's largest potentiation (of the largest weight), ``dt`` the tick (seconds). ``quick``: 20 and 40
    Hz, 40 s, ticks of 1 ms and an ``a_plus`` of 0.01. Writes run.h5 (spikes, and weights every 10 s), weights.png and
    metrics.json.
    """
    if quick:
        rates, seconds, a_plus, dt = (20.0, 40.0), min(seconds, 40.0), 0.01, 1e-3
    sim = sweep(network(a_plus), {"input.rate": rates}, seed=seed, dt=dt)
    frozen = Phase("frozen", ticks=round(seconds / 20 / dt), plastic="never")
    initial = relative(sim)
    before = sim.run(trial=frozen, trials=1, record={"cell.spikes": 1})["cell.spikes"]
    chunk = round(10 / dt)  # one size of chunk: compiled once
    with sim.record(out / "run.h5", {"cell.spikes": 1, f"{SYNAPSES}.w": chunk}, overwrite=True):
        sim.run(ticks=round(seconds / dt), chunk=chunk)
    learned = relative(sim)
    after = sim.run(trial=frozen, trials=1, record={"cell.spikes": 1})["cell.spikes"]
    found = {
        f"{rate:g}": {
            "before": described(before.times[before.point == k] * dt, seconds / 20, initial[k], rate),
            "after": described(after.times[after.point == k] * dt, seconds / 20, learned[k], rate),
        }
        for k, rate in enumerate(rates)
    }
    competing = Simulator(correlated_network(a_plus, dt), seed=seed, dt=dt)
    competing.run(ticks=round(seconds / 2 / dt), chunk=chunk)
    together = relative(competing)[0]
    figure(out / "weights.png", initial[0], dict(zip(rates, learned, strict=True)), found, together)
    groups = {"correlated": together[:CORRELATED], "uncorrelated": together[CORRELATED:]}
    metrics = {"rates": found, "groups": {name: shape(w) for name, w in groups.items()}}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def network(a_plus: float) -> nx.MultiDiGraph:
    """One cell, its plastic excitatory inputs and its inhibitory ones."""
    net = nx.MultiDiGraph()
    net.add_node("input", neuron=nets.Poisson(), size=INPUTS)
    net.add_node("inhibition", neuron=nets.Poisson(rate=INHIBITORY_RATE), size=INHIBITORY)
    net.add_node("cell", neuron=CELL, size=1)
    pair = rules.STDP(a_plus=a_plus * G_MAX, a_minus=DEPRESSION * a_plus * G_MAX)
    additive = rules.Bounded(pair, low=0.0, high=G_MAX)
    net.add_edge("input", "cell", port="excitatory", weights=nets.Uniform(0.0, G_MAX), rule=additive)
    net.add_edge("inhibition", "cell", port="inhibitory", weights=nets.Fixed(G_INHIBITORY))
    return net


def correlated_network(a_plus: float, dt: float) -> nx.MultiDiGraph:
    """The same; but now and then some of the first half of the inputs spike together, at the rate of all others."""
    net = network(a_plus)
    called = np.arange(INPUTS) < CORRELATED
    net.nodes["input"]["neuron"] = nets.Poisson(rate=CORRELATED_RATE - np.where(called, EVENT_RATE * ANSWER, 0.0))
    net.add_node("events", neuron=nets.Poisson(rate=EVENT_RATE), size=1)
    net.add_edge("events", "input", weights=np.where(called, ANSWER / dt, 0.0)[:, None])  # Hz, for one tick
    return net


def relative(sim: Simulator) -> Float[np.ndarray, "points inputs"]:
    """The weights at each point of a sweep, of the largest one."""
    return np.asarray(sim.params[SYNAPSES].w, float).reshape(-1, INPUTS) / G_MAX


def described(times: Float[np.ndarray, " spikes"], seconds: float, w: Weights, rate: float) -> dict[str, float]:
    """How the cell fires (at ``times``, within so many ``seconds``), where its potential would be at the mean
    conductances if it never spiked, and how the weights are distributed."""
    intervals = np.diff(times)
    excitation = rate * TAU_SYNAPSE * G_MAX * w.sum()
    inhibition = INHIBITORY_RATE * TAU_SYNAPSE * G_INHIBITORY * INHIBITORY
    return {
        "rate": len(times) / seconds,  # Hz
        "cv": float(intervals.std() / intervals.mean()),
        "potential": float((CELL.rest + inhibition * CELL.reversal_inhibitory) / (1 + excitation + inhibition)),  # mV
        **shape(w),
    }


def shape(w: Weights) -> dict[str, float]:
    """The mean weight, and the fractions in the lowest, the middle and the highest tenth of the range."""
    tenths = {"weak": w < 0.1, "middle": np.abs(w - 0.5) < 0.05, "strong": w > 0.9}
    return {"mean_weight": float(w.mean())} | {name: float(chosen.mean()) for name, chosen in tenths.items()}


def figure(
    path: Path,
    initial: Weights,
    learned: Mapping[float, Weights],
    found: Mapping[str, Mapping[str, Mapping[str, float]]],
    together: Weights,
) -> None:
    drawing, ((top, firing), (groups, irregular)) = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    bins = np.linspace(0, 1, 21)
    top.stairs(fractions(initial, bins), bins, color="0.6", linestyle="--", label="at the start")
    for number, (rate, w) in enumerate(learned.items()):
        place = plt.colormaps["viridis"](number / max(len(learned), 2))
        top.stairs(fractions(w, bins), bins, color=place, linewidth=1.5, label=f"{rate:g} Hz")
    top.legend(title="input rate", frameon=False, fontsize=8)
    top.set_title("Synapses become weak or strong", fontsize=10)
    for name, colour, w in (
        ("correlated inputs", "tab:red", together[:CORRELATED]),
        ("uncorrelated inputs", "tab:blue", together[CORRELATED:]),
    ):
        groups.stairs(fractions(w, bins), bins, color=colour, linewidth=1.5, label=name)
    groups.legend(frameon=False, fontsize=8, loc="upper center")
    groups.set_title("Inputs that spike together win", fontsize=10)
    for axis in (top, groups):
        axis.set(xlabel="weight / largest weight", ylabel="fraction of synapses")
    for axis, name, label in ((firing, "rate", "output rate (Hz)"), (irregular, "cv", "CV of output intervals")):
        course(axis, list(learned), found, name, label)
    firing.set(yscale="log", ylim=(1, 1000))
    irregular.set(ylim=(0, 1.1))
    irregular.axhline(1, color="0.6", linewidth=1, linestyle=":")
    firing.set_title("The output rate is regulated", fontsize=10)
    irregular.set_title("Firing becomes irregular", fontsize=10)
    firing.legend(frameon=False, fontsize=8)
    for axis in (top, firing, groups, irregular):
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=150)
    plt.close(drawing)


def fractions(w: Weights, bins: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " bins"]:
    return np.histogram(w, bins)[0] / len(w)


def course(
    axis: Axes, rates: Sequence[float], found: Mapping[str, Mapping[str, Mapping[str, float]]], name: str, label: str
) -> None:
    """A number before and after learning, over the rate of input."""
    for when, style in (("before", "o--"), ("after", "o-")):
        values = [found[f"{rate:g}"][when][name] for rate in rates]
        axis.plot(rates, values, style, color="0.6" if when == "before" else "black", label=f"{when} learning")
    axis.set(xlabel="input rate (Hz)", ylabel=label)
