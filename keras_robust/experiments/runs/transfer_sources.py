"""Other runs that attacks are crafted on: black-box transfer in an evaluation."""

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
) -> dict[str, LoadedRun]:
    """Opens the runs to craft on.

    Args:
        paths: of run directories; one that is named twice is one.
        checkpoint: `"best"` or `"last"`; by default the best one if there is one.
        data_dir: where TensorFlow Datasets keeps the data, if not where it was in training.

    Returns:
        The runs by the names of their directories, or by their whole paths where names are the
        same.

    Raises:
        FileNotFoundError, ValueError: as `keras_robust.experiments.runs.loaded_run.load_run`.
    """
    distinct = list({Path(path).resolve(): Path(path) for path in paths}.values())
    short = len({path.name for path in distinct}) == len(distinct)
    return {
        (path.name if short else str(path)): load_run(path, checkpoint, data_dir)
        for path in distinct
    }


def crafted_on(
    opened: LoadedRun, attacks: Sequence[kr.Attack], sources: Mapping[str, LoadedRun]
) -> list[kr.Attack]:
    """The iterated attacks of an evaluation, crafted on other runs.

    Attacks of a single step are left out, and those for the nearest mistake, which stop where the
    source begins to err.

    Args:
        opened: the run to judge; where it is among the sources, it is left out.
        attacks: those on the run itself.
        sources: name -> run.

    Returns:
        One attack for each source and iterated attack; none without sources.

    Raises:
        ValueError: no source but the run itself, one of other data, or no iterated attack.
    """
    if not sources:
        return []
    here = opened.run.path.resolve()
    others = {name: one for name, one in sources.items() if one.run.path.resolve() != here}
    if not others:
        raise ValueError(
            f"There is no run but {opened.run.path} itself to craft on; expected another one in "
            "--transfer_from."
        )
    for one in others.values():
        _check_data(opened, one)
    iterated = [attack for attack in attacks if _iterates(attack)]
    if not iterated:
        raise ValueError(
            f"None of the attacks {', '.join(attack.name for attack in attacks)} can be crafted on "
            "another run; expected one that iterates within the radius, such as --attacks=pgd."
        )
    return [
        kr.attacks.transfer(attack, one.model, name)
        for name, one in others.items()
        for attack in iterated
    ]


def _check_data(opened: LoadedRun, source: LoadedRun) -> None:
    """Refuses a source that is for other images or classes."""
    mine, other = (
        (one.config.dataset.name, tuple(one.splits.info.image_shape), one.splits.info.classes)
        for one in (opened, source)
    )
    if mine != other:
        described = "{0} (images {1}, {2} classes)".format
        raise ValueError(
            f"{source.run.path} is of {described(*other)}, and {opened.run.path} of "
            f"{described(*mine)}; expected runs of one data set in --transfer_from."
        )


def _iterates(attack: kr.Attack) -> bool:
    return not isinstance(attack.inner, MinimumNormAttack) and (attack.gradient_steps or 0) > 1
