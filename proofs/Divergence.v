(** Kullback-Leibler divergence, Jeffreys divergence and total variation, and what ties them:
    Gibbs' inequality, Pinsker's inequality, data processing, rewards against total variation. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb.
Open Scope R_scope.

(** ** Definitions

    [KL] is a real number, so it has its usual meaning only when [p << q]: in Coq [x / 0 = 0] and
    [ln 0 = 0], hence [p ln (p / 0)] is 0 and not infinity.  Each theorem that needs [p << q] has
    it as a hypothesis.  The convention [0 ln (0 / q) = 0] holds by computation. *)

Definition KL {A} `{Finite A} (p q : A -> R) : R := Σ a, p a * ln (p a / q a).
Definition Jeffreys {A} `{Finite A} (p q : A -> R) : R := KL p q + KL q p.
Definition TV {A} `{Finite A} (p q : A -> R) : R := / 2 * Σ a, Rabs (p a - q a).

Lemma ln_div x y : 0 < x -> 0 < y -> ln (x / y) = ln x - ln y.
Proof.
  intros; unfold Rdiv; rewrite ln_mult, ln_Rinv; auto using Rinv_0_lt_compat; ring.
Qed.

(** ** Gibbs' inequality *)

Lemma ln_lt_minus1 u : 0 < u -> u <> 1 -> ln u < u - 1.
Proof.
  intros P N; generalize (exp_ineq1 (ln u)); rewrite exp_ln by easy.
  intros L; enough (1 + ln u < u) by lra; apply L.
  intros Z; apply N; now apply ln_inv; [|lra|rewrite ln_1].
Qed.

(** The inequality at one point, with its case of equality. *)
Lemma xlnx_ge p q : 0 <= p -> 0 <= q -> (q = 0 -> p = 0) ->
  p - q <= p * ln (p / q) /\ (p * ln (p / q) = p - q -> p = q).
Proof.
  intros [Pp|<-] Pq C; [|split; [|intros e]; lra].
  destruct Pq as [Pq|<-]; [|rewrite C in Pp; lra].
  destruct (Req_dec p q) as [<-|N].
  { split; [|easy]; unfold Rdiv; rewrite Rinv_r, ln_1; lra. }
  assert (L : ln (q / p) < q / p - 1).
  { apply ln_lt_minus1; [now apply Rdiv_lt_0_compat|].
    intros e; apply N; apply Rmult_eq_reg_r with (/ p); [|apply Rinv_neq_0_compat; lra].
    unfold Rdiv in e; rewrite e; field; lra. }
  rewrite ln_div in * by easy.
  apply Rmult_lt_compat_l with (r := p) in L; [|easy].
  replace (p * (q / p - 1)) with (q - p) in L by (field; lra).
  split; [|intros]; lra.
Qed.

Section Gibbs.
Context {A : Type} `{Finite A}.
Variables (p q : A -> R).
Hypotheses (Dp : dist p) (Dq : dist q) (C : p << q).

(** [KL p q] is the sum of these terms, none of them negative. *)
Definition gibbs_term a := p a * ln (p a / q a) - (p a - q a).

Lemma gibbs_term_ge0 a : 0 <= gibbs_term a.
Proof.
  destruct (xlnx_ge (p a) (q a)) as [L _]; try apply Dp; try apply Dq; [apply C|].
  unfold gibbs_term; lra.
Qed.

Lemma sum_gibbs_term : sum gibbs_term = KL p q.
Proof.
  unfold gibbs_term; rewrite (sum_minus (fun a => p a * _)), (sum_minus p).
  rewrite (proj2 Dp), (proj2 Dq); unfold KL; ring.
Qed.

Lemma KL_ge0 : 0 <= KL p q.
Proof. rewrite <- sum_gibbs_term; apply sum_ge0, gibbs_term_ge0. Qed.

Lemma KL_eq0 : KL p q = 0 -> p = q.
Proof.
  rewrite <- sum_gibbs_term; intros S; apply functional_extensionality; intros a.
  generalize (sum_eq0 gibbs_term gibbs_term_ge0 S a); unfold gibbs_term; intros e.
  apply xlnx_ge; try apply Dp; try apply Dq; [apply C|lra].
Qed.
End Gibbs.

Lemma KL_refl {A} `{Finite A} (p : A -> R) : KL p p = 0.
Proof.
  unfold KL; rewrite <- (sum_0 (A := A)); apply sum_ext; intros a.
  destruct (Req_dec (p a) 0) as [->|N]; [ring|].
  unfold Rdiv; rewrite Rinv_r, ln_1 by easy; ring.
Qed.

(** ** Data processing: a channel cannot increase KL *)

(** The log-sum inequality, for one response [y]: all rewrites that lead to [y] are merged. *)
Lemma log_sum {K} `{Finite K} (a b : K -> R) :
  (forall k, 0 <= a k) -> (forall k, 0 <= b k) -> a << b ->
  sum a * ln (sum a / sum b) <= Σ k, a k * ln (a k / b k).
Proof.
  intros Pa Pb C.
  destruct (sum_ge0 a Pa) as [SA|ZA].
  2:{ rewrite <- ZA, Rmult_0_l; apply Req_le; symmetry.
      rewrite <- (sum_0 (A := K)); apply sum_ext; intros k.
      rewrite (sum_eq0 a Pa (eq_sym ZA) k); ring. }
  assert (SB : 0 < sum b).
  { destruct (sum_ge0 b Pb) as [L|Z]; [easy|exfalso].
    assert (e : sum a = 0); [|lra].
    rewrite <- (sum_0 (A := K)); apply sum_ext; intros k; apply C.
    now apply (sum_eq0 b Pb). }
  set (c := sum a / sum b); assert (Pc : 0 < c) by now apply Rdiv_lt_0_compat.
  enough (G : 0 <= Σ k, (a k * ln (a k / b k) - ln c * a k - (a k - c * b k))).
  { rewrite !sum_minus, !sum_scal in G.
    assert (e : c * sum b = sum a) by (unfold c; field; lra); rewrite e in G; lra. }
  apply sum_ge0; intros k; destruct (Pa k) as [L|e].
  2:{ rewrite <- e; generalize (Rmult_le_pos c (b k) (Rlt_le _ _ Pc) (Pb k)); lra. }
  assert (Lb : 0 < b k) by (destruct (Pb k) as [|e]; [easy|]; rewrite (C k) in L; lra).
  assert (Lcb : 0 < c * b k) by now apply Rmult_lt_0_compat.
  destruct (xlnx_ge (a k) (c * b k)) as [G _]; [lra|lra|lra|].
  rewrite ln_div, ln_mult in G by easy; rewrite ln_div by easy; lra.
Qed.

Lemma data_processing {K Y} `{Finite K} `{Finite Y} (rho rho0 : K -> R) (q : K -> Y -> R) :
  dist rho -> dist rho0 -> rho << rho0 -> (forall k, dist (q k)) ->
  KL (mix rho q) (mix rho0 q) <= KL rho rho0.
Proof.
  intros D D0 C Q.
  apply Rle_trans with (Σ y, Σ k, rho k * q k y * ln (rho k * q k y / (rho0 k * q k y))).
  - apply sum_le; intros y; apply log_sum.
    + intros k; apply Rmult_le_pos; [apply D|apply Q].
    + intros k; apply Rmult_le_pos; [apply D0|apply Q].
    + intros k e; destruct (Rmult_integral _ _ e) as [Z|Z];
        [rewrite (C k Z)|rewrite Z]; ring.
  - rewrite sum_swap; apply Req_le, sum_ext; intros k.
    transitivity (E (q k) (fun _ => rho k * ln (rho k / rho0 k))); [|now apply E_const].
    apply sum_ext; intros y; destruct (Req_dec (q k y) 0) as [->|N]; [ring|].
    replace (rho k * q k y / (rho0 k * q k y)) with (rho k / rho0 k); [ring|].
    unfold Rdiv; rewrite Rinv_mult.
    replace (rho k * q k y * (/ rho0 k * / q k y))
      with (rho k * / rho0 k * (q k y * / q k y)) by ring.
    rewrite Rinv_r by easy; ring.
Qed.

(** ** Total variation *)

Section TotalVariation.
Context {A : Type} `{Finite A}.
Implicit Types p q s f : A -> R.

Lemma TV_ge0 p q : 0 <= TV p q.
Proof.
  unfold TV; enough (0 <= Σ a, Rabs (p a - q a)) by lra.
  apply sum_ge0; intros; apply Rabs_pos.
Qed.

Lemma TV_sym p q : TV p q = TV q p.
Proof. unfold TV; f_equal; apply sum_ext; intros a; apply Rabs_minus_sym. Qed.

Lemma TV_triangle p q s : TV p s <= TV p q + TV q s.
Proof.
  unfold TV; rewrite <- Rmult_plus_distr_l, <- sum_plus; apply Rmult_le_compat_l; [lra|].
  apply sum_le; intros a; replace (p a - s a) with ((p a - q a) + (q a - s a)) by ring.
  apply Rabs_triang.
Qed.

(** A difference of means, from an interval that holds the values of [f] on both supports. *)
Lemma E_diff_le_width p q f lo hi : dist p -> dist q ->
  (forall a, 0 < p a \/ 0 < q a -> lo <= f a <= hi) ->
  E p f - E q f <= (hi - lo) * TV p q.
Proof.
  intros Dp Dq B; set (c := (lo + hi) / 2).
  assert (S : E p f - E q f = Σ a, (p a - q a) * (f a - c)).
  { rewrite (sum_ext _ (fun a => (p a * f a - q a * f a) - c * (p a - q a))) by (intros; ring).
    rewrite sum_minus, sum_scal, !sum_minus, (proj2 Dp), (proj2 Dq); unfold E; ring. }
  rewrite S; unfold TV.
  replace ((hi - lo) * _) with ((hi - lo) / 2 * Σ a, Rabs (p a - q a)) by field.
  rewrite <- sum_scal; apply sum_le; intros a.
  destruct (proj1 Dp a) as [Pa|Zp], (proj1 Dq a) as [Qa|Zq].
  4:{ rewrite <- Zp, <- Zq, Rminus_0_r, Rabs_R0; lra. }
  all: eapply Rle_trans; [apply Rle_abs|].
  all: rewrite Rabs_mult, Rmult_comm; apply Rmult_le_compat_r; [apply Rabs_pos|].
  all: apply Rabs_le; assert (I : lo <= f a <= hi) by (apply B; auto); unfold c; lra.
Qed.

(** The range is taken over the union of the two supports. *)
Lemma E_diff_le_osc_TV p q f : dist p -> dist q ->
  E p f - E q f <= osc (fun a => p a + q a) f * TV p q.
Proof.
  intros Dp Dq; unfold osc; apply E_diff_le_width; [easy|easy|].
  intros a W; assert (L : 0 < p a + q a).
  { generalize (proj1 Dp a) (proj1 Dq a); destruct W; lra. }
  split; [now apply (min_on_le (fun a => p a + q a))|now apply (max_on_ge (fun a => p a + q a))].
Qed.

Theorem E_diff_abs p q f : dist p -> dist q ->
  Rabs (E p f - E q f) <= osc (fun a => p a + q a) f * TV p q.
Proof.
  intros Dp Dq; apply Rabs_le; split; [|now apply E_diff_le_osc_TV].
  generalize (E_diff_le_osc_TV q p f Dq Dp); rewrite TV_sym.
  replace (fun a => q a + p a) with (fun a => p a + q a)
    by (apply functional_extensionality; intros; ring); lra.
Qed.

(** The same when one of the two supports holds the other. *)
Lemma E_diff_abs_abs_cont p q f : dist p -> dist q -> p << q ->
  Rabs (E p f - E q f) <= osc q f * TV p q.
Proof.
  intros Dp Dq C; rewrite (osc_same_support q (fun a => p a + q a)).
  - now apply E_diff_abs.
  - now apply dist_supported.
  - intros a; generalize (proj1 Dp a) (proj1 Dq a); split; [lra|].
    intros L; destruct (proj1 Dq a) as [|e]; [easy|]; rewrite (C a (eq_sym e)) in L; lra.
Qed.

(** Half of the absolute differences is the sum of the positive ones. *)
Lemma TV_positive_part p q : dist p -> dist q -> TV p q = Σ a, Rmax (p a - q a) 0.
Proof.
  intros Dp Dq.
  rewrite (sum_ext _ (fun a => / 2 * Rabs (p a - q a) + / 2 * (p a - q a))).
  - rewrite sum_plus, !sum_scal, sum_minus, (proj2 Dp), (proj2 Dq); unfold TV; ring.
  - intros a; destruct (Rle_dec 0 (p a - q a)) as [L|L].
    + rewrite Rmax_left, Rabs_pos_eq by lra; lra.
    + rewrite Rmax_right, Rabs_left by lra; lra.
Qed.
End TotalVariation.

(** Total variation is convex in its second argument. *)
Lemma TV_mix {K Y} `{Finite K} `{Finite Y} (p : Y -> R) (rho : K -> R) (q : K -> Y -> R) :
  dist rho -> TV p (mix rho q) <= E rho (fun k => TV p (q k)).
Proof.
  intros D; unfold TV at 2.
  rewrite (E_scal rho (/ 2) (fun k => Σ y, Rabs (p y - q k y))).
  apply Rmult_le_compat_l; [lra|].
  apply Rle_trans with (Σ y, Σ k, rho k * Rabs (p y - q k y)).
  2:{ rewrite sum_swap; apply Req_le, sum_ext; intros k; apply sum_scal. }
  apply sum_le; intros y.
  replace (p y - mix rho q y) with (Σ k, rho k * (p y - q k y)).
  - eapply Rle_trans; [apply sum_abs|]; apply Req_le, sum_ext; intros k.
    rewrite Rabs_mult, (Rabs_pos_eq (rho k)) by apply D; reflexivity.
  - rewrite (sum_ext _ (fun k => rho k * p y - rho k * q k y)) by (intros; ring).
    rewrite sum_minus; fold (E rho (fun _ => p y)); rewrite E_const by easy; reflexivity.
Qed.

(** ** Pinsker's inequality

    A rational function below the logarithm gives the inequality at one point; no square root and
    no Cauchy-Schwarz inequality is needed to sum it. *)

Definition ln_gap (u : R) : R := ln u - 5 / 2 + / 4 * / u + 27 / 4 * / (u + 2).
Definition ln_gap' (u : R) : R := (u - 1) * ((u - 1) * (u - 1)) * / (u * u * ((u + 2) * (u + 2))).

Lemma derivative_of_inverse c u : u + c <> 0 ->
  derivable_pt_lim (fun v => / (v + c)) u (- / ((u + c) * (u + c))).
Proof.
  intros N.
  assert (Dc : derivable_pt_lim (fun v => v + c) u (1 + 0)).
  { apply (derivable_pt_lim_plus id (fct_cte c));
      [apply derivable_pt_lim_id|apply derivable_pt_lim_const]. }
  generalize (derivable_pt_lim_div (fct_cte 1) (fun v => v + c) u 0 (1 + 0)
                (derivable_pt_lim_const 1 u) Dc N).
  unfold div_fct, fct_cte, Rsqr, Rdiv; intros L.
  replace (fun v => / (v + c)) with (fun v => 1 * / (v + c))
    by (apply functional_extensionality; intros; ring).
  replace (- / ((u + c) * (u + c)))
    with ((0 * (u + c) - (1 + 0) * 1) * / ((u + c) * (u + c))) by (field; easy).
  exact L.
Qed.

Lemma ln_gap_derivative u : 0 < u -> derivable_pt_lim ln_gap u (ln_gap' u).
Proof.
  intros P.
  assert (e : ln_gap =
    plus_fct (plus_fct (minus_fct ln (fct_cte (5 / 2)))
                       (mult_real_fct (/ 4) (fun v => / (v + 0))))
             (mult_real_fct (27 / 4) (fun v => / (v + 2)))).
  { apply functional_extensionality; intros v.
    unfold ln_gap, plus_fct, minus_fct, mult_real_fct, fct_cte; now rewrite Rplus_0_r. }
  rewrite e; unfold ln_gap'.
  replace ((u - 1) * _ * _) with (/ u - 0 + / 4 * - / ((u + 0) * (u + 0))
                          + 27 / 4 * - / ((u + 2) * (u + 2))) by (field; lra).
  apply derivable_pt_lim_plus; [apply derivable_pt_lim_plus|].
  - apply derivable_pt_lim_minus;
      [now apply derivable_pt_lim_ln|apply derivable_pt_lim_const].
  - apply derivable_pt_lim_scal, derivative_of_inverse; lra.
  - apply derivable_pt_lim_scal, derivative_of_inverse; lra.
Qed.

Lemma ln_gap_ge0 u : 0 < u -> 0 <= ln_gap u.
Proof.
  intros P; assert (e1 : ln_gap 1 = 0) by (unfold ln_gap; rewrite ln_1; field).
  assert (Sq : forall v, 0 < v -> 0 < / (v * v * ((v + 2) * (v + 2)))).
  { intros v L; apply Rinv_0_lt_compat; repeat apply Rmult_lt_0_compat; lra. }
  destruct (Rtotal_order u 1) as [L|[->|L]]; [|lra|].
  - destruct (MVT_cor2 ln_gap ln_gap' u 1 L) as [c [e I]].
    { intros c I; apply ln_gap_derivative; lra. }
    assert (N : ln_gap' c <= 0); [|rewrite e1 in e; nra].
    unfold ln_gap'; generalize (Sq c ltac:(lra)) (Rle_0_sqr (c - 1)); unfold Rsqr; intros S Q.
    assert ((c - 1) * ((c - 1) * (c - 1)) <= 0) by nra; nra.
  - destruct (MVT_cor2 ln_gap ln_gap' 1 u L) as [c [e I]].
    { intros c I; apply ln_gap_derivative; lra. }
    assert (N : 0 <= ln_gap' c); [|rewrite e1 in e; nra].
    unfold ln_gap'; generalize (Sq c ltac:(lra)) (Rle_0_sqr (c - 1)); unfold Rsqr; intros S Q.
    assert (0 <= (c - 1) * ((c - 1) * (c - 1))) by nra; nra.
Qed.

Lemma pinsker_at_a_point p q : 0 <= p -> 0 <= q -> (q = 0 -> p = 0) ->
  3 * ((p - q) * (p - q)) <= (2 * p + 4 * q) * (p * ln (p / q) - (p - q)).
Proof.
  intros [Pp|<-] Pq C; [|nra].
  destruct Pq as [Pq|<-]; [|rewrite C in Pp; lra].
  assert (U : 0 < p / q) by now apply Rdiv_lt_0_compat.
  generalize (ln_gap_ge0 (p / q) U); unfold ln_gap.
  replace (/ (p / q)) with (q / p) by (field; lra).
  replace (/ (p / q + 2)) with (q / (p + 2 * q)) by (field; lra).
  intros G.
  apply (Rmult_le_compat_l (p * (2 * p + 4 * q))) in G; [|nra].
  rewrite Rmult_0_r in G; revert G; generalize (ln (p / q)); intros l G.
  replace (p * (2 * p + 4 * q) * _)
    with (p * (2 * p + 4 * q) * l - 5 / 2 * (p * (2 * p + 4 * q)) + / 4 * (2 * p + 4 * q) * q
          + 27 / 2 * p * q) in G by (field; lra).
  lra.
Qed.

Theorem pinsker {A} `{Finite A} (p q : A -> R) : dist p -> dist q -> p << q ->
  2 * (TV p q * TV p q) <= KL p q.
Proof.
  intros Dp Dq C; set (t := TV p q); assert (t0 : 0 <= t) by apply TV_ge0.
  enough (G : (Σ a, 2 * t * Rabs (p a - q a))
              <= Σ a, (t * t * / 3 * (2 * p a + 4 * q a) + gibbs_term p q a)).
  { rewrite sum_scal, sum_plus, sum_scal, sum_plus, !sum_scal, sum_gibbs_term in G by easy.
    rewrite (proj2 Dp), (proj2 Dq) in G.
    assert (e : (Σ a, Rabs (p a - q a)) = 2 * t) by (unfold t, TV; field).
    rewrite e in G; lra. }
  apply sum_le; intros a.
  generalize (pinsker_at_a_point (p a) (q a) (proj1 Dp a) (proj1 Dq a) (C a)).
  fold (gibbs_term p q a); generalize (gibbs_term_ge0 p q Dp Dq C a).
  generalize (proj1 Dp a) (proj1 Dq a) (Rabs_pos (p a - q a)).
  replace ((p a - q a) * (p a - q a)) with (Rabs (p a - q a) * Rabs (p a - q a))
    by (rewrite <- Rabs_mult, Rabs_pos_eq; [easy|apply Rle_0_sqr]).
  generalize (Rabs (p a - q a)) (gibbs_term p q a); intros d g Pp Pq Pd Pg L.
  (* With m = (2p + 4q) / 3, from d^2 <= m g: 2 t d <= t^2 m + g. *)
  set (m := / 3 * (2 * p a + 4 * q a)) in *.
  assert (Pm : 0 <= m) by (unfold m; lra).
  assert (Lm : d * d <= m * g) by (unfold m; lra).
  replace (t * t * / 3 * (2 * p a + 4 * q a)) with (t * t * m) by (unfold m; ring).
  destruct Pm as [Pm|Zm]; [|rewrite <- Zm in *; assert (d = 0) by nra; subst d; nra].
  apply (Rmult_le_reg_l m); [easy|].
  generalize (Rle_0_sqr (t * m - d)); unfold Rsqr; nra.
Qed.

(** ** The least Jeffreys divergence at a given total variation *)

Definition phi (t : R) : R := 2 * t * ln ((1 + t) / (1 - t)).

(** Two points: the odds ratio is least when the two distributions mirror each other. *)
Lemma least_odds_ratio a b : 0 < b -> b < a -> a < 1 ->
  (1 + (a - b)) / (1 - (a - b)) * ((1 + (a - b)) / (1 - (a - b))) <= a * (1 - b) / ((1 - a) * b).
Proof.
  intros Pb Lab La; set (t := a - b); assert (t0 : 0 < t < 1) by (unfold t; lra).
  set (d := (a + b - 1) / 2).
  apply (Rmult_le_reg_r ((1 - t) * (1 - t) * ((1 - a) * b))).
  { repeat apply Rmult_lt_0_compat; lra. }
  replace ((1 + t) / (1 - t) * ((1 + t) / (1 - t)) * ((1 - t) * (1 - t) * ((1 - a) * b)))
    with ((1 + t) * (1 + t) * ((1 - a) * b)) by (field; lra).
  replace (a * (1 - b) / ((1 - a) * b) * ((1 - t) * (1 - t) * ((1 - a) * b)))
    with ((1 - t) * (1 - t) * (a * (1 - b))) by (field; lra).
  replace ((1 - a) * b) with ((1 - t) * (1 - t) / 4 - d * d) by (unfold t, d; field).
  replace (a * (1 - b)) with ((1 + t) * (1 + t) / 4 - d * d) by (unfold t, d; field).
  enough (0 <= 4 * t * (d * d)) by lra.
  apply Rmult_le_pos; [lra|apply Rle_0_sqr].
Qed.

Section LeastJeffreys.
Context {A : Type} `{Finite A}.
Variables p q : A -> R.
Hypotheses (Dp : dist p) (Dq : dist q) (Cp : p << q) (Cq : q << p).

(** Each element is sent to [true] where [p] is larger and to [false] elsewhere. *)
Definition larger (a : A) (side : bool) : R :=
  if Rlt_dec (q a) (p a) then (if side then 1 else 0) else (if side then 0 else 1).

Lemma larger_dist a : dist (larger a).
Proof.
  unfold larger; split; [intros []|unfold sum]; destruct (Rlt_dec (q a) (p a)); simpl; lra.
Qed.

Lemma TV_of_sides : mix p larger true - mix q larger true = TV p q.
Proof.
  rewrite TV_positive_part by easy; unfold mix; rewrite <- sum_minus; apply sum_ext; intros a.
  unfold larger; destruct (Rlt_dec (q a) (p a)).
  - rewrite Rmax_left; lra.
  - rewrite Rmax_right; lra.
Qed.

Lemma side_false (s : A -> R) : dist s -> mix s larger false = 1 - mix s larger true.
Proof.
  intros D; generalize (proj2 (mix_dist s larger D larger_dist)); unfold sum; simpl; lra.
Qed.

Lemma least_jeffreys : phi (TV p q) <= Jeffreys p q.
Proof.
  assert (J0 : 0 <= Jeffreys p q).
  { unfold Jeffreys; generalize (KL_ge0 p q Dp Dq Cp) (KL_ge0 q p Dq Dp Cq); lra. }
  assert (T := TV_ge0 p q); destruct T as [T|T]; [|unfold phi; rewrite <- T; lra].
  generalize (data_processing p q larger Dp Dq Cp larger_dist).
  generalize (data_processing q p larger Dq Dp Cq larger_dist).
  generalize TV_of_sides (side_false p Dp) (side_false q Dq).
  assert (Mp := proj1 (mix_dist p larger Dp larger_dist)).
  assert (Mq := proj1 (mix_dist q larger Dq larger_dist)).
  assert (Sp := mix_abs_cont p larger q Dq larger_dist Cp).
  assert (Sq := mix_abs_cont q larger p Dp larger_dist Cq).
  unfold KL at 1 3, sum at 1 2; simpl.
  revert Mp Mq Sp Sq; generalize (mix p larger) (mix q larger); intros m n Mp Mq Sp Sq e ep eq.
  rewrite ep, eq; set (a := m true) in *; set (b := n true) in *; intros G1 G2.
  assert (b0 : 0 < b).
  { destruct (Mq true) as [L|Z]; [exact L|]; fold b in Z.
    assert (a = 0) by (apply Sp; symmetry; exact Z); lra. }
  assert (a1 : a < 1).
  { generalize (Mp false); rewrite ep; intros [L|Z]; [lra|].
    assert (n false = 0) by (apply Sq; rewrite ep; symmetry; exact Z).
    generalize (Mp true); fold a; lra. }
  assert (O := least_odds_ratio a b b0 ltac:(lra) a1).
  set (t := TV p q) in *; rewrite e in O.
  assert (t1 : t < 1) by lra.
  assert (Pt : 0 < (1 + t) / (1 - t)) by (apply Rdiv_lt_0_compat; lra).
  assert (L : 2 * ln ((1 + t) / (1 - t)) <= ln a + ln (1 - b) - ln (1 - a) - ln b).
  { replace (2 * _) with (ln ((1 + t) / (1 - t) * ((1 + t) / (1 - t))))
      by (rewrite ln_mult by easy; ring).
    replace (ln a + ln (1 - b) - ln (1 - a) - ln b) with (ln (a * (1 - b) / ((1 - a) * b))).
    - destruct O as [O|<-]; [|lra]; apply Rlt_le, ln_increasing; [|easy].
      now apply Rmult_lt_0_compat.
    - rewrite ln_div, !ln_mult by (try apply Rmult_lt_0_compat; lra); ring. }
  rewrite !ln_div in G1, G2 by lra.
  apply (Rmult_le_compat_l t) in L; [|lra].
  replace (t * (ln a + ln (1 - b) - ln (1 - a) - ln b))
    with ((a - b) * (ln a + ln (1 - b) - ln (1 - a) - ln b)) in L by (now rewrite e).
  unfold phi, Jeffreys; lra.
Qed.
End LeastJeffreys.
