"""`certify`: the fraction of test images on which a model is proven robust."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.inputs import check_batch
from keras_robust.certification import check_supported, crown, crown_ibp, ibp, is_certified
from keras_robust.core.classifier import classifier_of
from keras_robust.core.graphs import compiled
from keras_robust.core.kept_graphs import compiled_forward
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_ball, check_norm, check_number, lookup
from keras_robust.evaluation.rendering.wording import percent, radius_text
from keras_robust.evaluation.results.certification_result import SMOOTHING, CertificationResult
from keras_robust.evaluation.results.descriptions import describe
from keras_robust.evaluation.running.adversarial_images import distance_limit
from keras_robust.evaluation.running.attack_runner import is_correct, predict_logits
from keras_robust.evaluation.running.batching import Data, Model, Progress, arrays, rows_in_batches

_BOUNDS: dict[str, Callable[..., Any]] = {
    "ibp": ibp,
    "crown_ibp": crown_ibp,
    "crown": crown,
}
METHODS = (*_BOUNDS, SMOOTHING)
_SECONDS = 30.0  # between two lines of progress
# `keras_robust.models.smoothed`, which this package is handed.
Smoothed: TypeAlias = Callable[[Any, Any], Any]


def certify(
    model: Any,
    data: Data,
    ball: Ball,
    method: Any = "ibp",
    *,
    radii: Iterable[float] = (),
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> CertificationResult:
    """Counts the images on which a model is proven robust.

    An attack that fails proves nothing; a certified image cannot be misclassified by any
    perturbation inside the ball, whatever the attack. `evaluate(..., certificates=[result])` shows
    it beside the attacks: clean accuracy >= worst case >= certified accuracy.

    "ibp" (interval bounds), "crown_ibp" and "crown" (linear bounds) are in order of cost and of
    tightness; they say little of a model that was not trained for them (`defenses.ibp`,
    `defenses.crown_ibp`). "smoothing" certifies the smoothed classifier, not the one inside it, in
    L2, and each of its certificates fails with probability at most `alpha`.

    Args:
        model: a robust model, or a classifier such as `kr.models.adapt(your_model)`; for
            "smoothing", `kr.models.smoothed(classifier, sigma)`.
        data: batches of images and labels as `fit` takes them, or a pair of arrays.
        ball: the threat model.
        method: "ibp", "crown_ibp", "crown" or "smoothing"; or bounds of
            `keras_robust.certification`.
        radii: certify at these radii too, for a curve. An image certified at one radius counts as
            certified at every smaller one.
        limit: use only the first `limit` images; None for all.
        seed: seed of the noise of "smoothing".
        progress: called with lines of text, such as `print`.
        **options: of "smoothing": `n`, `n0`, `alpha` and `batch_size` of
            `SmoothedClassifier.certify`; of another method, those of its function.

    Returns:
        The certified radius of each image, the accuracies and their intervals.

    Raises:
        TypeError: not a threat model, a norm that the method does not cover, a model without a
            graph of layers, or one that is not smoothed.
        ValueError: an unknown method, a layer that the method does not cover, no data, labels that
            are not classes of the model, or images out of the ball's bounds.

    Example:
        >>> import keras
        >>> import keras_robust as kr
        >>> layer = keras.layers.Dense(2, "softmax", kernel_initializer="identity")
        >>> yours = keras.Sequential([keras.Input((2,)), layer])
        >>> classifier = kr.models.adapt(yours)
        >>> x = np.array([[0.9, 0.1], [0.6, 0.5], [0.2, 0.7], [0.3, 0.4]], "float32")
        >>> data, ball = (x, [0, 0, 1, 0]), kr.LinfBall(0.1)
        >>> proof = certify(classifier, data, ball, "crown", radii=[0.05, 0.3])
        >>> proof.clean_accuracy, proof.certified_accuracy
        (0.75, 0.5)
        >>> proof.certified_radii
        (0.3, 0.0, 0.1, None)
        >>> report = kr.evaluation.evaluate(
        ...     classifier, data, kr.attacks.fgsm(ball), certificates=[proof])
        >>> report.clean_accuracy, report.worst_case_accuracy, report.unproven
        (0.75, 0.5, 0)

    Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models" (2018); Zhang et al., "Efficient Neural Network Robustness
    Certification with General Activation Functions" (2018); Cohen et al., "Certified Adversarial
    Robustness via Randomized Smoothing" (2019).
    """
    radius = float(check_ball(ball))
    grid = _increasing(radius, radii)
    method_of = _smoothing_method if method == SMOOTHING else _bounds_method
    chosen = method_of(model, ball, method, seed, options)
    x, y, batch_size = arrays(data, limit)
    start, say = time.monotonic(), progress or (lambda line: None)
    x = check_batch(x, y, None, ball.bounds)[0].numpy()
    certified, correct = chosen.measure(x, y, batch_size, grid, lambda s: say(f"{chosen.name}{s}"))
    result = CertificationResult(
        chosen.name,
        chosen.method,
        describe(ball),
        radius,
        grid,
        tuple(float(r) if right else None for r, right in zip(certified, correct, strict=True)),
        time.monotonic() - start,
        chosen.settings,
        tuple(map(int, np.flatnonzero((certified > 0) & ~correct))),
    )
    say(
        f"{result.name}: certified accuracy {result.certified_accuracy:.4f}, clean accuracy "
        f"{result.clean_accuracy:.4f} ({result.seconds:.1f} s)"
    )
    return result


def _increasing(radius: float, radii: Iterable[float]) -> tuple[float, ...]:
    """The radii at which to certify: those given, above 0, and that of the ball."""
    radii = list(radii)
    for value in radii:
        check_number("radii", value)
    return tuple(sorted({radius} | {float(value) for value in radii if value > 0}))


@dataclasses.dataclass(frozen=True)
class _Method:
    """A method of certification, ready to run.

    Attributes:
        name: for tables.
        method: as `certify` takes it.
        settings: its options.
        measure: images, labels, batch size, radii, progress -> largest certified radius (0 for
            none), `[n]`, and whether the prediction is the label, `[n]`.
    """

    name: str
    method: str
    settings: dict[str, Any]
    measure: Callable[..., tuple[np.ndarray, np.ndarray]]


def _bounds_method(
    model: Any, ball: Ball, method: Any, seed: int, options: dict[str, Any]
) -> _Method:
    """Certification by lower bounds of the margins."""
    classifier = classifier_of(model)
    if isinstance(method, str):
        factory = _BOUNDS[lookup("method of certification", method, METHODS)]
        _check_options(method, factory, options)
        bounds = factory(ball, **options)
        check_supported(classifier)
    else:
        _check_options(method.name, lambda ball: ball, options)
        bounds = method.at_radius(ball.radius)
    name = str(bounds.name)

    def measure(x, y, batch_size, radii, say):  # type: ignore[no-untyped-def]
        logits = predict_logits(compiled_forward(classifier), x, batch_size)
        check_batch(x, y, None, ball.bounds, classes=logits.shape[1])
        found = _largest_radii(bounds, classifier, (x, y, batch_size), radii, say)
        return found, is_correct(logits, y)

    return _Method(name, method if isinstance(method, str) else name, options, measure)


def _check_options(method: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises ValueError unless a function of one argument takes the options."""
    try:
        inspect.signature(function).bind(None, **options)
    except TypeError as error:
        raise ValueError(f"The method {method} of certification {error}.") from None


def _largest_radii(
    bounds: Any,
    classifier: Any,
    data: tuple[np.ndarray, np.ndarray, int],
    radii: Sequence[float],
    say: Progress,
) -> np.ndarray:
    """The largest radius at which each image is certified, `[n]`; 0 if there is none."""
    x, y, batch_size = data

    @compiled
    def certified(x: tf.Tensor, y: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
        margins = bounds.at_radius(radius)(classifier, x, y)
        return is_certified(margins, y)

    found, told = np.zeros(len(x)), time.monotonic()
    for radius in reversed(radii):
        where = f" at radius {radius_text(radius)}"
        open_ = np.flatnonzero(found == 0)  # the others are certified at a larger radius
        # An evaluation counts images up to this distance as inside the ball: so does a proof.
        limit = tf.constant(distance_limit(radius), tf.float32)
        for number, (rows, real) in enumerate(rows_in_batches(len(open_), batch_size), 1):
            rows = open_[rows]
            proven = certified(tf.constant(x[rows]), tf.constant(y[rows]), limit).numpy()[:real]
            found[rows[:real][proven]] = radius
            if time.monotonic() - told >= _SECONDS and number * batch_size < len(open_):
                say(f"{where}: {number * batch_size:,} of {len(open_):,} images")
                told = time.monotonic()
        say(f"{where}: {percent(float((found > 0).mean()))} certified")
    return found


def _smoothing_method(
    model: Any, ball: Ball, method: Any, seed: int, options: dict[str, Any]
) -> _Method:
    """Certification of a smoothed classifier."""
    check_norm("Certification by randomized smoothing", ball, (2,))
    if isinstance(model, keras.Model) or not hasattr(model, "certify"):
        raise TypeError(
            f"The model is {model!r}; expected a smoothed classifier for the method 'smoothing', "
            "such as `keras_robust.models.smoothed(classifier, sigma=0.25)`."
        )

    def measure(x, y, batch_size, radii, say):  # type: ignore[no-untyped-def]
        classes, found = np.zeros(len(x), int), np.zeros(len(x))
        for begin in range(0, len(x), batch_size):
            rows = slice(begin, min(begin + batch_size, len(x)))
            own = np.random.SeedSequence((seed, begin)).generate_state(1)  # noise of its own
            part = model.certify(x[rows], seed=int(own[0]), **options)
            classes[rows], found[rows] = part.classes, part.radii
            say(f": {rows.stop} of {len(x)} images")
        # The proof is one for distances below the radius, and the ball is closed.
        return np.where(classes == y, np.nextafter(found, 0), 0.0), classes == y

    _check_options(SMOOTHING, model.certify, options)
    given = inspect.signature(model.certify).bind(None, seed=seed, **options)
    given.apply_defaults()
    settings = {name: given.arguments[name] for name in ("n", "n0", "alpha", "seed")}
    settings["sigma"] = float(model.sigma)
    return _Method(f"smoothing, sigma {model.sigma:g}", SMOOTHING, settings, measure)


def certify_again(
    result: CertificationResult,
    model: Model,
    data: Data,
    ball: Ball,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    smoothed: Smoothed | None = None,
) -> CertificationResult:
    """Certifies with the method, settings and radii of an earlier result.

    Args:
        result: the earlier result.
        model, data, ball, limit, progress: as for `certify`.
        smoothed: makes a smoothed classifier of a model and the standard deviation of the noise.

    Raises:
        ValueError: a method, settings, a model or a ball that `certify` does not take, or
            `smoothed` is missing.
    """
    settings = dict(result.settings)
    if result.smoothed:
        if smoothed is None:
            raise ValueError(
                f"{result.name} certifies a smoothed classifier; pass "
                "`smoothed=keras_robust.models.smoothed`."
            )
        model = smoothed(classifier_of(model), settings.pop("sigma", None))
    try:
        return certify(
            model,
            data,
            ball,
            result.method,
            radii=result.radii,
            limit=limit,
            progress=progress,
            **settings,
        )
    except TypeError as error:  # such as a norm that the method does not cover
        raise ValueError(f"{result.name} cannot be certified again: {error}") from error
