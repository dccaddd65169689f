/** Secrets of projects: set, listed by name, forgotten. A value goes to the front end and never comes back. */
import { query } from "../addresses.js";
import { ask } from "../api.js";
import { useAsked, useSettled } from "../asked.js";
import { html, useReducer, useState } from "../html.js";
import { Pager, usePager } from "../pager.js";
import { Action, Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { useSession } from "../session.js";

const VALUE_CHARS_MIN = 4;

export function Secrets() {
    useTitle("Secrets");
    const pager = usePager();
    const [version, changed] = useReducer((count) => count + 1, 0);
    const live = useAsked(query("/secrets", { limit: 50, cursor: pager.cursor }), version);
    const now_ms = useNow();
    return html`<h1>Secrets</h1><p class="dim">What tasks that name them get, and nobody may read. Listed are those of projects that you may change jobs of.</p>
        <${Give} given=${changed} />
<${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Secret</th><th scope="col">Project</th><th scope="col">Set</th><th scope="col"><span class="unseen">Forget</span></th></tr></thead>
        <tbody>${page.items.map((secret) => html`<${Row} key=${`${secret.project} ${secret.name}`} secret=${secret} now_ms=${now_ms} changed=${changed} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>There is none.<//>`)}<//>`;
}

function Row({ secret, now_ms, changed }) {
    const forget = async () => {
        await ask(query("/secrets", { project: secret.project, name: secret.name }), { method: "DELETE" });
        changed();
    };
    return html`<tr><th scope="row"><code>${secret.name}</code></th><td data-label="Project">${secret.project || "the whole system"}</td>
        <td data-label="Set"><${Ago} at_ms=${secret.set_ms} now_ms=${now_ms} /> <span class="dim">by ${secret.set_by || "somebody"}</span></td>
        <td><${Action} run=${forget} confirm="Really forget?">Forget<//></td></tr>`;
}

function Give({ given }) {
    const [name, setName] = useState("");
    const [project, setProject] = useState("");
    const [value, setValue] = useState("");
    const [isOpen, setOpen] = useState(false);
    const [last, setLast] = useState("");
    const asked = useSettled(project);
    const session = useSession(asked);
    const isEditor = (session?.may || []).includes("write");
    const give = async () => {
        await ask("/secrets", { method: "PUT", body: { project, name, value } });
        setLast(`${name} is set for ${project || "the whole system"}.`);
        setName("");
        setValue("");
        setOpen(false);
        given();
    };
    return html`<section>${last ? html`<p role="status">${last}</p>` : null}
        <details class="make" open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}><summary>Set a secret</summary><form class="fields" autocomplete="off" onSubmit=${(event) => event.preventDefault()}>
        <label>Name <input value=${name} maxlength="128" required spellcheck=${false} onInput=${(event) => setName(event.target.value)} placeholder="what a task names: DEPLOY_TOKEN" /></label>
        <label>Project <input value=${project} maxlength="128" onInput=${(event) => setProject(event.target.value)} placeholder="the whole system" /></label>
        <label>Value <textarea value=${value} rows="3" required spellcheck=${false} onInput=${(event) => setValue(event.target.value)} placeholder="at least ${VALUE_CHARS_MIN} characters; it is not shown again"></textarea></label>
        ${isEditor || !session || asked !== project ? null : html`<p class="dim" role="status">You may not change jobs of ${project || "the whole system"}: name a project that you may change jobs of.</p>`}
        <div><${Action} kind="main" run=${give} disabled=${!isEditor || asked !== project || !name.trim() || value.length < VALUE_CHARS_MIN}>Set<//></div></form></details></section>`;
}
