"""SCL: supervised contrastive learning on two augmented views of each image, without attacks."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.pgd import pgd
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Forward, Images, Labels, Radius
from keras_robust.core.validation import check_choice
from keras_robust.losses.contrastive import Contrastive
from keras_robust.losses.robust_loss import Adversarial, SumOfLosses
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel

MODES = ("joint", "pretraining")
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@serializable
class AugmentedView(Attack):
    """Augments images in the place of an attack; the radius of the ball does not limit it.

    Args:
        ball: its bounds are those of the images.
        augment: a function `(image, seed) -> image`, such as `keras_robust.data.shift_flip()`.
        name: the name in logs.
    """

    ball: Ball
    augment: Augment
    name: str = "second_view"

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """An augmented view of each image."""
        del forward, y, targets
        seeds = tf.cast(random.split(seed, tf.shape(x)[0]), tf.int64)
        return tf.vectorized_map(lambda both: self.augment(*both), (x, seeds))

    def at_radius(self, radius: Radius, step_size: Radius | None = None) -> AugmentedView:
        """Returns itself: augmentation does not depend on the radius."""
        del radius, step_size
        return self


@defense
def scl(
    classifier: keras.Model,
    ball: Ball,
    *,
    augment: Augment,
    mode: str = "joint",
    selection: str = "global",
    temperature: float = 0.07,
    weight: float = 1.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Cross-entropy on two views of each image, and the supervised contrast between all views.

    The first view is the image of the data, the second one is augmented here. Training does not
    attack, so its `robust_accuracy` is that of the second views; the default validation attack is
    PGD. A baseline of ASCL.

    With `mode="pretraining"` the contrast is the whole loss, as in the paper, and validation has
    second views too. The logits are not trained: in a second stage, train a head on the features,
    by `keras_robust.models.set_trainable(classifier, "head")` and any other defense.

    Args:
        ball: the threat model of validation.
        augment: a function `(image, seed) -> image`, such as `keras_robust.data.shift_flip()`.
        mode: `"joint"`, or `"pretraining"` for the contrastive term alone.
        selection: `"global"`, or `"instance"` for a contrast without labels; others as in `ascl`.
        temperature: divisor of the similarities, > 0.
        weight: weight of the contrastive term.
        steps: number of steps of the validation attack.

    Returns:
        A model to `compile` and `fit`; it takes no sample weights.

    Raises:
        TypeError: augment is not a function.
        ValueError: a number out of range, or another mode.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((8, 8, 1), classes=3)
        >>> augment = kr.data.shift_flip(flip=False)
        >>> scl(classifier, kr.LinfBall(0.1), augment=augment).robust_loss.term_names
        ('adversarial', 'clean', 'contrastive')

    Reference: Khosla et al., "Supervised Contrastive Learning" (2020), Eq. 2.

    Differs: by default the contrastive term is added to the cross-entropy, as in ASCL; in the paper
    it pretrains the features, with a projection head.
    """
    if not callable(augment):
        raise TypeError(
            f"SCL: augment is {augment!r}; expected a function (image, seed) -> image, such as "
            "`keras_robust.data.shift_flip()`."
        )
    check_choice("scl: mode", mode, MODES)
    views = AugmentedView(ball, augment)
    contrastive = Contrastive(selection, "cosine", temperature, weight)
    if mode == "pretraining":
        return RobustModel(classifier, views, contrastive, **options)
    loss = SumOfLosses((Adversarial(clean_weight=1.0), contrastive))
    options = validated_by(options, pgd(ball, steps, step_size))
    return RobustModel(classifier, views, loss, **options)
