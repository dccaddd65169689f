/** Access tokens: made, shown once, listed with their last use, revoked. */
import { query } from "../addresses.js";
import { post } from "../api.js";
import { useAsked, useSettled } from "../asked.js";
import { Command } from "../command.js";
import { html, useReducer, useState } from "../html.js";
import { Pager, usePager } from "../pager.js";
import { Action, Ago, Empty, Shown, useNow, useTitle } from "../parts.js";
import { useSession } from "../session.js";
import { State } from "../states.js";

const DAY_S = 86400;
const LIVES = [[1, "1 day"], [7, "7 days"], [30, "30 days"], [90, "90 days"], [365, "a year"]];
const SCOPES = [["read", "look"], ["trigger", "start, cancel and repeat builds"], ["report", "send test results"], ["quarantine", "put tests in quarantine"], ["shell", "open terminals in tasks that are held"], ["write", "change jobs"], ["admin", "say who may do what, and make tokens"]];

export function Tokens() {
    useTitle("Tokens");
    const pager = usePager();
    const [version, changed] = useReducer((count) => count + 1, 0);
    const live = useAsked(query("/tokens", { limit: 50, cursor: pager.cursor }), version);
    const now_ms = useNow();
    return html`<h1>Access tokens</h1><p class="dim">What programs and workers show to say who they are. Listed are those of projects that you are an owner of.</p>
        <${Make} made=${changed} />
<${Shown} live=${live}>${(page) => (page.items.length ? html`
        <table class="list"><thead><tr><th scope="col">Token</th><th scope="col">Good for</th><th scope="col">State</th><th scope="col">Ends</th><th scope="col">Last used</th><th scope="col"><span class="unseen">Revoke</span></th></tr></thead>
        <tbody>${page.items.map((token) => html`<${Row} key=${token.id} token=${token} now_ms=${now_ms} changed=${changed} />`)}</tbody></table>
        <${Pager} pager=${pager} next=${page.next} />` : html`<${Empty}>There is none.<//>`)}<//>`;
}

function Row({ token, now_ms, changed }) {
    const revoke = async () => {
        await post(`/tokens/${token.id}/revoke`, {});
        changed();
    };
    const good = token.kinds.length ? `work of ${token.kinds.join(", ")}` : token.scopes.join(", ");
    const ends_ms = token.expires_s * 1000;
    return html`<tr><th scope="row">${token.label} <code class="dim">${token.id}</code></th>
        <td>${good} ${token.labels.map((label) => html`<code class="chip">${label}</code>`)} <span class="dim">in ${token.project || "the whole system"}${token.person ? `, as far as ${token.person} may` : ""}; made by ${token.created_by || "somebody"}</span></td>
        <td><${State} state=${token.state} />${token.reason ? html` <span class="dim">${token.reason}</span>` : null}</td>
        <td class="short" data-label="Ends"><time datetime=${new Date(ends_ms).toISOString()}>${new Date(ends_ms).toLocaleDateString()}</time></td>
        <td data-label="Last used">${token.used_s ? html`<${Ago} at_ms=${token.used_s * 1000} now_ms=${now_ms} />` : html`<span class="dim">never</span>`}</td>
        <td>${token.state === "valid" ? html`<${Action} run=${revoke} confirm="Really revoke?">Revoke<//>` : null}</td></tr>`;
}

function Make({ made }) {
    const [label, setLabel] = useState("");
    const [project, setProject] = useState("");
    const [isWorker, setWorker] = useState(false);
    const [scopes, setScopes] = useState(["read"]);
    const [person, setPerson] = useState("");
    const [kinds, setKinds] = useState("");
    const [labels, setLabels] = useState("");
    const [days, setDays] = useState(90);
    const [token, setToken] = useState(null);
    const [isOpen, setOpen] = useState(false);
    const asked = useSettled(project);
    const session = useSession(asked);
    const may = session?.may || [];
    const isOwner = may.includes("admin");
    // While it is not known yet, a click must not be lost.
    const isRefused = (scope) => session !== null && !may.includes(scope);
    const toggle = (scope) => () => setScopes(scopes.includes(scope) ? scopes.filter((one) => one !== scope) : [...scopes, scope]);
    const make = async () => {
        const good = isWorker ? { kinds: words(kinds), labels: words(labels) }
            : { scopes: scopes.filter((scope) => may.includes(scope)), ...(person.trim() && { person: person.trim() }) };
        setToken((await post("/tokens", { label, project, ...good, expires_s: days * DAY_S })).body);
        setLabel("");
        setOpen(false);
        made();
    };
    return html`<section>${token ? html`<div class="made" role="status"><p><strong>${token.label}</strong> is made. Copy it now: it is not shown again.</p><${Command} label="Token" text=${token.token} />
            <p class="dim">${token.kinds.length ? html`A worker is told it by <code>DISTCI_TOKEN</code> or <code>DISTCI_TOKEN_FILE</code>, beside <code>DISTCI_URL</code>.` : html`A program sends it as <code>Authorization: Bearer …</code>`}</p><button type="button" onClick=${() => setToken(null)}>Done</button></div>` : null}
        <details class="make" open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}><summary>Make a token</summary><form class="fields" onSubmit=${(event) => event.preventDefault()}>
        <label>Label <input value=${label} maxlength="100" required onInput=${(event) => setLabel(event.target.value)} placeholder="to tell it from others: nightly" /></label>
        <label>Project <input value=${project} maxlength="128" onInput=${(event) => setProject(event.target.value)} placeholder="the whole system" /></label>
        <fieldset><legend>For</legend>${[[false, "a program, or somebody's scripts"], [true, "a worker that claims its work through a front end"]].map(([which, says]) => html`<label key=${says}><span><input type="radio" name="for" checked=${isWorker === which} onChange=${() => setWorker(which)} /> ${says}</span></label>`)}</fieldset>
        ${isWorker ? html`<label>Kinds <input value=${kinds} onInput=${(event) => setKinds(event.target.value)} placeholder="what it may serve: shell git-checkout" /></label>
            <label>Labels <input value=${labels} onInput=${(event) => setLabels(event.target.value)} placeholder="what it may offer: os=linux gpu=*" /></label>`
        : html`<fieldset><legend>Good for</legend>${SCOPES.map(([scope, says]) => html`<label key=${scope}><span><input type="checkbox" checked=${scopes.includes(scope) && !isRefused(scope)} disabled=${isRefused(scope)} onChange=${toggle(scope)} /> ${scope} <span class="dim">${says}</span></span></label>`)}</fieldset>
            <label>Person <input value=${person} maxlength="200" onInput=${(event) => setPerson(event.target.value)} placeholder="nobody; or whose rights are the most that it has: ada@example.org" /></label>`}
        <label>Ends in <select value=${days} onChange=${(event) => setDays(Number(event.target.value))}>${LIVES.map(([count, says]) => html`<option value=${count} selected=${count === days}>${says}</option>`)}</select></label>
        ${isOwner || !session || asked !== project ? null : html`<p class="dim" role="status">You are no owner of ${project || "the whole system"}: name a project that you are an owner of.</p>`}
        <div><${Action} kind="main" run=${make} disabled=${!isOwner || asked !== project || !label.trim() || !(isWorker ? words(kinds).length : scopes.some((scope) => may.includes(scope)))}>Make<//></div></form></details></section>`;
}

const words = (text) => text.split(/[\s,]+/).filter(Boolean);
