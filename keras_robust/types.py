"""Names for tensors, and the protocols by which the parts of the library fit together.

- `Images`: `[batch, height, width, channels]`, or any `[batch, ...]`; float, in a ball's bounds.
- `Labels`: `[batch]`, integer.
- `Logits`: `[batch, classes]`, float.
- `PerExample`: `[batch]`, float.
- `Outputs`: `{"logits", "features"}`; ensembles add `"member_logits"`, `[batch, members, classes]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import keras
import tensorflow as tf

# Any, to a type checker: TensorFlow ships no types. The names are for the reader.
Images: TypeAlias = Any
Labels: TypeAlias = Any
Logits: TypeAlias = Any
PerExample: TypeAlias = Any
Seed: TypeAlias = Any  # an int, a pair of ints, or an int tensor of shape [] or [2]
Outputs: TypeAlias = dict[str, Any]
Forward: TypeAlias = Callable[[Images], Outputs]


@runtime_checkable
class Ball(Protocol):
    """A threat model: where a perturbed image may be. All that knows of a norm lives in one."""

    radius: Any
    bounds: tuple[float, float]

    def sample(self, x: Images, seed: tf.Tensor) -> Images:
        """Draws a point uniformly from the ball around `x`, then clips it into the bounds."""

    def project(self, x_adv: Images, x: Images) -> Images:
        """Brings `x_adv` into the ball around `x` and into the bounds."""

    def steepest(self, gradient: tf.Tensor) -> tf.Tensor:
        """The direction of unit length, in the ball's own norm, along `gradient`."""

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """How far `x_adv` is from `x`, in the ball's norm."""


def radius_of(ball: Any) -> Any:
    """The radius of a threat model.

    Raises:
        TypeError: it is none, such as a bare number.

    Example:
        >>> from keras_robust import LinfBall
        >>> radius_of(LinfBall(0.25))
        0.25
    """
    if not isinstance(ball, Ball):
        raise TypeError(
            f"ball is {ball!r}; expected a threat model, such as `keras_robust.LinfBall(8 / 255)`."
        )
    return ball.radius


class Objective(Protocol):
    """What an attack climbs."""

    def __call__(
        self, forward: Forward, x: Images, y: Labels, targets: Labels | None = None
    ) -> Callable[[Images], PerExample]:
        """Does the work on clean images once; returns `x_adv -> one value per example`."""


class StepRule(Protocol):
    """How a gradient moves a point: a pure pair of functions, the state passed in and out."""

    def init(self, ball: Ball, x_start: Images) -> Any:
        """The state before the first step."""

    def update(self, ball: Ball, x: Images, point: Any, state: Any) -> tuple[Images, Any]:
        """The next point inside the ball around `x`, and the next state."""


class Start(Protocol):
    """Where an ascent begins."""

    def __call__(self, ball: Ball, x: Images, seed: tf.Tensor) -> Images:
        """A first point inside the ball around `x`."""


@runtime_checkable
class RobustLoss(Protocol):
    """A loss on outputs, never on models.

    It may have `statistics`, names of further values that a call returns, to be logged, and
    `batch_level`, true where the value of one example depends on the others.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that a call returns, known before the first step."""

    @property
    def needs(self) -> frozenset[str]:
        """Which outputs are read: a subset of `{"clean", "adversarial"}`."""

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, one value per example, whose sum is the loss; and the statistics.

        Outputs that are not in `needs` may be None.
        """


def scalar(value: Any, dtype: tf.DType) -> tf.Tensor:
    """A number, or a scalar tensor, in a dtype; Python numbers keep their full precision.

    A number beyond the largest of the dtype becomes the largest: infinity times 0 is no number.

    Example:
        >>> float(scalar(0.1, tf.float64))
        0.1
        >>> float(scalar(1e6, tf.float16))
        65504.0
    """
    if tf.is_tensor(value):
        return tf.cast(value, dtype)
    largest = float(tf.as_dtype(dtype).max)
    # tf.cast would round a Python float to float32 first.
    return tf.constant(min(max(float(value), -largest), largest), dtype)


def wide(x: tf.Tensor) -> tf.Tensor:
    """Half precision as float32, in which sums and squares of many pixels are safe; others as is.

    Example:
        >>> wide(tf.zeros([2], tf.float16)).dtype.name, wide(tf.zeros([2], tf.float64)).dtype.name
        ('float32', 'float64')
    """
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def per_pixel(value: PerExample, like: Images) -> tf.Tensor:
    """One value per example, `[batch]`, in the shape that broadcasts over the images `like`.

    Example:
        >>> per_pixel(tf.constant([1.0, 2.0]), tf.zeros([2, 8, 8, 3])).shape.as_list()
        [2, 1, 1, 1]
    """
    return tf.reshape(value, [-1] + [1] * (like.shape.rank - 1))


def contract_of(model: Any) -> dict[str, Any] | None:
    """The symbolic outputs of a built functional model that returns a dictionary, else None."""
    output = getattr(model, "output", None) if isinstance(model, keras.Model) else None
    return output if isinstance(output, dict) else None


def as_forward(model: Any) -> Forward:
    """Turns a Keras model, or any function of images, into a `Forward` in inference mode.

    Args:
        model: a `keras.Model` or a function `images -> {"logits", ...}`.

    Returns:
        A function `images -> Outputs`; of an ensemble, with those of its members in an attribute
        `members`.

    Raises:
        TypeError: when called with a model that does not return a dictionary with `"logits"`.
    """

    def forward(x: Images) -> Outputs:
        outputs = model(x, training=False) if isinstance(model, keras.Model) else model(x)
        if not isinstance(outputs, dict) or "logits" not in outputs:
            keys = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
            raise TypeError(
                f"The model returned {keys}; expected a dictionary with 'logits' (and 'features'). "
                "Wrap a Keras model of your own with `keras_robust.models.adapt(model)`."
            )
        return outputs

    forward.members = tuple(map(as_forward, members_of(model)))  # type: ignore[attr-defined]
    return forward


def members_of(model: Any) -> tuple[Any, ...]:
    """The members of an ensemble, each a model of its own that runs without the others.

    Args:
        model: a Keras model, or a function with its members in an attribute `members`.

    Returns:
        Models or functions in the order of `"member_logits"`; none where the model is no ensemble,
        or where its members are no models inside of it.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> [member.name for member in members_of(ensemble)]
        ['member_1', 'member_2']
    """
    if not isinstance(model, keras.Model):
        return tuple(getattr(model, "members", ()))
    model = getattr(model, "classifier", model)
    outputs = contract_of(model) or {}
    if "member_logits" not in outputs:
        return ()
    parts = tuple(layer for layer in model.layers if "logits" in (contract_of(layer) or {}))
    return parts if len(parts) == outputs["member_logits"].shape[1] else ()
