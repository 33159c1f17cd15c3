"""Training under Gaussian noise, for randomized smoothing (Cohen et al., 2019)."""

from __future__ import annotations

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.pgd import pgd
from keras_robust.attacks.smooth_adv import SmoothAdv
from keras_robust.core import random
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Radius, Scalar
from keras_robust.core.validation import check_integer, check_number
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.threat_models.balls import L2Ball
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel


@serializable
class GaussianNoise(Attack):
    """Adds Gaussian noise to the images; the result is outside the ball and its bounds.

    For training: it is not an attack to evaluate with.

    Args:
        ball: its bounds are the range of the images before the noise.
        sigma: the standard deviation of the noise, > 0, in the units of the images.
        attack: the noise is added to its images, and is the first of the samples that it attacks
            under; None for clean images.

    Raises:
        ValueError: sigma is not > 0.
    """

    ball: Ball
    sigma: float
    attack: SmoothAdv | None = None
    name = "Gaussian noise"

    def __post_init__(self) -> None:
        check_number("gaussian: sigma", self.sigma, above=0, hint=" in the units of the images")

    @property
    def gradient_steps(self) -> int | None:
        """The steps of the attack."""
        return None if self.attack is None else self.attack.gradient_steps

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """The images, attacked if there is an attack, with noise."""
        if self.attack is None:
            noise = random.normal(tf.shape(x), seed, dtype=upcast_half(x).dtype)
            return tf.cast(upcast_half(x) + scalar(self.sigma, noise.dtype) * noise, x.dtype)
        x_adv = self.attack.craft(forward, x, y, seed, targets)
        return tf.cast(upcast_half(x_adv) + self.attack.noise(x, seed)[:, 0], x.dtype)

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> GaussianNoise:
        """The attack in a ball of another radius; the noise stays."""
        attack = None if self.attack is None else self.attack.at_radius(radius, step_size)
        return replace(self, ball=self.ball.replace(radius=radius), attack=attack)


@defense
def gaussian(
    classifier: keras.Model,
    ball: Ball | None = None,
    *,
    sigma: float = 0.25,
    samples: int = 0,
    clean_weight: float = 0.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Minimizes the cross-entropy under Gaussian noise, the base of `keras_robust.models.smoothed`.

    With `samples`, the noise is added to images that SmoothAdv crafts against the smoothed
    classifier in the ball. Noise is not clipped into the range of the images. In training
    `robust_accuracy` is that under noise.

    Args:
        ball: threat model of `samples` and of validation, which attacks the classifier with PGD;
            None for no attack, and validation under noise.
        sigma: the standard deviation of the noise, > 0, in the units of the images; that of the
            smoothed classifier.
        samples: number of noise samples of SmoothAdv; 0 for noise alone.
        clean_weight: weight of the clean cross-entropy.
        steps: number of steps of both attacks.
        radius_warmup: number of first steps over which the radius of SmoothAdv grows linearly from
            0. The noise does not change.

    Raises:
        ValueError: a number out of range, samples without a ball, or what
            `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> gaussian(classifier, sigma=0.5).attack.sigma
        0.5
        >>> gaussian(classifier, kr.L2Ball(0.5), samples=4).attack.attack.name
        'SmoothAdv of PGD-10'

    Reference: Cohen et al., "Certified Adversarial Robustness via Randomized Smoothing" (2019),
    section 3.3; with `samples`, Salman et al., "Provably Robust Deep Learning via Adversarially
    Trained Smoothed Classifiers" (2019), section 2.2.

    Differs: Salman et al. train on all noise samples of an image, here on the first of those that
    the attack saw.
    """
    check_integer("gaussian: samples", samples)
    if ball is None:
        if samples:
            raise ValueError(
                f"gaussian: samples is {samples}, and there is no ball to attack in; pass one, "
                "such as `keras_robust.L2Ball(0.5)`, or samples=0."
            )
        attack = GaussianNoise(L2Ball(0.0), sigma)  # for the range of the images
        return RobustModel(classifier, attack, Adversarial(clean_weight), **options)
    validation = pgd(ball, steps, step_size)
    smooth_adv = SmoothAdv(validation, sigma, samples) if samples else None
    return RobustModel(
        classifier,
        GaussianNoise(ball, sigma, smooth_adv),
        Adversarial(clean_weight),
        **validated_by(options, validation),
    )
