"""SABR: certified training on small boxes around adversarial images (Müller et al., 2023)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.pgd import pgd
from keras_robust.certification.region import Region, region_around
from keras_robust.core.config import register
from keras_robust.core.types import Ball, Images, Labels
from keras_robust.core.validation import check_number
from keras_robust.training.certified.model import CertifiedModel
from keras_robust.training.certified.radius_ramp import RadiusRamp
from keras_robust.training.defense_factory import RobustModelOptions, defense
from keras_robust.training.robust_model import RobustModel


@register
class SabrModel(CertifiedModel):
    """A certified model that bounds, in training, a small ball around an adversarial image.

    Args:
        *args, **kwargs: arguments of `CertifiedModel`.
        box_ratio: the radius of the small ball divided by that of training, in (0, 1].
        search: the attack that finds the center of the small ball.
    """

    def __init__(self, *args: Any, box_ratio: float, search: Attack, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_number("box_ratio", box_ratio, above=0, most=1)
        self.box_ratio = float(box_ratio)
        self.search = search

    def training_region(self, x: Images, y: Labels, share: tf.Tensor) -> Region:
        """The small ball around what the search finds in a ball smaller by its radius."""
        radius = tf.cast(share, x.dtype) * self.ramp.radius
        attack = self.search.at_radius((1 - self.box_ratio) * radius)
        center = attack(self._crafting_forward, x, y, seed=self._fold(self.step))
        small = self.bounds.ball.replace(radius=self.box_ratio * radius)
        return region_around(tf.stop_gradient(center), small)

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        return {**super().parts(), "box_ratio": self.box_ratio, "search": self.search}


@defense
def sabr(
    classifier: keras.Model,
    ball: Ball,
    *,
    box_ratio: float = 0.4,
    search_steps: int = 8,
    train_radius: float | None = None,
    clean_weight: float = 0.0,
    warmup_steps: int = 2000,
    ramp_steps: int = 10_000,
    ramp: str = "smooth",
    regularization: float = 0.5,
    initialization: str | None = None,
    steps: int = 10,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Certified training on a small box around an adversarial image, inside the ball.

    PGD finds the worst image of a ball of radius `(1 - box_ratio) * radius`; intervals bound the
    loss on the ball of radius `box_ratio * radius` around it. A smaller box is a weaker demand:
    accuracy and robustness to attacks grow, what intervals can prove shrinks. With `box_ratio=1` it
    is `ibp`. Everything else is as there.

    Args:
        classifier: a classifier whose layers bounds cover (`keras_robust.certification`).
        ball: the threat model, an `LinfBall`, `L2Ball` or `L1Ball`.
        box_ratio: the radius of the box divided by that of training, in (0, 1].
        search_steps: number of steps of PGD, in training.
        train_radius, clean_weight, warmup_steps, ramp_steps, ramp, regularization,
            initialization, steps: as for `ibp`.

    Raises:
        TypeError: a ball of your own.
        ValueError: a layer that is not covered, a `train_radius` below that of the ball, or an
            invalid number.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.strided_cnn((28, 28, 1), classes=10)
        >>> sabr(classifier, kr.LinfBall(0.3), box_ratio=0.6, train_radius=0.3).box_ratio
        0.6

    Reference: Müller et al., "Certified Training: Small Boxes are All You Need" (2023), Eq. 5.

    Differs: kappa follows the radius as in `ibp`, and training exceeds the radius of the ball; the
    paper has no clean term, and certifies by branch and bound, which proves more than intervals.
    """
    return SabrModel.against(
        classifier,
        ball,
        RadiusRamp.beyond(ball, train_radius, warmup_steps, ramp_steps, ramp),
        clean_weight=clean_weight,
        regularization=regularization,
        initialization=initialization,
        steps=steps,
        options=options,
        box_ratio=box_ratio,
        search=pgd(ball, search_steps),
    )
