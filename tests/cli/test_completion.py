"""Completion scripts, run by the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from keras_robust.cli import completion, main

# The words of a command line and the replies that must be among the completions; bash breaks words
# at `=`, zsh does not.
CASES = {
    "commands": (["keras-robust", "e"], ["evaluate", "export"]),
    "flags": (["keras-robust", "attack", "my.keras", "--rad"], ["--radius="]),
    "both forms of a switch": (["keras-robust", "compare", "--"], ["--json", "--nojson"]),
    "values": (["keras-robust", "evaluate", "--norm", "=", "l"], ["l1", "l2", "linf"]),
    "values after =": (["keras-robust", "evaluate", "--norm", "="], ["l2", "linf"]),
    "values in one word": (["keras-robust", "evaluate", "--norm=li"], ["--norm=linf"]),
    "choices": (["keras-robust", "export", "--format", "=", "s"], ["saved_model"]),
    "shells": (["keras-robust", "completion", ""], ["bash", "zsh"]),
    "files": (["keras-robust", "attack", "my"], []),  # readline completes them
}


@pytest.fixture(scope="module")
def script():
    return completion.script("bash", {name: main._flags(name) for name in main.COMMANDS})


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(script):
    calls = "\n".join(
        f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _keras_robust; "
        'echo "${COMPREPLY[@]}"'
        for words, _ in CASES.values()
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{calls}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not done.stderr
    for (name, (_, expected)), line in zip(
        CASES.items(), done.stdout.split("\n")[:-1], strict=True
    ):
        found = line.split()
        assert set(expected) <= set(found) and bool(found) == bool(expected), (name, found)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_the_script(script):
    program = completion.script("zsh", {"attack": main._flags("attack")})
    head = "autoload -U compinit && compinit -u -D\n"
    done = subprocess.run(
        ["zsh", "-f", "-c", f"{head}{program}\nprint $_comps[keras-robust]"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "_keras_robust" in done.stdout, done.stderr


def test_every_flag_is_completed(script):
    for name in main.COMMANDS:
        for flag in main._flags(name):
            assert f"--{flag}" in script


def test_the_command_prints_it(command, script):
    assert command("completion", "bash") == script
    assert command("completion", "zsh").endswith(script)
    assert "source <(keras-robust completion bash)" in command("completion", "--help")
    assert "completion" in command("--help")
