"""BPDA: functions that compute one thing forward, and are differentiated as another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.config import register
from keras_robust.core.types import Images
from keras_robust.threat_models.clipping import with_gradient_of


@register
class StraightThrough(keras.layers.Layer):
    """A layer that applies a function forward, and passes gradients as another one does.

    See `straight_through`, which describes the arguments.
    """

    def __init__(
        self,
        function: Callable[[Images], Images],
        backward: Callable[[Images], Images] | None = None,
        **kwargs: Any,
    ):
        for name, value in (("function", function), ("backward", backward)):
            if not (callable(value) or (name == "backward" and value is None)):
                raise TypeError(
                    f"straight_through: {name} is {value!r}; expected a function of images."
                )
        super().__init__(**kwargs)
        self.function, self.backward = function, backward

    def call(self, x: Images) -> Images:
        """The function of the images, with the gradient of the other one."""
        exact = tf.convert_to_tensor(self.function(tf.stop_gradient(x)))
        approximate = x if self.backward is None else self.backward(x)
        if not approximate.shape.is_compatible_with(exact.shape):
            raise ValueError(
                f"straight_through: the function returns the shape {exact.shape}; expected "
                f"{approximate.shape}, that of what it is differentiated as."
            )
        exact = tf.ensure_shape(tf.cast(exact, approximate.dtype), approximate.shape)
        return with_gradient_of(approximate, tf.stop_gradient(exact))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The functions, which have to be registered with Keras."""
        functions = {"function": self.function, "backward": self.backward}
        saved = {
            name: None if value is None else keras.saving.serialize_keras_object(value)
            for name, value in functions.items()
        }
        return {**super().get_config(), **saved}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StraightThrough:
        """Rebuilds the layer from the result of `get_config`."""
        functions = {
            name: None
            if config[name] is None
            else keras.saving.deserialize_keras_object(config[name])
            for name in ("function", "backward")
        }
        return cls(**{**config, **functions})


def straight_through(
    function: Callable[[Images], Images], backward: Callable[[Images], Images] | None = None
) -> StraightThrough:
    """BPDA: a layer for a defense whose gradient is missing or useless, such as rounding or JPEG.

    Put it in the place of the defense in the model that is attacked: what it computes is the same,
    and gradients pass as if it were `backward`.

    Args:
        function: of images, of tensors `[batch, ...]`; a function of NumPy arrays goes into
            `tf.numpy_function`. It need not be differentiable.
        backward: a differentiable function that is close to it, as whose gradient its own is
            taken; None for the identity.

    Returns:
        The layer.

    Raises:
        TypeError: not a function.
        ValueError: when called, a function that returns another shape.

    Example:
        >>> rounding = straight_through(lambda x: tf.round(4 * x) / 4)
        >>> x = tf.constant([[0.3, 0.9]])
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = rounding(x)
        >>> y.numpy().tolist(), tape.gradient(y, x).numpy().tolist()
        ([[0.25, 1.0]], [[1.0, 1.0]])

    Reference: Athalye et al., "Obfuscated Gradients Give a False Sense of Security" (2018), sec. 4.
    """
    return StraightThrough(function, backward)
