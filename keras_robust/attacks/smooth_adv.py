"""SmoothAdv: an attack on a classifier under Gaussian noise."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, AttackWrapper, check_attack
from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Forward, Images, Labels, Outputs
from keras_robust.core.validation import check_integer, check_number
from keras_robust.losses import classification as losses

_NOISE = 1_000_003  # folded into the seed, so that the noise is not that of a random start


@serializable
class SmoothAdv(AttackWrapper):
    """SmoothAdv: runs an attack on the mean prediction under Gaussian noise.

    The attack sees `log (1/m) sum_i softmax(z(x + sigma n_i))` in the place of the logits `z(x)`,
    so that its cross-entropy is the loss of the smoothed classifier
    (`keras_robust.models.smoothed`). The noise is drawn once for each image and stays the same in
    all steps. It is not part of the result, which is inside the ball and its bounds.

    An evaluation measures the classifier itself on the result; for the accuracy of the smoothed
    classifier pass the result to its `predict`.

    Args:
        attack: the attack to run, in any ball.
        sigma: the standard deviation of the noise, > 0, in the units of the images.
        samples: the number of noise samples `m`, >= 1. The classifier runs on all of them at once:
            a batch takes as much memory as one `samples` times as large.

    Raises:
        TypeError: not an attack.
        ValueError: sigma or samples out of range, a per-member attack, or one that is crafted on
            another model.

    Example:
        >>> from keras_robust import L2Ball, attacks
        >>> attack = smooth_adv(attacks.pgd(L2Ball(0.5), steps=20), sigma=0.25, samples=8)
        >>> attack.name
        'SmoothAdv of PGD-20'
        >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
        >>> x_adv = attack(lambda x: {"logits": x}, x, y)
        >>> bool(x_adv[0, 0] < 0.3), bool(x_adv[0, 1] > 0.7)
        (True, True)

    Reference: Salman et al., "Provably Robust Deep Learning via Adversarially Trained Smoothed
    Classifiers" (2019), Eq. 6 and section 2.2.
    """

    attack: Attack
    sigma: float = 0.25
    samples: int = 8

    def __post_init__(self) -> None:
        check_attack("SmoothAdv: the attack", self.attack)
        check_number("SmoothAdv: sigma", self.sigma, above=0, hint=" in the units of the images")
        check_integer("SmoothAdv: samples", self.samples, 1)
        if self.attack.per_member:
            raise ValueError(
                f"SmoothAdv: the attack {self.attack.name} returns one batch per member; expected "
                "one that returns a single batch. Use per_member(smooth_adv(...))."
            )
        if self.attack.source is not None:
            raise ValueError(
                f"SmoothAdv: the attack {self.attack.name} is crafted on another model, which has "
                "no noise then. Use transfer(smooth_adv(...), source)."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The attack's name, marked as SmoothAdv."""
        return f"SmoothAdv of {self.attack.name}"

    @property
    def is_random(self) -> bool:
        """The noise depends on the seed."""
        return True

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Runs the attack on the mean prediction under noise."""
        return self.attack.craft(under_noise(forward, self.noise(x, seed)), x, y, seed, targets)

    def noise(self, x: Images, seed: tf.Tensor) -> tf.Tensor:
        """The noise that `craft` adds with this seed, `[batch, samples, ...]`, at least float32."""
        seed = random.fold_in(seed, _NOISE)
        shape, dtype = tf.shape(x), upcast_half(x).dtype
        shape = tf.concat([shape[:1], [self.samples], shape[1:]], axis=0)
        noise = random.normal(shape, seed, dtype=dtype)
        noise.set_shape([x.shape[0], self.samples, *x.shape[1:]])
        return scalar(self.sigma, dtype) * noise


smooth_adv = SmoothAdv


def under_noise(forward: Forward, noise: tf.Tensor) -> Forward:
    """A classifier's mean outputs under given noise.

    Args:
        forward: a classifier, such as the result of `as_forward`.
        noise: `[batch, samples, ...]`; each image has its own.

    Returns:
        A function of a batch of images: logits are the logarithms of mean probabilities, other
        outputs are means. Its `members` are those of `forward` under the same noise.

    Example:
        >>> noise = tf.constant([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> outputs = under_noise(lambda x: {"logits": x}, noise)(tf.zeros([1, 2]))
        >>> tf.exp(outputs["logits"]).numpy().round(3).tolist()
        [[0.5, 0.5]]
    """
    samples = noise.shape[1]

    def noisy(x: Images) -> Outputs:
        copies = tf.cast(upcast_half(x)[:, None] + noise, x.dtype)
        copies = tf.reshape(copies, tf.concat([[-1], tf.shape(x)[1:]], axis=0))
        outputs = forward(tf.ensure_shape(copies, [None, *x.shape[1:]]))
        return {name: _mean(name, value, samples) for name, value in outputs.items()}

    result: Any = noisy
    result.members = tuple(under_noise(member, noise) for member in getattr(forward, "members", ()))
    return result


def _mean(name: str, value: tf.Tensor, samples: int) -> tf.Tensor:
    """The mean of an output over the samples of an image, which are consecutive rows."""
    shape = value.shape[1:]
    value = tf.reshape(value, tf.concat([[-1, samples], tf.shape(value)[1:]], axis=0))
    value = tf.ensure_shape(value, [None, samples, *shape])
    if not name.endswith("logits"):
        return tf.reduce_mean(upcast_half(value), axis=1)
    # Samples next to last, before the classes.
    axes = [0, *range(2, value.shape.rank - 1), 1, value.shape.rank - 1]
    return losses.log_mean_probability(tf.transpose(value, axes))
