"""The promises of every defense; a new defense is a new row in `defense_table.py`."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from tests.contracts.defense_table import (
    BALL,
    CERTIFIED,
    DEFENSES,
    ENSEMBLES,
    KINDS,
    LIKE_PGD_AT,
    WITHOUT_ATTACK,
    each,
)

# Each member once: its variations only in the slow run.
MEMBERS = [name for name in DEFENSES if " " not in name]


every_kind = each(MEMBERS, KINDS)
kinds_quickly = each(DEFENSES, KINDS)
# Where a promise depends little on the member: of one member by default.
one_member = each(MEMBERS, ["trades"])
EAGER_HALF = ("mixed_float16", True)
HALVED = ("trades", "ascl", "cce", "ibp")  # another loss, and bounds in float32
variations_slowly = each(DEFENSES, set(MEMBERS) - set(LIKE_PGD_AT))


def sgd_with_all_the_extras(updates=1):
    """A schedule, momentum, weight decay, clipping, and averaged weights; for updates a step."""
    return keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(0.05, decay_steps=4 * updates),
        momentum=0.9,
        weight_decay=0.01,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.5,
    )


@pytest.fixture(scope="module")
def batch(make_batch):
    return make_batch(8)


@pytest.fixture(scope="module")
def build(make_classifier):
    """Builds and compiles a defense around a new classifier with batch norm and dropout.

    The rows of ensembles get one of two such classifiers.
    """

    def build(name, optimizer=None, dropout=0, **compile_settings):
        if set(ENSEMBLES) & set(name.split()):
            members = [make_classifier(seed=seed, dropout=dropout) for seed in range(2)]
            classifier = kr.models.ensemble(members)
        else:
            classifier = make_classifier(dropout=dropout)
        model = DEFENSES[name][0](classifier)
        extras = sgd_with_all_the_extras(getattr(model, "replays", 1))
        model.compile(optimizer or extras, **compile_settings)
        return model

    return build


def fit(model, batch, callbacks=(), **kwargs):
    """Epochs of two steps, and the weights after each, before averages replace them."""
    weights = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: weights.append(model.get_weights())
    )
    history = model.fit(
        *batch, batch_size=4, shuffle=False, verbose=0, callbacks=[record, *callbacks], **kwargs
    )
    return history.history, weights


class Run(NamedTuple):
    """A training of two epochs in one session, and the checkpoint after the first."""

    model: keras.Model
    start: list
    history: dict
    weights: list
    checkpoint: pathlib.Path


@pytest.fixture(scope="module")
def trained(build, batch, tmp_path_factory):
    """The run of a row; variations of a member run eagerly, which saves a trace."""
    runs = {}

    def run(name):
        if name not in runs:
            path = tmp_path_factory.mktemp("trained")
            model = build(name, run_eagerly=name not in MEMBERS)
            start = model.get_weights()
            best = keras.callbacks.ModelCheckpoint(
                path / "{epoch}.keras",
                monitor="val_robust_accuracy",
                mode="max",
                save_best_only=True,
            )
            history, weights = fit(
                model, batch, [best], epochs=2 if name in MEMBERS else 1, validation_data=batch
            )
            runs[name] = Run(model, start, history, weights, path / "1.keras")
        return runs[name]

    return run


def assert_weights(found, expected, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, **tolerance)


def rounding_of(name):
    """None; but the sums of SCL, which crafts in no loop, are sometimes added in another order."""
    return {"rtol": 1e-5, "atol": 1e-6} if name == "scl" else {}


@kinds_quickly
def test_it_logs_its_loss_its_terms_and_both_accuracies(name, trained):
    run = trained(name)
    terms = DEFENSES[name][1]
    validation = {"val_loss", "val_accuracy", "val_robust_accuracy", *(f"val_{t}" for t in terms)}
    training = {"loss", "accuracy", *terms}
    if name.split()[0] not in WITHOUT_ATTACK:
        training.add("robust_accuracy")
    if name in CERTIFIED:
        training |= {"radius", "regularization", "verified_accuracy"}
        validation.add("val_verified_accuracy")
    if name.startswith("udr"):
        training.add("dual")
    if "contrastive" in terms:
        pairs = {"positives", "negatives", "adversarial_positives", "adversarial_negatives"}
        training |= pairs
        validation |= {f"val_{name}" for name in pairs}
    history = run.history
    assert set(history) == training | validation
    assert all(np.isfinite(values).all() for values in history.values())
    summed = [*terms, "regularization"] if "regularization" in history else terms
    assert history["loss"][0] == pytest.approx(sum(history[term][0] for term in summed), rel=1e-5)
    total = sum(history[f"val_{term}"][0] for term in terms)
    assert history["val_loss"][0] == pytest.approx(total, rel=1e-5)
    # Every weight moves; a number, such as a sum that begins anew at each step, may not.
    assert all(np.any(a != b) for a, b in zip(run.start, run.weights[0], strict=True) if np.ndim(a))


@each(MEMBERS, ["udr", "adr", "ibp"])  # variables of their own: a dual, a second model, a ramp
def test_a_checkpoint_evaluates_and_resumes(name, trained, batch):
    """Bit for bit, with every part of the optimizer; Keras saves no dropout seeds."""
    run = trained(name)
    model = keras.saving.load_model(run.checkpoint)
    for part in ("attack", "validation_attack", "robust_loss", "seed", "crafting_mode", "name"):
        assert getattr(model, part) == getattr(run.model, part), part
    assert model.jit_compile is False
    assert_weights(model.get_weights(), run.weights[0])
    # Half a cosine after two of four steps.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)
    model.run_eagerly = True
    logs = model.evaluate(*batch, batch_size=4, verbose=0, return_dict=True)
    for key, value in logs.items():
        assert value == pytest.approx(run.history[f"val_{key}"][0], rel=1e-4), key
    model.run_eagerly = False
    _, weights = fit(model, batch, initial_epoch=1, epochs=2)
    assert_weights(weights[0], run.weights[1], **rounding_of(name))
    states = (
        [variable.numpy() for variable in model.optimizer.variables] for model in (model, run.model)
    )
    assert_weights(*states, **rounding_of(name))


@one_member
def test_a_run_repeats_itself(name, build, batch, trained):
    """Bit for bit, with batch norm and random starts. The other members show when they resume that
    one trace computes the bits of another."""
    _, weights = fit(build(name), batch)
    assert_weights(weights[0], trained(name).weights[0], **rounding_of(name))


@one_member
def test_steps_per_execution_do_not_matter(name, build, batch, trained):
    _, weights = fit(build(name, steps_per_execution=2), batch)
    assert_weights(weights[0], trained(name).weights[0], rtol=1e-5, atol=1e-6)


@every_kind
def test_eager_is_the_graph(name, build, batch, trained):
    _, weights = fit(build(name, run_eagerly=True), batch)
    assert_weights(weights[0], trained(name).weights[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "policy", "eager"),
    [
        pytest.param(
            name,
            policy,
            eager,
            marks=[pytest.mark.slow] * (name not in HALVED or (policy, eager) != EAGER_HALF),
        )
        for name in MEMBERS
        for policy, eager in (("mixed_bfloat16", True), EAGER_HALF, ("mixed_float16", False))
    ],
)
def test_mixed_precision(name, policy, eager, build, batch):
    keras.config.set_dtype_policy(policy)
    model = build(name, keras.optimizers.AdamW(0.01), run_eagerly=eager)
    before = model.classifier.get_weights()
    history, _ = fit(model, batch)
    assert all(np.isfinite(values).all() for values in history.values())
    assert all(weight.dtype == np.float32 for weight in model.classifier.get_weights())
    assert any(np.any(a != b) for a, b in zip(before, model.classifier.get_weights(), strict=True))
    x_adv = model.validation_attack(model, *batch)
    assert x_adv.dtype == tf.float32
    assert BALL.distance(x_adv, batch[0]).numpy().max() <= BALL.radius * (1 + 1e-5)


@pytest.mark.slow
def test_xla_trains_too(build, batch):
    """`test_xla.py` compares every defense with its graph, in the slow run. By default a
    small model is trained by XLA in the tests of checked batches."""
    history, _ = fit(build("pgd_at", jit_compile=True), batch)
    assert all(np.isfinite(values).all() for values in history.values())


def test_tensorboard(build, batch, tmp_path):
    pytest.importorskip("tensorboard")
    model = build("trades", run_eagerly=True)
    fit(model, batch, [keras.callbacks.TensorBoard(tmp_path)], validation_data=batch)
    assert list(tmp_path.glob("train/events*")) and list(tmp_path.glob("validation/events*"))


@each(DEFENSES, ["trades", "ascl", "cce"])
def test_class_weights_are_sample_weights(name, build, batch):
    """A class of weight 0 does not affect the step; losses of a whole batch refuse weights."""
    x, y = batch
    if {"contrastive", "global"} & set(DEFENSES[name][1]):
        with pytest.raises(ValueError, match="sample weights .*Leave the weights out"):
            build(name, run_eagerly=True).fit(x, y, class_weight={0: 1, 1: 2, 2: 0}, verbose=0)
        return
    weight = np.array([1.0, 2.0, 0.0])
    models = [build(name, run_eagerly=True) for _ in range(2)]
    logs = [
        models[0].fit(x, y, class_weight=dict(enumerate(weight)), shuffle=False, verbose=0),
        models[1].fit(x, y, sample_weight=weight[y], shuffle=False, verbose=0),
    ]
    assert logs[0].history == logs[1].history
    assert_weights(models[0].get_weights(), models[1].get_weights())


@each(DEFENSES, ["trades", "cce"])
def test_dropout_is_random_in_training_and_off_in_evaluation(name, build, batch):
    model = build(name, dropout=0.5, run_eagerly=True)
    seed = next(v for v in model.variables if "seed" in v.path)
    before = seed.numpy().copy()
    x, y = (part[:4] for part in batch)
    model.evaluate(x, y, verbose=0)
    np.testing.assert_array_equal(seed.numpy(), before)
    fit(model, (x, y))
    assert np.any(seed.numpy() != before)


@variations_slowly
def test_a_new_model_predicts_and_describes_itself(name, build, batch):
    """Before any step: nothing is left to build."""
    model = build(name)
    assert model.built and model.count_params() > 0
    assert model.predict(batch[0], verbose=0)["logits"].shape == (8, 3)
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert any(model.classifier.name in line for line in lines)
