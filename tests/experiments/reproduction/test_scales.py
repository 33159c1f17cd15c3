"""A scale cuts what it says, no more, and the cuts are told."""

from __future__ import annotations

import inspect

import pytest

import keras_robust as kr
from keras_robust.experiments.recipes.attack_spec import attack_spec
from keras_robust.experiments.reproduction.measurements import TasksAttacked
from keras_robust.experiments.reproduction.scales import SCALES, SLOW, Scale, differences
from trainers import recipes


def test_the_thesis_scale_changes_nothing():
    for name in ("thesis/udr/cifar10_wrn_34_10/udr_awp_pgd_at", "toy/udr_pgd_at"):
        config = recipes.load(name)
        assert SCALES["thesis"].recipe(config).to_dict() == config.to_dict()
        assert differences([(config, SCALES["thesis"].recipe(config))]) == []
    assert SCALES["thesis"].attack("pgd:steps=200:step_size=0.01", 0.3) == (
        "pgd:steps=200:step_size=0.01"
    )
    assert SCALES["thesis"].images("auto_attack", 1000) == 1000


def test_epochs_and_the_schedule_shrink_together():
    """20 of 200 epochs: boundaries at a tenth, and as many images as before."""
    original = recipes.load("thesis/udr/cifar10_resnet18/pgd_at_growing")
    config = SCALES["day"].recipe(original)
    assert config.epochs == 20
    assert config.optimizer.schedule.boundaries == pytest.approx((7.5, 9, 10))
    assert config.optimizer.name == "sgd"
    # 50 and 20 of 200 epochs of 375 steps.
    steps = [attack_spec(c.defense.options.radius_schedule)["options"] for c in (original, config)]
    assert [one["steps"] for one in steps] == [18_750, 1875]
    assert [one["delay"] for one in steps] == [7500, 750]
    assert (config.model, config.dataset) == (original.model, original.dataset)


def test_crafting_reaches_as_far_with_fewer_steps():
    """Ten steps of 2/255 make 20/255, five of 4/255 as well, which is 2.5 times the radius."""
    original = recipes.load("thesis/udr/cifar10_resnet18/pgd_at")
    options = SCALES["hour"].recipe(original).defense.options
    assert (options.steps, options.step_size) == (5, pytest.approx(4 / 255))
    # 40 steps of 0.01 reach 0.4, five of 0.08 as well; two of 0.2 would, and 2.5 * 0.3 / 2 allows.
    mnist = recipes.load("thesis/udr/mnist_cnn/pgd_at")
    assert SCALES["hour"].recipe(mnist).defense.options.step_size == pytest.approx(0.08)
    assert mnist.defense.options.steps == 40


def test_a_long_attack_does_not_leap():
    """200 steps of 0.01 reach 2, more than 2.5 radii of 0.3: five steps of 0.15."""
    options = attack_spec(SCALES["minutes"].attack("pgd:steps=200:step_size=0.01", 0.3))["options"]
    assert options == {"steps": 5, "step_size": pytest.approx(0.15)}


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("auto_attack", "auto_attack:steps=5:queries=5"),
        ("square:queries=100", "square:queries=5"),
        ("brendel_bethge:steps=3", "brendel_bethge:steps=3"),
        ("spsa:steps=50", "spsa:steps=5:n_directions=5"),
        ("fgsm", "fgsm"),
    ],
)
def test_attacks_of_many_queries_are_shortened_too(text, shorter):
    assert SCALES["minutes"].attack(text, 0.3) == shorter


def test_networks_become_narrow_or_the_smallest():
    wide = recipes.load("thesis/udr/cifar10_wrn_34_10/trades")
    narrow = SCALES["hour"].recipe(wide).model
    assert (narrow.name, narrow.options.widen_factor, narrow.options.depth) == (
        "wide_resnet",
        1,
        16,
    )
    resnet = SCALES["hour"].recipe(recipes.load("thesis/udr/cifar10_resnet18/trades")).model
    assert (resnet.name, resnet.options.to_dict()) == ("resnet18", {"width": 0.25})
    members = SCALES["minutes"].recipe(recipes.load("thesis/cce/cifar10_resnet20/adp")).model
    assert members.options.members == ("small_cnn", "small_cnn")
    victims = [
        SCALES["minutes"].recipe(recipes.load(f"thesis/ta_moo/cifar10_{name}/pgd_at")).model
        for name in ("resnet18", "vgg16", "googlenet", "efficientnet_b0")
    ]
    assert len({str(one) for one in victims}) == 4


def test_images_are_at_most_the_limits():
    scale = Scale("s", "", test_images=100, slow_images=10)
    assert scale.images("pgd", None) == scale.images("pgd", 500) == 100
    assert scale.images("pgd", 50) == 50
    assert scale.images("auto_attack:steps=5", 1000) == 10
    assert scale.images(None, None) == 100


def test_the_cuts_are_told():
    original = recipes.load("thesis/udr/cifar10_resnet18/trades")
    lines = differences([(original, SCALES["minutes"].recipe(original))])
    assert {
        "data set: cifar10 to digits",
        "training images: all to 400",
        "epochs: 200 to 2",
        "network: resnet18 to small_cnn",
        "crafting steps: 10 to 2",
        "optimizer: sgd to adam",
    } <= set(lines)


def test_groups_of_images_have_enough_of_them():
    attack = TasksAttacked("multi_task:tasks=universal:group=12:steps=100", 0.1)
    assert SCALES["minutes"].test_images == 32
    assert attack.at(SCALES["minutes"]).limit == 240
    assert attack.at(SCALES["thesis"]).limit is None


def test_the_defaults_of_slow_attacks_are_theirs():
    for name, options in SLOW.items():
        parameters = inspect.signature(getattr(kr.attacks, name)).parameters
        assert options == {key: parameters[key].default for key in options}
        assert set(options) == {"steps", "queries", "n_directions", "binary_search_steps"} & {
            *parameters
        }
