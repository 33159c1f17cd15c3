"""Loss surfaces: the loss on a square around an image, or around its latent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import as_seed, check_batch
from keras_robust.core import random
from keras_robust.core.classifier import as_forward, classifier_of, features_of
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Ball, Images, Logits
from keras_robust.core.validation import check_integer, check_number
from keras_robust.evaluation.representation.classifier_head import head_of
from keras_robust.evaluation.running.batching import Model
from keras_robust.losses import classification as losses

_BATCH_SIZE = 256  # points of the grid per forward pass
_CORNERS = 180  # of the outline of a ball
_MARGIN = 1.5  # of the square around a ball
_BISECTIONS, _TOLERANCE = 40, 1e-4  # rounding of an attacked image on the edge of its ball


@dataclasses.dataclass(frozen=True, eq=False)
class LossSurface:
    """The loss on a square around an image or a latent.

    Args:
        steps: `[points]`, signed L2 distance of each column, and of each row, from the center.
        losses: `[points, points]`, cross-entropy with the true label; columns are steps along the
            gradient, rows are steps along a random orthogonal direction.
        labels: `[points, points]`, predicted classes.
        label: true class.
        ball: `[corners, 2]`, outline of the threat model on the square; None without one.
    """

    steps: np.ndarray
    losses: np.ndarray
    labels: np.ndarray
    label: int
    ball: np.ndarray | None = None


def input_surface(
    model: Model,
    image: Images,
    label: int,
    extent: float | None = None,
    *,
    ball: Ball | None = None,
    clean: Images | None = None,
    points: int = 41,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
) -> LossSurface:
    """The loss on a square around an image, clean or attacked.

    The points are `x + a u + b v`, with `u` the unit gradient of the cross-entropy at `x`, `v` a
    random orthogonal unit vector, and `a` and `b` in `[-extent, extent]`.

    Differs: the paper does not say how it treats pixels outside their range; here they are clipped
    to `bounds`, as they are in attacks. None leaves them.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        image: one image `[height, width, channels]`, float.
        label: its true class.
        extent: half the side of the square, an L2 distance; by default 1.5 times the farthest point
            on it of `ball` around `image`. On random planes an Linf ball is small: its corners, at
            the distance `r * sqrt(image.size)`, are not on them.
        ball: the threat model, whose outline is returned for the plot, without the bounds of
            pixels.
        clean: the center of the ball, if `image` is an attacked image; by default `image`.
        points: number of points per side; odd, so that the image itself is one of them.
        bounds: range of a pixel.
        seed: seed of the random direction.

    Returns:
        The losses and the predicted classes.

    Raises:
        TypeError, ValueError: an invalid image, label or setting; neither extent nor ball; a ball
            that is not convex or does not contain the image; a zero gradient, which has no
            direction.

    Example:
        >>> surface = input_surface(lambda x: {"logits": x}, [0.6, 0.5], 0, extent=0.2, points=3)
        >>> surface.labels.tolist()
        [[0, 0, 1], [0, 0, 1], [0, 0, 1]]

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (ADR, 2020), Figure 3.
    """
    if extent is None and ball is None:
        raise ValueError("Received neither extent nor ball; expected one of them.")
    _check(1.0 if extent is None else extent, points)
    forward = as_forward(classifier_of(model))
    x, y = _as_batch(image, label, bounds or (-np.inf, np.inf))
    center = None if clean is None else _as_batch(clean, label, (-np.inf, np.inf))[0]
    return _surface(
        lambda x: forward(x)["logits"], x, y, extent, points, bounds, seed, ball, center
    )


def latent_surface(
    model: keras.Model, image: Images, label: int, extent: float, *, points: int = 41, seed: int = 0
) -> LossSurface:
    """The loss on a square around the latent of an image, clean or attacked.

    As `input_surface`, with the latent `z` of the image in place of the image: the gradient is with
    respect to `z`, and the losses are computed by the model's head. Latents are not clipped.

    Args:
        model: a robust model, or a functional classifier that returns `{"logits", "features"}`.
        image, label, points, seed: as for `input_surface`.
        extent: half the side of the square, an L2 distance. Scales of latents depend on the model;
            the distance between the latents of a clean and of an attacked image is a good choice.

    Returns:
        The losses and the predicted classes.

    Raises:
        TypeError: a model without features, or one that is not functional.
        ValueError: as for `input_surface`; logits that do not depend on the features alone.

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
    x, y = _as_batch(image, label, (-np.inf, np.inf))
    latent = features_of(as_forward(classifier)(x))
    return _surface(head, latent, y, extent, points, None, seed)


def _surface(
    logits_of: Callable[[tf.Tensor], Logits],
    center: tf.Tensor,
    label: tf.Tensor,
    extent: float | None,
    points: int,
    bounds: tuple[float, float] | None,
    seed: int,
    ball: Ball | None = None,
    clean: tf.Tensor | None = None,
) -> LossSurface:
    @compiled
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = losses.cross_entropy(logits_of(x), label)
        return tape.gradient(loss, x)

    @compiled
    def loss_and_label(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_of(x)
        repeated = tf.repeat(label, tf.shape(x)[0])
        return losses.cross_entropy(logits, repeated), tf.argmax(logits, axis=1)

    u, v = _directions(gradient(center).numpy().ravel(), seed)
    shift = tf.zeros_like(center) if clean is None else center - clean
    outline = None if ball is None else _outline(ball, shift, u, v)
    if extent is None:
        # An attacked image is at an edge of its ball, and may be at a corner: hardly any of the
        # plane is inside. The square has the size of the ball around the image itself.
        around = outline
        if ball is not None and clean is not None:
            around = _outline(ball, tf.zeros_like(center), u, v)
        extent = 0.0 if around is None else _MARGIN * float(np.linalg.norm(around, axis=1).max())
        check_number("extent, from a ball of no size on this plane,", extent, above=0)
    steps = np.linspace(-extent, extent, points)
    across, up = (grid.reshape(-1, 1) for grid in np.meshgrid(steps, steps))
    found = []
    for begin in range(0, points * points, _BATCH_SIZE):
        # The last batch is padded, so that one size is traced.
        rows = np.minimum(np.arange(begin, begin + _BATCH_SIZE), points * points - 1)
        grid = center.numpy() + (across[rows] * u + up[rows] * v).reshape(-1, *center.shape[1:])
        grid = grid if bounds is None else np.clip(grid, *bounds)
        found.append([part.numpy() for part in loss_and_label(tf.cast(grid, center.dtype))])
    values, labels = (
        np.concatenate(parts)[: points * points].reshape(points, points)
        for parts in zip(*found, strict=True)
    )
    return LossSurface(steps, values, labels, int(label[0]), outline)


def _outline(ball: Ball, shift: tf.Tensor, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The outline of a ball on the plane of two unit vectors, `[corners, 2]`.

    A ball is convex, and the point of the plane is inside: each ray from it leaves the ball once,
    which bisection finds.

    Args:
        ball: the threat model.
        shift: `[1, ...]`, from the center of the ball to the point, whose rays are followed.
        u, v: the unit vectors.
    """
    if ball.p == 0 or np.ndim(ball.radius):
        raise ValueError(
            f"The ball {ball!r} is not convex; expected an L1, L2 or Linf ball with one radius."
        )
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    rays = np.cos(angles)[:, None] * u + np.sin(angles)[:, None] * v
    origin = np.zeros((_CORNERS, *shift.shape[1:]))
    start = np.repeat(tf.cast(shift, tf.float64).numpy().reshape(1, -1), _CORNERS, axis=0)
    radius = float(ball.radius) * (1 + _TOLERANCE)

    def inside(reach: np.ndarray) -> np.ndarray:
        points = (start + reach[:, None] * rays).reshape(origin.shape)
        return ball.distance(tf.constant(points), tf.constant(origin)).numpy() <= radius

    low, high = np.zeros(_CORNERS), np.full(_CORNERS, float(ball.radius))
    if not inside(low).all():
        raise ValueError(
            "The image is outside of the ball around its clean image; expected an attacked image "
            "of this ball."
        )
    while (still := inside(high)).any():
        high[still] *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = inside(middle)
        low, high = np.where(found, middle, low), np.where(found, high, middle)
    return np.stack([low * np.cos(angles), low * np.sin(angles)], axis=1)


def _directions(gradient: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The unit gradient and a random orthogonal unit vector."""
    gradient = gradient.astype(np.float64)
    length = np.linalg.norm(gradient)
    if not np.isfinite(length) or length == 0 or gradient.size < 2:
        raise ValueError(
            f"The gradient of the loss at this image has {gradient.size} numbers and the norm "
            f"{length:g}; expected at least 2 numbers and a finite norm > 0. Choose an image whose "
            "loss does not round to 0. A model with dead units has no gradient at any image."
        )
    u = gradient / length
    v = random.normal([gradient.size], as_seed(seed), dtype=tf.float64).numpy()
    for _ in range(2):  # the second time removes what rounding left
        v -= (v @ u) * u
    return u, v / np.linalg.norm(v)


def _as_batch(
    image: Images, label: int, bounds: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """An image and its label as a batch of one."""
    x, y, _ = check_batch(tf.convert_to_tensor(image)[None], np.asarray(label)[None], None, bounds)
    return x, y


def _check(extent: float, points: int) -> None:
    check_number("extent", extent, above=0)
    check_integer("points", points, 3)
    if points % 2 == 0:
        raise ValueError(
            f"points is {points}; expected an odd number, so that the center is one of the points."
        )
