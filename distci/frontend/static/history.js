/** A job's definition as it is and as it was: its versions, what each changed, and the way back. */
import * as addresses from "./addresses.js";
import { post } from "./api.js";
import { Diff } from "./diff.js";
import { html } from "./html.js";
import { refresh, useLive } from "./live.js";
import { Pager, usePager } from "./pager.js";
import { Action, Ago, Shown, useNow } from "./parts.js";

export function History({ job, current, place, mayWrite }) {
    const chosen = Number(place.query.get("version")) || current.version;
    const shown = useLive(addresses.query(addresses.job(job), { version: chosen }));
    const diff = useLive(chosen > 1 ? addresses.query(`${addresses.job(job)}/-/diff`, { new: chosen }) : null);
    return html`<div class="two"><section><h2>Versions</h2><${Versions} job=${job} current=${current} chosen=${chosen} mayWrite=${mayWrite} /></section>
        <section><h2>Version ${chosen}</h2><${Shown} live=${shown}>${(version) => html`
            ${chosen > 1 ? html`<h3>What it changed</h3><${Shown} live=${diff}>${(found) => html`<${Diff} text=${found.diff} />`}<//>` : null}
            <h3>The whole</h3><pre tabindex="0" aria-label="The definition">${version.is_deleted ? "It was deleted." : JSON.stringify(version.document, null, 2)}</pre>`}<//></section></div>`;
}

function Versions({ job, current, chosen, mayWrite }) {
    const pager = usePager();
    const now_ms = useNow();
    const live = useLive(addresses.query(addresses.history(job), { cursor: pager.cursor }));
    const back = (version) => async () => {
        await post(`${addresses.job(job)}/-/rollback`, { version });
        refresh(addresses.job(job));
    };
    return html`<${Shown} live=${live}>${(page) => html`<ol class="versions">${page.items.map((version) => html`<li key=${version.version}>
        <a href=${addresses.query(addresses.job(job), { tab: "definition", version: version.version })} aria-current=${version.version === chosen ? "true" : undefined}>version ${version.version}</a>
        ${version.version === current.version ? html` <strong>in force</strong>` : null} <span class="dim"><${Ago} at_ms=${version.changed_s * 1000} now_ms=${now_ms} />${version.actor ? ` by ${version.actor}` : ""}</span>
        ${version.reason ? html`<div>${version.reason}</div>` : null}
        ${mayWrite && version.version === chosen && version.version !== current.version && !version.is_deleted ? html`<div><${Action} run=${back(version.version)} confirm="Really go back?">Go back to it<//></div>` : null}</li>`)}</ol>
        <${Pager} pager=${pager} next=${page.next} />`}<//>`;
}
