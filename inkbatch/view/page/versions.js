// Label versions: a list of them, branch, switch, compare and export.

const $ = (id) => document.getElementById(id);
const area = (cm2) => `${cm2 >= 0.1 || cm2 === 0 ? Number(cm2.toFixed(2)) : Number(cm2.toPrecision(2))} cm²`;
const NAMES = { ink: "ink", not_ink: "not ink", ignore: "ignored", supervision: "supervised", unlabelled: "unlabelled" };

export class Versions {
  constructor(editor) {
    this.editor = editor;
    $("version").addEventListener("change", ({ target }) => this.change("switch", target.value));
    $("branch").addEventListener("click", () => this.change("branch", this.name));
    $("against").addEventListener("change", ({ target }) => this.compare(target.value));
    $("export").addEventListener("click", () => this.export($("export-as").value, editor.settings.layer));
  }

  get name() { return this.editor.link.session?.version; }

  open(found) {
    const options = (first = []) => [...first, ...found.versions.toReversed().map((one) => new Option(`${one.name} · ${one.author || "no name"} · ${area(one.cm2.ink)} ink`, one.name))];
    $("version").replaceChildren(...options());
    $("version").value = found.version;
    $("against").replaceChildren(...options([new Option("Nothing", "")]));
    const own = found.versions.find((one) => one.name === found.version);
    const from = found.parent ?? found.started_from;
    $("version-says").textContent = own ? `${own.author || "no name"}, ${own.time?.slice(0, 16).replace("T", " ") ?? ""}${from ? ` · started from ${from}` : ""}` : "";
    Object.assign($("version-outdated"), { textContent: found.outdated, hidden: !found.outdated });
    $("difference-says").replaceChildren();
    if (found.outdated) this.editor.view.say(found.outdated);
  }

  async change(action, from) {
    const { link, view } = this.editor;
    if (link.unsaved) {
      $("version").value = this.name;
      return view.say("Strokes are not saved yet: change the version when they are.");
    }
    const { group } = link.session;
    try {
      const found = await link.json(`${group}/version`, { tab: link.tab, action, from });
      this.editor.adopt(group, found);
      view.say(action === "branch" ? `${found.version} starts with what ${from} holds; you now paint into it.` : `You now paint into ${found.version}.`);
    } catch (error) {
      $("version").value = this.name;
      view.say(error.message);
    }
  }

  async compare(other) {
    const { editor } = this, { link, view } = editor;
    editor.marked = [];
    $("difference-says").replaceChildren();
    try {
      if (other) this.told(await link.json(`${link.session.group}/compare?${new URLSearchParams({ one: other, other: this.name })}`), other);
    } catch (error) {
      view.say(error.message);
    }
    editor.redraw();
  }

  told(found, other) {
    this.editor.marked = found.changed_tiles;
    const [before, now] = [found.cm2[other], found.cm2[this.name]];
    const rows = Object.keys(NAMES).map((name) => {
      const row = document.createElement("tr");
      row.append(...[NAMES[name], area(before[name]), area(now[name])].map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    });
    const head = document.createElement("tr");
    head.append(...["", other, this.name].map((text) => Object.assign(document.createElement("th"), { textContent: text, scope: "col" })));
    $("difference-says").replaceChildren(head, ...rows);
    if (!found.changed_tiles.length) this.editor.view.say(`${other} and ${this.name} hold the same labels.`);
  }

  // The token travels in a header, so that the file cannot be a plain link.
  async export(as, layer) {
    const { link, view } = this.editor, { group, version } = link.session;
    $("export").disabled = true;
    try {
      const answer = await link.ask(`${group}/export?${new URLSearchParams({ version, as, layer })}`);
      const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1];
      const url = URL.createObjectURL(await answer.blob());
      Object.assign(document.createElement("a"), { href: url, download: named ?? `${view.group().segment}-${version}-${layer}.${as}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    } catch (error) {
      view.say(error.message);
    }
    $("export").disabled = false;
  }
}
