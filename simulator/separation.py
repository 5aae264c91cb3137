"""From a function of one synapse to matrix products.

A rule's change averaged over a batch of B samples costs B passes over the weights when mapped naively. Many rules are
sums of products ``f(w) g(pre) h(post)``, and the batch mean of such a term is a matrix product: ``f(W) * (H^T G) / B``.
This file interprets a rule's jaxpr over values of that form. Where a step of the rule leaves the form (a nonlinear
function of a mixed term), `separate` returns None and the caller accumulates over the batch instead.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.api_util import debug_info
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from .rules.equations import Traced, inline

MAX_TERMS = 32


class _NotSeparable(Exception):
    pass


@dataclass(frozen=True)
class _Term:
    """``factor * syn * pre * post``; None stands for 1. ``factor`` is a scalar, ``syn`` (post, pre), ``pre`` (B, pre),
    ``post`` (B, post). The factor stays outside of the batch's mean: where many networks that differ in their rules'
    numbers alone are mapped, what is inside may be the same for all."""

    factor: Any
    syn: Any = None
    pre: Any = None
    post: Any = None

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(name for name in ("syn", "pre", "post") if getattr(self, name) is not None)


_Sum = tuple[_Term, ...]


def separate(traced: Traced, values: dict[str, Any]) -> list[Any] | None:
    """The batch means of a rule's outputs, (post, pre) each, or None if the rule is not a sum of products.

    ``values`` maps every input of ``traced`` to a pair (group, array) with group "const", "syn", "pre" or "post".
    """
    inputs = [_value(*values[name]) for name in traced.inputs]
    try:
        outputs = inline(traced.jaxpr.jaxpr, inputs, _apply, lambda c: _value("const", jnp.asarray(c)),
                         tuple(traced.jaxpr.consts), opened=("jit", "pjit", "closed_call"))  # fmt: skip
    except _NotSeparable:
        return None
    return [_mean(output) for output in outputs]


def _value(group: str, array: Any) -> _Sum:
    return (_Term(array),) if group == "const" else (_Term(None, **{group: array}),)


def _group(value: _Sum) -> str | None:
    """The one group that a value depends on, or None if it mixes several."""
    groups = {name for term in value for name in term.groups}
    if len(groups) > 1:
        return None
    return groups.pop() if groups else "const"


def _plain(value: _Sum) -> Any:
    """The array of a value of one group (which is kept as a single term)."""
    (term,) = value
    array = next((getattr(term, name) for name in term.groups), None)
    return term.factor if array is None else _times(term.factor, array)


def _apply(equation: Any, values: list[_Sum]) -> Any:
    name = equation.primitive.name
    if name == "mul" and sum(_group(value) == "const" for value in values) == 1:
        return _product(*values)
    groups = {_group(value) for value in values} - {"const"}
    if None not in groups and len(groups) <= 1:
        group = groups.pop() if groups else "const"
        results = _elementwise(equation, [_plain(value) for value in values])
        wrapped = [_value(str(group), result) for result in results]
        return wrapped if equation.primitive.multiple_results else wrapped[0]
    if name in ("add", "add_any", "sub"):
        other = values[1] if name != "sub" else tuple(_scaled(term, -1) for term in values[1])
        return _limited(values[0] + other)
    if name == "neg":
        return tuple(_scaled(term, -1) for term in values[0])
    if name == "mul":
        return _product(*values)
    if name == "square":
        return _product(values[0], values[0])
    if name == "integer_pow" and 0 < equation.params["y"] <= 3:
        result = values[0]
        for _ in range(equation.params["y"] - 1):
            result = _product(result, values[0])
        return result
    if name == "div" and _group(values[1]) is not None:
        group = str(_group(values[1]))
        return _product(values[0], _value(group, 1 / _plain(values[1])))
    if name == "convert_element_type" and jnp.issubdtype(equation.params["new_dtype"], jnp.inexact):
        return values[0]
    raise _NotSeparable


def _elementwise(equation: JaxprEqn, arrays: list[Any]) -> list[Any]:
    """Apply one equation that was traced on scalars to arrays of one group."""
    given = {atom: array for atom, array in zip(equation.invars, arrays, strict=True) if not isinstance(atom, Literal)}
    names = tuple(f"in{k}" for k in range(len(given)))
    results = tuple(f"out{k}" for k in range(len(equation.outvars)))
    info = debug_info("synapse", lambda *scalars: scalars, (), {})._replace(arg_names=names, result_paths=results)
    single = Jaxpr((), tuple(given), tuple(equation.outvars), (equation,), equation.effects, info)
    function: Any = jaxpr_as_fun(ClosedJaxpr(single, ()))
    for _ in range(max((jnp.ndim(array) for array in given.values()), default=0)):
        function = jax.vmap(function, in_axes=tuple(0 if jnp.ndim(array) else None for array in given.values()))
    return list(function(*(jnp.asarray(array) for array in given.values())))


def _product(a: _Sum, b: _Sum) -> _Sum:
    return _limited(
        tuple(
            _Term(_times(s.factor, t.factor), _times(s.syn, t.syn), _times(s.pre, t.pre), _times(s.post, t.post))
            for s in a
            for t in b
        )
    )


def _scaled(term: _Term, factor: float) -> _Term:
    return _Term(_times(factor, term.factor), term.syn, term.pre, term.post)


def _times(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a * b


def _limited(terms: _Sum) -> _Sum:
    if len(terms) > MAX_TERMS:
        raise _NotSeparable
    return terms


def _mean(terms: _Sum) -> Any:
    """Sum over the terms of the mean over the batch; terms that share two of their factors are added up first."""
    total: Any = 0.0
    for term in _merged(_merged(terms, "post", "pre"), "pre", "post"):
        if term.pre is not None and term.post is not None:
            part = term.post.T @ term.pre / term.pre.shape[0]
        elif term.pre is not None:
            part = term.pre.mean(0)[None, :]
        elif term.post is not None:
            part = term.post.mean(0)[:, None]
        else:
            part = None
        total = total + _times(_times(term.factor, term.syn), part)
    return total


def _merged(terms: _Sum, varying: str, same: str) -> _Sum:
    alike: dict[tuple[int, int], list[_Term]] = {}
    for term in terms:
        both = getattr(term, varying) is not None and getattr(term, same) is not None
        key = (id(term.syn), id(getattr(term, same))) if both else (id(term), 0)
        alike.setdefault(key, []).append(term)
    return tuple(found[0] if len(found) == 1 else _added(found, varying, same) for found in alike.values())


def _added(terms: list[_Term], varying: str, same: str) -> _Term:
    value = sum(_times(term.factor, getattr(term, varying)) for term in terms)
    return _Term(None, **{varying: value, same: getattr(terms[0], same), "syn": terms[0].syn})
