// Connection to the label editor: strokes go one after the other, and wait here while the server is away.

const SEEN_EVERY_MS = 3000;
const LONGEST_WAIT_MS = 5000;
const AWAY = new Set([403, 502, 503, 504]); // the stroke may be taken later

export class Refused extends Error {
  constructor(status, body) {
    super(body.error ?? `status ${status}`);
    this.status = status;
    this.tiles = body.tiles ?? [];
  }
}

// The token comes with the address, once; it leaves the address bar and goes to the other tabs of this server. A page
// that a link opened has none: it asks the other tabs, which only pages of this origin can.
const ALONE_MS = 1000;
const channel = new BroadcastChannel("inkbatch-token");
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  if (token) {
    given.delete("token");
    history.replaceState(null, "", given.size ? `#${given.toString().replaceAll("%2C", ",")}` : location.pathname);
    sessionStorage.setItem("inkbatch-token", token);
    channel.postMessage({ token });
  }
  return token ?? sessionStorage.getItem("inkbatch-token");
}

// The token of another tab, now or once one gets it; `alone` is called where none answers at first.
export function tokenOfTabs(alone) {
  return new Promise((found) => {
    const late = setTimeout(alone, ALONE_MS);
    channel.onmessage = ({ data: { token } }) => {
      if (!token) return;
      clearTimeout(late);
      sessionStorage.setItem("inkbatch-token", token);
      found(token);
    };
    channel.postMessage({ asks: true });
  });
}

// A tab's own name. It survives a reload, so that undo goes on; a duplicated tab takes another one.
export async function tabName() {
  const held = (name) => new Promise((answer) => {
    navigator.locks.request(`inkbatch-tab-${name}`, { ifAvailable: true }, (lock) => {
      answer(Boolean(lock));
      return lock ? new Promise(() => {}) : undefined;
    });
  });
  const own = sessionStorage.getItem("inkbatch-tab");
  for (let tries = 0; own && tries < 4; tries += 1) { // the page that is being left may hold it for a moment
    if (await held(own)) return own;
    await new Promise((resolve) => { setTimeout(resolve, 80); });
  }
  const fresh = crypto.randomUUID();
  sessionStorage.setItem("inkbatch-tab", fresh);
  await held(fresh);
  return fresh;
}

const pause = (ms, link) => new Promise((resolve) => { link.wake = resolve; setTimeout(resolve, ms); });

export class Link {
  // `events`: changed() when what is told may differ; applied(item, answer); refused(item, error); stale(session, answer).
  constructor(token, tab, events) {
    Object.assign(this, { token, tab, events, waiting: [], others: [], trouble: "", session: null, busy: false });
    channel.onmessage = ({ data }) => (data.asks ? this.lend() : this.renew(data.token));
    setInterval(() => this.see(), SEEN_EVERY_MS);
    addEventListener("beforeunload", (event) => this.unsaved && event.preventDefault());
  }

  renew(token) {
    this.token = token;
    sessionStorage.setItem("inkbatch-token", token);
    this.wake?.();
    this.see();
  }

  // Only a token that the server takes is worth handing on.
  async lend() {
    const { token, session } = this;
    if (session && await this.describe(session.group).then(() => true, () => false)) channel.postMessage({ token });
  }

  async ask(path, body) {
    const headers = { "X-Inkbatch-Token": this.token, ...(body ? { "Content-Type": "application/json" } : {}) };
    const answer = await fetch(`/edit/${path}`, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), cache: "no-store" });
    if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
    return answer;
  }

  async json(path, body) { return (await this.ask(path, body)).json(); }

  describe(group, version) {
    return this.json(`${group}?${new URLSearchParams({ tab: this.tab, ...(version ? { version } : {}) })}`);
  }

  // A version that is painted into: `last` is this tab's newest number there, `base` the newest revision that it shows.
  begin(group, found) {
    this.session = { group, version: found.version, last: found.seq, base: found.revision, unsaved: [] };
    if (!this.restored) this.restore();
    this.see();
    this.pump();
  }

  // Strokes that wait survive a reload, and a browser that opens its tabs again after a crash.
  keep() {
    const kept = this.waiting.map(({ op, base, seq, session: { group, version } }) => ({ op, base, seq, group, version }));
    try {
      sessionStorage.setItem("inkbatch-waiting", JSON.stringify(kept));
    } catch { /* too many for it: they wait in the page alone */ }
  }

  restore() {
    this.restored = true;
    const sessions = [this.session];
    for (const { group, version, ...item } of JSON.parse(sessionStorage.getItem("inkbatch-waiting") ?? "[]")) {
      let session = sessions.find((one) => one.group === group && one.version === version);
      if (!session) sessions.push(session = { group, version, base: item.base, unsaved: [] });
      session.doubtful = true;
      this.waiting.push({ ...item, session, at: performance.now(), restored: true });
    }
  }

  get unsaved() { return this.waiting.length + (this.session?.unsaved.length ?? 0); }

  send(op) {
    const item = { op, session: this.session, base: this.session.base, at: performance.now() };
    this.waiting.push(item);
    this.keep();
    this.events.changed();
    this.pump();
    return item;
  }

  async pump() {
    if (this.busy) return;
    this.busy = true;
    for (let wait = 250; this.waiting.length;) {
      const item = this.waiting[0];
      try {
        await this.deliver(item);
        this.trouble = "";
        wait = 250;
      } catch (error) {
        if (!(error instanceof Refused) || AWAY.has(error.status)) {
          this.away(error);
          await pause(wait, this);
          wait = Math.min(LONGEST_WAIT_MS, wait * 2);
        } else this.turnedDown(item, error);
      }
      this.keep();
      this.events.changed();
    }
    this.busy = false;
  }

  async deliver(item) {
    const { session, op, base } = item;
    if (session.doubtful) await this.resume(session);
    const first = this.waiting[0]; // strokes that a crash of the server took are sent again before it
    if (first !== item) return;
    if (item.restored && item.seq <= session.last) return void this.waiting.shift(); // it had arrived before the reload
    const { group, version } = session;
    item.seq = session.last + 1;
    this.keep();
    const answer = await this.json(`${group}/op`, { tab: this.tab, seq: item.seq, base, version, op });
    this.waiting.shift();
    session.last = item.seq;
    item.revision = answer.revision;
    session.unsaved = [...session.unsaved, item].filter((one) => one.revision > answer.saved);
    if (answer.revision === session.base + 1) session.base = answer.revision;
    this.events.applied(item, answer);
  }

  // A number out of turn is tried again once, after asking for the right one; any other refusal stands.
  turnedDown(item, error) {
    const { session } = item, isOutOfTurn = error.status === 409 && !error.tiles.length && !item.again;
    session.doubtful = true;
    if (isOutOfTurn) {
      item.again = true;
      session.last = undefined;
      return;
    }
    this.waiting.shift();
    this.events.refused(item, error);
  }

  async resume(session) {
    const found = await this.describe(session.group, session.version);
    const lost = session.unsaved.filter((item) => item.seq > found.seq);
    session.unsaved = session.unsaved.filter((item) => item.seq <= found.seq && item.revision > found.saved);
    if (session.last === undefined || found.seq < session.last) session.last = found.seq;
    this.waiting.unshift(...lost);
    session.doubtful = false;
  }

  away(error) {
    if (this.session) this.session.doubtful = true;
    for (const item of this.waiting) item.session.doubtful = true;
    this.trouble = error instanceof Refused && error.status === 403 ? "The server was started again: open the address that it printed." : error instanceof Refused ? error.message : "The server does not answer.";
    this.events.changed();
  }

  // Tell the server that this tab is there, and hear what others painted.
  async see() {
    const { session } = this;
    if (!session || this.seeing) return;
    this.seeing = true;
    try {
      if (session.doubtful && !this.busy) await this.resume(session);
      const found = await this.json(`${session.group}/seen`, { tab: this.tab, version: session.version, revision: session.base });
      if (!this.busy || this.trouble === "") this.trouble = found.trouble;
      this.others = found.tabs.filter((one) => one.tab !== this.tab);
      session.unsaved = session.unsaved.filter((item) => item.revision > found.saved);
      if (found.changed.length || found.box) await this.events.stale(session, found);
      session.base = Math.max(session.base, found.revision);
      if (this.waiting.length) this.wake?.();
      this.pump();
    } catch (error) {
      if (!this.busy) this.away(error);
    }
    this.seeing = false;
    this.events.changed();
  }
}
