"""A traced function of small arrays as one of scalars, which is what printers of code and equations have words for."""

import functools
import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from .equations import NoWord, Traced, inline, reads_of

# What takes elements from elsewhere, and the operands that it takes them from; the others say which.
_MOVES: dict[str, slice] = {
    **dict.fromkeys(("broadcast_in_dim", "reshape", "squeeze", "transpose", "rev", "slice", "split", "stack",
                     "concatenate"), slice(None)),
    "dynamic_slice": slice(1), "gather": slice(1), "dynamic_update_slice": slice(2), "scatter": slice(0, 3, 2),
}  # fmt: skip
_REDUCTIONS = {"reduce_sum": lax.add, "reduce_prod": lax.mul, "reduce_max": lax.max, "reduce_min": lax.min}
_CUMULATIVE = {"cumsum": lax.add, "cumprod": lax.mul, "cummax": lax.max, "cummin": lax.min}


def elements(name: str, value: Any) -> dict[str, Any]:
    """The numbers in an array under the names that `scalars` gives them, ``name.0,3``; one number under its own."""
    if np.ndim(value) == 0:
        return {name: value}
    return {f"{name}.{','.join(map(str, at))}": number for at, number in np.ndenumerate(value)}


def scalars(traced: Traced, words: Collection[str]) -> Traced:
    """The same computed with scalars alone. Of an array that is an input, the elements are inputs (`elements`), if
    ``traced`` reads it.

    ``words``: the primitives that may be left, beside changes of type and powers of integers. Any other than these and
    those that move elements, reduce, accumulate or multiply matrices raises `NoWord` with its name.
    """
    given = list(zip(traced.inputs, traced.jaxpr.in_avals, strict=True))
    named = {
        name: [*elements(name, np.empty(aval.shape))] for name, aval in given if name in traced.reads or not aval.shape
    }
    inputs = tuple(itertools.chain.from_iterable(named.values()))

    def apply(equation: Any, values: list[np.ndarray]) -> Any:
        name, parameters = equation.primitive.name, equation.params
        if not any(value.dtype == object for value in values):
            return _evaluated(equation, values)
        if name in _MOVES:
            return _moved(equation, values)
        if name in _REDUCTIONS:
            return _reduced(_REDUCTIONS[name], values[0], parameters["axes"])
        if name in _CUMULATIVE:
            return _accumulated(_CUMULATIVE[name], values[0], parameters["axis"], parameters["reverse"])
        if name == "dot_general":
            return _contracted(values[0], values[1], parameters["dimension_numbers"])
        if name in words or name in ("convert_element_type", "integer_pow"):
            return _each(lambda *numbers: equation.primitive.bind(*numbers, **parameters), *values)
        raise NoWord(name)

    def run(*numbers: Any) -> list[Any]:
        rest = iter(numbers)
        arrays = [
            _objects(itertools.islice(rest, len(named[name])), aval.shape)
            if name in named
            else np.zeros(aval.shape, aval.dtype)
            for name, aval in given
        ]
        results = inline(traced.jaxpr.jaxpr, arrays, apply, np.asarray, tuple(traced.jaxpr.consts))
        return [result[()] for result in results]

    ones = [jnp.ones((), aval.dtype) for name, aval in given for _ in named.get(name, ())]
    jaxpr = jax.make_jaxpr(run)(*ones)
    able = {element for name in traced.reads for element in named[name]}
    return Traced(jaxpr, inputs, traced.outputs, reads_of(jaxpr, inputs) & able)


# Arrays are numpy's: of numbers where they are known, else of objects.


def _objects(values: Iterable[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.fromiter(values, object).reshape(shape)


def _evaluated(equation: Any, values: list[np.ndarray], **other: Any) -> Any:
    with jax.ensure_compile_time_eval():
        made = equation.primitive.bind(*map(jnp.asarray, values), **(equation.params | other))
        return [np.asarray(one) for one in made] if equation.primitive.multiple_results else np.asarray(made)


def _moved(equation: Any, values: list[np.ndarray]) -> Any:
    """The primitive itself says where elements go: it moves their numbers."""
    numbered, held = list(values), list[Any]()
    for place in range(len(values))[_MOVES[equation.primitive.name]]:
        numbered[place] = np.arange(len(held), len(held) + values[place].size).reshape(values[place].shape)
        held += values[place].flat
    if any(value.dtype == object for value in numbered):  # where from is not known before
        raise NoWord(equation.primitive.name)

    def taken(numbers: np.ndarray) -> np.ndarray:
        if np.any(numbers < 0):  # from beyond an array
            raise NoWord(equation.primitive.name)
        return _objects((held[number] for number in numbers.flat), numbers.shape)

    beyond = {"fill_value": -1} if "fill_value" in equation.params else {}
    made = _evaluated(equation, numbered, **beyond)
    return [taken(one) for one in made] if equation.primitive.multiple_results else taken(made)


def _each(function: Callable[..., Any], *values: np.ndarray) -> np.ndarray:
    def one(*numbers: Any) -> Any:
        if any(isinstance(number, Tracer) for number in numbers):
            return function(*numbers)
        with jax.ensure_compile_time_eval():
            return np.asarray(function(*numbers))[()]

    spread = np.broadcast_arrays(*values)
    return _objects(map(one, *(value.flat for value in spread)), spread[0].shape)


def _reduced(function: Callable[..., Any], values: np.ndarray, axes: Collection[int]) -> np.ndarray:
    kept = [axis for axis in range(values.ndim) if axis not in axes]
    rows = values.transpose(*kept, *axes).reshape(*(values.shape[axis] for axis in kept), -1)
    return functools.reduce(functools.partial(_each, function), (rows[..., k] for k in range(rows.shape[-1])))


def _accumulated(function: Callable[..., Any], values: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    ordered = np.moveaxis(np.flip(values, axis) if reverse else values, axis, -1)
    steps = (ordered[..., k] for k in range(ordered.shape[-1]))
    sums = np.stack([*itertools.accumulate(steps, functools.partial(_each, function))], axis)
    return np.flip(sums, axis) if reverse else sums


def _contracted(left: np.ndarray, right: np.ndarray, dimension_numbers: Any) -> np.ndarray:
    """``lax.dot_general``: the axes of a batch, those of the left, those of the right."""
    (over, by), (batch, batch_by) = dimension_numbers
    rows = [axis for axis in range(left.ndim) if axis not in (*over, *batch)]
    columns = [axis for axis in range(right.ndim) if axis not in (*by, *batch_by)]
    first, second, end = len(batch), len(batch) + len(rows), len(batch) + len(rows) + len(columns)
    left = np.expand_dims(left.transpose(*batch, *rows, *over), tuple(range(second, end)))
    right = np.expand_dims(right.transpose(*batch_by, *columns, *by), tuple(range(first, second)))
    return _reduced(lax.add, _each(_product, left, right), range(end, end + len(over)))


def _product(a: Any, b: Any) -> Any:
    """What a bias is multiplied by need not be said."""
    for one, other in ((a, b), (b, a)):
        if not isinstance(one, Tracer) and one == 1:
            return other
    return lax.mul(a, b)
