"""`keras-robust attack`: adversarial images of a model file and of a run."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Any folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_keras_model(command, folder, model_file, data_file, digits_model):
    text = command(
        "attack",
        f"--model={model_file}",
        f"--data={data_file}",
        "--radius=0.1",
        "--attack=pgd:steps=3",
        "--limit=10",
        "--pictures=2",
        "--batch_size=4",
    )
    directory = folder / "my_attacks" / "pgd"
    assert text.startswith("PGD-3: of 10 images ")
    assert text.splitlines()[-1] == "Written to my_attacks/pgd"
    assert len(list(directory.glob("*_clean.png"))) == 2
    assert len(list(directory.glob("*_adversarial_as*.png"))) == 2
    with np.load(directory / "adversarial.npz") as arrays:
        assert abs(arrays["adversarial"] - arrays["images"]).max() <= 0.1 + 1e-6
        predictions = digits_model(arrays["adversarial"]).numpy().argmax(axis=1)
        np.testing.assert_array_equal(predictions, arrays["predictions"])


def test_a_targeted_attack_on_a_run(command, folder, trained):
    command(
        "attack",
        f"--run={trained}",
        "--attack=fgsm",
        "--target=3",
        "--limit=10",
        "--pictures=0",
        f"--output_dir={folder}/out",
    )
    with np.load(folder / "out" / "adversarial.npz") as arrays:
        assert 3 not in arrays["labels"]


def test_the_adaptive_attack_needs_a_score(command, folder, model_file, data_file):
    text = command(
        "attack",
        f"--model={model_file}",
        f"--data={data_file}",
        "--radius=0.1",
        "--steps=2",
        "--loss=detector_aware",
        "--score=entropy",
        "--limit=5",
        "--pictures=0",
    )
    assert "of 5 images" in text
