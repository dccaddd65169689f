/** What a task prints, as it prints it. */
import * as addresses from "../addresses.js";
import { ROOT } from "../api.js";
import { plural } from "../format.js";
import { html, useEffect, useMemo, useReducer, useState } from "../html.js";
import { refresh, useLive } from "../live.js";
import { LogLines } from "../log-lines.js";
import { LogSearch, holds } from "../log-search.js";
import { LogView } from "../log-view.js";
import { Wrong, useTitle } from "../parts.js";
import { State } from "../states.js";

export function Log({ place, parts: [job, number, task] }) {
    const build = `${job}#${number}`;
    const attempt = place.query.get("attempt") || "";
    const path = addresses.log(build, task);
    useTitle(`${task} · ${build}`);
    // The stream of the log tells when an attempt begins or ends: no other is needed.
    const { body: found, problem } = useLive(addresses.task(build, task), null);
    const linked = Number(/^L([1-9][0-9]*)$/.exec(place.hash)?.[1] || 0);
    const [target, setTarget] = useState(null);
    const [sought, setSought] = useState("");
    const [isFollowing, setFollowing] = useState(!linked);
    const [version, changed] = useReducer((count) => count + 1, 0);
    const lines = useMemo(() => new LogLines(path, attempt, () => changed(), () => refresh(addresses.task(build, task))), [path, attempt]);
    useEffect(() => () => lines.end(), [lines]);
    useEffect(() => linked && go(linked), [linked]);
    const go = (line) => {
        setFollowing(false);
        setTarget({ line });
    };
    const isHit = (text) => holds(text, sought);
    return html`<div class="fill"><p class="trail"><a href="/">Jobs</a> / <a href=${addresses.job(job)}>${job}</a> / <a href=${addresses.build(build)}>#${number}</a></p>
        <div class="heading"><h1>${task} ${found ? html`<${State} state=${found.state} />` : null}</h1>
        <div class="tools"><${Attempts} task=${found} attempt=${attempt} path=${path} />
            <${LogSearch} path=${path} attempt=${attempt} go=${go} sought=${setSought} />
            <label><input type="checkbox" checked=${isFollowing} onChange=${(event) => setFollowing(event.target.checked)} /> Follow</label>
            <a class="button" href=${addresses.query(ROOT + path, { attempt })} download=${`${build.replaceAll("/", "-")}-${task}.log`}>Download</a></div></div>
        <${Wrong} problem=${lines.problem || problem} />
        <${LogView} lines=${lines} version=${version} target=${target} marked=${target?.line || linked} isHit=${isHit}
            isFollowing=${isFollowing} follow=${() => setFollowing(true)} unfollow=${() => setFollowing(false)} />
        <p class="dim foot" role="status">${plural(lines.count, "line")}${lines.isComplete ? "" : ", more may come"}</p></div>`;
}

/** Earlier attempts have logs of their own. */
function Attempts({ task, attempt, path }) {
    if (!task || task.attempts.length < 2) return null;
    const tokens = task.attempts.map((record) => record.token).filter(Boolean);
    if (tokens.length < 2) return null;
    return html`<span class="dim">${tokens.map((token, at) => html`<a href=${addresses.query(path, { attempt: token })} aria-current=${token === attempt ? "true" : undefined}>attempt ${at + 1}</a> `)}</span>`;
}
