"""Single-step adversarial training: N-FGSM, R-FGSM and FGSM, with gradient alignment."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack, value_and_gradient
from keras_robust.attacks.crafting.initialization import AtInput, Uniform
from keras_robust.attacks.crafting.objectives import LabelLoss
from keras_robust.attacks.crafting.step_rules import FixedStep, UnprojectedStep
from keras_robust.attacks.pgd import pgd
from keras_robust.core import random
from keras_robust.core.config import register, serializable
from keras_robust.core.types import (
    Ball,
    Images,
    Initialization,
    Labels,
    Outputs,
    PerExample,
    RobustLoss,
    StepRule,
)
from keras_robust.core.validation import check_ball, check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.robust_loss import Adversarial, SumOfLosses
from keras_robust.threat_models.norms import divided_by_largest
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel
from keras_robust.training.training_loss import OutputsByKind

# Folded into the seed of a step, so that the noise is not that of the attack.
_ALIGNMENT = 2**31 - 5


@serializable
class GradientAlignment(RobustLoss):
    """`weight * (1 - cos(grad l(x), grad l(x + noise)))`, of gradients in the image: GradAlign.

    Args:
        weight: weight of the term.

    Raises:
        ValueError: a negative weight.

    Reference: Andriushchenko and Flammarion, "Understanding and Improving Fast Adversarial
    Training" (2020), Eq. 6.
    """

    term_names = ("alignment",)
    required_outputs = frozenset({"adversarial", "alignment"})

    weight: float = 0.2

    def __post_init__(self) -> None:
        check_number("GradientAlignment: weight", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted term, `[batch]`."""
        del y, clean
        return {"alignment": self.weight * (1 - adversarial["alignment"])}


@register
class AlignedModel(RobustModel):
    """A robust model that measures how well gradients in an image and near it are aligned."""

    further_kinds = frozenset({"alignment"})

    def further_outputs(
        self, outputs: OutputsByKind, x: Images, y: Labels, x_adv: Images, training: bool
    ) -> Outputs:
        """The cosine of the two gradients, `[batch]`; gradients flow through both."""
        del outputs, x_adv, training  # the classifier runs as for the attack

        def loss(images: Images) -> PerExample:
            return losses.negative_log_likelihood(self._crafting_forward(images)["logits"], y)

        seed = random.fold_in(self._fold(self.step), _ALIGNMENT)
        nearby = self.training_attack(x.dtype).ball.sample(x, seed)
        return {"alignment": cosine(*(value_and_gradient(loss, at)[1] for at in (x, nearby)))}


def cosine(first: tf.Tensor, second: tf.Tensor) -> PerExample:
    """The cosine of the angle between two tensors of each example, `[batch]`; 1 for a zero one.

    Twice differentiable, also at zero.

    Example:
        >>> a, b = tf.constant([[3.0, 4.0], [0.0, 0.0]]), tf.constant([[4.0, 3.0], [1.0, 0.0]])
        >>> cosine(a, b).numpy().round(2).tolist()
        [0.9599999785423279, 1.0]
    """
    units, zeros = [], []
    for value in (first, second):
        # The cosine does not depend on the length, whose gradient would divide by tiny numbers.
        scale = tf.stop_gradient(divided_by_largest(value)[0])
        is_zero = tf.equal(scale, 0)
        flat = tf.reshape(value, [-1, value.shape[1:].num_elements()])
        flat = tf.cast(flat, scale.dtype) / tf.where(is_zero, tf.ones_like(scale), scale)
        squares = tf.reduce_sum(tf.square(flat), axis=1, keepdims=True)
        units.append(flat * tf.math.rsqrt(tf.where(is_zero, tf.ones_like(squares), squares)))
        zeros.append(is_zero[:, 0])
    product = tf.reduce_sum(units[0] * units[1], axis=1)
    return tf.where(zeros[0] | zeros[1], tf.ones_like(product), product)


def single_step(ball: Ball, noise: float, step_size: float | None, project: bool) -> Attack:
    """One step from uniform noise; the arguments are those of `n_fgsm`."""
    radius = check_ball(ball)
    check_number("n_fgsm: noise", noise, hint=", in radii of the ball")
    if step_size is None:
        step_size = 1.25 * radius if project else radius
    else:
        check_number("n_fgsm: step_size", step_size, above=0, hint=", e.g. 8 / 255")
    start: Initialization = AtInput()
    if noise:
        start = Uniform() if noise == 1 else Uniform(scale=noise)
    rule: StepRule = FixedStep(step_size) if project else UnprojectedStep(step_size)
    name = "single step" if project else "single step, not projected"
    return GradientAttack(ball, LabelLoss("cross_entropy"), rule, 1, start, name)


@defense
def n_fgsm(
    classifier: keras.Model,
    ball: Ball,
    *,
    noise: float = 2.0,
    project: bool = False,
    grad_align: float = 0.0,
    clean_weight: float = 0.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Minimizes `CE(x + noise + step)`, for a single step along the sign of the gradient: N-FGSM.

    Adversarial training at the cost of two gradients. The step starts at uniform noise and is not
    projected onto the ball, so training images may be `noise + 1` radii away; they are clipped into
    the range of a pixel. Validation is PGD in the ball.

    R-FGSM (Wong et al. 2020) is `noise=1.0, project=True`, FGSM `noise=0.0, project=True,
    step_size=ball.radius`. Both may overfit catastrophically: accuracy under PGD falls to 0 within
    an epoch, while that under the single step rises. `grad_align` prevents it, at three times the
    cost; `keras_robust.training.CatastrophicOverfitting` notices it.

    Args:
        noise: radius of the noise, in radii of the ball, >= 0; 2 in the paper.
        project: whether to project the result onto the ball.
        grad_align: weight of `1 - cos` of the gradients at the image and at a random point of the
            ball; 0 for none. 0.2 in the paper for a radius of 8/255 on CIFAR-10.
        clean_weight: weight of the clean cross-entropy.
        steps: number of steps of the validation attack.
        step_size: length of the single step; default the radius, and 1.25 radii with `project`.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: a number out of range.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> n_fgsm(classifier, kr.LinfBall(0.25)).attack.step_rule
        UnprojectedStep(size=0.25)
        >>> model = n_fgsm(classifier, kr.LinfBall(0.25), noise=1.0, project=True, grad_align=0.2)
        >>> model.attack.step_rule.size, model.robust_loss.term_names
        (0.3125, ('adversarial', 'alignment'))

    Reference: de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step Adversarial
    Training" (2022), Algorithm 1; Wong et al., "Fast is better than free: Revisiting adversarial
    training" (2020), Algorithm 3; Andriushchenko and Flammarion, "Understanding and Improving Fast
    Adversarial Training" (2020), Eq. 6.

    Differs: the gradients of `grad_align` are those of the classifier that the attack sees
    (`crafting_mode`), and both are differentiated, as in the paper; the released code stops the
    gradient of one.
    """
    check_number("n_fgsm: grad_align", grad_align)
    attack = single_step(ball, noise, step_size, project)
    options = validated_by(options, pgd(ball, steps))
    loss: Any = Adversarial(clean_weight)
    if not grad_align:
        return RobustModel(classifier, attack, loss, **options)
    loss = SumOfLosses((loss, GradientAlignment(grad_align)))
    return AlignedModel(classifier, attack, loss, **options)
