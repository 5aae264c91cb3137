"""Loops as machine code, where Numba is installed and the arrays are on a CPU.

XLA vectorises neither a gather nor a sum behind one; Numba does, if it may add up in another order. XLA calls what
Numba compiled through its foreign function interface, so that nothing passes through Python while a program runs.
Every kernel stands in for a function in JAX, which is what runs under vmap, under derivatives, on a GPU and without
Numba.
"""

import ctypes
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Synapses of a projection, from which on the seconds that Numba takes to compile are soon regained: where all of them
# are looked at in every tick, and where few are.
LARGE = 500_000
MANY = 10_000

# The versions of XLA's interface (xla/ffi/api/c_api.h) that have the layout which `_handler` reads and writes.
VERSIONS = {(0, 3)}

_kept: list[Any] = []  # compiled functions live as long as XLA may call them


def worthwhile(weights: Sequence[Any]) -> bool:
    return sum(w.size for w in weights) >= LARGE and _version() in VERSIONS


def by_events(synapses: int) -> bool:
    """Whether so many synapses between spiking neurons are worth kernels that follow the spikes."""
    return synapses >= MANY and jax.default_backend() == "cpu" and _version() in VERSIONS


def compiled(
    plain: Callable[..., tuple[Any, ...]],
    source: str,
    over: tuple[int | None, ...],
    rest: int = 0,
    mapped: tuple[tuple[bool, ...], ...] = (),
) -> Callable[..., tuple[Any, ...]]:
    """The function ``plain`` of arrays, on a CPU as the compiled ``rows`` of ``source``. For each result ``over`` says
    which argument ``rows`` turns into it in place; for None it is a new array, given to ``rows`` after the arguments.
    The last ``rest`` arguments are for ``plain`` alone.

    ``mapped``: for every axis over which ``plain`` is ``rows`` mapped, the outermost first, the arguments that have it.
    """

    def function(*arrays: Any) -> Any:
        results = tuple(jax.eval_shape(plain, *arrays))
        return kernel.bind(*arrays, plain=plain, source=source, over=over, rest=rest, mapped=mapped, results=results)

    return function


kernel: Any = Primitive("kernel")  # its parameters: see `compiled`; ``results``: their shapes
kernel.multiple_results = True


kernel.def_abstract_eval(lambda *_, results, **__: [jax.core.ShapedArray(r.shape, r.dtype) for r in results])
kernel.def_impl(lambda *arrays, **given: jax.jit(lambda *arrays: kernel.bind(*arrays, **given))(*arrays))


def _called(*arrays: Any, source: str, over: Any, rest: int, mapped: Any, results: tuple[Any, ...], **_: Any) -> Any:
    """On a CPU."""
    given = arrays[: len(arrays) - rest]
    handler = _handler(*compilation(given, source, over, results, mapped))
    aliases = {argument: place for place, argument in enumerate(over) if argument is not None}
    return jax.ffi.ffi_call(_registered(handler), results, input_output_aliases=aliases)(*given)


def compilation(given: Sequence[Any], source: str, over: Any, results: Sequence[Any], mapped: Any) -> tuple[Any, ...]:
    """What `_handler` must be told."""
    slots = tuple(place for place, argument in enumerate(over) if argument is None)
    kinds = tuple((a.dtype.name, len(a.shape)) for a in (*given, *(results[slot] for slot in slots)))
    return source, kinds, slots, tuple((*has[: len(given)], *(True for _ in slots)) for has in mapped)


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
    **_: Any,
) -> Any:
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    has = tuple(axis is not None or k in over for k, axis in enumerate(axes))  # what changes, every copy has for itself
    arrays = [array if axis is None else jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True)]
    arrays = [
        jnp.broadcast_to(array, (size, *array.shape)) if own and axis is None else array
        for array, axis, own in zip(arrays, axes, has, strict=True)
    ]
    several = jax.vmap(plain, tuple(0 if h else None for h in has), axis_size=size)
    out = compiled(several, source, over, rest, (has, *mapped))(*arrays)
    return out, [0] * len(out)


batching.primitive_batchers[kernel] = _mapped


@functools.cache
def _version() -> tuple[int, ...] | None:
    """Of XLA's foreign function interface, or None where Numba is missing."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    header = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_text()
    return tuple(int(n) for n in re.findall(r"#define XLA_FFI_API_(?:MAJOR|MINOR) (\d+)", header))


@functools.cache
def _handler(
    source: str, kinds: tuple[tuple[str, int], ...], made: tuple[int, ...], mapped: tuple[tuple[bool, ...], ...] = ()
) -> Any:
    """``source`` compiled for arrays of these types and dimensions, the last of which are not given but made and are
    the results at these places; mapped over leading axes as `compiled` has it. A function of a call frame."""
    import numba
    from numba import types
    from numba.core.compiler import CompilerBase, DefaultPassBuilder

    scope: dict[str, Any] = {"np": np, "math": math, "inf": np.inf, "nan": np.nan}
    scope |= {"float32": np.float32, "float64": np.float64}
    exec(source, scope)  # our own text

    class Separate(CompilerBase):
        """Arrays do not overlap: without that promise a loop that stores and gathers is not vectorised. And only
        machine code calls."""

        def define_pipelines(self) -> Any:
            self.state.flags.noalias = self.state.flags.no_cpython_wrapper = self.state.flags.no_cfunc_wrapper = True
            return [passes.define_nopython_pipeline(self.state)]

    passes: Any = DefaultPassBuilder
    compiler: Any = {"pipeline_class": Separate}
    fast = {"reassoc", "contract", "nsz"}
    scope["rows"] = numba.njit(fastmath=fast, error_model="numpy", **compiler)(scope["rows"])

    given = len(kinds) - len(made)
    arrays = []
    for number, (dtype, dimensions) in enumerate(kinds):
        word, slot = (9, number) if number < given else (14, made[number - given])
        scope[f"view{number}"] = _view(word, slot, dtype, dimensions)
        axes = [f"i{level}" for level, has in enumerate(mapped) if has[number]]
        if axes and len(axes) == dimensions:  # a number for each copy
            axes[-1] = f"{axes[-1]}:{axes[-1]} + 1"
        arrays.append(f"c{number}[{', '.join(axes)}]" if axes else f"c{number}")
    lines = ["if answered(frame):", "    return np.uint64(0)"]
    lines += [f"c{number} = view{number}(frame)" for number in range(len(kinds))]
    whole = len(kinds) - 1 if made else 0  # has all the axes
    loops = [f"for i{level} in range(c{whole}.shape[{level}]):" for level in range(len(mapped))]
    lines += ["    " * level + loop for level, loop in enumerate(loops)]
    lines += ["    " * len(mapped) + f"rows({', '.join(arrays)})", "return np.uint64(0)"]
    scope["answered"] = _answered(_version() or (0, 0))
    exec("\n    ".join(["def handler(frame):", *lines]), scope)
    return numba.cfunc(types.uint64(types.uint64))(scope["handler"])


@functools.cache
def _registered(handler: Any) -> str:
    """The name by which XLA knows a function of a call frame."""
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    name = f"engrax_{len(_kept)}"
    jax.ffi.register_ffi_target(name, capsule(handler.address, None, None), platform="cpu")
    _kept.append(handler)
    return name


@dataclass(frozen=True)
class Step:
    """A kernel in a sequence of them: what `_handler` compiles, and where in the sequence's own call frame lies what it
    is given and all its results: (9, n) is argument n, (14, n) result n."""

    kernel: tuple[Any, ...]
    given: tuple[tuple[int, int], ...]
    made: tuple[tuple[int, int], ...]


def sequence(
    steps: tuple[Step, ...], results: tuple[Any, ...], aliases: Mapping[int, int], arrays: Sequence[Any]
) -> Any:
    """One call of kernels, one after another. ``aliases``: results by the arguments that become them."""
    name = _registered(_sequence(steps))
    return jax.ffi.ffi_call(name, results, input_output_aliases=dict(aliases))(*arrays)


@functools.cache
def _sequence(steps: tuple[Step, ...]) -> Any:
    """A function of a call frame that calls others, each with some of its arrays."""
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    word = ir.IntType(64)
    handlers = [_handler(*step.kernel) for step in steps]

    @intrinsic
    def call(_: Any, frame: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            def stored(words: Sequence[Any]) -> Any:
                array = builder.alloca(word, max(len(words), 1))
                for place, value in enumerate(words):
                    builder.store(value, builder.gep(array, [word(place)]))
                return builder.ptrtoint(array, word)

            slots = dict.fromkeys(slot for step in steps for slot in (*step.given, *step.made))
            lists = {first: _word(builder, values[0], first) for first in (9, 14)}
            buffers = {slot: _word(builder, lists[slot[0]], slot[1]) for slot in slots}
            kind = ir.FunctionType(word, [word]).as_pointer()
            for step, handler in zip(steps, handlers, strict=True):
                inner: list[Any] = [word(0)] * 15
                inner[9] = stored([buffers[slot] for slot in step.given])
                inner[14] = stored([buffers[slot] for slot in step.made])
                builder.call(builder.inttoptr(word(handler.address), kind), [stored(inner)])
            return context.get_dummy_value()

        return types.void(types.uint64), build

    scope = {"answered": _answered(_version() or (0, 0)), "call": call, "np": np}
    lines = ["if not answered(frame):", "    call(frame)", "return np.uint64(0)"]
    exec("\n    ".join(["def handler(frame):", *lines]), scope)
    return numba.cfunc(types.uint64(types.uint64))(scope["handler"])


# In words of 8 bytes, a call frame: 1 extension, 9 arguments, 14 results; a buffer: 3 data, 5 dimensions. An extension
# of type 1 (word 1, first half) asks for the version: word 3 of what the extension's word 3 points at. What reads them
# is built as it is: Numba would take half a second to find out the types of the same in Python.


def _word(builder: Any, address: Any, place: int, width: int = 64) -> Any:
    """The number at a place of those, ``width`` bits each, at an address."""
    from llvmlite import ir

    pointer = builder.inttoptr(address, ir.IntType(width).as_pointer())
    return builder.load(builder.gep(pointer, [ir.Constant(ir.IntType(64), place)]))


def _view(word: int, slot: int, dtype: str, dimensions: int) -> Any:
    """A function of a call frame: the array in this slot of the arguments (``word`` 9) or the results (14). A number is
    an array of one."""
    from numba import from_dtype, types
    from numba.extending import intrinsic
    from numba.np import arrayobj

    numpy: Any = arrayobj
    kind = types.Array(from_dtype(np.dtype(dtype)), max(dimensions, 1), "C")

    @intrinsic
    def view(_: Any, frame: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            buffer = _word(builder, _word(builder, values[0], word), slot)
            data, sizes = _word(builder, buffer, 3), _word(builder, buffer, 5)
            shape = [_word(builder, sizes, axis) for axis in range(dimensions)] or [context.get_constant(types.intp, 1)]
            bytes_each = context.get_constant(types.intp, np.dtype(dtype).itemsize)
            strides = [bytes_each]
            for size in shape[:0:-1]:
                strides.insert(0, builder.mul(strides[0], size))
            array = numpy.make_array(kind)(context, builder)
            data = builder.inttoptr(data, array.data.type)
            numpy.populate_array(array, data, shape, strides, bytes_each, None)
            return array._getvalue()

        return kind(types.uint64), build

    return view


def _answered(version: tuple[int, ...]) -> Any:
    """A function of a call frame: whether it asked for the version of the interface, and so was answered."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    word = ir.IntType(64)

    @intrinsic
    def answered(_: Any, frame: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            extension = _word(builder, values[0], 1)
            some = builder.icmp_unsigned("!=", extension, word(0))
            asks = builder.alloca(ir.IntType(1))
            builder.store(ir.IntType(1)(0), asks)
            with builder.if_then(some):
                asked = builder.icmp_unsigned("==", _word(builder, extension, 2, 32), ir.IntType(32)(1))
                builder.store(asked, asks)
                with builder.if_then(asked):
                    target = builder.inttoptr(_word(builder, extension, 3), word.as_pointer())
                    place = builder.gep(target, [word(3)])
                    builder.store(word(version[0] | version[1] << 32), place)
            return builder.load(asks)

        return types.boolean(types.uint64), build

    return answered
