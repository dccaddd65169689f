/** The lines of a log that are seen, and a few more: however long it is, the page holds no more than these. */
import { html, useEffect, useLayoutEffect, useReducer, useRef } from "./html.js";
import { Track } from "./track.js";

export const ROW_PX = 18;
const MORE_ROWS = 12;
const LETTERS_MAX = 5000;

/**
 * `lines` are LogLines. `target` is a line to go to, each new object once: `{line}`. With `isFollowing` the end stays in view; `unfollow`
 * and `follow` are called when the reader leaves it or comes back to it.
 */
export function LogView({ lines, version, target, marked, isHit, isFollowing, follow, unfollow }) {
    const element = useRef(null);
    const track = useRef(null);
    const [, draw] = useReducer((count) => count + 1, 0);

    useLayoutEffect(() => {
        track.current = new Track(element.current);
        const resized = new ResizeObserver(draw);
        resized.observe(element.current);
        return () => resized.disconnect();
    }, []);

    const total = lines.count * ROW_PX;
    useLayoutEffect(() => {
        track.current.total = total;
        if (isFollowing) track.current.go(track.current.end);
        draw();
    }, [total, isFollowing, version]);

    useEffect(() => {
        if (!target || target.line > lines.count) return;
        track.current.total = total;
        track.current.go((target.line - 1) * ROW_PX - track.current.view / 3);
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
        <div class="track" style=${{ height: `${track.current?.height || 0}px` }}>${track.current ? rows(lines, track.current, marked, isHit) : null}</div></div>`;
}

function rows(lines, track, marked, isHit) {
    const first = Math.max(1, Math.floor(track.top / ROW_PX) + 1 - MORE_ROWS);
    const last = Math.min(lines.count, Math.ceil((track.top + track.view) / ROW_PX) + MORE_ROWS);
    const found = [];
    for (let number = first; number <= last; number += 1) {
        const line = lines.line(number);
        const classes = ["row", number === marked && "marked", line && isHit(line.text) && "hit"].filter(Boolean).join(" ");
        found.push(html`<div key=${number} class=${classes} style=${{ top: `${track.shown((number - 1) * ROW_PX)}px` }}>
            <a class="number" href=${`#L${number}`} tabindex="-1" aria-label=${`Line ${number}`}>${number}</a><code>${line ? drawn(line) : "…"}</code></div>`);
    }
    return found;
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
