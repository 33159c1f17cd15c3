"""Sparse-RS: a score-based random search over few pixels, patches and frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from keras_robust.attacks.black_box.sparse_proposals import proposals_in
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.objectives import refuse_targets
from keras_robust.core import random
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample, Radius, Scalar
from keras_robust.core.validation import check_bounded, check_integer, check_number
from keras_robust.losses import classification as losses


@serializable
class SparseRS(Attack):
    """Sparse-RS: random search with values on the bounds; it queries logits and no gradients.

    A proposal is kept if the margin grows or the image is misclassified; a misclassified image is
    left alone, and the search ends when all are.

    - In an `L0Ball`, a proposal moves some of the pixels elsewhere.
    - In a `keras_robust.threat_models.PatchBall`, it paints a square of the patch, or moves the
      patch.
    - In an `LinfBall` whose radius is the range of a pixel and whose mask has zeros and ones, such
      as `patch_mask` or `frame_mask`, it paints a square of what may change.

    Args:
        ball: the threat model.
        queries: the number of queries of each image, the start included, >= 1.
        alpha_init: the fraction of the pixels that the first proposal changes, in (0, 1]; it falls
            with the number of queries. None for 0.3 in L0 and 0.4 elsewhere.
        universal: find one content for all images of a batch, each with a random location of its
            patch; not in L0. A proposal is kept if the margins grow in sum, and no fewer images
            are misclassified.

    Raises:
        TypeError: another ball.
        ValueError: an argument out of range, unbounded pixels; when called, targets.

    Example:
        >>> from keras_robust import L0Ball
        >>> attack = sparse_rs(L0Ball(1), queries=30)
        >>> x, y = tf.fill([1, 4], 0.5), tf.constant([0])
        >>> attack(lambda x: {"logits": x}, x, y).numpy().max(axis=1).tolist()
        [1.0]

    Reference: Croce et al., "Sparse-RS: a Versatile Framework for Query-Efficient Sparse Black-Box
    Adversarial Attacks" (2022), Algorithms 1 to 3.

    Differs: frames and fixed patches are painted by squares around a random pixel that may change;
    universal patches see each image once, not at three locations.
    """

    ball: Ball
    queries: int = 5000
    _: dataclasses.KW_ONLY
    alpha_init: float | None = None
    universal: bool = False
    name = "Sparse-RS"

    def __post_init__(self) -> None:
        check_bounded("SparseRS", self.ball)
        check_integer("SparseRS: queries", self.queries, 1)
        if self.alpha_init is not None:
            check_number("SparseRS: alpha_init", self.alpha_init, above=0, most=1)
        proposals_in(self.ball, self.queries, self.alpha_init, self.universal)  # raises

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Runs the random search."""
        refuse_targets("SparseRS", targets)
        proposals = proposals_in(self.ball, self.queries, self.alpha_init, self.universal)
        # An int32 seed and the same int64 seed are split differently.
        seeds = random.split(tf.cast(seed, tf.int64), 2)

        def query(state: Any) -> tuple[PerExample, tf.Tensor]:
            logits = forward(proposals.images(x, state))["logits"]
            margin = losses.margin(logits, y)
            # No margin exceeds NaN, so that the search would end here.
            margin = tf.where(tf.math.is_nan(margin), margin.dtype.min, margin)
            return margin, losses.misclassified(logits, y)

        def body(index: tf.Tensor, state: Any, margin: PerExample, done: tf.Tensor) -> tuple:
            own_seed = random.fold_in(seeds[1], index)
            candidate = proposals.next(x, state, index, own_seed)
            value, misclassified = query(candidate)
            better = self._better(value, misclassified, margin, done)
            state = tf.nest.map_structure(
                lambda new, old: tf.ensure_shape(
                    tf.where(broadcast_to_images(better, old), new, old), old.shape
                ),
                candidate,
                state,
            )
            done = tf.where(better, misclassified, done)
            return index + 1, state, tf.where(better, value, margin), done

        start = proposals.start(x, seeds[0])
        _, best, *_ = tf.while_loop(
            lambda index, state, margin, done: (index < self.queries) & ~tf.reduce_all(done),
            body,
            (tf.constant(1), start, *query(start)),
            parallel_iterations=1,
        )
        return tf.ensure_shape(proposals.images(x, best), x.shape)

    def _better(
        self, value: PerExample, misclassified: tf.Tensor, margin: PerExample, done: tf.Tensor
    ) -> tf.Tensor:
        if not self.universal:
            return ((value > margin) | misclassified) & ~done
        more = tf.reduce_sum(value) > tf.reduce_sum(margin)
        count, before = (tf.reduce_sum(tf.cast(a, tf.int32)) for a in (misclassified, done))
        return tf.fill(tf.shape(value), more & (count >= before))

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> SparseRS:
        """The same search in a ball of another radius; it has no step size."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))


sparse_rs = SparseRS
