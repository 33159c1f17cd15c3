"""Chapter 4, first paper: collaboratively promoting and demoting robustness (CCE, AAAI 2021).

Left out:
- Tables 1 and 2 are definitions, Table 8 lists networks.
- Table 9, seconds of an epoch on one GPU: `benchmarks/ensemble_step.py` measures its ratios.
- Figures 1, 2 and 5 to 8, predictions, entropies and loss surfaces of members:
  `python -m trainers.evaluate_ensembles` draws them, around clean and attacked images.
In all tables rows and columns are exchanged: a row is a training.
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
from keras_robust.experiments.reproduction.measurements import Attacked, Detected, MemberTransfer
from keras_robust.experiments.reproduction.pictures import Curves

RESNET, CNN, CIFAR100 = "cifar10_resnet20", "cifar10_cnn", "cifar100_cnn"
_TITLES = {RESNET: "CIFAR-10, ResNet20", CNN: "CIFAR-10, CNN", CIFAR100: "CIFAR-100, CNN"}
_MEMBER = {RESNET: "resnet20", CNN: "small_cnn", CIFAR100: "small_cnn"}
_EPS = 8 / 255
_RADIUS = {RESNET: _EPS, CNN: _EPS, CIFAR100: 0.01}
_STEP = {RESNET: 2 / 255, CNN: 2 / 255, CIFAR100: 0.001}
_METHODS = {
    "ADV": "pgd_at",
    "ADV-EN": "ensemble_at",
    "ADP": "adp",
    "CCE-Base": "cce_base",
    "CCE-RM": "cce_robustness",
    "CCE-DM": "cce_detection",
}
_CHECKPOINT = (
    "The thesis does not say how it chose checkpoints; these are the best of 2,000 held-out images."
)
_SPSA = "SPSA has 50 steps, as section 4.1 says of both data sets."


def _training(setting: str, method: str, members: int = 2, **options: Any) -> Training:
    changes = {f"defense.options.{name}": value for name, value in options.items()}
    if members == 3:
        changes["model.options.members"] = (_MEMBER[setting],) * 3
    return Training(f"thesis/cce/{setting}/{_METHODS[method]}", changes)


def _brendel_bethge(eps: int) -> Attacked:
    """100 steps from PGD-20, three times; of the radius from which it starts."""
    start = f"pgd+steps=20+step_size={2 / 255}"
    options = f"steps=100:start={start}:restarts=3"
    return Attacked(f"brendel_bethge:{options}", eps / 255, 1000)


def _attacks(setting: str) -> tuple[Column, ...]:
    """The columns of Tables 3 to 5, 10 and 11."""
    radius, step = _RADIUS[setting], _STEP[setting]
    steps = 250 if setting == RESNET else 100

    def by_gradient(name: str, count: int) -> Attacked:
        return Attacked(f"{name}:steps={count}:step_size={step}", radius)

    columns = [Column("Nat. acc.", by_gradient("pgd", steps), "clean")]
    columns += [Column(name.upper(), by_gradient(name, steps)) for name in ("pgd", "bim", "mim")]
    if setting == RESNET:
        columns += [
            Column("B&B (wPGD1)", _brendel_bethge(8)),
            Column("B&B (wPGD2)", _brendel_bethge(16)),
        ]
    else:
        columns += [
            Column(f"mul-{name.upper()}", by_gradient(f"multi_targeted:attack={name}", 20))
            for name in ("pgd", "bim", "mim")
        ]
    columns.append(Column("SPSA", Attacked("spsa:steps=50", radius, 1000)))
    columns.append(Column("Auto-Attack", Attacked("auto_attack", radius, 1000)))
    return tuple(columns)


def _robustness(
    number: int, setting: str, numbers: dict[tuple[str, int], tuple[float, ...]]
) -> Experiment:
    rows = tuple(
        Row(f"{method}_{members}", (_training(setting, method, members),), thesis)
        for (method, members), thesis in numbers.items()
    )
    over = {f"CCE-RM_{n}": f"ADP_{n}" for n in (2, 3)}
    return Experiment(
        f"cce-{number}",
        f"CCE, Table {number}: ensembles of two and three on {_TITLES[setting]}",
        (Part(_TITLES[setting], _attacks(setting), rows, over),),
        notes=("Indices are numbers of members; the gain is over ADP.", _SPSA, _CHECKPOINT),
    )


_TABLE_3 = {
    ("ADV", 1): (83.9, 41.4, 41.5, 41.9, 37.0, 4.9, 50.0, 16.1),
    ("ADV-EN", 2): (85.3, 42.8, 42.9, 43.3, 38.3, 2.9, 53.5, 18.5),
    ("ADP", 2): (85.3, 44.2, 44.1, 44.8, 37.3, 3.9, 52.8, 17.3),
    ("CCE-RM", 2): (84.5, 45.8, 45.8, 46.3, 42.2, 6.0, 56.2, 18.8),
    ("ADV-EN", 3): (86.1, 43.8, 44.0, 44.5, 39.3, 4.2, 53.8, 18.4),
    ("ADP", 3): (86.2, 45.1, 45.2, 45.7, 38.3, 4.3, 53.9, 17.6),
    ("CCE-RM", 3): (84.9, 48.6, 48.8, 49.1, 44.2, 7.1, 56.6, 20.8),
}
_TABLE_4: dict[tuple[str, int], tuple[float, ...]] = {
    ("ADV", 1): (75.7, 38.0, 38.2, 38.5, 26.0, 25.9, 26.2, 40.6, 25.1),
    ("ADV-EN", 2): (76.0, 39.7, 39.7, 40.5, 27.7, 27.2, 28.1, 44.3, 25.0),
    ("ADP", 2): (75.9, 42.2, 42.2, 42.4, 27.8, 27.2, 28.3, 41.5, 24.4),
    ("CCE-RM", 2): (76.0, 44.7, 44.9, 45.4, 31.9, 31.6, 32.3, 45.2, 29.9),
    ("ADV-EN", 3): (76.7, 40.8, 40.8, 41.3, 28.3, 27.7, 29.0, 45.1, 25.5),
    ("ADP", 3): (76.6, 43.9, 43.8, 44.2, 32.4, 29.8, 30.7, 46.1, 28.1),
    ("CCE-RM", 3): (75.7, 46.8, 46.8, 47.2, 36.9, 34.1, 34.6, 47.5, 31.9),
}
_TABLE_5: dict[tuple[str, int], tuple[float, ...]] = {
    ("ADV", 1): (40.8, 26.8, 26.9, 27.0, 16.4, 15.9, 16.7, 25.6, 15.3),
    ("ADV-EN", 2): (41.4, 29.7, 29.1, 29.0, 15.8, 15.5, 16.1, 25.5, 15.1),
    ("ADP", 2): (48.0, 30.9, 31.0, 30.8, 20.1, 19.4, 20.3, 24.1, 14.8),
    ("CCE-RM", 2): (53.4, 35.3, 35.2, 35.3, 24.2, 23.7, 24.1, 31.8, 21.9),
    ("ADV-EN", 3): (40.8, 32.8, 32.8, 32.9, 16.6, 16.3, 16.8, 26.0, 15.8),
    ("ADP", 3): (52.6, 36.2, 36.2, 36.1, 24.8, 24.5, 25.1, 32.5, 23.0),
    ("CCE-RM", 3): (54.4, 39.5, 39.4, 39.6, 28.4, 28.1, 28.6, 35.0, 25.9),
}


def _table_6() -> Experiment:
    step = 2 / 255
    transfer = MemberTransfer(f"pgd:steps=20:step_size={step}", _EPS)
    numbers = {
        "ADV-EN": (40.7, 24.0, 46.0, 65.5, 13.3, 16.7),
        "ADP": (42.9, 25.7, 49.5, 59.3, 7.6, 17.2),
        "CCE-RM": (45.5, 39.9, 49.5, 33.7, 5.0, 5.6),
        "CCE-Base": (43.3, 36.1, 50.3, 36.1, 6.4, 7.2),
    }
    values = {
        "a(en,en)": "robust",
        "|S11|": "all_correct",
        "|S00|": "all_wrong",
        "T": "transferability",
        "nT": "non_transferable",
        "a_single": "single",
    }
    return Experiment(
        "cce-6",
        "CCE, Table 6: transfer of PGD-20 among two members",
        (
            Part(
                _TITLES[CNN],
                tuple(Column(title, transfer, value) for title, value in values.items()),
                tuple(Row(name, (_training(CNN, name),), row) for name, row in numbers.items()),
            ),
        ),
        notes=("The accuracies of single members and |S01|, |S10| are left out.", _CHECKPOINT),
    )


def _table_7() -> Experiment:
    numbers = {
        (CNN, 2): (76.0, 75.9, 76.0, 86.0),
        (CNN, 3): (76.7, 76.6, 75.7, 87.2),
        (RESNET, 2): (85.3, 85.3, 84.5, 91.0),
        (RESNET, 3): (86.1, 86.2, 84.9, 91.6),
    }
    methods = ("ADV-EN", "ADP", "CCE-RM", "CCE-DM")
    return Experiment(
        "cce-7",
        "CCE, Table 7: natural accuracy",
        tuple(
            Part(
                f"{_TITLES[setting]}, {members} members",
                (Column("Nat. acc.", _attacks(setting)[0].measurement, "clean"),),
                tuple(
                    Row(method, (_training(setting, method, members),), (value,))
                    for method, value in zip(methods, row, strict=True)
                ),
            )
            for (setting, members), row in numbers.items()
        ),
        notes=(_CHECKPOINT,),
    )


def _table_10() -> Experiment:
    base = {
        (CNN, 2): (75.8, 43.4, 43.4, 44.1, 31.1, 30.8, 31.5, 44.3, 29.2),
        (CNN, 3): (76.4, 44.5, 44.5, 45.0, 32.4, 32.2, 32.9, 47.2, 31.5),
        (CIFAR100, 2): (51.1, 33.6, 33.7, 33.5, 23.0, 22.6, 23.1, 32.1, 22.0),
        (CIFAR100, 3): (54.2, 37.0, 37.1, 37.2, 26.2, 25.9, 26.4, 35.1, 26.1),
    }
    parts = []
    for setting, table in ((CNN, _TABLE_4), (CIFAR100, _TABLE_5)):
        numbers = {}
        for n in (2, 3):
            numbers["ADP", n] = table["ADP", n]
            numbers["CCE-Base", n] = base[setting, n]
            numbers["CCE-RM", n] = table["CCE-RM", n]
        rows = tuple(
            Row(f"{method}_{n}", (_training(setting, method, n),), thesis)
            for (method, n), thesis in numbers.items()
        )
        over = {f"CCE-RM_{n}": f"CCE-Base_{n}" for n in (2, 3)}
        parts.append(Part(_TITLES[setting], _attacks(setting), rows, over))
    return Experiment(
        "cce-10",
        "CCE, Table 10: the transferring flow",
        tuple(parts),
        notes=("Indices are numbers of members; the gain is over CCE-Base.", _SPSA, _CHECKPOINT),
    )


def _table_11() -> Experiment:
    base = (75.8, 43.4, 43.4, 44.1, 31.1, 30.8, 31.5, 44.3, 29.2)
    numbers = {
        "demote": (
            base,
            (76.6, 43.3, 43.2, 43.6, 29.9, 29.8, 30.3, 44.4, 29.8),
            (83.2, 23.9, 24.0, 31.1, 14.9, 13.1, 28.6, 30.4, 1.6),
            (86.0, 26.1, 26.2, 21.7, 20.1, 19.8, 21.7, 5.3, 0.2),
        ),
        "promote": (
            base,
            (76.4, 42.7, 42.8, 43.0, 30.4, 30.3, 30.8, 44.3, 29.7),
            (76.2, 42.7, 42.7, 43.2, 30.0, 29.9, 30.4, 45.5, 28.8),
            (77.1, 41.3, 41.5, 41.9, 29.7, 29.6, 30.1, 46.2, 30.0),
        ),
    }
    return Experiment(
        "cce-11",
        "CCE, Table 11: promoting or demoting alone",
        tuple(
            Part(
                f"{name.capitalize()[:-1]}ing only",
                _attacks(CNN),
                tuple(
                    Row(f"weight {weight}",
                        (_training(CNN, "CCE-Base", **({name: float(weight)} if weight else {})),),
                        thesis)
                    for weight, thesis in zip((0, 1, 2, 5), rows, strict=True)
                ),
            )
            for name, rows in numbers.items()
        ),
        notes=(_SPSA, _CHECKPOINT),
    )  # fmt: skip


def _black_box(
    number: int, setting: str, numbers: dict[float, tuple[tuple[float | None, ...], ...]]
) -> Experiment:
    """The thesis's rows are sources, which are columns here."""
    names = ("NAT", "ADV-EN", "ADP", "CCE-RM")
    trained = {name: _training(setting, name) for name in names[1:]}
    trained = {"NAT": Training(f"thesis/cce/{setting}/standard"), **trained}
    attack = f"pgd:steps=20:step_size={_STEP[setting]}"
    parts = []
    for radius, by_source in numbers.items():
        rows = []
        for target in names:
            thesis = tuple(row[names.index(target)] for row in by_source)
            white_box = {f"on {target}": Attacked(attack, radius)}
            rows.append(Row(target, (trained[target],), thesis, white_box))
        columns = tuple(
            Column(f"on {name}", Attacked(attack, radius, source=trained[name])) for name in names
        )
        parts.append(Part(f"{_TITLES[setting]}, radius {radius:.4g}", columns, tuple(rows)))
    return Experiment(
        f"cce-{number}",
        f"CCE, Table {number}: PGD-20 that is crafted on other methods (columns)",
        tuple(parts),
        notes=("The diagonal is attacked on itself.", _CHECKPOINT),
    )


_TABLE_12: dict[float, tuple[tuple[float | None, ...], ...]] = {
    8 / 255: ((9.2, 76.2, 75.6, 74.5), (59.5, 40.7, 58.5, 58.4), (58.4, 61.8, 42.9, 59.9),
              (57.3, 58.9, 57.4, 45.5)),
}  # fmt: skip
_TABLE_13: dict[float, tuple[tuple[float | None, ...], ...]] = {
    0.01: ((14.7, 43.6, 49.3, 52.9), (42.9, 31.1, 48.1, 51.6), (41.8, 41.6, 32.8, 50.9),
           (39.4, 40.2, 45.8, 36.1)),
    0.02: ((13.0, 43.6, 49.2, 52.9), (39.9, 24.3, 46.9, 50.4), (38.3, 40.6, 25.2, 49.4),
           (34.5, 38.2, 43.0, 27.5)),
}  # fmt: skip


def _figure_3() -> Experiment:
    attacks = {name.upper(): Detected(f"{name}:steps=20:step_size={1 / 255}", _EPS)
               for name in ("pgd", "bim", "mim")}  # fmt: skip
    columns = tuple(Column(title, what, "auc", percent=False) for title, what in attacks.items())
    return Experiment(
        "cce-fig-3",
        "CCE, Figure 3: area under the ROC curve of the entropy for three attacks",
        (Part(_TITLES[CNN], columns, (Row("CCE-DM", (_training(CNN, "CCE-DM"),)),)),),
        notes=(
            "The caption says CCE-RM, the text describes the detection mode, which this is.",
            _CHECKPOINT,
        ),
    )


def _figure_4() -> Experiment:
    eps = (1, 2, 4, 8, 16, 24)
    columns = tuple(
        Column(f"{n}/255", Detected(f"pgd:steps=20:step_size={1 / 255}", n / 255), "auc",
               percent=False)
        for n in eps
    )  # fmt: skip
    row = Row("CCE-DM", (_training(CNN, "CCE-DM"),), (0.934, *(None for _ in eps[1:])))
    return Experiment(
        "cce-fig-4",
        "CCE, Figure 4: area under the ROC curve of the entropy over radius",
        (Part(_TITLES[CNN], columns, (row,)),),
        (Curves("auc", tuple(n / 255 for n in eps), "radius", y_label="AUC"),),
        notes=(_CHECKPOINT,),
    )


EXPERIMENTS = (
    _robustness(3, RESNET, _TABLE_3),
    _robustness(4, CNN, _TABLE_4),
    _robustness(5, CIFAR100, _TABLE_5),
    _table_6(),
    _table_7(),
    _table_10(),
    _table_11(),
    _black_box(12, CNN, _TABLE_12),
    _black_box(13, CIFAR100, _TABLE_13),
    _figure_3(),
    _figure_4(),
)
