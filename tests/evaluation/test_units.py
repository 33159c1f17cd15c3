"""Evaluations in another range of the pixels give the same figures, verdicts and pictures."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import evaluate

RANDOM = np.random.default_rng(0)
X = RANDOM.random((40, 2, 2, 1)).astype("float32")
WEIGHTS = RANDOM.normal(size=(4, 3)).astype("float32") * 6
RANGES = [(0.0, 255.0), (-1.0, 1.0)]
BOTH = pytest.mark.parametrize(
    "bounds", [RANGES[0], pytest.param(RANGES[1], marks=pytest.mark.slow)], ids=str
)


def scaled(x, bounds):
    return (x * (bounds[1] - bounds[0]) + bounds[0]).astype("float32")


def width(bounds):
    return bounds[1] - bounds[0]


def network(bounds):
    """A linear classifier of images in the bounds, which it scales to [0, 1] itself."""
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Rescaling(1 / width(bounds), -bounds[0] / width(bounds))(inputs)
    features = keras.layers.Flatten()(x)
    dense = keras.layers.Dense(3)
    model = keras.Model(inputs, {"logits": dense(features), "features": features}, name="net")
    dense.set_weights([WEIGHTS, -WEIGHTS.mean(0) * 2])
    return model


Y = network((0.0, 1.0))(X)["logits"].numpy().argmax(1)
Y[::7] = (Y[::7] + 1) % 3  # some are misclassified


def measured(bounds, **settings):
    """Everything that an evaluation says, by the names of the figures."""
    model, x = network(bounds), scaled(X, bounds)
    ball = kr.LinfBall(0.06 * width(bounds), bounds)
    clean = scaled(np.random.default_rng(1).random((60, 2, 2, 1)), bounds)
    detector = kr.detection.EntropyDetector(model).calibrate((clean,), 0.1, bounds=bounds)
    radii = [0.03 * width(bounds), 0.1 * width(bounds)]
    attack = kr.attacks.pgd(ball, 3)
    return evaluate(model, (x, Y), attack, radii=radii, detector=detector, **settings)


@pytest.mark.parametrize(
    ("bounds", "checks"),
    [(RANGES[0], False), *(pytest.param(b, True, marks=pytest.mark.slow) for b in RANGES)],
    ids=str,
)
def test_a_report(bounds, checks):
    report, in_unit_range = (measured(b, checks=checks) for b in (bounds, (0.0, 1.0)))
    assert 0.3 < report.worst_case_accuracy < report.clean_accuracy - 0.1
    for name in ("clean_accuracy", "worst_case_accuracy", "worst_case_found_by", "warnings",
                 "confusion_clean", "confusion_adversarial"):  # fmt: skip
        assert getattr(report, name) == getattr(in_unit_range, name), name
    assert [a.accuracy for a in report.attacks] == [a.accuracy for a in in_unit_range.attacks]
    assert report.curves[0].accuracies == in_unit_range.curves[0].accuracies
    for name in ("clean", "adversarial"):  # the pictures were white
        one, other = (getattr(r.examples, name) for r in (report, in_unit_range))
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert kr.evaluation.Report.from_json(report.to_json()) == report
    for one, other in zip(report.checks, in_unit_range.checks, strict=True):
        assert (one.name, one.passed) == (other.name, other.passed)
        assert one.value == pytest.approx(other.value, abs=1e-3)
    one, other = report.detection, in_unit_range.detection
    assert one.threshold == pytest.approx(other.threshold, rel=1e-4)
    for mine, theirs in zip(one.results, other.results, strict=True):
        for field in ("detection_rate", "evasion_rate", "auc", "accuracy"):
            assert getattr(mine, field) == pytest.approx(getattr(theirs, field), abs=1e-4), field


def test_the_pictures_without_bounds():
    ball = kr.LinfBall(10.0, bounds=(-math.inf, math.inf))
    report = evaluate(network((0, 255)), (scaled(X, (0, 255)), Y), kr.attacks.pgd(ball, 1))
    found = report.examples
    assert min(found.clean.min(), found.adversarial.min()) == 0
    assert max(found.clean.max(), found.adversarial.max()) == 1
    assert (found.clean != found.adversarial).any()


@pytest.mark.slow
def test_the_check_of_the_radius_without_bounds():
    ball = kr.LinfBall(0.05, bounds=(-math.inf, math.inf))
    data = X, Y
    (check,) = kr.evaluation.sanity_checks(
        network((0.0, 1.0)), data, ball, only=["radius"], steps=5
    )
    assert check.passed and check.value == 0


@pytest.mark.slow
@pytest.mark.parametrize("bounds", RANGES, ids=str)
def test_representation_and_surfaces(bounds):
    ball = lambda b: kr.LinfBall(0.06 * width(b), b)  # noqa: E731
    found = []
    for b in ((0.0, 1.0), bounds):
        model, data, attack = network(b), (scaled(X, b), Y), kr.attacks.pgd(ball(b), 2)
        sizes = kr.evaluation.perturbations(model, data, attack)
        surface = kr.evaluation.input_surface(
            model, data[0][1], int(Y[1]), 0.3 * width(b), points=5, bounds=b
        )
        found.append([
            *dataclasses.astuple(kr.evaluation.divergence(model, data, attack)),
            *kr.evaluation.latents(model, data, attack).entropies,
            sizes.l1 / width(b), sizes.linf / width(b), *sizes.within, *surface.losses.ravel(),
        ])  # fmt: skip
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", RANGES, ids=str)
def test_tasks(bounds):
    found = []
    for b in ((0.0, 1.0), bounds):
        attack = kr.attacks.multi_task(
            kr.LinfBall(0.1 * width(b), b), 2,
            tasks=kr.tasks.Transformations(kr.transforms.ALL[:2]), solver="min_norm",
        )  # fmt: skip
        rates = kr.evaluation.task_success(network(b), (scaled(X, b), Y), attack)
        gradients = kr.evaluation.task_gradients(network(b), (scaled(X, b), Y), attack)
        found.append([
            *rates.per_task, rates.all_tasks, rates.any_task, rates.ensemble, *gradients.weights,
            *np.ravel(gradients.cosines), *np.multiply(gradients.norms, width(b)),
        ])  # fmt: skip
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)


@BOTH
@pytest.mark.parametrize(
    "make",
    [
        kr.defenses.trades,
        *(pytest.param(d, marks=pytest.mark.slow) for d in (kr.defenses.pgd_at, kr.defenses.mart)),
    ],
)
def test_training(make, bounds):
    """One step, whose noise at the start was too small for a wide range."""
    logs = []
    for b in ((0.0, 1.0), bounds):
        model = make(network(b), kr.LinfBall(0.1 * width(b), b), steps=2)
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
        history = model.fit(scaled(X, b), Y, batch_size=40, shuffle=False, verbose=0).history
        logs.append(history)
    assert set(logs[0]) == set(logs[1])
    for name, values in logs[0].items():
        assert logs[1][name] == pytest.approx(values, rel=1e-3), name


@BOTH
def test_calibration_of_a_robust_model_reads_its_bounds(bounds):
    model = kr.defenses.pgd_at(network(bounds), kr.LinfBall(0.1 * width(bounds), bounds))
    expected = kr.detection.Detector(network((0.0, 1.0))).calibrate([X], 0.1)
    detector = kr.detection.Detector(model)
    found = detector.calibrate([scaled(X, bounds)], 0.1)
    assert found.threshold == pytest.approx(expected.threshold, rel=1e-4)
    outside = scaled(X, (bounds[0], bounds[1] + 1))
    low, high = (f"{bound:g}" for bound in bounds)
    with pytest.raises(ValueError, match=rf"expected \[{low}, {high}\].*pass the `bounds`"):
        detector.calibrate([outside + 1], 0.1)
    with pytest.raises(ValueError, match=r"expected \[0, 1\].*pass the `bounds`"):
        kr.detection.Detector(network(bounds)).calibrate([scaled(X, bounds)], 0.1)
