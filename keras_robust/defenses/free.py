"""Free adversarial training: one backward pass updates the weights and the images."""

from __future__ import annotations

import threading
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Unpack

from keras_robust.attacks.crafting.step_rules import Point
from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import register
from keras_robust.core.types import Ball, Images, Labels, Seed
from keras_robust.core.validation import check_ball, check_integer
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.threat_models.masks import without_masked
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.label_mixing import OtherLabels
from keras_robust.training.robust_model import RobustModel


class _Replay(threading.local):
    """The perturbed images of the parts of a batch: of this replay, and of the next one.

    Each replica has its own, as a strategy traces the step of each in a thread of its own.
    """

    def __init__(self) -> None:
        self.is_running = False
        self.points: list[Images] = []
        self.moved: list[Images] = []


@register
class FreeModel(RobustModel):
    """A robust model that trains several times on each batch, and moves its images in between.

    Args:
        *args, **kwargs: arguments of `RobustModel`; the attack has one step.
        replays: number of updates on each batch.
    """

    def __init__(self, *args: Any, replays: int = 4, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_integer("free: replays", replays, 1)
        self.replays = int(replays)
        self._replay = _Replay()
        self._training_loss.observe = self._move

    def craft(self, x: Images, y: Labels, seed: Seed | None = None) -> Images:
        """The images of this replay; outside of training, those of the attack."""
        if not self._replay.is_running:
            return super().craft(x, y, seed)
        if self._replay.points:
            return self._replay.points.pop(0)
        attack: Any = self.training_attack(x.dtype)
        return attack.initialization(attack.ball, x, seed)

    def _move(self, x: Images, x_adv: Images, gradient: tf.Tensor) -> None:
        """One step of the attack, along a gradient that the update of the weights needed."""
        attack: Any = self.training_attack(x.dtype)
        value = tf.zeros(tf.shape(x)[:1])  # which steps of a fixed size do not use
        point = Point(tf.constant(0), x_adv, value, without_masked(attack.ball, gradient))
        moved, _ = attack.step_rule.update(attack.ball, x, point, ())
        self._replay.moved.append(tf.stop_gradient(moved))

    def _train_on(
        self, x: Images, y: Labels, weight: tf.Tensor | None, others: OtherLabels | None = None
    ) -> dict[str, tf.Tensor]:
        """The steps of training on a batch, one for each replay."""
        logs: dict[str, tf.Tensor] = {}
        self._replay.is_running = True
        try:
            for _ in range(self.replays):
                self._replay.moved = []
                logs = super()._train_on(x, y, weight, others)
                self._replay.points = self._replay.moved
        finally:
            self._replay.is_running, self._replay.points = False, []
        return logs

    def parts(self) -> dict[str, Any]:
        """The arguments of the constructor that rebuild the model."""
        return {**super().parts(), "replays": self.replays}


@defense
def free(
    classifier: keras.Model,
    ball: Ball,
    *,
    replays: int = 4,
    clean_weight: float = 0.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Free adversarial training: minimizes `CE(x_adv)`, several times on each batch.

    Each of the replays of a batch updates the weights, and moves the images one step along the
    gradient that the same backward pass gives. An epoch costs that many epochs of standard
    training, so train for fewer of them. Schedules and `radius_warmup` count replays as steps.

    Args:
        replays: number of updates on each batch; 8 for CIFAR-10 and 4 for ImageNet in the paper.
        clean_weight: weight of the clean cross-entropy.
        steps: number of steps of the validation attack.
        step_size: length of the step between replays; default the radius.

    Raises:
        ValueError: a number out of range, or what `keras_robust.attacks.pgd` refuses.

    Example:
        >>> import keras_robust as kr
        >>> classifier = kr.models.mlp((2, 2, 1), classes=3)
        >>> model = free(classifier, kr.LinfBall(8 / 255), replays=8)
        >>> model.replays, model.attack.steps
        (8, 1)

    Reference: Shafahi et al., "Adversarial Training for Free!" (2019), Algorithm 1.

    Differs: the perturbation of a batch starts at random in the ball, in the paper at that of the
    batch before.
    """
    radius = check_ball(ball)
    return FreeModel(
        classifier,
        pgd(ball, 1, radius if step_size is None else step_size),
        Adversarial(clean_weight),
        replays=replays,
        **validated_by(options, pgd(ball, steps)),
    )
