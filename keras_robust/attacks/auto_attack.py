"""AutoAttack: the standard collection of attacks that need no tuning."""

from __future__ import annotations

from typing import Any

from keras_robust.attacks.apgd import apgd
from keras_robust.attacks.composite import Combination, multi_targeted, worst_of
from keras_robust.attacks.crafting.base import Attack, Round
from keras_robust.attacks.fab import fab
from keras_robust.attacks.square import square
from keras_robust.core.config import replace, serializable
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_ball

VERSIONS = ("standard", "plus", "rand")
_TARGETS = 9
_TARGETS_IN_L1 = 5  # of APGD


@serializable
class AutoAttack(Combination):
    """Several attacks one after the other; what an image's margin is worst under is kept.

    An evaluation runs each on the images that are left. `"standard"` is APGD on the cross-entropy,
    targeted APGD on DLR, targeted FAB, Square; `"plus"` adds untargeted APGD on DLR and FAB, with
    five restarts; `"rand"`, for models that are random when they predict, is APGD on both losses
    with gradients averaged over 20 calls. In an `L1Ball` the standard APGD has five restarts, five
    targets, and begins in larger balls.

    Targets are the nine likeliest classes, or as many as there are. DLR needs three classes and its
    targeted form four: with three, APGD on DLR takes the place of the targeted one; with two, both
    are left out, as the authors advise.

    Args:
        ball: a `LinfBall`, an `L2Ball` or an `L1Ball`.
        version: `"standard"`, `"plus"` or `"rand"`.
        iterations: of APGD and FAB.
        queries: of Square.
        name: what reports call it.

    Raises:
        TypeError: a ball that is none.
        ValueError: an unknown version, or numbers that the attacks refuse.
    """

    ball: Any
    version: str = "standard"
    iterations: int = 100
    queries: int = 5000
    name: str = "AutoAttack"

    def __post_init__(self) -> None:
        check_ball(self.ball)
        if self.version not in VERSIONS:
            raise ValueError(f"version is {self.version!r}; expected one of {', '.join(VERSIONS)}.")
        self.attacks(classes=10)  # refuses what a part refuses

    def attacks(self, classes: int) -> tuple[Attack, ...]:
        """The attacks in their order.

        Args:
            classes: of the model, >= 2.

        Returns:
            The attacks.
        """
        ball, steps = self.ball, self.iterations
        first, targeted = self._apgd(ball, classes)
        if self.version == "rand":
            return first
        fab_t = multi_targeted(fab(ball, steps, targeted=True), _TARGETS)
        search = square(ball, self.queries)
        if self.version == "plus":
            return (*first, fab(ball, steps, restarts=5), search, *targeted, fab_t)
        return (*first, *targeted, fab_t, search)

    def _apgd(self, ball: Ball, classes: int) -> tuple[tuple[Attack, ...], tuple[Attack, ...]]:
        """The untargeted ones, and the targeted one."""
        several = {"standard": 1, "plus": 5, "rand": 1}[self.version]
        samples = 20 if self.version == "rand" else 1
        in_l1 = ball.p == 1 and self.version == "standard"
        losses = ["cross_entropy"]
        # Three classes: untargeted in the place of targeted.
        if classes > 2 and (self.version != "standard" or classes == 3):
            losses.append("dlr")
        first = tuple(
            apgd(
                ball,
                self.iterations,
                loss=loss,
                restarts=5 if in_l1 else several,
                samples=samples,
                shrinking=in_l1,
            )
            for loss in losses
        )
        if classes < 4:
            return first, ()
        aimed = apgd(ball, self.iterations, loss="dlr", targeted=True, shrinking=in_l1)
        return first, (multi_targeted(aimed, _TARGETS_IN_L1 if in_l1 else _TARGETS),)

    @property
    def gradient_steps(self) -> int:
        """The number of steps of APGD and FAB."""
        return self.iterations

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The rounds of every attack in turn, each with a seed of its own."""
        return worst_of(*self.attacks(classes)).rounds(classes)

    def at_radius(self, radius: Any, step_size: Any = None) -> AutoAttack:
        """The same attacks in a ball of another radius; their steps follow from it."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))


def auto_attack(
    ball: Ball, version: str = "standard", *, iterations: int = 100, queries: int = 5000
) -> AutoAttack:
    """AutoAttack: APGD, targeted APGD, FAB and Square, as published figures are made with.

    Args:
        ball: the threat model, a `LinfBall`, an `L2Ball` or an `L1Ball`.
        version: `"standard"`; `"plus"`, with more restarts; or `"rand"`, for models that are random
            when they predict.
        iterations: of APGD and FAB; other numbers than 100 are not what figures are made with.
        queries: of Square; likewise 5000.

    Returns:
        The attack; an evaluation runs its parts on the images that are left.

    Raises:
        TypeError: a ball that is none.
        ValueError: an unknown version, or numbers that the attacks refuse.

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
    return AutoAttack(ball, version, iterations, queries)
