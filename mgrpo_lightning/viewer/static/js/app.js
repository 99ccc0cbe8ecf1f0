// App: addresses (#/...) and their views, keyboard keys, light or dark, and polling for a live run's new steps.
"use strict";

const POLL = 2000;
const KEYS = [["j or \u2192", "next rollout"], ["k or \u2190", "previous rollout"], ["g", "its group"], ["l", "list"], ["o", "overview"],
  ["/", "search"], ["c", "colour of tokens"], ["t", "light or dark"], ["?", "show or hide this list"]];

const decoded = (text) => { try { return decodeURI(text); } catch { return text; } };

const parseAddress = () => {
  const [path, query = ""] = decoded(location.hash.replace(/^#\/?/, "")).split("?");
  const [kind = "", ...place] = path.split("/");
  return { kind, place, filter: { ...NO_FILTER, ...Object.fromEntries([...new URLSearchParams(query)].filter(([key]) => key in NO_FILTER)) } };
};

const filterAddress = (filter) => {
  const given = Object.entries(filter).filter(([, value]) => value !== "");
  return `#/list${given.length ? `?${new URLSearchParams(given)}` : ""}`;
};

function App() {
  const [index, setIndex] = useState(null);
  const [problem, setProblem] = useState("");
  const [address, setAddress] = useState(parseAddress());
  const [listed, setListed] = useState([]);
  const [lastList, setLastList] = useState("#/list");
  const [deep, setDeep] = useState(null);
  const shown = useRef({ filter: NO_FILTER, deep: null });
  const [mode, setMode] = useState(MODES[0]);
  const [theme, setTheme] = useState("");
  const [help, setHelp] = useState(false);

  useEffect(() => {
    const changed = () => setAddress(parseAddress());
    addEventListener("hashchange", changed);
    const reload = () => mgrpo.loadIndex().then((found) => {
      setIndex(found);
      setListed(mgrpo.filtered(shown.current.filter, shown.current.deep));
      return found;
    });
    let timer = 0;
    reload().then((found) => {
      if (!found.live) return;
      timer = setInterval(async () => {
        const state = await mgrpo.load("state", `?${Date.now()}`).catch(() => null);
        setProblem(state ? "" : "mgrpo view has stopped; this page shows the last data that it received.");
        if (state && state.version !== mgrpo.index.version) reload();
      }, POLL);
    }, (error) => setProblem(error.message));
    return () => { removeEventListener("hashchange", changed); clearInterval(timer); };
  }, []);
  useEffect(() => { document.documentElement.dataset.theme = theme; }, [theme]);
  useEffect(() => {
    if (address.kind === "list") setLastList(filterAddress(address.filter)); else scrollTo(0, 0);
    shown.current = { filter: address.kind === "list" ? address.filter : shown.current.filter, deep };
  }, [address, deep]);

  const row = index && ["rollout", "group"].includes(address.kind) ? rowOf(address.place) : -1;
  const turnTheme = () => setTheme((theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark" ? "light" : "dark");
  useEffect(() => {
    const go = (distance) => {
      if (!listed.length) return;
      const here = listed.indexOf(row), next = here < 0 ? 0 : Math.min(listed.length - 1, Math.max(0, here + distance));
      location.hash = addressOf("rollout", listed[next]);
    };
    const actions = {
      j: () => go(1), ArrowRight: () => go(1), k: () => go(-1), ArrowLeft: () => go(-1),
      g: () => { if (row >= 0) location.hash = addressOf("group", row); },
      l: () => { location.hash = lastList; }, o: () => { location.hash = "#/"; }, t: turnTheme,
      c: () => setMode(MODES[(MODES.indexOf(mode) + 1) % MODES.length]), "?": () => setHelp(!help), Escape: () => setHelp(false),
      "/": () => { location.hash = lastList; setTimeout(() => document.getElementById("search")?.focus(), 60); },
    };
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      if (event.key in actions) { event.preventDefault(); actions[event.key](); }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  if (!index) return html`<main><p class=${problem ? "bad" : "quiet"}>${problem || "loading \u2026"}</p></main>`;
  const setFilter = (filter) => { history.replaceState(null, "", filterAddress(filter)); setAddress({ kind: "list", place: [], filter }); };
  let body = html`<${Overview} index=${index} theme=${theme} />`;
  if (address.kind === "list") body = html`<${List} index=${index} filter=${address.filter} setFilter=${setFilter} setListed=${setListed} deep=${deep} setDeep=${setDeep} />`;
  if (row >= 0) body = address.kind === "group" ? html`<${Group} index=${index} row=${row} />`
    : html`<${Rollout} index=${index} row=${row} listed=${listed} mode=${mode} setMode=${setMode} />`;
  if (row < 0 && ["rollout", "group"].includes(address.kind)) body = html`<main><p class="bad">The runs of this page have no such rollout.</p></main>`;
  return html`<header class="top"><a href="#/"><b>mgrpo</b></a><a href=${lastList}>rollouts</a>
      <span class="quiet">${index.runs.map((run) => run.name).join(", ")}${index.live ? " (live)" : ""}</span>
      ${problem && html`<span class="bad">${problem}</span>`}
      <span class="right"><button onClick=${turnTheme} title="t">light / dark</button><button onClick=${() => setHelp(!help)} title="?">keys</button></span></header>
    ${help && html`<aside class="help"><table>${KEYS.map(([key, name]) => html`<tr><td><kbd>${key}</kbd></td><td>${name}</td></tr>`)}</table></aside>`}
    ${body}`;
}

preact.render(html`<${App} />`, document.getElementById("app"));
