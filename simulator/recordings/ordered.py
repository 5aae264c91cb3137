"""An HDF5 file that is whole at every moment, whenever its writer dies.

HDF5 updates a file in place, in an order of its own: a process that is killed while it does so leaves a file that may
not open. Its single-writer mode orders the updates but marks the file as being written, and a file so marked is refused
by every reader that was not told (h5py, xarray and MATLAB by default) until the mark is removed by a tool. Here HDF5
writes through an object of ours instead (h5py's driver for Python file objects, which sets no mark and takes no lock):

- what goes behind the end that the file had at the last commit is written at once: nothing refers to it yet;
- what replaces something older is kept back. `commit` makes the file as long as HDF5 will say it is, then writes what
  was kept back in the order in which one thing refers to another: sample data, then the superblock with that length,
  then the blocks of a chunk index from its leaves to its root, then the object headers, which hold the datasets'
  lengths.

Each of these writes leaves a valid file, with the samples of the last commit or of this one. Space is never used twice
(``fs_strategy="none"``), so what an old header refers to stays. Signatures are those of the HDF5 file format
specification, version 3.0.
"""

import os
from pathlib import Path
from typing import Any

import h5py

# What comes first on disk; anything without a signature (sample data) comes before all of these.
ORDER = (b"\x89HDF", b"FADB", b"EADB", b"EASB", b"EAIB", b"FAHD", b"EAHD", b"OCHK", b"OHDR")


class OrderedFile:
    """A Python file object for `h5py.File`. Raises ``OSError`` as the system does."""

    def __init__(self, path: Path, mode: str) -> None:
        flags = {"w": os.O_CREAT | os.O_TRUNC, "r+": 0}[mode]
        self._fd = os.open(path, os.O_RDWR | flags | getattr(os, "O_BINARY", 0), 0o666)
        self._committed = os.fstat(self._fd).st_size
        self._held: dict[int, bytes] = {}  # address -> what will replace what is there
        self._size = self._committed
        self._position = 0
        self.abandoned = False
        self._error: OSError | None = None

    def commit(self) -> None:
        """Put on disk what was kept back. Call it after HDF5's own flush. Raises what a write since had to."""
        if self._error is not None:
            raise self._error
        if self.abandoned:
            return
        if self._size > os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self._size)
        for address, block in sorted(self._held.items(), key=lambda item: (_rank(item[1]), item[0])):
            self._put(block, address)
        self._held.clear()
        if self._size < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self._size)
        self._committed = self._size

    def abandon(self) -> None:
        """Leave the file as the last commit left it, whatever HDF5 still writes."""
        self.abandoned = True
        self._held.clear()

    def close(self) -> None:
        os.close(self._fd)

    def moved(self, path: Path) -> bool:
        """Whether ``path`` no longer names this file."""
        try:
            return not os.path.samestat(os.stat(path), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    # What h5py calls

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        buffer = bytearray(self._size - self._position if size < 0 else size)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:
        start, view = self._position, memoryview(buffer).cast("B")
        found = os.preadv(self._fd, [view], start)
        for address, block in self._held.items():
            low, high = max(address, start), min(address + len(block), start + len(view))
            if low < high:
                view[low - start : high - start] = block[low - address : high - address]
                found = max(found, high - start)
        self._position += found
        return found

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if not self.abandoned:
            if self._position < self._committed:
                self._held[self._position] = bytes(view)
            else:
                try:
                    self._put(view, self._position)
                except OSError as error:  # within HDF5, which cannot carry it
                    self._error = error
                    self.abandon()
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def flush(self) -> None:
        """Nothing: `commit` says when."""

    def _put(self, data: Any, address: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, address)
            view, address = view[done:], address + done


def open_ordered(path: Path, mode: str) -> tuple[h5py.File, OrderedFile]:
    """``path`` as an HDF5 file that is whole at every commit. ``mode``: w (new) or r+ (append to)."""
    raw = OrderedFile(path, mode)
    try:
        new = {"fs_strategy": "none"} if mode != "r+" else {}
        return h5py.File(raw, "r+" if mode == "r+" else "w", libver=("v110", "v110"), **new), raw
    except BaseException:
        raw.close()
        raise


def _rank(block: bytes) -> int:
    kind = block[:4]
    return ORDER.index(kind) + 1 if kind in ORDER else 0
