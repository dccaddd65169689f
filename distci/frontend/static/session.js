/** Who is logged in, and what to do when nobody is. */
import { ask, post, REFUSED } from "./api.js";
import { html, useEffect, useState } from "./html.js";
import { Action } from "./parts.js";

/** `{kind, name, login}` as the front end has it; null until it is known. Asked again when a request is refused, or somebody comes back to the page. */
export function useSession() {
    const [session, setSession] = useState(null);
    useEffect(() => {
        let isAsking = false;
        const look = async () => {
            if (isAsking || document.hidden) return;
            isAsking = true;
            try {
                setSession((await ask("/session")).body);
            } catch {
                // Whatever else is asked for says so, too.
            }
            isAsking = false;
        };
        look();
        addEventListener(REFUSED, look);
        document.addEventListener("visibilitychange", look);
        return () => {
            removeEventListener(REFUSED, look);
            document.removeEventListener("visibilitychange", look);
        };
    }, []);
    return session;
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
    return html`<span class="who"><span class="unseen">Logged in as </span>${session.name}</span><${Action} run=${leave} kind="quiet">Log out<//>`;
}

/** For somebody whom nobody knows. */
export function Stranger({ session, place }) {
    if (session?.kind !== "nobody") return null;
    return html`<aside class="stranger" role="status"><p><strong>Nobody is logged in.</strong> What is not public is not shown.</p>
        ${session.login ? html`<p><a class="button" href=${way(session, place)}>Log in</a></p>` : null}
        <p>${session.login ? "Or open" : "Open"} the link that <code>distci up</code> or <code>distci frontend</code> has printed. It is good once, for ten minutes: <code>distci login</code>, where you started it, prints another.</p></aside>`;
}
