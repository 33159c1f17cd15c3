"""`keras-robust evaluate` and `check`: a model file of one's own, and a run."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.cli.main import main
from keras_robust.cli.model_file import load_model_file
from keras_robust.evaluation import load_reports
from keras_robust.evaluation.results.parts import Check
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.measuring import evaluate_run
from keras_robust.experiments.runs.run_lock import RunLock

BALL = ("--norm=linf", "--radius=0.1")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Any folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_keras_model(command, folder, model_file, data_file):
    text = command(
        "evaluate",
        f"--model={model_file}",
        f"--data={data_file}",
        *BALL,
        "--attacks=pgd:steps=2,fgsm",
        "--radii=0.05,1/10",
        "--limit=20",
        "--score=entropy",
        "--false_alarm_rate=0.1",
    )
    (report,) = load_reports(folder / "my_report")
    assert text.splitlines()[-1] == "Report: my_report/report.html"
    assert sorted(path.name for path in (folder / "my_report").iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]
    assert [attack.name for attack in report.attacks] == ["PGD-2", "FGSM"]
    assert (report.model, report.dataset, report.defense) == ("my", "images.npz", "")
    assert (report.samples, report.radius) == (20, pytest.approx(0.1))
    assert report.detection.false_alarm_rate == 0.1
    assert [curve.radii for curve in report.curves] == [(0.0, 0.05, 0.1)]
    assert f"{report.worst_case_accuracy:.1%}" in text
    assert report.command  # that of the user


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """24 test digits as PNG files of twice the size, in a folder for each of their classes."""
    folder = tmp_path_factory.mktemp("data") / "images"
    x, y = next(iter(kr.data.load("digits", batch_size=24).test))
    for number, (image, label) in enumerate(zip(x.numpy(), y.numpy(), strict=True)):
        larger = np.repeat(np.repeat((image * 255).round().astype(np.uint8), 2, 0), 2, 1)
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        path = folder / str(label) / f"{number}.png"
        tf.io.write_file(str(path), tf.io.encode_png(larger))
    return folder


def test_a_folder_of_images_in_continuous_integration(folder, model_file, image_folder, capsys):
    names = f"--class_names={','.join('0123456789')}"
    arguments = [str(model_file), f"--data={image_folder}", *BALL, "--attacks=fgsm", names]
    with pytest.raises(SystemExit) as caught:
        main([
            "evaluate", *arguments, "--json", "--junit=out/junit.xml", "--fail_under=0.99",
            "--output_dir=a",
        ])  # fmt: skip
    assert caught.value.code == command_line.FAILED
    output = capsys.readouterr()
    result = json.loads(output.out)
    (report,) = load_reports(folder / "a")
    assert result["worst_case_accuracy"] == report.worst_case_accuracy < 0.99
    assert result["passed"] is False and result["samples"] == 24
    assert result["clean_accuracy"] > 0.7  # the images are the digits, under their own names
    assert result["attacks"] == {"FGSM": report.attacks[0].accuracy}
    assert "24 images" in output.err and "are resized to 8 x 8 pixels" in output.err
    suite = ElementTree.parse(folder / "out/junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "is below --fail_under=0.99" in suite.find("*/failure").get("message")

    main(["compare", "a", "a/report.json"])
    assert "do not differ significantly" in capsys.readouterr().out


def test_a_model_of_bytes_is_noticed(folder, digits_model, data_file, capsys):
    first = keras.layers.Rescaling(1 / 255)
    model = keras.Sequential([keras.Input((8, 8, 1)), first, *digits_model.layers])
    model.save(folder / "bytes.keras")
    capsys.readouterr()
    loaded = load_model_file("bytes.keras", str(data_file), note=print)
    assert "--pixel_range=0,255 is assumed" in capsys.readouterr().out
    images, _ = loaded.test_images(5)
    expected = digits_model(images)
    np.testing.assert_allclose(kr.models.predictions(loaded.model, images), expected, atol=1e-5)
    given = load_model_file("bytes.keras", str(data_file), preprocess="bytes", note=print)
    np.testing.assert_allclose(kr.models.predictions(given.model, images), expected, atol=1e-5)
    assert not capsys.readouterr().out


def test_a_robust_model(command, folder, robust_file):
    command(
        "evaluate",
        f"--model={robust_file}",
        "--data=digits",
        *BALL,
        "--attacks=fgsm",
        "--limit=20",
        f"--output_dir={folder}/out",
    )
    (report,) = load_reports(folder / "out")
    assert report.defense == "Adversarial (RobustModel)"
    assert report.detection is None and (folder / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_run(command, folder, trained):
    text = command("evaluate", f"--run={trained}", "--limit=20", f"--output_dir={folder}/out")
    (report,) = load_reports(folder / "out")
    assert [attack.name for attack in report.attacks] == ["PGD-2", "FGSM"]
    assert report.defense.startswith("trades")
    assert text.startswith(f"{trained}, best checkpoint\n")
    assert not (trained / "report").exists()


def test_an_interrupted_evaluation_resumes(command, folder, model_file, data_file, monkeypatch):
    arguments = ["evaluate", f"--model={model_file}", f"--data={data_file}", *BALL]
    arguments += ["--attacks=fgsm,pgd:steps=2", "--limit=20"]
    evaluate = evaluate_run.kr.evaluation.evaluate

    def interrupted(*args, **options):
        evaluate(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_run.kr.evaluation, "evaluate", interrupted)
    with pytest.raises(SystemExit, match="130"):
        command(*arguments)
    assert list((folder / "my_report" / "unfinished").rglob("*.npz"))
    monkeypatch.setattr(evaluate_run.kr.evaluation, "evaluate", evaluate)
    command(*arguments)
    assert not (folder / "my_report" / "unfinished").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--attacks=pgdd"], "Did you mean 'pgd'?"),
        (["--attacks=fgsm", "--queries=7"], "does not take queries"),
        (["--radii=big"], "'big' is not a radius"),
        (["--data=images.npz"], "images.npz does not exist"),
        (["--data=imagse/"], "There is no folder imagse"),
        (["--model=other.keras"], "other.keras does not exist"),
    ],
)
def test_user_errors_are_one_line(fails, folder, model_file, data_file, arguments, says):
    given = {"--model": model_file, "--data": data_file, "--radius": 0.1, "--limit": 5}
    given |= dict(argument.split("=") for argument in arguments)
    message = fails("evaluate", *(f"{name}={value}" for name, value in given.items()))
    assert message.startswith("keras-robust evaluate: ") and says in message
    assert not list(folder.iterdir())


def test_two_evaluations_into_one_directory(fails, folder, model_file, data_file):
    """The second one would overwrite the report and the checkpoint of the first."""
    (folder / "my_report").mkdir()
    lock = RunLock(folder / "my_report")
    source = [f"--model={model_file}", f"--data={data_file}", "--radius=0.1", "--attacks=fgsm"]
    try:
        message = fails("evaluate", *source)
    finally:
        lock.release()
    assert "my_report is being evaluated by another process. Wait for" in message
    assert list(folder.iterdir()) == [] or not list((folder / "my_report").iterdir())


def test_check_prints_each_check(command, model_file, data_file):
    text = command(
        "check",
        f"--model={model_file}",
        f"--data={data_file}",
        *BALL,
        "--limit=10",
        "--steps=2",
    )
    lines = [line for line in text.splitlines() if not line.startswith("  ")]
    assert [line.split(":")[0] for line in lines[:2]] == ["passed  gradients", "passed  logits"]
    assert " of 8 checks failed" in lines[-1]


def test_check_names_what_failed(command, trained, monkeypatch):
    asked = []

    def fake(model, data, ball, **options):
        asked.append((ball, options))
        found = [("logits", False), ("steps", True)]
        return tuple(Check(name, passed, 0.0, f"About {name}.") for name, passed in found)

    import keras_robust as kr

    monkeypatch.setattr(kr.evaluation, "sanity_checks", fake)
    text = command("check", f"--run={trained}", "--radius=0.2", "--steps=3")
    assert text.splitlines() == [
        "FAILED  logits: About logits.",
        "passed  steps: About steps.",
        "1 of 2 checks failed: logits.",
    ]
    ((ball, options),) = asked
    assert float(ball.radius) == pytest.approx(0.2)
    assert (options["steps"], options["limit"], options["seed"]) == (3, 100, 0)
