(** Two prompters in sequence: the first rewrites the prompt, the second rewrites the rewrite. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb Divergence Tilt.
Open Scope R_scope.

Section Chain.
Context {K1 K2 : Type} `{Finite K1} `{Finite K2}.
Variables (lam1 lam2 : R)
  (R1 : K1 -> R)              (* the first untrained prompter *)
  (R2 : K1 -> K2 -> R)        (* the second, given the first rewrite *)
  (g : K2 -> R).              (* mean reward of the last rewrite *)

(** The recursion: from the last stage to the first. *)
Definition V1 (k : K1) : R := lam2 * ln (partition lam2 (R2 k) g).
Definition V0 : R := lam1 * ln (partition lam1 R1 V1).

Definition rho1_star : K1 -> R := tilt lam1 R1 V1.
Definition rho2_star (k : K1) : K2 -> R := tilt lam2 (R2 k) g.

(** Mean reward of the chain, less what its two leashes charge. *)
Definition chain_objective (rho1 : K1 -> R) (rho2 : K1 -> K2 -> R) : R :=
  E (mix rho1 rho2) g - lam1 * KL rho1 R1 - lam2 * E rho1 (fun k => KL (rho2 k) (R2 k)).

Hypotheses (lam1_pos : 0 < lam1) (lam2_pos : 0 < lam2)
  (D1 : dist R1) (D2 : forall k, dist (R2 k)).

Lemma chain_stages rho1 rho2 : chain_objective rho1 rho2
  = E rho1 (fun k => objective lam2 (R2 k) g (rho2 k)) - lam1 * KL rho1 R1.
Proof. unfold chain_objective, objective; rewrite E_mix, E_minus, E_scal; ring. Qed.

Lemma chain_value rho1 rho2 : dist rho1 -> rho1 << R1 ->
  (forall k, dist (rho2 k)) -> (forall k, rho2 k << R2 k) ->
  chain_objective rho1 rho2 = V0 - lam1 * KL rho1 rho1_star
                              - lam2 * E rho1 (fun k => KL (rho2 k) (rho2_star k)).
Proof.
  intros Dr C Dr2 C2; rewrite chain_stages.
  rewrite (E_ext rho1 _ (fun k => V1 k - lam2 * KL (rho2 k) (rho2_star k))).
  2:{ intros k; now apply objective_eq. }
  rewrite E_minus, E_scal.
  generalize (objective_eq lam1 R1 V1 lam1_pos D1 rho1 Dr C); fold V0 rho1_star.
  unfold objective; lra.
Qed.

Lemma chain_optimum : chain_objective rho1_star rho2_star = V0.
Proof.
  assert (Dr : dist rho1_star) by now apply tilt_dist.
  rewrite chain_value; [|easy|now apply tilt_abs_cont|intros k; now apply tilt_dist|
    intros k; now apply tilt_abs_cont].
  rewrite KL_refl, (E_ext _ _ (fun _ => 0)), E_const; [ring|easy|].
  intros k; apply KL_refl.
Qed.

Lemma chain_optimal rho1 rho2 : dist rho1 -> rho1 << R1 ->
  (forall k, dist (rho2 k)) -> (forall k, rho2 k << R2 k) ->
  chain_objective rho1 rho2 <= V0.
Proof.
  intros Dr C Dr2 C2; rewrite chain_value by easy.
  assert (G1 : 0 <= KL rho1 rho1_star) by now apply KL_tilt_ge0.
  assert (G2 : 0 <= E rho1 (fun k => KL (rho2 k) (rho2_star k))).
  { rewrite <- (E_const rho1 0 Dr); apply E_le; [easy|]; intros k; now apply KL_tilt_ge0. }
  nra.
Qed.
End Chain.

(** With one leash for both stages, the chain is one prompter on the composed reference. *)
Section OneLeash.
Context {K1 K2 : Type} `{Finite K1} `{Finite K2}.
Variables (lam : R) (R1 : K1 -> R) (R2 : K1 -> K2 -> R) (g : K2 -> R).
Hypotheses (lam_pos : 0 < lam) (D1 : dist R1) (D2 : forall k, dist (R2 k)).

Lemma exp_V1 k : exp (V1 lam R2 g k / lam) = partition lam (R2 k) g.
Proof.
  unfold V1; replace (lam * _ / lam) with (ln (partition lam (R2 k) g)) by (field; lra).
  now apply exp_ln, partition_pos.
Qed.

Lemma one_leash_partition : partition lam R1 (V1 lam R2 g) = partition lam (mix R1 R2) g.
Proof.
  transitivity (E (mix R1 R2) (fun k => exp (g k / lam))); [|reflexivity].
  rewrite E_mix; apply sum_ext; intros k; now rewrite exp_V1.
Qed.

Lemma one_leash_value : V0 lam lam R1 R2 g = lam * ln (partition lam (mix R1 R2) g).
Proof. unfold V0; now rewrite one_leash_partition. Qed.

Lemma one_leash_optimum :
  mix (rho1_star lam lam R1 R2 g) (rho2_star lam R2 g) = tilt lam (mix R1 R2) g.
Proof.
  apply functional_extensionality; intros y; unfold mix at 1, rho1_star, tilt at 1.
  rewrite one_leash_partition.
  assert (Pm : 0 < partition lam (mix R1 R2) g) by now apply partition_pos, mix_dist.
  unfold tilt; set (Z := partition lam (mix R1 R2) g) in *; unfold mix.
  replace ((Σ k, R1 k * R2 k y) * exp (g y / lam) / Z)
    with ((exp (g y / lam) / Z) * Σ k, R1 k * R2 k y) by (field; lra).
  rewrite <- sum_scal; apply sum_ext; intros k; rewrite exp_V1; unfold rho2_star, tilt.
  generalize (partition_pos lam (R2 k) g (D2 k)); intros Pk; field; lra.
Qed.
End OneLeash.

(** ** The wrong order *)
Section WrongOrder.
Context {K1 K2 : Type} `{Finite K1} `{Finite K2}.
Variables (lam1 lam2 : R) (R1 : K1 -> R) (R2 : K1 -> K2 -> R) (g : K2 -> R).
Hypotheses (lam1_pos : 0 < lam1) (lam2_pos : 0 < lam2)
  (D1 : dist R1) (D2 : forall k, dist (R2 k)).

Notation V1 := (V1 lam2 R2 g).
Notation rho1_star := (rho1_star lam1 lam2 R1 R2 g).
Notation rho2_star := (rho2_star lam2 R2 g).

(** What the first stage earns while the second is untrained, and its optimum for that. *)
Definition U (k : K1) : R := E (R2 k) g.
Definition rho1_U : K1 -> R := tilt lam1 R1 U.

Lemma first_stage_first : V0 lam1 lam2 R1 R2 g - chain_objective lam1 lam2 R1 R2 g rho1_U rho2_star
  = lam1 * KL rho1_U rho1_star.
Proof.
  assert (Du : dist rho1_U) by now apply tilt_dist.
  rewrite chain_value; [|easy|easy|easy|easy|easy|now apply tilt_abs_cont|
    intros k; now apply tilt_dist|intros k; now apply tilt_abs_cont].
  rewrite (E_ext rho1_U _ (fun _ => 0)), E_const by (easy || (intros k; apply KL_refl)); ring.
Qed.

Lemma V1_minus_U k : V1 k - U k = lam2 * KL (R2 k) (rho2_star k).
Proof.
  generalize (objective_tilt lam2 (R2 k) g lam2_pos (D2 k)).
  generalize (regret lam2 (R2 k) g lam2_pos (D2 k) (R2 k) (D2 k) (abs_cont_refl (R2 k))).
  fold (rho2_star k); unfold objective at 2, Chain.V1, U; rewrite (KL_refl (R2 k)); lra.
Qed.

(** [w] bounds the range of [g] on the support of the second stage, whatever it is given. *)
Lemma wrong_order_loss w : (forall k, osc (R2 k) g <= w) ->
  lam1 * KL rho1_U rho1_star <= w * w * (w * w) / (512 * (lam1 * (lam2 * lam2))).
Proof.
  intros B; set (d := w * w / (8 * lam2)).
  assert (G : forall k, 0 <= V1 k - U k <= d).
  { intros k; rewrite V1_minus_U.
    assert (C : R2 k << rho2_star k) by now apply abs_cont_tilt.
    assert (Dk : dist (rho2_star k)) by now apply tilt_dist.
    generalize (KL_ge0 (R2 k) (rho2_star k) (D2 k) Dk C).
    generalize (proj2 (KL_tilt_le lam2 (R2 k) g lam2_pos (D2 k))); fold (rho2_star k).
    generalize (osc_ge0 (R2 k) g (dist_supported _ (D2 k))) (B k).
    generalize (KL (R2 k) (rho2_star k)) (osc (R2 k) g); intros kl o o0 ow U0 L0.
    split; [now apply Rmult_le_pos; [lra|]|].
    apply Rle_trans with (lam2 * (o * o / (8 * (lam2 * lam2))));
      [apply Rmult_le_compat_l; lra|].
    replace (lam2 * (o * o / (8 * (lam2 * lam2)))) with (o * o / (8 * lam2)) by (field; lra).
    apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; lra|nra]. }
  destruct (loss_bounds lam1 R1 V1 U lam1_pos D1) as [[_ Lb] _].
  rewrite loss_eq in Lb by easy; eapply Rle_trans; [exact Lb|].
  assert (S := dist_supported R1 D1).
  assert (o0 := osc_ge0 R1 (error V1 U) S).
  assert (ow : osc R1 (error V1 U) <= 0 - - d).
  { apply osc_le; [easy|]; intros k _; unfold error; generalize (G k); lra. }
  replace (w * w * (w * w) / (512 * (lam1 * (lam2 * lam2)))) with (d * d / (8 * lam1))
    by (unfold d; field; lra).
  apply Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; lra|nra].
Qed.

(** Only the first stage is trained: what the second stage lets through bounds the gain. *)
Lemma first_stage_only w delta : 0 <= w ->
  (forall a b, 0 < R1 a -> 0 < R1 b -> osc (fun k => R2 a k + R2 b k) g <= w
                                       /\ TV (R2 a) (R2 b) <= delta) ->
  E rho1_U U - E R1 U <= w * delta * tanh (w * delta / (4 * lam1)).
Proof.
  intros w0 B; assert (S := dist_supported R1 D1).
  assert (ow : osc R1 U <= w * delta).
  { destruct (max_on_attained R1 U S) as [a [Pa ea]].
    destruct (min_on_attained R1 U S) as [b [Pb eb]].
    unfold osc; rewrite ea, eb; destruct (B a b Pa Pb) as [Bo Bt].
    eapply Rle_trans; [now apply E_diff_le_osc_TV|].
    apply Rle_trans with (w * TV (R2 a) (R2 b)).
    - apply Rmult_le_compat_r; [apply TV_ge0|easy].
    - now apply Rmult_le_compat_l. }
  assert (o0 := osc_ge0 R1 U S).
  eapply Rle_trans; [now apply gain_at_most|].
  assert (t0 : 0 <= tanh (osc R1 U / (4 * lam1))).
  { eapply Rle_trans; [apply (TV_ge0 rho1_U R1)|now apply TV_tilt]. }
  apply Rmult_le_compat; try easy.
  apply tanh_le, Rmult_le_compat_r; [apply Rlt_le, Rinv_0_lt_compat; lra|easy].
Qed.
End WrongOrder.

(** ** Any number of stages

    A stage has a leash and a reference, which sees the rewrite of the stage before it.  All
    rewrites are elements of one finite set. *)
Section LongChain.
Context {K : Type} `{Finite K}.
Variable g : K -> R.

Record stage := { leash : R; reference : K -> K -> R }.

(** The recursion for the values, from the last stage to the first. *)
Fixpoint best_value (stages : list stage) (k : K) : R :=
  match stages with
  | nil => g k
  | cons s rest => leash s * ln (partition (leash s) (reference s k) (best_value rest))
  end.

(** The optimal prompter of stage [s] when the stages [rest] follow. *)
Definition best_prompter (s : stage) (rest : list stage) (k : K) : K -> R :=
  tilt (leash s) (reference s k) (best_value rest).

(** A chain lists its stages, each with the prompter that is used there. *)
Definition chain := list (stage * (K -> K -> R)).
Definition stages_of (c : chain) : list stage := map fst c.

(** Mean reward, less what the leashes charge, when the first stage is given [k]. *)
Fixpoint value (c : chain) (k : K) : R :=
  match c with
  | nil => g k
  | cons (s, rho) rest => E (rho k) (value rest) - leash s * KL (rho k) (reference s k)
  end.

(** The sum of the regrets of the stages, each averaged along the chain itself. *)
Fixpoint total_regret (c : chain) (k : K) : R :=
  match c with
  | nil => 0
  | cons (s, rho) rest =>
      leash s * KL (rho k) (best_prompter s (stages_of rest) k) + E (rho k) (total_regret rest)
  end.

Definition admissible (c : chain) : Prop := forall s rho, In (s, rho) c ->
  0 < leash s /\ forall k, dist (reference s k) /\ dist (rho k) /\ rho k << reference s k.

Lemma long_chain_value c : admissible c -> forall k,
  value c k = best_value (stages_of c) k - total_regret c k.
Proof.
  induction c as [|[s rho] c IH]; intros Adm k; simpl; [ring|].
  destruct (Adm s rho (or_introl eq_refl)) as [L S]; destruct (S k) as (Dr & D & C).
  assert (Adm' : admissible c) by (intros s' rho' I; apply Adm; now right).
  rewrite (E_ext _ _ _ (IH Adm')), E_minus.
  generalize (objective_eq (leash s) (reference s k) (best_value (stages_of c)) L Dr (rho k) D C).
  unfold objective, best_prompter; lra.
Qed.

Lemma total_regret_ge0 c : admissible c -> forall k, 0 <= total_regret c k.
Proof.
  induction c as [|[s rho] c IH]; intros Adm k; simpl; [lra|].
  destruct (Adm s rho (or_introl eq_refl)) as [L S]; destruct (S k) as (Dr & D & C).
  assert (Adm' : admissible c) by (intros s' rho' I; apply Adm; now right).
  assert (G1 : 0 <= KL (rho k) (best_prompter s (stages_of c) k)) by now apply KL_tilt_ge0.
  assert (G2 : 0 <= E (rho k) (total_regret c)).
  { rewrite <- (E_const (rho k) 0 D); apply E_le; auto. }
  nra.
Qed.

(** The optimal chain for given stages. *)
Fixpoint best_chain (stages : list stage) : chain :=
  match stages with
  | nil => nil
  | cons s rest => cons (s, best_prompter s rest) (best_chain rest)
  end.

Lemma stages_of_best_chain stages : stages_of (best_chain stages) = stages.
Proof. induction stages as [|s rest IH]; simpl; [easy|now f_equal]. Qed.

Lemma best_chain_value stages : (forall s, In s stages ->
    0 < leash s /\ forall k, dist (reference s k)) ->
  forall k, value (best_chain stages) k = best_value stages k.
Proof.
  induction stages as [|s rest IH]; intros S k; simpl; [easy|].
  destruct (S s (or_introl eq_refl)) as [L D].
  rewrite (E_ext _ _ (best_value rest)) by (apply IH; intros s' I; apply S; now right).
  exact (objective_tilt (leash s) (reference s k) (best_value rest) L (D k)).
Qed.
End LongChain.
