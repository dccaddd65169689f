/** What forms and lists of seldom changes go by: what was typed, and what was asked for once. */
import { ask } from "./api.js";
import { useEffect, useState } from "./html.js";

const PAUSE_MS = 300;

/** What has been typed, once nothing more is typed. */
export function useSettled(text) {
    const [settled, setSettled] = useState(text);
    useEffect(() => {
        const timer = setTimeout(() => setSettled(text), PAUSE_MS);
        return () => clearTimeout(timer);
    }, [text]);
    return settled;
}

/** `{body, problem}` of a path, asked for once for each version: to look often for what seldom changes would cost the store a look each. */
export function useAsked(path, version) {
    const [state, setState] = useState({ body: null, problem: null });
    useEffect(() => {
        const ended = new AbortController();
        ask(path, { signal: ended.signal }).then(({ body }) => setState({ body, problem: null }), (problem) => problem.name !== "AbortError" && setState({ body: null, problem }));
        return () => ended.abort();
    }, [path, version]);
    return state;
}
