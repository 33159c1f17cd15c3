"""Evaluation: robust accuracy under attacks, reports, transfer, and diagnostics."""

from keras_robust.attacks.orthogonal_pgd import orthogonal_pgd
from keras_robust.evaluation.certify import certify
from keras_robust.evaluation.comparison import PairedTest, ReportComparison, compare_reports
from keras_robust.evaluation.corruption.measure import CorruptionAccuracy, corrupt, corruptions
from keras_robust.evaluation.detector_attacks import score_attacks
from keras_robust.evaluation.detector_comparison import (
    Compared,
    DetectorComparison,
    compare_detectors,
)
from keras_robust.evaluation.distributional_risk import DistributionalRisk, distributional_risk
from keras_robust.evaluation.evaluator import evaluate
from keras_robust.evaluation.model_card import Card, make_card
from keras_robust.evaluation.multi_task.gradient_conflict import (
    TaskGradients,
    task_gradients,
    task_gradients_at,
)
from keras_robust.evaluation.multi_task.measure import (
    success_rates,
    task_success,
    transfer_success_rates,
)
from keras_robust.evaluation.multi_task.success_rates import TaskSuccess, success_table
from keras_robust.evaluation.multi_task.task_history import TaskHistory, task_history
from keras_robust.evaluation.rendering.page import save_page
from keras_robust.evaluation.report import Report, load_reports
from keras_robust.evaluation.representation.class_divergence import (
    Divergence,
    class_divergence,
    divergence,
    divergence_of,
)
from keras_robust.evaluation.representation.contrast_pairs import ContrastPairs, contrast_pairs
from keras_robust.evaluation.representation.embeddings import Latents, latents, project
from keras_robust.evaluation.representation.gradient_strength import (
    GradientStrengths,
    gradient_strengths,
)
from keras_robust.evaluation.representation.latent_divergence import LatentDivergence
from keras_robust.evaluation.representation.loss_surface import (
    LossSurface,
    input_surface,
    latent_surface,
)
from keras_robust.evaluation.representation.perturbation_size import Perturbations, perturbations
from keras_robust.evaluation.representation.trajectory import trajectory
from keras_robust.evaluation.results.certification_result import CertificationResult
from keras_robust.evaluation.results.example_images import ExampleImages
from keras_robust.evaluation.results.optimality import optimality
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Check,
    Curve,
    Detection,
    DetectorResult,
    Part,
)
from keras_robust.evaluation.sanity_checks import sanity_checks
from keras_robust.evaluation.transfer import EnsembleTransfer, Transfer, black_box, transfer

__all__ = [
    "AttackResult",
    "Card",
    "CertificationResult",
    "Check",
    "Compared",
    "ContrastPairs",
    "CorruptionAccuracy",
    "Curve",
    "Detection",
    "DetectorComparison",
    "DetectorResult",
    "DistributionalRisk",
    "Divergence",
    "EnsembleTransfer",
    "ExampleImages",
    "GradientStrengths",
    "LatentDivergence",
    "Latents",
    "LossSurface",
    "PairedTest",
    "Part",
    "Perturbations",
    "Report",
    "ReportComparison",
    "TaskGradients",
    "TaskHistory",
    "TaskSuccess",
    "Transfer",
    "black_box",
    "certify",
    "class_divergence",
    "compare_detectors",
    "compare_reports",
    "contrast_pairs",
    "corrupt",
    "corruptions",
    "distributional_risk",
    "divergence",
    "divergence_of",
    "evaluate",
    "gradient_strengths",
    "input_surface",
    "latent_surface",
    "latents",
    "load_reports",
    "make_card",
    "optimality",
    "orthogonal_pgd",
    "perturbations",
    "project",
    "sanity_checks",
    "save_page",
    "score_attacks",
    "success_rates",
    "success_table",
    "task_gradients",
    "task_gradients_at",
    "task_history",
    "task_success",
    "trajectory",
    "transfer",
    "transfer_success_rates",
]


def __dir__() -> list[str]:
    return __all__
