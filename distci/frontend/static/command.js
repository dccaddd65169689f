/** A line to be copied. */
import { html, useState } from "./html.js";

export function Command({ label, text }) {
    const [isCopied, setCopied] = useState(false);
    // Browsers let pages copy only over TLS, and on loopback.
    const copy = async () => {
        await navigator.clipboard.writeText(text);
        setCopied(true);
    };
    return html`<div class="command"><span class="dim">${label}</span><pre tabindex="0" role="region" aria-label=${label}>${text}</pre>
        ${navigator.clipboard ? html`<button type="button" onClick=${copy} onBlur=${() => setCopied(false)}>${isCopied ? "Copied" : "Copy"}</button>` : null}</div>`;
}
