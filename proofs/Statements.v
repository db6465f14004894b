(** * What is checked

    Every theorem of the book that a machine has checked, in one file.  Each is closed by a single
    term from the other files, so this file and its definitions are all that has to be read to
    know what was proved.

    How to read it.  [f x] is f(x), [fun x => e] maps x to e, [A -> B] is "if A then B" between
    statements, [/\] is "and", [~] is "not".  Numbers are real; [ln], [exp], [sqrt], [tanh] are the
    usual functions.  A distribution on a finite set is a function to the reals. *)
From Coq Require Import Reals List.
From AlignPro Require Import FiniteProb Divergence Tilt Gap Chain Noise Derivatives Counterexamples.
Import ListNotations.
Open Scope R_scope.

(** The mean of [e] when [a] is drawn from [p]. *)
Notation "'𝔼' a ∼ p , e" := (E p (fun a => e))
  (at level 41, a name, p at level 9, e at level 41, right associativity).

(** [h] has the derivative [d] at [t]. *)
Notation derivative h t d := (derivable_pt_lim h t d).

(** * The words

    Each definition, read back: the two sides are the same term after unfolding.  [A], [K], [Y] are
    finite sets; [Σ] sums over all elements of one. *)
Section Words.
Context {A K Y : Type} `{Finite A} `{Finite K} `{Finite Y}.
Variables (p q f : A -> R) (rho : K -> R) (channel : K -> Y -> R) (y : Y) (lam mu t : R) (a : A).

Remark the_finite_sets_are_finite : forall b : A, In b (elems A).
Proof. exact elems_all. Qed.

Remark distribution : dist p = ((forall b, 0 <= p b) /\ (Σ b, p b) = 1).
Proof. exact eq_refl. Qed.

Remark mean : (𝔼 b ∼ p, f b) = Σ b, p b * f b.
Proof. exact eq_refl. Qed.

Remark absolutely_continuous : (p << q) = (forall b, q b = 0 -> p b = 0).
Proof. exact eq_refl. Qed.

Remark mixture : mix rho channel y = Σ k, rho k * channel k y.
Proof. exact eq_refl. Qed.

Remark kullback_leibler : KL p q = Σ b, p b * ln (p b / q b).
Proof. exact eq_refl. Qed.

Remark jeffreys : Jeffreys p q = KL p q + KL q p.
Proof. exact eq_refl. Qed.

Remark total_variation : TV p q = / 2 * Σ b, Rabs (p b - q b).
Proof. exact eq_refl. Qed.

(** [max_on p f] and [min_on p f] are the largest and the smallest value of f on the support of
    p. *)
Remark largest_value : (exists b, 0 < p b) ->
  (exists b, 0 < p b /\ max_on p f = f b) /\ (forall b, 0 < p b -> f b <= max_on p f).
Proof. exact (fun S => conj (max_on_attained p f S) (max_on_ge p f)). Qed.

Remark smallest_value : (exists b, 0 < p b) ->
  (exists b, 0 < p b /\ min_on p f = f b) /\ (forall b, 0 < p b -> min_on p f <= f b).
Proof. exact (fun S => conj (min_on_attained p f S) (min_on_le p f)). Qed.

Remark oscillation : osc p f = max_on p f - min_on p f.
Proof. exact eq_refl. Qed.

Remark partition_function : partition lam q f = Σ b, q b * exp (f b / lam).
Proof. exact eq_refl. Qed.

Remark tilt_of_q : tilt lam q f a = q a * exp (f a / lam) / partition lam q f.
Proof. exact eq_refl. Qed.

Remark regularised_objective : objective lam q f p = (𝔼 b ∼ p, f b) - lam * KL p q.
Proof. exact eq_refl. Qed.

Remark largest_KL_of_range : largest_KL t =
  t / (1 - exp (- t)) - 1 - ln (t / (1 - exp (- t))).
Proof. exact eq_refl. Qed.

Remark mass_of_the_best :
  mass_of_best q f p = Σ b, if Req_EM_T (f b) (max_on q f) then p b else 0.
Proof. exact eq_refl. Qed.

Remark with_multiplier : lagrangian lam q f mu p = objective lam q f p + mu * (1 - Σ b, p b).
Proof. exact eq_refl. Qed.

Remark phi_of : phi t = 2 * t * ln ((1 + t) / (1 - t)).
Proof. exact eq_refl. Qed.

Remark variance : var p f = 𝔼 b ∼ p, ((f b - E p f) * (f b - E p f)).
Proof. exact eq_refl. Qed.

Remark covariance : cov p f q = (𝔼 b ∼ p, (f b * q b)) - E p f * E p q.
Proof. exact eq_refl. Qed.

Remark third_central_moment :
  third_moment p f = 𝔼 b ∼ p, ((f b - E p f) * (f b - E p f) * (f b - E p f)).
Proof. exact eq_refl. Qed.

Remark floor_of_a_gain : floor_of_gain t p f =
  var p f * ((1 - exp (- (osc p f / t))) / osc p f).
Proof. exact eq_refl. Qed.

Remark ceiling_of_a_gain : ceiling_of_gain t p f =
  Rmin (var p f * ((exp (osc p f / t) - 1) / osc p f)) (osc p f * tanh (osc p f / (4 * t))).
Proof. exact eq_refl. Qed.

Remark derivative_of_h (h : R -> R) (d : R) : (derivative h t d) =
  (forall eps, 0 < eps -> exists delta : posreal, forall u, u <> 0 -> Rabs u < delta ->
     Rabs ((h (t + u) - h t) / u - d) < eps).
Proof. exact eq_refl. Qed.
End Words.

(** * Inequalities between distributions *)
Section Inequalities.
Context {A K Y : Type} `{Finite A} `{Finite K} `{Finite Y}.
Variables p q f : A -> R.
Hypotheses (p_distribution : dist p) (q_distribution : dist q).

(** lem-osc, the inequality
    Two mean rewards differ by at most the range of the reward, over both supports, times the
    total variation. *)
Theorem rewards_against_total_variation :
  Rabs (E p f - E q f) <= osc (fun a => p a + q a) f * TV p q.
Proof. exact (E_diff_abs p q f p_distribution q_distribution). Qed.

(** lem-phi, the inequality
    The Jeffreys divergence is at least φ of the total variation. *)
Theorem jeffreys_against_total_variation : p << q -> q << p -> phi (TV p q) <= Jeffreys p q.
Proof. exact (least_jeffreys p q p_distribution q_distribution). Qed.

(** other, Pinsker's inequality
    KL is at least twice the square of the total variation. *)
Theorem pinsker_inequality : p << q -> 2 * (TV p q * TV p q) <= KL p q.
Proof. exact (pinsker p q p_distribution q_distribution). Qed.
End Inequalities.

(** * One prompt

    K is the set of rewrites and g the mean reward of each.  Read K as the set of responses, g as
    the reward, rho_sft as the frozen model and lam as β, and every theorem is about RLHF. *)
Section OnePrompt.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho_sft g : K -> R).
Hypotheses (lam_positive : 0 < lam) (rho_sft_distribution : dist rho_sft).

Notation Z := (partition lam rho_sft g).
Notation rho_star := (tilt lam rho_sft g).
Notation F := (objective lam rho_sft g).
Notation J_lam := (E rho_star g).
Notation J_0 := (E rho_sft g).

(** thm-lemma51, part 1
    F(ρ) = λ log Z − λ KL(ρ‖ρ⋆) for every ρ on the support of ρ_sft. *)
Theorem lemma_5_1_identity : forall rho, dist rho -> rho << rho_sft ->
  F rho = lam * ln Z - lam * KL rho rho_star.
Proof. exact (objective_eq lam rho_sft g lam_positive rho_sft_distribution). Qed.

(** thm-lemma51, part 2
    ρ⋆ is a distribution on the support of ρ_sft, its value is λ log Z, no other has a larger one,
    and whoever attains it is ρ⋆. *)
Theorem lemma_5_1_optimum :
  dist rho_star /\ rho_star << rho_sft /\ F rho_star = lam * ln Z
  /\ forall rho, dist rho -> rho << rho_sft ->
       F rho <= F rho_star /\ (F rho_star <= F rho -> rho = rho_star).
Proof.
  exact (conj (tilt_dist lam rho_sft g rho_sft_distribution)
        (conj (tilt_abs_cont lam rho_sft g rho_sft_distribution)
        (conj (objective_tilt lam rho_sft g lam_positive rho_sft_distribution)
        (fun rho D C =>
          conj (tilt_optimal lam rho_sft g lam_positive rho_sft_distribution rho D C)
               (tilt_unique lam rho_sft g lam_positive rho_sft_distribution rho D C))))).
Qed.

(** thm-lemma51, part 3
    ρ⋆ has exactly the support of ρ_sft. *)
Theorem lemma_5_1_support : forall k, 0 < rho_star k <-> 0 < rho_sft k.
Proof. exact (tilt_support lam rho_sft g rho_sft_distribution). Qed.

(** thm-lemma51, part 4
    In every direction v on the support the Lagrangian has at ρ⋆ the derivative
    (λ log Z − λ − μ) Σv: it is stationary when μ = λ log Z − λ. *)
Theorem lemma_5_1_multiplier : forall (mu : R) (v : K -> R), v << rho_sft ->
  derivative (fun t => lagrangian lam rho_sft g mu (fun k => rho_star k + t * v k)) 0
             ((lam * ln Z - lam - mu) * Σ k, v k).
Proof.
  exact (fun mu v => lagrangian_derivative lam mu rho_sft g v lam_positive rho_sft_distribution).
Qed.

(** eq-regret
    What an imperfect prompter loses: F(ρ⋆) − F(ρ) = λ KL(ρ‖ρ⋆). *)
Theorem regret_identity : forall rho, dist rho -> rho << rho_sft ->
  F rho_star - F rho = lam * KL rho rho_star.
Proof. exact (regret lam rho_sft g lam_positive rho_sft_distribution). Qed.

(** thm-envelope, the three derivatives
    In λ: the reward falls at the rate Var/λ², KL at the rate Var/λ³, and the value λ log Z at the
    rate KL. *)
Theorem derivatives_in_the_leash :
  derivative (fun l => 𝔼 k ∼ (tilt l rho_sft g), g k) lam (- var rho_star g / (lam * lam))
  /\ derivative (fun l => KL (tilt l rho_sft g) rho_sft) lam
                (- var rho_star g / (lam * lam * lam))
  /\ derivative (fun l => l * ln (partition l rho_sft g)) lam (- KL rho_star rho_sft).
Proof.
  exact (conj (reward_falls rho_sft g lam rho_sft_distribution lam_positive)
        (conj (KL_falls rho_sft g lam rho_sft_distribution lam_positive)
              (value_falls rho_sft g lam rho_sft_distribution lam_positive))).
Qed.

(** thm-kl-bounds, the ceilings h(s) and s²/8 and log 1/q
    C6: with s = osc(g)/λ > 0, both KLs are at most h(s) and at most s²/8, and KL(ρ⋆‖ρ_sft) is at
    most log 1/q, where q is the mass of the best rewrites before training. *)
Theorem KL_of_the_optimum :
  (0 < osc rho_sft g ->
     KL rho_star rho_sft <= largest_KL (osc rho_sft g / lam)
     /\ KL rho_sft rho_star <= largest_KL (osc rho_sft g / lam))
  /\ KL rho_star rho_sft <= osc rho_sft g * osc rho_sft g / (8 * (lam * lam))
  /\ KL rho_sft rho_star <= osc rho_sft g * osc rho_sft g / (8 * (lam * lam))
  /\ KL rho_star rho_sft <= ln (1 / mass_of_best rho_sft g rho_sft).
Proof.
  exact (conj (fun S => conj
                (KL_tilt_le_largest lam rho_sft g lam_positive rho_sft_distribution S)
                (KL_back_le_largest lam rho_sft g lam_positive rho_sft_distribution S))
        (conj (proj1 (KL_tilt_le lam rho_sft g lam_positive rho_sft_distribution))
        (conj (proj2 (KL_tilt_le lam rho_sft g lam_positive rho_sft_distribution))
              (KL_tilt_le_best lam rho_sft g lam_positive rho_sft_distribution)))).
Qed.

(** thm-limits, the rate in part 1
    No leash: when all but the best rewrites are worse by δ at least, ρ⋆ gives them at most
    (1−q)/q e^(−δ/λ), where q is the mass of the best before training. *)
Theorem mass_outside_the_best_rewrites : forall delta,
  (forall k, 0 < rho_sft k -> g k = max_on rho_sft g \/ g k <= max_on rho_sft g - delta) ->
  1 - mass_of_best rho_sft g rho_star
    <= (1 - mass_of_best rho_sft g rho_sft) / mass_of_best rho_sft g rho_sft
       * exp (- (delta / lam)).
Proof. exact (mass_outside_best lam rho_sft g lam_positive rho_sft_distribution). Qed.

(** thm-three-point
    C1: E_ρ g − J₀ = λ [KL(ρ‖ρ_sft) + KL(ρ_sft‖ρ⋆) − KL(ρ‖ρ⋆)] and F(ρ⋆) − F(ρ) = λ KL(ρ‖ρ⋆). *)
Theorem three_point_identity : forall rho, dist rho -> rho << rho_sft ->
  E rho g - J_0 = lam * (KL rho rho_sft + KL rho_sft rho_star - KL rho rho_star)
  /\ F rho_star - F rho = lam * KL rho rho_star.
Proof.
  exact (fun rho D C =>
    conj (three_point lam rho_sft g lam_positive rho_sft_distribution rho D C)
         (regret lam rho_sft g lam_positive rho_sft_distribution rho D C)).
Qed.

(** thm-gains, at one prompt
    C2: J_λ − J₀ = λ Jeff(ρ⋆, ρ_sft). *)
Theorem exact_gain : J_lam - J_0 = lam * Jeffreys rho_star rho_sft.
Proof. exact (reward_gain lam rho_sft g lam_positive rho_sft_distribution). Qed.

(** lem-tanh, the inequality
    A tilt moves by at most tanh(osc/4λ) in total variation. *)
Theorem total_variation_of_a_tilt : TV rho_star rho_sft <= tanh (osc rho_sft g / (4 * lam)).
Proof. exact (TV_tilt lam rho_sft g lam_positive rho_sft_distribution). Qed.

(** thm-apriori, at one prompt
    C4: λ φ(TV(ρ⋆, ρ_sft)) ≤ J_λ − J₀ ≤ osc(g) tanh(osc(g)/4λ). *)
Theorem gain_between_two_bounds :
  lam * phi (TV rho_star rho_sft) <= J_lam - J_0
  /\ J_lam - J_0 <= osc rho_sft g * tanh (osc rho_sft g / (4 * lam)).
Proof.
  exact (conj (gain_at_least lam rho_sft g lam_positive rho_sft_distribution)
              (gain_at_most lam rho_sft g lam_positive rho_sft_distribution)).
Qed.

(** thm-variance
    C5: with V the variance of g under ρ_sft and s = osc(g)/λ > 0, the gain is between
    V (1 − e^−s)/osc(g) and V (e^s − 1)/osc(g). *)
Theorem variance_is_the_resource : 0 < osc rho_sft g ->
  var rho_sft g * ((1 - exp (- (osc rho_sft g / lam))) / osc rho_sft g) <= J_lam - J_0
  <= var rho_sft g * ((exp (osc rho_sft g / lam) - 1) / osc rho_sft g).
Proof. exact (variance_bounds rho_sft g rho_sft_distribution lam lam_positive). Qed.
End OnePrompt.

(** Lemma 5.1 needs the support. *)
Section Support.

(** thm-lemma51, why ρ must stay on the support
    Where KL is read as a finite number off the support of ρ_sft, Lemma 5.1 fails: the hypothesis
    ρ << ρ_sft stands for KL = ∞. *)
Theorem the_support_is_needed :
  ~ forall (rho_sft rho g : bool -> R), dist rho_sft -> dist rho ->
      objective 1 rho_sft g rho <= objective 1 rho_sft g (tilt 1 rho_sft g).
Proof. exact lemma_5_1_needs_support. Qed.
End Support.

(** * All prompts

    X is the set of prompts with distribution P, K the rewrites, Y the responses.  [pi_F x] is the
    frozen model at the prompt, [pi_F' k] at a rewrite, [r x] the reward, scored at the prompt. *)
Section AllPrompts.
Context {X K Y : Type} `{Finite X} `{Finite K} `{Finite Y}.
Variables (P : X -> R) (rho_sft : X -> K -> R) (pi_F : X -> Y -> R) (pi_F' : K -> Y -> R)
  (r : X -> Y -> R) (lam beta : R).
Hypotheses (lam_positive : 0 < lam) (beta_positive : 0 < beta)
  (P_distribution : dist P) (rho_sft_distribution : forall x, dist (rho_sft x))
  (pi_F_distribution : forall x, dist (pi_F x)) (pi_F'_distribution : forall k, dist (pi_F' k)).

Notation J := (J P r).                                    (* value of a policy: its mean reward *)
Notation g := (g pi_F' r).                                (* mean reward of a rewrite *)
Notation induced rho := (induced (X := X) pi_F' rho).     (* the policy that a prompter induces *)
Notation pi_bar_sft := (pi_bar_sft rho_sft pi_F').        (* that of the untrained prompter *)
Notation rho_star := (rho_star rho_sft pi_F' r lam).      (* the optimal prompter *)
Notation pi_star := (pi_star pi_F r beta).                (* the optimum of RLHF *)
Notation Delta := (Delta P rho_sft pi_F pi_F' r lam beta).
Notation osc_r := (osc_r rho_sft pi_F pi_F' r).
Notation prompter := (prompter rho_sft).
Notation A := (𝔼 x ∼ P, TV (pi_star x) (pi_F x)).
Notation B := (𝔼 x ∼ P, 𝔼 k ∼ (rho_sft x), TV (pi_F x) (pi_F' k)).
Notation E_KL := (𝔼 x ∼ P, KL (rho_star x) (rho_sft x)).
Notation E_Jeff := (𝔼 x ∼ P, Jeffreys (rho_star x) (rho_sft x)).

Remark value_of_a_policy pi : J pi = 𝔼 x ∼ P, 𝔼 y ∼ (pi x), r x y.
Proof. exact eq_refl. Qed.
Remark mean_reward_of_a_rewrite x k : g x k = 𝔼 y ∼ (pi_F' k), r x y.
Proof. exact eq_refl. Qed.
Remark induced_policy_of rho x y : induced rho x y = Σ k, rho x k * pi_F' k y.
Proof. exact eq_refl. Qed.
Remark untrained_policy : pi_bar_sft = induced rho_sft.
Proof. exact eq_refl. Qed.
Remark optimal_prompter x : rho_star x = tilt lam (rho_sft x) (g x).
Proof. exact eq_refl. Qed.
Remark optimum_of_rlhf x : pi_star x = tilt beta (pi_F x) (r x).
Proof. exact eq_refl. Qed.
Remark the_gap : Delta = J pi_star - J (induced rho_star).
Proof. exact eq_refl. Qed.
Remark the_range_of_rewards x : osc_r x = osc (fun y => pi_F x y + pi_bar_sft x y) (r x).
Proof. exact eq_refl. Qed.
Remark a_prompter rho : prompter rho = forall x, dist (rho x) /\ rho x << rho_sft x.
Proof. exact eq_refl. Qed.

(** eq-linear
    The value of an induced policy is linear in the prompter. *)
Theorem value_is_linear : forall rho, J (induced rho) = 𝔼 x ∼ P, 𝔼 k ∼ (rho x), g x k.
Proof. exact (J_induced P pi_F' r). Qed.

(** eq-pistar
    π⋆ is the optimum of RLHF, and the only one at every prompt with P(x) > 0. *)
Theorem optimum_of_rlhf_is_the_tilt : forall pi, (forall x, dist (pi x) /\ pi x << pi_F x) ->
  (𝔼 x ∼ P, objective beta (pi_F x) (r x) (pi x))
    <= (𝔼 x ∼ P, objective beta (pi_F x) (r x) (pi_star x))
  /\ ((𝔼 x ∼ P, objective beta (pi_F x) (r x) (pi_star x))
        <= (𝔼 x ∼ P, objective beta (pi_F x) (r x) (pi x)) ->
      forall x, 0 < P x -> pi x = pi_star x).
Proof.
  exact (fun pi D =>
    conj (family_optimal P beta pi_F r beta_positive P_distribution pi_F_distribution pi D)
         (family_unique P beta pi_F r beta_positive P_distribution pi_F_distribution pi D)).
Qed.

(** eq-prompter-problem
    ρ⋆ solves the prompter's problem, and is its only solution at every prompt with P(x) > 0. *)
Theorem prompters_problem_is_solved_by_the_tilt : forall rho, prompter rho ->
  (𝔼 x ∼ P, objective lam (rho_sft x) (g x) (rho x))
    <= (𝔼 x ∼ P, objective lam (rho_sft x) (g x) (rho_star x))
  /\ ((𝔼 x ∼ P, objective lam (rho_sft x) (g x) (rho_star x))
        <= (𝔼 x ∼ P, objective lam (rho_sft x) (g x) (rho x)) ->
      forall x, 0 < P x -> rho x = rho_star x).
Proof.
  exact (fun rho D =>
    conj (family_optimal P lam rho_sft g lam_positive P_distribution rho_sft_distribution rho D)
         (family_unique P lam rho_sft g lam_positive P_distribution rho_sft_distribution rho D)).
Qed.

(** thm-gap, with r_max
    Theorem 6.1 for rewards in [0, r_max]. *)
Theorem theorem_6_1 : forall r_max, (forall x y, 0 <= r x y <= r_max) ->
  Delta <= r_max * A + r_max * B - lam * E_KL.
Proof.
  exact (fun r_max bounds => eq_ind (r_max - 0)
    (fun c => Delta <= theorem_6_1_bound P rho_sft pi_F pi_F' r lam pi_star c)
    (theorem_6_1_range P rho_sft pi_F pi_F' r lam lam_positive P_distribution
       rho_sft_distribution pi_F_distribution pi_F'_distribution pi_star 0 r_max
       (fun x => proj1 (pi_star_policy pi_F r beta pi_F_distribution x)) bounds)
    r_max (Rminus_0_r r_max)).
Qed.

(** thm-gap, with the range at each prompt
    Theorem 6.1 for signed rewards: osc_r(x) in the place of r_max, inside each expectation. *)
Theorem theorem_6_1_with_the_range :
  Delta <= (𝔼 x ∼ P, (osc_r x * TV (pi_star x) (pi_F x)))
           + (𝔼 x ∼ P, (osc_r x * 𝔼 k ∼ (rho_sft x), TV (pi_F x) (pi_F' k)))
           - lam * E_KL.
Proof.
  exact (theorem_6_1_osc_r P rho_sft pi_F pi_F' r lam lam_positive P_distribution
    rho_sft_distribution pi_F_distribution pi_F'_distribution pi_star
    (pi_star_policy pi_F r beta pi_F_distribution)).
Qed.

(** thm-gap, without (H2)
    With rewards in [lo, hi] the bound holds for any policy π in the place of π⋆. *)
Theorem theorem_6_1_for_any_policy : forall pi lo hi,
  (forall x, dist (pi x)) -> (forall x y, lo <= r x y <= hi) ->
  J pi - J (induced rho_star)
    <= (hi - lo) * (𝔼 x ∼ P, TV (pi x) (pi_F x)) + (hi - lo) * B - lam * E_KL.
Proof.
  exact (theorem_6_1_range P rho_sft pi_F pi_F' r lam lam_positive P_distribution
    rho_sft_distribution pi_F_distribution pi_F'_distribution).
Qed.

(** reading-3, the inequality
    Δ₁ = J(π⋆) − J(π_F) is at least β E KL(π⋆‖π_F). *)
Theorem fine_tuning_gains_at_least_its_KL :
  beta * (𝔼 x ∼ P, KL (pi_star x) (pi_F x)) <= J pi_star - J pi_F.
Proof.
  exact (fine_tuning_gain_at_least P pi_F r beta P_distribution pi_F_distribution beta_positive).
Qed.

(** eq-any-rho
    The bound for every prompter on the support, where distance from the optimum is charged. *)
Theorem bound_for_any_prompter : forall rho c, prompter rho -> (forall x, osc_r x <= c) ->
  J pi_star - J (induced rho) <= c * A + c * B
    - lam * (𝔼 x ∼ P, (KL (rho x) (rho_sft x) + KL (rho_sft x) (rho_star x)
                        - KL (rho x) (rho_star x))).
Proof.
  exact (any_prompter_bound P rho_sft pi_F pi_F' r lam lam_positive P_distribution
    rho_sft_distribution pi_F_distribution pi_F'_distribution pi_star
    (pi_star_policy pi_F r beta pi_F_distribution)).
Qed.

(** thm-gains, averaged over prompts
    C2: the prompter gains λ E Jeff(ρ⋆, ρ_sft), fine-tuning gains β E Jeff(π⋆, π_F). *)
Theorem exact_gains :
  J (induced rho_star) - J pi_bar_sft = lam * E_Jeff
  /\ J pi_star - J pi_F = beta * 𝔼 x ∼ P, Jeffreys (pi_star x) (pi_F x).
Proof.
  exact (conj (prompter_gain P rho_sft pi_F' r lam lam_positive rho_sft_distribution)
              (family_gain P beta pi_F r beta_positive pi_F_distribution)).
Qed.

(** thm-decomposition, the identity
    C3: Δ = β E Jeff(π⋆, π_F) + [J(π_F) − J₀] − λ E Jeff(ρ⋆, ρ_sft). *)
Theorem exact_gap : Delta = beta * (𝔼 x ∼ P, Jeffreys (pi_star x) (pi_F x))
  + (J pi_F - J pi_bar_sft) - lam * E_Jeff.
Proof.
  exact (decomposition P rho_sft pi_F pi_F' r lam beta lam_positive rho_sft_distribution
    pi_F_distribution beta_positive).
Qed.

(** thm-decomposition, the mixture bound
    C3: Δ ≤ E[osc_r TV(π⋆, π̄_sft)] − λ E Jeff(ρ⋆, ρ_sft), for signed rewards too. *)
Theorem mixture_bound_on_the_gap :
  Delta <= (𝔼 x ∼ P, (osc_r x * TV (pi_star x) (pi_bar_sft x))) - lam * E_Jeff.
Proof.
  exact (mixture_bound P rho_sft pi_F pi_F' r lam lam_positive P_distribution
    rho_sft_distribution pi_F_distribution pi_F'_distribution pi_star
    (pi_star_policy pi_F r beta pi_F_distribution)).
Qed.

(** thm-decomposition, the chain
    C3: for rewards in [0, r_max], mixture bound ≤ Jeffreys bound ≤ Theorem 6.1. *)
Theorem chain_of_bounds : forall r_max, (forall x y, 0 <= r x y <= r_max) ->
  (𝔼 x ∼ P, (osc_r x * TV (pi_star x) (pi_bar_sft x))) - lam * E_Jeff
    <= r_max * (A + B) - lam * E_Jeff
  /\ r_max * (A + B) - lam * E_Jeff <= r_max * (A + B) - lam * E_KL.
Proof.
  exact (fun r_max bounds => conj
    (mixture_le_jeffreys P rho_sft pi_F pi_F' r lam P_distribution
       rho_sft_distribution pi_F_distribution pi_F'_distribution pi_star r_max
       (fun x => eq_ind (r_max - 0) (fun c => osc_r x <= c)
          (osc_r_le rho_sft pi_F pi_F' r rho_sft_distribution pi_F_distribution
             pi_F'_distribution x 0 r_max (bounds x)) r_max (Rminus_0_r r_max)))
    (jeffreys_le_paper P rho_sft pi_F pi_F' r lam lam_positive P_distribution
       rho_sft_distribution pi_star r_max)).
Qed.

(** thm-apriori, averaged over prompts
    C4: the gap between two bounds, each with one number of one optimum. *)
Theorem gap_between_two_bounds :
  beta * (𝔼 x ∼ P, phi (TV (pi_star x) (pi_F x))) + (J pi_F - J pi_bar_sft)
    - (𝔼 x ∼ P, (osc (rho_sft x) (g x) * tanh (osc (rho_sft x) (g x) / (4 * lam)))) <= Delta
  /\ Delta <=
    (𝔼 x ∼ P, (osc (pi_F x) (r x) * tanh (osc (pi_F x) (r x) / (4 * beta))))
    + (J pi_F - J pi_bar_sft) - lam * (𝔼 x ∼ P, phi (TV (rho_star x) (rho_sft x))).
Proof.
  exact (conj
    (gap_at_least P rho_sft pi_F pi_F' r lam beta lam_positive P_distribution
       rho_sft_distribution pi_F_distribution beta_positive)
    (gap_at_most P rho_sft pi_F pi_F' r lam beta lam_positive P_distribution
       rho_sft_distribution pi_F_distribution beta_positive)).
Qed.

(** thm-duality, the ceiling and who attains it
    C9: within a budget κ of KL no prompter earns more than λκ + λ E log Z, for any λ; and ρ⋆
    earns the most of all who spend no more than it. *)
Theorem budget_of_KL : forall rho, prompter rho ->
  (forall kappa, (𝔼 x ∼ P, KL (rho x) (rho_sft x)) <= kappa ->
     J (induced rho)
       <= lam * kappa + lam * (𝔼 x ∼ P, ln (partition lam (rho_sft x) (g x))))
  /\ ((𝔼 x ∼ P, KL (rho x) (rho_sft x)) <= E_KL -> J (induced rho) <= J (induced rho_star)).
Proof.
  exact (fun rho D => conj
    (fun kappa => budget_bound P rho_sft pi_F' r lam lam_positive P_distribution
       rho_sft_distribution rho kappa D)
    (budget_optimal P rho_sft pi_F' r lam lam_positive P_distribution
       rho_sft_distribution rho D)).
Qed.

(** thm-floor, the floor
    C7: no prompter earns more than the mean of its best rewrites, so the gap has a floor. *)
Theorem ceiling_of_prompting : forall rho, prompter rho ->
  J pi_star - (𝔼 x ∼ P, max_on (rho_sft x) (g x)) <= J pi_star - J (induced rho).
Proof.
  exact (fun rho D => Rplus_le_compat_l (J pi_star) _ _ (Ropp_le_contravar _ _
    (prompter_ceiling P rho_sft pi_F' r P_distribution rho_sft_distribution rho D))).
Qed.

(** thm-sqrt-kl, both inequalities
    C11: any prompter on the support, trained or not, gains at most E[osc(g) √(KL/2)], and that is
    at most √(E osc(g)² E KL / 2). *)
Theorem square_root_ceiling : forall rho, prompter rho ->
  J (induced rho) - J pi_bar_sft
    <= (𝔼 x ∼ P, (osc (rho_sft x) (g x) * sqrt (KL (rho x) (rho_sft x) / 2)))
  /\ (𝔼 x ∼ P, (osc (rho_sft x) (g x) * sqrt (KL (rho x) (rho_sft x) / 2)))
    <= sqrt ((𝔼 x ∼ P, (osc (rho_sft x) (g x) * osc (rho_sft x) (g x)))
             * (𝔼 x ∼ P, KL (rho x) (rho_sft x)) / 2).
Proof.
  exact (fun rho D => conj
    (sqrt_KL_average P rho_sft pi_F' r P_distribution rho_sft_distribution rho D)
    (sqrt_KL_two_numbers P rho_sft pi_F' r P_distribution rho_sft_distribution rho D)).
Qed.

(** eq-budget, what it needs
    If λ E KL(ρ⋆‖ρ_sft) reaches T₁ + T₂, so that Theorem 6.1 certifies the budget, then
    E max g − J₀ reaches it too. *)
Theorem what_a_certified_budget_needs : forall r_max,
  r_max * A + r_max * B <= lam * E_KL ->
  r_max * A + r_max * B <= (𝔼 x ∼ P, max_on (rho_sft x) (g x)) - J pi_bar_sft.
Proof.
  exact (fun r_max => budget_needs P rho_sft pi_F' r lam lam_positive P_distribution
    rho_sft_distribution (r_max * A + r_max * B)).
Qed.

(** cor-untrained
    The gap, less J(π_F) − J₀, is between two differences of moments of the untrained models. *)
Theorem gap_bounds_from_untrained_moments :
  (𝔼 x ∼ P, (floor_of_gain beta (pi_F x) (r x) - ceiling_of_gain lam (rho_sft x) (g x)))
    <= Delta - (J pi_F - J pi_bar_sft)
  /\ Delta - (J pi_F - J pi_bar_sft)
    <= 𝔼 x ∼ P, (ceiling_of_gain beta (pi_F x) (r x) - floor_of_gain lam (rho_sft x) (g x)).
Proof.
  exact (gap_from_untrained_moments P rho_sft pi_F pi_F' r lam beta lam_positive beta_positive
    P_distribution rho_sft_distribution pi_F_distribution).
Qed.

(** thm-no-free-lunch, data processing
    C10: KL(π̃_ρ‖π̄_sft) ≤ KL(ρ‖ρ_sft) at each prompt. *)
Theorem channel_cannot_increase_KL : forall rho x, prompter rho ->
  KL (induced rho x) (pi_bar_sft x) <= KL (rho x) (rho_sft x).
Proof.
  exact (induced_KL rho_sft pi_F' rho_sft_distribution pi_F'_distribution).
Qed.

(** thm-no-free-lunch, at equal budgets
    C10: what a prompter earns with a budget κ, some policy on the support of π̄_sft earns with the
    same budget. *)
Theorem no_free_lunch_at_equal_budgets : forall rho kappa, prompter rho ->
  (𝔼 x ∼ P, KL (rho x) (rho_sft x)) <= kappa ->
  exists pi, (forall x, dist (pi x) /\ pi x << pi_bar_sft x)
    /\ (𝔼 x ∼ P, KL (pi x) (pi_bar_sft x)) <= kappa
    /\ J pi = J (induced rho).
Proof.
  exact (fun rho kappa D within => ex_intro _ (induced rho)
    (conj (induced_policy rho_sft pi_F' rho_sft_distribution pi_F'_distribution rho D)
    (conj (Rle_trans _ _ _ (matched_budget P rho_sft pi_F' P_distribution
             rho_sft_distribution pi_F'_distribution rho D) within)
          eq_refl))).
Qed.

(** thm-no-free-lunch, at equal leashes
    C10: λ E log Σ π̄_sft e^(r/λ) ≥ λ E log Z. *)
Theorem no_free_lunch_at_equal_leashes :
  lam * (𝔼 x ∼ P, ln (partition lam (rho_sft x) (g x)))
  <= lam * (𝔼 x ∼ P, ln (partition lam (pi_bar_sft x) (r x))).
Proof.
  exact (matched_leash P rho_sft pi_F' r lam lam_positive P_distribution
    rho_sft_distribution pi_F'_distribution).
Qed.
End AllPrompts.

(** * Limits and counterexamples *)
Section Limits.
Context {X K Y : Type} `{Finite X} `{Finite K} `{Finite Y}.
Variables (P : X -> R) (rho_sft : X -> K -> R) (pi_F' : K -> Y -> R) (r : X -> Y -> R).
Hypotheses (P_distribution : dist P) (rho_sft_distribution : forall x, dist (rho_sft x)).

(** thm-floor, the limit
    C7: as λ tends to 0, the optimal prompter earns as much as its best rewrites. *)
Theorem ceiling_is_reached : forall eps, 0 < eps ->
  exists lam_0, 0 < lam_0 /\ forall lam, 0 < lam < lam_0 ->
    (𝔼 x ∼ P, max_on (rho_sft x) (g pi_F' r x))
    - J P r (induced pi_F' (rho_star rho_sft pi_F' r lam)) < eps.
Proof. exact (ceiling_limit P rho_sft pi_F' r P_distribution rho_sft_distribution). Qed.

(** thm-lambda-c, that the gap does not fall as λ grows
    C15: at a looser leash (smaller λ) the optimal prompter earns at least as much, and spends at
    least as much KL. *)
Theorem looser_leash_earns_more : forall lam1 lam2, 0 < lam1 -> lam1 < lam2 ->
  (𝔼 x ∼ P, E (rho_star rho_sft pi_F' r lam2 x) (g pi_F' r x))
    <= (𝔼 x ∼ P, E (rho_star rho_sft pi_F' r lam1 x) (g pi_F' r x))
  /\ (𝔼 x ∼ P, KL (rho_star rho_sft pi_F' r lam2 x) (rho_sft x))
    <= (𝔼 x ∼ P, KL (rho_star rho_sft pi_F' r lam1 x) (rho_sft x)).
Proof.
  exact (fun lam1 lam2 => looser_earns_more P rho_sft (g pi_F' r) lam1 lam2
    P_distribution rho_sft_distribution).
Qed.

(** reading-1, the counterexample
    Theorem 6.1 with |r| ≤ r_max in the place of 0 ≤ r ≤ r_max is false. *)
Theorem theorem_6_1_is_false_for_signed_rewards :
  ~ forall (P : unit -> R) (rho_sft : unit -> bool -> R) (pi_F : unit -> bool -> R)
      (pi_F' : bool -> bool -> R) (r : unit -> bool -> R) (lam beta r_max : R),
    0 < beta -> 0 < lam -> dist P -> (forall x, dist (rho_sft x)) ->
    (forall x, dist (pi_F x)) -> (forall k, dist (pi_F' k)) ->
    (forall x y, Rabs (r x y) <= r_max) ->
    Delta P rho_sft pi_F pi_F' r lam beta
      <= r_max * (𝔼 x ∼ P, TV (pi_star pi_F r beta x) (pi_F x))
         + r_max * (𝔼 x ∼ P, 𝔼 k ∼ (rho_sft x), TV (pi_F x) (pi_F' k))
         - lam * (𝔼 x ∼ P, KL (rho_star rho_sft pi_F' r lam x) (rho_sft x)).
Proof. exact theorem_6_1_fails_signed. Qed.
End Limits.

(** * Noise

    [rho_star] is optimal for the mean rewards g, [rho_hat] for g_hat; e = g_hat − g. *)
Section NoiseInTheReward.
Context {K : Type} `{Finite K}.
Variables (lam : R) (rho_sft g g_hat : K -> R).
Hypotheses (lam_positive : 0 < lam) (rho_sft_distribution : dist rho_sft).

Notation rho_star := (tilt lam rho_sft g).
Notation rho_hat := (tilt lam rho_sft g_hat).
Notation F := (objective lam rho_sft g).
Notation F_hat := (objective lam rho_sft g_hat).
Notation e := (fun k => g_hat k - g k).

(** thm-reward-error
    C13: if |e| ≤ ε on the support then F(ρ⋆) − F(ρ̂) ≤ ε²/2λ, and
    |J(ρ̂) − J(ρ⋆)| ≤ osc(g) tanh(osc(e)/4λ) ≤ osc(g) tanh(ε/2λ). *)
Theorem wrong_reward : forall eps, (forall k, 0 < rho_sft k -> Rabs (g_hat k - g k) <= eps) ->
  F rho_star - F rho_hat <= eps * eps / (2 * lam)
  /\ Rabs (E rho_hat g - E rho_star g) <= osc rho_sft g * tanh (osc rho_sft e / (4 * lam))
  /\ osc rho_sft g * tanh (osc rho_sft e / (4 * lam)) <= osc rho_sft g * tanh (eps / (2 * lam)).
Proof.
  exact (fun eps small =>
    conj (small_error lam rho_sft g g_hat lam_positive rho_sft_distribution eps small)
   (conj (reward_change lam rho_sft g g_hat lam_positive rho_sft_distribution)
         (small_error_reward lam rho_sft g g_hat lam_positive rho_sft_distribution eps small))).
Qed.

(** thm-noise, the identity
    C17: [F(ρ⋆) − F(ρ̂)] + [F̂(ρ̂) − F̂(ρ⋆)] = λ Jeff(ρ̂, ρ⋆) = (E_ρ̂ − E_ρ⋆) e. *)
Theorem price_of_noise :
  (F rho_star - F rho_hat) + (F_hat rho_hat - F_hat rho_star) = lam * Jeffreys rho_hat rho_star
  /\ lam * Jeffreys rho_hat rho_star = E rho_hat e - E rho_star e.
Proof. exact (noise_identity lam rho_sft g g_hat lam_positive rho_sft_distribution). Qed.

(** thm-noise, the bounds
    C17: each bracket is between 0 and osc(e)²/8λ, and at most λ h(osc(e)/λ) where osc(e) > 0; their
    sum is at most osc(e) tanh(osc(e)/4λ). *)
Theorem price_of_noise_is_bounded :
  (0 <= F rho_star - F rho_hat <= osc rho_sft e * osc rho_sft e / (8 * lam)
   /\ 0 <= F_hat rho_hat - F_hat rho_star <= osc rho_sft e * osc rho_sft e / (8 * lam))
  /\ (0 < osc rho_sft e ->
        F rho_star - F rho_hat <= lam * largest_KL (osc rho_sft e / lam)
        /\ F_hat rho_hat - F_hat rho_star <= lam * largest_KL (osc rho_sft e / lam))
  /\ (F rho_star - F rho_hat) + (F_hat rho_hat - F_hat rho_star)
     <= osc rho_sft e * tanh (osc rho_sft e / (4 * lam)).
Proof.
  exact (conj (loss_bounds lam rho_sft g g_hat lam_positive rho_sft_distribution)
        (conj (loss_at_most_largest lam rho_sft g g_hat lam_positive rho_sft_distribution)
              (noise_bound lam rho_sft g g_hat lam_positive rho_sft_distribution))).
Qed.

(** thm-noise, in plain reward
    C17: |J(ρ̂) − J(ρ⋆)| ≤ osc(g) tanh(osc(e)/4λ). *)
Theorem reward_under_noise :
  Rabs (E rho_hat g - E rho_star g) <= osc rho_sft g * tanh (osc rho_sft e / (4 * lam)).
Proof. exact (reward_change lam rho_sft g g_hat lam_positive rho_sft_distribution). Qed.
End NoiseInTheReward.

Section NoiseInTheModel.
Context {K Y : Type} `{Finite K} `{Finite Y}.
Variables (lam beta : R) (rho_sft : K -> R) (pi_F pi_hat : K -> Y -> R) (r : Y -> R).
Hypotheses (lam_positive : 0 < lam) (beta_positive : 0 < beta)
  (rho_sft_distribution : dist rho_sft)
  (pi_F_distribution : forall k, dist (pi_F k)) (pi_hat_distribution : forall k, dist (pi_hat k)).

Notation g := (fun k => 𝔼 y ∼ (pi_F k), r y).
Notation g_hat := (fun k => 𝔼 y ∼ (pi_hat k), r y).
Notation rho_star := (tilt lam rho_sft g).
Notation rho_hat := (tilt lam rho_sft g_hat).

(** sec-noise, without retraining
    C17: under another model, the reward of a prompter moves by at most osc_r E_ρ η. *)
Theorem noise_when_nothing_is_retrained : forall rho w, dist rho ->
  (forall k, 0 < rho k -> osc (fun y => pi_hat k y + pi_F k y) r <= w) ->
  Rabs (E (mix rho pi_hat) r - E (mix rho pi_F) r) <= w * 𝔼 k ∼ rho, TV (pi_hat k) (pi_F k).
Proof.
  exact (fun rho w D => noise_without_retraining rho pi_F pi_hat r w D
    pi_F_distribution pi_hat_distribution).
Qed.

(** sec-noise, uniform contamination
    C17: noise at rate η with one ν for all rewrites is exactly the leash λ/(1−η). *)
Theorem contamination_is_a_leash : forall eta nu, eta < 1 ->
  (forall k y, pi_hat k y = (1 - eta) * pi_F k y + eta * nu y) ->
  rho_hat = tilt (lam / (1 - eta)) rho_sft g.
Proof.
  exact (contamination lam rho_sft pi_F pi_hat r lam_positive rho_sft_distribution).
Qed.

(** thm-fragile, the bound for RLHF
    C17: with rewards in [m, M] on both supports and W = e^((M−m)/β), the two optima of RLHF differ
    by at most ηW/(1−η+ηW). *)
Theorem rlhf_under_noise : forall (p q : Y -> R) m M eta, dist p -> dist q ->
  (forall y, 0 < p y \/ 0 < q y -> m <= r y <= M) -> TV p q <= eta -> eta <= 1 ->
  TV (tilt beta p r) (tilt beta q r)
    <= eta * exp ((M - m) / beta) / (1 - eta + eta * exp ((M - m) / beta)).
Proof. exact (fun p q m M eta => rlhf_is_fragile beta m M r beta_positive p q eta). Qed.

(** thm-fragile, the bound for a prompter
    C17: the two optimal prompters induce policies that differ by at most
    E_ρ⋆ η + tanh(osc(e)/4λ). *)
Theorem prompter_under_noise_in_the_model :
  TV (mix rho_hat pi_hat) (mix rho_star pi_F)
    <= (𝔼 k ∼ rho_star, TV (pi_hat k) (pi_F k))
       + tanh (osc rho_sft (fun k => g_hat k - g k) / (4 * lam)).
Proof.
  exact (prompter_under_noise lam rho_sft pi_F pi_hat r lam_positive rho_sft_distribution
    pi_hat_distribution).
Qed.
End NoiseInTheModel.

(** * Prompters in sequence

    Two stages: the first writes k from [R1], the second writes from [R2 k]. *)
Section TwoStages.
Context {K1 K2 : Type} `{Finite K1} `{Finite K2}.
Variables (lam1 lam2 : R) (R1 : K1 -> R) (R2 : K1 -> K2 -> R) (g : K2 -> R).
Hypotheses (lam1_positive : 0 < lam1) (lam2_positive : 0 < lam2)
  (R1_distribution : dist R1) (R2_distribution : forall k, dist (R2 k)).

Notation V1 := (fun k => lam2 * ln (partition lam2 (R2 k) g)).
Notation V0 := (lam1 * ln (partition lam1 R1 V1)).
Notation rho1_star := (tilt lam1 R1 V1).
Notation rho2_star := (fun k => tilt lam2 (R2 k) g).
Notation F := (fun rho1 rho2 =>
  E (mix rho1 rho2) g - lam1 * KL rho1 R1 - lam2 * 𝔼 k ∼ rho1, KL (rho2 k) (R2 k)).

(** thm-chain, for two stages
    C18: F = V₀ − λ₁ KL(ρ₁‖ρ₁⋆) − λ₂ E KL(ρ₂‖ρ₂⋆): regrets add up. *)
Theorem regret_of_two_stages : forall rho1 rho2, dist rho1 -> rho1 << R1 ->
  (forall k, dist (rho2 k)) -> (forall k, rho2 k << R2 k) ->
  F rho1 rho2 = V0 - lam1 * KL rho1 rho1_star - lam2 * 𝔼 k ∼ rho1, KL (rho2 k) (rho2_star k).
Proof.
  exact (chain_value lam1 lam2 R1 R2 g lam1_positive lam2_positive R1_distribution
    R2_distribution).
Qed.

(** thm-chain, the optimum of two stages
    C18: V₀ is the largest value, and the two tilts attain it. *)
Theorem optimum_of_two_stages : F rho1_star rho2_star = V0
  /\ forall rho1 rho2, dist rho1 -> rho1 << R1 ->
       (forall k, dist (rho2 k)) -> (forall k, rho2 k << R2 k) -> F rho1 rho2 <= V0.
Proof.
  exact (conj
    (chain_optimum lam1 lam2 R1 R2 g lam1_positive lam2_positive R1_distribution R2_distribution)
    (chain_optimal lam1 lam2 R1 R2 g lam1_positive lam2_positive R1_distribution
       R2_distribution)).
Qed.

Notation U := (fun k => E (R2 k) g).          (* what stage 1 earns while stage 2 is untrained *)
Notation rho1_U := (tilt lam1 R1 U).

(** thm-order, part 1 with the constant 512
    C18: training stage 1 for U and then stage 2 loses λ₁ KL(ρ₁ᵁ‖ρ₁⋆), at most
    w⁴/(512 λ₁ λ₂²), where w bounds the range of g. *)
Theorem loss_of_the_wrong_order :
  V0 - F rho1_U rho2_star = lam1 * KL rho1_U rho1_star
  /\ forall w, (forall k, osc (R2 k) g <= w) ->
       lam1 * KL rho1_U rho1_star <= w * w * (w * w) / (512 * (lam1 * (lam2 * lam2))).
Proof.
  exact (conj
    (first_stage_first lam1 lam2 R1 R2 g lam1_positive lam2_positive R1_distribution
       R2_distribution)
    (wrong_order_loss lam1 lam2 R1 R2 g lam1_positive lam2_positive R1_distribution
       R2_distribution)).
Qed.

(** thm-order, part 2 for two stages
    C18: training stage 1 alone gains at most wδ tanh(wδ/4λ₁), where w bounds the range of g and δ
    the total variation between the outputs of stage 2. *)
Theorem gain_of_the_first_stage_alone : forall w delta, 0 <= w ->
  (forall a b, 0 < R1 a -> 0 < R1 b ->
     osc (fun k => R2 a k + R2 b k) g <= w /\ TV (R2 a) (R2 b) <= delta) ->
  E rho1_U U - E R1 U <= w * delta * tanh (w * delta / (4 * lam1)).
Proof.
  exact (first_stage_only lam1 R1 R2 g lam1_positive R1_distribution R2_distribution).
Qed.
End TwoStages.

Section ManyStages.
Context {K1 K2 K : Type} `{Finite K1} `{Finite K2} `{Finite K}.

(** sec-chains, one leash
    C18: with one leash, two stages are one prompter on the composed reference: the same value, the
    same law of the last rewrite. *)
Theorem one_leash_is_one_prompter : forall lam (R1 : K1 -> R) (R2 : K1 -> K2 -> R) g, 0 < lam ->
  dist R1 -> (forall k, dist (R2 k)) ->
  let V1 := fun k => lam * ln (partition lam (R2 k) g) in
  lam * ln (partition lam R1 V1) = lam * ln (partition lam (mix R1 R2) g)
  /\ mix (tilt lam R1 V1) (fun k => tilt lam (R2 k) g) = tilt lam (mix R1 R2) g.
Proof.
  exact (fun lam R1 R2 g L D1 D2 =>
    conj (one_leash_value lam R1 R2 g L D2) (one_leash_optimum lam R1 R2 g L D1 D2)).
Qed.

(* A stage has a leash and a reference, which is given the rewrite of the stage before it.  A chain
   lists its stages, each with the prompter used there. *)
Remark value_of_a_chain (g : K -> R) s rho rest k :
  value g nil k = g k
  /\ value g ((s, rho) :: rest) k
     = (𝔼 j ∼ (rho k), value g rest j) - leash s * KL (rho k) (reference s k).
Proof. exact (conj eq_refl eq_refl). Qed.

Remark the_recursion (g : K -> R) s rest k :
  best_value g nil k = g k
  /\ best_value g (s :: rest) k
     = leash s * ln (partition (leash s) (reference s k) (best_value g rest)).
Proof. exact (conj eq_refl eq_refl). Qed.

Remark prompter_of_a_stage (g : K -> R) s rest k :
  best_prompter g s rest k = tilt (leash s) (reference s k) (best_value g rest).
Proof. exact eq_refl. Qed.

Remark regrets_of_a_chain (g : K -> R) s rho rest k :
  total_regret g nil k = 0
  /\ total_regret g ((s, rho) :: rest) k
     = leash s * KL (rho k) (best_prompter g s (stages_of rest) k)
       + 𝔼 j ∼ (rho k), total_regret g rest j.
Proof. exact (conj eq_refl eq_refl). Qed.

Remark chain_of_the_best (g : K -> R) s rest :
  best_chain g nil = nil
  /\ best_chain g (s :: rest) = (s, best_prompter g s rest) :: best_chain g rest.
Proof. exact (conj eq_refl eq_refl). Qed.

Remark admissible_chain (c : chain (K := K)) : admissible c = (forall s rho, In (s, rho) c ->
  0 < leash s /\ forall k, dist (reference s k) /\ dist (rho k) /\ rho k << reference s k).
Proof. exact eq_refl. Qed.

(** thm-chain, for any number of stages
    C18: the value of a chain is V₀ less the regrets of its stages, each averaged along the
    chain. *)
Theorem regret_of_a_chain : forall (g : K -> R) (c : chain), admissible c -> forall k,
  value g c k = best_value g (stages_of c) k - total_regret g c k /\ 0 <= total_regret g c k.
Proof.
  exact (fun g c ok k => conj (long_chain_value g c ok k) (total_regret_ge0 g c ok k)).
Qed.

(** thm-chain, the optimum of any number of stages
    C18: the chain of tilts attains V₀. *)
Theorem optimum_of_a_chain : forall (g : K -> R) stages,
  (forall s, In s stages -> 0 < leash s /\ forall k, dist (reference s k)) ->
  forall k, value g (best_chain g stages) k = best_value g stages k.
Proof. exact best_chain_value. Qed.
End ManyStages.

(** * The variance of the reward

    With t = 1/λ, [path t] is the optimal prompter at the leash λ; v is the variance within a
    rewrite. *)
Section VarianceOfTheReward.
Context {X K : Type} `{Finite X} `{Finite K}.
Variables (P : X -> R) (rho_sft g v : X -> K -> R).
Hypotheses (P_distribution : dist P) (rho_sft_distribution : forall x, dist (rho_sft x)).

Notation rho t x := (path (rho_sft x) (g x) t).
Notation J t := (fun x => 𝔼 k ∼ (rho t x), g x k).
Notation variance_all t :=
  ((𝔼 x ∼ P, (E (rho t x) (v x) + var (rho t x) (g x))) + var P (J t)).

Remark path_of_optima lam x : tilt lam (rho_sft x) (g x) = rho (/ lam) x.
Proof. exact (tilt_on_path (rho_sft x) (g x) lam). Qed.
Remark path_starts_untrained x : rho 0 x = rho_sft x.
Proof. exact (path_0 (rho_sft x) (g x) (rho_sft_distribution x)). Qed.

(** eq-variance-parts
    C19: the variance over all answers has three parts: within rewrites, between them, across
    prompts. *)
Theorem parts_of_the_variance : forall {Y} `{Finite Y} (some_rho : X -> K -> R)
    (pi_F' : K -> Y -> R) (r : X -> Y -> R),
  (forall x, dist (some_rho x)) -> (forall k, dist (pi_F' k)) ->
  let mean := 𝔼 x ∼ P, 𝔼 k ∼ (some_rho x), 𝔼 y ∼ (pi_F' k), r x y in
  (𝔼 x ∼ P, 𝔼 k ∼ (some_rho x), 𝔼 y ∼ (pi_F' k), ((r x y - mean) * (r x y - mean)))
  = (𝔼 x ∼ P, ((𝔼 k ∼ (some_rho x), var (pi_F' k) (r x))
               + var (some_rho x) (fun k => 𝔼 y ∼ (pi_F' k), r x y)))
    + var P (fun x => 𝔼 k ∼ (some_rho x), 𝔼 y ∼ (pi_F' k), r x y).
Proof.
  exact (fun Y finite some_rho pi_F' r => three_variances P some_rho pi_F' r P_distribution).
Qed.

(** thm-variance-drift
    C19: the variance over all answers moves as E_x[Cov(g, v) + κ₃(g)] + 2 Cov_x(J, Var(g)), and the
    mean as E_x Var(g).  With K the responses, g the reward and v = 0 this is about RLHF. *)
Theorem drift_of_the_variance : forall t,
  derivative (fun s => variance_all s) t
    ((𝔼 x ∼ P, (cov (rho t x) (g x) (v x) + third_moment (rho t x) (g x)))
     + 2 * cov P (J t) (fun x => var (rho t x) (g x)))
  /\ derivative (fun s => 𝔼 x ∼ P, J s x) t (𝔼 x ∼ P, var (rho t x) (g x)).
Proof.
  exact (fun t => conj (variance_drift P rho_sft g v P_distribution rho_sft_distribution t)
                       (mean_drift P rho_sft g rho_sft_distribution t)).
Qed.

(** cor-binary
    With rewards 0 and 1 the variance at a prompt moves as (1 − 2J) Var(g): it rises while the mean
    reward is below 1/2. *)
Theorem variance_of_binary_rewards : forall x t, (forall k, v x k = g x k * (1 - g x k)) ->
  derivative (fun s => E (rho s x) (v x) + var (rho s x) (g x)) t
             ((1 - 2 * J t x) * var (rho t x) (g x)).
Proof. exact (binary_variance rho_sft g v rho_sft_distribution). Qed.
End VarianceOfTheReward.
