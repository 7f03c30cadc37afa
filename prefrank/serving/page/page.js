// The page at /: a prompt and replies (form.js) are ranked by the server (server.js), and drawn (results.js).

import { fill, label, newReply, newTurn, pasted, question, written } from "./form.js";
import { column, facts, make, offerWhole, open, reading, sentences, summary, verdict } from "./results.js";
import { asCurl, asPython, ask, keep } from "./server.js";

const $ = (id) => document.getElementById(id);
const state = { models: [], running: null, ranked: null, edited: false };

function say(id, text) {
  $(id).textContent = text;
  $(id).hidden = !text;
}

/** Show what went wrong; a server that wants a key gets the field for one. */
function complain(error) {
  const locked = error.status === 401;
  say(locked ? "key-problem" : "problem", error.message);
  $("key-form").hidden = !locked;
  if (locked) $("key").focus();
  else comeIntoView("problem");
}

// Examples

function examples() {
  return [...$("example-texts").content.children].map((one) => ({
    name: one.title,
    turns: [...one.querySelectorAll("p")].map((turn) => ({ role: turn.className, content: turn.textContent })),
    replies: [...one.querySelectorAll("li")].map((reply) => reply.textContent),
  }));
}

function offer(name, act) {
  const button = make("button", "chip", name);
  button.type = "button";
  button.addEventListener("click", act);
  $("examples").append(button);
  return button;
}

/** These texts take the place of what was written, which stays one click away. */
function use(texts) {
  if (state.edited) offerBack(written());
  state.edited = false;
  fill(texts);
}

function useAndRank(example) {
  use(example);
  rank();
}

function offerBack(texts) {
  document.querySelector(".chip.back")?.remove();
  const act = () => {
    fill(texts);
    edited();
  };
  offer("Your texts", act).classList.add("back");
}

function edited() {
  state.edited = true;
  $("stale").hidden = !state.ranked;
  label();
}

// Models

async function loadModels() {
  const { version, models } = await ask("api/models");
  const usual = models.find((one) => one.default) ?? models[0];
  state.models = models;
  offerModels($("model"), [], usual?.name);
  offerModels($("beside"), [new Option("no other model", "")], "");
  $("models").hidden = models.length < 2;
  say("version", `prefrank ${version}`);
  showFacts();
}

/** The model that was chosen before stays so while it is there. */
function offerModels(select, others, usual) {
  const before = select.value;
  select.replaceChildren(...others, ...state.models.map((one) => new Option(one.name, one.name)));
  select.value = state.models.some((one) => one.name === before) ? before : (usual ?? "");
}

/** A server that was still loading when the page came, or that has since loaded another model, is asked again. */
function keepUp(answers) {
  const known = (answer) => state.models.some((one) => one.fingerprint === answer.fingerprint);
  if (!answers.every(known)) loadModels().catch(complain);
}

const chosen = () => [...new Set([$("model").value, $("beside").value])].filter(Boolean);

function showFacts() {
  const known = state.models.filter((one) => chosen().includes(one.name));
  $("facts").replaceChildren(...known.map((one) => make("span", "", facts(one))));
  document.body.classList.toggle("two", chosen().length > 1);
}

// Ranking

async function rank() {
  const asked = question();
  if (!asked.replies.length) return complain(new Error("There is no reply to rank; write at least one."));
  state.running?.abort(); // who asks again wants the new answer only
  const mine = (state.running = new AbortController());
  const models = chosen().length ? chosen() : [undefined];
  const body = (model) => ({ model, prompt: asked.prompt, replies: asked.replies });
  busy(true);
  const answers = await Promise.allSettled(models.map((model) => ask("api/rank", body(model), mine.signal)));
  if (state.running !== mine) return undefined;
  busy(false);
  return finish(asked, answers);
}

function busy(on) {
  $("results").setAttribute("aria-busy", on);
  document.body.classList.toggle("busy", on);
  if (on) say("status", "Ranking…");
}

function finish(asked, answers) {
  const refused = answers.find((one) => one.status === "rejected");
  const values = answers.map((one) => one.value).filter(Boolean);
  say("problem", "");
  $("key-form").hidden = true;
  if (refused) complain(refused.reason);
  if (!values.length) return say("status", state.ranked ? "Not ranked; below is what came before." : "Not ranked.");
  state.ranked = asked;
  $("stale").hidden = true;
  $("columns").replaceChildren(
    ...values.map((value) => column(value, values.find((one) => one !== value), asked, explain)),
  );
  offerWhole($("columns").querySelectorAll(".card"));
  say("verdict", verdict(values, asked.names));
  say("status", summary(values));
  say("reading", reading(values));
  if (!refused) comeIntoView("verdict");
  keepUp(values);
  return undefined;
}

/** On a phone, or beside many replies, what came may be further down or up. */
function comeIntoView(id) {
  const { top } = $(id).getBoundingClientRect();
  if (top < 0 || top > 0.7 * window.innerHeight) $(id).scrollIntoView();
}

async function explain(item, reply, model, prompt) {
  const [button, legend] = [item.querySelector(".explain"), item.querySelector(".legend")];
  button.hidden = true;
  legend.textContent = "Scoring it without each sentence…";
  try {
    const { parts } = await ask("api/explain", { model, prompt, reply });
    item.querySelector(".text").replaceChildren(...sentences(reply, parts));
    legend.textContent =
      "Behind each sentence: what it adds, the score minus the score of the reply without it. These need not add up.";
    open(item);
  } catch (error) {
    legend.textContent = error.message;
    button.hidden = false;
    button.focus();
    if (error.status === 401) complain(error);
  }
}

// The request as code

async function copy(asCode) {
  const { prompt, replies } = question();
  const code = asCode("api/rank", { model: chosen()[0], prompt, replies });
  say("copied", "");
  say("code", code);
  getSelection().selectAllChildren($("code"));
  try {
    await navigator.clipboard.writeText(code);
    say("copied", "Copied.");
  } catch {
    say("copied", "This browser does not let the page copy; the code is selected, so copy it by hand.");
  }
}

// What people do

function onKey(event) {
  const ranks = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  const adds = event.altKey && event.code === "KeyN"; // by its place: with Alt, a Mac types another letter
  if (!ranks && !adds) return;
  event.preventDefault();
  if (ranks) rank();
  else newReply();
}

function onPaste(event) {
  const texts = pasted(event.clipboardData.getData("text"), event.target);
  if (!texts) return;
  event.preventDefault();
  use(texts);
  edited();
}

async function useKey() {
  keep($("key").value.trim());
  await loadModels().then(rank).catch(complain);
}

function on(id, type, act) {
  $(id).addEventListener(type, (event) => {
    if (type === "submit") event.preventDefault();
    act();
  });
}

function start() {
  const known = examples();
  known.forEach((example) => offer(example.name, () => useAndRank(example)));
  fill(known[0]);
  on("ask", "submit", rank);
  on("ask", "input", edited);
  on("add-turn", "click", newTurn);
  on("add-reply", "click", newReply);
  on("curl", "click", () => copy(asCurl));
  on("python", "click", () => copy(asPython));
  on("key-form", "submit", useKey);
  on("models", "change", () => {
    showFacts();
    if (state.ranked) rank();
  });
  $("ask").addEventListener("paste", onPaste);
  document.addEventListener("keydown", onKey);
  loadModels().catch(complain);
}

start();
