// Light and dark: the choice is kept in this browser; without one the system's decides.
(() => {
  const dark = () => {
    const kept = localStorage.getItem("opadpo-theme");
    return kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const apply = () => document.body && document.body.classList.toggle("dark", dark());
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-switch]")) return;
    localStorage.setItem("opadpo-theme", dark() ? "light" : "dark");
    apply();
  });
  const start = () => {
    apply();
    new MutationObserver(() => document.body.classList.contains("dark") !== dark() && apply())
      .observe(document.body, { attributes: true, attributeFilter: ["class"] });
  };
  // Gradio may put this script in when the page has long been read.
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();
