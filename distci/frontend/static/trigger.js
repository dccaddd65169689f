/** Starting a build: its parameters as the job declares them. */
import * as addresses from "./addresses.js";
import { post } from "./api.js";
import { html, useRef, useState } from "./html.js";
import { refresh } from "./live.js";
import { Action } from "./parts.js";

/** `started(id)` is called with the new build. */
export function Trigger({ job, document, started }) {
    const declared = Object.entries(document.parameters || {});
    const [values, setValues] = useState({});
    const [commit, setCommit] = useState("");
    const [ref, setRef] = useState("");
    // The same for every try of this form: an answer that got lost starts no second build.
    const key = useRef(randomKey());
    const start = async () => {
        const body = { parameters: values, ...(commit && { commit }), ...(ref && { ref }) };
        const { body: found } = await post(addresses.builds(job), body, { "Idempotency-Key": key.current });
        key.current = randomKey();
        refresh("/");
        started(found.id);
    };
    const set = (name) => (event) => {
        key.current = randomKey();
        setValues({ ...values, [name]: event.target.value });
    };
    return html`<form class="fields" onSubmit=${(event) => event.preventDefault()}>
        ${declared.map(([name, parameter]) => html`<label key=${name}><span>${name} <span class="dim">${parameter.description || ""}</span></span>
            <${Field} parameter=${parameter} value=${values[name]} changed=${set(name)} /></label>`)}
        <label>Commit <input value=${commit} onInput=${(event) => setCommit(event.target.value)} placeholder="by default, what the ref points at" /></label>
        <label>Ref <input value=${ref} onInput=${(event) => setRef(event.target.value)} placeholder="refs/heads/main" /></label>
        <div><${Action} kind="main" run=${start}>Start<//></div></form>`;
}

function Field({ parameter, value, changed }) {
    const shown = value ?? parameter.default ?? "";
    const known = parameter.choices || (parameter.type === "boolean" ? ["false", "true"] : null);
    if (!known) return html`<input value=${shown} inputmode=${parameter.type === "integer" ? "numeric" : undefined} onInput=${changed} />`;
    const choices = "default" in parameter || value !== undefined ? known : ["", ...known];
    return html`<select value=${shown} onChange=${changed}>${choices.map((choice) => html`<option value=${choice} selected=${choice === shown}>${choice}</option>`)}</select>`;
}

function randomKey() {
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
