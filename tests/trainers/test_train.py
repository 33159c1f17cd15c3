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
    config = values.config
    assert (config.name, config.epochs, config.dataset.data_dir) == ("mnist/mart", 3, "data")
    assert values.output_dir == "runs/x"


def test_values_after_a_space():
    values = parsed("--config.epochs", "3", "--recipe", "mnist/mart", "--output_dir", "runs/x")
    assert values.config.epochs == 3


def test_the_recipe_of_a_run(tmp_path):
    run = RunDirectory(tmp_path)
    config = recipes.load("digits/mart")
    config.epochs = 7
    run.write_recipe(config, ("zero",))
    again = parsed(f"--recipe={run.recipe_file}", "--output_dir=runs/x", "--config.seed=3")
    assert (again.config.epochs, again.config.seed) == (7, 3)
    resumed = parsed("--resume", f"--output_dir={tmp_path}", "--config.epochs=9")
    assert (resumed.config.epochs, resumed.config.name) == (9, "digits/mart")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe=digits/tradse"], "no recipe 'digits/tradse'.*Did you mean 'digits/trades'"),
        (["--recpe=digits/trades"], "no flag --recpe; there are .*Did you mean 'recipe'"),
        (["--recipe=digits/trades", "--epochs=3"], "The recipe's field is --config.epochs"),
        (["--recipe=digits/trades", "--config.epoch=3"], "Did you mean 'epochs'"),
        (["--recipe=digits/trades", "epochs=3"], "'epochs=3' is not a flag"),
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
    with pytest.raises(FileNotFoundError, match="no recipe at|is not a run directory"):
        parsed(recipe, f"--output_dir={tmp_path}")


def test_the_summary_of_a_training(tiny, tmp_path):
    from keras_robust.experiments.training import train_run

    assert train_run.prepare(tiny(), tmp_path / "run").summary() == (
        "digits/trades: trades of mlp (1,210 parameters) on digits, linf radius 0.15\n"
        "1,221 training, 216 validation images; epochs 1 to 1 of 9 steps"
    )


def test_the_attacks_of_a_recipe_in_the_shell():
    """A name alone has the options of the recipe."""
    values = parsed(
        "--recipe=mnist/trades", "--output_dir=x",
        "--config.evaluation.attacks=pgd,bim,apgd:steps=7,square",
    )  # fmt: skip
    steps = {"steps": 40, "step_size": 0.01}
    assert values.config.evaluation.attacks == (
        {"name": "pgd", "options": steps},
        {"name": "bim", "options": steps},
        {"name": "apgd", "options": {"steps": 7}},
        {"name": "square", "options": {}},
    )
