"""Files that release 0.1 saved, which name the modules of its classes, load and train on."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_robust as kr

SAVED = pathlib.Path(__file__).parent / "saved_by_0_1"


def test_a_model_saved_by_0_1_answers_the_same_and_trains_on():
    model = keras.saving.load_model(SAVED / "udr_trades.keras")
    with np.load(SAVED / "outputs.npz") as saved:
        x, logits = saved["x"], saved["logits"]
    np.testing.assert_allclose(model(x)["logits"], logits, atol=1e-6)
    assert model.weight_perturbation == kr.AWP(0.01)
    before = int(model.step.numpy())
    model.fit(x, np.arange(8) % 3, batch_size=4, verbose=0)
    assert int(model.step.numpy()) == before + 2


@pytest.mark.parametrize("file", ["attacks.json", "losses.json"])
def test_what_0_1_wrote_is_written_without_modules(file):
    for config in json.loads((SAVED / file).read_text("utf-8")):
        part = keras.saving.deserialize_keras_object(config)
        again = keras.saving.serialize_keras_object(part)
        assert again["registered_name"] == f"keras_robust>{type(part).__name__}"
        assert keras.saving.deserialize_keras_object(json.loads(json.dumps(again))) == part


def test_every_name_of_0_1_is_known():
    names = json.loads((SAVED / "registered_names.json").read_text("utf-8"))
    known = keras.saving.get_custom_objects()
    assert len(names) == 72
    assert [name for name in names if name not in known] == []


def test_registered_names_have_no_module():
    known = keras.saving.get_custom_objects()
    own = [name for name, c in known.items() if c.__module__.startswith("keras_robust.")]
    former = json.loads((SAVED / "registered_names.json").read_text("utf-8"))
    assert all(name.startswith("keras_robust>") for name in own if name not in former)


def test_two_classes_of_one_name_are_refused():
    other = type("LinfBall", (), {"__module__": "keras_robust.elsewhere"})
    with pytest.raises(ValueError, match=r"LinfBall is registered twice: by .*balls and .*else"):
        kr.types  # noqa: B018
        from keras_robust.core.config import register

        register(other)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            "import keras, keras_robust; keras.saving.load_model({path!r})",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import keras_robust, keras; keras_robust.models; keras.saving.load_model({path!r})",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "from keras_robust.models import adapt; import keras_robust as kr, keras; kr.AWP; "
            "keras.saving.load_model({path!r})",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_importing_the_package_is_enough_to_load_a_file(program):
    code = program.format(path=str(SAVED / "udr_trades.keras"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_the_package_itself_is_imported_without_tensorflow():
    code = (
        "import sys, keras_robust; from keras_robust.core import quiet_tensorflow; "
        "print(*sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)), dir(keras_robust))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert out.startswith("['AWP'")
