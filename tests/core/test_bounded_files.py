"""Files that declare more than they hold are refused before they are read."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from keras_robust.core import bounded_files as bounded

BIG = 2 * 2**30


def header(shape, descr="<f4"):
    content = io.BytesIO()
    written = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, written)
    return content.getvalue()


def archive(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """An `.npz` file of one array that declares 2 GiB."""
    path = archive(tmp_path_factory.mktemp("bomb") / "bomb.npz", {"x.npy": header((2**29,))})
    declare(path, BIG)
    return path


def declare(path, size):
    """Sets the unpacked size of the only entry, in its local and its central header."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        entry = file.infolist()[0]
        central = file.start_dir
    field = size.to_bytes(4, "little")
    content[central + 24 : central + 28] = field
    content[entry.header_offset + 22 : entry.header_offset + 26] = field
    path.write_bytes(content)


def peak(call):
    tracemalloc.start()
    try:
        call()
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


def test_an_archive_that_unpacks_to_too_much_is_not_read(bomb):
    def read():
        with pytest.raises(ValueError, match=r"would unpack to 2\.0 GiB; at most 1\.0 GiB"):
            bounded.open_arrays(bomb)

    assert peak(read) < 2**20


def test_a_large_archive_that_is_hardly_packed_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_UNPACKED", 100)
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    with bounded.open_arrays(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["x"], np.arange(1000))


def test_python_reads_no_more_than_an_entry_declares(tmp_path):
    """So the declared sizes bound what is read, also if they lie."""
    path = archive(tmp_path / "a.zip", {"x": b"0" * 10**6})
    declare(path, 10)
    with zipfile.ZipFile(path) as file, pytest.raises(zipfile.BadZipFile, match="CRC"):
        file.read("x")


@pytest.mark.parametrize("shape", [(2**40,), (2**33, 2**33), (-1,)])
@pytest.mark.parametrize("packed", [True, False])
def test_an_array_larger_than_its_file_is_not_allocated(shape, packed, tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(header(shape) + bytes(64))
    if packed:
        path = archive(tmp_path / "x.npz", {"x.npy": path.read_bytes()})
    with pytest.raises(ValueError, match="An array of float32 of shape"):
        bounded.open_arrays(path)


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_nothing_is_unpickled(save, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    file = io.BytesIO()
    save(file, np.array([Trap()]), allow_pickle=True)
    for source in (file, tmp_path / "file.npz"):
        if source is not file:
            source.write_bytes(file.getvalue())
        with pytest.raises(ValueError, match="Python objects"):
            bounded.open_arrays(source)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_version_of_the_format(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x07\x00")
    with pytest.raises(ValueError, match="unknown format version"):
        bounded.open_arrays(tmp_path / "x.npy")


def test_arrays_of_an_open_file():
    file = io.BytesIO()
    np.savez_compressed(file, a=np.ones(3), names=np.array(["one", "two"]))
    with bounded.open_arrays(file) as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == {
            "a": [1, 1, 1],
            "names": ["one", "two"],
        }
    file = io.BytesIO()
    np.save(file, np.ones(3))
    assert bounded.open_arrays(file).tolist() == [1, 1, 1]


def test_text_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_TEXT", 8)
    path = tmp_path / "a.json"
    path.write_text("[1, 2]  ")
    assert bounded.read_json(path) == [1, 2]
    path.write_text("[1, 2, 3]")
    with pytest.raises(ValueError, match=r"a\.json is larger than 8 bytes"):
        bounded.read_json(path)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "[" * 10**5 + "]" * 10**5])
def test_nesting_is_bounded(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        bounded.read_json(tmp_path / "a.json")


def test_what_is_not_json():
    with pytest.raises(json.JSONDecodeError):
        bounded.parse_json("{")


def test_links_out_of_a_directory(tmp_path):
    root, outside = tmp_path / "run", tmp_path / "outside"
    for path in (root / "checkpoints", outside):
        path.mkdir(parents=True)
    (tmp_path / "alias").symlink_to(root)
    (root / "checkpoints" / "best.keras").symlink_to("other.keras")
    for place in (root, tmp_path / "alias"):
        bounded.check_links(place, ("checkpoints", "missing"))
    (root / "notes").symlink_to(outside)
    bounded.check_links(root, ("checkpoints",))
    for name, target in (("checkpoints/last.keras", outside), ("report", "../outside")):
        (root / name).symlink_to(target)
        with pytest.raises(ValueError, match=f"{name} is a link to .*outside {root}"):
            bounded.check_links(root, ("checkpoints", "report"))
        (root / name).unlink()
