"""CCE; its formula is in the golden tests, too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.cce import CollaborativeCrossEntropy
from keras_robust.losses.robust_loss import total

BALL = kr.LinfBall(0.1)


@pytest.fixture
def ensemble(make_classifier):
    return kr.models.ensemble([make_classifier(seed=seed) for seed in range(2)])


def on_paper(promote, demote):
    """The terms of two members; the soft indicator is that of the first call, before any step."""
    label_probabilities = []

    def terms(clean, sources, y):
        of_label = sources[..., range(len(y)), y]  # [sources, members, batch]
        entropy = -(np.exp(sources) * sources).sum(axis=-1)
        label_probabilities.append(np.exp(of_label))
        values = {
            "clean": -clean[:, range(len(y)), y].sum(axis=0).mean(),
            "adversarial": -(of_label[0, 0] + of_label[1, 1]).mean(),
        }
        cross, w = [(0, 1), (1, 0)], label_probabilities[0]
        if promote:
            values["promoting"] = -promote * sum((w[c] * of_label[c]).mean() for c in cross)
        if demote:
            values["demoting"] = -demote * sum(((1 - w[c]) * entropy[c]).mean() for c in cross)
        return values

    return terms


@pytest.mark.parametrize(
    ("mode", "weights"), [("robustness", (1, 1)), ("detection", (0, 5)), ("base", (0, 0))]
)
def test_one_step(one_step_of_two, mode, weights):
    """And each batch is where PGD on its member alone ends."""
    model, crafted = one_step_of_two(
        lambda c: kr.defenses.cce(c, BALL, mode=mode, steps=3), on_paper(*weights)
    )
    assert len(crafted) == 2 and np.any(crafted[0] != crafted[1])
    assert model.validation_attack == kr.attacks.pgd(BALL, 3)


def test_robust_accuracy_is_that_of_the_ensemble_on_all_batches(
    make_classifier, make_batch, fit_once
):
    x, y = make_batch(9)
    ensemble = kr.models.ensemble([make_classifier(seed=seed, dropout=0) for seed in range(2)])
    model = kr.defenses.cce(ensemble, kr.LinfBall(0.05), steps=3)
    model.compile("sgd", run_eagerly=True)
    x_adv = tf.concat(model.craft(tf.constant(x), tf.constant(y)), axis=0)
    weights = model.get_weights()
    predicted = ensemble(x_adv, training=True)["logits"].numpy().argmax(axis=1)
    model.set_weights(weights)  # that pass moved the statistics of batch norm
    expected = (predicted == np.tile(y, 2)).mean()
    assert fit_once(model, x, y)["robust_accuracy"][0] == pytest.approx(expected)
    assert 0 < expected < 1


def test_one_batch_is_everybodys_own_and_everybody_elses():
    """As two equal batches: sum_n CE_n + w_n CE_n - 5 (1 - w_n) H_n in place of the crossing."""
    z = tf.random.stateless_normal([4, 3, 5], [0, 0])
    y, clean = tf.constant([0, 1, 2, 3]), {"member_logits": z}
    loss = CollaborativeCrossEntropy(1.0, 5.0)
    one = loss(y, {"member_logits": z}, clean)
    three = loss(y, {"member_logits": tf.stack([z] * 3)}, clean)
    assert one.keys() == three.keys()
    for name in one:
        np.testing.assert_allclose(one[name], three[name], rtol=1e-5)
        assert one[name].shape == [4]


def test_a_demoted_member_grows_uncertain_of_what_fools_it():
    """The gradient of demoting raises the entropy, the more the less the label is believed."""
    z = tf.Variable(tf.constant([[[[4.0, 0.0, 0.0]] * 2], [[[0.0, 4.0, 0.0]] * 2]]))
    with tf.GradientTape() as tape:
        terms = CollaborativeCrossEntropy(0.0, 5.0)(
            tf.constant([0]), {"member_logits": z}, {"member_logits": z[0]}
        )
        value = tf.reduce_sum(terms["demoting"])
    moved = z - 0.1 * tape.gradient(value, z)
    before, after = kr.losses.entropy(z).numpy(), kr.losses.entropy(moved).numpy()
    gained = (after - before)[:, 0]
    assert gained[1, 0] > 10 * gained[0, 1] > 0  # source 2 fools member 1; source 1 not member 2
    np.testing.assert_allclose(gained[[0, 1], [0, 1]], 0)  # what is its own is not demoted


@pytest.mark.slow  # in the default run: UDR, TA-MOO, and plain defenses
def test_replicas_make_the_step_of_one_device(two_replicas, make_classifier, make_batch):
    """Two replicas with three images each: no random start, so that they craft the same."""
    x, y = make_batch(6)
    found = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            members = [make_classifier(seed=seed, dropout=0) for seed in range(2)]
            ensemble = kr.models.ensemble(members)
            attack = kr.attacks.per_member(kr.attacks.bim(BALL, 2))
            model = kr.RobustModel(
                ensemble,
                attack,
                CollaborativeCrossEntropy(),
                validation_attack=kr.attacks.pgd(BALL, 2),
            )
            model.compile("sgd")
        model.fit(x, y, batch_size=6, shuffle=False, verbose=0)
        found.append(model.get_weights())
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mode": "detect"}, "mode is 'detect'; expected one of 'robustness', 'detection', 'base'"),
        ({"promote": -1}, "promote is -1"),
        ({"demote": "5"}, "demote is '5'"),
        ({"steps": -1}, "steps is -1"),
    ],
)
def test_refused(ensemble, settings, match):
    with pytest.raises(ValueError, match=match):
        kr.defenses.cce(ensemble, BALL, **settings)


def test_a_single_classifier_is_refused(tiny_classifier):
    with pytest.raises(TypeError, match="cce: the classifier"):
        kr.defenses.cce(tiny_classifier, BALL)


def test_explicit_weights_and_udr(ensemble):
    model = kr.defenses.cce(ensemble, BALL, mode="detection", promote=0.5)
    assert model.robust_loss == CollaborativeCrossEntropy(0.5, 5.0)
    with pytest.raises(ValueError, match=r"udr: the attack of the base 'cce' .*ensemble_at"):
        kr.defenses.udr(ensemble, BALL, base=kr.defenses.cce)


def test_the_terms_are_one_value_per_example():
    z = tf.zeros([2, 4, 2, 3])
    terms = CollaborativeCrossEntropy()(
        tf.zeros([4], tf.int32), {"member_logits": z}, {"member_logits": z[0]}
    )
    assert total(terms).shape == [4]


def test_demoting_grows_from_nothing_to_its_weight(ensemble):
    """Over four steps, of which the third is this one; validation has the whole weight."""
    model = kr.defenses.cce(ensemble, BALL, mode="detection", demote_ramp_steps=4)
    rng = np.random.default_rng(0)
    y = tf.constant([0, 2, 1])
    clean, adversarial = (
        {"member_logits": tf.constant(rng.normal(size=shape), tf.float32)}
        for shape in ((3, 2, 3), (2, 3, 2, 3))
    )
    whole = CollaborativeCrossEntropy(promote=0.0, demote=5.0)(y, adversarial, clean)
    for step, share in ((0, 0.25), (2, 0.75), (3, 1.0), (9, 1.0)):
        model.step.assign(step)
        found = model.training_loss().loss(y, adversarial, clean)
        assert list(found) == list(whole)
        np.testing.assert_allclose(found["demoting"], share * whole["demoting"], rtol=1e-6)
        np.testing.assert_array_equal(found["adversarial"], whole["adversarial"])
        assert float(model.state_logs()["demote"]) == 5.0 * share
    assert model.robust_loss == CollaborativeCrossEntropy(promote=0.0, demote=5.0)
    assert type(model).from_config(model.get_config()).demote_ramp_steps == 4


@pytest.mark.slow
def test_a_ramp_trains(ensemble, make_batch):
    x, y = make_batch(4)
    model = kr.defenses.cce(ensemble, BALL, mode="detection", demote_ramp_steps=4, steps=1)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    history = model.fit(x, y, batch_size=1, epochs=2, verbose=0).history
    assert history["demote"] == pytest.approx([3.125, 5.0])  # means over four steps
    assert np.isfinite(history["demoting"]).all()


def test_a_ramp_needs_a_weight(ensemble):
    with pytest.raises(ValueError, match="demote_ramp_steps is 3, but demote is 0"):
        kr.defenses.cce(ensemble, BALL, mode="base", demote_ramp_steps=3)
    with pytest.raises(ValueError, match="demote_ramp_steps"):
        kr.defenses.cce(ensemble, BALL, demote_ramp_steps=-1)
