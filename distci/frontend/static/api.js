/** Asking the front end's JSON API. */

export const ROOT = "/api/v1";

/** The event that says that a request was refused because nobody is known to have sent it. */
export const REFUSED = "distci:refused";

/** A request that came to nothing. `status` is 0 when no front end answered. */
export class Problem extends Error {
    constructor(status, document, etag = "") {
        super(document.detail || document.title || `status ${status}`);
        this.status = status;
        this.title = document.title || "";
        this.problems = document.problems || [];
        this.etag = etag;
    }
}

/**
 * The answer to a request: `{status, body, etag, headers}`; `body` is null where nothing has changed since `etag`.
 * Throws Problem, also when nobody answers.
 */
export async function ask(path, { method = "GET", body, etag, headers = {}, signal, root = ROOT } = {}) {
    const sent = { Accept: "application/json", ...headers };
    if (etag) sent["If-None-Match"] = etag;
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let response;
    let text;
    try {
        // The tags are ours to mind: the browser's own cache would answer a 304 with a body that we have already.
        response = await fetch(root + path, {
            method, signal, headers: sent, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
        });
        text = await response.text();
    } catch (error) {
        if (error.name === "AbortError") throw error;
        const then = method === "GET" ? "trying again" : "whether that was done is not known: look, and try again";
        throw new Problem(0, { title: "No answer", detail: `the front end does not answer; ${then}` });
    }
    const answer = { status: response.status, etag: response.headers.get("ETag") || "", headers: response.headers, body: null };
    if (response.status === 304) return answer;
    const document = parsed(text);
    if (response.status === 401) dispatchEvent(new Event(REFUSED));
    if (!response.ok) throw new Problem(response.status, document || { title: response.statusText });
    return { ...answer, body: document };
}

export const post = (path, body, headers, root) => ask(path, { method: "POST", body, headers, root });

/** What does not parse is no answer of ours, but that of a proxy in between. */
function parsed(text) {
    try {
        return JSON.parse(text);
    } catch {
        return null;
    }
}
