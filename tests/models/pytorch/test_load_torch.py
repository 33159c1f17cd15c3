"""PyTorch state dicts: the same logits as PyTorch, and errors that say what does not fit.

`benchmarks/torch_networks.py` made the file of networks.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from keras_robust.models import load_torch
from keras_robust.models.pytorch import state_dict
from keras_robust.models.pytorch.state_dict import read_state_dict

STORED = dict(np.load(pathlib.Path(__file__).with_name("torch_networks.npz")))
# Stored network -> the architecture, and the options that the weights do not tell.
NETWORKS = {
    "resnet18": ("resnet18", {}),
    "resnet18_silu": ("resnet18", {"activation": "silu"}),
    "pre_act_resnet18": ("pre_act_resnet18", {}),
    "pre_act_resnet18_of_input": ("pre_act_resnet18", {"shortcut": "input"}),
    "pre_act_resnet18_deepmind": ("pre_act_resnet18", {"activation": "silu"}),
    "wide_resnet": ("wide_resnet", {}),
    "wide_resnet_deepmind": ("wide_resnet", {"activation": "silu"}),
}


def stored(name):
    """The state dict of a stored network, a new one each time."""
    arrays, begin = {}, 0
    for key, shape in json.loads(str(STORED[f"{name}/shapes"])).items():
        end = begin + math.prod(shape)
        arrays[key] = STORED[f"{name}/values"][begin:end].reshape(shape)
        begin = end
    assert begin == len(STORED[f"{name}/values"])
    return arrays


@functools.cache
def loaded(name):
    architecture, options = NETWORKS[name]
    return load_torch(stored(name), architecture, **options)


def logits(model):
    return model(STORED["x"], training=False)["logits"].numpy()


@pytest.fixture(scope="module")
def small():
    """A state dict of the smallest wide network, with normalization, from DeepMind's names."""
    arrays = stored("wide_resnet_deepmind")
    return {key: value for key, value in arrays.items() if ".block.1." not in key}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "resnet18_silu"])
def test_logits_are_those_of_pytorch(name):
    np.testing.assert_allclose(logits(loaded(name)), STORED[f"{name}/logits"], atol=1e-4)


@pytest.mark.slow
def test_another_activation():
    test_logits_are_those_of_pytorch("resnet18_silu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wide_resnet_deepmind", {"activation": "silu", "padding": "symmetric"}),
        ("pre_act_resnet18_of_input", {}),
    ],
)
def test_the_options_matter(name, options):
    """Padding and shortcut are not in the shapes, and change the logits."""
    model = load_torch(stored(name), NETWORKS[name][0], **options)
    assert np.abs(logits(model) - STORED[f"{name}/logits"]).max() > 1e-2


def test_sizes_and_normalization_are_read_off_the_arrays():
    model = loaded("wide_resnet_deepmind")
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output["logits"].shape == (None, 5)
    assert model.get_layer("stage2_block2_conv1").kernel.shape == (3, 3, 8, 8)
    layer = model.get_layer("normalization")
    np.testing.assert_allclose(np.ravel(layer.mean), [0.5, 0.484375, 0.4453125])
    np.testing.assert_allclose(np.ravel(layer.variance), np.square([0.25, 0.2421875, 0.26171875]))
    names = [one.name for one in loaded("pre_act_resnet18_of_input").layers]
    assert "last_bn" not in names and "normalization" not in names


def test_the_normalization_may_be_given(small):
    model = load_torch(small, "wide_resnet", mean=0.5, std=(0.2, 0.3, 0.4))
    layer = model.get_layer("normalization")
    np.testing.assert_allclose(np.ravel(layer.mean), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(np.ravel(layer.variance), [0.04, 0.09, 0.16], rtol=1e-6)
    bare = {key: value for key, value in small.items() if key not in ("mean", "std")}
    assert "normalization" not in [one.name for one in load_torch(bare, "wide_resnet").layers]


def test_prefixes_checkpoints_and_a_head_without_bias(small):
    """As saved by `DataParallel` around `nn.Sequential(Normalize, network)`."""
    renamed = {
        f"module.{'0' if key in ('mean', 'std') else '1'}.{key}": value
        for key, value in small.items()
        if key != "logits.bias"
    }
    checkpoint = {"epoch": 3, "state_dict": renamed, "optimizer": {"step": 1}}
    model, plain = load_torch(checkpoint, "wide_resnet"), load_torch(small, "wide_resnet")
    assert np.all(model.get_layer("logits").bias == 0)
    model.get_layer("logits").bias.assign(plain.get_layer("logits").bias)
    np.testing.assert_array_equal(logits(model), logits(plain))


def test_other_sizes_of_images(small):
    model = load_torch(small, "wide_resnet", input_shape=(16, 16, 3))
    assert model.input_shape == (None, 16, 16, 3)


def without(arrays, *names):
    return {key: value for key, value in arrays.items() if key not in names}


BROKEN = {
    "missing": (
        lambda a: without(a, "layer.0.block.0.conv_1.weight", "batchnorm.running_var"),
        r"missing: layer\.0\.block\.0\.conv_1\.weight, batchnorm\.running_var\. Options",
    ),
    "unexpected": (lambda a: {**a, "head.weight": np.ones(3)}, r"unexpected: head\.weight\. Opt"),
    "shapes": (
        lambda a: {**a, "layer.1.block.0.conv_0.weight": np.ones((9, 4, 3, 3))},
        r"shapes: layer\.1\.block\.0\.conv_0\.weight is \(9, 4, 3, 3\), expected \(8, 4, 3, 3\)",
    ),
    "not finite": (
        lambda a: {**a, "logits.bias": np.full(5, np.nan)},
        r"not finite: logits\.bias\.",
    ),
    "axes": (
        lambda a: {**a, "init_conv.weight": np.ones(16)},
        r"first kernel has the shape \(16,\) and its last \(5, 16\); expected 4 and 2 axes",
    ),
    "several": (
        lambda a: {f"{p}.{key}": value for key, value in a.items() for p in ("a", "b")},
        r"has several networks, 'a\.', 'b\.'; pass a dictionary with the arrays of one",
    ),
    "nothing": (
        lambda a: {f"x{n}.weight": np.ones(1) for n in range(9)},
        r"has no layers of wide_resnet; expected conv1\.weight and fc\.weight, or init_conv\."
        r"weight and logits\.weight, and it has x0\.weight, .*, x5\.weight and 3 more\.",
    ),
    "a list": (lambda a: {"a": "text"}, r"state dict: a is str; expected an array of numbers"),
    "empty": (lambda a: {}, r"The state dict holds dict; expected names with arrays"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_does_not_fit_is_said(kind, small):
    change, message = BROKEN[kind]
    with pytest.raises(ValueError, match=message):
        load_torch(change(small), "wide_resnet")


def test_arrays_may_be_ignored(small):
    arrays = {**small, "projection.weight": np.ones(3), "projection.bias": np.ones(3)}
    model = load_torch(arrays, "wide_resnet", ignore=["projection."], activation="silu")
    np.testing.assert_array_equal(
        logits(model), logits(load_torch(small, "wide_resnet", activation="silu"))
    )


def test_unknown_architectures_and_options(small):
    with pytest.raises(ValueError, match="no architecture with known names.* resnet18, pre_act"):
        load_torch(small, "vgg16")
    with pytest.raises(TypeError, match="wide_resnet has no option 'width'"):
        load_torch(small, "wide_resnet", width=2)
    with pytest.raises(ValueError, match="padding is 'valid'; expected one of 'symmetric', 'same'"):
        load_torch(small, "wide_resnet", padding="valid")


def safetensors(arrays, **other):
    """The bytes of a file, written by the definition of the format."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    types = {"float32": "F32", "float16": "F16", "int64": "I64", "uint16": "BF16"}
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        entry = {"dtype": types[str(array.dtype)], "shape": array.shape, "data_offsets": offsets}
        header[name], data = {**entry, **other}, data + array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_files_without_pytorch(tmp_path, small, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    np.savez(tmp_path / "a.npz", **small)
    (tmp_path / "a.safetensors").write_bytes(safetensors(small))
    for suffix in ("npz", "safetensors"):
        found = read_state_dict(tmp_path / f"a.{suffix}")
        assert list(found) == list(small)
        for key, value in small.items():
            np.testing.assert_array_equal(found[key], value)
    (tmp_path / "a.pt").touch()
    with pytest.raises(ImportError, match=r"needs PyTorch, .* Convert it .*\npython -c .*a\.npz"):
        read_state_dict(tmp_path / "a.pt")


def test_bfloat16_is_the_upper_half_of_a_float(tmp_path):
    values = np.array([1.0, -2.5, 3.140625, 0.0], "float32")  # exact in 8 bits of mantissa
    upper = (values.view("uint32") >> 16).astype("uint16")
    (tmp_path / "a.safetensors").write_bytes(safetensors({"a": upper}))
    np.testing.assert_array_equal(read_state_dict(tmp_path / "a.safetensors")["a"], values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", safetensors({"a": np.ones(9, "float32")})[:-4], "a is not inside the"),
        ("a.safetensors", safetensors({"a": np.ones(1, "float32")}, dtype="F8"), "the type F8"),
        ("a.safetensors", b"\xff" * 40, "cannot be read as a state dict"),
        ("a.safetensors", b"", "cannot be read as a state dict"),
        ("a.npz", b"text", "cannot be read as a state dict"),
    ],
)
def test_damaged_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a state dict.*{message}|"
                                         rf"{message}"):  # fmt: skip
        read_state_dict(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"b\.pt does not exist"):
        read_state_dict(tmp_path / "b.pt")


def test_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Marks(tmp_path / "ran")], object))
    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        read_state_dict(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


class Marks:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


class TestWithPyTorch:
    """Skipped where PyTorch is not installed."""

    def test_logits_of_new_networks(self, torch, tmp_path):
        from benchmarks import torch_networks

        for name, model in torch_networks.networks(width=4, widen=0.5, depth=1).items():
            torch_networks.randomize(model, seed=7)
            x, expected = torch_networks.example(model)
            torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pt")
            architecture, options = NETWORKS[name]
            found = load_torch(tmp_path / "a.pt", architecture, **options)
            np.testing.assert_allclose(found(x)["logits"], expected, atol=1e-4, err_msg=name)

    def test_a_pickle_of_other_objects_does_not_run(self, torch, tmp_path):
        (tmp_path / "a.pt").write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
        torch.save({"model": Marks(tmp_path / "ran")}, tmp_path / "b.pt")
        for name in ("a.pt", "b.pt"):
            with pytest.raises(
                ValueError, match=r"does not read it as tensors alone.*can run code"
            ):
                read_state_dict(tmp_path / name)
        assert not (tmp_path / "ran").exists()

    def test_the_command_converts(self, torch, tmp_path):
        half = torch.arange(3.0, dtype=torch.bfloat16)
        torch.save({"state_dict": {"a.weight": half}}, tmp_path / "a.pt")
        command = f"{state_dict._CONVERT} a.pt a.npz".replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        for name in ("a.pt", "a.npz"):
            np.testing.assert_array_equal(
                read_state_dict(tmp_path / name)["a.weight"], np.arange(3.0)
            )
