"""What every attack is: images in, perturbed images out.

A new attack implements `craft` and `at_radius`; checking what it was given, seeds, compiling and
the rounds of an attack that repeats itself are here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Logits,
    Seed,
    as_forward,
    contract_of,
    scalar,
    wide,
)

# Narrower floats are for storage: TensorFlow has no arithmetic for them.
_FLOATS = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


class Round(NamedTuple):
    """One of the runs that an attack is made of, so that an evaluation can skip fooled images.

    Attributes:
        attack: the attack to run.
        fold: folded into the seed; rounds that repeat one attack differ in it.
        offset: for targeted attacks, the target is the label plus this, modulo the classes.
        rank: for targeted attacks, the target is the likeliest class but the label (1), the second
            likeliest (2), and so on, by the clean image.
    """

    attack: Attack
    fold: int = 0
    offset: int | None = None
    rank: int | None = None

    def seed(self, seed: Seed) -> tf.Tensor:
        """The round's own seed, an int tensor of shape `[2]`."""
        return tf.random.experimental.stateless_fold_in(as_seed(seed), self.fold)

    def targets(self, y: Labels, logits: Logits) -> Labels | None:
        """The round's own targets, `[batch]`, or None for an untargeted attack.

        Args:
            y: true labels `[batch]`.
            logits: of the clean images, `[batch, classes]`.
        """
        if self.rank is not None:
            label = tf.one_hot(y, logits.shape[-1], True, False, dtype=tf.bool)
            others = tf.where(label, logits.dtype.min, logits)
            return tf.cast(tf.math.top_k(others, self.rank).indices[:, -1], y.dtype)
        return None if self.offset is None else (y + self.offset) % logits.shape[-1]


class Attack(abc.ABC):
    """An attack: a frozen set of settings, called on a model and a batch.

    Pure: it holds no variables, the seed is passed, and gradients do not flow through its result.
    The model runs in inference mode: nothing of it changes.
    """

    ball: Ball
    name: str
    # Whether a call gives a tuple of batches, one for each member of an ensemble.
    per_member = False
    # The model that it crafts on, where that is not the one attacked.
    source: Any = None

    @abc.abstractmethod
    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Perturbs a batch that has been checked, with a seed of shape `[2]`."""

    @abc.abstractmethod
    def at_radius(self, radius: Any, step_size: Any = None) -> Attack:
        """The same attack in a ball of another radius."""

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The runs that the attack is made of: itself, unless it repeats others."""
        del classes
        return (Round(self),)

    def __call__(
        self,
        model: Any,
        x: Images,
        y: Labels,
        *,
        seed: Seed = 0,
        targets: Labels | None = None,
    ) -> Images:
        """Perturbs a batch.

        Args:
            model: a Keras model, or a function, `images -> {"logits": [batch, classes], ...}`.
            x: clean images `[batch, ...]`, float, inside the ball's bounds.
            y: true labels `[batch]`, integer.
            seed: an int, or an int tensor of shape `[2]`; the same seed gives the same batch.
            targets: for targeted attacks, the class to reach, `[batch]`, integer.

        Returns:
            Perturbed images of the shape and dtype of `x`, inside the ball and its bounds.

        Raises:
            TypeError, ValueError: what was received, and what was expected.
        """
        x, y, targets = check_batch(x, y, targets, self.ball.bounds, _classes(model))
        crafted = self.craft(as_forward(model), x, y, as_seed(seed), targets)
        return tf.nest.map_structure(tf.stop_gradient, crafted)

    def compiled(self, model: Any) -> Callable[..., Images]:
        """The attack on one model as a `tf.function`.

        Args:
            model: as for a call.

        Returns:
            A function `(x, y, seed=0, radius=None, targets=None) -> x_adv`. It is traced once for
            all seeds and radii, and at most twice for batch sizes.

        Example:
            >>> import tensorflow as tf
            >>> from keras_robust import LinfBall, attacks
            >>> attack = attacks.fgsm(LinfBall(0.25)).compiled(lambda x: {"logits": x})
            >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
            >>> attack(x, y).numpy().tolist()
            [[0.25, 0.75]]
            >>> attack(x, y, radius=0.5).numpy().tolist()
            [[0.0, 1.0]]
        """

        @tf.function(reduce_retracing=True, autograph=False)
        def run(
            x: Images, y: Labels, seed: tf.Tensor, radius: tf.Tensor | None, targets: Labels | None
        ) -> Images:
            attack = self if radius is None else self.at_radius(radius)
            return attack(model, x, y, seed=seed, targets=targets)

        def attack(
            x: Images,
            y: Labels,
            seed: Seed = 0,
            radius: Any = None,
            targets: Labels | None = None,
        ) -> Images:
            # Values can be looked at here, before they are symbols in a graph.
            x, y, targets = check_batch(x, y, targets, self.ball.bounds, _classes(model))
            if radius is not None:
                self.at_radius(radius)  # refuses what is not a radius
                radius = scalar(radius, wide(x).dtype)
            return run(x, y, as_seed(seed), radius, targets)

        attack.traces = run.experimental_get_tracing_count  # type: ignore[attr-defined]
        return attack


def check_attack(name: str, attack: Any) -> None:
    """Refuses what is no attack: a ball, a factory that was not called, a tuple of attacks."""
    if not isinstance(attack, Attack):
        raise TypeError(
            f"{name} is {attack!r}; expected an attack, such as `keras_robust.attacks.pgd(ball)`."
        )


def as_seed(seed: Seed) -> tf.Tensor:
    """An int tensor of shape `[2]`, as stateless random ops take it.

    Args:
        seed: a whole number, a pair of them, or an int tensor of shape `[]` or `[2]`.

    Raises:
        ValueError: anything else.

    Example:
        >>> as_seed(7).numpy().tolist()
        [7, 0]
    """
    tensor = _tensor(seed)
    if tensor is None or not tensor.dtype.is_integer or tensor.shape not in ([], [2]):
        raise ValueError(
            f"seed is {seed!r}; expected a whole number or a pair of whole numbers of 64 bits."
        )
    if tensor.dtype not in (tf.int32, tf.int64):  # the only ones that stateless random ops take
        tensor = tf.cast(tensor, tf.int64)
    return tf.stack([tensor, tf.zeros_like(tensor)]) if tensor.shape == [] else tensor


def _tensor(value: Any) -> tf.Tensor | None:
    """The value as a tensor, or None for what cannot be one."""
    try:
        return tf.convert_to_tensor(value)
    except (TypeError, ValueError, OverflowError):
        return None


def check_batch(
    x: Images,
    y: Labels,
    targets: Labels | None,
    bounds: tuple[float, float],
    classes: int | None = None,
) -> tuple[Images, Labels, Labels | None]:
    """Checks a batch before an attack: kinds and shapes always, values where they are known.

    Args:
        x: images `[batch, ...]`.
        y: labels `[batch]`.
        targets: target labels `[batch]`, or None.
        bounds: the range of a valid pixel.
        classes: the number of classes, where it is known.

    Returns:
        The three as tensors.

    Raises:
        TypeError: what is no tensor, images that are not float, labels that are not integer.
        ValueError: shapes that do not fit, pixels outside the bounds, infinite or NaN, labels out
            of range.
    """
    given, x = x, _tensor(x)
    if x is None:
        raise TypeError(
            f"Images are {_short(given)}; expected an array or a tensor [batch, ...], all images "
            "of one size."
        )
    if x.dtype not in _FLOATS:
        raise TypeError(
            f"Images have dtype {x.dtype.name}; expected a float dtype with values in "
            f"[{bounds[0]:g}, {bounds[1]:g}]. Divide uint8 images by 255."
        )
    if tf.executing_eagerly():
        low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
        # A pixel on a bound is as close to it as its dtype can be, on either side of it.
        least, most = (float(scalar(bound, x.dtype)) for bound in bounds)
        # Written so that NaN, which compares false with everything, is refused too.
        if not (least <= low and high <= most) and tf.size(x) > 0:
            raise ValueError(
                f"Images have values from {low:g} to {high:g}; expected [{bounds[0]:g}, "
                f"{bounds[1]:g}] and no NaN. Scale the images, or give the ball other `bounds`."
            )
    y = check_labels("Labels", y, x, classes)
    if targets is not None:
        targets = check_labels("Targets", targets, x, classes)
    return x, y, targets


def check_labels(name: str, y: Labels, x: Images, classes: int | None = None) -> Labels:
    """Checks class numbers, and widens them to a type that TensorFlow's losses take.

    Args:
        name: what to call them in an error.
        y: class numbers `[batch]`, of any integer type.
        x: the images that they belong to.
        classes: the number of classes, where it is known.

    Returns:
        The labels, int32 or int64.

    Raises:
        TypeError: what is no tensor, or labels that are not integer.
        ValueError: a shape that does not fit, or labels out of range.
    """
    given, y = y, _tensor(y)
    if y is None:
        raise TypeError(
            f"{name} are {_short(given)}; expected one class number per image, shape [batch]."
        )
    if not y.dtype.is_integer:
        raise TypeError(
            f"{name} have dtype {y.dtype.name}; expected integer class numbers. "
            "Turn one-hot labels into numbers with `argmax`."
        )
    if y.shape.rank != 1 or not x.shape[:1].is_compatible_with(y.shape):
        raise ValueError(
            f"{name} have shape {tuple(y.shape)} for images of shape {tuple(x.shape)}; "
            "expected one class number per image, shape [batch]."
        )
    if tf.executing_eagerly() and tf.size(y) > 0:
        low, high = int(tf.reduce_min(y)), int(tf.reduce_max(y))
        if classes is not None and not 0 <= low <= high < classes:
            raise ValueError(
                f"{name} run from {low} to {high}; expected 0 to {classes - 1}, as the model has "
                f"{classes} classes."
            )
        if low < 0:
            raise ValueError(f"{name} run from {low} to {high}; expected class numbers >= 0.")
    # The data sets of Keras have uint8 labels, which the losses of TensorFlow refuse.
    return y if y.dtype in (tf.int32, tf.int64) else tf.cast(y, tf.int64)


def _short(value: Any) -> str:
    """What was received, in a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _classes(model: Any) -> int | None:
    """The number of classes of a Keras model that keeps the contract, else None."""
    outputs = contract_of(getattr(model, "classifier", model))
    return outputs["logits"].shape[-1] if outputs and "logits" in outputs else None
