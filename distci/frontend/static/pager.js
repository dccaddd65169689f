/** Going through a list page by page, forth and back. */
import { html, useState } from "./html.js";

/** `{cursor, forth, back, reset, isFirst}` */
export function usePager() {
    const [cursors, setCursors] = useState([]);
    return {
        cursor: cursors.at(-1) || "",
        isFirst: !cursors.length,
        forth: (next) => setCursors([...cursors, next]),
        back: () => setCursors(cursors.slice(0, -1)),
        reset: () => setCursors([]),
    };
}

export function Pager({ pager, next }) {
    if (pager.isFirst && !next) return null;
    return html`<p class="pages tools"><button type="button" disabled=${pager.isFirst} onClick=${pager.back}>Back</button>
        <button type="button" disabled=${!next} onClick=${() => pager.forth(next)}>More</button></p>`;
}
