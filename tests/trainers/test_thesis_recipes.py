"""The settings of the thesis's chapters, against its text."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.flags import recipe_flags
from keras_robust.experiments.recipes import build, defense_options, schema
from trainers import recipes

ROOT = Path(__file__).parents[2]
TFDS = ROOT / ".." / "shared" / "tensorflow_datasets"
SETTINGS = [name for name in recipes.FAMILIES if name.startswith("thesis/")]
# What the last part of a name stands for, where it is not the defense alone.
VARIANTS = {
    **dict.fromkeys(("pgd_at_eps16", "pgd_at_growing", "pgd_at_falling"), "pgd_at"),
    **dict.fromkeys(("min_max", "moo"), "ta_moo"),
    "awp_pgd_at": "pgd_at",
    "udr_awp_pgd_at": "udr_pgd_at",
}


def info(classes, *shape):
    return kr.data.DatasetInfo("any", "made up", shape, classes, (), 1000, 100, 100, "test")


def without_defense(config):
    fields = recipe_flags.leaves(config.to_dict())
    return {
        name: value
        for name, value in fields.items()
        if name.split(".")[0] not in ("defense", "model", "monitor", "name")
    }


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_recipes_of_a_setting_are_valid_and_differ_in_the_defense_alone(setting):
    found = {name: recipes.load(f"{setting}/{name}") for name in recipes.FAMILIES[setting].defenses}
    first = next(iter(found.values()))
    build.check(first)
    for name, config in found.items():
        assert config.name == f"{setting}/{name}"
        assert config.dataset.name == setting.split("/")[2].split("_")[0]
        options = config.defense.options
        defense_options.resolved(config.defense.name, options)
        kind = options.get("base", options.get("mode"))
        called = f"{config.defense.name}_{kind}" if kind else config.defense.name
        assert called == VARIANTS.get(name, name)
        assert without_defense(config) == without_defense(first)
        trains_several = config.defense.name in {name for name, _ in schema.ENSEMBLES.values()}
        assert not trains_several or config.model.name == "ensemble"
        monitors = {
            "standard": "val_accuracy",
            **dict.fromkeys(schema.PRETRAINING, "val_contrastive"),
        }
        assert config.monitor == monitors.get(name, "val_robust_accuracy")


SGD_WRN = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": pytest.approx(5e-4 / (1 - 0.9)),
    "optimizer.schedule.boundaries": (100, 150),
    "epochs": 200,
}
ADAM_180 = {
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-3,
    "epochs": 180,
    "dataset.batch_size": 64,
    "dataset.augment.name": "shift_flip",
}
LETTERS = {
    "adr/mnist_cnn/adr_pgd_at": {
        "model.options.variant": "adr_mnist",
        "model.features": "flatten",
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.01,
        "optimizer.weight_decay": 0.0,
        "optimizer.schedule.boundaries": (55, 75, 90),
        "epochs": 100,
        "ball.radius": 0.3,
        "defense.options.steps": 20,
        "defense.options.step_size": 0.01,
        "defense.options.clean_weight": 1.0,
        "defense.options.confidence_weight": 0.0,
        "dataset.augment.name": "none",
    },
    "adr/cifar10_cnn/adr_trades": {
        "model.options.variant": "adr_cifar10",
        "model.features": "flatten",
        "optimizer.name": "adam",
        "optimizer.schedule.kind": "constant",
        "epochs": 200,
        "ball.radius": 0.031,
        "defense.options.steps": 10,
        "defense.options.step_size": 0.007,
        "defense.options.confidence_weight": 1.0,
        "dataset.augment.name": "pad_crop_flip",
    },
    "adr/cifar10_resnet/adr_pgd_at": {
        **SGD_WRN,
        "model.options.depth": 34,
        "model.options.widen_factor": 1,
        "model.features": "",  # the penultimate layer
        "optimizer.weight_decay": pytest.approx(2e-4 / (1 - 0.9)),
        "defense.options.confidence_weight": 0.0,
    },
    "ascl/cifar10_resnet20/ascl": {
        "optimizer.name": "adam",
        "optimizer.schedule.boundaries": (80, 120, 160),
        "optimizer.schedule.factor": 0.1,
        "epochs": 200,
        "dataset.batch_size": 128,
        "dataset.augment.name": "shift_flip",
        "ball.radius": 8 / 255,
        "defense.options.scl": 1.0,
        "defense.options.vat": 2.0,
        "defense.options.temperature": 0.07,
        "defense.options.selection": "leaked",
        "defense.options.clean_term": True,
    },
    "ascl/cifar10_wrn_34_10/ascl": {
        **SGD_WRN,
        "defense.options.vat": 0.0,
        "defense.options.clean_term": False,
    },
    "ascl/cifar100_resnet20/ascl": {"ball.radius": 0.01, "defense.options.step_size": 0.001},
    "cce/cifar10_resnet20/cce_robustness": {
        **ADAM_180,
        "optimizer.schedule.boundaries": (80, 120, 160),
        "model.options.members": ("resnet20", "resnet20"),
        "defense.options.radius_schedule": "random:low=0.01:high=0.05",
    },
    "cce/cifar10_cnn/adp": {
        **ADAM_180,
        "optimizer.schedule.kind": "constant",
        "ball.radius": 8 / 255,
        "defense.options.step_size": 2 / 255,
        "defense.options.alpha": 2.0,
        "defense.options.beta": 0.5,
    },
    "cce/cifar100_cnn/cce_detection": {**ADAM_180, "ball.radius": 0.01},
    "ta_moo/cifar100_vgg16/pgd_at": {
        **SGD_WRN,
        "optimizer.schedule.boundaries": (),
        "optimizer.schedule.kind": "cosine",
        "ball.radius": 8 / 255,
        "defense.options.steps": 20,
        "defense.options.step_size": 2 / 255,
    },
    "ta_moo/cifar10_mobilenet_x3/moo": {
        "epochs": 100,
        "model.options.members": ("mobilenet_v1",) * 3,
        "defense.options.steps": 10,
        "defense.options.solver": "min_norm",
    },
    "ta_moo/cifar10_rme/ta_moo": {
        "model.options.members": ("resnet18", "mobilenet_v1", "efficientnet_b0"),
        "defense.options.solver": "task_oriented",
    },
    "udr/mnist_cnn/udr_mart": {
        "optimizer.learning_rate": 0.01,
        "optimizer.schedule.boundaries": (55, 75, 90),
        "epochs": 100,
        "defense.options.steps": 40,
        "defense.options.beta": 1.0,
        "defense.options.boosted_on": "clean",
    },
    "udr/mnist_cnn/wrm": {"defense.options.gamma": 0.05},
    "udr/cifar10_resnet18/udr_trades": {
        "optimizer.learning_rate": 0.01,
        "optimizer.weight_decay": pytest.approx(3.5e-3 / (1 - 0.9)),
        "optimizer.schedule.boundaries": (75, 90, 100),
        "optimizer.ema": 0.0,
        "defense.options.beta": 6.0,
    },
    "udr/cifar100_resnet18/wrm": {"ball.radius": 0.01, "defense.options.gamma": 0.5},
    "udr/cifar100_resnet18_eps8/mart": {"ball.radius": 8 / 255, "defense.options.beta": 5.0},
    "udr/cifar10_wrn_34_10/udr_pgd_at": {**SGD_WRN, "defense.options.clean_weight": 0.0},
    "udr/cifar10_wrn_34_10/awp_pgd_at": {"defense.options.weight_perturbation": 0.01},
}


@pytest.mark.parametrize("name", LETTERS)
def test_the_numbers_are_those_of_the_text(name):
    fields = recipe_flags.leaves(recipes.load(f"thesis/{name}").to_dict())
    assert {field: fields[field] for field in LETTERS[name]} == LETTERS[name]


def test_the_solvers_have_the_numbers_of_the_chapter():
    """Appendix C: K = 10, eta_w = 0.005, lambda = 100; gamma = 3."""
    names = ("task_oriented", "min_norm", "min_max")
    ours, moo, min_max = (kr.solvers.NAMES[name]() for name in names)
    assert (ours.steps, ours.learning_rate, ours.lam) == (10, 0.005, 100.0)
    assert (moo.steps, moo.learning_rate, min_max.gamma) == (10, 0.005, 3.0)


@pytest.fixture(scope="module")
def of_a_small_network():
    """The model that a recipe builds, with tiny networks."""

    def built(name):
        config = recipes.load(name)
        members = len(config.model.options.get("members", ()))
        tiny = {"hidden": (4,)}
        ensemble = {"members": ("mlp",) * members, "options": tiny}
        config.model.name = "ensemble" if members else "mlp"
        config.model.options = ConfigDict(ensemble if members else tiny)
        return build.robust_model(config, info(3, 2, 2, 1), steps_per_epoch=375)

    return built


def test_ensembles_of_resnets_are_attacked_at_a_random_radius(of_a_small_network):
    """eps ~ U(0.01, 0.05), eta = eps / 10."""
    model = of_a_small_network("thesis/cce/cifar10_resnet20/cce_robustness")
    assert model.radius_schedule == kr.training.RandomRadius(0.01, 0.05)
    first, second = (model.attack_at(step, tf.float32).attack for step in (0, 1))
    radius = float(first.ball.radius)
    assert 0.01 <= radius <= 0.05 and radius != float(second.ball.radius)
    assert float(first.step_rule.size) == pytest.approx(radius / 10)
    assert float(model.validation_attack.ball.radius) == 8 / 255


@pytest.mark.parametrize(
    ("name", "radii"),
    [("growing", (8, 8, 12, 16, 16)), ("falling", (16, 16, 12, 8, 8)), ("eps16", (16,) * 5)],
)
def test_the_hard_balls_of_udr_change_from_epoch_20_to_epoch_70(of_a_small_network, name, radii):
    model = of_a_small_network(f"thesis/udr/cifar10_resnet18/pgd_at_{name}")
    ends = [epoch * 375 - 1 for epoch in (1, 20, 45, 70, 200)]  # the last steps of epochs
    found = [255 * float(model.attack_at(step, tf.float32).ball.radius) for step in ends]
    assert found == pytest.approx(radii)


@pytest.mark.parametrize(
    ("shape", "classes", "convolutions"), [((32, 32, 3), 100, 6), ((28, 28, 1), 26, 4)]
)
def test_another_data_set_has_its_own_shape_and_classes(shape, classes, convolutions):
    """As with `--config.dataset.name=`."""
    config = recipes.load("thesis/cce/cifar10_cnn/pgd_at")
    config.dataset.name = "of TensorFlow Datasets"
    model = build.classifier(config, info(classes, *shape))
    assert model.input_shape == (None, *shape)
    assert model.output["logits"].shape == (None, classes)
    assert sum(layer.name.startswith("conv") for layer in model.layers) == convolutions


@pytest.mark.parametrize(
    ("name", "among"),
    [
        ("thesis/adr/mnist_cnn/adr_ta", "thesis/adr/mnist_cnn/"),
        ("thesis/adr/mnist/adr_trades", "thesis/adr/"),
        ("thesis/arc/mnist_cnn/adr_trades", "thesis/"),
    ],
)
def test_an_unknown_recipe_names_those_nearby(name, among):
    with pytest.raises(ValueError, match="Did you mean 'thesis/adr/mnist_cnn/adr_trades'") as error:
        recipes.load(name)
    listed = str(error.value).partition("one of ")[2].partition(". ")[0].split(", ")
    assert listed == list(recipes.names(among))


def test_the_listing_has_every_recipe():
    shown = recipes.listing()
    for setting, family in recipes.FAMILIES.items():
        one = f"{setting}/{{{','.join(family.defenses)}}}"
        is_short = setting.startswith("thesis/")
        assert all(name in shown for name in ([one] if is_short else recipes.names(f"{setting}/")))


def test_the_document_names_every_setting():
    text = (ROOT / "docs/recipes.md").read_text("utf-8")
    for setting in SETTINGS:
        _, chapter, name = setting.split("/")
        is_victim = chapter == "ta_moo" and "mobilenet_x3" not in name and "rme" not in name
        shown = f"{name.partition('_')[0]}_NETWORK" if is_victim else name
        assert f"`{shown}`" in text or f"`thesis/{chapter}/{shown}`" in text, setting


@pytest.mark.slow
def test_a_recipe_reads_another_data_set_by_its_name():
    if not TFDS.is_dir():
        pytest.skip("no TensorFlow Datasets beside the project")
    config = recipes.load("thesis/cce/cifar100_cnn/pgd_at")
    config.dataset.name, config.dataset.data_dir = "mnist", str(TFDS)
    splits = build.data(config)
    model = build.robust_model(config, splits.info, len(splits.train))
    images, _ = next(iter(splits.train))
    assert images.shape == (64, 28, 28, 1)
    assert model(images)["logits"].shape == (64, 10)
