/** The tests of a build: how they ended and what the failed ones said. All of it comes from scripts. */
import * as addresses from "../addresses.js";
import { useAsked } from "../asked.js";
import { duration } from "../format.js";
import { html } from "../html.js";
import { Pager, usePager } from "../pager.js";
import { Empty, Shown, useTitle } from "../parts.js";
import { rename } from "../router.js";
import { Mark } from "../tests.js";

const OUTCOMES = [["failed", "that failed"], ["", "all of them"], ["passed", "that passed"], ["skipped", "that were skipped"]];

export function Tests({ place, parts: [job, number] }) {
    const build = `${job}#${number}`;
    useTitle(`Tests of ${build}`);
    const wanted = place.query.get("outcome") ?? "failed";
    const outcome = OUTCOMES.some(([name]) => name === wanted) ? wanted : "failed";
    const pager = usePager();
    const live = useAsked(addresses.query(addresses.tests(build), { outcome, cursor: pager.cursor }));
    const choose = (event) => {
        pager.reset();
        rename(`${addresses.tests(build)}?${new URLSearchParams({ outcome: event.target.value })}`);
    };
    return html`<p class="trail"><a href="/">Jobs</a> / <a href=${addresses.job(job)}>${job}</a> / <a href=${addresses.build(build)}>#${number}</a></p>
        <div class="heading"><h1>Tests</h1><label>Show <select value=${outcome} onChange=${choose}>${OUTCOMES.map(([name, says]) => html`<option value=${name} selected=${name === outcome}>${says}</option>`)}</select></label></div>
        <${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Test</th><th scope="col">Outcome</th><th scope="col">Time</th><th scope="col">Task</th></tr></thead>
        <tbody>${page.items.map((one) => html`<${Row} key=${one.position} one=${one} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>There are none${outcome ? ` ${OUTCOMES.find(([name]) => name === outcome)[1]}` : ""}.<//>`)}<//>`;
}

function Row({ one: { task, source, case: told } }) {
    const said = told.text || told.message;
    return html`<tr><th scope="row"><bdi><code>${told.name}</code></bdi>${said ? html`<details><summary><bdi>${told.message || "what it said"}</bdi></summary><pre>${said}</pre></details>` : null}</th>
        <td data-label="Outcome"><${Mark} told=${told} /></td><td data-label="Time">${duration(told.duration_ms / 1000)}</td>
        <td data-label="Task">${task}${source ? html` <span class="dim">by ${source}</span>` : null}</td></tr>`;
}
