/**
 * Colours of terminals (ECMA-48, SGR) as runs of text with classes.
 *
 * The text itself is never markup: whoever draws it makes text nodes of it. Whatever else an escape sequence may want (moving the cursor,
 * titles of windows, links) is dropped.
 */

// CSI ... final; OSC ... BEL or ST; other two-letter escapes; at last control characters that are nothing to see.
const ESCAPES = /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]/g;
const PLAIN = Object.freeze({ front: "", back: "", isBold: false, isDim: false, isItalic: false, isUnderlined: false });

export { PLAIN };

/** `[runs, style]` of a line: runs of `{text, classes, front, back}`, and the style that goes on in the next line. */
export function runs(line, style = PLAIN) {
    const found = [];
    // What is overwritten by a carriage return is not seen in a terminal either: bars of progress.
    const text = line.replace(/\r+$/, "");
    const shown = text.slice(text.lastIndexOf("\r") + 1);
    for (const [, codes, final] of text.slice(0, text.length - shown.length).matchAll(ESCAPES)) {
        if (final === "m") style = applied(style, codes);
    }
    let at = 0;
    const push = (end) => end > at && found.push({ text: shown.slice(at, end), ...look(style) });
    for (const escape of shown.matchAll(ESCAPES)) {
        push(escape.index);
        at = escape.index + escape[0].length;
        if (escape[2] === "m") style = applied(style, escape[1]);
    }
    push(shown.length);
    return [found, style];
}

function look(style) {
    const classes = [];
    if (style.isBold) classes.push("bold");
    if (style.isDim) classes.push("faint");
    if (style.isItalic) classes.push("italic");
    if (style.isUnderlined) classes.push("underlined");
    // The sixteen named colours are of the page's own palette, others as they are.
    if (typeof style.front === "number") classes.push(`front-${style.front}`);
    if (typeof style.back === "number") classes.push(`back-${style.back}`);
    return {
        classes: classes.join(" "),
        front: typeof style.front === "string" ? style.front : "",
        back: typeof style.back === "string" ? style.back : "",
    };
}

function applied(style, text) {
    const codes = text.split(/[;:]/).map(Number);
    const next = { ...style };
    while (codes.length) {
        const code = codes.shift();
        if (!code) Object.assign(next, PLAIN);
        else if (code === 1) next.isBold = true;
        else if (code === 2) next.isDim = true;
        else if (code === 3) next.isItalic = true;
        else if (code === 4) next.isUnderlined = true;
        else if (code === 22) next.isBold = next.isDim = false;
        else if (code === 23) next.isItalic = false;
        else if (code === 24) next.isUnderlined = false;
        else if (code >= 30 && code <= 37) next.front = code - 30;
        else if (code >= 90 && code <= 97) next.front = code - 90 + 8;
        else if (code >= 40 && code <= 47) next.back = code - 40;
        else if (code >= 100 && code <= 107) next.back = code - 100 + 8;
        else if (code === 38) next.front = extended(codes);
        else if (code === 48) next.back = extended(codes);
        else if (code === 39) next.front = "";
        else if (code === 49) next.back = "";
    }
    return next;
}

/** `5;n` and `2;r;g;b`, taken off the codes. */
function extended(codes) {
    const kind = codes.shift();
    if (kind === 2) return `rgb(${codes.splice(0, 3).map(byte).join(" ")})`;
    if (kind !== 5) return "";
    const number = byte(codes.shift());
    if (number < 16) return number;
    if (number >= 232) return `rgb(${Array(3).fill(8 + 10 * (number - 232)).join(" ")})`;
    const level = (value) => (value ? 55 + 40 * value : 0);
    const cube = number - 16;
    return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}

const byte = (value) => Math.min(255, Math.max(0, value | 0));
