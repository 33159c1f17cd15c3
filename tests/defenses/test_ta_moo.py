"""TA-MOO-AT: its attack, its loss and its validation."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.attacks.crafting import initialization
from keras_robust.core.config import replace

BALL = kr.LinfBall(0.1)


@pytest.mark.parametrize("solver", ["task_oriented", "min_max"])
def test_one_step(one_step_of_two, of_label, solver):
    """CE of the mean probability on clean images, and on those crafted on both members."""

    def term(log_p, y):
        return -of_label(np.logaddexp(*log_p) - np.log(2), y).mean()

    model, _ = one_step_of_two(
        lambda c: kr.defenses.ta_moo(c, BALL, solver=solver, steps=3),
        lambda clean, sources, y: {"adversarial": term(sources[0], y), "clean": term(clean, y)},
    )
    assert model.attack == kr.attacks.multi_task(BALL, 3, solver=solver)


def test_settings(make_linear):
    ensemble = kr.models.ensemble([make_linear(np.eye(4)[:, :3]) for _ in range(2)])
    model = kr.defenses.ta_moo(ensemble, BALL, steps=40, step_size=0.01, clean_weight=0, seed=5)
    assert model.validation_attack == kr.attacks.pgd(BALL, 40, 0.01) and model.seed == 5
    assert model.robust_loss.required_outputs == {"adversarial"}
    other = kr.defenses.ta_moo(ensemble, BALL, validation_attack=kr.attacks.fgsm(BALL))
    assert other.validation_attack == kr.attacks.fgsm(BALL)
    soft = kr.defenses.udr(ensemble, BALL, base=kr.defenses.ta_moo, solver="min_norm")
    assert soft.attack.solver == kr.solvers.MinNorm() and soft.attack.name == "soft_ball"


def test_refused(make_linear):
    alone, other = (make_linear(np.eye(4)[:, :3]) for _ in range(2))
    with pytest.raises(TypeError, match=r"ta_moo: the classifier is .*models.ensemble"):
        kr.defenses.ta_moo(alone, BALL)
    with pytest.raises(ValueError, match="solver is 'moo'; expected one of"):
        kr.defenses.ta_moo(kr.models.ensemble([alone, other]), BALL, solver="moo")


@pytest.mark.slow
def test_two_replicas_train_as_one_device(two_replicas, make_linear, make_batch):
    """Weights are each image's own; the parts of 5 and 4 images need not be equal."""
    ends = []
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        with scope:
            draw = np.random.default_rng(0)
            members = [make_linear(draw.normal(size=(36, 3)), shape=(6, 6, 1)) for _ in range(2)]
            model = kr.defenses.ta_moo(kr.models.ensemble(members), BALL, steps=2)
            # Replicas draw other noise than one device.
            model.attack = replace(model.attack, initialization=initialization.AtInput())
            model.validation_attack = None
            model.compile(keras.optimizers.SGD(0.1))
        logs = model.fit(*make_batch(9), batch_size=9, shuffle=False, verbose=0).history
        ends.append((logs, model.get_weights()))
    for name, values in ends[0][0].items():
        np.testing.assert_allclose(ends[1][0][name], values, rtol=1e-5, err_msg=name)
    for one, two in zip(ends[0][1], ends[1][1], strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-6)
