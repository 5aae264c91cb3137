"""Large sparse projections as machine code, where Numba is installed and the arrays are on a CPU.

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
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .rules.equations import Traced, inline

LARGE = 500_000  # synapses of a projection, from which on the seconds that Numba takes to compile are soon regained

# The versions of XLA's interface (xla/ffi/api/c_api.h) that have the layout which `_handler` reads and writes.
VERSIONS = {(0, 3)}

_kept: list[Any] = []  # compiled functions live as long as XLA may call them


def worthwhile(weights: Sequence[Any]) -> bool:
    return sum(w.size for w in weights) >= LARGE and _version() in VERSIONS


def weighted_sum(w: Any, index: Any, x: Any) -> Any:
    """For every row the sum of ``w * x[index]``: (rows, width), (rows, width), (pre,) -> (rows,)."""

    def plain(w: Any, index: Any, x: Any) -> Any:
        return (w * x.at[index].get(mode="promise_in_bounds")).sum(-1)

    source = f"""
def rows(w, index, x, out):
    for i in range(w.shape[0]):
        total = {w.dtype}(0)
        for j in range(w.shape[1]):
            total += w[i, j] * x[np.uint64(index[i, j])]
        out[i] = total
"""
    return compiled(plain, source, 0)(w, index, x)


def compiled(plain: Callable[..., Any], source: str, states: int) -> Callable[..., Any]:
    """The function ``plain`` of arrays, on a CPU as the compiled ``rows`` of ``source``. The first ``states`` arguments
    are updated in place and are the results; where that is 0, one result is written to an argument after the others."""

    @jax.custom_jvp
    def function(*arrays: Any) -> Any:
        return fast(*arrays)

    @function.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return jax.jvp(plain, primals, tangents)

    @jax.custom_batching.custom_vmap
    def fast(*arrays: Any) -> Any:
        results = jax.eval_shape(plain, *arrays)
        made = () if states else (results,)
        name = _handler(source, tuple((a.dtype.name, a.ndim) for a in (*arrays, *made)), len(made))
        call = jax.ffi.ffi_call(name, results, input_output_aliases={k: k for k in range(states)})
        return jax.lax.platform_dependent(*arrays, cpu=call, default=plain)

    @fast.def_vmap
    def _(size: int, batched: Any, *arrays: Any) -> Any:
        out = jax.vmap(plain, tuple(0 if b else None for b in batched), axis_size=size)(*arrays)
        return out, jax.tree.map(lambda _: True, out)

    return function


_WORDS = {
    "add": "{} + {}", "add_any": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}",
    "square": "{0} * {0}", "sqrt": "math.sqrt({})", "abs": "abs({})", "copy": "{}", "stop_gradient": "{}",
    "max": "{0} if ({0} > {1}) | ({0} != {0}) else {1}", "min": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
    "gt": "{} > {}", "lt": "{} < {}", "ge": "{} >= {}", "le": "{} <= {}", "eq": "{} == {}", "ne": "{} != {}",
    "and": "{} & {}", "or": "{} | {}", "not": "not {}", "select_n": "{2} if {0} else {1}",
}  # fmt: skip
# exp, tanh and the like are left to XLA, which vectorises them; Numba does not.


def learning_source(update: Traced, constraint: Traced, names: Sequence[str], dt: float, dtype: Any) -> str | None:
    """``rows`` for one tick of learning, or None if the rule has an operation that cannot be printed.

    ``names`` are those of the arrays: ``w``, then the synaptic state (``syn.*``), ``index``, ``degrees``, ``pre.*``,
    ``post.*``, and numbers by the names of the rule's inputs.
    """
    held = {"w": "[i, j]", "syn": "[i, j]", "pre": "[k]", "post": "[i]"}
    arrays = {name: f"a{number}" for number, name in enumerate(names)}
    places = {name: array + held.get(name.partition(".")[0], "[0]") for name, array in arrays.items()}
    index, degrees = arrays["index"], arrays["degrees"]
    local = {name: f"x{number}" for number, name in enumerate(names)} | {"dt": f"{dtype}({dt!r})"}
    lines: list[str] = []

    def assign(text: str) -> str:
        lines.append(f"v{len(lines)} = {text}")
        return f"v{len(lines) - 1}"

    def apply(equation: Any, given: list[str]) -> str:
        name, parameters = equation.primitive.name, equation.params
        if name == "integer_pow" and 1 <= parameters["y"] <= 4:
            return assign(" * ".join(given * parameters["y"]))
        if name == "convert_element_type" and parameters["new_dtype"] == dtype:
            return assign(f"{dtype}({given[0]})")
        return assign(_WORDS[name].format(*given))

    def literal(value: Any) -> str:
        number = np.asarray(value).item()
        return f"{dtype}({number!r})" if isinstance(number, float) else repr(number)

    def outputs(traced: Traced, known: Mapping[str, str]) -> dict[str, str]:
        inputs = [known.get(name, "0") for name in traced.inputs]  # what is not known is not read
        results = inline(traced.jaxpr.jaxpr, inputs, apply, literal, tuple(traced.jaxpr.consts))
        return dict(zip(traced.outputs, results, strict=True))

    def load(place: str) -> list[str]:
        return [f"{local[name]} = {value}" for name, value in places.items() if value.endswith(place)]

    unknown = (update.reads | constraint.reads) - {*names, "dt"}  # noise, pooled sums, counters
    if unknown or any(output.dtype != dtype for output in update.jaxpr.out_avals):
        return None
    try:
        new = outputs(update, local)
        new["w"] = outputs(constraint, {**local, "w": assign(f"{local['w']} + {new.pop('dw')}")})["w"]
    except KeyError:  # an operation without a word
        return None
    stores = [f"{places[name]} = {value}" for name, value in new.items()]
    inner = [f"k = np.uint64({index}[i, j])", *load("[i, j]"), *load("[k]"), *lines, *stores]
    outer = [*load("[i]"), f"for j in range({degrees}[i]):", *(f"    {line}" for line in inner)]
    body = [*load("[0]"), "for i in range(a0.shape[0]):", *(f"    {line}" for line in outer)]
    return "\n    ".join([f"def rows({', '.join(arrays.values())}):", *body])


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
def _handler(source: str, kinds: tuple[tuple[str, int], ...], results: int) -> str:
    """Compile ``source`` for arrays of these types and dimensions, the last ``results`` of which are not given but
    made; return the name by which XLA knows it."""
    import numba
    from numba import types
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.extending import intrinsic

    carray: Any = numba.carray  # type: ignore[attr-defined]

    @intrinsic
    def pointer(_: Any, address: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

        return types.voidptr(types.uint64), build

    to: Any = pointer  # called in machine code, without the context

    @numba.njit
    def view(address: Any, shape: Any, dtype: Any) -> Any:
        return carray(to(address), shape, dtype)

    scope: dict[str, Any] = {"np": np, "math": math, "view": view, "inf": np.inf, "nan": np.nan}
    scope |= {"float32": np.float32, "float64": np.float64}
    exec(source, scope)  # our own text

    class Separate(CompilerBase):
        """Arrays do not overlap: without that promise a loop that stores and gathers is not vectorised."""

        def define_pipelines(self) -> Any:
            self.state.flags.noalias = True
            return [passes.define_nopython_pipeline(self.state)]

    passes: Any = DefaultPassBuilder
    compiler: Any = {"pipeline_class": Separate}
    fast = {"reassoc", "contract", "nsz"}
    scope["rows"] = numba.njit(fastmath=fast, error_model="numpy", **compiler)(scope["rows"])

    # In words of 8 bytes, a call frame: 1 extension, 9 arguments, 14 results; a buffer: 3 data, 5 dimensions. An
    # extension of type 1 (word 1, first half) asks for the version: word 3 of what the extension's word 3 points at.
    major, minor = _version() or (0, 0)
    given = len(kinds) - results
    lines = [
        "frame = view(address, 15, np.uint64)",
        "extension = frame[1]",
        "if extension != 0 and view(extension, 4, np.uint64)[1] & np.uint64(0xFFFFFFFF) == np.uint64(1):",
        f"    view(view(extension, 4, np.uint64)[3], 4, np.uint64)[3] = np.uint64({major | minor << 32})",
        "    return np.uint64(0)",
    ]
    arrays = []
    for number, (dtype, dimensions) in enumerate(kinds):
        word, slot = (9, number) if number < given else (14, number - given)
        lines.append(f"b{number} = view(view(frame[{word}], {slot + 1}, np.uint64)[{slot}], 6, np.uint64)")
        lines.append(f"d{number} = view(b{number}[5], {dimensions}, np.int64)")
        shape = "".join(f"d{number}[{axis}], " for axis in range(dimensions)) or "1,"
        arrays.append(f"view(b{number}[3], ({shape}), np.{dtype})")
    lines += [f"rows({', '.join(arrays)})", "return np.uint64(0)"]
    exec("\n    ".join(["def handler(address):", *lines]), scope)
    handler = numba.cfunc(types.uint64(types.uint64))(scope["handler"])
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    name = f"engrax_{len(_kept)}"
    jax.ffi.register_ffi_target(name, capsule(handler.address, None, None), platform="cpu")
    _kept.append(handler)
    return name
