"""Judges a run: attacks its test images, and writes the report."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.experiments.runs.transfer_sources import crafted_on

CHECKED = 100  # images; a check looks for what stands out, not for a tenth of a per cent


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """What to measure; what is None is as the run's recipe says.

    Args:
        attacks: names of attacks; accuracy over radius is of the strongest.
        settings: of the attacks, those that differ from the recipe's: see `Opened.attack`.
        norm: of the threat model.
        radius: of the threat model.
        radii: to measure accuracy over; empty for none.
        limit: use only the first so many test images.
        seed: of all random starts.
        checks: whether to look for reasons to doubt the figures, on the first images, once the
            attacks have come to their end.
        sources: name -> another run, on which the iterated attacks are crafted as well.
        time_budget: seconds for the attacks on a run; None for no end.
    """

    attacks: Sequence[str] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    norm: str | None = None
    radius: float | None = None
    radii: Sequence[float] | None = None
    limit: int | None = None
    seed: int = 0
    checks: bool = False
    sources: Mapping[str, LoadedRun] = dataclasses.field(default_factory=dict)
    time_budget: float | None = None

    def for_run(self, opened: LoadedRun) -> tuple[list[kr.Attack], tuple[float, ...]]:
        """The attacks and the radii for a run.

        Raises:
            ValueError: a name or a number that cannot be, or a source of other data.
        """
        recipe = opened.config.evaluation
        attacks = [
            opened.attack(name, self.settings, norm=self.norm, radius=self.radius)
            for name in self.attacks or recipe.attacks
        ]
        attacks += crafted_on(opened, attacks, self.sources)
        # The recipe's radii mean nothing in another norm.
        same_norm = self.norm in (None, opened.config.ball.norm)
        default = recipe.radii if same_norm else ()
        return attacks, tuple(default if self.radii is None else self.radii)

    def kept(self, opened: LoadedRun) -> Path:
        """Where the run keeps what this plan has come to, whatever time it is given."""
        what = (opened.checkpoint, *self.for_run(opened), self.limit, self.seed)
        return opened.run.unfinished / hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def evaluate_run(
    opened: LoadedRun,
    plan: EvaluationPlan | None = None,
    *,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    keep: Path | None = None,
) -> kr.evaluation.Report:
    """Judges a run on its test images.

    Args:
        opened: the run.
        plan: what to measure; default what the recipe says.
        command: what the user typed, to be kept in the report.
        progress: called with a line of text now and then.
        keep: a directory for what was measured so far, to go on from after an interruption.

    Returns:
        The report, not saved yet.

    Raises:
        ValueError: a name or a number of the plan that cannot be.
    """
    plan = plan or EvaluationPlan()
    attacks, radii = plan.for_run(opened)
    config, info = opened.config, opened.splits.info
    limit = plan.limit if plan.limit is not None else config.evaluation.limit
    report = kr.evaluation.evaluate(
        opened.model,
        opened.splits.test,
        attacks,
        radii=radii,
        detector=opened.detector,
        limit=limit,
        seed=plan.seed,
        progress=progress,
        keep=keep,
        time_budget=plan.time_budget,
        dataset=info.name,
        model_name=_architecture(config),
        defense=_training(opened),
        class_names=info.class_names,
        command=command,
    )
    if not plan.checks or report.unfinished:
        return report
    checks = _checks(opened, plan, attacks[0].ball, limit, progress)
    return dataclasses.replace(report, checks=checks)


def _checks(
    opened: LoadedRun,
    plan: EvaluationPlan,
    ball: kr.types.Ball,
    limit: int | None,
    progress: Callable[[str], None] | None,
) -> tuple[kr.evaluation.Check, ...]:
    """Whether there are reasons to doubt the figures of a run."""
    return kr.evaluation.sanity_checks(
        opened.model,
        opened.splits.test,
        ball,
        limit=min(limit or CHECKED, CHECKED),
        seed=plan.seed,
        progress=progress,
    )


def _architecture(config: ConfigDict) -> str:
    """The name of the model; of an ensemble, those of its members."""
    members = config.model.options.get("members", ())
    return f"ensemble of {', '.join(members)}" if members else config.model.name


def _training(opened: LoadedRun) -> str:
    """How the run was trained, such as `trades, beta 6, 10 steps`."""
    defense = opened.config.defense
    options = defense.options.to_dict()
    steps = options.pop("steps", None)
    words = [defense.name]
    if defense.name != "standard":  # its only attack is that of the validation
        words += [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                  for name, value in options.items() if value is not None]  # fmt: skip
        words += [] if steps is None else [f"{steps} steps"]
    return ", ".join(words)
