"""Two evaluations on the same images: McNemar's test, and the images on which they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_robust.evaluation.rendering.tables import Cell, Table, table_html
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.evaluation.results.report_data import FOOLED, MISCLASSIFIED, ReportData

_SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """An accuracy of two models on the same images.

    Args:
        samples: number of images.
        both: number of images that both get right.
        only_first: numbers of the images, from 0, that only the first gets right.
        only_second: those that only the second gets right.
    """

    samples: int
    both: int
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]

    @property
    def accuracies(self) -> tuple[float, float]:
        """The accuracy of the first and of the second model."""
        counts = (self.both + len(self.only_first), self.both + len(self.only_second))
        return counts[0] / self.samples, counts[1] / self.samples

    @property
    def p_value(self) -> float:
        """The two-sided p-value of McNemar's test, exact: that of equally accurate models.

        Example:
            >>> PairedTest(100, 80, (1, 2, 3, 4, 5), ()).p_value
            0.0625

        Reference: McNemar, "Note on the Sampling Error of the Difference Between Correlated
        Proportions or Percentages" (1947); the binomial form is exact for few images.
        """
        from scipy.stats import binomtest  # slow to import

        differing = len(self.only_first) + len(self.only_second)
        if not differing:
            return 1.0
        return float(binomtest(len(self.only_first), differing).pvalue)

    @property
    def is_significant(self) -> bool:
        """Whether the p-value is below 5 %."""
        return self.p_value < _SIGNIFICANT


@dataclasses.dataclass(frozen=True)
class ReportComparison:
    """Two reports on the same images.

    Args:
        clean: the accuracy on clean images.
        worst_case: the fraction of images on which nothing that was run succeeded.
        warnings: differences of the settings that make the comparison doubtful.
    """

    clean: PairedTest
    worst_case: PairedTest
    warnings: tuple[str, ...] = ()

    def table(self) -> Table:
        """One row per accuracy: of the first and the second model, the p-value, what differs."""
        rows = tuple(
            (
                Cell(name),
                *(Cell(percent(accuracy)) for accuracy in test.accuracies),
                Cell(f"{test.p_value:.3g}", "" if test.is_significant else "not significant"),
                Cell(f"{len(test.only_first):,}"),
                Cell(f"{len(test.only_second):,}"),
            )
            for name, test in (("Clean", self.clean), ("Worst case", self.worst_case))
        )
        columns = ("Accuracy", "First", "Second", "p (McNemar)", "Only first", "Only second")
        return Table(f"Two models on the same {self.clean.samples:,} images", columns, rows)

    _repr_html_ = table_html


def compare_reports(first: ReportData, second: ReportData) -> ReportComparison:
    """Compares two reports on the same images.

    Args:
        first: a report of `evaluate`.
        second: another one on the same images: of another model, or of other attacks.

    Returns:
        Both accuracies image by image, with the p-values.

    Raises:
        ValueError: a report of an earlier release, which has no outcome of each image, or other
            images.

    Example:
        >>> import numpy as np
        >>> import keras_robust as kr
        >>> x, y = np.array([[0.5, 0.3], [0.9, 0.1]], "float32"), [0, 0]
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> reports = [
        ...     kr.evaluation.evaluate(lambda x, w=w: {"logits": x * w}, (x, y), attack)
        ...     for w in ([1.0, 1.0], [2.0, 1.0])
        ... ]
        >>> compare_reports(*reports).worst_case.only_second
        (0,)
    """
    for number, report in (("first", first), ("second", second)):
        if not report.outcomes:
            raise ValueError(
                f"The {number} report ({report.model}) has no outcome of each image; expected a "
                "report that this release wrote. Evaluate the model again."
            )
    if first.images_digest != second.images_digest:
        sizes = (first.samples, second.samples)
        what = "of {:,} and {:,} images".format(*sizes) if sizes[0] != sizes[1] else "of others"
        raise ValueError(
            f"The reports are not of the same images ({first.dataset} and {second.dataset}, "
            f"{what}); expected the same images and labels in the same order, and the same limit."
        )
    warnings = []
    if first.threat_model != second.threat_model:
        warnings.append(
            f"The threat models differ: {first.threat_model}; and {second.threat_model}."
        )
    names = [[attack.name for attack in report.attacks] for report in (first, second)]
    if names[0] != names[1]:
        warnings.append(f"The attacks differ: {', '.join(names[0])}; and {', '.join(names[1])}.")
    for report in (first, second):
        if report.unfinished:
            warnings.append(f"The evaluation of {report.model} is not complete.")
    return ReportComparison(
        _paired(first, second, lambda outcome: outcome != MISCLASSIFIED),
        _paired(first, second, lambda outcome: outcome not in (MISCLASSIFIED, FOOLED)),
        tuple(warnings),
    )


def _paired(first: ReportData, second: ReportData, is_right: Callable[[str], bool]) -> PairedTest:
    pairs = [
        (is_right(one), is_right(other))
        for one, other in zip(first.outcomes, second.outcomes, strict=True)
    ]
    return PairedTest(
        len(pairs),
        sum(one and other for one, other in pairs),
        tuple(i for i, (one, other) in enumerate(pairs) if one and not other),
        tuple(i for i, (one, other) in enumerate(pairs) if other and not one),
    )
