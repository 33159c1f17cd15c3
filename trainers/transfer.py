"""Crafts adversarial examples on each of several runs, and asks all of them: black-box transfer.

    python -m trainers.transfer --run=runs/a,runs/b --output_dir=runs/transfer

attacks the same test images on each run with PGD (flags as for `trainers.evaluate`), and writes the
accuracy of every run on every run's examples to `transfer.md`, `transfer.json` and `transfer.png`.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.runs.pictures import write_pictures

if TYPE_CHECKING:
    import keras_robust as kr

PROGRAM = "trainers.transfer"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "Two run directories or more.", flag_values=values)
    flags.DEFINE_string("output_dir", None, "For the table and the picture.", flag_values=values)
    flags.DEFINE_string("attack", "pgd", "What crafts the examples.", flag_values=values)
    attack_flags.define(values)


def run(values: flags.FlagValues, command: str = "") -> kr.evaluation.Transfer:
    """Attacks the runs that the flags name; the attack is as the first of them has it.

    Args:
        values: the parsed flags.
        command: what the user typed, to be kept.

    Returns:
        The matrix.

    Raises:
        ValueError, OSError: what the user can mend: fewer than two runs, runs of other data, two
            of one name, a name or a number that cannot be.
    """
    paths = command_line.required(values, "run", "runs/a,runs/b")
    directory = Path(command_line.required(values, "output_dir", "runs/transfer"))
    with quiet_start():
        import keras_robust as kr
        from keras_robust.experiments.runs import loaded_run

        command_line.initialize_devices()
    runs = [loaded_run.load_run(path, values.checkpoint, values.data_dir) for path in paths]
    names = [one.run.path.name for one in runs]
    data = {one.config.dataset.name for one in runs}
    if len(runs) < 2 or len(set(names)) < len(names) or len(data) > 1:
        raise ValueError(
            f"The runs are {', '.join(map(str, paths))}, of {', '.join(sorted(data))}; expected "
            "two or more of one data set, in directories with names that differ."
        )
    settings = attack_flags.settings(values)
    attack = runs[0].attack(values.attack, settings, norm=values.norm, radius=values.radius)
    models = {name: one.model for name, one in zip(names, runs, strict=True)}
    found = kr.evaluation.black_box(
        models, runs[0].splits.test, attack, limit=values.limit, seed=values.seed
    )
    write_json(directory / "transfer.json", {"command": command, **dataclasses.asdict(found)})
    write_text(directory / "transfer.md", f"{found.markdown()}\n\nCommand: `{command}`\n")
    figure = kr.plots.transfer_matrix(found.names, found.accuracy, found.clean)
    write_pictures(directory, {"transfer": figure})
    return found


def main(_: list[str]) -> None:
    """Attacks; what the user can mend ends it with one sentence."""
    values = flags.FLAGS
    try:
        found = run(values, f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}")
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    print(found.markdown())
    print(f"Written: {Path(values.output_dir) / 'transfer.md'}, transfer.json and transfer.png")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
