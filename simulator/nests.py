"""A function of small arrays as nests of loops, which are compiled here and not by XLA.

XLA takes 50 to 100 nanoseconds to call each of the dozen or so kernels that it makes of a small network's tick, longer
than most of them take. As nests of loops a tick is one call, or several ticks are (see `ticks`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import xla_metadata
from jax.extend.core import ClosedJaxpr, Literal, Primitive, Var, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from .kernels import Shape, compiled, derived
from .loops import WORDS, indented
from .rules.equations import NoWord, inline

LARGEST = 2**17  # numbers in an array, products in a sum: with more of them XLA is as fast
SIDE_BY_SIDE = 4  # rows of a matrix

_WORDS = WORDS | {
    "tanh": "math.tanh({})", "logistic": "0.5 + 0.5 * math.tanh(0.5 * {})", "rsqrt": "1 / math.sqrt({})",
    "sign": "{kind}({0} > 0) - {kind}({0} < 0)", "clamp": "{0} if {1} < {0} else {2} if {1} > {2} else {1}",
}  # fmt: skip
_SAME = ("copy", "copy_p", "stop_gradient", "xla_metadata_value")
_MOVES = ("broadcast_in_dim", "reshape", "squeeze", "transpose")

marked: Any = xla_metadata.set_xla_metadata

nest: Any = Primitive("nest")  # ``nests`` does what ``plain`` does; both are jaxprs
nest.multiple_results = True


def nested(function: Callable[[Any], Any], state: Any) -> Any:
    """What a function makes of a state, a tree of the same structure, in nests of loops.

    Not so where it does something for which there is no loop with what loops make of the state: then no two states
    could follow each other in one call.
    """
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(state)
    plain, given = without_constants(traced), [*traced.consts, *jax.tree.leaves(state)]
    try:
        nests = jax.make_jaxpr(lambda *arrays: _in_nests(plain, len(traced.consts), arrays))(*plain.in_avals)
    except NoWord:
        out = jaxpr_as_fun(plain)(*given)
    else:
        unread = [Var(atom.aval) for atom in nests.jaxpr.constvars]
        plain = ClosedJaxpr(plain.jaxpr.replace(invars=[*unread, *plain.jaxpr.invars]), ())
        out = nest.bind(*nests.consts, *given, plain=plain, nests=without_constants(nests))
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def without_constants(traced: ClosedJaxpr) -> ClosedJaxpr:
    """The same program, whose constants are its first arguments."""
    jaxpr = traced.jaxpr
    return ClosedJaxpr(jaxpr.replace(invars=[*jaxpr.constvars, *jaxpr.invars], constvars=[]), ())


def _mapped(arrays: Sequence[Any], axes: Sequence[int | None], *, plain: ClosedJaxpr, **_: Any) -> Any:
    out = jax.vmap(jaxpr_as_fun(plain), axes)(*arrays)
    return out, [0] * len(out)


nest.def_impl(lambda *arrays, **given: jax.jit(lambda *arrays: nest.bind(*arrays, **given))(*arrays))
nest.def_abstract_eval(lambda *_, plain, **__: plain.out_avals)
ad.primitive_jvps[nest] = lambda primals, tangents, plain, **_: derived(jaxpr_as_fun(plain), primals, tangents)
batching.primitive_batchers[nest] = _mapped
mlir.register_lowering(nest, mlir.lower_fun(lambda *a, plain, **_: jaxpr_as_fun(plain)(*a), multiple_results=True))


def _in_nests(plain: ClosedJaxpr, constants: int, given: Sequence[Any]) -> list[Any]:
    """What a program makes of its arguments: ``constants``, then the state."""
    flat = jax.make_jaxpr(lambda *a: inline(plain.jaxpr, list(a), _bound, lambda number: number))(*plain.in_avals)
    program = without_constants(flat)
    given, jaxpr = [*flat.consts, *given], program.jaxpr
    equations = _leading(jaxpr.eqns, jaxpr.outvars)
    state = jaxpr.invars[len(flat.consts) + constants :]
    ahead, left = _ahead(equations, state, jaxpr.outvars), list[Any]()
    nests = _Nests()
    values: dict[Any, Value] = {n: _View.whole(_given(a)) for n, a in zip(jaxpr.invars, given, strict=True)}

    def read(atom: Any) -> Value:
        kind: Any = atom.aval
        return np.asarray(atom.val, kind.dtype) if isinstance(atom, Literal) else values[atom]

    for equation in equations:
        try:
            made = nests.apply(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, made, strict=True))
        except NoWord:
            if not ahead.issuperset(equation.outvars):
                raise
            left += equation.outvars
            values |= {name: _View.whole(_Array(name.aval.shape, str(name.aval.dtype))) for name in equation.outvars}
    for name, value in zip(left, _left_to_xla(program, equations, left, given), strict=True):
        values[name].of.value = value  # type: ignore[union-attr]
    return nests.run(list(map(read, jaxpr.outvars)), [atom.aval for atom in jaxpr.outvars], [values[n] for n in state])


def _bound(equation: Any, given: Sequence[Any]) -> Any:
    return equation.primitive.bind(*given, **equation.params)


def _left_to_xla(program: ClosedJaxpr, equations: Sequence[Any], names: Sequence[Any], given: Sequence[Any]) -> Any:
    """What a program's arguments lead to, by these names. As a piece of its own: rounding must not depend on what else
    XLA compiles with it."""
    jaxpr, needed = program.jaxpr, _leading(equations, names)
    read = {atom for equation in needed for atom in equation.invars if not isinstance(atom, Literal)}
    used = [(name, value) for name, value in zip(jaxpr.invars, given, strict=True) if name in read]
    part = jaxpr.replace(invars=[name for name, _ in used], outvars=list(names), eqns=needed)
    function, arguments = jaxpr_as_fun(ClosedJaxpr(part, ())), [value for _, value in used]
    if any(jnp.issubdtype(out.aval.dtype, jnp.floating) for equation in needed for out in equation.outvars):
        return marked(jax.jit(function)(*arguments), inlineable="false")
    return function(*arguments)


def _leading(equations: Sequence[Any], names: Iterable[Any]) -> list[Any]:
    """The equations that lead to these names."""
    wanted, kept = {name for name in names if not isinstance(name, Literal)}, []
    for equation in reversed(equations):
        if not wanted.isdisjoint(equation.outvars):
            wanted |= {atom for atom in equation.invars if not isinstance(atom, Literal)}
            kept.append(equation)
    return kept[::-1]


def _ahead(equations: Sequence[Any], state: Sequence[Any], after: Sequence[Any]) -> set[Any]:
    """What is known of many states ahead: what follows from constants and from integers that count."""
    counts = {name for name in state if name.aval.dtype.kind in "iu" and not name.aval.shape}
    while True:
        follows = set(state) - counts
        for equation in equations:
            if any(atom in follows for atom in equation.invars if not isinstance(atom, Literal)):
                follows |= set(equation.outvars)
        ends = dict(zip(state, after, strict=True))
        kept = {name for name in counts if isinstance(ends[name], Literal) or ends[name] not in follows}
        if kept == counts:
            return {name for equation in equations for name in equation.outvars} - follows
        counts = kept


@dataclass(eq=False)
class _Array:
    """What is given, or what nest number ``place`` makes: ``text`` of an element, from its operands'."""

    shape: tuple[int, ...]
    kind: str
    place: int = -1
    text: str = ""
    operands: tuple["_View | np.ndarray", ...] = ()
    value: Any = None

    @property
    def views(self) -> tuple["_View", ...]:
        return tuple(operand for operand in self.operands if isinstance(operand, _View))


@dataclass(frozen=True)
class _View:
    """An array as an operation reads it: which axis of the view each of its axes is; None where it has length 1."""

    of: _Array
    axes: tuple[int | None, ...]
    shape: tuple[int, ...]

    @staticmethod
    def whole(array: _Array) -> "_View":
        axes = (axis if size > 1 else None for axis, size in enumerate(array.shape))
        return _View(array, tuple(axes), array.shape)

    @property
    def plain(self) -> bool:
        return self == _View.whole(self.of)

    def moved(self, to: Sequence[int | None], shape: tuple[int, ...]) -> "_View":
        """``to``: for each axis of this view that of the new one."""
        return _View(self.of, tuple(None if axis is None else to[axis] for axis in self.axes), shape)


Value = _View | np.ndarray  # the latter: one number


def _given(array: Any) -> _Array:
    return _Array(array.shape, str(array.dtype), value=array)


@dataclass
class _Nest:
    """Loops over all elements of arrays of one shape. ``summed``: the lengths of axes, behind those, that are summed
    over."""

    shape: tuple[int, ...]
    summed: tuple[int, ...]
    arrays: list[_Array] = field(default_factory=list)


class _Nests:
    """The nests of a function, as its equations are read one after another."""

    def __init__(self) -> None:
        self.nests: list[_Nest] = []

    def apply(self, equation: Any, given: list[Value]) -> list[Value]:
        """The results. Raises `NoWord`."""
        shapes = [atom.aval.shape for atom in equation.invars]
        full = [value for value, shape in zip(given, shapes, strict=True) if 0 not in shape]
        empty = [0 in out.aval.shape for out in equation.outvars]
        if equation.primitive.name in ("split", "concatenate") and len(full) == empty.count(False) == 1:
            return [np.zeros(()) if nothing else full[0] for nothing in empty]
        if len(equation.outvars) > 1:
            raise NoWord(equation.primitive.name)
        return [np.zeros(()) if empty[0] else self._value(equation, given, shapes)]

    def _value(self, equation: Any, given: list[Value], shapes: list[tuple[int, ...]]) -> Value:
        name, parameters, out = equation.primitive.name, equation.params, equation.outvars[0].aval
        kinds = {atom.dtype for atom in (out, *(atom.aval for atom in equation.invars))}
        if math.prod(out.shape) > LARGEST or any(not isinstance(kind, np.dtype) for kind in kinds):
            raise NoWord(f"{name} of {out}")
        if name in _SAME or (name == "convert_element_type" and len(kinds) == 1):
            return given[0]
        if name == "convert_element_type" and isinstance(given[0], np.ndarray):
            return given[0].astype(out.dtype)
        if name == "select_n" and isinstance(given[0], np.ndarray):
            return _spread(given[1 + int(given[0])], out.shape)
        if name in _MOVES:
            axes = _moves(name, parameters, shapes[0], out.shape)
            return given[0].moved(axes, out.shape) if isinstance(given[0], _View) else given[0]
        numbers = kinds - {np.dtype(bool)}
        if any(kind not in (np.float32, np.float64) for kind in numbers):
            raise NoWord(f"{name} of {', '.join(map(str, kinds))}")
        if name == "convert_element_type" and out.dtype != bool:
            return self._element(f"{out.dtype}({{}})", given, out)
        if len(numbers) > 1:
            raise NoWord(f"{name} of {', '.join(map(str, kinds))}")
        if name == "dot_general":
            (left, right), batch = parameters["dimension_numbers"]
            if any(batch) or len(out.shape) + len(left) > 2:  # products of matrices are XLA's
                raise NoWord(name)
            return self._sum("{} * {}", given, shapes, [left, right], out)
        if name == "reduce_sum":
            return self._sum("{}", given, shapes, [parameters["axes"]], out)
        if name == "integer_pow" and 1 <= parameters["y"] <= 4:
            return self._element(" * ".join(["{0}"] * parameters["y"]), given, out)
        if name not in _WORDS or len(given) > 3:
            raise NoWord(name)
        return self._element(_WORDS[name], given, out)

    def _sum(
        self, text: str, given: list[Value], shapes: list[tuple[int, ...]], common: Sequence[Sequence[int]], out: Any
    ) -> Value:
        """Over the axes that are ``common`` to arrays; the others of each follow one another in the result."""
        own, whole = len(out.shape), (*out.shape, *(shapes[0][axis] for axis in common[0]))
        if math.prod(whole) > LARGEST or all(isinstance(value, np.ndarray) for value in given):
            raise NoWord(f"a sum over {whole}")
        free, operands = iter(range(own)), []
        for value, shape, gone in zip(given, shapes, common, strict=True):
            to = [own + gone.index(axis) if axis in gone else next(free) for axis in range(len(shape))]
            operands.append(value.moved(to, whole) if isinstance(value, _View) else value)
        if whole == out.shape:
            return self._element(text, operands, out)
        self.nests.append(_Nest(out.shape, whole[len(out.shape) :]))
        return self._made(len(self.nests) - 1, text, operands, out)

    def _element(self, text: str, given: Sequence[Value], out: Any) -> _View:
        """In the first nest of this shape in which what is read is known."""
        operands = [_spread(value, out.shape) for value in given]
        first = max((v.of.place + (not v.plain) for v in operands if isinstance(v, _View)), default=0)
        alike = (p for p, n in enumerate(self.nests) if p >= first and n.shape == out.shape and not n.summed)
        place = next(alike, len(self.nests))
        if place == len(self.nests):
            self.nests.append(_Nest(out.shape, ()))
        return self._made(place, text, operands, out)

    def _made(self, place: int, text: str, operands: Sequence[Value], out: Any) -> _View:
        array = _Array(out.shape, str(out.dtype), place, text, tuple(operands))
        self.nests[place].arrays.append(array)
        return _View.whole(array)

    def run(self, out: Sequence[Value], avals: Sequence[Any], state: Sequence[Any]) -> list[Any]:
        """The arrays of these shapes and types; where it can be, each in the place of the state's."""
        views = [
            value if isinstance(value, _View) and value.plain else self._element("{}", [value], aval)
            for value, aval in zip(out, avals, strict=True)
        ]
        old: dict[_Array, _Array] = {}
        for view, before in zip(views, state, strict=True):
            if view.of.place >= 0:
                old.setdefault(view.of, before.of)
        wanted, left = {view.of for view in views}, list[tuple[_Nest, list[_Array]]]()
        for number, one in reversed(list(enumerate(self.nests))):
            results = [array for array in one.arrays if array in wanted]
            inside = set(results)
            for array in reversed(one.arrays):
                if array in inside:
                    inside |= {view.of for view in array.views if view.of.place == number}
                    wanted |= {view.of for view in array.views if view.of.place != number}
            left.append((_Nest(one.shape, one.summed, [array for array in one.arrays if array in inside]), results))
        for one, results in reversed(left):
            if results:
                _Text(one).run(results, old)
        return [view.of.value for view in views]


def _spread(value: Value, shape: tuple[int, ...]) -> Value:
    """As an operation sees it that makes an array of this shape."""
    if isinstance(value, np.ndarray):
        return value
    return value.moved(range(len(value.shape)), shape)


def _moves(
    name: str, parameters: Mapping[str, Any], old: tuple[int, ...], new: tuple[int, ...]
) -> Sequence[int | None]:
    """For each axis before an operation its axis behind it."""
    if name == "broadcast_in_dim":
        return list(map(int, parameters["broadcast_dimensions"]))
    if name == "transpose":
        return [parameters["permutation"].index(axis) for axis in range(len(old))]
    long = [axis for axis, size in enumerate(new) if size > 1]
    if [size for size in old if size > 1] != [new[axis] for axis in long]:
        raise NoWord(f"{name} from {old} to {new}")
    places = iter(long)
    return [next(places) if size > 1 else None for size in old]


class _Text:
    """The source of a nest, and its call."""

    def __init__(self, one: _Nest) -> None:
        self._nest = one
        self._names: dict[_Array, str] = {}  # of arrays
        self._local: dict[_Array, str] = {}  # of their elements

    def run(self, results: Sequence[_Array], old: Mapping[_Array, _Array]) -> None:
        """Give the results values, as kernels make them. ``old``: in place of what each may be made."""
        moved = {v.of for array in self._nest.arrays for v in array.views if self._nest.summed or not v.plain}
        places, fresh = dict[_Array, _Array](), list[_Array]()
        for array in results:
            before = old.get(array)
            if before is None or before in moved or (before.shape, before.kind) != (array.shape, array.kind):
                self._names[array] = f"r{len(fresh)}"
                fresh.append(array)
            else:
                places[array] = before
        lines = self._sum(places) if self._nest.summed else self._elements(results, places)
        given = [array for array in self._names if array not in fresh]
        names = [self._names[array] for array in (*given, *fresh)]
        source = "\n".join([f"def rows({', '.join(names)}):", *indented(lines)])
        over = [given.index(places[a]) if a in places else Shape(a.shape, np.dtype(a.kind)) for a in results]
        made = compiled(_never, source, over)(*(array.value for array in given))
        for array, value in zip(results, made, strict=True):
            array.value = value

    def _elements(self, results: Sequence[_Array], places: Mapping[_Array, _Array]) -> list[str]:
        lines = []
        for number, array in enumerate(self._nest.arrays):
            lines.append(f"v{number} = {self._word(array)}")
            self._local[array] = f"v{number}"
        lines += [f"{self._at(_View.whole(places.get(array, array)))} = {self._local[array]}" for array in results]
        return self._looped(range(len(self._nest.shape)), lines)

    def _sum(self, places: Mapping[_Array, _Array]) -> list[str]:
        (array,) = self._nest.arrays
        out = _View.whole(places.get(array, array))
        own, summed = range(len(out.shape)), range(len(out.shape), len(out.shape) + len(self._nest.summed))
        largest = max(array.views, key=lambda view: math.prod(view.of.shape))
        zero = f"{array.kind}(0)"
        if largest.axes and largest.axes[-1] in own:  # neighbours belong to different sums
            lines = self._looped([*summed, *own], [f"{self._at(out)} += {self._word(array)}"])
            return [f"{self._name(out.of)}[:] = {zero}", *lines]
        rows = range(SIDE_BY_SIDE if own and out.shape[-1] % SIDE_BY_SIDE == 0 else 1)
        lines = self._looped(summed, [f"t{row} += {self._word(array, row)}" for row in rows])
        lines = [*(f"t{row} = {zero}" for row in rows), *lines, *(f"{self._at(out, row)} = t{row}" for row in rows)]
        return self._looped(own, lines, len(rows))

    def _looped(self, axes: Sequence[int], lines: list[str], step: int = 1) -> list[str]:
        """Lines for all places along axes; ``step``: along the last of them."""
        lengths = (*self._nest.shape, *self._nest.summed)
        for axis in reversed(axes):
            lines = [f"for i{axis} in range(0, {lengths[axis]}, {step}):", *indented(lines)]
            step = 1
        return lines

    def _word(self, array: _Array, row: int = 0) -> str:
        return array.text.format(*(self._operand(value, row) for value in array.operands), kind=array.kind)

    def _operand(self, value: Value, row: int) -> str:
        if isinstance(value, np.ndarray):
            return f"{value.dtype}({value.item()!r})" if value.dtype != bool else repr(value.item())
        local = self._local.get(value.of) if value.plain else None
        return local or self._at(value, row)

    def _at(self, view: _View, row: int = 0) -> str:
        """An element, or the same that many rows on."""
        last = len(self._nest.shape) - 1
        places = ("0" if a is None else f"i{a} + {row}" if row and a == last else f"i{a}" for a in view.axes)
        return f"{self._name(view.of)}[{', '.join(places) or '0'}]"

    def _name(self, array: _Array) -> str:
        return self._names.setdefault(array, f"a{len(self._names)}")


def _never(*_: Any) -> Any:
    raise AssertionError("a nest is lowered as kernels on a CPU only")
