"""The wheel: it installs one package, whose console script works in any folder."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.core.quiet_tensorflow import LEVEL
from keras_robust.evaluation import load_reports

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("keras_robust", "serving", "trainers", "setup.cfg", "pyproject.toml", "README.md")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
NOT_OURS = "raise ImportError('this package belongs to the user')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the checkout, built without the network."""
    pytest.importorskip("setuptools.build_meta", reason="setuptools builds the wheel")
    source = tmp_path_factory.mktemp("source")
    for name in (*SOURCES, "LICENSE"):
        path = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=ignore)
        else:
            shutil.copy(path, source / name)
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-c", BUILD, directory], cwd=source, check=True, capture_output=True
    )
    (file,) = directory.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The directory that the wheel is installed in, with its console script."""
    target = tmp_path_factory.mktemp("target")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    config = configparser.ConfigParser()
    config.read(next(target.glob("*.dist-info")) / "entry_points.txt")
    module, function = config["console_scripts"]["keras-robust"].split(":")
    script = target / "bin" / "keras-robust"
    script.parent.mkdir()
    script.write_text(f"from {module} import {function}\n{function}()\n")
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, with packages of the names that the repository uses for its programs."""
    path = tmp_path_factory.mktemp("folder")
    for name in ("serving", "trainers"):
        (path / name).mkdir()
        (path / name / "__init__.py").write_text(NOT_OURS)
    return path


@pytest.fixture(scope="module")
def environment(installed, folder):
    """The user's folder first, then the wheel's copy, then the installed dependencies."""
    own = {"PYTHONPATH": os.pathsep.join(map(str, (folder, installed)))}
    return {name: value for name, value in os.environ.items() if name != LEVEL} | own


@pytest.fixture(scope="module")
def script(installed, folder, environment):
    """Runs the console script in the folder; nothing on standard error, and exit code 0."""

    def run(*arguments):
        command = [sys.executable, installed / "bin" / "keras-robust", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="module")
def run(trained, folder):
    """A run directory in the folder."""
    shutil.copytree(trained, folder / "runs" / "digits")
    return "--run=runs/digits"


@pytest.fixture(scope="module")
def model(model_file, data_file, folder):
    """A user's own model and data in the folder."""
    shutil.copy(model_file, folder / "my.keras")
    shutil.copy(data_file, folder / "images.npz")
    return "--model=my.keras", "--data=images.npz"


def test_it_holds_one_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top_level,) = (name for name in names if name.endswith("top_level.txt"))
        assert archive.read(top_level).decode().split() == ["keras_robust"]
    own = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert own == {"keras_robust"}
    assert {
        "keras_robust/py.typed",
        "keras_robust/evaluation/rendering/templates/report.html.j2",
        "keras_robust/evaluation/rendering/templates/report.css",
        "keras_robust/models/published/digits/ibp-linf-0.15/weights.npz",
        "keras_robust/models/published/digits/ibp-linf-0.15/model.json",
        "keras_robust/models/published/digits/ibp-linf-0.15/card.json",
    } <= set(names)


def test_its_copy_is_imported(installed, folder, environment):
    code = "import keras_robust; print(keras_robust.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed))


def test_trained_models_are_in_it(folder, environment):
    code = """
import keras_robust as kr
for name in kr.models.available():
    kr.models.load(name)
    kr.evaluation.Card.from_json(kr.models.card_file(name).read_text("utf-8"))
print(*kr.models.available())
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(kr.models.available()) != []


def test_help(script):
    assert script().startswith("usage: keras-robust COMMAND")
    assert "--attacks" in script("evaluate", "--help")


def test_evaluate(script, folder, model, run):
    text = script("evaluate", *model, "--radius=0.1", "--attacks=pgd:steps=2,fgsm", "--limit=20")
    assert text.splitlines()[-1] == "Report: my_report/report.html"
    text = script("evaluate", run, "--limit=20")
    assert text.splitlines()[-1] == "Report: runs/digits/report/report.html"
    for directory in (folder / "my_report", folder / "runs" / "digits" / "report"):
        (report,) = load_reports(directory)
        assert [attack.name for attack in report.attacks] == ["PGD-2", "FGSM"]
        assert report.command.startswith("keras-robust evaluate ")
        assert (directory / "report.html").stat().st_size > 10_000


def test_check(script, model, run):
    assert "of 8 checks failed" in script("check", *model, "--radius=0.1", "--limit=10")
    assert "of 8 checks failed" in script("check", run, "--limit=10", "--steps=2")


def test_attack(script, folder, model, run):
    script("attack", *model, "--norm=l2", "--radius=1/2", "--limit=10", "--pictures=1")
    script("attack", run, "--attack=fgsm", "--limit=10", "--pictures=1")
    for directory in (folder / "my_attacks" / "pgd", folder / "runs/digits/attacks/fgsm"):
        assert len(list(directory.glob("*.png"))) == 2
        with np.load(directory / "adversarial.npz") as arrays:
            assert arrays["adversarial"].shape == (10, 8, 8, 1)


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        (("tensorflow_serving", "grpc"), ("evaluate", "--limit=5", "--output_dir=without_serving")),
        (("matplotlib", "jinja2"), ("export", "--model_base_path=exported/without_report")),
    ],
)
def test_a_command_needs_no_other_extra(folder, run, environment, missing, arguments):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        f"from keras_robust.cli.main import main; main({[*arguments, run]!r})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("source", ["model", "run"])
def test_export_and_serve(script, folder, model, run, source, installed, environment):
    flags = model if source == "model" else (run,)
    base = f"--model_base_path=exported/{source}"
    assert script("export", *flags, base) == f"{folder}/exported/{source}/1\n"
    text = script("calibrate", *flags, base, "--false_alarm_rate=0.2")
    assert text.startswith(f"{folder}/exported/{source}/2\n")
    assert script("verify", base).count("equal to the local model") == 4
    with np.load(folder / "images.npz") as arrays:
        np.save(folder / "batch.npy", arrays["x"][:3])
    command = [sys.executable, installed / "bin" / "keras-robust", "serve", "--model_name=m", base]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    server = subprocess.Popen(
        [*command, "--port=0", "--rest_api_port=0"], cwd=folder, env=environment, **pipes
    )
    try:
        ready = server.stdout.readline()
        found = re.fullmatch(
            r"Serving m version 2: gRPC (\S+), REST http://(\S+)/v1/models/m\n", ready
        )
        assert found, server.communicate()[1]
        query = ("query", "--model=m", "--images=batch.npy")
        over_grpc = script(*query, f"--server={found[1]}")
        assert over_grpc.count("batch.npy[") == 3
        assert script(*query, "--rest", f"--server={found[2]}") == over_grpc
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 0
    assert all(" INFO " in line for line in log.splitlines())
