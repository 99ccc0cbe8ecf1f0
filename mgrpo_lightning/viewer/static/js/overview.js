// Overview, the first page: counts of rollouts, held-out accuracy by level, charts of training metrics, problems.
"use strict";

// "main/reward" belongs to the chart "reward" with the line "main"; the team's own figures have a chart each.
const chartsOf = ({ curves, runs }) => {
  const charts = new Map();
  for (const { run, name, points } of curves) {
    const cut = name.indexOf("/");
    const [title, label] = cut < 0 ? [name, "team"] : [name.slice(cut + 1), name.slice(0, cut)];
    if (!charts.has(title)) charts.set(title, []);
    charts.get(title).push({ name: runs.length > 1 ? `${runs[run].name} ${label}` : label, points });
  }
  return [...charts.entries()];
};

function HeldOut({ index }) {
  if (!index.held_out.length) return html`<p class="quiet">No held-out questions have been played yet.</p>`;
  const levels = [...new Set(index.held_out.flatMap((one) => Object.keys(one.levels)))].sort();
  const share = (entries) => {
    const total = entries.reduce((sum, one) => sum + one.rollouts - one.undecided, 0);
    return total ? percent(entries.reduce((sum, one) => sum + one.right, 0) / total) : "\u2013";
  };
  return html`<table class="figures"><thead><tr><th>run</th><th>asked by</th><th>step</th><th>rollouts</th>
    ${levels.map((level) => html`<th>${line(level) || "right"}</th>`)}${levels.length > 1 && html`<th>all</th>`}</tr></thead>
    <tbody>${index.held_out.map((one) => {
      const play = index.plays[one.play], entries = Object.values(one.levels);
      const address = `#/list?run=${one.run}&stage=${encodeURIComponent(stageOf(play))}`;
      return html`<tr><td>${index.runs[one.run].name}</td><td><a href=${address}>${stageOf(play)}</a></td><td>${play.step}</td>
        <td>${entries.reduce((sum, entry) => sum + entry.rollouts, 0)}</td>
        ${levels.map((level) => html`<td>${one.levels[level] ? share([one.levels[level]]) : "\u2013"}</td>`)}
        ${levels.length > 1 && html`<td><b>${share(entries)}</b></td>`}</tr>`;
    })}</tbody></table>`;
}

function Overview({ index, theme }) {
  const charts = useMemo(() => chartsOf(index), [index]);
  const steps = index.plays.filter((play) => play.stage === "step").length;
  const marked = (mark) => index.columns.marks.filter((marks) => marks & mark).length;
  const cards = [
    ["rollouts", index.count, "#/list"], ["training steps", steps, "#/list?stage=train"],
    ["with a truncated turn", marked(TRUNCATED), "#/list?mark=truncated"],
    ["with a broken rule", marked(INVALID), "#/list?mark=invalid"],
    ["undecided", marked(FAILED), "#/list?mark=undecided"],
  ];
  return html`<main class="overview">
    ${index.problems.map(({ run, text }) => html`<p class="bad"><b>${index.runs[run].name}</b>: <${Text} text=${text} /></p>`)}
    <section class="cards">${cards.map(([name, value, address]) => html`<a class="card" href=${address}>
      <b>${value.toLocaleString()}</b><span>${name}</span></a>`)}</section>
    <h2>Held out</h2><${HeldOut} index=${index} />
    <h2>Training</h2>
    <section class="charts">${charts.map(([title, lines]) => html`<${Chart} key=${title} title=${title} lines=${lines} theme=${theme} />`)}</section>
  </main>`;
}
