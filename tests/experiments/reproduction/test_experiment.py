"""Experiments are data that fit together, and changes reach the fields that they name."""

from __future__ import annotations

import dataclasses

import pytest

from keras_robust.experiments.recipes.schema import defaults
from keras_robust.experiments.reproduction.experiment import (
    Column,
    Experiment,
    Part,
    Row,
    Training,
    changed,
    measurement,
)
from keras_robust.experiments.reproduction.measurements import Attacked

PGD = Attacked("pgd:steps=20", 0.1)


def test_changes_are_applied_in_order_and_make_new_options():
    changes = {
        "model.options": {"width": 0.5},
        "model.options.activation": "silu",
        "defense.options.steps": 3,
        "optimizer.schedule.boundaries": (2, 4),
    }
    config = changed(defaults(), changes)
    assert config.model.options.to_dict() == {"width": 0.5, "activation": "silu"}
    assert config.defense.options.steps == 3
    assert config.optimizer.schedule.boundaries == (2, 4)
    assert config.is_locked


@pytest.mark.parametrize("path", ["epoch", "ball.radios", "balls.radius", "optimizer.schedule.x"])
def test_an_unknown_field_is_refused(path):
    with pytest.raises(ValueError, match=f"no field '{path}'"):
        changed(defaults(), {path: 1})


def test_a_row_says_what_is_measured_if_it_says_anything():
    own = dataclasses.replace(PGD, radius=0.2)
    column = Column("PGD", PGD)
    assert measurement(Row("a", (Training("x"),)), column) is PGD
    assert measurement(Row("a", (Training("x"),), measurement=own), column) is own
    by_title = Row("a", (Training("x"),), measurement={"PGD": own})
    assert measurement(by_title, column) is own
    assert measurement(by_title, Column("other", PGD)) is PGD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": (Row("a", (Training("x"),), (1.0, 2.0)),)}, "2 published numbers for 1"),
        ({"columns": (Column("PGD"),)}, "Nothing is measured in row 'a', column 'PGD'"),
        ({"columns": (Column("PGD", PGD),) * 2}, "repeat"),
        ({"rows": ()}, "there are none"),
        ({"gain_over": {"a": "b"}}, r"no rows \['b'\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    part = Part("T", (Column("PGD", PGD),), (Row("a", (Training("x"),), (1.0,)),))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(part, **change)


def test_trainings_are_those_of_rows_of_sources_and_of_pictures():
    target, source, drawn = Training("target"), Training("source"), Training("drawn")

    @dataclasses.dataclass
    class Picture:
        name = "p"
        trainings = (drawn,)

    column = Column("PGD", dataclasses.replace(PGD, source=source))
    skipped = Column("other", dataclasses.replace(PGD, source=Training("skipped")))
    row = Row("a", (target,), skip=("other",))
    experiment = Experiment("t", "T", (Part("P", (column, skipped), (row,)),), (Picture(),))
    assert list(experiment.trainings()) == [target, source, drawn]
