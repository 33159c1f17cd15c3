"""The settings of balls and attacks as text, for reports."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.config import shown_fields


def describe(part: Any) -> str:
    """The settings of a ball or an attack as text.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> describe(LinfBall(0.3))
        'LinfBall, radius 0.3, bounds (0, 1)'
        >>> describe(attacks.pgd(LinfBall(0.3), steps=40, step_size=0.01))  # doctest: +ELLIPSIS
        'objective LabelLoss(cross_entropy, true), step_rule FixedStep(0.01), steps 40, ...'
    """
    if not dataclasses.is_dataclass(part):  # a ball of the user's own
        return repr(part)
    settings = [
        f"{field.name} {_value_text(getattr(part, field.name))}"
        for field in shown_fields(part)
        # The report shows ball and name elsewhere; `repr=False` marks a model.
        if field.repr and field.name not in ("ball", "name")
    ]
    return ", ".join(settings if isinstance(part, Attack) else [type(part).__name__, *settings])


def _value_text(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        shown = (f.name for f in shown_fields(value) if f.repr and f.name != "ball")
        values = (getattr(value, name) for name in shown)
        return f"{type(value).__name__}({', '.join(map(_value_text, values))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_value_text, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
