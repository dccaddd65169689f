"""Where the commands of a task run. :mod:`distci.isolation.port` states the promises; one driver a file."""
