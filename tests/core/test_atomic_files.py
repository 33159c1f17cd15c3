from __future__ import annotations

import errno
import os

import pytest
import tensorflow as tf

from keras_robust.core.atomic_files import replacing, write_errors, write_text


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.keras"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as draft:
        assert draft.suffix == ".keras"
        draft.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link(tmp_path):
    """In a directory of somebody else's, where the temporary name was guessed."""
    other = tmp_path / "other.txt"
    other.write_text("mine")
    (tmp_path / f".a.{os.getpid()}.json").symlink_to(other)
    (tmp_path / "a.json").symlink_to(other)
    write_text(tmp_path / "a.json", "{}")
    assert (other.read_text(), (tmp_path / "a.json").read_text()) == ("mine", "{}")
    assert not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize("links", [True, False])
def test_the_file_before_is_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    path, previous = tmp_path / "last.keras", tmp_path / "previous.keras"
    for text in ("one", "two", "three"):
        with replacing(path, previous) as draft:
            draft.write_text(text)
    assert (path.read_text(), previous.read_text()) == ("three", "two")
    assert set(tmp_path.iterdir()) == {path, previous}


def test_there_is_a_file_at_any_moment(tmp_path, monkeypatch):
    """Killed between the two renames, both names are of the previous file; then it resumes."""
    path, previous = tmp_path / "last.keras", tmp_path / "previous.keras"
    write_text(path, "one")
    rename = os.replace
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        calls = iter([rename])
        patch.setattr(os, "replace", lambda *names: next(calls, interrupt)(*names))
        with replacing(path, previous) as draft:
            draft.write_text("two")
    assert (path.read_text(), previous.read_text()) == ("one", "one")
    with replacing(path, previous) as draft:
        draft.write_text("three")
    assert (path.read_text(), previous.read_text()) == ("three", "one")
    assert set(tmp_path.iterdir()) == {path, previous}


def interrupt(*_):
    raise KeyboardInterrupt


def test_what_is_renamed_is_on_the_disk(tmp_path, monkeypatch):
    done = []
    flush, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("flush"), flush(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), rename(*names)))
    write_text(tmp_path / "a.json", "{}")
    assert done == ["flush", "rename", "flush"]  # the file, its new name, the directory


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(OSError, match="space left on .*report.json"), replacing(path) as draft:
        draft.symlink_to("/dev/full")
        draft.write_text("x")
    assert not list(tmp_path.iterdir())


def test_errors_of_tensorflow_that_are_not_of_the_disk_pass(tmp_path):
    full = tf.errors.ResourceExhaustedError(None, None, "/a/b; No space left on device")
    with pytest.raises(OSError, match="No space left") as caught, write_errors(tmp_path):
        raise full
    assert caught.value.errno == errno.ENOSPC
    memory = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    with pytest.raises(tf.errors.ResourceExhaustedError), write_errors(tmp_path):
        raise memory


def test_an_error_keeps_its_kind_and_number(tmp_path):
    with pytest.raises(PermissionError) as caught, write_errors(tmp_path, " Nothing was written."):
        raise PermissionError(errno.EACCES, "Permission denied", "/x/.draft")
    assert str(caught.value) == f"Cannot write {tmp_path}: Permission denied. Nothing was written."
    assert caught.value.errno == errno.EACCES
    with pytest.raises(FileExistsError, match="^a sentence$"), write_errors(tmp_path):
        raise FileExistsError("a sentence")
