"""Evaluates runs and writes their reports, with model cards and a page that compares them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.evaluation import Report, save_page
from keras_robust.experiments.measuring import corruption_tables, run_cards
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan, evaluate_run
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.experiments.runs.run_lock import RunLock


def write_reports(
    runs: Sequence[LoadedRun],
    plan: EvaluationPlan,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    card: bool = False,
    corruptions: Sequence[str] = (),
    command: str = "",
    log: Callable[[str], None] = print,
) -> list[Path]:
    """Evaluates runs, and writes a report into each.

    An interrupted evaluation, or one that ran out of time, resumes at the next call.

    Args:
        runs: the runs.
        plan: what to evaluate.
        output_dir: a directory for one page about all runs; None for no such page.
        card: whether to write a model card next to each report.
        corruptions: names of corruptions, whose accuracies become part of each report.
        command: the command of the user, for the reports.
        log: called with lines of text.

    Returns:
        The directories of the reports.

    Raises:
        ValueError: an invalid name or number in the plan, before the first attack.
        BlockingIOError: another evaluation writes one of the reports.
        RuntimeError: an image is certified and fooled, an error of the library; the reports are
            written first.
    """
    for run in runs:
        plan.for_run(run)
    with _locked({run.run.report.absolute() for run in runs}):
        return _write(runs, plan, output_dir, card, corruptions, command, log)


@contextlib.contextmanager
def _locked(directories: set[Path]) -> Iterator[None]:
    """Keeps other evaluations out of the directories of the reports, which are made."""
    with contextlib.ExitStack() as locks:
        for directory in sorted(directories):
            directory.mkdir(parents=True, exist_ok=True)
            locks.callback(RunLock(directory, "is being evaluated").release)
        try:
            yield
        finally:
            for directory in directories:
                with contextlib.suppress(OSError):  # not empty
                    directory.rmdir()


def _write(
    runs: Sequence[LoadedRun],
    plan: EvaluationPlan,
    output_dir: str | os.PathLike[str] | None,
    card: bool,
    corruptions: Sequence[str],
    command: str,
    log: Callable[[str], None],
) -> list[Path]:
    reports, written = [], []
    for run in runs:
        log(run.title)
        with quiet_logger():  # many attacks on one model are traced on purpose
            report = evaluate_run(
                run,
                plan,
                command=command,
                progress=lambda line: log(f"  {line}"),
                resume_dir=plan.checkpoint_path(run),
            )
        if corruptions:
            found = corruption_tables.write(run, corruptions, plan.limit, plan.seed, log)
            report = dataclasses.replace(report, corruptions=found)
        reports.append(report)
        written.append(save_page([report], run.run.report))
        if report.unfinished:
            log(f"  {report.unfinished}")
        if card:
            log(f"  model card: {_write_card(run, plan, report)}")
    if output_dir is not None:
        written.append(save_page(reports, output_dir))
    if not any(report.unfinished for report in reports):  # else the next call needs them
        for run in runs:
            remove_checkpoint(plan.checkpoint_path(run))
    errors = [error for report in reports for error in report.errors]
    if errors:
        raise RuntimeError("\n".join([*errors, f"Written: {', '.join(map(str, written))}"]))
    return written


def _write_card(run: LoadedRun, plan: EvaluationPlan, report: Report) -> str:
    if report.unfinished:
        return "not written, as the evaluation is not finished"
    return str(run_cards.write(run, plan, report))


def remove_checkpoint(path: Path) -> None:
    """Deletes the checkpoint of a finished evaluation, and keeps those of others."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty, or missing
        path.parent.rmdir()
