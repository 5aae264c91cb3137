"""What of HDF5 a recording may hold: refused is what would make HDF5 look outside the file, or fail by itself.

HDF5 is written in C and trusts what it reads: a file forged for the purpose can crash it, or keep it busy for ever. So
this file also runs as a script, in a process of its own (see guard.py): it reads the paths of files, one JSON string a
line, and answers each with a line of JSON: null, or what is wrong. It must therefore import nothing of engrax.
"""

import contextlib
import json
import sys
from typing import Any

import h5py
import numpy as np

OBJECTS = 100_000  # more than any network has
RATIO = 1100  # the most that deflate can have packed into a byte, and some
SMALL = 2**20  # bytes that a dataset may claim to hold without having them on disk
READ = 2**22  # bytes at either end of a dataset that are read to see whether HDF5 can
REF = h5py.Reference


def check(file: h5py.File) -> None:
    """Refuse what no recording holds and what would make HDF5 look outside the file. Raises ``ValueError``."""
    waiting, seen = [file["/"]], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > OBJECTS:
                raise ValueError(f"more than {OBJECTS} objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{group.name}/{name} is a link to somewhere else")
            thing = group[name]
            if h5py.h5o.get_info(thing.id).rc > 1:
                raise ValueError(f"{thing.name} has two names")
            _plain_attributes(thing)
            if isinstance(thing, h5py.Group):
                waiting.append(thing)
            elif isinstance(thing, h5py.Dataset):
                _plain_dataset(thing)
            else:
                raise ValueError(f"{thing.name} is neither group nor dataset")
    _plain_attributes(file)


def read(file: h5py.File) -> None:
    """Have HDF5 do all that the readers of a recording will have it do. What it can only refuse, they will tell."""
    things: list[Any] = [file]
    file.visititems(lambda _, thing: things.append(thing))
    for thing in things:
        with contextlib.suppress(Exception):
            dict(thing.attrs)
        if isinstance(thing, h5py.Dataset) and thing.ndim:
            few = max(1, READ * len(thing) // max(thing.nbytes, 1))
            for rows in (slice(0, few), slice(-few, None)):
                with contextlib.suppress(Exception):
                    thing[rows]
            with contextlib.suppress(Exception):
                thing.id.chunk_iter(lambda chunk: None)
            with contextlib.suppress(Exception):
                [scale.shape for axis in thing.dims for scale in axis.values()]


def serve() -> None:
    for line in sys.stdin:
        said = None
        try:
            with h5py.File(json.loads(line), "r") as file:
                check(file)
                with contextlib.suppress(Exception):
                    read(file)
        except Exception as error:
            said = str(error) or type(error).__name__
        print(json.dumps(said), flush=True)


def _plain_dataset(data: h5py.Dataset) -> None:
    if data.dtype.kind not in "iufbS" or data.dtype.hasobject or data.dtype.itemsize > 2**16:
        raise ValueError(f"{data.name} has the type {data.dtype}")
    creation = data.id.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
        raise ValueError(f"{data.name} keeps its data in another file")
    for i in range(creation.get_nfilters()):
        if creation.get_filter(i)[0] not in (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_LZF):
            raise ValueError(f"{data.name} needs a filter plug-in")
    # What is stored of a dataset alone is not asked: HDF5 may count forever, as far as a damaged index says.
    packed = RATIO if creation.get_nfilters() else 8 if _dimension_only(data) else 1
    if data.size * data.dtype.itemsize > data.file.id.get_filesize() * packed + SMALL:
        raise ValueError(f"{data.name} claims more than the file holds")


def _dimension_only(data: h5py.Dataset) -> bool:
    """A dimension without coordinates, as netCDF keeps it: a length and no values, which nobody reads."""
    return is_scale(data) and data.ndim == 1 and str(plain(data.attrs.get("NAME"))).startswith("This is a netCDF dim")


def _plain_attributes(thing: Any) -> None:
    for name in thing.attrs:
        attribute = thing.attrs.get_id(name)
        kind, shape = attribute.dtype, attribute.shape
        if name in ("CLASS", "NAME"):  # HDF5's own code for dimension scales trusts these four
            fits = kind.kind == "S" and shape == () and attribute.get_type().get_strpad() == h5py.h5t.STR_NULLTERM
        elif name == "DIMENSION_LIST":
            held = h5py.check_vlen_dtype(kind)
            fits = (
                len(shape) == 1
                and len(thing.shape) == shape[0]
                and held is not None
                and h5py.check_ref_dtype(held) is REF
            )
        elif name == "REFERENCE_LIST":
            fits = len(shape) == 1 and kind.names == ("dataset", "dimension") and h5py.check_ref_dtype(kind[0]) is REF
        else:
            fits = not kind.hasobject or h5py.check_string_dtype(kind) is not None
        if not fits:
            raise ValueError(f"attribute {name} of {thing.name} has the type {kind} and shape {shape}")


def plain(value: Any) -> Any:
    """An attribute as Python has it."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def is_scale(data: h5py.Dataset) -> bool:
    return bool(plain(data.attrs.get("CLASS")) == "DIMENSION_SCALE")


def scales(data: h5py.Dataset) -> list[h5py.Dataset | None]:
    """The dimension scale attached to each axis, read here: HDF5's own code for it can crash on a damaged file."""
    held = data.attrs.get("DIMENSION_LIST", [()] * data.ndim)
    found = [data.file[references[0]] if len(references) else None for references in held]
    if not all(scale is None or (isinstance(scale, h5py.Dataset) and is_scale(scale)) for scale in found):
        raise ValueError(f"an axis of {data.name} is none")
    return found


def dimensions(data: h5py.Dataset) -> list[str]:
    """The names of a dataset's axes: those of the dimension scales attached to them."""
    return [f"axis {i}" if axis is None else axis.name.rpartition("/")[2] for i, axis in enumerate(scales(data))]


if __name__ == "__main__":
    serve()
