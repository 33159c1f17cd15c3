"""Evaluates ensembles: accuracy, transfer of attacks among members, detection of attacked images.

    python -m trainers.evaluate_ensembles --run=runs/a,runs/b --output_dir=runs/out --radii=0.1,0.3

attacks the test images of each run (flags as for `trainers.evaluate`), and writes `ensembles.md`
and `ensembles.json`: clean, attacked and multi-targeted accuracy with the transfer metrics, and for
each attack and radius, an adaptive attack included, the area under the ROC curve of the run's
detector. Pictures of each run show its scores, ROC curves, the predictions of members, and the loss
around an image for every member and for the ensemble.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_logger, quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.lookup import number
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.measuring.pictures import write_pictures

if TYPE_CHECKING:
    from keras_robust.experiments.measuring.evaluate_ensemble import EnsembleResult
    from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan

PROGRAM = "trainers.evaluate_ensembles"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "Run directory, or several.", flag_values=values)
    flags.DEFINE_string(
        "output_dir", None, "Directory of the tables and pictures.", flag_values=values
    )
    flags.DEFINE_list(
        "attacks",
        None,
        f"Names of the attacks to detect, with {attack_flags.NAMES_HELP}; by default pgd,bim,mim.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "radii", None, "Radii of the attacks to detect; by default the ball's.", flag_values=values
    )
    flags.DEFINE_integer(
        "pictures", 1, "Number of test images to draw.", lower_bound=0, flag_values=values
    )
    attack_flags.define(values)


def plan(values: flags.FlagValues) -> EvaluationPlan:
    """The evaluation that the parsed flags describe.

    Raises:
        ValueError: a radius that is not a number.
    """
    from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan

    return EvaluationPlan(
        attacks=values.attacks,
        options=attack_flags.options(values),
        norm=values.norm,
        radius=values.radius,
        radii=[number("radius", text) for text in values.radii or ()],
        limit=values.limit,
        seed=values.seed,
    )


def run(values: flags.FlagValues, command: str = "") -> list[EnsembleResult]:
    """Evaluates the runs that the flags name.

    Returns:
        The results of each run.

    Raises:
        ValueError, OSError: a user error, if possible before the first attack.
    """
    paths = command_line.required(values, "run", "runs/cce")
    directory = Path(command_line.required(values, "output_dir", "runs/ensembles"))
    for path in paths:
        check_output(directory, file_prefix=Path(path).name)
    with quiet_start():
        from keras_robust.experiments.measuring import evaluate_ensemble
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    runs = [load_run(path, values.checkpoint, values.data_dir) for path in paths]
    what = plan(values)
    evaluations = [evaluate_ensemble.EnsembleEvaluation(one, what) for one in runs]
    results: list[EnsembleResult] = []
    for evaluation in evaluations:
        if not evaluation.detection:
            print(f"{evaluation.run.run.path} has no detector: detection is not evaluated.")
        with quiet_logger():  # many attacks on one model are traced on purpose
            result, figures = evaluation.evaluate()
            figures |= evaluation.draw(values.pictures)
        results.append(result)
        print(result.row(), flush=True)
        write_pictures(directory, figures, f"{evaluation.run.run.path.name}_")
        evaluate_ensemble.write_tables(directory, results, command)
    return results


def main(_: list[str]) -> None:
    """Runs the program."""
    run(flags.FLAGS, command_line.command(PROGRAM))
    directory = Path(flags.FLAGS.output_dir)
    print(f"Written: {directory / 'ensembles.md'}, ensembles.json and pictures")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
