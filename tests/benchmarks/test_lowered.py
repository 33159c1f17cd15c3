"""Lowered attacks and training steps give in JAX what they give in TensorFlow."""

from __future__ import annotations

import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """Modules of `benchmarks/` by name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def precision():
    """Restores the setting of TF32, which lowering changes."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


def test_variables_become_arguments_and_results(benchmark):
    lowering = benchmark("lowering")
    net = kr.models.mlp((2, 2, 1), 3, hidden=(2,))
    counter = net.variables[0]

    def step(x):
        counter.assign_add(tf.ones_like(counter))
        return tf.reduce_sum(net(x)["logits"])

    lowered = lowering.lower(step, [tf.zeros([5, 2, 2, 1])], net.variables, has_state=True)
    assert {v.path for v in lowered.variables} == {v.path for v in net.variables}
    assert lowered.outputs == 1 and lowered.results[0] == ([], "float32")
    after = [shape for shape, _ in lowered.results[1 : 1 + len(lowered.variables)]]
    assert after == [list(v.shape) for v in lowered.variables]
    assert "mhlo.copy" not in lowered.module


def test_a_variable_that_was_not_given_is_refused(benchmark):
    net = kr.models.mlp((2, 2, 1), 3, hidden=(2,))
    with pytest.raises(ValueError, match="not given"):
        benchmark("lowering").lower(lambda x: net(x)["logits"], [tf.zeros([1, 2, 2, 1])], [])


def test_copies_in_regions_keep_their_sources(benchmark):
    module = """func.func @main(%arg0: tensor<f32>) -> tensor<f32> {
  %0 = mhlo.copy %arg0 : tensor<f32>
  %1:2 = call @f(%0) : (tensor<f32>) -> (tensor<f32>, tensor<f32>)
  %2 = mhlo.copy %1#1 : tensor<f32>
  return %2 : tensor<f32>
}
func.func @f(%arg0: tensor<f32>) -> (tensor<f32>, tensor<f32>) {
  %0 = add %arg0 : tensor<f32>
  return %0, %0 : tensor<f32>, tensor<f32>
}"""
    found = benchmark("lowering").without_copies(module)
    assert "call @f(%arg0)" in found and "return %1#1 :" in found
    assert "return %0, %0" in found


@pytest.mark.slow
def test_jax_finds_what_tensorflow_found(benchmark, precision, tmp_path, capsys):
    pytest.importorskip("jax", reason="needs the extra `benchmark`")
    lowered = benchmark("lowered")
    lowered.main([f"--write={tmp_path}", "--small"])
    programs, arrays = lowered.read(tmp_path)
    checked = [program for program in programs if program.expected]
    assert len(checked) == 4
    lowered.configure()
    for program in checked:
        call, arguments = lowered.compiled(program, tmp_path, arrays)
        results = call(*arguments)
        for name, place in program.expected.items():
            np.testing.assert_allclose(np.asarray(results[place]), arrays[name], atol=1e-5)
    lowered.main([f"--run={tmp_path}", "--repeats=1", "--only=PGD-20, float32"])
    assert "failed" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_lowered_training_learns(benchmark, precision, tmp_path, monkeypatch, capsys):
    """A recipe of digits' size: the loop, averaged weights, the judge, and the way back."""
    pytest.importorskip("jax", reason="needs the extra `benchmark`")
    training, loop = benchmark("lowered_training"), benchmark("lowered_loop")
    digits = kr.data.load("digits", validation=0)
    arrays = {}
    for name, split in (("train", digits.train), ("test", digits.test)):
        parts = list(split.as_numpy_iterator())
        x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        arrays[name] = kr.data.splits.Arrays((x * 255).astype(np.uint8), y)
    monkeypatch.setattr(training, "JUDGED", 64)
    monkeypatch.setattr(training, "_source", lambda config: arrays)
    recipe = ["--recipe=digits/pgd_at", "--config.epochs=3", "--config.dataset.validation=0"]
    small = ["--config.defense.options.steps=2", "--config.optimizer.ema=0.9"]
    training.main([f"--write={tmp_path}/pgd_at", "--seeds=1", "--judge=apgd", *recipe, *small])
    loop.main([f"--train={tmp_path}/pgd_at", "--seed=0"])
    said = capsys.readouterr().out
    assert "robust" in said
    file, output = tmp_path / "pgd_at" / "seed0.npz", tmp_path / "model.keras"
    training.main([f"--read={file}", f"--output={output}", *recipe])
    model = keras.models.load_model(output)
    clean = model.predict(arrays["test"].images / np.float32(255), verbose=0)["logits"].argmax(1)
    assert np.mean(clean == arrays["test"].labels) > 0.5
