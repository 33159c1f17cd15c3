"""The classifier contract: images in `[0, 1]` go in, `{"logits", "features"}` come out.

Every architecture of this package begins with `image_input` and ends with `classifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_robust.core.validation import check_integer

PerChannel = float | Sequence[float]


def image_input(
    input_shape: Sequence[int],
    classes: int,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of a classifier, and the same images normalized: `(x - mean) / std`.

    Args:
        input_shape: shape of one image without the batch.
        classes: number of classes, checked here so that errors come early.
        mean: number, or one number per channel, in units of `[0, 1]`; None for 0.
        std: number, or one number per channel, in units of `[0, 1]`; None for 1.

    Returns:
        The input `[batch, *input_shape]` and the tensor to build on; the same tensor twice if
        neither `mean` nor `std` is given.

    Raises:
        ValueError: an invalid shape, number of classes, mean or std.
    """
    check_integer("classes", classes, 2)
    shape = checked_shape(input_shape)
    inputs = keras.Input(shape, dtype="float32", name="images")
    if mean is None and std is None:
        return inputs, inputs
    mean_values = _per_channel("mean", 0.0 if mean is None else mean, shape[-1])
    std_values = _per_channel("std", 1.0 if std is None else std, shape[-1])
    if not np.all(std_values > 0):
        raise ValueError(f"std is {std!r}; expected positive numbers.")
    mean_values, std_values = np.broadcast_arrays(mean_values, std_values)
    # float32 whatever the policy: in half precision neighboring gray levels would merge, and
    # with them the gradient steps of an attack.
    layer = keras.layers.Normalization(
        mean=mean_values.tolist(),
        variance=np.square(std_values).tolist(),
        dtype="float32",
        name="normalization",
    )
    return inputs, layer(inputs)


def classifier(inputs: keras.KerasTensor, features: keras.KerasTensor, classes: int) -> keras.Model:
    """Ends a classifier with a dense layer on the features.

    Args:
        inputs: the first tensor that `image_input` returned.
        features: `[batch, d]`.
        classes: number of classes, at least 2.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, d]}`, both
        float32 under every precision policy.
    """
    features = keras.layers.Identity(dtype="float32", name="features")(features)
    # Differs: the thesis's released CNN initializes this layer to zero, which makes the very first
    # attack gradient exactly zero; here it is random like every other layer.
    logits = keras.layers.Dense(
        int(classes), kernel_initializer="he_normal", dtype="float32", name="logits"
    )(features)
    return keras.Model(inputs, {"logits": logits, "features": features})


def is_classifier(model: Any) -> bool:
    """Whether `model` is a built functional model that keeps the classifier contract.

    That is: one input, float32 `"logits"` `[batch, classes]` and `"features"` `[batch, d]`.

    Example:
        >>> from keras_robust.models import mlp
        >>> is_classifier(mlp((8, 8, 1), 10, hidden=(16,)))
        True
        >>> is_classifier(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
        False
    """
    if not (isinstance(model, keras.Model) and isinstance(model, keras.Function)):
        return False
    if not isinstance(model.input, keras.KerasTensor):  # a list or dictionary of inputs
        return False
    outputs = model.compute_output_spec(model.inputs[0])
    if not isinstance(outputs, dict) or not {"logits", "features"} <= set(outputs):
        return False
    logits, features = outputs["logits"], outputs["features"]
    return len(logits.shape) == 2 and len(features.shape) == 2 and logits.dtype == "float32"


def checked_shape(input_shape: Sequence[int | None]) -> tuple[int, ...]:
    """`input_shape` as a tuple of Python integers.

    Raises:
        ValueError: the shape is empty, open (None), or not made of positive integers.
    """
    try:
        shape = tuple(input_shape)
        for size in shape:
            check_integer("input_shape", size, 1)
    except (TypeError, ValueError):
        shape = ()
    if not shape:
        raise ValueError(
            f"input_shape is {input_shape!r}; expected the shape of one image without the batch, "
            "positive integers such as (32, 32, 3)."
        )
    return tuple(int(size) for size in shape if size is not None)


def checked_image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """`input_shape` as `(height, width, channels)`, for architectures that convolve.

    Raises:
        ValueError: the shape has not three sizes, or Keras is set to channels first.
    """
    shape = checked_shape(input_shape)
    if len(shape) != 3:
        raise ValueError(
            f"input_shape is {shape}; expected (height, width, channels). Grayscale images have "
            "channels=1, such as (28, 28, 1)."
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Keras is set to 'channels_first'; images are [batch, height, width, channels] here: "
            "call keras.config.set_image_data_format('channels_last') first."
        )
    return shape  # type: ignore[return-value]


def _per_channel(name: str, value: PerChannel, channels: int) -> np.ndarray:
    values = np.asarray(value, dtype="float64")
    if values.shape not in ((), (channels,)) or not np.all(np.isfinite(values)):
        raise ValueError(
            f"{name} is {value!r}; expected a finite number, or {channels} of them, one per "
            "channel."
        )
    return values
