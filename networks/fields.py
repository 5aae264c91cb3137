"""Named scalars that travel together: a neuron's state, its ports, a synapse's state, the broadcast signals."""

from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_pytree_with_keys_class
class Fields:
    """An immutable record of named values, read by attribute; a JAX pytree.

    One neuron or synapse sees scalars in it; the simulator stores one array per name. Reading a name that is not
    there raises ``AttributeError`` and lists the names that are.

    >>> Fields(x=1.0, v=2.0).replace(v=0.5).v
    0.5
    """

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        object.__setattr__(self, "_values", {**(values or {}), **named})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_values":
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(self._values) or "none"
            raise AttributeError(f"no field {name!r} here; fields: {known}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Fields are immutable; use .replace({name}=...)")

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> tuple[type["Fields"], tuple[dict[str, Any]]]:
        return Fields, (self._values,)

    def __repr__(self) -> str:
        return "Fields(" + ", ".join(f"{k}={v!r}" for k, v in self._values.items()) + ")"

    def items(self) -> list[tuple[str, Any]]:
        return list(self._values.items())

    def replace(self, **named: Any) -> "Fields":
        """The same record with some values new (or added)."""
        return Fields(self._values, **named)

    def map(self, function: Callable[[Any], Any]) -> "Fields":
        return Fields({name: function(value) for name, value in self._values.items()})

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        names = tuple(self._values)
        return [(jax.tree_util.GetAttrKey(name), self._values[name]) for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Any) -> "Fields":
        return cls(dict(zip(names, values, strict=True)))


def parameters(module: Any) -> dict[str, Any]:
    """The parameters of a neuron or rule by name, those of a wrapped rule dotted (``rule.eta``)."""
    leaves = jax.tree_util.tree_leaves_with_path(module)
    return {".".join(str(getattr(key, "name", key)) for key in path): leaf for path, leaf in leaves}


def named_arguments(function: Callable[..., Any], available: tuple[str, ...], owner: str) -> tuple[str, ...]:
    """The arguments that ``function`` names, each of which must be one of ``available``.

    Neurons and rules take the arguments that they name: that is how a rule asks for its own state, the signals or
    noise. Raises ``TypeError`` naming ``owner``, the unknown argument and those that exist.
    """
    names = tuple(
        name
        for name, parameter in signature(function).parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    )
    unknown = [name for name in names if name not in available]
    if unknown:
        raise TypeError(
            f"{owner} names the argument {unknown[0]!r}, which does not exist; it may name: {', '.join(available)}"
        )
    return names


def floats(values: Any, dtype: Any = float) -> Any:
    """As an array of JAX, for which nothing is compiled: that would be once for every shape."""
    if isinstance(values, jax.Array):
        return jnp.asarray(values, dtype)
    return jax.device_put(np.array(values, jax.dtypes.canonicalize_dtype(dtype)))  # a copy: it may be shared from here


def spread(value: Any, shape: tuple[int, ...], dtype: Any = float) -> Any:
    """An array of one value; of a number, as `floats`."""
    if isinstance(value, jax.core.Tracer):
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)
    return floats(np.broadcast_to(np.asarray(value), shape), dtype)


def picked(values: Any, *places: np.ndarray) -> Any:
    """``values[..., *places]``, and 0 where a place lies behind the last.

    Places are known before anything runs: those that follow one another are read as a slice, and not looked up.
    """
    places = tuple(np.broadcast_arrays(*places))
    lengths, lead = values.shape[-len(places) :], values.shape[: -len(places)]
    lines = [place.ravel() for place in places]
    runs = [np.array_equal(line, line[0] + np.arange(line.size)) for line in lines]
    fixed = [bool((line == line[0]).all()) for line in lines]
    inside = all(line.max() < length for line, length in zip(lines, lengths, strict=True))
    if inside and runs == [not same for same in fixed] and sum(runs) == 1:
        cut = tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)
        return values[..., *cut].reshape(*lead, *places[0].shape)
    if not inside:
        values = jnp.pad(values, [*((0, 0) for _ in lead), *((0, 1) for _ in lengths)])
    return values[..., *places]
