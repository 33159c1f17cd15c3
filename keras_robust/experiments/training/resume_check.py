"""What a run may be resumed with."""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.flags.recipe_flags import leaves

# What may differ when a run is resumed: nothing that its steps depend on.
_FREE = ("epochs", "evaluation.", "detector.", "checkpoint.", "dataset.data_dir", "name")


def check_resumable(kept: ConfigDict, config: ConfigDict) -> None:
    """Refuses to resume a run with another recipe.

    Args:
        kept: the recipe of the run.
        config: the recipe to go on with.

    Raises:
        ValueError: a field differs that steps depend on.
    """
    before, now = leaves(kept.to_dict()), leaves(config.to_dict())
    different = [
        f"{name} ({before.get(name)!r}, not {now.get(name)!r})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not name.startswith(_FREE)
    ]
    if different:
        raise ValueError(
            f"--resume goes on with the recipe of the run, which differs in {', '.join(different)}."
            " Train it anew in another --output_dir, or leave those fields as they were."
        )
    if kept.epochs != config.epochs and config.optimizer.schedule.kind == "cosine":
        raise ValueError(
            f"The run was planned for {kept.epochs} epochs, and its cosine schedule with them; "
            "resume it without changing the epochs."
        )
