/** The lines of a log that are seen, and a few more: however long it is, the page holds no more than these. */
import { html, useEffect, useLayoutEffect, useReducer, useRef } from "./html.js";
import { Track } from "./track.js";

export const ROW_PX = 18;
const MORE_ROWS = 12;
const LETTERS_MAX = 5000;

/**
 * `lines` are LogLines. `target` is a line to go to, each new object once: `{line}`. With `isFollowing` the end stays in view; `unfollow`
 * and `follow` are called when the reader leaves it or comes back to it. `address` is that of the log, for links to its lines; `folds` says
 * which lines are put away, and `fold(line)` puts away or brings back those below a line.
 */
export function LogView({ lines, version, target, marked, isHit, isFollowing, follow, unfollow, address, folds, fold }) {
    const element = useRef(null);
    const track = useRef(null);
    const [, draw] = useReducer((count) => count + 1, 0);

    useLayoutEffect(() => {
        track.current = new Track(element.current);
        const resized = new ResizeObserver(draw);
        resized.observe(element.current);
        return () => resized.disconnect();
    }, []);

    const total = folds.rows(lines.count) * ROW_PX;
    // Before it is drawn: who goes to a line that has just been unfolded scrolls to where nothing was.
    if (track.current) track.current.total = total;
    useLayoutEffect(() => {
        track.current.total = total;
        if (isFollowing) track.current.go(track.current.end);
        draw();
    }, [total, isFollowing, version]);

    useEffect(() => {
        if (!target || target.line > lines.count) return;
        track.current.total = total;
        track.current.go((folds.rowOf(target.line) - 1) * ROW_PX - track.current.view / 3);
        draw();
    }, [target, target && lines.count >= target.line]);

    const scrolled = () => {
        const { current } = track;
        // What we scrolled ourselves comes back as an event, too.
        if (Math.abs(element.current.scrollTop - current.seen) < 1) return;
        const before = current.top;
        current.moved();
        if (current.top < before) unfollow();
        else if (current.isAtEnd) follow();
        draw();
    };
    const settled = () => {
        track.current.settle();
        draw();
    };
    return html`<div class="log" ref=${element} tabindex="0" role="region" aria-label="Lines of the log" onScroll=${scrolled} onScrollEnd=${settled}>
        <div class="track" style=${{ height: `${track.current?.height || 0}px` }}>${track.current ? rows({ lines, track: track.current, marked, isHit, address, folds, fold }) : null}</div></div>`;
}

function rows({ lines, track, marked, isHit, address, folds, fold }) {
    const first = Math.max(1, Math.floor(track.top / ROW_PX) + 1 - MORE_ROWS);
    const last = Math.min(folds.rows(lines.count), Math.ceil((track.top + track.view) / ROW_PX) + MORE_ROWS);
    const found = [];
    for (let row = first; row <= last; row += 1) {
        const number = folds.lineAt(row);
        const line = lines.line(number);
        const classes = ["row", number === marked && "marked", line && isHit(line.text) && "hit"].filter(Boolean).join(" ");
        found.push(html`<div key=${number} class=${classes} style=${{ top: `${track.shown((row - 1) * ROW_PX)}px` }}>
            <a class="number" href=${`${address}#L${number}`} tabindex="-1" aria-label=${`Line ${number}`}>${number}</a><${Fold} folds=${folds} line=${number} fold=${fold} /><code>${line ? drawn(line) : "…"}</code></div>`);
    }
    return found;
}

function Fold({ folds, line, fold }) {
    const section = folds.heads.get(line);
    if (!section) return folds.heads.size ? html`<span class="fold" />` : null;
    const isClosed = folds.isClosed(line);
    const below = section.last - section.line;
    return html`<button type="button" class="fold" aria-expanded=${isClosed ? "false" : "true"} title=${`${below} below`} aria-label=${`Lines below line ${line}`} onClick=${() => fold(line)}>${isClosed ? "▸" : "▾"}</button>`;
}

function drawn(line) {
    let left = LETTERS_MAX;
    return line.runs.map((run) => {
        const text = run.text.slice(0, left) + (run.text.length > left && left > 0 ? " …" : "");
        left = Math.max(0, left - run.text.length);
        if (!run.classes && !run.front && !run.back) return text;
        return html`<span class=${run.classes} style=${{ color: run.front, backgroundColor: run.back }}>${text}</span>`;
    });
}
