"""DistCI through a front end: the names, the records and the errors of :class:`distci.app.DistCI`, over HTTPS.

::

    system       connect(url) -> Client
    jobs builds artifacts logs status why tickets access audit
                 its parts, each with the methods of the library's
    watching     how somebody who waits hears of a change
    download     bytes that go on where a connection broke
    link         one request: who asks, what may be repeated, what an answer means
    patience     when to ask again, and for how long

Nothing here decides anything: a front end does, on the same library.
"""

from distci.client.system import Client, connect

__all__ = ["Client", "connect"]
