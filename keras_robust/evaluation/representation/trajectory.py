"""The way that an attack takes: where it stands after each of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.core.config import replace
from keras_robust.core.types import Images, Labels, Seed


def trajectory(
    attack: GradientAttack, model: Any, x: Images, y: Labels, seed: Seed = 0
) -> np.ndarray:
    """The images after 0, 1, ..., `attack.steps` steps.

    The attack is run anew with each number of steps, so its cost is that of `steps / 2` attacks:
    for a look at few images.

    Args:
        attack: a gradient attack.
        model: a Keras model of the contract, or a function like one.
        x: clean images `[batch, ...]`.
        y: labels `[batch]`.
        seed: of the start, which all of them share.

    Returns:
        `[steps + 1, batch, ...]`; the first are the starting points.

    Raises:
        TypeError: an attack that is no gradient ascent.

    Example:
        >>> import keras_robust as kr
        >>> attack = kr.attacks.bim(kr.LinfBall(0.25), steps=2, step_size=0.125)
        >>> x, y = np.array([[0.5, 0.5]], "float32"), np.array([0])
        >>> trajectory(attack, lambda x: {"logits": x}, x, y)[:, 0].tolist()
        [[0.5, 0.5], [0.375, 0.625], [0.25, 0.75]]
    """
    if not isinstance(attack, GradientAttack):
        raise TypeError(
            f"A trajectory is of a gradient attack, such as `keras_robust.attacks.pgd(ball)`; "
            f"received {attack!r}."
        )
    return np.stack(
        [
            np.asarray(replace(attack, steps=steps)(model, x, y, seed=seed))
            for steps in range(attack.steps + 1)
        ]
    )
