"""The loss around an example: over a square of images, or of latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import as_seed, check_batch
from keras_robust.core.classifier import as_forward, classifier_of, features_of
from keras_robust.core.types import Logits
from keras_robust.evaluation.representation.classifier_head import head_of
from keras_robust.losses import classification as losses

_BATCH = 256  # points of the grid that are computed at once


@dataclasses.dataclass(frozen=True, eq=False)
class LossSurface:
    """The loss on a square around an example.

    Args:
        steps: `[points]`, how far each column, and each row, is from the example: L2 distances.
        losses: `[points, points]`, the cross-entropy with the true label; a column is a step along
            the gradient, a row a step along a random direction at a right angle to it.
        labels: `[points, points]`, the predicted classes.
        label: the true class.
    """

    steps: np.ndarray
    losses: np.ndarray
    labels: np.ndarray
    label: int


def input_surface(
    model: Any,
    image: Any,
    label: int,
    extent: float,
    *,
    points: int = 41,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
) -> LossSurface:
    """The loss on a square of images around one, clean or attacked.

    The images are `x + a u + b v`, with `u` the gradient of the cross-entropy at `x` brought to
    length 1, `v` a random direction of length 1 at a right angle to it, and `a` and `b` from
    `-extent` to `extent`.

    Differs: the paper does not say what becomes of pixels that leave their range; here they are cut
    to `bounds`, since an attacker cannot use them. None leaves them.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        image: one image `[height, width, channels]`, float.
        label: its true class.
        extent: half the side of the square, an L2 distance. The corners of an Linf ball of radius r
            are `r * sqrt(image.size)` away from its centre.
        points: how many along a side; odd, so that the example itself is one of them.
        bounds: the range of a pixel.
        seed: of the random direction.

    Returns:
        The losses and the predicted classes.

    Raises:
        TypeError, ValueError: an image, a label or settings that cannot be meant; a gradient of
            zero, which has no direction.

    Example:
        >>> surface = input_surface(lambda x: {"logits": x}, [0.6, 0.5], 0, extent=0.2, points=3)
        >>> surface.labels.tolist()
        [[0, 0, 1], [0, 0, 1], [0, 0, 1]]

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figure 3.
    """
    _check(extent, points)
    forward = as_forward(classifier_of(model))
    x, y = _one(image, label, bounds or (-np.inf, np.inf))
    return _surface(lambda x: forward(x)["logits"], x, y, extent, points, bounds, seed)


def latent_surface(
    model: Any, image: Any, label: int, extent: float, *, points: int = 41, seed: int = 0
) -> LossSurface:
    """The loss on a square of latents around that of an image, clean or attacked.

    As `input_surface`, with the latent `z` of the image in place of the image: the gradient is that
    of the loss with respect to `z`, and the losses are those of the model's last part alone, from
    the latents to the logits. Latents are not cut to any range.

    Args:
        model: a robust model, or a functional classifier that returns `{"logits", "features"}`.
        image: one image `[height, width, channels]`, float.
        label: its true class.
        extent: half the side of the square, an L2 distance. Lengths of latents depend on the model:
            the distance from the latent of an image to that of the attacked one is a good start.
        points: how many along a side; odd, so that the example itself is one of them.
        seed: of the random direction.

    Returns:
        The losses and the predicted classes.

    Raises:
        TypeError: a model without features, or one that cannot be looked into.
        ValueError: as `input_surface`; logits that are not a function of the features alone.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3, hidden=(4,))
        >>> latent_surface(classifier, np.ones((2, 2, 1), "float32"), 0, 0.5).losses.shape
        (41, 41)

    Reference: Bui et al. (ADR, 2020), Figure 3, lower row.
    """
    _check(extent, points)
    classifier = classifier_of(model)
    head = head_of(classifier)
    x, y = _one(image, label, (-np.inf, np.inf))
    latent = features_of(as_forward(classifier)(x))
    return _surface(head, latent, y, extent, points, None, seed)


def _surface(
    logits_of: Callable[[tf.Tensor], Logits],
    center: tf.Tensor,
    label: tf.Tensor,
    extent: float,
    points: int,
    bounds: tuple[float, float] | None,
    seed: int,
) -> LossSurface:
    @tf.function(autograph=False)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = losses.cross_entropy(logits_of(x), label)
        return tape.gradient(loss, x)

    @tf.function(autograph=False)
    def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_of(x)
        same = tf.repeat(label, tf.shape(x)[0])
        return losses.cross_entropy(logits, same), tf.argmax(logits, axis=1)

    u, v = _directions(gradient(center).numpy().ravel(), seed)
    steps = np.linspace(-extent, extent, points)
    across, up = (grid.reshape(-1, 1) for grid in np.meshgrid(steps, steps))
    found = []
    for begin in range(0, points * points, _BATCH):
        # The last batch is filled up, so that one size is traced.
        rows = np.minimum(np.arange(begin, begin + _BATCH), points * points - 1)
        grid = center.numpy() + (across[rows] * u + up[rows] * v).reshape(-1, *center.shape[1:])
        grid = grid if bounds is None else np.clip(grid, *bounds)
        found.append([part.numpy() for part in look(tf.cast(grid, center.dtype))])
    values, labels = (
        np.concatenate(parts)[: points * points].reshape(points, points)
        for parts in zip(*found, strict=True)
    )
    return LossSurface(steps, values, labels, int(label[0]))


def _directions(gradient: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradient and a random direction at a right angle to it, both of length 1."""
    gradient = gradient.astype(np.float64)
    length = np.linalg.norm(gradient)
    if not np.isfinite(length) or length == 0 or gradient.size < 2:
        raise ValueError(
            f"The gradient of the loss has {gradient.size} numbers and the length {length:g} at "
            "this example; expected at least 2 numbers and a finite length above 0. A model so "
            "certain of an example that its loss rounds to 0 needs another example; one whose "
            "units have died has no gradient anywhere."
        )
    u = gradient / length
    v = tf.random.stateless_normal([gradient.size], as_seed(seed), dtype=tf.float64).numpy()
    for _ in range(2):  # a second time, for what rounding left of it
        v -= (v @ u) * u
    return u, v / np.linalg.norm(v)


def _one(image: Any, label: int, bounds: tuple[float, float]) -> tuple[tf.Tensor, tf.Tensor]:
    """The example as a batch of one."""
    x, y, _ = check_batch(tf.convert_to_tensor(image)[None], np.asarray(label)[None], None, bounds)
    return x, y


def _check(extent: float, points: int) -> None:
    if not (np.isfinite(extent) and extent > 0):
        raise ValueError(f"extent is {extent}; expected a distance above 0.")
    if points < 3 or points % 2 == 0:
        raise ValueError(
            f"points is {points}; expected an odd number of at least 3, so that the example itself "
            "is one of them."
        )
