"""Nothing public without a row in the contracts and a line in the docs."""

from __future__ import annotations

import inspect
import pathlib

import pytest

import keras_robust as kr
from tests.contracts import attack_table, defense_table

ROOT = pathlib.Path(__file__).parents[2]
METHODS = (ROOT / "docs" / "methods.md").read_text()


@pytest.mark.parametrize(
    ("family", "table"),
    [(kr.attacks, attack_table.ROWS), (kr.defenses, defense_table.DEFENSES)],
    ids=["attacks", "defenses"],
)
def test_every_member_has_a_row_and_a_line(family, table):
    """A row is named after its member, alone or with more words; docs name it in code type."""
    rows = {key.split()[0] for key in table}
    assert rows == set(family.__all__), f"the table of the contracts and {family.__name__} differ"
    missing = [name for name in family.__all__ if f"`{name}`" not in METHODS]
    assert not missing, f"docs/methods.md does not name {missing}"


def test_what_is_public_is_there():
    for module in (kr, kr.attacks, kr.defenses, kr.evaluation, kr.plots):
        assert sorted(module.__all__) == list(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{module.__name__}.{name} has no docstring"


@pytest.mark.parametrize("family", [kr.attacks, kr.defenses], ids=lambda f: f.__name__)
def test_public_docstrings_have_all_their_parts(family):
    for name in family.__all__:
        docstring = getattr(family, name).__doc__
        if "; see `" in docstring:  # one line that points to the class with the rest
            docstring = getattr(
                family.composite, docstring.split("; see `")[1].split("`")[0]
            ).__doc__
        elif inspect.isfunction(getattr(family, name)):
            assert "Returns:" in docstring, name
        assert "Args:" in docstring and ">>>" in docstring, name


DIAGNOSTICS = [
    kr.evaluation.black_box,
    kr.evaluation.certify,
    kr.evaluation.sanity_checks,
    kr.evaluation.class_divergence,
    kr.evaluation.compare_detectors,
    kr.evaluation.compare_reports,
    kr.evaluation.contrast_pairs,
    kr.evaluation.corrupt,
    kr.evaluation.corruptions,
    kr.evaluation.distributional_risk,
    kr.evaluation.divergence,
    kr.evaluation.divergence_of,
    kr.evaluation.task_success,
    kr.evaluation.transfer_success_rates,
    kr.evaluation.success_rates,
    kr.evaluation.success_table,
    kr.evaluation.gradient_strengths,
    kr.evaluation.input_surface,
    kr.evaluation.latent_surface,
    kr.evaluation.latents,
    kr.evaluation.optimality,
    kr.evaluation.orthogonal_pgd,
    kr.evaluation.perturbations,
    kr.evaluation.project,
    kr.evaluation.score_attacks,
    kr.evaluation.task_gradients,
    kr.evaluation.task_gradients_at,
    kr.evaluation.task_history,
    kr.evaluation.trajectory,
    kr.evaluation.transfer,
    kr.plots.contrast_pairs,
    kr.plots.gradient_histogram,
    kr.plots.latent_space,
    kr.plots.loss_surface,
    kr.plots.member_predictions,
    kr.plots.roc_curves,
    kr.plots.step_curves,
    kr.plots.transfer_matrix,
]


@pytest.mark.parametrize("function", DIAGNOSTICS, ids=lambda function: function.__name__)
def test_a_diagnostic_has_a_line_and_all_parts_of_a_docstring(function):
    assert f"`{function.__name__}`" in METHODS
    for part in ("Args:", "Returns:", "Raises:", ">>>"):
        assert part in function.__doc__ or (part == "Raises:" and "NaN where" in function.__doc__)


def test_every_function_of_the_evaluation_is_named_here_or_there():
    """One that is new needs a line in the list above, or in the report's own tests."""
    functions = {
        name for name in kr.evaluation.__all__ if not isinstance(getattr(kr.evaluation, name), type)
    }
    report = {"evaluate", "load_reports", "make_card", "save_page"}
    described = {f.__name__ for f in DIAGNOSTICS if f is getattr(kr.evaluation, f.__name__, None)}
    assert functions - report == described
