"""Evaluation: attack a model, and report what is left of its accuracy."""

from keras_robust.evaluation.achieved import goals, goals_elsewhere, goals_of
from keras_robust.evaluation.attackers import score_attacks
from keras_robust.evaluation.card import Card, make_card
from keras_robust.evaluation.checks import check
from keras_robust.evaluation.example_images import ExampleImages
from keras_robust.evaluation.goals import Goals, goals_table
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
from keras_robust.evaluation.results import (
    Attacker,
    AttackResult,
    Check,
    Curve,
    Detection,
    Part,
)
from keras_robust.evaluation.suite import evaluate
from keras_robust.evaluation.surface import Surface, input_surface, latent_surface
from keras_robust.evaluation.task_gradients import TaskGradients, task_gradients
from keras_robust.evaluation.trajectory import trajectory
from keras_robust.evaluation.transfer import EnsembleTransfer, Transfer, black_box, transfer

__all__ = [
    "AttackResult",
    "Attacker",
    "Card",
    "Check",
    "Curve",
    "Detection",
    "Divergence",
    "EnsembleTransfer",
    "ExampleImages",
    "Goals",
    "Latents",
    "Part",
    "Perturbations",
    "Report",
    "Surface",
    "TaskGradients",
    "Transfer",
    "black_box",
    "check",
    "class_divergence",
    "divergence",
    "divergence_of",
    "evaluate",
    "goals",
    "goals_elsewhere",
    "goals_of",
    "goals_table",
    "input_surface",
    "latent_surface",
    "latents",
    "load_reports",
    "make_card",
    "perturbations",
    "project",
    "save_page",
    "score_attacks",
    "task_gradients",
    "trajectory",
    "transfer",
]
