"""A version that cannot be written: one sentence, and nothing of it is left."""

from __future__ import annotations

import errno
import os

import pytest

from keras_robust.serving.exporting import export, version_directory
from keras_robust.serving.exporting.export import export_model
from keras_robust.serving.exporting.version_directory import publish, versions, workspace


@pytest.fixture
def refused(tmp_path, classifier, detector):
    """Exports, and returns the error; nothing may be left."""

    def refused(base=tmp_path / "digits"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(OSError) as caught:
            export_model(classifier, base, detector)
        assert sorted(tmp_path.rglob("*")) == before
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
        return caught.value

    return refused


@pytest.mark.parametrize(
    "size",
    [pytest.param(1000, id="variables", marks=pytest.mark.slow), pytest.param(60_000, id="graph")],
)
def test_tensorflow_cannot_write_a_file(tmp_path, refused, size):
    """The system's limit on the size of a file acts in TensorFlow's writers as a full disk does."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        error = refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error) == (
        f"Cannot write {tmp_path / 'digits'}: File too large. No version was written."
    )
    assert error.errno == errno.EFBIG


@pytest.fixture
def quick(monkeypatch):
    """Exports that write empty models, to fail elsewhere."""
    monkeypatch.setattr(export, "_write_saved_model", lambda path, *_: path.mkdir())
    monkeypatch.setattr(export, "verify", lambda *_: None)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    ("room", "name"),
    [
        (export, "write_warmup"),
        (version_directory, "_sync_tree"),
        (version_directory.os, "rename"),
        (version_directory.tempfile, "mkdtemp"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_every_step_that_writes(tmp_path, refused, quick, monkeypatch, room, name, code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code), str(tmp_path / "draft"))

    with monkeypatch.context() as patch:
        patch.setattr(room, name, fail)
        (tmp_path / "digits" / "1").mkdir(parents=True)  # the base path stays if it is there
        error = refused()
    assert str(error) == (
        f"Cannot write {tmp_path / 'digits'}: {os.strerror(code)}. No version was written."
    )
    assert error.errno == code
    assert isinstance(error, PermissionError) == (code == errno.EACCES)
    assert list(versions(tmp_path / "digits")) == [1]


def test_a_path_that_is_too_long(tmp_path, refused):
    for base in (tmp_path / ("x" * 300), tmp_path.joinpath(*["y" * 200] * 25)):
        error = refused(base)
        assert error.errno == errno.ENAMETOOLONG
        assert f"({len(str(base))} characters): File name too long." in str(error)


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    base = tmp_path / ("x" * 255)
    with workspace(base) as draft:
        draft.mkdir()
        assert publish(draft, base, None) == base / "1"


@pytest.mark.parametrize("below", [(), ("m",)])
def test_a_file_in_the_place_of_a_directory(tmp_path, refused, below):
    file = tmp_path / "file"
    file.touch()
    error = refused(file.joinpath(*below))
    assert str(error) == (
        f"{file} is a file; expected a directory, the parent of version directories."
    )
