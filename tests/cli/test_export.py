"""`keras-robust export`, `calibrate` and `verify`: a model file of one's own, and a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_robust.cli.main import main
from keras_robust.experiments.publishing.export_run import read_detector
from keras_robust.serving.exporting.converted_model import ConvertedModel
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.verify import read_threshold


@pytest.fixture(scope="module")
def base(tmp_path_factory, robust_file, data_file):
    """The versions of a model file: exported, and calibrated again."""
    base = tmp_path_factory.mktemp("exported") / "robust"
    source = [f"--model={robust_file}", f"--data={data_file}", f"--model_base_path={base}"]
    main(["export", *source, "--score=least_confidence", "--false_alarm_rate=0.1"])
    main(["calibrate", *source, "--false_alarm_rate=0.2"])
    return base


def test_a_model_file(base, data_file, digits_model):
    with np.load(data_file) as arrays, SavedModelSession(base / "1") as model:
        served = model.predict("detect", arrays["x"])
        alarms = model.predict("detect", arrays["x_validation"])["is_adversarial"]
        local = digits_model(arrays["x"])
    np.testing.assert_allclose(served["probabilities"], local, atol=1e-5)
    assert alarms.sum() == 10
    metadata = json.loads((base / "1" / "assets.extra" / "keras_robust.json").read_text())
    assert metadata["recipe"] is None
    assert metadata["class_names"] == list("0123456789")
    assert metadata["detector"]["score"] == "least_confidence"


def test_another_false_alarm_rate(base):
    before, after = read_detector(base / "1"), read_detector(base / "2")
    assert after["threshold"] < before["threshold"]
    assert after | {"threshold": 0, "false_alarm_rate": 0.1} == before | {"threshold": 0}


def test_a_run(command, trained, tmp_path):
    text = command("export", f"--run={trained}", f"--model_base_path={tmp_path}/m", "--version=4")
    assert text == f"{tmp_path}/m/4\n"
    text = command(
        "calibrate",
        f"--run={trained}",
        f"--model_base_path={tmp_path}/m",
        "--false_alarm_rate=0.1",
        "--score=least_confidence",
    )
    detector = read_detector(tmp_path / "m" / "5")
    assert text == (
        f"{tmp_path}/m/5\n  flags images with least_confidence above "
        f"{detector['threshold']:.6g}: at most 0.1 of the {detector['samples']} validation images\n"
    )


def test_verify(command, base):
    text = command("verify", f"--model_base_path={base}")
    assert text.startswith(f"{base}/2\n")
    assert text.count("equal to the local model") == 4
    assert f"threshold of the detector: {read_threshold(base / '2'):.6g}" in text


def test_verify_prints_signatures(command, base):
    text = command("verify", f"--model_base_path={base}", "--version=1", "--signatures")
    assert "input images: float32 [-1, 8, 8, 1]" in text
    assert "output is_adversarial: bool [-1]" in text
    assert "saved_model_init_op" not in text


def test_user_errors_are_one_line(fails, base, trained, model_file, data_file, tmp_path):
    export = ["export", f"--model={model_file}", f"--data={data_file}"]
    message = fails("export", f"--run={trained}", f"--model_base_path={base}", "--version=1")
    assert message.startswith("keras-robust export: ") and "already holds version 1" in message
    message = fails(*export, f"--model_base_path={tmp_path}/m", "--false_alarm_rate=0.001")
    assert "cannot be set from 100 clean images" in message
    rate = "--false_alarm_rate=0.1"
    message = fails("calibrate", f"--run={trained}", f"--model_base_path={base}", rate)
    assert "is another model than" in message
    message = fails("calibrate", f"--run={trained}", f"--model_base_path={tmp_path}/m", rate)
    assert message.startswith("keras-robust calibrate: ") and "holds no version" in message
    message = fails("verify", f"--model_base_path={tmp_path}/m")
    assert message.startswith("keras-robust verify: ") and "holds no version" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "dynamic"])
def test_a_file_of_another_format(quantize, command, robust_file, data_file, tmp_path):
    path = tmp_path / "robust.tflite"
    options = [] if quantize is None else [f"--quantize={quantize}"]
    source = ["export", f"--model={robust_file}", f"--data={data_file}", "--false_alarm_rate=0.1"]
    text = command(*source, "--format=tflite", f"--output={path}", *options)
    images = 6 if quantize is None else 100  # of x_validation
    assert text.startswith(f"{path}\n  {images} images: largest difference ")
    with np.load(data_file) as arrays:
        x = arrays["x"]
    assert ConvertedModel(path)(x)["probabilities"].shape == (len(x), 10)


def test_flags_of_formats(fails, robust_file, data_file, tmp_path):
    source = ["export", f"--model={robust_file}", f"--data={data_file}"]
    for flags, text in (
        (["--format=tflite"], "--output"),
        (["--format=tflite", "--output=a.onnx"], "expected a name that ends with .tflite"),
        (["--format=onnx", "--output=a.onnx", "--version=2"], "--version belongs to --format="),
        (["--model_base_path=m", "--output=a.onnx"], "--output belongs to another --format"),
        (["--format=keras", "--output=a.keras", "--quantize=dynamic"], "only .tflite files"),
    ):
        assert text in fails(*source, *flags)
