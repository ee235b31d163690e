// The page of `rpbert serve`. What people type goes into the document as text nodes only.

import { draw, where } from "./heat.js";
import { percent, quoted, sayDifference, sayNames, sayRelation } from "./sentences.js";

const TYPES = ["PER", "LOC", "ORG", "MISC"];
const SLIDER_PAUSE = 60; // ms without a move before the model is asked

const state = {
  model: null, // what /v1/model says
  image: null, // the File beside the text field
  current: null, // the entry on show: {text, image, url, name, result}
  shown: null, // its result, or what the slider made of it
  pinned: null, // index of the word whose heat map stays, null for all words
  past: [],
  abort: new AbortController(),
};

const $ = (id) => document.getElementById(id);
const kind = (label) => (TYPES.includes(label) ? label : "other");

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// ---- the service ----

async function ask(path, options = {}) {
  const key = $("key").value;
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("the service does not answer");
  });
  if (answer.ok) return answer;
  if (answer.status === 401) $("locked").hidden = false;
  const failure = await answer.json().catch(() => null);
  throw new Error(failure?.error?.reason ?? `the service answered ${answer.status}`);
}

async function explain(entry, relation) {
  state.abort.abort();
  state.abort = new AbortController();
  const form = new FormData();
  form.append("text", entry.text);
  if (entry.image) form.append("image", entry.image, "image");
  if (relation !== undefined) form.append("relation", relation);
  const request = { method: "POST", body: form, signal: state.abort.signal };
  return (await ask("/v1/explain", request)).json();
}

function complain(reason) {
  $("error").textContent = reason;
  $("error").hidden = !reason;
}

// Does a task with the result marked busy; says what went wrong; null if it failed.
let tasks = 0;
async function busily(task) {
  tasks += 1;
  $("result").ariaBusy = "true";
  complain("");
  try {
    return await task();
  } catch (error) {
    if (error.name !== "AbortError") complain(`That did not work: ${error.message}.`);
    return null; // an aborted question has been followed by another
  } finally {
    tasks -= 1; // one that was aborted may end after its successor began
    $("result").ariaBusy = String(tasks > 0);
  }
}

async function send() {
  clearTimeout(pause); // a last move of the slider would abort this question
  const entry = { text: $("text").value, image: state.image, name: state.image?.name ?? null };
  entry.result = await busily(() => explain(entry));
  if (!entry.result) return;
  entry.url = entry.image ? URL.createObjectURL(entry.image) : "";
  state.past.unshift(entry);
  listPast();
  show(entry);
}

function show(entry) {
  const { prediction, text_only } = entry.result;
  const looks = entry.image && entry.result.attention;
  state.current = entry;
  state.pinned = null;
  complain("");
  $("empty").hidden = true;
  $("found").hidden = false;
  $("found").classList.toggle("text-only", !looks);
  $("image").src = entry.url;
  $("looks").hidden = !looks;
  $("compare").hidden = !text_only;
  $("hand").hidden = !(prediction.image === "used" && state.model?.weighs_images);
  showRelation(entry.result);
  setSlider(prediction.relation);
  showResult(entry.result);
  if (matchMedia("(max-width: 56rem)").matches) $("result").scrollIntoView();
}

function showResult(result) {
  state.shown = result;
  showTagged(result);
  showHeat();
  showComparison(result);
  const { s_tv, s_tv_per_word } = result;
  $("stv").textContent = s_tv ? `S_TV ${s_tv.toFixed(2)}, ${s_tv_per_word.toFixed(3)} a word` : "";
}

// ---- the text ----

function showTagged({ prediction }) {
  const letters = Array.from(prediction.text); // offsets count Unicode characters, not UTF-16
  const place = $("tagged");
  place.replaceChildren();
  let position = 0;
  const entities = kept(prediction.entities);
  for (const { label, score, start, end } of entities) {
    addWords(place, letters, position, start);
    const mark = el("mark", { className: kind(label) });
    addWords(mark, letters, start, end);
    const tip = `${label}, ${percent(score)} sure of exactly this name`;
    mark.append(el("span", { className: "label" }, label), el("span", { className: "tip" }, tip));
    place.append(mark);
    position = end;
  }
  addWords(place, letters, position, letters.length);
  if (wordNodes().length) wordNodes()[0].tabIndex = 0;
  press(state.pinned);
  $("said").textContent = sayNames(entities);
}

const kept = (entities) => entities.filter((e) => e.score >= $("least").value / 100);

function setLeast() {
  $("least-score").textContent = ($("least").value / 100).toFixed(2);
  if (!state.shown) return;
  showTagged(state.shown);
  showComparison(state.shown);
}

// The letters from start to end; where there is a heat map, each word is a button for its own.
function addWords(place, letters, start, end) {
  const { words, attention } = state.shown;
  let position = start;
  words.forEach((word, index) => {
    if (word.start < start || word.end > end || word.start === word.end) return;
    place.append(letters.slice(position, word.start).join(""));
    const node = el("span", {}, letters.slice(word.start, word.end).join(""));
    if (attention) {
      Object.assign(node, { className: "word", role: "button", tabIndex: -1 });
      node.dataset.index = index;
    }
    place.append(node);
    position = word.end;
  });
  place.append(letters.slice(position, end).join(""));
}

const wordNodes = () => [...$("tagged").querySelectorAll(".word")];
const indexOf = (node) => Number(node.dataset.index);

function press(index) {
  state.pinned = index;
  for (const node of wordNodes()) node.ariaPressed = String(indexOf(node) === index);
}

function pin(node) {
  press(state.pinned === indexOf(node) ? null : indexOf(node));
  showHeat();
}

function moveAmongWords(event) {
  const nodes = wordNodes();
  const at = nodes.indexOf(document.activeElement);
  if (at < 0) return;
  const goals = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: nodes.length - 1 };
  const goal = nodes[goals[event.key]];
  if (event.key === "Enter" || event.key === " ") pin(nodes[at]);
  else if (!goal) return;
  event.preventDefault();
  if (!goal) return;
  nodes[at].tabIndex = -1;
  goal.tabIndex = 0;
  goal.focus();
}

// ---- the relation ----

function showRelation(result) {
  const { relation, image } = result.prediction;
  $("gauge").hidden = image !== "used" || relation === null;
  $("sentence").textContent = sayRelation(result, state.model);
  if ($("gauge").hidden) return;
  $("gauge").ariaValueNow = relation.toFixed(2);
  $("number").textContent = relation.toFixed(2);
  $("arc").style.strokeDasharray = `${100 * relation} 200`;
  $("arc").style.visibility = relation < 0.01 ? "hidden" : "visible"; // its round end is a dot
}

function setSlider(relation, own = true) {
  const shown = relation === null ? "not learnt" : relation.toFixed(2);
  $("slider").value = Math.round(100 * (relation ?? 1));
  $("slider").ariaValueText = shown;
  $("amount").textContent = shown;
  $("reset").disabled = own;
}

let pause = 0;
function slide() {
  const relation = $("slider").value / 100;
  const entry = state.current;
  setSlider(relation, false);
  clearTimeout(pause);
  pause = setTimeout(async () => {
    const result = await busily(() => explain(entry, relation));
    if (result && entry === state.current) showResult(result);
  }, SLIDER_PAUSE);
}

function backToOwn() {
  clearTimeout(pause);
  state.abort.abort();
  setSlider(state.current.result.prediction.relation);
  showResult(state.current.result);
  $("slider").focus();
}

// ---- the heat map ----

function showHeat(hovered = null) {
  const { attention, words } = state.shown;
  if (!attention) return;
  const index = hovered ?? state.pinned;
  const grid = index === null ? attention.all : attention.words[index];
  const [low, high] = [Math.min(...grid.flat()), Math.max(...grid.flat())];
  $("heat").hidden = !$("heat-on").checked;
  draw($("heat"), $("image"), grid, attention.boxes);
  const of = index === null ? "all words" : quoted(words[index].text);
  $("of").textContent = `Attention of ${of}`;
  $("low").textContent = low.toPrecision(2);
  $("high").textContent = high.toPrecision(2);
  $("heat").ariaLabel = `Attention of ${of}, strongest ${where(grid, attention.boxes)}`;
}

// ---- with and without the image ----

function showComparison({ prediction, text_only }) {
  if (!text_only) return;
  const by = $("reset").disabled ? "" : ` at ${$("amount").textContent}`;
  $("with-title").textContent = `With the image${by}`;
  const [seen, blind] = [kept(prediction.entities), kept(text_only.entities)];
  $("with").replaceChildren(chips(seen));
  $("without").replaceChildren(chips(blind));
  $("difference").textContent = sayDifference(seen, blind);
}

function chips(entities) {
  if (!entities.length) return el("span", { className: "hint" }, "nothing");
  const parts = (e) => [e.text, el("small", {}, e.label), el("i", {}, percent(e.score))];
  const one = (e) => el("span", { className: `chip ${kind(e.label)}` }, ...parts(e));
  return el("div", { className: "chips" }, ...entities.map(one));
}

// ---- composing ----

function setImage(file) {
  const most = state.model?.limits.image_bytes;
  $("file").value = "";
  if (file?.size > most) {
    complain(`That image is too large: at most ${Math.floor(most / 2 ** 20)} MiB are taken.`);
    return;
  }
  URL.revokeObjectURL($("thumb").src);
  state.image = file;
  $("picked").hidden = !file;
  $("thumb").hidden = false;
  $("thumb").src = file ? URL.createObjectURL(file) : "";
  $("name").textContent = file?.name ?? "";
}

function countLetters() {
  const most = state.model?.limits.text_characters;
  const length = Array.from($("text").value).length;
  $("count").textContent = most && length ? `${length} of ${most}` : "";
  $("count").classList.toggle("over", length > most);
}

function takeFile(event, files) {
  const file = [...files].find((one) => one.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  setImage(file);
}

// ---- examples, session, theme ----

async function listExamples() {
  const examples = await (await ask("/v1/examples")).json();
  const image = async (one) => (one.image ? (await ask(one.image)).blob() : null);
  const images = await Promise.all(examples.map(image));
  const items = examples.map(({ text, caption }, i) => {
    const picture = images[i]
      ? el("img", { src: URL.createObjectURL(images[i]), alt: caption })
      : el("span", { className: "none" }, "text only");
    const button = el("button", { type: "button" }, picture, el("span", {}, text));
    button.onclick = () => {
      $("text").value = text;
      countLetters();
      setImage(images[i] && new File([images[i]], caption, { type: images[i].type }));
      send();
    };
    return el("li", {}, button);
  });
  $("examples").replaceChildren(...items);
}

function listPast() {
  $("past").hidden = false;
  const items = state.past.map((entry) => {
    const { relation, image } = entry.result.prediction;
    const picture = image === "used" ? [el("img", { src: entry.url, alt: "" })] : [];
    const score = relation === null ? "not learnt" : relation.toFixed(2);
    const r = image === "used" ? `r ${score}` : "";
    const line = el("span", { className: "line" }, entry.text.trim() || "(no text)");
    const parts = [...picture, line, el("span", { className: "r" }, r)];
    const button = el("button", { type: "button", onclick: () => show(entry) }, ...parts);
    return el("li", {}, button);
  });
  $("history").replaceChildren(...items);
}

function download() {
  const rows = state.past.map(({ text, name, result }) => ({ text, image_name: name, ...result }));
  const file = new Blob([JSON.stringify(rows, null, 1)], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(file), download: "rpbert-session.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  remember("theme", theme);
}

// A browser that keeps nothing for this page refuses even to be asked.
function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // the choice lasts as long as the page
  }
}

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

async function load() {
  state.model = await (await ask("/v1/model")).json();
  $("model").textContent = `${state.model.name} · ${state.model.labels.join(" ")}`;
  $("locked").hidden = true;
  await listExamples();
}

// ---- events ----

$("post").onsubmit = (event) => {
  event.preventDefault();
  send();
};
$("text").oninput = countLetters;
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
};
$("key").onchange = () => busily(load);
$("file").onchange = () => setImage($("file").files[0] ?? null);
$("remove").onclick = () => {
  setImage(null);
  $("file").focus();
};
$("thumb").onerror = () => ($("thumb").hidden = true); // what no browser reads has no preview
$("slider").oninput = slide;
$("least").oninput = setLeast;
$("reset").onclick = backToOwn;
$("heat-on").onchange = () => showHeat();
$("download").onclick = download;
$("theme").onclick = () => {
  const next = { auto: "light", light: "dark", dark: "auto" };
  setTheme(next[document.documentElement.dataset.theme]);
};
for (const [on, off] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  $("tagged").addEventListener(on, (event) => {
    const node = event.target.closest(".word");
    if (node) showHeat(indexOf(node));
  });
  $("tagged").addEventListener(off, () => showHeat());
}
$("tagged").onclick = (event) => {
  const node = event.target.closest(".word");
  if (node) pin(node);
};
$("tagged").onkeydown = moveAmongWords;
document.onpaste = (event) => takeFile(event, event.clipboardData.files);
document.ondragover = (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
};
document.ondragleave = () => $("drop").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault(); // the browser would leave the page to show what was dropped
  $("drop").classList.remove("over");
  takeFile(event, event.dataTransfer.files);
};
new ResizeObserver(() => state.shown && showHeat()).observe($("image"));

setTheme(remembered("theme") ?? "auto");
busily(load);
