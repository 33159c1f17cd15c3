"""Measures black-box transfer: crafts adversarial examples on each run, and evaluates all of them.

    python -m trainers.transfer --run=runs/a,runs/b --output_dir=runs/transfer

attacks the same test images on each run (flags as for `trainers.evaluate`), and writes the accuracy
of every run on every run's adversarial examples to `transfer.md`, `transfer.json` and
`transfer.png`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.output_path import check_output
from keras_robust.experiments.measuring.pictures import write_pictures

if TYPE_CHECKING:
    import keras_robust as kr

PROGRAM = "trainers.transfer"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "Run directories, at least two.", flag_values=values)
    flags.DEFINE_string(
        "output_dir", None, "Directory of the table and the picture.", flag_values=values
    )
    flags.DEFINE_string(
        "attack",
        "pgd",
        f"Name of the attack, with {attack_flags.NAMES_HELP}.",
        flag_values=values,
    )
    attack_flags.define(values)


def run(values: flags.FlagValues, command: str = "") -> kr.evaluation.Transfer:
    """Attacks the runs that the flags name, with the attack as the first of them has it.

    Returns:
        The transfer matrix.

    Raises:
        ValueError, OSError: a user error, if possible before the first attack.
    """
    paths = command_line.required(values, "run", "runs/a,runs/b")
    directory = check_output(command_line.required(values, "output_dir", "runs/transfer"))
    with quiet_start():
        import keras_robust as kr
        from keras_robust.experiments.runs import loaded_run

        command_line.initialize_devices()
    runs = [loaded_run.load_run(path, values.checkpoint, values.data_dir) for path in paths]
    names = [one.run.path.name for one in runs]
    data = {one.config.dataset.name for one in runs}
    if len(runs) < 2 or len(set(names)) < len(names) or len(data) > 1:
        raise ValueError(
            f"--run names {', '.join(map(str, paths))}, trained on {', '.join(sorted(data))}; "
            "expected at least two runs of one dataset, in directories of different names."
        )
    attack = runs[0].attack(
        values.attack, attack_flags.options(values), norm=values.norm, radius=values.radius
    )
    models = {name: one.model for name, one in zip(names, runs, strict=True)}
    found = kr.evaluation.black_box(
        models, runs[0].splits.test, attack, limit=values.limit, seed=values.seed
    )
    write_json(directory / "transfer.json", {"command": command, **dataclasses.asdict(found)})
    write_text(directory / "transfer.md", f"{found.markdown()}\n\nCommand: `{command}`\n")
    figure = kr.plots.transfer_matrix(
        found.names,
        found.accuracy,
        found.clean,
        attack=found.attack,
        radius=found.radius,
        samples=found.samples,
    )
    write_pictures(directory, {"transfer": figure})
    return found


def main(_: list[str]) -> None:
    """Runs the program."""
    found = run(flags.FLAGS, command_line.command(PROGRAM))
    print(found.markdown())
    directory = Path(flags.FLAGS.output_dir)
    print(f"Written: {directory / 'transfer.md'}, transfer.json and transfer.png")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
