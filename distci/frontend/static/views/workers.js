/** Who serves: what they offer, what they hold, and who shall take nothing more. */
import * as addresses from "../addresses.js";
import { post } from "../api.js";
import { html } from "../html.js";
import { refresh, useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Action, Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { useMay } from "../session.js";
import { For } from "../ticket.js";

const SLOTS_SHOWN = 16;
/** So many tickets are named by what they are for, others by themselves. */
const TICKETS = 500;

export function Workers() {
    useTitle("Workers");
    const pager = usePager();
    const now_ms = useNow();
    const mayDrain = useMay().includes("admin");
    const live = useLive(addresses.query("/workers", { cursor: pager.cursor }));
    const running = useLive(addresses.query("/tickets", { place: "running", limit: TICKETS }));
    const tickets = new Map((running.body?.items || []).map((view) => [view.token, view.ticket]));
    return html`<h1>Workers</h1><${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Worker</th><th scope="col">Offers</th><th scope="col">Slots</th><th scope="col">Does</th><th scope="col">Since</th><th scope="col"><span class="unseen">Drain</span></th></tr></thead>
        <tbody>${page.items.map((worker) => html`<${Worker} key=${worker.name} worker=${worker} now_ms=${now_ms} mayDrain=${mayDrain} tickets=${tickets} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>No worker is here: <code>distci worker run control shell</code> starts one.<//>`)}<//>`;
}

function Worker({ worker, now_ms, mayDrain, tickets }) {
    const { offer } = worker;
    const drain = async () => {
        await post(`${addresses.worker(worker.name)}/drain`);
        refresh("/workers");
    };
    return html`<tr><th scope="row">${worker.name} <span class="dim">${worker.host}, ${worker.version}</span></th>
        <td>${offer.kinds.join(", ")} ${[...offer.labels, ...offer.only.map((label) => `only ${label}`)].map((label) => html`<code class="chip">${label}</code>`)}</td>
        <td data-label="Slots"><${Slots} worker=${worker} /></td>
        <td>${worker.holds.map((token) => html`<div key=${token}>${tickets.get(token) ? html`<${For} ticket=${tickets.get(token)} />` : html`<a class="chip" href=${addresses.ticket(token)}>${token}</a>`}</div>`)}</td>
        <td data-label="Since"><${Ago} at_ms=${worker.since_ms} now_ms=${now_ms} /></td>
        <td>${worker.is_draining ? html`<span class="state wait">draining</span>` : mayDrain && html`<${Action} run=${drain} confirm="Really drain?">Drain<//>`}</td></tr>`;
}

function Slots({ worker }) {
    const busy = worker.holds.length;
    const shown = Math.min(worker.slots, SLOTS_SHOWN);
    return html`<span class="slots">${busy} of ${worker.slots} <svg width=${shown * 12} height="12" aria-hidden="true">${Array.from({ length: shown }, (_, at) => html`<rect x=${at * 12 + 1} y="1" width="9" height="10" rx="2" class=${at < busy ? "busy" : ""} />`)}</svg></span>`;
}
