"""The base class of attacks: images in, perturbed images out.

A new attack implements `craft` and `at_radius`; the checks of a batch, seeds, compilation and the
rounds of attacks that repeat others are here. docs/adding_an_attack.md shows one.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import as_seed, check_batch, craft_seed
from keras_robust.attacks.crafting.traced import traced
from keras_robust.core import random
from keras_robust.core.classifier import as_forward, classifier_of, contract_of
from keras_robust.core.config import replace
from keras_robust.core.labels import of_other_classes
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Logits,
    Radius,
    Scalar,
    Seed,
    StepRule,
)
from keras_robust.threat_models.masks import mask_of


class Round(NamedTuple):
    """One of the runs of an attack; between them an evaluation drops images that are fooled.

    Attributes:
        attack: the attack to run.
        fold: folded into the seed; rounds that repeat one attack differ in it.
        offset: of a targeted attack: the target is the label plus this, modulo the classes.
        rank: of a targeted attack: the target is the class with the `rank`-th largest logit of the
            clean image, the label excluded; from 1.
    """

    attack: Attack
    fold: int | tf.Tensor = 0
    offset: int | tf.Tensor | None = None
    rank: int | tf.Tensor | None = None

    def seed(self, seed: Seed) -> tf.Tensor:
        """The seed of the round, an int tensor of shape `[2]`."""
        return random.fold_in(as_seed(seed), self.fold)

    def targets(self, y: Labels, logits: Logits) -> Labels | None:
        """The targets of the round, `[batch]`, or None for an untargeted attack.

        Args:
            y: true labels `[batch]`.
            logits: logits of the clean images, `[batch, classes]`.
        """
        if self.offset is not None:
            return (y + tf.cast(self.offset, y.dtype)) % logits.shape[-1]
        if self.rank is None:
            return None
        others = of_other_classes(logits, y)
        order = tf.argsort(others, axis=1, direction="DESCENDING", stable=True)
        return tf.cast(tf.gather(order, self.rank - 1, axis=1), y.dtype)


class Attack(abc.ABC):
    """An attack: a frozen set of settings, called on a model and a batch.

    Pure: it holds no variables, the seed is passed, and no gradient flows through its result. The
    model runs in inference mode and stays unchanged.

    Subclasses implement `craft` and `at_radius`, and override the members below that differ.

    Attributes:
        ball: the threat model.
        name: what reports call the attack.
        per_member: whether a call returns a tuple of batches, one for each member of an ensemble.
        source: the model that the attack is crafted on, if it is not the model attacked.
        step_rule: how a gradient moves the point; None if no step rule does.
        success_criterion: of a multi-task attack, when a task counts as achieved: `"label"`,
            `"prediction"`, `"target"`, or None for the tasks' own criterion.
    """

    ball: Ball
    name: str
    per_member: bool = False
    source: keras.Model | Forward | None = None
    step_rule: StepRule | None = None
    success_criterion: str | None = None

    @property
    def inner(self) -> Attack:
        """The attack that this one repeats or wraps, at the innermost level; else itself."""
        return self

    @property
    def gradient_steps(self) -> int | None:
        """Steps of one run along a gradient or its estimate; None if it follows none."""
        return None

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the seed."""
        return True

    @property
    def takes_targets(self) -> bool:
        """Whether a call needs `targets`; an attack that does not refuses them."""
        return False

    @property
    def task_kind(self) -> Any:
        """The tasks of a multi-task attack, of `keras_robust.tasks`; None of other attacks."""
        return None

    @property
    def can_trace(self) -> bool:
        """Whether `trace(model, x, y, seed=0)` records each step of the attack."""
        return False

    @abc.abstractmethod
    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Perturbs a checked batch, with a seed of shape `[2]`."""

    @abc.abstractmethod
    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> Attack:
        """The same attack in a ball of another radius."""

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The runs of the attack: itself, unless it repeats or combines others."""
        del classes
        return (Round(self),)

    def __call__(
        self,
        model: keras.Model | Forward,
        x: Images,
        y: Labels,
        *,
        seed: Seed = 0,
        targets: Labels | None = None,
    ) -> Images:
        """Perturbs a batch.

        Args:
            model: a Keras model, or a function, `images -> {"logits": [batch, classes], ...}`.
            x: clean images `[batch, ...]`, float, inside the ball's bounds.
            y: true labels `[batch]`, integer.
            seed: an int, or an int tensor of shape `[2]`; the same seed gives the same result.
            targets: of a targeted attack, the class to reach, `[batch]`, integer.

        Returns:
            Perturbed images of the shape and dtype of `x`, inside the ball and its bounds.

        Raises:
            TypeError, ValueError: an invalid batch, seed or target, or a mask of the ball that does
                not fit the images.
        """
        x, y, targets = self._checked(model, x, y, targets)
        crafted = self.craft(as_forward(model), x, y, craft_seed(seed), targets)
        return tf.nest.map_structure(tf.stop_gradient, crafted)

    def _checked(
        self, model: keras.Model | Forward, x: Images, y: Labels, targets: Labels | None
    ) -> tuple[Images, Labels, Labels | None]:
        ball = self.ball
        return check_batch(x, y, targets, ball.bounds, _classes(model), mask_of(ball))

    def compiled(
        self, model: keras.Model | Forward, jit_compile: bool = False
    ) -> Callable[..., Images]:
        """The attack on one model as a graph, traced once for each shape and dtype of images.

        The size of the batch, the seed, the radius and the targets need no other trace. The graphs
        are kept with a Keras model: the same attack, compiled again, is not traced again.

        Args:
            model: as for a call.
            jit_compile: compile the graph by XLA, anew for each size of batch; a batch is checked
                before.

        Returns:
            A function `(x, y, seed=0, radius=None, targets=None) -> x_adv`.

        Example:
            >>> import tensorflow as tf
            >>> from keras_robust import LinfBall, attacks
            >>> attack = attacks.fgsm(LinfBall(0.25)).compiled(lambda x: {"logits": x})
            >>> x, y = tf.constant([[0.5, 0.5]]), tf.constant([0])
            >>> attack(x, y).numpy().tolist()
            [[0.25, 0.75]]
            >>> attack(x, y, radius=0.5).numpy().tolist()
            [[0.0, 1.0]]
        """
        graphs = traced(self, model, jit_compile)

        def attack(
            x: Images,
            y: Labels,
            seed: Seed = 0,
            radius: Radius | None = None,
            targets: Labels | None = None,
        ) -> Images:
            # Values are known here, before they become symbols of a graph.
            x, y, targets = self._checked(model, x, y, targets)
            if radius is not None:
                self.at_radius(radius)  # raises unless it is one
            return graphs(x, y, craft_seed(seed), radius, targets)

        attack.traces = lambda: graphs.traces  # type: ignore[attr-defined]
        return attack


class DelegatingAttack(Attack):
    """An attack that runs another one, in a ball of its own.

    Attributes:
        attack: the attack to run.
    """

    attack: Attack

    @property
    def inner(self) -> Attack:
        """The innermost attack."""
        return self.attack.inner

    @property
    def gradient_steps(self) -> int | None:
        """The steps of the attack."""
        return self.attack.gradient_steps

    @property
    def is_random(self) -> bool:
        """Whether the result of the attack depends on the seed."""
        return self.attack.is_random

    @property
    def takes_targets(self) -> bool:
        """Whether the attack needs targets."""
        return self.attack.takes_targets


class AttackWrapper(DelegatingAttack):
    """An attack that runs another one, in the other one's ball."""

    @property
    def ball(self) -> Ball:  # type: ignore[override]
        """The attack's threat model."""
        return self.attack.ball

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> AttackWrapper:
        """The same attack in a ball of another radius."""
        return replace(self, attack=self.attack.at_radius(radius, step_size))  # type: ignore[type-var]


def check_attack(name: str, attack: object) -> None:
    """Raises TypeError unless `attack` is an `Attack`."""
    if not isinstance(attack, Attack):
        raise TypeError(
            f"{name} is {attack!r}; expected an attack, such as `keras_robust.attacks.pgd(ball)`."
        )


def _classes(model: keras.Model | Forward) -> int | None:
    """The number of classes of a Keras model that returns a dictionary with logits, else None."""
    outputs = contract_of(classifier_of(model))
    return outputs["logits"].shape[-1] if outputs and "logits" in outputs else None
