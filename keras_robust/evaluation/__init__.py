"""Evaluation: attack a model, and report what is left of its accuracy."""

from keras_robust.evaluation.page import save_page
from keras_robust.evaluation.report import Report, load_reports
from keras_robust.evaluation.results import AttackResult, Curve, Detection, ExampleImages
from keras_robust.evaluation.suite import evaluate
from keras_robust.evaluation.trajectory import trajectory

__all__ = [
    "AttackResult",
    "Curve",
    "Detection",
    "ExampleImages",
    "Report",
    "evaluate",
    "load_reports",
    "save_page",
    "trajectory",
]
