/** Why something is as it is, and what would change that. */
import { duration } from "./format.js";
import { html } from "./html.js";
import { useLive } from "./live.js";
import { Wrong } from "./parts.js";
import { mark, tone } from "./states.js";

const SHOWN = 4;
/** What went wrong and what waits is what somebody wants to know; what runs is seen, and that the rest was skipped, hardly asked. */
const TELLING = new Set(["bad", "wait"]);

/**
 * The reasons at a path: of a build, a task or a ticket. `first` is known before they come. Where it `isQuiet`, nothing is wrong, and
 * they are shown when they are asked for. Where all stands below the name of a build, `of`, it is not repeated.
 */
export function Why({ path, title, of = "", first = "", isQuiet = false }) {
    const { body, problem } = useLive(path);
    const reasons = body ? body.items || [body] : [];
    const others = reasons.filter((reason, at) => at || reason.because !== first);
    const grave = others.filter(({ state }) => TELLING.has(tone(state)));
    const telling = isQuiet ? [] : (grave.length ? grave : others.slice(0, 1)).slice(0, SHOWN);
    const rest = others.filter((reason) => !telling.includes(reason));
    return html`<section class="why"><h2 class="unseen">${title}</h2><${Wrong} problem=${problem} />
        ${first ? html`<p class="reason">${first}</p>` : null}
        <dl>${telling.map((reason) => html`<${Reason} key=${reason.subject} reason=${reason} of=${of} />`)}</dl>
        ${rest.length ? html`<details><summary>${telling.length ? `${rest.length} more` : "Why each is as it is"}</summary><dl>${rest.map((reason) => html`<${Reason} key=${reason.subject} reason=${reason} of=${of} />`)}</dl></details>` : null}</section>`;
}

function Reason({ reason, of }) {
    const place = reason.place ? `place ${reason.place} in its line` : "";
    const soon = reason.starts_in_s === null ? "" : `likely to start in ${duration(reason.starts_in_s)}`;
    const when = [place, soon].filter(Boolean).join(", ");
    const subject = reason.subject === of ? "" : reason.subject.replace(`${of} `, "");
    // Where the log is beside it, how to print it helps nobody.
    const remedy = of && reason.remedy.startsWith("distci build log ") ? "" : reason.remedy;
    return html`<div class=${`says ${tone(reason.state)}`}><dt><span aria-hidden="true">${mark(reason.state)}</span> ${subject} <span class="dim">${reason.state}</span></dt>
        <dd>${reason.because}${when ? html` <span class="dim">(${when})</span>` : null}
        ${remedy ? html` <span class="remedy">What helps: <${Remedy} text=${remedy} /></span>` : null}</dd></div>`;
}

/** What helps: a command apart from what is said before it. */
export function Remedy({ text }) {
    const [, before, command] = /^(.*?)(distci .*)?$/s.exec(text);
    return html`${before}${command ? html`<code>${command}</code>` : null}`;
}
