/** How states look: never by colour alone, so each has a mark and a word besides. */
import { html } from "./html.js";

const MARKS = {
    passed: ["ok", "✓"], valid: ["ok", "✓"], reused: ["ok", "↺"],
    failed: ["bad", "✗"], "timed-out": ["bad", "⧖"], lost: ["bad", "?"], dead: ["bad", "✗"],
    running: ["live", "▶"], cancelling: ["live", "■"],
    planning: ["wait", "…"], waiting: ["wait", "…"], ready: ["wait", "○"], blocked: ["wait", "‖"], parked: ["wait", "‖"],
    cancelled: ["off", "■"], expired: ["off", "–"], revoked: ["off", "■"], skipped: ["off", "–"],
};

export const FINAL = new Set(["passed", "failed", "cancelled", "timed-out", "skipped", "reused", "lost"]);

/** The group of a state, which gives it its colour. */
export const tone = (state) => (MARKS[state] || ["off"])[0];
export const mark = (state) => (MARKS[state] || ["", "·"])[1];

/** The state of a build as people mean it: one that runs, and of which no task does, waits. */
export function stateOf(build) {
    const waits = build.state === "running" && build.tasks.some(({ state }) => tone(state) === "wait") && !build.tasks.some(({ state }) => state === "running");
    return waits ? "waiting" : build.state;
}

/** The tasks that made a build what it is, where it is red. */
export const culprits = (build) => build.tasks.filter((task) => tone(task.state) === "bad" && !task.allow_failure).map((task) => task.name);

export function State({ state }) {
    return html`<span class=${`state ${tone(state)}`}><span aria-hidden="true">${mark(state)}</span> ${state}</span>`;
}
