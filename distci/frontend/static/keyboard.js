/** Keys that work everywhere: "/" goes to what can be searched, "g" and a letter to a section, "?" shows them. Inside fields they are letters. */
import { html, useLayoutEffect, useRef } from "./html.js";
import { go } from "./router.js";

const SECTIONS = { j: ["/", "all jobs"], q: ["/queue", "queue"], h: ["/held", "held changes"], w: ["/workers", "workers"], e: ["/events", "events"], t: ["/tickets", "tickets"], k: ["/tokens", "tokens"], s: ["/secrets", "secrets"] };
const PAUSE_MAX_MS = 1000;

export const HELP = "distci:help";

export function listen() {
    let wentAt = 0;
    addEventListener("keydown", (event) => {
        const isTyping = event.target.closest?.("input, textarea, select, [contenteditable], dialog");
        if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
        const field = event.key === "/" && document.querySelector('[data-key="/"]');
        if (field) {
            event.preventDefault();
            field.focus();
            field.select?.();
        } else if (event.key === "?") {
            dispatchEvent(new Event(HELP));
        } else if (event.key === "g") {
            wentAt = event.timeStamp;
        } else if (event.timeStamp - wentAt < PAUSE_MAX_MS && SECTIONS[event.key]) {
            wentAt = 0;
            go(SECTIONS[event.key][0]);
        }
    });
}

/** What the keys are, in a window of its own, and the button that opens it. */
export function Keys() {
    const dialog = useRef(null);
    const open = () => dialog.current.open || dialog.current.showModal();
    useLayoutEffect(() => {
        addEventListener(HELP, open);
        return () => removeEventListener(HELP, open);
    }, []);
    const close = () => dialog.current.close();
    return html`<button type="button" class="quiet" aria-label="Keys" aria-keyshortcuts="?" onClick=${open}><span aria-hidden="true">?</span></button>
        <dialog ref=${dialog} aria-labelledby="keys"><h2 id="keys">Keys</h2><dl class="keys">
            <div><dt><kbd>/</kbd></dt><dd>search, where there is one</dd></div>
            ${Object.entries(SECTIONS).map(([key, [, name]]) => html`<div key=${key}><dt><kbd>g</kbd> <kbd>${key}</kbd></dt><dd>${name}</dd></div>`)}
            <div><dt><kbd>Enter</kbd> <kbd>Shift</kbd>+<kbd>Enter</kbd></dt><dd>in a search of a log: the next match, the one before</dd></div>
            <div><dt><kbd>?</kbd></dt><dd>this</dd></div></dl>
        <button type="button" onClick=${close}>Close</button></dialog>`;
}
