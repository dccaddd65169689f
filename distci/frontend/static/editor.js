/** Changing a job: its JSON, checked while it is typed, saved only if nobody else has saved since it was read. */
import * as addresses from "./addresses.js";
import { ask } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { refresh } from "./live.js";
import { Action, Wrong } from "./parts.js";
import { go } from "./router.js";
import { useMay } from "./session.js";

const PAUSE_MS = 250;
const AGAIN_MS = 2000;

const EXAMPLE = { job: "team/hello", tasks: [{ name: "greet", type: "shell", script: "echo hello" }] };

/** `current` is the version in force; null for a new job. What is typed is kept until it is saved, whatever becomes of the page meanwhile. */
export function Editor({ job, current }) {
    const fresh = () => ({ text: JSON.stringify(current ? current.document : EXAMPLE, null, 2), reason: "", version: current?.version || 0 });
    const [draft, setDraft] = useState(() => kept(job) || fresh());
    const [isKept] = useState(() => kept(job) !== null);
    const found = useCheck(draft.text);
    const name = job || found.job || "";
    const may = useMay(name);
    const isAllowed = !name || may.includes("write");
    const isOvertaken = (current?.version || 0) !== draft.version;
    const change = (what) => {
        const next = { ...draft, ...what };
        setDraft(next);
        keep(job, next);
    };
    const discard = () => {
        forget(job);
        setDraft(fresh());
    };
    const save = async () => {
        const headers = current ? { "If-Match": `"${draft.version}"` } : { "If-None-Match": "*" };
        await ask(addresses.query(addresses.job(name), { reason: draft.reason }), { method: "PUT", body: JSON.parse(draft.text), headers });
        forget(job);
        refresh("/");
        go(addresses.query(addresses.job(name), { tab: "definition" }));
    };
    return html`<div class="editor">
        ${isOvertaken ? html`<p class="wrong" role="alert">Version ${current.version} was saved by ${current.actor || "somebody"} meanwhile; yours was made on version ${draft.version}. Copy what you want to keep, then discard it and change the new version.</p>`
        : isKept && draft.text !== fresh().text ? html`<p class="dim" role="status">This is what you had typed before; it is not saved yet.</p>` : null}
        <label for="definition">Definition, in JSON</label>
        <textarea id="definition" spellcheck="false" value=${draft.text} onInput=${(event) => change({ text: event.target.value })} aria-describedby="found" aria-invalid=${found.isWrong ? "true" : "false"}></textarea>
        <div id="found" role="status">${found.isWrong ? html`<${Wrong} problem=${found} />` : html`<p class="dim">${found.message}</p>`}
            ${found.warnings?.length ? html`<ul>${found.warnings.map((line) => html`<li>${line}</li>`)}</ul>` : null}</div>
        <p class="tools"><label>Why <input value=${draft.reason} maxlength="1000" onInput=${(event) => change({ reason: event.target.value })} placeholder="for the record" /></label>
        <${Action} kind="main" run=${save} disabled=${found.isWrong || !found.isChecked || isOvertaken || !isAllowed}>Save<//>
        ${draft.text !== fresh().text || isOvertaken ? html`<${Action} run=${discard} confirm="Really discard it?">Discard<//>` : null}</p>
        ${isAllowed || !found.isChecked ? null : html`<p class="dim" role="status">You may not change ${name}: it takes the role of an editor there.</p>`}</div>`;
}

/** What was typed for a job in this tab and not saved, `{text, reason, version}`; null for nothing. */
function kept(job) {
    try {
        return JSON.parse(sessionStorage.getItem(`draft ${job}`));
    } catch {
        return null;
    }
}

function keep(job, draft) {
    try {
        sessionStorage.setItem(`draft ${job}`, JSON.stringify(draft));
    } catch {
        // It is kept until the page is left.
    }
}

function forget(job) {
    try {
        sessionStorage.removeItem(`draft ${job}`);
    } catch {
        // There is none, then.
    }
}

/** What the front end finds wrong with a text, a moment after it was last changed. */
function useCheck(text) {
    const [found, setFound] = useState({ message: "", isWrong: false, isChecked: false });
    /** Nobody answered so many times: they may do so later. */
    const [again, setAgain] = useState(0);
    useEffect(() => setAgain(0), [text]);
    useEffect(() => {
        const ended = new AbortController();
        if (!again) setFound((before) => ({ ...before, isChecked: false }));
        const timer = setTimeout(async () => {
            const result = await check(text, ended.signal);
            if (ended.signal.aborted) return;
            setFound({ ...result, isChecked: true });
            if (result.isAway) setAgain((count) => count + 1);
        }, again ? AGAIN_MS : PAUSE_MS);
        return () => {
            clearTimeout(timer);
            ended.abort();
        };
    }, [text, again]);
    return found;
}

async function check(text, signal) {
    let document;
    try {
        document = JSON.parse(text);
    } catch (error) {
        return { message: `It is not JSON: ${error.message}`, problems: [], isWrong: true };
    }
    try {
        const { body } = await ask("/lint", { method: "POST", body: document, signal });
        return { message: "It is valid.", warnings: body.warnings, job: body.job, isWrong: false };
    } catch (problem) {
        return { message: problem.message, problems: problem.problems, isWrong: true, isAway: !(problem.status >= 400 && problem.status < 500) };
    }
}
