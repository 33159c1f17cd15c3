"""IBP: certified training with interval bound propagation (Gowal et al., 2018)."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.core.types import Ball
from keras_robust.training.certified.model import CertifiedModel
from keras_robust.training.certified.radius_ramp import RadiusRamp
from keras_robust.training.defense_factory import RobustModelOptions, defense
from keras_robust.training.robust_model import RobustModel


@defense
def ibp(
    classifier: keras.Model,
    ball: Ball,
    *,
    train_radius: float | None = None,
    clean_weight: float = 0.5,
    warmup_steps: int = 2000,
    ramp_steps: int = 10_000,
    ramp: str = "smooth",
    regularization: float = 0.5,
    initialization: str | None = None,
    steps: int = 10,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Certified training: minimizes an upper bound of the loss over the whole ball, by intervals.

    The loss is `kappa * CE(x) + (1 - kappa) * CE(worst case)`. On the ramp the radius grows from 0
    to `train_radius`, and kappa falls from 1 to `clean_weight` in proportion. Nothing is crafted in
    training: `radius_warmup`, `radius_schedule` and the options of crafting have no effect. The
    `verified_accuracy` of training is that at the present radius, of validation at the ball's.

    Args:
        classifier: a classifier whose layers bounds cover (`keras_robust.certification`); batch
            norm and few layers without max pools, as in `keras_robust.models.strided_cnn`, help.
        ball: the threat model, an `LinfBall`, `L2Ball` or `L1Ball`.
        train_radius: the largest radius of training, in the units of the images; default 1.1 times
            that of the ball, as in the paper for CIFAR-10. For MNIST at 0.3 it uses 0.4.
        clean_weight: the last kappa, from 0 to 1.
        warmup_steps: number of first steps with radius 0.
        ramp_steps: number of steps over which the radius grows. The paper's are 2,000 and 10,000 of
            60,000 steps.
        ramp: `"smooth"` or `"linear"`.
        regularization: weight of a penalty on loose bounds during the ramp; 0 for none.
        initialization: `"ibp"` draws new kernels whose bounds do not grow with depth; None keeps
            the weights of the classifier.
        steps: number of steps of PGD, the attack of validation.

    Raises:
        TypeError: a ball of your own.
        ValueError: a layer that is not covered, a `train_radius` below that of the ball, or an
            invalid number.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.strided_cnn((28, 28, 1), classes=10)
        >>> model = ibp(classifier, kr.LinfBall(0.3), train_radius=0.4, initialization="ibp")
        >>> model.robust_loss.term_names, model.ramp.radius
        (('clean', 'worst_case'), 0.4)

    Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models" (2018), section 4; ramp, penalty and initialization of Shi et al.,
    "Fast Certified Robust Training with Short Warmup" (2021).

    Differs: kappa follows the radius, as in Zhang et al. (2020); in the first paper it falls
    linearly. Bounds are widened by the rounding errors of float32.
    """
    return CertifiedModel.against(
        classifier,
        ball,
        RadiusRamp.beyond(ball, train_radius, warmup_steps, ramp_steps, ramp),
        clean_weight=clean_weight,
        regularization=regularization,
        initialization=initialization,
        steps=steps,
        options=options,
    )
