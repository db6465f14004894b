(** Noise in the frozen model: what it does to RLHF and to a prompter. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb Divergence Tilt Gap.
Open Scope R_scope.

(** ** RLHF is fragile *)

Section Rlhf.
Context {Y : Type} `{Finite Y}.
Variables (beta m M : R) (r : Y -> R).
Hypotheses (beta_pos : 0 < beta).

Notation W := (exp ((M - m) / beta)).

Lemma exp_le a b : a <= b -> exp a <= exp b.
Proof. intros [L|<-]; [now apply Rlt_le, exp_increasing|lra]. Qed.

(** The case in which the second model has the larger partition function. *)
Lemma fragile_ordered (p q : Y -> R) : dist p -> dist q ->
  (forall y, 0 < p y \/ 0 < q y -> m <= r y <= M) ->
  partition beta p r <= partition beta q r ->
  TV (tilt beta p r) (tilt beta q r) * (1 - TV p q + TV p q * W) <= TV p q * W.
Proof.
  intros Dp Dq B L.
  set (T := TV p q); set (w y := exp (r y / beta)).
  set (Zp := partition beta p r) in *; set (Zq := partition beta q r) in *.
  assert (Pp : 0 < Zp) by now apply partition_pos.
  assert (Pq : 0 < Zq) by now apply partition_pos.
  assert (w0 : forall y, 0 < w y) by (intros y; apply exp_pos).
  assert (wm : forall a b, a <= b -> exp (a / beta) <= exp (b / beta)).
  { intros a b Lab; apply exp_le, Rmult_le_compat_r; [|easy].
    now apply Rlt_le, Rinv_0_lt_compat. }
  set (lo := exp (m / beta)); set (hi := exp (M / beta)).
  assert (lo0 : 0 < lo) by apply exp_pos.
  assert (eW : lo * W = hi).
  { unfold lo, hi; rewrite <- exp_plus; f_equal; field; lra. }
  set (D := Σ y, Rmax (q y - p y) 0 * w y).
  set (O := Σ y, Rmin (p y) (q y) * w y).
  assert (eZ : Zq = O + D).
  { unfold O, D; rewrite <- sum_plus; apply sum_ext; intros y; fold (w y).
    rewrite <- Rmult_plus_distr_r; f_equal.
    unfold Rmin, Rmax; destruct (Rle_dec (p y) (q y)), (Rle_dec (q y - p y) 0); lra. }
  assert (eT : (Σ y, Rmax (q y - p y) 0) = T).
  { unfold T; rewrite TV_sym; symmetry; now apply TV_positive_part. }
  assert (eO : (Σ y, Rmin (p y) (q y)) = 1 - T).
  { rewrite <- eT, <- (proj2 Dq), <- sum_minus; apply sum_ext; intros y.
    unfold Rmin, Rmax; destruct (Rle_dec (p y) (q y)), (Rle_dec (q y - p y) 0); lra. }
  assert (D0 : 0 <= D).
  { apply sum_ge0; intros y; apply Rmult_le_pos; [apply Rmax_r|now apply Rlt_le]. }
  assert (LD : D <= T * hi).
  { rewrite <- eT, Rmult_comm, <- sum_scal; apply sum_le; intros y.
    destruct (Rle_dec (q y - p y) 0) as [N|N].
    - rewrite Rmax_right by easy; lra.
    - rewrite Rmax_left, Rmult_comm by lra; apply Rmult_le_compat_r; [lra|].
      apply wm, B; right; generalize (proj1 Dp y); lra. }
  assert (LO : (1 - T) * lo <= O).
  { rewrite <- eO, Rmult_comm, <- sum_scal; apply sum_le; intros y.
    rewrite (Rmult_comm lo).
    assert (R0 : 0 <= Rmin (p y) (q y)) by (apply Rmin_glb; [apply Dp|apply Dq]).
    destruct R0 as [R0|<-]; [|lra].
    apply Rmult_le_compat_l; [lra|]; apply wm, B; left.
    generalize (Rmin_l (p y) (q y)); lra. }
  (* Only where the second model gives more can its optimum give more. *)
  assert (G : TV (tilt beta p r) (tilt beta q r) <= D * / Zq).
  { rewrite TV_sym, TV_positive_part by now apply tilt_dist.
    rewrite (Rmult_comm D); unfold D; rewrite <- sum_scal; apply sum_le; intros y.
    unfold tilt; fold Zp Zq (w y).
    assert (I : p y * w y / Zq <= p y * w y / Zp).
    { apply Rmult_le_compat_l; [apply Rmult_le_pos; [apply Dp|now apply Rlt_le]|].
      now apply Rinv_le_contravar. }
    assert (IZ : 0 < / Zq) by now apply Rinv_0_lt_compat.
    generalize (Rmax_l (q y - p y) 0) (Rmax_r (q y - p y) 0).
    intros Q1 Q2; apply Rmax_lub; [|repeat apply Rmult_le_pos; generalize (w0 y); lra].
    unfold Rdiv in *.
    assert (Q3 : (q y - p y) * w y * / Zq <= Rmax (q y - p y) 0 * w y * / Zq).
    { repeat apply Rmult_le_compat_r; generalize (w0 y); lra. }
    lra. }
  assert (T0 : 0 <= T) by apply TV_ge0.
  assert (T1 : 0 <= 1 - T).
  { rewrite <- eO; apply sum_ge0; intros y; apply Rmin_glb; [apply Dp|apply Dq]. }
  assert (W0 : 0 < W) by apply exp_pos.
  apply Rle_trans with (D * / Zq * (1 - T + T * W)).
  - apply Rmult_le_compat_r; [nra|exact G].
  - apply (Rmult_le_reg_r Zq); [easy|].
    replace (D * / Zq * (1 - T + T * W) * Zq) with (D * (1 - T) + D * (T * W)) by (field; lra).
    rewrite eZ.
    enough (D * (1 - T) <= T * W * O) by lra.
    apply Rle_trans with (T * hi * (1 - T)); [now apply Rmult_le_compat_r|].
    rewrite <- eW; assert (TW : 0 <= T * W) by nra.
    apply (Rmult_le_compat_l (T * W)) in LO; [lra|easy].
Qed.

Lemma rlhf_is_fragile (p q : Y -> R) eta : dist p -> dist q ->
  (forall y, 0 < p y \/ 0 < q y -> m <= r y <= M) -> TV p q <= eta -> eta <= 1 ->
  TV (tilt beta p r) (tilt beta q r) <= eta * W / (1 - eta + eta * W).
Proof.
  intros Dp Dq B Le L1.
  assert (W0 : 0 < W) by apply exp_pos.
  assert (T0 := TV_ge0 p q).
  assert (P : forall t, 0 <= t -> t <= 1 -> 0 < 1 - t + t * W).
  { intros t t0 t1; destruct t0 as [t0|<-]; [|lra].
    generalize (Rmult_lt_0_compat t W t0 W0); lra. }
  assert (G : TV (tilt beta p r) (tilt beta q r) * (1 - TV p q + TV p q * W) <= TV p q * W).
  { destruct (Rle_dec (partition beta p r) (partition beta q r)) as [L|L].
    - now apply fragile_ordered.
    - rewrite TV_sym, (TV_sym p q); apply fragile_ordered; auto; [|lra].
      intros y [|]; apply B; auto. }
  assert (Pt := P (TV p q) T0 ltac:(lra)); assert (Pe := P eta ltac:(lra) L1).
  apply (Rmult_le_reg_r (1 - TV p q + TV p q * W)); [easy|].
  eapply Rle_trans; [exact G|].
  apply (Rmult_le_reg_r (1 - eta + eta * W)); [easy|].
  replace (eta * W / (1 - eta + eta * W) * (1 - TV p q + TV p q * W) * (1 - eta + eta * W))
    with (eta * W * (1 - TV p q + TV p q * W)) by (field; lra).
  generalize (TV p q) W W0 Le T0; clear; intros t v v0 Le t0.
  enough (0 <= v * (eta - t)) by lra; apply Rmult_le_pos; lra.
Qed.
End Rlhf.

(** ** A prompter under the same noise *)

Section Prompter.
Context {K Y : Type} `{Finite K} `{Finite Y}.

(** A channel cannot increase total variation. *)
Lemma TV_channel (p p' : K -> R) (q : K -> Y -> R) : (forall k, dist (q k)) ->
  TV (mix p q) (mix p' q) <= TV p p'.
Proof.
  intros Q; unfold TV; apply Rmult_le_compat_l; [lra|].
  apply Rle_trans with (Σ y, Σ k, Rabs (p k - p' k) * q k y).
  - apply sum_le; intros y; unfold mix; rewrite <- sum_minus.
    eapply Rle_trans; [apply sum_abs|]; apply Req_le, sum_ext; intros k.
    rewrite <- Rmult_minus_distr_r, Rabs_mult, (Rabs_pos_eq (q k y)); [easy|apply Q].
  - rewrite sum_swap; apply Req_le, sum_ext; intros k.
    rewrite sum_scal, (proj2 (Q k)); ring.
Qed.

Lemma TV_channels (p : K -> R) (q q' : K -> Y -> R) : dist p ->
  TV (mix p q) (mix p q') <= E p (fun k => TV (q k) (q' k)).
Proof.
  intros D; unfold TV; rewrite (E_scal p (/ 2)); apply Rmult_le_compat_l; [lra|].
  apply Rle_trans with (Σ y, Σ k, p k * Rabs (q k y - q' k y)).
  - apply sum_le; intros y; unfold mix; rewrite <- sum_minus.
    eapply Rle_trans; [apply sum_abs|]; apply Req_le, sum_ext; intros k.
    rewrite <- Rmult_minus_distr_l, Rabs_mult, (Rabs_pos_eq (p k)); [easy|apply D].
  - rewrite sum_swap; apply Req_le, sum_ext; intros k; apply sum_scal.
Qed.

Variables (lam : R) (rho_sft : K -> R) (pi_F pi_hat : K -> Y -> R) (r : Y -> R).
Hypotheses (lam_pos : 0 < lam) (Dsft : dist rho_sft)
  (DF : forall k, dist (pi_F k)) (Dhat : forall k, dist (pi_hat k)).

Definition mean_reward (k : K) : R := E (pi_F k) r.
Definition mean_reward_hat (k : K) : R := E (pi_hat k) r.
Notation rho_star := (tilt lam rho_sft mean_reward).
Notation rho_hat := (tilt lam rho_sft mean_reward_hat).

Lemma prompter_under_noise : TV (mix rho_hat pi_hat) (mix rho_star pi_F)
  <= E rho_star (fun k => TV (pi_hat k) (pi_F k))
     + tanh (osc rho_sft (error mean_reward mean_reward_hat) / (4 * lam)).
Proof.
  assert (Ds : dist rho_star) by now apply tilt_dist.
  eapply Rle_trans; [apply (TV_triangle _ (mix rho_star pi_hat))|].
  rewrite Rplus_comm; apply Rplus_le_compat; [now apply TV_channels|].
  eapply Rle_trans; [now apply TV_channel|].
  rewrite (rho_hat_is_tilt lam rho_sft mean_reward mean_reward_hat Dsft).
  rewrite <- (osc_error lam rho_sft mean_reward mean_reward_hat Dsft).
  now apply TV_tilt.
Qed.

(** Contamination at rate [eta] by one distribution [nu] for all rewrites is a stiffer leash. *)
Lemma contamination eta nu : eta < 1 ->
  (forall k y, pi_hat k y = (1 - eta) * pi_F k y + eta * nu y) ->
  rho_hat = tilt (lam / (1 - eta)) rho_sft mean_reward.
Proof.
  intros L e.
  assert (eg : mean_reward_hat = fun k => (1 - eta) * mean_reward k + eta * E nu r).
  { apply functional_extensionality; intros k; unfold mean_reward_hat, mean_reward, E.
    rewrite <- !sum_scal, <- sum_plus; apply sum_ext; intros y; rewrite e; ring. }
  rewrite eg, (tilt_constant lam rho_sft Dsft (fun k => (1 - eta) * mean_reward k)).
  assert (ex : forall k, (1 - eta) * mean_reward k / lam = mean_reward k / (lam / (1 - eta)))
    by (intros k; field; lra).
  apply functional_extensionality; intros k; unfold tilt, partition; rewrite ex.
  now rewrite (sum_ext _ (fun j => rho_sft j * exp (mean_reward j / (lam / (1 - eta)))))
    by (intros j; now rewrite ex).
Qed.
End Prompter.
