"""A rule's own code as equations: traced once with JAX, then read as a list of what it reads, or interpreted.

`trace` gives the jaxpr of one synapse with named inputs and outputs; locality, separation into matrix products,
compiled loops and LaTeX all start from it, so none of them can differ from what runs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal as JaxprLiteral

from ..networks.fields import Fields
from .base import ARGUMENTS, LocalRule

Part = Literal["evaluate", "pooled", "constrained", "constraint_pooled"]


class RuleError(ValueError):
    """A rule is not a function of one synapse that JAX can trace; the message names the rule and the remedy."""


class NoWord(Exception):
    """A trace has an operation that is not printed."""


class _Spy(Fields):
    """Fields that has whatever it is asked for, and remembers the names."""

    __slots__ = ("seen",)
    seen: set[str]

    def __init__(self, seen: set[str]) -> None:
        super().__init__()
        object.__setattr__(self, "seen", seen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.seen.add(name)
        return jnp.ones(())


@dataclass(frozen=True)
class Traced:
    """The jaxpr of one part of a rule. ``inputs`` and ``outputs`` are dotted names (``w``, ``pre.x``, ``syn.trace``,
    ``signals.reward``, ``rule.eta`` for a hyper-parameter); ``reads`` are the inputs that an output depends on."""

    jaxpr: ClosedJaxpr
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: frozenset[str]

    @property
    def kept(self) -> frozenset[str]:
        """The outputs that are the inputs of that name as they were."""
        given = dict(zip(self.inputs, self.jaxpr.jaxpr.invars, strict=True))
        made = zip(self.outputs, self.jaxpr.jaxpr.outvars, strict=True)
        return frozenset(name for name, variable in made if given.get(name) is variable)


def trace(rule: LocalRule, part: Part = "evaluate") -> Traced:
    """Trace one part of a rule on scalars. Raises `RuleError` if it is no function of one synapse."""
    seen: dict[str, set[str]] = {group: set() for group in ("pre", "post", "signals")}
    syn = rule.init()
    scalars = tuple(name for name in ARGUMENTS if name not in (*seen, "syn"))

    def environment(values: Mapping[str, Any], groups: Mapping[str, Fields]) -> Fields:
        return Fields({**values, **groups})

    def run(rule: LocalRule, env: Fields) -> dict[str, Any]:
        result = getattr(rule, part)(env)
        if part == "evaluate":
            dw, new = result
            if not isinstance(new, Fields) or tuple(new) != tuple(syn):
                raise RuleError(
                    f"{type(rule).__name__}.update returned the synaptic state {new!r}; init() has the fields "
                    f"{', '.join(syn) or 'none'}: return (dw, Fields(...)) with the same names"
                )
            outputs = {"dw": dw, **{f"syn.{name}": value for name, value in new.items()}}
        elif part == "pooled":
            outputs = dict(result.items())
        else:
            outputs = {} if result is None else {"w" if part == "constrained" else "afferent": result}
        return {name: _scalar(rule, name, value) for name, value in outputs.items()}

    ones = {name: jnp.ones(()) for name in scalars}
    syn_ones = syn.map(lambda _: jnp.ones(()))
    spies = {group: _Spy(names) for group, names in seen.items()}
    parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), rule)

    def scout() -> dict[str, Any]:
        return run(parameters, environment(ones, {**spies, "syn": syn_ones}))

    groups = {}
    try:
        jax.eval_shape(scout)
        groups = {group: Fields({name: jnp.ones(()) for name in sorted(names)}) for group, names in seen.items()}
        if "tick" in groups["signals"] or "count" in groups["signals"]:
            integers = {name: jnp.ones((), jnp.int32) for name in ("tick", "count") if name in groups["signals"]}
            groups["signals"] = groups["signals"].replace(**integers)
        environment_of = environment(ones, {**groups, "syn": syn_ones})
        arguments = {"rule": parameters, "env": environment_of}
        jaxpr, shapes = jax.make_jaxpr(lambda a: run(a["rule"], a["env"]), return_shape=True)(arguments)
    except jax.errors.JAXTypeError as error:
        raise RuleError(
            f"{type(rule).__name__}: a rule is traced, so it cannot branch on values with `if` or call numpy on them; "
            f"use jnp.where and jnp functions ({str(error).splitlines()[0]})"
        ) from error
    except (TypeError, AttributeError, NotImplementedError) as error:
        raise RuleError(f"{type(rule).__name__}: {error}") from error
    inputs = named_leaves(arguments)
    traced = Traced(jaxpr, inputs, tuple(shapes), reads_of(jaxpr, inputs))
    if part == "constrained" and "w" in traced.kept:
        return dataclasses.replace(traced, reads=frozenset())  # no constraint
    return traced


def inline(jaxpr: Jaxpr, inputs: list[Any], apply: Callable[[Any, list[Any]], Any], literal: Callable[[Any], Any],
           constants: tuple[Any, ...] = (),
           opened: tuple[str, ...] = ("jit", "pjit", "closed_call", "custom_jvp_call")) -> list[Any]:  # fmt: skip
    """Interpret a jaxpr over any kind of value: ``apply(equation, values)`` for a primitive, ``literal(number)`` for a
    constant. Calls of the kinds in ``opened`` are replaced by what they call."""
    values: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
    values.update(zip(jaxpr.constvars, [literal(c) for c in constants], strict=True))

    def read(atom: Any) -> Any:
        return literal(atom.val) if isinstance(atom, JaxprLiteral) else values[atom]

    for equation in jaxpr.eqns:
        arguments = [read(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if inner is not None and equation.primitive.name in opened:
            results = inline(inner.jaxpr, arguments, apply, literal, tuple(inner.consts), opened)
        else:
            result = apply(equation, arguments)
            results = list(result) if equation.primitive.multiple_results else [result]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _scalar(rule: LocalRule, name: str, value: Any) -> Any:
    value = jnp.asarray(value)
    if value.shape != ():
        raise RuleError(f"{type(rule).__name__}: {name} has shape {value.shape}; a rule gives one number per synapse")
    return value.astype(float)


def named_leaves(arguments: Any) -> tuple[str, ...]:
    """The leaves of a traced function's arguments by dotted names; what lies in ``env`` has no name before it."""

    def name(path: tuple[Any, ...]) -> str:
        parts = [str(getattr(key, "name", getattr(key, "key", key))) for key in path]
        return ".".join(parts[1:] if parts[0] == "env" else parts)

    return tuple(name(path) for path, _ in jax.tree_util.tree_leaves_with_path(arguments))


def dependencies(closed: ClosedJaxpr, inputs: tuple[str, ...]) -> list[frozenset[str]]:
    """For every output the inputs that it depends on."""

    def apply(equation: Any, values: list[Any]) -> Any:
        union: frozenset[str] = frozenset().union(*values)
        return [union] * len(equation.outvars) if equation.primitive.multiple_results else union

    start: list[frozenset[str]] = [frozenset([name]) for name in inputs]
    return inline(closed.jaxpr, start, apply, lambda _: frozenset(), tuple(closed.consts))


def reads_of(closed: ClosedJaxpr, inputs: tuple[str, ...]) -> frozenset[str]:
    """The inputs that an output depends on."""
    return frozenset().union(*dependencies(closed, inputs))
