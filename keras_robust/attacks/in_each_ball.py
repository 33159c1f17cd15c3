"""An attack in each ball of a union in turn, for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_robust.attacks.composite import WorstOf
from keras_robust.attacks.crafting.base import Attack, DelegatingAttack, Round, check_attack
from keras_robust.core.config import replace, serializable
from keras_robust.core.types import Ball, Forward, Images, Labels, Radius, Scalar
from keras_robust.core.validation import check_ball
from keras_robust.threat_models.union_ball import UnionBall


@serializable
class InOneBall(DelegatingAttack):
    """An attack in one ball of a union, as an attack in the union.

    Args:
        attack: the attack, in a ball of the union.
        ball: the union.
        index: the number of the ball in it.

    Raises:
        TypeError: not an attack.
    """

    attack: Attack
    ball: UnionBall = dataclasses.field()  # without a default, which `Attack` has
    index: int

    def __post_init__(self) -> None:
        check_attack("InOneBall: the attack", self.attack)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The attack's name, and the ball."""
        own = self.ball.balls[self.index]
        return f"{self.attack.name} in {type(own).__name__}({own.radius:g})"

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The rounds of the attack, in the ball."""
        inner: dict[int, Attack] = {}
        found = []
        for part in self.attack.rounds(classes):
            one = inner.setdefault(id(part.attack), replace(self, attack=part.attack))
            found.append(part._replace(attack=one))
        return tuple(found)

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Runs the attack."""
        return self.attack.craft(forward, x, y, seed, targets)

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> InOneBall:
        """The same attack at another factor of the radii."""
        union = self.ball.replace(radius=radius)
        size = None if step_size is None else step_size * self.ball.balls[self.index].radius
        attack = self.attack.at_radius(union.scaled[self.index].radius, size)
        return replace(self, attack=attack, ball=union)


def in_each_ball(attack: Callable[..., Attack], ball: Ball, **options: Any) -> Attack:
    """An attack in each ball of a union in turn; keeps the worst result of each image.

    The accuracy under it is that in the union. In a report, the parts show how many images
    withstood each ball after the ones before it.

    Args:
        attack: a function of a ball, such as `keras_robust.attacks.auto_attack`.
        ball: the threat model, a `keras_robust.UnionBall`; any other ball is a union of one.
        **options: options of the attack; a `step_size` is a fraction of each radius.

    Returns:
        The attack.

    Raises:
        TypeError: not a threat model.

    Example:
        >>> from keras_robust import L2Ball, LinfBall, UnionBall, attacks
        >>> ball = UnionBall((LinfBall(0.1), L2Ball(0.5)))
        >>> in_each_ball(attacks.pgd, ball, steps=20).name
        'worst of PGD-20 in LinfBall(0.1), PGD-20 in L2Ball(0.5)'

    Reference: Maini et al., "Adversarial Robustness Against the Union of Multiple Perturbation
    Models" (2020): robust accuracy under all attacks.
    """
    check_ball(ball)
    if not isinstance(ball, UnionBall):
        return attack(ball, **options)
    size = options.get("step_size")
    parts = []
    for index, (own, unscaled) in enumerate(zip(ball.scaled, ball.balls, strict=True)):
        sized = {} if size is None else {"step_size": size * float(unscaled.radius)}
        parts.append(InOneBall(attack(own, **{**options, **sized}), ball, index))
    return WorstOf(tuple(parts))
