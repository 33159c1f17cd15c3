"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import keras

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
        input_shape: shape of one input without the batch; flattened if it has several axes.
        classes: number of classes.
        hidden: units of the hidden layers, at least one layer.
        dropout: share of values dropped after each hidden layer in training.
        mean: subtracted from the input, a number or one per channel, in units of [0, 1].
        std: the input is then divided by it, a number or one per channel.

    Returns:
        A functional model `images -> {"logits": [batch, classes],
        "features": [batch, hidden[-1]]}`.

    Raises:
        ValueError: for hidden layers, a shape or a number of classes that cannot be built.

    Example:
        >>> model = mlp((8, 8, 1), classes=10, hidden=(32, 16))
        >>> model.count_params() == (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)
        True

    Reference:
        Bui, thesis, Monash 2023, chapter 5, appendix E (toy problem).
    """
    if not hidden or any(units < 1 for units in hidden):
        raise ValueError(f"hidden={hidden!r} must be one or more positive numbers, such as (256,).")
    inputs, x = image_input(input_shape, classes, mean, std)
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(hidden, start=1):
        x = keras.layers.Dense(
            int(units), activation="relu", kernel_initializer="he_normal", name=f"fc{number}"
        )(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    return classifier(inputs, x, classes)
