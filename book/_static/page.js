// What the interactive pages share: elements whose children are texts, never HTML.
"use strict";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function table(caption, heads, rows) {
  const made = element("table", { class: "table" }, element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads.map((h) => element("th", { scope: "col" }, h)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell, i) =>
      element(i ? "td" : "th", i ? {} : { scope: "row" }, cell))))));
  return element("div", { class: "pst-scrollable-table-container", tabindex: 0 }, made);
}

function select(id, label, changed) {
  const choice = element("select", { id });
  choice.addEventListener("change", changed);
  return [choice, element("p", {}, element("label", { for: id }, label), " ", choice)];
}

function fill(choice, options) {
  choice.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
}
