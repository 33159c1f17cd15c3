"""Damaged model files are named, with what is wrong; a stranger's reads and runs nothing else."""

from __future__ import annotations

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import h5py
import keras
import numpy as np
import pytest

from keras_robust.core import bounded_files
from keras_robust.models import loading, mlp
from keras_robust.models.loading import load_model

PARTS = ("config.json", "metadata.json", "model.weights.h5")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    mlp((2, 2, 1), 3, hidden=(4,)).save(path)
    return path


@pytest.fixture
def file(saved, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes())
    return path


def without(name):
    def change(path):
        with zipfile.ZipFile(path) as archive:
            parts = {part: archive.read(part) for part in archive.namelist() if part != name}
        write(path, parts)

    return change


def write(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def cut(fraction):
    def change(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * fraction)])

    return change


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_a_model_is_loaded(file, saved):
    first, second = load_model(file), load_model(str(saved), compile=True)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (without("config.json"), "it has no config.json"),
        (without("model.weights.h5"), "it has no model.weights"),
        (cut(0.5), "truncated or damaged"),
        (cut(0.99), "truncated or damaged"),
        (cut(0), "truncated or damaged"),
        (flip, "its model.weights.h5 is damaged|truncated or damaged"),
        (lambda path: path.write_text("text"), "truncated or damaged"),
        (lambda path: write(path, dict.fromkeys(PARTS, "{}")), ""),
    ],
    ids=["no config", "no weights", "half", "nearly all", "empty", "flipped", "text", "no model"],
)
def test_what_is_wrong_is_said(damage, text, file):
    damage(file)
    with pytest.raises(
        ValueError, match=rf"model\.keras cannot be loaded as a Keras model: .*({text})"
    ):
        load_model(file)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".weights"])
def test_other_formats(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=rf"model\{suffix} cannot be loaded as a Keras model"):
        load_model(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.keras does not exist"):
        load_model(tmp_path / "model.keras")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path)


def changed(path, name, change):
    """The archive with one part changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    write(path, {**parts, name: change(parts[name])})


def refuse(call, text):
    with pytest.raises(ValueError, match=rf"cannot be loaded as a Keras model: .*{text}"):
        call()


def with_layer(**layer):
    """A configuration whose last layer is another one."""

    def change(content):
        config = json.loads(content)
        config["config"]["layers"][-1].update(layer)
        return json.dumps(config)

    return change


def function(module, name):
    named = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    return {"module": "keras.layers", "class_name": "Activation", "config": {"activation": named}}


@pytest.mark.parametrize("name", loading._REFUSED)
def test_layers_that_run_what_is_outside_the_file(name, file):
    """Releases of Keras load some of them in their safe mode."""
    layer = {"module": "keras.layers", "class_name": name, "config": {"filepath": "elsewhere"}}
    changed(file, "config.json", with_layer(**layer))
    refuse(lambda: load_model(file), "it has a .*, which would run code")


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "subprocess", "class_name": "Popen", "registered_name": "Popen"},
        {"module": "builtins", "class_name": "exec", "registered_name": "exec"},
        function("os", "system"),
        function("keras.utils", "get_file"),
        function("keras.saving", "load_model"),
    ],
    ids=["class", "built-in", "function", "download", "other model"],
)
def test_no_code_outside_keras_is_imported(layer, file):
    changed(file, "config.json", with_layer(**layer))
    refuse(lambda: load_model(file), "")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_safe_mode_stays_on(suffix, tmp_path):
    """Also where the program turned it off for files of its own."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs))
    model.save(tmp_path / f"model{suffix}")

    def load():
        keras.config.enable_unsafe_deserialization()  # of this thread
        refuse(lambda: load_model(tmp_path / f"model{suffix}"), "[Ll]ambda")

    with ThreadPoolExecutor() as thread:
        thread.submit(load).result()


def external(group, tmp_path):
    group.create_dataset("0", (4, 4), "f4", external=[(str(tmp_path / "secret.bin"), 0, 64)])


def linked(group, tmp_path):
    group["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/kernel")


def soft(group, tmp_path):
    group["0"] = h5py.SoftLink("/elsewhere")


def virtual(group, tmp_path):
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", (4, 4))
    group.create_virtual_dataset("0", layout)


def huge(group, tmp_path):
    group.create_dataset("0", (2**15, 2**15), "f4", chunks=(2**10, 2**10), compression="gzip")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (external, "'0' are in another file"),
        (virtual, "'0' are in another file"),
        (linked, "'0' are a link"),
        (soft, "'0' are a link"),
        (huge, r"would unpack to 4\.0 GiB"),
    ],
)
@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_weights_in_other_files(change, text, packed, file, tmp_path):
    """A model file could read any file of its user; and kilobytes could unpack to gigabytes."""
    (tmp_path / "secret.bin").write_bytes(np.ones((4, 4), "f4"))
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["kernel"] = np.ones((4, 4), "f4")

    def edit(content):
        (tmp_path / "edited.h5").write_bytes(content)
        with h5py.File(tmp_path / "edited.h5", "a") as weights:
            group = weights["layers/dense/vars"]
            del group["0"]
            change(group, tmp_path)
        return (tmp_path / "edited.h5").read_bytes()

    changed(file, "model.weights.h5", edit)
    with zipfile.ZipFile(file) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    refuse(lambda: load_model(file), text)
    refuse(lambda: load_model(tmp_path / "edited.h5"), text)


def test_weights_that_hold_themselves(file, tmp_path):
    """A cycle of groups ends; what Keras says of it is Keras's."""
    with h5py.File(tmp_path / "model.h5", "w") as weights:
        weights.create_group("a")["b"] = weights["/"]
    refuse(lambda: load_model(tmp_path / "model.h5"), "")


def test_an_archive_that_unpacks_to_too_much(file, monkeypatch):
    write(file, dict.fromkeys(PARTS, b"0" * 10**6))
    monkeypatch.setattr(bounded_files, "MAX_UNPACKED", 10**6)
    monkeypatch.setattr(bounded_files, "MAX_RATIO", 0)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("it was unpacked"))
    refuse(lambda: load_model(file), r"would unpack to 2\.9 MiB; at most")


def test_a_configuration_that_is_nested_too_deeply(file):
    changed(file, "config.json", lambda _: "[" * 10**5)
    refuse(lambda: load_model(file), "nested too deeply")


def test_a_configuration_that_is_too_large(file, monkeypatch):
    monkeypatch.setattr(loading, "MAX_TEXT", 100)
    refuse(lambda: load_model(file), r"its config\.json takes")
