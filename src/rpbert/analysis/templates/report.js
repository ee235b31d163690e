"use strict";
(() => {
  const { names, outcomes, posts } = JSON.parse(document.getElementById("data").textContent);
  const tools = document.getElementById("tools");
  const list = document.getElementById("posts");
  const more = document.getElementById("more");
  const PAGE = 20;
  // Left to right as in Table 7: without propagation, which is the second model, first.
  const order = names.map((_, index) => index).reverse();
  const RAMP = [[40, 12, 110], [165, 35, 115], [240, 100, 50], [253, 190, 60], [252, 255, 165]];
  let found = [];
  let drawn = 0;

  // Everything of a post goes into the page as text.
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child != null));
    return element;
  };

  // ---- Attention -------------------------------------------------------------------------------

  for (const post of posts) {
    post.characters = Array.from(post.text); // places count characters, not UTF-16 units
    post.folded = `${post.id} ${post.text}`.normalize("NFKC").toLowerCase();
  }

  /** Attention of one word, or of all (null), to each block. */
  const blocks = ({ rows, columns, words }, word) => {
    const sum = new Float64Array(rows * columns);
    for (const own of word === null ? words : [words[word]]) {
      own.forEach((value, block) => (sum[block] += value));
    }
    return sum;
  };

  const colour = (share) => {
    const place = share * (RAMP.length - 1);
    const low = Math.min(Math.floor(place), RAMP.length - 2);
    return RAMP[low].map((value, i) => value + (place - low) * (RAMP[low + 1][i] - value));
  };

  /** Blocks of a grid run into each other; regions are drawn as their boxes, weakest first. */
  const draw = (canvas, { rows, columns, boxes }, map, peak) => {
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    const rgba = (share) => [...colour(share), 45 + 165 * share];
    if (boxes) {
      const order = Array.from(map.keys()).sort((a, b) => map[a] - map[b]);
      for (const token of order) {
        const [red, green, blue, alpha] = rgba(map[token] / peak);
        const [x0, y0, x1, y1] = boxes[token];
        const place = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height];
        context.fillStyle = `rgb(${red} ${green} ${blue} / ${(0.6 * alpha) / 255})`;
        context.strokeStyle = `rgb(${red} ${green} ${blue})`;
        context.fillRect(...place);
        context.strokeRect(...place);
      }
      return;
    }
    const small = new OffscreenCanvas(columns, rows);
    const pixels = new ImageData(columns, rows);
    map.forEach((value, block) => pixels.data.set(rgba(value / peak), 4 * block));
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, width, height);
  };

  /** Draw the maps of a post on one scale, so that two models can be compared by eye. */
  const paint = (article, post, word) => {
    const shown = tools.elements.heat.checked;
    const maps = post.models.map((m) => (m.attention ? blocks(m.attention, word) : null));
    const peak = Math.max(1e-12, ...maps.flatMap((map) => (map ? Array.from(map) : [])));
    article.querySelectorAll(".picture").forEach((picture) => {
      const model = Number(picture.dataset.model);
      const canvas = picture.querySelector("canvas");
      if (!canvas) return;
      picture.classList.toggle("lit", shown);
      canvas.hidden = !shown;
      draw(canvas, post.models[model].attention, maps[model], peak);
      const { rows, columns } = post.models[model].attention;
      const top = maps[model].indexOf(Math.max(...maps[model]));
      const what = word === null ? "all words" : `“${wordOf(post, word)}”`;
      canvas.setAttribute(
        "aria-label",
        `Attention of ${what}: most in row ${Math.floor(top / columns) + 1}, ` +
          `column ${(top % columns) + 1} of ${rows} × ${columns}`,
      );
    });
    article.querySelectorAll(".pieces span").forEach((piece) => {
      const share = maps[piece.dataset.model][piece.dataset.piece] / peak;
      const [red, green, blue] = colour(share);
      piece.style.background = shown ? `rgb(${red} ${green} ${blue} / ${0.1 + 0.5 * share})` : "";
    });
    article.querySelectorAll(".word").forEach((span) => {
      span.classList.toggle("on", word !== null && Number(span.dataset.word) === word);
    });
    article.dataset.word = word ?? "";
  };

  const wordOf = (post, word) => post.characters.slice(...post.words[word]).join("");

  // ---- A post ----------------------------------------------------------------------------------

  /** The text with its words and entities; a word belongs to the entity it begins in. */
  const textOf = (post, entities, wrong) => {
    const line = make("p", { className: "text", dir: "auto" });
    const piece = (start, end, target) => {
      let position = start;
      post.words.forEach(([from, to], index) => {
        if (from < position || from >= end || to === from) return;
        const stop = Math.min(to, end);
        target.append(post.characters.slice(position, from).join(""));
        const word = make("span", { className: "word" }, post.characters.slice(from, stop).join(""));
        word.dataset.word = index;
        target.append(word);
        position = stop;
      });
      target.append(post.characters.slice(position, end).join(""));
    };
    let position = 0;
    for (const [label, start, end, score] of entities) {
      piece(position, start, line);
      const mark = make("mark", score === undefined ? {} : { title: `${label}, score ${score}` });
      mark.dataset.label = label;
      mark.classList.toggle("wrong", wrong.has(`${label} ${start} ${end}`));
      piece(start, end, mark);
      mark.append(make("span", { className: "label" }, label));
      line.append(mark);
      position = end;
    }
    piece(position, post.characters.length, line);
    return line;
  };

  const part = (post, [, start, end]) => `“${post.characters.slice(start, end).join("")}”`;
  const SAID = {
    type: (post, gold, wrong) => `${part(post, gold)} is ${gold[0]}, not ${wrong[0]}`,
    boundary: (post, gold, wrong) => `${part(post, gold)} (${gold[0]}), not ${part(post, wrong)}`,
    missed: (post, gold) => `missed ${part(post, gold)} (${gold[0]})`,
    spurious: (post, _, wrong) => `${part(post, wrong)} is no entity`,
  };

  const figuresOf = (model) => {
    const line = make("p", { className: "figures" });
    if (model.r !== null) line.append(`r ${model.r.toFixed(2)} · `);
    if (model.s_tv === null) return line;
    const value = ` ${model.s_tv.toFixed(3)}, ${model.s_tv_per_word.toFixed(3)} a word`;
    line.append("S", make("sub", {}, "TV"), value);
    return line;
  };

  const pictureOf = (post, index) => {
    const model = post.models[index];
    if (!post.picture) {
      const why = { used: "image left out of this page", none: "no image" };
      const said = why[post.image] ?? `image ${post.image}`;
      return make("p", { className: "absent" }, said);
    }
    const image = make("img", { src: post.picture, alt: "The post's image", loading: "lazy" });
    const picture = make("figure", { className: "picture" }, image);
    picture.dataset.model = index;
    if (model.attention && !model.attention.pieces) {
      const canvas = make("canvas", { width: 224, height: 224 });
      canvas.setAttribute("role", "img");
      picture.append(canvas);
    }
    return picture;
  };

  /** The caption that the model reads in place of the image, piece by piece. */
  const captionOf = (post, index) => {
    const { pieces } = post.models[index].attention ?? {};
    if (!pieces) return null;
    const line = make("p", { className: "pieces" });
    pieces.forEach((piece, number) => {
      if (number && !piece.startsWith("##")) line.append(" ");
      const span = make("span", {}, piece.replace(/^##/, ""));
      Object.assign(span.dataset, { model: index, piece: number });
      line.append(span);
    });
    return line;
  };

  const paneOf = (post, index) => {
    const model = post.models[index];
    const wrong = new Set(model.errors.filter((e) => e[2]).map((e) => e[2].join(" ")));
    const errors = model.errors.map(([kind, gold, f]) => make("li", {}, SAID[kind](post, gold, f)));
    const said = make(
      "div",
      {},
      make("h4", {}, `model ${names[index]}`),
      textOf(post, model.entities, wrong),
      errors.length ? make("ul", { className: "errors" }, ...errors) : null,
      figuresOf(model),
    );
    // A model that reads text alone has no map to show.
    const blind = post.image === "used" && !model.attention;
    if (blind) return make("div", { className: "pane textual" }, said);
    const seen = make("div", {}, pictureOf(post, index), captionOf(post, index));
    return make("div", { className: "pane" }, seen, said);
  };

  const gaugeOf = (post) => {
    const label = post.label === null ? "" : post.label ? ", labelled: adds" : ", labelled: doesn't";
    const unknown = post.image === "used" ? `r not learnt${label}` : label.slice(2);
    if (post.r === null) return make("span", { className: "gauge" }, unknown);
    const says = post.r > 0.5 ? "image adds" : "image doesn't add";
    const bar = make("i", { ariaHidden: "true" });
    bar.style.setProperty("--r", post.r);
    return make("span", { className: "gauge" }, `${says}${label}`, bar, `r ${post.r.toFixed(2)}`);
  };

  const articleOf = (post) => {
    const kind = post.outcome.replace(" ", "-");
    const title = make(
      "h3",
      { id: `post-${post.number}` },
      make("span", { className: `badge ${kind}` }, post.outcome),
      make("b", {}, post.id),
      gaugeOf(post),
    );
    const panes = make("div", { className: names.length > 1 ? "panes two" : "panes" });
    panes.append(...order.map((index) => paneOf(post, index)));
    const article = make("article", { tabIndex: 0 }, title, panes);
    article.setAttribute("aria-labelledby", title.id);
    article.classList.toggle("has-heat", post.models.some((model) => model.attention));
    if (post.gold !== null && post.models.some((model) => model.errors.length)) {
      const gold = textOf(post, post.gold, new Set());
      article.append(make("div", { className: "gold" }, make("h4", {}, "gold"), gold));
    }
    article.addEventListener("pointerover", ({ target }) => {
      const word = target.closest(".word");
      if (word) paint(article, post, Number(word.dataset.word));
    });
    article.addEventListener("pointerout", ({ target }) => {
      if (target.closest(".word")) paint(article, post, null);
    });
    article.addEventListener("keydown", (event) => step(event, article, post));
    paint(article, post, null);
    return article;
  };

  /** Arrow keys walk through the words; before the first and after the last are all of them. */
  const step = (event, article, post) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target !== article || !post.words.length) return;
    event.preventDefault();
    const count = post.words.length + 1;
    const now = article.dataset.word === "" ? post.words.length : Number(article.dataset.word);
    const next = (now + by + count) % count;
    paint(article, post, next === post.words.length ? null : next);
  };

  // ---- Search, filter, sort --------------------------------------------------------------------

  const adds = (post) => (post.label === null ? (post.r === null ? null : post.r > 0.5) : post.label);
  const RELATIONS = {
    adds: (post) => adds(post) === true,
    not: (post) => adds(post) === false,
    disputed: (post) => post.label !== null && post.r !== null && post.label !== post.r > 0.5,
    none: (post) => post.image !== "used",
  };
  const labels = (post) =>
    new Set([...(post.gold ?? []), ...post.models.flatMap((m) => m.entities)].map((e) => e[0]));
  const errorsOf = (post) => post.models.flatMap((model) => model.errors.map((error) => error[0]));
  const wantsError = (post, error) => {
    if (error === "some") return errorsOf(post).length > 0;
    if (error === "no") return errorsOf(post).length === 0;
    return errorsOf(post).includes(error);
  };
  const change = (post) => {
    const [one, other] = post.models.map((model) => model.s_tv);
    return other === undefined || one === null || other === null ? 0 : Math.abs(one - other);
  };
  // A post without the number that is sorted by stands last.
  const by = (number) => (a, b) => (number(a) ?? Infinity) - (number(b) ?? Infinity);
  const minus = (value) => (value === null ? null : -value);
  const SORTS = {
    changed: (a, b) =>
      outcomes.indexOf(a.outcome) - outcomes.indexOf(b.outcome) || change(b) - change(a),
    "r-up": by((post) => post.r),
    "r-down": by((post) => minus(post.r)),
    "s-down": by((post) => minus(post.models[0].s_tv)),
    data: by((post) => post.number),
  };

  const show = () => {
    const next = found.slice(drawn, drawn + PAGE);
    list.append(...next.map(articleOf));
    drawn += next.length;
    more.hidden = drawn >= found.length;
    more.textContent = `Show ${Math.min(PAGE, found.length - drawn)} more`;
  };

  const update = () => {
    const { search, relation, type, outcome, error, sort } = tools.elements;
    const words = search.value.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean);
    found = posts
      .filter((post) => words.every((word) => post.folded.includes(word)))
      .filter((post) => !relation.value || RELATIONS[relation.value](post))
      .filter((post) => !type.value || labels(post).has(type.value))
      .filter((post) => !outcome.value || post.outcome === outcome.value)
      .filter((post) => !error.value || wantsError(post, error.value))
      .sort((a, b) => SORTS[sort.value](a, b) || a.number - b.number);
    document.getElementById("count").textContent = `${found.length} of ${posts.length} posts`;
    list.replaceChildren();
    drawn = 0;
    show();
  };

  const repaint = () => {
    list.querySelectorAll("article").forEach((article, index) => paint(article, found[index], null));
  };

  const options = (select, values) => {
    select.append(...values.map((value) => make("option", { value }, value)));
  };

  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const articles = Array.from(list.children);
    const now = articles.indexOf(document.activeElement.closest("article"));
    const go = (index) => {
      if (index >= articles.length && !more.hidden) show();
      list.children[Math.max(0, Math.min(index, list.children.length - 1))]?.focus();
    };
    const actions = {
      "/": () => tools.elements.search.focus(),
      j: () => go(now + 1),
      k: () => go(now - 1),
      h: () => tools.elements.heat.click(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  };

  // ---- Start -----------------------------------------------------------------------------------

  options(tools.elements.type, [...new Set(posts.flatMap((post) => [...labels(post)]))].sort());
  options(tools.elements.outcome, outcomes.filter((name) => posts.some((p) => p.outcome === name)));
  tools.addEventListener("input", ({ target }) => (target.name === "heat" ? repaint() : update()));
  tools.addEventListener("reset", () => setTimeout(update));
  tools.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = drawn;
    show();
    list.children[first]?.focus();
  });
  document.addEventListener("keydown", keys);
  const switcher = document.querySelector(".switch");
  switcher.addEventListener("change", ({ target }) => (document.body.dataset.measure = target.value));
  document.body.dataset.measure = "s_tv";
  switcher.hidden = false;
  tools.hidden = false;
  update();
})();
