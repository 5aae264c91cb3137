"""Kernels that follow one another are called as one.

XLA takes 0.1 to 0.3 microseconds to call a kernel and to hand over what it made.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Primitive, Var, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from .kernels import GIVEN, MADE, Shape, Step, derived, kernel, sequence, step
from .nests import nest

together: Any = Primitive("together")  # of kernels in a jaxpr, ``part``
together.multiple_results = True


def appended(equations: list[Any], jaxpr: Any, arguments: Sequence[Any]) -> list[Any]:
    """A program's results for these arguments, once its equations, which are appended, are done."""
    now: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        read, made = renamed(equation.invars, now), [Var(atom.aval) for atom in equation.outvars]
        now.update(zip(equation.outvars, made, strict=True))
        equations.append(equation.replace(invars=read, outvars=made))
    return renamed(jaxpr.outvars, now)


def renamed(atoms: Iterable[Any], names: Mapping[Any, Any]) -> list[Any]:
    return [atom if isinstance(atom, Literal) else names.get(atom, atom) for atom in atoms]


def joined(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with one call for all of its kernels that wait for nothing else in between."""

    def whole(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(shapes), called(traced, jax.tree.leaves(arguments)))

    return whole


def called(traced: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """What a program makes of these: by turns all operations of XLA that are ready, and all kernels that are."""
    jaxpr = _without_repeats(traced.jaxpr)
    values: dict[Any, Any] = dict(zip((*jaxpr.invars, *jaxpr.constvars), (*arguments, *traced.consts), strict=True))
    left = list(jaxpr.eqns)

    def now(kernels: bool) -> tuple[ClosedJaxpr, list[Any]]:
        """What is ready, as a program, and what that reads; the rest is left."""
        nonlocal left
        ready, others, made = [], [], set[Any]()
        for equation in left:
            known = all(atom in values or atom in made for atom in _variables([equation]))
            if known and (equation.primitive is kernel) == kernels:
                ready.append(equation)
                made.update(equation.outvars)
            else:
                others.append(equation)
        left = others
        needed = {*_variables(left), *(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))}
        read = [atom for atom in _variables(ready) if atom in values]
        out = [atom for equation in ready for atom in equation.outvars if atom in needed]
        return ClosedJaxpr(jaxpr.replace(constvars=[], invars=read, outvars=out, eqns=ready), ()), read

    while before := len(left):
        part, read = now(kernels=False)
        values.update(zip(part.jaxpr.outvars, jaxpr_as_fun(part)(*map(values.get, read)), strict=True))
        part, read = now(kernels=True)
        if part.jaxpr.eqns:
            values.update(zip(part.jaxpr.outvars, together.bind(*map(values.get, read), part=part), strict=True))
        assert len(left) < before, "what the rest reads is made by nobody"
    return [atom.val if isinstance(atom, Literal) else values[atom] for atom in jaxpr.outvars]


def _without_repeats(jaxpr: Any) -> Any:
    """The same program, without what it does twice."""
    first: dict[Any, Any] = {}
    known: dict[Any, Any] = {}
    kept = []

    for equation in jaxpr.eqns:
        equation = equation.replace(invars=renamed(equation.invars, first))
        read = [
            (repr(np.asarray(atom.val).tolist()), atom.aval) if isinstance(atom, Literal) else atom
            for atom in equation.invars
        ]
        same = {name: value for name, value in equation.params.items() if name != "plain"}  # a kernel's source says all
        call = (equation.primitive, tuple(same.items()), tuple(read))
        try:
            out = known.setdefault(call, equation.outvars)
        except TypeError:  # no hash
            out = equation.outvars
        if out is equation.outvars:
            kept.append(equation)
        first.update(zip(equation.outvars, out, strict=True))
    return jaxpr.replace(eqns=kept, outvars=renamed(jaxpr.outvars, first))


def _variables(equations: Iterable[Any]) -> dict[Any, None]:
    """What equations read."""
    return {atom: None for equation in equations for atom in equation.invars if not isinstance(atom, Literal)}


def _mapped(arrays: Sequence[Any], axes: Sequence[int | None], *, part: ClosedJaxpr) -> Any:
    out = joined(jax.vmap(jaxpr_as_fun(part), axes))(*arrays)
    return out, [0] * len(out)


together.def_impl(lambda *arrays, part: jaxpr_as_fun(part)(*arrays))
together.def_abstract_eval(lambda *_, part: part.out_avals)
ad.primitive_jvps[together] = lambda primals, tangents, part: derived(jaxpr_as_fun(part), primals, tangents)
batching.primitive_batchers[together] = _mapped
mlir.register_lowering(together, mlir.lower_fun(lambda *a, part: jaxpr_as_fun(part)(*a), multiple_results=True))


def _kernels(*arrays: Any, part: ClosedJaxpr) -> list[Any]:
    """On a CPU. A kernel works in place only where nobody reads the old value later; else on a copy."""
    equations = part.jaxpr.eqns
    read_by = [equation.invars[: len(equation.invars) - equation.params["rest"]] for equation in equations]
    last: dict[int, float] = {id(atom): number for number, given in enumerate(read_by) for atom in given}
    last |= {id(atom): math.inf for atom in part.jaxpr.outvars}
    places = _Places(dict(zip(map(id, part.jaxpr.invars), arrays, strict=True)))
    steps = []
    for number, (equation, given) in enumerate(zip(equations, read_by, strict=True)):
        source, over, mapped = (equation.params[name] for name in ("source", "over", "mapped"))
        read, made = [places.of(atom) for atom in given], []
        for out, argument in zip(equation.outvars, over, strict=True):
            if argument is None:
                made.append(places.new(out))
                continue
            old = given[argument]
            if last[id(old)] > number or sum(atom is old for atom in given) > 1:
                steps.append(_copy(old, read[argument], places.new(out)))
                read[argument] = places.of(out)
            places.put(out, read[argument])
            made.append(read[argument])
        avals = [atom.aval for atom in given], [atom.aval for atom in equation.outvars]
        steps.append(step(source, over, mapped, *avals, read, made))
        places.leave(atom for atom in (*given, *equation.outvars) if last.get(id(atom), -1) <= number)
    found = places.called(steps)
    return [found[id(atom)] for atom in part.jaxpr.outvars]


def _copy(atom: Any, place: Any, to: Any) -> Step:
    flat = jax.core.ShapedArray((atom.aval.size,), atom.aval.dtype)
    source = """
def rows(old, new):
    for i in range(old.shape[0]):
        new[i] = old[i]
"""
    return step(source, (None,), (), [flat], [flat], [place], [to])


class _Places:
    """Where values lie: in the sequence's argument n, (GIVEN, n), or in its result n, (MADE, n). What nobody reads any
    more gives its place to others."""

    def __init__(self, given: dict[int, Any]) -> None:
        self._given, self._arrays = given, list[Any]()
        self._results: list[Any] = []
        self._at: dict[int, tuple[str, int]] = {}
        self._holds: dict[tuple[str, int], Any] = {}
        self._empty: dict[Any, list[tuple[str, int]]] = {}  # by shape and type

    def of(self, atom: Any) -> tuple[str, int]:
        if id(atom) not in self._at:
            own = isinstance(atom, Literal)
            self._arrays.append(np.asarray(atom.val, atom.aval.dtype) if own else self._given[id(atom)])
            self._at[id(atom)] = (GIVEN, len(self._arrays) - 1)
        return self._at[id(atom)]

    def put(self, atom: Any, place: tuple[str, int]) -> None:
        self._at[id(atom)], self._holds[place] = place, atom

    def new(self, atom: Any) -> tuple[str, int]:
        kind = atom.aval.shape, atom.aval.dtype
        if not self._empty.get(kind):
            self._results.append(atom.aval)
            self._empty[kind] = [(MADE, len(self._results) - 1)]
        self.put(atom, self._empty[kind].pop())
        return self._at[id(atom)]

    def leave(self, atoms: Iterable[Any]) -> None:
        for place in dict.fromkeys(self._at[id(a)] for a in atoms if self._holds.get(self._at[id(a)]) is a):
            if place[0] == MADE:
                kind = self._holds[place].aval.shape, self._holds[place].aval.dtype
                self._empty.setdefault(kind, []).append(place)

    def called(self, steps: Sequence[Step]) -> dict[int, Any]:
        """Every value that is left, after the steps."""
        aliases = {}
        for whose, place in list(self._holds):
            if whose == GIVEN:
                aliases[place] = len(self._results)
                self._results.append(self._holds[whose, place].aval)
        shapes = tuple(Shape(aval.shape, aval.dtype) for aval in self._results)
        out = sequence(tuple(steps), shapes, aliases, self._arrays)
        return {
            id(atom): out[place if whose == MADE else aliases[place]] for (whose, place), atom in self._holds.items()
        }


mlir.register_lowering(together, mlir.lower_fun(_kernels, multiple_results=True), platform="cpu")
mlir.register_lowering(
    nest, mlir.lower_fun(lambda *arrays, nests, **_: called(nests, arrays), multiple_results=True), platform="cpu"
)
