/** One build: why it is as it is, how far it is, and what the task that tells most has printed. */
import * as addresses from "../addresses.js";
import { post } from "../api.js";
import { Command } from "../command.js";
import { duration, size, spent_s } from "../format.js";
import { Graph } from "../graph-view.js";
import { html, useEffect, useRef } from "../html.js";
import { refresh, useLive } from "../live.js";
import { LogPane } from "../log-pane.js";
import { Action, Ago, Shown, useNow, useTitle } from "../parts.js";
import { again, taskAgain } from "../reproduce.js";
import { go } from "../router.js";
import { useMay } from "../session.js";
import { mark, State, stateOf, tone } from "../states.js";
import { Reports } from "../tests.js";
import { Why } from "../why.js";

export function Build({ place, parts: [job, number] }) {
    const id = `${job}#${number}`;
    const live = useLive(addresses.build(id));
    useTitle(live.body ? `${mark(stateOf(live.body))} ${id}` : id);
    // What is there has its way back in its heading.
    const back = live.problem?.status === 404 ? html`<p class="trail"><a href="/">Jobs</a> / <a href=${addresses.job(job)}>${job}</a></p><h1>#${number}</h1>` : null;
    return html`${back}<${Shown} live=${live}>${(build) => html`<${Whole} build=${build} place=${place} />`}<//>`;
}

function Whole({ build, place }) {
    const now_ms = useNow();
    const { job, number } = addresses.split(build.id);
    const may = useMay(job);
    const wanted = place.query.get("task");
    const task = build.tasks.find((one) => one.name === wanted) || telling(build.tasks);
    return html`<div class="screen"><div class="heading"><h1><a href=${addresses.job(job)}>${job}</a> #${number} <${State} state=${stateOf(build)} /></h1>
        ${may.includes("trigger") ? html`<${Actions} build=${build} />` : null}</div>
        <p class="facts dim">${build.finished_ms ? `${duration((build.finished_ms - build.created_ms) / 1000)}, ` : "begun "}<${Ago} at_ms=${build.created_ms} now_ms=${now_ms} />; <${Cause} trigger=${build.trigger} />;${" "}
            <a href=${`${addresses.job(job)}?tab=definition&version=${build.config}`}>version ${build.config}</a>${build.trigger.commit
            ? html`; commit <code>${build.trigger.commit.slice(0, 12)}</code>` : null}${build.trigger.ref ? html`; <code>${build.trigger.ref}</code>` : null}<${Parameters} trigger=${build.trigger} /></p>
        <${Why} path=${`${addresses.build(build.id)}/why`} title="Why" of=${build.id} first=${build.reason} isQuiet=${build.state === "passed"} />
        <${Artifacts} build=${build} />
        <${Reports} build=${build} />
        <${Graph} build=${build} now_ms=${now_ms} chosen=${task?.name} />
        ${build.tasks.length ? html`<div class="beside"><${Tasks} build=${build} now_ms=${now_ms} chosen=${task?.name} /><${Printed} build=${build} task=${task} isChosen=${Boolean(wanted)} /></div>` : null}</div>
        ${build.downstream.length ? html`<section><h2>Started by its end</h2><ul>${build.downstream.map((id) => html`<li>${id.includes("#") ? html`<a href=${addresses.build(id)}>${id}</a>` : id}</li>`)}</ul></section>` : null}
        <section><h2>Do it again by hand</h2><${Command} label="As a build" text=${again(build).asBuild} /><${Command} label="On your own machine" text=${again(build).here} />${task?.token && task.type !== "approval" ? html`<${Command} label=${`${task.name} alone, with what it began with`} text=${taskAgain(build.id, task.name)} />` : null}</section>`;
}

/** The task that somebody who comes to a build wants to read: what failed, else what runs, else what came last. */
function telling(tasks) {
    const begun = tasks.filter((task) => task.token && task.type !== "approval");
    const failed = begun.filter((task) => tone(task.state) === "bad");
    return failed.find((task) => !task.allow_failure) || failed[0] || begun.find((task) => task.state === "running") || begun.at(-1);
}

function Actions({ build }) {
    const path = addresses.build(build.id);
    const cancel = async () => {
        await post(`${path}/cancel`, {});
        refresh(path);
    };
    const retry = (only_failed) => async () => go(addresses.build((await post(`${path}/retry`, { only_failed })).body.id));
    const isOver = build.result !== null;
    return html`<div class="tools">
        ${isOver ? null : html`<${Action} kind="danger" run=${cancel} disabled=${build.state === "cancelling"}>Cancel<//>`}
        ${isOver ? html`<${Action} run=${retry(false)}>Retry all<//>` : null}
        ${build.state === "failed" || build.state === "cancelled" ? html`<${Action} run=${retry(true)}>Retry failed<//>` : null}</div>`;
}

function Cause({ trigger }) {
    const by = trigger.actor ? ` by ${trigger.actor}` : "";
    const of = trigger.upstream || trigger.retry_of;
    return html`<span>${trigger.kind}${by}${of ? html` of <a href=${addresses.build(of)}>${of}</a>` : null}</span>`;
}

function Parameters({ trigger }) {
    const given = Object.entries({ ...trigger.presets, ...trigger.parameters });
    if (!given.length) return null;
    return html`<span>; with ${given.map(([name, value]) => html`<code class="chip">${name}=${value}</code> `)}</span>`;
}

function Tasks({ build, now_ms, chosen }) {
    const list = useRef(null);
    // Of many tasks, the chosen one is among those that are seen.
    useEffect(() => {
        const shown = list.current.querySelector(".chosen");
        if (shown) list.current.scrollTop = shown.offsetTop - list.current.clientHeight / 3;
    }, [chosen]);
    return html`<section class="listed"><h2 class="unseen">Tasks</h2><ul class="tasks" ref=${list}>${build.tasks.map((task) => html`<${Task} key=${task.name} build=${build} task=${task} now_ms=${now_ms} isChosen=${task.name === chosen} />`)}</ul></section>`;
}

function Task({ build, task, now_ms, isChosen }) {
    const seconds = spent_s(task, now_ms);
    const waits = seconds === null && task.since_ms ? `for ${duration((now_ms - task.since_ms) / 1000)}` : "";
    const says = [seconds === null ? waits : duration(seconds), task.worker, task.attempts.length > 1 ? `attempt ${task.attempts.length}` : "", used(task), task.progress === null || task.progress === undefined ? "" : `${task.progress} %`, task.type];
    return html`<li class=${isChosen ? "chosen" : ""}>
        <span class="line"><a href=${addresses.query(addresses.build(build.id), { task: task.name })} aria-current=${isChosen ? "true" : undefined}>${task.name}</a> <${State} state=${task.state} /></span>
        ${task.hold ? html`<span class="line">failed (${task.hold.reason}), and held until ${new Date(task.hold.until_ms).toLocaleTimeString()}: <code class="chip">${`distci build shell '${build.id}' '${task.name}'`}</code></span>` : null}
        ${task.type === "approval" && task.state === "blocked" ? html`<${Decision} build=${build} task=${task} />` : null}
        <span class="line dim"><span>${says.filter(Boolean).join(", ")}</span> ${task.token && task.type !== "approval" ? html`<a href=${addresses.log(build.id, task.name)} aria-label=${`Log of ${task.name}`}>log</a>` : null}</span></li>`;
}

/** What the last attempt used, where somebody has counted. */
function used(task) {
    const usage = task.attempts.at(-1)?.usage;
    return usage && task.state !== "running" ? `${duration(usage.cpu_s)} of processors, ${size(usage.memory_peak_bytes)}` : "";
}

/** What somebody may do about a task that waits for an approval; who may not is told so by the answer. */
function Decision({ build, task }) {
    const may = useMay(addresses.split(build.id).job);
    if (!may.includes("trigger")) return null;
    const decide = (approve) => async () => {
        await post(`${addresses.build(build.id)}/tasks/${encodeURIComponent(task.name)}/decision`, { approve });
        refresh(addresses.build(build.id));
    };
    return html`<span class="line"><${Action} run=${decide(true)}>Approve<//> <${Action} kind="danger" run=${decide(false)}>Refuse<//></span>`;
}

/** The log of a task, at its end; the reader is taken to one that they have chosen. */
function Printed({ build, task, isChosen }) {
    const element = useRef(null);
    useEffect(() => {
        if (isChosen) element.current?.scrollIntoView({ block: "nearest" });
    }, [isChosen && task?.name]);
    if (!task) return html`<p class="dim" role="status">No task has begun yet.</p>`;
    if (!task.token) return html`<p class="dim" role="status">${task.name} has printed nothing: it is ${task.state}.</p>`;
    const title = html`<h2>${task.name} <${State} state=${task.state} /></h2>`;
    return html`<section class="printed" ref=${element}><${LogPane} key=${`${task.name} ${task.token}`} build=${build.id} task=${task.name} title=${title} /></section>`;
}

function Artifacts({ build }) {
    const live = useLive(`${addresses.artifacts(build.id)}?limit=5`);
    if (!live.body?.items.length) return null;
    return html`<section><h2 class="unseen">Artifacts</h2><p class="facts">Artifacts: ${live.body.items.map((artifact) => html`<a class="chip" download href=${`/api/v1${addresses.artifact(build.id, artifact.name)}`}>${artifact.name}</a> `)}
        <a href=${addresses.artifacts(build.id)}>${live.body.next ? "all of them" : "with sizes and digests"}</a></p></section>`;
}
