(** Two statements that fail: Theorem 6.1 for signed rewards, and Lemma 5.1 off the support. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb Divergence Tilt Gap.
Open Scope R_scope.

(** ** Lemma 5.1 needs [rho << rho0]

    Outside the support of the base the real-valued [KL] does not read infinity. *)

Definition point (b k : bool) : R := if Bool.eqb b k then 1 else 0.

Lemma point_dist b : dist (point b).
Proof. split; [intros k|unfold sum]; destruct b; try destruct k; unfold point; simpl; lra. Qed.

Lemma lemma_5_1_needs_support :
  ~ forall (rho0 rho g : bool -> R), dist rho0 -> dist rho ->
      objective 1 rho0 g rho <= objective 1 rho0 g (tilt 1 rho0 g).
Proof.
  intros C; specialize (C (point true) (point false) (point false)
                          (point_dist true) (point_dist false)); revert C.
  rewrite objective_tilt by (auto using Rlt_0_1, point_dist).
  unfold objective, partition, E, KL, sum, point; simpl.
  replace (1 * exp (0 / 1) + (0 * exp (1 / 1) + 0)) with 1
    by (unfold Rdiv; rewrite Rmult_0_l, exp_0; ring).
  replace (ln (1 / 0)) with 0; [rewrite ln_1; lra|].
  unfold Rdiv; rewrite Rinv_0, Rmult_0_r; unfold ln.
  now destruct (Rlt_dec 0 0); [exfalso; lra|].
Qed.

(** ** Theorem 6.1 is false for signed rewards

    One prompt; two rewrites, [true] being the prompt itself; two responses with rewards 1 and -1.
    The frozen model is uniform, the untrained prompter always keeps the prompt, [beta = 1]. *)

Module Signed.
Definition P (_ : unit) : R := 1.
Definition rho_sft (_ : unit) : bool -> R := point true.
Definition unif (_ : bool) : R := / 2.
Definition pi_F (_ : unit) := unif.
Definition pi_F' (_ : bool) := unif.
Definition r (_ : unit) (y : bool) : R := if y then 1 else -1.

Lemma dist_P : dist P.
Proof. split; [intros []|unfold sum, P; simpl]; unfold P; lra. Qed.
Lemma dist_sft x : dist (rho_sft x).
Proof. apply point_dist. Qed.
Lemma dist_unif : dist unif.
Proof. split; [intros k|unfold sum; simpl]; unfold unif; lra. Qed.

Lemma pi_star_true x : pi_star pi_F r 1 x true = / 2 * (1 + tanh 1).
Proof.
  unfold pi_star, tilt, partition, sum, pi_F, unif, r, tanh, sinh, cosh; simpl.
  unfold Rdiv; rewrite Rinv_1, !Rmult_1_r; change (-(1)) with (-1).
  generalize (exp_pos 1) (exp_pos (-1)); intros; field; lra.
Qed.

Lemma pi_star_false x : pi_star pi_F r 1 x false = / 2 * (1 - tanh 1).
Proof.
  assert (D : dist (pi_star pi_F r 1 x)) by apply tilt_dist, dist_unif.
  destruct D as [_ S]; unfold sum in S; simpl in S; rewrite pi_star_true in S; lra.
Qed.

Lemma tanh1_pos : 0 < tanh 1.
Proof.
  unfold tanh, sinh, cosh; change (-(1)) with (-1); apply Rdiv_lt_0_compat.
  - generalize (exp_increasing (-1) 1); lra.
  - generalize (exp_pos 1) (exp_pos (-1)); lra.
Qed.

Section Values.
Variable lam : R.

(** A prompter that knows one rewrite learns nothing. *)
Lemma rho_star_sft x : rho_star rho_sft pi_F' r lam x = rho_sft x.
Proof.
  apply functional_extensionality; intros k.
  unfold rho_star, tilt, partition, sum, rho_sft, point; simpl.
  generalize (exp_pos (g pi_F' r x true / lam)); intros; destruct k; simpl; field; lra.
Qed.

Lemma Delta_value : Delta P rho_sft pi_F pi_F' r lam 1 = tanh 1.
Proof.
  unfold Delta; rewrite (J_induced P pi_F' r); unfold J, E at 1 3, sum, P; simpl.
  rewrite rho_star_sft.
  unfold E, sum, g, E, sum, rho_sft, point, pi_F', unif, r; simpl.
  rewrite pi_star_true, pi_star_false; lra.
Qed.

Lemma bound_value c :
  theorem_6_1_bound P rho_sft pi_F pi_F' r lam (pi_star pi_F r 1) c = c * (/ 2 * tanh 1).
Proof.
  unfold theorem_6_1_bound.
  rewrite (E_ext P (fun x => KL _ _) (fun _ => 0)), E_const by
    (auto using dist_P; intros x; rewrite rho_star_sft; apply KL_refl).
  unfold E, TV, sum, P; simpl; rewrite pi_star_true, pi_star_false.
  unfold pi_F, pi_F', unif; generalize tanh1_pos; intros.
  rewrite (Rabs_pos_eq (/ 2 * (1 + tanh 1) - / 2)) by lra.
  rewrite <- (Rabs_Ropp (/ 2 * (1 - tanh 1) - / 2)), (Rabs_pos_eq (- _)) by lra.
  unfold Rminus; rewrite Rplus_opp_r, Rabs_R0; field.
Qed.

(** With the width 2 of [[-1, 1]] as constant, Theorem 6.1 holds with equality here. *)
Lemma range_bound_tight : Delta P rho_sft pi_F pi_F' r lam 1
    = theorem_6_1_bound P rho_sft pi_F pi_F' r lam (pi_star pi_F r 1) 2.
Proof. rewrite Delta_value, bound_value; field. Qed.
End Values.
End Signed.

Lemma theorem_6_1_fails_signed :
  ~ forall (P : unit -> R) (rho_sft : unit -> bool -> R) (pi_F : unit -> bool -> R)
      (pi_F' : bool -> bool -> R) (r : unit -> bool -> R) (lam beta r_max : R),
    0 < beta -> 0 < lam -> dist P -> (forall x, dist (rho_sft x)) ->
    (forall x, dist (pi_F x)) -> (forall k, dist (pi_F' k)) ->
    (forall x y, Rabs (r x y) <= r_max) ->
    Delta P rho_sft pi_F pi_F' r lam beta
      <= theorem_6_1_bound P rho_sft pi_F pi_F' r lam (pi_star pi_F r beta) r_max.
Proof.
  intros C.
  specialize (C Signed.P Signed.rho_sft Signed.pi_F Signed.pi_F' Signed.r 1 1 1 Rlt_0_1 Rlt_0_1
    Signed.dist_P Signed.dist_sft (fun _ => Signed.dist_unif) (fun _ => Signed.dist_unif)).
  assert (B : forall x y, Rabs (Signed.r x y) <= 1).
  { intros x []; simpl; [rewrite Rabs_pos_eq|rewrite Rabs_left]; lra. }
  specialize (C B); rewrite Signed.Delta_value, Signed.bound_value in C.
  generalize Signed.tanh1_pos; lra.
Qed.
