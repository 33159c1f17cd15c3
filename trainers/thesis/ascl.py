"""Chapter 3, second paper: adversarial supervised contrastive learning (ASCL).

Left out:
- Table 1 is a list of definitions.
- Of Table 3 the rows of other authors' methods.
- Figure 8 is a diagram.
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
from keras_robust.experiments.reproduction.measurements import Attacked, LatentDivergence
from keras_robust.experiments.reproduction.pictures import (
    ContrastPairs,
    Curves,
    History,
    LatentSpace,
    TradeOff,
)

RESNET20, CIFAR100 = "cifar10_resnet20", "cifar100_resnet20"
RESNET18, WRN, CNN = "cifar10_resnet18", "cifar10_wrn_34_10", "cifar10_cnn"
_TITLES = {
    RESNET20: "CIFAR-10, ResNet20",
    CIFAR100: "CIFAR-100, ResNet20",
    RESNET18: "CIFAR-10, ResNet18",
    WRN: "CIFAR-10, WRN-34-10",
    CNN: "CIFAR-10, CNN",
}
_EPS = 8 / 255
_CHECKPOINT = (
    "The thesis does not say how it chose checkpoints; these are the best of 2,000 held-out images."
)
_PGD = f"pgd:steps=250:step_size={2 / 255}"


def _training(setting: str, defense: str, **options: Any) -> Training:
    """A recipe of the chapter with changed options of its defense."""
    changes = {f"defense.options.{name}": value for name, value in options.items()}
    return Training(f"thesis/ascl/{setting}/{defense}", changes)


def _columns(setting: str, *, targeted: bool = False, full: bool = False) -> tuple[Column, ...]:
    radius, step = (0.01, 0.001) if setting == CIFAR100 else (_EPS, 2 / 255)
    options = f"steps=250:step_size={step}"
    pgd = Attacked(f"pgd:{options}", radius)
    many = Column("mPGD", Attacked(f"multi_targeted:{options}", radius))
    return (
        Column("Nat.", pgd, "clean"),
        Column("PGD", pgd),
        *((many,) if targeted else ()),
        Column("AA", Attacked("auto_attack", radius, None if full else 1000)),
    )


def _rows(trained: dict[str, tuple[Training, tuple[float | None, ...]]]) -> tuple[Row, ...]:
    return tuple(Row(name, (one,), thesis) for name, (one, thesis) in trained.items())


def _table_2() -> Experiment:
    defenses = {"ADV": "pgd_at", "TRADES": "trades", "ADR": "adr_pgd_at", "Ours": "ascl"}
    numbers = {
        RESNET20: (
            (78.8, 48.1, 36.4, 36.1),
            (76.1, 51.9, 38.2, 36.3),
            (76.8, 51.5, 38.9, 38.6),
            (75.5, 53.7, 41.0, 42.0),
        ),
        CIFAR100: (
            (60.7, 35.7, 25.3, 25.7),
            (59.0, 37.2, 25.3, 25.7),
            (59.1, 40.0, 29.1, 28.6),
            (59.0, 42.5, 31.1, 31.9),
        ),
    }
    return Experiment(
        "ascl-2",
        "ASCL, Table 2: ResNet20 under PGD-250, multi-targeted PGD-250 and AutoAttack",
        tuple(
            Part(
                _TITLES[setting],
                _columns(setting, targeted=True),
                tuple(
                    Row(name, (_training(setting, defense),), thesis)
                    for (name, defense), thesis in zip(defenses.items(), rows, strict=True)
                ),
                dict.fromkeys(list(defenses)[1:], "ADV"),
            )
            for setting, rows in numbers.items()
        ),
        notes=("The gain is over ADV; the thesis's GAP is the distance from Ours.", _CHECKPOINT),
    )


def _table_3() -> Experiment:
    numbers = {WRN: (87.70, 54.05, 52.80), RESNET18: (85.02, 53.40, 50.31)}
    return Experiment(
        "ascl-3",
        "ASCL, Table 3: large networks under AutoAttack on all test images",
        tuple(
            Part(
                _TITLES[setting],
                _columns(setting, full=True),
                (Row("Ours", (_training(setting, "ascl"),), thesis),),
            )
            for setting, thesis in numbers.items()
        ),
        notes=("Without the cross-entropy of natural images and without VAT.", _CHECKPOINT),
    )


_SELECTIONS = {"(Global) ASCL": "global", "Hard-ASCL": "hard", "Soft-ASCL": "soft",
               "Leaked-ASCL": "leaked"}  # fmt: skip


def _selected(name: str) -> Training:
    return _training(RESNET20, "ascl", selection=_SELECTIONS[name])


def _table_4() -> Experiment:
    numbers = {
        "(Global) ASCL": (76.4, 52.7, 40.4, 40.9),
        "Hard-ASCL": (75.5, 53.1, 41.0, 41.3),
        "Soft-ASCL": (75.5, 53.4, 40.6, 40.4),
        "Leaked-ASCL": (75.5, 53.7, 41.0, 42.0),
    }
    return Experiment(
        "ascl-4",
        "ASCL, Table 4: global and local selection",
        (
            Part(
                _TITLES[RESNET20],
                _columns(RESNET20, targeted=True),
                _rows({name: (_selected(name), thesis) for name, thesis in numbers.items()}),
                dict.fromkeys(list(numbers)[1:], "(Global) ASCL"),
            ),
        ),
        notes=(_CHECKPOINT,),
    )


def _table_5() -> Experiment:
    heads = {"without p()": None, "with p1()": "linear", "with p2()": "mlp"}
    numbers = {
        "global": ((76.4, 52.7, 40.9), (77.3, 53.3, 41.3), (76.6, 52.3, 39.7)),
        "leaked": ((75.5, 53.7, 42.0), (76.5, 54.1, 42.3), (75.7, 52.9, 41.1)),
    }
    parts = [
        Part(
            f"{_TITLES[RESNET20]}, {selection} selection",
            _columns(RESNET20),
            tuple(
                Row(f"ASCL {name}",
                    (_training(RESNET20, "ascl", selection=selection,
                               **({} if head is None else {"head": head})),), thesis)
                for (name, head), thesis in zip(heads.items(), rows, strict=True)
            ),
        )
        for selection, rows in numbers.items()
    ]  # fmt: skip
    return Experiment(
        "ascl-5",
        "ASCL, Table 5: projection heads of no, one and two layers",
        tuple(parts),
        notes=(_CHECKPOINT,),
    )


def _table_6() -> Experiment:
    def trained(setting: str) -> dict[str, Training]:
        return {
            "orgSCL": _training(setting, "scl"),
            "ADV": _training(setting, "pgd_at"),
            "ADV+SCL": _training(setting, "ascl"),
            "ADV+VAT": _training(setting, "ascl", scl=0.0, vat=2.0),
            "ADV+VAT+SCL": _training(setting, "ascl", vat=2.0),
        }

    numbers = {
        RESNET18: {
            "orgSCL": (93.80, 0.0, 0.0),
            "ADV": (82.75, 52.95, 48.81),
            "ADV+SCL": (85.02, 53.40, 50.31),
            "ADV+VAT": (83.73, 53.00, 49.39),
            "ADV+VAT+SCL": (84.54, 54.29, 49.66),
        },
        WRN: {
            "ADV": (84.93, 55.04, 51.12),
            "ADV+SCL": (87.70, 54.05, 52.80),
            "ADV+VAT": (85.96, 54.76, 51.87),
            "ADV+VAT+SCL": (87.12, 55.93, 52.53),
        },
    }
    over = {"ADV+SCL": "ADV", "ADV+VAT+SCL": "ADV+VAT"}
    return Experiment(
        "ascl-6",
        "ASCL, Table 6: components of ASCL",
        tuple(
            Part(
                _TITLES[setting],
                _columns(setting),
                _rows({name: (trained(setting)[name], thesis) for name, thesis in rows.items()}),
                over,
            )
            for setting, rows in numbers.items()
        ),
        notes=(_CHECKPOINT,),
    )


def _table_7() -> Experiment:
    numbers = {
        (0, 0): (78.8, 48.1, 36.1),
        (1, 0): (80.1, 46.5, 34.7),
        (2, 0): (79.5, 46.7, 34.7),
        (3, 0): (79.6, 45.8, 34.4),
        (4, 0): (79.2, 45.6, 34.3),
        (0, 1): (77.4, 50.6, 38.2),
        (0, 2): (75.4, 53.0, 40.0),
        (0, 3): (73.3, 54.4, 42.3),
        (0, 4): (71.2, 55.0, 43.1),
    }
    trained = {
        weights: _training(RESNET20, "ascl", scl=float(weights[0]), vat=float(weights[1]))
        for weights in numbers
    }
    trained[0, 0] = _training(RESNET20, "pgd_at")
    rows = tuple(
        Row(f"SCL {weights[0]}, VAT {weights[1]}", (trained[weights],), thesis)
        for weights, thesis in numbers.items()
    )
    return Experiment(
        "ascl-7",
        "ASCL, Table 7: weights of SCL and VAT",
        (Part(_TITLES[RESNET20], _columns(RESNET20), rows),),
        notes=(_CHECKPOINT,),
    )


def _figure_2() -> Experiment:
    latents = LatentDivergence(_PGD, _EPS)
    columns = (
        Column("robust", latents),
        *(Column(title, latents, value, percent=False)
          for title, value in (("R-DIV", "ratio"), ("intra", "intra"), ("inter", "inter"))),
    )  # fmt: skip
    parts = tuple(
        Part(
            _TITLES[setting],
            columns,
            tuple(
                Row(name, (_training(setting, defense),))
                for name, defense in (("NAT", "standard"), ("AT", "pgd_at"))
            ),
        )
        for setting in (CNN, RESNET20)
    )
    measured = {
        name: Training(f"thesis/ascl/{CNN}/{defense}", {"latent_divergence.images": 1000})
        for name, defense in (("NAT", "standard"), ("AT", "pgd_at"))
    }
    over_training = {name: (training, "r_div") for name, training in measured.items()}
    return Experiment(
        "ascl-fig-2",
        "ASCL, Figure 2: absolute and relative divergence of natural and adversarial training",
        parts,
        (
            TradeOff("divergence_cnn", "intra", "inter"),
            TradeOff("divergence_resnet20", "intra", "inter", part=1),
            History("over_training", over_training, "R-DIV"),
        ),
        notes=(_CHECKPOINT,),
    )


def _figure_3() -> Experiment:
    """Trade-off of ADV with growing radii, beside Leaked-ASCL."""
    eps = (4, 6, 8, 10, 12)
    trained = {
        f"ADV, {n}/255": Training(f"thesis/ascl/{RESNET20}/pgd_at", {"ball.radius": n / 255})
        for n in eps
    }
    pgd = Attacked(_PGD, _EPS)
    rows = (*(Row(name, (one,)) for name, one in trained.items()),
            Row("Ours", (_training(RESNET20, "ascl"),), (75.5, 53.7)))  # fmt: skip
    return Experiment(
        "ascl-fig-3",
        "ASCL, Figure 3: natural and robust accuracy over the radius of the training",
        (Part(_TITLES[RESNET20], (Column("Nat.", pgd, "clean"), Column("PGD", pgd)), rows),),
        (TradeOff("trade_off", "Nat.", "PGD", {"ADV": tuple(trained), "Ours": ("Ours",)}),),
        notes=("The thesis prints the radii in the figure only; these are another choice.",),
    )


def _figure_4() -> Experiment:
    return Experiment(
        "ascl-fig-4",
        "ASCL, Figure 4: number of positives and negatives over the training",
        (),
        tuple(
            History(kind, {name: (_selected(name), kind) for name in _SELECTIONS}, kind)
            for kind in ("positives", "negatives", "adversarial_negatives")
        ),
        notes=("Global selection has 26.4 positives and 228.6 negatives in the thesis.",),
    )


def _figure_5() -> Experiment:
    eps = (2, 4, 6, 8, 10, 12, 14, 16)
    trained = {
        "AT": _training(RESNET20, "pgd_at"),
        "ADR": _training(RESNET20, "adr_pgd_at"),
        "ASCL": _selected("(Global) ASCL"),
        "Leaked-ASCL": _selected("Leaked-ASCL"),
    }
    rows = tuple(Row(name, (one,)) for name, one in trained.items())
    measured = [LatentDivergence(_PGD, n / 255) for n in eps]
    titles = [f"{n}/255" for n in eps]
    divergence = tuple(
        Column(title, what, "ratio", percent=False)
        for title, what in zip(titles, measured, strict=True)
    )
    accuracy = tuple(Column(title, what) for title, what in zip(titles, measured, strict=True))
    radii = tuple(n / 255 for n in eps)
    return Experiment(
        "ascl-fig-5",
        "ASCL, Figure 5: R-DIV and robust accuracy over the radius of the attack",
        (Part("R-DIV", divergence, rows), Part("Robust accuracy", accuracy, rows)),
        (
            Curves("divergence", radii, "radius", 0, "R-DIV"),
            Curves("accuracy", radii, "radius", 1),
        ),
        notes=(_CHECKPOINT,),
    )


def _figure_6() -> Experiment:
    latents = LatentDivergence(_PGD, _EPS)
    columns = (
        Column("R-DIV", latents, "ratio", percent=False),
        Column("intra", latents, "intra", percent=False),
        Column("inter", latents, "inter", percent=False),
        Column("robust", latents),
    )
    trained = {
        "AT": (_training(RESNET20, "pgd_at"), 0.64),
        "ADR": (_training(RESNET20, "adr_pgd_at"), 0.63),
        "ASCL": (_selected("(Global) ASCL"), 0.49),
        "Leaked-ASCL": (_selected("Leaked-ASCL"), 0.48),
    }
    rows = tuple(Row(name, (one,), (r, None, None, None)) for name, (one, r) in trained.items())
    return Experiment(
        "ascl-fig-6",
        "ASCL, Figure 6: R-DIV, absolute divergences and robust accuracy at 8/255",
        (Part(_TITLES[RESNET20], columns, rows),),
        (TradeOff("divergence", "intra", "inter"),),
        notes=(_CHECKPOINT,),
    )


def _figure_7() -> Experiment:
    trained = {
        "nat": _training(RESNET20, "standard"),
        "at": _training(RESNET20, "pgd_at"),
        "ascl": _selected("(Global) ASCL"),
        "leaked_ascl": _selected("Leaked-ASCL"),
    }
    return Experiment(
        "ascl-fig-7",
        "ASCL, Figure 7: t-SNE of latents with entropies",
        (),
        tuple(LatentSpace(name, one, _PGD, 1000) for name, one in trained.items()),
    )


def _figure_9() -> Experiment:
    epochs = (1, 30, 200)
    return Experiment(
        "ascl-fig-9",
        "ASCL, Figure 9: positives and negatives of an image at three epochs",
        (),
        tuple(
            ContrastPairs(
                f"epoch_{n}",
                Training(
                    f"thesis/ascl/{RESNET20}/ascl",
                    # The learning rate does not change before the 80th epoch.
                    {"epochs": n} | ({"optimizer.schedule.boundaries": ()} if n < 80 else {}),
                    "last",
                ),
                _PGD,
            )
            for n in epochs
        ),
    )


EXPERIMENTS = (
    _table_2(),
    _table_3(),
    _table_4(),
    _table_5(),
    _table_6(),
    _table_7(),
    _figure_2(),
    _figure_3(),
    _figure_4(),
    _figure_5(),
    _figure_6(),
    _figure_7(),
    _figure_9(),
)
