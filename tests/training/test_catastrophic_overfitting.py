"""Catastrophic overfitting: it is noticed, and the weights of the last good epoch come back."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.training import CatastrophicOverfitting

BATCH = (np.full([5, 1, 1, 1], 0.5, "float32"), np.zeros([5], int))


def build(classifier, **options):
    model = kr.defenses.n_fgsm(classifier, kr.LinfBall(0.2), noise=0.0, project=True, step_size=0.2,
                               **options)  # fmt: skip
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), run_eagerly=True)
    return model


@pytest.fixture
def masked():
    """Images of a pixel: its margin falls from 1 at 0.5 to -1 at 0.6 and rises to 1 at 0.7.

    The step of 0.2 arrives at 0.7, where the label is right; steps of 0.05 stay near 0.6.
    """
    inputs = keras.Input((1, 1, 1))
    features = keras.layers.Dense(2, activation="relu")(keras.layers.Flatten()(inputs))
    logits = keras.layers.Dense(2)(features)
    model = keras.Model(inputs, {"logits": logits, "features": features})
    weights = [[[1.0, 1.0]], [0.0, -0.6], [[-20.0, 0.0], [40.0, 0.0]], [11.0, 0.0]]
    model.set_weights([np.asarray(w, "float32") for w in weights])
    return model


class Stubbed(CatastrophicOverfitting):
    """Has given accuracies."""

    def __init__(self, found, **settings):
        super().__init__(BATCH, **settings)
        self.found = iter(found)

    def accuracies(self):
        return next(self.found)


def recorded():
    """The weights, momenta and counts at the end of each epoch."""
    states = []

    def record(epoch, logs):
        model = callback.model
        slots = [v.numpy() for v in model.optimizer.variables if len(v.shape)]
        states.append((model.get_weights(), slots, int(model.optimizer.iterations)))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=record)
    return states, callback


def fit(model, callbacks, batch=BATCH, **settings):
    return model.fit(*batch, batch_size=8, verbose=0, callbacks=callbacks, **settings).history


def test_gradient_masking_is_measured(masked):
    """The single step fools none of the images, PGD all."""
    model = build(masked)
    check = CatastrophicOverfitting(BATCH)
    check.set_model(model)
    assert check.accuracies() == (1.0, 0.0)
    logs = {}
    with pytest.warns(UserWarning, match=r"epoch 3: .*100% .*single step.* 0% under PGD-10"):
        check.on_epoch_end(2, logs)
    assert logs == {"single_step_accuracy": 1.0, "pgd_accuracy": 0.0}


def test_the_last_good_weights_come_back(masked):
    """Epochs 1 and 2 are good, 3 and 4 are not: both end with the weights of epoch 2."""
    check = Stubbed([(0.6, 0.5), (0.7, 0.5), (0.9, 0.1), (0.9, 0.1)], restore=True)
    states, record = recorded()
    with pytest.warns(UserWarning, match="The weights of epoch 2 are restored"):
        history = fit(build(masked), [check, record], epochs=4)
    assert history["single_step_accuracy"] == [0.6, 0.7, 0.9, 0.9]
    assert history["pgd_accuracy"] == [0.5, 0.5, 0.1, 0.1]
    assert history["weights_restored"] == [0, 0, 1, 1]
    weights, slots, counts = zip(*states, strict=True)
    assert counts == (1, 2, 3, 4)
    for values in (weights, slots):
        assert any(np.any(a != b) for a, b in zip(values[0], values[1], strict=True))
        for later in values[2:]:
            # The step counts on, so that later epochs draw other noise.
            different = [
                np.ndim(a) for a, b in zip(values[1], later, strict=True) if np.any(a != b)
            ]
            assert different in ([], [0])


def test_it_only_warns_by_default_and_may_stop(masked):
    states, record = recorded()
    with pytest.warns(UserWarning, match=r"PGD-10\. Train with more noise"):
        fit(build(masked),
            [Stubbed([(0.5, 0.5), (0.9, 0.1), (0.5, 0.5)]), record], epochs=3)  # fmt: skip
    assert len(states) == 3 and np.any(states[0][0][0] != states[1][0][0])
    with pytest.warns(UserWarning, match=r"weights stay\. The training ends"):
        history = fit(build(masked),
                      [Stubbed([(0.9, 0.1)], restore=True, stop=True)], epochs=3)  # fmt: skip
    assert len(history["loss"]) == 1 and history["weights_restored"] == [0]


def test_a_resumed_training_measures_its_first_weights(masked):
    model = build(masked)
    before = model.classifier.get_weights()
    with pytest.warns(UserWarning, match="The weights of epoch 3 are restored"):
        fit(model, [Stubbed([(0.6, 0.5), (0.9, 0.1)], restore=True)],
            initial_epoch=3, epochs=4)  # fmt: skip
    for found, value in zip(model.classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_difference_at_the_threshold_is_good(masked):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check = Stubbed([(0.75, 0.5)], restore=True, threshold=0.25)
        fit(build(masked), [check])


@pytest.mark.slow
def test_replicas_get_the_weights_back(two_replicas, make_classifier, make_batch):
    with two_replicas.scope():
        model = kr.defenses.n_fgsm(make_classifier(), kr.LinfBall(0.2))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    check = CatastrophicOverfitting(make_batch(8), threshold=0.0, restore=True)
    check.accuracies = iter([(0.5, 0.5), (0.9, 0.1)]).__next__
    kept = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: kept.append(model.classifier.get_weights())
    )
    with pytest.warns(UserWarning, match="restored"):
        fit(model, [check, record], make_batch(16), epochs=2)
    for found, value in zip(*kept, strict=True):
        np.testing.assert_array_equal(found, value)
    del check.accuracies
    assert all(0 <= value <= 1 for value in check.accuracies())


def test_what_is_refused(tiny_classifier, tiny_batch):
    check = CatastrophicOverfitting(tiny_batch)
    with pytest.raises(ValueError, match="this training takes 10 steps; expected a defense"):
        check.set_model(kr.defenses.pgd_at(tiny_classifier, kr.LinfBall(0.1)))
    with pytest.raises(ValueError, match="this training does not attack"):
        check.set_model(kr.defenses.standard(tiny_classifier, kr.LinfBall(0.1)))
    with pytest.raises(TypeError, match="The model is a Functional; expected a"):
        check.set_model(tiny_classifier)
    with pytest.raises(ValueError, match="has no model yet"):
        check.accuracies()
    for settings, match in (
        ({"images": 0}, "images is 0"),
        ({"threshold": 2}, "threshold is 2"),
        ({"steps": 1}, "steps is 1"),
    ):
        with pytest.raises(ValueError, match=match):
            CatastrophicOverfitting(tiny_batch, **settings)
