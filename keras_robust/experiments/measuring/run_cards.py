"""Model cards of runs: written next to the report, verified by evaluating a sample again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import keras_robust as kr
from keras_robust.evaluation import Card, Report
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
from keras_robust.experiments.measuring.transfer_sources import load_sources
from keras_robust.experiments.recipes import schema
from keras_robust.experiments.runs.loaded_run import LoadedRun, load_run
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.models import zoo

Log = Callable[[str], None]


def write(run: LoadedRun, plan: EvaluationPlan, report: Report, log: Log | None = None) -> Path:
    """Writes the card of a report next to it.

    Args:
        run, plan, report, log: as for `card_of`.

    Returns:
        The path of `card.json`.
    """
    return card_of(run, plan, report, log).save(run.run.report)


def card_of(run: LoadedRun, plan: EvaluationPlan, report: Report, log: Log | None = None) -> Card:
    """The card of a report.

    Args:
        run: the run that was evaluated.
        plan: what was evaluated.
        report: the results.
        log: called with lines of text.
    """
    attacks, _ = plan.for_run(run)
    return kr.evaluation.make_card(
        run.model,
        run.splits.test,
        attacks,
        report,
        recipe=json.loads(run.run.recipe_file.read_text("utf-8")),
        commit=commit(),
        weights=fingerprint(run),
        progress=log,
        smoothed=kr.models.smoothed,
    )


def verify(
    path: Path,
    directory: Path | None = None,
    checkpoint: str | None = None,
    data_dir: str | None = None,
    log: Log | None = None,
    sources: Sequence[str | os.PathLike[str]] = (),
) -> tuple[str, ...]:
    """Evaluates the sample of a card again.

    Args:
        path: a `card.json`.
        directory: the run of the card; default the one whose `report/` it is in.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: the directory of TensorFlow Datasets; None for its default. The recipe's is not
            used, as the run may be somebody else's.
        log: called with lines of text.
        sources: the runs that attacks of the card are crafted on; by default those of their names
            in the directory of the run.

    Returns:
        A sentence for each difference; empty if the card holds.

    Raises:
        FileNotFoundError: the card or the run is missing.
        ValueError: the file is not a card, its run is not known, or a run that its attacks are
            crafted on is not found.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No model card at {path}; `--card` writes one.")
    card = Card.from_json(path.read_text("utf-8"))
    directory = directory or path.absolute().parent.parent
    if not RunDirectory(directory).is_run:
        raise ValueError(f"{path} is not in a run directory; give the run of the card by --run.")
    run = load_run(directory, checkpoint, read_data=False)
    run.config.dataset.data_dir = data_dir
    models = _source_models(card, directory, sources or (), (checkpoint, data_dir))
    measured = card.reevaluate(run.model, run.splits.test, log, models, kr.models.smoothed)
    differences = [*_recipe_differences(card, run), *card.differences(measured, fingerprint(run))]
    if differences:  # other versions may be the reason
        differences += [
            f"{name} is {measured.versions.get(name, 'absent')} here; the card says {version}."
            for name, version in card.report.versions.items()
            if measured.versions.get(name) != version
        ]
    return tuple(differences)


def _source_models(
    card: Card,
    directory: Path,
    sources: Sequence[str | os.PathLike[str]],
    where: tuple[str | None, str | None],
) -> dict[str, keras.Model]:
    """The models of other runs that the card's attacks are crafted on, by their names."""
    given = load_sources(sources, *where, read_data=False)
    models = {name: run.model for name, run in given.items()}
    paths = {str(run.run.path): run.model for run in given.values()}
    for name in card.sources:
        # A card may be somebody else's: its names lead to runs beside its own, and nowhere else.
        place = directory.absolute().parent / Path(name).name
        beside = place.name == name and name != ".." and RunDirectory(place).is_run
        if name in paths:  # as in a card of runs whose names coincide
            models[name] = paths[name]
        if name not in models and beside:
            models[name] = load_run(place, *where, read_data=False).model
        if name not in models:
            raise ValueError(
                f"Attacks of the card are crafted on the run {name}, which is not next to "
                f"{directory}; give its place by --transfer_from=RUNS/{name}."
            )
    return models


def _recipe_differences(card: Card, run: LoadedRun) -> list[str]:
    """The fields in which the run's recipe differs from the card's."""
    recipes = [json.loads(run.run.recipe_file.read_text("utf-8")), card.recipe]
    mine, theirs = map(_read, recipes)
    changed = sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
    return [f"The recipe differs in {', '.join(changed)}."] if changed else []


def _read(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as this release reads it; as it is if it does not."""
    try:
        return schema.from_document(recipe).to_dict()
    except (ValueError, KeyError, TypeError, AttributeError):
        return dict(recipe)


def fingerprint(run: LoadedRun) -> str:
    """The SHA-256 of the weights in their order; the file also contains times."""
    return zoo.fingerprint(run.model)


def commit() -> str:
    """The commit of the code, marked if files differ from it; empty outside a repository."""
    here = Path(__file__).parents[3]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # A library installed inside another repository has no commit of its own.
        if Path(git("rev-parse", "--show-toplevel")) != here.resolve():
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
