"""The arrays of a fitted detector, compared and hashed by their contents."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf


class Statistics(Mapping[str, Any]):
    """Arrays by name: what a detector has measured on clean images.

    Args:
        arrays: name -> array, or the `tf.Variable` that holds it.
        digest: of the contents; by default computed.

    Example:
        >>> statistics = Statistics({"means": np.zeros([10, 32], np.float32)})
        >>> statistics.nbytes, statistics == Statistics(statistics)
        (1280, True)
    """

    def __init__(self, arrays: Mapping[str, Any], digest: str | None = None):
        self._arrays = dict(arrays)
        if digest is not None:
            self.digest = digest

    @functools.cached_property
    def digest(self) -> str:
        """A checksum of names and contents."""
        found = hashlib.sha256()
        for name, array in sorted(self._arrays.items()):
            array = np.asarray(array)
            found.update(f"{name} {array.dtype} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        """The memory of all arrays, in bytes."""
        return sum(int(np.asarray(array).nbytes) for array in self._arrays.values())

    def as_variables(self) -> Statistics:
        """The same, held by variables, which a SavedModel stores once for all its signatures."""
        variables = {
            name: tf.Variable(array, trainable=False, name=f"statistic_{name.replace('/', '_')}")
            for name, array in self._arrays.items()
        }
        return Statistics(variables, self.digest)

    def below(self, prefix: str) -> Statistics:
        """The arrays whose names begin with `prefix`, by the rest of their names."""
        found = {n.removeprefix(prefix): a for n, a in self._arrays.items() if n.startswith(prefix)}
        return Statistics(found)

    def __getitem__(self, name: str) -> Any:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Statistics({', '.join(sorted(self._arrays))}; {self.digest})"
