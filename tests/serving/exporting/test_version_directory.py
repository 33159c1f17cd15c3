"""Version directories: finding them, and publishing a new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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


STOPPED = """
import sys
from pathlib import Path
from keras_robust.serving.exporting.version_directory import workspace
with workspace(Path(sys.argv[1])) as draft:
    draft.mkdir()
    (draft / "saved_model.pb").touch()
    print(draft.parent.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_export():
    """Starts another process that holds a workspace; returns it and the workspace's name."""
    started = []

    def start(base):
        program = [sys.executable, "-c", STOPPED, str(base)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(program, **pipes))
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mounted", [False, True])
def test_what_a_stopped_export_left_is_swept(tmp_path, other_export, mounted):
    base = tmp_path / "digits"
    base.mkdir()
    process, name = other_export(base)
    if mounted:  # the export saw another file system
        os.rename(tmp_path / name, base / name)
    where = base if mounted else tmp_path
    with workspace(base):
        assert (where / name / "model" / "saved_model.pb").is_file()  # it is still at work
    process.send_signal(signal.SIGKILL)
    process.wait()
    with workspace(tmp_path / "letters"):
        assert (where / name).is_dir()  # another model's
    with workspace(base) as draft:
        assert not (where / name).exists()
        assert draft.parent.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert list(base.iterdir()) == []


def test_only_drafts_are_swept(tmp_path):
    base = tmp_path / "digits"
    kept = [".digits-export-mine", ".digits-export-abcd12345", ".digits-export-", "1"]
    for name in kept:
        (tmp_path / name).mkdir()
    full = tmp_path / ".digits-export-abcd1234"
    (full / "thesis").mkdir(parents=True)
    (tmp_path / ".digits-export-abcd123_").symlink_to(full)
    (tmp_path / ".digits-export-abcd5678").touch()
    before = sorted(tmp_path.iterdir())
    with workspace(base):
        pass
    assert sorted(tmp_path.iterdir()) == before
    assert (full / "thesis").is_dir()


@pytest.mark.parametrize("opened", [False, True])
def test_a_sweep_before_the_lock_costs_nothing(tmp_path, monkeypatch, opened):
    """Another export may see the new directory before it is locked."""
    make, lock, made = version_directory.tempfile.mkdtemp, version_directory._lock, []

    def sweep():
        monkeypatch.setattr(version_directory, "_lock", lock)
        version_directory._sweep(tmp_path, ".digits-export-")

    def making(**where):
        made.append(make(**where))
        if len(made) == 1 and not opened:
            sweep()
        return made[-1]

    def locking(descriptor, wait):
        if made and opened:
            sweep()
        return lock(descriptor, wait)

    monkeypatch.setattr(version_directory.tempfile, "mkdtemp", making)
    monkeypatch.setattr(version_directory, "_lock", locking)
    with workspace(tmp_path / "digits") as draft:
        assert len(made) == 2 and str(draft.parent) == made[1]
        assert [str(path) for path in tmp_path.iterdir()] == made[1:]


def test_a_version_is_on_disk_before_and_after_its_name(tmp_path, monkeypatch):
    base = tmp_path / "exported" / "digits"
    steps, rename = [], os.rename

    def renamed(old, new):
        steps.append("rename")
        rename(old, new)

    with workspace(base) as draft:
        (draft / "variables").mkdir(parents=True)
        (draft / "saved_model.pb").write_bytes(b"graph")
        (draft / "variables" / "variables.index").write_bytes(b"index")
        names = {"model": draft, "base": base, "exported": base.parent, "top": tmp_path}
        names |= {path.name: path for path in draft.rglob("*")}
        of_path = {path: name for name, path in names.items()}
        monkeypatch.setattr(version_directory, "sync", lambda path: steps.append(of_path[path]))
        monkeypatch.setattr(version_directory.os, "rename", renamed)
        publish(draft, base, None)
    before = steps[: steps.index("rename")]
    assert set(before) == {"saved_model.pb", "variables.index", "variables", "model"} | {
        *("exported", "top")
    }
    assert before.index("variables.index") < before.index("variables") < before.index("model")
    assert steps[len(before) :] == ["rename", "base"]
