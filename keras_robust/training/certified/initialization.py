"""Initial weights that keep interval bounds from growing with depth."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core import random
from keras_robust.core.classifier import members_of
from keras_robust.core.validation import check_choice


def initialize(classifier: keras.Model, initialization: str | None, seed: int = 0) -> None:
    """Draws new kernels if `initialization` is `"ibp"`, and none if it is None.

    Raises:
        ValueError: another initialization.
    """
    check_choice("initialization", initialization, (None, "ibp"))
    if initialization == "ibp":
        ibp_initialization(classifier, seed)


def ibp_initialization(classifier: keras.Model, seed: int = 0) -> None:
    """Draws new kernels for all layers but the last of a classifier, or of each of its members.

    Normally distributed, with the standard deviation `sqrt(2 pi) / fan_in`: the mean radius of the
    intervals behind a layer and a ReLU is then that before it. The usual deviations grow it by
    about `sqrt(fan_in)` in each layer.

    Args:
        classifier: a built functional model; biases and batch norm stay as they are.
        seed: of the kernels.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((20, 20, 1), classes=3, hidden=(1000,))
        >>> ibp_initialization(classifier)
        >>> kernel = classifier.get_layer("fc1").kernel.numpy()
        >>> print(f"{kernel.std() * 400:.2f}, {math.sqrt(2 * math.pi):.2f}")
        2.51, 2.51

    Reference: Shi et al., "Fast Certified Robust Training with Short Warmup" (2021), section 3.1.
    """
    number = 0
    for member in members_of(classifier) or (classifier,):
        for kernel, fan_in in list(_kernels(member))[:-1]:
            folded = random.fold_in(as_seed(seed), number)
            drawn = random.normal(kernel.shape, folded)
            kernel.assign(tf.cast(drawn * (math.sqrt(2 * math.pi) / fan_in), kernel.dtype))
            number += 1


def _kernels(model: keras.Model) -> Iterator[tuple[keras.Variable, int]]:
    """The kernels in the order of the layers, each with the number of inputs of one output."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _kernels(layer)
        elif isinstance(kernel := getattr(layer, "kernel", None), keras.Variable):
            is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            yield kernel, math.prod(kernel.shape[:2] if is_depthwise else kernel.shape[:-1])
