/** A ticket in a list: what it is for. */
import * as addresses from "./addresses.js";
import { html } from "./html.js";

/** The build and the task that a ticket is for, as links; its kind where it is for neither. */
export function For({ ticket }) {
    if (!ticket) return html`<span class="dim">cannot be read</span>`;
    const { build, task } = ticket.body;
    if (typeof build !== "string" || !build.includes("#")) return html`<span>${ticket.kind}</span>`;
    return html`<a href=${addresses.build(build)}>${build}</a>${typeof task === "string" ? html` ${task}` : null} <span class="dim">${ticket.kind}</span>`;
}
