"""A model file and data of a user's own, small enough to be quick."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.cli.main import main


def _digits(split):
    batches = list(getattr(kr.data.load("digits"), split))
    return tuple(np.concatenate([batch[part] for batch in batches]) for part in (0, 1))


@pytest.fixture(scope="session")
def digits_model():
    """A Keras classifier with a softmax: the nearest mean of a class, without training."""
    x, y = _digits("test")
    means = np.stack([x[y == label].mean(axis=0).ravel() for label in range(10)], axis=1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.set_weights([2 * means, -np.square(means).sum(axis=0)])
    return model


@pytest.fixture(scope="session")
def model_file(digits_model, tmp_path_factory):
    """The path of a `.keras` file of the user's own."""
    path = tmp_path_factory.mktemp("models") / "my.keras"
    digits_model.save(path)
    return path


@pytest.fixture(scope="session")
def robust_file(digits_model, tmp_path_factory):
    """The path of a saved `RobustModel`."""
    path = tmp_path_factory.mktemp("models") / "robust.keras"
    model = kr.defenses.pgd_at(kr.models.adapt(digits_model), kr.LinfBall(0.1), steps=2)
    model.compile("adam")
    model.save(path)
    return path


@pytest.fixture(scope="session")
def data_file(tmp_path_factory):
    """The path of an `.npz` file with 60 test images and 100 validation images."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    x, y = _digits("test")
    np.savez(path, x=x[:60], y=y[:60], x_validation=_digits("validation")[0][:100])
    return path


@pytest.fixture
def command(capsys):
    """Runs a command in this process; returns what it prints."""

    def run(*arguments):
        capsys.readouterr()
        main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def fails(capsys):
    """Runs a command that ends with an error; returns its message, which is one line."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert caught.value.code in (1, 2)
        message = capsys.readouterr().err.removesuffix("\n")
        assert "\n" not in message
        return message

    return run
