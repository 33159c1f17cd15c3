"""Diagnoses the latent space of runs: R-DIV and robust accuracy, t-SNE, loss surfaces.

    python -m trainers.diagnose_latents --run=runs/a,runs/b --output_dir=runs/latents

attacks test images with PGD (flags as for `trainers.evaluate`), and writes `latents.md` and
`latents.json` with the divergences of each run, and the size of the perturbations at the end of its
training; and pictures of its latents and of the loss around its first test images, clean and
attacked: images that fool the model, and images that it withstands.

--radii=0.05,0.1,0.2 measures at these radii as well, and draws R-DIV over the radius. --pairs=4
draws the positives and negatives of contrastive training. A run of UDR adds the histogram of its
gradients. R-DIV over the epochs is logged by trainings with --config.latent_divergence.images=256.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.lookup import number
from keras_robust.experiments.flags.output_path import check_output

if TYPE_CHECKING:
    from keras_robust.experiments.measuring.diagnose_latents import LatentResult

PROGRAM = "trainers.diagnose_latents"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "Run directory, or several.", flag_values=values)
    flags.DEFINE_string(
        "output_dir", None, "Directory of the tables and pictures.", flag_values=values
    )
    flags.DEFINE_integer(
        "pictures",
        1,
        "Number of test images of each kind around which the loss is drawn: clean ones, attacked "
        "ones that fool the model, and others.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "points",
        300,
        "Number of test images whose latents are drawn: 0, or at least 31.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_list(
        "radii", None, "Further radii at which R-DIV is measured.", flag_values=values
    )
    flags.DEFINE_integer(
        "pairs",
        0,
        "Number of test images whose positives and negatives are drawn.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "selection",
        "leaked",
        ["global", "hard", "soft", "leaked"],
        "Selection of positives and negatives for --pairs.",
        flag_values=values,
    )
    attack_flags.define(values)


def run(values: flags.FlagValues, command: str = "") -> list[LatentResult]:
    """Diagnoses the runs that the flags name.

    Returns:
        The results of each run.

    Raises:
        ValueError, OSError: a user error, if possible before the first attack.
    """
    paths = command_line.required(values, "run", "runs/digits")
    directory = Path(command_line.required(values, "output_dir", "runs/latents"))
    radii = [number("radius", text) for text in values.radii or ()]
    for path in paths:
        check_output(directory, file_prefix=Path(path).name)
    with quiet_start():
        from keras_robust.experiments.measuring import diagnose_latents
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    runs = [load_run(path, values.checkpoint, values.data_dir) for path in paths]
    options = attack_flags.options(values)
    attacks = [one.attack("pgd", options, norm=values.norm, radius=values.radius) for one in runs]
    results = []
    for one, attack in zip(runs, attacks, strict=True):
        results.append(diagnose_latents.diagnose(one, attack, values.limit, values.seed, radii))
        print(results[-1].row(), flush=True)
        shown = (values.points, values.pictures, values.pairs, values.selection)
        diagnose_latents.draw(one, attack, directory, *shown)
    diagnose_latents.write_tables(directory, results, command)
    return results


def main(_: list[str]) -> None:
    """Runs the program."""
    run(flags.FLAGS, command_line.command(PROGRAM))
    directory = Path(flags.FLAGS.output_dir)
    print(f"Written: {directory / 'latents.md'}, latents.json and pictures")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
