"""Model cards of runs: written beside the report, and verified by measuring a sample again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

import keras_robust as kr
from keras_robust.evaluation import Card, Report
from keras_robust.experiments.runs.evaluate_run import EvaluationPlan
from keras_robust.experiments.runs.loaded_run import LoadedRun, load_run
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.runs.transfer_sources import load_sources

Say = Callable[[str], None]


def write(opened: LoadedRun, plan: EvaluationPlan, report: Report, say: Say | None = None) -> Path:
    """Writes the card of a report, beside it.

    Args:
        opened: the run that was measured.
        plan: what was measured.
        report: what came out.
        say: called with a line of text now and then.

    Returns:
        The path of `card.json`.
    """
    attacks, _ = plan.for_run(opened)
    card = kr.evaluation.make_card(
        opened.model,
        opened.splits.test,
        attacks,
        report,
        recipe=json.loads(opened.run.recipe_file.read_text("utf-8")),
        commit=commit(),
        weights=fingerprint(opened),
        progress=say,
    )
    return card.save(opened.run.report)


def verify(
    path: Path,
    run: Path | None = None,
    checkpoint: str | None = None,
    data_dir: str | None = None,
    say: Say | None = None,
    sources: Sequence[str | os.PathLike[str]] = (),
) -> tuple[str, ...]:
    """Measures the sample of a card again.

    Args:
        path: of a `card.json`.
        run: the run that it is of; by default the one whose `report/` it lies in.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: where TensorFlow Datasets keeps the data, if not where it was in training.
        say: called with a line of text now and then.
        sources: the runs that attacks of the card are crafted on; by default those of their names
            beside the run.

    Returns:
        Where the card does not hold, a sentence each; nothing where it does.

    Raises:
        FileNotFoundError: there is no card, or no run.
        ValueError: the file is no card, does not say of which run it is, or has attacks that are
            crafted on a run that is not found.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No model card at {path}; `--card` writes one.")
    card = Card.from_json(path.read_text("utf-8"))
    run = run or path.absolute().parent.parent
    if not RunDirectory(run).is_run:
        raise ValueError(f"{path} lies in no run; say by --run which one it is of.")
    opened = load_run(run, checkpoint, data_dir)
    others = _sources(card, run, sources or (), (checkpoint, data_dir))
    found = card.measured_again(opened.model, opened.splits.test, say, others)
    said = [*_recipe(card, opened), *card.differences(found, fingerprint(opened))]
    if said:  # the reason, perhaps
        said += [
            f"{name} is {found.versions.get(name, 'absent')} here; the card says {version}."
            for name, version in card.report.versions.items()
            if found.versions.get(name) != version
        ]
    return tuple(said)


def _sources(
    card: Card,
    run: Path,
    given: Sequence[str | os.PathLike[str]],
    where: tuple[str | None, str | None],
) -> dict[str, keras.Model]:
    """The models of other runs that the card's attacks are crafted on, by their names."""
    found = {name: one.model for name, one in load_sources(given, *where).items()}
    for name in card.sources:
        places = [run.absolute().parent / name, Path(name)]  # the name may be a path
        beside = next((path for path in places if RunDirectory(path).is_run), None)
        if name not in found and beside is not None:
            found[name] = load_run(beside, *where).model
        if name not in found:
            raise ValueError(
                f"Attacks of the card are crafted on the run {name}, which is not beside {run}; "
                f"say by --transfer_from=RUNS/{name} where it is."
            )
    return found


def _recipe(card: Card, opened: LoadedRun) -> list[str]:
    """Whether the run's recipe is the card's."""
    recipe = json.loads(opened.run.recipe_file.read_text("utf-8"))
    changed = sorted(
        name for name in {*recipe, *card.recipe} if recipe.get(name) != card.recipe.get(name)
    )
    return [f"The recipe differs in {', '.join(changed)}."] if changed else []


def fingerprint(opened: LoadedRun) -> str:
    """The SHA-256 of the weights, in their order; not of the file, which holds times as well."""
    digest = hashlib.sha256()
    for variable in opened.model.weights:
        digest.update(variable.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def commit() -> str:
    """The commit of the code, marked where files differ from it; empty outside a repository."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # A library inside another project's repository is not of that project's commit.
        if Path(git("rev-parse", "--show-toplevel")) != here.resolve():
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
