"""Chapter 4, second paper: task-oriented multi-objective optimization (TA-MOO, TMLR 2023).

Left out:
- Table 13, gradients and weights of single groups of images, and their spreads in Tables 2 and 22.
- Tables 10, 21 and 22 are copies of Tables 3, 1 and 2; Table 9 lists settings, Table 14 rows of
  Table 15; Figure 1 is in Figure 6, Figure 5 shows the columns A-i of Table 1.
- Table 16, milliseconds of an attack: `benchmarks/multi_task.py` measures its ratios.
- Tables 19 and 20, ImageNet with networks of RobustBench: the data do not fit in memory.
- Of Table 18 the rows C&W, whose constants the thesis does not print.
- Figure 2 is a drawing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from keras_robust.experiments.reproduction.experiment import (
    Column,
    Experiment,
    Part,
    Row,
    Training,
)
from keras_robust.experiments.reproduction.measurements import (
    Attacked,
    TasksAttacked,
    TasksTransferred,
)
from keras_robust.experiments.reproduction.pictures import History, RowCurves, TaskSteps

_EPS = 8 / 255
_STEPS = f"steps=100:step_size={2 / 255}"
_SOLVERS = {
    "Uniform": "uniform",
    "HVM": "hvm",
    "PCGrad": "pcgrad",
    "CAGrad": "cagrad",
    "MinMax": "min_max",
    "MOO": "min_norm",
    "TA-MOO": "task_oriented",
}
_LOSSES = {"CW": "margin", "CE": "cross_entropy", "KL": "kl"}
_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_DIVERSE = ("resnet18", "vgg16", "googlenet", "efficientnet_b0")
_CHECKPOINT = (
    "The thesis does not say how it chose checkpoints; these are the best of 2,000 held-out images."
)


def _victims(dataset: str, networks: Iterable[str] = _DIVERSE) -> tuple[Training, ...]:
    return tuple(Training(f"thesis/ta_moo/{dataset}_{name}/pgd_at") for name in networks)


# Four networks that differ in the seed; those of further seeds do not meet them.
_NON_DIVERSE = tuple(
    Training("thesis/ta_moo/cifar10_resnet18/pgd_at", {"seed": 1000 * number})
    for number in range(4)
)


def _members(solver: str, loss: str = "cross_entropy") -> TasksAttacked:
    return TasksAttacked(f"multi_task:{_STEPS}:tasks=members:loss={loss}", _EPS, solver=solver)


def _each(*names: str) -> tuple[Column, ...]:
    """The columns A-All, A-Avg and A-i."""
    tasks = (Column(name, value=f"task_{i}") for i, name in enumerate(names))
    return (Column("A-All", value="all_tasks"), Column("A-Avg", value="average"), *tasks)


def _table_1() -> Experiment:
    numbers = {
        ("cifar10", "CW"): ((26.37, 41.13), (27.53, 41.20), (18.87, 34.24), (30.65, 40.41)),
        ("cifar10", "CE"): ((28.21, 48.34), (35.75, 51.56), (25.16, 44.76), (38.01, 51.10)),
        ("cifar10", "KL"): ((17.44, 32.85), (19.97, 33.13), (15.69, 29.54), (20.56, 31.42)),
        ("cifar100", "CW"): ((52.82, 67.39), (54.96, 66.92), (51.16, 65.87), (55.73, 67.02)),
        ("cifar100", "CE"): ((55.86, 72.62), (63.70, 75.44), (58.17, 73.19), (64.89, 75.85)),
        ("cifar100", "KL"): ((38.57, 54.88), (40.67, 53.83), (39.18, 53.44), (41.97, 53.76)),
    }
    return Experiment(
        "ta_moo-1",
        "TA-MOO, Table 1: attacks on an ensemble with three losses",
        tuple(
            Part(
                f"{_DATA[dataset]}, {loss}",
                _each(),
                tuple(
                    Row(name, _victims(dataset), thesis, _members(_SOLVERS[name], _LOSSES[loss]))
                    for name, thesis in zip(_FOUR, rows, strict=True)
                ),
                dict.fromkeys(_FOUR[1:], "Uniform"),
            )
            for (dataset, loss), rows in numbers.items()
        ),
        notes=(_CHECKPOINT,),
    )


_FOUR = ("Uniform", "MinMax", "MOO", "TA-MOO")
_D = {
    "Uniform": (28.21, 48.34, 48.89, 49.08, 48.38, 47.03),
    "HVM": (29.88, 46.98, 48.97, 48.10, 46.88, 43.96),
    "PCGrad": (28.25, 48.28, 48.81, 49.03, 48.13, 47.14),
    "CAGrad": (30.23, 48.34, 47.03, 48.22, 45.92, 52.20),
    "MOO": (25.16, 44.76, 39.06, 46.83, 37.05, 56.11),
    "TA-MOO": (38.01, 51.10, 49.55, 52.15, 49.29, 53.40),
}
_ND = {
    "Uniform": (28.17, 48.75, 51.94, 45.55, 54.15, 43.34),
    "HVM": (28.46, 49.87, 51.64, 50.03, 50.72, 47.10),
    "PCGrad": (28.30, 48.75, 52.02, 45.42, 54.35, 43.21),
    "CAGrad": (35.22, 51.07, 54.22, 47.84, 55.24, 46.97),
    "MOO": (32.50, 52.21, 53.25, 49.05, 56.80, 49.76),
    "TA-MOO": (41.01, 57.33, 58.88, 55.32, 60.81, 54.29),
}
_SETS = (
    ("Diverse set", _victims("cifar10"), _D, ("R", "V", "G", "E")),
    ("Non-diverse set", _NON_DIVERSE, _ND, ("R1", "R2", "R3", "R4")),
)


def _on_sets(number: int, title: str, solvers: tuple[str, ...]) -> Experiment:
    return Experiment(
        f"ta_moo-{number}",
        f"TA-MOO, Table {number}: {title}",
        tuple(
            Part(
                name,
                _each(*letters),
                tuple(Row(one, victims, numbers[one], _members(_SOLVERS[one])) for one in solvers),
                dict.fromkeys(solvers[1:], "Uniform"),
            )
            for name, victims, numbers, letters in _SETS
        ),
        notes=(_CHECKPOINT,),
    )


def _gradients() -> tuple[Column, ...]:
    what = TasksAttacked(
        f"multi_task:{_STEPS}:tasks=members", _EPS, 1000, "min_norm", gradients=True
    )
    quantities = {"norm": "norm", "w": "weight"}
    return tuple(
        Column(f"{title} {letter}", what, f"{value}_{i}", percent=False)
        for title, value in quantities.items()
        for i, letter in enumerate(("R/R1", "V/R2", "G/R3", "E/R4"))
    )  # fmt: skip


def _table_2() -> Experiment:
    success = _on_sets(2, "a diverse and a non-diverse ensemble", ("Uniform", "MOO", "TA-MOO"))
    numbers = {
        "Diverse set": (7.15, 4.29, 7.35, 0.98, 0.15, 0.17, 0.15, 0.53),
        "Non-diverse set": (8.41, 6.68, 7.36, 5.67, 0.23, 0.24, 0.23, 0.30),
    }
    rows = tuple(
        Row(f"MOO, {title.lower()}", victims, numbers[title]) for title, victims, _, _ in _SETS
    )
    part = Part("Norms of gradients and weights at the end, 1,000 images", _gradients(), rows)
    return dataclasses.replace(success, parts=(*success.parts, part))


def _table_23() -> Experiment:
    what = _gradients()[0].measurement
    letters = "RVGE"
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    columns = tuple(
        Column(f"{letters[i]}, {letters[j]}", what, f"cosine_{i}_{j}", percent=False)
        for i, j in pairs
    )
    row = Row("MOO", _victims("cifar10"), (0.34, 0.44, 0.35, 0.36, 0.41, 0.41))
    return Experiment(
        "ta_moo-23",
        "TA-MOO, Table 23: cosines between the gradients of members",
        (Part("Diverse set", columns, (row,)),),
        notes=("The thesis does not name the attack; these are gradients at the end of MOO.",),
    )


def _table_24() -> Experiment:
    initial = {
        "A": "0.15+0.17+0.15+0.53",
        "B": "0.19+0.25+0.19+0.37",
        "C": "0.22+0.23+0.22+0.33",
        "D": "0.24+0.25+0.24+0.27",
    }
    numbers = {
        "A": (28.64, 29.18, 29.12),
        "B": (29.13, 28.75, 28.65),
        "C": (29.38, 28.46, 28.33),
        "D": (29.53, 28.37, 28.18),
    }
    rates = {"5e-3": 5e-3, "5e-5": 5e-5, "1e-8": 1e-8}
    titles = [f"rate {rate}" for rate in rates]
    rows = [
        Row(f"MOO^{name}", _victims("cifar10"), thesis,
            {title: _members(f"min_norm:initial={initial[name]}:learning_rate={rate}")
             for title, rate in zip(titles, rates.values(), strict=True)})
        for name, thesis in numbers.items()
    ]  # fmt: skip
    rows += [
        Row(name, _victims("cifar10"), (value, None, None), _members(_SOLVERS[name]),
            tuple(titles[1:]))
        for name, value in (("MOO", 25.16), ("TA-MOO", 38.01))
    ]  # fmt: skip
    columns = tuple(Column(title, value="all_tasks") for title in titles)
    return Experiment(
        "ta_moo-24",
        "TA-MOO, Table 24: initial weights and rates of MOO on the diverse set, A-All",
        (Part("Diverse set", columns, tuple(rows)),),
        notes=("The sets of weights are the averages that Appendix E.7 prints.", _CHECKPOINT),
    )


def _table_3() -> Experiment:
    ensembles = ("RME", "RVW", "EVW", "MVW", "REV", "MEV", "RMEV", "RMEVW")
    networks = ("resnet18", "mobilenet_v1", "efficientnet_b0", "vgg16", "wrn_34_10")
    numbers = {
        "Uniform": (31.73, 25.03, 22.13, 22.73, 29.50, 28.44, 26.95, 20.50),
        "MinMax": (40.01, 23.75, 22.39, 23.34, 32.57, 32.75, 31.85, 21.99),
        "MOO": (35.20, 24.25, 22.94, 23.76, 30.65, 32.28, 29.49, 21.77),
        "TA-MOO": (40.97, 25.13, 23.59, 24.38, 33.00, 33.05, 32.14, 23.04),
    }

    def attack(name: str) -> TasksTransferred:
        return TasksTransferred(
            f"multi_task:{_STEPS}:tasks=members",
            _EPS,
            letters="RMEVW",
            ensembles=ensembles,
            solver=_SOLVERS[name],
        )

    return Experiment(
        "ta_moo-3",
        "TA-MOO, Table 3: transfer of attacks on RME to other ensembles, A-All",
        (
            Part(
                "CIFAR-10",
                tuple(Column(name, value=name) for name in ensembles),
                tuple(
                    Row(name, _victims("cifar10", networks), thesis, attack(name))
                    for name, thesis in numbers.items()
                ),
                dict.fromkeys(_FOUR[1:], "Uniform"),
            ),
        ),
        notes=("R: ResNet18, M: MobileNet, E: EfficientNet, V: VGG16, W: WideResNet.", _CHECKPOINT),
    )


_TRAININGS = {"PGD-AT": "pgd_at", "MinMax-AT": "min_max", "MOO-AT": "moo", "TA-MOO-AT": "ta_moo"}
_PGD_20 = f"pgd:steps=20:step_size={2 / 255}"


def _adversarial_training(number: int) -> Experiment:
    numbers = {
        "mobilenet_x3": (
            (80.43, 32.78, 54.34, 73.89, 76.17, 74.35, 71.14),
            (79.01, 37.28, 50.28, 66.77, 65.27, 70.27, 64.78),
            (79.38, 33.04, 46.28, 74.36, 71.25, 74.53, 77.29),
            (79.22, 38.22, 48.21, 67.83, 68.04, 67.37, 68.07),
        ),
        "rme": (
            (86.52, 37.36, 49.01, 69.75, 65.81, 75.24, 68.21),
            (83.16, 40.40, 46.91, 65.73, 65.22, 68.28, 63.70),
            (82.04, 37.48, 45.24, 70.11, 69.00, 75.43, 65.90),
            (82.59, 41.32, 43.68, 65.09, 63.77, 68.98, 62.51),
        ),
    }
    pgd, tasks = Attacked(_PGD_20, _EPS), TasksAttacked(_PGD_20, _EPS)
    columns = [Column("NAT", pgd, "clean"), Column("ADV", pgd),
               Column("A-All", tasks, "all_tasks"), Column("A-Avg", tasks, "average")]  # fmt: skip
    if number == 11:
        columns += [Column(f"A-{i + 1}", tasks, f"task_{i}") for i in range(3)]
    return Experiment(
        f"ta_moo-{number}",
        f"TA-MOO, Table {number}: adversarial training of ensembles of three",
        tuple(
            Part(
                {"mobilenet_x3": "MobiX3", "rme": "RME"}[setting],
                tuple(columns),
                tuple(
                    Row(name, (Training(f"thesis/ta_moo/cifar10_{setting}/{defense}"),),
                        thesis[: len(columns)])
                    for (name, defense), thesis in zip(_TRAININGS.items(), rows, strict=True)
                ),
            )
            for setting, rows in numbers.items()
        ),
        notes=("Success rates (A-...) are better if they are lower.", _CHECKPOINT),
    )  # fmt: skip


_GROUPS = (4, 8, 12, 16, 20)
_UNIVERSAL = {
    ("cifar10", "resnet18"): (
        (37.52, 30.34, 27.41, 25.52, 24.31),
        (50.13, 33.68, 20.46, 15.74, 14.73),
        (43.80, 35.92, 31.41, 28.75, 26.83),
        (48.00, 39.31, 34.96, 31.84, 30.12),
    ),
    ("cifar100", "resnet18"): (
        (65.40, 58.99, 55.33, 53.02, 51.49),
        (74.73, 62.29, 52.05, 45.26, 42.33),
        (69.35, 62.72, 57.72, 54.12, 52.25),
        (72.74, 68.06, 62.33, 57.48, 54.12),
    ),
    ("cifar10", "vgg16"): (
        (37.76, 30.81, 27.49, 25.94, 24.46),
        (47.96, 30.88, 20.20, 16.93, 16.25),
        (43.04, 34.56, 30.07, 27.43, 25.42),
        (46.58, 38.33, 32.32, 29.16, 26.56),
    ),
    ("cifar100", "vgg16"): (
        (66.87, 61.49, 58.53, 56.29, 54.98),
        (78.58, 69.14, 58.85, 51.81, 48.09),
        (73.46, 66.51, 61.28, 57.88, 56.09),
        (75.57, 71.86, 67.22, 62.99, 59.19),
    ),
    ("cifar10", "efficientnet_b0"): (
        (44.86, 39.03, 36.37, 34.65, 33.49),
        (44.47, 32.96, 28.86, 27.01, 26.47),
        (45.31, 39.28, 36.44, 34.72, 33.51),
        (46.74, 37.95, 33.95, 31.71, 30.41),
    ),
    ("cifar100", "efficientnet_b0"): (
        (67.55, 60.99, 57.35, 54.84, 53.57),
        (69.69, 57.99, 50.93, 45.59, 43.87),
        (66.68, 59.69, 54.95, 53.20, 51.43),
        (70.40, 63.78, 58.17, 53.26, 50.66),
    ),
}


def _universal(number: int, networks: tuple[str, ...]) -> Experiment:
    def attacks(name: str) -> dict[str, TasksAttacked]:
        options = f"multi_task:{_STEPS}:tasks=universal:loss=margin"
        return {
            f"K={group}": TasksAttacked(f"{options}:group={group}", _EPS, solver=_SOLVERS[name])
            for group in _GROUPS
        }

    return Experiment(
        f"ta_moo-{number}",
        f"TA-MOO, Table {number}: universal perturbations of groups of K images, A-Avg",
        tuple(
            Part(
                f"{_DATA[dataset]}, {network}",
                tuple(Column(f"K={group}", value="average") for group in _GROUPS),
                tuple(
                    Row(name, _victims(dataset, (network,)), thesis, attacks(name))
                    for name, thesis in zip(_FOUR, rows, strict=True)
                ),
                dict.fromkeys(_FOUR[1:], "Uniform"),
            )
            for (dataset, network), rows in _UNIVERSAL.items()
            if network in networks
        ),
        notes=(_CHECKPOINT,),
    )


_LETTERS = ("I", "H", "V", "C", "G", "B", "R")  # in the order of keras_robust.transforms.ALL
_DETERMINISTIC = {
    "cifar10": {
        "Uniform": (25.98, 55.33, 44.85, 41.58, 82.90, 72.56, 45.92, 49.59, 49.93),
        "MinMax": (30.54, 52.20, 43.31, 41.59, 78.80, 64.83, 44.38, 46.53, 45.97),
        "MOO": (21.25, 49.81, 36.23, 33.93, 87.47, 71.05, 37.68, 40.21, 42.12),
        "TA-MOO": (31.10, 55.26, 44.15, 41.86, 85.19, 71.86, 45.53, 48.70, 49.54),
    },
    "cifar100": {
        "Uniform": (56.19, 76.23, 70.43, 69.01, 87.66, 87.36, 71.40, 74.25, 73.47),
        "MinMax": (59.75, 75.72, 70.13, 69.26, 87.45, 86.03, 71.54, 73.30, 72.32),
        "MOO": (53.17, 74.21, 66.96, 65.68, 89.16, 87.03, 68.49, 71.11, 71.06),
        "TA-MOO": (60.88, 76.71, 70.43, 69.37, 89.11, 87.95, 71.70, 74.73, 73.69),
    },
}
_STOCHASTIC = {
    "cifar10": {
        "Uniform": (31.47, 50.55, 48.58, 44.70, 65.52, 51.14, 47.43, 48.76, 47.70),
        "MinMax": (33.35, 49.44, 47.35, 44.45, 62.78, 51.75, 46.32, 47.13, 46.34),
        "MOO": (26.97, 43.84, 40.62, 38.45, 57.65, 48.55, 40.41, 40.71, 40.47),
        "TA-MOO": (28.26, 45.67, 42.80, 39.66, 61.98, 47.92, 41.80, 43.01, 42.54),
        "MOO*": (27.79, 45.91, 42.43, 39.65, 62.11, 51.44, 41.62, 42.21, 41.92),
        "TA-MOO*": (32.96, 50.27, 48.18, 45.26, 62.97, 52.49, 47.03, 48.22, 47.76),
    },
    "cifar100": {
        "Uniform": (59.89, 73.73, 73.19, 71.15, 79.73, 74.81, 72.05, 73.10, 72.10),
        "MinMax": (61.30, 73.59, 72.44, 70.55, 80.04, 75.55, 71.99, 72.49, 72.10),
        "MOO": (54.96, 69.26, 67.62, 66.11, 75.88, 72.72, 66.87, 68.11, 67.49),
        "TA-MOO": (56.23, 69.91, 68.52, 66.92, 76.70, 72.71, 67.57, 68.97, 67.97),
        "MOO*": (58.79, 72.81, 71.58, 69.08, 80.17, 75.01, 70.78, 71.71, 71.33),
        "TA-MOO*": (61.54, 74.07, 72.95, 70.95, 80.94, 76.22, 72.22, 73.21, 72.00),
    },
}


def _transformed(name: str, *, stochastic: bool) -> TasksAttacked:
    """A star is the memory of gradients, for which only stochastic transformations have a use."""
    memory = "" if name.endswith("*") or not stochastic else ":memory=false"
    kind = ":stochastic=true" if stochastic else ""
    options = f"multi_task:{_STEPS}:tasks=transformations:loss=margin{kind}{memory}"
    return TasksAttacked(options, _EPS, solver=_SOLVERS[name.rstrip("*")])


def _transformations(number: int, settings: dict[str, bool]) -> Experiment:
    parts = []
    for title, stochastic in settings.items():
        for dataset, rows in (_STOCHASTIC if stochastic else _DETERMINISTIC).items():
            measured = tuple(
                Row(name, _victims(dataset, ("resnet18",)), thesis,
                    _transformed(name, stochastic=stochastic))
                for name, thesis in rows.items()
            )  # fmt: skip
            over = dict.fromkeys(list(rows)[1:], "Uniform")
            parts.append(Part(f"{title}, {_DATA[dataset]}", _each(*_LETTERS), measured, over))
    return Experiment(
        f"ta_moo-{number}",
        f"TA-MOO, Table {number}: one perturbation against seven transformations of an image",
        tuple(parts),
        notes=("*: with a memory of the last valid gradient.", _CHECKPOINT),
    )


def _table_8() -> Experiment:
    numbers = {
        "cifar10": {
            "resnet18": (86.47, 42.14),
            "vgg16": (84.24, 40.88),
            "googlenet": (88.26, 41.26),
            "efficientnet_b0": (74.52, 41.36),
            "mobilenet_v1": (76.52, 31.12),
            "wrn_34_10": (88.13, 48.62),
        },
        "cifar100": {
            "resnet18": (59.64, 18.62),
            "vgg16": (55.27, 16.41),
            "googlenet": (63.10, 19.16),
            "efficientnet_b0": (57.67, 19.90),
        },
    }
    pgd = Attacked(_PGD_20, _EPS)
    return Experiment(
        "ta_moo-8",
        "TA-MOO, Table 8: the victims of the attacks",
        tuple(
            Part(
                _DATA[dataset],
                (Column("Nat-Acc", pgd, "clean"), Column("Adv-Acc", pgd)),
                tuple(
                    Row(network, _victims(dataset, (network,)), thesis)
                    for network, thesis in rows.items()
                ),
            )
            for dataset, rows in numbers.items()
        ),
        notes=(
            "The thesis does not name the attack; it is PGD-20 with steps of 2/255.",
            _CHECKPOINT,
        ),
    )


def _table_17() -> Experiment:
    numbers = {
        "Uniform": (28.12, 48.29, 48.81, 49.06, 48.27, 47.06),
        "MOO": (25.61, 45.13, 39.84, 47.29, 37.51, 55.90),
        "TA-MOO": (37.56, 51.15, 49.37, 52.80, 48.98, 53.24),
    }
    rows = tuple(
        Row(name, _victims("cifar10"), thesis, _members(_SOLVERS[name]))
        for name, thesis in numbers.items()
    )
    return Experiment(
        "ta_moo-17",
        "TA-MOO, Table 17: spread over seeds on the diverse set",
        (
            Part(
                "Diverse set",
                _each("R", "V", "G", "E"),
                rows,
                {"MOO": "Uniform", "TA-MOO": "Uniform"},
            ),
        ),
        notes=(
            "Differs: a seed trains the victims too, so that spreads are larger than the thesis's, "
            "which are 0.03 to 0.62 points.",
            _CHECKPOINT,
        ),
    )


def _table_18() -> Experiment:
    standard = {
        "Diverse set": {
            "PGD": (28.21, 48.34, 48.89, 49.08, 48.38, 47.03),
            "B&B": (6.67, 38.03, 37.95, 38.92, 35.58, 39.68),
            "AutoAttack": (30.71, 45.49, 48.32, 45.83, 47.25, 40.56),
        },
        "Non-diverse set": {
            "PGD": (28.17, 48.75, 51.94, 45.55, 54.15, 43.34),
            "B&B": (5.29, 40.51, 49.06, 35.19, 48.63, 29.16),
            "AutoAttack": (37.00, 49.32, 51.07, 48.58, 51.08, 46.55),
        },
    }
    attacks = {"PGD": f"pgd:{_STEPS}", "B&B": "brendel_bethge", "AutoAttack": "auto_attack"}
    parts = []
    for title, victims, numbers, letters in _SETS:
        rows = [
            Row(name, victims, thesis, TasksAttacked(attacks[name], _EPS))
            for name, thesis in standard[title].items()
        ]
        rows += [
            Row(name, victims, numbers[name], _members(_SOLVERS[name]))
            for name in ("MOO", "TA-MOO")
        ]
        over = {"TA-MOO": "AutoAttack"}
        parts.append(Part(title, _each(*letters), tuple(rows), over))
    return Experiment(
        "ta_moo-18",
        "TA-MOO, Table 18: attacks on the whole ensemble, and on all members at once",
        tuple(parts),
        notes=(_CHECKPOINT,),
    )


def _figure_3() -> Experiment:
    pictures = [
        History(
            f"{setting}_{kind}",
            {name: (Training(f"thesis/ta_moo/cifar10_{setting}/{defense}"), metric)
             for name, defense in _TRAININGS.items()},
            f"{kind} accuracy",
        )
        for setting in ("mobilenet_x3", "rme")
        for kind, metric in (("natural", "val_accuracy"), ("robust", "val_robust_accuracy"))
    ]  # fmt: skip
    return Experiment(
        "ta_moo-fig-3",
        "TA-MOO, Figure 3: natural and robust accuracy over adversarial training",
        (),
        tuple(pictures),
        notes=("Differs: on 2,000 held-out images, and over epochs instead of each other.",),
    )


def _figure_4() -> Experiment:
    lams = (1, 10, 50, 100, 200, 500, 1000)
    known = {
        1: (29.14, None, None, None, None, 54.49),
        100: (38.01, 51.10, 49.55, 52.15, 49.29, 53.40),
    }
    ensemble = tuple(
        Row(f"lambda {lam}", _victims("cifar10"), known.get(lam, ()),
            _members(f"task_oriented:lam={lam}"))
        for lam in lams
    )  # fmt: skip
    options = f"multi_task:{_STEPS}:tasks=transformations:loss=cross_entropy"
    transformed = tuple(
        Row(f"lambda {lam}", _victims("cifar10", ("resnet18",)), (),
            TasksAttacked(options, _EPS, solver=f"task_oriented:lam={lam}"))
        for lam in lams
    )  # fmt: skip
    return Experiment(
        "ta_moo-fig-4",
        "TA-MOO, Figure 4: success over lambda",
        (
            Part("Members", _each("R", "V", "G", "E"), ensemble),
            Part("Transformations", _each(*_LETTERS), transformed),
        ),
        (
            RowCurves("members", lams, "lambda", 0, "success rate"),
            RowCurves("transformations", lams, "lambda", 1, "success rate"),
        ),
        notes=(_CHECKPOINT,),
    )


def _steps(loss: str, solvers: dict[str, str], name: str, *quantities: str) -> TaskSteps:
    attack = f"multi_task:{_STEPS}:tasks=members:loss={loss}"
    shown = quantities or ("Loss", "Success rate")
    return TaskSteps(name, _victims("cifar10"), attack, solvers, shown)


def _figure_6() -> Experiment:
    solvers = {"MinMax": "min_max"}
    return Experiment(
        "ta_moo-fig-6",
        "TA-MOO, Figure 6: losses and success of each task over the steps of MinMax",
        (),
        tuple(_steps(loss, solvers, name.lower()) for name, loss in _LOSSES.items()),
        notes=("Task 1 to 4: ResNet18, VGG16, GoogLeNet, EfficientNet; 1,000 images.",),
    )


def _figure_7() -> Experiment:
    solvers = {name: _SOLVERS[name] for name in _FOUR}
    return Experiment(
        "ta_moo-fig-7",
        "TA-MOO, Figure 7: norm of the combined gradient over the steps",
        (),
        (_steps("cross_entropy", solvers, "norms"),),
    )


def _figure_8() -> Experiment:
    return Experiment(
        "ta_moo-fig-8",
        "TA-MOO, Figure 8: losses and success of each task over the steps of MOO and TA-MOO",
        (),
        tuple(
            _steps("margin", {name: _SOLVERS[name]}, name.lower().replace("-", "_"))
            for name in ("MOO", "TA-MOO")
        ),
    )


def _figure_9() -> Experiment:
    solvers = {
        "moo": "min_norm",
        "ta_moo": "task_oriented",
        "moo_from_a": "min_norm:initial=0.15+0.17+0.15+0.53",
    }
    return Experiment(
        "ta_moo-fig-9",
        "TA-MOO, Figure 9: weights and success of each task over the steps",
        (),
        tuple(
            _steps("cross_entropy", {name: solver}, name, "Weight", "Success rate")
            for name, solver in solvers.items()
        ),
    )


EXPERIMENTS = (
    _table_1(),
    _table_2(),
    _table_3(),
    _adversarial_training(4),
    _universal(5, ("resnet18",)),
    _transformations(6, {"Deterministic": False}),
    _on_sets(7, "methods of multi-task learning", ("Uniform", "HVM", "PCGrad", "CAGrad", "MOO",
                                                   "TA-MOO")),
    _table_8(),
    _adversarial_training(11),
    _universal(12, ("resnet18", "vgg16", "efficientnet_b0")),
    _transformations(15, {"Deterministic": False, "Stochastic": True}),
    _table_17(),
    _table_18(),
    _table_23(),
    _table_24(),
    _figure_3(),
    _figure_4(),
    _figure_6(),
    _figure_7(),
    _figure_8(),
    _figure_9(),
)  # fmt: skip
