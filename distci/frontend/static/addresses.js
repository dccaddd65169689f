/** Addresses of things, the same below the API's root and on the page. */

/** Each part of a name escaped, its slashes left: ids of jobs and names of artifacts are paths. */
const escaped = (name) => name.split("/").map(encodeURIComponent).join("/");

export const job = (id) => `/jobs/${escaped(id)}`;
export const builds = (id) => `${job(id)}/-/builds`;
export const history = (id) => `${job(id)}/-/history`;
export const flaky = (id) => `${job(id)}/-/flaky-tests`;
export const quarantine = (id) => `${job(id)}/-/quarantine`;
export const artifacts = (build) => `${address(build)}/artifacts`;
export const artifact = (build, name) => `${artifacts(build)}/${escaped(name)}`;
export const reports = (build) => `${address(build)}/reports`;
export const tests = (build) => `${address(build)}/tests`;
export const task = (build, name) => `${address(build)}/tasks/${encodeURIComponent(name)}`;
export const log = (build, name) => `${task(build, name)}/log`;
export const worker = (name) => `/workers/${encodeURIComponent(name)}`;
export const ticket = (token) => `/tickets/${encodeURIComponent(token)}`;
export { address as build };

/** The address of a build, which is written `job#number`. */
function address(build) {
    const { job: id, number } = split(build);
    return `${builds(id)}/${number}`;
}

/** `{job, number}` of a build. */
export function split(build) {
    const mark = build.lastIndexOf("#");
    return { job: build.slice(0, mark), number: Number(build.slice(mark + 1)) };
}

/** A path with a query of what is not empty. */
export function query(path, values) {
    const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false);
    return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
