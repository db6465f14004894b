// What scrolls sideways can be reached with the keyboard.
const reachable = () => {
  for (const box of document.querySelectorAll("main span.math, main div.math mjx-container, main .text_html")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  }
};
window.addEventListener("load", () => {
  const typeset = window.MathJax && MathJax.startup && MathJax.startup.promise;
  Promise.resolve(typeset).then(reachable);
  window.addEventListener("resize", reachable);
});
