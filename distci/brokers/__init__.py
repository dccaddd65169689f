"""Brokers: who gives workers their work, and takes what comes of it.

::

    port      what a worker process, and an attempt at a task, ask of whoever that is
    direct    the coordination tree and the store themselves
    remote    a front end, by HTTPS

Workers are the same for all: no kind of task knows whom it works for.
"""
