"""AutoAttack: the standard collection of attacks that need no tuning."""

from __future__ import annotations

import dataclasses

from keras_robust.attacks.apgd import apgd
from keras_robust.attacks.black_box.square import square
from keras_robust.attacks.black_box.square_proposals import NORMS
from keras_robust.attacks.composite import Combination, multi_targeted, worst_of
from keras_robust.attacks.crafting.base import Attack, Round
from keras_robust.attacks.minimum_norm.fab import fab
from keras_robust.core.config import replace, serializable
from keras_robust.core.types import Ball, Radius
from keras_robust.core.validation import check_choice, check_norm

VERSIONS = ("standard", "plus", "rand")
_TARGET_CLASSES = 9
_TARGET_CLASSES_IN_L1 = 5  # of APGD


@serializable
class AutoAttack(Combination):
    """AutoAttack: APGD, targeted APGD, FAB and Square; of each image the worst result is kept.

    An evaluation runs each attack on the images that the ones before left correctly classified.
    `"standard"` is APGD on the cross-entropy, targeted APGD on DLR, targeted FAB and Square;
    `"plus"` adds untargeted APGD on DLR and FAB, with five restarts; `"rand"`, for models with
    random predictions, is APGD on both losses with gradients averaged over 20 calls. In L1 the
    standard APGD has five restarts, five target classes, and starts in larger balls.

    Target classes are the nine likeliest, or fewer if the model has fewer. DLR needs three classes
    and its targeted form four: with three, APGD on DLR replaces the targeted one; with two, both
    are left out, as the authors advise.

    Args:
        ball: the threat model: an `LinfBall`, an `L2Ball` or an `L1Ball`, or a ball of your own in
            one of these norms.
        version: `"standard"`, `"plus"` or `"rand"`.
        steps: of APGD and FAB; published results take 100.
        queries: of Square; published results take 5000.

    Raises:
        TypeError: a ball in another norm.
        ValueError: an unknown version, or numbers that an attack refuses.

    Example:
        >>> from keras_robust import LinfBall
        >>> attack = auto_attack(LinfBall(8 / 255))
        >>> [part.name for part in attack.attacks(classes=10)][::3]
        ['APGD-CE-100', 'Square']
        >>> len(attack.rounds(classes=10))  # 1 + 9 + 9 + 1
        20

    Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
    Diverse Parameter-free Attacks" (2020), section 6.
    """

    ball: Ball
    version: str = "standard"
    _: dataclasses.KW_ONLY
    steps: int = 100
    queries: int = 5000
    name = "AutoAttack"

    def __post_init__(self) -> None:
        check_norm("AutoAttack", self.ball, NORMS)
        check_choice("version", self.version, VERSIONS)
        self.attacks(classes=10)  # checks the numbers

    def attacks(self, classes: int) -> tuple[Attack, ...]:
        """The attacks in their order.

        Args:
            classes: of the model, >= 2.
        """
        ball, steps = self.ball, self.steps
        first, targeted = self._apgd(classes)
        if self.version == "rand":
            return first
        fab_t = multi_targeted(fab(ball, steps, targeted=True), _TARGET_CLASSES)
        search = square(ball, self.queries)
        if self.version == "plus":
            return (*first, fab(ball, steps, restarts=5), search, *targeted, fab_t)
        return (*first, *targeted, fab_t, search)

    def _apgd(self, classes: int) -> tuple[tuple[Attack, ...], tuple[Attack, ...]]:
        """The untargeted APGD attacks, and the targeted one."""
        ball, steps = self.ball, self.steps
        restarts = {"standard": 1, "plus": 5, "rand": 1}[self.version]
        eot_iter = 20 if self.version == "rand" else 1
        in_l1 = ball.p == 1 and self.version == "standard"
        losses = ["cross_entropy"]
        # With three classes, the untargeted DLR loss replaces the targeted one.
        if classes > 2 and (self.version != "standard" or classes == 3):
            losses.append("dlr")
        first = tuple(
            apgd(
                ball,
                steps,
                loss=loss,
                restarts=5 if in_l1 else restarts,
                eot_iter=eot_iter,
                use_largereps=in_l1,
            )
            for loss in losses
        )
        if classes < 4:
            return first, ()
        targeted = apgd(ball, steps, loss="dlr", targeted=True, use_largereps=in_l1)
        count = _TARGET_CLASSES_IN_L1 if in_l1 else _TARGET_CLASSES
        return first, (multi_targeted(targeted, count),)

    @property
    def gradient_steps(self) -> int:
        """The number of steps of APGD and FAB."""
        return self.steps

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The rounds of every attack in turn, each with its own seed."""
        return worst_of(*self.attacks(classes)).rounds(classes)

    def at_radius(self, radius: Radius, step_size: float | None = None) -> AutoAttack:
        """The same attacks in a ball of another radius, from which their step sizes follow."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))


auto_attack = AutoAttack
