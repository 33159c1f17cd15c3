"""Projected gradient descent and its relatives: FGSM, R+FGSM, BIM, MIM and PGD.

All are the same ascent; they differ in where it starts and in how a gradient moves the point.
"""

from __future__ import annotations

from typing import Any

from keras_robust.attacks.crafting import initialization, objectives
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.objectives import objective_called
from keras_robust.attacks.crafting.step_rules import FixedStep, MomentumStep, default_step_size
from keras_robust.core.types import Ball, Objective
from keras_robust.core.validation import check_ball

_STARTS = {
    "uniform": initialization.Uniform,
    "gaussian": initialization.Gaussian,
    "none": initialization.AtInput,
}


def _start(start: str | Any) -> Any:
    if not isinstance(start, str):
        return start
    if start not in _STARTS:
        raise ValueError(f"start is {start!r}; expected one of {', '.join(sorted(_STARTS))}.")
    return _STARTS[start]()


def needs_gradient_at_clean(name: str, loss: str | Objective) -> None:
    """Refuses a loss that is flat at the clean image, for an ascent that begins there."""
    if loss == "kl" or isinstance(loss, objectives.Divergence):
        raise ValueError(
            f"{name} starts at the clean image, where the KL divergence has no gradient. "
            "Start elsewhere (`pgd` does unless told otherwise), or climb another loss."
        )


def pgd(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    start: str | Any = "uniform",
) -> GradientAttack:
    """PGD: steps of a fixed size along the steepest direction, projected onto the ball.

    Args:
        ball: the threat model.
        steps: how many steps.
        step_size: the length of a step in the units of the images; default `2.5 radius / steps`.
        loss: `"cross_entropy"`, `"margin"`, `"dlr"`, `"kl"` (from the clean prediction), or an
            objective.
        targeted: climb towards `targets`, passed when the attack is called.
        start: `"uniform"` (in the ball), `"gaussian"` (a small one), `"none"`, or a start rule.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: an unknown loss or start, a step size that is not positive, negative steps,
            or the loss `"kl"`, whose gradient is zero at the clean image, with the start `"none"`.

    Example:
        >>> from keras_robust import LinfBall
        >>> pgd(LinfBall(8 / 255), steps=10).rule.size == 2 / 255
        True

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018),
    section 2.1.
    """
    first = _start(start)
    if isinstance(first, initialization.AtInput):
        needs_gradient_at_clean("PGD without a random start", loss)
    rule = FixedStep(default_step_size(ball, steps, step_size))
    return GradientAttack(
        ball, objective_called(loss, targeted), rule, steps, first, f"PGD-{steps}"
    )


def fgsm(
    ball: Ball, *, loss: str | Objective = "cross_entropy", targeted: bool = False
) -> GradientAttack:
    """FGSM: one step of the whole radius from the clean image.

    Args:
        ball: the threat model.
        loss: as for `pgd`; not `"kl"`, whose gradient is zero at the clean image.
        targeted: climb towards `targets`.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: an unknown loss, or `"kl"`.

    Example:
        >>> from keras_robust import LinfBall
        >>> fgsm(LinfBall(0.25)).steps
        1

    Reference: Goodfellow et al., "Explaining and Harnessing Adversarial Examples" (2015), sec. 4.
    """
    needs_gradient_at_clean("FGSM", loss)
    rule = FixedStep(check_ball(ball))
    return GradientAttack(
        ball, objective_called(loss, targeted), rule, 1, initialization.AtInput(), "FGSM"
    )


def r_fgsm(
    ball: Ball,
    share: float = 0.5,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
) -> GradientAttack:
    """R+FGSM: a random step of `share * radius`, then one gradient step of the rest.

    Args:
        ball: the threat model.
        share: the part of the radius spent on the random step, in (0, 1).
        loss: as for `pgd`.
        targeted: climb towards `targets`.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: an unknown loss, or a share outside (0, 1).

    Example:
        >>> from keras_robust import LinfBall
        >>> r_fgsm(LinfBall(0.5), share=0.25).rule.size
        0.375

    Reference: Tramer et al., "Ensemble Adversarial Training" (2018), Eq. 7.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share!r}; expected a share of the radius in (0, 1).")
    rule = FixedStep((1 - share) * check_ball(ball))
    return GradientAttack(
        ball, objective_called(loss, targeted), rule, 1, initialization.RandomStep(share), "R+FGSM"
    )


def bim(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
) -> GradientAttack:
    """BIM: PGD from the clean image.

    Args:
        ball: the threat model.
        steps: how many steps.
        step_size: the length of a step; default `2.5 radius / steps`.
        loss: as for `pgd`; not `"kl"`, whose gradient is zero at the clean image.
        targeted: climb towards `targets`.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: as for `pgd`, or the loss `"kl"`.

    Example:
        >>> from keras_robust import LinfBall
        >>> bim(LinfBall(0.1), steps=5, step_size=0.02).start
        AtInput()

    Reference: Kurakin et al., "Adversarial Examples in the Physical World" (2017), section 2.2.
    """
    needs_gradient_at_clean("BIM", loss)
    rule = FixedStep(default_step_size(ball, steps, step_size))
    objective = objective_called(loss, targeted)
    return GradientAttack(ball, objective, rule, steps, initialization.AtInput(), f"BIM-{steps}")


def mim(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    decay: float = 1.0,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
) -> GradientAttack:
    """MIM: BIM along an accumulated gradient.

    Args:
        ball: the threat model.
        steps: how many steps.
        step_size: the length of a step; default `2.5 radius / steps`.
        decay: the weight of the accumulated gradient.
        loss: as for `pgd`; not `"kl"`, whose gradient is zero at the clean image.
        targeted: climb towards `targets`.

    Returns:
        The attack.

    Raises:
        TypeError: a ball that is none.
        ValueError: as for `bim`, or a negative decay.

    Example:
        >>> from keras_robust import LinfBall
        >>> mim(LinfBall(0.1), steps=5, decay=0.9).rule.decay
        0.9

    Reference: Dong et al., "Boosting Adversarial Attacks with Momentum" (2018), Algorithm 1.
    """
    needs_gradient_at_clean("MIM", loss)
    rule = MomentumStep(default_step_size(ball, steps, step_size), decay)
    objective = objective_called(loss, targeted)
    return GradientAttack(ball, objective, rule, steps, initialization.AtInput(), f"MIM-{steps}")
