"""Loops that are written in a little of Python become machine code, by LLVM.

A text defines a function ``rows`` of arrays, of which types and shapes are known: ``for`` over a range, ``if``,
assignments to variables, elements and whole arrays (``a[:] = 0``), the lengths ``a.shape[i]``, arithmetic, comparisons,
and of `math` what has a name below. A variable keeps the type of its first value. Integers have 64 bits; those that
index, divide or are divided are not negative. Numbers that are written out take the type of what they meet. The same
text runs in Python.

Numba compiles more of Python, and takes over a second for the ten or so loops of a network, most of it to infer types.
"""

import ast
import functools
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

Kind = tuple[str, tuple[int, ...]]  # type and shape of an array

_BIT, _INTEGER = ir.IntType(1), ir.IntType(64)
_ZERO, _ONE = _INTEGER(0), _INTEGER(1)
_CALLED = ir.FunctionType(ir.VoidType(), [_INTEGER, _INTEGER])  # with the arrays of a call, and which of them it uses
_FLOATS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
_ORDER = [_BIT, _INTEGER, *_FLOATS.values()]  # of two types, what they make together is the later one
_FAST = ("reassoc", "contract", "nsz")  # sums in any order, or LLVM could not vectorise them
_CALCULATIONS = {
    ast.Add: ("add", "fadd"), ast.Sub: ("sub", "fsub"), ast.Mult: ("mul", "fmul"), ast.Div: (None, "fdiv"),
    ast.FloorDiv: ("udiv", None), ast.Mod: ("urem", None), ast.LShift: ("shl", None),
    ast.BitAnd: ("and_", None), ast.BitOr: ("or_", None),
}  # fmt: skip
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_INTRINSICS = ("exp", "log", "sin", "cos", "sqrt", "floor")
_OF_C = ("expm1", "log1p", "tanh")

# The hyperbolic tangent of y = x / 2 by its Padé approximant of order (9, 8), and that of x by its double angle: within
# 4 units of the last place of float32. LLVM can vectorise it, as it cannot a call of C.
_TANH = ast.parse("""
tanh_y = 0.5 * (9.02 if tanh_x > 9.02 else -9.02 if tanh_x < -9.02 else tanh_x)
tanh_s = tanh_y * tanh_y
tanh_over = 34459425.0 + tanh_s * (4729725.0 + tanh_s * (135135.0 + tanh_s * (990.0 + tanh_s)))
tanh_under = 34459425.0 + tanh_s * (16216200.0 + tanh_s * (945945.0 + tanh_s * (13860.0 + tanh_s * 45.0)))
tanh_t = tanh_y * (tanh_over / tanh_under)
tanh_x = 2.0 * tanh_t / (1.0 + tanh_t * tanh_t)
""").body

_kept: list[Any] = []  # what may be called lives as long as the process
_one_at_a_time = threading.Lock()


@functools.cache
def rows(source: str, kinds: tuple[Kind, ...], mapped: tuple[tuple[bool, ...], ...] = ()) -> int:
    """The address of a function for `handler` to call: the ``rows`` of a text with arrays of these kinds, which do not
    overlap, for each copy along the leading axes. ``mapped``: for each such axis, the outermost first, the arrays that
    have it."""
    module, pointers = ir.Module(), [_stored(dtype).as_pointer() for dtype, _ in kinds]
    inner = ir.Function(module, ir.FunctionType(ir.VoidType(), pointers), "rows")
    inner.linkage = "internal"
    outer = ir.Function(module, _CALLED, "copies")
    axes = [sum(has[number] for has in mapped) for number in range(len(kinds))]
    for argument in inner.args:
        argument.add_attribute("noalias")
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    body = _Body(ir.IRBuilder(inner.append_basic_block()))
    for name, argument, (dtype, shape), own in zip(definition.args.args, inner.args, kinds, axes, strict=True):
        body.arrays[name.arg] = _Array(argument, dtype, shape[own:] or (1,))
    body.run(definition.body)
    body.builder.ret_void()

    data, places = outer.args
    builder = ir.IRBuilder(outer.append_basic_block())

    def each(level: int, given: list[ir.Value]) -> None:
        if level == len(mapped):
            builder.call(inner, given)
            return
        whole = next(number for number, has in enumerate(mapped[level]) if has)
        size = kinds[whole][1][sum(has[whole] for has in mapped[:level])]
        with _counted(builder, _ZERO, _INTEGER(size)) as (copy, _):
            here = list(given)
            for number, has in enumerate(mapped[level]):
                if has:
                    inside = sum(has[number] for has in mapped[: level + 1])
                    step = _INTEGER(math.prod(kinds[number][1][inside:]))
                    here[number] = builder.gep(given[number], [builder.mul(copy, step)])
            each(level + 1, here)

    addresses = [_at(builder, data, _at(builder, places, _INTEGER(number))) for number in range(len(kinds))]
    each(0, [builder.inttoptr(address, pointer) for address, pointer in zip(addresses, pointers, strict=True)])
    builder.ret_void()
    # LLVM would unroll a short loop of known ends before it vectorises it, and then not vectorise it.
    loops = [node for node in ast.walk(definition) if isinstance(node, ast.For)]
    known = any(all(isinstance(end, ast.Constant) for end in loop.iter.args) for loop in loops)  # type: ignore[attr-defined]
    return _compiled(module, outer, unrolled=not known)


def handler(calls: Sequence[tuple[int, Sequence[int]]], arguments: int, results: int, version: tuple[int, ...]) -> int:
    """The address of a function that XLA calls with a call frame. It calls what `rows` made, by their addresses, each
    with some of the frame's arrays: the arguments are counted first, then the results."""
    # In words of 8 bytes, a call frame: 1 extension, 9 arguments, 14 results; a buffer: 3 data. An extension of type 1
    # (word 1, first half) asks for the version of the interface: word 3 of what the extension's word 3 points at.
    places = [np.array(own, np.int64) for _, own in calls]
    table = np.array([(address, own.ctypes.data) for (address, _), own in zip(calls, places, strict=True)], np.int64)
    _kept.append((places, table))

    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(_INTEGER, [_INTEGER]), "handler")
    builder = ir.IRBuilder(function.append_basic_block())
    (frame,) = function.args
    extension = _at(builder, frame, _ONE)
    with builder.if_then(builder.icmp_unsigned("!=", extension, _ZERO), likely=False):
        kind = builder.trunc(_at(builder, extension, _ONE), ir.IntType(32))
        with builder.if_then(builder.icmp_unsigned("==", kind, kind.type(1))):
            number = _INTEGER(version[0] | version[1] << 32)
            builder.store(number, _pointer(builder, _at(builder, extension, _INTEGER(3)), _INTEGER(3)))
            builder.ret(_ZERO)
    data = builder.ptrtoint(builder.alloca(_INTEGER, arguments + results), _INTEGER)
    for word, first, count in ((9, 0, arguments), (14, arguments, results)):
        buffers = _at(builder, frame, _INTEGER(word))
        with _counted(builder, _ZERO, _INTEGER(count)) as (place, _):
            array = _at(builder, _at(builder, buffers, place), _INTEGER(3))
            builder.store(array, _pointer(builder, data, builder.add(place, _INTEGER(first))))
    with _counted(builder, _ZERO, _INTEGER(2 * len(calls)), _INTEGER(2)) as (row, _):
        address, own = (_at(builder, _INTEGER(table.ctypes.data), builder.add(row, _INTEGER(n))) for n in range(2))
        builder.call(builder.inttoptr(address, _CALLED.as_pointer()), [data, own])
    builder.ret(_ZERO)
    return _compiled(module, function, fast=False)


def _pointer(builder: ir.IRBuilder, address: ir.Value, place: ir.Value) -> ir.Value:
    return builder.gep(builder.inttoptr(address, _INTEGER.as_pointer()), [place])


def _at(builder: ir.IRBuilder, address: ir.Value, place: ir.Value) -> ir.Value:
    """The word of 8 bytes at a place of those at an address."""
    return builder.load(_pointer(builder, address, place))


@functools.cache
def _engine() -> tuple[Any, Any]:
    """What compiles and keeps machine code, and the machine."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    here = {"cpu": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten()}
    machine = llvm.Target.from_default_triple().create_target_machine(**here, opt=3, jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine), machine


def _compiled(module: ir.Module, function: ir.Function, *, fast: bool = True, unrolled: bool = True) -> int:
    """``fast``: the code, not the compilation. ``unrolled``: loops may be."""
    with _one_at_a_time:
        engine, machine = _engine()
        function.name = f"{function.name}_{len(_kept)}"
        parsed = llvm.parse_assembly(str(module))
        options = llvm.create_pipeline_tuning_options(speed_level=3 if fast else 1)
        options.loop_vectorization = options.slp_vectorization = fast
        options.loop_unrolling = fast and unrolled
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
        engine.add_module(parsed)
        engine.finalize_object()
        _kept.append(parsed)
        return int(engine.get_function_address(function.name))


def _stored(dtype: str) -> ir.Type:
    return _FLOATS.get(dtype) or ir.IntType(8 * np.dtype(dtype).itemsize)


@contextmanager
def _counted(builder: ir.IRBuilder, first: ir.Value, end: ir.Value, step: ir.Value = _ONE) -> Iterator[tuple[Any, Any]]:
    """What is built within is done for each number from the first to the end: that number, and where it is kept."""
    counter = _variable(builder, _INTEGER)
    builder.store(first, counter)
    again, body, after = (builder.append_basic_block() for _ in range(3))
    builder.branch(again)
    builder.position_at_end(again)
    number = builder.load(counter)
    builder.cbranch(builder.icmp_signed("<", number, end), body, after)
    builder.position_at_end(body)
    yield number, counter
    builder.store(builder.add(number, step, flags=("nsw",)), counter)
    builder.branch(again)
    builder.position_at_end(after)


def _variable(builder: ir.IRBuilder, kind: ir.Type) -> ir.Value:
    with builder.goto_entry_block():
        return builder.alloca(kind)


@dataclass(frozen=True)
class _Array:
    pointer: ir.Value
    dtype: str
    shape: tuple[int, ...]


class _Body:
    """Statements, and what expressions are worth, as instructions."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.arrays: dict[str, _Array] = {}
        self._variables: dict[str, ir.Value] = {}

    def run(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)):
                    for target, value in zip(targets, [self._value(value) for value in values], strict=True):
                        self._store(target, value)
                case ast.Assign([target], value):
                    self._store(target, self._value(value))
                case ast.AugAssign(target, operator, value):
                    self._store(target, self._value(ast.BinOp(target, operator, value)))
                case ast.For(ast.Name(name), ast.Call(ast.Name("range"), bounds), inner):
                    first, end, *step = map(self._value, bounds if len(bounds) > 1 else [ast.Constant(0), *bounds])
                    with _counted(self.builder, first, end, *step) as (_, counter):
                        self._variables[name] = counter
                        self.run(inner)
                case ast.If(test, inner, []):
                    with self.builder.if_then(self._cast(self._value(test), _BIT)):
                        self.run(inner)
                case _:
                    raise NotImplementedError(ast.unparse(statement))

    def _store(self, target: ast.expr, value: ir.Value) -> None:
        match target:
            case ast.Name(name):
                if name not in self._variables:
                    self._variables[name] = _variable(self.builder, value.type)
                if _ORDER.index(value.type) > _ORDER.index(self._variables[name].type.pointee):
                    raise NotImplementedError(f"{name} has held another type before")
                self._set(self._variables[name], value)
            case ast.Subscript(ast.Name(name), ast.Slice(None, None, None)):
                array = self.arrays[name]
                size = _INTEGER(math.prod(array.shape))
                with _counted(self.builder, _ZERO, size) as (place, _):
                    self._set(self.builder.gep(array.pointer, [place]), value)
            case _:
                self._set(self._element(target)[0], value)

    def _set(self, pointer: ir.Value, value: ir.Value) -> None:
        kind = pointer.type.pointee
        if isinstance(kind, ir.IntType) and kind != value.type:
            whole = self._cast(value, _INTEGER)
            value = whole if kind == _INTEGER else self.builder.trunc(whole, kind)
        self.builder.store(self._cast(value, kind), pointer)

    def _element(self, target: ast.expr) -> tuple[ir.Value, str]:
        """Where an element lies, and its type."""
        match target:
            case ast.Subscript(ast.Name(name), index) if name in self.arrays:
                array = self.arrays[name]
                indices = index.elts if isinstance(index, ast.Tuple) else [index]
                place = _ZERO
                for value, size in zip(map(self._value, indices), array.shape, strict=True):
                    place = self.builder.mul(place, _INTEGER(size), flags=("nsw",))
                    place = self.builder.add(place, value, flags=("nsw",))
                return self.builder.gep(array.pointer, [place], inbounds=True), array.dtype
        raise NotImplementedError(ast.unparse(target))

    def _value(self, expression: ast.expr) -> ir.Value:
        build = self.builder
        match expression:
            case ast.Constant(bool(number)):
                return _BIT(number)
            case ast.Constant(int(number)):
                return _INTEGER(number)
            case ast.Constant(float(number)):
                return _FLOATS["float64"](number)
            case ast.Name("inf" | "nan" as name):
                return _FLOATS["float64"](getattr(math, name))
            case ast.Name(name):
                return build.load(self._variables[name])
            case ast.Subscript(ast.Attribute(ast.Name(name), "shape"), ast.Constant(int(axis))):
                return _INTEGER(self.arrays[name].shape[axis])
            case ast.Subscript():
                pointer, dtype = self._element(expression)
                value = build.load(pointer)
                if dtype in _FLOATS or value.type == _INTEGER:
                    return value
                if dtype == "bool":
                    return build.icmp_unsigned("!=", value, value.type(0))
                return (build.zext if dtype.startswith("uint") else build.sext)(value, _INTEGER)
            case ast.UnaryOp(ast.USub(), ast.Constant(float(number))):
                return _FLOATS["float64"](-number)
            case ast.UnaryOp(ast.USub(), operand):
                value = self._value(operand)
                return build.neg(value) if value.type == _INTEGER else build.fneg(value, flags=_FAST)
            case ast.UnaryOp(ast.Not(), operand):
                return build.not_(self._cast(self._value(operand), _BIT))
            case ast.BinOp(left, ast.Pow(), right):
                return self._call("llvm.pow", *self._alike(self._value(left), self._value(right)))
            case ast.BinOp(left, operator, right):
                first, second = self._alike(self._value(left), self._value(right))
                of_integers, of_floats = _CALCULATIONS[type(operator)]
                if first.type in _FLOATS.values() and of_floats:
                    return getattr(build, of_floats)(first, second, flags=_FAST)
                if first.type not in _FLOATS.values() and of_integers:
                    flags = {"flags": ("nsw",)} if of_integers in ("add", "sub", "mul") else {}
                    return getattr(build, of_integers)(first, second, **flags)
            case ast.Compare(left, [operator], [right]):
                first, second = self._alike(self._value(left), self._value(right))
                sign = _COMPARISONS[type(operator)]
                if first.type not in _FLOATS.values():
                    return build.icmp_signed(sign, first, second)
                return (build.fcmp_unordered if sign == "!=" else build.fcmp_ordered)(sign, first, second)
            case ast.IfExp(test, yes, no):
                return build.select(
                    self._cast(self._value(test), _BIT), *self._alike(self._value(yes), self._value(no))
                )
            case ast.Call(ast.Name(name), [operand]) if name in _FLOATS:
                return self._cast(self._value(operand), _FLOATS[name])
            case ast.Call(ast.Name("abs"), [operand]):
                return self._call("llvm.fabs", self._value(operand))
            case ast.Call(ast.Attribute(ast.Name("math"), name), [operand]) if name in _INTRINSICS:
                return self._call(f"llvm.{name}", self._value(operand))
            case ast.Call(ast.Attribute(ast.Name("math"), name), [operand]) if name in _OF_C:
                value = self._value(operand)
                if name != "tanh" or value.type != _FLOATS["float32"]:
                    return self._call(name, value)
                self._variables["tanh_x"] = _variable(build, value.type)
                build.store(value, self._variables["tanh_x"])
                self.run(_TANH)
                return build.load(self._variables["tanh_x"])
        raise NotImplementedError(ast.unparse(expression))

    def _call(self, name: str, *given: ir.Value) -> ir.Value:
        """Of LLVM, or of C, where a function of float32 has an f behind its name."""
        kind = given[0].type
        single = kind == _FLOATS["float32"]
        name += (".f32" if single else ".f64") if name.startswith("llvm.") else "f" if single else ""
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind] * len(given)), name)
        return self.builder.call(function, given, fastmath=_FAST)

    def _alike(self, first: ir.Value, second: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Two values as one type."""
        floats = [value for value in (first, second) if value.type in _FLOATS.values()]
        own = [value for value in floats if not isinstance(value, ir.Constant)] or floats or [first, second]
        kind = max((value.type for value in own), key=_ORDER.index)
        return self._cast(first, kind), self._cast(second, kind)

    def _cast(self, value: ir.Value, kind: ir.Type) -> ir.Value:
        build = self.builder
        if value.type == kind:
            return value
        if isinstance(value, ir.Constant) and kind in _FLOATS.values():
            return kind(float(value.constant))
        if kind == _BIT:
            return self._value_of_truth(value)
        if value.type in (_BIT, _INTEGER) and kind in _FLOATS.values():
            return (build.uitofp if value.type == _BIT else build.sitofp)(value, kind)
        if value.type == _BIT:
            return build.zext(value, kind)
        if kind in _FLOATS.values():
            return (build.fpext if kind == _FLOATS["float64"] else build.fptrunc)(value, kind)
        return build.fptosi(value, kind)

    def _value_of_truth(self, value: ir.Value) -> ir.Value:
        if value.type in _FLOATS.values():
            return self.builder.fcmp_unordered("!=", value, value.type(0.0))
        return self.builder.icmp_signed("!=", value, value.type(0))
