/** Looking for a text in a log: the front end reads it, the page is told the numbers of lines. */
import { query } from "./addresses.js";
import { ask } from "./api.js";
import { html, useRef, useState } from "./html.js";
import { Wrong } from "./parts.js";

const LISTED = 200;

/** Small letters find large ones, too; who writes a large one means it. */
const ignoresCase = (text) => text === text.toLowerCase();

/** Whether a line holds what is looked for. */
export function holds(line, text) {
    return text !== "" && (ignoresCase(text) ? line.toLowerCase() : line).includes(text);
}

/** `go(line)` is called with the line to show, `sought(text)` with what is looked for. */
export function LogSearch({ path, attempt, go, sought }) {
    const [text, setText] = useState("");
    const [found, setFound] = useState({ of: "", lines: [], at: -1, next: null, problem: null });
    const [isSearching, setSearching] = useState(false);
    const latest = useRef(0);

    // Pages may be empty and have a next one: a long log is read in pieces.
    const more = async (lines, cursor) => {
        const wanted = lines.length + 1;
        let body = { next: cursor };
        do {
            ({ body } = await ask(query(`${path}/search`, { text, attempt, ignore_case: ignoresCase(text), limit: LISTED, cursor: body.next })));
            lines = [...lines, ...body.items.map((item) => item.line)];
        } while (body.next && lines.length < wanted);
        return { lines, next: body.next };
    };
    const show = (state) => {
        setFound(state);
        if (state.at >= 0) go(state.lines[state.at]);
    };
    const step = async (by) => {
        if (!text) return;
        latest.current += 1;
        const mine = latest.current;
        try {
            let { lines, at, next } = found.of === text ? found : { lines: [], at: -1, next: null };
            const isNew = found.of !== text || !lines.length;
            setSearching(true);
            if (isNew) sought(text);
            if (isNew || (at + by >= lines.length && next)) ({ lines, next } = await more(lines, next));
            if (mine !== latest.current) return;
            at = lines.length ? (isNew ? 0 : (at + by + lines.length) % lines.length) : -1;
            show({ of: text, lines, at, next, problem: null });
        } catch (problem) {
            setFound({ of: "", lines: [], at: -1, next: null, problem });
        } finally {
            if (mine === latest.current) setSearching(false);
        }
    };
    const typed = (event) => {
        setText(event.target.value);
        if (!event.target.value) {
            sought("");
            setFound({ of: "", lines: [], at: -1, next: null, problem: null });
        }
    };
    const pressed = (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        step(event.shiftKey ? -1 : 1);
    };
    const says = isSearching ? "searching …" : found.of !== text || !text ? "" : found.lines.length ? `${found.at + 1} of ${found.lines.length}${found.next ? "+" : ""}` : "not found";
    return html`<form role="search" class="tools" onSubmit=${(event) => event.preventDefault()}>
        <input type="search" data-key="/" aria-label="Search this log" placeholder="Search  ( / )" value=${text} onInput=${typed} onKeyDown=${pressed} />
        <button type="button" onClick=${() => step(-1)} aria-label="Previous match">↑</button>
        <button type="button" onClick=${() => step(1)} aria-label="Next match">↓</button>
        <span class="dim" role="status">${says}</span><${Wrong} problem=${found.problem} /></form>`;
}
