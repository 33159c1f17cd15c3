"""The promises of every defense; a new defense is a new row in `defense_table.py`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from tests.contracts.defense_table import BALL, DEFENSES

ENSEMBLES = ("ensemble_at", "adp", "cce", "ta_moo")
every_row = pytest.mark.parametrize("name", DEFENSES)
# Where every row would cost a trace: each member once.
every_member = pytest.mark.parametrize("name", [name for name in DEFENSES if " " not in name])


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def adam_with_all_the_extras():
    """Weight decay, a schedule, clipping, and averaged weights."""
    return keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(0.01, decay_steps=4),
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
    """Builds and compiles a defense around a new classifier: batch norm and, if asked, dropout.

    The rows of ensembles get one of two such classifiers.
    """

    def build(name, optimizer=sgd, dropout=0, **compile_settings):
        if set(ENSEMBLES) & set(name.split()):
            members = [make_classifier(seed=seed, dropout=dropout) for seed in range(2)]
            classifier = kr.models.ensemble(members)
        else:
            classifier = make_classifier(dropout=dropout)
        model = DEFENSES[name][0](classifier)
        model.compile(optimizer(), **compile_settings)
        return model

    return build


def fit(model, batch, **kwargs):
    """One epoch of two steps."""
    return model.fit(*batch, batch_size=4, shuffle=False, verbose=0, **kwargs)


@pytest.fixture(scope="module")
def straight(build, batch):
    """A run of three epochs in one sitting: the history of the first, the weights after each.

    Variations of a member run eagerly, which saves a trace.
    """
    runs = {}

    def run(name):
        if name not in runs:
            model = build(name, run_eagerly=" " in name)
            history = fit(model, batch, validation_data=batch).history
            weights = [model.get_weights()]
            for _ in range(2):
                fit(model, batch)
                weights.append(model.get_weights())
            runs[name] = (history, weights)
        return runs[name]

    return run


def assert_weights(model, expected, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    for found, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, **tolerance)


@every_row
def test_it_logs_its_loss_its_terms_and_both_accuracies(name, straight):
    history, (first, second, _) = straight(name)
    terms = DEFENSES[name][1]
    validation = {"val_loss", "val_accuracy", "val_robust_accuracy", *(f"val_{t}" for t in terms)}
    training = {"loss", "accuracy", *terms}
    if name != "standard":  # which crafts nothing while it trains
        training.add("robust_accuracy")
    if name.startswith("udr"):
        training.add("dual")
    if "contrastive" in terms:
        training |= {"positives", "negatives"}
        validation |= {"val_positives", "val_negatives"}
    assert set(history) == training | validation
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["loss"][0] == pytest.approx(sum(history[term][0] for term in terms), rel=1e-5)
    total = sum(history[f"val_{term}"][0] for term in terms)
    assert history["val_loss"][0] == pytest.approx(total, rel=1e-5)
    # Every weight moves; a number, such as a sum that begins anew at each step, may not.
    assert all(np.any(a != b) for a, b in zip(first, second, strict=True) if np.ndim(a))


@every_member
def test_a_run_repeats_itself_and_goes_on_after_saving(name, build, batch, straight, tmp_path):
    """Bit for bit, with momentum, batch norm and random starts; Keras saves no dropout seeds."""
    _, (first, second, third) = straight(name)
    # Sums of SCL, which crafts in no loop, are rounded now and then in another order.
    close = {"rtol": 1e-5, "atol": 1e-6} if name == "scl" else {}
    model = build(name)
    fit(model, batch)
    assert_weights(model, first, **close)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_weights(again, model.get_weights())
    for part in ("attack", "validation_attack", "robust_loss", "seed", "crafting_mode", "name"):
        assert getattr(again, part) == getattr(model, part), part
    assert again.jit_compile is False
    fit(again, batch)
    assert_weights(again, second, **close)
    fit(again, batch)
    assert_weights(again, third, **close)


@every_member
def test_eager_is_the_graph(name, build, batch, straight):
    model = build(name, run_eagerly=True)
    fit(model, batch)
    assert_weights(model, straight(name)[1][0], rtol=1e-4, atol=1e-5)


@every_member
@pytest.mark.parametrize(("policy", "eager"), [("mixed_bfloat16", True), ("mixed_float16", False)])
def test_mixed_precision(name, policy, eager, build, batch):
    keras.config.set_dtype_policy(policy)
    model = build(name, run_eagerly=eager)
    before = model.classifier.get_weights()
    history = fit(model, batch).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert all(weight.dtype == np.float32 for weight in model.classifier.get_weights())
    assert any(np.any(a != b) for a, b in zip(before, model.classifier.get_weights(), strict=True))
    x_adv = model.validation_attack(model, *batch)
    assert x_adv.dtype == tf.float32
    assert BALL.distance(x_adv, batch[0]).numpy().max() <= BALL.radius * (1 + 1e-5)


@every_member
def test_schedule_decay_average_and_checkpoints(name, build, batch, tmp_path):
    """All the extras at once, two steps in one execution; the checkpoint is of the only epoch."""
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_robust_accuracy", mode="max", save_best_only=True
    )
    model = build(name, adam_with_all_the_extras, steps_per_execution=2)
    history = fit(model, batch, validation_data=batch, callbacks=[best]).history
    assert all(np.isfinite(values).all() for values in history.values())
    # Half a cosine after two of four steps.
    assert float(model.optimizer.learning_rate) == pytest.approx(0.005)
    again = keras.saving.load_model(tmp_path / "best.keras")
    again.run_eagerly = True
    logs = again.evaluate(*batch, batch_size=4, verbose=0, return_dict=True)
    for name, value in logs.items():
        assert value == pytest.approx(history[f"val_{name}"][0], rel=1e-4), name


def test_training_with_all_the_extras_goes_on_after_saving(build, batch, tmp_path):
    model, straight_on = (build("trades", adam_with_all_the_extras) for _ in range(2))
    for part in (model, straight_on):
        fit(part, batch)
    model.save(tmp_path / "last.keras")
    again = keras.saving.load_model(tmp_path / "last.keras")
    for part in (again, straight_on):
        fit(part, batch)
    assert_weights(again, straight_on.get_weights())
    states = (model.optimizer.variables for model in (again, straight_on))
    for found, expected in zip(*states, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_steps_per_execution_change_nothing(build, batch, straight):
    model = build("trades", steps_per_execution=2)
    fit(model, batch)
    assert_weights(model, straight("trades")[1][0], rtol=1e-5, atol=1e-6)


def test_xla_trains_too(build, batch):
    """It draws other noise from the same seed, so only that it works is promised."""
    history = fit(build("pgd_at", jit_compile=True), batch).history
    assert all(np.isfinite(values).all() for values in history.values())


def test_tensorboard(build, batch, tmp_path):
    pytest.importorskip("tensorboard")
    model = build("trades")
    fit(model, batch, validation_data=batch, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    assert list(tmp_path.glob("train/events*")) and list(tmp_path.glob("validation/events*"))


@every_row
def test_class_weights_are_sample_weights(name, build, batch):
    """And a class of no weight has no say in the step; a loss of a whole batch takes none."""
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
    assert_weights(models[0], models[1].get_weights())


@every_row
def test_dropout_is_random_in_training_and_off_in_evaluation(name, build, batch):
    model = build(name, dropout=0.5, run_eagerly=True)
    seed = next(v for v in model.variables if "seed" in v.path)
    before = seed.numpy().copy()
    model.evaluate(*batch, verbose=0)
    np.testing.assert_array_equal(seed.numpy(), before)
    fit(model, batch)
    assert np.any(seed.numpy() != before)


@every_row
def test_without_training_nothing_is_left_to_build(name, build, batch):
    """A new model predicts, evaluates and describes itself before any step."""
    model = build(name)
    assert model.built and model.count_params() > 0
    assert model.predict(batch[0], verbose=0)["logits"].shape == (8, 3)
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert any(model.classifier.name in line for line in lines)
