/** Why something is as it is, and what would change that. */
import { duration } from "./format.js";
import { html } from "./html.js";
import { useLive } from "./live.js";
import { Wrong } from "./parts.js";

/** The reasons at a path: of a build, a task or a ticket. */
export function Why({ path, title }) {
    const { body, problem } = useLive(path);
    const reasons = body ? body.items || [body] : [];
    return html`<section class="why"><h2>${title}</h2><${Wrong} problem=${problem} />
        <dl>${reasons.map((reason) => html`<${Reason} key=${reason.subject} reason=${reason} />`)}</dl></section>`;
}

export function Reason({ reason }) {
    const place = reason.place ? `place ${reason.place} in its line` : "";
    const soon = reason.starts_in_s === null ? "" : `likely to start in ${duration(reason.starts_in_s)}`;
    const when = [place, soon].filter(Boolean).join(", ");
    return html`<div><dt>${reason.subject} <span class="dim">${reason.state}</span></dt>
        <dd>${reason.because}${when ? html` <span class="dim">(${when})</span>` : null}
        ${reason.remedy ? html`<br /><span class="remedy">What helps: <code>${reason.remedy}</code></span>` : null}</dd></div>`;
}
