/** Which view belongs to an address, and getting from one to another without loading the page again. */
import { useLayoutEffect, useState } from "./html.js";

/** The place shown: `{path, query, hash}`. */
const here = () => ({ path: location.pathname, query: new URLSearchParams(location.search), hash: location.hash.slice(1) });

export function go(address) {
    const before = location.pathname;
    history.pushState(null, "", address);
    dispatchEvent(new PopStateEvent("popstate"));
    // Who looks at another part of the same thing stays where they are.
    if (location.pathname !== before) scrollTo(0, 0);
}

/** Another address for what is shown already: nothing moves, and "back" does not stop here. */
export function rename(address) {
    history.replaceState(null, "", address);
    dispatchEvent(new PopStateEvent("popstate"));
}

/** The place, at each change of it. Links to our own pages are followed here. */
export function useRoute() {
    const [place, setPlace] = useState(here);
    // At once, not after the first painting: whoever is quick is heard, too.
    useLayoutEffect(() => {
        const moved = () => setPlace(here());
        const clicked = (event) => {
            const link = event.target.closest?.("a[href]");
            const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
            if (!link || !isPlain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
            if (link.origin !== location.origin || /^\/(api|login)(\/|$)/.test(link.pathname)) return;
            // Within what is shown, the browser knows its way: it moves the focus, too.
            if (link.hash && link.pathname === location.pathname && link.search === location.search) return;
            event.preventDefault();
            if (link.href !== location.href) go(link.href);
        };
        addEventListener("popstate", moved);
        addEventListener("hashchange", moved);
        document.addEventListener("click", clicked);
        return () => {
            removeEventListener("popstate", moved);
            removeEventListener("hashchange", moved);
            document.removeEventListener("click", clicked);
        };
    }, []);
    return place;
}

/** `[view, parts]` for the first of `[expression, view]` that a path is; null for none. The parts are unescaped. */
export function match(path, routes) {
    for (const [expression, view] of routes) {
        const found = expression.exec(path);
        if (found) return [view, found.slice(1).map(unescaped)];
    }
    return null;
}

function unescaped(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}
