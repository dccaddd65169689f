"""Bytes under keys. :mod:`distci.store.port` states the promises; each adapter beside it keeps them."""
