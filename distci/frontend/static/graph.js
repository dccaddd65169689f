/**
 * Where the tasks of a build stand in its picture: layers from left to right, each task one layer beyond the last of its needs.
 *
 * Within a layer, tasks go where their neighbours are on average, a few times forth and back: Sugiyama's method with barycentres
 * (Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures, 1981). An edge over several layers bends
 * around what stands in between by passing a place of its own in each.
 */

const PASSES = 6;

/**
 * `{columns, rows, places, edges}` for tasks with `name` and `needs`. `places` maps a name to `{column, row}`, `edges` are
 * `{from, to, points}`, the points in columns and rows. Needs that name no task are left out, and so are edges that close a circle.
 */
export function layout(tasks) {
    const known = new Map(tasks.map((task) => [task.name, task]));
    const column = columns(known);
    const layers = [];
    const put = (at, node) => (layers[at] ||= []).push(node);
    const nodes = new Map();
    for (const task of tasks) {
        const node = { name: task.name, column: column.get(task.name), before: [], after: [] };
        nodes.set(task.name, node);
        put(node.column, node);
    }
    const edges = [];
    const isBehind = ancestors(known);
    for (const task of tasks) {
        for (const need of task.needs) {
            if (!known.has(need) || column.get(need) >= column.get(task.name)) continue;
            // What another of its needs comes after already is no line of its own: "after all of these" would be a thicket.
            if (task.needs.some((other) => other !== need && isBehind(other, need))) continue;
            const way = [nodes.get(need)];
            for (let at = column.get(need) + 1; at < column.get(task.name); at += 1) {
                const bend = { name: null, column: at, before: [], after: [] };
                put(at, bend);
                way.push(bend);
            }
            way.push(nodes.get(task.name));
            way.slice(1).forEach((node, at) => link(way[at], node));
            edges.push({ from: need, to: task.name, way });
        }
    }
    arrange(layers);
    return {
        columns: layers.length,
        rows: Math.max(0, ...layers.map((layer) => layer.length)),
        places: new Map([...nodes].map(([name, node]) => [name, { column: node.column, row: node.row }])),
        edges: edges.map(({ from, to, way }) => ({ from, to, points: way.map((node) => ({ column: node.column, row: node.row })) })),
    };
}

/** By name, the longest way to a task from one that needs nothing. */
function columns(known) {
    const found = new Map();
    const visit = (name) => {
        if (found.has(name)) return found.get(name);
        // While its needs are looked at: a circle ends here instead of never.
        found.set(name, 0);
        const needs = known.get(name).needs.filter((need) => known.has(need));
        const column = needs.length ? 1 + Math.max(...needs.map(visit)) : 0;
        found.set(name, column);
        return column;
    };
    for (const name of known.keys()) visit(name);
    return found;
}

/** Tells whether a task comes after another, by however many steps. */
function ancestors(known) {
    const found = new Map();
    const of = (name) => {
        if (!found.has(name)) {
            const all = new Set();
            found.set(name, all);
            for (const need of known.get(name)?.needs || []) {
                all.add(need);
                for (const before of of(need)) all.add(before);
            }
        }
        return found.get(name);
    };
    return (name, before) => of(name).has(before);
}

function link(from, to) {
    from.after.push(to);
    to.before.push(from);
}

function arrange(layers) {
    layers.forEach((layer) => layer.forEach((node, row) => (node.row = row)));
    for (let pass = 0; pass < PASSES; pass += 1) {
        const isForth = pass % 2 === 0;
        const order = isForth ? layers : [...layers].reverse();
        for (const layer of order) {
            for (const node of layer) {
                const near = isForth ? node.before : node.after;
                node.wish = near.length ? near.reduce((sum, other) => sum + other.row, 0) / near.length : node.row;
            }
            layer.sort((one, other) => one.wish - other.wish);
            layer.forEach((node, row) => (node.row = row));
        }
    }
    // A short layer stands in the middle of the tall ones.
    const rows = Math.max(0, ...layers.map((layer) => layer.length));
    for (const layer of layers) for (const node of layer) node.row += (rows - layer.length) / 2;
}
