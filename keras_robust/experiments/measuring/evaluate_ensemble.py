"""Evaluates an ensemble: accuracy, transfer among members, and detection of attacked images."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

import keras_robust as kr
from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.core.classifier import members_of
from keras_robust.detection.calibration import exceeds
from keras_robust.detection.detector import check_detector
from keras_robust.evaluation.rendering.wording import radius_text
from keras_robust.evaluation.results.parts import FooledImages
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
from keras_robust.experiments.recipes.attack_options import DETECTOR_AWARE, MULTI_TARGETED, taken
from keras_robust.experiments.recipes.attack_spec import attack_spec
from keras_robust.experiments.runs.loaded_run import LoadedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Figures = dict[str, Figure]

ATTACKS = ("pgd", "bim", "mim")
ADAPTIVE = "pgd, adaptive"
_HEAD = (
    "| run | clean | attacked | multi-targeted | worst case | members clean | members attacked "
    "themselves | T | all members correct | all wrong | nT | a_single |\n|---|" + "---|" * 11
)


@dataclasses.dataclass(frozen=True)
class DetectionResult:
    """Detection of one attack at one radius.

    Args:
        attack: name of the attack.
        radius: radius of the ball.
        auc: area under the ROC curve; None without attacked images.
        interval: its 95 % bootstrap interval.
        detection_rate: fraction of attacked images that are flagged.
        evasion_rate: fraction of attacked images that are misclassified and not flagged.
    """

    attack: str
    radius: float
    auc: float | None
    interval: tuple[float, float] | None
    detection_rate: float
    evasion_rate: float


@dataclasses.dataclass(frozen=True)
class EnsembleResult:
    """Results of an ensemble.

    Args:
        run: the run directory.
        multi_targeted: accuracy under the multi-targeted attack.
        worst_case: fraction of images that withstand all attacks of the evaluation within the
            ball: PGD on each member and on the ensemble, multi-targeted, and those of the detector.
        found_by: attack -> number of images that it was the first to fool.
        transfer: transfer of attacks among the members.
        false_alarms: fraction of clean images that are flagged; None without a detector.
        detected: detection for each attack and radius; empty without a detector.
    """

    run: str
    multi_targeted: float
    worst_case: float
    found_by: dict[str, int]
    transfer: kr.evaluation.EnsembleTransfer
    false_alarms: float | None
    detected: tuple[DetectionResult, ...]

    def row(self) -> str:
        """A row of the table of accuracies."""
        t = self.transfer
        members = len(t.names) - 1
        alone = sum(t.accuracy[i][i] for i in range(members)) / members
        rates = (t.clean[-1], t.accuracy[-1][-1], self.multi_targeted, self.worst_case)
        rest = (t.all_correct, t.all_wrong, t.non_transferable, t.single)
        cells = [
            *map(_percent, (*rates, sum(t.clean[:-1]) / members, alone)),
            f"{t.transferability:.3f}",
            *map(_percent, rest),
        ]
        return f"| {Path(self.run).name} | {' | '.join(cells)} |"


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"


class EnsembleEvaluation:
    """The attacks of an evaluation of one ensemble.

    Args:
        run: the run; its model has `member_logits`.
        plan: what to evaluate. Its attacks, by default those of `ATTACKS`, are evaluated for
            detection, at its radii; PGD and its multi-targeted form for accuracy, at its radius.

    Raises:
        ValueError: the model is not an ensemble, or an invalid name, option or number.
    """

    def __init__(self, run: LoadedRun, plan: EvaluationPlan):
        if "member_logits" not in run.model.output:
            raise ValueError(
                f"The model of {run.run.path} is not an ensemble; expected one, such as of the "
                "recipe digits/cce_detection. `python -m trainers.evaluate` evaluates a single "
                "model."
            )
        self.run, self.plan = run, plan
        specs = [attack_spec(attack) for attack in plan.attacks or ATTACKS]
        given = taken(["pgd", MULTI_TARGETED, *(spec["name"] for spec in specs)], plan.options)
        ball: dict[str, Any] = {"norm": plan.norm, "radius": plan.radius}
        self.attack = run.attack("pgd", given["pgd"], **ball)
        self.multi_targeted = run.attack(MULTI_TARGETED, given[MULTI_TARGETED], **ball)
        self.radius = float(self.attack.ball.radius)
        self.radii = tuple(plan.radii or (self.radius,))
        self.detection: dict[tuple[str, float], kr.Attack] = {}
        if run.detector is None:
            return
        kinds: dict[str, tuple[Any, dict[str, Any]]] = {
            str(attack): (attack, dict(plan.options if plan.attacks else given[spec["name"]]))
            for attack, spec in zip(plan.attacks or ATTACKS, specs, strict=True)
        }
        kinds[ADAPTIVE] = ("pgd", {**given["pgd"], "loss": DETECTOR_AWARE})
        self.detection = {
            (kind, radius): run.attack(attack, options, norm=plan.norm, radius=radius)
            for kind, (attack, options) in kinds.items()
            for radius in self.radii
        }

    def evaluate(
        self, progress: Callable[[str], None] | None = None
    ) -> tuple[EnsembleResult, Figures]:
        """Runs the attacks.

        Returns:
            The results, and figures of the detector by name.
        """
        model, data = self.run.model, self.run.splits.test
        about: dict[str, Any] = {
            "limit": self.plan.limit, "seed": self.plan.seed, "progress": progress,
        }  # fmt: skip
        found: list[FooledImages] = []
        transfer = kr.evaluation.transfer(model, data, self.attack, collect=found, **about)
        alarms: float | None = None
        detected: tuple[DetectionResult, ...] = ()
        figures: Figures = {}
        if self.run.detector is not None:
            alarms, detected, figures = self._detect(self.run.detector, about, found)
        report = kr.evaluation.evaluate(model, data, self.multi_targeted, found=found, **about)
        result = EnsembleResult(
            run=str(self.run.run.path),
            multi_targeted=report.attacks[0].accuracy,
            worst_case=report.worst_case_accuracy,
            found_by=dict(report.worst_case_found_by),
            transfer=transfer,
            false_alarms=alarms,
            detected=detected,
        )
        return result, figures

    def _detect(
        self, detector: kr.detection.Detector, about: dict[str, Any], found: list[FooledImages]
    ) -> tuple[float, tuple[DetectionResult, ...], Figures]:
        """The false-alarm rate, the results for each attack and radius, and figures of them."""
        keys = {pair: f"{pair[0]} at {pair[1]:.4g}" for pair in self.detection}
        clean, scored = kr.evaluation.score_attacks(
            self.run.model,
            self.run.splits.test,
            detector,
            {keys[pair]: attack for pair, attack in self.detection.items()},
            collect=found,
            **about,
        )
        by_pair = {pair: scored[key] for pair, key in keys.items()}
        detected = tuple(
            DetectionResult(kind, radius, one.auc, one.auc_interval, one.detection_rate,
                            one.evasion_rate)
            for (kind, radius), one in by_pair.items()
        )  # fmt: skip
        threshold = check_detector(detector)
        near = min(self.radii, key=lambda radius: abs(radius - self.radius))
        kinds = list(dict.fromkeys(kind for kind, _ in by_pair))
        rate = detector.false_alarm_rate

        @functools.cache  # two figures share curves, whose intervals are resampled
        def curve(kind: str, radius: float) -> kr.detection.Roc:
            return kr.detection.roc(clean, by_pair[kind, radius].scores)

        figures = {
            "roc_by_attack": kr.plots.roc_curves(
                {kind: curve(kind, near) for kind in kinds}, false_alarm_rate=rate
            ),
            "roc_by_radius": kr.plots.roc_curves(
                {radius: curve(kinds[0], radius) for radius in self.radii},
                adaptive={radius: curve(ADAPTIVE, radius) for radius in self.radii},
                false_alarm_rate=rate,
            ),
            "scores": kr.plots.detection_scores(
                clean,
                by_pair[kinds[0], near].scores,
                threshold,
                adaptive_scores=by_pair[ADAPTIVE, near].scores,
                score_name=detector.score_title,
            ),
        }  # fmt: skip
        alarms = float(exceeds(clean, threshold).numpy().mean())
        return alarms, detected, figures

    def draw(self, count: int) -> Figures:
        """Draws the first test images: predictions of members, and the loss around the images and
        their attacked versions.

        Returns:
            Name -> figure.
        """
        figures = {}
        model, names = self.run.model, self.run.splits.info.class_names
        x, y = self.run.test_images(max(count, 1))
        attacked = self.attack(model, x, y, seed=0)
        models = {f"member_{n}": m for n, m in enumerate(members_of(model), 1)}
        for row in range(count):
            both = tf.stack([x[row], attacked[row]])
            outputs = model(both, training=False)
            figures[f"members_{row}"] = kr.plots.member_predictions(
                both.numpy(),
                tf.nn.softmax(outputs["member_logits"]).numpy(),
                tf.nn.softmax(outputs["logits"]).numpy(),
                int(y[row]),
                names,
            )
            drawn = itertools.product({**models, "ensemble": model}.items(), ("", "attacked_"))
            for (name, one), kind in drawn:
                image = attacked[row] if kind else x[row]
                around = kr.evaluation.input_surface(
                    one, image, y[row], ball=self.attack.ball, clean=x[row]
                )
                figures[f"{name}_{kind}surface_{row}"] = kr.plots.loss_surface(
                    around.steps, around.losses, around.labels, around.label, names,
                    ball=around.ball,
                )  # fmt: skip
        return figures


def detection_table(results: Sequence[EnsembleResult]) -> str:
    """The areas under the ROC curve as Markdown: a row per run and attack, a column per radius."""
    radii = sorted({one.radius for result in results for one in result.detected})
    head = ["run", "attack", *map(radius_text, radii)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result in results:
        for kind in dict.fromkeys(one.attack for one in result.detected):
            at = {one.radius: one for one in result.detected if one.attack == kind}
            cells = [_cell(at.get(radius)) for radius in radii]
            lines.append(f"| {Path(result.run).name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(result: DetectionResult | None) -> str:
    if result is None or result.auc is None:
        return ""
    return f"{result.auc:.3f} ({result.evasion_rate:.1%})"


def write_tables(directory: Path, results: Sequence[EnsembleResult], command: str) -> None:
    """Writes the results as `ensembles.md` and `ensembles.json`."""
    document = {"command": command, "runs": [dataclasses.asdict(one) for one in results]}
    write_json(directory / "ensembles.json", document)
    blocks = ["\n".join([_HEAD, *(one.row() for one in results)])]
    if any(one.detected for one in results):
        blocks += [
            "Area under the ROC curve of the score by radius, and in brackets the fraction of "
            "attacked images that are misclassified and not flagged:",
            detection_table(results),
        ]
    write_text(directory / "ensembles.md", "\n\n".join([*blocks, f"Command: `{command}`"]) + "\n")
