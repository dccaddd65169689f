"""What tests, linters and coverage tools have found while a task ran, read from the files that they wrote and the lines that they printed.

The worker that ran the task reads it, and all that comes of it is one object of the attempt in the store (:mod:`.written`), put there before the attempt is
settled, and a summary of bounded size on the attempt's record (:class:`.results.Summary`). So whoever dies between leaves an object that no record speaks
of, and the next attempt reads its own files.

Files and lines come from scripts, and are taken for hostile. A file counts whole or not at all: of one that is refused it is told where and why.
Nothing here changes how a task ended, but where the job says that tests decide (:mod:`.verdicts`).
"""
