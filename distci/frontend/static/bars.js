/** The last builds of a job as small bars: as tall as they took long, the newest on the right. */
import * as addresses from "./addresses.js";
import { duration } from "./format.js";
import { html } from "./html.js";
import { mark, tone } from "./states.js";

/** As wide as a finger needs (WCAG 2.5.8). */
const WIDTH = 24;
const GAP = 3;
const HEIGHT = 28;
const SHORTEST = 12;

export function Bars({ builds, now_ms, places = 10 }) {
    const shown = builds.slice(0, places).reverse();
    // The time is told once a second: what has just begun may seem to be yet to come.
    const took = (build) => Math.max(0, (build.finished_ms || now_ms) - build.created_ms);
    const longest = Math.max(1, ...shown.map(took));
    return html`<span class="bars">${shown.map((build) => {
        const tall = SHORTEST + ((HEIGHT - SHORTEST) * took(build)) / longest;
        const { number } = addresses.split(build.id);
        const says = `#${number} ${build.state}, ${duration(took(build) / 1000)}`;
        return html`<a key=${build.id} href=${addresses.build(build.id)} class=${`bar ${tone(build.state)}`} title=${says} aria-label=${`${build.id} ${build.state}`}>
            <svg width=${WIDTH} height=${HEIGHT} aria-hidden="true"><rect x=${GAP} y=${HEIGHT - tall} width=${WIDTH - 2 * GAP} height=${tall - 1} rx="2" />
            <text x=${WIDTH / 2} y=${HEIGHT - 4} text-anchor="middle">${mark(build.state)}</text></svg></a>`;
    })}</span>`;
}
