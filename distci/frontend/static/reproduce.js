/** What one types to do a build again. */
import * as addresses from "./addresses.js";

/** `{asBuild, here}`: as one more build, and on the reader's own machine. */
export function again({ id, config, trigger }) {
    const { job } = addresses.split(id);
    const given = { ...trigger.presets, ...trigger.parameters };
    const parameters = Object.entries(given).map(([name, value]) => ` --parameter ${quoted(`${name}=${value}`)}`).join("");
    const of = (trigger.commit ? ` --commit ${quoted(trigger.commit)}` : "") + (trigger.ref ? ` --ref ${quoted(trigger.ref)}` : "");
    return {
        asBuild: `distci build trigger ${quoted(job)}${parameters}${of}`,
        here: `distci job get ${quoted(job)} --version ${config} | distci run -${parameters}`,
    };
}

/** A task of it, on the reader's own machine. */
export function taskAgain(id, task) {
    return `distci reproduce ${quoted(id)} ${quoted(task)} --url ${quoted(window.location.origin)}`;
}

/** As one word of a shell, whatever is in it. */
function quoted(text) {
    return /^[A-Za-z0-9_@%+=:,./-][A-Za-z0-9_@%+=:,./#-]*$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
