r"""Publishes a trained run: its model and model card become part of the package.

    python -m trainers.publish --run=runs/mnist_ibp --name=mnist/ibp-linf-0.3 --certify=ibp \
        --limit=1000

evaluates the model (AutoAttack, unless --attacks says otherwise), writes weights and card below
keras_robust/models/published/, and brings the table in docs/models.md up to date. The kernels are
stored in half precision if that changes no verdict. Then `kr.models.load("mnist/ibp-linf-0.3")`
loads it. The same command resumes an interrupted evaluation.

    python -m trainers.publish --verify=mnist/ibp-linf-0.3

evaluates a sample of a published model again: it lists the differences, and fails if there are any.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import attack_flags, certify_flags, command_line
from keras_robust.experiments.runs.run_directory import RunDirectory

PROGRAM = "trainers.publish"
WITH_VERIFY = ("verify", "data_dir")
TABLE = Path(__file__).parents[1] / "docs" / "models.md"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string("run", None, "Run directory.", flag_values=values)
    flags.DEFINE_string(
        "name", None, "Name of the model, as in mnist/ibp-linf-0.3.", flag_values=values
    )
    flags.DEFINE_list(
        "attacks",
        ["auto_attack"],
        f"Names of attacks, such as auto_attack,pgd, with {attack_flags.NAMES_HELP}.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace an existing model of this name.", flag_values=values
    )
    flags.DEFINE_string(
        "verify", None, "A published model to verify on a sample.", flag_values=values
    )
    attack_flags.define(values)
    attack_flags.define_budgets(values)
    certify_flags.define(values)


def run(values: flags.FlagValues, command: str) -> Path:
    """Publishes the run that the flags name.

    Returns:
        The directory of the published model.

    Raises:
        ValueError, OSError: a user error, if possible before the first attack.
    """
    path = command_line.required(values, "run", "runs/mnist_ibp")
    name = command_line.required(values, "name", "mnist/ibp-linf-0.3")
    with quiet_start():
        from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
        from keras_robust.experiments.publishing import published_models
        from keras_robust.experiments.publishing.publish_run import check_name, publish_run
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    check_name(name, values.overwrite)
    plan = EvaluationPlan(
        attacks=values.attacks,
        options=attack_flags.options(values),
        norm=values.norm,
        radius=values.radius,
        radii=(),
        limit=values.limit,
        seed=values.seed,
        time_budget=values.time_budget,
        budget_per_image=values.budget_per_image,
        certify=values.certify,
    )
    directory = publish_run(
        load_run(path, values.checkpoint, values.data_dir),
        name,
        plan,
        overwrite=values.overwrite,
        command=command,
        log=_log,
    )
    if TABLE.is_file():
        published_models.write_table(TABLE)
    return directory


def verify(values: flags.FlagValues) -> None:
    """Verifies the published model that the flags name.

    Raises:
        ValueError: the card does not hold, with the differences; or an unknown name.
        OSError: the data set is not on this machine.
    """
    command_line.check_only(values, define_flags, WITH_VERIFY)
    with quiet_start():
        from keras_robust.experiments.publishing import published_models

        command_line.initialize_devices()
    different = published_models.verify(values.verify, values.data_dir, _log)
    if different:
        raise ValueError("\n  ".join((f"{values.verify} does not hold.", *different)))


def resume_hint() -> str:
    """How to resume an interrupted evaluation, or to start over."""
    values = flags.FLAGS
    if values.verify or not values.run or not RunDirectory(values.run).unfinished.is_dir():
        return command_line.START_OVER
    return f"finished batches are kept. Resume with: {command_line.command(PROGRAM)}"


def _log(line: str) -> None:
    print(f"  {line}", flush=True)


def main(_: list[str]) -> None:
    """Runs the program."""
    values = flags.FLAGS
    if values.verify:
        verify(values)
        print(f"{values.verify} holds.")
        return
    print(f"Published: {run(values, command_line.command(PROGRAM))}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags, resume_hint=resume_hint)
