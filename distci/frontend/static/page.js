/** The page: its frame, and the view that belongs to the address. */
import { html, render } from "./html.js";
import { Keys, listen } from "./keyboard.js";
import { match, useRoute } from "./router.js";
import { Stranger, useSession, Who } from "./session.js";
import { ThemeButton } from "./theme.js";
import { Artifacts } from "./views/artifacts.js";
import { Build } from "./views/build.js";
import { Events } from "./views/events.js";
import { HeldChanges } from "./views/held.js";
import { Job, NewJob } from "./views/job.js";
import { Jobs } from "./views/jobs.js";
import { Log } from "./views/log.js";
import { Queue } from "./views/queue.js";
import { Ticket, Tickets } from "./views/tickets.js";
import { Secrets } from "./views/secrets.js";
import { Tests } from "./views/tests.js";
import { Tokens } from "./views/tokens.js";
import { Workers } from "./views/workers.js";

/** Of two that an address might mean, the first is meant. An id of a job has no part that is "-" alone. */
const ROUTES = [
    [/^\/$/, Jobs],
    [/^\/jobs\/(.+)\/-\/builds\/([1-9][0-9]*)\/tasks\/([^/]+)\/log$/, Log],
    [/^\/jobs\/(.+)\/-\/builds\/([1-9][0-9]*)\/artifacts$/, Artifacts],
    [/^\/jobs\/(.+)\/-\/builds\/([1-9][0-9]*)\/tests$/, Tests],
    [/^\/jobs\/(.+)\/-\/builds\/([1-9][0-9]*)$/, Build],
    [/^\/jobs\/-\/new$/, NewJob],
    [/^\/jobs\/((?:(?!-(?:\/|$))[^/]+\/)*(?!-$)[^/]+)$/, Job],
    [/^\/queue$/, Queue],
    [/^\/held$/, HeldChanges],
    [/^\/workers$/, Workers],
    [/^\/events$/, Events],
    [/^\/tickets$/, Tickets],
    [/^\/tickets\/([^/]+)$/, Ticket],
    [/^\/tokens$/, Tokens],
    [/^\/secrets$/, Secrets],
];

/** With who is led there: whoever comes, who may read the whole system, who is known. */
const SECTIONS = [
    ["/", "Jobs", () => true],
    ["/queue", "Queue", ({ may }) => may.includes("read")],
    ["/held", "Held", ({ kind }) => kind !== "nobody"],
    ["/workers", "Workers", ({ may }) => may.includes("read")],
    ["/events", "Events", () => true],
    ["/tickets", "Set aside", ({ may }) => may.includes("read")],
    ["/tokens", "Tokens", ({ kind }) => kind !== "nobody"],
    ["/secrets", "Secrets", ({ kind }) => kind !== "nobody"],
];

function Page() {
    const place = useRoute();
    const session = useSession();
    const found = match(place.path, ROUTES);
    const isIn = (path) => (path === "/" ? place.path === "/" || place.path.startsWith("/jobs") : place.path.startsWith(path));
    const [View, parts] = found || [Nothing, []];
    return html`<a class="skip" href="#main">Skip to the content</a>
        <header><a class="brand" href="/"><img src="/static/icon.svg" alt="" width="24" height="24" /> DistCI</a>
        <nav aria-label="Sections">${SECTIONS.filter(([, , isFor]) => !session || isFor(session)).map(([path, name]) => html`<a href=${path} aria-current=${isIn(path) ? "page" : undefined}>${name}</a>`)}</nav>
        <${Who} session=${session} place=${place} /><${Keys} /><${ThemeButton} /></header>
        <main id="main" tabindex="-1"><${Stranger} session=${session} place=${place} /><${View} key=${place.path} place=${place} parts=${parts} /></main>`;
}

function Nothing() {
    return html`<h1>There is nothing here</h1><p>See <a href="/">all jobs</a>.</p>`;
}

render(html`<${Page} />`, document.body);
listen();
