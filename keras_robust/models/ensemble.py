"""Ensembles: several classifiers as one model, which also returns the logits of each member."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_robust.core.config import register
from keras_robust.core.functional_graph import is_functional
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Logits
from keras_robust.core.validation import check_choice
from keras_robust.losses import classification as losses
from keras_robust.models.building import is_classifier

COMBINATIONS = ("probabilities", "logits", "vote", "stacking")


@register
class EnsembleLogits(keras.layers.Layer):
    """The logits of an ensemble from those of its members.

    Args:
        combine: one of `COMBINATIONS` but `"stacking"`; see `ensemble`.
        **kwargs: of a layer.

    Example:
        >>> certain = tf.constant([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> tf.exp(EnsembleLogits("probabilities")(certain)).numpy().round(2).tolist()
        [[0.5, 0.5]]
    """

    def __init__(self, combine: str = "probabilities", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.combine = combine

    def call(self, member_logits: Logits) -> Logits:
        """`[batch, members, classes]` to `[batch, classes]`."""
        if self.combine == "logits":
            return tf.reduce_mean(upcast_half(member_logits), axis=1)
        log_mean = losses.log_mean_probability(member_logits)
        return log_mean if self.combine == "probabilities" else _voted(member_logits, log_mean)

    def get_config(self) -> dict[str, Any]:
        """The configuration, with `combine`."""
        return {**super().get_config(), "combine": self.combine}


@register
class StackedLogits(keras.layers.Layer):
    """Stacking: the logits of an ensemble as a linear function of its members' log-probabilities.

    It begins as their mean, and is trained.

    Example:
        >>> certain = tf.constant([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> StackedLogits()(certain).numpy().tolist()
        [[-9.0, -9.0]]
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes a matrix for each member, and a bias."""
        members, classes = input_shape[1:]

        def mean(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
            return tf.broadcast_to(tf.eye(shape[1], dtype=dtype) / shape[0], shape)

        self.kernel = self.add_weight(
            shape=(members, classes, classes), initializer=mean, name="kernel"
        )
        self.bias = self.add_weight(shape=(classes,), initializer="zeros", name="bias")

    def call(self, member_logits: Logits) -> Logits:
        """`[batch, members, classes]` to `[batch, classes]`."""
        log_probabilities = tf.nn.log_softmax(upcast_half(member_logits))
        return tf.einsum("bmc,mck->bk", log_probabilities, self.kernel) + self.bias


def _voted(member_logits: Logits, log_mean: Logits) -> Logits:
    """`log((votes + mean probability) / (members + 1))`."""
    members, classes = member_logits.shape[1:]
    ballots = tf.one_hot(tf.argmax(member_logits, axis=-1), classes, dtype=log_mean.dtype)
    votes = tf.reduce_sum(ballots, axis=1)
    has_votes = votes > 0
    # Without a vote the logarithm is `log_mean` itself; taking exp and log again would lose it, and
    # its gradient, where the probability underflows.
    counted = tf.math.log(tf.where(has_votes, votes, tf.ones_like(votes)) + tf.exp(log_mean))
    return tf.where(has_votes, counted, log_mean) - math.log(members + 1)


def ensemble(members: Sequence[keras.Model], combine: str = "probabilities") -> keras.Model:
    """Combines several classifiers into one.

    Nothing is copied: training the ensemble trains its members. An attack sees the ensemble's
    `"logits"`, by `combine`:

    - `"probabilities"`: `log (1/N) sum_n p_n`, the logarithm of the mean probability, so that their
      softmax is that mean.
    - `"logits"`: the mean of the members' logits.
    - `"vote"`: `log (votes + (1/N) sum_n p_n) / (N + 1)`. The class that most members predict wins;
      ties go to the larger mean probability, which is less than one vote. The votes have no
      gradient, but the mean has one: the cross-entropy's gradient has the same direction as with
      `"probabilities"`, so an attack is not stopped by a zero gradient.
    - `"stacking"`: a linear function of the members' log-probabilities, which begins as their mean
      and is trained, with the members or, after `set_trainable(model, "head")`, alone.

    Args:
        members: at least two different classifiers that keep the contract, of any architecture,
            for the same images and classes.
        combine: `"probabilities"`, `"logits"`, `"vote"` or `"stacking"`.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, sum of d],
        "member_logits": [batch, members, classes]}`; its layers `member_1`, `member_2` and so on
        are the members.

    Raises:
        TypeError: a member does not keep the contract.
        ValueError: fewer than two members, one twice, members for different images or classes, or
            an unknown `combine`.

    Example:
        >>> from keras_robust.models import mlp
        >>> model = ensemble([mlp((2, 2, 1), 3, hidden=(4,)), mlp((2, 2, 1), 3, hidden=(5, 6))])
        >>> {name: tuple(value.shape) for name, value in sorted(model.output.items())}
        {'features': (None, 10), 'logits': (None, 3), 'member_logits': (None, 2, 3)}

    Reference: Pang et al., "Improving Adversarial Robustness via Promoting Ensemble Diversity"
    (2019), section 2: the mean of probabilities; Wolpert, "Stacked Generalization" (1992).
    """
    members = _checked(members)
    check_choice("combine", combine, COMBINATIONS)
    image = keras.Input(members[0].input.shape[1:], dtype="float32", name="images")
    # Renamed: models from files, or of one function, often share a name, and names are unique in a
    # graph.
    outputs = [_renamed(member, f"member_{n}")(image) for n, member in enumerate(members, start=1)]
    features = keras.layers.Concatenate(axis=1, dtype="float32", name="features")(
        [output["features"] for output in outputs]
    )
    member_logits = keras.ops.stack([output["logits"] for output in outputs], axis=1)
    stacked = combine == "stacking"
    combination = StackedLogits if stacked else functools.partial(EnsembleLogits, combine)
    logits = combination(dtype="float32", name="logits")(member_logits)
    return keras.Model(
        image,
        {"logits": logits, "features": features, "member_logits": member_logits},
        name="ensemble",
    )


def _renamed(member: keras.Model, name: str) -> keras.Model:
    """A model of the same layers under another name."""
    outputs = member.output if is_functional(member) else member(member.inputs[0])
    return keras.Model(
        member.inputs[0], {key: outputs[key] for key in ("logits", "features")}, name=name
    )


def _checked(members: Sequence[keras.Model]) -> list[keras.Model]:
    if isinstance(members, keras.Model) or len(list(members)) < 2:
        received = "one model" if isinstance(members, keras.Model) else f"{len(members)} models"
        raise ValueError(f"ensemble received {received}; expected a list of at least two.")
    members = [getattr(member, "classifier", member) for member in members]
    for number, member in enumerate(members, start=1):
        if not is_classifier(member):
            raise TypeError(
                f"Member {number} is {member!r}; expected a built functional model that returns "
                "{'logits', 'features'}. Wrap your own Keras model with "
                "`keras_robust.models.adapt(model)`."
            )
        if any(member is other for other in members[: number - 1]):
            raise ValueError(
                f"Member {number} is the same model as an earlier one; expected models with "
                "different weights."
            )
        first, own = (
            f"images of {m.input.shape[1:]} to {m.output['logits'].shape[1]} classes"
            for m in (members[0], member)
        )
        if first != own:
            raise ValueError(
                f"Member {number} maps {own}, the first one {first}; expected the same."
            )
    return members
