from __future__ import annotations

import pytest
from absl import flags

from keras_robust.experiments.runs.run_directory import RunDirectory
from trainers import recipes, train


def parsed(*arguments):
    values = flags.FlagValues()
    train.define_flags(values)
    assert train.parse(["program", *arguments], values) == ["program"]
    return values


def test_a_recipe_with_changes():
    values = parsed(
        "--config.epochs=3", "--output_dir=runs/x", "--recipe=mnist/mart", "--data_dir=data"
    )
    config = train.configured(values)
    assert (config.name, config.epochs, config.dataset.data_dir) == ("mnist/mart", 3, "data")
    assert values.output_dir == "runs/x"


def test_values_after_a_space():
    values = parsed("--config.epochs", "3", "--recipe", "mnist/mart", "--output_dir", "runs/x")
    assert train.configured(values).epochs == 3


def test_the_recipe_of_a_run(tmp_path):
    run = RunDirectory(tmp_path)
    config = recipes.load("digits/mart")
    config.epochs = 7
    run.write_recipe(config, ("zero",))
    again = parsed(f"--recipe={run.recipe_file}", "--output_dir=runs/x", "--config.seed=3")
    assert (train.configured(again).epochs, train.configured(again).seed) == (7, 3)
    resumed = parsed("--resume", f"--output_dir={tmp_path}", "--config.epochs=9")
    assert (train.configured(resumed).epochs, train.configured(resumed).name) == (9, "digits/mart")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe=digits/tradse"], "no recipe 'digits/tradse'.*Did you mean 'digits/trades'"),
        (["--recpe=digits/trades"], "no flag --recpe; there are .*Did you mean 'recipe'"),
        (["--recipe=digits/trades", "--epochs=3"], "The recipe's field is --config.epochs"),
        (["--recipe=digits/trades", "--config.epoch=3"], "Did you mean 'epochs'"),
        (["--recipe=digits/trades", "epochs=3"], "'epochs=3' is no flag"),
        (["--recipe=digits/trades"], "--output_dir is missing; give it as in --output_dir=runs/"),
        (["--output_dir=x"], "--recipe is missing; there are digits/standard"),
        (["--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_what_cannot_be_parsed(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


@pytest.mark.parametrize("recipe", ["--recipe=nowhere.json", "--resume"])
def test_no_such_run(tmp_path, recipe):
    with pytest.raises(FileNotFoundError, match="no recipe at|holds no run"):
        parsed(recipe, f"--output_dir={tmp_path}")


def test_what_is_trained_is_told_first(tiny, tmp_path, capsys):
    from keras_robust.experiments.training import train_run

    train.describe(train_run.prepare(tiny(), tmp_path / "run"))
    assert capsys.readouterr().out == (
        "digits/trades: trades of mlp (1,210 parameters) on digits, linf radius 0.15\n"
        "1,221 training, 216 validation images; epochs 1 to 1 of 9 steps\n"
    )
