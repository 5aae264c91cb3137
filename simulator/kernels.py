"""Loops as machine code, where llvmlite is installed and the arrays are on a CPU.

XLA vectorises neither a gather nor a sum behind one; LLVM does by itself, if it may add up in another order. XLA calls
what `native` compiled through its foreign function interface, so that nothing passes through Python while a program
runs. Every kernel stands in for a function in JAX, which is what runs under derivatives, on a GPU and without llvmlite.
"""

import ctypes
import functools
import hashlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Synapses of a projection, from which on the time to compile is soon regained: where all of them are looked at in every
# tick, and where few are.
LARGE = 500_000
MANY = 10_000

# Synapses of a network of which a tick is short beside XLA's calls of its parts, and from which on it is worth kernels.
SEVERAL, FEW = 500, 100_000

Shape: Any = jax.ShapeDtypeStruct

# The versions of XLA's interface (xla/ffi/api/c_api.h) that have the layout which `native.handler` reads and writes.
VERSIONS = {(0, 3)}


def worthwhile(weights: Sequence[Any]) -> bool:
    return sum(w.size for w in weights) >= LARGE and _version() in VERSIONS


def small(weights: Sequence[Sequence[Any]]) -> bool:
    """Whether a network with these is one for `nests`."""
    synapses = sum(w.size for blocks in weights for w in blocks)
    return SEVERAL <= synapses <= FEW and jax.default_backend() == "cpu" and _version() in VERSIONS


def by_events(synapses: int) -> bool:
    """Whether so many synapses between spiking neurons are worth kernels that follow the spikes."""
    return synapses >= MANY and jax.default_backend() == "cpu" and _version() in VERSIONS


def compiled(
    plain: Callable[..., tuple[Any, ...]],
    source: str,
    over: Sequence[int | Shape],
    rest: int = 0,
    mapped: tuple[tuple[bool, ...], ...] = (),
) -> Callable[..., tuple[Any, ...]]:
    """The function ``plain`` of arrays, on a CPU as the compiled ``rows`` of ``source``. For each result ``over`` says
    which argument ``rows`` turns into it in place, or of which shape and type it is: then it is a new array, given to
    ``rows`` after the arguments. The last ``rest`` arguments are for ``plain`` alone.

    ``mapped``: for every axis over which ``plain`` is ``rows`` mapped, the outermost first, the arguments that have it.
    """

    def function(*arrays: Any) -> Any:
        results = tuple(Shape(arrays[one].shape, arrays[one].dtype) if isinstance(one, int) else one for one in over)
        places = tuple(one if isinstance(one, int) else None for one in over)
        return kernel.bind(*arrays, plain=plain, source=source, over=places, rest=rest, mapped=mapped, results=results)

    return function


kernel: Any = Primitive("kernel")  # its parameters: see `compiled`; ``results``: their shapes
kernel.multiple_results = True


kernel.def_abstract_eval(lambda *_, results, **__: [jax.core.ShapedArray(r.shape, r.dtype) for r in results])
kernel.def_impl(lambda *arrays, **given: jax.jit(lambda *arrays: kernel.bind(*arrays, **given))(*arrays))


def _called(*arrays: Any, source: str, over: Any, rest: int, mapped: Any, results: tuple[Any, ...], **_: Any) -> Any:
    """On a CPU."""
    given = arrays[: len(arrays) - rest]
    read, made = [(GIVEN, n) for n in range(len(given))], [(MADE, n) for n in range(len(results))]
    aliases = {argument: place for place, argument in enumerate(over) if argument is not None}
    return sequence((step(source, over, mapped, given, results, read, made),), results, aliases, given)


mlir.register_lowering(kernel, mlir.lower_fun(lambda *arrays, plain, **_: plain(*arrays), multiple_results=True))
mlir.register_lowering(kernel, mlir.lower_fun(_called, multiple_results=True), platform="cpu")


def derived(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """What a rule of `jax.interpreters.ad` must return for a primitive that computes what ``function`` does."""
    moved = [place for place, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_moved(*some: Any) -> Any:
        given = dict(zip(moved, some, strict=True))
        return tuple(function(*(given.get(place, primal) for place, primal in enumerate(primals))))

    return jax.jvp(of_moved, [primals[place] for place in moved], [tangents[place] for place in moved])


ad.primitive_jvps[kernel] = lambda primals, tangents, plain, **_: derived(plain, primals, tangents)


def _mapped(
    arrays: Sequence[Any],
    axes: Sequence[int | None],
    *,
    plain: Any,
    source: str,
    over: Any,
    rest: int,
    mapped: Any,
    results: Sequence[Shape],
) -> Any:
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    has = tuple(axis is not None or k in over for k, axis in enumerate(axes))  # what changes, every copy has for itself
    arrays = [array if axis is None else jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True)]
    arrays = [
        jnp.broadcast_to(array, (size, *array.shape)) if own and axis is None else array
        for array, axis, own in zip(arrays, axes, has, strict=True)
    ]
    several = jax.vmap(plain, tuple(0 if h else None for h in has), axis_size=size)
    new = [Shape((size, *one.shape), one.dtype) if k is None else k for k, one in zip(over, results, strict=True)]
    out = compiled(several, source, new, rest, (has, *mapped))(*arrays)
    return out, [0] * len(out)


batching.primitive_batchers[kernel] = _mapped


@functools.cache
def _version() -> tuple[int, ...] | None:
    """Of XLA's foreign function interface, or None where llvmlite is missing."""
    try:
        import llvmlite  # noqa: F401
    except ImportError:
        return None
    header = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_text()
    return tuple(int(n) for n in re.findall(r"#define XLA_FFI_API_(?:MAJOR|MINOR) (\d+)", header))


GIVEN, MADE = "given", "made"


@dataclass(frozen=True)
class Step:
    """A kernel in a sequence of them: what `native.rows` compiles, and what each of its arrays is in the sequence:
    (GIVEN, n) argument n, (MADE, n) result n."""

    source: str
    kinds: tuple[tuple[str, tuple[int, ...]], ...]
    mapped: tuple[tuple[bool, ...], ...]
    places: tuple[tuple[str, int], ...]


def step(
    source: str,
    over: Sequence[int | None],
    mapped: Sequence[Sequence[bool]],
    given: Sequence[Any],
    results: Sequence[Any],
    read: Sequence[tuple[str, int]],
    made: Sequence[tuple[str, int]],
) -> Step:
    """A kernel as `compiled` has it. ``read`` and ``made``: what the arrays given and the results are there."""
    new = [place for place, argument in enumerate(over) if argument is None]
    kinds = tuple((array.dtype.name, tuple(array.shape)) for array in (*given, *(results[place] for place in new)))
    axes = tuple((*has[: len(given)], *(True for _ in new)) for has in mapped)
    return Step(source, kinds, axes, (*read, *(made[place] for place in new)))


def sequence(steps: tuple[Step, ...], results: Sequence[Any], aliases: Mapping[int, int], arrays: Sequence[Any]) -> Any:
    """One call of kernels, one after another. ``aliases``: results by the arguments that become them."""
    name = _registered(steps, len(arrays), len(results))
    return jax.ffi.ffi_call(name, results, input_output_aliases=dict(aliases))(*arrays)


_known: set[str] = set()  # to XLA, by these names
_one_at_a_time = threading.Lock()


@functools.cache
def _registered(steps: tuple[Step, ...], arguments: int, results: int) -> str:
    """The name by which XLA knows a sequence."""
    from . import native

    first = {GIVEN: 0, MADE: arguments}
    calls = [
        (native.rows(step.source, step.kinds, step.mapped), [first[whose] + number for whose, number in step.places])
        for step in steps
    ]
    # Programs that XLA has kept from another process call the same kernels by the same name.
    name = f"engrax_{hashlib.sha256(repr((steps, arguments, results)).encode()).hexdigest()}"
    with _one_at_a_time:
        if name not in _known:
            address = native.handler(calls, arguments, results, _version() or (0, 0))
            capsule = ctypes.pythonapi.PyCapsule_New
            capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
            jax.ffi.register_ffi_target(name, capsule(address, None, None), platform="cpu")
            _known.add(name)
    return name
