"""The documents are true: their Python runs, and their commands have the flags that they name."""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path

import pytest
from absl import flags

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md")))]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text("utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [body for found, body in fenced if found == language]


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if blocks(name, "python")])
def test_python_runs(document, tmp_path, monkeypatch):
    """In order, in one namespace; with one epoch and two steps of each attack, to be quick."""
    monkeypatch.chdir(tmp_path)
    code = blocks(document, "python")
    module = types.ModuleType("document")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "document", module)
    names = module.__dict__
    for block in code:
        quick = re.sub(r"\bsteps=\d+", "steps=2", re.sub(r"epochs=\d+", "epochs=1", block))
        exec(compile(quick, document, "exec"), names)
    if document == "README.md":
        assert (tmp_path / "runs/first/report.html").stat().st_size > 10_000
        assert names["x_adv"].shape == names["x"].shape


def commands() -> list[tuple[str, str]]:
    results = [f"docs/results/{path.name}" for path in sorted(ROOT.glob("docs/results/*.md"))]
    text = "\n".join(block for document in DOCUMENTS + results for block in blocks(document, ""))
    own, text = r"(?:trainers|serving)\.\w+", text.replace("\\\n", " ")
    programs = re.findall(rf"^ *(?:\S+=\S+ )?python -m ({own}) +(.*)$", text, flags=re.MULTILINE)
    console = re.findall(r"^ *keras-robust (\w+) +(.*)$", text, flags=re.MULTILINE)
    return programs + [(f"keras_robust.cli.{name}", arguments) for name, arguments in console]


def test_the_readme_shows_commands():
    assert {"trainers.train", "trainers.evaluate", "serving.export", "serving.query"} <= {
        module for module, _ in commands()
    }


@pytest.mark.parametrize(("module", "arguments"), commands())
def test_commands_have_the_flags_that_they_name(module, arguments):
    values = flags.FlagValues()
    importlib.import_module(module).define_flags(values)
    for name in re.findall(r"--(\w+)", arguments.replace("--config.", "")):
        if f"--config.{name}" not in arguments:
            assert name in values, f"{module} has no flag --{name}"


def test_every_relative_link_leads_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
