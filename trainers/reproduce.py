"""Reproduces tables and figures of the thesis: trains, attacks, and writes it beside the original.

    python -m trainers.reproduce --table=udr-1 --scale=hour --seeds=3 --output_dir=runs/thesis

writes `hour/udr-1.md`, `udr-1.json` and pictures into the output directory, with mean, standard
deviation and interval over the seeds, and what the scale cut. The same command resumes a killed
one; tables in one output directory share their runs. --list names all tables and figures, --dry_run
says what would run and about how long.
"""

from __future__ import annotations

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.reproduction.scales import SCALES
from trainers import recipes, thesis

PROGRAM = "trainers.reproduce"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list(
        "table",
        None,
        "Names of tables and figures, as --list shows; the name of a chapter stands for all of it.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "scale",
        "thesis",
        list(SCALES),
        "; ".join(f"{name}: {scale.about}" for name, scale in SCALES.items()) + ".",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seeds", 5, "Number of seeds of each training.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string(
        "output_dir",
        "runs/thesis",
        "Directory of all runs and results; tables in it share their runs.",
        flag_values=values,
    )
    flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets.", flag_values=values)
    flags.DEFINE_bool("list", False, "List the tables and figures, and stop.", flag_values=values)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Print what would run and about how long, and stop.",
        flag_values=values,
    )


def listing() -> str:
    """The names and titles of all tables and figures.

    Example:
        >>> listing().splitlines()[0]
        'adr-1: ADR, Table 1: components of ADR on MNIST under PGD-40, radius 0.325'
    """
    return "\n".join(f"{name}: {one.title}" for name, one in thesis.EXPERIMENTS.items())


def log(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def resume_hint() -> str:
    """How to resume an interrupted program."""
    return f"finished parts are kept. Resume with: {command_line.command(PROGRAM)}"


def main(_: list[str]) -> None:
    """Runs the program."""
    values = flags.FLAGS
    if values.list:
        log(listing())
        return
    experiments = thesis.load(command_line.required(values, "table", "udr-1"))
    directory = check_output(values.output_dir)
    with quiet_start():
        from keras_robust.experiments.reproduction import cost
        from keras_robust.experiments.reproduction.runner import Reproduction

        command_line.initialize_devices()
    found: list[cost.Job] = []
    for experiment in experiments:
        reproduction = Reproduction(
            experiment,
            SCALES[values.scale],
            recipes.load,
            directory,
            seeds=values.seeds,
            data_dir=values.data_dir,
            command=command_line.command(PROGRAM),
            log=log,
        )
        log(f"{experiment.title}; scale {values.scale}")
        for line in reproduction.differences():
            log(f"  {line}")
        if values.dry_run:
            found += cost.jobs(reproduction)
        else:
            log(f"Written: {reproduction.run()}")
    if values.dry_run:
        log(cost.summary(found))


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags, resume_hint=resume_hint)
