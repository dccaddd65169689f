/** A unified diff, its lines by what they are. */
import { html } from "./html.js";

const KINDS = [["@@", "at"], ["+++", "at"], ["---", "at"], ["+", "add"], ["-", "remove"]];

export function Diff({ text }) {
    if (!text) return html`<p class="dim">They are the same.</p>`;
    const kind = (line) => (KINDS.find(([start]) => line.startsWith(start)) || ["", "same"])[1];
    return html`<pre class="diff" tabindex="0" aria-label="What changed">${text.replace(/\n$/, "").split("\n").map((line) => html`<span class=${kind(line)}>${line || " "}</span>`)}</pre>`;
}
