"""Attacks the test images of a model, and writes a report.

    keras-robust evaluate my.keras --data=images/ --radius=8/255 --attacks=auto_attack
    keras-robust evaluate --model=my.keras --data=digits --radius=0.1 --attacks=pgd,fgsm
    keras-robust evaluate --run=runs/digits
    keras-robust evaluate my.onnx --data=images/ --radius=8/255 --attacks=square

writes report.html, report.md and report.json. --model takes a Keras classifier or a RobustModel of
your own with --data and a threat model; --run takes a run directory, whose recipe sets what is not
given. An ONNX, TFLite or OpenVINO file is attacked without gradients. The same command resumes an
interrupted evaluation. --certify=ibp,crown also proves on which images no attack can succeed. For
continuous integration: --fail_under=0.45 exits with code 3 if the worst-case accuracy is lower or
not complete, --junit=results.xml and --json write the result.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import flags

from keras_robust.cli import model_flags, outcome
from keras_robust.cli.extras import require_extra
from keras_robust.experiments.flags import attack_flags, certify_flags, command_line
from keras_robust.experiments.flags.lookup import number
from keras_robust.experiments.flags.output_path import check_output

MAIN_FLAGS = (
    "data", "norm", "radius", "attacks", "limit", "preprocess", "output_dir", "fail_under", "json",
    "junit", "progress",
)  # fmt: skip
positional = model_flags.positional


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    model_flags.define(values)
    model_flags.define_detector(values, score=None)
    attack_flags.define(values)
    attack_flags.define_budgets(values)
    certify_flags.define(values)
    outcome.define(values)
    flags.DEFINE_list(
        "attacks",
        None,
        f"Names of attacks, such as pgd,fgsm, with {attack_flags.NAMES_HELP}; accuracy over radius "
        "is measured with the strongest.",
        flag_values=values,
    )
    flags.DEFINE_list("radii", None, "Radii of the accuracy over radius.", flag_values=values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "Directory of the report; by default report in the run, or MODEL_report here.",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> str:
    """Evaluates the model that the flags name, and writes the report.

    Returns:
        The summary of the report.

    Raises:
        ValueError, OSError, ImportError: a user error, if possible before the first attack.
        NotPassed: the worst-case accuracy is below --fail_under.
    """
    model_flags.check(values, threat_model=True, converted=True)
    radii = None if values.radii is None else [number("radius", text) for text in values.radii]
    report = check_output(_report(values))
    if values.junit is not None:
        check_output(Path(values.junit).parent, "junit")
    require_extra("report", "The HTML report")
    loaded = model_flags.load(values)
    from keras_robust.evaluation import load_reports
    from keras_robust.evaluation.rendering import wording
    from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
    from keras_robust.experiments.measuring.evaluation_reports import write_reports

    if values.output_dir or values.model:
        loaded.run.report = report
        loaded.run.unfinished = loaded.run.report / "unfinished"
    plan = EvaluationPlan(
        attacks=values.attacks,
        options=attack_flags.options(values),
        norm=values.norm,
        radius=values.radius,
        radii=radii,
        limit=values.limit,
        seed=values.seed,
        time_budget=values.time_budget,
        budget_per_image=values.budget_per_image,
        certify=values.certify,
    )
    write_reports([loaded], plan, command=_command(), log=outcome.progress(values))
    reports = load_reports(loaded.run.report)
    page = loaded.run.report / "report.html"
    warnings = [f"Warning: {warning}" for warning in wording.all_warnings(reports)]
    text = [*wording.summaries(reports), *warnings, f"Report: {page}"]
    return outcome.finish(values, reports[0], text, page)


def resume_hint(values: flags.FlagValues) -> str:
    """Whether an interrupted evaluation can be resumed."""
    beside = _report(values) if values.output_dir or values.model else Path(values.run)
    if not (beside / "unfinished").is_dir():
        return command_line.START_OVER
    return f"finished batches are kept. Resume with: {_command()}"


def _report(values: flags.FlagValues) -> Path:
    """The directory of the report."""
    own = f"{Path(values.model).stem}_report" if values.model else Path(values.run) / "report"
    return Path(values.output_dir or own)


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
