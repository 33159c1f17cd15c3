"""Evaluates trained runs: attacks their test images, and writes the reports.

    python -m trainers.evaluate --run=runs/digits --attacks=pgd,fgsm --radii=0.05,0.1,0.2

writes the report to report/ in the run. Several runs, as in --run=runs/a,runs/b, are also compared
on one page in --output_dir. The recipe of the run sets what is not given. --checks adds sanity
checks for gradient masking. The same command resumes an interrupted evaluation. --card writes a
model card next to the report, with the recipe, the attacks and the commit, and

    python -m trainers.evaluate --verify=runs/digits/report/card.json

evaluates a sample of it again: it lists the differences, and fails if there are any.

    python -m trainers.evaluate --run=runs/digits --attacks=auto_attack --time_budget=3600

starts no batch after an hour; the report lists what is missing, and the same command, with another
budget or none, resumes. --transfer_from=runs/a,runs/b crafts each iterated attack on these runs, of
the same dataset, as well: a transfer attack.

    python -m trainers.evaluate --run=runs/digits --certify=ibp,crown

also proves on which images no attack can succeed: the report has the certified accuracy below the
accuracy under attack. The norm L2 has smoothing as well, as in --certify=smoothing:sigma=0.25.

--corruptions=all, or some of them, as in --corruptions=fog,snow, also measures accuracy under the
corruptions of CIFAR-10-C, computed from the test images, for the report and report/corruptions.md.

Options belong to all attacks, as in --attacks=pgd,bim --steps=40, or to one of them, as in
--attacks=pgd:steps=100:restarts=5,fgsm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import attack_flags, certify_flags, command_line
from keras_robust.experiments.flags.lookup import number
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.evaluate"
WITH_VERIFY = ("verify", "run", "checkpoint", "data_dir", "transfer_from")


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "Run directory, or several.", flag_values=values)
    flags.DEFINE_list(
        "attacks",
        None,
        f"Names of attacks, such as pgd,fgsm, with {attack_flags.NAMES_HELP}; accuracy over radius "
        "is measured with the strongest.",
        flag_values=values,
    )
    flags.DEFINE_list("radii", None, "Radii of the accuracy over radius.", flag_values=values)
    flags.DEFINE_string(
        "output_dir", None, "Directory of the page that compares the runs.", flag_values=values
    )
    flags.DEFINE_bool("checks", False, "Run the sanity checks.", flag_values=values)
    flags.DEFINE_bool("card", False, "Write a model card next to the report.", flag_values=values)
    flags.DEFINE_string(
        "verify", None, "A card.json to verify by evaluating a sample again.", flag_values=values
    )
    flags.DEFINE_list(
        "transfer_from",
        None,
        "Other runs of the same dataset, on which the iterated attacks are crafted as well; with "
        "--verify, the runs that the card's attacks were crafted on.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "corruptions",
        None,
        "Corruptions of the test images, such as fog,snow, or all, at five severities.",
        flag_values=values,
    )
    attack_flags.define(values)
    attack_flags.define_budgets(values)
    certify_flags.define(values)


def plan(values: flags.FlagValues, sources: Mapping[str, LoadedRun]) -> EvaluationPlan:
    """The evaluation that the parsed flags describe.

    Raises:
        ValueError: a radius that is not a number.
    """
    from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan

    radii = values.radii
    return EvaluationPlan(
        attacks=values.attacks,
        options=attack_flags.options(values),
        norm=values.norm,
        radius=values.radius,
        radii=None if radii is None else [number("radius", text) for text in radii],
        limit=values.limit,
        seed=values.seed,
        checks=values.checks,
        sources=sources,
        time_budget=values.time_budget,
        budget_per_image=values.budget_per_image,
        certify=values.certify,
    )


def run(values: flags.FlagValues, command: str) -> list[Path]:
    """Evaluates the runs that the flags name.

    Returns:
        The directories of the reports.

    Raises:
        ValueError, OSError: a user error, if possible before the first attack.
    """
    paths = command_line.required(values, "run", "runs/digits")
    if len(paths) > 1:
        command_line.required(values, "output_dir", "runs/comparison")
    for path in paths:
        check_output(Path(path) / "report", "run")
    if values.output_dir is not None:
        check_output(values.output_dir)
    with quiet_start():
        from keras_robust.experiments.measuring import corruption_tables
        from keras_robust.experiments.measuring.evaluation_reports import write_reports
        from keras_robust.experiments.measuring.transfer_sources import load_sources
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    where = values.checkpoint, values.data_dir
    corruptions = corruption_tables.checked(values.corruptions or ())
    runs = [load_run(path, *where) for path in paths]
    written = write_reports(
        runs,
        plan(values, load_sources(values.transfer_from or (), *where)),
        output_dir=values.output_dir,
        card=values.card,
        corruptions=corruptions,
        command=command,
        log=_log,
    )
    return written


def verify(values: flags.FlagValues) -> None:
    """Verifies the model card that the flags name.

    Raises:
        ValueError: the card does not hold, with the differences; or the file is not a card.
        OSError: the card or the run is missing.
    """
    paths = values.run or [None]
    if len(paths) > 1:
        raise ValueError(f"--verify takes one run; --run names {len(paths)}.")
    command_line.check_only(values, define_flags, WITH_VERIFY)
    with quiet_start():
        from keras_robust.experiments.measuring import run_cards

        command_line.initialize_devices()
    different = run_cards.verify(
        Path(values.verify),
        None if paths[0] is None else Path(paths[0]),
        values.checkpoint,
        values.data_dir,
        lambda line: _log(f"  {line}"),
        values.transfer_from or (),
    )
    if different:
        raise ValueError("\n  ".join((f"{values.verify} does not hold.", *different)))


def _log(line: str) -> None:
    print(line, flush=True)


def resume_hint() -> str:
    """Whether an interrupted evaluation can be resumed."""
    values = flags.FLAGS
    if values.verify or not any(
        RunDirectory(path).unfinished.is_dir() for path in values.run or ()
    ):
        return command_line.START_OVER
    return f"finished batches are kept. Resume with: {command_line.command(PROGRAM)}"


def main(_: list[str]) -> None:
    """Runs the program."""
    values = flags.FLAGS
    if values.verify:
        verify(values)
        print(f"{values.verify} holds.")
        return
    for directory in run(values, command_line.command(PROGRAM)):
        print(f"Report: {directory / 'report.html'}")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags, resume_hint=resume_hint)
