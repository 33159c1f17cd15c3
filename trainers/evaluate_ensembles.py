"""Judges ensembles: accuracy, how attacks transfer among members, and the score that tells them.

    python -m trainers.evaluate_ensembles --run=runs/a,runs/b --output_dir=runs/ensembles --radii=0.1,0.3

attacks the test images of each run (flags as for `trainers.evaluate`), and writes `ensembles.md`
and `ensembles.json`: clean, attacked and multi-targeted accuracy with the transfer metrics, and for
each attack and radius the area under the ROC curve of the run's detector, of an attacker who knows
it too. Beside them are pictures of each run: its scores, ROC curves, what members say of images,
and the loss around an image for every member and for all together.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.quiet_tensorflow import quiet_logger, quiet_start
from keras_robust.experiments.flags import attack_flags, command_line
from keras_robust.experiments.flags.lookup import number
from keras_robust.experiments.runs.pictures import write_pictures

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.experiments.runs.loaded_run import LoadedRun

PROGRAM = "trainers.evaluate_ensembles"
KNOWING = "pgd that knows the score"
HEAD = (
    "| run | clean | attacked | multi-targeted | members clean | members attacked themselves | T "
    "| all members right | all wrong | nT | a_single |\n|---|" + "---|" * 10
)


@dataclasses.dataclass(frozen=True)
class Detected:
    """What a detector makes of one attack at one radius.

    Args:
        attack: its name.
        radius: of the ball.
        auc: the area under the ROC curve.
        interval: its 95 % bootstrap interval.
        detection_rate: share of attacked images flagged.
        evasion_rate: share of them misclassified and not flagged.
    """

    attack: str
    radius: float
    auc: float
    interval: tuple[float, float]
    detection_rate: float
    evasion_rate: float


@dataclasses.dataclass(frozen=True)
class EnsembleResult:
    """What is measured of an ensemble.

    Args:
        run: its directory.
        multi_targeted: its accuracy under the multi-targeted attack.
        transfer: who errs on what was crafted on whom.
        false_alarms: share of clean images flagged.
        detected: of each attack and radius; empty without a detector.
    """

    run: str
    multi_targeted: float
    transfer: kr.evaluation.EnsembleTransfer
    false_alarms: float | None
    detected: tuple[Detected, ...]

    def row(self) -> str:
        """A line of the table of accuracies."""
        t = self.transfer
        members = len(t.names) - 1
        alone = sum(t.accuracy[i][i] for i in range(members)) / members
        shares = (t.clean[-1], t.accuracy[-1][-1], self.multi_targeted, sum(t.clean[:-1]) / members)
        rest = (t.all_right, t.all_wrong, t.non_transferable, t.single)
        cells = [*map(_percent, (*shares, alone)), f"{t.transferability:.3f}", *map(_percent, rest)]
        return f"| {Path(self.run).name} | {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("run", None, "A run directory, or several.", flag_values=values)
    flags.DEFINE_string("output_dir", None, "For tables and pictures.", flag_values=values)
    flags.DEFINE_list(
        "attacks", ["pgd", "bim", "mim"], "Of which the score is to tell.", flag_values=values
    )
    flags.DEFINE_list("radii", None, "Of these attacks; default the ball's.", flag_values=values)
    flags.DEFINE_integer(
        "pictures", 1, "Test images that are drawn.", lower_bound=0, flag_values=values
    )
    attack_flags.define(values)


def look(
    loaded_run: LoadedRun, values: flags.FlagValues, progress: Callable[[str], None] | None = None
) -> tuple[EnsembleResult, dict[str, Any]]:
    """Measures an ensemble.

    Args:
        loaded_run: the run.
        values: the parsed flags.
        progress: called with a line of text now and then.

    Returns:
        What was found, and the pictures of the detector by name.

    Raises:
        ValueError: a name or a number that cannot be.
    """
    import keras_robust as kr

    settings = attack_flags.settings(values)
    about: dict[str, Any] = {"limit": values.limit, "seed": values.seed, "progress": progress}
    ball = {"norm": values.norm, "radius": values.radius}
    attack = loaded_run.attack("pgd", settings, **ball)
    transfer = kr.evaluation.transfer(loaded_run.model, loaded_run.splits.test, attack, **about)
    targeted = loaded_run.attack("multi_targeted", settings, **ball)
    report = kr.evaluation.evaluate(loaded_run.model, loaded_run.splits.test, targeted, **about)
    alarms, detected, pictures = None, (), {}
    if loaded_run.detector is not None:
        alarms, detected, pictures = _detection(loaded_run, values, about)
    finding = EnsembleResult(
        str(loaded_run.run.path), report.worst_case_accuracy, transfer, alarms, detected
    )
    return finding, pictures


def _detection(
    loaded_run: LoadedRun, values: flags.FlagValues, about: dict[str, Any]
) -> tuple[float, tuple[Detected, ...], dict[str, Any]]:
    """The share of false alarms, what came of every attack and radius, and pictures of it."""
    import keras_robust as kr
    from keras_robust.detection.calibration import exceeds
    from keras_robust.experiments.recipes.attack_options import DETECTOR_AWARE

    own = values.radius or loaded_run.config.ball.radius
    radii = [number("radius", text) for text in values.radii or [str(own)]]
    settings = attack_flags.settings(values)
    kinds = {name: (name, settings) for name in values.attacks}
    kinds[KNOWING] = ("pgd", {**settings, "loss": DETECTOR_AWARE})
    keys = {(kind, radius): f"{kind} at {radius:.4g}" for kind in kinds for radius in radii}
    attacks = {
        key: loaded_run.attack(*kinds[kind], norm=values.norm, radius=radius)
        for (kind, radius), key in keys.items()
    }
    clean, scored = kr.evaluation.score_attacks(
        loaded_run.model, loaded_run.splits.test, loaded_run.detector, attacks, **about
    )
    found = {pair: scored[key] for pair, key in keys.items()}
    detected = tuple(
        Detected(kind, radius, one.auc, one.auc_interval, one.detection_rate, one.evasion_rate)
        for (kind, radius), one in found.items()
    )
    near = min(radii, key=lambda radius: abs(radius - own))
    first = values.attacks[0]
    rate = loaded_run.detector.false_alarm_rate
    pictures = {
        "roc_by_attack": kr.plots.roc_curves(
            {kind: kr.detection.roc(clean, found[kind, near].scores) for kind in kinds},
            false_alarm_rate=rate,
        ),
        "roc_by_radius": kr.plots.roc_curves(
            {radius: kr.detection.roc(clean, found[first, radius].scores) for radius in radii},
            false_alarm_rate=rate,
        ),
        "scores": kr.plots.detection_scores(
            clean,
            found[first, near].scores,
            loaded_run.detector.threshold,
            score_name=loaded_run.detector.score_title,
        ),
    }
    alarms = float(exceeds(clean, loaded_run.detector.threshold).numpy().mean())
    return alarms, detected, pictures


def draw(loaded_run: LoadedRun, attack: kr.Attack, count: int) -> dict[str, Any]:
    """Draws what members say of the first images, and the loss around them for each and for all.

    Args:
        loaded_run: the run.
        attack: how the images are attacked.
        count: how many images.

    Returns:
        Name -> figure.
    """
    import tensorflow as tf

    import keras_robust as kr
    from keras_robust.core.classifier import members_of

    figures = {}
    names = loaded_run.splits.info.class_names
    x, y = loaded_run.test_images(max(count, 1))
    attacked = attack(loaded_run.model, x, y, seed=0)
    extent = float(attack.ball.radius) * float(x[0].shape.num_elements()) ** 0.5
    for row in range(count):
        both = tf.stack([x[row], attacked[row]])
        outputs = loaded_run.model(both, training=False)
        figures[f"members_{row}"] = kr.plots.member_predictions(
            both.numpy(),
            tf.nn.softmax(outputs["member_logits"]).numpy(),
            tf.nn.softmax(outputs["logits"]).numpy(),
            int(y[row]),
            names,
        )
        models = {f"member_{n}": m for n, m in enumerate(members_of(loaded_run.model), 1)}
        for name, model in {**models, "ensemble": loaded_run.model}.items():
            around = kr.evaluation.input_surface(model, x[row], y[row], extent)
            figures[f"{name}_surface_{row}"] = kr.plots.loss_surface(
                around.steps, around.losses, around.labels, around.label, names
            )
    return figures


def detection_table(findings: list[EnsembleResult]) -> str:
    """The areas: a row for each run and attack, a column for each radius."""
    from keras_robust.evaluation.rendering.wording import radius_text

    radii = sorted({one.radius for finding in findings for one in finding.detected})
    head = ["run", "attack", *map(radius_text, radii)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for finding in findings:
        for kind in dict.fromkeys(one.attack for one in finding.detected):
            at = {one.radius: one for one in finding.detected if one.attack == kind}
            cells = [
                f"{at[r].auc:.3f} ({at[r].evasion_rate:.1%})" if r in at else "" for r in radii
            ]
            lines.append(f"| {Path(finding.run).name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run(values: flags.FlagValues, command: str = "") -> list[EnsembleResult]:
    """Judges the runs that the flags name.

    Args:
        values: the parsed flags.
        command: what the user typed, to be kept.

    Returns:
        What was found of each.

    Raises:
        ValueError, OSError: what the user can mend, before the first attack where it can be known.
    """
    paths = command_line.required(values, "run", "runs/cce")
    directory = Path(command_line.required(values, "output_dir", "runs/ensembles"))
    with quiet_start():
        from keras_robust.experiments.runs.loaded_run import load_run

        command_line.initialize_devices()
    runs = [load_run(path, values.checkpoint, values.data_dir) for path in paths]
    alone = [str(one.run.path) for one in runs if "member_logits" not in one.model.output]
    if alone:
        raise ValueError(
            f"The model of {', '.join(alone)} is no ensemble; expected one, such as of the recipe "
            "digits/cce_detection. `python -m trainers.evaluate` judges a model alone."
        )
    attacks = [
        one.attack("pgd", attack_flags.settings(values), norm=values.norm, radius=values.radius)
        for one in runs
    ]
    found: list[EnsembleResult] = []
    for one, attack in zip(runs, attacks, strict=True):
        with quiet_logger():  # many attacks on one model are traced on purpose
            finding, figures = look(one, values)
            figures |= draw(one, attack, values.pictures)
        found.append(finding)
        print(finding.row(), flush=True)
        write_pictures(directory, figures, f"{one.run.path.name}_")
        _write(directory, found, command)
    return found


def _write(directory: Path, found: list[EnsembleResult], command: str) -> None:
    """The tables so far."""
    document = {"command": command, "runs": [dataclasses.asdict(one) for one in found]}
    write_json(directory / "ensembles.json", document)
    blocks = ["\n".join([HEAD, *(one.row() for one in found)])]
    if any(one.detected for one in found):
        blocks += [
            "Area under the ROC curve of the score by radius, and in brackets the share of "
            "attacked images that are misclassified and not flagged:",
            detection_table(found),
        ]
    write_text(directory / "ensembles.md", "\n\n".join([*blocks, f"Command: `{command}`"]) + "\n")


def main(_: list[str]) -> None:
    """Judges; what the user can mend ends it with one sentence."""
    values = flags.FLAGS
    try:
        run(values, f"python -m {PROGRAM} {shlex.join(sys.argv[1:])}")
    except command_line.USER_ERRORS as error:
        command_line.fail(PROGRAM, error)
    print(f"Written: {Path(values.output_dir) / 'ensembles.md'}, ensembles.json and pictures")


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
