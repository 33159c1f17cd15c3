"""Projected gradient descent and its relatives: FGSM, R+FGSM, BIM, MIM and PGD.

All are `GradientAttack`; they differ in the initialization and in the step rule.
"""

from __future__ import annotations

from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting import transferability as transferable
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.initialization import AtInput, Gaussian, RandomStep, Uniform
from keras_robust.attacks.crafting.step_rules import FixedStep, MomentumStep, default_step_size
from keras_robust.attacks.crafting.transferability import Transferability
from keras_robust.core.types import Ball, Initialization, Objective
from keras_robust.core.validation import check_ball, check_choice, check_number

_INITIALIZATIONS = {"uniform": Uniform, "gaussian": Gaussian, "none": AtInput}


def _initialization(value: str | Initialization) -> Initialization:
    if not isinstance(value, str):
        return value
    check_choice("initialization", value, _INITIALIZATIONS)
    return _INITIALIZATIONS[value]()


def _iterated(
    name: str,
    ball: Ball,
    objective: Objective,
    rule: FixedStep | MomentumStep,
    steps: int,
    first: Initialization,
    transferability: str | Transferability | None,
) -> GradientAttack:
    """An iterated attack, whose name says how its gradients are made to transfer."""
    named = f"-{transferability}" if isinstance(transferability, str) else ""
    tuned = transferable.get(transferability)
    return GradientAttack(
        ball,
        objective,
        rule,
        steps,
        first,
        f"{name}{named.upper()}-{steps}",
        transferability=tuned,
    )


def needs_gradient_at_clean(name: str, loss: str | Objective) -> None:
    """Raises if the loss has no gradient at the clean image, where the attack starts."""
    if loss == "kl" or isinstance(loss, objectives.Divergence):
        raise ValueError(
            f"{name} starts at the clean image, where the KL divergence has no gradient. "
            "Use a random start, as `pgd` does by default, or another loss."
        )


def pgd(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    initialization: str | Initialization = "uniform",
    transferability: str | Transferability | None = None,
) -> GradientAttack:
    """PGD: steps of a fixed size along the steepest direction, projected onto the ball.

    Args:
        ball: the threat model.
        steps: the number of steps.
        step_size: the length of a step in the units of the images; default `2.5 radius / steps`.
        loss: `"cross_entropy"`, `"margin"`, `"dlr"`, `"kl"` (from the clean prediction), or one of
            `keras_robust.objectives`.
        targeted: approach `targets`, which are passed when the attack is called.
        initialization: `"uniform"` in the ball, `"gaussian"` with a standard deviation of 0.001,
            `"none"` for the image itself, or one of `keras_robust.initialization`.
        transferability: `"di"`, `"ti"`, `"si"`, `"vt"`, or several joined by `+`, for a gradient
            that transfers to other models, or a `keras_robust.transferability.Transferability`.

    Returns:
        The attack.

    Raises:
        TypeError: `ball` is not a threat model.
        ValueError: an unknown loss or initialization, a step size <= 0, negative steps, or the loss
            `"kl"`, whose gradient is zero at the clean image, with the initialization `"none"`.

    Example:
        >>> from keras_robust import LinfBall
        >>> pgd(LinfBall(8 / 255), steps=10).step_rule.size == 2 / 255
        True

    Reference: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018),
    section 2.1.
    """
    first = _initialization(initialization)
    if isinstance(first, AtInput):
        needs_gradient_at_clean("PGD without a random start", loss)
    rule = FixedStep(default_step_size(ball, steps, step_size))
    objective = objectives.get(loss, targeted)
    return _iterated("PGD", ball, objective, rule, steps, first, transferability)


def fgsm(
    ball: Ball, *, loss: str | Objective = "cross_entropy", targeted: bool = False
) -> GradientAttack:
    """FGSM: one step of the whole radius from the clean image.

    Args:
        ball, targeted: as for `pgd`.
        loss: as for `pgd`, except `"kl"`, whose gradient is zero at the clean image.

    Returns:
        The attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> fgsm(LinfBall(0.25)).steps
        1

    Reference: Goodfellow et al., "Explaining and Harnessing Adversarial Examples" (2015), sec. 4.
    """
    needs_gradient_at_clean("FGSM", loss)
    rule = FixedStep(check_ball(ball))
    return GradientAttack(ball, objectives.get(loss, targeted), rule, 1, AtInput(), "FGSM")


def r_fgsm(
    ball: Ball,
    fraction: float = 0.5,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
) -> GradientAttack:
    """R+FGSM: a random step of `fraction * radius`, then one gradient step of the rest.

    Args:
        ball, loss, targeted: as for `pgd`.
        fraction: the part of the radius for the random step, in (0, 1).

    Returns:
        The attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> r_fgsm(LinfBall(0.5), fraction=0.25).step_rule.size
        0.375

    Reference: Tramer et al., "Ensemble Adversarial Training" (2018), Eq. 7.
    """
    check_number("R+FGSM: fraction", fraction, above=0, below=1)
    rule = FixedStep((1 - fraction) * check_ball(ball))
    objective = objectives.get(loss, targeted)
    return GradientAttack(ball, objective, rule, 1, RandomStep(fraction), "R+FGSM")


def bim(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    transferability: str | Transferability | None = None,
) -> GradientAttack:
    """BIM: PGD from the clean image.

    Args:
        ball, steps, step_size, targeted, transferability: as for `pgd`.
        loss: as for `pgd`, except `"kl"`, whose gradient is zero at the clean image.

    Returns:
        The attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> bim(LinfBall(0.1), steps=5, step_size=0.02).initialization
        AtInput()

    Reference: Kurakin et al., "Adversarial Examples in the Physical World" (2017), section 2.2.
    """
    needs_gradient_at_clean("BIM", loss)
    rule = FixedStep(default_step_size(ball, steps, step_size))
    objective = objectives.get(loss, targeted)
    return _iterated("BIM", ball, objective, rule, steps, AtInput(), transferability)


def mim(
    ball: Ball,
    steps: int = 10,
    step_size: float | None = None,
    *,
    decay: float = 1.0,
    nesterov: bool = False,
    loss: str | Objective = "cross_entropy",
    targeted: bool = False,
    transferability: str | Transferability | None = None,
) -> GradientAttack:
    """MIM: BIM along an accumulated gradient.

    Args:
        ball, steps, step_size, loss, targeted, transferability: as for `bim`.
        decay: the weight of the accumulated gradient, >= 0.
        nesterov: take gradients where the accumulated one leads: NI-FGSM.

    Returns:
        The attack.

    Example:
        >>> from keras_robust import LinfBall
        >>> mim(LinfBall(0.1), steps=5, decay=0.9).step_rule.decay
        0.9
        >>> mim(LinfBall(0.1), nesterov=True, transferability="si+vt").name
        'NIM-SI+VT-10'

    Reference: Dong et al., "Boosting Adversarial Attacks with Momentum" (2018), Algorithm 1.
    """
    needs_gradient_at_clean("MIM", loss)
    rule = MomentumStep(default_step_size(ball, steps, step_size), decay, nesterov or None)
    objective = objectives.get(loss, targeted)
    name = "NIM" if nesterov else "MIM"
    return _iterated(name, ball, objective, rule, steps, AtInput(), transferability)
