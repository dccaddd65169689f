/**
 * Changes by people without rights to their repository: who wants what built, and whoever may says whether it is.
 *
 * No stream tells of them: they are looked for every few seconds, and news of builds cost no look.
 */
import * as addresses from "../addresses.js";
import { post } from "../api.js";
import { html, useState } from "../html.js";
import { refresh, useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Action, Empty, Shown, useTitle } from "../parts.js";

export function HeldChanges() {
    useTitle("Held");
    const pager = usePager();
    const [done, setDone] = useState([]);
    const live = useLive(addresses.query("/held", { cursor: pager.cursor }), null);
    return html`<h1>Held changes</h1>
        <p class="dim">What people without rights to a repository want built, pull requests from forks as a rule. It is built when somebody who may start builds of all its jobs has looked at it and says so: its scripts run on the workers then, without secrets. Who decided is in the audit.</p>
        ${done.map((says, at) => html`<p key=${at} class="made" role="status">${says}</p>`)}
        <${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Change</th><th scope="col">Why it is held</th><th scope="col">Would start</th><th scope="col"><span class="unseen">Decide</span></th></tr></thead>
        <tbody>${page.items.map((held) => html`<${Row} key=${held.id} held=${held} said=${(says) => setDone([...done, says])} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>No change waits for an approval.<//>`)}<//>`;
}

function Row({ held, said }) {
    const { change } = held;
    const name = change.pull_request ? `#${change.pull_request} of ${change.repository}` : change.repository;
    const decide = (what) => async () => {
        const { body } = await post(`/held/${held.id}/${what}`);
        refresh("/");
        said(what === "refuse" ? `${name} is refused.` : started(name, body.jobs));
    };
    return html`<tr><th scope="row">${change.message.split("\n")[0] || name} <span class="dim">${name}, <code>${change.commit.slice(0, 12)}</code>${change.branch ? ` for ${change.branch}` : ""}</span></th>
        <td>${change.actor || "Its author"} has no rights to ${change.repository} <span class="dim">(${held.receiver}: <code>${held.id}</code>)</span></td>
        <td>${held.jobs.length ? held.jobs.map((job) => html`<a class="chip" href=${addresses.job(job)}>${job}</a>`) : html`<span class="dim">nothing any more</span>`}</td>
        <td>${held.may_decide ? html`<span class="tools"><${Action} kind="main" run=${decide("approve")} confirm="Really build it?">Approve<//><${Action} run=${decide("refuse")} confirm="Really refuse?">Refuse<//></span>`
        : html`<span class="dim">Who may start builds of all its jobs decides.</span>`}</td></tr>`;
}

function started(name, jobs) {
    const builds = jobs.filter((job) => job.build);
    return html`${name} is approved: ${builds.length ? builds.map(({ build }) => html`<a class="chip" href=${addresses.build(build)}>${build}</a>`) : "it starts nothing any more"}`;
}

/** That changes wait, where somebody looks who wonders why nothing is built; of one job or of all. */
export function HeldNote({ job = "" }) {
    const { body } = useLive("/held", null);
    const count = (body?.items || []).filter((held) => !job || held.jobs.includes(job)).length;
    if (!count) return null;
    return html`<p class="facts note" role="status"><a href="/held">${count === 1 ? "A change waits" : `${count}${body.next ? " or more" : ""} changes wait`} for an approval</a></p>`;
}
