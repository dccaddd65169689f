"""A small tree that processes agree through: versions, sessions, transactions, watches.

The shape is ZooKeeper's, because ZooKeeper is what it is for; :mod:`distci.coordination.port` states the
promises and each adapter beside it keeps them. Nothing here knows of jobs or builds.
"""
