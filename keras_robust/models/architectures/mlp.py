"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_robust.core.validation import check_integer
from keras_robust.models.building import PerChannel, classifier, image_input


def mlp(
    input_shape: Sequence[int],
    classes: int,
    hidden: Sequence[int] = (256, 256),
    dropout: float = 0.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """A multi-layer perceptron with rectified hidden layers.

    The features are the output of the last hidden layer. `mlp((2,), 2, hidden=(10, 10, 10))` is
    the network of the thesis's two-dimensional toy problem.

    Args:
        input_shape, classes, mean, std: see `build`.
        hidden: units of the hidden layers, at least one layer.
        dropout: fraction of values dropped after each hidden layer in training.

    Example:
        >>> model = mlp((8, 8, 1), classes=10, hidden=(32, 16))
        >>> model.count_params() == (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)
        True

    Reference:
        Bui, thesis, Monash 2023, chapter 5, appendix E (toy problem).
    """
    if len(hidden) == 0:
        raise ValueError(f"hidden is {hidden!r}; expected one or more layers, such as (256,).")
    for units in hidden:
        check_integer("hidden units of a layer", units, 1)
    inputs, x = image_input(input_shape, classes, mean, std)
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(hidden, start=1):
        x = keras.layers.Dense(
            int(units), activation="relu", kernel_initializer="he_normal", name=f"fc{number}"
        )(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    return classifier(inputs, x, classes)
