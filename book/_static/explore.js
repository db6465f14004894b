// Solves a finite instance at any pair of leashes: the closed forms of the theory chapters.
// An instance is what `alignpro.theory.reduced` makes of it; a test compares the numbers.
"use strict";

const sum = (values) => values.reduce((a, b) => a + b, 0);

// q e^(f / t) / Z, and both KLs between it and q.
function tilt(q, f, t) {
  const top = Math.max(...f.filter((_, i) => q[i] > 0));
  const weights = q.map((mass, i) => (mass > 0 ? mass * Math.exp((f[i] - top) / t) : 0));
  const Z = sum(weights);
  const p = weights.map((w) => w / Z);
  // log p/q is exact in this form, also where p underflows.
  const log = f.map((value) => (value - top) / t - Math.log(Z));
  const mean = (law) => sum(law.map((mass, i) => (mass > 0 ? mass * log[i] : 0)));
  return { p, kl: mean(p), reverse: -mean(q) };
}

function solve(instance, lam, place) {
  const { P, rho_sft, g, levels, pi_F, r_max, tv_rewrites, mixture } = instance;
  const beta = instance.betas[place];
  const average = (values) => sum(values.map((value, x) => P[x] * value));
  const dot = (a, b) => sum(a.map((value, i) => value * b[i]));
  const rho = rho_sft.map((row, x) => tilt(row, g[x], lam));
  const pi = pi_F.map((row) => tilt(row, levels, beta));
  const J_frozen = average(pi_F.map((row) => dot(row, levels)));
  const J_sft = average(rho_sft.map((row, x) => dot(row, g[x])));
  const J_prompter = average(rho.map((tilted, x) => dot(tilted.p, g[x])));
  const J_rlhf = average(pi.map((tilted) => dot(tilted.p, levels)));
  const kl = average(rho.map((tilted) => tilted.kl));
  const learned = lam * (kl + average(rho.map((tilted) => tilted.reverse)));
  const fine_tuned = beta * average(pi.map((tilted) => tilted.kl + tilted.reverse));
  const tv_rlhf = average(
    pi.map((tilted, x) => sum(tilted.p.map((mass, i) => Math.abs(mass - pi_F[x][i]))) / 2),
  );
  const terms = r_max * (tv_rlhf + tv_rewrites);
  const best = average(g.map((row, x) => Math.max(...row.filter((_, k) => rho_sft[x][k] > 0))));
  return {
    rho_star: rho.map((tilted) => tilted.p),
    J_frozen, J_sft, J_prompter, J_rlhf, kl, learned, fine_tuned,
    delta: J_rlhf - J_prompter,
    floor: J_rlhf - best,
    bound_mixture: mixture[place] - learned,
    bound_jeffreys: terms - learned,
    bound_paper: terms - lam * kl,
  };
}

const number = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(3);

function bar(share) {
  return element("span", { class: "explore-bar", style: `width: ${(6 * share).toFixed(3)}rem` });
}

function slider(id, label, leashes, at, changed) {
  const input = element("input", { type: "range", id, min: 0, max: leashes.length - 1, step: 1, value: at });
  const shown = element("output", { for: id });
  const tell = () => {
    const value = leashes[input.value];
    shown.textContent = value.toPrecision(3);
    input.setAttribute("aria-valuetext", value.toPrecision(3));
  };
  input.addEventListener("input", () => { tell(); changed(); });
  tell();
  return [input, element("p", {}, element("label", { for: id }, label), " ", input, " ", shown)];
}

// Where each pair of leashes puts the gap: blue where RLHF earns more, orange where prompting does.
function phases(canvas, instance, i, j) {
  const n = instance.betas.length, pen = canvas.getContext("2d");
  canvas.width = canvas.height = n;
  const prompter = instance.betas.map((lam) => solve(instance, lam, 0).J_prompter);
  const rlhf = instance.betas.map((_, place) => solve(instance, 1, place).J_rlhf);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < n; b++) {
      pen.fillStyle = rlhf[b] > prompter[a] ? "#56B4E9" : "#E69F00";
      pen.fillRect(a, n - 1 - b, 1, 1);
    }
  }
  pen.fillStyle = "#000000";
  pen.fillRect(i - 1, n - 1 - j, 3, 1);
  pen.fillRect(i, n - 2 - j, 1, 3);
}

function start(home, instances) {
  const [choice, choiceRow] = select("explore-instance", "instance", () => draw());
  fill(choice, instances.map((instance, i) => [i, instance.name]));
  const leashes = instances[0].betas;
  const shown = element("div", { "aria-live": "polite" });
  const canvas = element("canvas", { role: "img", class: "explore-phases" });
  const draw = () => {
    const instance = instances[choice.value], i = Number(lam.value), j = Number(beta.value);
    const at = solve(instance, leashes[i], j), lost = at.J_frozen - at.J_sft;
    const mean = (laws) => instance.rewrites.map((_, k) => sum(laws.map((law, x) => instance.P[x] * law[k])));
    const [before, after, g] = [instance.rho_sft, at.rho_star, instance.g].map(mean);
    phases(canvas, instance, i, j);
    const winner = at.delta > 0 ? "RLHF earns more" : "prompting earns as much or more";
    canvas.setAttribute("aria-label", `At these leashes ${winner}. Across: λ from ${leashes[0]} to `
      + `${leashes.at(-1)}. Upwards: β, the same. Blue: RLHF earns more. Orange: prompting does.`);
    shown.replaceChildren(
      table("Rewards and the gap", ["quantity", "value"], [
        ["frozen LLM, J(π_F)", number(at.J_frozen)],
        ["untrained prompter, J₀", number(at.J_sft)],
        ["optimal prompter, J_λ", number(at.J_prompter)],
        ["RLHF, J(π*)", number(at.J_rlhf)],
        ["the gap Δ = J(π*) − J_λ", `${number(at.delta)}: ${winner}`],
      ]),
      table("The gap's exact parts (C3)", ["part", "value"], [
        ["what fine-tuning gains, β Jeff(π*, π_F)", number(at.fine_tuned)],
        ["what untrained rewriting loses, J(π_F) − J₀", number(lost)],
        ["what learning to rewrite gains, λ Jeff(ρ*, ρ_sft)", number(at.learned)],
        ["first + second − third = Δ", number(at.fine_tuned + lost - at.learned)],
      ]),
      table("The chain of bounds: each line is at most the next", ["bound", "value"], [
        ["floor (C7)", number(at.floor)],
        ["the gap Δ", number(at.delta)],
        ["mixture bound", number(at.bound_mixture)],
        ["Jeffreys bound", number(at.bound_jeffreys)],
        ["the paper's Theorem 6.1", number(at.bound_paper)],
      ]),
      table(`Rewrites, averaged over prompts (KL ${number(at.kl)} nats)`, ["rewrite", "g", "ρ_sft", "", "ρ*", ""].map((h) => h || "share"),
        instance.rewrites.map((text, k) => [text, number(g[k]), number(before[k]), bar(before[k]), number(after[k]), bar(after[k])])),
    );
  };
  const [lam, lamRow] = slider("explore-lam", "λ, the prompter's leash", leashes, 31, () => draw());
  const [beta, betaRow] = slider("explore-beta", "β, the leash of RLHF", leashes, 43, () => draw());
  home.replaceChildren(
    choiceRow, lamRow, betaRow,
    element("figure", {}, canvas, element("figcaption", {}, "Across: λ from 0.01 to 10. Upwards: β, the "
      + "same. Blue: RLHF earns more. Orange: prompting does. The cross: these leashes.")),
    shown);
  draw();
  document.documentElement.classList.add("explore-on");
}

window.explore = { solve };
window.addEventListener("load", () => {
  const home = document.getElementById("explore");
  if (home && window.EXPLORE) start(home, window.EXPLORE);
});
