(** All prompts: the two optima, the gap between them, and every bound on it. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
From AlignPro Require Import FiniteProb Divergence Tilt.
Open Scope R_scope.

(** ** A family of independent problems, one per prompt *)

Section Families.
Context {X A : Type} `{Finite X} `{Finite A}.
Variables (P : X -> R) (lam : R) (base f : X -> A -> R).
Hypotheses (lam_pos : 0 < lam) (DP : dist P) (Dbase : forall x, dist (base x)).

Definition policy (pi : X -> A -> R) : Prop := forall x, dist (pi x) /\ pi x << base x.

Lemma family_optimal pi : policy pi ->
  E P (fun x => objective lam (base x) (f x) (pi x))
  <= E P (fun x => objective lam (base x) (f x) (tilt lam (base x) (f x))).
Proof. intros D; apply E_le; [easy|]; intros x; apply tilt_optimal; auto; apply D. Qed.

Lemma family_unique pi : policy pi ->
  E P (fun x => objective lam (base x) (f x) (tilt lam (base x) (f x)))
  <= E P (fun x => objective lam (base x) (f x) (pi x)) ->
  forall x, 0 < P x -> pi x = tilt lam (base x) (f x).
Proof.
  intros D L x Px; apply tilt_unique; auto; try apply D.
  apply Req_le; symmetry.
  revert x Px; apply (E_eq_of_le P (fun x => objective lam (base x) (f x) (pi x))
    (fun x => objective lam (base x) (f x) (tilt lam (base x) (f x)))); auto.
  intros z; apply tilt_optimal; auto; apply D.
Qed.

Lemma family_value :
  E P (fun x => objective lam (base x) (f x) (tilt lam (base x) (f x)))
  = lam * E P (fun x => ln (partition lam (base x) (f x))).
Proof. rewrite <- E_scal; apply E_ext; intros x; now apply objective_tilt. Qed.

Lemma family_gain :
  E P (fun x => E (tilt lam (base x) (f x)) (f x)) - E P (fun x => E (base x) (f x))
  = lam * E P (fun x => Jeffreys (tilt lam (base x) (f x)) (base x)).
Proof. rewrite <- E_minus, <- E_scal; apply E_ext; intros x; now apply reward_gain. Qed.
End Families.

(** ** The setting of the book *)

Section Gap.
Context {X K Y : Type} `{Finite X} `{Finite K} `{Finite Y}.
Variables (P : X -> R)                 (* prompts *)
  (rho_sft : X -> K -> R)              (* the untrained prompter *)
  (pi_F : X -> Y -> R)                 (* the frozen model at the original prompt *)
  (pi_F' : K -> Y -> R)                (* the frozen model at a rewrite *)
  (r : X -> Y -> R)                    (* the reward, scored at the original prompt *)
  (lam beta : R).

Definition J (pi : X -> Y -> R) : R := E P (fun x => E (pi x) (r x)).
Definition g (x : X) (k : K) : R := E (pi_F' k) (r x).
Definition induced (rho : X -> K -> R) (x : X) : Y -> R := mix (rho x) pi_F'.

Definition rho_star (x : X) : K -> R := tilt lam (rho_sft x) (g x).
Definition pi_star (x : X) : Y -> R := tilt beta (pi_F x) (r x).
Definition pi_bar_sft : X -> Y -> R := induced rho_sft.
Definition Delta : R := J pi_star - J (induced rho_star).

(** The range of the reward over the responses that the frozen model gives, at the prompt or at a
    rewrite on the support of the untrained prompter. *)
Definition osc_r (x : X) : R := osc (fun y => pi_F x y + pi_bar_sft x y) (r x).

Definition prompter (rho : X -> K -> R) : Prop := policy rho_sft rho.

(** The right-hand side of Theorem 6.1, for any policy in the place of the oracle. *)
Definition theorem_6_1_bound (pi : X -> Y -> R) (c : R) : R :=
  c * E P (fun x => TV (pi x) (pi_F x))
  + c * E P (fun x => E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k)))
  - lam * E P (fun x => KL (rho_star x) (rho_sft x)).

Hypotheses (lam_pos : 0 < lam) (DP : dist P)
  (Dsft : forall x, dist (rho_sft x)) (Dx : forall x, dist (pi_F x))
  (Dk : forall k, dist (pi_F' k)).

Lemma J_induced rho : J (induced rho) = E P (fun x => E (rho x) (g x)).
Proof. apply E_ext; intros x; apply E_mix. Qed.

Lemma Dbar x : dist (pi_bar_sft x).
Proof. now apply mix_dist. Qed.

Lemma prompter_dist rho x : prompter rho -> dist (induced rho x).
Proof. intros D; apply mix_dist; [apply D|easy]. Qed.

Lemma prompter_gain : J (induced rho_star) - J pi_bar_sft
  = lam * E P (fun x => Jeffreys (rho_star x) (rho_sft x)).
Proof. unfold pi_bar_sft; rewrite !J_induced; now apply family_gain. Qed.

(** C1, averaged over prompts. *)
Lemma prompter_gain_any rho : prompter rho -> J (induced rho) - J pi_bar_sft
  = lam * E P (fun x => KL (rho x) (rho_sft x) + KL (rho_sft x) (rho_star x)
                        - KL (rho x) (rho_star x)).
Proof.
  intros D; unfold pi_bar_sft; rewrite !J_induced, <- E_minus, <- E_scal; apply E_ext.
  intros x; apply three_point; auto; apply D.
Qed.

(** C3, the identity. *)
Lemma decomposition : 0 < beta ->
  Delta = beta * E P (fun x => Jeffreys (pi_star x) (pi_F x))
          + (J pi_F - J pi_bar_sft)
          - lam * E P (fun x => Jeffreys (rho_star x) (rho_sft x)).
Proof.
  intros B; rewrite <- prompter_gain; unfold Delta.
  assert (G : J pi_star - J pi_F = beta * E P (fun x => Jeffreys (pi_star x) (pi_F x)))
    by now apply family_gain.
  lra.
Qed.

(** What fine-tuning gains is at least what its leash charges. *)
Lemma fine_tuning_gain_at_least : 0 < beta ->
  beta * E P (fun x => KL (pi_star x) (pi_F x)) <= J pi_star - J pi_F.
Proof.
  intros B; unfold J; rewrite <- E_scal, <- E_minus; apply E_le; [easy|]; intros x.
  now apply gain_at_least_KL.
Qed.

(** C4, averaged: the gap between two bounds. *)
Lemma gap_at_most : 0 < beta -> Delta
  <= E P (fun x => osc (pi_F x) (r x) * tanh (osc (pi_F x) (r x) / (4 * beta)))
     + (J pi_F - J pi_bar_sft)
     - lam * E P (fun x => phi (TV (rho_star x) (rho_sft x))).
Proof.
  intros B; unfold Delta.
  enough (J pi_star - J pi_F
    <= E P (fun x => osc (pi_F x) (r x) * tanh (osc (pi_F x) (r x) / (4 * beta)))
    /\ lam * E P (fun x => phi (TV (rho_star x) (rho_sft x)))
       <= J (induced rho_star) - J pi_bar_sft) by lra.
  split.
  - unfold J; rewrite <- E_minus; apply E_le; [easy|]; intros x; now apply gain_at_most.
  - unfold pi_bar_sft; rewrite !J_induced, <- E_scal, <- E_minus; apply E_le; [easy|].
    intros x; now apply gain_at_least.
Qed.

Lemma gap_at_least : 0 < beta ->
  beta * E P (fun x => phi (TV (pi_star x) (pi_F x)))
     + (J pi_F - J pi_bar_sft)
     - E P (fun x => osc (rho_sft x) (g x) * tanh (osc (rho_sft x) (g x) / (4 * lam)))
  <= Delta.
Proof.
  intros B; unfold Delta.
  enough (J (induced rho_star) - J pi_bar_sft
    <= E P (fun x => osc (rho_sft x) (g x) * tanh (osc (rho_sft x) (g x) / (4 * lam)))
    /\ beta * E P (fun x => phi (TV (pi_star x) (pi_F x))) <= J pi_star - J pi_F) by lra.
  split.
  - unfold pi_bar_sft; rewrite !J_induced, <- E_minus; apply E_le; [easy|].
    intros x; now apply gain_at_most.
  - unfold J; rewrite <- E_scal, <- E_minus; apply E_le; [easy|]; intros x.
    now apply gain_at_least.
Qed.

(** C9: a budget of KL, shared between prompts. *)
Lemma budget_bound rho kappa : prompter rho -> E P (fun x => KL (rho x) (rho_sft x)) <= kappa ->
  J (induced rho) <= lam * kappa + lam * E P (fun x => ln (partition lam (rho_sft x) (g x))).
Proof.
  intros D B; generalize (family_optimal P lam rho_sft g lam_pos DP Dsft rho D).
  rewrite family_value by easy; unfold objective; rewrite E_minus, E_scal, J_induced.
  apply (Rmult_le_compat_l lam) in B; lra.
Qed.

Lemma budget_optimal rho : prompter rho ->
  E P (fun x => KL (rho x) (rho_sft x)) <= E P (fun x => KL (rho_star x) (rho_sft x)) ->
  J (induced rho) <= J (induced rho_star).
Proof.
  intros D B; eapply Rle_trans; [exact (budget_bound rho _ D B)|].
  rewrite <- (family_value P lam rho_sft g lam_pos Dsft), J_induced.
  unfold objective; rewrite E_minus, E_scal; fold rho_star; apply Req_le.
  unfold rho_star; ring.
Qed.

(** *** The responses that count *)

Lemma response_supported x : exists y, 0 < pi_F x y + pi_bar_sft x y.
Proof.
  destruct (dist_supported (pi_F x) (Dx x)) as [y L]; exists y.
  generalize (proj1 (Dbar x) y); lra.
Qed.

Lemma osc_r_le x lo hi : (forall y, lo <= r x y <= hi) -> osc_r x <= hi - lo.
Proof. intros B; apply osc_le; [apply response_supported|intros y _; apply B]. Qed.

Lemma osc_r_ge0 x : 0 <= osc_r x.
Proof. apply osc_ge0, response_supported. Qed.

(** A difference of mean rewards of two policies that give only such responses. *)
Lemma reward_diff x p q : dist p -> dist q ->
  (forall y, 0 < p y \/ 0 < q y -> 0 < pi_F x y + pi_bar_sft x y) ->
  E p (r x) - E q (r x) <= osc_r x * TV p q.
Proof.
  intros Dp Dq S; unfold osc_r, osc; apply E_diff_le_width; [easy|easy|].
  intros y W; assert (L := S y W); split.
  - now apply (min_on_le (fun y => pi_F x y + pi_bar_sft x y)).
  - now apply (max_on_ge (fun y => pi_F x y + pi_bar_sft x y)).
Qed.

(** *** Upper bounds, for any policy [pi] on the support of the frozen model *)

Section Upper.
Variable pi : X -> Y -> R.
Hypothesis Dpi : policy pi_F pi.

Let Jeff := E P (fun x => Jeffreys (rho_star x) (rho_sft x)).
Let A := E P (fun x => TV (pi x) (pi_F x)).
Let B := E P (fun x => E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k))).

Lemma pi_support x y : 0 < pi x y -> 0 < pi_F x y + pi_bar_sft x y.
Proof.
  intros L; generalize (proj1 (Dbar x) y).
  generalize (abs_cont_pos (pi x) (pi_F x) y (Dx x) (proj2 (Dpi x)) L); lra.
Qed.

Lemma bar_support x y : 0 < pi_bar_sft x y -> 0 < pi_F x y + pi_bar_sft x y.
Proof. generalize (proj1 (Dx x) y); lra. Qed.

Lemma piF_support x y : 0 < pi_F x y -> 0 < pi_F x y + pi_bar_sft x y.
Proof. generalize (proj1 (Dbar x) y); lra. Qed.

Lemma mixture_bound :
  J pi - J (induced rho_star) <= E P (fun x => osc_r x * TV (pi x) (pi_bar_sft x)) - lam * Jeff.
Proof.
  generalize prompter_gain; fold Jeff; intros G.
  enough (J pi - J pi_bar_sft <= E P (fun x => osc_r x * TV (pi x) (pi_bar_sft x))) by lra.
  unfold J; rewrite <- E_minus; apply E_le; [easy|]; intros x.
  apply reward_diff; [apply Dpi|apply Dbar|]; intros y [L|L]; auto using pi_support, bar_support.
Qed.

Lemma bar_TV x : TV (pi_F x) (pi_bar_sft x) <= E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k)).
Proof. now apply TV_mix. Qed.

Lemma TV_through_piF x : TV (pi x) (pi_bar_sft x)
  <= TV (pi x) (pi_F x) + E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k)).
Proof.
  eapply Rle_trans; [apply (TV_triangle _ (pi_F x))|]; apply Rplus_le_compat_l, bar_TV.
Qed.

Lemma mixture_le_jeffreys c : (forall x, osc_r x <= c) ->
  E P (fun x => osc_r x * TV (pi x) (pi_bar_sft x)) - lam * Jeff <= c * (A + B) - lam * Jeff.
Proof.
  intros O; apply Rplus_le_compat_r; unfold A, B; rewrite <- E_plus, <- E_scal.
  apply E_le; [easy|]; intros x.
  apply Rmult_le_compat; auto using osc_r_ge0, TV_ge0, TV_through_piF.
Qed.

Lemma jeffreys_le_paper c :
  c * (A + B) - lam * Jeff <= c * (A + B) - lam * E P (fun x => KL (rho_star x) (rho_sft x)).
Proof.
  apply Rplus_le_compat_l, Ropp_le_contravar, Rmult_le_compat_l; [lra|].
  apply E_le; [easy|]; intros x; unfold Jeffreys.
  enough (0 <= KL (rho_sft x) (rho_star x)) by lra.
  apply KL_ge0; auto; [apply tilt_dist|apply abs_cont_tilt]; auto.
Qed.

Lemma theorem_6_1_of_osc c : (forall x, osc_r x <= c) ->
  J pi - J (induced rho_star) <= theorem_6_1_bound pi c.
Proof.
  intros O; generalize mixture_bound (mixture_le_jeffreys c O) (jeffreys_le_paper c).
  unfold theorem_6_1_bound, A, B; lra.
Qed.

(** The version with the range at each prompt, inside the expectation. *)
Lemma theorem_6_1_osc_r : J pi - J (induced rho_star)
  <= E P (fun x => osc_r x * TV (pi x) (pi_F x))
     + E P (fun x => osc_r x * E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k)))
     - lam * E P (fun x => KL (rho_star x) (rho_sft x)).
Proof.
  generalize mixture_bound (jeffreys_le_paper 0).
  enough (E P (fun x => osc_r x * TV (pi x) (pi_bar_sft x))
    <= E P (fun x => osc_r x * TV (pi x) (pi_F x))
       + E P (fun x => osc_r x * E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k)))) by lra.
  rewrite <- E_plus; apply E_le; [easy|]; intros x; rewrite <- Rmult_plus_distr_l.
  apply Rmult_le_compat_l; auto using osc_r_ge0, TV_through_piF.
Qed.

(** For a prompter that is not the optimum, distance from the optimum is charged. *)
Lemma any_prompter_bound rho c : prompter rho -> (forall x, osc_r x <= c) ->
  J pi - J (induced rho) <= c * A + c * B
    - lam * E P (fun x => KL (rho x) (rho_sft x) + KL (rho_sft x) (rho_star x)
                          - KL (rho x) (rho_star x)).
Proof.
  intros Dr O; generalize (prompter_gain_any rho Dr) mixture_bound (mixture_le_jeffreys c O).
  generalize prompter_gain; fold Jeff; lra.
Qed.
End Upper.

Lemma pi_star_policy : policy pi_F pi_star.
Proof. intros x; split; [now apply tilt_dist|now apply tilt_abs_cont]. Qed.

(** With a bound that holds for all responses, not even the support of the oracle matters. *)
Lemma theorem_6_1_range pi lo hi : (forall x, dist (pi x)) -> (forall x y, lo <= r x y <= hi) ->
  J pi - J (induced rho_star) <= theorem_6_1_bound pi (hi - lo).
Proof.
  intros Dpi O.
  assert (W : lo <= hi).
  { destruct (dist_supported P DP) as [x _]; destruct (dist_supported _ (Dx x)) as [y _].
    generalize (O x y); lra. }
  generalize prompter_gain (jeffreys_le_paper pi (hi - lo)); unfold theorem_6_1_bound.
  enough (J pi - J pi_bar_sft <= (hi - lo) * (E P (fun x => TV (pi x) (pi_F x))
    + E P (fun x => E (rho_sft x) (fun k => TV (pi_F x) (pi_F' k))))) by lra.
  unfold J; rewrite <- E_minus, <- E_plus, <- E_scal; apply E_le; [easy|]; intros x.
  apply Rle_trans with ((hi - lo) * TV (pi x) (pi_bar_sft x)).
  - apply E_diff_le_width; [easy|apply Dbar|intros y _; apply O].
  - apply Rmult_le_compat_l; [lra|apply TV_through_piF].
Qed.

(** *** What no prompter can do (C7) *)

Definition best_rewrites : R := E P (fun x => max_on (rho_sft x) (g x)).

Lemma prompter_ceiling rho : prompter rho -> J (induced rho) <= best_rewrites.
Proof.
  intros D; rewrite J_induced; apply E_le; [easy|]; intros x.
  destruct (D x) as [Dr C]; rewrite <- (E_const (rho x) (max_on (rho_sft x) (g x)) Dr).
  apply E_le_support; [easy|]; intros k L; apply max_on_ge.
  now apply (abs_cont_pos (rho x)).
Qed.

(** How near the optimum comes to the ceiling at a given leash. *)
Lemma ceiling_approached : best_rewrites - J (induced rho_star)
  <= lam * E P (fun x => - min_on (rho_sft x) (fun k => ln (rho_sft x k))).
Proof.
  rewrite J_induced; unfold best_rewrites; rewrite <- E_minus, <- E_scal; apply E_le; [easy|].
  intros x; destruct (max_on_attained (rho_sft x) (g x)) as [k [L ->]];
    [now apply dist_supported|].
  generalize (tilt_reaches lam (rho_sft x) (g x) lam_pos (Dsft x) k L).
  generalize (min_on_le (rho_sft x) (fun k => ln (rho_sft x k)) k L); unfold rho_star; nra.
Qed.

(** What a bound of zero or less needs. *)
Lemma budget_needs t : t <= lam * E P (fun x => KL (rho_star x) (rho_sft x)) ->
  t <= best_rewrites - J pi_bar_sft.
Proof.
  intros L; eapply Rle_trans; [exact L|].
  apply Rle_trans with (J (induced rho_star) - J pi_bar_sft).
  - unfold pi_bar_sft; rewrite !J_induced, <- E_scal, <- E_minus; apply E_le; [easy|]; intros x.
    now apply gain_at_least_KL.
  - assert (D : prompter rho_star).
    { intros x; split; [now apply tilt_dist|now apply tilt_abs_cont]. }
    generalize (prompter_ceiling rho_star D); lra.
Qed.

(** *** The ceiling from the KL alone (C11) *)

Lemma sqrt_KL_average rho : prompter rho -> J (induced rho) - J pi_bar_sft
  <= E P (fun x => osc (rho_sft x) (g x) * sqrt (KL (rho x) (rho_sft x) / 2)).
Proof.
  intros D; unfold pi_bar_sft; rewrite !J_induced, <- E_minus; apply E_le; [easy|]; intros x.
  apply sqrt_KL_ceiling; auto; apply D.
Qed.

Lemma sqrt_KL_two_numbers rho : prompter rho ->
  E P (fun x => osc (rho_sft x) (g x) * sqrt (KL (rho x) (rho_sft x) / 2))
  <= sqrt (E P (fun x => osc (rho_sft x) (g x) * osc (rho_sft x) (g x))
           * E P (fun x => KL (rho x) (rho_sft x)) / 2).
Proof.
  intros D; set (f x := osc (rho_sft x) (g x)); set (h x := sqrt (KL (rho x) (rho_sft x) / 2)).
  assert (KL0 : forall x, 0 <= KL (rho x) (rho_sft x)).
  { intros x; destruct (D x); now apply KL_ge0. }
  assert (e : E P (fun x => h x * h x) = E P (fun x => KL (rho x) (rho_sft x)) / 2).
  { unfold Rdiv; rewrite Rmult_comm, <- E_scal; apply E_ext; intros x; unfold h.
    rewrite sqrt_sqrt; [field|generalize (KL0 x); lra]. }
  assert (P0 : 0 <= E P (fun x => f x * h x)).
  { rewrite <- (E_const P 0 DP); apply E_le; [easy|]; intros x.
    apply Rmult_le_pos; [now apply osc_g_ge0|apply sqrt_pos]. }
  change (E P (fun x => f x * h x) <= sqrt (E P (fun x => f x * f x)
            * E P (fun x => KL (rho x) (rho_sft x)) / 2)).
  rewrite <- (sqrt_square _ P0); apply sqrt_le_1_alt.
  unfold Rdiv; rewrite Rmult_assoc.
  change (E P (fun x => KL (rho x) (rho_sft x)) * / 2)
    with (E P (fun x => KL (rho x) (rho_sft x)) / 2).
  rewrite <- e; now apply cauchy_schwarz.
Qed.

(** *** No free lunch at a matched reference (C10) *)

Lemma induced_KL rho x : prompter rho ->
  KL (induced rho x) (pi_bar_sft x) <= KL (rho x) (rho_sft x).
Proof. intros D; apply data_processing; auto; apply D. Qed.

Lemma induced_policy rho : prompter rho -> policy pi_bar_sft (induced rho).
Proof.
  intros D x; split; [now apply prompter_dist|].
  apply mix_abs_cont; auto; apply D.
Qed.

Lemma matched_budget rho : prompter rho ->
  E P (fun x => KL (induced rho x) (pi_bar_sft x)) <= E P (fun x => KL (rho x) (rho_sft x)).
Proof. intros D; apply E_le; [easy|]; intros x; now apply induced_KL. Qed.

Lemma matched_leash : lam * E P (fun x => ln (partition lam (rho_sft x) (g x)))
  <= lam * E P (fun x => ln (partition lam (pi_bar_sft x) (r x))).
Proof.
  assert (Ds : prompter rho_star).
  { intros x; split; [now apply tilt_dist|now apply tilt_abs_cont]. }
  rewrite <- (family_value P lam pi_bar_sft r lam_pos Dbar).
  rewrite <- (family_value P lam rho_sft g lam_pos Dsft).
  apply Rle_trans with (E P (fun x => objective lam (pi_bar_sft x) (r x) (induced rho_star x))).
  2:{ apply family_optimal; [easy|easy|exact Dbar|now apply induced_policy]. }
  apply E_le; [easy|]; intros x; unfold objective; fold (rho_star x).
  replace (E (induced rho_star x) (r x)) with (E (rho_star x) (g x)) by (symmetry; apply E_mix).
  apply Rplus_le_compat_l, Ropp_le_contravar, Rmult_le_compat_l; [lra|now apply induced_KL].
Qed.
End Gap.

(** The limit of C7, without a leash. *)
Lemma ceiling_limit {X K Y} `{Finite X} `{Finite K} `{Finite Y} (P : X -> R) (rho_sft : X -> K -> R)
    (pi_F' : K -> Y -> R) (r : X -> Y -> R) :
  dist P -> (forall x, dist (rho_sft x)) ->
  forall eps, 0 < eps -> exists lam0, 0 < lam0 /\ forall lam, 0 < lam < lam0 ->
    best_rewrites P rho_sft pi_F' r
    - J P r (induced pi_F' (rho_star rho_sft pi_F' r lam)) < eps.
Proof.
  intros DP Dsft eps Peps.
  set (C := E P (fun x => - min_on (rho_sft x) (fun k => ln (rho_sft x k)))).
  exists (eps / (Rabs C + 1)).
  assert (Q : 0 < Rabs C + 1) by (generalize (Rabs_pos C); lra).
  split; [now apply Rdiv_lt_0_compat|]; intros lam [L U].
  eapply Rle_lt_trans; [now apply ceiling_approached|]; fold C.
  apply Rle_lt_trans with (lam * Rabs C).
  - apply Rmult_le_compat_l; [lra|apply Rle_abs].
  - apply Rmult_lt_compat_r with (r := Rabs C + 1) in U; [|easy].
    unfold Rdiv in U; rewrite Rmult_assoc, Rinv_l in U by lra; lra.
Qed.

(** A looser leash earns at least as much, and spends at least as much KL. *)
Lemma looser_earns_more {X A} `{Finite X} `{Finite A} (P : X -> R) (base f : X -> A -> R) l1 l2 :
  dist P -> (forall x, dist (base x)) -> 0 < l1 -> l1 < l2 ->
  let at_leash l x := tilt l (base x) (f x) in
  let mean l := E P (fun x => E (at_leash l x) (f x)) in
  let spent l := E P (fun x => KL (at_leash l x) (base x)) in
  mean l2 <= mean l1 /\ spent l2 <= spent l1.
Proof.
  intros DP D L1 L2 at_leash mean spent.
  assert (Adm : forall l, policy base (at_leash l)).
  { intros l x; split; [now apply tilt_dist|now apply tilt_abs_cont]. }
  generalize (family_optimal P l1 base f L1 DP D _ (Adm l2)).
  generalize (family_optimal P l2 base f (Rlt_trans _ _ _ L1 L2) DP D _ (Adm l1)).
  unfold objective; rewrite !E_minus, !E_scal.
  fold (at_leash l1) (at_leash l2).
  change (E P (fun x => E (tilt l1 (base x) (f x)) (f x))) with (mean l1).
  change (E P (fun x => E (tilt l2 (base x) (f x)) (f x))) with (mean l2).
  change (E P (fun x => E (at_leash l1 x) (f x))) with (mean l1).
  change (E P (fun x => E (at_leash l2 x) (f x))) with (mean l2).
  change (E P (fun x => KL (tilt l1 (base x) (f x)) (base x))) with (spent l1).
  change (E P (fun x => KL (tilt l2 (base x) (f x)) (base x))) with (spent l2).
  change (E P (fun x => KL (at_leash l1 x) (base x))) with (spent l1).
  change (E P (fun x => KL (at_leash l2 x) (base x))) with (spent l2).
  generalize (mean l1) (mean l2) (spent l1) (spent l2); clear - L1 L2; intros m1 m2 s1 s2 O2 O1.
  assert (S : s2 <= s1).
  { apply (Rmult_le_reg_l (l2 - l1)); lra. }
  split; [|easy]; apply (Rmult_le_compat_l l1) in S; lra.
Qed.

(** *** Noise in the frozen model, without retraining *)

Lemma noise_without_retraining {K Y} `{Finite K} `{Finite Y} (rho : K -> R) (q q_hat : K -> Y -> R)
    (r : Y -> R) (w : R) :
  dist rho -> (forall k, dist (q k)) -> (forall k, dist (q_hat k)) ->
  (forall k, 0 < rho k -> osc (fun y => q_hat k y + q k y) r <= w) ->
  Rabs (E (mix rho q_hat) r - E (mix rho q) r) <= w * E rho (fun k => TV (q_hat k) (q k)).
Proof.
  intros D Q Q' O; rewrite !E_mix, <- E_minus.
  apply Rle_trans with (E rho (fun k => Rabs (E (q_hat k) r - E (q k) r))).
  - eapply Rle_trans; [apply sum_abs|]; apply Req_le, sum_ext; intros k.
    rewrite Rabs_mult, (Rabs_pos_eq (rho k)) by apply D; reflexivity.
  - rewrite <- E_scal; apply E_le_support; [easy|]; intros k L.
    eapply Rle_trans; [now apply E_diff_abs|].
    apply Rmult_le_compat_r; [apply TV_ge0|now apply O].
Qed.
