"""Other runs that attacks are crafted on: transfer attacks in an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras_robust as kr
from keras_robust.attacks.crafting.minimum_norm import MinimumNormAttack
from keras_robust.experiments.runs.loaded_run import LoadedRun, load_run


def load_sources(
    paths: Sequence[str | os.PathLike[str]],
    checkpoint: str | None = None,
    data_dir: str | None = None,
    *,
    read_data: bool = True,
) -> dict[str, LoadedRun]:
    """Loads the source runs.

    Args:
        paths: run directories; duplicates are dropped.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: the directory of TensorFlow Datasets, if not the one of the training.
        read_data: whether to read their data now, or at the first use of `splits`.

    Returns:
        The runs by the names of their directories, or by their paths if names coincide.

    Raises:
        FileNotFoundError, ValueError: see `keras_robust.experiments.runs.loaded_run.load_run`.
    """
    distinct = list({Path(path).resolve(): Path(path) for path in paths}.values())
    short = len({path.name for path in distinct}) == len(distinct)
    return {
        (path.name if short else str(path)): load_run(
            path, checkpoint, data_dir, read_data=read_data
        )
        for path in distinct
    }


def crafted_on(
    target: LoadedRun, attacks: Sequence[kr.Attack], sources: Mapping[str, LoadedRun]
) -> list[kr.Attack]:
    """The iterated attacks of an evaluation, crafted on other runs.

    Attacks of a single step are left out, and so are minimum-norm attacks, which stop at the
    source's decision boundary.

    Args:
        target: the run to evaluate; it is not its own source.
        attacks: the attacks on the run itself.
        sources: name -> run.

    Returns:
        One attack for each source and iterated attack; empty without sources.

    Raises:
        ValueError: no source except the target, a source for other data, or no iterated attack.
    """
    if not sources:
        return []
    here = target.run.path.resolve()
    others = {name: run for name, run in sources.items() if run.run.path.resolve() != here}
    if not others:
        raise ValueError(
            f"--transfer_from names {target.run.path} alone, the run to evaluate; expected another "
            "run."
        )
    for source in others.values():
        _check_data(target, source)
    iterated = [attack for attack in attacks if _iterates(attack)]
    if not iterated:
        raise ValueError(
            f"None of the attacks {', '.join(attack.name for attack in attacks)} can be crafted on "
            "another run; expected one that iterates within the radius, such as --attacks=pgd."
        )
    return [
        kr.attacks.transfer(attack, source.model, name)
        for name, source in others.items()
        for attack in iterated
    ]


def _check_data(target: LoadedRun, source: LoadedRun) -> None:
    """Raises if a source classifies other images or classes."""
    mine, other = (
        (run.config.dataset.name, tuple(run.splits.info.image_shape), run.splits.info.classes)
        for run in (target, source)
    )
    if mine != other:
        described = "{0} (images {1}, {2} classes)".format
        raise ValueError(
            f"{source.run.path} was trained on {described(*other)}, and {target.run.path} on "
            f"{described(*mine)}; expected runs of one dataset in --transfer_from."
        )


def _iterates(attack: kr.Attack) -> bool:
    return not isinstance(attack.inner, MinimumNormAttack) and (attack.gradient_steps or 0) > 1
