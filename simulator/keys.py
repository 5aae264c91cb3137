"""Random keys by name."""

import zlib
from typing import Any

import jax


def named_key(key: Any, name: str) -> Any:
    """A random key of its own for every population and projection, by name and not by order."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
