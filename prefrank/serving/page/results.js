// Answers of the server, drawn and put into words. Whatever people and models wrote goes in as text, never as HTML.

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// Numbers as people read them

function number(value, sign = false) {
  if (value === null || value === undefined) return "–";
  const digits = Math.abs(value).toFixed(3);
  return (value < 0 && Number(digits) ? "−" : sign ? "+" : "") + digits;
}

function percent(p) {
  if (p === null || p === undefined) return "–";
  if (p > 0 && p < 0.001) return "<0.1%";
  if (p < 1 && p > 0.999) return ">99.9%";
  return `${(100 * p).toFixed(p < 0.01 || p > 0.99 ? 1 : 0)}%`.replace(".0%", "%");
}

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

function ordinal(n) {
  const ending = n % 100 > 10 && n % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10];
  return `${n}${ending ?? "th"}`;
}

function size(count) {
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)}B` : count >= 1e6 ? `${(count / 1e6).toFixed(1)}M` : `${count}`;
}

// In words

export function facts({ name, architecture, parameters, precision, max_length, fingerprint }) {
  const [what, length] = [`${architecture}, ${size(parameters)} parameters`, `${plural(max_length, "token")} at most`];
  return [name, what, precision, length, `fingerprint ${fingerprint.slice(0, 12)}`].join(" · ");
}

export function verdict(answers, names) {
  if (answers.length > 1) return "Two models beside each other";
  const best = answers[0].ranking.filter((one) => one.rank === 1).map((one) => names[one.index]);
  if (!best.length) return "No reply could be scored";
  return best.length === 1 ? `${best[0]} is best` : `${best.join(" and ")} share the first place`;
}

export function summary(answers) {
  if (answers.length > 1) return agreement(answers);
  const count = answers[0].ranking.filter((one) => one.rank !== null).length;
  return `Ranked ${plural(count, "reply", "replies")}.`;
}

function agreement(answers) {
  const [a, b] = answers.map(({ ranking }) => [...ranking].sort((x, y) => x.index - y.index).map((one) => one.score));
  const pairs = a.flatMap((_, i) => a.slice(0, i).map((_, j) => [i, j]));
  const scored = pairs.filter((pair) => pair.every((i) => a[i] !== null && b[i] !== null));
  const same = scored.filter(([i, j]) => Math.sign(a[i] - a[j]) === Math.sign(b[i] - b[j]));
  return `They put ${same.length} of ${plural(scored.length, "pair")} of replies in the same order.`;
}

export function reading(answers) {
  const at = ({ calibrated, temperature: t }) =>
    calibrated ? `temperature ${number(t)}, as calibrated` : `temperature ${t}, not calibrated`;
  return [
    "Scores are raw logits: only differences between replies to one prompt mean something",
    answers.length > 1 ? ", and the scores of two models are not on one scale" : "",
    ". Chances are the sigmoid of a difference, “best of these” is the softmax of all",
    ` (${[...new Set(answers.map(at))].join("; ")}).`,
  ].join("");
}

// The ranking of one model

/** `asked` holds the names and texts of the replies; `other` is the answer of the model beside it, if there is one. */
export function column(answer, other, asked, explain) {
  const cards = answer.ranking.map((entry) => card(entry, answer, other, asked, explain));
  const pairs = answer.ranking.length > 2 && answer.win_probability ? [matrix(answer, asked.names)] : [];
  return make("section", "column", make("h3", "", answer.model), make("ol", "cards", ...cards), ...pairs);
}

function card(entry, answer, other, asked, explain) {
  const item = document.getElementById("card-template").content.firstElementChild.cloneNode(true);
  const [part, text] = [(name) => item.querySelector(name), asked.replies[entry.index]];
  const failed = entry.rank === null;
  item.classList.toggle("first", entry.rank === 1);
  part(".place").textContent = failed ? "–" : entry.rank;
  part("h4").textContent = asked.names[entry.index];
  part(".score").textContent = number(entry.score);
  part(".bar div").style.width = `${100 * (entry.weight ?? 0)}%`;
  part(".chances").append(...(failed ? [entry.error ?? "No score."] : chances(entry, answer, asked.names)));
  part(".chances").classList.toggle("bad", failed);
  part(".text").textContent = text;
  part(".chips").append(...chips(entry, other));
  part(".whole").addEventListener("click", () => open(item));
  part(".explain").hidden = failed;
  part(".explain").addEventListener("click", () => explain(item, text, answer.model, asked.prompt));
  return item;
}

function chances(entry, { ranking, win_probability: chance }, names) {
  const [best, next, ...others] = ranking.filter((one) => one.rank !== null);
  const [rival, which] = entry === best ? [next, "next"] : [best, "best"];
  const said = (words, p) => make("span", "", `${words} `, make("b", "", percent(p)));
  if (!rival) return [];
  const against = `better than ${names[rival.index]} (${which})`;
  const pair = chance && said(against, chance[entry.index][rival.index]); // of very many replies there are none
  return [others.length && said("best of these", entry.weight), pair].filter(Boolean); // of two, both say the same
}

function chips(entry, other) {
  const rank = other?.ranking.find((one) => one.index === entry.index)?.rank;
  const said = [
    [entry.tokens, "fact", plural(entry.tokens ?? 0, "token")],
    [entry.cut_prompt, "warn", `cut: ${plural(entry.cut_prompt ?? 0, "token")} of the prompt`],
    [entry.cut_reply, "warn", `cut: ${plural(entry.cut_reply ?? 0, "token")} of the reply`],
    [entry.past_trained, "warn", `${plural(entry.past_trained ?? 0, "token")} past the length of its training`],
    [rank, rank === entry.rank ? "fact" : "warn", `${ordinal(rank)} by ${other?.model}`],
  ];
  return said.filter(([there]) => there).map(([, kind, words]) => make("span", kind, words));
}

/** Offer the whole of the replies that do not fit, once they are on the page. */
export function offerWhole(cards) {
  for (const item of cards) {
    const text = item.querySelector(".text");
    item.querySelector(".whole").hidden = text.scrollHeight <= text.clientHeight + 1;
  }
}

/** The whole reply in place of its first lines; the button that had the focus is gone, so the text takes it. */
export function open(item) {
  const text = item.querySelector(".text");
  item.classList.add("open");
  item.querySelector(".whole").hidden = true;
  text.tabIndex = -1;
  text.focus({ preventScroll: true });
}

function matrix({ model, ranking, win_probability: chance }, names) {
  const order = ranking.map((one) => one.index);
  const rows = order.map((i) => make("tr", "", head(names[i], "row"), ...order.map((j) => cell(i, j, chance[i]?.[j]))));
  const top = make("thead", "", make("tr", "", make("td"), ...order.map((j) => head(names[j], "col"))));
  const wide = make("div", "wide", make("table", "", top, make("tbody", "", ...rows)));
  wide.tabIndex = 0; // so that the keyboard can scroll it
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", `Every pair, by ${model}`);
  const title = "Every pair: the chance that the reply on the left is better than the one above";
  const details = make("details", "", make("summary", "", title), wide);
  details.open = order.length < 7;
  return details;
}

function head(name, scope) {
  const box = make("th", "", name);
  box.scope = scope;
  return box;
}

function cell(i, j, p) {
  if (i === j || typeof p !== "number") return make("td", "", i === j ? "" : "–");
  return tinted(make("td", p < 0.5 ? "down" : "up", percent(p)), 2 * Math.abs(p - 0.5));
}

/** The color gets stronger with the part, from 0 to 1; the number stands beside it. */
function tinted(element, part) {
  element.style.setProperty("--tint", `${Math.round(30 * part)}%`);
  return element;
}

// What a score is made of

/** The reply with its sentences marked. The server counts characters, JavaScript halves of some: an emoji is two. */
export function sentences(reply, parts) {
  const characters = [...reply];
  const text = (from, to) => characters.slice(from, to).join("");
  const largest = Math.max(...parts.map((part) => Math.abs(part.difference ?? 0)), 1);
  const ends = [0, ...parts.map((part) => part.end)];
  const pieces = parts.flatMap(({ start, end, difference }, i) => {
    const [whole, bare] = [text(start, end), text(start, end).trimEnd()];
    return [text(ends[i], start), sentence(bare, difference, largest), whole.slice(bare.length)];
  });
  return [...pieces, text(ends.at(-1))];
}

function sentence(text, difference, largest) {
  const mark = make("span", "part", text, "\u00a0", make("b", "", number(difference, true)));
  if (typeof difference !== "number") return mark;
  mark.classList.add(difference < 0 ? "down" : "up");
  return tinted(mark, Math.abs(difference) / largest);
}
