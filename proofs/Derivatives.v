(** How the optimum moves with the leash: C8, C5, and the drift of the variance.

    Put [t = 1 / lam].  The optima for all leashes form a path, with the untrained prompter at
    [t = 0]. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb Divergence Tilt Gap.
Open Scope R_scope.

(** ** Covariance, variance, third central moment *)

Section Moments.
Context {A : Type} `{Finite A}.
Implicit Types p f h : A -> R.

Definition cov p f h : R := E p (fun a => f a * h a) - E p f * E p h.
Definition var p f : R := E p (fun a => (f a - E p f) * (f a - E p f)).
Definition third_moment p f : R :=
  E p (fun a => (f a - E p f) * (f a - E p f) * (f a - E p f)).

Lemma E_square_about p f c : dist p ->
  E p (fun a => (f a - c) * (f a - c)) = E p (fun a => f a * f a) - 2 * c * E p f + c * c.
Proof.
  intros D; rewrite (E_ext p _ (fun a => (f a * f a - 2 * c * f a) + c * c)) by (intros; ring).
  rewrite E_plus, E_minus, E_scal, E_const by easy; ring.
Qed.

Lemma var_cov p f : dist p -> var p f = cov p f f.
Proof. intros D; unfold var, cov; rewrite E_square_about by easy; ring. Qed.

Lemma var_le p f c : dist p -> var p f <= E p (fun a => (f a - c) * (f a - c)).
Proof.
  intros D; unfold var; rewrite !E_square_about by easy.
  generalize (Rle_0_sqr (E p f - c)); unfold Rsqr; lra.
Qed.

Lemma var_ge0 p f : dist p -> 0 <= var p f.
Proof.
  intros D; unfold var; rewrite <- (E_const p 0 D); apply E_le; [easy|].
  intros a; apply Rle_0_sqr.
Qed.

Lemma third_moment_eq p f : dist p -> third_moment p f =
  cov p f (fun a => f a * f a) - 2 * E p f * cov p f f.
Proof.
  intros D; unfold third_moment, cov; set (m := E p f).
  rewrite (E_ext p _ (fun a => (f a * (f a * f a) - 3 * m * (f a * f a))
                               + (3 * m * m * f a - m * m * m))) by (intros; ring).
  rewrite E_plus, !E_minus, !E_scal, E_const by easy; fold m; ring.
Qed.
End Moments.

(** The law of total variance. *)
Lemma total_variance {A B} `{Finite A} `{Finite B} (p : A -> R) (q : A -> B -> R)
    (f : A -> B -> R) : dist p -> (forall a, dist (q a)) ->
  let m := E p (fun a => E (q a) (f a)) in
  E p (fun a => E (q a) (fun b => (f a b - m) * (f a b - m)))
  = E p (fun a => var (q a) (f a)) + var p (fun a => E (q a) (f a)).
Proof.
  intros D Q m; set (h a := E (q a) (f a)).
  rewrite (E_ext p _ (fun a => var (q a) (f a) + (h a - m) * (h a - m))).
  - rewrite E_plus; reflexivity.
  - intros a; unfold var; fold (h a); rewrite !E_square_about by easy; fold (h a); ring.
Qed.

(** Twice: within rewrites, between rewrites, across prompts. *)
Lemma three_variances {X K Y} `{Finite X} `{Finite K} `{Finite Y} (P : X -> R) (rho : X -> K -> R)
    (q : K -> Y -> R) (r : X -> Y -> R) :
  dist P -> (forall x, dist (rho x)) -> (forall k, dist (q k)) ->
  let m := E P (fun x => E (rho x) (fun k => E (q k) (r x))) in
  E P (fun x => E (rho x) (fun k => E (q k) (fun y => (r x y - m) * (r x y - m))))
  = E P (fun x => E (rho x) (fun k => var (q k) (r x)) + var (rho x) (fun k => E (q k) (r x)))
    + var P (fun x => E (rho x) (fun k => E (q k) (r x))).
Proof.
  intros DP D Q m.
  set (J x := E (rho x) (fun k => E (q k) (r x))).
  rewrite (E_ext P _ (fun x => (E (rho x) (fun k => var (q k) (r x))
    + var (rho x) (fun k => E (q k) (r x))) + (J x - m) * (J x - m))).
  - rewrite E_plus; reflexivity.
  - intros x; generalize (total_variance (rho x) (fun k => q k) (fun k => r x) (D x) Q).
    cbv zeta; fold (J x); intros <-.
    transitivity (E (rho x) (fun k => E (q k) (fun y => (r x y - J x) * (r x y - J x))
      + (2 * (J x - m) * (E (q k) (r x) - J x) + (J x - m) * (J x - m)))).
    + apply E_ext; intros k; rewrite !E_square_about by easy; ring.
    + rewrite !E_plus, E_scal, E_minus, !E_const by easy; fold (J x); ring.
Qed.

(** Rewards 0 and 1: the variance within a rewrite of mean [f a] is [f a (1 - f a)]. *)
Lemma binary_drift {A} `{Finite A} (p f : A -> R) : dist p ->
  cov p f (fun a => f a * (1 - f a)) + third_moment p f = (1 - 2 * E p f) * var p f.
Proof.
  intros D; rewrite third_moment_eq, var_cov by easy; unfold cov.
  rewrite (E_ext p (fun a => f a * (1 - f a)) (fun a => f a - f a * f a)) by (intros; ring).
  rewrite (E_ext p (fun a => f a * (f a * (1 - f a)))
                   (fun a => f a * f a - f a * (f a * f a))) by (intros; ring).
  rewrite !E_minus; ring.
Qed.

(** ** The path *)

Section Path.
Context {K : Type} `{Finite K}.
Variables (rho0 g : K -> R).
Hypothesis D0 : dist rho0.

Definition path (t : R) : K -> R := tilt 1 rho0 (fun k => t * g k).
Definition weighted (f : K -> R) (t : R) : R := Σ k, rho0 k * (exp (t * g k) * f k).
Definition Zt (t : R) : R := weighted (fun _ => 1) t.

Lemma path_dist t : dist (path t).
Proof. now apply tilt_dist. Qed.

Lemma tilt_on_path lam : tilt lam rho0 g = path (/ lam).
Proof.
  unfold path, tilt, partition; apply functional_extensionality; intros k.
  assert (e : forall j, / lam * g j / 1 = g j / lam)
    by (intros; unfold Rdiv; rewrite Rinv_1; ring).
  f_equal; [now rewrite e|]; apply sum_ext; intros j; now rewrite e.
Qed.

Lemma partition_on_path lam : partition lam rho0 g = Zt (/ lam).
Proof.
  unfold partition, Zt, weighted; apply sum_ext; intros k.
  unfold Rdiv; rewrite (Rmult_comm (g k)), Rmult_1_r; reflexivity.
Qed.

Lemma path_0 : path 0 = rho0.
Proof.
  unfold path; rewrite (functional_extensionality (fun k => 0 * g k) (fun _ => 0 + 0))
    by (intros; ring).
  rewrite (tilt_constant 1 rho0 D0 (fun _ => 0) 0).
  apply functional_extensionality; intros k; unfold tilt, partition.
  rewrite (sum_ext _ rho0), (proj2 D0); unfold Rdiv; rewrite Rmult_0_l, exp_0;
    [field|intros; ring].
Qed.

Lemma Zt_pos t : 0 < Zt t.
Proof.
  generalize (partition_pos 1 rho0 (fun k => t * g k) D0); unfold partition, Zt, weighted.
  rewrite (sum_ext (fun k => rho0 k * exp (t * g k / 1))
    (fun k => rho0 k * (exp (t * g k) * 1))); [easy|].
  intros k; unfold Rdiv; rewrite Rinv_1, !Rmult_1_r; reflexivity.
Qed.

Lemma E_path f t : E (path t) f = weighted f t / Zt t.
Proof.
  assert (e : partition 1 rho0 (fun k => t * g k) = Zt t).
  { unfold partition, Zt, weighted; apply sum_ext; intros k.
    unfold Rdiv; rewrite Rinv_1, !Rmult_1_r; reflexivity. }
  unfold E, path, tilt; rewrite e; unfold Rdiv; rewrite Rmult_comm; unfold weighted.
  rewrite <- sum_scal; apply sum_ext; intros k; rewrite Rinv_1, Rmult_1_r; ring.
Qed.

Lemma weighted_derivative f t :
  derivable_pt_lim (weighted f) t (weighted (fun k => g k * f k) t).
Proof.
  apply (derivative_of_sum (fun k t => rho0 k * (exp (t * g k) * f k))); intros k.
  replace (rho0 k * (exp (t * g k) * (g k * f k)))
    with (rho0 k * f k * (exp (t * g k) * g k)) by ring.
  replace (fun s => rho0 k * (exp (s * g k) * f k))
    with (mult_real_fct (rho0 k * f k) (comp exp (fun s => 0 + s * g k))).
  2:{ apply functional_extensionality; intros s; unfold mult_real_fct, comp.
      rewrite Rplus_0_l; ring. }
  apply derivable_pt_lim_scal, derivable_pt_lim_comp; [apply derivative_of_line|].
  rewrite Rplus_0_l; apply derivable_pt_lim_exp.
Qed.

(** The derivative of a mean is a covariance. *)
Lemma mean_derivative f t : derivable_pt_lim (fun s => E (path s) f) t (cov (path t) g f).
Proof.
  replace (fun s => E (path s) f) with (div_fct (weighted f) Zt)
    by (apply functional_extensionality; intros s; now rewrite E_path).
  assert (N : Zt t <> 0) by (generalize (Zt_pos t); lra).
  generalize (derivable_pt_lim_div _ _ t _ _ (weighted_derivative f t)
                (weighted_derivative (fun _ => 1) t) N).
  fold Zt; unfold cov; rewrite !E_path; unfold Rsqr.
  replace (weighted (fun k => g k * 1) t) with (weighted g t)
    by (apply sum_ext; intros; ring).
  intros L.
  replace (weighted (fun k => g k * f k) t / Zt t - weighted g t / Zt t * (weighted f t / Zt t))
    with ((weighted (fun k => g k * f k) t * Zt t - weighted g t * weighted f t) / (Zt t * Zt t))
    by (field; easy).
  exact L.
Qed.

Lemma ln_Zt_derivative t : derivable_pt_lim (fun s => ln (Zt s)) t (E (path t) g).
Proof.
  generalize (derivable_pt_lim_comp Zt ln t _ _ (weighted_derivative (fun _ => 1) t)
                (derivable_pt_lim_ln _ (Zt_pos t))).
  rewrite E_path; replace (weighted (fun k => g k * 1) t) with (weighted g t)
    by (apply sum_ext; intros; ring).
  unfold Rdiv; rewrite Rmult_comm; easy.
Qed.

Lemma product_derivative u v t u' v' : derivable_pt_lim u t u' -> derivable_pt_lim v t v' ->
  derivable_pt_lim (fun s => u s * v s) t (u' * v t + u t * v').
Proof. apply derivable_pt_lim_mult. Qed.

Lemma difference_derivative u v t u' v' : derivable_pt_lim u t u' -> derivable_pt_lim v t v' ->
  derivable_pt_lim (fun s => u s - v s) t (u' - v').
Proof. apply derivable_pt_lim_minus. Qed.

Lemma sum_derivative u v t u' v' : derivable_pt_lim u t u' -> derivable_pt_lim v t v' ->
  derivable_pt_lim (fun s => u s + v s) t (u' + v').
Proof. apply derivable_pt_lim_plus. Qed.

Lemma var_derivative t : derivable_pt_lim (fun s => var (path s) g) t (third_moment (path t) g).
Proof.
  replace (fun s => var (path s) g)
    with (fun s => E (path s) (fun k => g k * g k) - E (path s) g * E (path s) g)
    by (apply functional_extensionality; intros s; now rewrite var_cov by apply path_dist).
  rewrite third_moment_eq by apply path_dist.
  replace (2 * E (path t) g * cov (path t) g g)
    with (cov (path t) g g * E (path t) g + E (path t) g * cov (path t) g g) by ring.
  apply difference_derivative; [apply mean_derivative|].
  apply (product_derivative (fun s => E (path s) g) (fun s => E (path s) g)); apply mean_derivative.
Qed.
End Path.

(** ** C8: derivatives in the leash *)

Section Envelope.
Context {K : Type} `{Finite K}.
Variables (rho0 g : K -> R) (lam : R).
Hypotheses (D0 : dist rho0) (lam_pos : 0 < lam).

Notation rho_star l := (tilt l rho0 g).

Lemma inverse_derivative : derivable_pt_lim Rinv lam (- / (lam * lam)).
Proof.
  assert (L := derivative_of_inverse 0 lam ltac:(lra)); rewrite Rplus_0_r in L.
  replace (fun v => / (v + 0)) with Rinv in L
    by (apply functional_extensionality; intros; now rewrite Rplus_0_r).
  exact L.
Qed.

Lemma in_the_leash (h : R -> R) d : derivable_pt_lim h (/ lam) d ->
  derivable_pt_lim (fun l => h (/ l)) lam (- d / (lam * lam)).
Proof.
  intros D; replace (- d / (lam * lam)) with (d * - / (lam * lam)) by (field; lra).
  exact (derivable_pt_lim_comp Rinv h lam _ _ inverse_derivative D).
Qed.

Lemma reward_falls : derivable_pt_lim (fun l => E (rho_star l) g) lam
  (- var (rho_star lam) g / (lam * lam)).
Proof.
  rewrite var_cov, tilt_on_path by now apply tilt_dist.
  replace (fun l => E (rho_star l) g) with (fun l => E (path rho0 g (/ l)) g)
    by (apply functional_extensionality; intros l; now rewrite tilt_on_path).
  apply (in_the_leash (fun t => E (path rho0 g t) g)); now apply mean_derivative.
Qed.

(** For every real [l]: the KL of the tilt in terms of its mean. *)
Lemma KL_of_tilt l : KL (rho_star l) rho0 = E (rho_star l) g * / l - ln (partition l rho0 g).
Proof.
  assert (D : dist (rho_star l)) by now apply tilt_dist.
  rewrite <- (E_const (rho_star l) (ln (partition l rho0 g)) D).
  rewrite (Rmult_comm _ (/ l)), <- E_scal, <- E_minus; apply sum_ext; intros k.
  destruct (proj1 D0 k) as [P|e].
  - rewrite ln_tilt by easy; unfold Rdiv; ring.
  - rewrite (tilt_abs_cont l rho0 g D0 k (eq_sym e)); ring.
Qed.

Lemma ln_partition_derivative : derivable_pt_lim (fun l => ln (partition l rho0 g)) lam
  (- E (rho_star lam) g / (lam * lam)).
Proof.
  rewrite tilt_on_path.
  replace (fun l => ln (partition l rho0 g)) with (fun l => ln (Zt rho0 g (/ l)))
    by (apply functional_extensionality; intros l; now rewrite partition_on_path).
  apply (in_the_leash (fun t => ln (Zt rho0 g t))); now apply ln_Zt_derivative.
Qed.

Lemma KL_falls : derivable_pt_lim (fun l => KL (rho_star l) rho0) lam
  (- var (rho_star lam) g / (lam * lam * lam)).
Proof.
  replace (fun l => KL (rho_star l) rho0)
    with (fun l => E (rho_star l) g * / l - ln (partition l rho0 g))
    by (apply functional_extensionality; intros l; now rewrite KL_of_tilt).
  set (m := E (rho_star lam) g); set (V := var (rho_star lam) g).
  replace (- V / (lam * lam * lam))
    with ((- V / (lam * lam) * / lam + m * - / (lam * lam)) - (- m / (lam * lam)))
    by (field; lra).
  apply difference_derivative; [|exact ln_partition_derivative].
  apply (product_derivative (fun l => E (rho_star l) g) Rinv);
    [exact reward_falls|exact inverse_derivative].
Qed.

Lemma value_falls : derivable_pt_lim (fun l => l * ln (partition l rho0 g)) lam
  (- KL (rho_star lam) rho0).
Proof.
  rewrite KL_of_tilt; set (m := E (rho_star lam) g).
  replace (- (m * / lam - ln (partition lam rho0 g)))
    with (1 * ln (partition lam rho0 g) + lam * (- m / (lam * lam))) by (field; lra).
  apply (product_derivative (fun l => l) (fun l => ln (partition l rho0 g)));
    [apply derivable_pt_lim_id|].
  exact ln_partition_derivative.
Qed.
End Envelope.

(** ** C5: the variance before training bounds the gain from both sides *)

Section Variance.
Context {K : Type} `{Finite K}.
Variables (rho0 g : K -> R).
Hypothesis D0 : dist rho0.

Notation w := (osc rho0 g).
Notation V := (var rho0 g).

Lemma path_ratio t k : 0 <= t ->
  exp (- (t * w)) * rho0 k <= path rho0 g t k <= exp (t * w) * rho0 k.
Proof.
  intros t0; generalize (Zt_pos rho0 g D0 t); intros Zp.
  assert (e : path rho0 g t k = rho0 k * (exp (t * g k) / Zt rho0 g t)).
  { unfold path, tilt; replace (partition 1 rho0 (fun k => t * g k)) with (Zt rho0 g t).
    - unfold Rdiv; rewrite Rinv_1, Rmult_1_r; ring.
    - unfold partition, Zt, weighted; apply sum_ext; intros j.
      unfold Rdiv; rewrite Rinv_1, !Rmult_1_r; reflexivity. }
  rewrite e; destruct (proj1 D0 k) as [P|<-]; [|lra].
  assert (Le : forall a b, a <= b -> exp a <= exp b).
  { intros a b [L|<-]; [now apply Rlt_le, exp_increasing|lra]. }
  assert (O : forall j, 0 < rho0 j -> t * g k - t * w <= t * g j <= t * g k + t * w).
  { intros j Pj; unfold osc.
    generalize (max_on_ge rho0 g j Pj) (min_on_le rho0 g j Pj).
    generalize (max_on_ge rho0 g k P) (min_on_le rho0 g k P); nra. }
  assert (eZ : Zt rho0 g t = E rho0 (fun j => exp (t * g j))).
  { unfold Zt, weighted, E; apply sum_ext; intros; ring. }
  assert (U : Zt rho0 g t <= exp (t * g k + t * w)).
  { rewrite eZ, <- (E_const rho0 (exp (t * g k + t * w)) D0); apply E_le_support; [easy|].
    intros j Pj; apply Le, O, Pj. }
  assert (L : exp (t * g k - t * w) <= Zt rho0 g t).
  { rewrite eZ, <- (E_const rho0 (exp (t * g k - t * w)) D0); apply E_le_support; [easy|].
    intros j Pj; apply Le, O, Pj. }
  assert (Ew : exp (- (t * w)) * exp (t * w) = 1)
    by (rewrite <- exp_plus, <- exp_0; f_equal; ring).
  unfold Rminus in L; rewrite exp_plus in U, L.
  generalize (exp_pos (t * w)) (exp_pos (- (t * w))) (exp_pos (t * g k)); intros w1 w2 w3.
  rewrite <- (Rmult_comm (exp (t * g k) / Zt rho0 g t)).
  split; (apply Rmult_le_compat_r; [lra|]); apply (Rmult_le_reg_r (Zt rho0 g t)); try easy.
  - replace (exp (t * g k) / Zt rho0 g t * Zt rho0 g t) with (exp (t * g k)) by (field; lra).
    apply Rle_trans with (exp (- (t * w)) * (exp (t * g k) * exp (t * w)));
      [now apply Rmult_le_compat_l; [lra|]|].
    replace (exp (- (t * w)) * (exp (t * g k) * exp (t * w)))
      with (exp (- (t * w)) * exp (t * w) * exp (t * g k)) by ring; rewrite Ew; lra.
  - replace (exp (t * g k) / Zt rho0 g t * Zt rho0 g t) with (exp (t * g k)) by (field; lra).
    apply Rle_trans with (exp (t * w) * (exp (t * g k) * exp (- (t * w))));
      [|now apply Rmult_le_compat_l; [lra|]].
    replace (exp (t * w) * (exp (t * g k) * exp (- (t * w))))
      with (exp (- (t * w)) * exp (t * w) * exp (t * g k)) by ring; rewrite Ew; lra.
Qed.

Lemma E_le_scaled (p q f : K -> R) c : (forall k, p k <= c * q k) -> (forall k, 0 <= f k) ->
  E p f <= c * E q f.
Proof.
  intros L F; unfold E; rewrite <- sum_scal; apply sum_le; intros k.
  rewrite <- Rmult_assoc; now apply Rmult_le_compat_r.
Qed.

Lemma E_ge_scaled (p q f : K -> R) c : (forall k, c * q k <= p k) -> (forall k, 0 <= f k) ->
  c * E q f <= E p f.
Proof.
  intros L F; unfold E; rewrite <- sum_scal; apply sum_le; intros k.
  rewrite <- Rmult_assoc; now apply Rmult_le_compat_r.
Qed.

(** A variance is the least mean square about any point, so the ratio carries over to it. *)
Lemma var_on_path t : 0 <= t ->
  exp (- (t * w)) * V <= var (path rho0 g t) g <= exp (t * w) * V.
Proof.
  intros t0; split.
  - eapply Rle_trans; [apply Rmult_le_compat_l; [apply Rlt_le, exp_pos|]|].
    + now apply (var_le rho0 g (E (path rho0 g t) g)).
    + apply E_ge_scaled; [intros k; now apply path_ratio|intros k; apply Rle_0_sqr].
  - eapply Rle_trans; [apply (var_le _ g (E rho0 g)); now apply path_dist|].
    apply E_le_scaled; [intros k; now apply path_ratio|intros k; apply Rle_0_sqr].
Qed.

(** A function whose derivative is not negative does not fall. *)
Lemma increases f f' b : 0 < b -> (forall t, 0 <= t <= b -> derivable_pt_lim f t (f' t)) ->
  (forall t, 0 <= t <= b -> 0 <= f' t) -> f 0 <= f b.
Proof.
  intros P D S; destruct (MVT_cor2 f f' 0 b P D) as [c [e I]].
  assert (G := S c ltac:(lra)); nra.
Qed.

Lemma exp_line_derivative a c t : a <> 0 ->
  derivable_pt_lim (fun s => c * (exp (s * a) / a)) t (c * exp (t * a)).
Proof.
  intros N; replace (c * exp (t * a)) with (c / a * (exp (0 + t * a) * a))
    by (rewrite Rplus_0_l; field; easy).
  replace (fun s => c * (exp (s * a) / a))
    with (mult_real_fct (c / a) (comp exp (fun s => 0 + s * a))).
  2:{ apply functional_extensionality; intros s; unfold mult_real_fct, comp.
      rewrite Rplus_0_l; field; easy. }
  apply derivable_pt_lim_scal, derivable_pt_lim_comp; [apply derivative_of_line|].
  apply derivable_pt_lim_exp.
Qed.

Lemma variance_bounds lam : 0 < lam -> 0 < w ->
  V * ((1 - exp (- (w / lam))) / w) <= E (tilt lam rho0 g) g - E rho0 g
  <= V * ((exp (w / lam) - 1) / w).
Proof.
  intros L W; rewrite tilt_on_path; set (b := / lam).
  assert (b0 : 0 < b) by now apply Rinv_0_lt_compat.
  replace (w / lam) with (b * w) by (unfold b; field; lra).
  assert (M : forall t, derivable_pt_lim (fun s => E (path rho0 g s) g) t (var (path rho0 g t) g)).
  { intros t; rewrite var_cov by (now apply path_dist); now apply mean_derivative. }
  split.
  - assert (G : E (path rho0 g 0) g - V * (exp (0 * - w) / - w)
                <= E (path rho0 g b) g - V * (exp (b * - w) / - w)).
    { apply (increases (fun s => E (path rho0 g s) g - V * (exp (s * - w) / - w))
               (fun t => var (path rho0 g t) g - V * exp (t * - w))); [easy| |].
      - intros t _; apply difference_derivative; [apply M|apply exp_line_derivative; lra].
      - intros t [t0 _]; generalize (proj1 (var_on_path t t0)).
        replace (- (t * w)) with (t * - w) by ring; lra. }
    rewrite path_0, Rmult_0_l, exp_0 in G by easy.
    replace (b * - w) with (- (b * w)) in G by ring.
    replace (V * ((1 - exp (- (b * w))) / w))
      with (V * (exp (- (b * w)) / - w) - V * (1 / - w)) by (field; lra); lra.
  - assert (G : V * (exp (0 * w) / w) - E (path rho0 g 0) g
                <= V * (exp (b * w) / w) - E (path rho0 g b) g).
    { apply (increases (fun s => V * (exp (s * w) / w) - E (path rho0 g s) g)
               (fun t => V * exp (t * w) - var (path rho0 g t) g)); [easy| |].
      - intros t _; apply difference_derivative; [apply exp_line_derivative; lra|apply M].
      - intros t [t0 _]; generalize (proj2 (var_on_path t t0)); lra. }
    rewrite path_0, Rmult_0_l, exp_0 in G by easy.
    replace (V * ((exp (b * w) - 1) / w))
      with (V * (exp (b * w) / w) - V * (1 / w)) by (field; lra); lra.
Qed.

(** The same where the reward may be constant: then all three sides are 0. *)
Lemma variance_bounds_all lam : 0 < lam ->
  V * ((1 - exp (- (w / lam))) / w) <= E (tilt lam rho0 g) g - E rho0 g
  <= V * ((exp (w / lam) - 1) / w).
Proof.
  intros L; destruct (osc_g_ge0 rho0 g D0) as [W|W]; [now apply variance_bounds|].
  assert (Q : forall x, V * (x / w) = 0)
    by (intros; rewrite <- W; unfold Rdiv; rewrite Rinv_0; ring).
  assert (G0 : 0 <= E (tilt lam rho0 g) g - E rho0 g).
  { eapply Rle_trans; [|now apply gain_at_least_KL].
    apply Rmult_le_pos; [lra|]; apply KL_ge0; auto using tilt_dist, tilt_abs_cont. }
  generalize (gain_at_most lam rho0 g L D0); rewrite !Q, <- W; lra.
Qed.
End Variance.

(** ** The gap from untrained moments *)

(** Floor and ceiling of the gain of a tilt of [q] by [f / tau]. *)
Definition floor_of_gain {A} `{Finite A} (tau : R) (q f : A -> R) : R :=
  var q f * ((1 - exp (- (osc q f / tau))) / osc q f).
Definition ceiling_of_gain {A} `{Finite A} (tau : R) (q f : A -> R) : R :=
  Rmin (var q f * ((exp (osc q f / tau) - 1) / osc q f)) (osc q f * tanh (osc q f / (4 * tau))).

Lemma gain_from_moments {A} `{Finite A} tau (q f : A -> R) : 0 < tau -> dist q ->
  floor_of_gain tau q f <= E (tilt tau q f) f - E q f <= ceiling_of_gain tau q f.
Proof.
  intros T D; destruct (variance_bounds_all q f D tau T) as [L U]; split; [exact L|].
  apply Rmin_glb; [exact U|now apply gain_at_most].
Qed.

Section Untrained.
Context {X K Y : Type} `{Finite X} `{Finite K} `{Finite Y}.
Variables (P : X -> R) (rho_sft : X -> K -> R) (pi_F : X -> Y -> R) (pi_F' : K -> Y -> R)
  (r : X -> Y -> R) (lam beta : R).
Hypotheses (lam_pos : 0 < lam) (beta_pos : 0 < beta) (DP : dist P)
  (Dsft : forall x, dist (rho_sft x)) (Dx : forall x, dist (pi_F x)).

Notation J := (J P r).
Notation g := (g pi_F' r).

Lemma gap_from_untrained_moments :
  let rest := Delta P rho_sft pi_F pi_F' r lam beta - (J pi_F - J (pi_bar_sft rho_sft pi_F')) in
  E P (fun x => floor_of_gain beta (pi_F x) (r x) - ceiling_of_gain lam (rho_sft x) (g x))
    <= rest
  /\ rest <=
    E P (fun x => ceiling_of_gain beta (pi_F x) (r x) - floor_of_gain lam (rho_sft x) (g x)).
Proof.
  intros rest.
  assert (e : rest = E P (fun x => (E (tilt beta (pi_F x) (r x)) (r x) - E (pi_F x) (r x))
    - (E (tilt lam (rho_sft x) (g x)) (g x) - E (rho_sft x) (g x)))).
  { unfold rest, Delta, pi_bar_sft; rewrite !(J_induced P pi_F' r), !E_minus.
    unfold Gap.J, pi_star, rho_star; ring. }
  rewrite e; split; apply E_le; try easy; intros x;
    generalize (gain_from_moments beta (pi_F x) (r x) beta_pos (Dx x));
    generalize (gain_from_moments lam (rho_sft x) (g x) lam_pos (Dsft x)); lra.
Qed.
End Untrained.

(** ** The variance of the reward along the path *)

Section Drift.
Context {X K : Type} `{Finite X} `{Finite K}.
Variables (P : X -> R) (rho0 g v : X -> K -> R).   (* v: the variance within a rewrite *)
Hypotheses (DP : dist P) (D0 : forall x, dist (rho0 x)).

Notation rho t x := (path (rho0 x) (g x) t).

(** The mean at a prompt, and the variance over all answers: within rewrites, between rewrites,
    across prompts. *)
Definition mean_at (t : R) (x : X) : R := E (rho t x) (g x).
Definition variance_all (t : R) : R :=
  E P (fun x => E (rho t x) (v x) + var (rho t x) (g x)) + var P (mean_at t).

Lemma average_derivative (h : X -> R -> R) (d : X -> R) t :
  (forall x, derivable_pt_lim (h x) t (d x)) ->
  derivable_pt_lim (fun s => E P (fun x => h x s)) t (E P d).
Proof.
  intros D; apply (derivative_of_sum (fun x s => P x * h x s)); intros x.
  now apply (derivable_pt_lim_scal (h x)).
Qed.

Lemma mean_at_derivative x t : derivable_pt_lim (fun s => mean_at s x) t (var (rho t x) (g x)).
Proof. rewrite var_cov by (now apply path_dist); now apply mean_derivative. Qed.

Lemma mean_drift t :
  derivable_pt_lim (fun s => E P (mean_at s)) t (E P (fun x => var (rho t x) (g x))).
Proof. apply (average_derivative (fun x s => mean_at s x)); intros x; apply mean_at_derivative. Qed.

Lemma across_derivative t : derivable_pt_lim (fun s => var P (mean_at s)) t
  (2 * cov P (mean_at t) (fun x => var (rho t x) (g x))).
Proof.
  set (V x := var (rho t x) (g x)).
  replace (fun s => var P (mean_at s))
    with (fun s => E P (fun x => mean_at s x * mean_at s x) - E P (mean_at s) * E P (mean_at s))
    by (apply functional_extensionality; intros s; now rewrite var_cov).
  replace (2 * cov P (mean_at t) V)
    with (E P (fun x => V x * mean_at t x + mean_at t x * V x)
          - (E P V * E P (mean_at t) + E P (mean_at t) * E P V)).
  2:{ unfold cov; rewrite (E_ext P _ (fun x => 2 * (mean_at t x * V x))), E_scal
        by (intros; ring); ring. }
  assert (M := mean_drift t); fold V in M.
  apply difference_derivative.
  - apply (average_derivative (fun x s => mean_at s x * mean_at s x)); intros x.
    apply (product_derivative (fun s => mean_at s x) (fun s => mean_at s x));
      apply mean_at_derivative.
  - now apply (product_derivative (fun s => E P (mean_at s)) (fun s => E P (mean_at s))).
Qed.

Lemma variance_drift t : derivable_pt_lim variance_all t
  (E P (fun x => cov (rho t x) (g x) (v x) + third_moment (rho t x) (g x))
   + 2 * cov P (mean_at t) (fun x => var (rho t x) (g x))).
Proof.
  apply (sum_derivative (fun s => E P (fun x => E (rho s x) (v x) + var (rho s x) (g x))));
    [|apply across_derivative].
  apply (average_derivative (fun x s => E (rho s x) (v x) + var (rho s x) (g x))); intros x.
  apply sum_derivative; [now apply mean_derivative|now apply var_derivative].
Qed.

(** Rewards 0 and 1, at one prompt. *)
Lemma binary_variance x t : (forall k, v x k = g x k * (1 - g x k)) ->
  derivable_pt_lim (fun s => E (rho s x) (v x) + var (rho s x) (g x)) t
    ((1 - 2 * E (rho t x) (g x)) * var (rho t x) (g x)).
Proof.
  intros e; rewrite <- binary_drift by now apply path_dist.
  rewrite <- (functional_extensionality (v x) (fun k => g x k * (1 - g x k)) e).
  apply sum_derivative; [now apply mean_derivative|now apply var_derivative].
Qed.
End Drift.
