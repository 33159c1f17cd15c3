"""The documents are true: their Python runs, their commands have the flags that they name, and a
figure that stands in two places is the same in both.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md")))]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text("utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [body for found, body in fenced if found == language]


# They train, or attack in several ways.
SLOW = {
    f"docs/{name}.md"
    for name in ("certifying", "choosing", "detecting", "finetuning", "judging", "own_data")
}


def write_flowers(folder: Path) -> None:
    """The images that a document reads: noise, four of each of five classes."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("daisy", "dandelion", "rose", "sunflower", "tulip"):
            (folder / split / kind).mkdir(parents=True)
            for number in range(4):
                pixels = tf.constant(rng.integers(0, 256, (120, 100, 3)), tf.uint8)
                tf.io.write_file(
                    str(folder / split / kind / f"{number}.png"), tf.io.encode_png(pixels)
                )


def without_downloads(monkeypatch) -> None:
    """Noise in the place of what a document downloads, in the same form."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (300, 32, 32, 3), np.uint8), np.arange(300) % 10
    pair = images, labels[:, None]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (pair, pair))
    rows = {"img": list(images), "label": labels.tolist()}
    hub = types.ModuleType("datasets")
    hub.load_dataset = lambda name: {"train": rows, "test": rows}
    monkeypatch.setitem(sys.modules, "datasets", hub)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in DOCUMENTS
        if blocks(name, "python")
    ],
)
def test_python_runs(document, tmp_path, monkeypatch):
    """In order, in one namespace; with one epoch and two steps of each attack, to be quick, and
    without pretrained weights, which would be downloaded.
    """
    monkeypatch.chdir(tmp_path)
    if "flowers/train" in "".join(blocks(document, "python")):
        write_flowers(tmp_path / "flowers")
    if document == "docs/own_data.md":
        without_downloads(monkeypatch)
    code = blocks(document, "python")
    module = types.ModuleType("document")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "document", module)
    names = module.__dict__
    for block in code:
        quick = re.sub(r"\bsteps=\d+", "steps=2", re.sub(r"epochs=\d+", "epochs=1", block))
        quick = quick.replace('weights="imagenet"', "weights=None")
        exec(compile(quick, document, "exec"), names)
    if document == "README.md":
        assert (tmp_path / "runs/first/report.html").stat().st_size > 10_000
        assert names["x_adv"].shape == names["x"].shape
    if document == "docs/finetuning.md":
        assert (tmp_path / "runs/flowers/robust.keras").stat().st_size > 1_000_000


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


# Pages of measurements. A sentence, or a row of a table, that links to one quotes its figures.
MEASURED = [
    *sorted(ROOT.glob("docs/results/*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "serving.md",
]
LINK = re.compile(r"\]\((?!http)([^)#\s]+\.md)(?:#([\w-]+))?\)")


def sentences(text: str) -> list[str]:
    """The sentences and the rows of tables of a document, without code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    for block in re.split(r"\n\s*\n|\n(?=[|#]|- )", text):
        line = " ".join(block.split())
        found += [line] if line.startswith("|") else re.split(r"(?<=[.:])\s+(?=[A-Z*`\[(])", line)
    return found


def figures(text: str) -> set[str]:
    """Numbers with a decimal point or in percent; settings are mostly integers."""
    text = re.sub(r"\]\([^)]*\)", "]", text)
    number = r"(?<![\w.,/-])(\d[\d,]*\.\d+|\d+(?= ?%)|\d+(?:\.\d+)?(?= (?:and|to) [\d.]+ ?%))"
    return set(re.findall(number + r"(?![\w/])", text))


def section(text: str, anchor: str | None) -> str:
    """The text below the heading that an anchor names; the whole text without an anchor."""
    if not anchor:
        return text
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in parts[1::2]]
    return parts[2::2][slugs.index(anchor)]


def quotations() -> list[tuple[Path, str, Path, str | None]]:
    """Sentences with figures that link to a page: document, sentence, page, anchor."""
    documents = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"]
    return [
        (document, sentence, page, anchor)
        for document in documents
        for sentence in sentences(document.read_text("utf-8"))
        for path, anchor in LINK.findall(sentence)
        if (page := (document.parent / path).resolve()) in MEASURED and page != document
        if figures(sentence)
    ]


def test_quoted_figures_are_those_of_the_page_that_they_link_to():
    found = quotations()
    assert {page.name for _, _, page, _ in found} >= {"README.md", "evaluation.md"}
    for document, sentence, page, anchor in found:
        missing = figures(sentence) - figures(section(page.read_text("utf-8"), anchor))
        assert not missing, f"{document.name} quotes {missing} of {page.name}: {sentence}"


def test_a_summary_quotes_the_tables_below_it():
    """Each figure is one of the page, or of a page that it links to, perhaps rounded; differences
    in points are not in the tables.
    """
    for page in ROOT.glob("docs/results/*.md"):
        text = page.read_text("utf-8")
        for summary in re.findall(r"\*\*Summary\.\*\*.*?(?=\n\n)", text, flags=re.DOTALL):
            linked = ((page.parent / path).read_text("utf-8") for path, _ in LINK.findall(summary))
            there = figures("\n".join([text.replace(summary, ""), *linked]))
            known = [float(one.replace(",", "")) for one in there]
            for quoted in figures(re.sub(r"[\d.]+( to [\d.]+)? points", "", summary)):
                half = 0.501 * 10.0 ** -len(quoted.partition(".")[2])
                near = (abs(one - float(quoted)) <= half for one in known)
                assert any(near), f"{page.name} has {quoted} in its summary alone"


def test_a_quotation_that_drifted_is_found():
    text = "UDR has 78 and 44 % of 300 images, 0.30 ([there](there.md)).\n\n```\n99.5 %\n```\n"
    assert figures(" ".join(sentences(text))) == {"78", "44", "0.30"}
    assert figures(section("# A\n1.0\n## B c\n2.0 and 74.0 % of 5\n# C\n3.0", "b-c")) == {
        "2.0",
        "74.0",
    }


def test_the_table_of_mnist_is_that_of_its_report():
    results = ROOT / "docs" / "results"
    reports = json.loads((results / "mnist" / "report.json").read_text("utf-8"))["reports"]
    table = section((results / "README.md").read_text("utf-8"), "mnist-two-epochs")
    rows = re.findall(r"^\|.*\| ([\d.]+) % \(.*\| ([\d.]+) % \(", table, flags=re.MULTILINE)
    assert len(rows) == len(reports) == 4
    for row, report in zip(rows, reports, strict=True):
        expected = report["clean_accuracy"], report["attacks"][0]["accuracy"]
        assert [float(cell) / 100 for cell in row] == pytest.approx(expected, abs=0.00051)
