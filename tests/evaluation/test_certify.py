"""Certified accuracy, and adversarial images that contradict it.

The model's logits are the two pixels of an image, of margins 0.01 k, k = 1 to 40, and a last image
is misclassified. At the radius r in Linf the margin becomes less by 2 r, so that bounds which are
exact certify the margins above 2 r, and FGSM fools those below.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import Card, Report, certify, evaluate, make_card
from keras_robust.evaluation.certify import certify_again
from keras_robust.evaluation.rendering import figures, tables, wording
from keras_robust.evaluation.rendering.markdown import markdown_page
from keras_robust.evaluation.rendering.page import html_page
from keras_robust.models.smoothed import Certificates

MARGINS = np.append(0.01 * np.arange(1, 41), -0.105)
X = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2], 1).astype("float32")
Y = np.zeros(41, int)
BALL = kr.LinfBall(0.0975)
FGSM = kr.attacks.fgsm(BALL)
RADII = (0.0475, 0.1475)


def pixels(x):
    return {"logits": tf.convert_to_tensor(x)}


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact margins of the model in Linf, with `excess` added: a bug."""

    ball: kr.LinfBall = BALL
    excess: float = 0.0
    name: ClassVar[str] = "exact"

    def at_radius(self, radius):
        return dataclasses.replace(self, ball=kr.LinfBall(radius))

    def __call__(self, classifier, x, y):
        z = classifier(x)["logits"]
        margins = tf.gather(z, y, batch_dims=1)[:, None] - z - 2 * self.ball.radius + self.excess
        return margins * (1 - tf.one_hot(y, 2))


@pytest.fixture(scope="module")
def linear():
    """The model of pixels as a Keras model."""
    x = keras.Input((2,))
    z = keras.layers.Dense(2, kernel_initializer="identity")(x)
    return keras.Model(x, {"logits": z, "features": x})


@pytest.fixture(scope="module")
def proof():
    return certify(pixels, (X, Y), BALL, Exact(), radii=RADII)


@pytest.fixture(scope="module")
def report(proof):
    options = {"certificates": [proof], "radii": RADII, "seed": 3, "defense": "none"}
    return evaluate(pixels, (X, Y), FGSM, **options)


def certified(radii):
    """The margins of the images that are certified at each radius, in closed form."""
    return [int((2 * radius < MARGINS).sum()) for radius in radii]


def test_radii_of_a_linear_model_in_closed_form(proof, linear):
    lines = []
    options = {"radii": RADII, "progress": lines.append}
    for found in (proof, certify(linear, (X, Y), BALL, "ibp", **options)):
        assert found.radii == (0.0475, 0.0975, 0.1475)
        assert [sum(found.certified_at(r)) for r in found.radii] == [31, 21, 11]
        assert certified(found.radii) == [31, 21, 11]
        assert found.counts == {"images": 41, "correct": 40, "certified": 21}
        assert found.certified_radii[0] == 0.0 and found.certified_radii[-1] is None
        assert found.refuted == () and found.threat_model.startswith("LinfBall, radius 0.0975")
    assert (found.name, found.method, found.settings) == ("IBP", "ibp", {})
    assert lines[0] == "IBP at radius 0.1475: 26.8% certified"
    assert lines[-1].startswith("IBP: certified accuracy 0.5122, clean accuracy 0.9756 (")


def test_batches_do_not_change_the_result(proof):
    data = tf.data.Dataset.from_tensor_slices((X, tf.one_hot(Y, 2))).batch(16)
    found = certify(pixels, data, BALL, Exact(), radii=RADII)
    assert found.certified_radii == proof.certified_radii
    assert certify(pixels, data, BALL, Exact(), limit=20).samples == 20


def test_long_certifications_say_where_they_are(monkeypatch):
    module = sys.modules["keras_robust.evaluation.certify"]  # the package has the function
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    lines = []
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    certify(pixels, data, BALL, Exact(), progress=lines.append)
    assert lines[:3] == [
        "exact at radius 0.0975: 16 of 41 images",
        "exact at radius 0.0975: 32 of 41 images",
        "exact at radius 0.0975: 51.2% certified",
    ]


def test_an_image_is_certified_up_to_the_distance_that_evaluations_count_as_inside():
    """Attacks may be off by the rounding of a projection; proofs cover these images as well."""
    x = np.array([[0.5 + 0.1 + 1e-6, 0.5 - 0.1]], "float32")  # of margin 0.2 + 1e-6
    assert certify(pixels, (x, [0]), kr.LinfBall(0.1), Exact()).certified == (False,)
    assert certify(pixels, (x, [0]), kr.LinfBall(0.0999), Exact()).certified == (True,)


def test_bounds_that_are_not_monotone_give_a_monotone_curve():
    class Odd(Exact):
        """Certifies at the largest radius only."""

        name = "odd"

        def at_radius(self, radius):
            return Odd(kr.LinfBall(radius), tf.where(radius > 0.14, 9.0, -9.0))

    found = certify(pixels, (X, Y), BALL, Odd(), radii=RADII)
    assert found.curve().accuracies == (40 / 41,) * 4


def test_nan_is_not_certified():
    x = X.copy()
    found = certify(lambda x: {"logits": x * tf.constant([[1.0], [np.nan]])[:1]}, (x[:2], Y[:2]),
                    BALL, Exact(excess=1.0))  # fmt: skip
    assert found.counts["certified"] == 2
    found = certify(lambda x: {"logits": x * np.nan}, (x, Y), BALL, Exact())
    assert found.counts == {"images": 41, "correct": 0, "certified": 0}


class Smoothed:
    """Stands for a smoothed classifier: the exact radius of each image, in L2."""

    sigma = 0.25

    def certify(self, x, n=1000, *, n0=100, alpha=0.001, batch_size=10, seed=0, verbose=0):
        margins = (x[:, 0] - x[:, 1]).astype(float)
        classes = np.where(np.abs(margins) < 0.025, -1, np.where(margins > 0, 0, 1))
        radii = np.where(classes < 0, 0.0, np.abs(margins) / np.sqrt(2))
        return Certificates(classes, radii, radii)


@pytest.fixture(scope="module")
def smooth():
    ball = kr.L2Ball(0.0975)
    return certify(Smoothed(), (X, Y), ball, "smoothing", radii=[0.2], n=500, seed=7)


def test_smoothing_abstains_and_has_a_radius_of_each_image(smooth):
    """It abstains at the margins 0.01 and 0.02; 0.0975 sqrt(2) is 0.1379."""
    assert smooth.counts == {"images": 41, "correct": 38, "certified": 27}
    assert smooth.certified_radii[:2] == (None, None)
    assert smooth.certified_radii[9] == pytest.approx(0.1 / np.sqrt(2), rel=1e-5)
    assert smooth.curve().accuracies == (38 / 41, 27 / 41, 12 / 41)
    assert smooth.name == "smoothing, sigma 0.25" and smooth.smoothed
    assert smooth.settings == {"n": 500, "n0": 100, "alpha": 0.001, "seed": 7, "sigma": 0.25}


def test_smoothing_of_a_real_classifier():
    """Of a linear classifier the smoothed radius is margin / sqrt(2), of which samples see less."""
    model = kr.models.smoothed(pixels, 0.1)
    x, y = X[[4, 39]], Y[:2]
    found = certify(model, (x, y), kr.L2Ball(0.1), "smoothing", n=1000, seed=1)
    near, far = found.certified_radii
    assert near is None or near <= 0.05 / np.sqrt(2)
    assert 0.15 < far <= 0.4 / np.sqrt(2)
    assert found.counts["certified"] == 1
    again = certify(model, (x, y), kr.L2Ball(0.1), "smoothing", n=1000, seed=1)
    assert again.certified_radii == found.certified_radii


def test_what_cannot_be_certified_is_refused(linear):
    data = X, Y
    with pytest.raises(TypeError, match="Certification by randomized smoothing is defined in L2"):
        certify(Smoothed(), data, BALL, "smoothing")
    with pytest.raises(TypeError, match=r"expected a smoothed classifier .*models.smoothed\("):
        certify(linear, data, kr.L2Ball(0.1), "smoothing")
    with pytest.raises(ValueError, match="method smoothing of certification got an unexpected"):
        certify(Smoothed(), data, kr.L2Ball(0.1), "smoothing", steps=3)
    with pytest.raises(ValueError, match=r"no method of certification 'ipb'.* mean 'ibp'"):
        certify(linear, data, BALL, "ipb")
    with pytest.raises(ValueError, match="method ibp of certification got an unexpected .*'n'"):
        certify(linear, data, BALL, n=3)
    with pytest.raises(TypeError, match="ball is 0.1; expected a threat model"):
        certify(linear, data, 0.1)
    with pytest.raises(TypeError):
        certify(pixels, data, BALL)  # a function has no layers
    with pytest.raises(ValueError, match="values from .* expected"):
        certify(linear, (X + 1, Y), BALL)
    with pytest.raises(ValueError, match="Labels run from 0 to 2; expected 0 to 1"):
        certify(linear, (X, np.append(Y[1:], 2)), BALL)
    with pytest.raises(ValueError, match="radii is -1"):
        certify(linear, data, BALL, radii=[-1])
    x = keras.Input((2,))
    z = keras.layers.Dense(2)(keras.layers.Softmax(name="odd")(x))
    with pytest.raises((TypeError, ValueError), match="odd"):
        certify(keras.Model(x, {"logits": z, "features": x}), data, BALL)


# In a report.


def test_clean_is_at_least_the_worst_case_and_that_at_least_certified(report, proof):
    """FGSM fools all that are not certified: of a linear model both are exact."""
    assert report.certificates == (proof,) and report.contradictions == report.errors == ()
    assert report.clean_accuracy == 40 / 41
    assert report.worst_case_accuracy == proof.certified_accuracy == 21 / 41
    assert report.unproven == 0
    (attacked, proven) = report.curves_and_certificates
    assert attacked == report.curves[0] and proven.radii == (0.0, 0.0475, 0.0975, 0.1475)
    assert proof.curve(attacked.radii).accuracies == attacked.accuracies


def test_images_between_attack_and_proof():
    """Bounds that are too low by 0.05 lose five more images, of margins 0.2 to 0.24."""
    loose = certify(pixels, (X, Y), BALL, Exact(excess=-0.05))
    found = evaluate(pixels, (X, Y), FGSM, certificates=loose)
    assert found.contradictions == () and found.unproven == 5
    (table,) = tables.certificates(found)
    assert [(row[0].text, row[1].text, row[2].text) for row in table.rows] == [
        ("Clean", "97.6%", "40"),
        ("Worst case", "51.2%", "21"),
        ("Certified by exact", "39.0%", "16"),
        ("Neither broken nor proven", "12.2%", "5"),
    ]
    assert "Proofs by exact on 41 images, with the 95% interval" in table.caption
    assert "5 images are neither broken nor proven" in wording.summaries([found])[0]
    # An image that one of several methods certifies is proven.
    other = dataclasses.replace(
        loose, name="other", certified_radii=(*(0.0,) * 19, *(0.0975,) * 3, *(0.0,) * 18, None)
    )
    found = dataclasses.replace(found, certificates=(loose, other))
    assert (found.certified_count, found.unproven) == (19, 2)
    text = "exact certifies 39.0% and other certifies 7.3%: no perturbation"
    assert text in wording.summaries([found])[0]
    counts = [row[2].text for row in tables.certificates(found)[0].rows]
    assert counts == ["40", "21", "16", "3", "2"]
    assert found.curves_and_certificates == ()  # one radius is not a curve


def test_a_certified_image_that_is_broken_is_an_error_of_the_library():
    """Bounds that are too high by 0.05: the margins 0.15 to 0.19 are certified and fooled."""
    wrong = certify(pixels, (X, Y), BALL, Exact(excess=0.05))
    lines = []
    with pytest.warns(RuntimeWarning, match="ERROR: exact certifies 5 of the images"):
        found = evaluate(pixels, (X, Y), FGSM, certificates=[wrong], progress=lines.append)
    (result,) = found.certificates
    assert result.refuted == tuple(np.flatnonzero((MARGINS > 0.146) & (MARGINS < 0.194)))
    (error,) = found.errors
    assert found.contradictions == (error,) and error in lines
    assert "(such as number 14)" in error and "this is an error of keras_robust" in error
    assert f"\n\n> **{error}**\n\n" in markdown_page([found], "Title")
    page = html_page([found])
    assert 'role="alert"' in page and error in page
    assert Report.from_json(found.to_json()).errors == (error,)


def test_an_image_broken_at_another_radius_counts_too():
    """Certified at 0.1475 by mistake, and fooled at 0.0975."""
    wrong = certify(pixels, (X, Y), BALL, Exact(excess=0.1), radii=[0.1475])
    with pytest.warns(RuntimeWarning, match="ERROR"):
        found = evaluate(pixels, (X, Y), FGSM, certificates=[wrong])
    assert {14, 18} <= set(found.certificates[0].refuted)


def test_a_certified_image_that_is_misclassified_is_an_error_without_any_attack():
    wrong = certify(pixels, (X, Y), BALL, Exact(excess=1.0))
    assert wrong.refuted == (40,) and wrong.counts["certified"] == 40


def test_smoothing_is_compared_with_no_attack_on_the_classifier_inside(smooth):
    ball = kr.L2Ball(0.0975)
    broken = dataclasses.replace(smooth, certified_radii=(1.0,) * 41)
    for proof in (smooth, broken):
        found = evaluate(pixels, (X, Y), kr.attacks.fgsm(ball), certificates=[proof])
        assert found.contradictions == found.errors == ()
    found = dataclasses.replace(found, certificates=(smooth,))
    (table,) = tables.certificates(found)
    assert [row[0] for row in table.rows] == [
        ("Clean", "smoothed classifier"),
        ("Certified by smoothing, sigma 0.25", "within radius 0.0975"),
    ]
    assert "fails with probability at most 0.001" in table.caption
    text = markdown_page([found], "Title")
    assert "is certified on 65.9% of the images" in text and "**Smoothed classifier**" in text


def test_certificates_of_something_else_are_refused(proof):
    def refused(says, certificates, x=X, y=Y, attack=FGSM):
        with pytest.raises((TypeError, ValueError), match=says):
            evaluate(pixels, (x, y), attack, certificates=certificates)

    refused("names .*exact.*; expected one of each method", [proof, proof])
    refused("certificates contain 'ibp'; expected results of", ["ibp"])
    refused("exact certifies other predictions", [proof], X[:20], Y[:20])
    refused("expected the same model, data and limit", [proof], X[::-1], 1 - Y)
    refused("certifies in LinfBall, radius 0.0975", [proof], attack=kr.attacks.fgsm(kr.L2Ball(0.1)))


# On the page and in the card.


def test_pages_have_the_proofs(report, proof):
    text = markdown_page([report], "Title")
    assert "exact certifies 51.2%: no perturbation inside the threat model changes these" in text
    assert "| Radius | FGSM | Certified by exact |" in text and "| 0.1475 | 26.8% | 26.8% |" in text
    assert "- Certificate exact: method exact, radii 0.0475, 0.0975 and 0.1475" in text
    assert "**Certified accuracy**" in text and "**Neither broken nor proven**" in text
    picture = figures.radius([report])
    assert "Certified by exact on none: 97.6% at radius 0, 26.8% at 0.1475" in picture.alt
    assert "lies between the certified accuracy and the accuracy under attack" in picture.caption
    plain = dataclasses.replace(report, certificates=(), defense="plain")
    table = tables.comparison([plain, report])
    assert table.columns == ("Model", "Clean", "Worst case", "FGSM", "Certified by exact")
    assert [row[-1].text for row in table.rows] == [tables.ABSENT, "51.2%"]
    assert html_page([report]).count("Neither broken nor proven") == 2  # in the table and the terms
    assert "Certified" not in markdown_page([plain], "Title")


def test_reports_round_trip(report, smooth):
    both = dataclasses.replace(report, certificates=(*report.certificates, smooth))
    assert Report.from_json(both.to_json()) == both
    earlier = json.loads(report.to_json())
    del earlier["certificates"]
    earlier["schema_version"] = 3
    assert Report.from_json(json.dumps(earlier)).certificates == ()
    with pytest.raises(ValueError, match="exact certifies 41 images; expected 20, the samples"):
        dataclasses.replace(report, samples=20)


def test_a_card_holds_and_a_forged_one_does_not(linear):
    attack = kr.attacks.fgsm(BALL)
    proof = certify(linear, (X, Y), BALL, "ibp", radii=RADII)
    report = evaluate(linear, (X, Y), attack, certificates=[proof])
    card = make_card(linear, (X, Y), attack, report, sample=30)
    card = Card.from_json(card.to_json())
    (sample,) = card.sample.certificates
    assert (sample.samples, sample.radii, sample.counts["certified"]) == (30, proof.radii, 11)
    found = card.reevaluate(linear, (X, Y))
    assert card.differences(found) == ()
    assert "Certified by IBP" in card.to_markdown()
    # More of the sample is said to be certified, and of all images more than the attacks left.
    better = dataclasses.replace(sample, certified_radii=(0.0975,) * 30)
    forged = dataclasses.replace(
        card, sample=dataclasses.replace(card.sample, certificates=(better,))
    )
    said = forged.differences(found)
    assert said[0] == "Certified by IBP: 100.0% of the sample in the card, 36.7% now."
    all_of_them = dataclasses.replace(proof, certified_radii=(0.0975,) * 41)
    forged = dataclasses.replace(
        card, report=dataclasses.replace(card.report, certificates=(all_of_them,))
    )
    assert "which contradicts its sample" in forged.differences(found)[0]
    slightly = dataclasses.replace(
        proof, certified_radii=(*proof.certified_radii[:19], *(0.0975,) * 22)
    )
    forged = dataclasses.replace(
        card, report=dataclasses.replace(card.report, certificates=(slightly,))
    )
    (said,) = forged.differences(found)
    assert said == "The worst case is 0.5122, but 22 of 41 images are certified."
    # The error of the library is said, whatever else there is to say.
    broken = dataclasses.replace(found, certificates=(dataclasses.replace(sample, refuted=(3,)),))
    assert any("ERROR: IBP" in sentence for sentence in card.differences(broken, "other"))


def test_a_card_of_a_smoothed_classifier():
    ball = kr.L2Ball(0.1)
    attack, data = kr.attacks.fgsm(ball), (X[30:34], Y[30:34])
    proof = certify(kr.models.smoothed(pixels, 0.1), data, ball, "smoothing", n=200)
    report = evaluate(pixels, data, attack, certificates=[proof])
    with pytest.raises(ValueError, match="pass `smoothed=keras_robust.models.smoothed`"):
        make_card(pixels, data, attack, report)
    card = make_card(pixels, data, attack, report, smoothed=kr.models.smoothed)
    card = Card.from_json(card.to_json())
    found = card.reevaluate(pixels, data, smoothed=kr.models.smoothed)
    assert found.certificates[0].certified_radii == proof.certified_radii
    assert card.differences(found) == ()
    with pytest.raises(ValueError, match="pass `smoothed="):
        card.reevaluate(pixels, data)


def test_settings_of_a_damaged_card_are_refused(linear, proof):
    for change, says in (
        ({"method": "magic"}, "no method of certification 'magic'"),
        ({"method": "ibp", "settings": {"of": 3}}, "method ibp of certification got an unexpected"),
        ({"method": "smoothing", "settings": {"sigma": "much"}}, "sigma is 'much'; expected"),
        ({"method": "smoothing", "settings": {"sigma": 0.1}}, "again: Certification by .* in L2"),
    ):
        with pytest.raises(ValueError, match=says):
            certify_again(
                dataclasses.replace(proof, **change),
                linear,
                (X, Y),
                BALL,
                smoothed=kr.models.smoothed,
            )
