"""One image that fools each member of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_robust.attacks.multi_task.tasks.problem import Problem, of_one_shape, repeated
from keras_robust.core.classifier import each_member
from keras_robust.core.config import serializable
from keras_robust.core.types import Ball, Forward, Images, Labels, Logits


@serializable
class Members:
    """Fools each member of an ensemble, with one image; a task's goal is achieved on its label.

    Example:
        >>> Members().goal
        'label'

    Reference: ENS of Bui et al., "Generating Adversarial Examples with Task Oriented
    Multi-Objective Optimization" (2023), section 3.2.
    """

    goal = "label"
    stochastic = False

    def on(self, forward: Forward, ball: Ball, x: Images, y: Labels) -> Problem:
        """One task for each member; an ensemble of one is attacked as a single model."""
        members = each_member("An attack on members", forward, x)

        def logits(copies: Sequence[Images]) -> Logits:
            found = [member(x)["logits"] for member, x in zip(members, copies, strict=True)]
            return tf.stack(of_one_shape(found, "Members", "logits"))

        return Problem(
            ball,
            x,
            lambda copies, _: logits(tf.unstack(copies, num=len(members))),
            lambda: logits([x] * len(members)),
            repeated(y, len(members)),
            lambda points: points,
            len(members),
        )
