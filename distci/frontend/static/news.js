/**
 * Server-sent events. Of most, no more is taken than the hint that something may have changed: it is then asked for, so that an event more, less or
 * twice does no harm. While there is no stream nothing is hinted at, and whoever wants news asks at intervals.
 *
 * A browser has six connections to a front end (HTTP/1.1), for all of its tabs: a tab has one stream at a time, and none while it is hidden.
 */
import { ROOT } from "./api.js";

const AGAIN_MS = 15_000;
const KINDS = ["build", "change", "gap", "build-begun", "build-ended", "workers", "workers-changed", "queue"];

/** The stream that tells of what is at a path: its build's, else the system's. */
export function streamFor(path) {
    const build = /^\/jobs\/.+\/-\/builds\/[1-9][0-9]*(?=\/|$)/.exec(path);
    return `${build ? build[0] : ""}/events`;
}

/**
 * Opens a stream and calls for each event what its name has, with its document, until the function that it gives is called.
 *
 * A stream that was cut off comes again by itself, behind the last event that was seen; `cut()` is called when that begins, `opened()` when it is
 * there. One that is refused, or that comes to a problem, does not: `closed()`.
 */
export function stream(path, { opened = () => {}, cut = () => {}, closed, ...kinds }) {
    const source = new EventSource(ROOT + path);
    source.onopen = opened;
    source.onerror = () => (source.readyState === EventSource.CLOSED ? closed() : cut());
    for (const [kind, heard] of Object.entries(kinds)) source.addEventListener(kind, (event) => heard(JSON.parse(event.data)));
    source.addEventListener("problem", () => {
        source.close();
        closed();
    });
    return () => source.close();
}

const streams = new Map();

/** Calls `heard()` at each hint until `stop()` is called; `isOpen()` tells whether hints can be expected. Null: somebody else listens, and refreshes. */
export function listen(path, heard) {
    if (path === null) return { isOpen: () => true, stop: () => {} };
    if (!streams.has(path)) streams.set(path, new News(path));
    const found = streams.get(path);
    found.listeners.add(heard);
    return {
        isOpen: () => found.isOpen,
        stop: () => {
            found.listeners.delete(heard);
            if (found.listeners.size) return;
            found.end();
            streams.delete(path);
        },
    };
}

class News {
    constructor(path) {
        this.path = path;
        this.listeners = new Set();
        this.isOpen = false;
        this.onVisible = () => (document.hidden ? this.close() : this.open());
        document.addEventListener("visibilitychange", this.onVisible);
        if (!document.hidden) this.open();
    }

    open() {
        this.close();
        const tell = () => this.tell();
        this.stop = stream(this.path, {
            ...Object.fromEntries(KINDS.map((kind) => [kind, tell])),
            opened: () => {
                this.isOpen = true;
                // What happened before it was open is told to nobody.
                this.tell();
            },
            cut: () => {
                this.isOpen = false;
                this.tell();
            },
            closed: () => {
                this.isOpen = false;
                this.timer = setTimeout(() => this.open(), AGAIN_MS);
            },
            end: () => {
                this.stop();
                this.tell();
            },
        });
    }

    close() {
        clearTimeout(this.timer);
        this.stop?.();
        this.isOpen = false;
    }

    end() {
        this.close();
        document.removeEventListener("visibilitychange", this.onVisible);
    }

    tell() {
        for (const heard of [...this.listeners]) heard();
    }
}
