"""ASCL: the settings of Bui, thesis, Monash 2023, chapter 3, second paper (2021).

`thesis/ascl/SETTING/DEFENSE`; settings are `<data>_<network>`.

| setting | tables and figures |
|---|---|
| `cifar10_cnn` | Figure 2 |
| `cifar10_resnet20` | Tables 2, 4, 5, 7; Figures 2, 5 to 8 |
| `cifar100_resnet20` | Table 2 |
| `cifar10_resnet18`, `cifar10_wrn_34_10` | Tables 3, 6 |

Rows of Table 4: `--config.defense.options.selection=global` (`hard`, `soft`, `leaked`); of Table 5:
`head=linear`, `head=mlp`; of Table 7: `scl=`, `vat=`. Tables 3 and 6 leave out the cross-entropy of
clean images; "ADV+SCL" is `ascl`, "ADV+VAT" sets `scl=0` and `vat=2`, "ADV+VAT+SCL" only `vat=2`.
AutoAttack on 1,000 images, as there: `trainers.evaluate --attacks=auto_attack --limit=1000`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import PRETRAINING, with_defense
from trainers.recipes.thesis.training import CIFAR, adam, attacked, network, sgd, start

_COMPARED = ("standard", "pgd_at", "trades", "adr_pgd_at", "scl", "ascl")
_OWN = ("standard", "pgd_at", "scl", "ascl")
# Contrastive pretraining: section 4.2 compares with RoCL and ACL, which train a head or everything
# after it (`model.weights`, `model.trainable`).
_ABLATED = (*_OWN, *PRETRAINING)
_LARGE = ("resnet18", "wrn_34_10")
SETTINGS = {
    "cifar10_cnn": _OWN,
    "cifar10_resnet20": _COMPARED,
    "cifar10_resnet18": _ABLATED,
    "cifar10_wrn_34_10": _ABLATED,
    "cifar100_resnet20": _COMPARED,
}


def get_config(setting: str, defense: str) -> ConfigDict:
    """The recipe of a setting and one of its defenses, of `SETTINGS`."""
    dataset, _, name = setting.partition("_")
    crafting = CIFAR[dataset]  # section 4.1, "Generating Adversarial Examples for Defenders"
    # Appendix A: 200 epochs, batches of 128; section 4.1: flips, and shifts of 10 %.
    config = start(dataset, crafting.radius, epochs=200, augment="shift_flip")
    network(config, "small_cnn" if name == "cnn" else name)
    is_large = name in _LARGE
    if is_large:
        # Appendix A prints the weight decay of Pang et al. 2020 as the momentum, 5e-4.
        sgd(config, 0.1, 5e-4, (100, 150))
    else:
        # Appendix A: 1e-3 to 1e-6 for ResNet20, constant for the CNN.
        adam(config, (80, 120, 160) if name == "resnet20" else ())
    # Section 4.1, "Attack Setting": PGD and mPGD with 250 steps.
    radii = tuple(crafting.radius * eps / 8 for eps in (2, 4, 6, 8, 10, 12, 14, 16))
    attacked(config, crafting.step_size, radii, pgd=250, multi_targeted=250)
    options = crafting.options()
    with_defense(
        config,
        defense,
        {
            "standard": {"steps": crafting.steps},
            # Appendix A, (i): no clean cross-entropy in Table 3; the rows ADV of Table 6 are the
            # same trainings.
            "pgd_at": {**options, "clean_weight": 0.0 if is_large else 1.0},
            # The paper prints no weight for TRADES. It is that of chapter 5, section 5.
            "trades": {**options, "beta": 6.0},
            "scl": {**options, "augment": "shift_flip"},
            # Section 4.1: temperature 0.07, no head; Appendix C.2: weights of 1 and 2, but without
            # VAT in Table 3 (Appendix A, (ii)).
            "ascl": {
                **options,
                "selection": "leaked",
                "temperature": 0.07,
                "scl": 1.0,
                "vat": 0.0 if is_large else 2.0,
                "clean_term": not is_large,
            },
        },
    )
    return config
