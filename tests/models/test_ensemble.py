"""Ensembles: what they compute, and that nothing of Keras is lost in them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.core.classifier import members_of
from keras_robust.models import adapt, ensemble, mlp, small_cnn
from keras_robust.models.building import is_classifier
from keras_robust.models.ensemble import EnsembleLogits, StackedLogits
from keras_robust.serving import export_model
from keras_robust.training import distribution


def combined(probabilities, combine):
    """The softmax of an ensemble's logits, its members having these probabilities."""
    logits = EnsembleLogits(combine)(tf.math.log(tf.constant(probabilities)))
    return tf.nn.softmax(logits).numpy()


def test_mean_of_probabilities():
    """(0.7, 0.2, 0.1) and (0.1, 0.2, 0.7) have the mean (0.4, 0.2, 0.4)."""
    members = [[[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]]
    np.testing.assert_allclose(combined(members, "probabilities"), [[0.4, 0.2, 0.4]], rtol=1e-6)


def test_mean_of_logits():
    """Of the logarithms of (0.8, 0.2) and (0.5, 0.5): odds sqrt(4 * 1) = 2."""
    found = combined([[[0.8, 0.2], [0.5, 0.5]]], "logits")
    np.testing.assert_allclose(found, [[2 / 3, 1 / 3]], rtol=1e-6)


def test_votes_count_more_than_certainty():
    """Two votes for 1 beat one sure vote for 0; (votes + mean) / 4, the mean being (1.8, 1.2)/3."""
    found = combined([[[1.0 - 1e-9, 1e-9], [0.4, 0.6], [0.4, 0.6]]], "vote")
    np.testing.assert_allclose(found, [[(1 + 0.6) / 4, (2 + 0.4) / 4]], rtol=1e-5)


def test_ties_go_to_the_larger_mean_probability():
    """One vote each: (1 + 0.75) / 3 and (1 + 0.25) / 3."""
    found = combined([[[0.9, 0.1], [0.4, 0.6]]], "vote")
    np.testing.assert_allclose(found, [[1.65 / 3, 1.35 / 3]], rtol=1e-6)
    assert found.argmax() == 0


@pytest.mark.parametrize("combine", ["probabilities", "vote"])
def test_sure_members_have_finite_logits_and_gradients(combine):
    """Probabilities underflow far before log-probabilities do."""
    z = tf.constant([[[1e3, -1e3, 0.0], [1e3, 0.0, -1e3]]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        logits = EnsembleLogits(combine)(z)
        loss = losses.cross_entropy(logits, tf.constant([1]))
    assert np.isfinite(logits).all() and np.isfinite(tape.gradient(loss, z)).all()


def test_an_attack_on_votes_is_one_on_the_mean_probability(make_classifier, tiny_batch):
    members = [make_classifier(seed=seed) for seed in range(3)]
    attack = kr.attacks.pgd(kr.LinfBall(0.1), 3)
    by_mean, by_vote = (
        attack(ensemble(members, combine), *tiny_batch) for combine in ("probabilities", "vote")
    )
    np.testing.assert_allclose(by_mean, by_vote, atol=1e-6)


def test_outputs_are_those_of_the_members():
    members = [mlp((8, 8, 1), 5, hidden=(7,)), small_cnn((8, 8, 1), 5, variant="tiny")]
    model = ensemble(members)
    assert is_classifier(model) and adapt(model) is model
    x = np.random.default_rng(0).random((3, 8, 8, 1)).astype("float32")
    found, single = model(x), [member(x) for member in members]
    for number, outputs in enumerate(single):
        np.testing.assert_allclose(found["member_logits"][:, number], outputs["logits"], rtol=1e-6)
    features = np.concatenate([outputs["features"] for outputs in single], axis=1)
    np.testing.assert_allclose(found["features"], features, rtol=1e-6)
    mean = np.mean([tf.nn.softmax(outputs["logits"]) for outputs in single], axis=0)
    np.testing.assert_allclose(tf.exp(found["logits"]), mean, rtol=1e-5)
    weights = [w for member in members for w in member.trainable_variables]
    assert all(a is b for a, b in zip(model.trainable_variables, weights, strict=True))


def test_members_are_in_order_before_and_after_saving(tmp_path):
    """Twelve members, whose numbers as text are in another order; each has its own width."""
    model = ensemble([mlp((2, 2, 1), 3, hidden=(width,)) for width in range(1, 13)])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((4, 2, 2, 1)).astype("float32")
    for one in (model, again, keras.models.clone_model(model)):
        members = members_of(one)
        assert [member.get_layer("fc1").units for member in members] == list(range(1, 13))
        logits = np.stack([member(x)["logits"] for member in members], axis=1)
        np.testing.assert_array_equal(one(x)["member_logits"], logits)
    for name, value in model(x).items():
        np.testing.assert_array_equal(value, again(x)[name])


def test_members_of_the_same_name_are_renamed(tmp_path):
    """As two that were read from the same file are."""
    mlp((2, 2, 1), 3).save(tmp_path / "member.keras")
    loaded = [keras.saving.load_model(tmp_path / "member.keras") for _ in range(2)]
    assert loaded[0].name == loaded[1].name
    model = ensemble(loaded)
    assert [member.name for member in members_of(model)] == ["member_1", "member_2"]
    assert loaded[0].name == loaded[1].name  # they keep theirs


def test_an_ensemble_may_be_a_member():
    inner = ensemble([mlp((2, 2, 1), 3) for _ in range(2)])
    outer = ensemble([inner, mlp((2, 2, 1), 3)])
    x = np.full([2, 2, 2, 1], 0.3, "float32")
    np.testing.assert_allclose(outer(x)["member_logits"][:, 0], inner(x)["logits"], rtol=1e-6)
    assert len(members_of(outer)) == 2


def test_robust_models_are_taken_for_their_classifiers():
    nets = [mlp((2, 2, 1), 3) for _ in range(2)]
    trained = [kr.defenses.pgd_at(net, kr.LinfBall(0.1)) for net in nets]
    x = np.full([2, 2, 2, 1], 0.3, "float32")
    np.testing.assert_array_equal(
        ensemble(trained)(x)["member_logits"], ensemble(nets)(x)["member_logits"]
    )


def test_models_that_only_look_like_ensembles_have_no_members(make_classifier):
    """Members' logits of one trunk: there is nothing that would run without the others."""
    inputs = keras.Input((4,))
    logits = [keras.layers.Dense(3)(inputs) for _ in range(2)]
    outputs = {"logits": logits[0], "features": inputs, "member_logits": keras.ops.stack(logits, 1)}
    assert members_of(keras.Model(inputs, outputs)) == ()
    assert members_of(make_classifier()) == () and members_of(lambda x: x) == ()


def test_batch_norm_of_members_is_found(make_classifier):
    model = ensemble([make_classifier(seed=seed) for seed in range(2)])
    assert len(list(distribution.batch_norms(model))) == 2


def test_half_precision(make_classifier, tiny_batch):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ensemble([make_classifier(seed=seed) for seed in range(2)])
    outputs = model(tiny_batch[0])
    assert all(value.dtype == tf.float32 for value in outputs.values())
    total = tf.reduce_sum(tf.exp(outputs["logits"]), axis=1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_exported(tmp_path):
    model = ensemble([mlp((2, 2, 1), 3) for _ in range(2)])
    model.export(tmp_path / "exported", verbose=False)
    x = np.full([2, 2, 2, 1], 0.3, "float32")
    loaded = tf.saved_model.load(tmp_path / "exported")
    served = loaded.serve(x)
    np.testing.assert_allclose(served["member_logits"], model(x)["member_logits"], rtol=1e-6)


def test_built_by_name():
    model = kr.models.build(
        "ensemble", (8, 8, 1), 5, members=("mlp", "mlp"), options={"hidden": (7,)}
    )
    first, second = members_of(model)
    assert first.get_layer("fc1").units == second.get_layer("fc1").units == 7
    assert np.any(first.get_weights()[0] != second.get_weights()[0])
    with pytest.raises(ValueError, match="received 0 models"):
        kr.models.build("ensemble", (8, 8, 1), 5)
    with pytest.raises(ValueError, match=r"members is 'mlp,mlp'; expected names"):
        kr.models.build("ensemble", (8, 8, 1), 5, members="mlp,mlp")
    with pytest.raises(ValueError, match="no architecture 'mpl'; expected one of .*mean 'mlp'"):
        kr.models.build("ensemble", (8, 8, 1), 5, members=("mlp", "mpl"))


def test_refused():
    one, wide, more = mlp((2, 2, 1), 3), mlp((3, 3, 1), 3), mlp((2, 2, 1), 4)
    for members, error, match in (
        ([one], ValueError, "received 1 models; expected a list of at least two"),
        (one, ValueError, "received one model; expected"),
        ([one, one], ValueError, "Member 2 is the same model"),
        ([one, wide], ValueError, r"Member 2 maps images of \(3, 3, 1\) to 3 classes"),
        ([one, more], ValueError, r"to 4 classes, the first one images of"),
        ([one, keras.Sequential([keras.layers.Dense(3)])], TypeError, r"Member 2 .*adapt"),
        ([one, "mlp"], TypeError, "Member 2 is 'mlp'"),
    ):
        with pytest.raises(error, match=match):
            ensemble(members)
    with pytest.raises(ValueError, match="combine is 'mean'; expected one of 'probabilities'"):
        ensemble([one, mlp((2, 2, 1), 3)], combine="mean")


def test_log_mean_probability_of_one_member_is_its_own():
    z = tf.constant([[[1.0, 2.0, 3.0]]])
    np.testing.assert_allclose(losses.log_mean_probability(z), tf.nn.log_softmax(z[:, 0]))


# A convolutional network and a vision transformer.
MIXED = {"small_cnn": {"variant": "tiny"}, "vit": {"dim": 8, "depth": 1, "heads": 2}}


def mixed_ensemble():
    keras.utils.set_random_seed(0)
    return kr.models.build("ensemble", (8, 8, 1), 4, members=tuple(MIXED), options=MIXED)


def eight_images():
    x = np.random.default_rng(0).random((8, 8, 8, 1)).astype("float32")
    return x, np.arange(8) % 4


def test_a_convolutional_network_and_a_transformer_train_together():
    """One step changes every weight of both; a task is a member."""
    model = mixed_ensemble()
    x, y = eight_images()
    robust = kr.defenses.ensemble_at(model, kr.LinfBall(0.1), steps=1)
    robust.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = [weight.numpy() for weight in model.trainable_weights]
    robust.train_on_batch(x, y)
    unchanged = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(weight.numpy(), old)
    ]
    # The softmax of attention does not see what is added to every score alike.
    assert all("key/bias" in path for path in unchanged), unchanged
    attack = kr.attacks.multi_task(kr.LinfBall(0.1), 2, solver="task_oriented")
    assert attack.trace(model, x, y).weights.shape == (2, 2, 8)


def test_options_of_one_member():
    first, second = members_of(mixed_ensemble())
    assert first.get_layer("conv1_1").filters == 8
    assert second.get_layer("positions").output.shape == (None, 5, 8)
    both = kr.models.build(
        "ensemble",
        (8, 8, 1),
        4,
        members=("mlp", "vit"),
        options={"mean": 0.5, "vit": {**MIXED["vit"], "patch": 2}},
    )
    assert all(member.get_layer("normalization") for member in members_of(both))
    assert members_of(both)[1].get_layer("positions").output.shape == (None, 17, 8)
    with pytest.raises(TypeError, match="vit has no option 'variant'; expected one of patch"):
        kr.models.build("ensemble", (8, 8, 1), 4, members=tuple(MIXED), options={"variant": "tiny"})


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["uniform", "min_max", "min_norm", "task_oriented", "cagrad"])
def test_multi_task_attacks_on_a_convolutional_network_and_a_transformer(solver):
    model, (x, y) = mixed_ensemble(), eight_images()
    attack = kr.attacks.multi_task(kr.LinfBall(0.3), 10, solver=solver)
    x_adv = attack(model, x, y, seed=0)
    clean, attacked = (model(images)["member_logits"] for images in (x, x_adv))
    loss = [
        float(tf.reduce_mean(losses.cross_entropy(tf.reshape(logits, [-1, 4]), np.repeat(y, 2))))
        for logits in (clean, attacked)
    ]
    assert loss[1] > loss[0]


@pytest.mark.slow
def test_a_convolutional_network_and_a_transformer_are_exported(tmp_path):
    model, (x, _) = mixed_ensemble(), eight_images()
    model.save(tmp_path / "mixed.keras")
    again = keras.saving.load_model(tmp_path / "mixed.keras")
    detector = kr.detection.Detector(again, scored_by="disagreement").calibrate([x], 0.25)
    path = export_model(again, tmp_path / "exported", detector)
    served = tf.saved_model.load(str(path)).signatures["serving_default"](images=tf.constant(x))
    expected = tf.nn.softmax(model(x)["member_logits"], axis=-1)
    np.testing.assert_allclose(served["member_probabilities"], expected, atol=1e-5)


def test_stacking_begins_as_the_mean_of_log_probabilities():
    """Of (0.8, 0.2) and (0.5, 0.5): odds sqrt(4 * 1) = 2."""
    layer = StackedLogits()
    z = tf.math.log(tf.constant([[[0.8, 0.2], [0.5, 0.5]]]))
    np.testing.assert_allclose(tf.nn.softmax(layer(z)), [[2 / 3, 1 / 3]], rtol=1e-5)
    # Only the first member's first class counts: log 0.8, log 0.8.
    layer.kernel.assign([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(layer(z), [2 * [np.log(0.8)]], rtol=1e-5)


def test_the_head_of_a_stacked_ensemble_is_what_combines_its_members(make_batch):
    x, y = make_batch(6, (2, 2, 1))
    members = [mlp((2, 2, 1), 3, hidden=(4,)) for _ in range(2)]
    model = ensemble(members, "stacking")
    kr.models.set_trainable(model, "head")
    assert [w.path for w in model.trainable_weights] == ["logits/kernel", "logits/bias"]
    before = [w.numpy() for member in members for w in member.weights]
    robust = kr.defenses.pgd_at(model, kr.LinfBall(0.1), steps=1)
    robust.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    robust.fit(x, y, verbose=0)
    after = [w.numpy() for member in members for w in member.weights]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.any(model.get_layer("logits").bias.numpy() != 0)
    plain = ensemble(members)
    kr.models.set_trainable(plain, "head")
    assert len(plain.trainable_weights) == 4  # kernels and biases of both members
