"""The experiments that settle claims: the plane keeps its sizes in the unit square."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.step_rules import Point, SoftBallStep
from keras_robust.experiments.recipes.defense_options import resolved
from keras_robust.experiments.reproduction.experiment import changed, measurement
from trainers import recipes, thesis
from trainers.recipes.toy import SIDE
from trainers.thesis import claims

PLANE = thesis.EXPERIMENTS["claims-plane"]
READINGS = {
    row.title: row
    for row in PLANE.parts[0].rows
    if row.title.startswith("UDR") and "held" not in row.title
}
# Changes of points in the plane: inside the ball of radius 1, outside in one, outside in both.
DELTA = np.array([[0.3, -0.8], [1.4, 0.2], [-1.8, 1.2]], np.float32)
GRADIENT = np.array([[2.0, -0.5], [0.1, 0.3], [-1.0, 4.0]], np.float32)


def moved_in_the_plane(penalty, push, dual):
    """Algorithm 1 with steps of 0.1, tau = 0.2 and radius 1."""
    delta = DELTA + 0.1 * (np.sign(GRADIENT) if push == "steepest" else GRADIENT)
    outside = np.abs(delta) >= 1
    if penalty == "pixelwise":  # Appendix G
        return delta - 0.1 * dual * np.where(outside, delta / 0.2, delta)
    return delta - min(0.1 * dual / 0.2, 1) * (delta - np.clip(delta, -1, 1))


@pytest.mark.parametrize("title", READINGS)
def test_a_step_of_a_reading_is_that_of_the_plane(title):
    row = READINGS[title]
    (training,) = row.trainings
    config = changed(recipes.load(training.recipe), training.changes)
    options = resolved("udr", config.defense.options.to_dict())
    dual = options["dual"]
    scale = measurement(row, PLANE.parts[0].columns[2]).unit
    rule = SoftBallStep(
        options["step_size"],
        multiplier=0.7 * scale,
        tau=options.get("tau"),
        penalty=options.get("penalty", "elementwise"),
        push=options.get("push", "steepest"),
    )
    x = tf.fill([3, 1, 2, 1], 0.5)
    point = Point(
        x=x + DELTA[:, None, :, None] / SIDE,
        index=0,
        value=tf.zeros([3]),
        gradient=tf.constant(GRADIENT[:, None, :, None] * SIDE),
    )
    found, _ = rule.update(kr.LinfBall(config.ball.radius), x, point, ())
    expected = moved_in_the_plane(rule.penalty, rule.push, 0.7)
    np.testing.assert_allclose(SIDE * (found - x)[:, 0, :, 0], expected, atol=1e-5)
    # Lambda from 1 with rate 0.02, of a mean change that exceeds the radius by 0.5 in the plane.
    assert dual.initial_value == scale
    updated = dual.updated(tf.constant(scale), config.ball.radius, config.ball.radius + 0.5 / SIDE)
    assert float(updated) / scale == pytest.approx(1 + 0.02 * 0.5)


def test_every_claim_has_a_row_to_compare_with():
    for experiment in claims.EXPERIMENTS:
        for part in experiment.parts:
            base = part.rows[0].title
            assert set(part.gain_over) == {row.title for row in part.rows[1:]}
            assert set(part.gain_over.values()) == {base}


RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGES = ("udr", "representation", "ensembles", "multi_task")
VERDICTS = ("shown", "not shown", "contradicted", "not settled", "direction shown")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_results_begins_with_its_claims(page):
    """Shown, not shown, contradicted or not settled; at which scale, with how many seeds."""
    blocks = (RESULTS / f"{page}.md").read_text("utf-8").split("\n\n")
    number = next(i for i, block in enumerate(blocks) if block.startswith("|"))
    assert number < next(i for i, block in enumerate(blocks) if block.startswith("## "))
    head, _, *rows = blocks[number].splitlines()
    assert head == "| claim of the thesis | here | scale | seeds |"
    for row in rows:
        _, _, verdict, scale, seeds, _ = (cell.strip() for cell in row.split("|"))
        assert verdict.startswith(VERDICTS), row
        if not verdict.startswith("not settled"):
            assert scale, row
            assert seeds.isdecimal(), row


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("claims/*.md")))
def test_tables_of_claims_are_those_that_the_command_wrote(name):
    """Each row of a page is that of the generated one, and so of the values of every seed."""
    generated = (RESULTS / "claims" / f"{name}.md").read_text("utf-8")
    document = json.loads((RESULTS / "claims" / f"{name}.json").read_text("utf-8"))
    quoted = "".join((RESULTS / f"{page}.md").read_text("utf-8") for page in PAGES)
    for row in document["parts"][0]["rows"]:
        (line,) = [one for one in generated.splitlines() if one.startswith(f"| {row['title']} |")]
        mean = float(np.mean(row["cells"][:2][-1]["values"]))
        assert f"| {100 * mean:.1f} ± " in line
        assert line in quoted
    assert document["command"] in quoted
