"""Every entrance takes the same forms of labels, and refuses the rest in the same sentence."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import evaluation

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.random((8, 3)).astype("float32"), np.arange(8) % 3
BALL = kr.LinfBall(0.1)
ATTACK = kr.attacks.fgsm(BALL)


def model(x):
    return {"logits": 2 * x, "features": x, "member_logits": tf.stack([x, 3 * x], axis=1)}


def _evaluate(y):
    report = evaluation.evaluate(model, (X, y), ATTACK)
    return report.clean_accuracy, report.worst_case_accuracy, report.confusion_adversarial


def _detector_results(y):
    detector = kr.detection.EntropyDetector(model, threshold=0.5)
    clean, found = evaluation.score_attacks(model, (X, y), detector, {"FGSM": ATTACK})
    return clean.tolist(), found


ENTRANCES = {
    "evaluate": _evaluate,
    "score_attacks": _detector_results,
    "sanity_checks": lambda y: evaluation.sanity_checks(model, (X, y), BALL, only=["one step"]),
    "black_box": lambda y: evaluation.black_box({"a": model, "b": model}, (X, y), ATTACK),
    "task_success": lambda y: evaluation.task_success(model, (X, y), ATTACK),
    "success_rates": lambda y: evaluation.success_rates(model, X, X, y, ATTACK),
    "latents": lambda y: evaluation.latents(model, (X, y), ATTACK).labels.tolist(),
    "divergence": lambda y: evaluation.divergence(model, (X, y), ATTACK),
    "class_divergence": lambda y: [v.numpy() for v in evaluation.class_divergence(X, y)],
    "perturbations": lambda y: evaluation.perturbations(model, (X, y), ATTACK),
    "trajectory": lambda y: evaluation.trajectory(ATTACK, model, X, y).tolist(),
    "an attack": lambda y: ATTACK(model, X, y).numpy().tolist(),
    "a compiled attack": lambda y: ATTACK.compiled(model)(X, y).numpy().tolist(),
}


# The first of each room; the others read labels by the same function.
QUICK = ("evaluate", "success_rates", "latents", "class_divergence", "an attack")


@pytest.mark.parametrize(
    "entrance",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in ENTRANCES],
)
def test_columns_and_one_hot_rows_are_taken(entrance):
    run = ENTRANCES[entrance]
    expected = run(Y)
    assert run(Y[:, None]) == expected
    assert run(np.eye(3, dtype="float32")[Y]) == expected


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("bad", [Y + 0.9, Y.astype("float32"), Y > 0, np.full((8, 3), 1 / 3)])
def test_anything_else_is_refused(entrance, bad):
    with pytest.raises(
        (TypeError, ValueError),
        match="Labels have (dtype .*|shape .* not one-hot); expected integer class numbers, shape",
    ):
        ENTRANCES[entrance](bad)


@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: np.eye(3)[y]])
def test_training_takes_them_too(tiny_classifier, tiny_batch, form):
    x, y = tiny_batch
    classes = tiny_classifier.output["logits"].shape[-1]
    labels = y[:, None] if form(np.array([0])).shape == (1, 1) else np.eye(classes)[y]
    losses = []
    for given in (y, labels):
        model = kr.defenses.standard(tiny_classifier)
        model.compile("sgd")
        losses.append(model.evaluate(x, given, verbose=0, return_dict=True))
    assert losses[0] == losses[1]
