/**
 * The lines of a log as far as they have been looked at: fetched by the hundred where they are wanted, forgotten where they are not.
 *
 * The end is fetched once; what is printed from then on comes as a stream that goes on from the beginning of the last line. Whatever becomes of
 * the stream, the end is fetched anew and the stream goes on from there.
 */
import { query } from "./addresses.js";
import { PLAIN, runs } from "./ansi.js";
import { ask } from "./api.js";
import { stream } from "./news.js";

const CHUNK = 200;
const KEPT_MAX = 40;
const AGAIN_MS = 500;

/** So much of a line is kept: more than is drawn of one. */
const LETTERS_MAX = 16 * 1024;

export class LogLines {
    /** `changed()` is called whenever there is something new to draw, `turned()` when an attempt has begun or ended. */
    constructor(path, attempt, changed, turned) {
        this.path = path;
        this.attempt = attempt;
        this.changed = changed;
        this.turned = turned;
        this.ended = new AbortController();
        this.asked = new Set();
        this.forget();
        this.onVisible = () => (document.hidden ? this.pause() : this.begin());
        document.addEventListener("visibilitychange", this.onVisible);
        if (!document.hidden) this.begin();
    }

    end() {
        document.removeEventListener("visibilitychange", this.onVisible);
        this.pause();
        this.ended.abort();
    }

    /** A line by its number, from 1: `{text, runs}`; null while it is not here yet. It is fetched. */
    line(number) {
        const at = Math.floor((number - 1) / CHUNK);
        const chunk = this.chunks.get(at);
        // Lines may have come since it was fetched, and its last one may have been cut.
        if (!chunk || (chunk.lines.length < CHUNK && chunk.counted < this.count)) this.fetch(at);
        return chunk?.lines[number - 1 - at * CHUNK] || null;
    }

    forget() {
        this.count = 0;
        this.isComplete = false;
        this.problem = null;
        this.chunks = new Map();
        this.token = "";
    }

    pause() {
        clearTimeout(this.timer);
        this.stop?.();
        this.stop = null;
    }

    /** Fetch the end, and follow it from there. */
    async begin() {
        this.pause();
        const begun = (this.begun = Symbol("begun"));
        let last;
        try {
            last = await this.fetchEnd();
            this.problem = null;
        } catch (problem) {
            if (problem.name === "AbortError") return;
            this.problem = problem;
        }
        // Another one has begun meanwhile, or nobody looks any more.
        if (this.begun !== begun || this.ended.signal.aborted) return;
        if (!last) this.beginSoon();
        else if (!this.isComplete) this.follow(last);
        this.changed();
    }

    beginSoon() {
        this.pause();
        this.timer = setTimeout(() => document.hidden || this.begin(), AGAIN_MS);
    }

    /** Fetch the last lines; which attempt's they are and the very last of them. */
    async fetchEnd() {
        for (;;) {
            const at = this.chunkOf(this.count);
            const { body } = await ask(this.address(at), { signal: this.ended.signal });
            if (this.token !== body.attempt) this.forget();
            this.token = body.attempt;
            this.take(at, body);
            if (at === this.chunkOf(this.count)) return { line: this.chunks.get(at).lines.at(-1), attempt: body.attempt };
        }
    }

    chunkOf(number) {
        return Math.max(0, Math.floor((number - 1) / CHUNK));
    }

    address(at) {
        return query(`${this.path}/lines`, { attempt: this.attempt, first: at * CHUNK + 1, limit: CHUNK });
    }

    follow({ line, attempt }) {
        this.number = line?.line || 1;
        this.position = line?.offset || 0;
        this.text = "";
        this.style = line?.style || PLAIN;
        this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
        const after = attempt ? `${attempt}:${this.position}` : "";
        this.stop = stream(query(`${this.path}/events`, { after }), {
            attempt: ({ token }) => {
                this.turned();
                if (token !== this.token) this.begin();
            },
            log: (piece) => this.add(piece),
            end: () => {
                this.pause();
                this.isComplete = true;
                this.turned();
                this.changed();
            },
            closed: () => this.beginSoon(),
        });
    }

    add({ token, offset, text, base64 }) {
        if (token !== this.token || offset !== this.position) {
            this.begin();
            return;
        }
        const bytes = text === undefined ? Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)) : new TextEncoder().encode(text);
        this.position += bytes.length;
        const [first, ...others] = this.decoder.decode(bytes, { stream: true }).split("\n");
        this.text = (this.text + first).slice(0, LETTERS_MAX);
        for (const other of others) {
            this.style = this.put(this.text);
            this.number += 1;
            this.text = other.slice(0, LETTERS_MAX);
        }
        if (this.text) this.put(this.text);
        this.changed();
    }

    /** Have the line that is being printed be this so far; the colour that goes on behind it. */
    put(text) {
        const [found, next] = runs(text.replace(/\r$/, ""), this.style);
        const at = this.chunkOf(this.number);
        const place = this.number - 1 - at * CHUNK;
        if (place === 0 && !this.chunks.has(at)) this.keep(at, { lines: [], style: PLAIN });
        const chunk = this.chunks.get(at);
        this.count = Math.max(this.count, this.number);
        if (chunk && place <= chunk.lines.length) {
            chunk.lines[place] = { text, runs: found };
            chunk.style = next;
            chunk.counted = this.count;
        }
        return next;
    }

    take(at, body) {
        this.count = Math.max(this.count, body.lines);
        this.isComplete = body.is_complete;
        this.keep(at, { ...this.coloured(body.items, at), counted: body.lines });
    }

    keep(at, chunk) {
        this.chunks.delete(at);
        this.chunks.set(at, chunk);
        if (this.chunks.size > KEPT_MAX) this.chunks.delete(this.chunks.keys().next().value);
    }

    async fetch(at) {
        if (this.asked.has(at)) return;
        this.asked.add(at);
        try {
            const { body } = await ask(this.address(at), { signal: this.ended.signal });
            if (body.attempt === this.token) this.take(at, body);
        } catch (problem) {
            if (problem.name !== "AbortError") this.problem = problem;
        } finally {
            this.asked.delete(at);
        }
        if (!this.ended.signal.aborted) this.changed();
    }

    /**
     * Lines with their colours. A colour goes on in the lines that follow; where those before have not been looked at, it is not known,
     * and the terminal's own is taken.
     */
    coloured(items, at) {
        let style = this.chunks.get(at - 1)?.style || PLAIN;
        const lines = items.map((line) => {
            const before = style;
            const [found, next] = runs(line.text, style);
            style = next;
            return { ...line, runs: found, style: before };
        });
        return { lines, style };
    }
}
