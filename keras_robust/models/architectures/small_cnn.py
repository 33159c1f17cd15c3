"""The small convolutional networks of the thesis, for MNIST, CIFAR10 and CIFAR100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_robust.core.validation import check_choice, lookup
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)


class Variant(NamedTuple):
    """Filters of the 3x3 convolutions of each stage, which a 2x2 max pool ends; dense units."""

    stages: tuple[tuple[int, ...], ...]
    dense: tuple[int, ...]

    def smallest(self) -> int:
        """The smallest height and width, in pixels, for valid convolutions.

        Example:
            >>> VARIANTS["mnist"].smallest(), VARIANTS["cifar100"].smallest()
            (16, 22)
        """
        size = 1
        for convolutions in reversed(self.stages):
            size = 2 * size + 2 * len(convolutions)
        return size


VARIANTS = {
    # The chapters on ASCL, CCE and UDR (their tables of architectures agree).
    "mnist": Variant(((32, 32), (64, 64)), (200, 200)),
    "cifar10": Variant(((64, 64), (128, 128)), (256, 256)),
    "cifar100": Variant(((64, 64, 64), (128, 128, 128)), (256, 256, 256)),
    # The chapter on ADR prints the same number of filters in both stages.
    "adr_mnist": Variant(((32, 32), (32, 32)), (200, 200)),
    "adr_cifar10": Variant(((64, 64), (64, 64)), (256, 256)),
    # Not in the thesis: for tests and first steps on tiny images.
    "tiny": Variant(((8,), (16,)), (32,)),
}


def small_cnn(
    input_shape: Sequence[int],
    classes: int,
    variant: str | None = None,
    padding: str | None = None,
    dropout: float = 0.5,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """A small convolutional network: 3x3 convolutions, two max pools, dense layers.

    Every layer but the last is rectified; dropout follows the first dense layer. The features are
    the output of the last hidden dense layer. ADR's latent, the flattened output of the last
    convolution, is `models.adapt(small_cnn(...), features="flatten")`.

    Args:
        input_shape, classes, mean, std: see `build`.
        variant: `"mnist"`, `"cifar10"`, `"cifar100"` (the thesis's networks), `"adr_mnist"`,
            `"adr_cifar10"` (the same as the ADR chapter prints them), `"tiny"`. None takes
            `"mnist"` for one channel, else `"cifar100"` from 100 classes on, else `"cifar10"`.
        padding: of the convolutions, `"valid"` or `"same"`. None takes `"valid"`, as the thesis,
            where the image is large enough for it (16 pixels; 22 for `"cifar100"`), else `"same"`.
        dropout: fraction of values dropped in training.

    Example:
        >>> model = small_cnn((28, 28, 1), classes=10)
        >>> model.get_layer("flatten").output.shape, model.get_layer("features").output.shape
        ((None, 1024), (None, 200))
        >>> padded = small_cnn((8, 8, 1), classes=10)  # too small for valid convolutions
        >>> padded.get_layer("flatten").output.shape
        (None, 256)

    Reference:
        Bui, thesis, Monash 2023, tables of architectures in chapters 3 (CNN-4C3F), 4 and 5.
    """
    shape = checked_image_shape(input_shape)
    name = _default_variant(shape, classes) if variant is None else variant
    layers = VARIANTS[lookup("variant", name, VARIANTS)]
    padding = _padding(shape, layers, padding)
    inputs, x = image_input(shape, classes, mean, std)
    for stage, convolutions in enumerate(layers.stages, start=1):
        for number, filters in enumerate(convolutions, start=1):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding=padding,
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv{stage}_{number}",
            )(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(layers.dense, start=1):
        x = keras.layers.Dense(
            units, activation="relu", kernel_initializer="he_normal", name=f"fc{number}"
        )(x)
        if dropout and number == 1:
            x = keras.layers.Dropout(dropout, name="dropout")(x)
    return classifier(inputs, x, classes)


def _default_variant(shape: tuple[int, int, int], classes: int) -> str:
    if shape[-1] == 1:
        return "mnist"
    return "cifar100" if classes >= 100 else "cifar10"


def _padding(shape: tuple[int, int, int], layers: Variant, padding: str | None) -> str:
    small, smallest = min(shape[:2]), layers.smallest()
    if padding is None:
        padding = "valid" if small >= smallest else "same"
    check_choice("padding", padding, ("valid", "same"))
    if padding == "valid" and small < smallest:
        raise ValueError(
            f"input_shape={shape} is too small for padding='valid', which needs {smallest} pixels "
            "in height and width with this variant: use padding='same'."
        )
    if small < 2 ** len(layers.stages):
        raise ValueError(
            f"input_shape={shape} is too small for {len(layers.stages)} max pools, which need "
            f"{2 ** len(layers.stages)} pixels in height and width: use `mlp`."
        )
    return padding
