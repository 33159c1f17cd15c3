"""The files of a report: contents, escaping, and required packages."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation.rendering import wording
from keras_robust.evaluation.rendering.markdown import markdown_page
from keras_robust.evaluation.rendering.page import html_page, save_page
from keras_robust.evaluation.report import Report, load_reports
from keras_robust.evaluation.results.example_images import ExampleImages
from keras_robust.evaluation.results.parts import AttackResult

EVIL = '<script>alert("x")</script>'
NO_PLOTS = {
    "curves": (),
    "confusion_clean": None,
    "confusion_adversarial": None,
    "examples": None,
    "detection": None,
}
VOID = {"meta", "link", "img", "source", "br", "hr", "input"}


class Reader(html.parser.HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(make_report):
    """The page of the whole report, drawn once for all tests that only read it."""
    return html_page([make_report()])


@pytest.fixture
def standard(make_report):
    return make_report(
        defense="standard",
        clean_accuracy=0.98,
        worst_case_accuracy=0.02,
        attacks=(AttackResult("PGD-20", "20 steps of 0.02", 0.1, 0.02, 98, 3.0),),
        detection=None,
        warnings=(),
    )


def test_save_writes_three_files_and_nothing_else(make_report, tmp_path):
    report = make_report()
    assert report.save(tmp_path / "deep" / "down") == tmp_path / "deep" / "down"
    names = {path.name for path in (tmp_path / "deep" / "down").iterdir()}
    assert names == {"report.json", "report.md", "report.html"}
    assert load_reports(tmp_path / "deep" / "down") == (report,)
    assert Report.from_json((tmp_path / "deep/down/report.json").read_text("utf-8")) == report


def test_several_reports_make_one_page(make_report, standard, tmp_path):
    reports = (standard, make_report())
    save_page(reports, tmp_path, title="Both")
    assert load_reports(tmp_path / "report.json") == reports
    page = (tmp_path / "report.html").read_text("utf-8")
    reader = Reader(page)
    assert "<h1>Both</h1>" in page
    # One plot of all curves, and for each model its confusion and its examples; one has a detector.
    assert len(reader.all("img")) == 1 + 2 * 2 + 2
    assert "standard" in reader.text and "TRADES" in reader.text
    assert "different attacks" in reader.text
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert ids and len(set(ids)) == len(ids)


def test_saving_again_replaces_the_files(make_report, tmp_path):
    make_report(seed=1).save(tmp_path, formats=("json",))
    make_report(seed=2).save(tmp_path, formats="json")
    assert load_reports(tmp_path)[0].seed == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_file(make_report, tmp_path, monkeypatch):
    make_report(seed=1).save(tmp_path, formats=("json",))

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        make_report(seed=2).save(tmp_path, formats=("json",))
    assert load_reports(tmp_path)[0].seed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_bad_arguments_are_refused(make_report, tmp_path):
    with pytest.raises(ValueError, match="no reports"):
        save_page((), tmp_path)
    with pytest.raises(ValueError, match=r"Unknown formats \['pdf'\]"):
        make_report().save(tmp_path, formats=("pdf",))


def test_markdown_contains_everything(make_report, tmp_path):
    make_report().save(tmp_path, formats=("md",))
    text = (tmp_path / "report.md").read_text("utf-8")
    assert text.startswith("# Robustness of mlp (TRADES) on digits\n")
    assert "Of 100 test images of digits, mlp (TRADES) classifies 96.0% correctly." in text
    assert "50.0% are still classified correctly under each of 2 attacks (FGSM and PGD-20)" in text
    assert "> **Warning:** Only 100 images." in text
    failed = "At the largest radius the accuracy is 30.0%."
    assert f"> **Warning:** The sanity check “radius” failed. {failed}" in text
    assert f"- Steps (passed): More steps change nothing.\n- Radius (failed): {failed}" in text
    assert "| PGD-20 | 50.0% (40.4\N{EN DASH}59.6%) | 0.1 | 96 | 1 min 15 s |" in text
    assert "| 0.2 | 10.0% |" in text
    assert "| ant | 48 | 2 |" in text and "| bee | 25 | 25 |" in text
    assert wording.CAVEAT in text and "4.0% of the clean test images are flagged" in text
    area = "(area under the ROC curve 1.000, 0.900 to 1.000)"
    assert f"oblivious attacks, 90.0% of the attacked images are flagged {area} and 5.0%" in text
    assert "attack “PGD-20, adaptive (detector-aware)”, 25.0% of the attacked images" in text
    assert "70.0% are misclassified and not flagged. Expect the adaptive rates" in text
    assert "- Attack PGD-20: 20 steps of 0.02" in text
    assert "```sh\npython -m trainers.evaluate --run=runs/digits\n```" in text
    assert "- Versions: keras 3.15.1" in text
    assert "- In words: every pixel may change by at most 0.1, on a scale from 0 to 1" in text
    assert "- **Radius**:" in text


def test_markdown_compares_models(make_report, standard, tmp_path):
    save_page((standard, make_report(checks=())), tmp_path, formats=("md",))
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "| Model | Clean | Worst case | PGD-20 | FGSM |" in text
    assert re.search(r"\| standard \| 98\.0% .* \| 2\.0% .* \| 2\.0% .* \| . \|", text)
    assert "| Radius | standard, PGD-20 | TRADES, PGD-20 |" in text
    assert "> **Warning:** TRADES: Only 100 images.\n>\n> **Warning:** These reports" in text


def test_markdown_takes_names_for_names(make_report, tmp_path):
    report = make_report(class_names=("a|b", EVIL), command="echo ````", model="__init__")
    report.save(tmp_path, formats=("md",))
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "| a\\|b | 48 | 2 |" in text
    assert "<script>" not in text and "&lt;script>" in text
    assert "`````sh\necho ````\n`````" in text
    assert "- Model: \\__init_\\_" in text


def test_html_contains_everything(page):
    reader = Reader(page)
    for text in (
        "Robustness of mlp (TRADES) on digits",
        "mlp (TRADES) classifies 96.0% correctly",
        "Only 100 images.",
        "40.4\N{EN DASH}59.6%",
        wording.CAVEAT,
        "python -m trainers.evaluate --run=runs/digits",
        "3.15.1",
        "Robust accuracy",
        "20 steps of 0.02",
        "The sanity check “radius” failed. At the largest radius the accuracy is 30.0%.",
        "Steps (passed)",
        wording.CHECKS,
    ):
        assert text in reader.text
    assert [attrs["alt"] for attrs in reader.all("img") if not attrs["alt"]] == []
    assert len(reader.all("img")) == 5


def test_the_caveat_comes_with_every_detector_and_only_then(make_report):
    scoreless = dataclasses.replace(make_report().detection, clean_scores=())
    for detection, expected in ((scoreless, True), (None, False)):
        found = Reader(html_page([make_report(**{**NO_PLOTS, "detection": detection})])).text
        assert (wording.CAVEAT in found) == expected


def test_html_loads_nothing_from_the_network(page):
    reader = Reader(page)
    for tag, attrs in reader.tags:
        assert tag not in ("script", "iframe", "object", "form")
        for name in ("src", "srcset", "href"):
            assert attrs.get(name, "data:").startswith(("data:", "#"))
    assert "http:" not in page and "https:" not in page and "url(" not in page
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in reader.all(
        "meta"
    )
    assert page.startswith("<!DOCTYPE html>")
    # Inside the drawings too: nothing but the names of XML's vocabularies.
    for attrs in reader.all("img"):
        kind, data = attrs["src"].split(";base64,")
        if kind == "data:image/svg+xml":
            svg = base64.b64decode(data).decode()
            assert "<script" not in svg and not re.search(r'href="(?!#|data:)', svg)


def test_html_escapes_whatever_a_user_named(make_report):
    evil = make_report(
        dataset=EVIL, model=EVIL, defense=EVIL, threat_model=EVIL, command=EVIL,
        class_names=(EVIL, '" onerror="alert(1)'), warnings=(EVIL,), versions={EVIL: EVIL},
        attacks=(AttackResult(EVIL, EVIL, 0.1, 0.5, 1, 1),),
    )  # fmt: skip
    page = html_page([evil, make_report(**NO_PLOTS)], title=EVIL)
    assert "<script" not in page
    reader = Reader(page)
    assert EVIL in reader.text
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)


def test_a_bare_report_makes_a_page():
    report = Report("", "", "", "", 0.0, 1, 0, 1.0, (), 1.0)
    reader = Reader(html_page([report]))
    assert "No attack was run" in reader.text
    assert not reader.all("img")
    assert "not attacked" in reader.text


def test_more_images_than_fit_are_cut(make_report):
    images = np.zeros((20, 2, 2, 1))
    examples = ExampleImages(images, images + 0.1, (0,) * 20, (0,) * 20, (1,) * 20)
    alts = [
        attrs["alt"]
        for attrs in Reader(html_page([make_report(**{**NO_PLOTS, "examples": examples})])).all(
            "img"
        )
    ]
    assert any(alt.startswith("8 example images") for alt in alts)


def test_the_same_report_gives_the_same_page(make_report, page):
    assert html_page([make_report()]) == page


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_the_extra_the_numbers_are_written_first(
    make_report, tmp_path, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install keras_robust\[report\]"):
        make_report().save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md"}


@pytest.mark.slow
def test_json_and_markdown_need_no_extra(make_report, tmp_path):
    make_report().save(tmp_path, formats=("json",))
    program = (
        "import sys; sys.modules.update(matplotlib=None, jinja2=None);"
        "from keras_robust.evaluation.report import load_reports;"
        f"load_reports({str(tmp_path)!r})[0].save({str(tmp_path)!r}, formats=('json', 'md'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert (tmp_path / "report.md").exists()


def test_labels_are_as_short_as_keeps_them_apart(make_report):
    trades, mart = make_report(), make_report(defense="MART")
    cnn = make_report(model="cnn")
    assert wording.labels([trades, mart]) == ("TRADES", "MART")
    assert wording.labels([trades, cnn]) == ("TRADES, mlp", "TRADES, cnn")
    assert wording.labels([trades, trades])[1] == "TRADES, mlp, digits (2)"
    unnamed = make_report(defense="", model="", dataset="")
    assert wording.labels([unnamed]) == ("model (1)",)


def test_models_that_can_be_compared_have_one_summary(make_report, standard):
    (text,) = wording.summaries([make_report(), standard])
    assert text.startswith(
        "If every pixel may change by at most 0.1, on a scale from 0 to 1, the most robust of 2 "
        "models, “TRADES”, still classifies 50.0% of 100 test images of digits correctly"
    )
    assert "the least robust, “standard”, 2.0%" in text
    assert len(wording.summaries([make_report(), make_report(defense="b", dataset="c")])) == 2


@pytest.mark.parametrize(
    ("threat", "radius", "text"),
    [
        ("LinfBall, radius 0.3, bounds (0, 1)", 0.3,
         "every pixel may change by at most 0.3, on a scale from 0 to 1"),
        ("LinfBall, radius 8, bounds (0, 255), mask Mask(784)", 8,
         "every pixel inside the mask may change by at most 8, on a scale from 0 to 255"),
        ("L2, radius 1", 1.0,
         "the changes of all pixels together may have a length (L2 norm) of 1"),
        ("L1Ball, radius 12, bounds (0, 1)", 12,
         "the changes of all pixels may add up to 12, on a scale from 0 to 1"),
        ("L0Ball, radius 5, bounds (0, 1), per_channel False", 5,
         "at most 5 pixels may change, by any amount, on a scale from 0 to 1"),
        ("PatchBall, size 5", 1.0, "perturbations stay inside the threat model PatchBall, size 5"),
        ("", 0.0, ""),
    ],
)  # fmt: skip
def test_the_threat_model_in_words(make_report, threat, radius, text):
    assert wording.threat_text(make_report(threat_model=threat, radius=radius)) == text


def test_date_and_hardware_are_told_and_not_compared(make_report):
    report = make_report(date="2026-01-02 03:04 UTC", hardware="2 CPU cores (x86_64, Linux)")
    assert report == make_report() and Report.from_json(report.to_json()).date == report.date
    found = Reader(html_page([dataclasses.replace(report, **NO_PLOTS)])).text
    for text in ("2026-01-02 03:04 UTC", "2 CPU cores (x86_64, Linux)"):
        assert text in found


def test_corruptions_are_a_table_of_the_report(make_report):
    found = kr.evaluation.CorruptionAccuracy({"fog": (0.9, 0.7)}, (1, 5), 0.95, 100, 0)
    report = make_report(corruptions=found)
    assert Report.from_json(report.to_json()) == report
    text = markdown_page([report], "x")
    assert "Accuracy under corruptions of 100 images, clean 95.0%" in text
    assert "| fog | 80.0% | 90.0% | 70.0% |" in text
    with pytest.raises(ValueError, match=r"accuracy has \[1\] values per corruption; expected 2"):
        make_report(corruptions=dataclasses.replace(found, accuracy={"fog": (0.9,)}))


def test_the_contents_lead_to_every_part(make_report, standard, page):
    for text, parts in (
        (page, ["Results", "Accuracy over radius", "Confusion and examples", "Detection",
                "Sanity checks", "Evaluation settings", "Terms"]),
        (html_page([make_report(**NO_PLOTS), standard]),
         ["Comparison", "Accuracy over radius", "TRADES", "standard", "Terms"]),
    ):  # fmt: skip
        reader = Reader(text)
        ids = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
        anchors = [attrs["href"].removeprefix("#") for attrs in reader.all("a")]
        assert len(anchors) == len(parts) and set(anchors) <= ids
        assert all(part in reader.text for part in parts)


def test_the_attacks_come_before_the_confusion(page):
    assert page.index('<th scope="row">FGSM') < page.index("Confusion matrices")
    assert page.index('<th scope="row">Worst case') < page.index('<th scope="row">FGSM')


def test_options_of_a_defense_are_not_in_the_title(make_report):
    report = make_report(defense="IBP, ramp_steps 600, warmup_steps 60")
    assert wording.page_title([report]) == "Robustness of mlp (IBP) on digits"


def test_what_cannot_be_compared_is_said(make_report):
    far = make_report(
        defense="MART", threat_model="L2, radius 1", samples=50, warnings=(), checks=()
    )
    said = wording.all_warnings([make_report(warnings=(), checks=()), far])
    assert len(said) == 2
    assert "different threat models (Linf, radius 0.1, bounds [0, 1]; L2, radius 1)" in said[0]
    assert "different numbers of images (100; 50)" in said[1]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0.0%"), (1.0, "100.0%"), (0.0005, "0.1%"), (0.99949, "99.9%")]
)
def test_percentages_round_half_up(share, text):
    assert wording.percent(share) == text


@pytest.mark.parametrize(
    ("radius", "text"),
    [(0.3, "0.3"), (float(np.float32(0.3)), "0.3"), (8 / 255, "8/255"), (0.0, "0"), (1.5, "1.5")],
)
def test_radii_are_written_as_people_write_them(radius, text):
    assert wording.radius_text(radius) == text
