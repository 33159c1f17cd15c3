"""Chapter 3, first paper: local and global compactness (ADR, ECCV 2020).

Left out:
- Supplementary Tables 1 and 2 list settings, which are those of the recipes `thesis/adr/...`.
- Figure 6 with steps of 0.02 is a table of `adr-fig-6`; Figure 5 is Figure 4 with heights, and the
  supplementary Figure 4 is Figure 3 there with heights.
"""

from __future__ import annotations

from typing import Any

from keras_robust.experiments.reproduction.experiment import (
    Column,
    Experiment,
    Part,
    Row,
    Training,
)
from keras_robust.experiments.reproduction.measurements import Attacked
from keras_robust.experiments.reproduction.pictures import Curves, LatentSpace, Surface

MNIST, CNN, RESNET = "mnist_cnn", "cifar10_cnn", "cifar10_resnet"
_TITLES = {MNIST: "MNIST", CNN: "CIFAR-10, CNN", RESNET: "CIFAR-10, ResNet"}
_LC = {"defense.options.global_weight": 0.0, "defense.options.smoothness_weight": 0.0}
_LC_GB = {"defense.options.smoothness_weight": 0.0}
_STEP = {MNIST: 0.01, CNN: 0.007, RESNET: 0.007}
_CHECKPOINT = (
    "The thesis does not say how it chose checkpoints; these are the best of 2,000 held-out images."
)


def _training(setting: str, defense: str, changes: dict[str, Any] | None = None) -> Training:
    return Training(f"thesis/adr/{setting}/{defense}", changes or {})


def _pgd(setting: str, radius: float, steps: int, name: str = "pgd") -> Attacked:
    return Attacked(f"{name}:steps={steps}:step_size={_STEP[setting]}", radius)


def _ablation(names: tuple[str, ...] = ("LC", "LC/GB", "LC/GB/CA")) -> dict[str, Training]:
    variants = {"LC": _LC, "LC/GB": _LC_GB, "LC/GB/CA": {}}
    found = {"ADR-None (ADV)": _training(MNIST, "pgd_at")}
    return found | {f"ADR+{name}": _training(MNIST, "adr_pgd_at", variants[name]) for name in names}


def _table_1() -> Experiment:
    numbers = {
        "Standard model": (99.5, 0.84),
        "ADR-None (ADV)": (99.27, 88.1),
        "ADR+LC": (99.41, 91.43),
        "ADR+LC/GB": (99.35, 94.52),
        "ADR+LC/GB/CA": (99.36, 94.96),
    }
    trained = {"Standard model": _training(MNIST, "standard"), **_ablation()}
    pgd = _pgd(MNIST, 0.325, 40)
    return Experiment(
        "adr-1",
        "ADR, Table 1: components of ADR on MNIST under PGD-40, radius 0.325",
        (
            Part(
                _TITLES[MNIST],
                (Column("Nat. acc.", pgd, "clean"), Column("Rob. acc.", pgd)),
                tuple(Row(name, (trained[name],), thesis) for name, thesis in numbers.items()),
                dict.fromkeys(list(numbers)[2:], "ADR-None (ADV)"),
            ),
        ),
        notes=(_CHECKPOINT,),
    )


_METHODS = {
    "Standard model": "standard",
    "ADV": "pgd_at",
    "TRADES": "trades",
    "ADR-ADV": "adr_pgd_at",
    "ADR-TRADES": "adr_trades",
}
_OVER = {"ADR-ADV": "ADV", "ADR-TRADES": "TRADES"}


def _nat_non_mul(setting: str, radius: float, steps: int) -> tuple[Column, ...]:
    pgd = _pgd(setting, radius, steps)
    targeted = _pgd(setting, radius, steps, "multi_targeted")
    return (
        Column("Nat. acc.", pgd, "clean"),
        Column("Non-target", pgd),
        Column("Mul-target", targeted),
    )


def _table_2() -> Experiment:
    numbers = {
        CNN: {
            "Standard model": (75.27, 12.26, 0.00),
            "ADV": (67.86, 33.12, 18.73),
            "TRADES": (71.37, 35.84, 18.01),
            "ADR-ADV": (69.09, 37.67, 22.58),
            "ADR-TRADES": (69.0, 39.68, 26.7),
        },
        RESNET: {
            "Standard model": (92.51, 0.00, 0.00),
            "ADV": (78.84, 44.08, 41.20),
            "TRADES": (83.27, 37.52, 35.05),
            "ADR-ADV": (78.43, 44.72, 41.43),
            "ADR-TRADES": (82.02, 40.17, 37.70),
        },
    }
    return Experiment(
        "adr-2",
        "ADR, Table 2: CIFAR-10 under PGD-20, radius 0.031",
        tuple(
            Part(
                _TITLES[setting],
                _nat_non_mul(setting, 0.031, 20),
                tuple(
                    Row(name, (_training(setting, _METHODS[name]),), thesis)
                    for name, thesis in rows.items()
                ),
                _OVER,
            )
            for setting, rows in numbers.items()
        ),
        notes=(_CHECKPOINT,),
    )


def _table_a3() -> Experiment:
    layers = {
        "G=2Conv, C=2Conv+3FC": "pool1",
        "G=3Conv, C=1Conv+3FC": "conv2_1",
        "CNN (G=4Conv, C=3FC)": "flatten",
        "G=4Conv+1FC, C=2FC": "fc1",
        "G=4Conv+2FC, C=1FC": "fc2",
    }
    numbers = {
        MNIST: (
            (99.52, 93.88, 92.78),
            (99.44, 94.38, 93.59),
            (99.48, 95.06, 94.26),
            (99.51, 94.38, 93.47),
            (99.52, 94.26, 93.45),
        ),
        CNN: (
            (68.78, 36.46, 21.99),
            (69.17, 37.05, 22.44),
            (69.08, 37.06, 22.44),
            (69.39, 37.31, 22.87),
            (69.13, 37.31, 22.57),
        ),
    }
    return Experiment(
        "adr-a3",
        "ADR, Table A3: the intermediate layer that is made compact, under PGD-100",
        tuple(
            Part(
                _TITLES[setting],
                _nat_non_mul(setting, 0.3 if setting == MNIST else 0.031, 100),
                tuple(
                    Row(
                        name, (_training(setting, "adr_pgd_at", {"model.features": layer}),), thesis
                    )
                    for (name, layer), thesis in zip(layers.items(), rows, strict=True)
                ),
            )
            for setting, rows in numbers.items()
        ),
        notes=(_CHECKPOINT,),
    )


def _table_a4() -> Experiment:
    numbers = {
        MNIST: {
            "ADV": (99.43, 93.13, 92.09, 93.00, 91.70, 94.05, 92.63),
            "ADR-ADV": (99.48, 95.06, 94.26, 94.86, 93.99, 95.41, 94.56),
        },
        CNN: {
            "ADV": (67.61, 32.87, 18.74, 32.89, 18.71, 33.00, 18.59),
            "ADR-ADV": (69.16, 36.85, 22.71, 36.82, 22.69, 36.96, 22.56),
        },
    }
    parts = []
    for setting, rows in numbers.items():
        radius = 0.3 if setting == MNIST else 0.031
        nat, pgd, targeted = _nat_non_mul(setting, radius, 100)
        columns = (
            nat,
            Column("PGD", pgd.measurement),
            Column("mul-PGD", targeted.measurement),
            Column("BIM", _pgd(setting, radius, 100, "bim")),
            Column("mul-BIM", _pgd(setting, radius, 100, "multi_targeted:attack=bim")),
            Column("MIM", _pgd(setting, radius, 100, "mim")),
            Column("mul-MIM", _pgd(setting, radius, 100, "multi_targeted:attack=mim")),
        )
        measured = tuple(
            Row(name, (_training(setting, _METHODS[name]),), thesis)
            for name, thesis in rows.items()
        )
        parts.append(Part(_TITLES[setting], columns, measured, {"ADR-ADV": "ADV"}))
    return Experiment(
        "adr-a4",
        "ADR, Table A4: PGD, BIM and MIM with 100 steps",
        tuple(parts),
        notes=("Rows and columns are exchanged, and each attack has a column.", _CHECKPOINT),
    )


_PGD_40 = "pgd:steps=40:step_size=0.01"
_MNIST_RADII = (0.1, 0.2, 0.3, 0.325, 0.35, 0.4, 0.5, 0.6, 0.7)
_CIFAR_EPS = (1, 4, 8, 12, 16, 20, 24, 28)


def _over_radius(setting: str, radii: tuple[float, ...], steps: int, size: float) -> Any:
    return tuple(
        Column(f"{radius:.4g}", Attacked(f"pgd:steps={steps}:step_size={size}", radius))
        for radius in radii
    )


def _figure_2() -> Experiment:
    rows = tuple(Row(name, (one,)) for name, one in _ablation().items())
    return Experiment(
        "adr-fig-2",
        "ADR, Figure 2: components of ADR on MNIST under PGD-40 over radius",
        (Part(_TITLES[MNIST], _over_radius(MNIST, _MNIST_RADII, 40, 0.01), rows),),
        (Curves("over_radius", _MNIST_RADII, "radius"),),
        notes=(_CHECKPOINT,),
    )


def _figure_3() -> Experiment:
    trained = _ablation(("LC",))
    pictures = [
        Surface(f"{space}_{name}", training, space)
        for space in ("input", "latent")
        for name, training in zip(("adv", "adr_lc"), trained.values(), strict=True)
    ]
    return Experiment(
        "adr-fig-3",
        "ADR, Figure 3: loss around a clean image, ADV and ADR+LC, in input and latent space",
        (),
        tuple(pictures),
    )


def _figure_4() -> Experiment:
    trained = _ablation(("LC/GB",))
    return Experiment(
        "adr-fig-4",
        "ADR, Figure 4: t-SNE of latents with entropies, ADV and ADR+LC/GB",
        (),
        tuple(
            LatentSpace(name, training, _PGD_40)
            for name, training in zip(("adv", "adr_lc_gb"), trained.values(), strict=True)
        ),
        notes=("The heights are those of Figure 5.",),
    )


def _figure_a(number: int, kind: str, thesis: str) -> Experiment:
    """The loss around adversarial examples that fool (positive), or do not (negative)."""
    trained = _ablation(("LC",))
    pictures = [
        Surface(f"{space}_{name}", training, space, _PGD_40, kind)
        for space in ("input", "latent")
        for name, training in zip(("adv", "adr_lc"), trained.values(), strict=True)
    ]
    return Experiment(
        f"adr-fig-a{number}",
        f"ADR, Figure A{number}: loss around a {thesis} adversarial example, ADV and ADR+LC",
        (),
        tuple(pictures),
    )


def _figure_a3() -> Experiment:
    trained = _ablation(("LC/GB",))
    return Experiment(
        "adr-fig-a3",
        "ADR, Figure A3: t-SNE of negative adversarial examples, ADV and ADR+LC/GB",
        (),
        tuple(
            LatentSpace(name, training, _PGD_40, kind="robust")
            for name, training in zip(("adv", "adr_lc_gb"), trained.values(), strict=True)
        ),
        notes=("The heights are those of Figure A4.",),
    )


def _methods_over_radius(
    name: str, title: str, setting: str, radii: tuple[float, ...], steps: int, sizes: Any
) -> Experiment:
    rows = tuple(
        Row(method, (_training(setting, defense),))
        for method, defense in _METHODS.items()
        if defense != "standard"
    )
    return Experiment(
        name,
        title,
        tuple(
            Part(f"{_TITLES[setting]}, steps of {size}",
                 _over_radius(setting, radii, steps, size), rows, _OVER)
            for size in sizes
        ),
        tuple(
            Curves(f"steps_of_{str(size).replace('.', '_')}", radii, "radius", part)
            for part, size in enumerate(sizes)
        ),
        notes=(_CHECKPOINT,),
    )  # fmt: skip


EXPERIMENTS = (
    _table_1(),
    _table_2(),
    _table_a3(),
    _table_a4(),
    _figure_2(),
    _figure_3(),
    _figure_4(),
    _figure_a(1, "fooling", "positive"),
    _figure_a(2, "robust", "negative"),
    _figure_a3(),
    _methods_over_radius(
        "adr-fig-6",
        "ADR, Figure 6: MNIST under PGD-40 over radius, two step sizes",
        MNIST,
        _MNIST_RADII,
        40,
        (0.01, 0.02),
    ),
    _methods_over_radius(
        "adr-fig-7",
        "ADR, Figure 7: CIFAR-10, CNN, under PGD-20 over radius, two step sizes",
        CNN,
        tuple(eps / 255 for eps in _CIFAR_EPS),
        20,
        (0.0039, 0.007),
    ),
)
