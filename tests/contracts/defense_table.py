"""The table of defenses: one row per public defense, and rows of their variations."""

from __future__ import annotations

import pytest

import keras_robust as kr

BALL = kr.LinfBall(0.1)
SETTINGS = {"steps": 2, "seed": 7}
# Defenses that craft nothing while they train.
WITHOUT_ATTACK = ("standard", "ibp", "crown_ibp", "sabr")
# Defenses that train on certified bounds.
CERTIFIED = ("ibp", "crown_ibp", "sabr")
# Defenses whose classifier is an ensemble.
ENSEMBLES = ("adp", "cce", "ensemble_at", "ta_moo")

# One of each kind: with state, latents, contrast, an ensemble, bounds (which craft nothing).
KINDS = ("trades", "udr", "adr", "ascl", "cce", "ibp")
# Members that train as pgd_at does; all their rows are of the slow run.
LIKE_PGD_AT = ("n_fgsm", "free", "union")

# Name: (classifier -> model, the terms of its training loss).
DEFENSES = {
    "standard": (lambda c: kr.defenses.standard(c, BALL, **SETTINGS), ["clean"]),
    "pgd_at": (lambda c: kr.defenses.pgd_at(c, BALL, **SETTINGS), ["adversarial"]),
    "pgd_at with a clean term": (
        lambda c: kr.defenses.pgd_at(c, BALL, clean_weight=1.0, **SETTINGS),
        ["adversarial", "clean"],
    ),
    "trades": (lambda c: kr.defenses.trades(c, BALL, **SETTINGS), ["clean", "divergence"]),
    "trades with ikl": (
        lambda c: kr.defenses.trades(c, BALL, divergence="ikl", **SETTINGS),
        ["clean", "divergence", "mse"],
    ),
    "trades with ikl and awp": (
        lambda c: kr.defenses.trades(
            c, BALL, divergence="ikl", weight_perturbation=kr.AWP(0.01), **SETTINGS
        ),
        ["clean", "divergence", "mse"],
    ),
    "mart": (lambda c: kr.defenses.mart(c, BALL, **SETTINGS), ["boosted", "divergence"]),
    "n_fgsm": (lambda c: kr.defenses.n_fgsm(c, BALL, **SETTINGS), ["adversarial"]),
    "free": (lambda c: kr.defenses.free(c, BALL, replays=2, **SETTINGS), ["adversarial"]),
    "free with a clean term and awp": (
        lambda c: kr.defenses.free(
            c,
            BALL,
            replays=2,
            clean_weight=0.5,
            microbatches=2,
            weight_perturbation=kr.AWP(0.01),
            **SETTINGS,
        ),
        ["adversarial", "clean"],
    ),
    "n_fgsm with projection, alignment and awp": (
        lambda c: kr.defenses.n_fgsm(
            c,
            BALL,
            noise=1.0,
            project=True,
            grad_align=0.2,
            clean_weight=0.5,
            weight_perturbation=kr.AWP(0.01),
            **SETTINGS,
        ),
        ["adversarial", "clean", "alignment"],
    ),
    "ibp": (
        lambda c: kr.defenses.ibp(c, BALL, warmup_steps=0, ramp_steps=2, **SETTINGS),
        ["clean", "worst_case"],
    ),
    "crown_ibp": (
        lambda c: kr.defenses.crown_ibp(
            c, BALL, warmup_steps=0, ramp_steps=2, regularization=0.5, **SETTINGS
        ),
        ["clean", "worst_case"],
    ),
    "sabr": (
        lambda c: kr.defenses.sabr(
            c,
            BALL,
            box_ratio=0.5,
            search_steps=2,
            clean_weight=0.5,
            warmup_steps=0,
            ramp_steps=2,
            **SETTINGS,
        ),
        ["clean", "worst_case"],
    ),
    "wrm": (
        lambda c: kr.defenses.wrm(c, BALL, step_size=0.1, **SETTINGS),
        ["adversarial"],
    ),
    "udr": (
        lambda c: kr.defenses.udr(c, BALL, base=kr.defenses.trades, **SETTINGS),
        ["clean", "divergence"],
    ),
    "udr over mart with awp": (
        lambda c: kr.defenses.udr(
            c,
            BALL,
            base=kr.defenses.mart,
            boosted_on="clean",
            weight_perturbation=kr.AWP(0.01),
            **SETTINGS,
        ),
        ["boosted", "divergence"],
    ),
    "pgd_at with awp": (
        lambda c: kr.defenses.pgd_at(c, BALL, weight_perturbation=kr.AWP(0.01), **SETTINGS),
        ["adversarial"],
    ),
    "mart on clean images": (
        lambda c: kr.defenses.mart(c, BALL, boosted_on="clean", **SETTINGS),
        ["boosted", "divergence"],
    ),
    "adr": (
        lambda c: kr.defenses.adr(c, BALL, base="pgd_at", confidence_weight=0.5, **SETTINGS),
        ["adversarial", "local", "global", "smoothness", "confidence"],
    ),
    "adr of single images over trades": (
        lambda c: kr.defenses.adr(c, BALL, base=kr.defenses.trades, global_weight=0.0, **SETTINGS),
        ["clean", "divergence", "local", "smoothness"],
    ),
    "ascl": (
        lambda c: kr.defenses.ascl(c, BALL, head="linear", **SETTINGS),
        ["adversarial", "clean", "contrastive", "smoothness"],
    ),
    "ascl over distances with awp": (
        lambda c: kr.defenses.ascl(
            c,
            BALL,
            selection="global",
            similarity="l1",
            vat=0.0,
            clean_term=False,
            weight_perturbation=kr.AWP(0.01),
            **SETTINGS,
        ),
        ["adversarial", "contrastive"],
    ),
    "scl": (
        lambda c: kr.defenses.scl(c, BALL, augment=kr.data.shift_flip(0.3), **SETTINGS),
        ["adversarial", "clean", "contrastive"],
    ),
    "union": (
        lambda c: kr.defenses.union(
            c, kr.UnionBall((BALL, kr.L2Ball(0.3))), base="pgd_at", **SETTINGS
        ),
        ["adversarial"],
    ),
    "ensemble_at": (
        lambda c: kr.defenses.ensemble_at(c, BALL, **SETTINGS),
        ["adversarial", "clean"],
    ),
    "gaussian": (
        lambda c: kr.defenses.gaussian(c, BALL, sigma=0.1, **SETTINGS),
        ["adversarial"],
    ),
    "gaussian with smooth_adv": (
        lambda c: kr.defenses.gaussian(
            c, BALL, sigma=0.1, samples=2, clean_weight=0.5, radius_warmup=2, **SETTINGS
        ),
        ["adversarial", "clean"],
    ),
    "adp": (
        lambda c: kr.defenses.adp(c, BALL, **SETTINGS),
        ["clean", "adversarial", "entropy", "diversity"],
    ),
    "cce": (
        lambda c: kr.defenses.cce(c, BALL, **SETTINGS),
        ["clean", "adversarial", "promoting", "demoting"],
    ),
    "cce for detection with awp": (
        lambda c: kr.defenses.cce(
            c, BALL, mode="detection", weight_perturbation=kr.AWP(0.01), **SETTINGS
        ),
        ["clean", "adversarial", "demoting"],
    ),
    "cce on microbatches": (
        lambda c: kr.defenses.cce(c, BALL, mode="base", microbatches=2, **SETTINGS),
        ["clean", "adversarial"],
    ),
    "ta_moo": (lambda c: kr.defenses.ta_moo(c, BALL, **SETTINGS), ["adversarial", "clean"]),
    "udr over ensemble_at": (
        lambda c: kr.defenses.udr(c, BALL, base=kr.defenses.ensemble_at, **SETTINGS),
        ["adversarial", "clean"],
    ),
}


def each(names, by_default):
    """A test of each name, which only in the slow run is not of `by_default`."""
    slow = {name: [pytest.mark.slow] * (name not in by_default) for name in names}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=slow[n]) for n in names])
