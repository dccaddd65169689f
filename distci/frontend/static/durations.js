/** How long a job's last builds took and how they ended, as a picture: the newest on the right, each a link. */
import * as addresses from "./addresses.js";
import { duration } from "./format.js";
import { html } from "./html.js";
import { useLive } from "./live.js";
import { mark, tone } from "./states.js";

const BUILDS = 50;
const HEIGHT = 96;
const SHORTEST = 14;
/** As wide as a finger needs (WCAG 2.5.8). */
const WIDTH = 24;
const GAP = 3;

export function Durations({ job, now_ms }) {
    const { body } = useLive(addresses.query("/overview", { prefix: job, builds: BUILDS, limit: 1 }));
    const found = body?.items[0];
    if (found?.job !== job || !found.builds.length) return null;
    // The time is told once a second: what has just begun may seem to be yet to come.
    const took_s = (build) => Math.max(0, ((build.finished_ms || now_ms) - build.created_ms) / 1000);
    const longest = Math.max(0.1, ...found.builds.map(took_s));
    const passed = found.builds.filter((build) => build.state === "passed").map(took_s).sort((one, other) => one - other);
    const usual = passed.length ? passed[Math.floor(passed.length / 2)] : null;
    const tall = (seconds) => SHORTEST + ((HEIGHT - SHORTEST) * seconds) / longest;
    return html`<figure class="durations"><figcaption>The last ${found.builds.length} took up to ${duration(longest)}${usual === null ? "" : `; those that passed usually ${duration(usual)}`}.</figcaption>
        <div class="plot" tabindex="0" role="group" aria-label="How long the last builds took"><div class="columns">${found.builds.map((build) => html`<${Column} key=${build.id} build=${build} seconds=${took_s(build)} tall=${tall(took_s(build))} usual=${usual === null ? null : tall(usual)} />`)}</div></div></figure>`;
}

function Column({ build, seconds, tall, usual }) {
    const says = `#${addresses.split(build.id).number} ${build.state}, ${duration(seconds)}`;
    return html`<a href=${addresses.build(build.id)} class=${`bar ${tone(build.state)}`} title=${says} aria-label=${says}><svg width=${WIDTH} height=${HEIGHT} aria-hidden="true">
        <rect x=${GAP} y=${HEIGHT - tall} width=${WIDTH - 2 * GAP} height=${tall - 1} rx="2" />
        ${usual === null ? null : html`<line x1="0" x2=${WIDTH} y1=${HEIGHT - usual} y2=${HEIGHT - usual} class="usual" />`}
        <text x=${WIDTH / 2} y=${HEIGHT - 4} text-anchor="middle">${mark(build.state)}</text></svg></a>`;
}
