"""Compares the recipe of a run with the one to resume it with."""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.runs.recipe_stamp import training_fields


def check_resumable(kept: ConfigDict, config: ConfigDict) -> None:
    """Raises unless a run can be resumed with a recipe.

    Args:
        kept: the recipe of the run.
        config: the recipe to resume with.

    Raises:
        ValueError: fields differ on which the training steps depend.
    """
    before, now = training_fields(kept), training_fields(config)
    different = [
        f"{name} ({before.get(name)!r}, not {now.get(name)!r})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if different:
        raise ValueError(
            f"--resume needs the recipe of the run, which differs in {', '.join(different)}. Train "
            "in another --output_dir, or leave those fields unchanged."
        )
    kind = config.optimizer.schedule.kind
    if kept.epochs != config.epochs and kind in ("cosine", "one_cycle"):
        raise ValueError(
            f"The {kind} schedule of the run ends with its {kept.epochs} epochs; resume it without "
            "changing the epochs."
        )
