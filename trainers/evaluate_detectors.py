"""Compares detectors of a trained model under oblivious and adaptive attacks.

    python -m trainers.evaluate_detectors --model=mnist/ibp-linf-0.1 --output_dir=runs/detectors

fits the detectors on training images, sets their thresholds on validation images, and writes
`detectors.md` and `detectors.json`: the area under the ROC curve, detection at 1 and 5 % false
alarms, and evasion, under PGD, AutoAttack, C&W, Square and adaptive attacks, and for corrupted
images and images of other distributions. `--model` is a published model or, with `--run`, that of a
run directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_logger, quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.output_path import check_output

if TYPE_CHECKING:
    from keras_robust.evaluation import DetectorComparison

PROGRAM = "trainers.evaluate_detectors"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "model", None, "Published model, such as mnist/ibp-linf-0.1.", flag_values=values
    )
    flags.DEFINE_string("run", None, "Run directory, instead of --model.", flag_values=values)
    flags.DEFINE_string("output_dir", None, "Directory of the tables.", flag_values=values)
    flags.DEFINE_list(
        "detectors",
        None,
        "Scores of the detectors, with options as in lid:k=10; by default all.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "other", None, "Dataset of images of another distribution.", flag_values=values
    )
    flags.DEFINE_float(
        "radius", 0.3, "Radius of the Linf attacks.", lower_bound=0.0, flag_values=values
    )
    flags.DEFINE_float(
        "l2_radius", 2.0, "Radius of C&W, in L2.", lower_bound=0.0, flag_values=values
    )
    for name, default, text in (
        ("steps", 50, "Steps of PGD and of the adaptive attacks."),
        ("queries", 500, "Queries of Square for each image."),
        ("cw_steps", 60, "Steps of C&W for each constant."),
        ("auto_attack_steps", 10, "Steps of each part of AutoAttack."),
        ("fit_limit", 5000, "Number of training images that detectors are fitted on."),
        ("calibration_limit", 2000, "Number of validation images that set the thresholds."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
    attack_flags.define_images(values)
    attack_flags.define_files(values)


def run(values: flags.FlagValues, command: str = "") -> DetectorComparison:
    """Compares the detectors that the flags name.

    Returns:
        The comparison.

    Raises:
        ValueError, OSError: a user error.
    """
    directory = Path(command_line.required(values, "output_dir", "runs/detectors"))
    if (values.model is None) == (values.run is None):
        raise command_line.UsageError(
            "Expected one of --model=mnist/ibp-linf-0.1 and --run=runs/mnist."
        )
    check_output(directory)
    with quiet_start():
        import keras_robust as kr
        from keras_robust.experiments.measuring import evaluate_detectors as measuring
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    names = ("radius", "l2_radius", "steps", "queries", "cw_steps", "auto_attack_steps")
    names += ("fit_limit", "calibration_limit")
    plan = measuring.DetectorPlan(
        detectors=values.detectors or measuring.DETECTORS,
        limit=values.limit,
        other=values.other,
        seed=values.seed,
        **{name: values[name].value for name in names},
    )
    if values.model is not None:
        model = kr.models.load(values.model)
        splits = kr.data.load(values.model.split("/")[0], data_dir=values.data_dir)
    else:
        loaded = load_run(values.run, values.checkpoint, values.data_dir)
        model, splits = loaded.model, loaded.splits
    with quiet_logger():  # many attacks on one model are traced on purpose
        found = measuring.evaluate_detectors(model, splits, plan, values.data_dir, _log)
    about = {"model": values.model or values.run, "Linf radius": plan.radius, "seed": plan.seed}
    measuring.write_comparison(directory, found, about, command)
    return found


def _log(line: str) -> None:
    print(line, flush=True)


def main(_: list[str]) -> None:
    """Runs the program."""
    print(run(flags.FLAGS, command_line.command(PROGRAM)).markdown())
    print(f"Written: {Path(flags.FLAGS.output_dir) / 'detectors.md'} and detectors.json")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
