"""Judges trained runs: attacks their test images, and writes the reports.

    python -m trainers.evaluate --run=runs/digits --attacks=pgd,fgsm --radii=0.05,0.1,0.2

The report is written to report/ in the run. Several runs, as in --run=runs/a,runs/b, are compared
on one page in --output_dir as well. What is not given is as the recipe of the run says. Started
again after an interruption, the same command goes on where it was. --checks also looks for reasons
to doubt the figures, such as gradients that vanish. --card writes a model card beside the report,
with the recipe, the attacks and the commit, and

    python -m trainers.evaluate --verify=runs/digits/report/card.json

measures a sample of it again: it says what differs, and fails if anything does.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from serving.quiet import quiet_logger, quiet_start
from trainers import attack_flags, command_line
from trainers.names import number

if TYPE_CHECKING:
    from trainers.measuring import Plan

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
    attack_flags.define(values)


def plan(values: flags.FlagValues) -> Plan:
    """What the parsed flags ask for.

    Raises:
        ValueError: a radius that is no number.
    """
    from trainers.measuring import Plan

    radii = values.radii
    return Plan(
        attacks=values.attacks,
        settings=attack_flags.settings(values),
        norm=values.norm,
        radius=values.radius,
        radii=None if radii is None else [number("radius", text) for text in radii],
        limit=values.limit,
        seed=values.seed,
        checks=values.checks,
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
        from trainers import cards, measuring, opened

        command_line.wake_tensorflow()
    wanted = plan(values)
    runs = [opened.open_run(path, values.checkpoint, values.data_dir) for path in paths]
    for one in runs:
        wanted.for_run(one)
    reports, written = [], []
    for one in runs:
        print(f"{one.run.path}, {one.checkpoint} checkpoint")
        unfinished = one.run.unfinished
        with quiet_logger():  # many attacks on one model are traced on purpose
            report = measuring.measure(one, wanted, command=command, progress=_say, keep=unfinished)
        reports.append(report)
        written.append(one.run.report)
        save_page(reports[-1:], one.run.report)
        if values.card:
            _say(f"model card: {cards.write(one, wanted, report)}")
        shutil.rmtree(unfinished, ignore_errors=True)
    if len(runs) > 1:
        written.append(save_page(reports, values.output_dir))
    return written


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
        from trainers import cards

        command_line.wake_tensorflow()
    different = cards.verify(
        Path(values.verify),
        None if paths[0] is None else Path(paths[0]),
        values.checkpoint,
        values.data_dir,
        _say,
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
    except command_line.MENDABLE as error:
        command_line.fail(PROGRAM, error)


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
