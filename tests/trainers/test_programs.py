"""The programs as a user starts them."""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import subprocess
import sys
import time

import pytest
from absl import app, flags

from keras_robust.core import quiet_tensorflow
from keras_robust.experiments.runs.run_directory import RunDirectory
from trainers import recipes

PROGRAMS = (
    *("train", "evaluate", "attack", "transfer"),
    *("evaluate_ensembles", "evaluate_detectors", "diagnose_latents", "toy", "demo", "reproduce"),
)


# The programs run here are imported already.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
ALL = [f"trainers.{name}" for name in (*PROGRAMS, "publish")]
ALL += [f"serving.{name}" for name in ("export", "calibrate", "serve", "query", "verify")]


@pytest.fixture
def started(monkeypatch):
    """Runs a program as `python -m` does, in this process; returns its exit code."""

    def run(main, flags_parser):
        sys.exit(main(flags_parser(sys.argv)))

    def start(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        monkeypatch.setattr(app, "run", run)  # absl's also takes over the log
        before = set(flags.FLAGS)
        try:
            with pytest.raises(SystemExit) as ended:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        return ended.value.code

    return start


def command(program, *arguments):
    return [sys.executable, "-m", f"trainers.{program}", *arguments]


def environment():
    # As on a user's machine, where TensorFlow's log level is not set.
    return {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}


def test_flags_are_declared_without_tensorflow():
    """TensorFlow takes seconds; `--help` and typing errors are answered before."""
    code = f"""
import importlib, sys
from absl import flags
for program in {PROGRAMS}:
    importlib.import_module(f"trainers.{{program}}").define_flags(flags.FlagValues())
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "program",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "train")) for name in PROGRAMS],
)
def test_a_typo_is_answered_at_once_in_one_sentence(program):
    done = subprocess.run(
        command(program, "--outptu_dir=x"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"trainers.{program}: There is no flag --outptu_dir; there are" in done.stderr
    assert "Did you mean 'output_dir'" in done.stderr


@pytest.mark.parametrize("module", ALL)
def test_a_program_without_flags_says_what_it_does_and_does_nothing(
    module, started, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert started(module) == 2
    text = capsys.readouterr().err
    assert text.startswith(importlib.import_module(module).__doc__.strip())
    assert f"python -m {module} --" in text  # an example with the flags that it needs
    assert text.endswith(f"`python -m {module} --help` lists them all.\n")
    assert not list(tmp_path.iterdir())


# The flags that a program needs, and an output that it cannot write.
LONG, LONG_RUN = f"--output_dir=runs/{300 * 'x'}", f"--run=runs/{200 * 'x'}"
UNWRITABLE = [
    ("train", ["--recipe=digits/standard", LONG]),
    ("train", ["--recipe=digits/standard", "--output_dir=file/run"]),
    ("evaluate", [f"--run={300 * 'x'}"]),
    ("evaluate", ["--run=a,b", LONG]),
    ("attack", ["--run=a", LONG]),
    ("attack", ["--run=a", "--server=b:1", f"--model={300 * 'x'}"]),
    ("transfer", ["--run=a,b", LONG]),
    ("evaluate_ensembles", ["--run=a", LONG]),
    ("evaluate_ensembles", [LONG_RUN, "--output_dir=b"]),
    ("evaluate_detectors", ["--run=a", LONG]),
    ("diagnose_latents", ["--run=a", LONG]),
    ("diagnose_latents", [LONG_RUN, "--output_dir=b"]),
    ("toy", [LONG]),
    ("toy", ["--output_dir=file"]),
    ("reproduce", ["--table=udr-1", LONG]),
    ("demo", [LONG]),
    ("demo", [f"--output_dir={20 * ('/' + 200 * 'x')}"]),
]


@pytest.mark.parametrize(("name", "arguments"), UNWRITABLE)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    name, arguments, started, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(quiet_tensorflow, "quiet_start", lambda: 1 / 0)
    assert started(f"trainers.{name}", *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trainers.{name}: ")
    assert line.endswith(("one.", "the run or the model.", "another --output_dir."))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


INTERRUPTED = [
    ("train", ["--recipe=digits/standard", "--output_dir=new"], "nothing was trained, and the"),
    (
        "train",
        ["--resume", "--output_dir=run", "--config.epochs=3"],
        "0 of 3 epochs are trained. Resume with: python -m trainers.train --resume "
        "--output_dir=run",
    ),
    ("evaluate", ["--run=run"], "the same command starts over."),
    (
        "evaluate",
        ["--run=unfinished,run", "--output_dir=x"],
        "finished batches are kept. Resume with: python -m trainers.evaluate "
        "--run=unfinished,run --output_dir=x",
    ),
    ("evaluate", ["--verify=card.json"], "the same command starts over."),
    ("attack", ["--run=run"], "the same command starts over."),
    ("transfer", ["--run=a,b", "--output_dir=x"], "the same command starts over."),
    ("evaluate_ensembles", ["--run=a", "--output_dir=x"], "the same command starts over."),
    ("evaluate_detectors", ["--run=a", "--output_dir=x"], "the same command starts over."),
    ("diagnose_latents", ["--run=a", "--output_dir=x"], "the same command starts over."),
    (
        "toy",
        ["--output_dir=x"],
        "finished trainings are kept. Resume with: python -m trainers.toy --output_dir=x",
    ),
    ("demo", ["--output_dir=x"], "the same command starts over."),
]


@pytest.mark.parametrize(("name", "arguments", "says"), INTERRUPTED)
def test_ctrl_c_ends_a_program_with_one_line(
    name, arguments, says, started, monkeypatch, capsys, tmp_path
):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    RunDirectory("run").write_recipe(recipes.load("digits/standard"), ())
    (tmp_path / "unfinished" / "unfinished").mkdir(parents=True)
    monkeypatch.setattr(quiet_tensorflow, "quiet_start", interrupted)
    assert started(f"trainers.{name}", *arguments) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trainers.{name}: Interrupted; {says}")


def test_help_lists_the_flags_and_the_recipes():
    done = subprocess.run(command("train", "--help"), capture_output=True, text=True, check=False)
    for text in ("--output_dir", "--[no]resume", "mnist/trades", "--config.epochs=3"):
        assert text in done.stdout


@pytest.mark.slow
def test_a_training_that_is_stopped_says_how_to_resume(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        command("train", "--recipe=digits/standard", "--config.epochs=10000",
                f"--output_dir={path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )  # fmt: skip
    try:
        run = RunDirectory(path)
        until = time.monotonic() + 120
        while len(run.rows()) < 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    first, last = err.removeprefix("\n").splitlines()
    assert first == "Stopping after this step; press Ctrl-C again to stop at once."
    assert last == (
        f"trainers.train: Interrupted; {len(run.rows())} of 10000 epochs are trained. "
        f"Resume with: python -m trainers.train --resume --output_dir={path}"
    )
    assert run.facts()["sessions"][0]["state"] == "interrupted"
    assert run.checkpoint("last").is_file()


@pytest.mark.slow
def test_a_program_that_is_stopped_ends_in_one_line(tmp_path):
    arguments = [f"--output_dir={tmp_path}", "--seeds=1", "--epochs=10000"]
    process = subprocess.Popen(command("toy", *arguments), stderr=subprocess.PIPE, text=True,
                               env=environment())  # fmt: skip
    try:
        time.sleep(2)  # while TensorFlow is imported
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # A shell says 130 of both: Python ends by the signal if it came while code was compiled.
    assert process.returncode in (130, -signal.SIGINT)
    *first, last = err.splitlines()
    assert not first or first[-1].startswith("Stopping after this step")
    assert last == (
        "trainers.toy: Interrupted; finished trainings are kept. Resume with: python -m "
        f"trainers.toy {' '.join(arguments)}"
    )
