/** The files that a build published. They are fetched to be kept, never shown: they come from scripts. */
import * as addresses from "../addresses.js";
import { ROOT } from "../api.js";
import { size } from "../format.js";
import { html } from "../html.js";
import { useLive } from "../live.js";
import { Pager, usePager } from "../pager.js";
import { Empty, Shown, useTitle } from "../parts.js";

export function Artifacts({ parts: [job, number] }) {
    const build = `${job}#${number}`;
    useTitle(`Artifacts of ${build}`);
    const pager = usePager();
    const live = useLive(addresses.query(addresses.artifacts(build), { cursor: pager.cursor }));
    return html`<p class="trail"><a href="/">Jobs</a> / <a href=${addresses.job(job)}>${job}</a> / <a href=${addresses.build(build)}>#${number}</a></p>
        <h1>Artifacts</h1><${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Name</th><th scope="col">Size</th><th scope="col">SHA-256</th></tr></thead>
        <tbody>${page.items.map((artifact) => html`<tr key=${artifact.name}>
            <th scope="row"><a download href=${ROOT + addresses.artifact(build, artifact.name)}><bdi>${artifact.name}</bdi></a></th>
            <td>${size(artifact.size_bytes)}</td><td><code title=${artifact.sha256}>${artifact.sha256.slice(0, 16)}…</code></td></tr>`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>It has published nothing.<//>`)}<//>`;
}
