"""Evaluation: attack a model, and report what is left of its accuracy."""

from keras_robust.evaluation.card import Card, make_card
from keras_robust.evaluation.checks import check
from keras_robust.evaluation.latents import Latents, latents, project
from keras_robust.evaluation.metrics import (
    Divergence,
    class_divergence,
    divergence,
    divergence_of,
)
from keras_robust.evaluation.page import save_page
from keras_robust.evaluation.perturbations import Perturbations, perturbations
from keras_robust.evaluation.report import Report, load_reports
from keras_robust.evaluation.results import AttackResult, Check, Curve, Detection, ExampleImages
from keras_robust.evaluation.suite import evaluate
from keras_robust.evaluation.surface import Surface, input_surface, latent_surface
from keras_robust.evaluation.trajectory import trajectory
from keras_robust.evaluation.transfer import EnsembleTransfer, Transfer, black_box, transfer

__all__ = [
    "AttackResult",
    "Card",
    "Check",
    "Curve",
    "Detection",
    "Divergence",
    "EnsembleTransfer",
    "ExampleImages",
    "Latents",
    "Perturbations",
    "Report",
    "Surface",
    "Transfer",
    "black_box",
    "check",
    "class_divergence",
    "divergence",
    "divergence_of",
    "evaluate",
    "input_surface",
    "latent_surface",
    "latents",
    "load_reports",
    "make_card",
    "perturbations",
    "project",
    "save_page",
    "trajectory",
    "transfer",
]
