"""The documentation site: every public name has a place, and every page is reached."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("mkdocs", reason="needs the extra `docs`")


def load_hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "_site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load_hooks()


def test_the_reference_has_every_public_room():
    rooms = {
        f"keras_robust.{path.parent.name}"
        for path in ROOT.glob("keras_robust/*/__init__.py")
        if re.search(r"^__all__ = ", path.read_text("utf-8"), flags=re.MULTILINE)
    }
    assert rooms | {"keras_robust"} == set(hooks.ROOMS)


@pytest.mark.parametrize("room", hooks.ROOMS)
def test_the_reference_has_every_public_name_and_nothing_that_is_not_there(room):
    page = hooks.reference_page(room)
    anchors = re.findall(rf"{{ #{room}\.(\w+) }}", page)
    assert sorted(anchors) == sorted(importlib.import_module(room).__all__)
    for full in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE):
        module, _, name = full.rpartition(".")
        assert hasattr(importlib.import_module(module), name), full


def test_the_navigation_has_every_page_once():
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"))
    by_hand = hooks.pages_of(config.nav)
    assert not [
        uri
        for uri in by_hand
        if not (uri in hooks.PAGES or (ROOT / "docs" / uri).exists()) and uri != hooks.REFERENCE
    ]
    reached = hooks.pages_of(hooks.on_config(config).nav)
    pages = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    reference = {f"{hooks.REFERENCE}{page}.md" for page in ("index", *hooks.ROOMS)}
    assert sorted(reached) == sorted(pages | set(hooks.PAGES) | reference)


@pytest.mark.parametrize("uri", hooks.PAGES)
def test_pages_of_other_files_have_one_title(uri):
    text = hooks.outside_page(uri)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"^# ", plain, flags=re.MULTILINE)) == 1


def test_links_from_file_to_file_become_links_from_page_to_page():
    text = (
        "[a](../README.md#from-the-shell), [b](../benchmarks/README.md) and [c](results/udr.md#x)"
    )
    assert hooks.site_links(text, "serving.md") == (
        "[a](shell.md#from-the-shell), [b](benchmarks.md) and [c](results/udr.md#x)"
    )
    assert hooks.site_links("[d](docs/serving.md)", "shell.md") == "[d](serving.md)"
    named = hooks.site_links("[docs/serving.md](docs/serving.md#limits)", "shell.md")
    assert named == "[Serving](serving.md#limits)"
    assert hooks.site_links("[e](../methods.md)", "results/udr.md") == "[e](../methods.md)"
    assert hooks.site_links("```\n[f](../README.md)\n```", "a.md") == "```\n[f](../README.md)\n```"


def test_a_list_that_follows_a_line_gets_an_empty_line():
    assert hooks.spaced_lists("Of these:\n- a\n- b\n") == "Of these:\n\n- a\n- b\n"
    assert hooks.spaced_lists("- a\n  more\n- b\n") == "- a\n  more\n- b\n"
    assert hooks.spaced_lists("```\nx\n- 1\n```\n") == "```\nx\n- 1\n```\n"


def test_the_glossary_has_the_terms_of_reports():
    path = ROOT / "keras_robust" / "evaluation" / "rendering" / "glossary.py"
    terms = {
        entry.elts[0].value
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for entry in node.value.elts
    }
    page = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    assert len(terms) > 10
    assert not {term for term in terms if f"**{term}**" not in page}


def test_what_the_comparison_claims_of_this_library_is_run_by_a_test():
    text = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!task|---)([^|]+) \| ([^|]+) \|.*\| ([^|]*)\|$", text, re.MULTILINE)
    ours = [row for row in rows if (len(row) == 3 and "tests/" in row[2]) or row[1] == "none"]
    assert len(ours) == 9
    for task, claim, test in ours:
        paths = re.findall(r"`(tests/[\w/]+\.py)`", test)
        assert (claim == "none") == (not paths), task
        assert all((ROOT / path).is_file() for path in paths), task


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_shows_every_public_name(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for room in hooks.ROOMS:
        page = (tmp_path / "reference" / room / "index.html").read_text("utf-8")
        shown = set(re.findall(r'id="([\w.]+)"', page))
        assert {f"{room}.{name}" for name in hooks.public_names(room)} <= shown
        assert "::: " not in page
