// Text: show texts with invisible characters as code points and long ones cut; format numbers and percentages.
"use strict";

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const LONGEST = 6000;

const visible = (text) => text.replace(UNSEEN, (one) => `\u27e6U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e7`);

function Text({ text, limit = LONGEST }) {
  const [whole, setWhole] = useState(false);
  const shown = whole || text.length <= limit ? text : text.slice(0, limit);
  return html`<span class="text" dir="auto">${visible(shown)}</span>${shown.length < text.length
    && html`<button class="more" onClick=${() => setWhole(true)}>show all ${text.length.toLocaleString()} characters</button>`}`;
}

const number = (value, digits = 2) => (value === null || value === undefined ? "\u2013" : value.toFixed(digits));
const percent = (value) => (value === null || value === undefined ? "\u2013" : `${(100 * value).toFixed(1)}%`);

// One line of a text, for tables and heads.
const line = (text, length = 160) => visible((text || "").slice(0, length).replace(/\s+/g, " "));
