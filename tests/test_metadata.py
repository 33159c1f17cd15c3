"""What the package says about itself is the same everywhere."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

import keras_robust

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def text(name):
    return (ROOT / name).read_text("utf-8")


def test_the_version_is_the_newest_release_of_the_changelog_and_of_the_citation():
    released = re.findall(r"^## \[([\d.]+)\]", text("CHANGELOG.md"), flags=re.MULTILINE)
    cited = re.findall(r"^version: (\S+)$", text("CITATION.cff"), flags=re.MULTILINE)
    assert keras_robust.__version__ == released[0] == cited[0]


def test_the_versions_of_python(setup):
    """The bounds, the classifiers, the Makefile and the README agree."""
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", setup["options"]["python_requires"]).groups()
    minors = range(int(low), int(high))
    named = re.findall(r"Python :: 3\.(\d+)", setup["metadata"]["classifiers"])
    assert list(map(int, named)) == list(minors)
    assert f"(3, {minors[0]}) <= v <= (3, {minors[-1]})" in text("Makefile")
    assert text("README.md").count(f"Python 3.{minors[0]} to 3.{minors[-1]}") == 2


def test_the_authors_are_named_once(setup):
    assert f"name: {setup['metadata']['author']}" in text("CITATION.cff")


def test_every_extra_that_the_readme_installs_exists(setup):
    named = re.findall(r"pip install '(?:keras_robust|\.)\[([\w,]+)\]'", text("README.md"))
    extras = {extra for group in named for extra in group.split(",")}
    assert extras and extras <= set(setup["options.extras_require"])
