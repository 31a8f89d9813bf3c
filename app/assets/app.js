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

// Who is logged in, with a way out; without accounts there is nobody to name.
(() => {
  const ask = () => fetch("/api/access/me").then((answer) => (answer.ok ? answer.json() : {})).catch(() => ({}));
  const show = ({ name, accounts }) => {
    const place = accounts && document.querySelector("[data-user]:empty");
    if (!place) return;
    const form = Object.assign(document.createElement("form"), { method: "post", action: "/logout" });
    form.append(Object.assign(document.createElement("button"), { className: "o-theme", textContent: "Log out" }));
    place.append(name, form);
  };
  // The header comes when Gradio has started.
  const watch = (user) => new MutationObserver(() => show(user)).observe(document.body, { childList: true, subtree: true });
  const start = () => document.body.matches(".o-door") || ask().then((user) => { show(user); watch(user); });
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();
