/** What happened of late in the whole system. */
import * as addresses from "../addresses.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { State } from "../states.js";

export function Events() {
    useTitle("Events");
    const pager = usePager();
    const now_ms = useNow();
    const live = useLive(addresses.query("/events/recent", { cursor: pager.cursor }));
    return html`<h1>Events</h1><${Shown} live=${live}>${(page) => html`
        ${page.items.length ? html`<table class="list"><thead><tr><th scope="col">Build</th><th scope="col">What</th><th scope="col">When</th><th scope="col">Cause</th></tr></thead>
        <tbody>${page.items.map((event) => html`<${Row} key=${event.number} event=${event} now_ms=${now_ms} />`)}</tbody></table>`
        : html`<${Empty}>Nothing has happened yet.<//>`}
        <${Pager} pager=${pager} next=${page.next} />`}<//>`;
}

function Row({ event, now_ms }) {
    return html`<tr><th scope="row"><a href=${addresses.build(event.build)}>${event.build}</a></th>
        <td>${event.kind === "build-ended" ? html`<${State} state=${event.result} />` : "begun"}</td>
        <td><${Ago} at_ms=${event.at_ms} now_ms=${now_ms} /></td>
        <td>${event.trigger}${event.actor ? ` by ${event.actor}` : ""}</td></tr>`;
}
