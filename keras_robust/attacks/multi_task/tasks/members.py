"""One image that fools each member of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_robust.attacks.multi_task.tasks.problem import Problem, check_same_shape, repeat
from keras_robust.core.classifier import each_member
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Forward, Images, Labels, Logits


@serializable
class Members:
    """One task for each member of an ensemble: that its prediction is not the label.

    Example:
        >>> Members().success_criterion
        'label'

    Reference: ENS of Bui et al., "Generating Adversarial Examples with Task Oriented
    Multi-Objective Optimization" (2023), section 3.2.
    """

    success_criterion = "label"
    stochastic = False

    def on(self, forward: Forward, ball: Ball, x: Images, y: Labels) -> Problem:
        """One task for each member; an ensemble of one is attacked like a single model."""
        members = each_member("An attack on members", forward, x)

        def logits(copies: Sequence[Images]) -> Logits:
            each = [member(x)["logits"] for member, x in zip(members, copies, strict=True)]
            return tf.stack(check_same_shape(each, "Members", "logits"))

        return Problem(
            ball=ball,
            center=x,
            logits=lambda copies, _: logits(tf.unstack(copies, num=len(members))),
            clean=lambda: logits([x] * len(members)),
            labels=repeat(y, len(members)),
            images=lambda points: points,
            num_tasks=len(members),
        )
