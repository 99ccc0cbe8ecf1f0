// Data of the page: loaded index and groups, addresses of rollouts, filter and sorting, search in all texts.
"use strict";

const mgrpo = { waiting: new Map(), groups: new Map(), index: null };
const html = htm.bind(preact.h);
const { useEffect, useMemo, useRef, useState } = preactHooks;

const TRUNCATED = 1, INVALID = 2, FAILED = 4;

// Data comes as scripts that call this, because a page from a disk may not fetch its neighbours.
mgrpo.receive = (name, value) => {
  const settle = mgrpo.waiting.get(name);
  mgrpo.waiting.delete(name);
  if (settle) settle.resolve(value);
};

mgrpo.load = (name, query = "") => new Promise((resolve, reject) => {
  const script = document.createElement("script");
  const failed = () => { mgrpo.waiting.delete(name); reject(new Error(`${name} cannot be loaded`)); };
  mgrpo.waiting.set(name, { resolve, reject });
  script.src = `data/${name}.js${query}`;
  script.onload = () => { script.remove(); if (mgrpo.waiting.has(name)) failed(); };
  script.onerror = () => { script.remove(); failed(); };
  document.head.append(script);
});

mgrpo.loadIndex = async () => {
  const index = await mgrpo.load("index", `?${Date.now()}`);
  const { columns, plays, questions } = index;
  index.count = columns.run.length;
  index.roles = Object.keys(columns).filter((name) => name.startsWith("reward/")).map((name) => name.slice(7));
  index.levels = [...new Set(questions.map((question) => question.level))].sort();
  index.stages = [...new Set(plays.map((play) => stageOf(play)))];
  index.questionTexts = questions.map((question) => question.text.toLowerCase());
  mgrpo.index = index;
  mgrpo.groups.clear();
  return index;
};

const stageOf = (play) => (play.stage === "step" ? "train" : play.command === "fit" ? "validation" : play.command);

mgrpo.loadGroup = (row, index = mgrpo.index) => {
  const { columns, plays } = index;
  const name = `${columns.run[row]}/${plays[columns.play[row]].slug}/${columns.query[row]}`;
  if (!mgrpo.groups.has(name)) {
    if (mgrpo.groups.size > 64) mgrpo.groups.delete(mgrpo.groups.keys().next().value);
    const found = mgrpo.load(name, index.live ? `?${index.version}` : "");
    found.catch(() => mgrpo.groups.delete(name));
    mgrpo.groups.set(name, found);
  }
  return mgrpo.groups.get(name);
};

// Addresses: #/list?level=2+hops, #/rollout/RUN/PLAY/QUERY/K, #/group/RUN/PLAY/QUERY
const addressOf = (kind, row, index = mgrpo.index) => {
  const { columns, plays } = index;
  const place = [columns.run[row], plays[columns.play[row]].slug, columns.query[row]];
  return `#/${[kind, ...place, ...(kind === "rollout" ? [columns.k[row]] : [])].join("/")}`;
};

const rowOf = ([run, slug, query, k = "0"]) => {
  const { columns, plays, count } = mgrpo.index;
  for (let row = 0; row < count; row += 1) {
    if (String(columns.run[row]) === run && String(columns.query[row]) === query && String(columns.k[row]) === k
      && plays[columns.play[row]].slug === slug) return row;
  }
  return -1;
};

const NO_FILTER = { run: "", stage: "", level: "", role: "", mark: "", low: "", high: "", calls: "", text: "", sort: "", down: "" };

// Indices of the rollouts that a filter lets through, in the order that it asks for. `deep` is what a search in all texts
// has found: its text, and the addresses, which stay what they are when new steps move the rows.
mgrpo.filtered = (filter, deep) => {
  const { columns, plays, questions, questionTexts, count } = mgrpo.index;
  const rewards = filter.role ? columns[`reward/${filter.role}`] : columns.reward;
  const mark = { truncated: TRUNCATED, invalid: INVALID, undecided: FAILED }[filter.mark];
  const low = filter.low === "" ? -Infinity : Number(filter.low), high = filter.high === "" ? Infinity : Number(filter.high);
  const calls = filter.calls === "" ? null : Number(filter.calls);
  const text = filter.text.toLowerCase();
  const found = deep && deep.text === filter.text ? deep.found : null;
  const kept = [];
  for (let row = 0; row < count; row += 1) {
    const reward = rewards[row];
    if (filter.run !== "" && columns.run[row] !== Number(filter.run)) continue;
    if (filter.stage && stageOf(plays[columns.play[row]]) !== filter.stage) continue;
    if (filter.level && questions[columns.question[row]].level !== filter.level) continue;
    if (filter.role && reward === null) continue;
    if (mark && !(columns.marks[row] & mark)) continue;
    if ((filter.low !== "" || filter.high !== "") && (reward === null || reward < low || reward > high)) continue;
    if (calls !== null && columns.calls[row] !== calls) continue;
    if (text && !(found ? found.has(addressOf("rollout", row)) : questionTexts[columns.question[row]].includes(text)
      || (columns.answer[row] || "").toLowerCase().includes(text))) continue;
    kept.push(row);
  }
  if (filter.sort) {
    const values = filter.sort === "reward" ? rewards : filter.sort === "step"
      ? columns.play.map((play) => plays[play].step) : columns[filter.sort];
    const sign = filter.down ? -1 : 1;
    const rank = (row) => (values[row] === null ? -Infinity : values[row]);
    kept.sort((a, b) => (rank(a) < rank(b) ? -sign : rank(a) > rank(b) ? sign : a - b));
  }
  return kept;
};

// Every text of a group, for a search in what agents said and saw.
const textsOf = (rollout) => rollout.flatMap((trajectory) => [
  trajectory.task, trajectory.answer || "", ...trajectory.spans.map((span) => span.text ?? span.tokens.join("")),
  ...trajectory.calls.map((call) => call.result),
]);

// Looks for a text in the given rollouts; `found` gets their addresses, `said` the progress. Who serves the page looks
// through its files; a page from a disk looks itself, group by group, and one that cannot be read hides none of the others.
let searches = 0;
mgrpo.search = async (text, rows, found, said, isStopped) => {
  if (mgrpo.index.live) {
    const query = `?text=${encodeURIComponent(text)}`;
    const answer = await mgrpo.load(`search/${searches += 1}`, query);
    for (const place of answer.found) found.add(`#/rollout/${place.join("/")}`);
    said(rows.length);
    return;
  }
  const wanted = text.toLowerCase();
  const { index } = mgrpo, { columns } = index;
  const byGroup = new Map();
  for (const row of rows) {
    const name = `${columns.run[row]} ${columns.play[row]} ${columns.query[row]}`;
    byGroup.set(name, [...(byGroup.get(name) || []), row]);
  }
  let done = 0;
  for (const members of byGroup.values()) {
    if (isStopped()) return;
    const group = await mgrpo.loadGroup(members[0], index).catch(() => null);
    for (const row of group ? members : []) {
      if (textsOf(group.rollouts[columns.k[row]]).some((one) => one.toLowerCase().includes(wanted))) found.add(addressOf("rollout", row, index));
    }
    done += members.length;
    if (done % 50 < members.length) said(done);
  }
  said(done);
};
