/** A build's tasks as a picture: boxes with their states, arrows from what they need. */
import * as addresses from "./addresses.js";
import { duration, spent_s } from "./format.js";
import { layout } from "./graph.js";
import { html, useEffect, useMemo, useRef } from "./html.js";
import { mark, tone } from "./states.js";

const BOX = { width: 168, height: 40 };
const GAP = { x: 44, y: 8 };
const MARGIN = 6;
const LETTERS_MAX = 19;

/** `chosen` is the task whose log is shown beside it. */
export function Graph({ build, now_ms, chosen }) {
    const shape = build.tasks.map((task) => `${task.name}<${task.needs.join()}`).join("\n");
    const drawn = useMemo(() => layout(build.tasks), [shape]);
    const element = useRef(null);
    const place = drawn.places.get(chosen);
    // Of a large picture, the chosen task is in the part that is seen.
    useEffect(() => {
        if (!element.current || !place) return;
        const { x, y } = corner(place);
        element.current.scrollTo(x - element.current.clientWidth / 3, y - element.current.clientHeight / 3);
    }, [chosen, drawn]);
    if (!build.tasks.length) return html`<p class="dim" role="status">Its tasks are being planned.</p>`;
    const width = drawn.columns * (BOX.width + GAP.x) - GAP.x + 2 * MARGIN;
    const height = drawn.rows * (BOX.height + GAP.y) - GAP.y + 2 * MARGIN;
    const states = new Map(build.tasks.map((task) => [task.name, task.state]));
    // The picture repeats what the table of tasks says in words; whoever cannot see it loses nothing but the links, which it keeps.
    return html`<div class="graph" ref=${element} tabindex="0" role="group" aria-label="Tasks and what they need">
        <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`}>
        ${drawn.edges.map((edge) => html`<path key=${`${edge.from}>${edge.to}`} class=${`edge ${tone(states.get(edge.from))}`} d=${curve(edge.points)} />`)}
        ${build.tasks.map((task) => html`<${Box} key=${task.name} build=${build} task=${task} now_ms=${now_ms} isChosen=${task.name === chosen} place=${drawn.places.get(task.name)} />`)}</svg></div>`;
}

function Box({ build, task, now_ms, isChosen, place }) {
    const { x, y } = corner(place);
    const name = task.name.length > LETTERS_MAX ? `${task.name.slice(0, LETTERS_MAX - 1)}…` : task.name;
    const box = html`<g transform=${`translate(${x} ${y})`} class=${`box ${tone(task.state)}${isChosen ? " chosen" : ""}`}>
        <title>${`${task.name}: ${task.state}`}</title>
        <rect width=${BOX.width} height=${BOX.height} rx="7" />
        <text x="12" y="17" class="mark">${mark(task.state)}</text><text x="30" y="17" class="name">${name}</text>
        <text x="30" y="32" class="says">${says(task, now_ms)}</text></g>`;
    const address = addresses.query(addresses.build(build.id), { task: task.name });
    return html`<a href=${address} aria-label=${`${task.name}, ${says(task, now_ms)}`} aria-current=${isChosen ? "true" : undefined}>${box}</a>`;
}

function says(task, now_ms) {
    const seconds = spent_s(task, now_ms);
    return seconds === null ? task.state : `${task.state}, ${duration(seconds)}`;
}

const corner = ({ column, row }) => ({ x: MARGIN + column * (BOX.width + GAP.x), y: MARGIN + row * (BOX.height + GAP.y) });

/** From the right side of the first place to the left side of the last, straight through the places in between. */
function curve(points) {
    const steps = points.map(corner).map(({ x, y }) => ({ left: x, right: x + BOX.width, y: y + BOX.height / 2 }));
    let path = `M${steps[0].right} ${steps[0].y}`;
    steps.slice(1).forEach((step, at) => {
        const from = steps[at];
        const middle = (from.right + step.left) / 2;
        path += ` C${middle} ${from.y} ${middle} ${step.y} ${step.left} ${step.y}`;
        if (at < steps.length - 2) path += ` H${step.right}`;
    });
    return path;
}
