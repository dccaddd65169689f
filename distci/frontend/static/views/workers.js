/** Who serves: what they offer, what they hold, and who shall take nothing more. */
import * as addresses from "../addresses.js";
import { post } from "../api.js";
import { html } from "../html.js";
import { refresh, useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Action, Ago, Empty, Shown, useNow, useTitle } from "../parts.js";

export function Workers() {
    useTitle("Workers");
    const pager = usePager();
    const now_ms = useNow();
    const live = useLive(addresses.query("/workers", { cursor: pager.cursor }));
    return html`<h1>Workers</h1><${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Worker</th><th scope="col">Offers</th><th scope="col">Slots</th><th scope="col">Holds</th><th scope="col">Since</th><th scope="col"><span class="unseen">Drain</span></th></tr></thead>
        <tbody>${page.items.map((worker) => html`<${Worker} key=${worker.name} worker=${worker} now_ms=${now_ms} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>No worker is here: <code>distci worker run control shell</code> starts one.<//>`)}<//>`;
}

function Worker({ worker, now_ms }) {
    const { offer } = worker;
    const drain = async () => {
        await post(`${addresses.worker(worker.name)}/drain`);
        refresh("/workers");
    };
    return html`<tr><th scope="row">${worker.name} <span class="dim">${worker.host}, ${worker.version}</span></th>
        <td>${offer.kinds.join(", ")} ${[...offer.labels, ...offer.only.map((label) => `only ${label}`)].map((label) => html`<code class="chip">${label}</code>`)}</td>
        <td><${Slots} worker=${worker} /></td>
        <td>${worker.holds.map((token) => html`<a class="chip" href=${addresses.ticket(token)}>${token}</a>`)}</td>
        <td><${Ago} at_ms=${worker.since_ms} now_ms=${now_ms} /></td>
        <td>${worker.is_draining ? html`<span class="state wait">draining</span>` : html`<${Action} run=${drain} confirm="Really drain?">Drain<//>`}</td></tr>`;
}

function Slots({ worker }) {
    const busy = worker.holds.length;
    return html`<span>${busy} of ${worker.slots}</span>`;
}
