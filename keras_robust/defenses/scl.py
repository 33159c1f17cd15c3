"""Supervised contrastive learning without an adversary: two augmented views of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Forward, Images, Labels
from keras_robust.losses.contrastive import Contrastive
from keras_robust.losses.robust_loss import Adversarial, SumOfLosses
from keras_robust.training.robust_model import RobustModel


@serializable
class AugmentedView(Attack):
    """Stands where an attack does, and augments the images instead; no ball holds them.

    Args:
        ball: whose bounds the images are in.
        augment: a function `(image, seed) -> image`, such as `keras_robust.data.shift_flip()`.
        name: what logs call it.
    """

    ball: Any
    augment: Any
    name: str = "second_view"

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Another view of each image."""
        del forward, y, targets
        seeds = tf.cast(tf.random.split(seed, tf.shape(x)[0]), tf.int64)
        return tf.vectorized_map(lambda both: self.augment(*both), (x, seeds))

    def at_radius(self, radius: Any, step_size: Any = None) -> AugmentedView:
        """Itself: a view has no radius."""
        del radius, step_size
        return self


def scl(
    classifier: keras.Model,
    ball: Ball,
    *,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    temperature: float = 0.07,
    weight: float = 1.0,
    steps: int = 10,
    step_size: float | None = None,
    seed: int = 0,
    **options: Any,
) -> RobustModel:
    """Cross-entropy on two views of each image, and the supervised contrast between all views.

    The first view is the image as the data gives it, the second one is augmented here. Nothing is
    attacked in training, so its `robust_accuracy` is that of the second views; validation attacks
    with PGD. The baseline that ASCL is compared with.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: the threat model of validation.
        augment: a function `(image, seed) -> image`, such as `keras_robust.data.shift_flip()`.
        temperature: what similarities are divided by, > 0.
        weight: of the contrast.
        steps: the steps of the validation's attack.
        step_size: their length, in the units of the images; default `2.5 radius / steps`.
        seed: of the views.
        **options: of `RobustModel`.

    Returns:
        A model to `compile` and `fit`; sample weights are refused, as the contrast is of a batch.

    Raises:
        TypeError: an augmentation that is no function.
        ValueError: a number that cannot be.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((8, 8, 1), classes=3)
        >>> augment = kr.data.shift_flip(flip=False)
        >>> scl(classifier, kr.LinfBall(0.1), augment=augment).robust_loss.term_names
        ('adversarial', 'clean', 'contrastive')

    Reference: Khosla et al., "Supervised Contrastive Learning" (2020), Eq. 2.

    Differs: the contrast is a regulariser beside the cross-entropy, as ASCL's is, not a training
    before it.
    """
    if not callable(augment):
        raise TypeError(
            f"SCL: augment is {augment!r}; expected a function (image, seed) -> image, such as "
            "`keras_robust.data.shift_flip()`."
        )
    loss = SumOfLosses(
        (Adversarial(clean_weight=1.0), Contrastive("global", "cosine", temperature, weight))
    )
    return RobustModel(
        classifier,
        AugmentedView(ball, augment),
        loss,
        validation_attack=pgd(ball, steps, step_size),
        seed=seed,
        **options,
    )
