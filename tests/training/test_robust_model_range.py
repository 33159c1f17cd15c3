from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("spoil", [lambda x: x * 255, lambda x: x * np.nan])
def test_images_outside_the_bounds_are_refused_while_training(
    make_classifier, make_batch, eager, spoil
):
    model = kr.defenses.pgd_at(make_classifier(), kr.LinfBall(0.1), steps=1)
    model.compile(optimizer="sgd", run_eagerly=eager)
    x, y = make_batch(6)
    kind = ValueError if eager else tf.errors.InvalidArgumentError
    with pytest.raises(kind, match=r"bounds|expected \[0, 1\]"):
        model.fit(spoil(x), y, verbose=0)
