/** What the tests of a build came to, in short. */
import * as addresses from "./addresses.js";
import { html } from "./html.js";
import { useLive } from "./live.js";

const NAMED = 10;
const NOTED = 5;

/** How many tests each task has and which failed first; nothing where no task tells of any. */
export function Reports({ build }) {
    const live = useLive(addresses.reports(build.id));
    if (!live.body?.items.length) return null;
    return html`<section><h2>Tests</h2>${live.body.items.map((told) => html`<${Report} key=${`${told.task} ${told.source}`} build=${build} told=${told} />`)}
        <p class="facts"><a href=${addresses.tests(build.id)}>failed tests with what they said</a>, <a href=${`${addresses.tests(build.id)}?outcome=`}>all tests</a></p></section>`;
}

function Report({ build, told: { task, source, summary } }) {
    const counts = [[summary.failed, "failed"], [summary.quarantined, "failed in quarantine"], [summary.skipped, "skipped"], [summary.flaky, "flaky"]];
    const says = [`${summary.tests} ${summary.tests === 1 ? "test" : "tests"}`, ...counts.filter(([count]) => count).map(([count, what]) => `${count} ${what}`)];
    if (summary.coverage !== null) says.push(`coverage ${summary.coverage} %`);
    const more = summary.failed + summary.quarantined - Math.min(NAMED, summary.failing.length);
    return html`<p class="facts"><a href=${addresses.query(addresses.build(build.id), { task })}>${task}</a>${source ? html` <span class="dim">by ${source}</span>` : null}: ${says.join(", ")}</p>
        ${summary.failing.length ? html`<ul>${summary.failing.slice(0, NAMED).map((one) => html`<li key=${one.name}><bdi><code>${one.name}</code></bdi>${one.is_quarantined ? html` <span class="chip">quarantined</span>` : null} <bdi class="dim">${one.message}</bdi></li>`)}${more > 0 ? html`<li class="dim">and ${more} more</li>` : null}</ul>` : null}
        ${summary.first_annotations.length ? html`<ul>${summary.first_annotations.slice(0, NOTED).map((note, at) => html`<li key=${at}><bdi><code>${note.file}:${note.line}</code></bdi> ${note.level}: <bdi>${note.text}</bdi></li>`)}${summary.annotations > NOTED ? html`<li class="dim">and ${summary.annotations - NOTED} more</li>` : null}</ul>` : null}
        ${summary.problems.length ? html`<ul>${summary.problems.map((problem, at) => html`<li key=${at}>not read: <bdi>${problem}</bdi></li>`)}</ul>` : null}`;
}

/** How a test ended, and what else is to be known of it. */
export function Mark({ told }) {
    const more = [told.is_quarantined ? "quarantined" : "", told.is_flaky ? "flaky" : ""].filter(Boolean);
    return html`${told.outcome}${more.map((word) => html` <span class="chip">${word}</span>`)}`;
}
