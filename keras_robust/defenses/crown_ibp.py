"""CROWN-IBP: certified training that begins with tighter, linear bounds (Zhang et al., 2020)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.certification.bounds import margins as margins_by
from keras_robust.certification.crown_ibp import lower_by_crown
from keras_robust.certification.interval import Interval
from keras_robust.certification.network import Network
from keras_robust.certification.region import Region
from keras_robust.core.config import register
from keras_robust.core.types import Ball, Labels, Logits
from keras_robust.training.certified.model import CertifiedModel
from keras_robust.training.certified.radius_ramp import RadiusRamp
from keras_robust.training.defense_factory import RobustModelOptions, defense
from keras_robust.training.robust_model import RobustModel


@register
class CrownIbpModel(CertifiedModel):
    """A certified model whose margins on the ramp are partly those of CROWN-IBP.

    Args:
        *args, **kwargs: arguments of `CertifiedModel`.
    """

    def training_margins(
        self,
        network: Network,
        y: Labels,
        region: Region,
        intervals: Sequence[Interval],
        share: tf.Tensor,
    ) -> Logits:
        """`beta * CROWN-IBP + (1 - beta) * IBP` with `beta = 1 - share`; IBP alone at the end."""
        by_intervals = super().training_margins(network, y, region, intervals, share)

        def mixed() -> Logits:
            lower = functools.partial(lower_by_crown, intervals=intervals, size=None)
            by_lines = margins_by(lower, network, y, region)
            return by_lines + tf.cast(share, by_lines.dtype) * (by_intervals - by_lines)

        if self.jit_compile:  # XLA cannot differentiate a branch for a batch of unknown size
            return mixed()
        # Lines cost a backward pass for each class, and are of no use once beta is 0.
        return tf.cond(share < 1, mixed, lambda: by_intervals)


@defense
def crown_ibp(
    classifier: keras.Model,
    ball: Ball,
    *,
    train_radius: float | None = None,
    clean_weight: float = 0.5,
    warmup_steps: int = 2000,
    ramp_steps: int = 10_000,
    ramp: str = "smooth",
    regularization: float = 0.0,
    initialization: str | None = None,
    steps: int = 10,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Certified training as `ibp`, with tighter bounds in the place of intervals on the ramp.

    The margins are `beta * CROWN-IBP + (1 - beta) * IBP`; beta falls from 1 to 0 on the ramp.
    Lines cost a backward pass for each class: with ten classes, a step on the ramp takes six times
    as long as one of `ibp`, after it as long. With `jit_compile=True` all steps take as long as on
    the ramp. Validation bounds by IBP, which the last steps train for.

    Args:
        classifier: a classifier whose layers bounds cover (`keras_robust.certification`).
        ball: the threat model, an `LinfBall`, `L2Ball` or `L1Ball`.
        train_radius, clean_weight, warmup_steps, ramp_steps, ramp, regularization,
            initialization, steps: as for `ibp`.

    Raises:
        TypeError: a ball of your own.
        ValueError: a layer that is not covered, a `train_radius` below that of the ball, or an
            invalid number.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.strided_cnn((28, 28, 1), classes=10)
        >>> crown_ibp(classifier, kr.LinfBall(0.3), train_radius=0.4).ramp.ramp_steps
        10000

    Reference: Zhang et al., "Towards Stable and Efficient Training of Verifiably Robust Neural
    Networks" (2020), Eq. 10 and section 4.
    """
    return CrownIbpModel.against(
        classifier,
        ball,
        RadiusRamp.beyond(ball, train_radius, warmup_steps, ramp_steps, ramp),
        clean_weight=clean_weight,
        regularization=regularization,
        initialization=initialization,
        steps=steps,
        options=options,
    )
