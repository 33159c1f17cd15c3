"""Two replicas compute the training of one device: weights, logs, statistics, clipping, seeds."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting import initialization
from keras_robust.core.config import replace
from keras_robust.losses.robust_loss import Adversarial
from keras_robust.training import distribution

BALL = kr.LinfBall(0.1)
# Replicas draw other noise than one device, so an attack that is to be the same draws none.
PGD = replace(kr.attacks.pgd(BALL, steps=2), initialization=initialization.AtInput())


# Where a claim is not about graphs: eager, which needs no trace, and in a graph in the slow run.
in_graph_slowly = pytest.mark.parametrize(
    "eager",
    [pytest.param(True, id="eager"), pytest.param(False, id="graph", marks=pytest.mark.slow)],
)


def sgd(**settings):
    return keras.optimizers.SGD(0.1, momentum=0.9, **settings)


@pytest.fixture
def pair(two_replicas, make_classifier):
    """Builds the same model for one device, eager unless `compiled` says otherwise (it saves a
    trace), and for two replicas."""

    def build(make=None, optimizer=sgd, regularizer=None, compiled=None, **settings):
        settings = {"attack": PGD, "loss": Adversarial(1.0), **settings}
        models = []
        for scope, eager in ((contextlib.nullcontext(), True), (two_replicas.scope(), False)):
            with scope:
                classifier = make_classifier(dropout=0, regularizer=regularizer)
                model = make(classifier) if make else kr.RobustModel(classifier, **settings)
                model.compile(optimizer(), **{"run_eagerly": eager, **(compiled or {})})
                models.append(model)
        return models

    return build


def fit(model, x, y, *weights, batch_size=8, epochs=1):
    data = tf.data.Dataset.from_tensor_slices((x, y, *weights)).batch(batch_size)
    return model.fit(data, epochs=epochs, verbose=0).history


def check_the_same(models, batch, atol=1e-6, **settings):
    """Trains both on the same batches: the same weights and logs, and replicas that agree."""
    one, two = (fit(model, *batch, **settings) for model in models)
    assert set(one) == set(two)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    found, expected = ([np.asarray(w) for w in model.get_weights()] for model in models[::-1])
    for value, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, value, rtol=0, atol=atol)
    assert_replicas_agree(models[1])
    return one


def assert_replicas_agree(model):
    """The copies of every variable, statistics included, are equal bit for bit."""
    copies = 0
    for variable in model.variables:
        first, *others = getattr(variable.value, "values", [variable.value])
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy(), err_msg=variable.path)
            copies += 1
    assert copies >= len(model.weights)


DEFENSES = {
    "standard": lambda c: kr.defenses.standard(c, BALL, steps=2),
    "pgd_at": lambda c: kr.defenses.pgd_at(c, BALL, steps=2),
    "trades": lambda c: kr.defenses.trades(c, BALL, steps=2),
    "mart": lambda c: kr.defenses.mart(c, BALL, steps=2),
    "adr": lambda c: kr.defenses.adr(c, BALL, base=kr.defenses.pgd_at, steps=2),
    # The penalty is the mean of those of the parts, so that it differs.
    "ibp": lambda c: kr.defenses.ibp(
        c, BALL, warmup_steps=0, ramp_steps=2, regularization=0.0, steps=2
    ),
    # At the paper's temperature steps are so long that rounding alone moves them apart.
    "ascl": lambda c: kr.defenses.ascl(
        c, BALL, selection="global", temperature=0.5, head="mlp", steps=2
    ),
    "ascl leaked": lambda c: kr.defenses.ascl(
        c, BALL, similarity="l1", temperature=0.5, vat=0.0, steps=2
    ),
}


# Two train in a graph below, and the simplest in every other test.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("mart", "adr")))
        for name in DEFENSES
    ],
)
@in_graph_slowly
def test_every_defense(eager, name, pair, make_batch):
    check_defense(name, pair, make_batch, {"run_eagerly": eager})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trades", "ascl"])
def test_defenses_in_a_graph(name, pair, make_batch):
    check_defense(name, pair, make_batch, {})


def check_defense(name, pair, make_batch, compiled):
    """Three steps with batch norm, whose statistics are those of the whole batch."""

    def without_noise(classifier):
        model = DEFENSES[name](classifier)
        if model.attack is not None:
            model.attack = PGD
        return model

    check_the_same(pair(without_noise, compiled=compiled), make_batch(24))


@pytest.mark.parametrize(
    "settings",
    [
        {"global_clipnorm": 0.05, "weight_decay": 0.1, "use_ema": True, "nesterov": True},
        {"clipnorm": 0.02},
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_optimizers(settings, pair, make_batch):
    check_the_same(pair(optimizer=lambda: sgd(**settings)), make_batch(16), epochs=2)


@pytest.mark.slow
def test_clipping_with_a_loss_scale(pair, make_batch):
    """Limits are of the gradient, not of the gradient times the loss scale."""
    models = pair(optimizer=lambda: keras.optimizers.LossScaleOptimizer(sgd(clipvalue=0.005)))
    check_the_same(models, make_batch(16), epochs=2)


def test_clipping_limits_the_sum(pair, make_batch):
    """Two clipped halves may be twice as long as a clipped sum: the step has the limit's length."""
    limit = 1e-3
    _, model = pair(
        optimizer=lambda: keras.optimizers.SGD(1.0, global_clipnorm=limit),
        compiled={"run_eagerly": True},
    )
    before = [w.numpy() for w in model.trainable_variables]
    fit(model, *make_batch(8))
    moved = [w.numpy() - old for w, old in zip(model.trainable_variables, before, strict=True)]
    assert np.sqrt(sum(np.sum(m**2) for m in moved)) == pytest.approx(limit, rel=1e-3)


@in_graph_slowly
def test_parts_of_different_sizes(eager, pair, make_batch):
    """A last batch of 5 is split into parts of 3 and 2; with all that averages over images."""
    weights = np.linspace(0, 2, 13).astype("float32")
    metric = "sparse_categorical_crossentropy"
    compiled = {"metrics": [metric], "run_eagerly": eager}
    models = pair(regularizer=keras.regularizers.L2(0.1), compiled=compiled)
    logs = check_the_same(models, (*make_batch(13), weights))
    assert logs["regularization"][0] > 0 and metric in logs


def of_unknown_size(x, y, size):
    """Batches of a generator, as `fit` takes them: nobody knows how many there are."""
    spec = tf.TensorSpec([None, *x.shape[1:]], tf.float32), tf.TensorSpec([None], tf.int64)
    batches = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


@pytest.mark.parametrize(
    ("known", "eager"),
    [(False, True), *(pytest.param(k, False, marks=pytest.mark.slow) for k in (True, False))],
)
def test_a_last_batch_smaller_than_the_replicas_joins_the_one_before(
    known, eager, pair, make_batch
):
    """A last batch of 1 would be split into parts of 1 and 0."""
    x, y = make_batch(17)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    data = data if known else of_unknown_size(x, y, 8)
    one, two = pair(compiled={"run_eagerly": eager})
    expected = one.fit(of_unknown_size(x[:8], y[:8], 8).concatenate(
        of_unknown_size(x[8:], y[8:], 9)), verbose=0).history  # fmt: skip
    history = two.fit(data, validation_data=data, verbose=0).history
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, rel=1e-5), name
    for value, other in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6)
    assert_replicas_agree(two)
    # A step begins after the end of a data set of unknown size; nothing counts it.
    assert int(two.optimizer.iterations.numpy()) == 2
    if eager:  # the rest costs as much again
        return
    found = two.evaluate(data, verbose=0, return_dict=True)
    assert found == pytest.approx({name: history[f"val_{name}"][0] for name in found}, rel=1e-6)
    expected = one.evaluate(x, y, batch_size=17, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_data_set_of_one_image_is_refused(pair, make_batch):
    _, model = pair()
    with pytest.raises(tf.errors.InvalidArgumentError, match="fewer images than .*replicas"):
        fit(model, *make_batch(1))


@pytest.mark.parametrize(
    ("sizes", "parts", "least", "expected"),
    [
        ([8, 1], 2, 1, [9]), ([8, 2], 2, 1, [8, 2]), ([1, 3, 1, 1, 4], 2, 1, [6, 4]),
        ([8, 5], 4, 1, [13]), ([8, 7], 4, 1, [8, 7]), ([1], 2, 1, [1]), ([8, 3], 1, 4, [11]),
        ([8, 5], 2, 2, [8, 5]), ([8, 3], 2, 2, [11]), ([8, 1], 1, 1, [8, 1]),
    ],
)  # fmt: skip
def test_small_batches_join(sizes, parts, least, expected):
    begins = np.cumsum([0, *sizes])
    batches = [{"x": np.arange(b, b + n)} for b, n in zip(begins, sizes, strict=False)]
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature={"x": tf.TensorSpec([None], tf.int64)}
    )
    found = list(distribution.without_small_batches(data, parts, least))
    assert [len(batch["x"]) for batch in found] == expected
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in found]), np.arange(sum(sizes)))


def test_batches_of_one_size_and_endless_ones_stay_so():
    data = tf.data.Dataset.range(10)
    even = data.batch(4, drop_remainder=True)
    assert distribution.without_small_batches(even, 2) is even
    endless = distribution.without_small_batches(data.batch(3).repeat(), 2)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert [len(batch) for batch in endless.take(4)] == [3, 3, 4, 3]
    assert distribution.without_small_batches([1], 2) == [1]


def test_a_last_batch_smaller_than_the_microbatches(make_robust, make_classifier, make_batch):
    """The same on one device: an epoch failed at its end."""
    x, y = make_batch(9)
    model = make_robust(make_classifier(), microbatches=2)
    with pytest.raises(ValueError, match="last batch holds 1 of 9 images, too few .*2 microbatch"):
        model.fit(x, y, batch_size=8, verbose=0)
    fit(model, x, y)
    assert int(model.step) == 1


@pytest.mark.parametrize(
    ("call", "count"),
    [
        (lambda model, x, y: model.fit(x, y, batch_size=8, verbose=0), 9),
        (lambda model, x, y: model.fit(x, y, 8, verbose=0), 9),
        (lambda model, x, y: model.fit(x, y, verbose=0), 33),
        (lambda model, x, y: model.fit(x, y, batch_size=8, validation_split=0.5, verbose=0), 18),
        (lambda model, x, y: model.fit(x[:8], y[:8], 8, validation_data=(x, y), verbose=0), 9),
        (lambda model, x, y: model.evaluate(x, y, 8, verbose=0), 9),
    ],
)
def test_a_last_batch_of_arrays_is_refused_before_the_first(pair, make_batch, call, count):
    """Their number of images is known; nothing was trained in vain."""
    _, model = pair()
    with pytest.raises(ValueError, match=r"last batch holds 1 of \d+ images, too few .*2 replicas"):
        call(model, *make_batch(count))
    assert int(tf.convert_to_tensor(model.step)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"steps_per_execution": 2}, pytest.param({"run_eagerly": True}, marks=pytest.mark.slow)],
)
def test_options_of_compile(settings, pair, make_batch):
    check_the_same(pair(compiled=settings), make_batch(16), epochs=2)


def test_evaluation(pair, make_batch):
    x, y = make_batch(13)
    one, two = (model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True) for model in pair())
    assert one == pytest.approx(two, rel=1e-5)


@in_graph_slowly
def test_microbatches_on_replicas(eager, pair, make_batch):
    """Each replica cuts its part again; without batch norm, the result is the same."""
    models = pair(make_without_batch_norm, compiled={"run_eagerly": eager})
    whole = pair(lambda c: make_without_batch_norm(c, 1))[0]
    logs = check_the_same(models, make_batch(13))
    expected = fit(whole, *make_batch(13))
    for name, values in expected.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-5, err_msg=name)
    for found, value in zip(models[0].get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)


def make_without_batch_norm(_, microbatches=2):
    keras.utils.set_random_seed(3)
    classifier = kr.models.mlp((6, 6, 1), classes=3, hidden=(5,))
    return kr.RobustModel(classifier, PGD, Adversarial(1.0), microbatches=microbatches)


def test_replicas_draw_other_noise(two_replicas, make_linear):
    """Without a step to take, the random start is what comes out."""
    with two_replicas.scope():
        start = replace(kr.attacks.pgd(BALL, steps=1), steps=0)
        model = kr.RobustModel(make_linear(np.eye(4)[:, :3]), start, Adversarial())
    x, y = tf.fill([2, 4, 1, 1], 0.5), tf.constant([0, 1])
    first, second = two_replicas.run(lambda: model.craft(x, y)).values
    again = two_replicas.run(lambda: model.craft(x, y)).values
    assert not np.any(np.isclose(first, second))
    np.testing.assert_array_equal(again[0], first)


def test_batch_norm_of_one_device_is_left_alone(make_robust, make_classifier):
    model = make_robust(make_classifier())
    assert not any(layer.synchronized for layer in distribution.batch_norms(model.classifier))


def test_batch_norm_inside_a_model_is_synchronized(two_replicas, make_classifier):
    with two_replicas.scope():
        outer_input = keras.Input((6, 6, 1))
        outer = keras.Model(outer_input, make_classifier()(outer_input))
        kr.RobustModel(outer, PGD, Adversarial())
    assert [layer.synchronized for layer in distribution.batch_norms(outer)] == [True]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"crafting_mode": "train"}, {"crafting_dtype": "bfloat16"}], ids=str
)
@in_graph_slowly
def test_other_crafting_modes(settings, eager, pair, make_batch):
    """In training mode, each replica crafts against its own statistics, and trains on all."""
    _, model = pair(compiled={"run_eagerly": eager}, **settings)
    assert np.isfinite(fit(model, *make_batch(16))["loss"][0])
    assert all(layer.synchronized for layer in distribution.batch_norms(model.classifier))


def test_accumulation_is_refused_with_what_to_do_instead(two_replicas, make_classifier):
    with two_replicas.scope():
        model = kr.RobustModel(make_classifier(), PGD, Adversarial())
        with pytest.raises(ValueError, match="microbatches=4"):
            model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4))


@in_graph_slowly
def test_saved_on_replicas_and_resumed_on_one_device(eager, pair, make_batch, tmp_path):
    """And vice versa: all four runs end in the same weights."""
    one, two = pair(compiled={"run_eagerly": eager})
    x, y = make_batch(16)
    ends = []
    for model in (one, two):
        fit(model, x, y)
        model.save(tmp_path / "model.keras")
        for scope in (contextlib.nullcontext(), two.distribute_strategy.scope()):
            with scope:
                loaded = keras.saving.load_model(tmp_path / "model.keras")
            loaded.run_eagerly = eager
            fit(loaded, x, y)
            ends.append(loaded.get_weights())
    for weights in ends[1:]:
        for found, value in zip(weights, ends[0], strict=True):
            np.testing.assert_allclose(found, value, atol=1e-6)
