"""Every benchmark runs, at a tiny size, and prints its table."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from absl import flags

import keras_robust as kr

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(monkeypatch, capsys):
    """Runs a benchmark with flags; returns its rows and its output."""
    monkeypatch.syspath_prepend(str(ROOT))

    def start(name, *arguments):
        module = importlib.import_module(f"benchmarks.{name}")
        values = flags.FlagValues()
        module.define_flags(values)
        values([name, *arguments])
        return module.run(values), capsys.readouterr().out

    return start


@pytest.fixture
def benchmark(monkeypatch):
    """Modules of `benchmarks/` by name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.slow
def test_attack_throughput(started, benchmark, monkeypatch):
    monkeypatch.setattr(benchmark("baselines"), "_LIBRARIES", {"no_such_library": None})
    rows, said = started(
        "attack_throughput", "--batch_size=2", "--steps=2", "--repeats=1", "--baseline_repeats=1"
    )
    assert "no_such_library is not installed and skipped" in said
    ours, half, calls, traces = rows
    assert ours.what.endswith("time of keras_robust / lower bound")
    assert ours.target == (1.03, False)
    assert "bfloat16" in half.what and "one by one" in calls.what
    assert "images/s, loss" in ours.note
    assert traces.measured == 1


def test_weaker_attacks_are_refused(benchmark):
    """An attack that leaves the images alone, or moves them twice as far, raises."""
    import keras
    import tensorflow as tf

    throughput, baselines = benchmark("attack_throughput"), benchmark("baselines")
    inputs = keras.Input([2])
    task = baselines.Task(
        keras.Model(inputs, keras.layers.Activation("linear")(inputs)),
        tf.constant([[0.5, 0.5]]), tf.constant([0]), 0.1, 0.1, 1,
    )  # fmt: skip
    right = tf.constant([[0.4, 0.6]])
    found = throughput.check_strength(task, {throughput.OURS: lambda: right})
    assert found[throughput.OURS] == pytest.approx(0.105, abs=1e-3)  # log(1 + e^0.2) - log(2)
    for wrong in ([[0.5, 0.5]], [[0.3, 0.7]], [[0.6, 0.4]]):
        with pytest.raises(RuntimeError):
            throughput.check_strength(
                task, {throughput.OURS: lambda: right, "wrong": lambda wrong=wrong: wrong}
            )


@pytest.mark.slow
def test_auto_attack(started, benchmark, monkeypatch):
    """Without the official code, the rows are accuracies."""
    monkeypatch.setattr(benchmark("official"), "installed", lambda: False)
    rows, _ = started(
        "auto_attack", "--epochs=1", "--images=8", "--steps=2", "--queries=3"
    )  # fmt: skip
    names = [row.what.partition(",")[0] for row in rows]
    assert names == ["apgd-ce", "apgd-t", "fab-t", "square", "standard"]
    assert all(0 <= row.measured <= 1 for row in rows)


@pytest.mark.slow
def test_fast_auto_attack(started):
    """Rows of both judges on a trained model and on its masked copy, with fewer passes."""
    rows, _ = started(
        "fast_auto_attack", "--model=PGD-AT", "--model=staircase", "--epochs=2", "--images=16",
        "--steps=50", "--queries=3000",
    )  # fmt: skip
    assert [row.what.partition(",")[0] for row in rows] == ["PGD-AT"] * 2 + ["staircase"] * 2
    assert all(row.measured > 1 for row in rows[1::2])
    assert all("fooled by AutoAttack only: [" in row.note for row in rows[::2])


@pytest.mark.slow
def test_tracing(started):
    rows, _ = started("tracing", "--images=8", "--classes=20", "--repeats=1")
    assert rows[0].measured < 1 and rows[2].measured.median > 0


@pytest.mark.slow
def test_folded_batch_norm(started):
    """The predictions of what both find are the same."""
    (time, other), _ = started("folded_batch_norm", "--batch_size=2", "--steps=2", "--repeats=1")
    assert time.measured.median > 0 and other.measured == 0


@pytest.mark.slow
def test_attack_steps(started):
    rows, _ = started("attack_steps", "--batch_size=2", "--steps=2", "--repeats=1")
    assert len(rows) == 4 and all(row.measured.median > 0 for row in rows)


def test_a_copy_in_pytorch_has_the_logits_of_the_network(benchmark):
    """The copy compares them itself."""
    torch = pytest.importorskip("torch")
    model = kr.models.small_cnn((28, 28, 1), 10)
    copy = benchmark("official").copied(model)
    x = np.random.default_rng(1).random((2, 28, 28, 1), np.float32)
    there = copy(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(there, model(x, training=False)["logits"], atol=1e-4)


@pytest.mark.parametrize("bridge", ["adapter", "compiled"])
def test_the_official_code_sees_the_logits_of_the_network(benchmark, bridge):
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyautoattack")
    model = kr.models.mlp((4, 4, 1), 10, hidden=(8,))
    reached = benchmark("official").reached_by(bridge, model)
    x = np.random.default_rng(1).random((2, 4, 4, 1), np.float32)
    there = reached(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(there, model(x, training=False)["logits"], atol=1e-5)


@pytest.mark.slow
def test_train_step(started):
    rows, _ = started(
        "train_step", "--k=1", "--batch_size=2", "--fit_steps=1", "--repeats=1"
    )  # fmt: skip
    names = ["PGD-AT", "PGD-AT, bfloat16 crafting", "TRADES", "MART", "a clean step"]
    assert [row.what.partition("time of ")[2].partition(" /")[0] for row in rows[:-1]] == names
    assert rows[0].target == (1.05, False)
    assert rows[-1].measured == 0  # no epoch after the first is traced again


@pytest.mark.slow
def test_multi_task(started):
    rows, _ = started(
        "multi_task", "--net=small_cnn", "--steps=1", "--batch_size=2", "--repeats=1"
    )  # fmt: skip
    assert [row.target.bound for row in rows] == [1.15, 1.15, 1.25]
    assert rows[2].what.endswith("12 images: time of task_oriented / uniform")


@pytest.mark.slow
def test_defense_cost(started):
    rows, _ = started("defense_cost", "--k=1", "--batch_size=2", "--fit_steps=1", "--repeats=1")
    assert len(rows) == 10
    assert "UDR / PGD-AT" in rows[0].what and str(rows[0].target) == "at most 1.03"


@pytest.mark.slow
def test_detector_cost(started):
    sizes = ("--batch_size=2", "--passes=1", "--repeats=1", "--fit_images=200")
    rows, _ = started("detector_cost", *sizes)
    assert len(rows) == 8
    assert "mahalanobis / a forward pass" in rows[1].what and str(rows[1].target) == "at most 1.1"


@pytest.mark.slow
def test_certification(started, benchmark, monkeypatch):
    monkeypatch.setattr(benchmark("certification"), "MEMORY_CLASSES", (2, 4))
    sizes = ("--batch_size=2", "--memory_batch_size=1")
    rows, _ = started("certification", *sizes, "--repeats=1", "--memory_repeats=1")
    assert [str(row.target or "") for row in rows[:3]] == ["at most 2.2", "at most 3.5", ""]
    assert "XLA" in rows[3].what and "10 margins at a time" in rows[-1].what


@pytest.mark.slow
def test_ensemble_step(started):
    rows, _ = started(
        "ensemble_step", "--net=mlp", "--k=1", "--batch_size=2", "--fit_steps=1", "--repeats=1"
    )
    names = [row.what.partition("time of ")[2] for row in rows]
    assert names == ["ADP / ADV-EN", "CCE-RM / ADV-EN"] * 2
    assert [row.target for row in rows] == [None, (1.15, False), None, (1.25, False)]


@pytest.mark.slow
def test_serving(started):
    rows, _ = started(
        "serving", "--channels=2", "--loads=2x1,1x2", "--seconds=0", "--repeats=1"
    )  # fmt: skip
    # With single images, batching too; a net alone and an ensemble have `detect`.
    assert len(rows) == 2 + 4 + 2 * 2
    assert all(row.measured.median > 0 for row in rows)
    assert "batch 1, 2 clients" in rows[2].what and "`detect`" in rows[-1].what
    assert "requests/s of gRPC, batching / in process" in rows[4].what


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_rest_load(started):
    arguments = ["--clients=1,2", "--seconds=1", "--repeats=1", f"--checkout={ROOT}"]
    rows, _ = started("rest_load", *arguments)
    assert len(rows) == 2 * 4 and all(row.measured.median > 0 for row in rows)
    assert rows[0].what == "requests/s, 1 client: this checkout / the other"
    assert rows[6].what.startswith("latency of 99 % in ms, 2 clients")


@pytest.mark.slow
def test_run_all_prints_the_rows_of_its_parts(started):
    failed, said = started("run_all", "--part=import_time", "--extra=--repeats=1")
    header, rule, row = said.splitlines()
    assert failed == []
    assert header.startswith("| what | target | measured")
    assert set(rule) <= set("| -")
    assert cells(row)[0].startswith("`import keras_robust` after")
    assert cells(row)[1] == "at most 0.3"
    assert cells(row)[4] == "`python benchmarks/import_time.py --repeats=1`"
    assert "Python" in cells(row)[5] and "tensorflow" in cells(row)[5]


def test_run_all_names_a_part_that_fails(started, capsys):
    failed, _ = started("run_all", "--part=import_time", "--extra=--no_such_flag")
    assert failed == ["import_time"]


def test_ratios_are_formed_round_by_round(benchmark):
    timing = benchmark("timing")
    assert timing.ratio([2.0, 30.0, 4.0], to=[1.0, 10.0, 4.0]) == (2.0, 1.0, 3.0)


def test_every_round_starts_with_another_implementation(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark("timing").gc, "collect", lambda: None)  # many objects are alive
    calls = []
    work = {name: lambda name=name: calls.append(name) for name in "abc"}
    measured = benchmark("timing").interleaved(work, 3, warm_ups=0)
    assert "".join(calls) == "abcbcacab"
    assert {name: len(values) for name, values in measured.items()} == {"a": 3, "b": 3, "c": 3}


def test_the_gradients_of_the_lower_bound(benchmark, tiny_classifier, tiny_batch):
    """Those of the library, for each point."""
    import numpy as np
    import tensorflow as tf

    from keras_robust import losses
    from keras_robust.attacks.crafting.gradient_ascent import value_and_gradient

    x, y = map(tf.constant, tiny_batch)
    found = benchmark("gradients").chained(tiny_classifier)(tf.stack([x, x / 2]), y)
    for point, gradient in zip((x, x / 2), found, strict=True):
        _, expected = value_and_gradient(
            lambda x: losses.cross_entropy(tiny_classifier(x)["logits"], y), point
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
