/** What a task prints, as it prints it. */
import * as addresses from "../addresses.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { LogPane } from "../log-pane.js";
import { useTitle } from "../parts.js";
import { State } from "../states.js";

export function Log({ place, parts: [job, number, task] }) {
    const build = `${job}#${number}`;
    const attempt = place.query.get("attempt") || "";
    useTitle(`${task} · ${build}`);
    // The stream of the log tells when an attempt begins or ends: no other is needed.
    const { body: found } = useLive(addresses.task(build, task), null);
    const linked = Number(/^L([1-9][0-9]*)$/.exec(place.hash)?.[1] || 0);
    const title = html`<h1>${task} ${found ? html`<${State} state=${found.state} />` : null} <${Attempts} task=${found} attempt=${attempt} path=${addresses.log(build, task)} /></h1>`;
    return html`<div class="fill"><p class="trail"><a href="/">Jobs</a> / <a href=${addresses.job(job)}>${job}</a> / <a href=${addresses.query(addresses.build(build), { task })}>#${number}</a></p>
        <${LogPane} key=${attempt} build=${build} task=${task} attempt=${attempt} linked=${linked} title=${title} /></div>`;
}

/** Earlier attempts have logs of their own. */
function Attempts({ task, attempt, path }) {
    if (!task || task.attempts.length < 2) return null;
    const tokens = task.attempts.map((record) => record.token).filter(Boolean);
    if (tokens.length < 2) return null;
    return html`<span class="attempts">${tokens.map((token, at) => html`<a href=${addresses.query(path, { attempt: token })} aria-current=${token === (attempt || task.token) ? "true" : undefined}>attempt ${at + 1}</a> `)}</span>`;
}
