"""Trainings that begin with the weights of another one."""

from __future__ import annotations

import numpy as np
import pytest
from ml_collections import ConfigDict

from keras_robust.core.classifier import members_of
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.training import train_run


def encoder(run):
    return [w for w in load_run(run.path).model.weights if "logits" not in w.path]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["scl_pretraining", "ascl_pretraining"])
def test_a_head_on_pretrained_features(tiny, tmp_path, first):
    pretrained = train_run.train(tiny(first, epochs=5), tmp_path / "first", verbose=0, log=print)
    assert "val_contrastive" in pretrained.rows()[0]
    second = tiny(
        "standard",
        **{"model.weights": str(pretrained.checkpoint("best")), "model.trainable": "head"},
        epochs=20,
    )
    run = train_run.train(second, tmp_path / "second", verbose=0, log=print)
    for mine, theirs in zip(encoder(run), encoder(pretrained), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert run.rows()[-1]["val_accuracy"] > pretrained.rows()[-1]["val_accuracy"] + 0.2


@pytest.mark.slow
def test_stacking_of_members_that_were_trained_before(tiny, tmp_path):
    def changed(**changes):
        config = tiny("ensemble_at", **changes)
        config.model.name = "ensemble"
        options = {"members": ("mlp", "mlp"), "options": {"hidden": (16,)}, "combine": "vote"}
        config.model.options = ConfigDict(options)
        return config

    pair = train_run.train(changed(), tmp_path / "pair", verbose=0, log=print)
    config = changed(**{"model.weights": str(pair.checkpoint("best")), "model.trainable": "head"})
    config.defense.name = "pgd_at"
    config.model.options.combine = "stacking"
    run = train_run.train(config, tmp_path / "stacked", verbose=0, log=print)
    mine, theirs = (load_run(one.path).model for one in (run, pair))
    for one, other in zip(members_of(mine), members_of(theirs), strict=True):
        for weight, before in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(weight, before)
    assert np.any(mine.get_layer("logits").bias.numpy() != 0)
