"""Scores: a classifier's outputs -> one number per image, larger where the input looks attacked.

`SCORES` has them by name, for detectors (`keras_robust.detection`) and for the attacker who knows
of one (`keras_robust.objectives.AdaptiveObjective`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.core.types import Logits, Outputs, PerExample
from keras_robust.losses import classification as losses


def mean_log_probability(outputs: Outputs) -> Logits:
    """The logarithm of the predicted distribution; of an ensemble, of the members' mean.

    `log p = log_softmax(logits)`, or with `"member_logits"` `log (1/M) sum_m softmax(logits_m)`,
    both in float32 and never through the logarithm of an underflowed probability.

    Args:
        outputs: `"logits"` `[batch, classes]`; ensembles add `"member_logits"`
            `[batch, members, classes]`, which is then read instead.

    Returns:
        `[batch, classes]` float32.

    Example:
        >>> import tensorflow as tf
        >>> outputs = {"member_logits": tf.constant([[[9.0, -9.0], [-9.0, 9.0]]])}
        >>> tf.exp(mean_log_probability(outputs)).numpy().round(3).tolist()
        [[0.5, 0.5]]
    """
    if "member_logits" not in outputs:
        return tf.nn.log_softmax(tf.cast(outputs["logits"], tf.float32))
    return losses.log_mean_probability(tf.cast(outputs["member_logits"], tf.float32))


def entropy(outputs: Outputs) -> PerExample:
    """Entropy, in nats, of the predicted distribution; of an ensemble, of the members' mean.

    `H = -sum_c p_c log p_c`: 0 for a certain prediction, `log classes` for an even one.

    Args:
        outputs: `"logits"` `[batch, classes]`; ensembles add `"member_logits"`
            `[batch, members, classes]`, which is then read instead.

    Returns:
        `[batch]` float32.

    Example:
        >>> import tensorflow as tf
        >>> entropy({"logits": tf.constant([[0.0, 0.0], [50.0, -50.0]])}).numpy().round(4).tolist()
        [0.6930999755859375, 0.0]

    Reference:
        Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
        Adversarial Robustness", AAAI 2021: detection by the entropy of the ensemble's output.
    """
    # Rounding can leave a certain prediction at minus nothing.
    return tf.abs(losses.entropy(mean_log_probability(outputs)))


def least_confidence(outputs: Outputs) -> PerExample:
    """One minus the largest probability; of an ensemble, of the members' mean.

    Args:
        outputs: as for `entropy`.

    Returns:
        `[batch]` float32: 0 for a certain prediction, `1 - 1 / classes` for an even one.

    Example:
        >>> import tensorflow as tf
        >>> least_confidence({"logits": tf.constant([[0.0, 0.0], [50.0, -50.0]])}).numpy().tolist()
        [0.5, 0.0]

    Reference:
        Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
        Examples in Neural Networks" (2017): the maximum softmax probability.
    """
    # By the logarithm, which keeps its digits; and never minus nothing.
    return tf.abs(tf.math.expm1(tf.reduce_max(mean_log_probability(outputs), axis=-1)))


def member_entropy(outputs: Outputs) -> PerExample:
    """The mean of the entropies of the members' own predictions, in nats.

    Args:
        outputs: `"member_logits"` `[batch, members, classes]`; without them `entropy`.

    Returns:
        `[batch]` float32: at most that of the members' mean.

    Example:
        >>> import tensorflow as tf
        >>> certain = {"member_logits": tf.constant([[[50.0, -50.0], [-50.0, 50.0]]])}
        >>> member_entropy(certain).numpy().tolist()
        [0.0]
    """
    if "member_logits" not in outputs:
        return entropy(outputs)
    members = losses.entropy(tf.cast(outputs["member_logits"], tf.float32))
    return tf.abs(tf.reduce_mean(members, axis=-1))


def disagreement(outputs: Outputs) -> PerExample:
    """What the members do not agree on, in nats: the entropy of their mean, less their mean one.

    That is the mutual information between the prediction and the member: 0 where all members
    predict alike, at most the logarithm of their number. Uncertainty that all share does not count.

    Args:
        outputs: `"member_logits"` `[batch, members, classes]`.

    Returns:
        `[batch]` float32, at least 0.

    Raises:
        ValueError: outputs of a single classifier, which has no one to disagree with.

    Example:
        >>> import tensorflow as tf
        >>> certain = {"member_logits": tf.constant([[[50.0, -50.0], [-50.0, 50.0]]])}
        >>> disagreement(certain).numpy().round(4).tolist()
        [0.6930999755859375]

    Reference:
        Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning"
        (BALD, 2011), Eq. 2.
    """
    if "member_logits" not in outputs:
        raise ValueError(
            f"The disagreement of members was asked of outputs {sorted(outputs)}; expected those "
            "of an ensemble, with 'member_logits'. A single classifier has its entropy."
        )
    # A difference of nearly equal numbers: as a mean divergence it keeps its digits.
    members = tf.nn.log_softmax(tf.cast(outputs["member_logits"], tf.float32))
    gap = members - mean_log_probability(outputs)[:, None]
    divergence = tf.reduce_sum(tf.exp(members) * gap, axis=-1)
    return tf.nn.relu(tf.reduce_mean(divergence, axis=-1))


class Score(NamedTuple):
    """A score: its function of outputs, and what it is called, with its unit."""

    of: Callable[[Outputs], PerExample]
    title: str


SCORES = {
    "entropy": Score(entropy, "entropy (nats)"),
    "least_confidence": Score(least_confidence, "1 - largest probability"),
    "member_entropy": Score(member_entropy, "mean entropy of the members (nats)"),
    "disagreement": Score(disagreement, "disagreement of the members (nats)"),
}


def get(name: str) -> Score:
    """The score of that name.

    Raises:
        ValueError: there is none; the message names those that there are.

    Example:
        >>> get("entropy").title
        'entropy (nats)'
    """
    if name not in SCORES:
        raise ValueError(f"There is no score {name!r}; expected one of {', '.join(SCORES)}.")
    return SCORES[name]
