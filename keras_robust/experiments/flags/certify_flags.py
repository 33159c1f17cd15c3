"""The flag of certification that the programs share."""

from __future__ import annotations

from absl import flags

flags.disclaim_key_flags()  # `--help` shows it as the program's own


def define(values: flags.FlagValues) -> None:
    """Declares the methods of certification."""
    flags.DEFINE_list(
        "certify",
        [],
        "Methods that prove robustness, beside the attacks: ibp, crown_ibp, crown, or smoothing "
        "(L2 only), with options as in smoothing:sigma=0.25:n=10000. Like sanity checks they are "
        "not counted in a time budget.",
        flag_values=values,
    )
