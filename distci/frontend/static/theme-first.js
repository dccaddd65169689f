// Runs before anything is drawn, so that nobody who chose dark is shown a white page first. Hence no module: modules wait.
try {
    const chosen = localStorage.getItem("theme");
    if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
    // A browser that keeps nothing: the system's own choice stands.
}
