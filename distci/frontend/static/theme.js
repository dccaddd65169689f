/** Dark or light: what the reader's system says, until they choose. */
import { html, useState } from "./html.js";

const isDarkBySystem = () => matchMedia("(prefers-color-scheme: dark)").matches;

export function ThemeButton() {
    const [theme, setTheme] = useState(document.documentElement.dataset.theme || "");
    const isDark = theme ? theme === "dark" : isDarkBySystem();
    const toggle = () => {
        const chosen = isDark ? "light" : "dark";
        document.documentElement.dataset.theme = chosen;
        try {
            localStorage.setItem("theme", chosen);
        } catch {
            // It holds until the page is left.
        }
        setTheme(chosen);
    };
    return html`<button type="button" class="quiet" onClick=${toggle} aria-label=${isDark ? "Use light colours" : "Use dark colours"}><span aria-hidden="true">${isDark ? "☀" : "☾"}</span></button>`;
}
