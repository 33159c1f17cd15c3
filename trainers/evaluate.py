"""Judges trained runs: attacks their test images, and writes the reports.

    python -m trainers.evaluate --run=runs/digits --attacks=pgd,fgsm --radii=0.05,0.1,0.2

The report is written to report/ in the run. Several runs, as in --run=runs/a,runs/b, are compared
on one page in --output_dir as well. What is not given is as the recipe of the run says. --checks
also looks for reasons to doubt the figures, such as gradients that vanish. Started again after an
interruption, the same command goes on where it was. --card writes a model card beside the report,
with the recipe, the attacks and the commit, and

    python -m trainers.evaluate --verify=runs/digits/report/card.json

measures a sample of it again: it says what differs, and fails if anything does.

    python -m trainers.evaluate --run=runs/digits --attacks=auto_attack --time_budget=3600

begins nothing after an hour; the report says what was left undone, and the same command, with
another budget or none, goes on there. --transfer_from=runs/a,runs/b also crafts each iterated
attack on these runs, of the same data, as an attacker would who does not have the model.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_logger, quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.lookup import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keras_robust.evaluation import Report
    from keras_robust.experiments.runs.evaluate_run import EvaluationPlan
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.evaluate"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "A run directory, or several.", flag_values=values)
    flags.DEFINE_list(
        "attacks",
        None,
        "Names of attacks, such as pgd,fgsm; accuracy over radius is of the strongest.",
        flag_values=values,
    )
    flags.DEFINE_list("radii", None, "To measure accuracy over radius.", flag_values=values)
    flags.DEFINE_string(
        "output_dir", None, "For the page that compares several runs.", flag_values=values
    )
    flags.DEFINE_bool("checks", False, "Look for reasons to doubt the figures.", flag_values=values)
    flags.DEFINE_bool("card", False, "Write a model card beside the report.", flag_values=values)
    flags.DEFINE_string(
        "verify", None, "A card.json, of which to measure a sample again.", flag_values=values
    )
    flags.DEFINE_list(
        "transfer_from",
        None,
        "Other runs of the same data, to craft the iterated attacks on as well; of --verify, the "
        "runs that the card's attacks were crafted on.",
        flag_values=values,
    )
    attack_flags.define(values)
    attack_flags.define_time_budget(values)


def plan(values: flags.FlagValues, sources: Mapping[str, LoadedRun]) -> EvaluationPlan:
    """What the parsed flags ask for, with the runs to craft on.

    Raises:
        ValueError: a radius that is no number.
    """
    from keras_robust.experiments.runs.evaluate_run import EvaluationPlan

    radii = values.radii
    return EvaluationPlan(
        attacks=values.attacks,
        settings=attack_flags.settings(values),
        norm=values.norm,
        radius=values.radius,
        radii=None if radii is None else [number("radius", text) for text in radii],
        limit=values.limit,
        seed=values.seed,
        checks=values.checks,
        sources=sources,
        time_budget=values.time_budget,
    )


def run(values: flags.FlagValues, command: str) -> list[Path]:
    """Judges the runs that the flags name.

    Args:
        values: the parsed flags.
        command: what the user typed, to be kept in the reports.

    Returns:
        The directories of the reports.

    Raises:
        ValueError, OSError: what the user can mend, before the first attack where it can be known.
    """
    paths = command_line.required(values, "run", "runs/digits")
    if len(paths) > 1:
        command_line.required(values, "output_dir", "runs/comparison")
    with quiet_start():
        from keras_robust.evaluation import save_page
        from keras_robust.experiments.runs import evaluate_run, loaded_run
        from keras_robust.experiments.runs.transfer_sources import load_sources

        command_line.initialize_devices()
    where = values.checkpoint, values.data_dir
    wanted = plan(values, load_sources(values.transfer_from or (), *where))
    runs = [loaded_run.load_run(path, *where) for path in paths]
    for one in runs:
        wanted.for_run(one)
    reports, written = [], []
    for one in runs:
        print(f"{one.run.path}, {one.checkpoint} checkpoint")
        kept = wanted.kept(one)
        with quiet_logger():  # many attacks on one model are traced on purpose
            report = evaluate_run.evaluate_run(
                one, wanted, command=command, progress=_say, keep=kept
            )
        reports.append(report)
        written.append(one.run.report)
        save_page(reports[-1:], one.run.report)
        if report.unfinished:
            _say(report.unfinished)
        if values.card:
            _say(_card(one, wanted, report))
    if len(runs) > 1:
        written.append(save_page(reports, values.output_dir))
    if not any(report.unfinished for report in reports):  # else the same command goes on
        for one in runs:
            _forget(wanted.kept(one))
    return written


def _forget(kept: Path) -> None:
    """Deletes what a finished evaluation had kept; what others have come to stays."""
    shutil.rmtree(kept, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        kept.parent.rmdir()


def _card(one: LoadedRun, wanted: EvaluationPlan, report: Report) -> str:
    """Writes the card of a report, if that is finished; says what was done."""
    from keras_robust.experiments.runs import run_cards

    if report.unfinished:
        return "model card: none is written of an evaluation that is not finished"
    return f"model card: {run_cards.write(one, wanted, report)}"


def verify(values: flags.FlagValues) -> None:
    """Measures a sample of the card that the flags name again.

    Args:
        values: the parsed flags.

    Raises:
        ValueError: the card does not hold, with what differs; or it is none.
        OSError: there is no card, or no run.
    """
    paths = values.run or [None]
    if len(paths) > 1:
        raise ValueError(f"--verify is of one run; --run names {len(paths)}.")
    with quiet_start():
        from keras_robust.experiments.runs import run_cards

        command_line.initialize_devices()
    different = run_cards.verify(
        Path(values.verify),
        None if paths[0] is None else Path(paths[0]),
        values.checkpoint,
        values.data_dir,
        _say,
        values.transfer_from or (),
    )
    if different:
        raise ValueError("\n  ".join((f"{values.verify} does not hold.", *different)))


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def main(_: list[str]) -> None:
    """Judges; what the user can mend ends it with one sentence."""
    try:
        if flags.FLAGS.verify:
            verify(flags.FLAGS)
            print(f"{flags.FLAGS.verify} holds.")
            return
        command = f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}"
        for directory in run(flags.FLAGS, command):
            print(f"Report: {directory / 'report.html'}")
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
