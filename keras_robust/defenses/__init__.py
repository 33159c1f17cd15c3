"""Defenses: each is a loss, an attack to train on, and a factory that puts them together."""

from keras_robust.defenses.adp import adp
from keras_robust.defenses.cce import cce
from keras_robust.defenses.ensemble_at import ensemble_at
from keras_robust.defenses.mart import mart
from keras_robust.defenses.pgd_at import pgd_at
from keras_robust.defenses.standard import standard
from keras_robust.defenses.trades import trades
from keras_robust.defenses.udr import udr
from keras_robust.defenses.wrm import wrm

__all__ = ["adp", "cce", "ensemble_at", "mart", "pgd_at", "standard", "trades", "udr", "wrm"]
