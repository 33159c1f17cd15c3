"""`evaluate` on a model whose robustness is a formula.

The model's logits are twice its two pixels. With the label 0 and the margin `m = x_0 - x_1 > 0`, an
Linf attack of radius r lowers x_0 and raises x_1 by r each, so the image falls where `2 r > m`.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.base import Attack, Round
from keras_robust.evaluation.detector_attacks import adaptive_attack
from keras_robust.evaluation.evaluator import describe

MARGINS = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, -0.1], np.float32)
X = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2], axis=1)
Y = np.zeros(len(X), np.int64)
BALL = kr.LinfBall(0.1)


def pixels(x):
    return {"logits": 2 * x}


def robust_share(radius):
    return np.mean(MARGINS - 2 * radius > 0)


def test_accuracies_are_the_formula():
    report = kr.evaluation.evaluate(
        pixels, (X, Y), [kr.attacks.pgd(BALL, 5), kr.attacks.fgsm(BALL)]
    )
    assert report.clean_accuracy == pytest.approx(6 / 7)
    assert [a.name for a in report.attacks] == ["PGD-5", "FGSM"]
    assert [a.accuracy for a in report.attacks] == pytest.approx([robust_share(0.1)] * 2)
    assert report.worst_case_accuracy == pytest.approx(4 / 7)
    assert [a.samples_attacked for a in report.attacks] == [6, 6]  # not the misclassified one
    assert report.samples == 7 and report.radius == 0.1


def test_worst_case_is_worse_than_each_attack():
    """One attack fools images with an even number, the other those divisible by three."""
    x = np.stack([np.linspace(0.55, 0.6, 12), np.full(12, 0.5)], 1).astype(np.float32)
    attacks = {"even": Picky(BALL, 2), "third": Picky(BALL, 3)}
    report = kr.evaluation.evaluate(pixels, (x, np.zeros(12, int)), attacks)
    assert [a.accuracy for a in report.attacks] == pytest.approx([6 / 12, 8 / 12])
    assert report.worst_case_accuracy == pytest.approx(4 / 12)
    assert np.sum(report.confusion_adversarial) == 12
    assert report.confusion_adversarial[0] == (4, 8)


def test_curve_is_the_formula_and_begins_with_clean_accuracy():
    radii = [0.2, 0.1, 0.0, 0.3, 0.1]
    report = kr.evaluation.evaluate(pixels, (X, Y), kr.attacks.fgsm(BALL), radii=radii)
    (curve,) = report.curves
    assert curve.radii == (0.0, 0.1, 0.2, 0.3)
    assert curve.accuracies == pytest.approx([robust_share(radius) for radius in curve.radii])


def test_rounds_run_on_survivors_only():
    seen = []
    attack = Halving(BALL, seen)
    x = np.stack([np.linspace(0.55, 0.6, 8), np.full(8, 0.5)], 1).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros(8, int))).batch(8)
    kr.evaluation.evaluate(pixels, data, attack)
    assert seen == [8, 4, 2]


def test_a_padded_batch_counts_each_image_once():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    report = kr.evaluation.evaluate(pixels, data, kr.attacks.fgsm(BALL))
    assert report.samples == 7
    assert report.worst_case_accuracy == pytest.approx(4 / 7)


@pytest.mark.parametrize("survivors", [6, 2])
def test_survivors_are_attacked_without_padding(survivors):
    """One trace serves batches of any size."""
    given, traced = set(), set()

    def forward(x):
        traced.add(x.shape[0])
        tf.numpy_function(lambda x: np.int64(given.add(len(x)) or 0), [x], tf.int64)
        return {"logits": x}

    margins = np.where(np.arange(8) < survivors, 0.3, 0.1).astype(np.float32)  # FGSM takes 0.2
    data = tf.data.Dataset.from_tensors(
        (np.stack([0.5 + margins / 2, 0.5 - margins / 2], 1), np.zeros(8, int))
    )
    attack = kr.attacks.worst_of(*[kr.attacks.fgsm(BALL)] * 2)
    assert kr.evaluation.evaluate(forward, data, attack).worst_case_accuracy == survivors / 8
    assert given == {8, survivors} and traced == {None}


def test_limit_and_same_seed_same_report():
    first, second = (
        kr.evaluation.evaluate(pixels, (X, Y), kr.attacks.pgd(BALL, 3), limit=5, seed=3)
        for _ in range(2)
    )
    assert first.samples == 5
    drop = [dataclasses.replace(a, seconds=0) for a in first.attacks]
    assert drop == [dataclasses.replace(a, seconds=0) for a in second.attacks]
    np.testing.assert_array_equal(first.confusion_adversarial, second.confusion_adversarial)


def test_a_robust_model_is_evaluated_by_its_classifier(tiny_classifier, tiny_batch):
    x, y = tiny_batch
    model = kr.defenses.pgd_at(tiny_classifier, BALL, steps=1)
    attack = kr.attacks.pgd(BALL, 2)
    reports = [kr.evaluation.evaluate(m, (x, y), attack) for m in (model, tiny_classifier)]
    assert reports[0].worst_case_accuracy == reports[1].worst_case_accuracy
    assert reports[0].examples is not None


def test_detection_is_measured_on_clean_and_attacked_images():
    """The score is the first pixel: lower on attacked images."""
    detector = FirstPixel(threshold=0.6, false_alarm_rate=0.2)
    report = kr.evaluation.evaluate(pixels, (X, Y), kr.attacks.fgsm(BALL), detector=detector)
    detection = report.detection
    assert detection.measured_false_alarm_rate == pytest.approx(np.mean(X[:, 0] > 0.6))
    attacked = X[:6, 0] - 0.1
    oblivious = detection.oblivious
    assert oblivious.detection_rate == pytest.approx(np.mean(attacked > 0.6))
    np.testing.assert_allclose(oblivious.scores, attacked, rtol=1e-5)
    wrong = attacked < X[:6, 1] + 0.1
    assert oblivious.evasion_rate == pytest.approx(np.mean(wrong & (attacked <= 0.6)))
    assert oblivious.auc == pytest.approx(kr.detection.auc(X[:, 0], attacked))
    assert detection.adaptive is None and detection.results == (oblivious,)
    assert any("does not name its score" in warning for warning in report.warnings)


def test_an_adaptive_attack_lowers_the_score():
    """Three pixels are three logits: (0.6, 0.4, 0.4) times nine.

    Away from the label the cross-entropy raises both other logits equally, which leaves the model
    undecided between the two: an entropy of log 2 at least. The adaptive attack raises only one.
    """
    x, y = np.tile(np.float32([[0.6, 0.4, 0.4]]), (20, 1)), np.zeros(20, int)

    def model(x):
        return {"logits": 9.0 * x}

    attack = kr.attacks.pgd(kr.LinfBall(0.4), 20)
    detector = kr.detection.EntropyDetector(model, threshold=0.6, false_alarm_rate=0.05)
    detection = kr.evaluation.evaluate(model, (x, y), attack, detector=detector).detection
    assert detection.oblivious.detection_rate == 1.0 and detection.oblivious.evasion_rate == 0.0
    assert min(detection.oblivious.scores) >= np.log(2)
    assert detection.adaptive.name == "PGD-20, adaptive (detector-aware)"
    assert detection.adaptive.detection_rate == 0.0 and detection.adaptive.evasion_rate == 1.0


def test_the_adaptive_attack_is_made_from_the_longest_one():
    ball = kr.LinfBall(0.1)
    attacks = {
        "targets": kr.attacks.multi_targeted(kr.attacks.pgd(ball, 90, targeted=True)),
        "restarts": kr.attacks.restarts(kr.attacks.pgd(ball, 30, initialization="gaussian"), 2),
        "BIM": kr.attacks.bim(ball, 25),
        "PGD": kr.attacks.pgd(ball, 20),
    }
    attack = adaptive_attack(attacks, "entropy")
    assert attack.steps == 30 and attack.objective == kr.objectives.AdaptiveObjective("entropy")
    assert attack.initialization == kr.initialization.Gaussian()
    attack = adaptive_attack({"BIM": attacks["BIM"]}, "entropy")
    assert attack.initialization == kr.initialization.Uniform()  # not from the image itself


@pytest.mark.parametrize(
    ("forward", "attack", "text"),
    [
        (lambda x: {"logits": tf.nn.softmax(x)}, kr.attacks.pgd(BALL, 2), "look like probabil"),
        (lambda x: {"logits": tf.where(x > 0.7, np.nan, x)}, kr.attacks.pgd(BALL, 2), "finite"),
        (pixels, kr.attacks.fgsm(BALL), "one-step"),
    ],
)
def test_warns_of_misleading_results(forward, attack, text):
    report = kr.evaluation.evaluate(forward, (X, Y), attack)
    assert any(text in warning for warning in report.warnings)


def test_no_warning_without_a_reason():
    assert not kr.evaluation.evaluate(pixels, (X, Y), kr.attacks.pgd(BALL, 2)).warnings


def test_an_attack_that_leaves_its_ball_is_refused():
    with pytest.raises(ValueError, match="far left its threat model: distance 0.2 for radius 0.1"):
        kr.evaluation.evaluate(pixels, (X, Y), {"far": Leaving(BALL, 0.2)})
    with pytest.raises(ValueError, match="left its threat model: distance nan"):
        kr.evaluation.evaluate(pixels, (X, Y), {"far": Leaving(BALL, float("nan"))})


@pytest.mark.parametrize(
    ("data", "attacks", "options", "text"),
    [
        ((X, Y), [], {}, "expected an attack such as"),
        ((X, Y), ["pgd"], {}, "expected an attack such as"),
        (
            (X, Y),
            [kr.attacks.fgsm(BALL), kr.attacks.fgsm(kr.L2Ball(0.1))],
            {},
            "different balls: .*L2Ball",
        ),
        ((X, Y + 2), kr.attacks.fgsm(BALL), {}, "Labels range from 2 to 2; expected 0 to 1"),
        ((X, Y[:3]), kr.attacks.fgsm(BALL), {}, "7 images and 3 labels"),
        ((X, Y), kr.attacks.fgsm(BALL), {"limit": 0}, "limit is 0"),
        (tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])), kr.attacks.fgsm(BALL), {}, "is empty"),
    ],
)
def test_bad_arguments(data, attacks, options, text):
    with pytest.raises(ValueError, match=text):
        kr.evaluation.evaluate(pixels, data, attacks, **options)


def test_misspelled_keywords_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'author'"):
        kr.evaluation.evaluate(pixels, (X, Y), kr.attacks.fgsm(BALL), author="x")


@pytest.mark.parametrize(
    ("detector", "error", "text"),
    [
        (0.5, TypeError, "detector is 0.5; expected a .*Detector"),
        (kr.detection.EntropyDetector(pixels), ValueError, "The detector has no threshold; call"),
    ],
)
def test_detectors_are_checked_before_anything_is_attacked(detector, error, text):
    def model(x):
        raise AssertionError("the model was called")

    with pytest.raises(error, match=text):
        kr.evaluation.evaluate(model, (X, Y), kr.attacks.fgsm(BALL), detector=detector)


def test_a_report_has_the_names_it_was_given():
    words = {"dataset": "pixels", "defense": "none", "class_names": ("a", "b"), "command": "c"}
    attack = kr.attacks.fgsm(BALL)
    report = kr.evaluation.evaluate(pixels, (X, Y), attack, model_name="identity", **words)
    assert report.model == "identity"
    assert {name: getattr(report, name) for name in words} == words


def test_attacks_of_one_name_are_numbered():
    attacks = [kr.attacks.pgd(BALL, 2), kr.attacks.pgd(BALL, 2, loss="margin")]
    report = kr.evaluation.evaluate(pixels, (X, Y), attacks)
    assert [a.name for a in report.attacks] == ["PGD-2", "PGD-2 (2)"]


def test_a_ball_of_the_users_own(own_ball):
    report = kr.evaluation.evaluate(
        pixels, (X, Y), kr.attacks.pgd(own_ball(0.1), 5), radii=[0.2], limit=6
    )
    assert report.threat_model == "OwnBall(0.1)" and report.radius == 0.1
    assert report.worst_case_accuracy == pytest.approx(np.mean(MARGINS[:6] > 0.2))
    assert report.curves[0].accuracies[-1] == pytest.approx(np.mean(MARGINS[:6] > 0.4))


def test_describe_names_every_setting():
    mim = kr.attacks.mim(BALL, 3, 0.05, decay=0.9)
    attack = kr.attacks.restarts(kr.attacks.worst_of(mim, kr.attacks.pgd(BALL)), 2)
    assert "MomentumStep(0.05, 0.9)" in describe(attack)
    assert "count 2" in describe(attack)


@dataclasses.dataclass(frozen=True)
class Scripted(Attack):
    """A base for attacks with a script instead of a gradient."""

    ball: object
    name = "scripted"

    def at_radius(self, radius, step_size=None):
        return dataclasses.replace(self, ball=kr.LinfBall(radius))


@dataclasses.dataclass(frozen=True)
class Picky(Scripted):
    """Fools every n-th image of the batch, counted from 0; notes how many images it was given."""

    every: int
    seen: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def _note(self, x):
        self.seen.append(len(np.unique(x, axis=0)))  # the last batch is padded with copies
        return np.int64(0)

    def craft(self, forward, x, y, seed, targets):
        tf.numpy_function(self._note, [x], tf.int64)
        hit = tf.cast(tf.range(tf.shape(x)[0]) % self.every == 0, x.dtype)[:, None]
        return self.ball.project(x + hit * tf.constant([[-0.1, 0.1]]), x)


@dataclasses.dataclass(frozen=True)
class Leaving(Scripted):
    """Moves every pixel by the same amount, whatever the ball says."""

    by: float

    def craft(self, forward, x, y, seed, targets):
        return x - self.by


@dataclasses.dataclass(frozen=True)
class Halving(Scripted):
    """Three rounds, each of which fools every second image that it is given."""

    seen: list = dataclasses.field(hash=False, compare=False)

    def rounds(self, classes):
        return tuple(Round(Picky(self.ball, 2, self.seen), fold) for fold in range(3))

    def craft(self, forward, x, y, seed, targets):
        raise AssertionError("the suite runs the rounds")


@dataclasses.dataclass(frozen=True)
class FirstPixel:
    """A detector of the user's own, with a score that has no name."""

    threshold: float
    false_alarm_rate: float
    scored_by = None
    score_title = "first pixel"

    def score(self, x):
        return tf.convert_to_tensor(x)[:, 0]
