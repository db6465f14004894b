(** Finite sets, sums, distributions, expectations, mixtures, and the range of a function.

    Only Coq's standard library is used.  A finite set is a type with a list of all its elements,
    without repetition.  A distribution on it is a function to the real numbers. *)
From Coq Require Import Reals Lra List FunctionalExtensionality.
Import ListNotations.
Open Scope R_scope.

Class Finite (A : Type) := {
  elems : list A;
  elems_all : forall a, In a elems;
  elems_nodup : NoDup elems }.
Arguments elems A {_}.

#[export] Program Instance Finite_unit : Finite unit := {| elems := [tt] |}.
Next Obligation. destruct a; auto. Qed.
Next Obligation. repeat constructor; simpl; tauto. Qed.

#[export] Program Instance Finite_bool : Finite bool := {| elems := [true; false] |}.
Next Obligation. destruct a; auto. Qed.
Next Obligation. repeat constructor; simpl; intuition discriminate. Qed.

(** ** Sums *)

Fixpoint lsum {A} (l : list A) (f : A -> R) : R :=
  match l with [] => 0 | a :: l => f a + lsum l f end.
Definition sum {A} `{Finite A} (f : A -> R) : R := lsum (elems A) f.
Notation "'Σ' a , e" := (sum (fun a => e))
  (at level 41, a name, e at level 41, right associativity).

Section Sums.
Context {A : Type} `{Finite A}.
Implicit Types f g : A -> R.

Lemma sum_ext f g : (forall a, f a = g a) -> sum f = sum g.
Proof. intros e; f_equal; now apply functional_extensionality. Qed.

Lemma sum_plus f g : (Σ a, (f a + g a)) = sum f + sum g.
Proof. unfold sum; induction (elems A); simpl; lra. Qed.

Lemma sum_scal c f : (Σ a, c * f a) = c * sum f.
Proof. unfold sum; induction (elems A); simpl; nra. Qed.

Lemma sum_minus f g : (Σ a, (f a - g a)) = sum f - sum g.
Proof. unfold sum; induction (elems A); simpl; lra. Qed.

Lemma sum_0 : (Σ _, 0) = 0.
Proof. unfold sum; induction (elems A); simpl; lra. Qed.

Lemma sum_le f g : (forall a, f a <= g a) -> sum f <= sum g.
Proof.
  intros L; unfold sum; induction (elems A) as [|a l IH]; simpl; [|specialize (L a)]; lra.
Qed.

Lemma sum_ge0 f : (forall a, 0 <= f a) -> 0 <= sum f.
Proof. intros L; rewrite <- sum_0; now apply sum_le. Qed.

Lemma sum_abs f : Rabs (Σ a, f a) <= Σ a, Rabs (f a).
Proof.
  unfold sum; induction (elems A) as [|a l IH]; simpl.
  - rewrite Rabs_R0; lra.
  - eapply Rle_trans; [apply Rabs_triang|lra].
Qed.

Lemma sum_ge_term f a : (forall b, 0 <= f b) -> f a <= sum f.
Proof.
  intros P; unfold sum; generalize (elems_all a); induction (elems A) as [|b l IH]; [easy|].
  assert (Q : 0 <= lsum l f).
  { clear IH; induction l as [|c l IH]; simpl; [|specialize (P c)]; lra. }
  simpl; intros [->|I]; [|specialize (IH I); specialize (P b)]; lra.
Qed.

Lemma sum_eq0 f : (forall a, 0 <= f a) -> sum f = 0 -> forall a, f a = 0.
Proof. intros P S a; generalize (sum_ge_term f a P) (P a); lra. Qed.
End Sums.

Lemma sum_swap {A B} `{Finite A} `{Finite B} (f : A -> B -> R) :
  (Σ a, Σ b, f a b) = Σ b, Σ a, f a b.
Proof.
  unfold sum at 1 4; generalize (elems A); intros l; induction l as [|a l IH]; simpl.
  - symmetry; apply sum_0.
  - rewrite IH; symmetry; apply sum_plus.
Qed.

(** ** Distributions and expectations *)

Definition dist {A} `{Finite A} (p : A -> R) : Prop :=
  (forall a, 0 <= p a) /\ sum p = 1.

Definition E {A} `{Finite A} (p f : A -> R) : R := Σ a, p a * f a.

(** [p << q]: [p] puts no mass where [q] has none. *)
Definition abs_cont {A} (p q : A -> R) : Prop := forall a, q a = 0 -> p a = 0.
Infix "<<" := abs_cont (at level 70).

Section Expectation.
Context {A : Type} `{Finite A}.
Implicit Types p q f g : A -> R.

Lemma E_ext p f g : (forall a, f a = g a) -> E p f = E p g.
Proof. intros e; apply sum_ext; intros a; now rewrite e. Qed.

Lemma E_plus p f g : E p (fun a => f a + g a) = E p f + E p g.
Proof. unfold E; rewrite <- sum_plus; apply sum_ext; intros; ring. Qed.

Lemma E_minus p f g : E p (fun a => f a - g a) = E p f - E p g.
Proof. unfold E; rewrite <- sum_minus; apply sum_ext; intros; ring. Qed.

Lemma E_scal p c f : E p (fun a => c * f a) = c * E p f.
Proof. unfold E; rewrite <- sum_scal; apply sum_ext; intros; ring. Qed.

Lemma E_const p c : dist p -> E p (fun _ => c) = c.
Proof.
  intros [_ S]; unfold E; rewrite (sum_ext _ (fun a => c * p a)), sum_scal, S; intros; ring.
Qed.

Lemma E_le p f g : dist p -> (forall a, f a <= g a) -> E p f <= E p g.
Proof. intros [P _] L; apply sum_le; intros a; now apply Rmult_le_compat_l. Qed.

(** Only the support counts. *)
Lemma E_le_support p f g : dist p -> (forall a, 0 < p a -> f a <= g a) -> E p f <= E p g.
Proof.
  intros [P _] L; apply sum_le; intros a; destruct (P a) as [Pa|<-]; [|lra].
  apply Rmult_le_compat_l; [lra|now apply L].
Qed.

(** Equal means of ordered functions: the functions agree on the support. *)
Lemma E_eq_of_le p f g : dist p -> (forall a, f a <= g a) -> E p g <= E p f ->
  forall a, 0 < p a -> f a = g a.
Proof.
  intros [P S] L e a Pa.
  assert (T : forall b, 0 <= p b * (g b - f b)).
  { intros b; apply Rmult_le_pos; [easy|]; generalize (L b); lra. }
  assert (Z : (Σ b, p b * (g b - f b)) = 0).
  { apply Rle_antisym; [|now apply sum_ge0].
    fold (E p (fun b => g b - f b)); rewrite E_minus; lra. }
  destruct (Rmult_integral _ _ (sum_eq0 _ T Z a)); lra.
Qed.

Lemma dist_supported p : dist p -> exists a, 0 < p a.
Proof.
  intros [P S]; unfold sum in S.
  assert (Q : forall l, 0 < lsum l p -> exists a, 0 < p a).
  { induction l as [|a l IH]; simpl; [lra|]; intros L.
    destruct (P a) as [Pa|e]; [now exists a|]; apply IH; lra. }
  apply (Q (elems A)); lra.
Qed.

Lemma abs_cont_pos p q a : dist q -> p << q -> 0 < p a -> 0 < q a.
Proof.
  intros [Q _] C Pa; destruct (Q a) as [L|e]; [easy|].
  rewrite (C a (eq_sym e)) in Pa; lra.
Qed.
End Expectation.

(** ** The Cauchy-Schwarz inequality *)

Section CauchySchwarz.
Context {A : Type} `{Finite A}.
Variables p f h : A -> R.
Hypothesis D : dist p.

Lemma cauchy_schwarz :
  E p (fun a => f a * h a) * E p (fun a => f a * h a)
  <= E p (fun a => f a * f a) * E p (fun a => h a * h a).
Proof.
  set (x := E p (fun a => f a * f a)); set (y := E p (fun a => h a * h a)).
  set (z := E p (fun a => f a * h a)).
  assert (Q : forall c d, 0 <= c * c * x - 2 * c * d * z + d * d * y).
  { intros c d; unfold x, y, z; rewrite <- !E_scal, <- E_minus, <- E_plus.
    rewrite <- (E_const p 0 D); apply E_le; [easy|]; intros a.
    generalize (Rle_0_sqr (c * f a - d * h a)); unfold Rsqr; lra. }
  assert (y0 : 0 <= y).
  { unfold y; rewrite <- (E_const p 0 D); apply E_le; [easy|]; intros a; apply Rle_0_sqr. }
  destruct y0 as [y0|y0].
  - generalize (Q y z); intros G; apply (Rmult_le_reg_l y); [easy|]; lra.
  - assert (z0 : z = 0); [|rewrite z0, <- y0; lra].
    unfold z, E; rewrite <- (sum_0 (A := A)); apply sum_ext; intros a.
    assert (T : forall b, 0 <= p b * (h b * h b)).
    { intros b; apply Rmult_le_pos; [apply D|apply Rle_0_sqr]. }
    destruct (Rmult_integral _ _ (sum_eq0 _ T (eq_sym y0) a)) as [Z|Z]; [rewrite Z; ring|].
    destruct (Rmult_integral _ _ Z) as [Zh|Zh]; rewrite Zh; ring.
Qed.
End CauchySchwarz.

(** ** Mixtures *)

(** The distribution of the response when the rewrite is drawn from [rho] and the response from
    [q] at that rewrite. *)
Definition mix {K Y} `{Finite K} (rho : K -> R) (q : K -> Y -> R) : Y -> R :=
  fun y => Σ k, rho k * q k y.

Section Mixture.
Context {K Y : Type} `{Finite K} `{Finite Y}.
Variables (rho : K -> R) (q : K -> Y -> R).

Lemma E_mix f : E (mix rho q) f = E rho (fun k => E (q k) f).
Proof.
  unfold E, mix.
  transitivity (Σ y, Σ k, rho k * (q k y * f y)).
  - apply sum_ext; intros y; rewrite Rmult_comm, <- sum_scal; apply sum_ext; intros; ring.
  - rewrite sum_swap; apply sum_ext; intros k; apply sum_scal.
Qed.

Lemma mix_dist : dist rho -> (forall k, dist (q k)) -> dist (mix rho q).
Proof.
  intros D Q; split.
  - intros y; apply sum_ge0; intros k; apply Rmult_le_pos; [apply D|apply Q].
  - transitivity (E (mix rho q) (fun _ => 1)); [apply sum_ext; intros; ring|].
    rewrite E_mix, (E_ext _ _ (fun _ => 1)); [now apply E_const|].
    intros k; now apply E_const.
Qed.

Lemma mix_0 y : dist rho -> (forall k, dist (q k)) -> mix rho q y = 0 ->
  forall k, rho k * q k y = 0.
Proof.
  intros D Q; apply sum_eq0; intros k; apply Rmult_le_pos; [apply D|apply Q].
Qed.

Lemma mix_pos k y : dist rho -> (forall k, dist (q k)) ->
  0 < rho k -> 0 < q k y -> 0 < mix rho q y.
Proof.
  intros D Q Pk Py; destruct (proj1 (mix_dist D Q) y) as [L|e]; [easy|].
  generalize (mix_0 y D Q (eq_sym e) k) (Rmult_lt_0_compat _ _ Pk Py); lra.
Qed.

Lemma mix_abs_cont (rho0 : K -> R) : dist rho0 -> (forall k, dist (q k)) ->
  rho << rho0 -> mix rho q << mix rho0 q.
Proof.
  intros D Q C y e; unfold mix; rewrite <- (sum_0 (A := K)); apply sum_ext; intros k.
  assert (T : rho0 k * q k y = 0).
  { revert k; apply sum_eq0; [intros k; apply Rmult_le_pos; [apply D|apply Q]|exact e]. }
  destruct (Rmult_integral _ _ T) as [Z|Z]; [rewrite (C k Z)|rewrite Z]; ring.
Qed.
End Mixture.

(** ** Largest value, smallest value and range on a support

    [max_on w f] is the largest value of [f] where the weight [w] is positive. *)

Section Range.
Context {A : Type} `{Finite A}.
Implicit Types w f : A -> R.

Definition positive w (a : A) : bool := if Rlt_dec 0 (w a) then true else false.

Definition max_on w f : R :=
  match map f (filter (positive w) (elems A)) with
  | [] => 0
  | v :: vs => fold_right Rmax v vs
  end.
Definition min_on w f : R := - max_on w (fun a => - f a).
Definition osc w f : R := max_on w f - min_on w f.

Lemma positive_iff w a : positive w a = true <-> 0 < w a.
Proof. unfold positive; destruct (Rlt_dec 0 (w a)); intuition discriminate. Qed.

Lemma fold_max_ge v vs u : In u (v :: vs) -> u <= fold_right Rmax v vs.
Proof.
  induction vs as [|x l IH]; simpl.
  - intros [->|[]]; apply Rle_refl.
  - intros [e|[e|I]].
    + eapply Rle_trans; [apply IH; left; exact e|apply Rmax_r].
    + rewrite <- e; apply Rmax_l.
    + eapply Rle_trans; [apply IH; right; exact I|apply Rmax_r].
Qed.

Lemma fold_max_in v vs : In (fold_right Rmax v vs) (v :: vs).
Proof.
  induction vs as [|x l IH]; [now left|]; cbn [fold_right].
  destruct (Rle_dec x (fold_right Rmax v l)) as [L|L].
  - rewrite Rmax_right by easy; destruct IH as [e|I]; [left|right; right]; easy.
  - rewrite Rmax_left by lra; right; now left.
Qed.

Lemma max_on_ge w f a : 0 < w a -> f a <= max_on w f.
Proof.
  intros W; unfold max_on.
  assert (I : In (f a) (map f (filter (positive w) (elems A)))).
  { apply in_map, filter_In; split; [apply elems_all|now apply positive_iff]. }
  destruct (map f (filter (positive w) (elems A))) as [|v vs]; [easy|now apply fold_max_ge].
Qed.

Lemma max_on_attained w f : (exists a, 0 < w a) -> exists a, 0 < w a /\ max_on w f = f a.
Proof.
  intros [b W].
  assert (I : In (f b) (map f (filter (positive w) (elems A)))).
  { apply in_map, filter_In; split; [apply elems_all|now apply positive_iff]. }
  unfold max_on; remember (map f (filter (positive w) (elems A))) as vs eqn:e.
  destruct vs as [|v vs]; [easy|].
  assert (M := fold_max_in v vs); rewrite e in M.
  apply in_map_iff in M; destruct M as [a [fa F]]; apply filter_In in F.
  exists a; split; [now apply positive_iff|easy].
Qed.

Lemma min_on_le w f a : 0 < w a -> min_on w f <= f a.
Proof.
  intros W; unfold min_on; generalize (max_on_ge w (fun b => - f b) a W); lra.
Qed.

Lemma min_on_attained w f : (exists a, 0 < w a) -> exists a, 0 < w a /\ min_on w f = f a.
Proof.
  intros S; destruct (max_on_attained w (fun a => - f a) S) as [a [W e]].
  exists a; split; [easy|]; unfold min_on; rewrite e; ring.
Qed.

Lemma osc_ge0 w f : (exists a, 0 < w a) -> 0 <= osc w f.
Proof.
  intros [a W]; unfold osc; generalize (max_on_ge w f a W) (min_on_le w f a W); lra.
Qed.

(** Any interval that holds the values on the support is at least as wide as the range. *)
Lemma osc_le w f lo hi : (exists a, 0 < w a) -> (forall a, 0 < w a -> lo <= f a <= hi) ->
  osc w f <= hi - lo.
Proof.
  intros S B; destruct (max_on_attained w f S) as [a [Wa ea]].
  destruct (min_on_attained w f S) as [b [Wb eb]].
  unfold osc; rewrite ea, eb; generalize (B a Wa) (B b Wb); lra.
Qed.

(** The range on a smaller support is no larger. *)
Lemma osc_mono w w' f : (exists a, 0 < w a) -> (forall a, 0 < w a -> 0 < w' a) ->
  osc w f <= osc w' f.
Proof.
  intros S I; apply osc_le; [easy|].
  intros a W; split; [apply min_on_le|apply max_on_ge]; now apply I.
Qed.

Lemma osc_same_support w w' f : (exists a, 0 < w a) -> (forall a, 0 < w a <-> 0 < w' a) ->
  osc w f = osc w' f.
Proof.
  intros [a W] I; apply Rle_antisym; apply osc_mono.
  - now exists a.
  - intros b; apply I.
  - exists a; now apply I.
  - intros b; apply I.
Qed.

Lemma E_le_max p f : dist p -> E p f <= max_on p f.
Proof.
  intros D; rewrite <- (E_const p (max_on p f) D); apply E_le_support; [easy|].
  intros a; apply max_on_ge.
Qed.
End Range.
