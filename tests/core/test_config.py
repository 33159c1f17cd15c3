"""Parts are frozen, equal by value, and come back from JSON as they went."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.core.config import replace, serializable


@serializable
class Knot:
    """Holds one of everything that a field may be."""

    number: float = 0.1
    word: str | None = None
    flag: bool = True
    parts: tuple[Any, ...] = ()


def through_json(part):
    text = json.dumps(keras.saving.serialize_keras_object(part))
    return keras.saving.deserialize_keras_object(json.loads(text))


@pytest.mark.parametrize(
    "part",
    [
        Knot(),
        Knot(1 / 3, "word", False, (1, 2.5, "three", None, True)),
        Knot(parts=(Knot(parts=((1, 2), ())), kr.LinfBall(8 / 255, (-1.0, 1.0)))),
        kr.attacks.spsa(kr.LinfBall(np.float64(0.5)), steps=np.int64(3), n_directions=np.int32(2)),
    ],
)
def test_json_round_trip(part):
    assert through_json(part) == part
    assert hash(through_json(part)) == hash(part)


def test_a_list_of_parts_is_rebuilt():
    """Only tuples are promised, but a list must not come back full of dictionaries."""
    rebuilt = through_json(Knot(parts=[Knot(), kr.LinfBall(0.1)]))
    assert rebuilt.parts == (Knot(), kr.LinfBall(0.1))


def test_parts_of_one_name_in_two_modules_keep_apart():
    """A start and a loss are both called Clean; Keras's registry must not confuse them."""
    assert through_json(kr.initialization.AtInput()) == kr.initialization.AtInput()
    assert through_json(kr.losses.Clean()) == kr.losses.Clean()
    assert type(through_json(kr.attacks.bim(kr.LinfBall(0.1)))) is kr.GradientAttack
    assert (
        through_json(kr.attacks.bim(kr.LinfBall(0.1))).initialization == kr.initialization.AtInput()
    )


def test_parts_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        kr.LinfBall(0.1).radius = 0.2


def test_equal_by_value():
    assert kr.LinfBall(0.1) == kr.LinfBall(0.1) != kr.LinfBall(0.2)
    assert kr.LinfBall(0.1) != kr.L2Ball(0.1)


def test_config_keeps_full_precision():
    assert kr.LinfBall.from_config(kr.LinfBall(8 / 255).get_config()).radius == 8 / 255


def test_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="wobble"):
        kr.LinfBall.from_config({"radius": 0.1, "wobble": 1})


def test_replace_leaves_the_original():
    ball = kr.LinfBall(0.1, (-1.0, 1.0))
    assert replace(ball, radius=0.2) == kr.LinfBall(0.2, (-1.0, 1.0))
    assert ball.radius == 0.1


def test_replace_checks_again():
    with pytest.raises(ValueError, match="radius is -1"):
        replace(kr.LinfBall(0.1), radius=-1)
