"""What every attack is: images in, perturbed images out.

A new attack implements `craft` and `at_radius`; checking what it was given, seeds, compiling and
the rounds of an attack that repeats itself are here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.inputs import as_seed, check_batch
from keras_robust.core.classifier import as_forward, contract_of
from keras_robust.core.config import replace
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, Logits, Seed, StepRule


class Round(NamedTuple):
    """One of the runs that an attack is made of, so that an evaluation can skip fooled images.

    Attributes:
        attack: the attack to run.
        fold: folded into the seed; rounds that repeat one attack differ in it.
        offset: for targeted attacks, the target is the label plus this, modulo the classes.
        rank: for targeted attacks, the target is the likeliest class but the label (1), the second
            likeliest (2), and so on, by the clean image.
    """

    attack: Attack
    fold: int = 0
    offset: int | None = None
    rank: int | None = None

    def seed(self, seed: Seed) -> tf.Tensor:
        """The round's own seed, an int tensor of shape `[2]`."""
        return tf.random.experimental.stateless_fold_in(as_seed(seed), self.fold)

    def targets(self, y: Labels, logits: Logits) -> Labels | None:
        """The round's own targets, `[batch]`, or None for an untargeted attack.

        Args:
            y: true labels `[batch]`.
            logits: of the clean images, `[batch, classes]`.
        """
        if self.rank is not None:
            label = tf.one_hot(y, logits.shape[-1], True, False, dtype=tf.bool)
            others = tf.where(label, logits.dtype.min, logits)
            return tf.cast(tf.math.top_k(others, self.rank).indices[:, -1], y.dtype)
        return None if self.offset is None else (y + self.offset) % logits.shape[-1]


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
    """

    ball: Ball
    name: str
    per_member: bool = False
    source: Any = None

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
    def step_rule(self) -> StepRule | None:
        """How a gradient moves the point; None if no step rule does."""
        return None

    @property
    def task_kind(self) -> Any:
        """The tasks of a multi-task attack, of `keras_robust.tasks`; None of other attacks."""
        return None

    @property
    def success_criterion(self) -> str | None:
        """When a task counts as achieved: `"label"`, `"prediction"`, or None for the tasks' own."""
        return None

    @property
    def can_trace(self) -> bool:
        """Whether `trace(model, x, y, seed=0)` records each step of the attack."""
        return False

    @abc.abstractmethod
    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Perturbs a batch that has been checked, with a seed of shape `[2]`."""

    @abc.abstractmethod
    def at_radius(self, radius: Any, step_size: Any = None) -> Attack:
        """The same attack in a ball of another radius."""

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The runs that the attack is made of: itself, unless it repeats others."""
        del classes
        return (Round(self),)

    def __call__(
        self,
        model: Any,
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
            seed: an int, or an int tensor of shape `[2]`; the same seed gives the same batch.
            targets: for targeted attacks, the class to reach, `[batch]`, integer.

        Returns:
            Perturbed images of the shape and dtype of `x`, inside the ball and its bounds.

        Raises:
            TypeError, ValueError: what was received, and what was expected.
        """
        x, y, targets = check_batch(x, y, targets, self.ball.bounds, _classes(model))
        crafted = self.craft(as_forward(model), x, y, as_seed(seed), targets)
        return tf.nest.map_structure(tf.stop_gradient, crafted)

    def compiled(self, model: Any) -> Callable[..., Images]:
        """The attack on one model as a `tf.function`.

        Args:
            model: as for a call.

        Returns:
            A function `(x, y, seed=0, radius=None, targets=None) -> x_adv`. It is traced once for
            all seeds and radii, and at most twice for batch sizes.

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

        @tf.function(reduce_retracing=True, autograph=False)
        def run(
            x: Images, y: Labels, seed: tf.Tensor, radius: tf.Tensor | None, targets: Labels | None
        ) -> Images:
            attack = self if radius is None else self.at_radius(radius)
            return attack(model, x, y, seed=seed, targets=targets)

        def attack(
            x: Images,
            y: Labels,
            seed: Seed = 0,
            radius: Any = None,
            targets: Labels | None = None,
        ) -> Images:
            # Values can be looked at here, before they are symbols in a graph.
            x, y, targets = check_batch(x, y, targets, self.ball.bounds, _classes(model))
            if radius is not None:
                self.at_radius(radius)  # refuses what is not a radius
                radius = scalar(radius, upcast_half(x).dtype)
            return run(x, y, as_seed(seed), radius, targets)

        attack.traces = run.experimental_get_tracing_count  # type: ignore[attr-defined]
        return attack


class AttackWrapper(Attack):
    """An attack that runs another one, of which it takes the ball and the radius.

    Attributes:
        attack: the attack that it runs.
    """

    attack: Attack

    @property
    def ball(self) -> Ball:  # type: ignore[override]
        """The attack's threat model."""
        return self.attack.ball

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

    def at_radius(self, radius: Any, step_size: Any = None) -> AttackWrapper:
        """The same attack in a ball of another radius."""
        return replace(self, attack=self.attack.at_radius(radius, step_size))  # type: ignore[type-var]


def check_attack(name: str, attack: Any) -> None:
    """Refuses what is no attack: a ball, a factory that was not called, a tuple of attacks."""
    if not isinstance(attack, Attack):
        raise TypeError(
            f"{name} is {attack!r}; expected an attack, such as `keras_robust.attacks.pgd(ball)`."
        )


def _classes(model: Any) -> int | None:
    """The number of classes of a Keras model that keeps the contract, else None."""
    outputs = contract_of(getattr(model, "classifier", model))
    return outputs["logits"].shape[-1] if outputs and "logits" in outputs else None
