/** How deep the queue was in the last hours, kind by kind: how many waited, and for how long; as pictures and as a table. */
import { query } from "./addresses.js";
import { clock, duration } from "./format.js";
import { html, useState } from "./html.js";
import { useLive } from "./live.js";

const HOURS = [2, 6, 12];
const HOUR_MS = 3_600_000;
const COLUMNS = 90;
const COLUMN = 4;
const HEIGHT = 26;
/** What is there at all is seen. */
const SHORTEST = 3;
const ROWS = 12;

export function Depths({ now_ms }) {
    const [hours, setHours] = useState(6);
    const { body } = useLive(query("/queue/history", { hours }));
    if (!body) return null;
    const since_ms = now_ms - hours * HOUR_MS;
    const kinds = [...new Set(body.items.flatMap((sample) => Object.keys(sample.kinds)))].sort();
    return html`<section><div class="heading"><h2>The last ${hours} hours</h2>
        <label>Hours <select value=${hours} onChange=${(event) => setHours(Number(event.target.value))}>${HOURS.map((count) => html`<option value=${count} selected=${count === hours}>${count}</option>`)}</select></label></div>
        ${kinds.length ? html`<div class="pasts">${kinds.map((kind) => html`<${Kind} key=${kind} kind=${kind} samples=${body.items} since_ms=${since_ms} now_ms=${now_ms} />`)}</div>`
        : html`<p class="dim">Nobody saw anything wait.</p>`}
        <p class="dim">Control workers look once a minute. Where nothing is drawn, nothing waited, or none was there to look.</p></section>`;
}

function Kind({ kind, samples, since_ms, now_ms }) {
    const seen = samples.filter((sample) => sample.kinds[kind]).map((sample) => ({ at_ms: sample.at_ms, ...sample.kinds[kind] }));
    const most = greatest(seen, "waiting");
    const longest = greatest(seen, "oldest_s");
    const said = `${kind}: at most ${most.waiting} waited, at ${clock(most.at_ms)}; the longest ${duration(longest.oldest_s)}, at ${clock(longest.at_ms)}`;
    const columns = parted(seen, since_ms, now_ms, COLUMNS);
    const rows = parted(seen, since_ms, now_ms, ROWS);
    const starts_ms = (at) => since_ms + ((now_ms - since_ms) * at) / ROWS;
    return html`<figure class="past"><figcaption><strong>${kind}</strong> <span class="dim">at most ${most.waiting} waited (${clock(most.at_ms)}), the longest ${duration(longest.oldest_s)} (${clock(longest.at_ms)})</span></figcaption>
        <svg viewBox=${`0 0 ${COLUMNS * COLUMN} ${2 * HEIGHT + 20}`} role="img" aria-label=${said}>
            <${Strip} columns=${columns} name="waiting" most=${most.waiting} top=${0} /><${Strip} columns=${columns} name="oldest_s" most=${longest.oldest_s} top=${HEIGHT + 5} />
            <text y=${2 * HEIGHT + 18} aria-hidden="true">${clock(since_ms)}</text><text x=${COLUMNS * COLUMN} y=${2 * HEIGHT + 18} text-anchor="end" aria-hidden="true">now</text></svg>
        <p class="key dim"><span class="waiting">how many waited</span> <span class="oldest_s">for how long</span></p>
        <details><summary>${kind} as a table</summary><table class="list"><thead><tr><th scope="col">From</th><th scope="col">At most waited</th><th scope="col">The longest</th></tr></thead>
        <tbody>${rows.map((row, at) => row && html`<tr key=${at}><th scope="row">${clock(starts_ms(at))}</th><td data-label="At most waited">${row.waiting}</td><td data-label="The longest">${duration(row.oldest_s)}</td></tr>`)}</tbody></table></details></figure>`;
}

function Strip({ columns, name, most, top }) {
    const tall = (value) => Math.max(SHORTEST, (HEIGHT * value) / Math.max(1, most));
    return html`<g class=${name}>${columns.map((column, at) => column && html`<rect key=${at} x=${at * COLUMN} y=${top + HEIGHT - tall(column[name])} width=${COLUMN - 1} height=${tall(column[name])} />`)}
        <line x2=${COLUMNS * COLUMN} y1=${top + HEIGHT} y2=${top + HEIGHT} /></g>`;
}

const greatest = (seen, name) => seen.reduce((most, one) => (one[name] > most[name] ? one : most));

/** The most of each of so many equal parts of the time; nothing where there was nothing. */
function parted(seen, since_ms, now_ms, count) {
    const parts = Array(count).fill(null);
    for (const { at_ms, waiting, oldest_s } of seen) {
        const at = Math.min(count - 1, Math.max(0, Math.floor(((at_ms - since_ms) * count) / (now_ms - since_ms))));
        parts[at] = { waiting: Math.max(waiting, parts[at]?.waiting || 0), oldest_s: Math.max(oldest_s, parts[at]?.oldest_s || 0) };
    }
    return parts;
}
