"""Makes the model of a run one of the trained models of the package, with its model card."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_robust.core.atomic_files import sync
from keras_robust.core.kept_graphs import compiled_forward
from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.evaluation.running.attack_runner import is_correct, predict_logits
from keras_robust.evaluation.running.batching import arrays, attacked
from keras_robust.experiments.measuring import run_cards
from keras_robust.experiments.measuring.certify_run import certify_run
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan, evaluate_run
from keras_robust.experiments.measuring.evaluation_reports import remove_checkpoint
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.models import zoo

Log = Callable[[str], None]
_NAME = re.compile(r"[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.ASCII)


def publish_run(
    run: LoadedRun,
    name: str,
    plan: EvaluationPlan,
    *,
    overwrite: bool = False,
    command: str = "",
    log: Log = print,
) -> Path:
    """Evaluates the model of a run, and writes it with its card among the models of the package.

    The kernels are stored in half precision if no verdict changes: no prediction on the test
    images, and on the images of the plan no certificate and no outcome of the attacks of the
    recipe. Otherwise they stay in float32. What is evaluated is the stored model. All files appear
    at once, by one rename.

    Args:
        run: the run.
        name: `<data>/<name>`, such as `"mnist/ibp-linf-0.3"`.
        plan: what to evaluate for the card.
        overwrite: whether a model of this name may be replaced.
        command: the command of the user, for the card.
        log: called with lines of text.

    Returns:
        The directory of the published model.

    Raises:
        ValueError: an invalid name, an invalid plan, or an evaluation that ran out of time; the
            same command resumes it.
        FileExistsError: there is a model of this name.
        RuntimeError: an image is certified and fooled, an error of the library.
    """
    check_name(name, overwrite)
    plan = dataclasses.replace(plan, detector=False)  # a threshold is not part of the model
    plan.for_run(run)  # raises
    with _directory(zoo.DIRECTORY / name) as draft:
        with quiet_logger():  # many attacks are traced on purpose
            model = _stored(run, plan, draft, log)
        copy = dataclasses.replace(run, model=model)
        weights = zoo.fingerprint(model).rpartition(":")[2][:16]
        kept = run.run.unfinished / f"{plan.checkpoint_path(run).name}-{weights}"
        with quiet_logger():
            report = evaluate_run(copy, plan, command=command, progress=log, resume_dir=kept)
        if report.unfinished:
            raise ValueError(f"{name} is not published. {report.unfinished}")
        if report.errors:
            raise RuntimeError("\n".join(report.errors))
        card = run_cards.card_of(copy, plan, report, log)
        dataclasses.replace(card, recipe=without_paths(card.recipe)).save(draft)
    remove_checkpoint(kept)
    return zoo.DIRECTORY / name


def check_name(name: str, overwrite: bool = False) -> None:
    """Raises unless a model can be published under a name.

    Raises:
        ValueError: the name is not of the form `<data>/<name>`.
        FileExistsError: there is a model of this name, and it may not be replaced.

    Example:
        >>> check_name("MNIST")
        Traceback (most recent call last):
        ...
        ValueError: The name of the model is 'MNIST'; expected <data>/<name> in lower case, such \
as mnist/ibp-linf-0.3.
    """
    if not _NAME.fullmatch(name) or name != name.lower():
        raise ValueError(
            f"The name of the model is {name!r}; expected <data>/<name> in lower case, such as "
            "mnist/ibp-linf-0.3."
        )
    if (zoo.DIRECTORY / name).exists() and not overwrite:
        raise FileExistsError(f"There is a model {name} already; pass --overwrite to replace it.")


def without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the directory of the data, which is not that of another machine."""
    recipe = json.loads(json.dumps(recipe))
    recipe["dataset"]["data_dir"] = None
    return recipe


def changed_verdicts(
    run: LoadedRun, model: keras.Model, plan: EvaluationPlan
) -> dict[str, tuple[int, int]]:
    """Compares another model with that of a run.

    Args:
        run: the run.
        model: the other model, such as one with rounded weights.
        plan: the certificates, the threat model, the seed and the number of images.

    Returns:
        For each kind of verdict: how many images have another one, of how many. The kinds are the
        predictions on all test images, the certificates, and the attacks of the recipe.
    """
    mine, theirs = (_verdicts(dataclasses.replace(run, model=m), plan) for m in (run.model, model))
    return {kind: (int(np.sum(mine[kind] != theirs[kind])), len(mine[kind])) for kind in mine}


def _verdicts(run: LoadedRun, plan: EvaluationPlan) -> dict[str, np.ndarray]:
    """Kind of verdict -> one value for each image."""
    test, ball = run.splits.test, run.ball(plan.norm, plan.radius)
    forward = compiled_forward(run.model)
    x, _, batch_size = arrays(test, None)
    verdicts = {"predictions": predict_logits(forward, x, batch_size).argmax(axis=1)}
    for result in certify_run(run, plan.certify, ball, limit=plan.limit, seed=plan.seed):
        verdicts[f"certificates by {result.name}"] = np.array(result.certified)
    for attack in run.recipe_attacks(norm=plan.norm, radius=plan.radius):
        parts = [
            is_correct(forward(adversarial)["logits"].numpy(), y)
            for _, adversarial, y in attacked(run.model, test, attack, plan.limit, plan.seed)
        ]
        verdicts[f"outcomes of {attack.name}"] = np.concatenate(parts)
    return verdicts


def _stored(run: LoadedRun, plan: EvaluationPlan, directory: Path, log: Log) -> keras.Model:
    """Writes the model, in half precision if that changes no verdict; returns it as it is read."""
    zoo.write(run.model, directory, half=True)
    model = zoo.read(directory)
    changed = changed_verdicts(run, model, plan)
    for kind, (count, total) in changed.items():
        log(f"half precision: {count} of {total:,} {kind} change")
    if not any(count for count, _ in changed.values()):
        return model
    log("the weights stay in float32")
    zoo.write(run.model, directory)
    return zoo.read(directory)


@contextlib.contextmanager
def _directory(target: Path) -> Iterator[Path]:
    """Yields a temporary directory, which replaces `target` at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, former = (target.with_name(f".{target.name}.{os.getpid()}.{s}") for s in ("new", "old"))
    try:
        draft.mkdir()
        yield draft
        if target.exists():
            os.replace(target, former)
        try:
            os.replace(draft, target)
        except OSError:
            if former.exists():  # nothing is lost
                os.replace(former, target)
            raise
        sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
