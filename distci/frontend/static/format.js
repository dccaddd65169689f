/** Times and sizes as people read them. */

const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];

/** A length of time, its two largest units: `2 min 5 s`. */
export function duration(seconds) {
    if (seconds < 0) return "0 s";
    if (seconds < 10) return `${Number(seconds).toFixed(1)} s`;
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    const at = UNITS.findIndex(([, size]) => seconds >= size);
    const [name, size] = UNITS[at];
    const [lesser, lesserSize] = UNITS[at + 1] || ["s", 1];
    const rest = Math.floor((seconds % size) / lesserSize);
    return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${lesser}` : ""}`;
}

/** How long a task has run or ran, in seconds; null where it did neither. */
export function spent_s(task, now_ms) {
    if (task.state === "running") return (now_ms - task.since_ms) / 1000;
    const last = task.attempts.at(-1);
    return last?.ended_ms ? (last.ended_ms - last.started_ms) / 1000 : null;
}

/** How long ago a moment was. */
export function ago(moment_ms, now_ms) {
    const seconds = (now_ms - moment_ms) / 1000;
    if (seconds < 5) return "just now";
    return seconds < 60 ? `${Math.floor(seconds)} s ago` : `${duration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

/** A moment in full, in the reader's own time. */
export const moment = (moment_ms) => new Date(moment_ms).toLocaleString();

/** The time of day of a moment, to the minute. */
export const clock = (moment_ms) => new Date(moment_ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export function size(bytes) {
    const names = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (bytes >= 1024 && at < names.length - 1) {
        bytes /= 1024;
        at += 1;
    }
    return `${at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${names[at]}`;
}

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
