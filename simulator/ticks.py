"""A scan over ticks that are made of kernels: several of them are one call.

XLA takes 0.1 to 0.3 microseconds to call a kernel and to hand over what it made: of a small network's tick as long as
the kernels themselves.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, Primitive, Var, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from . import loops
from .kernels import Shape, compiled, derived, kernel
from .nests import nest, without_constants
from .together import appended, called, renamed

SEVERAL = range(10, 3, -1)  # ticks that are put together: the first of these that divides a run, if one does


def scan(body: Callable[[Any, Any], tuple[Any, Any]], start: Any, rows: Any, length: int) -> tuple[Any, Any]:
    """`jax.lax.scan`, on a CPU with several rounds of a body that is made of kernels in a call."""
    first = jax.tree.map(lambda row: Shape(row.shape[1:], row.dtype), rows)
    traced, shapes = jax.make_jaxpr(body, return_shape=True)(start, first)
    given = (*traced.consts, *jax.tree.leaves(start), *jax.tree.leaves(rows))
    counts = {"outer": len(traced.consts), "carried": len(jax.tree.leaves(start)), "length": length}
    scanned = ticks.bind if _of_kernels(traced) else _one_by_one
    made = scanned(*given, body=without_constants(traced), **counts)
    state, out = jax.tree.unflatten(jax.tree.structure(shapes), made)
    return state, out


ticks: Any = Primitive("ticks")  # a scan; ``outer``, ``carried``: how many of its arguments are constants and state
ticks.multiple_results = True


def _one_by_one(*arrays: Any, body: ClosedJaxpr, outer: int, carried: int, length: int) -> list[Any]:
    constants, state, rows = arrays[:outer], arrays[outer : outer + carried], arrays[outer + carried :]

    def once(state: Any, row: Any) -> tuple[Any, Any]:
        out = jaxpr_as_fun(body)(*constants, *state, *row)
        return tuple(out[:carried]), out[carried:]

    state, out = lax.scan(once, tuple(state), tuple(rows), length)
    return [*state, *out]


def _several_at_once(*arrays: Any, body: ClosedJaxpr, outer: int, carried: int, length: int) -> list[Any]:
    inlined = _inlined(body)
    if not _of_kernels(inlined):
        return _one_by_one(*arrays, body=body, outer=outer, carried=carried, length=length)
    constants, state, rows = arrays[:outer], list(arrays[outer : outer + carried]), arrays[outer + carried :]

    def stretch(ticks: int) -> Callable[..., tuple[Any, Any]]:
        repeated = _repeated(inlined, outer, carried, ticks)

        def each(state: Any, rows: Any) -> Any:
            made = called(repeated, [*constants, *state, *rows])
            return made[:carried], made[carried:]

        return each

    several = next((n for n in SEVERAL if length % n == 0), SEVERAL[0])
    parts, rest = divmod(length, several)
    pieces = []
    if parts:
        split = [row[: length - rest].reshape(parts, several, *row.shape[1:]) for row in rows]
        state, out = lax.scan(stretch(several), state, split, length=parts)
        pieces.append([a.reshape(length - rest, *a.shape[2:]) for a in out])
    if rest:
        state, out = stretch(rest)(state, [row[length - rest :] for row in rows])
        pieces.append(out)
    return [*state, *(each[0] if len(each) == 1 else jnp.concatenate(each) for each in zip(*pieces, strict=True))]


def _mapped_ticks(
    arrays: Sequence[Any], axes: Sequence[int | None], *, body: ClosedJaxpr, outer: int, carried: int, length: int
) -> Any:
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    given, inner = [], list[int | None]()
    for number, (array, axis) in enumerate(zip(arrays, axes, strict=True)):
        is_state, is_row = outer <= number < outer + carried, number >= outer + carried
        if axis is None and is_state:
            array = jnp.broadcast_to(array, (size, *array.shape))
        elif axis is not None:
            array = jnp.moveaxis(array, axis, 1 if is_row else 0)
        given.append(array)
        inner.append(0 if is_state or axis is not None else None)
    several = jax.vmap(jaxpr_as_fun(body), inner, axis_size=size)
    kinds = [Shape(a.shape[1:] if number >= outer + carried else a.shape, a.dtype) for number, a in enumerate(given)]
    mapped = jax.make_jaxpr(several)(*kinds)
    more = len(mapped.consts)
    body = without_constants(mapped)
    out = ticks.bind(*mapped.consts, *given, body=body, outer=outer + more, carried=carried, length=length)
    return out, [0] * carried + [1] * (len(out) - carried)


def _ticks_made(*_: Any, body: ClosedJaxpr, carried: int, length: int, **__: Any) -> list[Any]:
    state, out = body.out_avals[:carried], body.out_avals[carried:]
    return [*state, *(aval.update(shape=(length, *aval.shape)) for aval in out)]


ticks.def_impl(lambda *arrays, **given: jax.jit(partial(_one_by_one, **given))(*arrays))
ticks.def_abstract_eval(_ticks_made)
ad.primitive_jvps[ticks] = lambda primals, tangents, **given: derived(partial(_one_by_one, **given), primals, tangents)
batching.primitive_batchers[ticks] = _mapped_ticks
mlir.register_lowering(ticks, mlir.lower_fun(_one_by_one, multiple_results=True))
mlir.register_lowering(ticks, mlir.lower_fun(_several_at_once, multiple_results=True), platform="cpu")


def _of_kernels(traced: ClosedJaxpr) -> bool:
    return any(equation.primitive in (kernel, nest) for equation in traced.eqns)


def _inlined(traced: ClosedJaxpr) -> ClosedJaxpr:
    """With the loops of each `nest`."""
    if not any(equation.primitive is nest for equation in traced.eqns):
        return traced
    equations = list[Any]()
    names: dict[Any, Any] = {}
    for equation in traced.eqns:
        equation = equation.replace(invars=renamed(equation.invars, names))
        if equation.primitive is nest:
            inner = equation.params["nests"]
            made = appended(equations, inner.jaxpr, equation.invars)
            names |= dict(zip(equation.outvars, made, strict=True))
        else:
            equations.append(equation)
    jaxpr = traced.jaxpr
    return ClosedJaxpr(jaxpr.replace(eqns=equations, outvars=renamed(jaxpr.outvars, names)), traced.consts)


def _stacked(arrays: Sequence[Any]) -> Any:
    """(n,) each: (arrays, n). XLA would take a call for each."""
    lines = [f"    for i in range(a0.shape[0]):\n        out[{row}, i] = a{row}[i]" for row in range(len(arrays))]
    names = [f"a{row}" for row in range(len(arrays))]
    source = "\n".join([f"def rows({', '.join(names)}, out):", *lines])
    flat = [array.ravel() for array in arrays]
    stack = Shape((len(flat), *flat[0].shape), flat[0].dtype)
    return compiled(lambda *arrays: (jnp.stack(arrays),), source, (stack,))(*flat)[0]


def _row(array: Any, place: int, shape: tuple[int, ...]) -> Any:
    if array.ndim < 2:
        return array[place]
    return loops.recalled(array.reshape(len(array), -1), np.int32(place)).reshape(shape)


def _repeated(traced: ClosedJaxpr, outer: int, carried: int, times: int) -> ClosedJaxpr:
    """A program that does one several times. Of its arguments the first ``outer`` stay; the next, as its first results,
    are carried and handed on; of the others, and of its other results, each time has a row."""
    shapes = [aval.shape for aval in traced.out_avals[carried:]]
    given = traced.jaxpr.invars
    rows = [Var(atom.aval.update(shape=(times, *atom.aval.shape))) for atom in given[outer + carried :]]
    jaxpr = _as_read(_as_made(traced.jaxpr, carried), outer + carried)
    constants, state = list(given[:outer]), list(given[outer : outer + carried])
    given = [*constants, *state, *rows]
    shapes_read = [atom.aval.shape for atom in jaxpr.invars[outer + carried :]]
    equations, out = list[Any](), []
    for time in range(times):
        row = jax.make_jaxpr(
            lambda *rows, time=time: [_row(array, time, shape) for array, shape in zip(rows, shapes_read, strict=True)]
        )(*(v.aval for v in rows))
        made = appended(equations, jaxpr, [*constants, *state, *appended(equations, row.jaxpr, rows)])
        state = made[:carried]
        out.append(made[carried:])
    stacked = []
    for each, shape in zip(zip(*out, strict=True), shapes, strict=True):
        stack = jax.make_jaxpr(lambda *arrays, shape=shape: _stacked(arrays).reshape(times, *shape))(
            *(atom.aval for atom in each)
        )
        stacked += appended(equations, stack.jaxpr, each)
    return ClosedJaxpr(jaxpr.replace(invars=given, outvars=[*state, *stacked], eqns=equations), traced.consts)


def _as_made(jaxpr: Any, carried: int) -> Any:
    """The same program, whose results behind those that are carried have the shapes that they were made in."""
    source = {equation.outvars[0]: equation.invars[0] for equation in jaxpr.eqns if _only_shape(equation)}

    def made(atom: Any) -> Any:
        return made(source[atom]) if not isinstance(atom, Literal) and atom in source else atom

    own = map(made, jaxpr.outvars[carried:])
    return jaxpr.replace(outvars=[*jaxpr.outvars[:carried], *own])


def _as_read(jaxpr: Any, first: int) -> Any:
    """The same program, whose arguments from the first of these on have the shapes that they are read in."""
    equations, rows = list(jaxpr.eqns), []
    for atom in jaxpr.invars[first:]:
        while True:
            readers = [equation for equation in equations if any(read is atom for read in equation.invars)]
            if len(readers) != 1 or not _only_shape(readers[0]) or any(out is atom for out in jaxpr.outvars):
                break
            equations.remove(readers[0])
            (atom,) = readers[0].outvars
        rows.append(atom)
    return jaxpr.replace(invars=[*jaxpr.invars[:first], *rows], eqns=equations)


def _only_shape(equation: Any) -> bool:
    """Whether it changes an array's shape and not the order of what is in it."""
    return (
        equation.primitive in (lax.reshape_p, lax.broadcast_in_dim_p, lax.squeeze_p)
        and equation.invars[0].aval.size == equation.outvars[0].aval.size
    )
