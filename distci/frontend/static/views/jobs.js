/** All jobs: how each stands, and its last builds. */
import * as addresses from "../addresses.js";
import { Bars } from "../bars.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { go, rename } from "../router.js";
import { useSession } from "../session.js";
import { State } from "../states.js";

export function Jobs({ place }) {
    useTitle("Jobs");
    const text = place.query.get("text") || "";
    const pager = usePager();
    const tag = /^tag:([\w.-]+)$/.exec(text)?.[1] || "";
    const live = useLive(addresses.query("/overview", { text: tag ? "" : text, tag, cursor: pager.cursor }));
    const now_ms = useNow();
    const isKnown = (useSession()?.kind || "nobody") !== "nobody";
    // A build's own name leads to it.
    const build = /^([^#\s]+)#([1-9][0-9]{0,8})$/.exec(text);
    const entered = (event) => {
        event.preventDefault();
        if (build) go(addresses.build(text));
    };
    const search = (event) => {
        pager.reset();
        rename(addresses.query("/", { text: event.target.value }));
    };
    return html`<div class="heading"><h1>Jobs</h1>
        <form role="search" class="tools" onSubmit=${entered}>
            <input type="search" data-key="/" aria-label="Search jobs" class="wide" placeholder="Search jobs, tag:nightly, job#12  ( / )" value=${text} onInput=${search} />
            ${isKnown ? html`<a class="button" href="/jobs/-/new">New job</a>` : null}
        </form></div>
        <${Shown} live=${live}>${(page) => html`
            ${page.items.length ? html`<table class="list jobs">
                <thead><tr><th scope="col">Job</th><th scope="col">State</th><th scope="col">Last build</th><th scope="col">Last builds</th></tr></thead>
                <tbody>${page.items.map((job) => html`<${Job} key=${job.job} job=${job} now_ms=${now_ms} />`)}</tbody></table>`
            : build ? html`<${Empty}>Enter goes to <a href=${addresses.build(text)}>${text}</a>.<//>` : html`<${Empty}>${text ? tag ? `No job has the tag ${tag}.` : `No job's name here holds “${text}”.` : "There is no job yet."}<//>`}
            <${Pager} pager=${pager} next=${page.next} />`}<//>`;
}

function Job({ job, now_ms }) {
    const last = job.builds[0];
    return html`<tr>
        <th scope="row"><a href=${addresses.job(job.job)}>${job.job}</a></th>
        <td>${last ? html`<${State} state=${last.state} />` : html`<span class="dim">not built yet</span>`}</td>
        <td>${last ? html`<a href=${addresses.build(last.id)}>#${addresses.split(last.id).number}</a> <span class="dim"><${Ago} at_ms=${last.created_ms} now_ms=${now_ms} /></span>` : null}</td>
        <td><${Bars} builds=${job.builds} now_ms=${now_ms} /></td></tr>`;
}
