"""The HTML page in a real browser: drawn, quiet, offline, and no wider than its window."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from keras_robust.evaluation.rendering.page import save_page
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.results.example_images import ExampleImages
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Curve,
    Detection,
    DetectorResult,
    Part,
)

pytestmark = pytest.mark.browser

PHONE, DESK = 360, 1280
PHONE_HEIGHT = 844
EVIL = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"
LONG = "a_name_without_any_space_" * 5

# The plots as they were painted: the number of colors tells a drawing from an empty frame.
PLOTS = """
return [...document.images].map(image => {
  const box = image.getBoundingClientRect();
  const canvas = document.createElement("canvas");
  canvas.width = 200; canvas.height = 200;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0, 200, 200);
  const pixels = new Uint32Array(context.getImageData(0, 0, 200, 200).data.buffer);
  return {natural: image.naturalWidth, width: box.width, height: box.height, right: box.right,
          ratio: (box.width / box.height) / (image.naturalWidth / image.naturalHeight),
          colors: new Set(pixels).size, alt: image.alt};
});
"""


def _report(defense, classes=10, channels=1, **changes):
    rng = np.random.default_rng(0)
    clean = rng.random((8, 8, 8, channels), np.float32)
    counts = rng.integers(1, 30, (classes, classes))
    said = tuple(range(8))
    parts = (Part(LONG, 0.8, 340, 6.0), Part("Square", 0.7, 272, 6.0))
    attacks = tuple(
        AttackResult(name, f"20 steps of 0.02, {LONG}", 0.1, 0.7, 340, 12.0, parts)
        for name in ("FGSM", "PGD-20", "PGD-20, 5 restarts", "multi-targeted PGD")
    )
    fields = {
        "class_names": tuple(f"class {index}" for index in range(classes)),
        "curves": (Curve("PGD-20", (0, 0.05, 0.1), (0.97, 0.8, 0.6)),),
        "confusion_clean": counts,
        "confusion_adversarial": counts.T,
        "detection": Detection(
            0.5, 0.05, 0.05, "entropy (nats)", rng.random(50) / 2,
            DetectorResult("PGD-20", 0.9, 0.05, rng.random(50) * 2, 0.9, (0.8, 0.95)),
            DetectorResult("PGD-20, adaptive", 0.2, 0.7, rng.random(50), 0.5, (0.4, 0.6)),
        ),
        "versions": {LONG: LONG},
        "warnings": (f"The attack may be too weak: {LONG}.",),
        "command": f"python -m trainers.evaluate --run={LONG}",
        "examples": ExampleImages(clean, np.clip(clean + 0.1, 0, 1), said, said, said[::-1]),
    }  # fmt: skip
    return Report("digits", "mlp", defense, "Linf, radius 0.1, bounds [0, 1]", 0.1, 360, 0, 0.97,
                  attacks, 0.6, **{**fields, **changes})  # fmt: skip


PAGES = {
    "one": ([_report("TRADES")], 5),
    "several": ([_report("standard", detection=None), _report(LONG, channels=3)], 7),
    "many classes": ([_report("PGD-AT", classes=100)], 5),
    "evil": ([_report(EVIL, class_names=(EVIL, "$x^2$", *"cdefghij"), command=EVIL)], 5),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page for each case, written when a test asks for it."""
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def written(name):
        reports, plots = PAGES[name]
        return save_page(reports, folder / name) / "report.html", plots

    return written


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "many classes")) for name in PAGES],
)
def test_page(browser, pages, name, width):
    page, plots = pages(name)
    browser.open(page, width)

    drawn = browser.run(PLOTS)
    assert len(drawn) == plots
    for plot in drawn:
        assert plot["natural"] > 0 and plot["colors"] > 10, plot
        assert plot["width"] >= 250 and plot["right"] <= width, plot
        assert plot["ratio"] == pytest.approx(1, abs=0.03), plot

    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return document.body.scrollWidth") <= width
    assert browser.run("return document.scripts.length + (window.hit || 0)") == 0

    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert asked == [page.as_uri()]
    assert browser.console() == []


def test_a_wide_table_scrolls_in_its_own_frame(browser, pages):
    browser.open(pages("several")[0], PHONE)
    frames = browser.run(
        "return [...document.querySelectorAll('.scroll')]"
        ".map(frame => [frame.clientWidth, frame.scrollWidth])"
    )
    assert any(inside > outside for outside, inside in frames)
    assert all(outside <= PHONE for outside, _ in frames)


def test_a_phone_gets_the_drawings_made_for_it(browser, pages):
    widths = {}
    for width in (PHONE, DESK):
        browser.open(pages("one")[0], width)
        widths[width] = [plot["natural"] for plot in browser.run(PLOTS)]
    assert all(phone < desk for phone, desk in zip(widths[PHONE], widths[DESK], strict=True))


def test_the_title_is_shown_as_it_was_given(browser, pages):
    browser.open(pages("evil")[0], DESK)
    assert EVIL in browser.run("return document.title")
    assert EVIL in browser.run("return document.querySelector('h1').textContent")


def test_the_worst_case_is_on_the_first_screen_of_a_phone(browser, pages, tmp_path):
    bare = {"curves": (), "confusion_clean": None, "confusion_adversarial": None,
            "examples": None, "detection": None, "warnings": ()}  # fmt: skip
    several = save_page([_report(name, **bare) for name in ("TRADES", "PGD-AT")], tmp_path)
    for name, page, place in (
        ("one", pages("one")[0], ".key dd"),
        ("several", several / "report.html", "td:nth-of-type(2)"),
    ):
        browser.open(page, 390)
        boxes = browser.run(
            f"return [...document.querySelectorAll({place!r})].map(part => {{"
            "const box = part.getBoundingClientRect(); return [part.textContent, box.bottom, "
            "box.right]})"
        )
        text, bottom, right = boxes[1] if name == "one" else boxes[0]
        assert text.startswith("60.0%") and bottom <= PHONE_HEIGHT and right <= 390, boxes


def test_plots_follow_dark_mode(browser, pages):
    """The corner of each plot is paper: light on a light page, dark on a dark one."""
    corner = """
return [...document.images].map(image => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 50;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0, 50, 50);
  return context.getImageData(0, 0, 1, 1).data[0];
});
"""
    shades = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.open(pages("one")[0], DESK)
        shades[scheme] = browser.run(corner)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(shades["light"]) > 240 and max(shades["dark"]) < 40, shades
