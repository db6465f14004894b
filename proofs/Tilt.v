(** One prompt: the exponential tilt of a base distribution, and all that the book proves of it.

    The base is the untrained prompter and [g] the mean reward of a rewrite; or the base is the
    frozen model, [g] the reward of a response, and the tilt is the optimum of RLHF. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb Divergence.
Open Scope R_scope.

Section Definitions.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 g : K -> R).

Definition partition : R := Σ k, rho0 k * exp (g k / lam).
Definition tilt (k : K) : R := rho0 k * exp (g k / lam) / partition.
Definition objective (rho : K -> R) : R := E rho g - lam * KL rho rho0.
(** The objective with multiplier [mu] for the constraint that the probabilities sum to 1. *)
Definition lagrangian (mu : R) (rho : K -> R) : R := objective rho + mu * (1 - sum rho).
End Definitions.

(** ** Lemma 5.1 *)

Section Lemma51.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 g : K -> R).
Hypotheses (lam_pos : 0 < lam) (D0 : dist rho0).

Notation Z := (partition lam rho0 g).
Notation rho_star := (tilt lam rho0 g).
Notation F := (objective lam rho0 g).

Lemma partition_pos : 0 < Z.
Proof.
  assert (T : forall k, 0 <= rho0 k * exp (g k / lam)).
  { intros k; apply Rmult_le_pos; [apply D0|apply Rlt_le, exp_pos]. }
  destruct (dist_supported rho0 D0) as [k Pk].
  apply Rlt_le_trans with (rho0 k * exp (g k / lam)).
  - apply Rmult_lt_0_compat; [easy|apply exp_pos].
  - now apply (sum_ge_term (fun k => rho0 k * exp (g k / lam))).
Qed.

Lemma tilt_pos k : 0 < rho0 k -> 0 < rho_star k.
Proof.
  intros P; apply Rdiv_lt_0_compat; [|apply partition_pos].
  apply Rmult_lt_0_compat; [easy|apply exp_pos].
Qed.

Lemma tilt_abs_cont : rho_star << rho0.
Proof. intros k e; unfold tilt; rewrite e; field; generalize partition_pos; lra. Qed.

Lemma tilt_dist : dist rho_star.
Proof.
  generalize partition_pos; intros Zp; split.
  - intros k; destruct (proj1 D0 k) as [P|e].
    + now apply Rlt_le, tilt_pos.
    + rewrite (tilt_abs_cont k (eq_sym e)); lra.
  - unfold tilt; rewrite (sum_ext _ (fun k => / Z * (rho0 k * exp (g k / lam)))).
    + rewrite sum_scal; fold Z; field; lra.
    + intros k; field; lra.
Qed.

Lemma abs_cont_tilt : rho0 << rho_star.
Proof.
  intros k e; destruct (proj1 D0 k) as [P|e0]; [|easy].
  generalize (tilt_pos k P); lra.
Qed.

Lemma tilt_support k : 0 < rho_star k <-> 0 < rho0 k.
Proof.
  split; [|apply tilt_pos].
  now apply abs_cont_pos; [|apply tilt_abs_cont].
Qed.

Lemma abs_cont_rho_tilt rho : rho << rho0 -> rho << rho_star.
Proof. intros C k e; now apply C, abs_cont_tilt. Qed.

Lemma ln_tilt k : 0 < rho0 k -> ln (rho_star k / rho0 k) = g k / lam - ln Z.
Proof.
  intros P; generalize partition_pos (exp_pos (g k / lam)); intros Zp Ep.
  replace (rho_star k / rho0 k) with (exp (g k / lam) / Z) by (unfold tilt; field; lra).
  now rewrite ln_div, ln_exp by easy.
Qed.

(** Part 1.  Everything about the tilt follows from this identity. *)
Lemma objective_eq rho : dist rho -> rho << rho0 -> F rho = lam * ln Z - lam * KL rho rho_star.
Proof.
  intros D C; unfold objective; generalize partition_pos; intros Zp.
  enough (e : KL rho rho_star = KL rho rho0 - / lam * E rho g + ln Z)
    by (rewrite e; field; lra).
  rewrite <- (E_const rho (ln Z)) by easy.
  unfold KL, E; rewrite <- sum_scal, <- sum_minus, <- sum_plus; apply sum_ext; intros k.
  destruct (proj1 D k) as [Pk|<-]; [|ring].
  assert (P0 : 0 < rho0 k) by now apply (abs_cont_pos rho).
  generalize (ln_tilt k P0) (tilt_pos k P0); rewrite !ln_div by (auto using tilt_pos).
  intros e Pt; replace (ln (rho_star k)) with (g k / lam - ln Z + ln (rho0 k)) by lra; field; lra.
Qed.

(** Part 2: the value, the maximum, and that there is only one. *)
Lemma objective_tilt : F rho_star = lam * ln Z.
Proof. rewrite objective_eq, KL_refl; auto using tilt_dist, tilt_abs_cont; ring. Qed.

Lemma regret rho : dist rho -> rho << rho0 -> F rho_star - F rho = lam * KL rho rho_star.
Proof. intros D C; rewrite objective_tilt, (objective_eq rho) by easy; ring. Qed.

Lemma KL_tilt_ge0 rho : dist rho -> rho << rho0 -> 0 <= KL rho rho_star.
Proof. intros D C; apply KL_ge0; auto using tilt_dist, abs_cont_rho_tilt. Qed.

Lemma tilt_optimal rho : dist rho -> rho << rho0 -> F rho <= F rho_star.
Proof. intros D C; generalize (regret rho D C) (KL_tilt_ge0 rho D C); nra. Qed.

Lemma tilt_unique rho : dist rho -> rho << rho0 -> F rho_star <= F rho -> rho = rho_star.
Proof.
  intros D C L; apply KL_eq0; auto using tilt_dist, abs_cont_rho_tilt.
  generalize (regret rho D C) (KL_tilt_ge0 rho D C); nra.
Qed.
End Lemma51.

(** Part 4: the multiplier.  The Lagrangian is stationary at the tilt, in every direction that
    stays on the support, for one value of the multiplier. *)

Lemma derivative_of_sum {K} `{Finite K} (h : K -> R -> R) (d : K -> R) t :
  (forall k, derivable_pt_lim (h k) t (d k)) ->
  derivable_pt_lim (fun s => Σ k, h k s) t (Σ k, d k).
Proof.
  intros D; unfold sum; induction (elems K) as [|k l IH]; simpl.
  - apply (derivable_pt_lim_const 0).
  - now apply (derivable_pt_lim_plus (h k) (fun s => lsum l (fun j => h j s))).
Qed.

Lemma derivative_of_line a v t : derivable_pt_lim (fun s => a + s * v) t v.
Proof.
  assert (L := derivable_pt_lim_plus (fct_cte a) (mult_fct id (fct_cte v)) t _ _
    (derivable_pt_lim_const a t)
    (derivable_pt_lim_mult id (fct_cte v) t _ _
       (derivable_pt_lim_id t) (derivable_pt_lim_const v t))).
  replace (0 + (1 * fct_cte v t + id t * 0)) with v in L by (unfold fct_cte; ring).
  exact L.
Qed.

Lemma derivative_of_x_ln_x a v b : 0 < a -> 0 < b ->
  derivable_pt_lim (fun s => (a + s * v) * ln ((a + s * v) / b)) 0 (v * ln (a / b) + v).
Proof.
  intros Pa Pb.
  assert (L : derivable_pt_lim (fun s => (a + s * v) / b) 0 (v / b)).
  { replace (fun s => (a + s * v) / b) with (mult_real_fct (/ b) (fun s => a + s * v))
      by (apply functional_extensionality; intros; unfold mult_real_fct, Rdiv; ring).
    replace (v / b) with (/ b * v) by (unfold Rdiv; ring).
    apply derivable_pt_lim_scal, derivative_of_line. }
  assert (P : 0 < (a + 0 * v) / b) by (rewrite Rmult_0_l, Rplus_0_r; now apply Rdiv_lt_0_compat).
  generalize (derivable_pt_lim_comp (fun s => (a + s * v) / b) ln 0 _ _ L
                (derivable_pt_lim_ln _ P)); intros Lc.
  generalize (derivable_pt_lim_mult (fun s => a + s * v) _ 0 _ _ (derivative_of_line a v 0) Lc).
  unfold mult_fct, comp; rewrite !Rmult_0_l, !Rplus_0_r; intros G.
  replace (v * ln (a / b) + v) with (v * ln (a / b) + a * (/ (a / b) * (v / b))) by (field; lra).
  exact G.
Qed.

Section Multiplier.
Context {K : Type} `{Finite K}.
Variables (lam mu : R) (rho0 g v : K -> R).
Hypotheses (lam_pos : 0 < lam) (D0 : dist rho0) (v_on_support : v << rho0).

Notation Z := (partition lam rho0 g).
Notation rho_star := (tilt lam rho0 g).

Lemma lagrangian_derivative :
  derivable_pt_lim (fun t => lagrangian lam rho0 g mu (fun k => rho_star k + t * v k)) 0
    ((lam * ln Z - lam - mu) * sum v).
Proof.
  set (h k t := (rho_star k + t * v k) * (g k - mu)
                - lam * ((rho_star k + t * v k) * ln ((rho_star k + t * v k) / rho0 k))).
  replace (fun t => lagrangian _ _ _ _ _) with (fun t => mu + Σ k, h k t).
  2:{ apply functional_extensionality; intros t; unfold lagrangian, objective, E, KL, h.
      rewrite sum_minus, sum_scal.
      rewrite (sum_ext _ (fun k => (rho_star k + t * v k) * g k - mu * (rho_star k + t * v k)))
        by (intros; ring).
      rewrite sum_minus, sum_scal; ring. }
  rewrite <- (Rplus_0_l (_ * sum v)), <- sum_scal.
  apply (derivable_pt_lim_plus (fct_cte mu)); [apply derivable_pt_lim_const|].
  apply derivative_of_sum; intros k; unfold h.
  destruct (proj1 D0 k) as [P|Z0].
  - generalize (tilt_pos lam rho0 g D0 k P); intros Pt.
    replace ((lam * ln Z - lam - mu) * v k)
      with (v k * (g k - mu) - lam * (v k * ln (rho_star k / rho0 k) + v k))
      by (rewrite ln_tilt by easy; field; lra).
    apply (derivable_pt_lim_minus (fun t => (rho_star k + t * v k) * (g k - mu))
             (mult_real_fct lam (fun t => _ * _))).
    + replace (fun t => (rho_star k + t * v k) * (g k - mu))
        with (fun t => rho_star k * (g k - mu) + t * (v k * (g k - mu)))
        by (apply functional_extensionality; intros; ring).
      apply derivative_of_line.
    + apply derivable_pt_lim_scal; now apply derivative_of_x_ln_x.
  - rewrite (v_on_support k (eq_sym Z0)), (tilt_abs_cont lam rho0 g D0 k (eq_sym Z0)).
    replace ((lam * ln Z - lam - mu) * 0) with 0 by ring.
    replace (fun t => _) with (fct_cte 0); [apply derivable_pt_lim_const|].
    apply functional_extensionality; intros t; unfold fct_cte; ring.
Qed.
End Multiplier.

(** ** Exact gains (C1, C2) *)

Section Gains.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 g : K -> R).
Hypotheses (lam_pos : 0 < lam) (D0 : dist rho0).

Notation rho_star := (tilt lam rho0 g).
Notation F := (objective lam rho0 g).

Lemma abs_cont_refl (p : K -> R) : p << p.
Proof. now intros k. Qed.

Lemma three_point rho : dist rho -> rho << rho0 ->
  E rho g - E rho0 g = lam * (KL rho rho0 + KL rho0 rho_star - KL rho rho_star).
Proof.
  intros D C; generalize (regret lam rho0 g lam_pos D0 rho D C).
  generalize (regret lam rho0 g lam_pos D0 rho0 D0 (abs_cont_refl rho0)).
  unfold objective; rewrite (KL_refl rho0); lra.
Qed.

Lemma reward_gain : E rho_star g - E rho0 g = lam * Jeffreys rho_star rho0.
Proof.
  rewrite (three_point rho_star); auto using tilt_dist, tilt_abs_cont.
  unfold Jeffreys; rewrite KL_refl; ring.
Qed.

(** Any distribution that earns at least the regularised value of the base. *)
Lemma gain_at_least_KL : lam * KL rho_star rho0 <= E rho_star g - E rho0 g.
Proof.
  rewrite reward_gain; unfold Jeffreys.
  assert (G : 0 <= KL rho0 rho_star) by auto using KL_ge0, tilt_dist, abs_cont_tilt; nra.
Qed.
End Gains.

(** ** A tilt of a tilt *)

Section Composition.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 : K -> R).
Hypotheses (D0 : dist rho0).

Lemma tilt_tilt f e : tilt lam (tilt lam rho0 f) e = tilt lam rho0 (fun k => f k + e k).
Proof.
  set (Zf := partition lam rho0 f); set (Zfe := partition lam rho0 (fun k => f k + e k)).
  assert (Pf : 0 < Zf) by now apply partition_pos.
  assert (Pfe : 0 < Zfe) by now apply partition_pos.
  assert (T : forall k, tilt lam rho0 f k * exp (e k / lam)
                        = / Zf * (rho0 k * exp ((f k + e k) / lam))).
  { intros k; unfold tilt; fold Zf; unfold Rdiv; rewrite Rmult_plus_distr_r, exp_plus; ring. }
  assert (eZ : partition lam (tilt lam rho0 f) e = / Zf * Zfe).
  { unfold partition at 1; rewrite (sum_ext _ _ T), sum_scal; reflexivity. }
  apply functional_extensionality; intros k.
  unfold tilt at 1 3; rewrite T, eZ; fold Zfe; field; lra.
Qed.

Lemma tilt_0 : tilt lam rho0 (fun _ => 0) = rho0.
Proof.
  apply functional_extensionality; intros k; unfold tilt, partition.
  rewrite (sum_ext _ rho0), (proj2 D0); unfold Rdiv; rewrite Rmult_0_l, exp_0;
    [field|intros; ring].
Qed.

(** The base is the tilt of the tilt by the opposite reward. *)
Lemma tilt_back f : tilt lam (tilt lam rho0 f) (fun k => - f k) = rho0.
Proof.
  rewrite tilt_tilt.
  rewrite (functional_extensionality (fun k => f k + - f k) (fun _ => 0)) by (intros; ring).
  exact tilt_0.
Qed.

(** A constant reward changes nothing. *)
Lemma tilt_constant f c : tilt lam rho0 (fun k => f k + c) = tilt lam rho0 f.
Proof.
  rewrite <- tilt_tilt.
  assert (D : dist (tilt lam rho0 f)) by now apply tilt_dist.
  apply functional_extensionality; intros k; unfold tilt at 1, partition.
  rewrite (sum_ext _ (fun j => exp (c / lam) * tilt lam rho0 f j)) by (intros; ring).
  rewrite sum_scal, (proj2 D); generalize (exp_pos (c / lam)); intros P; field; lra.
Qed.
End Composition.

(** ** How far a tilt can move (the lemma on tanh, C4, C6) *)

Lemma tanh_eq s : tanh (s / 4) = (exp (s / 2) - 1) / (exp (s / 2) + 1).
Proof.
  unfold tanh, sinh, cosh.
  assert (e2 : exp (s / 2) = exp (s / 4) * exp (s / 4))
    by (rewrite <- exp_plus; f_equal; field).
  assert (en : exp (- (s / 4)) = / exp (s / 4)) by apply exp_Ropp.
  rewrite e2, en; generalize (exp_pos (s / 4)); intros P; field; nra.
Qed.

Lemma tanh_le s u : s <= u -> tanh s <= tanh u.
Proof.
  intros [L|<-]; [|lra].
  replace s with (4 * s / 4) by field; replace u with (4 * u / 4) by field; rewrite !tanh_eq.
  assert (Le : exp (4 * s / 2) < exp (4 * u / 2)) by (apply exp_increasing; lra).
  generalize (exp_pos (4 * s / 2)) (exp_pos (4 * u / 2)) Le.
  generalize (exp (4 * s / 2)) (exp (4 * u / 2)); intros a b Pa Pb Lab.
  apply (Rmult_le_reg_r ((a + 1) * (b + 1))); [apply Rmult_lt_0_compat; lra|].
  replace ((a - 1) / (a + 1) * ((a + 1) * (b + 1))) with ((a - 1) * (b + 1)) by (field; lra).
  replace ((b - 1) / (b + 1) * ((a + 1) * (b + 1))) with ((b - 1) * (a + 1)) by (field; lra).
  lra.
Qed.

(** If the ratio [p / q] stays within the factor [v^2], then [TV p q <= (v - 1) / (v + 1)]. *)
Lemma TV_of_bounded_ratio {K} `{Finite K} (p q : K -> R) c v : dist p -> dist q ->
  0 < c -> 1 <= v -> (forall k, c * q k <= p k <= c * (v * v) * q k) ->
  TV p q <= (v - 1) / (v + 1).
Proof.
  intros Dp Dq c0 v1 B; set (b := c * (v * v)).
  assert (c1 : c <= 1).
  { assert (G : c * sum q <= sum p) by (rewrite <- sum_scal; apply sum_le; intros k; apply B).
    rewrite (proj2 Dp), (proj2 Dq) in G; lra. }
  assert (b1 : 1 <= b).
  { assert (G : sum p <= b * sum q) by (rewrite <- sum_scal; apply sum_le; intros k; apply B).
    rewrite (proj2 Dp), (proj2 Dq) in G; lra. }
  (* The convex function (l - 1)^+ of the ratio l is below its chord. *)
  assert (G : TV p q * (b - c) <= (b - 1) * (1 - c)).
  { rewrite TV_positive_part, Rmult_comm, <- sum_scal by easy.
    replace ((b - 1) * (1 - c)) with (Σ k, (b - 1) * (p k - c * q k))
      by (rewrite sum_scal, sum_minus, sum_scal, (proj2 Dp), (proj2 Dq); ring).
    apply sum_le; intros k; destruct (B k) as [L U]; fold b in U.
    destruct (Rle_dec 0 (p k - q k)) as [N|N].
    - rewrite Rmax_left by easy; nra.
    - rewrite Rmax_right by lra; nra. }
  destruct v1 as [v1|ev].
  - apply (Rmult_le_reg_r ((v + 1) * (c * (v - 1))));
      [repeat apply Rmult_lt_0_compat; lra|].
    replace ((v - 1) / (v + 1) * _) with (c * ((v - 1) * (v - 1))) by (field; lra).
    replace (TV p q * _) with (TV p q * (b - c)) by (unfold b; ring).
    eapply Rle_trans; [exact G|]; unfold b.
    generalize (Rle_0_sqr (c * v - 1)); unfold Rsqr; nra.
  - unfold b in b1; rewrite <- ev in *.
    assert (ec : c = 1) by (rewrite !Rmult_1_r in b1; now apply Rle_antisym).
    assert (epq : p = q).
    { apply functional_extensionality; intros k; generalize (B k); rewrite ec; lra. }
    rewrite epq; unfold TV; rewrite (sum_ext _ (fun _ => 0)), sum_0; [lra|].
    intros k; unfold Rminus; now rewrite Rplus_opp_r, Rabs_R0.
Qed.

Section Distance.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 g : K -> R).
Hypotheses (lam_pos : 0 < lam) (D0 : dist rho0).

Notation Z := (partition lam rho0 g).
Notation rho_star := (tilt lam rho0 g).
Notation s := (osc rho0 g).

Lemma osc_g_ge0 : 0 <= s.
Proof. apply osc_ge0; now apply dist_supported. Qed.

Lemma tilt_ratio k : exp (min_on rho0 g / lam) / Z * rho0 k <= rho_star k
  /\ rho_star k <= exp (max_on rho0 g / lam) / Z * rho0 k.
Proof.
  generalize (partition_pos lam rho0 g D0); intros Zp; unfold tilt.
  destruct (proj1 D0 k) as [P|<-]; [|split; apply Req_le; field; lra].
  assert (M : forall a b, a <= b -> exp (a / lam) / Z * rho0 k <= exp (b / lam) / Z * rho0 k).
  { intros a b L; apply Rmult_le_compat_r; [lra|].
    apply Rmult_le_compat_r; [now apply Rlt_le, Rinv_0_lt_compat|].
    assert (L' : a / lam <= b / lam)
      by (apply Rmult_le_compat_r; [now apply Rlt_le, Rinv_0_lt_compat|easy]).
    destruct L' as [L'|<-]; [now apply Rlt_le, exp_increasing|lra]. }
  replace (rho0 k * exp (g k / lam) / Z) with (exp (g k / lam) / Z * rho0 k) by (field; lra).
  split; apply M; [now apply min_on_le|now apply max_on_ge].
Qed.

Lemma TV_tilt : TV rho_star rho0 <= tanh (s / (4 * lam)).
Proof.
  generalize (partition_pos lam rho0 g D0); intros Zp.
  replace (s / (4 * lam)) with (s / lam / 4) by (field; lra); rewrite tanh_eq.
  assert (Hs : 0 <= s / lam / 2).
  { repeat apply Rmult_le_pos; try lra; [apply osc_g_ge0|now apply Rlt_le, Rinv_0_lt_compat]. }
  apply TV_of_bounded_ratio with (c := exp (min_on rho0 g / lam) / Z).
  - now apply tilt_dist.
  - easy.
  - apply Rdiv_lt_0_compat; [apply exp_pos|easy].
  - rewrite <- exp_0; destruct Hs as [L|<-]; [now apply Rlt_le, exp_increasing|lra].
  - intros k; destruct (tilt_ratio k) as [L U]; split; [exact L|].
    eapply Rle_trans; [exact U|]; apply Req_le; f_equal.
    rewrite <- exp_plus.
    replace (max_on rho0 g / lam) with (min_on rho0 g / lam + (s / lam / 2 + s / lam / 2))
      by (unfold osc; field; lra).
    rewrite exp_plus; field; lra.
Qed.

Lemma gain_at_most : E rho_star g - E rho0 g <= s * tanh (s / (4 * lam)).
Proof.
  eapply Rle_trans; [apply Rle_abs|].
  eapply Rle_trans; [apply E_diff_abs_abs_cont; auto using tilt_dist, tilt_abs_cont|].
  apply Rmult_le_compat_l; [apply osc_g_ge0|apply TV_tilt].
Qed.

Lemma gain_at_least : lam * phi (TV rho_star rho0) <= E rho_star g - E rho0 g.
Proof.
  rewrite reward_gain by easy; apply Rmult_le_compat_l; [lra|].
  apply least_jeffreys; auto using tilt_dist, tilt_abs_cont, abs_cont_tilt.
Qed.

(** The gain is at most [s TV] and pays for both KLs; Pinsker bounds each from below.  Hence each
    is at most [max_t (s t - 2 lam t^2) / lam = s^2 / (8 lam^2)]. *)
Lemma KL_tilt_le :
  KL rho_star rho0 <= s * s / (8 * (lam * lam)) /\ KL rho0 rho_star <= s * s / (8 * (lam * lam)).
Proof.
  assert (Dt : dist rho_star) by now apply tilt_dist.
  assert (C1 : rho_star << rho0) by now apply tilt_abs_cont.
  assert (C2 : rho0 << rho_star) by now apply abs_cont_tilt.
  generalize (reward_gain lam rho0 g lam_pos D0); unfold Jeffreys; intros G.
  generalize (Rle_trans _ _ _ (Rle_abs _) (E_diff_abs_abs_cont _ _ g Dt D0 C1)).
  generalize (pinsker _ _ Dt D0 C1) (pinsker _ _ D0 Dt C2); rewrite (TV_sym rho0 rho_star).
  rewrite G; generalize (TV rho_star rho0) (KL rho_star rho0) (KL rho0 rho_star) s.
  clear - lam_pos; intros t k1 k2 w P1 P2 L.
  assert (B : forall k, lam * k <= w * t - lam * (2 * (t * t)) -> k <= w * w / (8 * (lam * lam))).
  { intros k Lk; apply (Rmult_le_reg_r (8 * (lam * lam))); [nra|].
    replace (w * w / (8 * (lam * lam)) * (8 * (lam * lam))) with (w * w) by (field; lra).
    generalize (Rle_0_sqr (4 * lam * t - w)); unfold Rsqr; nra. }
  split; apply B; nra.
Qed.

(** The largest KL of a tilt whose exponent has the range [s]. *)
Definition largest_KL (s : R) : R := s / (1 - exp (- s)) - 1 - ln (s / (1 - exp (- s))).

(** On [[0, s]] the concave function [1 - exp (- u)] is above its chord. *)
Lemma exp_above_chord u s : 0 <= u <= s -> u * (1 - exp (- s)) <= s * (1 - exp (- u)).
Proof.
  intros [L U]; generalize (exp_pos (- u)); intros P.
  assert (T : forall x, exp (- u) * (1 + (x + u)) <= exp x).
  { intros x; replace (exp x) with (exp (- u) * exp (x + u))
      by (rewrite <- exp_plus; f_equal; ring).
    apply Rmult_le_compat_l; [lra|].
    destruct (Req_dec (x + u) 0) as [->|N]; [rewrite exp_0; lra|].
    now apply Rlt_le, exp_ineq1. }
  assert (T0 := T 0); assert (Ts := T (- s)); rewrite exp_0 in T0.
  apply (Rmult_le_compat_l (s - u)) in T0; [|lra].
  apply (Rmult_le_compat_l u) in Ts; [|lra].
  replace (u * (exp (- u) * (1 + (- s + u)))) with (u * exp (- u) * (1 - s + u)) in Ts by ring.
  replace ((s - u) * (exp (- u) * (1 + (0 + u)))) with ((s - u) * exp (- u) * (1 + u)) in T0
    by ring.
  enough (s * exp (- u) <= (s - u) * 1 + u * exp (- s)) by lra.
  eapply Rle_trans; [|apply Rplus_le_compat; [exact T0|exact Ts]].
  apply Req_le; ring.
Qed.

Lemma KL_tilt_le_largest : 0 < s -> KL rho_star rho0 <= largest_KL (s / lam).
Proof.
  intros S; generalize (partition_pos lam rho0 g D0); intros Zp.
  assert (Dt : dist rho_star) by now apply tilt_dist.
  set (v := s / lam); assert (v0 : 0 < v) by now apply Rdiv_lt_0_compat.
  set (low := min_on rho0 g); set (u k := (g k - low) / lam); set (b := exp (low / lam) / Z).
  assert (b0 : 0 < b) by (apply Rdiv_lt_0_compat; [apply exp_pos|easy]).
  (* KL is ln b plus the mean of u, and b is the mean of exp (- u), both under the tilt. *)
  assert (eKL : KL rho_star rho0 = ln b + E rho_star u).
  { rewrite <- (E_const rho_star (ln b) Dt), <- E_plus; apply sum_ext; intros k.
    destruct (proj1 D0 k) as [P|e].
    - rewrite ln_tilt by easy; unfold b, u; rewrite ln_div, ln_exp by (auto using exp_pos).
      field; lra.
    - rewrite (tilt_abs_cont lam rho0 g D0 k (eq_sym e)); ring. }
  assert (eb : E rho_star (fun k => exp (- u k)) = b).
  { transitivity (b * sum rho0); [|rewrite (proj2 D0); ring].
    unfold E; rewrite <- sum_scal; apply sum_ext; intros k; unfold tilt, b.
    replace (low / lam) with (g k / lam + - u k) by (unfold u; field; lra).
    rewrite exp_plus; field; lra. }
  assert (d0 : 0 < 1 - exp (- v)).
  { generalize (exp_increasing (- v) 0 ltac:(lra)); rewrite exp_0; lra. }
  set (a := v / (1 - exp (- v))); assert (a0 : 0 < a) by now apply Rdiv_lt_0_compat.
  assert (Eu : E rho_star u <= a * (1 - b)).
  { rewrite <- eb, <- (E_const rho_star 1 Dt) at 1; rewrite <- E_minus, <- E_scal.
    apply E_le_support; [easy|]; intros k P.
    assert (P0 : 0 < rho0 k) by now apply (tilt_support lam rho0 g D0).
    assert (I : 0 <= u k <= v).
    { assert (Il : 0 < / lam) by now apply Rinv_0_lt_compat.
      unfold u, v, osc, Rdiv; fold low.
      generalize (min_on_le rho0 g k P0) (max_on_ge rho0 g k P0); fold low; intros L U.
      split; [apply Rmult_le_pos; lra|apply Rmult_le_compat_r; lra]. }
    apply (Rmult_le_reg_r (1 - exp (- v))); [easy|].
    replace (a * (1 - exp (- u k)) * (1 - exp (- v))) with (v * (1 - exp (- u k)))
      by (unfold a; field; lra).
    now apply exp_above_chord. }
  assert (Lb : ln a + ln b <= a * b - 1).
  { rewrite <- ln_mult by easy; assert (ab : 0 < a * b) by now apply Rmult_lt_0_compat.
    destruct (Req_dec (a * b) 1) as [->|N]; [rewrite ln_1; lra|].
    now apply Rlt_le, ln_lt_minus1. }
  rewrite eKL; unfold largest_KL; fold a; lra.
Qed.

(** The mass that [p] gives to the best elements of the support. *)
Definition mass_of_best (p : K -> R) : R :=
  Σ k, if Req_EM_T (g k) (max_on rho0 g) then p k else 0.
Notation best_mass := (mass_of_best rho0).

Lemma best_mass_pos : 0 < best_mass.
Proof.
  destruct (max_on_attained rho0 g (dist_supported rho0 D0)) as [k [P e]].
  apply Rlt_le_trans with (rho0 k); [easy|].
  set (f j := if Req_EM_T (g j) (max_on rho0 g) then rho0 j else 0).
  replace (rho0 k) with (f k) by (unfold f; rewrite <- e; now destruct (Req_EM_T _ _)).
  apply (sum_ge_term f); intros j; unfold f; destruct (Req_EM_T _ _); [apply D0|lra].
Qed.

Lemma partition_ge_best : best_mass * exp (max_on rho0 g / lam) <= Z.
Proof.
  unfold mass_of_best; rewrite Rmult_comm, <- sum_scal; apply sum_le; intros k.
  destruct (Req_EM_T _ _) as [<-|_]; [lra|]; rewrite Rmult_0_r.
  apply Rmult_le_pos; [apply D0|apply Rlt_le, exp_pos].
Qed.

(** The tilt multiplies no probability by more than [1 / best_mass]. *)
Lemma KL_tilt_le_best : KL rho_star rho0 <= ln (1 / best_mass).
Proof.
  assert (Dt : dist rho_star) by now apply tilt_dist.
  generalize (partition_pos lam rho0 g D0) best_mass_pos; intros Zp Bp.
  generalize partition_ge_best; intros LZ.
  rewrite <- (E_const rho_star (ln (1 / best_mass)) Dt); apply sum_le; intros k.
  destruct (proj1 D0 k) as [P|e].
  2:{ rewrite (tilt_abs_cont lam rho0 g D0 k (eq_sym e)); lra. }
  apply Rmult_le_compat_l; [apply Dt|].
  assert (U : rho_star k / rho0 k <= 1 / best_mass).
  { apply Rle_trans with (exp (max_on rho0 g / lam) / Z).
    - apply (Rmult_le_reg_r (rho0 k)); [easy|].
      replace (rho_star k / rho0 k * rho0 k) with (rho_star k) by (field; lra).
      apply tilt_ratio.
    - apply (Rmult_le_reg_r (Z * best_mass)); [now apply Rmult_lt_0_compat|].
      replace (exp (max_on rho0 g / lam) / Z * (Z * best_mass))
        with (best_mass * exp (max_on rho0 g / lam)) by (field; lra).
      replace (1 / best_mass * (Z * best_mass)) with Z by (field; lra); exact LZ. }
  assert (Pk : 0 < rho_star k / rho0 k) by (apply Rdiv_lt_0_compat; auto using tilt_pos).
  destruct U as [U|<-]; [now apply Rlt_le, ln_increasing|lra].
Qed.

(** What is left outside the best elements, when all others are worse by [delta] at least. *)
Lemma mass_outside_best delta :
  (forall k, 0 < rho0 k -> g k = max_on rho0 g \/ g k <= max_on rho0 g - delta) ->
  1 - mass_of_best rho_star <= (1 - best_mass) / best_mass * exp (- (delta / lam)).
Proof.
  intros B; generalize (partition_pos lam rho0 g D0) best_mass_pos; intros Zp Bp.
  set (top := exp (max_on rho0 g / lam)); set (low := exp (- (delta / lam))).
  assert (P : 0 < top * low) by (apply Rmult_lt_0_compat; apply exp_pos).
  assert (outside : forall p, dist p ->
    1 - mass_of_best p = Σ k, if Req_EM_T (g k) (max_on rho0 g) then 0 else p k).
  { intros p [_ S]; unfold mass_of_best; rewrite <- S, <- sum_minus; apply sum_ext; intros k.
    destruct (Req_EM_T _ _); ring. }
  rewrite outside by now apply tilt_dist.
  apply Rle_trans with (top * low / Z * (1 - best_mass)).
  - rewrite (outside rho0 D0), <- sum_scal; apply sum_le; intros k.
    destruct (Req_EM_T _ _) as [_|N]; [lra|].
    destruct (proj1 D0 k) as [Pk|e].
    2:{ rewrite (tilt_abs_cont lam rho0 g D0 k (eq_sym e)), <- e; lra. }
    destruct (B k Pk) as [e|L]; [easy|]; unfold tilt.
    replace (rho0 k * exp (g k / lam) / Z) with (exp (g k / lam) / Z * rho0 k) by (field; lra).
    apply Rmult_le_compat_r; [lra|].
    apply Rmult_le_compat_r; [now apply Rlt_le, Rinv_0_lt_compat|].
    unfold top, low; rewrite <- exp_plus.
    assert (L' : g k / lam <= max_on rho0 g / lam + - (delta / lam)).
    { replace (max_on rho0 g / lam + - (delta / lam)) with ((max_on rho0 g - delta) / lam)
        by (field; lra).
      apply Rmult_le_compat_r; [now apply Rlt_le, Rinv_0_lt_compat|easy]. }
    destruct L' as [L'|<-]; [now apply Rlt_le, exp_increasing|lra].
  - assert (Q : 0 <= 1 - best_mass).
    { rewrite (outside rho0 D0); apply sum_ge0; intros k; destruct (Req_EM_T _ _);
        [lra|apply D0]. }
    apply (Rmult_le_reg_r (Z * best_mass)); [now apply Rmult_lt_0_compat|].
    replace (top * low / Z * (1 - best_mass) * (Z * best_mass))
      with ((1 - best_mass) * low * (best_mass * top)) by (field; lra).
    replace ((1 - best_mass) / best_mass * low * (Z * best_mass))
      with ((1 - best_mass) * low * Z) by (field; lra).
    apply Rmult_le_compat_l; [|apply partition_ge_best].
    apply Rmult_le_pos; [easy|apply Rlt_le, exp_pos].
Qed.

(** What any distribution can earn with a given KL, trained or not. *)
Lemma sqrt_KL_ceiling rho : dist rho -> rho << rho0 ->
  E rho g - E rho0 g <= s * sqrt (KL rho rho0 / 2).
Proof.
  intros D C; eapply Rle_trans; [apply Rle_abs|].
  eapply Rle_trans; [apply E_diff_abs_abs_cont; eauto|].
  apply Rmult_le_compat_l; [apply osc_g_ge0|].
  rewrite <- (sqrt_square (TV rho rho0)) by apply TV_ge0.
  apply sqrt_le_1_alt; generalize (pinsker rho rho0 D D0 C); lra.
Qed.

(** No leash: the tilt earns at least as much as any rewrite, less the price of finding it. *)
Lemma tilt_reaches k : 0 < rho0 k -> g k + lam * ln (rho0 k) <= E rho_star g.
Proof.
  intros P; generalize (objective_tilt lam rho0 g lam_pos D0); unfold objective.
  assert (KL0 : 0 <= KL rho_star rho0) by auto using KL_ge0, tilt_dist, tilt_abs_cont.
  intros e; apply Rle_trans with (lam * ln Z); [|nra].
  replace (g k) with (lam * ln (exp (g k / lam))) by (rewrite ln_exp; field; lra).
  rewrite <- Rmult_plus_distr_l, Rplus_comm, <- ln_mult by (auto using exp_pos).
  apply Rmult_le_compat_l; [lra|].
  assert (L : rho0 k * exp (g k / lam) <= Z).
  { apply (sum_ge_term (fun j => rho0 j * exp (g j / lam))); intros j.
    apply Rmult_le_pos; [apply D0|apply Rlt_le, exp_pos]. }
  destruct L as [L|<-]; [|lra]; apply Rlt_le, ln_increasing; [|easy].
  apply Rmult_lt_0_compat; [easy|apply exp_pos].
Qed.
End Distance.

Section ReverseKL.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 g : K -> R).
Hypotheses (lam_pos : 0 < lam) (D0 : dist rho0).

Lemma osc_opposite (w f : K -> R) : osc w (fun k => - f k) = osc w f.
Proof.
  unfold osc, min_on.
  replace (fun k => - - f k) with f by (apply functional_extensionality; intros; ring); ring.
Qed.

(** The base is a tilt of the tilt, with the same range. *)
Lemma KL_back_le_largest : 0 < osc rho0 g ->
  KL rho0 (tilt lam rho0 g) <= largest_KL (osc rho0 g / lam).
Proof.
  intros S; assert (Dt : dist (tilt lam rho0 g)) by now apply tilt_dist.
  assert (e : osc (tilt lam rho0 g) (fun k => - g k) = osc rho0 g).
  { rewrite osc_opposite; apply osc_same_support; [now apply dist_supported|].
    intros k; now apply tilt_support. }
  rewrite <- e; rewrite <- (tilt_back lam rho0 D0 g) at 1.
  apply KL_tilt_le_largest; [easy|easy|now rewrite e].
Qed.
End ReverseKL.

(** ** Noise in the reward (C13, and noise in the frozen model)

    [rho_star] is optimal for the mean rewards [g], [rho_hat] for the mean rewards [g_hat]; the
    error is [e = g_hat - g]. *)

Section Noise.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho0 g g_hat : K -> R).
Hypotheses (lam_pos : 0 < lam) (D0 : dist rho0).

Notation rho_star := (tilt lam rho0 g).
Notation rho_hat := (tilt lam rho0 g_hat).
Notation F := (objective lam rho0 g).
Notation F_hat := (objective lam rho0 g_hat).

Definition error (k : K) : R := g_hat k - g k.
Definition loss : R := F rho_star - F rho_hat.
Definition loss_hat : R := F_hat rho_hat - F_hat rho_star.

Lemma rho_hat_is_tilt : rho_hat = tilt lam rho_star error.
Proof.
  rewrite tilt_tilt by easy; f_equal; apply functional_extensionality; intros k.
  unfold error; ring.
Qed.

Lemma osc_error : osc rho_star error = osc rho0 error.
Proof.
  apply osc_same_support.
  - now apply dist_supported, tilt_dist.
  - intros k; now apply tilt_support.
Qed.

Lemma loss_eq : loss = lam * KL rho_hat rho_star.
Proof. apply regret; auto using tilt_dist, tilt_abs_cont. Qed.

Lemma loss_hat_eq : loss_hat = lam * KL rho_star rho_hat.
Proof. apply regret; auto using tilt_dist, tilt_abs_cont. Qed.

Lemma noise_identity : loss + loss_hat = lam * Jeffreys rho_hat rho_star
  /\ lam * Jeffreys rho_hat rho_star = E rho_hat error - E rho_star error.
Proof.
  split; [rewrite loss_eq, loss_hat_eq; unfold Jeffreys; ring|].
  rewrite rho_hat_is_tilt, <- reward_gain; auto using tilt_dist.
Qed.

Lemma loss_bounds :
  0 <= loss <= osc rho0 error * osc rho0 error / (8 * lam)
  /\ 0 <= loss_hat <= osc rho0 error * osc rho0 error / (8 * lam).
Proof.
  assert (Ds : dist rho_star) by now apply tilt_dist.
  generalize (KL_tilt_le lam rho_star error lam_pos Ds).
  rewrite <- rho_hat_is_tilt, osc_error, loss_eq, loss_hat_eq; intros [U1 U2].
  assert (G1 : 0 <= KL rho_hat rho_star)
    by (apply KL_tilt_ge0; auto using tilt_dist, tilt_abs_cont).
  assert (G2 : 0 <= KL rho_star rho_hat)
    by (apply KL_tilt_ge0; auto using tilt_dist, tilt_abs_cont).
  set (w := osc rho0 error) in *.
  replace (w * w / (8 * lam)) with (lam * (w * w / (8 * (lam * lam)))) by (field; lra).
  repeat split; try (apply Rmult_le_compat_l; lra); nra.
Qed.

Lemma loss_at_most_largest : 0 < osc rho0 error ->
  loss <= lam * largest_KL (osc rho0 error / lam)
  /\ loss_hat <= lam * largest_KL (osc rho0 error / lam).
Proof.
  intros S; assert (Ds : dist rho_star) by now apply tilt_dist.
  rewrite loss_eq, loss_hat_eq, rho_hat_is_tilt, <- osc_error.
  split; apply Rmult_le_compat_l; try lra.
  - apply KL_tilt_le_largest; [easy|easy|now rewrite osc_error].
  - apply KL_back_le_largest; [easy|easy|now rewrite osc_error].
Qed.

Lemma noise_bound : loss + loss_hat <= osc rho0 error * tanh (osc rho0 error / (4 * lam)).
Proof.
  destruct noise_identity as [-> ->].
  assert (Ds : dist rho_star) by now apply tilt_dist.
  generalize (gain_at_most lam rho_star error lam_pos Ds).
  now rewrite <- rho_hat_is_tilt, osc_error.
Qed.

(** The reward itself, without the leash, moves by the first power of the error. *)
Lemma reward_change : Rabs (E rho_hat g - E rho_star g)
  <= osc rho0 g * tanh (osc rho0 error / (4 * lam)).
Proof.
  assert (Ds : dist rho_star) by now apply tilt_dist.
  assert (T : TV rho_hat rho_star <= tanh (osc rho0 error / (4 * lam))).
  { rewrite rho_hat_is_tilt, <- osc_error; now apply TV_tilt. }
  eapply Rle_trans; [apply E_diff_abs_abs_cont; auto using tilt_dist|].
  - now apply abs_cont_rho_tilt; [|apply tilt_abs_cont].
  - rewrite (osc_same_support rho_star rho0).
    + apply Rmult_le_compat_l; [now apply osc_g_ge0|exact T].
    + now apply dist_supported.
    + intros k; now apply tilt_support.
Qed.

(** C13: a reward that is wrong by at most [eps] on the support. *)
Lemma osc_small_error eps : (forall k, 0 < rho0 k -> Rabs (error k) <= eps) ->
  osc rho0 error <= eps - - eps.
Proof.
  intros B; apply osc_le; [now apply dist_supported|]; intros k P; generalize (B k P).
  unfold Rabs; destruct (Rcase_abs (error k)); lra.
Qed.

Lemma small_error_reward eps : (forall k, 0 < rho0 k -> Rabs (error k) <= eps) ->
  osc rho0 g * tanh (osc rho0 error / (4 * lam)) <= osc rho0 g * tanh (eps / (2 * lam)).
Proof.
  intros B; apply Rmult_le_compat_l; [now apply osc_g_ge0|]; apply tanh_le.
  replace (eps / (2 * lam)) with ((eps - - eps) / (4 * lam)) by (field; lra).
  apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; lra|now apply osc_small_error].
Qed.

Lemma small_error eps : (forall k, 0 < rho0 k -> Rabs (error k) <= eps) ->
  loss <= eps * eps / (2 * lam).
Proof.
  intros B; destruct loss_bounds as [[_ U] _]; eapply Rle_trans; [exact U|].
  assert (w0 := osc_ge0 rho0 error (dist_supported rho0 D0)).
  assert (w2 := osc_small_error eps B).
  replace (eps * eps / (2 * lam)) with (4 * (eps * eps) * / (8 * lam)) by (field; lra).
  unfold Rdiv; apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; lra|nra].
Qed.
End Noise.
