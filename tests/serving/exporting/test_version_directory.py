"""Version directories: finding them, and publishing a new one."""

from __future__ import annotations

import pytest

from keras_robust.serving.exporting import version_directory
from keras_robust.serving.exporting.version_directory import (
    check_version,
    find_version,
    publish,
    versions,
    workspace,
)


def test_versions_are_sorted_as_numbers(tmp_path):
    for name in ("10", "9", "0", "x", "-3", "1.5", "9" * 30):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert list(versions(tmp_path)) == [0, 9, 10]
    assert find_version(tmp_path).name == "10"
    assert find_version(tmp_path, 9).name == "9"
    assert versions(tmp_path / "nowhere") == {}


def test_a_missing_version_names_those_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no version of a model"):
        find_version(tmp_path)
    (tmp_path / "3").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no version 4; it holds \[3\]"):
        find_version(tmp_path, 4)
    assert check_version(2**63 - 1)


def test_a_workspace_is_beside_the_versions_and_gone_afterwards(tmp_path):
    base = tmp_path / "exported" / "digits"
    with workspace(base) as draft:
        draft.mkdir()
        assert draft.parent.parent == tmp_path
        assert publish(draft, base, None) == base / "1"
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_a_mounted_base_is_written_from_within(tmp_path, monkeypatch):
    """No rename crosses from one file system to another."""
    base = tmp_path / "digits"
    base.mkdir()
    monkeypatch.setattr(version_directory, "_device", str)
    with workspace(base) as draft:
        draft.mkdir()
        assert draft.parent.parent == base
        assert versions(base) == {}
        publish(draft, base, 3)
    assert [path.name for path in base.iterdir()] == ["3"]
