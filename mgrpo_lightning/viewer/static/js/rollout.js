// Rollout: one rollout as a tree: turns, calls, sub-agents inside their call, coloured tokens, scores with reasons.
"use strict";

const MODES = ["kind", "log-prob", "ratio", "advantage"];
const LEGEND = {
  kind: [["action", "written by the agent"], ["observation", "shown to the agent"]],
  "log-prob": [[logprobColour(0), "log-prob 0"], [logprobColour(-2.5), ""], [logprobColour(-5), "log-prob -5 or less"]],
  ratio: [[ratioColour(0.3), "more likely after the update"], [ratioColour(-0.3), "less likely"]],
  advantage: [[advantageColour(2), "pushed up"], [advantageColour(-2), "pushed down"]],
};

const colourOf = (mode, trajectory, logprob, ratio) => {
  if (mode === "ratio") return ratio === null || ratio === undefined ? "" : ratioColour(ratio);
  if (mode === "log-prob") return logprob === null ? "" : logprobColour(logprob);
  return mode === "advantage" && trajectory.advantage ? advantageColour(trajectory.advantage) : "";
};

function Legend({ mode }) {
  return html`<p class=${`legend mode-${mode}`}>${LEGEND[mode].map(([colour, name]) => html`<span
    class=${mode === "kind" ? colour : ""} style=${mode === "kind" ? {} : { background: colour }}>${name || "\u2026"}</span> `)}</p>`;
}

function Tokens({ span, trajectory, mode }) {
  if (!span.tokens) return html`<${Text} text=${span.text} />`;
  return html`<span class="text" dir="auto">${span.tokens.map((token, i) => html`<span class="token"
    style=${{ background: colourOf(mode, trajectory, span.logprobs[i], span.ratios && span.ratios[i]) }}
    title=${`log-prob ${number(span.logprobs[i], 3)}${span.ratios ? `, log ratio ${number(span.ratios[i], 4)}` : ""}`}>${visible(token)}</span>`)}</span>`;
}

function Score({ trajectory }) {
  const { score } = trajectory;
  if (!score) return null;
  const parts = Object.entries(score.parts);
  return html`<span class="score"><b>${score.failed ? "undecided" : number(score.total)}</b>
    ${parts.length > 0 && html`<span class="quiet"> ${parts.map(([name, value]) => `${name} ${number(value)}`).join(", ")}</span>`}
    ${" "}<${Advantage} value=${trajectory.advantage} />
    ${trajectory.coefficient !== null && html` <span class="quiet" title="weight of its tokens in the role's loss">weight ${number(trajectory.coefficient, 4)}</span>`}</span>`;
}

function Reasons({ reasons }) {
  const sign = (holds) => (holds === null ? "?" : holds ? "\u2713" : "\u2717");
  return html`<ul class="reasons">${reasons.map((one) => html`<li class=${one.holds === null ? "quiet" : one.holds ? "good" : "bad"}>
    ${sign(one.holds)} <b>${one.name}</b> <${Text} text=${one.text} limit=${400} /></li>`)}</ul>`;
}

function CallLine({ call, byInvocation, mode, depth }) {
  const sub = call.invocation === null ? null : byInvocation.get(call.invocation);
  return html`<div class=${`call ${call.failed ? "failed" : ""}`}>
    <p><b>${line(call.name)}</b> <span class="quiet"><${Text} text=${JSON.stringify(call.arguments)} limit=${400} /></span>
      ${call.failed && html` <i class="mark bad">failed</i>`} <span class="quiet">${number(call.seconds)} s</span></p>
    ${sub && html`<${Trajectory} trajectory=${sub} byInvocation=${byInvocation} mode=${mode} depth=${depth + 1} />`}
    ${sub ? call.result !== sub.answer && html`<p class="came-back">returned: <${Text} text=${call.result} limit=${1000} /></p>`
      : html`<details class="result"><summary>${line(call.result, 120) || "empty"}</summary><${Text} text=${call.result} /></details>`}
  </div>`;
}

function Turn({ span, number: turn, trajectory, byInvocation, mode, depth }) {
  const calls = trajectory.calls.filter((call) => call.turn === turn);
  const stale = trajectory.spans.some((other) => other.action && other.version !== span.version);
  return html`<div class="turn"><div class="said">
      <span class="where">turn ${turn + 1}${stale ? ` of version ${span.version}` : ""}</span>
      ${span.truncated && html` <i class="mark bad">cut</i>`}
      <${Tokens} span=${span} trajectory=${trajectory} mode=${mode} /></div>
    ${calls.map((call) => html`<${CallLine} call=${call} byInvocation=${byInvocation} mode=${mode} depth=${depth} />`)}</div>`;
}

function Trajectory({ trajectory, byInvocation, mode, depth }) {
  const [open, setOpen] = useState(true);
  let turn = -1;
  return html`<section class=${`trajectory ${trajectory.parent === null ? "head" : "sub"}`} id=${`i${trajectory.invocation}`}>
    <header onClick=${() => setOpen(!open)}><button aria-expanded=${open}>${open ? "\u25be" : "\u25b8"}</button>
      <b>${trajectory.role}</b> <${Score} trajectory=${trajectory} />
      ${trajectory.versions.map((one) => html` <i class="mark bad" title="sampled with the adapter of another step">version ${one}</i>`)}
      ${trajectory.violations.map((one) => html` <i class="mark bad">${line(one)}</i>`)}</header>
    ${open && html`<div class="inside">
      ${trajectory.parent !== null && html`<p class="task">task: <${Text} text=${trajectory.task} /></p>`}
      ${trajectory.elsewhere && html`<p class="quiet">played by another process; the turns are in the journal of that role</p>`}
      ${trajectory.spans.map((span) => {
        if (span.action) {
          turn += 1;
          return html`<${Turn} span=${span} number=${turn} trajectory=${trajectory} byInvocation=${byInvocation} mode=${mode} depth=${depth} />`;
        }
        return html`<details class="seen"><summary>${turn < 0 ? "prompt" : "shown"}, ${span.count} tokens</summary><${Text} text=${span.text} /></details>`;
      })}
      <p class="answer">${trajectory.answer === null ? html`<i class="mark bad">no answer</i>` : html`answer: <b><${Text} text=${trajectory.answer} limit=${1000} /></b>`}</p>
      <${Reasons} reasons=${trajectory.reasons} /></div>`}
  </section>`;
}

function Rollout({ index, row, listed, mode, setMode }) {
  const place = listed.indexOf(row);
  const play = index.plays[index.columns.play[row]];
  return html`<${Loaded} row=${row}>${(group) => {
    const rollout = group.rollouts[index.columns.k[row]];
    const byInvocation = new Map(rollout.map((trajectory) => [trajectory.invocation, trajectory]));
    return html`<main class=${`rollout mode-${mode}`}><nav class="place">
        <a href=${addressOf("group", row)}>group of query ${index.columns.query[row]}</a>
        <span>${stageOf(play)}, step ${play.step}, rollout ${index.columns.k[row]}</span>
        <${Marks} marks=${index.columns.marks[row]} />
        <span class="quiet">${place < 0 ? "" : `${place + 1} of ${listed.length} listed`}</span>
        <span class="modes">colour ${MODES.map((one) => html`<button class=${one === mode ? "on" : ""} aria-pressed=${one === mode} onClick=${() => setMode(one)}>${one}</button>`)}</span></nav>
      <${Legend} mode=${mode} />
      <${Question} question=${group.question} />
      ${rollout.filter((one) => one.parent === null).map((one) => html`<${Trajectory} key=${`${row} ${one.invocation}`} trajectory=${one} byInvocation=${byInvocation} mode=${mode} depth=${0} />`)}
    </main>`;
  }}<//>`;
}
