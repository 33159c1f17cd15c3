"""Everything that finds an adversarial image inside the ball lowers the worst case, by its name.

The model's logits are nine times its three pixels. An Linf attack of radius r fools an image of the
label 0 if it moves the first pixel down and another one up, where `2 r` is above the margin.
"""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation import Card, Report, evaluate, make_card, sanity_checks
from keras_robust.evaluation.rendering.markdown import markdown_page
from keras_robust.evaluation.rendering.page import html_page

MARGINS = np.linspace(0.02, 0.4, 20).astype("float32")  # ten of them at most 0.2
X = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2, np.full(20, 0.1, "float32")], axis=1)
Y = np.zeros(20, int)
BALL = kr.LinfBall(0.1)
FOOLED = int((MARGINS < 0.2).sum())


def pixels(x):
    return {"logits": 9.0 * x}


@tf.custom_gradient
def backwards(x):
    """The identity, with a gradient of the wrong sign."""
    return tf.identity(x), lambda gradient: -gradient


def masked(x):
    """Gradient attacks find nothing; random search does."""
    return {"logits": 9.0 * backwards(x)}


@dataclasses.dataclass(frozen=True)
class Still(Attack):
    """Moves nothing, unless the radius is one of a few: then it fools what that radius allows."""

    ball: kr.LinfBall = BALL
    moves_at: tuple[float, ...] = ()
    size: float | None = None
    name: str = "still"

    def craft(self, forward, x, y, seed, targets):
        size = tf.cast(self.ball.radius if self.size is None else self.size, x.dtype)
        radius = tf.cast(self.ball.radius, x.dtype)
        active = [abs(radius - at) < 1e-6 for at in self.moves_at]
        hit = tf.cast(tf.reduce_any([tf.constant(False), *active]), x.dtype)
        return x + hit * size * tf.constant([[-1.0, 1.0, 0.0]])

    def at_radius(self, radius, step_size=None):
        return dataclasses.replace(self, ball=kr.LinfBall(radius))


def shown(report: Report) -> list[float]:
    """Every accuracy of a report inside its ball."""
    assert report.contradictions == ()
    inside = [attack.accuracy for attack in report.attacks]
    for curve in report.curves:
        points = zip(curve.radii, curve.accuracies, strict=True)
        inside += [accuracy for radius, accuracy in points if radius <= report.radius]
    results = report.detection.results if report.detection else ()
    return inside + [result.accuracy for result in results]


def check_found(report: Report, by: str, images: int = FOOLED) -> None:
    assert report.worst_case_accuracy == pytest.approx(1 - images / 20)
    assert report.worst_case_found_by == {by: images}
    assert report.worst_case_accuracy <= min(shown(report)) + 1e-9
    assert np.sum(report.confusion_adversarial) - report.confusion_adversarial[0][0] == images
    page = html_page([report])
    for text in (markdown_page([report], "Title"), page):
        assert f"{by} ({images} image" in text.replace("\\", "")
        assert f"{100 - 5 * images:.1f}% are still classified correctly" in text
    assert Report.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["worst_case_found_by"] == {by: images}


def test_the_adaptive_attack_counts():
    detector = kr.detection.EntropyDetector(pixels, threshold=0.6)
    report = evaluate(pixels, (X, Y), Still(), detector=detector)
    adaptive = report.detection.adaptive
    assert adaptive.accuracy == pytest.approx(1 - FOOLED / 20)
    check_found(report, adaptive.name)
    assert f"| {adaptive.name} | 55.0%" in markdown_page([report], "Title")
    assert "an accuracy of 55.0% is left" in html_page([report])


@pytest.mark.parametrize("given", [True, pytest.param("results", marks=pytest.mark.slow)])
def test_the_sanity_checks_count(given):
    """Square alone fools a model whose gradients lead the wrong way."""
    checks = given
    if given == "results":
        checks = list(sanity_checks(masked, (X, Y), BALL, only=["gradient-free attacks"]))
    report = evaluate(masked, (X, Y), kr.attacks.pgd(BALL, 3), checks=checks)
    assert report.attacks[0].accuracy == 1.0
    assert report.worst_case_accuracy < 0.6
    names = set(report.worst_case_found_by)
    assert "check by Square" in names and "PGD-3" not in names
    assert sum(report.worst_case_found_by.values()) == round(20 - 20 * report.worst_case_accuracy)
    assert report.worst_case_accuracy <= min(shown(report))
    assert "check by Square" in html_page([report])


def test_a_check_in_a_larger_ball_counts_what_lies_inside():
    """The check of other radii finds images at twice the radius, some inside the report's."""
    checks = sanity_checks(pixels, (X, Y), kr.LinfBall(0.2), only=["one step"], steps=2)
    report = evaluate(pixels, (X, Y), Still(), checks=checks)
    assert report.worst_case_accuracy == 1.0  # found at 0.2 exactly
    small = sanity_checks(pixels, (X, Y), kr.LinfBall(0.05), only=["one step"], steps=2)
    report = evaluate(pixels, (X, Y), Still(), checks=small)
    assert report.worst_case_accuracy == pytest.approx(1 - (MARGINS < 0.1).mean())


def test_checks_of_other_images_or_another_model_count_for_nothing():
    checks = sanity_checks(pixels, (X + 0.01, Y), BALL, only=["one step"], steps=2)
    assert evaluate(pixels, (X, Y), Still(), checks=checks).worst_case_accuracy == 1.0
    checks = sanity_checks(pixels, (X, Y), BALL, only=["one step"], steps=2)
    certain = lambda x: {"logits": tf.one_hot(tf.zeros_like(x[:, 0], tf.int32), 3)}  # noqa: E731
    assert evaluate(certain, (X, Y), Still(), checks=checks).worst_case_accuracy == 1.0


def test_a_smaller_radius_of_the_curve_counts():
    report = evaluate(pixels, (X, Y), Still(moves_at=(0.05,)), radii=[0.05, 0.1, 0.2])
    fooled = int((MARGINS < 0.1).sum())
    check_found(report, "still at radius 0.05", fooled)
    assert report.curves[0].accuracies == (1.0, *[pytest.approx(1 - fooled / 20)] * 3)


def test_a_larger_radius_of_the_curve_counts_where_the_image_lies_inside():
    attack = Still(moves_at=(0.2,), size=0.1)
    report = evaluate(pixels, (X, Y), attack, radii=[0.05, 0.1, 0.2])
    check_found(report, "still at radius 0.2")
    left = pytest.approx(1 - FOOLED / 20)
    assert report.curves[0].accuracies == (1.0, 1.0, left, left)


def test_the_worst_case_counts_in_the_curve():
    """The adaptive attack fools at 0.1 what the attack of the curve does not."""
    detector = kr.detection.EntropyDetector(pixels, threshold=0.6)
    report = evaluate(pixels, (X, Y), Still(), radii=[0.05, 0.1, 0.2], detector=detector)
    left = report.worst_case_accuracy
    assert left < 0.6 and report.curves[0].accuracies == (1.0, 1.0, left, left)


def test_a_weaker_attack_counts_in_the_curve_of_the_strongest():
    rows = np.arange(20)[:, None] % 2 == 0
    x = np.where(rows, X, X[:, [0, 2, 1]]).astype("float32")
    attacks = {"strong": Swap(first=True), "weak": Swap(first=False)}
    report = evaluate(pixels, (x, Y), attacks, radii=[0.1])
    assert report.worst_case_accuracy == report.curves[0].accuracies[1] == 1 - FOOLED / 20
    assert set(report.worst_case_found_by) == {"strong", "weak"}


@dataclasses.dataclass(frozen=True)
class Swap(Still):
    """Raises one of the other pixels only."""

    first: bool = True

    def craft(self, forward, x, y, seed, targets):
        return x + self.ball.radius * tf.constant([[-1.0, self.first, not self.first]], x.dtype)


def test_a_transfer_attack_counts():
    attack = kr.attacks.transfer(kr.attacks.pgd(BALL, 3), pixels, "b")
    report = evaluate(masked, (X, Y), {"white-box": kr.attacks.pgd(BALL, 3), "from b": attack})
    check_found(report, "from b")


def test_misclassified_images_and_images_out_of_bounds_are_not_found():
    x = np.concatenate([X, X[:, [1, 0, 2]]])
    report = evaluate(pixels, (x, np.zeros(40, int)), kr.attacks.fgsm(BALL), radii=[0.1])
    assert report.clean_accuracy == 0.5
    assert sum(report.worst_case_found_by.values()) == FOOLED
    assert report.curves[0].accuracies == (0.5, report.worst_case_accuracy)


def test_a_resumed_evaluation_counts_the_same(tmp_path):
    detector = kr.detection.EntropyDetector(pixels, threshold=0.6)
    first, second = (
        evaluate(
            pixels, (X, Y), kr.attacks.fgsm(BALL), detector=detector, radii=[0.05],
            resume_dir=tmp_path,
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.worst_case_found_by == second.worst_case_found_by
    assert first.curves == second.curves


@pytest.fixture(scope="module")
def found():
    detector = kr.detection.EntropyDetector(masked, threshold=0.6)
    attack = kr.attacks.pgd(BALL, 3)
    model = lambda x: pixels(x)  # noqa: E731
    report = evaluate(model, (X, Y), attack, detector=detector, checks=True)
    return report, make_card(model, (X, Y), attack, report)


@pytest.mark.slow
def test_the_sample_runs_what_the_report_ran(found):
    report, card = found
    again = Card.from_json(card.to_json())
    assert list(again.attacks) == ["PGD-3", report.detection.adaptive.name]
    assert again.report.worst_case_found_by == report.worst_case_found_by
    measured = again.reevaluate(pixels, (X, Y))
    assert measured.checks and again.differences(measured) == ()
    assert measured.worst_case_accuracy == pytest.approx(report.worst_case_accuracy)


@pytest.mark.slow
def test_verification_finds_what_only_a_check_finds(found):
    """The card of a model that is masked now: its worst case comes from Square alone."""
    _, card = found
    measured = card.reevaluate(masked, (X, Y))
    assert measured.attacks[0].accuracy == 1.0 and measured.worst_case_accuracy < 0.6


@pytest.mark.slow
def test_a_headline_above_a_figure_of_the_card_is_refuted(found):
    _, card = found
    better = dataclasses.replace(card.report, worst_case_accuracy=0.65)
    said = dataclasses.replace(card, report=better).differences(card.sample)
    assert any("The worst case is 0.65, but the accuracy under PGD-3, adaptive" in s for s in said)
    assert any("images are named as fooled" in s for s in said)


def test_what_ran_on_all_images_only_may_lower_the_worst_case():
    attack = Still(moves_at=(0.05,))
    report = evaluate(pixels, (X, Y), attack, radii=[0.05])
    sample = evaluate(pixels, (X, Y), attack)
    card = Card(report, sample, {})
    assert report.worst_case_accuracy < sample.worst_case_accuracy
    assert not [s for s in card.differences(sample) if s.startswith("Worst case")]


def test_what_other_evaluations_collected_counts():
    detector = kr.detection.EntropyDetector(pixels, threshold=0.6)
    found = []
    attacks = {"at 0.1": Still(moves_at=(0.1,)), "at 0.3": kr.attacks.fgsm(kr.LinfBall(0.3))}
    kr.evaluation.score_attacks(pixels, (X, Y), detector, attacks, collect=found)
    report = evaluate(pixels, (X, Y), Still(), found=found)
    check_found(report, "at 0.1")  # what lies outside of the ball does not count
    assert evaluate(pixels, (X, Y), Still()).worst_case_accuracy == 1.0


def test_what_was_crafted_on_a_member_counts():
    inputs = keras.Input((3,))
    members = [keras.Model(inputs, {"logits": 9.0 * inputs, "features": inputs}, name=name)
               for name in "ab"]  # fmt: skip
    ensemble = kr.models.ensemble(members)
    found = []
    kr.evaluation.transfer(ensemble, (X, Y), kr.attacks.fgsm(BALL), collect=found)
    report = evaluate(ensemble, (X, Y), Still(), found=found)
    assert report.worst_case_accuracy == pytest.approx(1 - FOOLED / 20)
    assert list(report.worst_case_found_by) == ["FGSM, crafted on member_1"]
