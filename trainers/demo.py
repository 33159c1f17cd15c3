"""The whole road in a minute or two, on data that needs no download.

    python -m trainers.demo --output_dir=runs/demo

trains a plain and a hardened classifier of handwritten digits, and an ensemble that is uncertain of
attacked ones (CCE); judges them, exports the ensemble, serves it on this machine's loopback
address, and asks the server about clean and attacked images, over gRPC and over REST.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from trainers import recipes

if TYPE_CHECKING:
    from keras_robust.evaluation import Report
    from keras_robust.experiments.runs.attack_run import AttackedTestSet
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.demo"
MODEL = "digits"
RECIPES = ("standard", "trades", "cce_detection")


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "output_dir", "runs/demo", "Everything is written here.", flag_values=values
    )
    flags.DEFINE_integer(
        "epochs", 10, "To train each of the three.", lower_bound=1, flag_values=values
    )


def configs(epochs: int) -> dict[str, ConfigDict]:
    """The recipes: plain training, TRADES and an ensemble by CCE, alike in everything else."""
    chosen = {name: recipes.load(f"digits/{name}") for name in RECIPES}
    for config in chosen.values():
        config.epochs = epochs
    return chosen


def run(
    directory: Path,
    configs: dict[str, ConfigDict],
    say: Callable[[str], None] = print,
    verbose: int | str = 2,
    command: str = "",
) -> list[Report]:
    """Walks the road.

    Args:
        directory: where everything is written; runs of an earlier demo in it are lost.
        configs: the recipes by their names; the last one gets served.
        say: called with lines of text.
        verbose: of the trainings, as for Keras's `fit`.
        command: what the user typed, to be kept.

    Returns:
        The reports.

    Raises:
        ValueError, OSError: the directory cannot be used.
    """
    from keras_robust.experiments.runs import serving_demo

    begin = time.perf_counter()
    opened = _train(directory, configs, say, verbose, command)
    say(_heading(len(opened) + 1, "Judge them on test images that none has seen"))
    reports = _judge(directory, opened, say, command)
    name, served = list(opened.items())[-1]
    exported = directory / "exported" / MODEL
    say(_heading(len(opened) + 2, f"Export: {name}, with a detector of attacked images"))
    _export(served, exported, say)
    say(_heading(len(opened) + 3, "Serve it, and ask over gRPC and over REST"))
    serving_demo.serve_and_query(MODEL, exported, *_attacked(served), say)
    say(_farewell(directory, name, time.perf_counter() - begin))
    return reports


def _train(
    directory: Path,
    configs: dict[str, ConfigDict],
    say: Callable[[str], None],
    verbose: int | str,
    command: str,
) -> dict[str, LoadedRun]:
    """Trains each recipe in a directory of its own."""
    from keras_robust.experiments.runs.loaded_run import load_run
    from keras_robust.experiments.training import train_run

    # All of them are checked before the first is trained.
    ready = {
        name: train_run.prepare(config, directory / name, overwrite=True)
        for name, config in configs.items()
    }
    for number, (name, one) in enumerate(ready.items(), start=1):
        say(_heading(number, f"Train: {name}"))
        say(_plan(one.config))
        train_run.complete(one, command=command, verbose=verbose, say=say)
        say(f"Written: {directory / name}")
    return {name: load_run(directory / name) for name in ready}


def _judge(
    directory: Path, opened: dict[str, LoadedRun], say: Callable[[str], None], command: str
) -> list[Report]:
    """Attacks every model, and writes one page about them."""
    from keras_robust.evaluation import save_page
    from keras_robust.experiments.runs import evaluate_run

    reports = []
    for name, one in opened.items():
        say(f"{name}:")
        reports.append(
            evaluate_run.evaluate_run(one, command=command, progress=lambda line: say(f"  {line}"))
        )
    page = save_page(reports, directory / "report")
    say(_verdict(reports))
    say(f"Written: {page / 'report.html'}, and beside it report.md and report.json")
    return reports


def _heading(number: int, text: str) -> str:
    return f"\n{number}. {text}\n{'-' * (len(text) + 3)}"


def _plan(config: ConfigDict) -> str:
    ball = config.ball
    within = f"every pixel moved by up to {ball.radius:g} of the range from black to white"
    if config.defense.name == "standard":
        return f"{config.epochs} epochs on clean images; validation also attacks them, {within}."
    members = config.model.options.get("members", ())
    of = f" of an ensemble of {len(members)}" if members else ""
    steps = config.defense.options.steps
    return f"{config.epochs} epochs{of}, each batch attacked first: {steps} steps, {within}."


def _verdict(reports: list[Report]) -> str:
    lines = ["", f"{'':10} {'clean':>8} {'attacked':>10}   (worst of all attacks, 95 % interval)"]
    for report in reports:
        low, high = report.worst_case_interval
        lines.append(
            f"{report.defense.split(',')[0]:10} {report.clean_accuracy:8.1%} "
            f"{report.worst_case_accuracy:10.1%}   {low:.1%} to {high:.1%}"
        )
    return "\n".join(lines)


def _attacked(served: LoadedRun) -> tuple[AttackedTestSet, AttackedTestSet]:
    """The test images as PGD leaves them, and as it does where it also lowers the score."""
    from keras_robust.experiments.recipes.attack_options import DETECTOR_AWARE
    from keras_robust.experiments.runs import attack_run

    knowing = served.attack("pgd", {"loss": DETECTOR_AWARE})
    return attack_run.attack_run(served, served.attack("pgd")), attack_run.attack_run(
        served, knowing
    )


def _export(served: LoadedRun, base: Path, say: Callable[[str], None]) -> None:
    from keras_robust.experiments.runs.export_run import export_run

    version = export_run(served.run.path, base)
    detector = served.detector
    say(
        f"The detector calls an image attacked if its score, {detector.score_title}, is above "
        f"{detector.threshold:.3f}:\nset for {detector.false_alarm_rate:.0%} false alarms on "
        "validation images."
    )
    say("Loaded as TensorFlow Serving loads it: all four signatures agree with the Keras model.")
    say(f"Written: {base / version.name}")


def _farewell(directory: Path, name: str, seconds: float) -> str:
    base = shlex.quote(str(directory / "exported" / MODEL))
    report = directory / "report" / "report.html"
    return (
        f"\nDone in {seconds:.0f} s. What next:\n"
        f"  open {shlex.quote(str(report))}\n"
        f"  python -m trainers.attack --run={shlex.quote(str(directory / name))} "
        "--attack=multi_targeted\n"
        f"  python -m serving.serve --model_name={MODEL} --model_base_path={base}\n"
        f"  python -m serving.calibrate --run={shlex.quote(str(directory / name))} "
        f"--model_base_path={base} --false_alarm_rate=0.02\n"
        "  python -m trainers.train --recipe=mnist/trades --config.epochs=3 --output_dir=runs/mnist"
    )


def main(_: list[str]) -> int:
    """Runs the demo; what the user can mend ends it with one sentence."""
    needed = {"matplotlib": "report", "jinja2": "report", "tensorflow_serving": "serving"}
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"{PROGRAM}: {', '.join(missing)} not installed; the demo needs "
            "pip install 'keras_robust[report,serving]'"
        )
    values = flags.FLAGS
    with quiet_start():
        from keras_robust.experiments.training import train_run  # noqa: F401  starts TensorFlow

        command_line.initialize_devices()
    command = f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}".strip()
    try:
        verbose = 1 if sys.stdout.isatty() else 2
        run(Path(values.output_dir), configs(values.epochs), _say, verbose, command)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
