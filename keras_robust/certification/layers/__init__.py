"""The layers that bounds cover: one rule for each kind, and the table that finds it."""

from keras_robust.certification.layers.table import COVERED, rules_of

__all__ = ["COVERED", "rules_of"]
