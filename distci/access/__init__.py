"""Who asks, what they may do, and what they did. Nothing is allowed unless something allows it.

::

    who asks                          what they may do              what they did
    access token  -> authenticate     decide(principal, grants,     audit: put down before it is done,
    cookie        -> Sessions             action, project)          and what became of it after
    login link    -> LoginLinks       -> Allowed, Denied, Hidden
    provider      -> OidcLogin

Where it is kept, and so what an outage does to it:

* Tokens, roles and visibilities: in the store, as a numbered log of changes that nobody can take back (:mod:`~distci.access.register`). A tree that is
  away or lost neither loses a token nor brings one back.
* Sessions: in the tree, keys and the list of those that were ended early, side by side (:mod:`~distci.access.sessions`). A tree that is lost ends them
  all, so none that was ended comes back; people log in again.
* Who did what: in the store, one object before each change and one after (:mod:`~distci.access.audit`).
"""

from distci.access.audit import Acting, Audit, Entry, acting
from distci.access.decisions import Allowed, Decision, Denied, Hidden, decide, disguised, is_among, may_give
from distci.access.links import LoginLinks
from distci.access.principals import NOBODY, Nobody, Person, Principal, Token, Worker
from distci.access.rights import Action, Grant, Grants, Role, Visibility
from distci.access.service import Access, NewToken
from distci.access.sessions import Session, Sessions
from distci.access.signing import Signing
from distci.access.state import TokenRecord
from distci.projects import SYSTEM

__all__ = [
    "NOBODY",
    "SYSTEM",
    "Access",
    "Acting",
    "Action",
    "Allowed",
    "Audit",
    "Decision",
    "Denied",
    "Entry",
    "Grant",
    "Grants",
    "Hidden",
    "LoginLinks",
    "NewToken",
    "Nobody",
    "Person",
    "Principal",
    "Role",
    "Session",
    "Sessions",
    "Signing",
    "Token",
    "TokenRecord",
    "Visibility",
    "Worker",
    "acting",
    "decide",
    "disguised",
    "is_among",
    "may_give",
]
