"""What a reproduction would run, for people."""

from __future__ import annotations

import dataclasses

from keras_robust.experiments.reproduction.cost import in_words
from keras_robust.experiments.reproduction.experiment import Training, measurement
from keras_robust.experiments.reproduction.measurements import Attacked, TasksAttacked
from trainers import thesis


def test_what_is_not_a_default_is_said():
    source = Training("digits/trades")
    what = Attacked("fgsm", 0.3, 1000, norm="l2", source=source)
    assert in_words(what) == (
        "accuracy under fgsm, radius 0.3, 1,000 images, norm l2, source digits/trades"
    )
    tasks = TasksAttacked("multi_task:steps=10:step_size=2/255", 0.1, gradients=True)
    assert in_words(tasks) == (
        "success on tasks under multi_task (steps 10, step size 2/255), radius 0.1, with gradients"
    )
    without = dataclasses.replace(tasks, gradients=False, solver="min_norm")
    assert in_words(without).endswith("radius 0.1, solver min_norm")


def test_no_measurement_of_the_thesis_is_shown_as_code():
    for experiment in thesis.EXPERIMENTS.values():
        for part in experiment.parts:
            for row in part.rows:
                for column in part.columns:
                    what = measurement(row, column)
                    assert what is None or not set("='{}") & set(in_words(what)), what
