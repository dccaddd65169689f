/** What waits and why, beside what runs and who is there to do it. */
import * as addresses from "../addresses.js";
import { Depths } from "../depths.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { For } from "../ticket.js";
import { duration } from "../format.js";
import { Remedy } from "../why.js";
import { HeldNote } from "./held.js";

const BAR_PX = 140;

export function Queue() {
    useTitle("Queue");
    const pager = usePager();
    const now_ms = useNow();
    const cluster = useLive("/cluster");
    const live = useLive(addresses.query("/queue", { cursor: pager.cursor }));
    return html`<h1>Queue</h1><${Shown} live=${cluster}>${(found) => html`<${Cluster} cluster=${found} />`}<//><${HeldNote} />
        <${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">For</th><th scope="col">Since</th><th scope="col">Why it waits</th><th scope="col">What helps</th></tr></thead>
        <tbody>${page.items.map(({ ticket, reason }) => html`<tr key=${ticket.token}>
            <th scope="row"><${For} ticket=${ticket.ticket} /></th>
            <td data-label="Since">${ticket.ticket ? html`<${Ago} at_ms=${ticket.ticket.posted_ms} now_ms=${now_ms} />` : null}</td>
            <td>${reason.because}${reason.starts_in_s === null ? null : html` <span class="dim">(likely in ${duration(reason.starts_in_s)})</span>`}</td>
            <td class="remedy"><${Remedy} text=${reason.remedy} /></td></tr>`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>Nothing waits.<//>`)}<//>
        <${Depths} now_ms=${now_ms} />`;
}

function Cluster({ cluster }) {
    const waiting = Object.entries(cluster.waiting).filter(([, count]) => count);
    const most = Math.max(1, ...waiting.map(([, count]) => count));
    return html`<p class="facts"><strong>${cluster.running}</strong> of ${cluster.slots} slots busy${cluster.set_aside ? html`; <a href="/tickets">${cluster.set_aside} set aside</a>` : null}
        ${cluster.without_heartbeat ? `; ${cluster.without_heartbeat} without a worker` : null}</p>
        ${cluster.paused.length ? html`<p class="wrong" role="status">Paused: ${cluster.paused.map((kind) => (kind === "*" ? "everything" : kind)).join(", ")}</p>` : null}
        ${waiting.length ? html`<dl class="depths">${waiting.map(([kind, count]) => html`<div key=${kind}><dt>${kind}</dt>
            <dd><svg width=${BAR_PX} height="14" aria-hidden="true"><rect width=${Math.max(3, (BAR_PX * count) / most)} height="14" rx="3" /></svg> ${count}</dd></div>`)}</dl>` : null}`;
}
