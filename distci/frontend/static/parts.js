/** Small things that several views show. */
import { ago, moment } from "./format.js";
import { html, useEffect, useLayoutEffect, useState } from "./html.js";

/** The time, each second: for what shows how long something has lasted. */
export function useNow() {
    const [now_ms, setNow] = useState(Date.now());
    useEffect(() => {
        const timer = setInterval(() => document.hidden || setNow(Date.now()), 1000);
        return () => clearInterval(timer);
    }, []);
    return now_ms;
}

/** The title of the page, changed with what it shows. */
export function useTitle(title) {
    useLayoutEffect(() => {
        document.title = title ? `${title} · DistCI` : "DistCI";
    }, [title]);
}

export function Ago({ at_ms, now_ms }) {
    return html`<time datetime=${new Date(at_ms).toISOString()} title=${moment(at_ms)}>${ago(at_ms, now_ms)}</time>`;
}

const FORBIDDEN = 403;
const MISSING = 404;

/** What to type where there is a terminal is no help on a page. */
const said = (problem) => (problem.status === MISSING ? problem.message.replace(/; `distci [^`]*`[^;]*$/, "") : problem.message);

/** What went wrong, said at once to those who do not see it. */
export function Wrong({ problem }) {
    // That nobody is logged in is said once, on top of the page.
    if (!problem || problem.status === 401) return null;
    return html`<div class="wrong" role="alert"><p>${said(problem)}</p>${problem.status === FORBIDDEN ? html`<p>Whoever is an owner there can give you the right: <code>distci access grant</code>.</p>` : null}
        ${problem.problems?.length ? html`<ul>${problem.problems.map((line) => html`<li>${line}</li>`)}</ul>` : null}</div>`;
}

/** What a watched path has: shown by `children(body)`; before it has come, or instead of it, what there is to say. */
export function Shown({ live, children }) {
    const { body, problem } = live;
    return html`<${Wrong} problem=${problem} />${body ? children(body) : problem ? null : html`<p class="dim" role="status">Loading …</p>`}`;
}

export function Empty({ children }) {
    return html`<p class="empty dim">${children}</p>`;
}

/**
 * A button that does something that takes time: once at a time, and it says what it came to. With `confirm`, what cannot be undone, it asks
 * that first, in its own place: a second press means it.
 */
export function Action({ run, children, kind = "", disabled = false, confirm = "" }) {
    const [state, setState] = useState({ isBusy: false, isAsking: false, problem: null });
    const clicked = async () => {
        if (state.isBusy) return;
        if (confirm && !state.isAsking) {
            setState({ isBusy: false, isAsking: true, problem: null });
            return;
        }
        setState({ isBusy: true, isAsking: false, problem: null });
        try {
            await run();
            setState({ isBusy: false, isAsking: false, problem: null });
        } catch (problem) {
            setState({ isBusy: false, isAsking: false, problem });
        }
    };
    const forget = () => state.isAsking && setState({ ...state, isAsking: false });
    return html`<span class="action"><button type="button" class=${state.isAsking ? "danger" : kind} disabled=${disabled || state.isBusy} onClick=${clicked} onBlur=${forget}>${state.isAsking ? confirm : children}</button>
        <${Wrong} problem=${state.problem} /></span>`;
}
