// What is wider than its place scrolls, and can be reached with the keyboard.
const reachable = () => {
  for (const box of document.querySelectorAll("main span.math, main div.math mjx-container, main .text_html")) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("wide", wide);
    if (wide) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
window.addEventListener("load", () => {
  const typeset = window.MathJax && MathJax.startup && MathJax.startup.promise;
  // The fonts of formulas arrive after them, and change their width.
  Promise.resolve(typeset).then(() => document.fonts.ready).then(() => setTimeout(reachable));
  window.addEventListener("resize", reachable);
});
