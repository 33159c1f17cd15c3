"""Evaluates runs and writes their reports, with model cards and a page that compares them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.evaluation import Report, save_page
from keras_robust.experiments.measuring import run_cards
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan, evaluate_run
from keras_robust.experiments.runs.loaded_run import LoadedRun


def write_reports(
    runs: Sequence[LoadedRun],
    plan: EvaluationPlan,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    card: bool = False,
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
        command: the command of the user, for the reports.
        log: called with lines of text.

    Returns:
        The directories of the reports.

    Raises:
        ValueError: an invalid name or number in the plan, before the first attack.
        RuntimeError: an image is certified and fooled, an error of the library; the reports are
            written first.
    """
    for run in runs:
        plan.for_run(run)
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
