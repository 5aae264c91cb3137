"""The loops that are compiled: sums over synapses, ticks of learning, ticks of neurons.

The scalar code in the middle of a loop is printed from the trace of a rule or a neuron. What is the same for all
elements of a loop, such as a decay within a tick, is left to XLA and passed in.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .kernels import Shape, compiled
from .networks.fields import Fields
from .rules.equations import NoWord, Traced, inline

WORDS = {
    "add": "{} + {}", "add_any": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}",
    "square": "{0} * {0}", "sqrt": "math.sqrt({})", "abs": "abs({})", "copy": "{}", "stop_gradient": "{}",
    "max": "{0} if ({0} > {1}) | ({0} != {0}) else {1}", "min": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
    "gt": "{} > {}", "lt": "{} < {}", "ge": "{} >= {}", "le": "{} <= {}", "eq": "{} == {}", "ne": "{} != {}",
    "and": "{} & {}", "or": "{} | {}", "not": "not {}", "select_n": "{2} if {0} else {1}",
}  # fmt: skip
# XLA vectorises the rest and LLVM by itself does not: a loop over all synapses, or of neurons alone, leaves it to XLA.
_EVENT_WORDS = WORDS | {
    "exp": "math.exp({})", "log": "math.log({})", "expm1": "math.expm1({})", "log1p": "math.log1p({})",
    "tanh": "math.tanh({})", "logistic": "1 / (1 + math.exp(-{}))", "pow": "{} ** {}", "floor": "math.floor({})",
    "sin": "math.sin({})", "cos": "math.cos({})",
}  # fmt: skip
MISSING = "no word for "
PART = 64  # elements that are looked at together for one that is not 0


@dataclass
class _Numbers:
    """What XLA computes for a loop, once a tick: the argument ``e`` of ``rows``."""

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

    def array(self) -> Any:
        return jnp.stack([jnp.asarray(value, self.dtype) for value in (*self.values, 0)])

    def loads(self) -> list[str]:
        return [f"s{place} = e[{place}]" for place in range(len(self.values))]


def weighted_sum(w: Any, index: Any, x: Any) -> Any:
    """For every row the sum of ``w * x[index]``: (rows, width), (rows, width), (pre,) -> (rows,)."""

    def plain(w: Any, index: Any, x: Any) -> Any:
        return ((w * x.at[index].get(mode="promise_in_bounds")).sum(-1),)

    source = f"""
def rows(w, index, x, out):
    for i in range(w.shape[0]):
        total = {w.dtype}(0)
        for j in range(w.shape[1]):
            total += w[i, j] * x[index[i, j]]
        out[i] = total
"""
    return compiled(plain, source, (Shape(w.shape[:1], w.dtype),))(w, index, x)[0]


def sum_of_events(w: Any, wiring: Fields, x: Any) -> Any:
    """What arrives at every target: the sum of ``w * x`` over its synapses, in time that follows the ``x`` that are not
    0. (synapses, 1), the wiring of an `EventLayout`, (pre,) -> (post,)."""

    def plain(w: Any, starts: Any, targets: Any, x: Any, found: Any, begins: Any, index: Any) -> Any:
        return (jax.ops.segment_sum(w[:, 0] * x[index[:, 0]], targets, begins.shape[0] - 1),)

    inner = ["for k in range(starts[p], starts[p + 1]):", "    out[targets[k]] += w[k, 0] * x[p]"]
    body = [f"out[:] = {w.dtype}(0)", *at_places("found", "p", inner)]
    source = "\n".join(["def rows(w, starts, targets, x, found, out):", *indented(body)])
    arrays = (w, wiring.starts, wiring.targets, x, places(x), wiring.begins, wiring.index)
    return compiled(plain, source, (Shape((wiring.begins.shape[0] - 1,), w.dtype),), 2)(*arrays)[0]


def places(x: Any) -> Any:
    """Where an array is not 0: (n,) -> (1 + n,), how many there are and then the first of them (the others: any)."""

    def plain(x: Any) -> Any:
        found = jnp.flatnonzero(x, size=x.shape[0], fill_value=0)
        return (jnp.concatenate([jnp.count_nonzero(x)[None], found]).astype(jnp.int32),)

    source = f"""
def rows(x, found):
    n, count = x.shape[0], 0
    for first in range(0, n, {PART}):
        last, some = n, {x.dtype}(1)
        if first + {PART} <= n:
            last, some = first + {PART}, {x.dtype}(0)
            for i in range(first, first + {PART}):  # a length that is known is vectorised best
                some += abs(x[i])
        if some != 0:
            for i in range(first, last):
                if x[i] != 0:
                    count += 1
                    found[count] = i
    found[0] = count
"""
    return compiled(plain, source, (Shape((1 + x.shape[0],), jnp.int32),))(x)[0]


def added(total: Any, values: Any, gain: float) -> Any:
    """The sum of ``total`` (None: 0) and of ``gain`` times ``values``, all (n,)."""
    if total is None:
        if gain == 1:
            return values
        total = jnp.zeros_like(values)

    def plain(total: Any, values: Any, gain: Any) -> Any:
        return (total + gain * values,)

    source = """
def rows(total, values, gain):
    for i in range(total.shape[0]):
        total[i] += gain[0] * values[i]
"""
    return compiled(plain, source, (0,))(total, values, jnp.asarray(gain, values.dtype))[0]


def kept(past: Any, values: Any, slot: Any) -> Any:
    """Past values, (length, n), with (n,) new ones in a slot."""

    def plain(past: Any, values: Any, slot: Any) -> Any:
        return (jax.lax.dynamic_update_index_in_dim(past, values, slot, 0),)

    source = """
def rows(past, values, slot):
    for i in range(values.shape[0]):
        past[slot[0], i] = values[i]
"""
    return compiled(plain, source, (0,))(past, values, slot)[0]


def recalled(past: Any, slot: Any) -> Any:
    """The past values in a slot."""

    def plain(past: Any, slot: Any) -> Any:
        return (jax.lax.dynamic_index_in_dim(past, slot, 0, keepdims=False),)

    source = """
def rows(past, slot, values):
    for i in range(values.shape[0]):
        values[i] = past[slot[0], i]
"""
    return compiled(plain, source, (Shape(past.shape[1:], past.dtype),))(past, slot)[0]


def neurons(
    traced: Traced, given: Mapping[str, Any], dt: float, plain: Callable[[dict[str, Any]], tuple[Any, ...]]
) -> Any:
    """The fields of a population's neurons after a tick, in place or, where ``traced`` does not read one, anew.

    ``given``: the fields first, as ``state.*``, then what else it reads, by name: one number, or one for each neuron. A
    field that it does not read may be a `Shape`. ``plain`` makes of a dictionary like ``given`` the same fields in the
    same order. Raises `NoWord` where there is no loop for it.
    """
    fields = [name for name in given if name.startswith("state.")]
    blank = {name: Shape(given[name].shape, given[name].dtype) for name in fields if name not in traced.reads}
    given = {name: value for name, value in given.items() if name not in blank}
    by = {name: "neuron" if jnp.ndim(value) else "number" for name, value in given.items()}
    loop = _Loop.over(given, by, {"neuron": "[i]"}, dt)
    code = loop.code(traced, WORDS, "v")
    places = {**loop.places, **{name: f"r{number}[i]" for number, name in enumerate(blank)}}
    several = next(array for name, array in loop.arrays.items() if by[name] == "neuron")
    stores = code.block({name.removeprefix("state."): places[name] for name in fields})
    body = [f"for i in range({several}.shape[0]):", *indented(loop.loaded("neuron", stores))]
    order = list(given)

    def whole(named: dict[str, Any]) -> tuple[Any, ...]:
        return plain({**named, **{name: jnp.zeros(kind.shape, kind.dtype) for name, kind in blank.items()}})

    return loop.run(whole, [order.index(name) if name in given else blank[name] for name in fields], body)


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
    a value is held by "synapse", "pre" or "post", is "wiring" or a "number". In an `EventLayout` only the synapses of
    pre neurons that send something and of such post neurons are looked at, and the synaptic state that is held with
    the neurons (``syn.*``) comes next in ``given``, in place too. Raises `NoWord`.
    """
    by_events = "starts" in given
    at = (
        {"synapse": "[k, 0]", "pre": "[p]", "post": "[q]"}
        if by_events
        else {"synapse": "[i, j]", "pre": "[p]", "post": "[i]"}
    )
    if by_events:
        some = {"sending": "pre.x", "firing": "post.x"}
        given = {**given, **{name: places(given[x]) for name, x in some.items() if x in given}}
        by = {**by, **dict.fromkeys(some, "wiring")}
    loop = _Loop.over(given, by, at, dt)
    synapse = loop.learned(update, constraint, _EVENT_WORDS if by_events else WORDS)
    states = [name for name, of in by.items() if of == "synapse" or (by_events and name.startswith("syn."))]
    body = _at_events(loop, update, synapse) if by_events else _everywhere(loop, synapse)
    return loop.run(plain, range(len(states)), body)


def _everywhere(loop: "_Loop", synapse: list[str]) -> list[str]:
    """The lines of one ``synapse`` for all of them, row by row."""
    index, degrees = loop.arrays["index"], loop.arrays["degrees"]
    inner = [f"p = {index}[i, j]", *loop.loaded("pre", synapse)]
    row = loop.loaded("post", [f"for j in range({degrees}[i]):", *indented(inner)])
    return ["for i in range(a0.shape[0]):", *indented(row)]


def _at_events(loop: "_Loop", update: Traced, synapse: list[str]) -> list[str]:
    """The lines of one ``synapse`` for those at which something happens, once for each; then the neurons' own."""
    starts, begins, afferents, index, targets = (
        loop.arrays[name] for name in ("starts", "begins", "afferents", "index", "targets")
    )
    sends, fires = loop.arrays.get("pre.x"), loop.arrays.get("post.x")
    body = []
    if sends:
        inner = [f"q = {targets}[k]", *loop.loaded("post", synapse)]
        inner = loop.loaded("pre", [f"for k in range({starts}[p], {starts}[p + 1]):", *indented(inner)])
        body += at_places(loop.arrays["sending"], "p", inner)
    if fires:
        inner = loop.loaded("pre", synapse)
        inner = [f"if {sends}[p] == 0:", *indented(inner)] if sends else inner
        inner = [f"k = {afferents}[m]", f"p = {index}[k, 0]", *inner]
        inner = loop.loaded("post", [f"for m in range({begins}[q], {begins}[q + 1]):", *indented(inner)])
        body += at_places(loop.arrays["firing"], "q", inner)
    for side, i, pointers in (("pre", "p", starts), ("post", "q", begins)):
        held = [name for name, of in loop.by.items() if of == side and name.startswith("syn.")]
        if held:
            own = loop.code(update, _EVENT_WORDS, side)
            inner = loop.loaded(side, own.block({name: loop.places[name] for name in held}))
            body += [f"for {i} in range({pointers}.shape[0] - 1):", *indented(inner)]
    return body


def printable(update: Traced, constraint: Traced) -> bool:
    """Whether a rule can be learned by events."""
    by = {"w": "synapse", "syn": "synapse", "pre": "pre", "post": "post"}
    return _has_words(lambda: _imagined((update, constraint), by).learned(update, constraint, _EVENT_WORDS))


def neuron_printable(traced: Traced, several: Collection[str]) -> bool:
    """Whether `neurons` has a loop for these. ``several``: the parameters (``neuron.*``) that every neuron has for
    itself."""
    by = dict.fromkeys(("state", "ports", "noise", *several), "neuron")
    return _has_words(lambda: _imagined((traced,), by).code(traced, WORDS, "v").needed(traced.outputs))


def _has_words(prints: Callable[[], Any]) -> bool:
    def attempt() -> None:
        prints()

    try:
        jax.eval_shape(attempt)  # what XLA would compute for the loop, it need not compute now
    except NoWord:
        return False
    return True


def _imagined(traces: tuple[Traced, ...], by: Mapping[str, str]) -> "_Loop":
    """A loop over what traces read. ``by``: what is held by whom, by its name or the first word of that; else it is a
    number."""
    given = {"w": jnp.ones(())}
    for traced in traces:
        for name, kind in zip(traced.inputs, traced.jaxpr.in_avals, strict=True):
            given[name] = jnp.ones((), kind.dtype)
    whose = {name: by.get(name, by.get(name.partition(".")[0], "number")) for name in given}
    return _Loop.over(given, whose, dict.fromkeys(by.values(), ""), 1.0)


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

    def loaded(self, by: str, lines: list[str]) -> list[str]:
        """Lines, behind what loads the values that they need of those held by ..."""
        words = set(re.findall(r"\w+", " ".join(lines)))
        loads = {self.local(name): place for name, place in self.places.items() if self.by[name] == by}
        return [*(f"{name} = {place}" for name, place in loads.items() if name in words), *lines]

    def known(self) -> dict[str, Any]:
        numbers = {name: value for name, value in self.given.items() if self.by[name] == "number"}
        return {"dt": self.dt, **numbers, **{name: self.local(name) for name in self.places}}

    def code(self, traced: Traced, words: Mapping[str, str], name: str) -> "_Code":
        code = _Code(self, words, name)
        code.results = code.outputs(traced, self.known())
        return code

    def learned(self, update: Traced, constraint: Traced, words: Mapping[str, str]) -> list[str]:
        """The lines of one synapse."""
        code = self.code(update, words, "v")
        changed = code.assign(f"{self.local('w')} + {code.results['dw']}")
        code.results["w"] = code.outputs(constraint, {**self.known(), "w": changed})["w"]
        own = [name for name, of in self.by.items() if of == "synapse"]
        return self.loaded("synapse", code.block({name: self.places[name] for name in own}))

    def run(
        self, plain: Callable[[dict[str, Any]], tuple[Any, ...]], over: Sequence[int | Shape], body: list[str]
    ) -> Any:
        """``over``: see `compiled`."""
        text = "\n".join(indented([*self.numbers.loads(), *body]))
        used = [name for name, array in self.arrays.items() if re.search(rf"\b{array}\b", text)]
        rest = [name for name in self.given if name not in used]
        made = [f"r{number}" for number in range(sum(not isinstance(one, int) for one in over))]
        source = f"def rows({', '.join([*(self.arrays[name] for name in used), 'e', *made])}):\n{text}"
        order, given = [*used, "", *rest], list(self.given)

        def whole(*arrays: Any) -> tuple[Any, ...]:
            return plain(dict(zip(order, arrays, strict=True)))  # the numbers it computes itself

        places = [used.index(given[one]) if isinstance(one, int) else one for one in over]
        arrays = (self.given[name] if name else self.numbers.array() for name in order)
        return compiled(whole, source, places, len(rest))(*arrays)


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

    def block(self, places: Mapping[str, str]) -> list[str]:
        """The lines that compute results, by name, and store them in these places."""
        return [*self.needed(places), *(f"{place} = {self.results[name]}" for name, place in places.items())]

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
        if unknown := traced.reads - set(known):  # noise, pooled sums
            raise NoWord(f"{MISSING}{min(unknown)}")
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


def at_places(found: str, i: str, inner: list[str]) -> list[str]:
    """A loop over the elements of an array that `places` found."""
    return [
        f"for s in range(1, {found}[0] + 1):",
        f"    {i} = {found}[s]",
        *indented(inner),
    ]


def indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]
