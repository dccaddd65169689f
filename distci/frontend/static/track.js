/**
 * Scrolling over more than a browser can lay out: which part of something very tall is seen.
 *
 * Browsers stop at some ten to thirty million pixels. What is taller is drawn on a shorter track: small moves go as far as the reader
 * moved, large ones (the bar dragged, a key for the end) to where the bar stands.
 */

const TRACK_MAX_PX = 8_000_000;

export class Track {
    /** `element` scrolls. */
    constructor(element) {
        this.element = element;
        this.total = 0;
        this.top = 0;
        this.seen = 0;
    }

    get view() {
        return this.element.clientHeight;
    }

    /** What the inside of the element must be as tall as. */
    get height() {
        return Math.min(this.total, TRACK_MAX_PX);
    }

    get end() {
        return Math.max(0, this.total - this.view);
    }

    get isAtEnd() {
        return this.top >= this.end - 2;
    }

    /** Where on the track a height of the whole stands now: what is drawn goes there. */
    shown(y) {
        return this.element.scrollTop + y - this.top;
    }

    /** The element has been scrolled. */
    moved() {
        const now = this.element.scrollTop;
        const by = now - this.seen;
        this.seen = now;
        const last = this.height - this.view;
        if (this.total <= TRACK_MAX_PX || now <= 0 || now >= last - 1) this.top = now <= 0 ? 0 : now >= last - 1 ? this.end : now;
        else if (Math.abs(by) <= this.view * 1.5) this.top = Math.min(this.end, Math.max(0, this.top + by));
        else this.top = (now / last) * this.end;
    }

    /** Scroll to a height of the whole. */
    go(y) {
        this.top = Math.min(this.end, Math.max(0, y));
        this.settle();
    }

    /** Put the bar where it belongs, after small moves that went further than it did. */
    settle() {
        const last = this.height - this.view;
        this.element.scrollTop = this.end ? (this.top / this.end) * last : 0;
        this.seen = this.element.scrollTop;
        if (this.total <= TRACK_MAX_PX) this.top = this.seen;
    }
}
