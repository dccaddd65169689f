/** What a task prints, with what one does to it: search, follow, fold, fetch. */
import * as addresses from "./addresses.js";
import { ROOT } from "./api.js";
import { Folds, useSections } from "./folds.js";
import { plural } from "./format.js";
import { html, useEffect, useMemo, useReducer, useState } from "./html.js";
import { refresh } from "./live.js";
import { LogLines } from "./log-lines.js";
import { LogSearch, holds } from "./log-search.js";
import { LogView } from "./log-view.js";
import { Wrong } from "./parts.js";

/** `linked` is the line to begin at; 0: the end, which is followed. `title` stands before the tools. */
export function LogPane({ build, task, attempt = "", linked = 0, title }) {
    const path = addresses.log(build, task);
    const address = addresses.query(path, { attempt });
    const [target, setTarget] = useState(null);
    const [sought, setSought] = useState("");
    const [isFollowing, setFollowing] = useState(!linked);
    const [version, changed] = useReducer((count) => count + 1, 0);
    const lines = useMemo(() => new LogLines(path, attempt, () => changed(), () => refresh(addresses.task(build, task))), [path, attempt]);
    useEffect(() => () => lines.end(), [lines]);
    useEffect(() => linked && go(linked), [linked]);
    const sections = useSections(path, attempt, lines);
    const [closed, setClosed] = useState(new Set());
    const folds = useMemo(() => new Folds(sections, closed), [sections, closed]);
    const fold = (line) => {
        const next = new Set(closed);
        if (!next.delete(line)) next.add(line);
        setFollowing(false);
        setClosed(next);
    };
    const go = (line) => {
        setFollowing(false);
        // What is gone to is seen, whatever it was folded into.
        setClosed((before) => new Set([...before].filter((head) => !new Folds(sections, new Set([head])).hides(line))));
        setTarget({ line });
    };
    const isHit = (text) => holds(text, sought);
    return html`<div class="heading">${title}<div class="tools">
            <${LogSearch} path=${path} attempt=${attempt} go=${go} sought=${setSought} />
            <label><input type="checkbox" checked=${isFollowing} onChange=${(event) => setFollowing(event.target.checked)} /> Follow</label>
            ${folds.heads.size ? html`<button type="button" onClick=${() => setClosed(new Set(closed.size ? [] : folds.heads.keys()))}>${closed.size ? "Unfold all" : "Fold all"}</button>` : null}
            <a class="button" href=${addresses.query(ROOT + path, { attempt })} download=${`${build.replaceAll("/", "-")}-${task}.log`}>Download</a></div></div>
        <${Wrong} problem=${lines.problem} />
        <${LogView} lines=${lines} version=${version} target=${target} marked=${target?.line || linked} isHit=${isHit} address=${address} folds=${folds} fold=${fold}
            isFollowing=${isFollowing} follow=${() => setFollowing(true)} unfollow=${() => setFollowing(false)} />
        <p class="dim foot" role="status">${plural(lines.count, "line")}${lines.isComplete ? "" : ", more may come"}</p>`;
}
