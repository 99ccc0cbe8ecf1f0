// Group: the K rollouts of one query side by side: answers, rewards, advantages, broken rules; loads a group's data.
"use strict";

function Loaded({ row, children }) {
  const [state, setState] = useState({ row: -1 });
  useEffect(() => {
    let here = true;
    mgrpo.loadGroup(row).then((group) => here && setState({ row, group }), (error) => here && setState({ row, error }));
    return () => { here = false; };
  }, [row, mgrpo.index]);
  if (state.row !== row) return html`<main><p class="quiet">loading \u2026</p></main>`;
  if (state.error) return html`<main><p class="bad">${state.error.message}. Check that the run's journal still exists.</p></main>`;
  if (state.group.problem) return html`<main><p class="bad"><${Text} text=${state.group.problem} /></p></main>`;
  return children(state.group);
}

function Question({ question }) {
  return html`<section class="question"><h1><${Text} text=${question.text} /></h1>
    <p>${question.level && html`<i class="mark">${line(question.level)}</i> `}accepted:${" "}
    ${question.answers.map((one, i) => html`${i ? ", " : ""}<b><${Text} text=${one} limit=${300} /></b>`)}</p></section>`;
}

function Group({ index, row }) {
  const { columns } = index;
  const members = [];
  for (let i = row; i < index.count && columns.query[i] === columns.query[row] && columns.play[i] === columns.play[row]
    && columns.run[i] === columns.run[row]; i += 1) members.push(i);
  return html`<${Loaded} row=${row}>${(group) => html`<main class="group"><${Question} question=${group.question} />
    <section class="columns">${group.rollouts.map((rollout, k) => html`<article class="one">
      <h3><a href=${addressOf("rollout", members[k])}>rollout ${k}</a> <${Marks} marks=${columns.marks[members[k]]} /></h3>
      ${rollout.map((t) => html`<div class=${`brief ${t.parent === null ? "head" : "sub"}`}>
        <p><b>${t.role}</b> reward ${number(t.score && t.score.total)} <${Advantage} value=${t.advantage} /></p>
        ${t.parent !== null && html`<p class="quiet">${line(t.task, 200)}</p>`}
        <p>${t.answer === null ? html`<i class="mark bad">no answer</i>` : html`\u2192 ${line(t.answer, 200)}`}</p>
        ${t.violations.map((one) => html`<i class="mark bad">${line(one)}</i>`)}</div>`)}
    </article>`)}</section></main>`}<//>`;
}

function Advantage({ value }) {
  if (value === null) return null;
  return html`<i class=${`advantage ${value > 0 ? "up" : value < 0 ? "down" : ""}`} title="advantage in its group">A ${value > 0 ? "+" : ""}${number(value)}</i>`;
}
