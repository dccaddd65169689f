/** The tests of a job that cannot be relied on: the flaky ones with their evidence, and those in quarantine with whose they are and until when. Their names come from scripts. */
import * as addresses from "./addresses.js";
import { ask } from "./api.js";
import { useAsked } from "./asked.js";
import { moment } from "./format.js";
import { html, useEffect, useReducer, useRef, useState } from "./html.js";
import { Pager, usePager } from "./pager.js";
import { Action, Ago, Empty, Shown, useNow } from "./parts.js";

const LIVES = [[3, "3 days"], [7, "7 days"], [14, "14 days"], [30, "30 days"], [90, "90 days"]];
const USUAL_DAYS = 14;
const PAGE = 100;

export function Unreliable({ job, mayQuarantine }) {
    const pager = usePager();
    const [version, changed] = useReducer((count) => count + 1, 0);
    const quarantined = useAsked(addresses.query(addresses.quarantine(job), { limit: PAGE, cursor: pager.cursor }), version);
    const [wanted, want] = useState({ test: "" });
    return html`<${Flaky} job=${job} quarantined=${quarantined.body?.items || []} want=${mayQuarantine ? (test) => want({ test }) : null} />
        <section><h2>Quarantine</h2><p class="dim">A test in here fails without failing its task, where the task has <code>exit_statuses</code>. When its time is up, it counts again.</p>
        ${mayQuarantine ? html`<${Put} job=${job} wanted=${wanted} put=${changed} />` : null}
        <${Shown} live=${quarantined}>${(page) => html`${page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Test</th><th scope="col">Owner</th><th scope="col">Until</th><th scope="col">Why</th>${mayQuarantine ? html`<th scope="col"><span class="unseen">Release</span></th>` : null}</tr></thead>
        <tbody>${page.items.map((one) => html`<${Row} key=${one.test} one=${one} released=${mayQuarantine ? changed : null} />`)}</tbody></table>` : html`<${Empty}>No test is in quarantine.<//>`}
        <${Pager} pager=${pager} next=${page.next} />`}<//></section>`;
}

/** What is flaky is found by looking through many builds, so it is asked for once. `want(test)` is for who may put one in quarantine. */
function Flaky({ job, quarantined, want }) {
    const pager = usePager();
    const live = useAsked(addresses.query(addresses.flaky(job), { limit: PAGE, cursor: pager.cursor }));
    const isKnown = (name) => quarantined.some((one) => !one.is_over && means(one.test, name));
    return html`<section><h2>Flaky tests</h2><p class="dim">Both passed and failed with the same commit, version of the job and parameters, in its latest 50 builds.</p>
        <${Shown} live=${live}>${(page) => html`${page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Test</th><th scope="col">Task</th><th scope="col">Failed</th><th scope="col">Passed</th><th scope="col">Last failed</th>${want ? html`<th scope="col"><span class="unseen">Quarantine</span></th>` : null}</tr></thead>
        <tbody>${page.items.map((one) => html`<tr key=${`${one.task} ${one.test}`}><th scope="row"><bdi><code>${one.test}</code></bdi>${isKnown(one.test) ? html` <span class="chip">quarantined</span>` : null}</th>
            <td data-label="Task">${one.task}</td><td data-label="Failed">${times(one.failed)}</td><td data-label="Passed">${times(one.passed)}</td>
            <td data-label="Last failed"><a href=${addresses.tests(one.last_failed)}>#${addresses.split(one.last_failed).number}</a>${one.commit ? html` <code>${one.commit.slice(0, 12)}</code>` : null}</td>
            ${want ? html`<td>${isKnown(one.test) ? null : html`<button type="button" onClick=${() => want(one.test)}>Quarantine …</button>`}</td>` : null}</tr>`)}</tbody></table>` : html`<${Empty}>None has been seen.<//>`}
        <${Pager} pager=${pager} next=${page.next} />`}<//></section>`;
}

function Row({ one, released }) {
    const now_ms = useNow();
    const release = async () => {
        await ask(addresses.query(addresses.quarantine(one.job), { test: one.test }), { method: "DELETE" });
        released();
    };
    return html`<tr><th scope="row"><bdi><code>${one.test}</code></bdi></th><td data-label="Owner"><bdi>${one.owner}</bdi></td>
        <td data-label="Until"><time datetime=${new Date(one.until_ms).toISOString()}>${moment(one.until_ms)}</time>${one.is_over ? html` <span class="chip">over: it counts</span>` : null}</td>
        <td data-label="Why"><bdi>${one.reason}</bdi> <span class="dim">set <${Ago} at_ms=${one.set_ms} now_ms=${now_ms} /> by ${one.set_by || "somebody"}</span></td>
        ${released ? html`<td><${Action} run=${release} confirm="Really release?">Release<//></td>` : null}</tr>`;
}

/** The form; `wanted.test` is the one that somebody has chosen in the list. */
function Put({ job, wanted, put }) {
    const [test, setTest] = useState("");
    const [owner, setOwner] = useState("");
    const [reason, setReason] = useState("");
    const [days, setDays] = useState(USUAL_DAYS);
    const [isOpen, setOpen] = useState(false);
    const [last, setLast] = useState("");
    const next = useRef(null);
    useEffect(() => {
        if (!wanted.test) return;
        setTest(wanted.test);
        setOpen(true);
        // Once it is open: what is not shown takes no focus.
        requestAnimationFrame(() => next.current?.focus());
    }, [wanted]);
    const send = async () => {
        const { body } = await ask(addresses.quarantine(job), { method: "PUT", body: { test, owner, days, reason } });
        setLast(`${body.test} is in quarantine until ${moment(body.until_ms)}.`);
        setTest("");
        setReason("");
        setOpen(false);
        put();
    };
    return html`${last ? html`<p role="status"><bdi>${last}</bdi></p>` : null}
        <details class="make" open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}><summary>Put a test in quarantine</summary><form class="fields" onSubmit=${(event) => event.preventDefault()}>
        <label>Test <input value=${test} maxlength="400" required spellcheck=${false} onInput=${(event) => setTest(event.target.value)} placeholder="its name; or how the names of several begin, and *" /></label>
        <label>Owner <input ref=${next} value=${owner} maxlength="400" required onInput=${(event) => setOwner(event.target.value)} placeholder="who sees to it: ada@example.org" /></label>
        <label>For <select value=${days} onChange=${(event) => setDays(Number(event.target.value))}>${LIVES.map(([count, says]) => html`<option value=${count} selected=${count === days}>${says}</option>`)}</select></label>
        <label>Why <input value=${reason} maxlength="300" onInput=${(event) => setReason(event.target.value)} placeholder="the proxy moves" /></label>
        <div><${Action} kind="main" run=${send} disabled=${!test.trim() || !owner.trim()}>Put in quarantine<//></div></form></details>`;
}

/** Whether what is in quarantine is a test of that name, or one of several that it is the beginning of. */
const means = (quarantined, name) => (quarantined.endsWith("*") ? name.startsWith(quarantined.slice(0, -1)) : name === quarantined);
const times = (count) => `${count.toLocaleString("en")}×`;
