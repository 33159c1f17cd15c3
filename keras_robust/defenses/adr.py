"""ADR: adversarial training with local and global compactness of the latent space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core import collectives
from keras_robust.core.config import serializable
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Ball, Labels, Outputs, PerExample, RobustLoss
from keras_robust.core.validation import check_choice, check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.pairwise_distance import distances
from keras_robust.losses.robust_loss import KLConsistency, SumOfLosses
from keras_robust.training import defense_factory
from keras_robust.training.defense_factory import defense
from keras_robust.training.robust_model import RobustModel

_NORMS: dict[float, str] = {1: "l1", 2: "l2", math.inf: "linf"}


@serializable
class Compactness(RobustLoss):
    """Distances of adversarial latents from their clean latent (local) and within a class (global).

    `local_weight` times the distance of an image's two latents; `global_weight` times the mean over
    the batch of `w_ij` times the distance of clean latent j from adversarial latent i, where `w_ij`
    is 1 within a class and `(alpha - 1) / alpha` between classes. The batch is that of all
    replicas.

    Distances are normalized by the size of a latent: for `p` of 1, 2 and inf they are the mean, the
    root mean square and the maximum of the absolute differences.

    Args:
        local_weight: weight of the local term; 0 leaves it out.
        global_weight: weight of the global term; 0 leaves it out.
        p: 1, 2 or inf (or `"inf"`).
        alpha: weight of compactness within a class in the global term, in (0, 1].
        through_clean: whether gradients flow to the clean latents.

    Raises:
        ValueError: a negative weight, both weights zero, another p, alpha outside (0, 1].

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (2020), Eq. 1 to 3.

    Differs: as in the released code, distances are means over the latent (the paper: sums),
    gradients to the clean side are stopped, and the global term pairs clean with adversarial
    latents (the paper: clean with clean). Weights of 1 suit the released code.
    """

    local_weight: float = 1.0
    global_weight: float = 1.0
    p: float | str = 1
    alpha: float = 0.99
    through_clean: bool = False

    def __post_init__(self) -> None:
        check_number("Compactness: local_weight", self.local_weight)
        check_number("Compactness: global_weight", self.global_weight)
        if self.local_weight == self.global_weight == 0:
            raise ValueError(
                "Compactness: local_weight and global_weight are both 0; expected one above 0."
            )
        check_choice("Compactness: p", self.p, (1, 2, math.inf, "inf"))
        check_number("Compactness: alpha", self.alpha, above=0, most=1)

    @property
    def _p(self) -> float:
        return float(self.p)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms that have a weight."""
        weights = {"local": self.local_weight, "global": self.global_weight}
        return tuple(name for name, weight in weights.items() if weight)

    @property
    def batch_level(self) -> bool:
        """The global term compares the images of a batch."""
        return self.global_weight > 0

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms, each `[batch]`."""
        z, z_adv = upcast_half(clean["features"]), upcast_half(adversarial["features"])
        z = z if self.through_clean else tf.stop_gradient(z)
        terms = {}
        if self.local_weight:
            terms["local"] = self.local_weight * self._length(z_adv - z)
        if self.global_weight:
            others, labels = collectives.all_gather(z), collectives.all_gather(y)
            pairs = distances(_NORMS[self._p], z_adv, others) / self._scale(z_adv)
            same = y[:, None] == labels
            weights = tf.where(same, 1.0, tf.constant((self.alpha - 1) / self.alpha, pairs.dtype))
            terms["global"] = self.global_weight * tf.reduce_mean(weights * pairs, axis=1)
        return terms

    def _length(self, difference: tf.Tensor) -> PerExample:
        """The normalized length of each difference `[batch, d]`."""
        if self._p == 2:
            square = tf.reduce_mean(tf.square(difference), axis=1)
            # The gradient of the root is infinite at 0.
            positive = square > 0
            return tf.where(positive, tf.sqrt(tf.where(positive, square, 1.0)), 0.0)
        reduce = tf.reduce_mean if self._p == 1 else tf.reduce_max
        return reduce(tf.abs(difference), axis=1)

    def _scale(self, latents: tf.Tensor) -> tf.Tensor:
        size = tf.cast(tf.shape(latents)[1], latents.dtype)
        return {1.0: size, 2.0: tf.sqrt(size)}.get(self._p, tf.ones_like(size))


@serializable
class Confidence(RobustLoss):
    """`weight * (H(p(x_adv)) + H(p(x)))`: entropies of the predictions (clustering assumption).

    Args:
        weight: weight of the term.

    Raises:
        ValueError: a negative weight.

    Reference: Bui et al. (2020), Eq. 5.
    """

    term_names = ("confidence",)

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("Confidence: weight", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted entropies, `[batch]`."""
        del y
        both = losses.entropy(adversarial["logits"]) + losses.entropy(clean["logits"])
        return {"confidence": self.weight * both}


@defense
def adr(
    classifier: keras.Model,
    ball: Ball,
    *,
    base: str | Callable[..., RobustModel],
    local_weight: float = 1.0,
    global_weight: float = 1.0,
    smoothness_weight: float = 1.0,
    confidence_weight: float = 0.0,
    p: float | str = 1,
    alpha: float = 0.99,
    through_clean: bool = False,
    **options: Any,
) -> RobustModel:
    """Adds compactness, smoothness and confidence terms to another defense.

    The latent is the classifier's `"features"`. To select another layer, such as the last
    convolution, which the paper uses in small networks:
    `keras_robust.models.adapt(classifier, features="pool2")`.

    Args:
        base: a defense that trains on adversarial images, or its name: `"pgd_at"` (the paper's
            ADR-ADV, with `clean_weight=1.0`), `"trades"` (ADR-TRADES).
        local_weight: weight of the local compactness; 0 leaves a term out.
        global_weight: weight of the global compactness.
        smoothness_weight: weight of `KL(p(x) || p(x_adv))`, with no gradient to the clean side.
        confidence_weight: weight of the entropies of both predictions; 0 for MNIST and ResNets in
            the paper, 1 for its CNN on CIFAR-10.
        p: distance of latents, 1, 2 or inf.
        alpha: weight of compactness within a class in the global term, in (0, 1].
        through_clean: whether gradients of compactness flow to the clean latents. If not, as in the
            released code, latents may grow without bound or shrink to a point, and the network ends
            at chance, with some seeds by SGD too (`docs/results/representation.md`).
        **options: options of the base, such as `clean_weight`, `beta`, `steps`, `step_size`.

    Raises:
        TypeError: base is not a defense.
        ValueError: a number out of range, all weights 0, or what the base refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> model = adr(classifier, kr.LinfBall(0.3), base="pgd_at", clean_weight=1.0)
        >>> model.robust_loss.term_names
        ('adversarial', 'clean', 'local', 'global', 'smoothness')

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (2020), Eq. 7.
    """
    check_number("adr: smoothness_weight", smoothness_weight)
    check_number("adr: confidence_weight", confidence_weight)
    terms: list[RobustLoss] = []
    if local_weight or global_weight:
        terms.append(Compactness(local_weight, global_weight, p, alpha, through_clean))
    if smoothness_weight:
        terms.append(KLConsistency(smoothness_weight, through_clean=False))
    if confidence_weight:
        terms.append(Confidence(confidence_weight))
    if not terms:
        raise ValueError("adr: all weights are 0; expected one above 0.")
    model = defense_factory.get(base)(classifier, ball, **options)
    return model.rebuilt(loss=SumOfLosses((model.robust_loss, *terms)))
