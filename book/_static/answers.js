// Shows one kept answer beside the answer without a prompter, with the terms of its reward.
"use strict";

const BEFORE = "No Fine-Tuning";

function startAnswers(home, data) {
  const shown = element("div", { "aria-live": "polite" });
  const draw = () => {
    const { prompts, answers } = data[dataset.value];
    const sides = [BEFORE, configuration.value];
    const [before, after] = sides.map((name) => answers[name][prompt.value]);
    const both = (label, tell) => [label, tell(before), tell(after)];
    const digits = (place) => (answer) => answer[place].toFixed(2);
    shown.replaceChildren(table(prompts[prompt.value][1], ["", ...sides].map((h) => h || "what"), [
      both("sent to the frozen LLM", (answer) => answer[0]),
      both("answer", (answer) => answer[1]),
      both("ended", (answer) => (answer[2] ? "by itself" : "cut at the limit")),
      both("relevance", digits(3)),
      both("form", digits(4)),
      both("no repetition", digits(5)),
      both("reward", digits(6)),
    ]));
  };
  const list = () => {
    const { prompts, answers } = data[dataset.value];
    fill(prompt, prompts.map(([of, text], i) => [i, of, text]).filter(([, of]) => of === kind.value)
      .map(([i, , text]) => [i, text]));
    const names = Object.keys(answers).filter((name) => name !== BEFORE);
    const before = configuration.value;
    fill(configuration, names.map((name) => [name, name]));
    configuration.value = names.includes(before) ? before : names.includes("Align-Pro") ? "Align-Pro" : names[0];
    draw();
  };
  const [dataset, datasetRow] = select("answers-dataset", "dataset", list);
  const [kind, kindRow] = select("answers-kind", "kind of question", list);
  const [prompt, promptRow] = select("answers-prompt", "prompt", draw);
  const [configuration, configurationRow] = select("answers-configuration", "compare with", draw);
  fill(dataset, Object.keys(data).map((name) => [name, name]));
  fill(kind, [...new Set(Object.values(data).flatMap((part) => part.prompts.map(([of]) => of)))]
    .map((name) => [name, name]));
  home.replaceChildren(datasetRow, kindRow, promptRow, configurationRow, shown);
  list();
}

window.addEventListener("load", () => {
  const home = document.getElementById("answers");
  if (home && window.ANSWERS) startAnswers(home, window.ANSWERS);
});
