"""Fixtures of runs: small recipes, a trained run, comparisons of runs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import checkpoint, train_run
from trainers import recipes


def _tiny(defense="trades", **changes):
    """A recipe that trains in a second: a small perceptron on digits, one step of crafting."""
    config = recipes.load(f"digits/{defense}")
    config.epochs = 1
    config.dataset.batch_size = 128
    config.model.name = "mlp"
    config.model.options = ConfigDict({"hidden": (16,)})
    config.defense.options.steps = 1
    config.optimizer.learning_rate = 0.01
    config.evaluation.attacks = (
        {"name": "pgd", "options": {"steps": 2}},
        {"name": "fgsm", "options": {}},
    )
    config.evaluation.radii = (0.1, 0.2)
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="session")
def tiny():
    return _tiny


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of one epoch; read it, do not write into it."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    lines = []
    train_run.train(_tiny(), path, command="python -m x", verbose=0, log=lines.append)
    assert lines == []
    return path


@pytest.fixture(scope="session")
def loaded(trained):
    """The run of one epoch, loaded."""
    return load_run(trained)


def _results(path):
    """The results of a run: rows, every variable of both checkpoints, the detector."""
    run = RunDirectory(path)
    state = {}
    for name in ("last", "best"):
        model = keras.saving.load_model(run.checkpoint(name))
        for variable in (*model.weights, *model.optimizer.variables):
            state[f"{name} {len(state)}"] = variable.numpy()
    progress = checkpoint.read(run.checkpoint("last"))
    for i, value in enumerate((*progress.seeds, *progress.metrics)):
        state[f"progress {i}"] = value
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows()]
    return rows, state, run.detector_file.read_text()


def _assert_same_runs(mine, theirs):
    mine, theirs = _results(mine), _results(theirs)
    assert mine[0] == theirs[0]
    assert mine[1].keys() == theirs[1].keys()
    for name, value in mine[1].items():
        np.testing.assert_array_equal(value, theirs[1][name], err_msg=name)
    assert mine[2] == theirs[2]


@pytest.fixture(scope="session")
def assert_same_runs():
    """Asserts that two runs are equal bit for bit, except for their seconds."""
    return _assert_same_runs
