"""Evaluation: attack a model, and report what is left of its accuracy."""

from keras_robust.evaluation.page import save_page
from keras_robust.evaluation.report import Report, load_reports
from keras_robust.evaluation.results import AttackResult, Curve, Detection, ExampleImages
from keras_robust.evaluation.suite import evaluate
from keras_robust.evaluation.transfer import EnsembleTransfer, Transfer, black_box, transfer

__all__ = [
    "AttackResult",
    "Curve",
    "Detection",
    "EnsembleTransfer",
    "ExampleImages",
    "Report",
    "Transfer",
    "black_box",
    "evaluate",
    "load_reports",
    "save_page",
    "transfer",
]
