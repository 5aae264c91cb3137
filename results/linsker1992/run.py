"""Linsker's (1992) local infomax: on the Gaussian ring, on photographs, and in two layers. See README.md."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import networkx as nx
import numpy as np
import scipy.stats
from jaxtyping import Float

from engrax import Simulator, networks as nets, rules, sweep

from ..choices import check, run_parts
from . import figures, theory
from .circuit import Constraint, add_layer, trial

SETTLING = 20  # lateral steps after the first, in every phase
BATCH = 16
OUTPUT_NOISE = 1.0  # variance b
SETTLED = 10  # of the 40 samples during learning: a channel that still grows over these is not grown
RELAY_NOISE = 0.25  # variance of the noise on the way from the first layer of the stack to the second
PARTS = ("ring", "settling", "ablations", "photographs", "ica", "stack")

Array = Float[np.ndarray, "..."]


def run(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    parts: tuple[str, ...] = PARTS,
    n_inputs: int = 16,
    n_outputs: int = 16,
    filter_width: float = 1.5,
    noise_variance: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0),
    seeds: int = 3,
    trials: int = 60_000,
    patch: int = 10,
    units: int = 64,
    photograph_noise: float = 0.2,
    photograph_trials: int = 20_000,
) -> dict[str, Any]:
    """Run the chosen ``parts`` and write run.h5, photographs.h5, figures and metrics.json to ``out``.

    ``quick`` shortens every part (two noise levels, one seed, fewer trials). The ring has ``n_inputs`` and
    ``n_outputs`` units, white noise filtered over ``filter_width`` inputs as signal and every ``noise_variance``;
    photographs are cut into ``patch`` x ``patch`` pixels for ``units`` units.
    """
    check("part", parts, PARTS, "parts")
    if quick:
        levels = noise_variance if len(noise_variance) < 3 else (0.1, 1.0)
        ring = Ring(n_inputs, n_outputs, filter_width, tuple(levels), 1, min(trials, 12_000), seed)
        photographs = Photographs(min(patch, 8), min(units, 24), photograph_noise, min(photograph_trials, 2_500), seed)
    else:
        ring = Ring(n_inputs, n_outputs, filter_width, tuple(noise_variance), seeds, trials, seed)
        photographs = Photographs(patch, units, photograph_noise, photograph_trials, seed)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "ring": lambda: ring.learn(out),
        "settling": lambda: settling_boundary(seed),
        "ablations": lambda: ring.ablate(out),
        "photographs": lambda: photographs.learn(out),
        "ica": lambda: photographs.separate(out),
        "stack": lambda: photographs.stack(out),
    }
    return run_parts(out, parts, work)


@dataclass(frozen=True)
class Ring:
    """Gaussian signals on a ring, where theory knows the optimum and its filters."""

    inputs: int
    outputs: int
    width: float
    noise: tuple[float, ...]
    seeds: int
    trials: int
    seed: int

    def learn(self, out: Path) -> dict[str, Any]:
        """Both fully local constraints at every noise level; the runs with a shared price at the first are recorded."""
        ratios: dict[str, dict[str, list[float]]] = {}
        spectra: dict[float, figures.Spectrum] = {}
        curves: dict[float, tuple[Array, Array]] = {}
        gain_errors: dict[str, float] = {}
        for constraint in ("homeostatic", "shared"):
            ratios[constraint] = {}
            for level in self.noise:
                path = out / "run.h5" if constraint == "shared" and level == self.noise[0] else None
                trained = self._train(level, constraint, self.trials, record=path)
                ratios[constraint][f"{level:g}"] = [self.score(w, level) for w in trained.weights]
                if constraint == "shared":
                    found = [
                        self.spectrum(weights, level, price, earlier)
                        for weights, price, earlier in zip(
                            trained.weights, trained.prices, trained.history[-SETTLED], strict=True
                        )
                    ]
                    spectra[level] = found[0]
                    curves[level] = trained.trials, np.array([self.score(w[0], level) for w in trained.history])
                    gain_errors[f"{level:g}"] = max(spectrum.worst_error for spectrum in found)
        figures.ring(out / "ring.png", spectra, curves)
        tested = [
            ratio for by_level in ratios.values() for level, found in by_level.items() if 0.03 <= float(level) <= 1
            for ratio in found
        ]  # fmt: skip
        everything = [r for by_level in ratios.values() for found in by_level.values() for r in found]
        return {
            "mi_ratio": min(tested or everything),
            "mi_ratio_homeostatic": ratios["homeostatic"],
            "mi_ratio_shared_price": ratios["shared"],
            "gain_error": gain_errors,
            "peak_frequency": {f"{level:g}": spectrum.peak for level, spectrum in spectra.items()},
        }

    def ablate(self, out: Path) -> dict[str, Any]:
        """What each ingredient buys, at low and high noise."""
        variants: dict[str, Mapping[str, Any]] = {
            "full": {},
            "settle 3 steps": {"settling": 3},
            "no unlearning": {"unlearn": False},
            "no lateral net": {"lateral": False},
        }
        levels = (0.1, 1.0) if len(self.noise) > 1 else self.noise
        ratios: dict[str, list[float]] = {}
        correlations: dict[str, list[float]] = {}
        for name, options in variants.items():
            found = [
                self._train(level, "homeostatic", min(self.trials, 20_000), seeds=1, **options).weights[0]
                for level in levels
            ]
            ratios[name] = [self.score(w, level) for w, level in zip(found, levels, strict=True)]
            correlations[name] = [self._correlation(w, level) for w, level in zip(found, levels, strict=True)]
        figures.ablations(out / "ablations.png", levels, ratios, correlations)
        return {"ablations_mi_ratio": ratios, "ablations_output_correlation": correlations}

    def score(self, weights: Array, level: float) -> float:
        """Achieved mutual information over the optimum at the achieved power."""
        signal, noise = self._covariances(level)
        budget = theory.power(weights, signal, noise)
        best = theory.optimum(signal, noise, self.outputs, budget, OUTPUT_NOISE)
        return theory.information(weights, signal, noise, OUTPUT_NOISE) / best.information

    def spectrum(self, weights: Array, level: float, price: float, earlier: Array) -> figures.Spectrum:
        """Noise gain at each spatial frequency, learned (also by weights from earlier in the run) and in closed form at
        the price that power has reached."""
        signal, noise = self._covariances(level)
        best = theory.optimum(signal, noise, self.outputs, theory.power(weights, signal, noise), OUTPUT_NOISE)
        learned, before = (theory.channel_gain(w, noise, best.channels, OUTPUT_NOISE) for w in (weights, earlier))
        closed = theory.noise_gain(best.ratios, price, OUTPUT_NOISE)
        frequency = np.argmax(np.abs(np.fft.rfft(best.channels, axis=0)) ** 2, axis=0)
        bins = np.unique(frequency)

        def mean(gain: Array) -> Array:
            return np.array([gain[frequency == k].mean() for k in bins]) / level

        return figures.Spectrum(bins, mean(learned), mean(before), mean(closed))

    def _covariances(self, level: float) -> tuple[Array, Array]:
        return theory.ring(self.inputs, self.width)[1], level * np.eye(self.inputs)

    def _correlation(self, weights: Array, level: float) -> float:
        """Mean absolute correlation between the outputs."""
        signal, noise = self._covariances(level)
        outputs = weights @ (signal + noise) @ weights.T
        scale = np.sqrt(np.diag(outputs))
        return float(np.abs(outputs / np.outer(scale, scale))[~np.eye(len(scale), dtype=bool)].mean())

    def _train(
        self,
        level: float,
        constraint: Constraint,
        trials: int,
        *,
        seeds: int | None = None,
        record: Path | None = None,
        settling: int = SETTLING,
        **layer: Any,
    ) -> "Trained":
        """Train with one constraint; ``layer`` are further options of `add_layer`."""
        net = nx.MultiDiGraph()
        net.add_node("retina", neuron=nets.Input(), size=self.inputs)
        add_layer(
            net, "retina", "cortex", self.outputs, constraint=constraint, trials=trials, output_noise=OUTPUT_NOISE,
            settling=settling, **layer,
        )  # fmt: skip
        unlearn = layer.get("unlearn", True)
        phases = trial(["cortex"], settling, unlearn=unlearn)
        noise = nets.gaussian(level**0.5 * np.eye(self.inputs), BATCH)
        signal = nets.gaussian(theory.ring(self.inputs, self.width)[0], BATCH)
        drive = {"retina": {"sense": nets.noisy(signal, level**0.5), **({"noise": noise} if unlearn else {})}}
        field = "retina->cortex.w"
        every = max(1, trials // 40) * sum(phase.ticks for phase in phases)
        seeds = self.seeds if seeds is None else seeds
        sim = sweep(net, {"seed": range(self.seed, self.seed + seeds)})
        kept = _recorded(sim, drive, phases, trials, {field: every}, record)
        history = np.asarray(kept[field], float)
        prices = (
            np.asarray(sim.state.neurons["price"].x).mean((1, 2)) if constraint == "shared" else np.full(seeds, np.nan)
        )
        step = max(1, trials // 40)
        weights = np.asarray(sim.params["retina->cortex"].w, float)
        return Trained(weights, prices, step * (1 + np.arange(len(history))), history)


@dataclass(frozen=True)
class Trained:
    """One training run of several seeds."""

    weights: Array  # (seeds, outputs, inputs)
    prices: Array  # (seeds,), the price of power at the end; NaN where there is none
    trials: Array  # when ``history`` was taken
    history: Array  # (samples, seeds, outputs, inputs)


def settling_boundary(seed: int, units: int = 16) -> dict[str, Any]:
    """Settle a random correlation matrix just inside and just outside alpha = 2 / lambda_max."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(units, units))
    correlations = mixing @ mixing.T / units + np.eye(units)
    largest = np.linalg.eigvalsh(correlations)[-1]
    response = rng.normal(size=units)
    goal = np.linalg.solve(correlations, response)
    found = {}
    for factor in (1.99, 2.01):
        net = nx.MultiDiGraph()
        net.add_node("retina", neuron=nets.Input(), size=units)
        net.add_node("cortex", neuron=nets.Settling(alpha=factor / largest), size=units)
        net.add_edge("retina", "cortex", topology=nets.OneToOne(), weights=nets.Fixed(1.0))
        net.add_edge("cortex", "cortex", port="lateral", field="v", weights=correlations)
        sim = Simulator(net, seed=seed)
        settled = sim.run({"retina": np.tile(response, (2000, 1))}, record={"cortex.v": 2000})["cortex.v"][-1]
        found[f"{factor}"] = float(np.linalg.norm(settled - goal) / np.linalg.norm(goal))
    return {"settling_error": found}


@dataclass(frozen=True)
class Photographs:
    """The same rule on whitened patches of two photographs, judged by the Gaussian model with their covariance."""

    patch: int
    units: int
    noise: float
    trials: int
    seed: int
    batch: int = 32

    def learn(self, out: Path) -> dict[str, Any]:
        patches = self._patches()
        signal, noise = self._covariances(patches)
        net = nx.MultiDiGraph()
        net.add_node("retina", neuron=nets.Input(), size=(self.patch, self.patch))
        add_layer(net, "retina", "cortex", self.units, constraint="shared", trials=self.trials, settling=SETTLING)
        phases = trial(["cortex"], SETTLING)
        sim = Simulator(net, seed=self.seed)
        field = "retina->cortex.w"
        every = max(1, self.trials // 30)
        ticks = every * sum(phase.ticks for phase in phases)
        kept = _recorded(sim, self._drive(patches), phases, self.trials, {field: ticks}, out / "photographs.h5")
        weights = np.asarray(sim.params["retina->cortex"].w, float)
        curve = [_ratio(w, signal, noise) for w in np.asarray(kept[field], float)]
        random = _scaled_to(np.random.default_rng(self.seed).normal(size=weights.shape), weights, signal + noise)
        figures.photographs(
            out / "photographs.png", nets.photographs(), weights.reshape(-1, self.patch, self.patch),
            every * (1 + np.arange(len(curve))), np.array(curve), _ratio(random, signal, noise),
        )  # fmt: skip
        return {
            "photographs_mi_ratio": _ratio(weights, signal, noise),
            "photographs_mi_nats": theory.information(weights, signal, noise, OUTPUT_NOISE),
            "photographs_random_weights_mi_ratio": _ratio(random, signal, noise),
        }

    def separate(self, out: Path) -> dict[str, Any]:
        """Linsker's (1997) local ICA on fully whitened patches, by the same circuit with a nonlinear output."""
        patches = self._patches()
        values, vectors = np.linalg.eigh(np.cov(patches.T))
        kept = slice(-self.units, None)
        whiten = (vectors[:, kept] / np.sqrt(values[kept])).T
        white = patches @ whiten.T
        trials = 2 * self.trials
        net = nx.MultiDiGraph()
        net.add_node("retina", neuron=nets.Input(), size=self.units)
        net.add_node("cortex", neuron=nets.ScaledSettling(), size=self.units)
        rate = rules.Scheduled(rules.LocalICA(eta=0.02), schedule=lambda count: 1 / (1 + 10 * count / trials))
        net.add_edge("retina", "cortex", weights=nets.Orthogonal(), rule=rate)
        net.add_edge(
            "cortex",
            "cortex",
            port="lateral",
            field="v",
            weights=nets.Identity(),
            rule=rules.InfomaxLateral(window=50.0),
        )
        sim = Simulator(net, seed=self.seed)
        phases = trial(["cortex"], SETTLING, unlearn=False)
        sim.run({"retina": nets.rows_of(white, self.batch)}, trial=phases, trials=trials)
        unmixing = np.asarray(sim.params["retina->cortex"].w, float) @ whiten
        fields = np.linalg.pinv(unmixing).T.reshape(-1, self.patch, self.patch)
        found = _excess_kurtosis(patches @ unmixing.T)
        figures.independent(out / "ica.png", fields, found)
        symmetric = vectors[:, kept] @ whiten
        return {
            "ica_excess_kurtosis": float(found.mean()),
            "zca_excess_kurtosis": float(_excess_kurtosis(patches @ symmetric.T).mean()),
            "pca_excess_kurtosis": float(_excess_kurtosis(white).mean()),
        }

    def stack(self, out: Path) -> dict[str, Any]:
        """A second layer of half the size on the noisy outputs of the first, trained after it and with it.

        The noise that the first layer adds to its outputs has the variance RELAY_NOISE.

        What arrives at the second layer can only lose information about the photographs; what counts is how much of
        the best that it could keep it does keep.
        """
        patches = self._patches()
        signal, noise = self._covariances(patches)
        small = self.units // 2
        found: dict[str, tuple[Array, Array]] = {
            "greedy": self._train_stack(patches, small, together=False),
            "together": self._train_stack(patches, small, together=True),
        }
        results: dict[str, dict[str, float]] = {}
        for name, (first, second) in found.items():
            middle_signal = first @ signal @ first.T
            middle_noise = first @ noise @ first.T + RELAY_NOISE * np.eye(len(first))
            budget = theory.power(second, middle_signal, middle_noise)
            best = theory.optimum(middle_signal, middle_noise, small, budget, OUTPUT_NOISE).information
            rng = np.random.default_rng(self.seed)
            blind = _scaled_to(rng.normal(size=second.shape), second, middle_signal + middle_noise)
            results[name] = {
                "layer 1": theory.information(first, signal, noise, RELAY_NOISE),
                "layer 2": theory.information(second, middle_signal, middle_noise, OUTPUT_NOISE),
                "layer 2, optimum on this layer 1": best,
                "layer 2, random weights": theory.information(blind, middle_signal, middle_noise, OUTPUT_NOISE),
                "one layer of that size and power": theory.optimum(
                    signal, noise, small, budget, OUTPUT_NOISE
                ).information,
            }
        figures.stack(out / "stack.png", results)
        ratio = {name: r["layer 2"] / r["layer 2, optimum on this layer 1"] for name, r in results.items()}
        return {"stack_mi_nats": results, "stack_mi_ratio": ratio}

    def _train_stack(self, patches: Array, small: int, *, together: bool) -> tuple[Array, Array]:
        first: Any = None
        if not together:
            sim = self._run_stack(patches, small, first=None, depth=1)
            first = np.asarray(sim.params["retina->V1"].w, float)
        sim = self._run_stack(patches, small, first=first, depth=2)
        return np.asarray(sim.params["retina->V1"].w, float), np.asarray(sim.params["V1->V2"].w, float)

    def _run_stack(self, patches: Array, small: int, *, first: Any, depth: int) -> Simulator:
        """Train a stack of ``depth`` layers; with weights for the ``first`` layer it stays as it is."""
        net = nx.MultiDiGraph()
        net.add_node("retina", neuron=nets.Input(), size=(self.patch, self.patch))
        options: dict[str, Any] = {"constraint": "homeostatic", "trials": self.trials, "settling": SETTLING}
        add_layer(
            net, "retina", "V1", self.units, weights=first, learn=first is None, output_noise=RELAY_NOISE, **options
        )
        if depth == 2:
            # The first layer's outputs have as much power as it has units: the rate is lower in proportion.
            add_layer(net, "V1", "V2", small, eta=0.2 / self.units, **options)
        drive = self._drive(patches)
        if depth == 2:
            drive["V1.noise"] = nets.gaussian(RELAY_NOISE**0.5 * np.eye(self.units), self.batch)
        sim = Simulator(net, seed=self.seed)
        sim.run(drive, trial=trial([f"V{k + 1}" for k in range(depth)], SETTLING), trials=self.trials)
        return sim

    def _patches(self) -> Array:
        whitened = [nets.whiten_image(image) for image in nets.photographs()]
        patches = np.asarray(nets.patches(whitened, self.patch, 50_000, self.seed))
        return np.asarray(patches / patches.std(), float)

    def _covariances(self, patches: Array) -> tuple[Array, Array]:
        return np.cov(patches.T), self.noise * np.eye(patches.shape[1])

    def _drive(self, patches: Array) -> dict[str, Any]:
        noise = nets.gaussian(self.noise**0.5 * np.eye(patches.shape[1]), self.batch)
        return {"retina": {"sense": nets.noisy(nets.rows_of(patches, self.batch), self.noise**0.5), "noise": noise}}


def _recorded(
    sim: Simulator,
    drive: Mapping[str, Any],
    phases: Sequence[Any],
    trials: int,
    fields: Mapping[str, int],
    path: Path | None,
) -> dict[str, Array]:
    """Run with ``fields`` kept in memory and, given a path, in a file."""
    if path is None:
        return sim.run(drive, trial=phases, trials=trials, record=fields)
    with sim.record(path, fields, overwrite=True):
        sim.run(drive, trial=phases, trials=trials)
    with h5py.File(path) as file:
        arrays = {}
        for field in fields:
            owner, _, name = field.rpartition(".")
            arrays[field] = file[owner][name][:]
    return arrays


def _ratio(weights: Array, signal: Array, noise: Array) -> float:
    best = theory.optimum(signal, noise, len(weights), theory.power(weights, signal, noise), OUTPUT_NOISE)
    return theory.information(weights, signal, noise, OUTPUT_NOISE) / best.information


def _scaled_to(weights: Array, like: Array, covariance: Array) -> Array:
    """Scaled to the same output power."""
    ratio = np.trace(like @ covariance @ like.T) / np.trace(weights @ covariance @ weights.T)
    return np.asarray(weights * np.sqrt(ratio))


def _excess_kurtosis(outputs: Array) -> Array:
    return np.asarray(scipy.stats.kurtosis(outputs, axis=0))
