"""Files that somebody else may have written are read within bounds, and run nothing."""

from __future__ import annotations

import base64
import os
import re
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.cli.data_file import read_data_file
from keras_robust.core import bounded_files
from keras_robust.detection.fitted import read_fitted
from keras_robust.evaluation.results.example_images import decode_images
from keras_robust.experiments.publishing.export_run import read_detector
from keras_robust.experiments.recipes import build, own_recipe, schema
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import checkpoint
from keras_robust.models.pytorch.state_dict import read_state_dict
from keras_robust.serving.client.query import load_array
from keras_robust.serving.exporting.reference import Reference

ROOT = Path(__file__).parents[2]


def extra_images(path):
    config = schema.defaults()
    config.dataset.extra.file = str(path)
    build.extra_images(config)


def training_progress(path):
    """Of a checkpoint whose digest is right: whoever writes one can compute it."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("training.json", "{}")
        archive.comment = b"sha256:" + b"0" * 64
    with path.open("r+b") as file:
        digest = checkpoint._digest(file)
        file.seek(-len(digest), os.SEEK_END)
        file.write(digest)
    checkpoint.read(path)


ARRAYS = {
    "detector": read_fitted,
    "extra images": extra_images,
    "query": load_array,
    "reference": Reference.load,
    "state dict": read_state_dict,
    "test images": lambda path: read_data_file(path, 3, 1),
    "checkpoint": training_progress,
}


@pytest.mark.parametrize("reader", ARRAYS)
def test_an_archive_that_unpacks_to_too_much(reader, tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(10**5), keras_robust=np.array("{}"))
    monkeypatch.setattr(bounded_files, "MAX_UNPACKED", 10**5)
    with pytest.raises(ValueError, match="would unpack to"):
        ARRAYS[reader](path)


@pytest.mark.parametrize("reader", sorted(ARRAYS.keys() - {"checkpoint"}))
def test_nothing_is_unpickled(reader, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "trap.npz"
    trap = np.array([Trap()])
    names = ("x", "y", "images", "labels", "pixels", "threshold", "keras_robust")
    np.savez(path, allow_pickle=True, **dict.fromkeys(names, trap))
    with pytest.raises(ValueError, match="Python objects"):
        ARRAYS[reader](path)
    assert not (tmp_path / "ran").exists()


def in_a_run(name):
    def read(path):
        (path.parent / name).write_bytes(path.read_bytes())
        run = RunDirectory(path.parent)
        run.facts() if name == "run.json" else run.rows()

    return read


def exported(path):
    extra = path.parent / "assets.extra"
    extra.mkdir()
    (extra / "keras_robust.json").write_bytes(path.read_bytes())
    read_detector(path.parent)


def safetensors(path):
    content = path.read_bytes()
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(len(content).to_bytes(8, "little") + content)
    read_state_dict(weights)


DOCUMENTS = {
    "calibration": kr.detection.Calibration.load,
    "card": lambda path: kr.evaluation.Card.from_json(path.read_text()),
    "exported version": exported,
    "metrics": in_a_run("metrics.json"),
    "own recipe": own_recipe.from_file,
    "recipe": schema.from_json,
    "report": kr.evaluation.load_reports,
    "run": in_a_run("run.json"),
    "state dict": safetensors,
}


@pytest.mark.parametrize("reader", DOCUMENTS)
@pytest.mark.parametrize("depth", [500, 10**5])
def test_nested_json(reader, depth, tmp_path):
    """Less deep is parsed, and then refused as what it is not, also by readers that recurse."""
    path = tmp_path / "deep.json"
    path.write_text('{"dataset": {}, "model": ' + "[" * depth + "]" * depth + "}")
    try:
        DOCUMENTS[reader](path)
    except ValueError as error:
        assert depth == 500 or re.search("deep|recursion depth", str(error))
    else:
        assert depth == 500 and reader in ("metrics", "run")


@pytest.mark.parametrize(
    ("size", "shape", "text"),
    [(10**6, [1, 500, 500, 1], "would unpack to"), (10**6, [1, 2, 2, 1], "reshape|buffer size")],
    ids=["as large as it says", "larger than it says"],
)
def test_images_of_a_report_that_unpack_to_too_much(size, shape, text, monkeypatch):
    monkeypatch.setattr(bounded_files, "MAX_UNPACKED", 10**5)
    packed = base64.b64encode(zlib.compress(bytes(size))).decode()
    document = {"shape": shape, "float32_zlib_base64": packed}
    tracemalloc.start()
    with pytest.raises(ValueError, match=text):
        decode_images(document)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10**5


# What runs code or reads pickles: module -> the calls it may make. A recipe in Python is a program
# of its user's; a file of torch.save is read as tensors alone.
ALLOWED = {
    "keras_robust/experiments/recipes/own_recipe.py": {"runpy.run_path"},
    "keras_robust/models/pytorch/state_dict.py": {"torch.load"},
    "keras_robust/core/bounded_files.py": {"np.load"},
    "keras_robust/models/loading.py": {"keras.saving.load_model"},
}
DANGEROUS = {
    *("eval", "exec", "__import__", "runpy.run_path", "runpy.run_module", "torch.load"),
    *("np.load", "pickle.load", "pickle.loads", "joblib.load", "yaml.load", "marshal.loads"),
    *("keras.saving.load_model", "keras.models.load_model", "tf.saved_model.load", "os.system"),
    "keras.config.enable_unsafe_deserialization",
}


OPTIONS = {"allow_pickle": "False", "weights_only": "True", "shell": "False", "safe_mode": "True"}
CALL = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, DANGEROUS))})\(")
OPTION = re.compile("|".join(rf"\b{name}=(?!{safe}\b)" for name, safe in OPTIONS.items()))


def test_the_calls_that_run_code_or_unpickle_are_known():
    found = {}
    for path in sorted((ROOT / "keras_robust").rglob("*.py")):
        text, name = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
        assert not OPTION.search(text), name
        if CALL.search(text):
            found[name] = set(CALL.findall(text))
    assert found == ALLOWED
