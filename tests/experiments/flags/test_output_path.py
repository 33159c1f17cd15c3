from __future__ import annotations

import os

import pytest

from keras_robust.experiments.flags.output_path import check_output


def test_a_directory_that_can_be_written_is_returned_and_not_created(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_output("a/b").parts == ("a", "b")
    assert check_output(tmp_path / ("x" * 255)).name == "x" * 255
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "prefix", "message"),
    [
        (256 * "x", "", "--model has a name of 256 bytes; .* at most 255. Choose a shorter one"),
        (128 * "é", "", "a name of 256 bytes"),
        ("/".join(18 * [200 * "x"]), "", "--model is a path of .* bytes; expected at most 3584"),
        ("a", 200 * "x", "would start with a name of 200 bytes; expected at most 127"),
    ],
)
def test_names_that_are_too_long(tmp_path, name, prefix, message):
    with pytest.raises(ValueError, match=message):
        check_output(tmp_path / name, "model", file_prefix=prefix)


def test_files_and_broken_links_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "file/a/b", "link", "link/a"):
        with pytest.raises(NotADirectoryError, match="cannot be created: .*another --output_dir"):
            check_output(tmp_path / name)


def test_a_directory_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match=f"no permission in {tmp_path}. Choose another"):
        check_output(tmp_path / "a" / "b")
