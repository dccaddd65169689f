/**
 * Lets in whoever has opened a login link. What lets them in is behind its #, which a browser tells nobody: it goes into the body of one
 * request, and so into no log and no Referer.
 */
import { ask, post } from "./api.js";

const told = document.getElementById("told");
const after = document.getElementById("after");
const ANOTHER = "`distci login`, on the machine where `distci up` or `distci frontend` was started, prints another.";

const link = location.hash.slice(1);
// Out of the address bar and of what the browser remembers, whatever becomes of it.
history.replaceState(null, "", location.pathname);

async function isKnown() {
    try {
        return (await ask("/session")).body.kind !== "nobody";
    } catch {
        return false;
    }
}

async function enter() {
    told.classList.remove("late");
    after.hidden = true;
    told.textContent = "Logging in …";
    try {
        await post(location.pathname, { link }, {}, "");
    } catch (problem) {
        const isRefused = problem.status >= 400 && problem.status < 500;
        // Who comes twice is in.
        if (!(isRefused && await isKnown())) {
            told.textContent = isRefused ? `This link lets nobody in: it was used, is older than ten minutes, or is not whole. ${ANOTHER}` : `That did not work: ${problem.message}.`;
            after.hidden = isRefused;
            return;
        }
    }
    location.replace("/");
}

after.addEventListener("click", enter);
addEventListener("hashchange", () => location.reload());
enter();
