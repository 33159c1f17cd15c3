"""Trajectories of gradient attacks: the images after each step."""

from __future__ import annotations

import numpy as np

from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.core.config import replace
from keras_robust.core.types import Images, Labels, Seed
from keras_robust.evaluation.running.batching import Model


def trajectory(
    attack: GradientAttack, model: Model, x: Images, y: Labels, seed: Seed = 0
) -> np.ndarray:
    """The images after 0, 1, ..., `attack.steps` steps.

    The attack is run again for each number of steps, at the cost of `steps / 2` attacks.

    Args:
        attack: a gradient attack.
        model, x, y: as for a call of the attack.
        seed: seed of the start, the same for all numbers of steps.

    Returns:
        `[steps + 1, batch, ...]`, from the starting points on.

    Raises:
        TypeError: not a `GradientAttack`.

    Example:
        >>> import keras_robust as kr
        >>> attack = kr.attacks.bim(kr.LinfBall(0.25), steps=2, step_size=0.125)
        >>> x, y = np.array([[0.5, 0.5]], "float32"), np.array([0])
        >>> trajectory(attack, lambda x: {"logits": x}, x, y)[:, 0].tolist()
        [[0.5, 0.5], [0.375, 0.625], [0.25, 0.75]]
    """
    if not isinstance(attack, GradientAttack):
        raise TypeError(
            f"attack is {attack!r}; expected a gradient attack, such as "
            "`keras_robust.attacks.pgd(ball)`."
        )
    return np.stack(
        [
            np.asarray(replace(attack, steps=steps)(model, x, y, seed=seed))
            for steps in range(attack.steps + 1)
        ]
    )
