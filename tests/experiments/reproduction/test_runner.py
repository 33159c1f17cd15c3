"""A tiny experiment: trained and measured once, resumed, and written."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

import keras_robust as kr
from keras_robust.experiments.reproduction import cost
from keras_robust.experiments.reproduction.experiment import (
    Column,
    Experiment,
    Part,
    Row,
    Training,
)
from keras_robust.experiments.reproduction.measurements import Attacked, LastEpoch
from keras_robust.experiments.reproduction.pictures import Curves, History, RowCurves, TradeOff
from keras_robust.experiments.reproduction.runner import Reproduction
from keras_robust.experiments.reproduction.scales import Scale
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.training import train_run

SCALE = Scale("tiny", "for a test", train_images=200, attack_steps=2, test_images=40)
TRAINING = Training("digits/pgd_at", {"defense.options.clean_weight": 1.0})
PGD = Attacked("pgd:steps=8:step_size=0.05", 0.1)
EXPERIMENT = Experiment(
    "tiny-1",
    "A tiny table",
    (
        Part(
            "digits",
            (Column("Nat", PGD, "clean"), Column("PGD", PGD)),
            (Row("PGD-AT", (TRAINING,), (99.0, 50.0)),),
        ),
    ),
    (
        Curves("over_radius", (0.1,), "radius"),
        RowCurves("over_rows", (1.0,), "tau"),
        TradeOff("trade_off", "Nat", "PGD"),
        History("history", {"loss": (TRAINING, "loss")}, "loss"),
    ),
)


@pytest.fixture(scope="module")
def make(tiny, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reproduction")

    def make(experiment=EXPERIMENT, scale=SCALE, **options):
        lines = []
        reproduction = Reproduction(
            experiment,
            scale,
            lambda name: tiny(name.partition("/")[2]),
            directory,
            command="python -m x",
            log=lines.append,
            **options,
        )
        reproduction.lines = lines
        return reproduction

    return make


@pytest.fixture(scope="module")
def done(make):
    reproduction = make()
    return reproduction, reproduction.run()


@pytest.fixture
def nothing_runs(monkeypatch):
    """Any training, loading or attack is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("It was done again.")

    monkeypatch.setattr(train_run, "train", refuse)
    monkeypatch.setattr(kr.evaluation, "evaluate", refuse)


def test_the_numbers_are_those_of_an_evaluation_of_the_scaled_attack(done):
    reproduction, page = done
    (path,) = reproduction.trainings()
    run = load_run(path)
    assert run.config.dataset.limit == 200
    assert run.config.defense.options.clean_weight == 1.0
    # Eight steps of 0.05 reach 0.4; two have at most 2.5 radii together.
    attack = kr.attacks.pgd(kr.LinfBall(0.1), 2, 0.125)
    report = kr.evaluation.evaluate(run.model, run.splits.test, attack, limit=40)
    document = json.loads(page.with_suffix(".json").read_text())
    clean, robust = document["parts"][0]["rows"][0]["cells"]
    assert clean["values"] == [report.clean_accuracy]
    assert robust["values"] == [report.worst_case_accuracy]
    assert "| *thesis* | *99* | *50* |" in page.read_text()
    for picture in EXPERIMENT.pictures:
        file = page.parent / "tiny-1" / f"{picture.name}.png"
        assert file.read_bytes().startswith(b"\x89PNG")
        assert f"](tiny-1/{picture.name}.png)" in page.read_text()


def test_the_page_says_what_was_cut(done):
    _, page = done
    text = page.read_text()
    assert "- training images: all to 200" in text
    assert "- test images: all to 40" in text
    assert "- attacks: pgd:steps=8:step_size=0.05 to pgd:steps=2:step_size=0.125" in text
    assert "`tiny` (for a test), one seed" in text


def test_progress_is_told(done):
    reproduction, _ = done
    text = "\n".join(reproduction.lines)
    assert (
        "[1/2] trains digits/pgd_at with defense.options.clean_weight 1.0, 1 epochs, seed 0" in text
    )
    assert (
        "[2/2] PGD-AT, seed 0: Attacked(attack='pgd:steps=2:step_size=0.125', radius=0.1, limit=40)"
        in text
    )
    assert any(line.startswith("digits: PGD-AT | ") for line in reproduction.lines)


def test_a_killed_run_goes_on_where_it_was(make, done, nothing_runs):
    """Only the page was lost: everything else is there."""
    _, page = done
    before = page.with_suffix(".json").read_text()
    page.with_suffix(".json").unlink()
    assert make(dataclasses.replace(EXPERIMENT, pictures=EXPERIMENT.pictures[:3])).run() == page
    assert page.with_suffix(".json").read_text() == before


def test_experiments_share_trainings_but_not_other_measurements(make, done, monkeypatch):
    monkeypatch.setattr(train_run, "train", None)  # not called
    part = EXPERIMENT.parts[0]
    other = dataclasses.replace(PGD, radius=0.2)
    columns = (part.columns[0], dataclasses.replace(part.columns[1], measurement=other))
    parts = (dataclasses.replace(part, columns=columns),)
    reproduction = make(dataclasses.replace(EXPERIMENT, name="tiny-2", parts=parts, pictures=()))
    files = reproduction.measurements()
    assert [file.is_file() for file in files] == [True, False]
    reproduction.run()
    assert all(file.is_file() for file in files)


def test_what_a_number_depends_on_is_in_its_path(make):
    base = make()
    (path,) = base.trainings()
    longer = make(scale=dataclasses.replace(SCALE, epochs=0 + 1, train_images=300))
    (other,) = longer.trainings()
    assert path != other
    assert base.path(TRAINING, 1).name == "seed_1"
    assert base.path(TRAINING, 1).parent == path.parent
    row, what = next(iter(base.measurements().values()))
    files = {
        base.file(row, what, 0),
        base.file(row, what, 1),
        base.file(row, dataclasses.replace(what, limit=41), 0),
        base.file(row, dataclasses.replace(what, source=Training("digits/trades")), 0),
        base.file(dataclasses.replace(row, trainings=(TRAINING, TRAINING)), what, 0),
        base.file(
            dataclasses.replace(row, trainings=(dataclasses.replace(TRAINING, checkpoint="last"),)),
            what,
            0,
        ),
    }
    assert len(files) == 6


def test_fields_that_do_not_matter_are_not_in_its_path(make):
    """So a release that adds a field, at its default, finds the runs of the one before."""
    reproduction = make()
    path = reproduction.path(TRAINING)
    for change in ({"checkpoint.seconds": 5.0}, {"dataset.data_dir": "x"}, {"optimizer.ema": 0.0}):
        assert reproduction.path(TRAINING.but(change)) == path
    for change in ({"epochs": 2}, {"optimizer.ema": 0.5}, {"defense.options.steps": 2}):
        assert reproduction.path(TRAINING.but(change)) != path


def test_networks_of_one_recipe_may_differ_in_their_seeds(make):
    reproduction = make()
    second = TRAINING.but({"seed": 1000})
    assert reproduction.path(TRAINING) != reproduction.path(second)
    assert reproduction.config(second, 2).seed == 1002


def test_each_seed_may_draw_data_of_its_own(make):
    reproduction = make()
    redrawn = dataclasses.replace(TRAINING, redraw=True)
    assert [reproduction.config(redrawn, seed).dataset.name for seed in (0, 2)] == [
        "digits/0",
        "digits/2",
    ]
    assert reproduction.config(TRAINING, 2).dataset.name == "digits"
    assert reproduction.path(redrawn).parent != reproduction.path(TRAINING).parent
    assert reproduction.path(redrawn, 2).parent == reproduction.path(redrawn, 0).parent


def test_a_draw_of_a_data_set_is_no_other_data_set(make):
    part = dataclasses.replace(
        EXPERIMENT.parts[0],
        rows=(Row("PGD-AT", (dataclasses.replace(TRAINING, redraw=True),)),),
    )
    redrawn = make(dataclasses.replace(EXPERIMENT, parts=(part,), pictures=()))
    assert not any(line.startswith("data set") for line in redrawn.differences())
    job, plain = (next(cost.jobs(one)) for one in (redrawn, make()))
    assert cost.gradient_cost(redrawn.config(part.rows[0].trainings[0])) > 0
    assert job.path != plain.path


def test_a_logged_metric_is_that_of_the_last_epoch(done):
    reproduction, _ = done
    (path,) = reproduction.trainings()
    run = load_run(path)
    last = run.run.rows()[-1]["loss"]
    assert LastEpoch("loss", unit=2.0).measure([run], None) == {"value": last / 2}
    with pytest.raises(ValueError, match="no metric 'dual'; expected one of .*'loss'"):
        LastEpoch("dual").measure([run], None)


def test_missing_data_are_reported_before_anything_is_trained(make, nothing_runs, tmp_path):
    """Of the second row, so that the first one is not trained in vain."""
    part = EXPERIMENT.parts[0]
    missing = Row("MNIST", (TRAINING.but({"dataset.name": "mnist"}),))
    first = dataclasses.replace(part.rows[0], trainings=(TRAINING.but({"seed": 7}),))
    parts = (dataclasses.replace(part, rows=(first, missing)),)
    experiment = dataclasses.replace(EXPERIMENT, parts=parts, pictures=())
    with pytest.raises(FileNotFoundError, match="mnist"):
        make(experiment, data_dir=str(tmp_path)).run()


def test_an_unfinished_training_is_not_taken_for_a_finished_one(make, done, tmp_path):
    reproduction, _ = done
    assert reproduction.is_trained(TRAINING, 0)
    assert not reproduction.is_trained(TRAINING, 1)
    (path,) = reproduction.trainings()
    killed = make(scale=dataclasses.replace(SCALE, name="killed"))
    (copy,) = killed.trainings()
    shutil.copytree(path, copy)
    facts = json.loads((copy / "run.json").read_text())
    facts["sessions"][-1]["state"] = "killed"
    (copy / "run.json").write_text(json.dumps(facts))
    assert not killed.is_trained(TRAINING, 0)


def test_the_estimate_knows_what_is_finished(make, done, monkeypatch):
    monkeypatch.setattr(cost, "multiplications_per_second", lambda: 1e9)
    jobs = list(cost.jobs(make(seeds=2)))
    assert [job.finished for job in jobs] == [True, False, True, False]
    assert [job.seconds == 0 for job in jobs] == [True, False, True, False]
    # An image is crafted in one step; with the update and the clean image three gradients, each of
    # three passes through 64 * 16 + 16 * 10 multiplications.
    assert jobs[1].seconds == pytest.approx(cost.START + 200 * 3 * 3 * 1184 / 1e9)
    assert jobs[3].seconds == pytest.approx(cost.START + 40 * 2 * 3 * 1184 / 1e9)
    assert "for 2 of 4 trainings and measurements" in cost.summary([*jobs, *jobs])
