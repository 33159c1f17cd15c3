"""Square: a random search with square windows, which needs logits and no gradients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.objectives import refuse_targets
from keras_robust.attacks.square_proposals import PROPOSALS, Size
from keras_robust.core.config import replace, serializable
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.core.validation import check_integer, check_norm
from keras_robust.losses import classification as losses


@serializable
class Square(Attack):
    """A random search for a larger margin, whose proposals are square windows.

    A proposal is kept if the margin grows, or the model errs; an image that fools the model is left
    as it is, and the search ends when all do.

    Args:
        ball: a `LinfBall`, an `L2Ball` or an `L1Ball`.
        queries: how many proposals, >= 1; one more query is of the start.
        share: of the pixels that the first window covers, in (0, 1].
        name: what reports call it.

    Raises:
        TypeError: a ball that is none.
        ValueError: no query, or a share outside (0, 1].
    """

    ball: Any
    queries: int = 5000
    share: float = 0.8
    name: str = "Square"

    def __post_init__(self) -> None:
        check_norm("Square", self.ball, PROPOSALS)
        check_integer("queries", self.queries, 1)
        if not 0 < self.share <= 1:
            raise ValueError(f"Square: share is {self.share!r}; expected a share in (0, 1].")

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Searches."""
        refuse_targets("Square", targets)
        size = _size(x)
        grid = tf.reshape(x, [-1, *size])
        proposals = PROPOSALS[self.ball.p](self.ball, size, self.queries, self.share)
        # Split, a seed of 32 bits would give other draws than the same one of 64.
        seeds = tf.random.split(tf.cast(seed, tf.int64), 2)

        def judged(candidate: Images) -> tuple[tf.Tensor, tf.Tensor]:
            logits = forward(tf.reshape(candidate, tf.shape(x)))["logits"]
            margin = losses.margin(logits, y)
            # No number is larger than NaN, and the search would end where it begins.
            margin = tf.where(tf.math.is_nan(margin), margin.dtype.min, margin)
            return margin, losses.misclassified(logits, y)

        def body(query: tf.Tensor, best: Images, most: tf.Tensor, fooled: tf.Tensor) -> tuple:
            own = tf.random.experimental.stateless_fold_in(seeds[1], query)
            candidate = proposals.next(grid, best, query, own)
            margin, wrong = judged(candidate)
            better = ((margin > most) | wrong) & ~fooled
            best = tf.where(better[:, None, None, None], candidate, best)
            best.set_shape(grid.shape)
            return query + 1, best, tf.where(better, margin, most), fooled | wrong

        start = proposals.start(grid, seeds[0])
        start.set_shape(grid.shape)
        _, best, *_ = tf.while_loop(
            lambda query, best, most, fooled: (query < self.queries) & ~tf.reduce_all(fooled),
            body,
            (tf.constant(0), start, *judged(start)),
            parallel_iterations=1,
        )
        return tf.reshape(best, tf.shape(x))

    def at_radius(self, radius: Any, step_size: Any = None) -> Square:
        """The same search in a ball of another radius; it has no steps of a size."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))


def _size(x: Images) -> Size:
    """Images as they are; of anything else a single column of pixels."""
    shape = x.shape[1:]
    if shape.rank is None or None in shape:
        raise ValueError(
            f"Square was called with images of shape {x.shape}; expected a known shape [batch, "
            "height, width, channels], as the windows depend on it."
        )
    return Size(*shape) if shape.rank == 3 else Size(shape.num_elements(), 1, 1)


def square(ball: Ball, queries: int = 5000, *, share: float = 0.8) -> Square:
    """Square: a random search with square windows; it needs logits and no gradients.

    Args:
        ball: the threat model, a `LinfBall`, an `L2Ball` or an `L1Ball`.
        queries: how many proposals for each image.
        share: of the pixels that the first window covers, in (0, 1].

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: no query, or a share outside (0, 1].

    Example:
        >>> from keras_robust import LinfBall
        >>> attack = square(LinfBall(0.25), queries=20)
        >>> x, y = tf.fill([1, 2, 2, 1], 0.5), tf.constant([0])
        >>> float(tf.reduce_min(attack(lambda x: {"logits": tf.reshape(x, [-1, 4])}, x, y)))
        0.25

    Reference: Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack
    via random search" (2020), Algorithms 1 to 3; in L1 Croce and Hein, "Mind the Box" (2021).
    """
    return Square(ball, queries, share)
