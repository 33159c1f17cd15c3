"""Pictures of experiments: curves of their tables, and what their runs look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_robust.experiments.reproduction.experiment import Training
from keras_robust.experiments.reproduction.measurements import solved_by, together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_robust.experiments.reproduction.outcome import Outcome, Spread


@dataclasses.dataclass(frozen=True)
class Curves:
    """A table as curves: one for each row, over its columns.

    Args:
        name: of the file.
        x: the position of each column that is not clean accuracy.
        x_label: what the positions are.
        part: number of the table.
        y_label: what the numbers are.
    """

    name: str
    x: tuple[float, ...]
    x_label: str
    part: int = 0
    y_label: str = "accuracy"
    trainings: tuple[Training, ...] = ()

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the curves, with the intervals of their points."""
        table = outcome.experiment.parts[self.part]
        columns = [column for column in table.columns if column.value != "clean"]
        lines = {
            row.title: [outcome.spread(self.part, row.title, column) for column in columns]
            for row in table.rows
        }
        return _with_intervals(lines, self.x, self.x_label, self.y_label)


@dataclasses.dataclass(frozen=True)
class RowCurves:
    """A table as curves: one for each column, over its rows.

    Args:
        name: of the file.
        x: the position of each row.
        x_label: what the positions are.
        part: number of the table.
        y_label: what the numbers are.
    """

    name: str
    x: tuple[float, ...]
    x_label: str
    part: int = 0
    y_label: str = "accuracy"
    trainings: tuple[Training, ...] = ()

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the curves, with the intervals of their points."""
        table = outcome.experiment.parts[self.part]
        lines = {
            column.title: [outcome.spread(self.part, row.title, column) for row in table.rows]
            for column in table.columns
        }
        return _with_intervals(lines, self.x, self.x_label, self.y_label)


def _with_intervals(
    lines: Mapping[str, Sequence[Spread | None]], positions: Sequence[float], *labels: str
) -> Figure:
    """Draws the means of each line with their intervals; what was not measured is left out."""
    import keras_robust as kr

    curves, bands = {}, {}
    for name, spreads in lines.items():
        found = [(x, one) for x, one in zip(positions, spreads, strict=True) if one is not None]
        curves[name] = ([x for x, _ in found], [one.mean for _, one in found])
        bands[name] = [one.interval or (one.mean, one.mean) for _, one in found]
    return kr.plots.series(curves, *labels, intervals=bands)


@dataclasses.dataclass(frozen=True)
class TradeOff:
    """Two columns of a table against each other: a point for each row.

    Args:
        name: of the file.
        x: title of the horizontal column.
        y: title of the vertical column.
        groups: name of a line -> titles of the rows that it joins; empty for one line of all rows.
        part: number of the table.
    """

    name: str
    x: str
    y: str
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    part: int = 0
    trainings: tuple[Training, ...] = ()

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the means."""
        import keras_robust as kr

        table = outcome.experiment.parts[self.part]
        columns = [next(c for c in table.columns if c.title == title) for title in (self.x, self.y)]
        curves = {}
        for name, rows in (self.groups or {"all": tuple(row.title for row in table.rows)}).items():
            spreads = [[outcome.spread(self.part, row, column) for row in rows]
                       for column in columns]  # fmt: skip
            x, y = ([one.mean for one in found if one is not None] for found in spreads)
            curves[name] = (x, y)
        return kr.plots.series(curves, self.x, self.y)


@dataclasses.dataclass(frozen=True)
class History:
    """Metrics over the epochs of trainings.

    Args:
        name: of the file.
        curves: name of a curve -> (training, its metric).
        y_label: what the numbers are.
        error: whether the metrics are accuracies, to be drawn as error rates.
    """

    name: str
    curves: Mapping[str, tuple[Training, str]]
    y_label: str
    error: bool = False

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The trainings that are drawn."""
        return tuple(training for training, _ in self.curves.values())

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the mean of the seeds, and their range."""
        import keras_robust as kr

        found = {}
        for name, (training, metric) in self.curves.items():
            found[name] = [
                [1 - row[metric] if self.error else row[metric]
                 for row in outcome.load(training, seed).run.rows() if metric in row]
                for seed in range(outcome.seeds)
            ]  # fmt: skip
        return kr.plots.training_curves(found, self.y_label)


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """The latents of clean and attacked test images in two dimensions, by t-SNE.

    Args:
        name: of the file.
        training: the training.
        attack: as for `measurements.Attacked`.
        points: number of test images.
        kind: the attacked images that are drawn, those that are `"fooling"` the model or the
            `"robust"` ones.
    """

    name: str
    training: Training
    attack: str
    points: int = 300
    kind: str = "fooling"

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The training that is drawn."""
        return (self.training,)

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        from keras_robust.experiments.measuring.diagnose_latents import latent_picture

        run = outcome.load(self.training)
        attack = run.attack(outcome.scale.attack(self.attack))
        return latent_picture(run, attack, self.points, self.kind)


@dataclasses.dataclass(frozen=True)
class Surface:
    """The loss around the first test image, or the first attacked one of a kind.

    Args:
        name: of the file.
        training: the training.
        space: `"input"` or `"latent"`.
        attack: as for `measurements.Attacked`; None for the clean image.
        kind: of the attacked image: `"fooling"` the model, or `"robust"`.
    """

    name: str
    training: Training
    space: str = "input"
    attack: str | None = None
    kind: str = "fooling"

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The training that is drawn."""
        return (self.training,)

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        from keras_robust.experiments.measuring.attacked_pictures import surfaces
        from keras_robust.experiments.measuring.diagnose_latents import surface_pictures

        run = outcome.load(self.training)
        if self.attack is None:
            return surface_pictures(run, run.attack("pgd").ball, 0)[self.space]
        found = surfaces(run, run.attack(outcome.scale.attack(self.attack)), 1)
        picture = found.get(f"{self.space}_surface_{self.kind}_0")
        if picture is None:
            raise ValueError(
                f"None of the first test images is {self.kind} under {self.attack} on "
                f"{run.run.path}; expected one to draw."
            )
        return picture


@dataclasses.dataclass(frozen=True)
class DecisionRegions:
    """The decision regions of trainings in the plane.

    Args:
        name: of the file.
        panels: title -> training.
    """

    name: str
    panels: Mapping[str, Training]

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The trainings that are drawn."""
        return tuple(self.panels.values())

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        from keras_robust.experiments.measuring import toy_figures

        return toy_figures.decision_regions(
            {title: outcome.load(training) for title, training in self.panels.items()}
        )


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Steps of attacks in hard and soft balls against a training in the plane.

    Args:
        name: of the file.
        training: the training.
        steps: number of steps.
    """

    name: str
    training: Training
    steps: int = 20

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The training that is attacked."""
        return (self.training,)

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        from keras_robust.experiments.measuring import toy_figures

        run = outcome.load(self.training)
        return toy_figures.trajectories(run, run.model, self.steps)


@dataclasses.dataclass(frozen=True)
class TaskSteps:
    """Losses, success and weights of the tasks over the steps of an attack on several runs.

    Args:
        name: of the file.
        trainings: the trainings whose ensemble is attacked.
        attack: a multi-task attack as typed in a shell.
        solvers: name of a curve -> solver. One solver is drawn with a curve for each task, several
            with the norms of their combined gradients.
        quantities: panels of one solver, of `"Weight"`, `"Loss"`, `"Success rate"` and
            `"Gradient norm"`.
        images: number of test images.
    """

    name: str
    trainings: tuple[Training, ...]
    attack: str
    solvers: Mapping[str, str]
    quantities: tuple[str, ...] = ("Loss", "Success rate")
    images: int = 1000

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        import keras_robust as kr
        from keras_robust.experiments.measuring.attack_run import attack_run

        run = together([outcome.load(training) for training in self.trainings])
        text = outcome.scale.attack(self.attack)
        limit = outcome.scale.images(self.attack, self.images)
        histories = {}
        for name, solver in self.solvers.items():
            attack = run.attack(text, solved_by(solver))
            histories[name] = attack_run(run, attack, trace=True, limit=limit).history
        found = {name: history for name, history in histories.items() if history is not None}
        if len(found) > 1:
            norms = {name: history.combined_norms for name, history in found.items()}
            return kr.plots.step_curves({"Norm of the combined gradient": norms})
        (history,) = found.values()
        curves = history.curves()
        return kr.plots.step_curves({label: curves[label] for label in self.quantities})


@dataclasses.dataclass(frozen=True)
class GradientHistogram:
    """The gradients of loss and cost in the training attack of UDR.

    Args:
        name: of the file.
        training: a training of UDR.
    """

    name: str
    training: Training

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The training that is drawn."""
        return (self.training,)

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        from keras_robust.experiments.measuring import attacked_pictures

        return attacked_pictures.gradients(outcome.load(self.training))["gradients"]


@dataclasses.dataclass(frozen=True)
class ContrastPairs:
    """The positives and negatives of the first test image.

    Args:
        name: of the file.
        training: the training.
        attack: as for `measurements.Attacked`.
        selection: as for `keras_robust.evaluation.contrast_pairs`.
    """

    name: str
    training: Training
    attack: str
    selection: str = "leaked"

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The training that is drawn."""
        return (self.training,)

    def draw(self, outcome: Outcome) -> Figure:
        """Draws the first seed."""
        from keras_robust.experiments.measuring import attacked_pictures

        run = outcome.load(self.training)
        attack = run.attack(outcome.scale.attack(self.attack))
        return attacked_pictures.pairs(run, attack, 1, self.selection)
