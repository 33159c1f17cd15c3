"""The examples run, and their pages in the documentation show their code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "examples"


def load_render():
    """The program, which is no part of an installed package."""
    spec = importlib.util.spec_from_file_location("render", ROOT / "examples" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = load_render()


def code_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)\n```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_every_example_has_a_page_and_a_line_in_the_list_of_them():
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__", "render"}
    listed = re.findall(r"\]\((\w+)\.md\)", (PAGES / "index.md").read_text("utf-8"))
    assert scripts == set(render.NAMES) == set(listed)


@pytest.mark.parametrize("name", render.NAMES)
def test_a_page_shows_the_code_of_its_script_and_all_of_its_pictures(name):
    _, cells = render.read(name)
    page = PAGES / f"{name}.md"
    assert code_of(page) == [cell.source for cell in cells if cell.is_code], (
        f"{page.name} is of another version; run: python -m examples.render {name}"
    )
    shown = re.findall(rf"\]\({name}/([\w.]+)\)", page.read_text("utf-8"))
    there = sorted(path.name for path in (PAGES / name).glob("*")) if shown else []
    assert sorted(shown) == there


def test_a_cell_shows_what_it_prints_and_its_last_value(tmp_path):
    import types

    module = types.ModuleType("cells")
    assert render.execute("x = 2\nprint(x)\nx + 1", module) == ("2\n", 3)
    assert render.execute("y = x", module) == ("", None)
    assert render.shown(3, tmp_path) == "```text\n3\n```"
    assert render.shown(None, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", render.NAMES)
def test_an_example_runs(name, tmp_path, monkeypatch):
    """With one epoch, and two steps of each attack."""
    monkeypatch.chdir(tmp_path)

    def quick(code: str) -> str:
        return re.sub(r"\bsteps=\d+", "steps=2", re.sub(r"epochs=\d+", "epochs=1", code))

    page = render.render(name, tmp_path, quick).read_text("utf-8")
    committed = (PAGES / f"{name}.md").read_text("utf-8")
    for kind in ("```text", "<table>", "]("):
        assert page.count(kind) == committed.count(kind), kind
