// List: a table of all rollouts with filters, sorting and search; only the rows in sight are in the page.
"use strict";

const ROW = 30;
const COLUMNS = [["run", "run"], ["stage", ""], ["step", "step"], ["level", ""], ["question", ""], ["answer", ""],
  ["reward", "reward"], ["calls", "calls"], ["tokens", "tokens"], ["marks", "marks"]];

function Marks({ marks }) {
  return html`${marks & TRUNCATED ? html`<i class="mark" title="a limit cut off a turn">cut</i>` : null}
    ${marks & INVALID ? html`<i class="mark bad" title="a trajectory broke a rule of the protocol">rule</i>` : null}
    ${marks & FAILED ? html`<i class="mark" title="a reward is undecided">?</i>` : null}`;
}

function Choice({ name, value, options, change }) {
  return html`<label>${name}<select name=${name} value=${value} onChange=${(event) => change(event.target.value)}>
    <option value="">all</option>${options.map(([key, label]) => html`<option value=${key}>${label}</option>`)}</select></label>`;
}

function Filters({ index, filter, setFilter, progress, deepSearch }) {
  const set = (key) => (value) => setFilter({ ...filter, [key]: value });
  const field = (key, name, size) => html`<label>${name}<input name=${key} size=${size} inputmode="decimal" value=${filter[key]}
    onInput=${(event) => set(key)(event.target.value)} /></label>`;
  return html`<form class="filters" onSubmit=${(event) => { event.preventDefault(); deepSearch(); }}>
    ${index.runs.length > 1 && html`<${Choice} name="run" value=${filter.run} change=${set("run")}
      options=${index.runs.map((run, i) => [String(i), run.name])} />`}
    <${Choice} name="stage" value=${filter.stage} change=${set("stage")} options=${index.stages.map((one) => [one, one])} />
    <${Choice} name="level" value=${filter.level} change=${set("level")} options=${index.levels.map((one) => [one, line(one)])} />
    <${Choice} name="role" value=${filter.role} change=${set("role")} options=${index.roles.map((one) => [one, one])} />
    ${field("low", "reward from", 4)}${field("high", "to", 4)}${field("calls", "calls", 3)}
    <${Choice} name="marked" value=${filter.mark} change=${set("mark")}
      options=${[["truncated", "truncated"], ["invalid", "broken rule"], ["undecided", "undecided"]]} />
    <label class="search">text<input name="text" type="search" id="search" value=${filter.text} placeholder="in questions and answers"
      onInput=${(event) => set("text")(event.target.value)} /></label>
    <button type="submit" title="search in everything that agents wrote and saw">search all texts</button>
    <span class="quiet">${progress}</span></form>`;
}

function List({ index, filter, setFilter, setListed, deep, setDeep }) {
  const [progress, setProgress] = useState("");
  const [top, setTop] = useState(0);
  const box = useRef(null);
  const generation = useRef(0);
  useEffect(() => { generation.current += 1; setProgress(""); }, [filter.text]);
  useEffect(() => () => { generation.current += 1; }, []);
  const rows = useMemo(() => mgrpo.filtered(filter, deep), [filter, deep, index]);
  useEffect(() => setListed(rows), [rows]);
  const deepSearch = async () => {
    const mine = ++generation.current, seen = new Set();
    const among = mgrpo.filtered({ ...filter, text: "" }, null);
    const said = (done) => {
      if (mine !== generation.current) return;
      setProgress(`${done.toLocaleString()} of ${among.length.toLocaleString()} searched`);
      setDeep({ text: filter.text, found: new Set(seen) });
    };
    if (!filter.text) return;
    if (mgrpo.index.live) setProgress("searching \u2026");
    await mgrpo.search(filter.text, among, seen, said, () => mine !== generation.current)
      .catch(() => mine === generation.current && setProgress("the search got no answer; check that mgrpo view still runs"));
  };
  const height = box.current ? box.current.clientHeight : 800;
  const first = Math.max(0, Math.floor(top / ROW) - 10), last = Math.min(rows.length, first + Math.ceil(height / ROW) + 20);
  const sort = (key) => key && setFilter({ ...filter, sort: key, down: filter.sort === key && !filter.down ? "1" : "" });
  const rewards = filter.role ? index.columns[`reward/${filter.role}`] : index.columns.reward;
  const head = COLUMNS.map(([name, key]) => html`<span class=${`c-${name}`}>${key
    ? html`<button onClick=${() => sort(key)}>${name}${filter.sort === key ? (filter.down ? " \u2193" : " \u2191") : ""}</button>` : name}</span>`);
  return html`<main class="list"><${Filters} index=${index} filter=${filter} setFilter=${setFilter} deepSearch=${deepSearch}
      progress=${progress || `${rows.length.toLocaleString()} of ${index.count.toLocaleString()} rollouts`} />
    <div class="row head">${head}</div>
    <div class="rows" ref=${box} onScroll=${(event) => setTop(event.target.scrollTop)}>
      <div class="all" style=${{ height: `${rows.length * ROW}px` }}>${rows.slice(first, last).map((row, i) => {
        const play = index.plays[index.columns.play[row]], question = index.questions[index.columns.question[row]];
        return html`<a class="row" key=${row} href=${addressOf("rollout", row)} style=${{ top: `${(first + i) * ROW}px` }}>
          <span class="c-run">${index.runs[index.columns.run[row]].name}</span><span class="c-stage">${stageOf(play)}</span>
          <span class="c-step">${play.step}</span><span class="c-level">${line(question.level)}</span>
          <span class="c-question">${line(question.text)}</span><span class="c-answer">${line(index.columns.answer[row])}</span>
          <span class="c-reward">${number(rewards[row])}</span><span class="c-calls">${index.columns.calls[row]}</span>
          <span class="c-tokens">${index.columns.tokens[row]}</span><span class="c-marks"><${Marks} marks=${index.columns.marks[row]} /></span></a>`;
      })}</div></div></main>`;
}
