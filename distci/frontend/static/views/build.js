/** One build: how far it is, why it waits, what it printed and made. */
import * as addresses from "../addresses.js";
import { post } from "../api.js";
import { duration, spent_s } from "../format.js";
import { Graph } from "../graph-view.js";
import { html } from "../html.js";
import { refresh, useLive } from "../live.js";
import { Action, Ago, Shown, useNow, useTitle } from "../parts.js";
import { go } from "../router.js";
import { State } from "../states.js";
import { Why } from "../why.js";

export function Build({ parts: [job, number] }) {
    const id = `${job}#${number}`;
    useTitle(id);
    const live = useLive(addresses.build(id));
    return html`<${Shown} live=${live}>${(build) => html`<${Whole} build=${build} />`}<//>`;
}

function Whole({ build }) {
    const now_ms = useNow();
    const { job, number } = addresses.split(build.id);
    const path = addresses.build(build.id);
    const isOver = build.result !== null;
    const took = ((build.finished_ms || now_ms) - build.created_ms) / 1000;
    const cancel = async () => {
        await post(`${path}/cancel`, {});
        refresh(path);
    };
    const retry = (only_failed) => async () => go(addresses.build((await post(`${path}/retry`, { only_failed })).body.id));
    return html`<p class="trail"><a href="/">Jobs</a> / <a href=${addresses.job(job)}>${job}</a></p>
        <div class="heading"><h1><a href=${addresses.job(job)}>${job}</a> #${number} <${State} state=${build.state} /></h1>
        <div class="tools">
            ${isOver ? null : html`<${Action} kind="danger" run=${cancel} disabled=${build.state === "cancelling"}>Cancel<//>`}
            ${isOver ? html`<${Action} run=${retry(false)}>Retry all<//>` : null}
            ${build.state === "failed" || build.state === "cancelled" ? html`<${Action} run=${retry(true)}>Retry failed<//>` : null}
        </div></div>
        <p class="facts dim">${duration(took)}, <${Ago} at_ms=${build.created_ms} now_ms=${now_ms} />; <${Cause} trigger=${build.trigger} />;${" "}
            <a href=${`${addresses.job(job)}?tab=definition&version=${build.config}`}>version ${build.config}</a>
            ${build.trigger.commit ? html`; commit <code>${build.trigger.commit.slice(0, 12)}</code>` : null}
            ${build.trigger.ref ? html`; <code>${build.trigger.ref}</code>` : null}</p>
        ${build.reason ? html`<p class="reason">${build.reason}</p>` : null}
        <${Parameters} trigger=${build.trigger} />
        <${Graph} build=${build} now_ms=${now_ms} />
        <${Tasks} build=${build} now_ms=${now_ms} />
        <${Why} path=${`${path}/why`} title="Why" />
        <${Artifacts} build=${build} />
        ${build.downstream.length ? html`<section><h2>Started by its end</h2><ul>${build.downstream.map((id) => html`<li><a href=${addresses.build(id)}>${id}</a></li>`)}</ul></section>` : null}`;
}

function Cause({ trigger }) {
    const by = trigger.actor ? ` by ${trigger.actor}` : "";
    const of = trigger.upstream || trigger.retry_of;
    return html`<span>${trigger.kind}${by}${of ? html` of <a href=${addresses.build(of)}>${of}</a>` : null}</span>`;
}

function Parameters({ trigger }) {
    const given = Object.entries({ ...trigger.presets, ...trigger.parameters });
    if (!given.length) return null;
    return html`<p class="facts">${given.map(([name, value]) => html`<code class="chip">${name}=${value}</code> `)}</p>`;
}

function Tasks({ build, now_ms }) {
    return html`<section><h2>Tasks</h2><table class="list">
        <thead><tr><th scope="col">Task</th><th scope="col">State</th><th scope="col">Time</th><th scope="col">Worker</th><th scope="col">Log</th></tr></thead>
        <tbody>${build.tasks.map((task) => html`<${Task} key=${task.name} build=${build} task=${task} now_ms=${now_ms} />`)}</tbody></table></section>`;
}

function Task({ build, task, now_ms }) {
    const seconds = spent_s(task, now_ms);
    return html`<tr><th scope="row">${task.name} <span class="dim">${task.type}</span></th>
        <td><${State} state=${task.state} />${task.attempts.length > 1 ? html` <span class="dim">attempt ${task.attempts.length}</span>` : null}</td>
        <td>${seconds === null ? "" : duration(seconds)}</td>
        <td>${task.worker}</td>
        <td>${task.token ? html`<a href=${addresses.log(build.id, task.name)} aria-label=${`Log of ${task.name}`}>log</a>` : null}</td></tr>`;
}

function Artifacts({ build }) {
    const live = useLive(`${addresses.artifacts(build.id)}?limit=5`);
    if (!live.body?.items.length) return null;
    return html`<section><h2>Artifacts</h2><p>${live.body.items.map((artifact) => html`<a class="chip" download href=${`/api/v1${addresses.artifact(build.id, artifact.name)}`}>${artifact.name}</a> `)}
        <a href=${addresses.artifacts(build.id)}>${live.body.next ? "all of them" : "with sizes and digests"}</a></p></section>`;
}
