// The fields for the turns of the prompt and for the replies. Every change sounds as an "input" event of the form.

const $ = (id) => document.getElementById(id);
const clone = (id) => $(id).content.firstElementChild.cloneNode(true);
const ROLES = ["system", "user", "assistant"];

/** What stands in the fields: { turns: [{ role, content }], replies: [text] }. */
export function written() {
  const turns = [...$("turns").children].map((turn) => ({
    role: turn.querySelector("select").value,
    content: turn.querySelector("textarea").value,
  }));
  return { turns, replies: [...$("replies").querySelectorAll("textarea")].map((one) => one.value) };
}

/** What to ask, and the names of the replies: a field left empty is no reply; one turn of a user is a plain prompt. */
export function question() {
  const { turns, replies } = written();
  const there = replies.map((text, i) => [`Reply ${i + 1}`, text]).filter(([, text]) => text.trim());
  const prompt = turns.length === 1 && turns[0].role === "user" ? turns[0].content : turns;
  return { prompt, replies: there.map(([, text]) => text), names: there.map(([name]) => name) };
}

export function fill({ turns, replies }) {
  $("turns").replaceChildren();
  $("replies").replaceChildren();
  turns.forEach(({ role, content }) => addTurn(role, content));
  replies.forEach((text) => addReply(text));
}

export function newReply() {
  const field = addReply("");
  changed();
  field.focus();
}

export function newTurn() {
  const last = written().turns.at(-1).role;
  const field = addTurn(last === "user" ? "assistant" : "user", "");
  changed();
  field.focus();
}

/** What a pasted JSON list makes of the form: replies of a list of texts, turns of a list of messages; else null. */
export function pasted(json, field) {
  let list = null;
  try {
    list = JSON.parse(json);
  } catch {
    return null;
  }
  if (!Array.isArray(list) || !list.length) return null;
  const { turns, replies } = written();
  const texts = list.every((one) => typeof one === "string");
  const messages = list.every((one) => ROLES.includes(one?.role) && typeof one.content === "string");
  if (texts && field.closest("#replies")) {
    return { turns, replies: [...replies.filter((text) => text.trim() && text !== field.value), ...list] };
  }
  return messages && field.closest("#turns") ? { turns: list, replies } : null;
}

function addTurn(role, text) {
  const turn = clone("turn-template");
  turn.querySelector("select").value = role;
  return place($("turns"), turn, text);
}

function addReply(text) {
  return place($("replies"), clone("reply-template"), text);
}

function place(list, field, text) {
  field.querySelector("textarea").value = text;
  field.querySelector(".remove").addEventListener("click", () => remove(field));
  list.append(field);
  label();
  return field.querySelector("textarea");
}

function remove(field) {
  const neighbor = field.nextElementSibling ?? field.previousElementSibling;
  field.remove();
  changed();
  neighbor.querySelector("textarea").focus();
}

function changed() {
  $("ask").dispatchEvent(new Event("input"));
}

/** Number the fields anew. */
export function label() {
  const [turns, replies] = [[...$("turns").children], [...$("replies").children]];
  turns.forEach((turn, i) => {
    const [role, text] = [turn.querySelector("select"), turn.querySelector("textarea")];
    role.setAttribute("aria-label", `Role of turn ${i + 1}`);
    text.setAttribute("aria-label", turns.length === 1 ? "Prompt" : `Turn ${i + 1}, ${role.value}`);
    removable(turn, turns.length > 1, `turn ${i + 1}`);
  });
  replies.forEach((reply, i) => {
    const [name, text] = [reply.querySelector("label"), reply.querySelector("textarea")];
    name.textContent = `Reply ${i + 1}`;
    name.htmlFor = text.id = `reply-${i + 1}`;
    removable(reply, replies.length > 1, `reply ${i + 1}`);
  });
}

function removable(field, possible, what) {
  field.querySelector(".remove").hidden = !possible;
  field.querySelector(".remove").setAttribute("aria-label", `Remove ${what}`);
}
