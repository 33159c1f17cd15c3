from __future__ import annotations

import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers import build, callbacks
from trainers.run_directory import RunDirectory


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
def test_a_loss_that_is_no_number_ends_the_training(tmp_path, model, loss):
    log = started(callbacks.EpochLog(RunDirectory(tmp_path), []), model)
    log.on_epoch_begin(0)
    with pytest.raises(FloatingPointError, match=f"The loss is {loss} after epoch 1"):
        log.on_epoch_end(0, {"loss": loss})
    assert RunDirectory(tmp_path).rows() == []


def test_the_best_is_kept_beside_the_last(tmp_path, model):
    run = RunDirectory(tmp_path)
    keeper = started(callbacks.Checkpoints(run, "val_accuracy", best=0.5), model)
    variable = model.trainable_variables[0]

    def kept(name):
        return keras.saving.load_model(run.checkpoint_file(name)).trainable_variables[0].numpy()

    def end_epoch(value, accuracy):
        variable.assign(tf.fill(variable.shape, value))
        averages(model)[0].assign(tf.fill(variable.shape, 10 * value))
        keeper.on_epoch_end(0, {"val_accuracy": accuracy})

    keeper.on_train_begin()
    assert not run.checkpoint_file("best").exists()
    end_epoch(1.0, 0.5)  # no better than before
    assert not run.checkpoint_file("best").exists()
    end_epoch(2.0, 0.7)
    end_epoch(3.0, 0.6)
    assert np.unique(kept("last")).tolist() == [3.0]
    assert np.unique(kept("best")).tolist() == [20.0]  # the average, which was judged
    assert np.unique(variable.numpy()).tolist() == [3.0]


def test_what_is_there_is_not_replaced_at_the_start(tmp_path, model):
    run = RunDirectory(tmp_path)
    run.checkpoint_file("last").parent.mkdir()
    run.checkpoint_file("last").write_text("kept")
    started(callbacks.Checkpoints(run, None, 0.0), model).on_train_begin()
    assert run.checkpoint_file("last").read_text() == "kept"


def test_averages_are_judged_and_the_weights_come_back_exactly(model):
    before = [v.numpy() for v in model.trainable_variables]
    for average in averages(model):
        average.assign(tf.ones_like(average))
    swap = started(callbacks.AveragedValidation(), model)
    swap.on_test_begin()
    assert all((v.numpy() == 1).all() for v in model.trainable_variables)
    swap.on_test_end()
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


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


def test_the_first_signal_waits_for_the_step_and_the_second_does_not(capfd):
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
