"""TA-MOO-AT: adversarial training of an ensemble on attacks against all its members."""

from __future__ import annotations

import keras
from typing_extensions import Unpack

from keras_robust.attacks.multi_task.attack import multi_task
from keras_robust.attacks.pgd import pgd
from keras_robust.core.classifier import check_ensemble
from keras_robust.core.types import Ball, Solver
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.training.defense_factory import RobustModelOptions, defense, validated_by
from keras_robust.training.robust_model import RobustModel


@defense
def ta_moo(
    classifier: keras.Model,
    ball: Ball,
    *,
    solver: str | Solver = "task_oriented",
    clean_weight: float = 1.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[RobustModelOptions],
) -> RobustModel:
    """Adversarial training of an ensemble: `CE(x_adv) + CE(x)`, `x_adv` crafted on all members.

    Both cross-entropies are of the ensemble's `"logits"`. The solver weights the members' gradients
    for each image: `"uniform"` is PGD-AT on the sum of the members' losses, `"min_max"` MinMax-AT,
    `"min_norm"` MOO-AT and `"task_oriented"` TA-MOO-AT. The default validation attack is PGD on the
    ensemble, so that their `val_robust_accuracy` is comparable.

    Args:
        classifier: an ensemble, such as the result of `keras_robust.models.ensemble`.
        solver: a name, or one of `keras_robust.solvers`.
        clean_weight: weight of the clean cross-entropy; 1 in the paper.

    Raises:
        TypeError: a classifier that is not an ensemble, not a solver.
        ValueError: a negative weight, or what `keras_robust.attacks.multi_task` refuses.

    Example:
        >>> import keras_robust as kr
        >>> ensemble = kr.models.ensemble([kr.models.mlp((2, 2, 1), 3) for _ in range(2)])
        >>> model = ta_moo(ensemble, kr.LinfBall(8 / 255), solver=kr.solvers.TaskOriented(lam=10.0))
        >>> model.attack.solver.lam, model.robust_loss.term_names
        (10.0, ('adversarial', 'clean'))

    Reference: Bui et al., "Generating Adversarial Examples with Task Oriented Multi-Objective
    Optimization" (2023), section 4.2 and Appendix D.2.
    """
    check_ensemble("ta_moo", classifier)
    return RobustModel(
        classifier,
        multi_task(ball, steps, step_size, solver=solver),
        Adversarial(clean_weight),
        **validated_by(options, pgd(ball, steps, step_size)),
    )
