/** Changing a job: its JSON, checked while it is typed, saved only if nobody else has saved since it was read. */
import * as addresses from "./addresses.js";
import { ask } from "./api.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { refresh } from "./live.js";
import { Action, Wrong } from "./parts.js";
import { go } from "./router.js";

const PAUSE_MS = 250;

const EXAMPLE = { job: "team/hello", tasks: [{ name: "greet", type: "shell", script: "echo hello" }] };

/** `current` is the version in force; null for a new job. */
export function Editor({ job, current }) {
    const base = useRef(current);
    const [text, setText] = useState(() => JSON.stringify(current ? current.document : EXAMPLE, null, 2));
    const [reason, setReason] = useState("");
    const found = useCheck(text);
    const isOvertaken = Boolean(current) && current.version !== base.current.version;
    const save = async () => {
        const document = JSON.parse(text);
        const headers = current ? { "If-Match": `"${base.current.version}"` } : { "If-None-Match": "*" };
        const name = job || document.job;
        await ask(addresses.query(addresses.job(name), { reason }), { method: "PUT", body: document, headers });
        refresh("/");
        go(addresses.query(addresses.job(name), { tab: "definition" }));
    };
    return html`<div class="editor">
        ${isOvertaken ? html`<p class="wrong" role="alert">Version ${current.version} was saved by ${current.actor || "somebody"} meanwhile; yours was made on version ${base.current.version}. Copy what you want to keep and load the page again.</p>` : null}
        <label for="definition">Definition, in JSON</label>
        <textarea id="definition" spellcheck="false" value=${text} onInput=${(event) => setText(event.target.value)} aria-describedby="found" aria-invalid=${found.isWrong ? "true" : "false"}></textarea>
        <div id="found" role="status">${found.isWrong ? html`<${Wrong} problem=${found} />` : html`<p class="dim">${found.message}</p>`}
            ${found.warnings?.length ? html`<ul>${found.warnings.map((line) => html`<li>${line}</li>`)}</ul>` : null}</div>
        <p class="tools"><label>Why <input value=${reason} maxlength="1000" onInput=${(event) => setReason(event.target.value)} placeholder="for the record" /></label>
        <${Action} kind="main" run=${save} disabled=${found.isWrong || !found.isChecked || isOvertaken}>Save<//></p></div>`;
}

/** What the front end finds wrong with a text, a moment after it was last changed. */
function useCheck(text) {
    const [found, setFound] = useState({ message: "", isWrong: false, isChecked: false });
    useEffect(() => {
        const ended = new AbortController();
        setFound((before) => ({ ...before, isChecked: false }));
        const timer = setTimeout(async () => {
            const result = await check(text, ended.signal);
            if (!ended.signal.aborted) setFound({ ...result, isChecked: true });
        }, PAUSE_MS);
        return () => {
            clearTimeout(timer);
            ended.abort();
        };
    }, [text]);
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
        return { message: "It is valid.", warnings: body.warnings, isWrong: false };
    } catch (problem) {
        return { message: problem.message, problems: problem.problems, isWrong: true };
    }
}
