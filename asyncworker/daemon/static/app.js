// What all pages share: menu, theme, pause of updates, messages, selection, focus.

const root = document.documentElement;
const find = (selector) => document.querySelector(selector);

const kept = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* then it holds for this page */ } },
};

// --- the frame

const menu = find("#menu");
menu?.addEventListener("click", () => {
  const open = find(".rail").classList.toggle("open");
  menu.setAttribute("aria-expanded", String(open));
});

find("#theme")?.addEventListener("click", () => { window.toggleTheme(); });

const pause = find("#pause");
let paused = kept.get("asyncworker-paused") === "yes";

function showPaused() {
  pause?.setAttribute("aria-pressed", String(paused));
}

pause?.addEventListener("click", () => {
  paused = !paused;
  kept.set("asyncworker-paused", paused ? "yes" : "no");
  showPaused();
});
showPaused();

// --- messages: two live regions that are there from the start

function say(where, text) {
  const region = find(where);
  if (!region || region.textContent.trim() === text) return;
  region.replaceChildren();
  if (!text) return;
  const line = document.createElement("p");
  line.className = where === "#wrong" ? "wrong" : "done";
  line.textContent = text;
  region.append(line);
}

const AWAY = "The daemon does not answer. What you see may be old; the page goes on trying.";

document.addEventListener("htmx:before:request", (event) => {
  const { ctx } = event.detail;
  if (ctx.sourceEvent?.type !== "every") {
    say("#done", "");
    say("#wrong", "");
  } else if (paused || document.hidden) event.preventDefault();
});

document.addEventListener("htmx:error", () => say("#wrong", AWAY));

document.addEventListener("htmx:before:response", () => {
  if (find("#wrong")?.textContent.trim() === AWAY) say("#wrong", "");
});

document.addEventListener("htmx:after:request", (event) => {
  const { ctx } = event.detail;
  const { status, headers } = ctx.response;
  if (status < 400) return;
  if (ctx.sourceEvent?.type === "every" || !headers.get("content-type")?.startsWith("text/html")) {
    event.preventDefault();
    const why = { 401: "Sign in again.", 403: "You may not do that.", 429: "Too many requests; wait a moment." }[status];
    say("#wrong", why || `The daemon could not answer (${status}).`);
  }
});

document.addEventListener("htmx:after:swap", (event) => {
  const { ctx } = event.detail;
  if (ctx.sourceEvent?.type === "every") {
    announce();
    return;
  }
  const asked = find("#page [data-focus]");
  if (asked) {
    asked.focus();
    asked.select();
  } else if (document.activeElement === document.body) find("#page h1")?.focus();
});

// --- one sentence of news now and then, for those who do not see the page change

const NEWS_MS = 30000;
let told = performance.now();
let news = find("#live")?.querySelector("[data-news]")?.dataset.news;

function announce() {
  const now = find("#live")?.querySelector("[data-news]")?.dataset.news;
  if (now && now !== news && performance.now() - told >= NEWS_MS) {
    news = now;
    told = performance.now();
    find("#news").textContent = now;
  }
}

// --- tables: choose rows, and say how many

function count() {
  const all = find("#all");
  if (!all) return;
  const rows = [...document.querySelectorAll("input[type=checkbox][name=id]")];
  const chosen = rows.filter((row) => row.checked).length;
  all.checked = rows.length > 0 && chosen === rows.length;
  all.indeterminate = chosen > 0 && chosen < rows.length;
  const counted = find("#chosen");
  if (counted) counted.textContent = chosen ? `${chosen} chosen` : "None chosen";
}

document.addEventListener("change", (event) => {
  if (event.target.id === "all") {
    for (const row of document.querySelectorAll("input[type=checkbox][name=id]")) row.checked = event.target.checked;
  }
  count();
});
document.addEventListener("htmx:after:swap", count);
count();

root.classList.add("ready");
