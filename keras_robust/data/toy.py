"""The thesis's two-dimensional toy problem: three clusters of points, two classes."""

from __future__ import annotations

import numpy as np

from keras_robust.data.splits import SPLIT_SEED, Arrays, Source

# A point's coordinates are `SIDE * image - OFFSET`: the square [-8, 12]^2 is the unit square.
SIDE, OFFSET = 20.0, 8.0
# Center, class and fraction of each cluster.
CLUSTERS = (((-2.0, 0.0), 0, 0.1), ((2.0, 0.0), 1, 0.5), ((6.0, 0.0), 1, 0.4))
VARIANCE = 0.5
TRAIN_EXAMPLES, TEST_EXAMPLES = 11_000, 2_000


def read(draw: int | None = None) -> Source:
    """Draws the points: the rare class A left of the frequent class B, whose far half is safe.

    A point is an image `[1, 2, 1]` of its two coordinates, scaled into [0, 1], so that everything
    for images works for points: a distance of 1 in the plane is `1 / SIDE`.

    Args:
        draw: number of the draw, >= 0; None for the points that are the same in every run.

    Returns:
        11,000 training examples, of which a thousand are meant for validation, and 2,000 test
        examples, of 2 classes.

    Example:
        >>> source = read()
        >>> len(source.train), len(source.test), source.train.images.shape[1:]
        (11000, 2000, (1, 2, 1))
        >>> round(float((source.train.labels == 0).mean()), 6)
        0.1

    Reference:
        Bui, thesis, Monash 2023, chapter 5, appendix E.
    """
    seed = SPLIT_SEED if draw is None else (SPLIT_SEED, draw)
    generator = np.random.RandomState(seed)
    return Source(
        name="drawn from three normal distributions",
        train=_drawn(generator, TRAIN_EXAMPLES),
        test=_drawn(generator, TEST_EXAMPLES),
        class_names=("A", "B"),
        test_split="drawn",
    )


def to_image(points: np.ndarray) -> np.ndarray:
    """Points `[..., 2]` in the plane as images `[..., 1, 2, 1]`.

    Example:
        >>> to_image(np.array([2.0, -8.0])).ravel().tolist()
        [0.5, 0.0]
    """
    return ((points + OFFSET) / SIDE).astype(np.float32)[..., None, :, None]


def to_plane(images: np.ndarray) -> np.ndarray:
    """Images `[..., 1, 2, 1]` as points `[..., 2]` in the plane.

    Example:
        >>> to_plane(np.full([1, 2, 1], 0.5)).tolist()
        [2.0, 2.0]
    """
    return SIDE * images[..., 0, :, 0] - OFFSET


def _drawn(generator: np.random.RandomState, size: int) -> Arrays:
    points, labels = [], []
    for center, label, fraction in CLUSTERS:
        count = round(fraction * size)
        points.append(generator.normal(center, np.sqrt(VARIANCE), (count, 2)))
        labels.append(np.full(count, label, np.int32))
    return Arrays(to_image(np.concatenate(points)), np.concatenate(labels))
