"""Success rates on models whose adversarial examples are sums: FGSM takes x to (x0 - r, x1 + r)."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks.crafting import initialization
from keras_robust.attacks.multi_task import tasks, transforms
from keras_robust.core.config import replace
from keras_robust.evaluation import (
    TaskSuccess,
    success_rates,
    success_table,
    task_gradients,
    task_history,
    task_success,
    transfer_success_rates,
)
from keras_robust.evaluation.rendering.markdown import markdown_table

LIFT = tf.constant([0.0, 0.3])
FGSM = kr.attacks.fgsm(kr.LinfBall(0.25))


def simple(x):
    return {"logits": x}


def pair(x):
    """Fooled by (x0 - 0.25, x1 + 0.25) where x0 - x1 < 0.5, and where x0 - x1 < 0.8."""
    return {"logits": x, "member_logits": tf.stack([x, x + LIFT], axis=1)}


def apart(*gaps):
    """Images of label 0 whose two pixels are so far from each other."""
    gaps = np.array(gaps, "float32")
    return np.stack([0.5 + gaps / 2, 0.5 - gaps / 2], axis=1), np.zeros(len(gaps), "int64")


def resting(kind, **settings):
    """An attack on tasks that leaves images as they are."""
    attack = kr.attacks.multi_task(kr.LinfBall(0.25), steps=1, tasks=kind, **settings)
    return replace(attack, steps=0, initialization=initialization.AtInput())


def test_shares():
    """Of four points: both goals on one, one goal on two more, none on the last."""
    found = TaskSuccess.of([[1, 1, 0, 0], [1, 0, 1, 0]], ["a", "b"], ensemble=0.5)
    assert found == TaskSuccess(("a", "b"), (0.5, 0.5), 0.25, 0.75, 0.5, 4)
    assert found.average == 0.5


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_members(batch):
    """Gaps of 0.2 (both), 0.6 (the second), 0.9 (none), in batches that are padded or not."""
    data = tf.data.Dataset.from_tensor_slices(apart(0.2, 0.6, 0.9)).batch(batch)
    found = task_success(pair, data, FGSM)
    assert found.names == ("member 1", "member 2")
    np.testing.assert_allclose(found.per_task, [1 / 3, 2 / 3])
    np.testing.assert_allclose(
        [found.all_tasks, found.any_task, found.ensemble], [1 / 3, 2 / 3, 1 / 3]
    )
    assert found.num_points == 3


def test_an_attack_on_members_has_them_as_its_tasks():
    """TA-MOO's step, too, is the sign of what both members agree in."""
    attack = kr.attacks.multi_task(kr.LinfBall(0.25), steps=1, step_size=0.5)
    said = []
    found = task_success(pair, apart(0.2, 0.6, 0.9), attack, limit=2, progress=said.append)
    assert (found.per_task, found.num_points) == ((0.5, 1.0), 2)
    assert said == [f"{attack.name}: 2 of 2 images"]


def line(x):
    return {"logits": tf.reshape(x, [-1, 2])}


def test_transformations():
    """A gap of 0.9 becomes 0.4: as it is 0 is predicted still, and flipped it is 1."""
    ways = tasks.Transformations((transforms.Identity(), transforms.HorizontalFlip()))
    x, y = apart(0.9)
    found = task_success(line, (x[:, None, :, None], y), FGSM, tasks=ways)
    assert found.names == ("identity", "horizontal flip")
    assert (found.per_task, found.all_tasks, found.average, found.ensemble) == (
        (0.0, 1.0),
        0.0,
        0.5,
        0.0,
    )


def test_strengths_are_drawn_for_each_batch():
    """A flip from a strength of 0.5 on comes in some batches, all its images or none."""
    ways = tasks.Transformations((transforms.HorizontalFlip(),), stochastic=True)
    x, y = apart(*[0.9] * 16)
    data = tf.data.Dataset.from_tensor_slices((x[:, None, :, None], y)).batch(2)
    share = task_success(line, data, FGSM, tasks=ways).all_tasks
    assert 0 < share < 1 and (share * 8).is_integer()
    assert share == task_success(line, data, FGSM, tasks=ways).all_tasks
    assert (
        len({task_success(line, data, FGSM, tasks=ways, seed=seed).all_tasks for seed in range(3)})
        > 1
    )


def test_a_goal_is_another_class_than_the_clean_prediction_or_than_the_label():
    """An image that is classified wrongly achieves the latter at rest; for the former it is left
    out, as an attack that moves away from the label would keep the clean prediction."""
    x, y = apart(0.2, 0.2)
    data = x, 1 - y
    assert (
        task_success(simple, data, resting("universal", success_criterion="label")).all_tasks == 1.0
    )
    with pytest.raises(ValueError, match="classifies none of the 2 images correctly"):
        task_success(simple, data, resting("universal"))
    found = task_success(simple, (x, np.array([y[0], 1 - y[1]])), resting("universal"))
    assert (found.all_tasks, found.names) == (0.0, ("image 1",))
    assert (
        task_success(pair, (x, y), resting("members", success_criterion="prediction")).all_tasks
        == 0.0
    )


@pytest.mark.parametrize(
    ("criterion", "population", "images", "average"),
    [("label", "all", 2, 0.5), ("prediction", "all", 2, 0.0), ("label", "correct", 1, 0.0)],
)
def test_the_population_and_the_criterion(criterion, population, images, average):
    """One of two images is misclassified: it counts as fooled, or is left out."""
    data = apart(0.2, 0.6)[0], np.array([0, 1])
    found = task_success(
        simple, data, resting("universal"), success_criterion=criterion, population=population
    )
    assert (found.num_points, len(found.names), found.average) == (1, images, average)


def test_success_of_a_targeted_attack_is_the_target():
    """PGD toward class 1 moves the member with a lift there first."""
    x, y = apart(0.2, 0.6, 0.9)
    attack = kr.attacks.fgsm(kr.LinfBall(0.25), targeted=True)
    targets = np.array([1, 1, 0])
    x_adv = attack(pair, x, y, targets=targets).numpy()
    found = success_rates(pair, x, x_adv, y, attack, targets=targets)
    np.testing.assert_allclose(found.per_task, [2 / 3, 1.0])


def test_a_history_ends_where_the_attack_does():
    """Batches that are padded: the averages are of the real images."""
    attack = kr.attacks.multi_task(kr.LinfBall(0.25), steps=2, step_size=0.2, solver="uniform")
    data = tf.data.Dataset.from_tensor_slices(apart(0.2, 0.6, 0.9)).batch(2)
    found = task_history(pair, data, attack)
    assert found.num_points == 3 and found.names == ("member 1", "member 2")
    np.testing.assert_allclose(found.success[-1], [1 / 3, 2 / 3])  # as of FGSM, above
    assert found.all_tasks[-1] == pytest.approx(1 / 3)
    np.testing.assert_allclose(found.weights, 0.5)
    curves = found.curves()
    assert list(curves["Loss"]) == ["member 1", "member 2"]
    np.testing.assert_allclose(curves["Loss"]["member 2"], [row[1] for row in found.losses])


def test_groups():
    """Five images in groups of two drawn at random: two groups, and an image left out."""
    x, _ = apart(*[0.2] * 5)
    y = np.array([1, 0, 1, 1, 0])  # 1 is misclassified, a success without a perturbation
    attack = resting(tasks.Universal(group=2), success_criterion="label")
    for seed in (0, 3):
        groups = np.random.default_rng(seed).permutation(5)[:4].reshape(2, 2)
        found = task_success(simple, (x, y), attack, seed=seed)
        assert found.names == ("image 1", "image 2")
        assert found.per_task == tuple(y[groups].mean(axis=0))
        assert found.all_tasks == y[groups].all(axis=1).mean()
        assert (found.ensemble, found.num_points) == (y[groups].mean(), 2)


def test_a_perturbation_is_shared_by_the_images_of_a_group():
    """Batches of three images make one group of two; (x0 - 0.25, x1 + 0.25) is best for both."""
    data = tf.data.Dataset.from_tensor_slices(apart(0.2, 0.3, 0.4, 0.45)).batch(3)
    attack = kr.attacks.multi_task(
        kr.LinfBall(0.25), steps=1, step_size=0.5, tasks=tasks.Universal(group=2)
    )
    found = task_success(simple, data, attack)
    assert (found.all_tasks, found.average, found.num_points) == (1.0, 1.0, 2)


def test_other_ensembles():
    """FGSM on x fools x itself up to gaps of 0.5, x + (0, 0.3) up to 0.8, and never -x."""
    models = {
        "A": simple,
        "B": lambda x: {"logits": x + LIFT},
        "C": lambda x: {"logits": x - [0.0, 9.0]},
    }
    ensembles = {"AB": ("A", "B"), "BC": ["B", "C"], "B": ("B",)}
    found = transfer_success_rates(simple, models, ensembles, apart(0.2, 0.6, 0.9), FGSM)
    assert list(found) == ["AB", "BC", "B"]
    assert found["AB"].names == ("A", "B")
    np.testing.assert_allclose(found["AB"].per_task, [1 / 3, 2 / 3])
    np.testing.assert_allclose([g.all_tasks for g in found.values()], [1 / 3, 0, 2 / 3])
    # The mean probability of class 1 is sigmoid(0.5 - gap) and sigmoid(0.8 - gap), halved: more
    # than a half at gaps up to 0.65. With C it is at most a half.
    np.testing.assert_allclose([g.ensemble for g in found.values()], [2 / 3, 0, 2 / 3])


def test_gradients_of_tasks():
    """Margins of label 0: x1 - x0 has (-1, 1), -3 x0 has (-3, 0), a constant has none."""

    def three(x):
        members = [x, x * [3.0, 0.0], x * [0.0, 0.0]]
        return {"logits": x, "member_logits": tf.stack(members, axis=1)}

    data = apart(0.2, 0.6, 0.9)
    attack = kr.attacks.multi_task(kr.LinfBall(0.01), steps=1, solver="uniform", loss="margin")
    found = task_gradients(three, data, attack, loss=losses.margin)
    half = 2**-0.5
    np.testing.assert_allclose(found.norms, [2**0.5, 3, 0], rtol=1e-6)
    np.testing.assert_allclose(found.cosines, [[1, half, 0], [half, 1, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found.weights, [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(found.deviations + found.weight_deviations, 0, atol=1e-6)
    assert found.num_points == 3
    assert markdown_table(found.table()).splitlines()[2] == (
        "| member 1 | 1.41 (± 0) | 0.33 (± 0.00) | 1.00 | 0.71 | 0.00 |"
    )
    # Each image has a gradient of its own: of the second member, (3 p, 0), p its error.
    softer = task_gradients(three, data, attack)
    assert softer.deviations[1] > 0.01


def test_gradients_where_an_attack_without_weights_ends():
    """Of images that share a perturbation, in groups: labels 0 and 1 pull against each other."""
    x, _ = apart(0.2, 0.2)
    x[1] = x[1, ::-1]
    attack = kr.attacks.pgd(kr.LinfBall(0.1), steps=1)
    found = task_gradients(
        simple, (x, np.array([0, 1])), attack, tasks=tasks.Universal(2), loss=losses.margin
    )
    np.testing.assert_allclose(found.cosines, [[1, -1], [-1, 1]], rtol=1e-6)
    assert (found.weights, found.weight_deviations, found.num_points) == (None, None, 1)
    assert (
        markdown_table(found.table()).splitlines()[2] == "| image 1 | 1.41 (± 0) | 1.00 | -1.00 |"
    )


def test_a_table_of_several_attacks():
    found = {
        "PGD": TaskSuccess.of([[1, 0], [1, 1]], ["a", "b"], ensemble=0.25),
        "other": TaskSuccess.of([[1]], ["c"]),
    }
    assert markdown_table(success_table(found)).splitlines() == [
        "| Attack | A-All | A-Avg | Any task | Whole model | a | b | c |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| PGD | 50.0% | 75.0% | 100.0% | 25.0% | 50.0% | 100.0% | – |",
        "| other | 100.0% | 100.0% | 100.0% | – | – | – | 100.0% |",
    ]
    short = markdown_table(success_table(found, per_task=False)).splitlines()
    assert short[2] == "| PGD | 50.0% | 75.0% | 100.0% | 25.0% |"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TaskSuccess.of([True]), ValueError, r"shape \(1,\); expected \[tasks, points\]"),
        (lambda: TaskSuccess.of(np.zeros([2, 0])), ValueError, "at least one each"),
        (lambda: TaskSuccess.of([[True]], ["a", "b"]), ValueError, "1 tasks and 2 names"),
        (lambda: success_table({}), ValueError, "of at least one attack"),
        (lambda: task_success(pair, apart(0.2), kr.LinfBall(0.1)), TypeError, "expected an attack"),
        (
            lambda: task_success(pair, apart(0.2), kr.attacks.per_member(FGSM)),
            ValueError,
            "expected a single batch",
        ),
        (lambda: task_success(simple, apart(0.2), FGSM), ValueError, "expected an ensemble"),
        (
            lambda: task_success(pair, apart(0.2), FGSM, tasks="member"),
            ValueError,
            "expected one of memb",
        ),
        (
            lambda: task_success(simple, apart(0.2), FGSM, tasks=tasks.Universal(2)),
            ValueError,
            "There are 1 images to attack; expected a group of 2",
        ),
        (
            lambda: success_rates(simple, *apart(0.2), [0, 0], FGSM, tasks="universal"),
            ValueError,
            "There are 1 images, 1 attacked images and 2 labels",
        ),
        (
            lambda: success_rates(
                simple, *2 * [apart(0.2)[0]], [0], FGSM, tasks=tasks.Universal(2)
            ),
            ValueError,
            "expected whole groups",
        ),
        (
            lambda: transfer_success_rates(simple, {"A": simple}, {"AB": "AB"}, apart(0.2), FGSM),
            ValueError,
            r"\{'AB': 'AB'\}; expected .* of the models A\.",
        ),
        (
            lambda: task_success(pair, apart(0.2), kr.attacks.fgsm(FGSM.ball, targeted=True)),
            ValueError,
            "is targeted; expected an untargeted one",
        ),
        (
            lambda: task_success(pair, apart(0.2), FGSM, population="some"),
            ValueError,
            "population is 'some'",
        ),
        (
            lambda: task_history(pair, apart(0.2), FGSM),
            ValueError,
            "'FGSM' has no trace; expected",
        ),
        (
            lambda: success_rates(
                pair, *2 * [apart(0.2)[0]], [0], kr.attacks.fgsm(FGSM.ball, targeted=True)
            ),
            ValueError,
            "1 images of a targeted attack and no targets",
        ),
        (
            lambda: transfer_success_rates(simple, {"A": simple}, {}, apart(0.2), FGSM),
            ValueError,
            "ensembles is {}",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
