from __future__ import annotations

import pytest
from absl import flags

from keras_robust.experiments.flags import recipe_flags
from keras_robust.experiments.recipes import build, schema
from trainers import recipes


def parsed(*arguments, recipe="digits/trades"):
    values = flags.FlagValues()
    argv = ["program", *arguments]
    recipe_flags.define(recipes.load(recipe), argv, values)
    values(argv)
    return values.config


def test_the_recipe_as_it_is():
    assert parsed().to_dict() == recipes.load("digits/trades").to_dict()


def test_fields_are_changed_whatever_their_kind():
    config = parsed(
        "--config.epochs=3",
        "--config.ball.radius=8/255",
        "-config.optimizer.name",
        "sgd",
        "--config.dataset.data_dir=data",
        "--config.dataset.validation=2000",
        "--config.optimizer.weight_decay=1/100",
        "--config.evaluation.limit=7",
        "--config.evaluation.radii=(0.1, 0.2)",
        "--config.evaluation.attacks=pgd,fgsm",
    )
    assert config.epochs == 3
    assert config.ball.radius == 8 / 255
    assert config.optimizer.name == "sgd"
    assert config.dataset.data_dir == "data"
    assert config.dataset.validation == 2000
    assert (config.optimizer.weight_decay, config.evaluation.limit) == (0.01, 7)
    assert config.evaluation.radii == (0.1, 0.2)
    assert config.evaluation.attacks == ("pgd,fgsm",)  # split by `schema.normalize`


def test_options_may_be_added():
    config = parsed(
        "--config.defense.options.beta=1",
        "--config.defense.options.step_size=0.01",
        "--config.model.options.variant=tiny",
        "--config.model.options.dropout=0.25",
    )
    assert config.defense.options.to_dict() == {"steps": 10, "beta": 1.0, "step_size": 0.01}
    assert config.model.options.to_dict() == {"variant": "tiny", "dropout": 0.25}


def test_the_members_of_an_ensemble_and_their_options():
    config = parsed(
        "--config.model.options.members=mlp,mlp,mlp",
        "--config.model.options.options.dropout=0.5",
        "--config.detector.score=disagreement",
        recipe="digits/cce_detection",
    )
    options = schema.normalize(config).model.options
    assert options.members == ("mlp", "mlp", "mlp")
    assert options.options.to_dict() == {"dropout": 0.5}  # "variant" is of the recipe's own members
    assert config.detector.score == "disagreement"


def test_another_model_has_none_of_the_options_of_the_recipes_own():
    """The recipe's are `variant` and `dropout` of a small CNN, and its latent `flatten`."""
    config = parsed(
        "--config.model.name=vgg16", "--config.model.options.width=0.25", recipe="digits/adr_trades"
    )
    assert config.model.options.to_dict() == {"width": 0.25}
    assert config.model.features == ""
    assert parsed("--config.model.name", "mlp").model.options.to_dict() == {}
    same = parsed("--config.model.name=small_cnn", "--config.model.options.dropout=0.5")
    assert same.model.options.to_dict() == {"variant": "mnist", "dropout": 0.5}


def test_other_members_have_none_of_the_options_of_the_recipes_own():
    def options(*arguments):
        return parsed(*arguments, recipe="digits/ensemble_at").model.options.options.to_dict()

    assert options("--config.model.options.members=vgg16,mobilenet_v1") == {}
    assert options("--config.model.options.members=small_cnn,small_cnn,small_cnn") == {
        "variant": "mnist",
        "dropout": 0.0,
    }


def test_members_of_two_kinds_have_options_of_their_own():
    config = parsed(
        "--config.model.options.members=small_cnn,vit",
        "--config.model.options.options.small_cnn.variant=tiny",
        "--config.model.options.options.vit.patch=2",
        "--config.model.options.options.mean=0.5",
        recipe="digits/ensemble_at",
    )
    build.check(schema.normalize(config))
    assert config.model.options.to_dict() == {
        "members": ("small_cnn", "vit"),
        "options": {"small_cnn": {"variant": "tiny"}, "vit": {"patch": 2}, "mean": 0.5},
    }
    wrong = parsed(
        "--config.model.options.members=small_cnn,vit",
        "--config.model.options.options.vit.variant=tiny",
        recipe="digits/ensemble_at",
    )
    with pytest.raises(ValueError, match="The model 'vit' has no option 'variant'; there are pat"):
        build.check(schema.normalize(wrong))


def test_a_single_model_becomes_an_ensemble_with_options():
    config = parsed(
        "--config.model.name=ensemble",
        "--config.model.options.members=mlp,vit",
        "--config.model.options.options.vit.depth=2",
    )
    build.check(schema.normalize(config))
    assert config.model.options.options.vit.depth == 2


@pytest.mark.parametrize(
    "name", ["vgg16", "googlenet", "mobilenet_v1", "efficientnet_b0", "convnext"]
)
def test_every_recipe_takes_other_architectures(name):
    for recipe in ("digits/trades", "mnist/pgd_at", "cifar10/mart", "cifar10_small/standard"):
        build.check(
            parsed(f"--config.model.name={name}", "--config.model.options.width=0.5", recipe=recipe)
        )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.epoch=3", r"no field 'epoch' at the top; valid fields: .*Did you mean 'epochs'"),
        ("--config.ball.radus=3", r"'radus' in 'ball'; valid fields: norm, radius\. Did you mean"),
        ("--config.bal.radius=3", r"no field 'bal' at the top.*Did you mean 'ball'"),
        ("--config.epochs.x=3", r"'epochs' holds a value; set --config.epochs\."),
        ("--noconfig.x", "no field 'x'"),
        ("--config.ball=3", r"is a group of fields; set --config.ball.norm, --config.ball.radius"),
        ("--config.dataset.augment.options=3", "set --config.dataset.augment.options.NAME"),
        ("--config=3", "choose one with --recipe=NAME"),
    ],
)
def test_what_is_no_field(argument, message):
    with pytest.raises(ValueError, match=message):
        parsed(argument)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.epochs=many", "--config.epochs=many: invalid literal for int"),
        ("--config.ball.radius=8/x", "is not a number; expected a number such as 0.3"),
    ],
)
def test_a_value_of_the_wrong_kind(argument, message):
    with pytest.raises(flags.IllegalFlagValueError, match=message):
        parsed(argument)


def test_a_flag_that_is_a_field():
    values = flags.FlagValues()
    assert recipe_flags.field_called("epochs", values) is None
    recipe_flags.define(recipes.load("digits/trades"), ["program"], values)
    assert recipe_flags.field_called("epochs", values) == "epochs"
    assert recipe_flags.field_called("radius", values) == "ball.radius"
    assert recipe_flags.field_called("ball.radius", values) == "ball.radius"
    assert recipe_flags.field_called("dius", values) is None
