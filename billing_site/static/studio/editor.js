/**
 * The editor of a draft. Its state is the version document: controls write into it, and it is posted whole. Whether it is valid, what the
 * linter says, and how it reads in words, the server is asked while one types.
 */

import { addLicence, addMeter, showCharges } from "./charges.js";
import { bind, say } from "./fields.js";
import { focusAt, showFaults, showFindings } from "./notes.js";
import { featuresText, showFeatures } from "./rows.js";

const PAUSE_MS = 500;

class Editor {
  constructor(form, state) {
    this.form = form;
    this.state = state;
    this.document = state.document;
    this.features = state.features;
    this.isDirty = state.isUnsaved;
    this.asked = 0;
    this.edited = this.edited.bind(this);
    this.reshaped = this.reshaped.bind(this);
  }

  start() {
    for (const section of this.form.querySelectorAll("[data-terms]")) {
      const name = section.dataset.terms;
      const target = name ? (this.document[name] ??= {}) : this.document;
      bind(section, target, name, (member) => (member === "currency" ? this.reshaped(null) : this.edited()));
    }
    this.show();
    this.listen();
    showFaults(this.form, this.state.faults);
    if (this.state.faults.length) this.form.querySelector("#to-mend").focus();
    this.check(this.state.faults.length > 0);
    window.addEventListener("load", () => this.tell());
  }

  /** What the controls of a price need to know of the whole. */
  context() {
    return { state: this.state, currency: this.document.currency, edited: this.edited, reshaped: this.reshaped };
  }

  show() {
    showCharges(this.form.querySelector("#charges"), this);
    showFeatures(this.form.querySelector("#features"), this.features, this.edited);
    for (const section of this.form.querySelectorAll("[data-terms]")) say(section, { currency: this.document.currency });
  }

  listen() {
    const on = (id, act) => document.getElementById(id).addEventListener("click", act);
    on("add-meter", () => this.reshaped(addMeter(this, document.getElementById("new-meter").value)));
    on("add-licence", () => this.reshaped(addLicence(this)));
    on("add-feature", () => {
      this.features.push({ code: "", kind: "flag", value: true });
      this.reshaped(null);
      this.form.querySelector("#features .row:last-child input").focus();
    });
    this.form.addEventListener("submit", () => {
      this.form.elements.document.value = this.text();
      this.isDirty = false;
    });
    window.addEventListener("beforeunload", (event) => {
      if (this.isDirty) event.preventDefault();
    });
  }

  /** A value has changed. */
  edited() {
    this.isDirty = true;
    this.tell();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), PAUSE_MS);
  }

  /** Something was added, removed or moved: show all anew, and go on at a place. */
  reshaped(path) {
    this.show();
    focusAt(this.form, path);
    this.edited();
  }

  /** Tell the rest of the page. */
  tell() {
    const features = Object.fromEntries(this.features.map(({ code, kind, value }) => [code, kind === "number" ? Number(value) : value]));
    document.dispatchEvent(new CustomEvent("studio:document", { detail: { document: { ...this.document, features } } }));
  }

  /** Return the document as JSON. */
  text() {
    const members = Object.entries(this.document).filter(([, value]) => value !== undefined);
    const written = members.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
    return `{${[...written, `"features":${featuresText(this.features)}`].join(",")}}`;
  }

  /** Ask the server what it thinks; of several answers under way, the newest question's counts. */
  async check(isRefused = false) {
    const number = (this.asked += 1);
    const status = document.getElementById("state");
    const answer = await this.ask();
    if (number !== this.asked) return;
    if (answer === null) {
      status.textContent = "Could not be checked just now; it will be when you save.";
      return;
    }
    if (!isRefused || answer.errors.length) showFaults(this.form, answer.errors);
    if (answer.errors.length) {
      status.textContent = answer.errors.length === 1 ? "One thing is to be mended." : `${answer.errors.length} things are to be mended.`;
      return;
    }
    showFindings(this.form, answer.findings);
    showWords(answer.terms);
    status.textContent = this.isDirty ? "Not saved yet. Nothing is to be mended." : "Saved. Nothing is to be mended.";
  }

  async ask() {
    try {
      const response = await fetch(this.form.dataset.check, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRFToken": this.form.elements.csrfmiddlewaretoken.value },
        body: `{"document":${this.text()}}`,
      });
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  }
}

function showWords(terms) {
  document.getElementById("words").replaceChildren(...terms.flatMap(({ label, value }) => {
    const [name, words] = [document.createElement("dt"), document.createElement("dd")];
    name.textContent = label;
    words.textContent = value;
    return [name, words];
  }));
}

const form = document.getElementById("editor");
new Editor(form, JSON.parse(document.getElementById("editor-state").textContent)).start();
