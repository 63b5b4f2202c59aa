// SFT Lab: two language models, their tokenizer and a loss mask, in plain JavaScript.
//
//     text --Tokenizer.encode--> ids --Llama.forward--> logits --pick--> the next id, and again
//
// Weights and vocabulary are in living-base.js, living-tuned.js and living-tokenizer.js beside this
// file. They are scripts because a page that is opened from disk may not fetch other files.
"use strict";

(() => {
  if (window.sftlab) return; // a page with two of these boxes links the script twice
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  const loading = {};

  /** What the script `living-NAME.js` defines; it is read once, when it is first needed. */
  function load(name) {
    loading[name] ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${folder}living-${name}.js`;
      script.onload = () => resolve(window.sftlab_models[name]);
      script.onerror = () => reject(new Error(`living-${name}.js could not be read; is it there?`));
      document.head.append(script);
    });
    return loading[name];
  }

  // ---------------------------------------------------------------- tokenizer: byte-level BPE

  // A byte that is no visible character is written as one from 256 on: a space is "Ġ".
  const BYTES = [];
  for (let byte = 0, next = 256; byte < 256; byte++) {
    const visible = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    BYTES.push(String.fromCharCode(visible ? byte : next++));
  }
  const BYTE_OF = new Map(BYTES.map((character, byte) => [character, byte]));

  // Merges do not cross the ends of these pieces: a word with the space before it, a single digit,
  // punctuation, white space. The expression is GPT-2's, with a cut before and after each digit.
  const PIECES = new RegExp(
    "'(?:s|t|re|ve|m|ll|d)| ?\\p{L}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+|\\p{N}" +
      "|\\p{White_Space}+(?![^\\p{White_Space}\\p{N}])|\\p{White_Space}+",
    "gu",
  );

  class Tokenizer {
    constructor({ vocabulary, merges, special }) {
      this.tokens = vocabulary; // id -> token
      this.ids = new Map(vocabulary.map((token, id) => [token, id]));
      this.ranks = new Map(merges.map((pair, rank) => [pair, rank])); // "a b" -> its turn
      this.special = new Set(special); // tokens that are never cut, such as <|im_end|>
      const longestFirst = [...special].sort((a, b) => b.length - a.length);
      const literal = longestFirst.map((token) => token.replace(/\W/g, "\\$&"));
      this.cuts = new RegExp(`(${literal.join("|")})`);
    }

    /** A list of {id, start, end}: the token's characters are text.slice(start, end). */
    encode(text) {
      const found = [];
      let at = 0;
      for (const part of text.split(this.cuts)) {
        const end = at + part.length;
        if (this.special.has(part)) found.push({ id: this.ids.get(part), start: at, end });
        else for (const { 0: piece, index } of part.matchAll(PIECES)) {
          found.push(...this.merge(piece, at + index));
        }
        at = end;
      }
      return found;
    }

    merge(piece, at) {
      // A character has up to four bytes, and a token may hold a part of them.
      const parts = [], starts = [], ends = [];
      for (const character of piece) {
        for (const byte of new TextEncoder().encode(character)) {
          parts.push(BYTES[byte]);
          starts.push(at);
          ends.push(at + character.length);
        }
        at += character.length;
      }
      // Join the neighbors whose merge was learned first, until no neighbors have one.
      for (;;) {
        let best = Infinity, where = -1;
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
          if (rank < best) [best, where] = [rank, i];
        }
        if (where < 0) break;
        parts.splice(where, 2, parts[where] + parts[where + 1]);
      }
      let [first, next] = [0, 0]; // bytes
      return parts.map((token) => {
        [first, next] = [next, next + token.length];
        return { id: this.ids.get(token), start: starts[first], end: ends[next - 1] };
      });
    }

    /** A function from the next id to the text that it adds: none within a character. */
    decoder() {
      const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
      const bytes = (id) => Uint8Array.from(this.tokens[id], (one) => BYTE_OF.get(one));
      return (id) => utf8.decode(bytes(id), { stream: true });
    }
  }

  /** ChatML: what the tuned model was trained on. */
  function chatml(messages, addGenerationPrompt = false) {
    const turn = ({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`;
    return messages.map(turn).join("") + (addGenerationPrompt ? "<|im_start|>assistant\n" : "");
  }

  /** Ids and labels of a conversation. -100 is ignored by the loss; labels are not shifted. */
  function mask(tokenizer, messages, everything = false) {
    const spans = []; // of the answers with their <|im_end|>, in characters
    messages.forEach(({ role, content }, n) => {
      const start = chatml(messages.slice(0, n), true).length;
      const end = start + content.length + "<|im_end|>".length;
      // As in the course's own masks, an empty answer teaches nothing, not even its end.
      if (role === "assistant" && content) spans.push({ start, end });
    });
    const text = chatml(messages);
    return tokenizer.encode(text).map(({ id, start, end }) => {
      const learned = everything || spans.some((span) => end > span.start && start < span.end);
      return { id, start, end, text: text.slice(start, end), label: learned ? id : -100 };
    });
  }

  // ---------------------------------------------------------------- model: a Llama

  function decodeBase64(text, Type) {
    const characters = atob(text);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return new Type(bytes.buffer);
  }

  /** A vector; or a matrix, row by row: integers of 16 bits, and for each row their unit. */
  function readTensor({ units, values }) {
    if (!units) return decodeBase64(values, Float32Array);
    return { units: decodeBase64(units, Float32Array), values: decodeBase64(values, Int16Array) };
  }

  /** The product of a matrix and a vector, whose length is a multiple of 4. */
  function multiply({ units, values }, vector) {
    const product = new Float32Array(units.length);
    for (let row = 0, at = 0; row < units.length; row++, at += vector.length) {
      // Four sums, as a processor works on several at once: a half faster.
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let i = 0; i < vector.length; i += 4) {
        a += values[at + i] * vector[i];
        b += values[at + i + 1] * vector[i + 1];
        c += values[at + i + 2] * vector[i + 2];
        d += values[at + i + 3] * vector[i + 3];
      }
      product[row] = (a + b + c + d) * units[row];
    }
    return product;
  }

  const add = (vector, other) => other.forEach((value, i) => (vector[i] += value));
  const silu = (x) => x / (1 + Math.exp(-x));

  /** RMSNorm: divided by the root of the mean square, times learned weights. */
  function normalize(vector, weights, epsilon) {
    const square = vector.reduce((sum, x) => sum + x * x, 0) / vector.length;
    const factor = 1 / Math.sqrt(square + epsilon);
    return vector.map((x, i) => x * factor * weights[i]);
  }

  function softmax(scores) {
    const highest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const shares = scores.map((score) => Math.exp(score - highest));
    const sum = shares.reduce((a, b) => a + b, 0);
    return shares.map((share) => share / sum);
  }

  class Llama {
    constructor({ config, tensors, stops }) {
      this.config = config;
      this.stops = stops; // ids that end a text or a turn
      this.weights = {};
      for (const name in tensors) this.weights[name] = readTensor(tensors[name]);
      this.reset();
    }

    reset() {
      // The KV cache: keys and values of the tokens so far, of each layer, one after another.
      const size = this.config.positions * this.config.keyValueHeads * this.config.headWidth;
      const empty = () => ({ keys: new Float32Array(size), values: new Float32Array(size) });
      this.cache = Array.from({ length: this.config.layers }, empty);
      this.length = 0;
    }

    /** Read the next token. Returns the logits of the one after it, unless nobody needs them. */
    forward(id, wanted = true) {
      const { weights, config } = this;
      const position = this.length++;
      const embeddings = weights["embed_tokens"];
      const row = embeddings.values.subarray(id * config.width, (id + 1) * config.width);
      const state = Float32Array.from(row, (value) => value * embeddings.units[id]);
      for (let layer = 0; layer < config.layers; layer++) {
        const own = (name) => weights[`layers.${layer}.${name}`];
        const { keys, values } = this.cache[layer];

        // Attention: look at the tokens so far.
        let input = normalize(state, own("input_layernorm"), config.epsilon);
        const query = this.rotate(multiply(own("self_attn.q_proj"), input), position);
        const key = this.rotate(multiply(own("self_attn.k_proj"), input), position);
        keys.set(key, position * key.length);
        values.set(multiply(own("self_attn.v_proj"), input), position * key.length);
        const seen = this.attend(query, keys, values, position);
        add(state, multiply(own("self_attn.o_proj"), seen));

        // MLP: what follows from them.
        input = normalize(state, own("post_attention_layernorm"), config.epsilon);
        const gate = multiply(own("mlp.gate_proj"), input).map(silu);
        const up = multiply(own("mlp.up_proj"), input);
        add(state, multiply(own("mlp.down_proj"), gate.map((x, i) => x * up[i])));
      }
      // The embeddings are tied: the same rows give the input and score the output.
      return wanted && multiply(embeddings, normalize(state, weights["norm"], config.epsilon));
    }

    /** RoPE: turn each pair of numbers of a head by an angle that grows with the position. */
    rotate(vector, position) {
      const { headWidth, theta } = this.config;
      const half = headWidth / 2;
      for (let head = 0; head < vector.length; head += headWidth) {
        for (let i = 0; i < half; i++) {
          const angle = position * theta ** (-i / half);
          const [a, b] = [vector[head + i], vector[head + i + half]];
          vector[head + i] = a * Math.cos(angle) - b * Math.sin(angle);
          vector[head + i + half] = b * Math.cos(angle) + a * Math.sin(angle);
        }
      }
      return vector;
    }

    attend(query, keys, values, position) {
      const { heads, keyValueHeads, headWidth } = this.config;
      const seen = new Float32Array(query.length);
      for (let head = 0; head < heads; head++) {
        // Grouped-query attention: several heads may share the keys and values of one.
        const shared = Math.floor((head * keyValueHeads) / heads) * headWidth;
        const own = head * headWidth;
        const at = (token) => token * keyValueHeads * headWidth + shared;
        const scores = new Float32Array(position + 1);
        for (let token = 0; token <= position; token++) {
          let sum = 0;
          for (let i = 0; i < headWidth; i++) sum += query[own + i] * keys[at(token) + i];
          scores[token] = sum / Math.sqrt(headWidth);
        }
        softmax(scores).forEach((share, token) => {
          for (let i = 0; i < headWidth; i++) seen[own + i] += share * values[at(token) + i];
        });
      }
      return seen;
    }
  }

  // ---------------------------------------------------------------- generation

  /** Random numbers from 0 to 1 that follow from the seed (mulberry32, public domain). */
  function randomNumbers(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** Temperature 0 takes the most probable token; a higher one draws, and flattens the odds. */
  function pick(logits, temperature, random) {
    if (!temperature) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b), -Infinity));
    let left = random();
    const shares = softmax(logits.map((logit) => logit / temperature));
    const found = shares.findIndex((share) => (left -= share) < 0);
    return found < 0 ? shares.length - 1 : found; // rounding may leave a little
  }

  /** The tokens that follow the prompt: {id, probability, rivals: [[id, probability], ...]}. */
  function* generate(model, prompt, { temperature = 0, seed = 0, maxNewTokens = 32 } = {}) {
    const room = model.config.positions - prompt.length;
    if (room < 1) throw new Error(`The model reads ${model.config.positions} tokens: shorten it.`);
    const random = randomNumbers(seed);
    model.reset();
    let logits;
    prompt.forEach((id, i) => (logits = model.forward(id, i === prompt.length - 1)));
    for (let count = Math.min(room, maxNewTokens); count > 0; count--) {
      const id = pick(logits, temperature, random);
      const shares = softmax(logits);
      const others = [...shares.keys()].filter((one) => one !== id);
      const rivals = others.sort((a, b) => shares[b] - shares[a]).slice(0, 3);
      yield { id, probability: shares[id], rivals: rivals.map((one) => [one, shares[one]]) };
      if (model.stops.includes(id)) return;
      if (count > 1) logits = model.forward(id);
    }
  }

  window.sftlab = { load, Tokenizer, Llama, chatml, mask, generate };

  // ---------------------------------------------------------------- the boxes on the page

  const MARKS = { " ": "·", "\n": "⏎", "\ufffd": "▫" };
  const shown = (text) => text.replace(/[ \n\ufffd]/g, (one) => MARKS[one]) || "▫";
  const percent = (share) => (share < 0.0005 ? "<0.1%" : `${(share * 100).toFixed(1)}%`);

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const name in attributes) made.setAttribute(name, attributes[name]);
    return made;
  }

  const addRow = (table, cells) =>
    table.insertRow().append(...cells.map((cell) => element("td", cell)));

  const models = {}, running = {};

  /** Let a model go on from a prompt, in its pane, one token after another. */
  async function answer(pane, which, prompt, options) {
    const [text, state, table] = [".text", ".state", "tbody"].map((one) => pane.querySelector(one));
    const run = (running[which] = {}); // a later question ends this one
    text.setAttribute("aria-busy", "true");
    text.replaceChildren(element("span", prompt, { class: "prompt" }));
    table.replaceChildren();
    state.textContent = "Reading the weights …";
    try {
      const tokenizer = new Tokenizer(await load("tokenizer"));
      models[which] ??= new Llama(await load(which));
      const ids = tokenizer.encode(prompt).map((token) => token.id);
      const [decode, name] = [tokenizer.decoder(), (id) => shown(tokenizer.decoder()(id))];
      let [count, id, busy] = [0, -1, 0];
      const tokens = generate(models[which], ids, options);
      for (;;) {
        if (running[which] !== run) return; // its KV cache is another's now
        const begun = performance.now();
        const { value: token, done } = tokens.next();
        busy += performance.now() - begun;
        if (done) break;
        [count, id] = [count + 1, token.id];
        const rivals = token.rivals.map(([one, p]) => `${name(one)} ${percent(p)}`).join(", ");
        const title = `${percent(token.probability)} (id ${id}); next best: ${rivals}`;
        const special = tokenizer.special.has(tokenizer.tokens[id]) ? " special" : "";
        text.append(element("span", decode(id), { class: `token${special}`, title }));
        addRow(table, [name(id), id, percent(token.probability), rivals]);
        await new Promise((resolve) => setTimeout(resolve)); // let the page show it
      }
      const end = models[which].stops.includes(id)
        ? `It stopped with ${tokenizer.tokens[id]}.` : "It was cut off here; it would go on.";
      const speed = ((1000 * (ids.length + count)) / busy).toFixed(0);
      state.textContent = `${count} tokens, ${ids.length} of the prompt, ${speed} a second. ${end}`;
    } catch (error) {
      state.textContent = error.message;
    }
    text.setAttribute("aria-busy", "false");
  }

  const FORMS = {
    alone: (question) => `<|endoftext|>${question}`, // as a document of pretraining begins
    marked: (question) => `<|endoftext|>Q: ${question}\nA:`,
    chat: (question) => chatml([{ role: "user", content: question }], true),
  };

  function startAsk(box) {
    const form = box.querySelector("form");
    const { question, reads, temperature, seed } = form.elements;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const options = { temperature: Number(temperature.value), seed: Number(seed.value) };
      const asked = event.submitter?.value ?? "both";
      for (const which of ["base", "tuned"].filter((one) => [one, "both"].includes(asked))) {
        const prompt = FORMS[which === "tuned" ? "chat" : reads.value](question.value);
        await answer(box.querySelector(`.pane.${which}`), which, prompt, options);
      }
    });
    form.addEventListener("click", ({ target }) => {
      if (!target.matches(".example")) return;
      question.value = target.textContent;
      question.focus();
    });
  }

  async function startMask(box) {
    const [form, turns] = [box.querySelector("form"), box.querySelector(".turns")];
    const [text, state, table] = [".text", ".state", "tbody"].map((one) => box.querySelector(one));
    let tokenizer;
    try {
      tokenizer = new Tokenizer(await load("tokenizer"));
    } catch (error) {
      state.textContent = error.message;
      return;
    }

    function show() {
      const messages = [...turns.children].map((turn) => ({
        role: turn.querySelector("select").value,
        content: turn.querySelector("textarea").value,
      }));
      const tokens = mask(tokenizer, messages, form.elements.loss.value === "everything");
      text.replaceChildren();
      table.replaceChildren();
      let covered = 0; // of a character in several tokens the first one shows it
      for (const { id, text: own, end, label } of tokens) {
        const special = tokenizer.special.has(tokenizer.tokens[id]) ? " special" : "";
        const kind = label < 0 ? "ignored" : "supervised";
        const piece = shown(end > covered ? own : "");
        const attributes = { class: `token${special}`, title: `id ${id}, label ${label}, ${kind}` };
        text.append(element(label < 0 ? "span" : "mark", piece, attributes));
        if (own.includes("\n")) text.append(document.createElement("br"));
        addRow(table, [piece, id, label, kind]);
        covered = Math.max(covered, end);
      }
      const count = tokens.filter(({ label }) => label >= 0).length;
      state.textContent = `${count} of ${tokens.length} tokens are supervised.` +
        (count ? "" : " A model would learn nothing from this conversation.");
    }

    form.addEventListener("input", show);
    form.addEventListener("click", ({ target }) => {
      if (target.matches(".remove")) {
        target.closest(".turn").remove();
        box.querySelector(".add").focus();
      } else if (target.matches(".add")) {
        const added = box.querySelector("template").content.firstElementChild.cloneNode(true);
        turns.append(added);
        const before = added.previousElementSibling?.querySelector("select").value;
        added.querySelector("select").value = before === "user" ? "assistant" : "user";
        added.querySelector("textarea").focus();
      } else return;
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
  }

  for (const box of document.querySelectorAll(".living")) {
    box.querySelector(".works").hidden = false;
    box.querySelector(".without").remove();
    (box.dataset.kind === "ask" ? startAsk : startMask)(box);
  }
})();
