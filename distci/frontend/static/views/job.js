/** One job: its builds, its definition through time, changing it, starting it. */
import * as addresses from "../addresses.js";
import { Bars } from "../bars.js";
import { Editor } from "../editor.js";
import { duration } from "../format.js";
import { History } from "../history.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { go } from "../router.js";
import { State } from "../states.js";
import { Trigger } from "../trigger.js";

const TABS = [["builds", "Builds"], ["definition", "Definition"], ["edit", "Edit"], ["trigger", "Start"]];

export function Job({ place, parts: [job] }) {
    useTitle(job);
    const tab = place.query.get("tab") || "builds";
    const at = (name) => addresses.query(addresses.job(job), { tab: name === "builds" ? "" : name });
    const live = useLive(addresses.job(job));
    return html`<p class="trail"><a href="/">Jobs</a></p>
        <div class="heading"><h1>${job}</h1><div class="tools"><a class="button" href=${at("trigger")}>Start a build</a></div></div>
        ${live.body?.document.description ? html`<p class="facts">${live.body.document.description}</p>` : null}
        <nav class="tabs" aria-label="About this job">${TABS.map(([name, label]) => html`<a href=${at(name)} aria-current=${name === tab ? "page" : undefined}>${label}</a>`)}</nav>
        ${tab === "builds" ? html`<${Builds} job=${job} />` : html`<${Shown} live=${live}>${(version) => {
            if (tab === "edit") return html`<${Editor} job=${job} current=${version} />`;
            if (tab === "trigger") return html`<${Trigger} job=${job} document=${version.document} started=${(id) => go(addresses.build(id))} />`;
            return html`<${History} job=${job} current=${version} place=${place} />`;
        }}<//>`}`;
}

export function NewJob() {
    useTitle("New job");
    return html`<p class="trail"><a href="/">Jobs</a></p><h1>New job</h1><${Editor} job="" current=${null} />`;
}

function Builds({ job }) {
    const pager = usePager();
    const now_ms = useNow();
    const live = useLive(addresses.query(addresses.builds(job), { limit: 20, cursor: pager.cursor }));
    return html`<${Shown} live=${live}>${(page) => (page.items.length ? html`
        <p><${Bars} builds=${page.items} places=${20} now_ms=${now_ms} /></p>
        <table class="list"><thead><tr><th scope="col">Build</th><th scope="col">State</th><th scope="col">Time</th><th scope="col">Started</th><th scope="col">Cause</th></tr></thead>
        <tbody>${page.items.map((build) => html`<${Row} key=${build.id} build=${build} now_ms=${now_ms} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>It has not been built yet.<//>`)}<//>`;
}

function Row({ build, now_ms }) {
    const { trigger } = build;
    return html`<tr><th scope="row"><a href=${addresses.build(build.id)}>#${addresses.split(build.id).number}</a></th>
        <td><${State} state=${build.state} /></td>
        <td>${duration(((build.finished_ms || now_ms) - build.created_ms) / 1000)}</td>
        <td><${Ago} at_ms=${build.created_ms} now_ms=${now_ms} /></td>
        <td>${trigger.kind}${trigger.actor ? ` by ${trigger.actor}` : ""}${trigger.ref ? html` <code>${trigger.ref}</code>` : null} <span class="dim">${build.reason}</span></td></tr>`;
}
