"""A network as a Brian2 script: the same ticks, from the same traced functions.

Every population becomes a ``NeuronGroup`` whose code runs once a tick, every projection ``Synapses``. Outputs that are
spikes travel as Brian2's events, all others as sums over synapses; rules run after the neurons. `to_brian2` executes
what the script says.
"""

import json
import keyword
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import networkx as nx
import numpy as np

from .dynamics import trace_stage
from .errors import ExportError
from .feed import target_of
from .network import COUNTERS
from .networks import Spiking
from .networks.fields import parameters
from .networks.graph import Projection
from .networks.neurons import Stage
from .networks.sources import Steady
from .recordings.provenance import state_arrays
from .rules.base import NetworkRule
from .rules.equations import NoWord, Traced, inline
from .rules.scalars import elements, scalars
from .simulator import Simulator

if TYPE_CHECKING:
    import brian2

# Names that mean something to Brian2, or in a script that imports from it.
RESERVED = (
    "t", "dt", "i", "j", "N", "e", "pi", "inf", "lastspike", "not_refractory", "t_in_timesteps", "network", "tick",
    "arrays", "np", "Path", "Network", "NeuronGroup", "Synapses", "TimedArray", "second", "clip", "exp",
    "start", "stop", "clock", "name", "names", "events", "equations", "namespace", "variables", "source", "target",
    "elements", "int", "rand", "randn", "sign", "floor", "log", "sqrt", "abs", "and", "or", "not", "True", "False",
)  # fmt: skip
ELEMENTS = (
    "",
    "",
    "def elements(name, array):",
    '    """The numbers in an array as constants: name_0_0, name_0_1, ..."""',
    '    return {"_".join(map(str, (name, *at))): float(number) for at, number in np.ndenumerate(array)}',
    "",
)
ARRIVE, END = "groups", "end"  # the slots of Brian2's schedule for neurons and for rules


def to_brian2(
    network: nx.Graph | Simulator,
    drive: Mapping[str, Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    dt: float = 1e-3,
) -> "brian2.Network":
    """A Brian2 ``Network`` that does the same ticks as ``Simulator(network, seed=seed, dt=dt)``.

    Populations and projections are its objects, under their names with ``_`` for every character that a Python name
    cannot have: ``to_brian2(net)["retina_cortex"].w``; state fields and ports are their variables. A projection that is
    tied to another is a sum over the other's synapses. A `Simulator` is gone on with from the state that it is in.
    ``drive`` and ``signals`` are as in `Simulator.run`: arrays with one row (or number) per tick, or numbers. Spikes
    travel in Brian2's own queue: a delay of n ticks here is one of n - 1 there, since there they arrive at the end of a
    tick. Neurons and rules that draw noise get Brian2's random numbers. Needs Brian2 (``pip install
    'engrax[brian2]'``); works in its runtime and standalone modes.

    Raises `ExportError` naming what Brian2 cannot express: an operation, a competition over a population, a sum over
    the synapses of a pre neuron, a projection that lives in phases, a batch, a sweep, drive that is a function.
    """
    script = _Script(network, drive or {}, signals or {}, seed, dt)
    try:
        import brian2 as _  # noqa: F401
    except ImportError as error:
        raise ExportError("to_brian2 needs Brian2: pip install 'engrax[brian2]'") from error
    scope: dict[str, Any] = {"arrays": script.arrays, "np": np}
    exec(compile("\n".join(script.lines), "<engrax.to_brian2>", "exec"), scope)  # our own text
    return scope["network"]


def brian2_script(
    network: nx.Graph | Simulator,
    path: str | Path,
    drive: Mapping[str, Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    *,
    ticks: int = 1000,
    seed: int = 0,
    dt: float = 1e-3,
) -> None:
    """Write what `to_brian2` makes as a script that runs so many ``ticks``, with its arrays as ``.npz`` beside it.

    Raises `ExportError` as `to_brian2` does, and where the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".py":
        raise ExportError(f"{path}: a script's name ends in .py")
    script = _Script(network, drive or {}, signals or {}, seed, dt)
    data = path.with_suffix(".npz")
    imports, *rest = script.lines
    text = ['"""A network that engrax wrote for Brian2."""', "", "from pathlib import Path", "", "import numpy as np",
            imports, "", f'arrays = np.load(Path(__file__).with_name("{data.name}"))', *rest,
            "", 'if __name__ == "__main__":', f'    network.run({ticks} * tick, report="text")', ""]  # fmt: skip
    try:
        path.write_text("\n".join(text))
        np.savez_compressed(data, **script.arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error


class _Names:
    """Identifiers, one for each thing and none twice, and none of those that are ``reserved``."""

    def __init__(self, reserved: Iterable[str] = RESERVED) -> None:
        self._names: dict[str, str] = {}
        self._reserved = {*reserved, *(keyword.kwlist if reserved else ())}

    def __len__(self) -> int:
        return len(self._names)

    def __call__(self, thing: str, wanted: str | None = None, ends: Collection[str] = ("",)) -> str:
        """``ends``: what else is a name with one of these at its end."""
        if thing not in self._names:
            word = re.sub(r"_+", "_", re.sub(r"\W", "_", wanted or thing)).strip("_")
            word = word if word[:1].isalpha() else f"n{word}"
            taken, made, number = {*self._reserved, *self._names.values()}, word, 2
            while any(made + end in taken for end in ends) or made.endswith(("_pre", "_post")):
                made, number = f"{word}{number}", number + 1
            self._names[thing] = made
            self._reserved |= {made + end for end in ends}
        return self._names[thing]


@dataclass
class _Group:
    """What is said of a population."""

    name: str  # in the script
    label: str  # in Brian2
    size: int
    orders: dict[Stage, int]  # of its stages among all of a tick
    names: _Names = field(default_factory=_Names)
    variables: dict[str, np.ndarray | None] = field(default_factory=dict)  # with their first values
    constants: dict[str, str] = field(default_factory=dict)  # by name, as text
    signals: dict[str, str] = field(default_factory=dict)  # variable -> signal
    code: dict[Stage, list[str]] = field(default_factory=dict)
    past: list[str] = field(default_factory=list)
    threshold: str | None = None


@dataclass(frozen=True)
class _Arrival:
    """A variable of a population in which a projection's sum arrives at a port. ``events``: spikes add to it."""

    port: str
    variable: str
    events: bool


class _Script:
    """``lines`` of Python, and the ``arrays`` that they name."""

    def __init__(
        self, network: nx.Graph | Simulator, drive: Mapping[str, Any], signals: Mapping[str, Any], seed: int, dt: float
    ) -> None:
        sim = network if isinstance(network, Simulator) else Simulator(network, seed=seed, dt=dt)
        if sim.points is not None or sim.batch is not None:
            raise ExportError("a Brian2 network is one copy: export a Simulator without a sweep and without a batch")
        self.sim, self.circuit = sim, sim.network.circuit
        self.state, self.params = state_arrays(sim._layouts, sim.state), sim.params
        self.arrays: dict[str, np.ndarray] = {}
        self.names, self.labels = _Names(), _Names(())
        self._timed: list[str] = []
        self._helpers: tuple[str, ...] = ()  # what the script defines
        self._extra: list[str] = []  # objects that carry signals
        self._arrivals: dict[str, list[_Arrival]] = {name: [] for name in self.circuit.populations}
        for name in (*self.circuit.populations, *self.circuit.projections):
            self.names(name), self.labels(name)
        self._signals = {name: self._over_time(f"signal {name!r}", name, value, ()) for name, value in signals.items()}
        sizes = {name: population.size for name, population in self.circuit.populations.items()}
        self.groups = {
            name: _Group(self.names(name), self.labels(name), sizes[name], {}) for name in self.circuit.order
        }
        for k, (name, stage) in enumerate(self.circuit.stages):
            self.groups[name].orders[stage] = 10 * k + 10
        driven: dict[tuple[str, str], str] = {}
        for name, value in drive.items():
            target = target_of(self.circuit, name)
            driven[target] = self._over_time(f"drive for {name!r}", "_".join(target), value, (sizes[target[0]],))
        projections = self.circuit.projections.values()
        synapses = [self._synapses(projection) for projection in projections if projection.tied is None]
        for name in self.circuit.order:
            self._neurons(name, driven)
        signal_lines = self._broadcast()
        own = [projection.name for projection in projections if projection.tied is None]
        objects = [*(group.name for group in self.groups.values()), *map(self.names, own)]
        self.lines = [
            "from brian2 import Network, NeuronGroup, Synapses, TimedArray, second",
            *self._helpers,
            "",
            f"tick = {sim.dt!r} * second",
            *self._timed,
            *(line for group in self.groups.values() for line in self._group(group)),
            *signal_lines,
            *(line for lines in synapses for line in lines),
            "",
            f"network = Network({', '.join([*objects, *self._extra])})",
        ]

    # What comes from outside

    def _over_time(self, owner: str, name: str, value: Any, row: tuple[int, ...]) -> str:
        """An expression of the moment: a number, or a row of an array."""
        if isinstance(value, Steady):  # what a recording keeps of a number
            value = float(value.value)
        if not isinstance(value, (int, float, np.ndarray, list)):
            raise ExportError(f"{owner}: Brian2 gets a number, or an array with one row per tick")
        array = np.asarray(value, float)
        if array.ndim == 0:
            return _literal(array)
        if array.shape[1:] != row:
            raise ExportError(f"{owner} has rows of shape {array.shape[1:]}; it needs {row}")
        made = self.names(f"values of {name}", f"{name}_values")
        self._timed.append(f"{made} = TimedArray({self._kept(made, array)}, dt=tick)")
        return f"{made}(t, i)" if row else f"{made}(t)"

    def _kept(self, name: str, array: np.ndarray) -> str:
        self.arrays[name] = np.asarray(array)
        return f"arrays[{name!r}]"

    def _broadcast(self) -> list[str]:
        """Signals that are the mean output of a population, brought to the populations whose synapses read them."""
        lines = []
        for group in self.groups.values():
            for variable, signal in group.signals.items():
                made = self.names(f"{signal} to {group.name}")
                self._extra.append(made)
                lines += [
                    "",
                    f"{made} = Synapses({self.names(self.circuit.signals[signal])}, {group.name}, "
                    f'"{variable}_post = x_pre / N_pre : 1 (summed)", name={made!r}, dt=tick)',
                    f"{made}.connect()",
                    f'{made}.summed_updaters["{variable}_post"].when = "{END}"',
                    f'{made}.summed_updaters["{variable}_post"].order = 1',
                ]
        return lines

    # Populations

    def _past(self, population: str, name: str, ago: int) -> str:
        """The variable that holds a field as it was so many ticks ago, once this tick's neurons are done."""
        group, state = self.groups[population], self.sim.state
        for k in range(1, ago + 1):
            known = group.names(f"{name} {k}", f"{group.names(name)}_{k}")
            if known not in group.variables:
                value = np.asarray(state.neurons[population][name])
                if k > 1:
                    history = np.asarray(state.history[population][name])
                    value = history[(int(state.tick) - k) % len(history)]
                group.variables[known] = value
                before = group.names(name) if k == 1 else group.names(f"{name} {k - 1}")
                group.past.insert(0, f"{known} = {before}")
        return group.names(name) if ago == 0 else group.names(f"{name} {ago}")

    def _neurons(self, name: str, driven: Mapping[tuple[str, str], str]) -> None:
        group, population = self.groups[name], self.circuit.populations[name]
        neuron, owner = population.neuron, f"population {name!r} ({type(population.neuron).__name__})"
        if neuron.standardised:
            raise ExportError(f"{owner} compares the samples of a batch, which Brian2 cannot express")
        if neuron.lateral is not None or neuron.collective:
            who = type(neuron if neuron.lateral is None else neuron.lateral).__name__
            raise ExportError(f"{owner}: {who} looks at the whole population, which Brian2 cannot express")
        traced = {stage: _scalars(trace_stage(neuron, stage), owner) for stage in group.orders}
        reads = frozenset().union(*(stage.reads for stage in traced.values()))
        known, numbers = {"dt": _literal(self.sim.dt)}, {"dt": self.sim.dt}
        for field_name in neuron.init():
            known[f"state.{field_name}"] = group.names(field_name)
            group.variables[group.names(field_name)] = self.state[f"{name}.{field_name}"]
        for parameter, value in parameters(neuron).items():
            if np.ndim(value) > 1:
                group.constants |= self._shared(
                    f"neuron.{parameter}", value, reads, known, numbers, group.names, group.name
                )
                continue
            known[f"neuron.{parameter}"] = made = group.names(f"parameter {parameter}", parameter)
            if f"neuron.{parameter}" not in reads:
                continue
            if np.ndim(value):
                group.variables[f"{made} (constant)"] = np.asarray(value, float)
            else:
                group.constants[made] = _literal(float(value))
                numbers[f"neuron.{parameter}"] = float(value)
        if isinstance(neuron, Spiking):
            group.threshold = f"{group.names('x')} > 0"
        for stage in group.orders:
            group.code[stage] = code = self._arriving(name, stage, driven, known, reads)
            kind = neuron.noise if stage == "step" else neuron.late_noise
            if kind is not None:
                known["noise"] = group.names("noise")
                code.insert(0, f"{known['noise']} = {'rand()' if kind == 'uniform' else 'randn()'}")
            lines, outputs = _printed(traced[stage], known, numbers, owner, group.names)
            code += lines + _assigned({group.names(field_name): text for field_name, text in outputs.items()})
            spent = [a.variable for a in self._arrivals[name] if a.events and population.stage(a.port) == stage]
            code += [f"{variable} = 0" for variable in dict.fromkeys(spent)]

    def _arriving(
        self, name: str, stage: Stage, driven: Mapping[tuple[str, str], str], known: dict[str, str], reads: Any
    ) -> list[str]:
        """Statements that put together what arrives at a population's ports."""
        group, population = self.groups[name], self.circuit.populations[name]
        neuron, code = population.neuron, []
        for port in neuron.ports:
            if population.stage(port) != stage:
                continue
            terms = list(dict.fromkeys(a.variable for a in self._arrivals[name] if a.port == port))
            if (name, port) in driven:
                terms.append(driven[name, port])
                group.constants |= _arrays_in(driven[name, port])
            here = known[f"ports.{port}"] = group.names(port)
            if terms or here in group.variables or f"ports.{port}" in reads:
                group.variables.setdefault(here, self.state.get(f"{name}.{port}"))
                code.append(f"{here} = {' + '.join(terms) or '0.0'}")
        for port in neuron.loads:
            if population.stage(port) != stage:
                continue
            loads = [group.names(f"load of {p.name}") for p in self.sim.network.into[name] if p.port == port]
            known[f"ports.{port}_load"] = here = group.names(f"{port}_load")
            group.variables[here] = self.state.get(f"{name}.{port}_load")
            code.append(f"{here} = {' + '.join(loads) or '0.0'}")
        return code

    def _group(self, group: _Group) -> list[str]:
        variables = [f"{name} : 1" if " (" not in name else name.replace(" (", " : 1 (") for name in group.variables]
        lines = ["", f"{group.name} = NeuronGroup({group.size}, {_block(variables)}"]
        if group.threshold:
            lines[-1] += f", threshold={group.threshold!r}, reset=''"
        lines[-1] += (
            f", name={group.label!r}, namespace={_table(group.constants)}, order={group.orders['step']}, dt=tick)"
        )
        lines += self._first(group.name, group.variables)
        for stage, order in group.orders.items():
            if group.code[stage]:
                lines += [
                    f'{group.name}.run_regularly({_block(group.code[stage])}, when="{ARRIVE}", order={order}, dt=tick)'
                ]
        if group.past:
            lines += [f'{group.name}.run_regularly({_block(group.past)}, when="{END}", order=50, dt=tick)']
        return lines

    def _first(self, owner: str, variables: Mapping[str, np.ndarray | None]) -> list[str]:
        """Statements that give variables their first values, where these are not 0."""
        lines = []
        for name, value in variables.items():
            if value is not None and np.any(value):
                name = name.partition(" (")[0]
                same = np.all(value == np.ravel(value)[0])
                text = _literal(np.ravel(value)[0]) if same else self._kept(f"{owner}_{name}", np.ravel(value))
                lines.append(f"{owner}.{name} = {text}")
        return lines

    def _shared(
        self, name: str, value: Any, reads: Collection[str], known: dict[str, str], numbers: dict[str, float],
        names: _Names, owner: str,
    ) -> dict[str, str]:  # fmt: skip
        """An array that is the same for all: its elements become known, its constants are returned."""
        if not any(element.rpartition(".")[0] == name for element in reads):
            return {}
        own = elements(name, np.asarray(value, float))
        ends = {element: re.sub(r"\W", "_", element.removeprefix(name)) for element in own}
        made = names(name, name.partition(".")[2], ends.values())
        known |= {element: made + end for element, end in ends.items()}
        numbers |= own
        self._helpers = ELEMENTS
        return {made: f'**elements("{made}", {self._kept(f"{owner}_{made}", np.asarray(value, float))})'}

    # Projections

    def _synapses(self, projection: Projection) -> list[str]:
        name, owner = self.names(projection.name), f"projection {projection.name!r}"
        if projection.phases is not None:
            raise ExportError(f"{owner} lives in some phases only, which Brian2 does not have")
        if projection.release < 1:
            raise ExportError(f"{owner}: its synapses fail at random, which the export does not say: remove release")
        w = _carried(projection)
        pre, post = self.groups[projection.pre], self.groups[projection.post]
        variables: dict[str, np.ndarray | None] = {}
        names = _Names()
        model, code, sums = [], "", []
        events = (
            isinstance(self.circuit.populations[projection.pre].neuron, Spiking)
            and projection.field == "x"
            and projection.delay > 0
        )
        if events:
            arrival = _Arrival(projection.port, post.names(f"{projection.port} arriving"), True)
            code = f", on_pre='{arrival.variable}_post += {w}', delay={projection.delay - 1} * tick"
            self._no_spikes_under_way(projection)
        else:
            seen = self._seen(projection, projection.field)
            wanted = f"{projection.port}_from_{self.names(projection.pre)}"
            arrival = _Arrival(projection.port, post.names(f"{projection.name} arriving", wanted), False)
            model.append(f"{arrival.variable}_post = {w} * {seen} : 1 (summed)")
            sums.append(arrival.variable)
        post.variables[arrival.variable] = None
        self._arrivals[projection.post].append(arrival)
        if projection.port in self.circuit.populations[projection.post].neuron.loads:
            load = post.names(f"load of {projection.name}", f"load_from_{self.names(projection.pre)}")
            post.variables[load] = None
            model.append(f"{load}_post = abs(w) : 1 (summed)")
            sums.append(load)
        # Brian2 itself sums before the target steps.
        late = self.circuit.populations[projection.post].stage(projection.port) == "respond"
        order = post.orders["respond"] - 1 if late else None
        after = [f'{{name}}.summed_updaters["{variable}_post"].order = {order}' for variable in sums if late]
        names("w")
        variables["w"] = self._weights(projection.name, "w")
        constants: dict[str, str] = {}
        if projection.rule is not None:
            steps, pooled, constants, state = self._rule(projection, names)
            variables |= state
            model += pooled
            after += [*steps, *([f'{{name}}.pre.when, {{name}}.pre.order = "{END}", 30'] if events else [])]
        for tied in self.circuit.projections.values():
            if tied.tied == projection.name:
                summed, ordered = self._further(tied)
                model += summed
                after += ordered
        declared = [*(f"{variable} : 1" for variable in variables), *model]
        lines = ["", f"{name} = Synapses({pre.name}, {post.name}, {_block(declared)}{code}, "
                 f"name={self.labels(projection.name)!r}, namespace={_table(constants)}, dt=tick)"]  # fmt: skip
        layout = self.sim._layouts[projection.name]
        if layout.dense:
            lines.append(f"{name}.connect()")
        else:
            ends = self.sim.synapses(projection.name)
            i, j = (self._kept(f"{name}_{end}", ids) for end, ids in (("pre", ends[1]), ("post", ends[0])))
            lines.append(f"{name}.connect(i={i}, j={j})")
        return [*lines, *self._first(name, variables), *(line.format(name=name) for line in after)]

    def _further(self, projection: Projection) -> tuple[list[str], list[str]]:
        """What a tied projection carries, as sums over the other's synapses; and when they are taken."""
        if projection.phases is not None:
            raise ExportError(f"projection {projection.name!r} lives in some phases only, which Brian2 does not have")
        group, population = self.groups[projection.post], self.circuit.populations[projection.post]
        source = self.names(projection.pre)
        arriving = group.names(f"{projection.name} arriving", f"{projection.port}_from_{source}")
        self._arrivals[projection.post].append(_Arrival(projection.port, arriving, False))
        to, of = ("pre", "post") if self.circuit.transposed(projection) else ("post", "pre")
        sums = {
            arriving: f"{_carried(projection)} * {self._past(projection.pre, projection.field, projection.delay)}_{of}"
        }
        if projection.port in population.neuron.loads:
            sums[group.names(f"load of {projection.name}", f"load_from_{source}")] = "abs(w)"
        group.variables |= dict.fromkeys(sums)
        order = group.orders[population.stage(projection.port)] - 1
        return (
            [f"{variable}_{to} = {text} : 1 (summed)" for variable, text in sums.items()],
            [f'{{name}}.summed_updaters["{variable}_{to}"].order = {order}' for variable in sums],
        )

    def _weights(self, projection: str, field_name: str) -> np.ndarray:
        """In the order of Brian2's synapses: by pre neuron where all pairs are connected."""
        values = np.asarray(self.params[projection][field_name])
        return values.T.ravel() if self.sim._layouts[projection].dense else values

    def _seen(self, projection: Projection, field_name: str) -> str:
        return f"{self._past(projection.pre, field_name, projection.delay)}_pre"

    def _no_spikes_under_way(self, projection: Projection) -> None:
        state = self.sim.state
        past = [state.neurons[projection.pre].x] if int(state.tick) else []
        if projection.delay > 1 and past:
            past.append(state.history[projection.pre].x)
        if any(np.any(np.asarray(x)) for x in past):
            raise ExportError(
                f"projection {projection.name!r}: spikes are under way, and Brian2's queue starts empty: export the "
                "network before it has run"
            )

    def _rule(
        self, projection: Projection, names: _Names
    ) -> tuple[list[str], list[str], dict[str, str], dict[str, np.ndarray | None]]:
        """What runs at the end of each tick, sums over a cell's synapses, numbers, and the synapses' own state."""
        sim, rule = self.sim, projection.rule
        if isinstance(rule, NetworkRule):
            raise ExportError(
                f"projection {projection.name!r} learns by {type(rule).__name__}, which sees the whole network, and "
                "Brian2's synapses do not: take the rule away (rule=None) to export the network as it is"
            )
        post, whole = self.groups[projection.post], sim.network.traced[projection.name]
        owner = f"projection {projection.name!r} ({type(rule).__name__})"
        if rule.carried:
            raise ExportError(f"{owner} has fast weights on top of the slow ones, which are not exported")
        if "efferent" in whole.update.reads:
            raise ExportError(f"{owner} sums over a pre neuron's synapses in turn, which Brian2 cannot express")
        update, pool, constraint, constraint_pool = (
            _scalars(part, owner) for part in (whole.update, whole.pool, whole.constraint, whole.constraint_pool)
        )
        known, numbers = {"dt": _literal(sim.dt), "w": "w", "noise": names("noise"), "released": "1.0"}, {"dt": sim.dt}
        state: dict[str, np.ndarray | None] = {}
        for field_name in rule.init():
            known[f"syn.{field_name}"] = made = names(f"syn.{field_name}", field_name)
            state[made] = self._weights(projection.name, field_name)
        inputs = update.reads | pool.reads | constraint.reads | constraint_pool.reads
        constants: dict[str, str] = {}
        for parameter, value in parameters(rule).items():
            if np.ndim(value):  # of what a synapse has itself, nothing is read
                constants |= self._shared(
                    f"rule.{parameter}", value, inputs, known, numbers, names, self.names(projection.name)
                )
                continue
            numbers[f"rule.{parameter}"] = float(value)
            if np.isinf(value):
                known[f"rule.{parameter}"] = _literal(value)
            elif f"rule.{parameter}" in inputs:
                known[f"rule.{parameter}"] = made = names(f"rule.{parameter}", parameter)
                constants[made] = _literal(float(value))
        for name in sorted(inputs):
            group, _, field_name = name.partition(".")
            if group == "pre":
                known[name] = self._seen(projection, field_name)
            elif group == "post":
                here = post.names(field_name)
                post.variables.setdefault(here, self.state.get(f"{projection.post}.{field_name}"))
                known[name] = f"{here}_post"
            elif group == "signals":
                known[name] = self._signal(owner, field_name, post)
                constants |= _arrays_in(known[name])
        start: list[str] = []
        if rule.noise is not None:
            start.append(f"{known['noise']} = {'rand()' if rule.noise == 'uniform' else 'randn()'}")
        steps, sums = [], []

        def summed(pool: Traced, order: int) -> str:
            """A sum over the synapses of each post neuron, taken at the end of a tick."""
            lines, outputs = _printed(pool, known, numbers, owner, names)
            if lines:
                raise ExportError(f"{owner}: the sum over its cell's synapses is too long for Brian2")
            made = post.names(f"{projection.name} sum {order}", f"total_{self.names(projection.pre)}")
            post.variables[made] = None
            sums.append(f"{made}_post = {outputs['afferent']} : 1 (summed)")
            for setting in (f'when = "{END}"', f"order = {order}"):
                steps.append(f'{{name}}.summed_updaters["{made}_post"].{setting}')
            return f"{made}_post"

        def run(lines: list[str], order: int) -> None:
            steps.append(f'{{name}}.run_regularly({_block(lines)}, when="{END}", order={order}, dt=tick)')

        if "afferent" in update.reads:
            known["afferent"] = summed(pool, 5)
        lines, outputs = _printed(update, known, numbers, owner, names)
        changed = {known[name]: text for name, text in outputs.items() if name != "dw"}
        changed = {"w": f"w + {outputs['dw']}"} | changed
        if not constraint.reads:
            run([*start, *lines, *_assigned(changed)], 10)
        elif constraint_pool.outputs:
            run([*start, *lines, *_assigned(changed)], 10)
            known["afferent"] = summed(constraint_pool, 20)
            lines, outputs = _printed(constraint, known, numbers, owner, names)
            run([*lines, *_assigned({"w": outputs["w"]})], 21)
        else:
            new = names("changed")
            more, outputs = _printed(constraint, {**known, "w": new}, numbers, owner, names)
            moved = [*start, *lines, f"{new} = {changed.pop('w')}"]
            run([*moved, *more, *_assigned({**changed, "w": outputs["w"]})], 10)
        return steps, sums, constants, state

    def _signal(self, owner: str, name: str, post: _Group) -> str:
        if name in self._signals:
            return self._signals[name]
        if name == "last":
            return "1.0"  # there are no trials
        if name in COUNTERS:
            return f"(t_in_timesteps + {self.sim.tick})" if self.sim.tick else "t_in_timesteps"
        if name not in self.circuit.signals:
            raise ExportError(f"{owner} reads signals.{name}, which nothing sends: pass signals={{{name!r}: ...}}")
        made = post.names(f"signal {name}", name)
        post.signals[made] = name
        post.variables.setdefault(made, None)
        return f"{made}_post"


# Expressions


_WORDS = {
    "add": "({} + {})", "add_any": "({} + {})", "sub": "({} - {})", "mul": "({} * {})", "div": "({} / {})",
    "neg": "(-{})", "square": "({0} * {0})", "pow": "({} ** {})", "sqrt": "sqrt({})", "rsqrt": "(1.0 / sqrt({}))",
    "exp": "exp({})", "exp2": "(2.0 ** {})", "expm1": "expm1({})", "log": "log({})", "log1p": "log1p({})",
    "sin": "sin({})", "cos": "cos({})", "tan": "tan({})", "sinh": "sinh({})", "cosh": "cosh({})", "tanh": "tanh({})",
    "asin": "arcsin({})", "acos": "arccos({})", "atan": "arctan({})", "abs": "abs({})", "sign": "sign({})",
    "floor": "floor({})", "ceil": "ceil({})", "round": "floor({} + 0.5)", "rem": "({} % {})",
    "logistic": "(1.0 / (1.0 + exp(-{})))", "max": "clip({}, {}, inf)", "min": "clip({}, -inf, {})",
    "clamp": "clip({1}, {0}, {2})", "gt": "({} > {})", "lt": "({} < {})", "ge": "({} >= {})", "le": "({} <= {})",
    "eq": "({} == {})", "ne": "({} != {})", "and": "({} and {})", "or": "({} or {})", "not": "(not {})",
    "copy": "{}", "stop_gradient": "{}",
    "select_n": "({0} * {2} + (1 - {0}) * {1})",
}  # fmt: skip
# Brian2's time is exponential in the number of a statement's variables that are true or false (so that ours are 1 or 0)
# and in the depth of functions of functions.
TRUTH, DEEPEST = "({} == 1)", 4
_PRODUCTS = {"mul", "div"}
_SUMS = {"add", "add_any", "sub"}


@dataclass(frozen=True)
class _Value:
    """An expression, the primitive that made it, and its number where that does not change."""

    text: str
    made: str = ""
    number: Any = None
    place: int | None = None  # among the results of equations
    depth: int = 0  # of functions of functions


def _scalars(traced: Traced, owner: str) -> Traced:
    try:
        return scalars(traced, _WORDS)
    except NoWord as error:
        raise ExportError(f"{owner} uses '{error}', which Brian2 cannot express") from None


def _printed(
    traced: Traced, known: Mapping[str, str], numbers: Mapping[str, float], owner: str, names: _Names
) -> tuple[list[str], dict[str, str]]:
    """The statements that compute what is used more than once or nested deeply, and the expressions of the outputs.

    ``known`` has the inputs' expressions, ``numbers`` those of them that do not change: what they decide is decided.
    """
    uses: list[int] = []
    lines: list[tuple[str, str]] = []

    def word(equation: Any, values: list[_Value]) -> str:
        name = equation.primitive.name
        texts = [_operand(name, k, value) for k, value in enumerate(values)]
        if name == "convert_element_type":
            return _as_number(texts[0]) if equation.invars[0].aval.dtype.kind == "b" else texts[0]
        if name == "integer_pow":
            return f"({texts[0]} ** {equation.params['y']})"
        if name == "select_n" and values[0].number is not None:
            return texts[1 + int(values[0].number)]
        if name == "select_n" and texts[1:] == ["0.0", "1.0"]:
            return _as_number(texts[0])
        if name == "select_n" and texts[1:] == ["1.0", "0.0"]:
            return f"(1 - {_as_number(texts[0])})"
        if name == "select_n" and len(values) > 3:
            raise ExportError(f"{owner} uses {name!r}, which Brian2 cannot express")
        if name == "select_n":
            texts[0] = _as_number(texts[0])
        return _WORDS[name].format(*texts)

    def number(equation: Any, values: list[_Value]) -> Any:
        if any(value.number is None for value in values):
            return None
        return np.asarray(equation.primitive.bind(*(jnp.asarray(v.number) for v in values), **equation.params))

    def count(equation: Any, values: list[_Value]) -> _Value:
        for value in values:
            if value.place is not None:
                uses[value.place] += 2 if equation.primitive.name in ("select_n", "square") else 1
        uses.append(0)
        return _Value("", place=len(uses) - 1)

    def write(equation: Any, values: list[_Value]) -> _Value:
        text, place = word(equation, values), next(places)
        depth = max(value.depth for value in values) + bool(re.search(r"\w\(", _WORDS.get(equation.primitive.name, "")))
        if (uses[place] > 1 or depth > DEEPEST) and not re.fullmatch(r"[\w.]+", text):
            made, truth = names(f"temporary {len(names)}", "k"), equation.outvars[0].aval.dtype.kind == "b"
            lines.append((made, _as_number(text) if truth else _bare(text)))
            text, depth = TRUTH.format(made) if truth else made, 0
        return _Value(text, equation.primitive.name, number(equation, values), place, depth)

    def literal(value: Any) -> _Value:
        return _Value(_literal(value), number=np.asarray(value))

    # What is not known is not read.
    inputs = [_Value(known.get(name, "0.0"), number=numbers.get(name)) for name in traced.inputs]
    results: list[_Value] = []
    for apply in (count, write):
        places = iter(range(len(uses)))
        results = inline(traced.jaxpr.jaxpr, inputs, apply, literal, tuple(traced.jaxpr.consts))
    outputs = {name: _bare(value.text) for name, value in zip(traced.outputs, results, strict=True)}
    needed = set().union(*map(_words, outputs.values()))
    kept = []
    for made, text in reversed(lines):
        if made in needed:
            needed |= _words(text)
            kept.append(f"{made} = {text}")
    return kept[::-1], outputs


def _assigned(values: Mapping[str, str]) -> list[str]:
    """All variables get their new values at once: first those that no later expression reads."""
    waiting = {name: text for name, text in values.items() if name != text}
    lines, kept = [], []
    while waiting:
        free = [n for n in waiting if not any(n in _words(text) for other, text in waiting.items() if other != n)]
        if not free:  # they read each other
            name = next(iter(waiting))
            kept.append(f"{name} = new_{name}")
            lines.append(f"new_{name} = {waiting.pop(name)}")
            continue
        for name in free[:1]:
            lines.append(f"{name} = {waiting.pop(name)}")
    return lines + kept


def _operand(name: str, place: int, value: _Value) -> str:
    """The text of an operand of a primitive, without parentheses that change nothing."""
    if name in _SUMS:
        loose = value.made in _PRODUCTS or (place == 0 and value.made in _SUMS)
    elif name in _PRODUCTS:
        loose = place == 0 and value.made in _PRODUCTS
    else:
        loose = _WORDS.get(name, "")[:1].isalpha()  # what a function is of
    return _bare(value.text) if loose else value.text


def _as_number(text: str) -> str:
    """1 where it is true, else 0."""
    known = re.fullmatch(re.escape(TRUTH).replace(r"\{\}", r"(\w+)"), text)
    return known[1] if known else f"int({_bare(text)})"


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]\w*", text))


def _bare(text: str) -> str:
    """Without parentheses around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[1:-1] if at == len(text) - 1 else text
    return text


def _carried(projection: Projection) -> str:
    return "w" if projection.gain == 1 else f"{_literal(projection.gain)} * w"


def _literal(value: Any) -> str:
    number = np.asarray(value).item()
    if isinstance(number, float) and np.isinf(number):
        return "inf" if number > 0 else "(-inf)"
    return repr(number) if number >= 0 else f"({number!r})"


def _table(constants: Mapping[str, str]) -> str:
    """Text that begins with ``**`` is a table itself."""
    entries = (text if text.startswith("**") else f'"{name}": {text}' for name, text in constants.items())
    return "{" + ", ".join(entries) + "}"


def _arrays_in(text: str) -> dict[str, str]:
    """The array over time that an expression calls, as a constant of those who use it."""
    called = re.match(r"(\w+)\(t", text)
    return {called[1]: called[1]} if called else {}


def _block(lines: Iterable[str]) -> str:
    """Lines of Brian2's language as a string in the script."""
    lines = list(lines)
    if len(lines) == 1:
        return json.dumps(lines[0])
    return '"""\n' + "\n".join(f"    {line}" for line in lines) + '\n    """'
