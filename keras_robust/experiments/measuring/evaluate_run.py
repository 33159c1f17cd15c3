"""Evaluates a run: attacks its test images and returns the report."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.experiments.measuring.certify_run import certify_run, method_specs
from keras_robust.experiments.measuring.transfer_sources import crafted_on
from keras_robust.experiments.recipes.attack_spec import AttackLike
from keras_robust.experiments.runs.loaded_run import LoadedRun

_Z_95_ONE_SIDED = 1.645  # the 95 % point of the standard normal distribution


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate; the run's recipe replaces what is None.

    Args:
        attacks: names of attacks, such as `"pgd"` or `"pgd:steps=40"`, or `{"name", "options"}`;
            accuracy over radius is measured with the strongest.
        options: options of the attacks. Each attack in `attacks` has to take all of them; of the
            recipe's attacks, at least one. See `LoadedRun.attack`.
        norm: norm of the threat model.
        radius: radius of the threat model.
        radii: radii of the accuracy over radius; empty for none.
        limit: number of test images.
        seed: seed of the attacks.
        checks: whether to run the sanity checks, after the attacks are finished.
        sources: name -> another run, on which the iterated attacks are crafted as well.
        time_budget: seconds for the attacks on a run; None for no limit.
        budget_per_image: passes of an attack on an image; None for no limit.
        certify: methods of certification, such as `"ibp"` or `"smoothing:sigma=0.25"`.
        detector: whether to evaluate the detector of the run, if it has one.
    """

    attacks: Sequence[AttackLike] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    norm: str | None = None
    radius: float | None = None
    radii: Sequence[float] | None = None
    limit: int | None = None
    seed: int = 0
    checks: bool = False
    sources: Mapping[str, LoadedRun] = dataclasses.field(default_factory=dict)
    time_budget: float | None = None
    budget_per_image: int | None = None
    certify: Sequence[AttackLike] = ()
    detector: bool = True

    def for_run(self, run: LoadedRun) -> tuple[list[kr.Attack], tuple[float, ...]]:
        """The attacks and the radii for a run.

        Raises:
            ValueError: an invalid name, option or number, a source for other data, or an unknown
                method of certification.
        """
        method_specs(self.certify)  # raises
        ball: dict[str, Any] = {"norm": self.norm, "radius": self.radius}
        if self.attacks:
            attacks = [run.attack(attack, self.options, **ball) for attack in self.attacks]
        else:
            attacks = run.recipe_attacks(self.options, **ball)
        attacks += crafted_on(run, attacks, self.sources)
        # The recipe's radii do not apply to another norm.
        same_norm = self.norm in (None, run.config.ball.norm)
        default = run.config.evaluation.radii if same_norm else ()
        return attacks, tuple(default if self.radii is None else self.radii)

    def checkpoint_path(self, run: LoadedRun) -> Path:
        """Where an interrupted evaluation of this plan is kept, whatever its time budget."""
        what = (run.checkpoint, *self.for_run(run), self.limit, self.seed)
        return run.run.unfinished / hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def evaluate_run(
    run: LoadedRun,
    plan: EvaluationPlan | None = None,
    *,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    resume_dir: Path | None = None,
) -> kr.evaluation.Report:
    """Evaluates a run on its test images.

    Args:
        run: the run.
        plan: what to evaluate; default the recipe's evaluation.
        command: the command of the user, for the report.
        progress: called with lines of text.
        resume_dir: checkpoint directory; an interrupted evaluation resumes from it.

    Returns:
        The report, not saved yet.

    Raises:
        ValueError: an invalid name or number in the plan.
    """
    plan = plan or EvaluationPlan()
    attacks, radii = plan.for_run(run)
    config, info = run.config, run.splits.info
    limit = plan.limit if plan.limit is not None else config.evaluation.limit
    certificates = certify_run(
        run,
        plan.certify,
        run.ball(plan.norm, plan.radius),
        radii=radii,
        limit=limit,
        seed=plan.seed,
        progress=progress,
    )
    report = kr.evaluation.evaluate(
        run.model,
        run.splits.test,
        attacks,
        radii=radii,
        detector=run.detector if plan.detector else None,
        limit=limit,
        seed=plan.seed,
        progress=progress,
        resume_dir=resume_dir,
        time_budget=plan.time_budget,
        budget_per_image=plan.budget_per_image,
        dataset=info.name,
        model_name=_architecture(config),
        defense=_defense(config),
        class_names=info.class_names,
        command=command,
        checks=plan.checks,
        certificates=certificates,
    )
    found = overfitting_warnings(
        run.run.rows(), config.monitor, run.checkpoint, info.validation_size
    )
    return dataclasses.replace(report, warnings=(*report.warnings, *found))


def overfitting_warnings(
    rows: Sequence[Mapping[str, float]], monitor: str, checkpoint: str, size: int
) -> list[str]:
    """A warning if the last epoch is significantly worse than the best one (5 %, one-sided).

    Args:
        rows: the metrics of the epochs.
        monitor: the metric that selected the best checkpoint; if it is not an accuracy, there is no
            warning.
        checkpoint: the checkpoint that is evaluated, `"best"` or `"last"`.
        size: number of validation images.

    Example:
        >>> rows = [{"epoch": n + 1, "val_robust_accuracy": a} for n, a in enumerate((0.5, 0.4))]
        >>> print(overfitting_warnings(rows, "val_robust_accuracy", "best", 1000)[0])
        Training overfitted: val_robust_accuracy fell from 50.0% after epoch 1 to 40.0% after the \
last one, 2. The model evaluated is that of epoch 1.

    Reference: Rice, Wong, Kolter, "Overfitting in Adversarially Robust Deep Learning" (2020).
    """
    measured = [row for row in rows if monitor in row]
    if not (measured and size and monitor.endswith("accuracy")):
        return []
    best, last = max(measured, key=lambda row: row[monitor]), measured[-1]
    spread = math.sqrt(sum(row[monitor] * (1 - row[monitor]) for row in (best, last)) / size)
    if best[monitor] - last[monitor] <= _Z_95_ONE_SIDED * spread:
        return []
    evaluated = best if checkpoint == "best" else last
    return [
        f"Training overfitted: {monitor} fell from {percent(best[monitor])} after epoch "
        f"{best['epoch']:g} to {percent(last[monitor])} after the last one, {last['epoch']:g}. The "
        f"model evaluated is that of epoch {evaluated['epoch']:g}."
    ]


def _architecture(config: ConfigDict) -> str:
    """The name of the model; for an ensemble, those of its members."""
    members = config.model.options.get("members", ())
    return f"ensemble of {', '.join(members)}" if members else config.model.name


def _defense(config: ConfigDict) -> str:
    """The defense with its options, such as `trades, beta 6, 10 steps`."""
    options = config.defense.options.to_dict()
    steps = options.pop("steps", None)
    parts = [config.defense.name]
    if config.defense.name != "standard":  # its only attack is that of the validation
        parts += [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                  for name, value in options.items() if value is not None]  # fmt: skip
        parts += [] if steps is None else [f"{steps} steps"]
    return ", ".join(parts)
