/** One job: its builds, its definition through time, its tests that cannot be relied on, changing it, starting it. */
import * as addresses from "../addresses.js";
import { ROOT } from "../api.js";
import { Command } from "../command.js";
import { Durations } from "../durations.js";
import { Editor } from "../editor.js";
import { duration } from "../format.js";
import { History } from "../history.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { go, rename } from "../router.js";
import { useMay } from "../session.js";
import { culprits, State, stateOf } from "../states.js";
import { HeldNote } from "./held.js";
import { Trigger } from "../trigger.js";
import { Unreliable } from "../unreliable.js";

/** With the right that each takes. What not everybody may do is last: nothing moves under the pointer once it is known. */
const TABS = [["builds", "Builds", "read"], ["definition", "Definition", "read"], ["tests", "Tests", "read"], ["badge", "Badge", "read"], ["edit", "Edit", "write"], ["trigger", "Start", "trigger"]];

export function Job({ place, parts: [job] }) {
    useTitle(job);
    const tab = place.query.get("tab") || "builds";
    const at = (name) => addresses.query(addresses.job(job), { tab: name === "builds" ? "" : name });
    const live = useLive(addresses.job(job));
    const may = useMay(job);
    // Of a job that is not there, nothing can be started or changed.
    const isMissing = live.problem?.status === 404;
    const tabs = TABS.filter(([, , right]) => !isMissing || right === "read").filter(([name, , right]) => name === tab || right === "read" || may.includes(right));
    return html`<p class="trail"><a href="/">Jobs</a>${may.length ? html` <span class="dim">— here you may: ${may.join(", ")}</span>` : null}</p>
        <div class="heading"><h1>${job}</h1>${may.includes("trigger") && !isMissing ? html`<div class="tools"><a class="button" href=${at("trigger")}>Start a build</a></div>` : null}</div>
        <nav class="tabs" aria-label="About this job">${tabs.map(([name, label]) => html`<a href=${at(name)} aria-current=${name === tab ? "page" : undefined}>${label}</a>`)}</nav>
        ${live.body?.document.description ? html`<p class="facts">${live.body.document.description}</p>` : null}
        ${live.body?.document.tags?.length ? html`<p class="facts">${live.body.document.tags.map((tag) => html`<a class="chip" href=${addresses.query("/", { text: `tag:${tag}` })}>${tag}</a>`)}</p>` : null}
        <${HeldNote} job=${job} />
        ${tab === "builds" ? html`<${Builds} job=${job} text=${place.query.get("text") || ""} />` : html`<${Shown} live=${live}>${(version) => {
            if (tab === "edit") return html`<${Editor} job=${job} current=${version} />`;
            if (tab === "trigger") return html`<${Trigger} job=${job} document=${version.document} started=${(id) => go(addresses.build(id))} />`;
            if (tab === "tests") return html`<${Unreliable} job=${job} mayQuarantine=${may.includes("quarantine")} />`;
            if (tab === "badge") return html`<${Badge} job=${job} />`;
            return html`<${History} job=${job} current=${version} place=${place} mayWrite=${may.includes("write")} />`;
        }}<//>`}`;
}

export function NewJob() {
    useTitle("New job");
    return html`<p class="trail"><a href="/">Jobs</a></p><h1>New job</h1><${Editor} job="" current=${null} />`;
}

function Builds({ job, text }) {
    const pager = usePager();
    const now_ms = useNow();
    const live = useLive(addresses.query(addresses.builds(job), { limit: 20, text, cursor: pager.cursor }));
    const search = (event) => {
        pager.reset();
        rename(addresses.query(addresses.job(job), { text: event.target.value }));
    };
    const none = text ? `None of these builds holds “${text}”.` : "It has not been built yet.";
    return html`<${Durations} job=${job} now_ms=${now_ms} />
        <form role="search" class="tools" onSubmit=${(event) => event.preventDefault()}>
            <input type="search" data-key="/" aria-label="Search builds" class="wide" placeholder="Search builds: state, ref, commit, who  ( / )" maxlength="128" value=${text} onInput=${search} /></form>
        <${Shown} live=${live}>${(page) => html`${page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Build</th><th scope="col">State</th><th scope="col">Time</th><th scope="col">Started</th><th scope="col">Cause</th></tr></thead>
        <tbody>${page.items.map((build) => html`<${Row} key=${build.id} build=${build} now_ms=${now_ms} />`)}</tbody></table>`
        : html`<${Empty}>${none}<//>`}<${Pager} pager=${pager} next=${page.next} />`}<//>`;
}

/** The first few of some names. */
const some = (names) => names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");

/** A picture of how the last build ended, for pages elsewhere. */
function Badge({ job }) {
    const picture = `${location.origin}${ROOT}${addresses.job(job)}/-/badge.svg`;
    const page = location.origin + addresses.job(job);
    return html`<section><p><img src=${picture} alt=${`How the last build of ${job} ended`} /></p>
        <${Command} label="In Markdown" text=${`[![${job}](${picture})](${page})`} />
        <${Command} label="In reStructuredText" text=${`.. image:: ${picture}\n    :target: ${page}\n    :alt: ${job}`} />
        <p class="dim">Pages elsewhere can show it when everybody may see the job: <code>distci access show public --project ${job}</code>. Add <code>?label=tests</code> for another text before the state, <code>?ref=main</code> for the last build of a branch.</p></section>`;
}

function Row({ build, now_ms }) {
    const { trigger } = build;
    return html`<tr><th scope="row"><a href=${addresses.build(build.id)}>#${addresses.split(build.id).number}</a></th>
        <td><${State} state=${stateOf(build)} />${build.result === "failed" ? html` <span class="dim">${some(culprits(build))}</span>` : null}</td>
        <td data-label="Time">${duration(((build.finished_ms || now_ms) - build.created_ms) / 1000)}</td>
        <td><${Ago} at_ms=${build.created_ms} now_ms=${now_ms} /></td>
        <td>${trigger.kind}${trigger.actor ? ` by ${trigger.actor}` : ""}${trigger.ref ? html` <code>${trigger.ref}</code>` : null} <span class="dim">${build.reason}</span></td></tr>`;
}
