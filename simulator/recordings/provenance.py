"""What made a recording, and the way back from it: network, probes, drive and state as plain data.

Classes are named, never pickled. On the way back a name is looked up among the classes and functions on the public
lists of `engrax.networks`, `engrax.rules` and `engrax.probes`, the activations of JAX below, and what the caller passes
as ``known``; nothing is ever imported because a file names it.
"""

import dataclasses
import datetime
import hashlib
import inspect
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import scipy.sparse as sp

from .. import networks, probes, rules
from ..dynamics import trace_stage
from ..errors import RecordingError
from ..layout import Layout, PerNeuron
from ..locality import locality
from ..network import State
from ..networks import Dense, Fixed, FromMatrix, Neuron
from ..networks.fields import Fields
from ..networks.sources import SOURCES
from ..probes import Probe
from ..protocol import Phase
from ..rules.base import LocalRule, NetworkRule
from ..rules.equations import trace
from .reading import FORMAT, Recording

if TYPE_CHECKING:
    from ..feed import Feed
    from ..simulator import Simulator
    from .recorder import Channel

ACTIVATIONS = (
    jnp.tanh, jnp.sin, jnp.cos, jnp.exp, jnp.abs, jnp.sign, jnp.square, jax.nn.relu, jax.nn.sigmoid, jax.nn.softplus,
    jax.nn.elu, jax.nn.gelu, jax.nn.silu, jax.nn.selu, jax.nn.leaky_relu, jax.nn.hard_tanh, jax.nn.relu6,
    jax.nn.identity,
)  # fmt: skip
OPTIMISERS = (optax.sgd, optax.adam, optax.adamw, optax.rmsprop, optax.adagrad, optax.lamb)
EXACT = ("engrax", "jax", "jaxlib", "llvmlite", "machine", "precision")  # what the last bits may depend on
PARTS = ("evaluate", "pooled", "constrained", "constraint_pooled")


# From a simulator to plain data. Arrays stay in it, for the file to put them where it likes.


def describe(sim: "Simulator", channels: Iterable["Channel"]) -> dict[str, Any]:
    """The attributes of a recording: network, rules with their locality, probes, seed, versions, command line."""
    circuit = sim.network.circuit
    populations = {
        name: {"neuron": described(p.neuron), "shape": list(p.shape), "code": fingerprint(p.neuron)}
        for name, p in circuit.populations.items()
    }
    projections = {}
    for name, p in circuit.projections.items():
        entry = {
            "pre": p.pre,
            "post": p.post,
            "topology": type(p.topology).__name__,
            "synapses": None if sim._layouts[name].dense else len(sim.synapses(name)[0]),
            "delay": p.delay,
            "port": p.port,
            "field": p.field,
            "phases": sorted(p.phases) if p.phases is not None else None,
            "tied": p.tied,
            "release": p.release,
            "gain": p.gain,
            "rule": described(p.rule) if p.rule is not None else None,
        }
        if p.rule is not None:
            entry |= {"locality": locality(p.rule).level, "code": fingerprint(p.rule)}
        projections[name] = entry
    return {
        "engrax_format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "network": {"populations": populations, "projections": projections, "signals": circuit.signals},
        "probes": {channel.name: described(channel.probe) for channel in channels},
        "seed": sim.seed,
        "dt": sim.dt,
        "points": sim.points,
        "versions": versions(),
        "command_line": " ".join(sys.argv),
        "git_commit": _commit(),
    }


def describe_feed(feed: "Feed") -> dict[str, Any]:
    """The trial, and where drive and signals come from: by phase and target (signals under ``".name"``)."""
    phases = None
    if feed.trials:
        phases = [
            {**dataclasses.asdict(p), "reset": p.reset if isinstance(p.reset, bool) else sorted(p.reset)}
            for p in feed.phases
        ]
    sources: dict[str, dict[str, Any]] = {phase.name: {} for phase in feed.phases}
    for phase in feed.phases:
        for target, function in feed.functions[phase.name].items():
            sources[phase.name][".".join(target)] = described(function)
        for target, array in feed.arrays[phase.name].items():
            used = jnp.zeros(()).dtype if array.dtype.kind == "f" else array.dtype
            sources[phase.name][".".join(target)] = np.asarray(array, used)
        for target in feed.iterators[phase.name]:
            sources[phase.name][".".join(target)] = {"iterator": True}
    return {"phases": phases, "sources": sources}


def described(value: Any) -> Any:
    """Classes with their fields, functions by name, arrays and numbers as they are."""
    if isinstance(value, (eqx.Module, Probe)):
        fields = {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, Fields):
        return {"fields": {name: described(item) for name, item in value.items()}}
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.asarray(value)
        return array.item() if array.ndim == 0 else array
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return {"function": name_of(value)}


def name_of(function: Any) -> str:
    if isinstance(function, eqx.Module):
        return type(function).__name__
    return str(getattr(function, "__name__", type(function).__name__))


def fingerprint(module: Neuron | LocalRule | NetworkRule) -> str:
    """What a neuron or rule computes, whatever its parameters: a digest of its traced equations."""
    if isinstance(module, NetworkRule):
        text = inspect.getsource(type(module))  # no equation of a synapse to trace
    elif isinstance(module, LocalRule):
        text = "\n".join(str(trace(module, part).jaxpr) for part in PARTS)  # type: ignore[arg-type]
    else:
        stages = (trace_stage(module, "step"), trace_stage(module, "respond"))
        text = "\n".join(str(stage.jaxpr) for stage in stages) + str(
            (module.late, module.late_noise, described(module.lateral))
        )
    return hashlib.blake2b(re.sub(r"0x[0-9a-f]+", "", text).encode(), digest_size=8).hexdigest()


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("engrax", "jax", "jaxlib", "llvmlite", "numpy", "h5py", "networkx"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return {**found, "machine": f"{jax.default_backend()} {platform.machine()}", "precision": str(jnp.zeros(()).dtype)}


def process() -> dict[str, Any]:
    """Who is writing."""
    return {"process": os.getpid(), "host": socket.gethostname()}


def _commit() -> str:
    """The git commit of the user's working directory, where it is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def state_arrays(layouts: Mapping[str, Layout], state: State) -> dict[str, np.ndarray]:
    """Everything that a run changes, by name, in the user's shapes; per neuron what a synapse has from its neuron."""
    arrays: dict[str, Any] = {"tick": state.tick, "trial": state.trial}
    for name, fields in state.neurons.items():
        arrays |= {f"{name}.{field}": value for field, value in fields.items()}
    for name, fields in state.history.items():
        arrays |= {f"{name}.{field} delayed": value for field, value in fields.items()}
    for name, synapses in state.synapses.items():
        arrays[f"{name}.w"] = layouts[name].unpack(synapses.w)
        for field, held in synapses.syn.items():
            arrays[f"{name}.{field}"] = held.values if isinstance(held, PerNeuron) else layouts[name].unpack(held)
    for name, memory in state.credit.items():
        arrays |= {_remembered(name, path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(memory)}
    return {name: np.asarray(arrays[name]) for name in sorted(arrays)}


def _remembered(group: str, path: Any) -> str:
    """The name of a part of what a network rule remembers."""
    return f"{group} remembers " + jax.tree_util.keystr(path).replace("/", "|")


# And back


class Keeping(Protocol):
    """A file that keeps arrays, which it describes where they are named."""

    @property
    def path(self) -> Any: ...

    def array(self, described: Mapping[str, Any]) -> np.ndarray: ...


class Known:
    """The names that a file may use, and the arrays that it keeps. Raises `RecordingError` for any other name."""

    def __init__(self, recording: Keeping, known: Iterable[Any] = ()) -> None:
        self._recording = recording
        public = [getattr(package, name) for package in (networks, rules) for name in package.__all__]
        public += [Probe, probes.Mean, probes.Norm, probes.UpdateNorm, probes.Histogram, *SOURCES]
        self._classes = {c.__name__: c for c in public if inspect.isclass(c) and not inspect.isabstract(c)}
        self._functions = {name_of(f): f for f in (*ACTIVATIONS, *OPTIMISERS, rules.laplace_score)}
        for thing in known:
            (self._classes if inspect.isclass(thing) else self._functions)[name_of(thing)] = thing

    def build(self, value: Any) -> Any:
        """A module, function, array or number from what `described` made of it."""
        if isinstance(value, list):
            return tuple(self.build(item) for item in value)
        if not isinstance(value, Mapping):
            return value
        if "array" in value:
            return self._recording.array(value["array"])
        if "fields" in value:
            return Fields({name: self.build(item) for name, item in value["fields"].items()})
        if "function" in value:
            return self._named(self._functions, value["function"], "function")
        if "class" not in value:
            raise RecordingError(f"{self._recording.path} names something that is no class, function or array")
        cls: Any = self._named(self._classes, value["class"], "class")
        if not issubclass(cls, (eqx.Module, Probe)):
            raise RecordingError(f"{self._recording.path} names {value['class']!r}, which is no neuron, rule or source")
        given = {name: self.build(item) for name, item in value.items() if name != "class"}
        expected = {f.name for f in dataclasses.fields(cls)}
        if set(given) != expected:
            raise RecordingError(
                f"{self._recording.path} was made with another {cls.__name__}: it has "
                f"{', '.join(sorted(given)) or '-'}, the one at hand {', '.join(sorted(expected)) or '-'}"
            )
        return cls(**given)

    def _named(self, there: Mapping[str, Any], name: Any, kind: str) -> Any:
        if name not in there:
            raise RecordingError(
                f"{self._recording.path} uses the {kind} {name!r}, which engrax does not have: pass yours, "
                f"known=[{name if str(name).isidentifier() else '...'}] (on the command line --known FILE.py)"
            )
        return there[name]


def graph_of(recording: Recording, known: Known) -> nx.MultiDiGraph:
    """The network, with all weights 0. Nothing is made that the file's own arrays do not account for."""
    sizes = {name: int(np.prod(p["shape"])) for name, p in recording.network["populations"].items()}
    held = recording.state_shapes()
    graph = nx.MultiDiGraph()
    for name, entry in recording.network["populations"].items():
        if held[f"{name}.x"][-1] != sizes[name]:
            raise ValueError(f"population {name!r} is not as large as its state")
        graph.add_node(name, neuron=known.build(entry["neuron"]), size=tuple(entry["shape"]))
    for name, entry in recording.network["projections"].items():
        shape = held[f"{entry['tied'] or name}.w"]
        dense = (sizes[entry["post"]], sizes[entry["pre"]])
        fits = shape[-2:] == dense or (entry["tied"] is not None and shape[:-3:-1] == dense)
        if entry["synapses"] is None and not fits:
            raise ValueError(f"projection {name!r} is not as large as its state")
        past = held.get(f"{entry['pre']}.{entry['field']} delayed", (0,))
        if entry["delay"] > 1 and entry["delay"] > max(past):
            raise ValueError(f"projection {name!r} has a longer delay than its state")
        topology: Any = Dense()
        if entry["synapses"] is not None:
            post, pre = recording.synapses(name)
            if shape[-1] != len(post) or np.any(post < 0) or np.any(pre < 0):
                raise ValueError(f"projection {name!r} has other synapses than its state")
            matrix = sp.csr_array((np.ones(len(post)), (post, pre)), shape=dense)
            if matrix.nnz != len(post):
                raise ValueError(f"projection {name!r} has two synapses between the same neurons")
            topology = FromMatrix(matrix)
        if entry["tied"] is not None:
            synapses = {"tied": entry["tied"]}
        else:
            own = {key: entry[key] for key in ("release", "gain")}
            synapses = {"topology": topology, "weights": Fixed(0.0), **own}
        graph.add_edge(
            entry["pre"],
            entry["post"],
            name=name,
            rule=known.build(entry["rule"]),
            delay=entry["delay"],
            port=entry["port"],
            field=entry["field"],
            phases=None if entry["phases"] is None else set(entry["phases"]),
            **synapses,
        )
    if recording.network["signals"]:
        graph.graph["signals"] = dict(recording.network["signals"])
    return graph


def differences(recording: Recording, graph: nx.MultiDiGraph) -> list[str]:
    """Why a run of ``graph`` here may not repeat the recording bit for bit."""
    now = versions()
    said = [
        f"it was made with {name} {recording.versions.get(name)}, here is {now[name]}"
        for name in EXACT
        if recording.versions.get(name) != now[name]
    ]
    if said:  # traces of other versions look different without being so
        return said
    for name, data in graph.nodes(data=True):
        if fingerprint(data["neuron"]) != recording.network["populations"][name]["code"]:
            said.append(f"{type(data['neuron']).__name__} of population {name!r} computes something else now")
    for _, _, data in graph.edges(data=True):
        code = recording.network["projections"][data["name"]].get("code")
        if data["rule"] is not None and fingerprint(data["rule"]) != code:
            said.append(f"{type(data['rule']).__name__} of projection {data['name']!r} computes something else now")
    return said


def feed_of(event: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """The arguments of `Simulator.run` that a logged run was given: ``trial``, ``drive`` and ``signals``."""
    phases = tuple(_phase(p) for p in event["phases"] or ())
    drive: dict[str, Any] = {}
    signals: dict[str, Any] = {}
    for phase, sources in event["sources"].items():
        for target, source in sources.items():
            if isinstance(source, Mapping) and "iterator" in source:
                raise RecordingError(
                    f"the drive of {target.strip('.')!r} came from an iterator, which no file can keep: pass the drive"
                )
            made = known.build(source)
            there = signals if target.startswith(".") else drive
            name = target.removeprefix(".")
            if phases:
                there.setdefault(name, {})[phase] = made
            else:
                there[name] = made
    return {"trial": phases, "drive": drive, "signals": signals}


def _phase(described: Mapping[str, Any]) -> Phase:
    reset = described["reset"]
    return Phase(**{**described, "reset": reset if isinstance(reset, bool) else frozenset(reset)})


def restore(sim: "Simulator", arrays: Mapping[str, np.ndarray], batch: int | None) -> State:
    """The state that ``arrays`` (of `state_arrays`) hold; the simulator's own says what it must look like."""
    for name in sim.state.neurons:
        held = arrays.get(f"{name}.x", np.empty(0)).shape
        if batch is not None and (len(held) < 2 or held[-2] != batch):
            raise ValueError(f"the state of {name} has no batch of {batch}")
    sim._reset(batch)
    template = state_arrays(sim._layouts, sim.state)
    for name, array in template.items():
        if name not in arrays or arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
            raise ValueError(f"the state of {name} does not fit the network")
    return _with_arrays(sim, arrays)


def _with_arrays(sim: "Simulator", arrays: Mapping[str, np.ndarray]) -> State:
    state = sim.state
    neurons = {
        name: Fields({key: jnp.asarray(arrays[f"{name}.{key}"]) for key in fields})
        for name, fields in state.neurons.items()
    }
    history = {
        name: Fields({key: jnp.asarray(arrays[f"{name}.{key} delayed"]) for key in fields})
        for name, fields in state.history.items()
    }
    synapses = {}
    for name, old in state.synapses.items():
        layout = sim._layouts[name]
        syn = {}
        for key, held in old.syn.items():
            array = arrays[f"{name}.{key}"]
            syn[key] = PerNeuron(jnp.asarray(array), held.side) if isinstance(held, PerNeuron) else layout.pack(array)
        synapses[name] = dataclasses.replace(old, w=layout.pack(arrays[f"{name}.w"]), syn=Fields(syn))
    credit = {
        name: jax.tree_util.tree_map_with_path(
            lambda path, _, name=name: jnp.asarray(arrays[_remembered(name, path)]), memory
        )
        for name, memory in state.credit.items()
    }
    return State(jnp.asarray(arrays["tick"]), jnp.asarray(arrays["trial"]), neurons, synapses, history, credit)
