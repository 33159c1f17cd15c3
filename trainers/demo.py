"""Trains, evaluates, exports and serves models in about two minutes, without any download.

    python -m trainers.demo --output_dir=runs/demo

trains a standard and a hardened classifier of handwritten digits, and an ensemble whose uncertainty
detects attacked images (CCE); evaluates them, exports the ensemble, serves it on the loopback
address, lets an attack wave raise the alarm of its detection scores, and queries the server about
clean and attacked images over gRPC and REST.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from keras_robust.cli.extras import require_extra
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.output_path import check_output
from trainers import recipes

if TYPE_CHECKING:
    from keras_robust.evaluation import Report
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.demo"
MODEL = "digits"
RECIPES = ("standard", "trades", "cce_detection")
Log = Callable[[str], None]


class Times:
    """The wall-clock seconds of the steps of a program, in order.

    Example:
        >>> times = Times()
        >>> with times.of("train"):
        ...     pass
        >>> times.seconds.update({"train": 30.0, "evaluate": 10.0})
        >>> print(times.table())
        train         30 s   75%
        evaluate      10 s   25%
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Measures a step."""
        begin = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - begin

    @property
    def total(self) -> float:
        """The sum of all steps."""
        return sum(self.seconds.values())

    def table(self) -> str:
        """A line for each step, with its part of the total."""
        width = max(map(len, self.seconds))
        return "\n".join(
            f"{step:{width}} {seconds:7.0f} s {seconds / self.total:5.0%}"
            for step, seconds in self.seconds.items()
        )


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "output_dir", None, "Directory of all runs and results.", flag_values=values
    )
    flags.DEFINE_integer(
        "epochs", 10, "Number of epochs of each training.", lower_bound=1, flag_values=values
    )


def configs(epochs: int) -> dict[str, ConfigDict]:
    """The recipes: standard training, TRADES, and an ensemble by CCE with the same settings."""
    chosen = {name: recipes.load(f"digits/{name}") for name in RECIPES}
    for config in chosen.values():
        config.epochs = epochs
    return chosen


def run(
    directory: Path,
    configs: dict[str, ConfigDict],
    log: Log = print,
    verbose: int | str = 2,
    command: str = "",
    times: Times | None = None,
) -> list[Report]:
    """Trains, evaluates, exports and serves.

    Args:
        directory: the directory of all runs and results; runs of an earlier demo are deleted.
        configs: name -> recipe; the last one is served.
        log: called with lines of text.
        verbose: as for Keras's `fit`.
        command: the command of the user, for the files.
        times: what was measured before; the steps are added, and all are shown.

    Returns:
        The reports.

    Raises:
        ValueError, OSError: a user error.
    """
    from keras_robust.experiments.measuring.attack_run import attack_run
    from keras_robust.experiments.publishing import serving_demo
    from keras_robust.experiments.publishing.export_run import export_run

    times = times or Times()
    runs = _train(directory, configs, log, verbose, command, times)
    log(_heading(len(runs) + 1, "Evaluate on held-out test images"))
    with times.of("evaluate"):
        reports = _evaluate(directory, runs, log, command)
    name, served = list(runs.items())[-1]
    log(_heading(len(runs) + 2, f"Export: {name}, with a detector of attacked images"))
    base = directory / "exported" / MODEL
    with times.of("export"):
        version = export_run(served, base)
    log(_threshold(served))
    log("Loaded as TensorFlow Serving loads it: all four signatures agree with the Keras model.")
    log(f"Written: {base / version.name}")
    log(_heading(len(runs) + 3, "Serve, and query over gRPC and REST"))
    with times.of("serve and query"):
        attacks = served.attack("pgd"), served.attack("pgd", {"loss": "detector_aware"})
        oblivious, adaptive = (attack_run(served, attack) for attack in attacks)
        serving_demo.serve_and_query(MODEL, base, oblivious, adaptive, log)
    log(f"\nWhere the time went:\n{textwrap.indent(times.table(), '  ')}")
    log(_next_steps(directory, name, times.total))
    return reports


def _train(
    directory: Path,
    configs: dict[str, ConfigDict],
    log: Log,
    verbose: int | str,
    command: str,
    times: Times,
) -> dict[str, LoadedRun]:
    """Trains each recipe in a directory of its own, after all of them were checked."""
    from keras_robust.experiments.runs.loaded_run import load_run
    from keras_robust.experiments.training import train_run

    prepared = {
        name: train_run.prepare(config, directory / name, overwrite=True)
        for name, config in configs.items()
    }
    for number, (name, training) in enumerate(prepared.items(), start=1):
        log(_heading(number, f"Train: {name}"))
        log(_description(training.config))
        with times.of(f"train {name}"):
            train_run.complete(training, command=command, verbose=verbose, log=log)
        log(f"Written: {directory / name}")
    return {name: load_run(directory / name) for name in prepared}


def _evaluate(directory: Path, runs: dict[str, LoadedRun], log: Log, command: str) -> list[Report]:
    """Attacks every model, and writes one page about all of them."""
    from keras_robust.evaluation import save_page
    from keras_robust.experiments.measuring.evaluate_run import evaluate_run

    reports = []
    for name, one in runs.items():
        log(f"{name}:")
        progress = lambda line: log(f"  {line}")  # noqa: E731
        reports.append(evaluate_run(one, command=command, progress=progress))
    page = save_page(reports, directory / "report")
    log(_accuracies(reports))
    log(f"Written: {page / 'report.html'}, report.md and report.json")
    return reports


def _heading(number: int, text: str) -> str:
    return f"\n{number}. {text}\n{'-' * (len(text) + 3)}"


def _description(config: ConfigDict) -> str:
    ball = f"each pixel changed by at most {config.ball.radius:g} of the range from black to white"
    if config.defense.name == "standard":
        return f"{config.epochs} epochs on clean images; validation also attacks them, {ball}."
    members = config.model.options.get("members", ())
    of = f" of an ensemble of {len(members)}" if members else ""
    steps = config.defense.options.steps
    return f"{config.epochs} epochs{of}, each batch attacked first: {steps} steps, {ball}."


def _accuracies(reports: list[Report]) -> str:
    lines = ["", f"{'':10} {'clean':>8} {'attacked':>10}   (worst of all attacks, 95 % interval)"]
    for report in reports:
        low, high = report.worst_case_interval
        lines.append(
            f"{report.defense.split(',')[0]:10} {report.clean_accuracy:8.1%} "
            f"{report.worst_case_accuracy:10.1%}   {low:.1%} to {high:.1%}"
        )
    return "\n".join(lines)


def _threshold(served: LoadedRun) -> str:
    detector = served.detector
    return (
        f"The detector flags an image if its score, {detector.score_title}, is above "
        f"{detector.threshold:.3f}:\nset for {detector.false_alarm_rate:.0%} false alarms on "
        "validation images."
    )


def _next_steps(directory: Path, name: str, seconds: float) -> str:
    run, base = (shlex.quote(str(directory / part)) for part in (name, f"exported/{MODEL}"))
    return (
        f"\nDone in {seconds:.0f} s. What next:\n"
        f"  open {shlex.quote(str(directory / 'report' / 'report.html'))}\n"
        f"  python -m trainers.attack --run={run} --attack=multi_targeted\n"
        f"  python -m serving.serve --model_name={MODEL} --model_base_path={base}\n"
        f"  python -m serving.calibrate --run={run} --model_base_path={base} "
        "--false_alarm_rate=0.02\n"
        "  python -m trainers.train --recipe=mnist/trades --config.epochs=3 --output_dir=runs/mnist"
    )


def main(_: list[str]) -> None:
    """Runs the program."""
    for extra in ("report", "serving"):
        require_extra(extra, "The demo")
    values = flags.FLAGS
    directory = check_output(command_line.required(values, "output_dir", "runs/demo"))
    times = Times()
    with times.of("import TensorFlow"), quiet_start():
        from keras_robust.experiments.training import train_run  # noqa: F401  imports TensorFlow

        command_line.initialize_devices()
    verbose = 1 if sys.stdout.isatty() else 2
    command = command_line.command(PROGRAM)
    run(directory, configs(values.epochs), _log, verbose, command, times)


def _log(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
