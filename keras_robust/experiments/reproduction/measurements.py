"""What experiments measure: attacks, perturbations, latents, transfer, detection, tasks.

Each is plain data until `measure` is called, which imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import Self

from keras_robust.experiments.recipes.attack_spec import attack_spec
from keras_robust.experiments.reproduction.experiment import Setting, Training
from keras_robust.experiments.reproduction.scales import SLOW, Scale

if TYPE_CHECKING:
    import keras_robust as kr
    from keras_robust.experiments.runs.loaded_run import LoadedRun


@dataclasses.dataclass(frozen=True)
class _OfAttack:
    """A measurement under one attack.

    Args:
        attack: as typed in a shell, such as `"pgd:steps=200:step_size=0.01"`.
        radius: the radius of the ball; None for the recipe's.
        limit: number of test images.
    """

    attack: str
    radius: float | None = None
    limit: int | None = None

    @property
    def sources(self) -> tuple[Training, ...]:
        """Further trainings that are needed: none."""
        return ()

    def at(self, scale: Scale) -> Self:
        """The measurement with fewer steps and images."""
        return dataclasses.replace(
            self,
            attack=scale.attack(self.attack, self.radius),
            limit=scale.images(self.attack, self.limit),
        )

    def passes(self) -> float:
        """The number of gradients for each image, about."""
        return _passes(self.attack)


@dataclasses.dataclass(frozen=True)
class Attacked(_OfAttack):
    """Clean accuracy (`clean`), and accuracy under an attack (`robust`).

    Args:
        norm: the norm of the ball; None for the recipe's.
        source: the training on whose run the attack is crafted; None for the attacked run itself.
    """

    norm: str | None = None
    source: Training | None = None

    @property
    def sources(self) -> tuple[Training, ...]:
        """The training that the attack is crafted on."""
        return () if self.source is None else (self.source,)

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Attacks the test images of one run."""
        import keras_robust as kr
        from keras_robust.experiments.measuring.transfer_sources import crafted_on

        (run,) = runs
        attacks = [run.attack(self.attack, norm=self.norm, radius=self.radius)]
        if setting.sources:
            attacks = crafted_on(run, attacks, setting.sources)
        report = kr.evaluation.evaluate(
            run.model,
            run.splits.test,
            attacks,
            limit=self.limit,
            seed=setting.seed,
            progress=setting.progress,
            resume_dir=setting.resume_dir,
        )
        return {
            "clean": report.clean_accuracy,
            "robust": report.attacks[0].accuracy,
            "samples": float(report.samples),
        }


@dataclasses.dataclass(frozen=True)
class TrainingPerturbations:
    """Sizes of the training attack's perturbations at the end of a training.

    Measures `l1` and `linf`, and the fractions of pixels `within_0.9`, `within_1` and `within_1.1`
    radii.

    Args:
        limit: number of test images.
        unit: the length that counts as 1; None for that of the images.
    """

    limit: int | None = None
    sources: tuple[Training, ...] = ()
    unit: float | None = None

    def at(self, scale: Scale) -> TrainingPerturbations:
        """The measurement on fewer images."""
        return dataclasses.replace(self, limit=scale.images(None, self.limit))

    def passes(self) -> float:
        """About the steps of a training attack."""
        return 10.0

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Attacks the test images of one run with its training attack.

        Raises:
            ValueError: the run was not trained with an attack that moves by steps.
        """
        from keras_robust.experiments.measuring.diagnose_latents import training_perturbations

        (run,) = runs
        found = training_perturbations(run, self.limit, setting.seed)
        if found is None:
            raise ValueError(f"{run.run.path} was trained without an attack that moves by steps.")
        unit = self.unit or 1.0
        return {"l1": found.l1 / unit, "linf": found.linf / unit} | dict(
            zip(("within_0.9", "within_1", "within_1.1"), found.within, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class LastEpoch:
    """The `value` of a logged metric after the last epoch.

    Args:
        metric: its name, such as `"dual"`.
        unit: the size that counts as 1.
    """

    metric: str
    unit: float = 1.0
    limit: int | None = None
    sources: tuple[Training, ...] = ()

    def at(self, scale: Scale) -> LastEpoch:
        """The same at every scale."""
        del scale
        return self

    def passes(self) -> float:
        """None: the training wrote it."""
        return 0.0

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Reads it.

        Raises:
            ValueError: the training did not log it.
        """
        del setting
        (run,) = runs
        last = run.run.rows()[-1]
        if self.metric not in last:
            raise ValueError(
                f"{run.run.path} has no metric {self.metric!r}; expected one of {sorted(last)}."
            )
        return {"value": last[self.metric] / self.unit}


@dataclasses.dataclass(frozen=True)
class LatentDivergence(_OfAttack):
    """Divergence of latents: `ratio` (R-DIV), `intra`, `inter`; and `clean`, `robust` accuracy."""

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Compares the latents of the test images of one run with those of attacked ones."""
        from keras_robust.experiments.measuring.diagnose_latents import BATCH, diagnose

        (run,) = runs
        # A class has a divergence only if a batch holds several of its images.
        limit = None if self.limit is None else max(self.limit, BATCH)
        attack = run.attack(self.attack, radius=self.radius)
        found = diagnose(run, attack, limit, setting.seed)
        divergence = found.divergence
        return {
            "clean": found.clean_accuracy,
            "robust": found.robust_accuracy,
            "ratio": divergence.ratio,
            "intra": divergence.intra,
            "inter": divergence.inter,
            "clean_ratio": divergence.clean_ratio,
        }


@dataclasses.dataclass(frozen=True)
class MemberTransfer(_OfAttack):
    """Transfer of an attack among the members of an ensemble.

    Measures `transferability` (T), `non_transferable` (nT), `single` (a_single), `all_correct`,
    `all_wrong`, and the accuracies `clean` and `robust` of the whole.
    """

    def passes(self) -> float:
        """The steps of the attack, on each of about two members and on the whole."""
        return 3 * _passes(self.attack)

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Attacks each member of one run, and the whole ensemble."""
        import keras_robust as kr

        (run,) = runs
        found = kr.evaluation.transfer(
            run.model,
            run.splits.test,
            run.attack(self.attack, radius=self.radius),
            limit=self.limit,
            seed=setting.seed,
            progress=setting.progress,
        )
        names = ("transferability", "non_transferable", "single", "all_correct", "all_wrong")
        rates = {name: float(getattr(found, name)) for name in names}
        # The last row and column are those of the whole ensemble.
        return rates | {"robust": float(found.accuracy[-1][-1]), "clean": float(found.clean[-1])}


@dataclasses.dataclass(frozen=True)
class Detected(_OfAttack):
    """How well the score of the run's detector separates attacked images: `auc`, `detected`."""

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Scores clean and attacked test images of one run.

        Raises:
            ValueError: the run has no detector.
        """
        import keras_robust as kr

        (run,) = runs
        if run.detector is None:
            raise ValueError(
                f"{run.run.path} has no detector; expected a training with validation images."
            )
        _, scored = kr.evaluation.score_attacks(
            run.model,
            run.splits.test,
            run.detector,
            {"attack": run.attack(self.attack, radius=self.radius)},
            limit=self.limit,
            seed=setting.seed,
            progress=setting.progress,
        )
        found = scored["attack"]
        rates = {"auc": found.auc, "detected": found.detection_rate, "robust": found.accuracy}
        return {name: float(value) for name, value in rates.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class TasksAttacked(_OfAttack):
    """Success of one perturbation on several tasks: `all_tasks`, `average`, `task_0`, ...

    Several runs become an ensemble, whose members are the tasks `members`. Of an attack without
    tasks, such as PGD on the ensemble, the success on the members is counted.

    Args:
        solver: the solver of a multi-task attack, such as `"task_oriented:lam=10"`.
        population: the images that count, `"all"` or the `"correct"` ones.
        gradients: whether to measure the gradients at the end too: `norm_0`, ..., `weight_0`, ...
            and `cosine_0_1`, ...
    """

    solver: str = ""
    population: str = "all"
    gradients: bool = False

    def at(self, scale: Scale) -> Self:
        """The measurement with fewer steps and images, but of twenty groups at least."""
        group = attack_spec(self.attack)["options"].get("group", 0)
        found = super().at(scale)
        limit = None if found.limit is None else max(found.limit, 20 * group)
        return dataclasses.replace(found, limit=limit)

    def passes(self) -> float:
        """The steps of the attack, for each of about four tasks."""
        return 4 * _passes(self.attack)

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Attacks the test images of a run, or of several at once."""
        import keras_robust as kr
        from keras_robust.experiments.measuring.attack_run import attack_run

        run = together(runs)
        attack = run.attack(self.attack, solved_by(self.solver), radius=self.radius)
        crafted = attack_run(
            run,
            attack,
            tasks=kr.tasks.Members() if attack.task_kind is None else None,
            population=self.population,
            trace=self.gradients,
            limit=self.limit,
            seed=setting.seed,
        )
        found = crafted.success
        if found is None:  # for the type checker: an attack with tasks has success rates
            raise ValueError(f"{self.attack} has no tasks.")
        numbers = {f"task_{i}": rate for i, rate in enumerate(found.per_task)}
        if crafted.gradients is not None:
            numbers |= _gradients(crafted.gradients)
        return numbers | {
            "all_tasks": found.all_tasks,
            "average": found.average,
            "samples": float(found.num_points),
        }


def _gradients(found: kr.evaluation.TaskGradients) -> dict[str, float]:
    numbers = {f"norm_{i}": norm for i, norm in enumerate(found.norms)}
    numbers |= {f"weight_{i}": weight for i, weight in enumerate(found.weights or ())}
    return numbers | {
        f"cosine_{i}_{j}": cosine
        for i, row in enumerate(found.cosines)
        for j, cosine in enumerate(row)
        if i < j
    }


@dataclasses.dataclass(frozen=True)
class TasksTransferred(_OfAttack):
    """Success on all members of ensembles, of one attack that is crafted on the first of them.

    Measures a number for each ensemble, by its name: the letters of its members.

    Args:
        letters: a letter for each of the runs.
        ensembles: names of ensembles; the attack is crafted on the first one.
        solver: the solver of the attack.
    """

    letters: str = ""
    ensembles: tuple[str, ...] = ()
    solver: str = ""

    def passes(self) -> float:
        """The steps of the attack, for each member of the source."""
        return len(self.ensembles[0]) * _passes(self.attack)

    def measure(self, runs: Sequence[LoadedRun], setting: Setting) -> dict[str, float]:
        """Attacks the test images."""
        import keras_robust as kr

        by_letter = dict(zip(self.letters, runs, strict=True))
        source = together([by_letter[letter] for letter in self.ensembles[0]])
        found = kr.evaluation.transfer_success_rates(
            source.model,
            {letter: run.model for letter, run in by_letter.items()},
            {name: tuple(name) for name in self.ensembles},
            source.splits.test,
            source.attack(self.attack, solved_by(self.solver), radius=self.radius),
            limit=self.limit,
            seed=setting.seed,
            progress=setting.progress,
        )
        rates = {name: success.all_tasks for name, success in found.items()}
        return rates | {"samples": float(next(iter(found.values())).num_points)}


def together(runs: Sequence[LoadedRun]) -> LoadedRun:
    """A run with the ensemble of the models of all runs; a single run as it is."""
    import keras_robust as kr

    if len(runs) == 1:
        return runs[0]
    return dataclasses.replace(runs[0], model=kr.models.ensemble([run.model for run in runs]))


def solved_by(solver: str) -> dict[str, str]:
    """The options of an attack that name its solver."""
    return {"solver": solver} if solver else {}


def _passes(text: str) -> float:
    """The gradients that an attack takes for an image.

    Example:
        >>> _passes("pgd:steps=20:restarts=2"), _passes("multi_targeted:steps=10")
        (40.0, 90.0)
    """
    spec = attack_spec(text)
    name = spec["name"]
    options = {**SLOW.get(name, {}), **spec["options"]}
    passes = float(options.get("steps", 1))
    if name == "multi_targeted":
        passes *= options.get("n_target_classes") or 9
    if name == "auto_attack":
        # APGD, nine targets each of APGD and FAB; most images of a robust model go through all. Of
        # a query there is no gradient.
        passes = 19 * passes + options["queries"] / 3
    if name == "carlini_wagner":
        passes *= options["binary_search_steps"]
    if name in ("spsa", "hop_skip_jump"):
        passes *= 0.7 * options["n_directions"]  # two forward passes each
    return passes * options.get("restarts", 1)
