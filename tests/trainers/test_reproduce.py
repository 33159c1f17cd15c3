"""Every table and figure is made of valid recipes and attacks, and the command reproduces it."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_robust.experiments.recipes import attack_options, build
from keras_robust.experiments.recipes.attack_spec import attack_spec
from keras_robust.experiments.reproduction.experiment import changed, measurement
from keras_robust.experiments.reproduction.runner import Reproduction
from keras_robust.experiments.reproduction.scales import SCALES
from trainers import recipes, reproduce, thesis

ALL = thesis.EXPERIMENTS
_WITHOUT_DATA = SCALES["minutes"]


TRAININGS = {name: {repr(one): one for one in ALL[name].trainings()} for name in ALL}
BY_TEXT = {text: one for found in TRAININGS.values() for text, one in found.items()}


@functools.cache
def checked(text: str, scale: str) -> None:
    """Checks a training once, though many tables share it."""
    training = BY_TEXT[text]
    build.check(SCALES[scale].recipe(changed(recipes.load(training.recipe), training.changes)))


@pytest.mark.parametrize("scale", ["thesis", "minutes"])
@pytest.mark.parametrize("name", ALL)
def test_every_training_is_a_valid_recipe(name, scale):
    for text in TRAININGS[name]:
        checked(text, scale)


@pytest.mark.parametrize("name", ALL)
def test_every_attack_can_be_built_at_every_scale(name):
    cells = [cell for part in ALL[name].parts for cell in part.cells()]
    for what in {repr(w): w for w in (measurement(*cell) for cell in cells)}.values():
        if not hasattr(what, "attack"):
            continue
        norm = getattr(what, "norm", None) or "linf"
        for scale in SCALES.values():
            spec = attack_spec(what.at(scale).attack)
            options = dict(spec["options"])
            if getattr(what, "solver", ""):
                options["solver"] = what.solver
            ball = build.BALLS[norm](what.radius or 0.1)
            attack_options.build_attack(spec["name"], ball, options)


def test_names_are_of_chapters_and_their_tables():
    for name, experiment in ALL.items():
        if name.startswith("claims-"):  # of no table of the thesis
            continue
        assert re.fullmatch(r"(udr|adr|ascl|cce|ta_moo)-(fig-)?a?\d+", name)
        chapter, *_, number = name.split("-")
        kind = "Figure" if "-fig-" in name else "Table"
        label = f"{kind} A{number[1:]}" if number[0] == "a" else f"{kind} {number}"
        title = chapter.replace("_", "-").upper()
        assert experiment.title.startswith(f"{title}, {label}: "), name


def test_the_list_names_every_table(capsys):
    lines = reproduce.listing().splitlines()
    assert [line.partition(":")[0] for line in lines] == list(ALL)


def test_a_chapter_stands_for_all_of_its_tables():
    chosen = thesis.load(["udr-1", "udr"])
    assert [one.name for one in chosen] == [name for name in ALL if name.startswith("udr-")]
    assert {name.partition("-")[0] for name in ALL} == set(thesis.CHAPTERS)


def test_an_unknown_table_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="'udr-11'.*Did you mean 'udr-1"):
        thesis.load(["udr-11"])


@pytest.mark.parametrize(
    ("name", "row", "column", "number"),
    [
        ("udr-1", "UDR-MART", "B&B", 48.6),
        ("udr-2", "UDR-TRADES", "0.025", 24.2),
        ("udr-3", "UDR-TRADES", "on UDR-MART", 61.6),
        ("udr-8", "eps = 5.0", "AA", 45.2),
        ("udr-10", "MART", "16/255", 13.8),
        ("adr-2", "ADR-TRADES", "Mul-target", 37.7),
        ("adr-a4", "ADR-ADV", "MIM", 36.96),
        ("ascl-2", "Ours", "AA", 31.9),
        ("ascl-7", "SCL 0, VAT 3", "PGD", 54.4),
        ("cce-3", "ADP_3", "SPSA", 53.9),
        ("cce-3", "CCE-RM_2", "B&B (wPGD2)", 6.0),
        ("cce-10", "CCE-Base_3", "mul-BIM", 25.9),
        ("cce-11", "weight 5", "SPSA", 46.2),
        ("cce-13", "CCE-RM", "on ADP", 49.4),  # column CCE-RM of the row ADP, radius 0.02
        ("ta_moo-3", "TA-MOO", "RMEVW", 23.04),
        ("ta_moo-5", "MinMax", "K=8", 62.29),
        ("ta_moo-15", "TA-MOO*", "R", 72.0),
        ("ta_moo-2", "MOO, non-diverse set", "norm V/R2", 6.68),
        ("ta_moo-24", "MOO^C", "rate 5e-5", 28.46),
        ("ta_moo-18", "AutoAttack", "R2", 48.58),
    ],
)
def test_published_numbers_are_copied_to_their_cells(name, row, column, number):
    """The last part, read off the thesis again."""
    part = ALL[name].parts[-1]
    index = [one.title for one in part.columns].index(column)
    assert next(one for one in part.rows if one.title == row).thesis[index] == number


def shortened(experiment):
    """At most two rows of each part, whose comparison stays inside."""
    parts = []
    for part in experiment.parts:
        rows = part.rows[:2]
        titles = {row.title for row in rows}
        over = {mine: base for mine, base in part.gain_over.items() if {mine, base} <= titles}
        gains = {title: gain for title, gain in part.thesis_gain.items() if title in over}
        parts.append(dataclasses.replace(part, rows=rows, gain_over=over, thesis_gain=gains))
    # Curves have a point for each row.
    drawn = tuple(one for one in experiment.pictures if type(one).__name__ not in _OF_ROWS)
    return dataclasses.replace(experiment, parts=tuple(parts), pictures=drawn)


_OF_ROWS = ("RowCurves", "TradeOff")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_experiment_runs(name, tmp_path_factory):
    """In one directory: tables share their trainings."""
    directory = tmp_path_factory.getbasetemp() / "thesis"
    experiment = shortened(ALL[name])
    page = Reproduction(
        experiment, _WITHOUT_DATA, recipes.load, directory, log=lambda line: None
    ).run()
    document = json.loads(page.with_suffix(".json").read_text("utf-8"))
    for part, found in zip(experiment.parts, document["parts"], strict=True):
        for row, measured in zip(part.rows, found["rows"], strict=True):
            cells = [
                column.title
                for column, cell in zip(part.columns, measured["cells"], strict=True)
                if cell is None
            ]
            assert cells == [title for title in row.skip if title in cells]
            for cell in filter(None, measured["cells"]):
                assert len(cell["values"]) == 1
    for picture in experiment.pictures:
        assert (page.parent / name / f"{picture.name}.png").stat().st_size > 1000
    assert "epochs" in page.read_text("utf-8")


@pytest.mark.slow
def test_the_command_goes_on_after_an_interruption(tmp_path):
    arguments = ["--table=udr-fig-2", "--scale=minutes", "--seeds=1", f"--output_dir={tmp_path}"]
    command = [sys.executable, "-m", "trainers.reproduce", *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in running.stdout:
        if line.startswith("[2/"):  # the first training is finished
            running.send_signal(signal.SIGINT)
            break
    _, errors = running.communicate()
    assert running.returncode == 130
    assert errors.splitlines()[-1].startswith(
        "trainers.reproduce: Interrupted; finished parts are kept. Resume with: python -m "
    )
    estimate = subprocess.run([*command, "--dry_run"], capture_output=True, text=True, check=True)
    assert "finished: training toy/pgd_at, seed 0, 2 epochs" in estimate.stdout
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "trains toy/pgd_at" not in done.stdout
    assert "trains toy/udr_pgd_at" in done.stdout
    assert done.stdout.endswith(f"Written: {tmp_path}/minutes/udr-fig-2.md\n")
    text = (tmp_path / "minutes" / "udr-fig-2.md").read_text("utf-8")
    assert "| *thesis* |  | *82.6* | *8.1* |" in text
    assert "python -m trainers.reproduce --table=udr-fig-2 --scale=minutes" in text


def test_the_registry_is_what_the_documentation_says():
    text = (Path(__file__).parents[2] / "docs" / "reproducing.md").read_text("utf-8")
    for scale in SCALES.values():
        assert f"`{scale.name}`" in text
