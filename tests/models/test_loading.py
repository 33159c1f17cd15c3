"""Damaged model files are named, with what is wrong."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from keras_robust.models import mlp
from keras_robust.models.loading import load_model

PARTS = ("config.json", "metadata.json", "model.weights.h5")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    mlp((2, 2, 1), 3, hidden=(4,)).save(path)
    return path


@pytest.fixture
def file(saved, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes())
    return path


def without(name):
    def change(path):
        with zipfile.ZipFile(path) as archive:
            parts = {part: archive.read(part) for part in archive.namelist() if part != name}
        write(path, parts)

    return change


def write(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def cut(fraction):
    def change(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * fraction)])

    return change


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_a_model_is_loaded(file, saved):
    first, second = load_model(file), load_model(str(saved), compile=True)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (without("config.json"), "it has no config.json"),
        (without("model.weights.h5"), "it has no model.weights"),
        (cut(0.5), "truncated or damaged"),
        (cut(0.99), "truncated or damaged"),
        (cut(0), "truncated or damaged"),
        (flip, "its model.weights.h5 is damaged|truncated or damaged"),
        (lambda path: path.write_text("text"), "truncated or damaged"),
        (lambda path: write(path, dict.fromkeys(PARTS, "{}")), ""),
    ],
    ids=["no config", "no weights", "half", "nearly all", "empty", "flipped", "text", "no model"],
)
def test_what_is_wrong_is_said(damage, text, file):
    damage(file)
    with pytest.raises(
        ValueError, match=rf"model\.keras cannot be loaded as a Keras model: .*({text})"
    ):
        load_model(file)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".weights"])
def test_other_formats(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=rf"model\{suffix} cannot be loaded as a Keras model"):
        load_model(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.keras does not exist"):
        load_model(tmp_path / "model.keras")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path)
