"""A full disk, a read-only disk and a kill leave the last good state, on a small file system."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.core.atomic_files import is_draft, write_errors, write_json
from keras_robust.core.bounded_files import read_json
from keras_robust.experiments.training import checkpoint
from keras_robust.models.loading import load_model
from keras_robust.serving import ConvertedModel, convert_model, export_model, verify
from keras_robust.serving.exporting.version_directory import versions

pytestmark = pytest.mark.slow
SIZE = 8 * 2**20


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)


class Disk:
    """A file system of 8 MiB."""

    def __init__(self, path):
        self.path = path
        self.filler = path / "filler"

    def fill(self, free=0):
        """Leaves so many bytes free."""
        stat = os.statvfs(self.path)
        self.filler.write_bytes(bytes(max(stat.f_bavail * stat.f_frsize - free, 0)))

    def read_only(self):
        assert mount("-o", "remount,ro", self.path).returncode == 0

    def files(self):
        return {p.relative_to(self.path).as_posix() for p in self.path.rglob("*")} - {"filler"}


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    done = mount("-t", "tmpfs", "-o", f"size={SIZE}", "none", path)
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="module")
def model():
    return kr.models.mlp((8, 8, 1), 10, hidden=(400,))  # 0.1 MB


@pytest.fixture(scope="module")
def detector(model):
    images = np.random.default_rng(0).random((64, 8, 8, 1)).astype(np.float32)
    return kr.detection.Detector(model).calibrate([(images, np.zeros(64))], 0.25)


WRITERS = {
    "json": lambda path, number, *_: write_json(path / "a.json", [number] * 10**5),
    "report": lambda path, number, *_: _report(number).save(path / "report"),
    "detector": lambda path, number, model, detector: detector.calibration.save(path / "d.json"),
    "export": lambda path, number, *parts: export_model(parts[0], path / "m", parts[1]),
    "convert": lambda path, number, *parts: convert_model(
        parts[0], path / f"{number}.tflite", parts[1]
    ),
}


def _report(number):
    return kr.evaluation.Report("", "", "", "", 0.0, number, 0, 1.0, (), 1.0)


def state(disk):
    """The files that are there, with their content."""
    return {name: (disk.path / name).read_bytes() for name in disk.files()
            if (disk.path / name).is_file()}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("free", [0, 2**14, "read-only"])
def test_what_cannot_be_written_changes_nothing(writer, free, disk, model, detector):
    write = WRITERS[writer]
    write(disk.path, 1, model, detector)
    before = state(disk)
    assert before
    if free == "read-only":
        disk.read_only()
    else:
        disk.fill(free)
    try:
        with write_errors(disk.path):
            write(disk.path, 2, model, detector)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.EROFS)
        assert "\n" not in str(error) and str(disk.path) in str(error)
        assert state(disk) == before
    else:
        assert free == 2**14  # enough for a small file


def test_a_checkpoint_on_a_full_disk(disk):
    """The last one and the one before it can still be loaded, and no draft is left."""
    model = kr.defenses.standard(kr.models.mlp((8, 8, 1), 10, hidden=(2000,)), kr.LinfBall(0.1))
    model.compile("adam")
    path, previous = disk.path / "last.keras", disk.path / "previous.keras"
    for step in (1, 2):
        checkpoint.write(path, model, checkpoint.Progress(step), previous)
    for free in (2**19, 2**12, 0):
        disk.fill(free)
        with pytest.raises(OSError) as caught, write_errors(path):
            checkpoint.write(path, model, checkpoint.Progress(3), previous)
        assert caught.value.errno == errno.ENOSPC
        assert [checkpoint.read(file).step for file in (path, previous)] == [2, 1]
        load_model(path)
        assert disk.files() == {"last.keras", "previous.keras"}
        disk.filler.unlink()


EXPORT = """
import sys, uuid
import keras_robust as kr
from keras_robust.serving import convert_model, export_model
model = kr.models.load("digits/ibp-linf-0.15")
_, validation, _ = kr.data.load("digits")
detector = kr.detection.Detector(model).calibrate(validation, 0.05)
print("ready", flush=True)
while True:
    convert_model(model, f"{sys.argv[1]}/{uuid.uuid4()}.tflite", detector)
    export_model(model, sys.argv[1] + "/m", detector)
"""


def test_a_killed_export(tmp_path):
    """At whatever moment: all versions and files that are there are whole, and drafts go."""
    for seconds in (1.0, 2.5, 4.1):
        process = subprocess.Popen(
            [sys.executable, "-c", EXPORT, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = versions(tmp_path / "m")
    for path in found.values():
        verify(path)
    for path in tmp_path.glob("*.tflite"):
        if not is_draft(path):
            ConvertedModel(path)(np.zeros((1, 8, 8, 1), np.float32))
            assert read_json(f"{path}.json")["format"] == "tflite"
    model = kr.models.load("digits/ibp-linf-0.15")
    _, validation, _ = kr.data.load("digits")
    detector = kr.detection.Detector(model).calibrate(validation, 0.05)
    assert export_model(model, tmp_path / "m", detector).name == str(len(found) + 1)
    assert not [path for path in tmp_path.iterdir() if "-export-" in path.name]
