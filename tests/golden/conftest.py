"""The reference arrays, and how closely they have to be met."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
SOURCES = {"copy": HERE, "shared": HERE.parents[2] / "shared" / "golden"}


@pytest.fixture(params=SOURCES, scope="module")
def load(request):
    """Loads a file as tensors: from the copy here, and from the whole set where it is present."""
    source = SOURCES[request.param]
    if not source.is_dir():
        pytest.skip(f"{source.name} is not beside the repository")

    def load(name):
        with np.load(source / f"{name}.npz") as arrays:
            return {key: tf.constant(value) for key, value in arrays.items()}

    return load
