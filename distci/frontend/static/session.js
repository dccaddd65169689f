/** Who is logged in, and what to do when nobody is. */
import { query } from "./addresses.js";
import { ask, post, REFUSED } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { Action } from "./parts.js";

const AGAIN_MS = 2000;

/**
 * `{kind, name, login, may}` as the front end has it, `may` being what they may do in a project, or to a job; in the whole system by default.
 * null until it is known. Asked again when a request is refused, or somebody comes back to the page.
 */
export function useSession(project = "") {
    const [found, setFound] = useState({ project, session: null });
    useEffect(() => {
        let isAsking = false;
        let isOver = false;
        let timer = 0;
        const look = async () => {
            if (isAsking || isOver || document.hidden) return;
            isAsking = true;
            clearTimeout(timer);
            try {
                const { body } = await ask(query("/session", { project }));
                if (!isOver) setFound({ project, session: body });
            } catch (problem) {
                // Whatever else is asked for says so, too. What cannot be the name of a project has no rights either.
                if (!(problem.status >= 400 && problem.status < 500)) timer = setTimeout(look, AGAIN_MS);
            }
            isAsking = false;
        };
        look();
        addEventListener(REFUSED, look);
        document.addEventListener("visibilitychange", look);
        return () => {
            isOver = true;
            clearTimeout(timer);
            removeEventListener(REFUSED, look);
            document.removeEventListener("visibilitychange", look);
        };
    }, [project]);
    return found.project === project ? found.session : null;
}

/** What they may do in a project or to a job: nothing is offered before that is known. */
export function useMay(project = "") {
    return useSession(project)?.may || [];
}

const way = (session, place) => `${session.login}?then=${encodeURIComponent(place.path + location.search)}`;

/** Who it is, and the way out or in. */
export function Who({ session, place }) {
    if (!session) return null;
    if (session.kind === "nobody") return session.login ? html`<a class="button" href=${way(session, place)}>Log in</a>` : null;
    const leave = async () => {
        await post("/logout", undefined, {}, "");
        location.assign("/");
    };
    return html`<details class="who"><summary><span class="unseen">Logged in as </span>${session.name}</summary>
        <p>In the whole system you may: ${session.may.length ? session.may.join(", ") : "nothing"}. Of a job, its page says what you may do.</p></details><${Action} run=${leave} kind="quiet">Log out<//>`;
}

/** For somebody whom nobody knows. */
export function Stranger({ session, place }) {
    if (session?.kind !== "nobody") return null;
    return html`<aside class="stranger" role="status"><p><strong>Nobody is logged in.</strong> What is not public is not shown.</p>
        ${session.login ? html`<p><a class="button" href=${way(session, place)}>Log in</a></p>` : null}
        <p>${session.login ? "Or open" : "Open"} the link that <code>distci up</code> or <code>distci frontend</code> has printed. It is good once, for ten minutes: <code>distci login</code>, where you started it, prints another.</p></aside>`;
}
