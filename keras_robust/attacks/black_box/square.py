"""Square: a score-based random search with square windows."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from keras_robust.attacks.black_box.square_proposals import NORMS, PROPOSALS, Size
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.objectives import refuse_targets
from keras_robust.core import random
from keras_robust.core.config import replace, serializable
from keras_robust.core.types import Ball, Forward, Images, Labels, Radius
from keras_robust.core.validation import check_integer, check_norm, check_number
from keras_robust.losses import classification as losses
from keras_robust.threat_models.masks import Mask, mask_of

# Queries after which the images that are misclassified leave the batch.
_COMPACTED_AFTER = 50


@serializable
class Square(Attack):
    """Square: a random search for a larger margin; it queries logits and no gradients.

    A proposal changes the pixels of a square window. It is kept if the margin grows or the image is
    misclassified; a misclassified image is left alone, and the search ends when all are.

    Args:
        ball: the threat model: an `LinfBall`, an `L2Ball` or an `L1Ball`, or a ball of your own in
            one of these norms.
        queries: the number of proposals, one query of the model each, >= 1; the start is one more.
        p_init: the fraction of the pixels that the first window covers, in (0, 1].

    Raises:
        TypeError: a ball in another norm.
        ValueError: an argument out of range; when called, targets.

    Example:
        >>> from keras_robust import LinfBall
        >>> attack = square(LinfBall(0.25), queries=20)
        >>> x, y = tf.fill([1, 2, 2, 1], 0.5), tf.constant([0])
        >>> float(tf.reduce_min(attack(lambda x: {"logits": tf.reshape(x, [-1, 4])}, x, y)))
        0.25

    Reference: Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack
    via random search" (2020), Algorithms 1 to 3; in L1 Croce and Hein, "Mind the Box" (2021).

    In a ball with a mask, the search runs in the smallest rectangle around the pixels that may
    change, as if that were the image.

    As in the official code, the bumps of the start have length 1 in L1 whatever the radius, so that
    results depend on the units: in [0, 255] they are not those in [0, 1]. Use [0, 1] in L1.
    """

    ball: Ball
    queries: int = 5000
    _: dataclasses.KW_ONLY
    p_init: float = 0.8
    name = "Square"

    def __post_init__(self) -> None:
        check_norm("Square", self.ball, NORMS)
        check_integer("Square: queries", self.queries, 1)
        check_number("Square: p_init", self.p_init, above=0, most=1)

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Runs the random search from its own start."""
        refuse_targets("Square", targets)
        return self.search(forward, x, y, seed)

    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, start: Images | None = None,
        part: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> Images:  # fmt: skip
        """Runs the random search.

        Args:
            forward, x, y, seed: as for `craft`.
            start: points of the ball to start from; default the paper's, which is random.
            part: rows of the images in a larger batch, and its size; the search from a `start` is
                the one that it would be in that batch.
        """
        area = _Area(self.ball, x)
        grid = area.cut(x)
        proposals = PROPOSALS[self.ball.p](area.ball, area.size, self.queries, self.p_init)
        # An int32 seed and the same int64 seed are split differently.
        seeds = random.split(tf.cast(seed, tf.int64), 2)

        start = proposals.start(grid, seeds[0]) if start is None else area.cut(start)
        start.set_shape(grid.shape)
        size = tf.shape(x)[0]
        numbers, size = (tf.range(size), size) if part is None else part

        def query(candidate: Images, x: Images, y: Labels) -> tuple[tf.Tensor, tf.Tensor]:
            logits = forward(area.pasted(candidate, x))["logits"]
            margin = losses.margin(logits, y)
            # No margin exceeds NaN, so that the search would end here.
            margin = tf.where(tf.math.is_nan(margin), margin.dtype.min, margin)
            return margin, losses.misclassified(logits, y)

        def some(begin: tf.Tensor, best: Images, margin: tf.Tensor, done: tf.Tensor) -> tuple:
            """The next queries, for the images that are left."""
            # Before the first compaction all rows are kept: a short search has fixed shapes.
            compacts = self.queries > _COMPACTED_AFTER
            rows = tf.where(~done)[:, 0] if compacts else tf.range(tf.shape(done)[0])
            own_x, own_y, clean = (tf.gather(whole, rows) for whole in (x, y, grid))
            proposals.part = tf.gather(numbers, rows), size

            def body(
                index: tf.Tensor, best: Images, best_margin: tf.Tensor, done: tf.Tensor
            ) -> tuple:
                candidate = proposals.next(clean, best, index, random.fold_in(seeds[1], index))
                margin, misclassified = query(candidate, own_x, own_y)
                better = ((margin > best_margin) | misclassified) & ~done
                best = tf.where(better[:, None, None, None], candidate, best)
                best.set_shape(clean.shape)
                best_margin = tf.where(better, margin, best_margin)
                return index + 1, best, best_margin, done | misclassified

            end = tf.minimum(begin + _COMPACTED_AFTER, self.queries)
            index, *found = tf.while_loop(
                lambda index, best, margin, done: (index < end) & ~tf.reduce_all(done),
                body,
                (begin, *(tf.gather(whole, rows) for whole in (best, margin, done))),
                parallel_iterations=1,
            )
            state = [
                tf.tensor_scatter_nd_update(whole, rows[:, None], own)
                for whole, own in zip((best, margin, done), found, strict=True)
            ]
            state[0].set_shape(grid.shape)
            return index, *state

        _, best, *_ = tf.while_loop(
            lambda index, best, margin, done: (index < self.queries) & ~tf.reduce_all(done),
            some,
            (tf.constant(0), start, *query(start, x, y)),
            parallel_iterations=1,
        )
        return area.pasted(best, x)

    def at_radius(self, radius: Radius, step_size: float | None = None) -> Square:
        """The same search in a ball of another radius; it has no step size."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))


square = Square


class _Area:
    """The rectangle around the pixels that may change, which is searched like an image.

    Attributes:
        size: its size; that of the images if the ball has no mask.
        ball: the threat model of its pixels.
    """

    def __init__(self, ball: Ball, x: Images):
        whole = _size(x)
        self.ball, self.size, self._whole = ball, whole, whole
        self._rows, self._columns = slice(0, whole.height), slice(0, whole.width)
        mask = mask_of(ball)
        if mask is not None:
            mask.check(x.shape)
            values = np.broadcast_to(np.asarray(mask), x.shape[1:]).reshape(whole)
            self._rows, self._columns = _extent(values, (1, 2)), _extent(values, (0, 2))
            values = values[self._rows, self._columns]
            self.size = Size(*values.shape)
            self.ball = replace(ball, mask=Mask(values))

    def cut(self, x: Images) -> Images:
        """The rectangle of each image, `[batch, height, width, channels]`."""
        grid = tf.reshape(x, [-1, *self._whole])
        return grid if self.size == self._whole else grid[:, self._rows, self._columns]

    def pasted(self, part: Images, x: Images) -> Images:
        """The images `x` with another rectangle."""
        if self.size == self._whole:
            return tf.reshape(part, tf.shape(x))
        ends = zip((self._rows, self._columns), self._whole[:2], strict=True)
        around = [[0, 0], *([cut.start, extent - cut.stop] for cut, extent in ends), [0, 0]]
        inside = np.zeros(self._whole, bool)
        inside[self._rows, self._columns] = True
        grid = tf.where(inside, tf.pad(part, around), tf.reshape(x, [-1, *self._whole]))
        return tf.reshape(grid, tf.shape(x))


def _extent(values: np.ndarray, axes: tuple[int, int]) -> slice:
    """From the first to the last row or column that is not 0."""
    found = np.flatnonzero(values.any(axis=axes))
    return slice(int(found[0]), int(found[-1]) + 1)


def _size(x: Images) -> Size:
    """The size of images; anything else is taken for a single column of pixels."""
    shape = x.shape[1:]
    if shape.rank is None or None in shape:
        raise ValueError(
            f"Square was called with images of shape {x.shape}; expected a known shape [batch, "
            "height, width, channels], as the windows depend on it."
        )
    return Size(*shape) if shape.rank == 3 else Size(shape.num_elements(), 1, 1)
