/**
 * Lines of a log that are put away below the command that printed them. A command is a line that begins with "+ ": so a shell prints what it
 * runs (`set -x`).
 */
import { query } from "./addresses.js";
import { ask } from "./api.js";
import { useEffect, useState } from "./html.js";

export const MARK = "+ ";
const LISTED = 1000;
const SECTIONS_MAX = 5000;

/** Sections `{line, last}` in order, those whose first line is in `closed` put away but for that line. */
export class Folds {
    constructor(sections, closed) {
        /** By its first line, the section: those that have something to put away. */
        this.heads = new Map(sections.filter(({ line, last }) => last > line).map((section) => [section.line, section]));
        this.closed = [...this.heads.values()].filter(({ line }) => closed.has(line));
        /** How many lines are put away in all before the end of each that is closed. */
        this.before = [];
        let hidden = 0;
        for (const { line, last } of this.closed) this.before.push((hidden += last - line));
    }

    /** How many of so many lines are shown. */
    rows(lines) {
        return Math.max(0, lines - (this.before.at(-1) || 0));
    }

    isClosed(line) {
        return this.closed.some((section) => section.line === line);
    }

    hides(line) {
        return this.closed.some((section) => section.line < line && line <= section.last);
    }

    /** The line that is shown in a row, both from 1. */
    lineAt(row) {
        const after = this.count((at) => this.closed[at].line - (this.before[at - 1] || 0) < row);
        return row + (this.before[after - 1] || 0);
    }

    /** The row in which a line is shown, or the one of what it is put away below. */
    rowOf(line) {
        const after = this.count((at) => this.closed[at].line < line);
        const section = this.closed[after - 1];
        if (section && line <= section.last) return section.line - (this.before[after - 2] || 0);
        return line - (this.before[after - 1] || 0);
    }

    /** How many of those that are closed come before, by halving. */
    count(isBefore) {
        let low = 0;
        let high = this.closed.length;
        while (low < high) {
            const middle = (low + high) >> 1;
            if (isBefore(middle)) low = middle + 1;
            else high = middle;
        }
        return low;
    }
}

/** The sections of a log, once it is complete. Only one that begins with commands is read for them: others would be read for nothing. */
export function useSections(path, attempt, lines) {
    const [found, setFound] = useState([]);
    const isReady = lines.isComplete && lines.count > 1;
    useEffect(() => {
        setFound([]);
        if (!isReady) return undefined;
        const ended = new AbortController();
        sections(path, attempt, lines.count, ended.signal).then(setFound, () => {
            // Without them nothing can be folded; the log itself says what is wrong.
        });
        return () => ended.abort();
    }, [path, attempt, isReady]);
    return found;
}

async function sections(path, attempt, count, signal) {
    const first = await ask(query(`${path}/lines`, { attempt, first: 1, limit: 20 }), { signal });
    if (!first.body.items.some((item) => item.text.startsWith(MARK))) return [];
    const heads = [];
    let cursor = "";
    do {
        const { body } = await ask(query(`${path}/search`, { text: MARK, at_start: true, attempt, limit: LISTED, cursor }), { signal });
        heads.push(...body.items.map((item) => item.line));
        cursor = body.next;
    } while (cursor && heads.length < SECTIONS_MAX);
    return heads.map((line, at) => ({ line, last: (heads[at + 1] || count + 1) - 1 }));
}
