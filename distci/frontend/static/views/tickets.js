/** Tickets that were set aside, and others by where they are. */
import * as addresses from "../addresses.js";
import { post } from "../api.js";
import { html } from "../html.js";
import { refresh, useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Action, Empty, Shown, useTitle } from "../parts.js";
import { useMay } from "../session.js";
import { State } from "../states.js";
import { For } from "../ticket.js";
import { Why } from "../why.js";

const PLACES = [["dead", "Set aside"], ["parked", "Parked"], ["running", "Running"], ["waiting", "Waiting"]];

export function Tickets({ place }) {
    const where = place.query.get("place") || "dead";
    const [, title] = PLACES.find(([name]) => name === where) || PLACES[0];
    useTitle(`${title} tickets`);
    return html`<h1>Tickets</h1>
        <nav class="tabs" aria-label="Where they are">${PLACES.map(([name, label]) => html`<a href=${addresses.query("/tickets", { place: name === "dead" ? "" : name })} aria-current=${name === where ? "page" : undefined}>${label}</a>`)}</nav>
        <${List} key=${where} where=${where} />`;
}

function List({ where }) {
    const pager = usePager();
    const mayRequeue = useMay().includes("admin");
    const live = useLive(addresses.query("/tickets", { place: where, cursor: pager.cursor }));
    return html`<${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Ticket</th><th scope="col">For</th><th scope="col">Why</th><th scope="col"><span class="unseen">Requeue</span></th></tr></thead>
        <tbody>${page.items.map((view) => html`<tr key=${view.token}>
            <th scope="row"><a href=${addresses.ticket(view.token)}>${view.token}</a></th>
            <td><${For} ticket=${view.ticket} /></td><td>${view.reason || view.worker}</td>
            <td>${mayRequeue && view.place === "dead" ? html`<${Requeue} token=${view.token} />` : null}</td></tr>`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>There is none.<//>`)}<//>`;
}

export function Ticket({ parts: [token] }) {
    useTitle(token);
    const path = addresses.ticket(token);
    const live = useLive(path);
    const mayRequeue = useMay().includes("admin");
    return html`<p class="trail"><a href="/tickets">Tickets</a></p><h1>${token}</h1>
        <${Shown} live=${live}>${(view) => html`<p class="facts"><${State} state=${view.place} /> <${For} ticket=${view.ticket} /> ${view.worker}</p>
            ${mayRequeue && view.place === "dead" ? html`<p><${Requeue} token=${view.token} /></p>` : null}
            <${Why} path=${`${path}/why`} title="Why" />
            <h2>As it is stored</h2><pre tabindex="0" aria-label="The ticket">${JSON.stringify(view.ticket, null, 2)}</pre>`}<//>`;
}

function Requeue({ token }) {
    const requeue = async () => {
        await post(`${addresses.ticket(token)}/requeue`);
        refresh("/tickets");
    };
    return html`<${Action} run=${requeue}>Requeue<//>`;
}
