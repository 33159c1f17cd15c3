"""Chapter 5: a unified Wasserstein distributional robustness framework (UDR, ICLR 2022).

Left out:
- Table 11 lists formulas; `SoftBallStep` has them as penalties.
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
from keras_robust.experiments.reproduction.measurements import Attacked, TrainingPerturbations
from keras_robust.experiments.reproduction.pictures import (
    Curves,
    DecisionRegions,
    GradientHistogram,
    History,
    RowCurves,
    TradeOff,
    Trajectories,
)
from trainers.recipes.toy import SIDE

_METHODS = {
    "PGD-AT": "pgd_at",
    "UDR-PGD": "udr_pgd_at",
    "TRADES": "trades",
    "UDR-TRADES": "udr_trades",
    "MART": "mart",
    "UDR-MART": "udr_mart",
}
_OVER = {"UDR-PGD": "PGD-AT", "UDR-TRADES": "TRADES", "UDR-MART": "MART"}
MNIST, CIFAR10, CIFAR100 = "mnist_cnn", "cifar10_resnet18", "cifar100_resnet18"
_TITLES = {MNIST: "MNIST", CIFAR10: "CIFAR-10, ResNet18", CIFAR100: "CIFAR-100, ResNet18"}
_RADIUS = {MNIST: 0.3, CIFAR10: 8 / 255, CIFAR100: 0.01}
_STEP = {MNIST: 0.01, CIFAR10: 2 / 255, CIFAR100: 0.001}
_CHECKPOINT = (
    "The thesis does not say how it chose checkpoints; these are the best of 2,000 held-out images."
)
_DUAL = "The thesis prints no learning rate of lambda; it is that of the authors' code, 0.02."


def _training(setting: str, defense: str, **changes: Any) -> Training:
    """A recipe of the chapter; `__` in the name of a change stands for a dot."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return Training(f"thesis/udr/{setting}/{defense}", fields)


def _pgd(setting: str, radius: float | None = None, steps: int = 200) -> Attacked:
    attack = f"pgd:steps={steps}:step_size={_STEP[setting]}"
    return Attacked(attack, _RADIUS[setting] if radius is None else radius)


def _columns(setting: str) -> tuple[Column, ...]:
    """Natural accuracy and PGD on all test images, AutoAttack and B&B on 1,000."""
    radius = _RADIUS[setting]
    return (
        Column("Nat", _pgd(setting), "clean"),
        Column("PGD", _pgd(setting)),
        Column("AA", Attacked("auto_attack", radius, limit=1000)),
        Column("B&B", Attacked("brendel_bethge:steps=200", radius, limit=1000)),
    )


def _over_radius(setting: str, radii: tuple[float, ...], titles: tuple[str, ...]) -> Any:
    """A column of PGD for each radius."""
    pairs = zip(titles, radii, strict=True)
    return tuple(Column(title, _pgd(setting, radius)) for title, radius in pairs)


def _rows(setting: str, numbers: dict[str, tuple[float | None, ...]]) -> tuple[Row, ...]:
    return tuple(
        Row(name, (_training(setting, _METHODS[name]),), thesis) for name, thesis in numbers.items()
    )


_TABLE_1 = {
    MNIST: {
        "PGD-AT": (99.4, 94.0, 88.9, 91.3),
        "UDR-PGD": (99.5, 94.3, 90.0, 91.4),
        "TRADES": (99.4, 95.1, 90.9, 92.2),
        "UDR-TRADES": (99.4, 96.9, 92.2, 95.2),
        "MART": (99.3, 94.7, 90.6, 92.9),
        "UDR-MART": (99.3, 96.0, 92.3, 94.4),
    },
    CIFAR10: {
        "PGD-AT": (86.4, 46.0, 42.5, 44.2),
        "UDR-PGD": (86.4, 48.9, 44.8, 46.0),
        "TRADES": (80.8, 51.9, 49.1, 50.2),
        "UDR-TRADES": (84.4, 53.6, 49.9, 51.0),
        "MART": (81.9, 53.3, 48.2, 49.3),
        "UDR-MART": (80.1, 54.1, 49.1, 50.4),
    },
    CIFAR100: {
        "PGD-AT": (72.4, 41.7, 39.3, 39.6),
        "UDR-PGD": (73.5, 45.1, 41.9, 42.3),
        "TRADES": (68.1, 49.7, 46.7, 47.2),
        "UDR-TRADES": (69.6, 49.9, 47.8, 48.7),
        "MART": (68.1, 49.8, 44.8, 45.4),
        "UDR-MART": (67.5, 52.0, 48.5, 48.6),
    },
}
_TABLE_2 = {
    MNIST: {
        "PGD-AT": (94.0, 67.8, 21.1, 6.8, 2.3, 1.2),
        "UDR-PGD": (94.3, 92.9, 90.1, 79.2, 22.3, 3.8),
        "TRADES": (95.5, 85.2, 34.4, 5.8, 0.6, 0.1),
        "UDR-TRADES": (96.9, 96.9, 95.8, 95.1, 94.5, 88.5),
        "MART": (94.7, 66.1, 9.4, 0.9, 0.2, 0.1),
        "UDR-MART": (96.0, 95.0, 94.1, 92.8, 88.8, 37.7),
    },
    CIFAR10: {
        "PGD-AT": (46.0, 33.7, 23.7, 15.2, 9.5, 3.6),
        "UDR-PGD": (48.9, 36.4, 26.3, 18.5, 13.0, 7.1),
        "TRADES": (51.9, 42.5, 33.7, 25.7, 18.9, 9.1),
        "UDR-TRADES": (53.6, 43.6, 35.2, 27.5, 20.7, 10.9),
        "MART": (53.3, 43.2, 34.1, 25.5, 18.4, 9.0),
        "UDR-MART": (54.1, 46.0, 37.3, 29.7, 22.9, 12.2),
    },
    CIFAR100: {
        "PGD-AT": (41.7, 34.5, 27.8, 22.6, 18.2, 11.7),
        "UDR-PGD": (45.1, 38.3, 31.9, 26.2, 21.4, 14.2),
        "TRADES": (49.7, 44.3, 39.9, 35.2, 31.2, 23.5),
        "UDR-TRADES": (49.9, 44.8, 40.3, 35.7, 31.7, 24.2),
        "MART": (49.8, 45.3, 41.0, 36.6, 32.4, 25.1),
        "UDR-MART": (52.0, 47.8, 44.1, 40.2, 36.2, 29.4),
    },
}
_TABLE_2_GAINS = {
    MNIST: {"UDR-PGD": 31.57, "UDR-TRADES": 57.68, "UDR-MART": 55.5},
    CIFAR10: {"UDR-PGD": 3.08, "UDR-TRADES": 1.62, "UDR-MART": 3.12},
    CIFAR100: {"UDR-PGD": 3.43, "UDR-TRADES": 0.47, "UDR-MART": 3.25},
}
_EPS_CIFAR10 = (8, 10, 12, 14, 16, 20)
_RADII = {
    MNIST: (0.3, 0.325, 0.35, 0.375, 0.4, 0.425),
    CIFAR10: tuple(eps / 255 for eps in _EPS_CIFAR10),
    CIFAR100: (0.01, 0.0125, 0.015, 0.0175, 0.02, 0.025),
}
_RADIUS_TITLES = {
    MNIST: tuple(map(str, _RADII[MNIST])),
    CIFAR10: tuple(f"{eps}/255" for eps in _EPS_CIFAR10),
    CIFAR100: tuple(map(str, _RADII[CIFAR100])),
}
_TABLE_3 = {
    "PGD-AT": (None, None, 61.6, 61.6, 61.7, 62.4),
    "UDR-PGD": (None, None, 63.6, 63.4, 64.0, 64.1),
    "TRADES": (61.2, 61.3, None, None, 58.9, 59.8),
    "UDR-TRADES": (62.7, 62.8, None, None, 61.1, 61.6),
    "MART": (61.4, 61.4, 58.9, 59.5, None, None),
    "UDR-MART": (62.3, 62.1, 60.1, 60.5, None, None),
}
_WIDE = "cifar10_wrn_34_10"
_WIDE_METHODS = {
    "PGD-AT*": "pgd_at",
    "UDR-PGD*": "udr_pgd_at",
    "TRADES": "trades",
    "UDR-TRADES": "udr_trades",
    "AWP-AT": "awp_pgd_at",
    "UDR-AWP-AT": "udr_awp_pgd_at",
}
_WIDE_OVER = {"UDR-PGD*": "PGD-AT*", "UDR-TRADES": "TRADES", "UDR-AWP-AT": "AWP-AT"}


def _table_1() -> Experiment:
    return Experiment(
        "udr-1",
        "UDR, Table 1: natural accuracy, and accuracy under PGD-200, AutoAttack and B&B",
        tuple(
            Part(_TITLES[setting], _columns(setting), _rows(setting, numbers), _OVER)
            for setting, numbers in _TABLE_1.items()
        ),
        notes=(_CHECKPOINT, _DUAL),
    )


def _table_2() -> Experiment:
    return Experiment(
        "udr-2",
        "UDR, Table 2: accuracy under PGD-200 over radius",
        tuple(
            Part(
                _TITLES[setting],
                _over_radius(setting, _RADII[setting], _RADIUS_TITLES[setting]),
                _rows(setting, numbers),
                _OVER,
                _TABLE_2_GAINS[setting],
            )
            for setting, numbers in _TABLE_2.items()
        ),
        notes=(_CHECKPOINT, _DUAL),
    )


def _table_3() -> Experiment:
    sources = {title: _training(CIFAR10, defense) for title, defense in _METHODS.items()}
    attack = f"pgd:steps=200:step_size={_STEP[CIFAR10]}"
    columns = tuple(
        Column(f"on {title}", Attacked(attack, _RADIUS[CIFAR10], source=source))
        for title, source in sources.items()
    )
    names = list(_METHODS)
    rows = []
    for index, (title, thesis) in enumerate(_TABLE_3.items()):
        first = index // 2 * 2  # a method and its counterpart are no sources for each other
        skip = tuple(f"on {name}" for name in names[first : first + 2])
        rows.append(Row(title, (sources[title],), thesis, skip=skip))
    return Experiment(
        "udr-3",
        "UDR, Table 3: accuracy under PGD that is crafted on other methods (columns)",
        (
            Part(
                _TITLES[CIFAR10],
                columns,
                tuple(rows),
                _OVER,
                {"UDR-PGD": 2.0, "UDR-TRADES": 1.8, "UDR-MART": 1.0},
            ),
        ),
        notes=("The thesis does not name the data set and the steps; these are CIFAR-10 and 200.",),
    )


def _wide_rows(numbers: dict[str, tuple[float | None, ...]]) -> tuple[Row, ...]:
    return tuple(
        Row(title, (_training(_WIDE, _WIDE_METHODS[title]),), thesis)
        for title, thesis in numbers.items()
    )


def _carlini_wagner(c: float) -> Attacked:
    # No radius: an image counts as attacked wherever the attack ends. L2 of CIFAR-10 is below 56.
    options = f"initial_const={c}:binary_search_steps=1:steps=1000:learning_rate=0.01"
    return Attacked(f"carlini_wagner:{options}", 56.0, norm="l2")


def _table_4() -> Experiment:
    pgd = _pgd(CIFAR10, steps=100)
    return Experiment(
        "udr-4",
        "UDR, Table 4: WRN-34-10 on CIFAR-10, PGD-100, AutoAttack and C&W on all test images",
        (
            Part(
                "CIFAR-10, WRN-34-10",
                (
                    Column("Nat", pgd, "clean"),
                    Column("PGD", pgd),
                    Column("AA", Attacked("auto_attack", _RADIUS[CIFAR10])),
                    Column("C&W", _carlini_wagner(0.5)),
                ),
                _wide_rows(
                    {
                        "PGD-AT*": (84.93, 55.04, 52.12, 40.85),
                        "UDR-PGD*": (84.60, 55.71, 52.98, 47.31),
                        "TRADES": (85.70, 56.97, 53.82, 47.65),
                        "UDR-TRADES": (84.93, 57.35, 54.45, 49.14),
                        "AWP-AT": (85.57, 57.78, 53.91, 49.91),
                        "UDR-AWP-AT": (85.51, 58.65, 54.40, 54.44),
                    }
                ),
                _WIDE_OVER,
            ),
        ),
        notes=(
            "* Without the cross-entropy of natural images.",
            "The thesis prints no weight of AWP; it is 0.01.",
            "The last rows of the original, of other authors, are not repeated.",
            _CHECKPOINT,
        ),
    )


def _table_5() -> Experiment:
    within = (
        ("p(<=0.9 eps)", "within_0.9"),
        ("p(<=eps)", "within_1"),
        ("p(<=1.1 eps)", "within_1.1"),
    )
    what = TrainingPerturbations()
    # The state after the first epoch: the learning rate does not change before the 75th.
    first = {"epochs": 1, "optimizer.schedule.boundaries": ()}
    soft, hard = (_training(CIFAR10, name) for name in ("udr_pgd_at", "pgd_at"))
    trained = {
        "PGD": (hard, (0.0270, 0.031, 19.7, 100, 100)),
        "UDR-PGD at epoch 0": (soft.but(first), (0.0278, 0.031, 18.9, 100, 100)),
        "UDR-PGD at epoch 200": (soft, (0.0301, 0.034, 19.5, 22.1, 100)),
    }
    return Experiment(
        "udr-5",
        "UDR, Table 5: sizes of the training attack's perturbations",
        (
            Part(
                _TITLES[CIFAR10],
                (
                    Column("L1", what, "l1", percent=False),
                    Column("Linf", what, "linf", percent=False),
                    *(Column(title, what, value) for title, value in within),
                ),
                tuple(
                    Row(title, (Training(one.recipe, one.changes, "last"),), thesis)
                    for title, (one, thesis) in trained.items()
                ),
            ),
        ),
        notes=("Measured on test images, after the last epoch; `epoch 0` is after the first one.",),
    )


def _table_6() -> Experiment:
    pgd_at = _training(CIFAR10, "pgd_at")
    trained = {
        "PGD-AT at 0.031": (pgd_at, (46.0, 33.7, 23.7, 15.2, 9.5, 3.6)),
        "PGD-AT at 0.034": (
            pgd_at.but({"ball.radius": 0.034}),
            (46.7, 34.8, 24.7, 16.2, 10.1, 3.7),
        ),
        "PGD-AT at 0.037": (
            pgd_at.but({"ball.radius": 0.037}),
            (44.9, 33.3, 23.7, 15.6, 10.0, 3.8),
        ),
        "UDR-PGD at 0.031": (
            _training(CIFAR10, "udr_pgd_at"),
            (48.9, 36.4, 26.3, 18.5, 13.0, 7.1),
        ),
    }
    others = list(trained)[1:]
    return Experiment(
        "udr-6",
        "UDR, Table 6: PGD-AT with larger radii, under PGD-200 over radius",
        (
            Part(
                _TITLES[CIFAR10],
                _over_radius(CIFAR10, _RADII[CIFAR10], _RADIUS_TITLES[CIFAR10]),
                tuple(Row(name, (one,), thesis) for name, (one, thesis) in trained.items()),
                dict.fromkeys(others, "PGD-AT at 0.031"),
                dict(zip(others, (0.75, -0.07, 3.08), strict=True)),
            ),
        ),
        notes=("0.031 is 8/255.", _CHECKPOINT),
    )


def _table_7() -> Experiment:
    columns = (
        Column("Nat", _carlini_wagner(0.5), "clean"),
        *(Column(f"c = {c}", _carlini_wagner(c)) for c in (0.5, 0.7, 1.0)),
    )
    return Experiment(
        "udr-7",
        "UDR, Table 7: C&W (L2) with three constants on WRN-34-10",
        (
            Part(
                "CIFAR-10, WRN-34-10",
                columns,
                _wide_rows(
                    {
                        "PGD-AT*": (84.93, 40.85, 25.90, 12.95),
                        "UDR-PGD*": (84.60, 47.31, 31.58, 16.57),
                        "TRADES": (85.70, 47.65, 34.30, 21.03),
                        "UDR-TRADES": (84.93, 49.14, 36.33, 23.28),
                        "AWP-AT": (85.57, 49.91, 34.31, 18.97),
                        "UDR-AWP-AT": (85.51, 54.44, 39.86, 23.61),
                    }
                ),
                _WIDE_OVER,
                {"UDR-PGD*": 5.25, "UDR-TRADES": 1.92, "UDR-AWP-AT": 4.91},
            ),
        ),
        notes=("* Without the cross-entropy of natural images.", _CHECKPOINT),
    )


def _table_8() -> Experiment:
    numbers = {
        0.1: (90.9, 15.3, 13.7, 15.8),
        0.5: (86.7, 33.9, 32.6, 35.4),
        1.0: (83.7, 40.9, 39.8, 41.4),
        2.0: (79.4, 45.4, 43.6, 45.5),
        5.0: (71.6, 47.5, 45.2, 46.2),
        10.0: (65.0, 46.6, 43.4, 44.4),
    }
    rows = tuple(
        Row(f"eps = {eps}", (_training(CIFAR10, "wrm", defense__options__gamma=0.5 / eps),), thesis)
        for eps, thesis in numbers.items()
    )
    return Experiment(
        "udr-8",
        "UDR, Table 8: WRM with different prices, eps = 0.5 / gamma",
        (Part(_TITLES[CIFAR10], _columns(CIFAR10), rows),),
        notes=(_CHECKPOINT,),
    )


def _table_9() -> Experiment:
    wrm = {
        MNIST: (91.8, 27.1, 4.5, 8.2),
        CIFAR10: (83.7, 40.9, 39.8, 41.4),
        CIFAR100: (56.6, 24.7, 21.3, 22.9),
    }
    parts = []
    for setting, thesis in wrm.items():
        recalled = {name: _TABLE_1[setting][name] for name in ("PGD-AT", "UDR-PGD")}
        rows = (Row("WRM", (_training(setting, "wrm"),), thesis), *_rows(setting, recalled))
        parts.append(Part(_TITLES[setting], _columns(setting), rows))
    return Experiment(
        "udr-9",
        "UDR, Table 9: WRM beside PGD-AT and UDR-PGD",
        tuple(parts),
        notes=(_CHECKPOINT, _DUAL),
    )


def _table_10() -> Experiment:
    setting = "cifar100_resnet18_eps8"
    numbers = {
        "PGD-AT": (63.7, 22.8, 16.1, 11.4, 7.8, 5.1, 2.4),
        "UDR-PGD": (64.5, 26.5, 18.9, 13.7, 9.8, 7.0, 3.5),
        "TRADES": (60.2, 30.3, 24.5, 18.8, 14.8, 11.5, 6.7),
        "UDR-TRADES": (60.1, 30.8, 25.1, 19.3, 15.5, 12.2, 7.5),
        "MART": (54.1, 32.0, 26.8, 21.9, 17.4, 13.8, 7.6),
        "UDR-MART": (54.4, 32.3, 27.4, 22.5, 18.4, 14.4, 8.5),
    }
    columns = (
        Column("Nat", _pgd(CIFAR10), "clean"),
        *_over_radius(CIFAR10, _RADII[CIFAR10], _RADIUS_TITLES[CIFAR10]),
    )
    return Experiment(
        "udr-10",
        "UDR, Table 10: CIFAR-100, trained at 8/255",
        (
            Part(
                _TITLES[CIFAR100],
                columns,
                _rows(setting, numbers),
                _OVER,
                {"UDR-PGD": 2.30, "UDR-TRADES": 0.52, "UDR-MART": 0.67},
            ),
        ),
        notes=(_CHECKPOINT, _DUAL),
    )


def _figure_1() -> Experiment:
    steps = (0.5, 1, 2, 4, 8)  # tau in step sizes; 2 is the setting of all tables
    step = _STEP[CIFAR10]
    taus = {**{f"tau = {n:g} steps": n * step for n in steps}, "tau = 1": 1.0}
    rows = tuple(
        Row(title, (_training(CIFAR10, "udr_pgd_at", defense__options__tau=tau),),
            (68.7, None) if tau == 1 else ())
        for title, tau in taus.items()
    )  # fmt: skip
    base = Row("PGD-AT", (_training(CIFAR10, "pgd_at"),), (86.4, 46.0))
    columns = (Column("Nat", _pgd(CIFAR10), "clean"), Column("PGD", _pgd(CIFAR10)))
    return Experiment(
        "udr-fig-1",
        "UDR, Figure 1: natural and robust accuracy of UDR-PGD over tau",
        (Part(_TITLES[CIFAR10], columns, rows), Part("Base", columns, (base,))),
        (
            TradeOff("trade_off", "Nat", "PGD"),
            RowCurves("over_tau", tuple(taus.values()), "tau"),
        ),
        notes=(
            "The thesis prints the values of tau in the figure only; these are another choice.",
        ),
    )


_TOY_STEP, _TOY_RADIUS = 0.1 / SIDE, 2 / SIDE


def _figure_2() -> Experiment:
    attack = Attacked(f"pgd:steps=200:step_size={_TOY_STEP}", _TOY_RADIUS)
    hard, soft = (Training(f"toy/{name}", checkpoint="last") for name in ("pgd_at", "udr_pgd_at"))
    rows = (Row("PGD-AT", (hard,), (None, 74.5)), Row("UDR-PGD", (soft,), (None, 82.6)))
    columns = (Column("Nat", attack, "clean"), Column("PGD", attack))
    return Experiment(
        "udr-fig-2",
        "UDR, Figure 2: the toy problem in the plane, under PGD-200 of radius 2",
        (Part("Three clusters", columns, rows, {"UDR-PGD": "PGD-AT"}, {"UDR-PGD": 8.1}),),
        (
            Trajectories("trajectories", Training("toy/standard", {"epochs": 1}, "last")),
            DecisionRegions("boundaries", {"PGD-AT": hard, "UDR-PGD": soft}),
        ),
    )


def _figure_3() -> Experiment:
    starts = {f"lambda from {start:g}": {"dual_initial_value": start} for start in (0.1, 1.0, 2.0)}
    taus = {f"tau = {n:g} steps": {"tau": n * _TOY_STEP} for n in (0.25, 1, 4)}
    curves = {
        title: (Training("toy/udr_pgd_at", _options(options)), "dual")
        for title, options in {**starts, **taus}.items()
    }
    return Experiment(
        "udr-fig-3",
        "UDR, Figure 3: trajectories in soft balls, and lambda over the training",
        (),
        (
            Trajectories("trajectories", Training("toy/standard", {"epochs": 1}, "last")),
            History("lambda", curves, "lambda"),
        ),
    )


def _options(options: dict[str, float]) -> dict[str, float]:
    return {f"defense.options.{name}": value for name, value in options.items()}


def _figure_4() -> Experiment:
    trained = {
        "PGD-AT, 8/255": "pgd_at",
        "PGD-AT, 16/255": "pgd_at_eps16",
        "PGD-AT, 8/255 to 16/255": "pgd_at_growing",
        "PGD-AT, 16/255 to 8/255": "pgd_at_falling",
        "UDR-PGD": "udr_pgd_at",
    }
    rows = tuple(Row(title, (_training(CIFAR10, name),)) for title, name in trained.items())
    columns = (
        Column("Nat", _pgd(CIFAR10), "clean"),
        *_over_radius(CIFAR10, _RADII[CIFAR10], _RADIUS_TITLES[CIFAR10]),
    )
    return Experiment(
        "udr-fig-4",
        "UDR, Figure 4: a soft ball beside hard balls that grow or fall",
        (Part(_TITLES[CIFAR10], columns, rows),),
        (Curves("over_radius", _RADII[CIFAR10], "radius"),),
        notes=("The thesis prints the attacks' radii in the figure only; these are of Table 2.",),
    )


def _figure_5() -> Experiment:
    multiples = {MNIST: (0.25, 0.5, 0.75, 1, 1.25, 1.5), CIFAR10: (0.25, 0.5, 1, 2, 3, 4),
                 CIFAR100: (0.25, 0.5, 1, 2, 3, 4)}  # fmt: skip
    radii = {name: tuple(n * _RADIUS[name] for n in ns) for name, ns in multiples.items()}
    return Experiment(
        "udr-fig-5",
        "UDR, Figure 5: accuracy under PGD-200 over a wide range of radii",
        tuple(
            Part(
                _TITLES[name],
                _over_radius(name, radii[name], tuple(f"{radius:.4g}" for radius in radii[name])),
                _rows(name, dict.fromkeys(_METHODS, ())),
                _OVER,
            )
            for name in radii
        ),
        tuple(
            Curves(name.partition("_")[0], radii[name], "radius", part)
            for part, name in enumerate(radii)
        ),
        notes=("The thesis prints the radii in the figure only; these are another choice.",),
    )


def _figure_6() -> Experiment:
    metrics = {
        "natural, training": "accuracy",
        "attacked, training": "robust_accuracy",
        "natural, held out": "val_accuracy",
        "attacked, held out": "val_robust_accuracy",
    }
    return Experiment(
        "udr-fig-6",
        "UDR, Figure 6: error rates over the training of UDR-PGD",
        (),
        tuple(
            History(
                setting.partition("_")[0],
                {name: (_training(setting, "udr_pgd_at"), metric)
                 for name, metric in metrics.items()},
                "error rate",
                error=True,
            )
            for setting in (MNIST, CIFAR10, CIFAR100)
        ),
        notes=(
            "Differs: rates of training images are of the batches of an epoch under the attack of "
            "the training, and those of the test are of the 2,000 held-out images.",
        ),
    )  # fmt: skip


def _figure_7() -> Experiment:
    return Experiment(
        "udr-fig-7",
        "UDR, Figure 7: gradients of loss and cost",
        (),
        tuple(
            GradientHistogram(
                setting.partition("_")[0],
                _training(setting, "udr_pgd_at", defense__options__penalty="l2",
                          defense__options__tau=_STEP[setting]),
            )
            for setting in (MNIST, CIFAR10)
        ),
        notes=("The L2 cost with tau of one step, as in the thesis, which sets lambda to 1.",),
    )  # fmt: skip


EXPERIMENTS = (
    _table_1(),
    _table_2(),
    _table_3(),
    _table_4(),
    _table_5(),
    _table_6(),
    _table_7(),
    _table_8(),
    _table_9(),
    _table_10(),
    _figure_1(),
    _figure_2(),
    _figure_3(),
    _figure_4(),
    _figure_5(),
    _figure_6(),
    _figure_7(),
)
