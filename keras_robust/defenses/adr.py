"""ADR: adversarial training whose latent space is compact, locally and globally."""

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
from keras_robust.core.validation import check_number
from keras_robust.losses import classification as losses
from keras_robust.losses.pairwise_distance import distances
from keras_robust.losses.robust_loss import KLConsistency, SumOfLosses
from keras_robust.training.robust_model import RobustModel

_NORMS: dict[Any, str] = {1: "l1", 2: "l2", math.inf: "linf"}


@serializable
class Compactness(RobustLoss):
    """Adversarial latents near their own clean one, and near those of their class.

    `local` times the distance of an image's two latents; `global_` times the mean over the batch of
    `w_ij` times the distance of clean latent j from adversarial latent i, where `w_ij` is 1 within
    a class and `(alpha - 1) / alpha` between classes. The global term is over the whole batch: on
    several replicas, over that of all of them.

    Distances do not grow with the size of a latent: for `p` of 1, 2 and inf they are the mean of
    the differences, the root of their mean square, and the largest of them.

    Args:
        local: weight of the local term; without a weight a term is left out.
        global_: weight of the global term.
        p: 1, 2 or inf (`"inf"` is taken too).
        alpha: how much of the global term is compactness, in (0, 1].
        through_clean: whether gradients flow to the clean latents, too.

    Raises:
        ValueError: a negative weight, both of them zero, another p, an alpha outside (0, 1].

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (2020), Eq. 1 to 3.

    Differs: the paper's distances are sums over the latent, and it speaks of no held side; the
    released code's are means with the clean side held, which the weights of 1 are meant for. The
    paper pairs clean latents in the global term, the code clean with adversarial ones, as here.
    """

    local: float = 1.0
    global_: float = 1.0
    p: Any = 1
    alpha: float = 0.99
    through_clean: bool = False

    def __post_init__(self) -> None:
        check_number("ADR: local", self.local)
        check_number("ADR: global_", self.global_)
        if self.local == self.global_ == 0:
            raise ValueError("Compactness: local and global_ are both 0; nothing would be compact.")
        if not isinstance(self.p, (int, float, str)) or self._p not in _NORMS:
            raise ValueError(f"ADR: p is {self.p!r}; expected 1, 2 or inf.")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"ADR: alpha is {self.alpha!r}; expected a number in (0, 1].")

    @property
    def _p(self) -> Any:
        return math.inf if self.p == "inf" else self.p

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms that have a weight."""
        weights = {"local": self.local, "global": self.global_}
        return tuple(name for name, weight in weights.items() if weight)

    @property
    def batch_level(self) -> bool:
        """The global term is."""
        return self.global_ > 0

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted terms of each image."""
        held, moved = upcast_half(clean["features"]), upcast_half(adversarial["features"])
        held = held if self.through_clean else tf.stop_gradient(held)
        terms = {}
        if self.local:
            terms["local"] = self.local * self._distance(moved - held)
        if self.global_:
            others, labels = collectives.gathered(held), collectives.gathered(y)
            apart = distances(_NORMS[self._p], moved, others) / self._scale(moved)
            same = y[:, None] == labels
            weights = tf.where(same, 1.0, tf.constant((self.alpha - 1) / self.alpha, apart.dtype))
            terms["global"] = self.global_ * tf.reduce_mean(weights * apart, axis=1)
        return terms

    def _distance(self, apart: tf.Tensor) -> PerExample:
        """The distance that belongs to a difference `[batch, d]`."""
        if self._p == 2:
            square = tf.reduce_mean(tf.square(apart), axis=1)
            # The root has no gradient at 0.
            some = square > 0
            return tf.where(some, tf.sqrt(tf.where(some, square, 1.0)), 0.0)
        reduce = tf.reduce_mean if self._p == 1 else tf.reduce_max
        return reduce(tf.abs(apart), axis=1)

    def _scale(self, latents: tf.Tensor) -> tf.Tensor:
        size = tf.cast(tf.shape(latents)[1], latents.dtype)
        return {1: size, 2: tf.sqrt(size)}.get(self._p, tf.ones_like(size))


@serializable
class Confidence(RobustLoss):
    """`weight * (H(p(x_adv)) + H(p(x)))`: predictions are certain (the clustering assumption).

    Args:
        weight: of the term.

    Raises:
        ValueError: a negative weight.

    Reference: Bui et al. (2020), Eq. 5.
    """

    term_names = ("confidence",)

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("ADR: confidence", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted entropies of each image."""
        del y
        both = losses.entropy(adversarial["logits"]) + losses.entropy(clean["logits"])
        return {"confidence": self.weight * both}


def adr(
    classifier: keras.Model,
    ball: Ball,
    *,
    base: Callable[..., RobustModel],
    local: float = 1.0,
    global_: float = 1.0,
    smoothness: float = 1.0,
    confidence: float = 0.0,
    p: Any = 1,
    alpha: float = 0.99,
    through_clean: bool = False,
    **options: Any,
) -> RobustModel:
    """Adds compactness, smoothness and confidence to another defense; each may have no weight.

    The latent is the classifier's `"features"`. For those of another layer, such as the last
    convolution, which the paper takes in small networks:
    `keras_robust.models.adapt(classifier, features="pool2")`.

    Args:
        classifier: a built functional model that maps images to `{"logits", "features"}`.
        ball: the threat model.
        base: the defense: `keras_robust.defenses.pgd_at` (the paper's ADR-ADV, with
            `clean_weight=1.0`), `trades` (ADR-TRADES), or another one that trains on adversarial
            images.
        local: weight of the local compactness.
        global_: weight of the global compactness.
        smoothness: weight of `KL(p(x) || p(x_adv))`, the clean prediction held.
        confidence: weight of the entropies of both predictions; 0 for MNIST and ResNets in the
            paper, 1 for its CNN on CIFAR-10.
        p: the distance of latents, 1, 2 or inf.
        alpha: how much of the global term draws together within a class, in (0, 1].
        through_clean: whether the gradient of compactness flows to the clean latents, too. Without
            it, as in the released code, and without smoothness, latents may grow without end.
        **options: of the base, such as `clean_weight`, `beta`, `steps`, `step_size`, `seed`.

    Returns:
        A model to `compile` and `fit`.

    Raises:
        TypeError: a base that is no function.
        ValueError: a number that cannot be; all weights 0; what the base refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> model = adr(classifier, kr.LinfBall(0.3), base=kr.defenses.pgd_at, clean_weight=1.0)
        >>> model.robust_loss.term_names
        ('adversarial', 'clean', 'local', 'global', 'smoothness')

    Reference: Bui et al., "Improving Adversarial Robustness by Enforcing Local and Global
    Compactness" (2020), Eq. 7.
    """
    if not callable(base):
        raise TypeError(
            f"ADR: base is {base!r}; expected a defense, such as `keras_robust.defenses.pgd_at`."
        )
    check_number("ADR: smoothness", smoothness)
    check_number("ADR: confidence", confidence)
    extra: list[Any] = []
    if local or global_:
        extra.append(Compactness(local, global_, p, alpha, through_clean))
    if smoothness:
        extra.append(KLConsistency(smoothness, through_clean=False))
    if confidence:
        extra.append(Confidence(confidence))
    if not extra:
        raise ValueError("ADR: every weight is 0; nothing would be added to the base.")
    model = base(classifier, ball, **options)
    return model.rebuilt(loss=SumOfLosses((model.robust_loss, *extra)))
