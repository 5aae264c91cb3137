"""A program over many copies, cut into slices that the workers of a Dask cluster run."""

import dataclasses
import functools
import inspect
import io
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Slices:
    """What ``make(*made_of)`` returns, on the workers of ``client``: made once in a process, called for every slice.

    What it is made of, and what slices share, are results of tasks, so that a worker that takes over from a dead one
    can have them made again. Slices and what they share must be numpy's arrays in plain containers: a class of a script
    is only whole where `_packed` sent it, and JAX's arrays lose half their bits in a process that has just begun.
    """

    def __init__(self, client: Any, make: Callable[..., Callable[..., Any]], *made_of: Any) -> None:
        self._client, self._x64 = client, jnp.zeros(()).dtype == "float64"
        self._given = client.submit(bytes, _packed((make, made_of)))

    def __call__(self, slices: Iterable[tuple[Any, ...]], shared: Any = None) -> list[Any]:
        """What it returns for the arguments of each slice, after what is ``shared`` if that is not None."""
        common = () if shared is None else (self._client.submit(_same, shared, pure=False),)
        tasks = [self._client.submit(_on_worker, self._given, self._x64, *common, *part, pure=False) for part in slices]
        return self._client.gather(tasks)  # type: ignore[no-any-return]


def cuts(count: int, slices: int) -> list[np.ndarray]:
    """So many things in so many slices, none empty."""
    return np.array_split(np.arange(count), min(slices, count))


def joined(parts: list[Any], axis: int = 0) -> Any:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *parts)


def _packed(value: Any) -> bytes:
    """As cloudpickle does it, which sends a script's own classes by what is in them. It makes the class first and fills
    it then; equinox looks at the fields of a module when its class is made, and so is told of them then."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            reduced = super().reducer_override(thing)
            if reduced is NotImplemented or not (isinstance(thing, type) and issubclass(thing, eqx.Module)):
                return reduced
            make, arguments, *rest = reduced
            own = inspect.get_annotations(thing)
            fields = {f.name: bool(f.metadata.get("static")) for f in dataclasses.fields(thing) if f.name in own}
            return _module_class, (make, arguments, fields), *rest

    with io.BytesIO() as file:
        Pickler(file).dump(value)
        return file.getvalue()


def _module_class(make: Callable[..., type], arguments: tuple[Any, ...], fields: dict[str, bool]) -> type:
    """The class of a module, yet to be filled, with fields that are ``static`` or not."""
    kind, name, bases, members, *rest = arguments
    declared = {field: eqx.field(default=None, static=static) for field, static in fields.items()}
    return make(kind, name, bases, {**members, "__annotations__": dict.fromkeys(fields, Any), **declared}, *rest)


def _same(value: Any) -> Any:
    return value


def _on_worker(given: bytes, x64: bool, *arguments: Any) -> Any:
    return jax.tree.map(np.asarray, _made(given, x64)(*arguments))


@functools.lru_cache(maxsize=8)
def _made(given: bytes, x64: bool) -> Callable[..., Any]:
    import cloudpickle

    jax.config.update("jax_enable_x64", x64)  # type: ignore[no-untyped-call]
    make, made_of = cloudpickle.loads(given)
    return make(*made_of)  # type: ignore[no-any-return]
