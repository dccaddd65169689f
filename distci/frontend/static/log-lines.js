/**
 * The lines of a log as far as they have been looked at: fetched by the hundred where they are wanted, forgotten where they are not.
 */
import { query } from "./addresses.js";
import { PLAIN, runs } from "./ansi.js";
import { ask } from "./api.js";
import { watch } from "./live.js";

const CHUNK = 200;
const KEPT_MAX = 40;

export class LogLines {
    /** `changed()` is called whenever there is something new to draw. */
    constructor(path, attempt, changed) {
        this.path = path;
        this.attempt = attempt;
        this.changed = changed;
        this.count = 0;
        this.isComplete = false;
        this.problem = null;
        this.chunks = new Map();
        this.asked = new Set();
        this.ended = new AbortController();
        this.watchEnd();
    }

    end() {
        this.stop();
        this.ended.abort();
    }

    /** A line by its number, from 1: `{text, offset, runs}`; null while it is not here yet. It is fetched. */
    line(number) {
        const at = Math.floor((number - 1) / CHUNK);
        const chunk = this.chunks.get(at);
        // Lines may have come since it was fetched, and its last one may have been cut.
        if (!chunk || (chunk.lines.length < CHUNK && chunk.counted < this.count)) this.fetch(at);
        return chunk?.lines[number - 1 - at * CHUNK] || null;
    }

    address(at) {
        return query(`${this.path}/lines`, { attempt: this.attempt, first: at * CHUNK + 1, limit: CHUNK });
    }

    /** Where the log ends is where it grows: the last lines are watched, and say how many there are. */
    watchEnd() {
        this.stop?.();
        const at = Math.max(0, Math.floor((this.count - 1) / CHUNK));
        this.watched = at;
        this.stop = watch(this.address(at), ({ body, problem }) => {
            this.problem = problem;
            if (body) this.take(at, body);
            this.changed();
            if (Math.floor((this.count - 1) / CHUNK) > this.watched) this.watchEnd();
        });
    }

    take(at, body) {
        this.count = Math.max(this.count, body.lines);
        this.isComplete = body.is_complete;
        this.chunks.delete(at);
        this.chunks.set(at, { ...this.coloured(body.items, at), counted: body.lines });
        if (this.chunks.size > KEPT_MAX) this.chunks.delete(this.chunks.keys().next().value);
    }

    async fetch(at) {
        if (this.asked.has(at)) return;
        this.asked.add(at);
        try {
            const { body } = await ask(this.address(at), { signal: this.ended.signal });
            this.take(at, body);
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
            const [found, next] = runs(line.text, style);
            style = next;
            return { ...line, runs: found };
        });
        return { lines, style };
    }
}
