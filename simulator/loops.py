"""The loops that are compiled: sums over synapses, ticks of learning, ticks of neurons.

The scalar code in the middle of a loop is printed from the trace of a rule or a neuron. What is the same for all
elements of a loop, such as a decay within a tick, is left to XLA and passed in.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .kernels import compiled
from .networks.fields import Fields
from .rules.equations import Traced, inline

_WORDS = {
    "add": "{} + {}", "add_any": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}",
    "square": "{0} * {0}", "sqrt": "math.sqrt({})", "abs": "abs({})", "copy": "{}", "stop_gradient": "{}",
    "max": "{0} if ({0} > {1}) | ({0} != {0}) else {1}", "min": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
    "gt": "{} > {}", "lt": "{} < {}", "ge": "{} >= {}", "le": "{} <= {}", "eq": "{} == {}", "ne": "{} != {}",
    "and": "{} & {}", "or": "{} | {}", "not": "not {}", "select_n": "{2} if {0} else {1}",
}  # fmt: skip
# XLA vectorises these and Numba does not: a loop over everything leaves them to XLA.
_SLOW_WORDS = {
    "exp": "math.exp({})", "log": "math.log({})", "expm1": "math.expm1({})", "log1p": "math.log1p({})",
    "tanh": "math.tanh({})", "logistic": "1 / (1 + math.exp(-{}))", "pow": "{} ** {}", "floor": "math.floor({})",
    "sin": "math.sin({})", "cos": "math.cos({})",
}  # fmt: skip
MISSING = "no word for "
PART = 64  # elements that are looked at together for one that is not 0


class NoWord(Exception):
    """A trace has an operation that is not printed."""


@dataclass
class _Numbers:
    """What XLA computes for a loop: arrays of one number, the last arguments of ``rows``."""

    dtype: Any
    values: list[Any] = field(default_factory=list)

    def text(self, value: Any) -> str:
        """A value as it stands in the loop's code."""
        if isinstance(value, str):
            return value
        if isinstance(value, np.ndarray):
            number = value.item()
            return f"{self.dtype}({number!r})" if isinstance(number, float) else repr(number)
        places = [place for place, known in enumerate(self.values) if known is value]
        if not places:
            self.values.append(value)
            places = [len(self.values) - 1]
        return f"(s{places[0]} != 0)" if value.dtype == bool else f"s{places[0]}"

    def arguments(self) -> list[Any]:
        return [jnp.asarray(value, self.dtype) for value in self.values]

    def names(self) -> list[str]:
        return [f"e{place}" for place in range(len(self.values))]

    def loads(self) -> list[str]:
        return [f"s{place} = e{place}[0]" for place in range(len(self.values))]


def weighted_sum(w: Any, index: Any, x: Any) -> Any:
    """For every row the sum of ``w * x[index]``: (rows, width), (rows, width), (pre,) -> (rows,)."""

    def plain(w: Any, index: Any, x: Any) -> Any:
        return (w * x.at[index].get(mode="promise_in_bounds")).sum(-1)

    source = f"""
def rows(w, index, x, out):
    for i in range(w.shape[0]):
        total = {w.dtype}(0)
        for j in range(w.shape[1]):
            total += w[i, j] * x[np.uint64(index[i, j])]
        out[i] = total
"""
    return compiled(plain, source, 0)(w, index, x)


def sum_of_events(w: Any, wiring: Fields, x: Any) -> Any:
    """What arrives at every target: the sum of ``w * x`` over its synapses, in time that follows the ``x`` that are not
    0. (synapses, 1), the wiring of an `EventLayout`, (pre,) -> (post,)."""

    def plain(w: Any, starts: Any, targets: Any, begins: Any, index: Any, x: Any) -> Any:
        return jax.ops.segment_sum(w[:, 0] * x[index[:, 0]], targets, begins.shape[0] - 1)

    inner = ["for k in range(starts[p], starts[p + 1]):", "    out[np.uint64(targets[k])] += w[k, 0] * x[p]"]
    body = [f"out[:] = {w.dtype}(0)", *_where_not_0("x", "p", w.dtype, inner)]
    source = "\n".join(["def rows(w, starts, targets, begins, index, x, out):", *_indented(body)])
    return compiled(plain, source, 0)(w, wiring.starts, wiring.targets, wiring.begins, wiring.index, x)


def neurons(
    traced: Traced, given: Mapping[str, Any], dt: float, plain: Callable[[dict[str, Any]], tuple[Any, ...]]
) -> Any:
    """The fields of a population's neurons after a tick, in place. ``given`` holds them first, then what else
    ``traced`` reads, by name: one number, or one for each neuron. ``plain`` is the same of a dictionary like ``given``.

    Raises `NoWord` where there is no loop for it.
    """
    by = {name: "neuron" if jnp.ndim(value) else "number" for name, value in given.items()}
    loop = _Loop.over(given, by, {"neuron": "[i]"}, dt)
    code = loop.code(traced, _WORDS, "v")
    body = [
        "for i in range(a0.shape[0]):",
        *_indented([*loop.loads("neuron"), *code.block({name: f"state.{name}" for name in traced.outputs})]),
    ]
    return loop.run(plain, len(traced.outputs), body)


def learning(
    update: Traced,
    constraint: Traced,
    given: Mapping[str, Any],
    by: Mapping[str, str],
    dt: float,
    plain: Callable[[dict[str, Any]], tuple[Any, ...]],
) -> Any:
    """A tick of learning in a block of synapses: ``w``, then the other fields that are held by "synapse", in place.

    ``given``: ``w``, the synaptic state, the wiring of the layout and what the rule reads, by name; ``by`` says whether
    a value is held by "synapse", "pre" or "post", is "wiring" or a "number". Raises `NoWord`.
    """
    loop = _Loop.over(given, by, {"synapse": "[i, j]", "pre": "[p]", "post": "[i]"}, dt)
    synapse = loop.learned(update, constraint, _WORDS)
    index, degrees = loop.arrays["index"], loop.arrays["degrees"]
    inner = [f"p = np.uint64({index}[i, j])", *loop.loads("pre"), *synapse]
    row = [*loop.loads("post"), f"for j in range({degrees}[i]):", *_indented(inner)]
    states = sum(of == "synapse" for of in by.values())
    return loop.run(plain, states, ["for i in range(a0.shape[0]):", *_indented(row)])


def learning_by_events(
    update: Traced,
    constraint: Traced,
    given: Mapping[str, Any],
    by: Mapping[str, str],
    dt: float,
    plain: Callable[[dict[str, Any]], tuple[Any, ...]],
) -> Any:
    """A tick of learning in an `EventLayout`: `learning`, at the synapses of pre neurons that send something and of
    such post neurons only, and then the synaptic state that is held with the neurons (``syn.*``), in place too."""
    loop = _Loop.over(given, by, {"synapse": "[k, 0]", "pre": "[p]", "post": "[q]"}, dt)
    synapse = loop.learned(update, constraint, _WORDS | _SLOW_WORDS)
    starts, begins, afferents, index, targets = (
        loop.arrays[name] for name in ("starts", "begins", "afferents", "index", "targets")
    )
    sends, fires = loop.arrays.get("pre.x"), loop.arrays.get("post.x")
    body = []
    if sends:
        inner = [f"q = np.uint64({targets}[k])", *loop.loads("post"), *synapse]
        inner = [*loop.loads("pre"), f"for k in range({starts}[p], {starts}[p + 1]):", *_indented(inner)]
        body += _where_not_0(sends, "p", loop.numbers.dtype, inner)
    if fires:
        inner = [*loop.loads("pre"), *synapse]
        inner = [f"if {sends}[p] == 0:", *_indented(inner)] if sends else inner  # once for each synapse
        inner = [f"k = np.uint64({afferents}[m])", f"p = np.uint64({index}[k, 0])", *inner]
        inner = [*loop.loads("post"), f"for m in range({begins}[q], {begins}[q + 1]):", *_indented(inner)]
        body += _where_not_0(fires, "q", loop.numbers.dtype, inner)
    for side, i, pointers in (("pre", "p", starts), ("post", "q", begins)):
        held = [name for name, of in by.items() if of == side and name.startswith("syn.")]
        if held:
            own = loop.code(update, _WORDS, side)
            inner = [*loop.loads(side), *own.block({name: name for name in held})]
            body += [f"for {i} in range({pointers}.shape[0] - 1):", *_indented(inner)]
    states = sum(of == "synapse" or name.startswith("syn.") for name, of in by.items())
    return loop.run(plain, states, body)


def printable(update: Traced, constraint: Traced) -> bool:
    """Whether a rule can be learned by events."""
    given = {"w": jnp.ones(())}
    for traced in (update, constraint):
        for name, kind in zip(traced.inputs, traced.jaxpr.in_avals, strict=True):
            given[name] = jnp.ones((), kind.dtype)
    by = {name: {"w": "synapse", "syn": "synapse"}.get(name.partition(".")[0], "number") for name in given}
    by |= {name: name[: name.index(".")] for name in given if name.startswith(("pre.", "post."))}
    try:
        _Loop.over(given, by, {"synapse": "", "pre": "", "post": ""}, 1.0).learned(
            update, constraint, _WORDS | _SLOW_WORDS
        )
    except NoWord:
        return False
    return True


@dataclass
class _Loop:
    """The arrays of a loop and the names of what it reads of them: ``places`` are of one element."""

    given: Mapping[str, Any]
    by: Mapping[str, str]
    arrays: Mapping[str, str]
    places: Mapping[str, str]
    numbers: _Numbers
    dt: Any

    @staticmethod
    def over(given: Mapping[str, Any], by: Mapping[str, str], at: Mapping[str, str], dt: float) -> "_Loop":
        """``at``: how an element is addressed that is held by ..."""
        dtype = next(iter(given.values())).dtype
        if any(value.dtype != dtype for name, value in given.items() if by[name] in at):
            raise NoWord("numbers of several types")
        arrays = {name: f"a{place}" for place, name in enumerate(given)}
        places = {name: array + at[by[name]] for name, array in arrays.items() if by[name] in at}
        return _Loop(given, by, arrays, places, _Numbers(dtype), np.asarray(dt, dtype))

    def local(self, name: str) -> str:
        return f"x{self.arrays[name][1:]}"

    def loads(self, by: str) -> list[str]:
        return [f"{self.local(name)} = {place}" for name, place in self.places.items() if self.by[name] == by]

    def known(self) -> dict[str, Any]:
        numbers = {name: value for name, value in self.given.items() if self.by[name] == "number"}
        return {"dt": self.dt, **numbers, **{name: self.local(name) for name in self.places}}

    def code(self, traced: Traced, words: Mapping[str, str], name: str) -> "_Code":
        if unknown := traced.reads - set(self.known()):  # noise, pooled sums
            raise NoWord(f"{MISSING}{min(unknown)}")
        code = _Code(self, words, name)
        code.results = code.outputs(traced, self.known())
        return code

    def learned(self, update: Traced, constraint: Traced, words: Mapping[str, str]) -> list[str]:
        """The lines of one synapse."""
        code = self.code(update, words, "v")
        if unknown := constraint.reads - set(self.known()):
            raise NoWord(f"{MISSING}{min(unknown)}")
        changed = code.assign(f"{self.local('w')} + {code.results['dw']}")
        code.results["w"] = code.outputs(constraint, {**self.known(), "w": changed})["w"]
        own = [name for name, of in self.by.items() if of == "synapse"]
        return [*self.loads("synapse"), *code.block({name: name for name in own})]

    def run(self, plain: Callable[[dict[str, Any]], tuple[Any, ...]], states: int, body: list[str]) -> Any:
        names = [*self.arrays.values(), *self.numbers.names()]
        source = "\n".join([f"def rows({', '.join(names)}):", *_indented([*self.numbers.loads(), *body])])

        def whole(*arrays: Any) -> tuple[Any, ...]:
            return plain(dict(zip(self.given, arrays, strict=False)))  # without the numbers, which it computes itself

        return compiled(whole, source, states)(*self.given.values(), *self.numbers.arguments())


@dataclass
class _Code:
    """Scalar code of one element of a loop."""

    loop: _Loop
    words: Mapping[str, str]
    name: str  # of its variables
    lines: list[str] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)

    def assign(self, text: str) -> str:
        self.lines.append(f"{self.name}{len(self.lines)} = {text}")
        return f"{self.name}{len(self.lines) - 1}"

    def block(self, names: Mapping[str, str]) -> list[str]:
        """The lines that compute and store results, by name and the name of what is given that they replace."""
        stores = [f"{self.loop.places[given]} = {self.results[name]}" for name, given in names.items()]
        return [*self.needed(names), *stores]

    def needed(self, names: Collection[str]) -> list[str]:
        """The lines that the results of these names need. Raises `NoWord` if one of them could not be printed."""
        wanted = set(re.findall(r"\w+", " ".join(self.results[name] for name in names)))
        kept = []
        for line in reversed(self.lines):
            variable, _, text = line.partition(" = ")
            if variable in wanted:
                if text.startswith(MISSING):
                    raise NoWord(text)
                wanted |= set(re.findall(r"\w+", text))
                kept.append(line)
        return kept[::-1]

    def outputs(self, traced: Traced, known: Mapping[str, Any]) -> dict[str, str]:
        """The outputs of a trace whose inputs are ``known``: text of what differs within the loop, or one number."""
        numbers = self.loop.numbers

        def apply(equation: Any, given: list[Any]) -> Any:
            name, parameters = equation.primitive.name, equation.params
            if not any(isinstance(value, str) for value in given):
                return equation.primitive.bind(*map(jnp.asarray, given), **parameters)
            texts = [numbers.text(value) for value in given]
            if name == "integer_pow" and 1 <= parameters["y"] <= 4:
                return self.assign(" * ".join(texts * parameters["y"]))
            if name == "convert_element_type":
                return self.assign(f"{numbers.dtype}({texts[0]})")
            known_type = all(out.aval.dtype in (numbers.dtype, bool) for out in equation.outvars)
            return self.assign(self.words.get(name, MISSING + name).format(*texts) if known_type else MISSING + name)

        unread = np.ones((), numbers.dtype)
        inputs = [known.get(name, unread) for name in traced.inputs]
        results = inline(traced.jaxpr.jaxpr, inputs, apply, np.asarray, tuple(traced.jaxpr.consts))
        return dict(zip(traced.outputs, map(numbers.text, results), strict=True))


def _where_not_0(array: str, i: str, dtype: Any, inner: list[str]) -> list[str]:
    """A loop over the elements of an array that are not 0; it passes many that are at once."""
    return [
        f"for part in range(0, {array}.shape[0], {PART}):",
        f"    end, some = min(part + {PART}, {array}.shape[0]), {dtype}(0)",
        f"    for {i} in range(part, end):",
        f"        some += abs({array}[{i}])",
        "    if some != 0:",
        f"        for {i} in range(part, end):",
        f"            if {array}[{i}] != 0:",
        *_indented(_indented(_indented(_indented(inner)))),
    ]


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]
