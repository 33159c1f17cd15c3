"""Scores: a classifier's outputs -> one number per image, larger where the input looks attacked."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_robust import losses
from keras_robust.types import Logits, Outputs, PerExample


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
    members = tf.nn.log_softmax(tf.cast(outputs["member_logits"], tf.float32))
    return tf.reduce_logsumexp(members, axis=1) - math.log(members.shape[1])


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
