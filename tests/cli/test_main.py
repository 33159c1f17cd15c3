"""The console script: its commands, its help and its errors, without an import of TensorFlow."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from keras_robust import __version__
from keras_robust.cli import main, model_flags
from keras_robust.cli.extras import EXTRAS
from keras_robust.detection import NAMES
from keras_robust.experiments.flags import command_line

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("export", "calibrate", "serve", "monitor", "query", "verify")


def test_the_entry_point_is_the_console_script():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    (line,) = config["options.entry_points"]["console_scripts"].split("\n")[1:]
    name, target = (part.strip() for part in line.split("="))
    module, function = target.split(":")
    assert name == "keras-robust"
    assert getattr(importlib.import_module(module), function) is main.main


def test_help_lists_the_commands(command):
    for arguments in ([], ["--help"], ["-h"]):
        text = command(*arguments)
        assert all(f"\n  {name} " in text for name in main.COMMANDS)
    assert command("--version") == f"keras-robust {__version__}\n"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_command_explains_itself_and_its_flags(command, name):
    text = command(name, "--helpfull")
    module = importlib.import_module(f"keras_robust.cli.{name}")
    assert text.startswith(f"keras-robust {name}\n\n{module.__doc__.splitlines()[0]}")
    assert f"keras-robust {name} " in module.__doc__  # an example
    values = flags.FlagValues()
    module.define_flags(values)
    for flag in values:
        assert f"  --{'[no]' if values[flag].boolean else ''}{flag}: " in text
        first, end = values[flag].help.lstrip("<")[0], values[flag].help[-1]
        assert end in ".)" and (first.isupper() or first.islower()), flag


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_fits_a_screen_and_names_every_flag(command, name):
    text = command(name, "--help")
    assert len(text.splitlines()) <= 50 and max(map(len, text.splitlines())) <= 100
    module = importlib.import_module(f"keras_robust.cli.{name}")
    values = flags.FlagValues()
    module.define_flags(values)
    assert all(f"--{flag}" in text or f"--[no]{flag}" in text for flag in values)


def test_exit_codes_are_told(command):
    text = " ".join(command("--help").split())
    for code in (0, 1, command_line.USAGE, command_line.FAILED, command_line.INTERRUPTED):
        assert re.search(rf"[:;] {code} [a-z]", text), code


def test_unknown_commands_and_flags_name_the_valid_ones(fails):
    message = fails("evalate", "--model=x")
    assert message.startswith("keras-robust: There is no command 'evalate'; expected one of eval")
    assert message.endswith("Did you mean 'evaluate'?")
    message = fails("evaluate", "--modle=x")
    assert message.startswith("keras-robust evaluate: There is no flag --modle; there are attacks,")
    assert message.endswith("Did you mean 'model'?")
    assert "'x' is not a flag" in fails("evaluate", "x")
    assert "'b.keras' is not a flag" in fails("evaluate", "a.keras", "b.keras")
    assert "'a.keras' and --model=b.keras were given" in fails(
        "check", "a.keras", "--model=b.keras"
    )
    assert "'c' is one too many" in fails("compare", "a", "b", "c")
    assert "--second is missing" in fails("compare", "a", "--json")
    assert "not a number" in fails("check", "--radius=small")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["evaluate", "--data=a"],
            "Expected --model=my.keras (with --data) or --run=runs/digits; neither was",
        ),
        (["check", "--model=a.keras", "--run=b"], "both were given"),
        (["attack", "--model=a.keras"], "--data is missing"),
        (["attack", "--model=a.keras", "--data=digits"], "--radius is missing; give it as in"),
        (["evaluate", "--run=a", "--data=digits"], "--data belongs to --model"),
        (["evaluate", "--run=a", "--score=entropy"], "--score belongs to --model"),
        (["export", "--run=a"], "--model_base_path is missing"),
        (["calibrate", "--run=a", "--model_base_path=b"], "--false_alarm_rate is missing"),
        (["verify", "--signatures"], "--model_base_path is missing"),
        (["serve", "--port=0"], "--model_name is missing"),
        (["serve", "--model_name=a"], "--model_base_path is missing"),
        (["monitor", "--port=0"], "Expected either --server=localhost:8501, --grpc_server"),
        (["query", "--rest"], "--model is missing"),
        (["query", "--model=a"], "--images is missing"),
    ],
)
def test_missing_flags(fails, arguments, says):
    message = fails(*arguments)
    assert message.startswith(f"keras-robust {arguments[0]}: ")
    assert says in message


@pytest.mark.parametrize("name", main.COMMANDS)
def test_a_command_without_flags_says_what_it_does(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main([name])
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith(importlib.import_module(f"keras_robust.cli.{name}").__doc__.strip())
    assert f"`keras-robust {name} --help` lists them all" in text


def test_usage_errors_exit_with_code_2_and_others_with_1(capsys):
    for arguments, code in (
        (["evalate"], 2), (["check", "--flga=1"], 2), (["check", "--radius=0.1"], 2),
        (["check", "--steps=many", "--run=a"], 2), (["check", "--run=/nowhere"], 1),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main.main(arguments)
        assert caught.value.code == code, arguments
    assert len(capsys.readouterr().err.splitlines()) == 5


LONG = 300 * "x"


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--run=a", f"--output_dir={LONG}"],
        ["evaluate", f"--model={LONG}.keras", "--data=digits", "--radius=0.1"],
        ["attack", "--run=a", f"--output_dir=runs/{LONG}/b"],
        ["attack", f"--model={250 * 'x'}.keras", "--data=digits", "--radius=0.1"],
        ["export", "--run=a", f"--model_base_path={LONG}"],
        ["export", "--run=a", "--model_base_path=setup.cfg/b"],
        ["calibrate", "--run=a", "--false_alarm_rate=0.1", f"--model_base_path={LONG}"],
    ],
)
def test_paths_that_cannot_be_written_are_refused_before_any_work(fails, monkeypatch, arguments):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(model_flags, "start_tensorflow", lambda: 1 / 0)
    message = fails(*arguments)
    assert "Choose a" in message
    assert len(message) < 200


@pytest.mark.parametrize("arguments", [["check", f"--run={LONG}"], ["export", f"--run={LONG}"]])
def test_long_paths_to_read_are_not_repeated(fails, monkeypatch, arguments):
    monkeypatch.setattr(model_flags, "start_tensorflow", lambda: None)
    message = fails(*arguments, *(["--model_base_path=a"] if arguments[0] == "export" else []))
    assert "characters is too long for the file system" in message
    assert len(message) < 200


def test_ctrl_c_ends_a_command_with_one_line(monkeypatch, capsys, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(model_flags, "start_tensorflow", interrupted)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/keras-robust", "evaluate", f"--run={tmp_path}"])
    resume = f"finished batches are kept. Resume with: keras-robust evaluate --run={tmp_path}"
    for text in (command_line.START_OVER, resume):
        with pytest.raises(SystemExit) as caught:
            main.main(sys.argv[1:])
        assert caught.value.code == 130
        assert capsys.readouterr().err == f"keras-robust evaluate: Interrupted; {text}\n"
        (tmp_path / "unfinished").mkdir(exist_ok=True)


def test_flags_of_a_model_file(fails):
    model = ["evaluate", "--model=a.keras", "--data=digits", "--radius=0.1"]
    assert "--checkpoint belongs to --run" in fails(*model, "--checkpoint=last")
    assert "expected two numbers, such as 0,255" in fails(*model, "--pixel_range=255")
    both = ["--pixel_range=0,255", "--preprocess=caffe"]
    assert "--preprocess and --pixel_range exclude each other" in fails(*model, *both)
    assert "--class_names belongs to a folder" in fails(*model, "--class_names=a,b")
    assert "expected a fraction between 0 and 1" in fails(*model, "--fail_under=45")
    assert "needs a detector; choose its --score" in fails(*model, "--loss=detector_aware")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["evaluate", "--run=nowhere"], "report"),
        (["export", "--run=nowhere", "--model_base_path=b"], "serving"),
        (["calibrate", "--run=a", "--model_base_path=b", "--false_alarm_rate=0.1"], "serving"),
        (["serve", "--model_name=a", "--model_base_path=nowhere"], "serving"),
        (["query", "--model=a", "--images=missing.png"], "serving"),
    ],
)
def test_a_missing_extra_is_named_before_any_work(fails, monkeypatch, arguments, extra):
    packages = EXTRAS[extra]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in packages else find(name)
    )
    monkeypatch.setattr(model_flags, "start_tensorflow", lambda: 1 / 0)
    message = fails(*arguments)
    assert " and ".join(packages.values()) in message
    assert message.endswith(f"not installed; run `pip install 'keras_robust[{extra}]'`.")


def test_scores_are_the_detectors():
    assert model_flags.SCORES == NAMES


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_the_command(name, monkeypatch, capsys):
    program = importlib.import_module(f"serving.{name}")
    command = importlib.import_module(f"keras_robust.cli.{name}")
    assert (program.define_flags, program.run) == (command.define_flags, command.run)
    monkeypatch.setattr(program, "run", lambda values: "done")
    program.main([])
    assert capsys.readouterr().out == ("" if name == "serve" else "done\n")


def test_help_and_typing_errors_import_no_tensorflow():
    code = (
        "import sys\n"
        "from keras_robust.cli.main import COMMANDS, main\n"
        "main(['--help'])\n"
        "for name in COMMANDS:\n"
        "    main([name, '--help'])\n"
        "    for wrong in ([name, '--flga=1'], [name], ['no' + name]):\n"
        "        try: main(wrong)\n"
        "        except SystemExit as error: assert error.code == 2\n"
        "loaded = {'tensorflow', 'keras', 'grpc', 'matplotlib'} & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
