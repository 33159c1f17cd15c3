"""Copies the reference arrays that the tests use, and no others.

python tests/golden/make.py ../shared/golden
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

_CCE = (
    "clean_logits adv_logits labels soft_indicator adv_en_loss text_loss_pm1_dm1 "
    "text_d_clean_pm1_dm1 text_d_adv_pm1_dm1 text_total_pm1_dm1 text_loss_pm0_dm5 "
    "text_d_clean_pm0_dm5 text_d_adv_pm0_dm5 text_total_pm0_dm5 text_loss_pm0_dm0 "
    "text_d_clean_pm0_dm0 text_d_adv_pm0_dm0 text_total_pm0_dm0 text_d_adv_nostopgrad_pm1_dm1"
)
_ADP = (
    "clean_logits adv_logits labels alpha beta ens_entropy_clean ens_entropy_adv log_det_clean "
    "log_det_adv ce_sum_clean ce_sum_adv loss_total d_mean_d_clean d_mean_d_adv"
)
USED = {
    "trades_mart": (
        "logits_nat logits_adv labels kl_nat_adv_per_sample kl_adv_nat_per_sample ce_nat ce_adv "
        "bce_nat bce_adv trades_total_beta1 trades_total_beta6 d_trades6_d_logits_nat "
        "d_trades6_d_logits_adv mart_official_beta1 mart_official_beta5 mart_official_beta6 "
        "d_mart_official5_d_logits_nat d_mart_official5_d_logits_adv mart_text_beta5 "
        "g_udr_pgd_beta1 g_udr_pgd_nonat_beta1 g_udr_trades_beta6"
    ),
    "pgd_attacks": (
        "x y eps eta steps W1 b1 W2 b2 noise_uniform xadv_pgd_ce_unclipped_start "
        "delta0_clipped_start xadv_pgd_ce_clipped_start noise_randn xadv_trades_kl"
    ),
    "aa_losses": (
        "logits labels target_second target_rank ce dlr d_dlr dlr_targeted_second "
        "d_dlr_targeted_second dlr_targeted_rank d_dlr_targeted_rank ce_targeted_second "
        "ce_targeted_rank cw_margin_raw square_margin"
    ),
    "aa_l1_projection": "x y eps projected",
    "aa_apgd": (
        "x y n_iter W1 b1 W2 b2 x_init_Linf eps_Linf Linf_ce_x_best Linf_ce_loss_best "
        "Linf_ce_x_best_adv Linf_ce_still_correct Linf_dlr_x_best Linf_dlr_loss_best "
        "Linf_dlr_x_best_adv Linf_dlr_still_correct Linf_dlrt_target Linf_dlrt_x_best "
        "Linf_dlrt_loss_best Linf_dlrt_x_best_adv Linf_dlrt_still_correct x_init_L2 eps_L2 "
        "L2_ce_x_best L2_ce_loss_best L2_ce_x_best_adv L2_ce_still_correct L2_dlr_x_best "
        "L2_dlr_loss_best L2_dlr_x_best_adv L2_dlr_still_correct x_init_L1 eps_L1 L1_ce_x_best "
        "L1_ce_loss_best L1_ce_x_best_adv L1_ce_still_correct L1_dlr_x_best L1_dlr_loss_best "
        "L1_dlr_x_best_adv L1_dlr_still_correct"
    ),
    "aa_square_schedule": (
        "p_init p_std5000 it_std5000 eta_rect_L2_1x3 eta_rect_L2_2x5 eta_rect_L2_3x7 "
        "eta_rect_L2_4x4 eta_rect_L1_1x3 eta_rect_L1_2x5 eta_rect_L1_3x7 eta_rect_L1_4x4 "
        "side_linf_32"
    ),
    "udr_cost": (
        "x x_adv tau eps_l1_mean c_l1_mean chat_l1_mean dchat_dxadv_l1_mean eps_l2_half_sq "
        "c_l2_half_sq chat_l2_half_sq dchat_dxadv_l2_half_sq eps_linf_max c_linf_max chat_linf_max "
        "dchat_dxadv_linf_max"
    ),
    "udr_step": (
        "x delta_in grad eps alpha alg1_lambda alg1_tau delta_out_tau_eta_lam1 "
        "delta_out_tau_2eta_lam1 delta_out_tau_eta_lam0.5 delta_out_tau_2eta_lam0.5 "
        "delta_out_tau_eta_lam0.1 delta_out_tau_2eta_lam0.1 delta_out_tau_eta_lam0 "
        "delta_out_tau_2eta_lam0 alg1_x_out_unclipped_linf_max alg1_eps_linf_max "
        "alg1_x_out_unclipped_l2_half_sq alg1_eps_l2_half_sq alg1_x_out_unclipped_l1_mean "
        "alg1_eps_l1_mean"
    ),
    "udr_attack": (
        "x y delta0 eps alpha steps W1 b1 W2 b2 delta_traj_lam1 delta_traj_lam0.6 "
        "delta_traj_lam0.2 delta_traj_lam0 delta_traj_tau2eta_lam1 delta_traj_tau2eta_lam0.6"
    ),
    "udr_lambda": (
        "deltas eps lr lambda0 period lambda_code lambda_eq19_linf_chat tau_eq19 lambda_small0 "
        "lambda_small_noclamp"
    ),
    "adr_terms": (
        "z_nat z_adv logits_nat logits_adv labels alpha weights lc_com d_lc_com_d_z_nat "
        "d_lc_com_d_z_adv gb_com d_gb_com_d_z_nat d_gb_com_d_z_adv smooth_kl_mean "
        "d_lc_smt_d_logits_nat d_lc_smt_d_logits_adv conf_adv conf_nat d_conf_adv_d_logits_adv "
        "ce_nat ce_adv text_lc_com_p1 text_lc_com_p2 text_lc_com_pinf text_gb_com_natnat_p1 "
        "text_gb_com_natnat_p2 text_gb_com_natnat_pinf"
    ),
    "ascl_scl": (
        "z z_adv labels pred_nat pred_adv loss_global_cosine_tau0.07 "
        "d_global_cosine_tau0.07_d_z d_global_cosine_tau0.07_d_z_adv loss_global_linf_tau0.2 "
        "d_global_linf_tau0.2_d_z d_global_linf_tau0.2_d_z_adv loss_global_l1_tau0.2 "
        "loss_global_l2_tau0.2 loss_global_matmul_tau0.2 loss_hard_cosine_tau0.07 "
        "d_hard_cosine_tau0.07_d_z d_hard_cosine_tau0.07_d_z_adv loss_hard_linf_tau0.2 "
        "loss_hard_l1_tau0.2 loss_hard_l2_tau0.2 loss_soft_cosine_tau0.07 "
        "d_soft_cosine_tau0.07_d_z d_soft_cosine_tau0.07_d_z_adv loss_soft_linf_tau0.2 "
        "loss_soft_l1_tau0.2 loss_soft_l2_tau0.2 n_pos_global n_neg_global n_pos_hard n_neg_hard "
        "n_pos_soft n_neg_soft n_pos_leaked n_neg_leaked text_global_cosine_tau0.07_sum "
        "text_hard_cosine_tau0.07_sum text_soft_cosine_tau0.07_sum "
        "text_leaked_cosine_tau0.07_sum text_per_anchor_leaked_cosine_tau0.2 vat_logits_nat "
        "vat_logits_adv vat_text_samplemean d_vat_code_d_logits_nat d_vat_code_d_logits_adv "
        "rdiv rdiv_intra rdiv_inter"
    ),
    "udr_awp": "x_adv y gamma W1 b1 W2 b2 model_lr final_W1 final_b1 final_W2 final_b2",
    "aa_fab_projections": "t w b d_linf norm_opt_linf d_l2 norm_opt_l2 d_l1 norm_opt_l1",
    "aa_fab": (
        "x y n_iter alpha_max eta beta W1 b1 W2 b2 Linf_adv Linf_dist Linf_success Linf_adv_t3 "
        "Linf_dist_t3 L2_adv L2_dist L2_success L2_adv_t3 L2_dist_t3 L1_adv L1_dist L1_success "
        "L1_adv_t3 L1_dist_t3"
    ),
    "cce_n2": _CCE,
    "cce_n3": _CCE,
    "adp_n2": _ADP,
    "adp_n3": _ADP,
    "cce_metrics": (
        "probs_clean probs_adv labels entropy_clean entropy_adv auc transfer_probs a11 a12 a21 "
        "a22 a_en_en S11 S01 S10 S00 T nT a_single"
    ),
}


def main(source: str) -> None:
    """Writes one small file beside this one for each of `USED`."""
    here = pathlib.Path(__file__).parent
    for name, arrays in USED.items():
        with np.load(pathlib.Path(source) / f"{name}.npz") as full:
            np.savez_compressed(here / f"{name}.npz", **{key: full[key] for key in arrays.split()})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
