"""Robust losses: functions of the outputs for clean and adversarial images.

A robust loss is a subclass of `keras_robust.types.RobustLoss`. It returns weighted terms, one value
per example, whose sum is minimized; models never appear here.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar
from keras_robust.core.types import Labels, Outputs, PerExample, RobustLoss, Scalar
from keras_robust.core.validation import check_number
from keras_robust.losses import classification as losses


def check_loss(loss: Any) -> None:
    """Raises TypeError unless `loss` is an instance of a robust loss."""
    if isinstance(loss, type) or not isinstance(loss, RobustLoss):
        raise TypeError(
            f"The loss is {loss!r}; expected a robust loss, such as "
            "`keras_robust.losses.Adversarial()` or an instance of a subclass of "
            "`keras_robust.types.RobustLoss`."
        )


@serializable
class Clean(RobustLoss):
    """Cross-entropy on clean images: standard training.

    Example:
        >>> Clean().term_names
        ('clean',)
    """

    term_names = ("clean",)
    required_outputs = frozenset({"clean"})

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The cross-entropy of the clean images, `[batch]`."""
        del adversarial
        return {"clean": losses.cross_entropy(clean["logits"], y)}


@serializable
class Adversarial(RobustLoss):
    """`adversarial_weight * CE(x_adv) + clean_weight * CE(x)`.

    Args:
        clean_weight: 0 as in Madry et al., 1 as in the thesis.
        adversarial_weight: weight of the adversarial images.

    Raises:
        ValueError: a negative weight, or both zero.

    Example:
        >>> Adversarial(clean_weight=1.0).term_names
        ('adversarial', 'clean')
    """

    clean_weight: float = 0.0
    adversarial_weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("Adversarial: clean_weight", self.clean_weight)
        check_number("Adversarial: adversarial_weight", self.adversarial_weight)
        if self.clean_weight == self.adversarial_weight == 0:
            raise ValueError("Adversarial: both weights are 0; expected one above 0.")

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the loss."""
        return ("adversarial", "clean") if self.clean_weight else ("adversarial",)

    @property
    def required_outputs(self) -> frozenset[str]:
        """Clean outputs only if they have a weight."""
        return frozenset(self.term_names)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted cross-entropies, each `[batch]`."""
        hard = losses.cross_entropy(adversarial["logits"], y)
        terms = {"adversarial": self.adversarial_weight * hard}
        if self.clean_weight:
            terms["clean"] = self.clean_weight * losses.cross_entropy(clean["logits"], y)
        return terms


@serializable
class WorstCase(RobustLoss):
    """`clean_weight * CE(x) + (1 - clean_weight) * CE(worst case)`, by certified bounds.

    The worst case is the logits `-m_j`, where `m_j` is a lower bound of `z_y - z_j` over the ball.
    Their cross-entropy bounds that of every image of the ball from above; label smoothing applies
    to the clean images only. Logs `verified_accuracy`: the fraction of images whose lower bounds
    are all above 0.

    Args:
        clean_weight: kappa in the papers, from 0 to 1; a number, or a scalar tensor.

    Raises:
        ValueError: a weight outside [0, 1].

    Example:
        >>> y, worst = tf.constant([0, 1]), tf.constant([[0.0, -2.0], [0.5, 0.0]])
        >>> values = WorstCase(0.5)(y, {"logits": worst}, {"logits": worst})
        >>> values["verified_accuracy"].numpy().tolist()
        [1.0, 0.0]

    Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models" (2018), Eq. 12.
    """

    term_names = ("clean", "worst_case")
    required_outputs = frozenset({"clean", "bounds"})
    logged_statistics = ("verified_accuracy",)

    clean_weight: Scalar = 0.5

    def __post_init__(self) -> None:
        if not tf.is_tensor(self.clean_weight):
            check_number("WorstCase: clean_weight", self.clean_weight, most=1)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted cross-entropies and whether an image is verified, each `[batch]`."""
        on_clean = losses.cross_entropy(clean["logits"], y)
        # A soft label also counts margins from above, of which the bounds say nothing.
        worst = losses.negative_log_likelihood(adversarial["logits"], y)
        weight = scalar(self.clean_weight, worst.dtype)
        is_verified = losses.margin(adversarial["logits"], y) < 0
        return {
            "clean": scalar(self.clean_weight, on_clean.dtype) * on_clean,
            "worst_case": (1 - weight) * worst,
            "verified_accuracy": tf.cast(is_verified, worst.dtype),
        }


@serializable
class KLConsistency(RobustLoss):
    """`weight * KL(p(x) || p(x_adv))`: consistency of clean and adversarial predictions.

    Args:
        weight: weight of the term.
        through_clean: whether the gradient flows through the clean prediction.

    Raises:
        ValueError: a negative weight.

    Example:
        >>> KLConsistency(2.0).term_names
        ('smoothness',)

    Reference: Miyato et al., "Virtual Adversarial Training" (2018), Eq. 5.
    """

    term_names = ("smoothness",)

    weight: float = 1.0
    through_clean: bool = True

    def __post_init__(self) -> None:
        check_number("KLConsistency: weight", self.weight)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The weighted divergence, `[batch]`."""
        del y
        logits = clean["logits"]
        logits = logits if self.through_clean else tf.stop_gradient(logits)
        divergence = losses.kl_divergence(logits, adversarial["logits"])
        return {"smoothness": self.weight * divergence}


@serializable
class SumOfLosses(RobustLoss):
    """The terms of several robust losses together.

    Args:
        parts: robust losses whose terms have different names.

    Raises:
        ValueError: no parts, or two terms of one name.

    Example:
        >>> SumOfLosses((Adversarial(), Clean())).term_names
        ('adversarial', 'clean')
    """

    parts: tuple[RobustLoss, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("SumOfLosses: parts is empty; expected at least one robust loss.")
        every = self.term_names + self.logged_statistics
        repeated = sorted({name for name in every if every.count(name) > 1})
        if repeated:
            raise ValueError(
                f"SumOfLosses: several parts have a term {', '.join(map(repr, repeated))}; "
                "expected different names."
            )

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of all parts."""
        return tuple(name for part in self.parts for name in part.term_names)

    @property
    def required_outputs(self) -> frozenset[str]:
        """The outputs that any part requires."""
        return frozenset().union(*(part.required_outputs for part in self.parts))

    @property
    def logged_statistics(self) -> tuple[str, ...]:
        """The statistics of all parts."""
        return tuple(name for part in self.parts for name in part.logged_statistics)

    @property
    def batch_level(self) -> bool:
        """Whether any part is batch-level."""
        return any(part.batch_level for part in self.parts)

    def __call__(self, y: Labels, adversarial: Outputs, clean: Outputs) -> dict[str, PerExample]:
        """The terms of all parts, and their statistics."""
        return {
            name: term for part in self.parts for name, term in part(y, adversarial, clean).items()
        }


def total(terms: dict[str, PerExample]) -> PerExample:
    """The sum of the terms, one value per example."""
    return tf.add_n(list(terms.values()))
