// One rollout as the tree it is: main's turns, each invocation folded in where it happened, every token to be coloured.
"use strict";

const MODES = ["kind", "log-prob", "ratio", "advantage"];

// A colour for a token: how surprising it was, how far the adapter had moved from the one that sampled it, or which way
// its trajectory's advantage pushes it.
const colourOf = (mode, trajectory, logprob, ratio) => {
  if (mode === "ratio") {
    if (ratio === null || ratio === undefined) return "";
    return `hsl(${ratio > 0 ? 210 : 30} 75% 50% / ${Math.min(0.6, Math.abs(ratio) * 2)})`;
  }
  if (mode === "log-prob") {
    if (logprob === null) return "";
    const surprise = Math.min(1, -logprob / 5);
    return `hsl(${130 - 130 * surprise} 70% 50% / ${0.12 + 0.45 * surprise})`;
  }
  if (mode === "advantage" && trajectory.advantage) {
    const strength = Math.min(1, Math.abs(trajectory.advantage) / 2);
    return `hsl(${trajectory.advantage > 0 ? 140 : 0} 65% 50% / ${0.1 + 0.4 * strength})`;
  }
  return "";
};

function Tokens({ span, trajectory, mode }) {
  if (!span.tokens) return html`<${Text} text=${span.text} />`;
  return html`<span class="text" dir="auto">${span.tokens.map((token, i) => html`<span class="token"
    style=${{ background: colourOf(mode, trajectory, span.logprobs[i], span.ratios && span.ratios[i]) }}
    title=${`log-prob ${number(span.logprobs[i], 3)}${span.ratios ? `, log ratio ${number(span.ratios[i], 4)}` : ""}`}>${visible(token)}</span>`)}</span>`;
}

function Score({ trajectory }) {
  const { score } = trajectory;
  if (!score) return null;
  const parts = ["format", "correct", "correct_main", "expert"].filter((name) => score[name]);
  return html`<span class="score"><b>${score.failed ? "not decided" : number(score.total)}</b>
    ${parts.length > 0 && html`<span class="quiet"> ${parts.map((name) => `${name} ${number(score[name])}`).join(", ")}</span>`}
    ${" "}<${Advantage} value=${trajectory.advantage} /></span>`;
}

function Reasons({ reasons }) {
  return html`<ul class="reasons">${reasons.map((one) => html`<li class=${one.holds ? "good" : "bad"}>
    ${one.holds ? "\u2713" : "\u2717"} <b>${one.name}</b> <${Text} text=${one.text} limit=${400} /></li>`)}</ul>`;
}

function CallLine({ call, byInvocation, mode, depth }) {
  const sub = call.invocation === null ? null : byInvocation.get(call.invocation);
  return html`<div class=${`call ${call.failed ? "failed" : ""}`}>
    <p><b>${line(call.name)}</b> <span class="quiet"><${Text} text=${JSON.stringify(call.arguments)} limit=${400} /></span>
      ${call.failed && html` <i class="mark bad">failed</i>`} <span class="quiet">${number(call.seconds)} s</span></p>
    ${sub ? html`<${Trajectory} trajectory=${sub} byInvocation=${byInvocation} mode=${mode} depth=${depth + 1} />`
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
      ${trajectory.violations.map((one) => html` <i class="mark bad">${line(one)}</i>`)}</header>
    ${open && html`<div class="inside">
      ${trajectory.parent !== null && html`<p class="task">asked: <${Text} text=${trajectory.task} /></p>`}
      ${trajectory.elsewhere && html`<p class="quiet">played by another process; its turns are in that role's journal</p>`}
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
    return html`<main class="rollout"><nav class="place">
        <a href=${addressOf("group", row)}>group of query ${index.columns.query[row]}</a>
        <span>${stageOf(play)}, step ${play.step}, rollout ${index.columns.k[row]}</span>
        <${Marks} marks=${index.columns.marks[row]} />
        <span class="quiet">${place < 0 ? "" : `${place + 1} of ${listed.length} listed`}</span>
        <span class="modes">colour ${MODES.map((one) => html`<button class=${one === mode ? "on" : ""} onClick=${() => setMode(one)}>${one}</button>`)}</span></nav>
      <${Question} question=${group.question} />
      ${rollout.filter((one) => one.parent === null).map((one) => html`<${Trajectory} key=${`${row} ${one.invocation}`} trajectory=${one} byInvocation=${byInvocation} mode=${mode} depth=${0} />`)}
    </main>`;
  }}<//>`;
}
