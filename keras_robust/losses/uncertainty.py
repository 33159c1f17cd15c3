"""Detection scores: uncertainty of a classifier's outputs, larger for suspicious images.

Used by detectors (`keras_robust.detection`) and by the adaptive objective that attacks them
(`keras_robust.objectives.AdaptiveObjective`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.core.types import Logits, Outputs, PerExample
from keras_robust.core.validation import lookup
from keras_robust.losses import classification as losses

__all__ = [
    "SCORES",
    "Score",
    "disagreement",
    "entropy",
    "get",
    "least_confidence",
    "mean_log_probability",
    "member_entropy",
]


def __dir__() -> list[str]:
    return __all__


def mean_log_probability(outputs: Outputs) -> Logits:
    """Logarithm of the predicted distribution; for an ensemble, of the members' mean.

    `log_softmax(logits)`, or `log (1/M) sum_m softmax(logits_m)` by log-sum-exp.

    Args:
        outputs: `"logits"` `[batch, classes]`, or for ensembles `"member_logits"`
            `[batch, members, classes]`.

    Returns:
        `[batch, classes]` float32.

    Example:
        >>> outputs = {"member_logits": tf.constant([[[9.0, -9.0], [-9.0, 9.0]]])}
        >>> tf.exp(mean_log_probability(outputs)).numpy().round(3).tolist()
        [[0.5, 0.5]]
    """
    if "member_logits" not in outputs:
        return tf.nn.log_softmax(tf.cast(outputs["logits"], tf.float32))
    return losses.log_mean_probability(tf.cast(outputs["member_logits"], tf.float32))


def entropy(outputs: Outputs) -> PerExample:
    """Entropy in nats of the predicted distribution; for an ensemble, of the members' mean.

    Args:
        outputs: `"logits"` `[batch, classes]`, or for ensembles `"member_logits"`
            `[batch, members, classes]`.

    Returns:
        `[batch]` float32, from 0 (certain) to `log(classes)` (uniform).

    Example:
        >>> entropy({"logits": tf.constant([[0.0, 0.0], [50.0, -50.0]])}).numpy().round(4).tolist()
        [0.6930999755859375, 0.0]

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021): detection by the entropy of the ensemble's output.
    """
    # Rounding may give -0.0 for a certain prediction.
    return tf.abs(losses.entropy(mean_log_probability(outputs)))


def least_confidence(outputs: Outputs) -> PerExample:
    """One minus the largest probability; for an ensemble, of the members' mean.

    From 0 (certain) to `1 - 1 / classes` (uniform); arguments as for `entropy`.

    Example:
        >>> least_confidence({"logits": tf.constant([[0.0, 0.0], [50.0, -50.0]])}).numpy().tolist()
        [0.5, 0.0]

    Reference: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples in Neural Networks" (2017): the maximum softmax probability.
    """
    # expm1 of the logarithm is exact near 0; abs avoids -0.0.
    return tf.abs(tf.math.expm1(tf.reduce_max(mean_log_probability(outputs), axis=-1)))


def member_entropy(outputs: Outputs) -> PerExample:
    """Mean of the members' entropies in nats; the entropy of a single classifier.

    At most `entropy(outputs)`; arguments as for `entropy`.

    Example:
        >>> certain = {"member_logits": tf.constant([[[50.0, -50.0], [-50.0, 50.0]]])}
        >>> member_entropy(certain).numpy().tolist()
        [0.0]
    """
    if "member_logits" not in outputs:
        return entropy(outputs)
    members = losses.entropy(tf.cast(outputs["member_logits"], tf.float32))
    return tf.abs(tf.reduce_mean(members, axis=-1))


def disagreement(outputs: Outputs) -> PerExample:
    """Mutual information of prediction and member, in nats: entropy of the mean - mean entropy.

    0 if all members predict the same distribution, at most the logarithm of their number.

    Args:
        outputs: `"member_logits"` `[batch, members, classes]`.

    Returns:
        `[batch]` float32, at least 0.

    Raises:
        ValueError: outputs of a single classifier.

    Example:
        >>> certain = {"member_logits": tf.constant([[[50.0, -50.0], [-50.0, 50.0]]])}
        >>> disagreement(certain).numpy().round(4).tolist()
        [0.6930999755859375]

    Reference: Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning"
    (BALD, 2011), Eq. 2.
    """
    if "member_logits" not in outputs:
        raise ValueError(
            f"disagreement received outputs {sorted(outputs)}; expected those of an ensemble, with "
            "'member_logits'. Use entropy for a single classifier."
        )
    # As a mean KL divergence: the difference of nearly equal entropies would lose digits.
    members = tf.nn.log_softmax(tf.cast(outputs["member_logits"], tf.float32))
    gap = members - mean_log_probability(outputs)[:, None]
    divergence = tf.reduce_sum(tf.exp(members) * gap, axis=-1)
    return tf.nn.relu(tf.reduce_mean(divergence, axis=-1))


class Score(NamedTuple):
    """A function of outputs, and its title with the unit."""

    of: Callable[[Outputs], PerExample]
    title: str


SCORES = {
    "entropy": Score(entropy, "entropy (nats)"),
    "least_confidence": Score(least_confidence, "1 - largest probability"),
    "member_entropy": Score(member_entropy, "mean entropy of the members (nats)"),
    "disagreement": Score(disagreement, "disagreement of the members (nats)"),
}


def get(name: str) -> Score:
    """The score of a name.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> get("entropy").title
        'entropy (nats)'
    """
    return SCORES[lookup("score", name, SCORES)]
