from __future__ import annotations

import pytest
from ml_collections import ConfigDict

from trainers import recipes, training
from trainers.opened import open_run


def _tiny(defense="trades", **changes):
    """A recipe that trains in a second: a small perceptron on digits, one step of crafting."""
    config = recipes.load(f"digits/{defense}")
    config.epochs = 1
    config.dataset.batch_size = 128
    config.model.name = "mlp"
    config.model.options = ConfigDict({"hidden": (16,)})
    config.defense.options.steps = 1
    config.optimizer.learning_rate = 0.01
    config.evaluation.steps = 2
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
    said = []
    training.train(_tiny(), path, command="python -m x", verbose=0, say=said.append)
    assert said == []
    return path


@pytest.fixture(scope="session")
def opened(trained):
    return open_run(trained)
