/**
 * Hints that something may have changed, as server-sent events. What has changed is then asked for, so that an event more, less or twice
 * does no harm. Where a front end has no such stream, nothing is hinted at, and whoever wants news asks at intervals.
 *
 * A browser has six connections to a front end (HTTP/1.1), for all of its tabs: a tab has one stream at a time, and none while it is hidden.
 */
import { ROOT } from "./api.js";

const AGAIN_MS = 15_000;
const KINDS = ["build", "change", "end", "build-begun", "build-ended", "workers", "workers-changed", "queue"];

/** The stream that tells of what is at a path: its build's, else the system's. None for logs, whose stream would be all of their bytes. */
export function streamFor(path) {
    const build = /^\/jobs\/.+\/-\/builds\/[1-9][0-9]*(?=\/|$)/.exec(path);
    if (build) return /\/log(\/|\?|$)/.test(path) ? null : `${build[0]}/events`;
    return "/events";
}

const streams = new Map();

/** Calls `heard()` at each hint until the function that it gives is called; `isOpen()` tells whether hints can be expected. */
export function listen(stream, heard) {
    if (stream === null) return { isOpen: () => false, stop: () => {} };
    if (!streams.has(stream)) streams.set(stream, new News(stream));
    const found = streams.get(stream);
    found.listeners.add(heard);
    return {
        isOpen: () => found.isOpen,
        stop: () => {
            found.listeners.delete(heard);
            if (found.listeners.size) return;
            found.end();
            streams.delete(stream);
        },
    };
}

class News {
    constructor(stream) {
        this.address = ROOT + stream;
        this.listeners = new Set();
        this.isOpen = false;
        this.onVisible = () => (document.hidden ? this.close() : this.open());
        document.addEventListener("visibilitychange", this.onVisible);
        if (!document.hidden) this.open();
    }

    open() {
        this.close();
        const source = new EventSource(this.address);
        this.source = source;
        source.onopen = () => {
            this.isOpen = true;
            // What happened before it was open is told to nobody.
            this.tell();
        };
        source.onerror = () => {
            this.isOpen = false;
            // One that was cut off comes again by itself; one that was refused does not.
            if (source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.open(), AGAIN_MS);
        };
        for (const kind of KINDS) source.addEventListener(kind, () => this.tell());
        source.addEventListener("end", () => source.close());
    }

    close() {
        clearTimeout(this.timer);
        this.source?.close();
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
