from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.experiments.recipes import build
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import callbacks, checkpoint
from keras_robust.experiments.training.averaging import Averages
from keras_robust.experiments.training.checkpoint import Progress
from keras_robust.experiments.training.devices import Devices


@pytest.fixture
def model(tiny):
    config = tiny("standard", **{"optimizer.ema": 0.5})
    model = build.robust_model(config, build.data(config).info, 1)
    model.optimizer.build(model.trainable_variables)
    return model


def averages(model):
    """The averages that the optimizer keeps, in the order of the weights."""
    return [v for v in model.optimizer.variables if "average" in v.path]


def started(callback, model):
    callback.set_model(model)
    return callback


def test_each_epoch_is_a_row(tmp_path, model):
    run = RunDirectory(tmp_path)
    log = started(callbacks.EpochLog(run, [{"epoch": 1, "loss": 2.0}]), model)
    log.on_epoch_begin(1)
    log.on_epoch_end(1, {"loss": np.float32(1.0)})
    rows = run.rows()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] == 1.0
    assert rows[1]["learning_rate"] == pytest.approx(0.01)
    assert rows[1]["seconds"] >= 0


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, model, loss):
    log = started(callbacks.EpochLog(RunDirectory(tmp_path), []), model)
    log.on_epoch_begin(0)
    with pytest.raises(FloatingPointError, match=f"diverged: the loss is {loss} after epoch 1"):
        log.on_epoch_end(0, {"loss": loss})
    assert RunDirectory(tmp_path).rows() == []


@pytest.fixture
def keeper(tmp_path, tiny, model):
    """Makes the callback for a run of 10 steps an epoch, whose best accuracy was 0.5."""

    def make(monitor="val_accuracy", **settings):
        config = tiny("standard", **{f"checkpoint.{name}": v for name, v in settings.items()})
        training = SimpleNamespace(
            run=RunDirectory(tmp_path),
            devices=Devices(),
            model=model,
            monitor=monitor,
            steps_per_epoch=10,
            config=config,
            progress=Progress(step=10),
            file=None,
        )
        log = callbacks.EpochLog(training.run, [{monitor: 0.5}])
        keep = callbacks.Checkpoints(training, log, callbacks.Stop(), Averages(model, lambda: None))
        return started(keep, model)

    return make


def test_the_best_and_the_last_checkpoint(tmp_path, model, keeper):
    run = RunDirectory(tmp_path)
    variable = model.trainable_variables[0]
    keep = keeper()

    def kept(name):
        return keras.saving.load_model(run.checkpoint_file(name)).trainable_variables[0].numpy()

    def end_epoch(value, accuracy):
        variable.assign(tf.fill(variable.shape, value))
        averages(model)[0].assign(tf.fill(variable.shape, 10 * value))
        keep.on_epoch_end(0, {"val_accuracy": accuracy})

    end_epoch(1.0, 0.5)  # no better than before
    assert not run.checkpoint_file("best").exists()
    end_epoch(2.0, 0.7)
    end_epoch(3.0, 0.6)
    assert np.unique(kept("last")).tolist() == [3.0]
    assert np.unique(kept("previous")).tolist() == [2.0]
    assert np.unique(kept("best")).tolist() == [20.0]  # the average, which was validated
    assert np.unique(variable.numpy()).tolist() == [3.0]


def test_the_best_value_of_a_loss_is_the_smallest(tmp_path, keeper):
    """`clean` is the term of standard training; 0.5 was the best before."""
    best = RunDirectory(tmp_path).checkpoint_file("best")
    keep, kept = keeper("val_clean"), []
    for value in (0.7, 0.3, 0.4):
        keep.on_epoch_end(0, {"val_clean": value})
        kept.append(best.exists() and best.stat().st_mtime_ns)
    assert not kept[0] and kept[1] == kept[2] > 0


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"steps": 4, "seconds": 0.0}, [14, 18]),
        ({"steps": 0, "seconds": 0.0}, []),
        ({"steps": 0, "seconds": 5.0}, [15]),  # the clock of the test ticks once a step
        ({"steps": 0, "seconds": 3600.0}, []),
    ],
)
def test_checkpoints_within_an_epoch(tmp_path, keeper, monkeypatch, settings, kept):
    """But not at its last step, after which it is validated first."""
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    keep = keeper(**settings)
    keep.on_epoch_begin(1)
    found = []
    for batch in range(10):
        now[0] += 1
        keep.on_train_batch_end(batch)
        file = RunDirectory(tmp_path).checkpoint_file("last")
        if file.exists():
            found.append(checkpoint.read(file).step)
            file.unlink()
    assert found == kept


def test_checkpoints_take_a_twentieth_of_the_time(tmp_path, keeper, monkeypatch):
    """A checkpoint that takes 1 second is followed by none for 19."""
    now = [0.0]

    def slow(*_):
        now[0] += 1

    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write", slow)
    keep = keeper(seconds=0.5)
    keep.length = 100
    keep.on_epoch_begin(0)
    times = []
    for batch in range(60):
        now[0] += 0.5
        before = now[0]
        keep.on_train_batch_end(batch)
        if now[0] != before:
            times.append(now[0])
    assert times[0] == 1.5
    assert np.diff(times).tolist() == [20.0]


def test_event_files_hold_the_metrics_as_keras_names_them(tmp_path, model):
    run = RunDirectory(tmp_path)
    events = started(callbacks.EventFiles(run), model)
    events.on_epoch_end(4, {"loss": 0.5, "val_loss": 0.25})
    events.on_train_end()
    found = {}
    for file in run.tensorboard.rglob("events*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                number = tf.make_ndarray(value.tensor).item()
                found[file.parent.name, value.tag, event.step] = number
    assert found == {("train", "epoch_loss", 4): 0.5, ("validation", "epoch_loss", 4): 0.25}


def test_a_full_disk_under_the_event_files_is_an_error_in_one_line(tmp_path, model, monkeypatch):
    """TensorFlow writes them, and has its own kind of errors, with several lines."""
    events = started(callbacks.EventFiles(RunDirectory(tmp_path)), model)

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "/x; No space left on device\n\tFailed")

    with monkeypatch.context() as patch:
        patch.setattr(tf.summary, "write", full)
        with pytest.raises(OSError, match=r"^Cannot write .*tensorboard: No space left[^\n]*$"):
            events.on_epoch_end(0, {"loss": 0.5})
    events.on_train_end()


@pytest.fixture
def interruptible():
    """As in a terminal; a shell has its jobs in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_waits_for_the_step_and_the_second_does_not(capfd, interruptible):
    with callbacks.stopped_by_signals() as stop:
        stop.on_train_batch_end(0)
        signal.raise_signal(signal.SIGINT)
        assert "Stopping after this step" in capfd.readouterr().err
        for step_ends in (stop.on_train_batch_end, stop.on_test_batch_end):
            with pytest.raises(KeyboardInterrupt):
                step_ends(0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGINT)

    def enter():
        with callbacks.stopped_by_signals():
            assert signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
