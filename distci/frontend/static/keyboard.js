/** Keys that work everywhere: "/" goes to what can be searched, "g" and a letter to a section. Inside fields they are letters. */
import { go } from "./router.js";

const SECTIONS = { j: "/", q: "/queue", w: "/workers", e: "/events", t: "/tickets" };
const PAUSE_MAX_MS = 1000;

export function listen() {
    let wentAt = 0;
    addEventListener("keydown", (event) => {
        const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
        if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
        const field = event.key === "/" && document.querySelector('[data-key="/"]');
        if (field) {
            event.preventDefault();
            field.focus();
            field.select?.();
        } else if (event.key === "g") {
            wentAt = event.timeStamp;
        } else if (event.timeStamp - wentAt < PAUSE_MAX_MS && SECTIONS[event.key]) {
            wentAt = 0;
            go(SECTIONS[event.key]);
        }
    });
}
