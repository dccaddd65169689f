/**
 * What the API has at a path, now and whenever it changes.
 *
 * All who watch a path share one watch of it. It asks when the front end hints at news, else at short intervals, showing the tag of what
 * it has: as long as nothing has changed, that costs a few bytes. Nothing is asked while the page is hidden.
 */
import { ask } from "./api.js";
import { useEffect, useState } from "./html.js";
import { listen, streamFor } from "./news.js";

/** Half of what a person may have to wait for news (1 s), so that the way there and the drawing have the other half. */
const INTERVAL_MS = 500;
const INTERVAL_MAX_MS = 5000;

/** Where hints come, this catches what they do not tell of. */
const INTERVAL_WITH_NEWS_MS = 5000;

/** Hints come in crowds: so long one waits for others. */
const CROWD_MS = 50;

const watches = new Map();

/** `{body, problem}` of a path, kept as it stands. `body` stays when it can no longer be asked for; null path: nothing is watched. `stream` hints at news; null: whoever watches calls `refresh`. */
export function useLive(path, stream = streamFor(path || "")) {
    const [state, setState] = useState({ path, body: null, problem: null });
    useEffect(() => {
        if (path === null) return undefined;
        return watch(path, stream, (now) => setState({ path, ...now }));
    }, [path]);
    return state.path === path ? state : { path, body: null, problem: null };
}

/** Calls `tell({body, problem})` now and at each change, until the function that it gives is called. */
function watch(path, stream, tell) {
    if (!watches.has(path)) watches.set(path, new Watch(path, stream));
    const found = watches.get(path);
    found.add(tell);
    return () => {
        if (found.remove(tell)) watches.delete(path);
    };
}

/** Ask at once for what begins with a path: somebody has just changed it. */
export function refresh(prefix = "") {
    for (const [path, found] of watches) if (path.startsWith(prefix)) found.askSoon(0);
}

class Watch {
    constructor(path, stream) {
        this.path = path;
        this.listeners = new Set();
        this.now = { body: null, problem: null };
        this.etag = "";
        this.failures = 0;
        this.isAsking = false;
        this.timer = 0;
        this.onVisible = () => document.hidden || this.askSoon(0);
        document.addEventListener("visibilitychange", this.onVisible);
        this.news = listen(stream, () => this.askSoon(CROWD_MS));
        this.askSoon(0);
    }

    add(tell) {
        this.listeners.add(tell);
        if (this.now.body || this.now.problem) tell(this.now);
    }

    /** Whether that was the last. */
    remove(tell) {
        this.listeners.delete(tell);
        if (this.listeners.size) return false;
        clearTimeout(this.timer);
        this.news.stop();
        document.removeEventListener("visibilitychange", this.onVisible);
        return true;
    }

    /** In so many milliseconds, unless it will be sooner anyway: a crowd of hints must not put it off for ever. */
    askSoon(delay_ms) {
        const due = performance.now() + delay_ms;
        if (this.timer && this.due <= due) return;
        clearTimeout(this.timer);
        this.due = due;
        this.timer = setTimeout(() => this.ask(), delay_ms);
    }

    async ask() {
        this.timer = 0;
        if (this.isAsking) {
            // What is under way may have been answered before the change.
            this.isStale = true;
            return;
        }
        this.isAsking = true;
        try {
            const answer = await ask(this.path, { etag: this.etag });
            this.failures = 0;
            this.etag = answer.etag;
            if (answer.status !== 304) this.tell({ body: answer.body, problem: null });
            else if (this.now.problem) this.tell({ ...this.now, problem: null });
        } catch (problem) {
            this.failures += 1;
            if (this.now.problem?.message !== problem.message) this.tell({ ...this.now, problem });
        }
        this.isAsking = false;
        if (!this.listeners.size) return;
        const soon = this.isStale;
        this.isStale = false;
        if (soon) this.askSoon(0);
        else if (!document.hidden) this.askSoon(this.interval());
    }

    interval() {
        if (this.failures) return Math.min(INTERVAL_MS * 2 ** this.failures, INTERVAL_MAX_MS);
        // A build that is over changes no more.
        return this.now.body?.is_archived || this.news.isOpen() ? INTERVAL_WITH_NEWS_MS : INTERVAL_MS;
    }

    tell(now) {
        this.now = now;
        for (const tell of [...this.listeners]) tell(now);
    }
}
