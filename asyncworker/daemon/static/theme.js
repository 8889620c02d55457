// Sets the theme before anything is painted: what was chosen here, else what the system prefers.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("asyncworker-theme"); } catch { /* storage may be off */ }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    document.documentElement.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    document.dispatchEvent(new Event("asyncworker:theme"));
  };
  document.documentElement.classList.add("js");
  show();
  dark.addEventListener("change", show);
  window.toggleTheme = () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("asyncworker-theme", chosen); } catch { /* then it holds for this page */ }
    show();
  };
})();
