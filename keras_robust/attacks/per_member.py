"""An attack on each member of an ensemble alone."""

from __future__ import annotations

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack, AttackWrapper, check_attack
from keras_robust.core import random
from keras_robust.core.classifier import each_member
from keras_robust.core.config import serializable
from keras_robust.core.types import Forward, Images, Labels


@serializable
class PerMember(AttackWrapper):
    """An attack on each member of an ensemble alone; returns a tuple of batches, one for each.

    For training an ensemble, not for evaluating it. The members have different seeds, and each is
    run without the others, at the cost of one attack on the ensemble. (A function that returns
    `"member_logits"` and has no attribute `members` is run as a whole for each.)

    Args:
        attack: the attack to run on each member.

    Raises:
        TypeError: not an attack.
        ValueError: an attack that is already per member; when called, not an ensemble.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> attack = per_member(kr.attacks.pgd(kr.LinfBall(0.3)))
        >>> attack.name
        'PGD-10 per member'
        >>> x_1, x_2 = attack(ensemble, tf.fill([5, 2, 2, 1], 0.5), tf.zeros([5], tf.int32))
        >>> x_1.shape.as_list(), bool(tf.reduce_all(x_1 == x_2))
        ([5, 2, 2, 1], False)

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), section 3.2.
    """

    attack: Attack
    per_member = True

    def __post_init__(self) -> None:
        check_attack("PerMember: the attack", self.attack)
        if self.attack.per_member:
            raise ValueError(
                f"PerMember: the attack {self.attack.name} is already per member; expected an "
                "attack that returns a single batch."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The attack's name, marked as per member."""
        return f"{self.attack.name} per member"

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> tuple[Images, ...]:
        """One batch for each member, in their order."""
        return tuple(
            self.attack.craft(member, x, y, random.fold_in(seed, number), targets)
            for number, member in enumerate(each_member("An attack on each member", forward, x))
        )


per_member = PerMember
