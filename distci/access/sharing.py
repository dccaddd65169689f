"""Which jobs' builds the builds of another job may use: copy what they published, and follow on their end; and which they may start.

A build asks for nobody, so it may use what everybody may read who can say what it does: jobs of its own project, or of none where it has none; besides, jobs that everybody
who has logged in sees, and jobs whose own definition shares them with it. Looked at when it happens, since the name of a job may be
a parameter, and what was allowed when a job was saved may be so no more.
"""

from __future__ import annotations

from collections.abc import Iterable

from distci.access.rights import Action, Visibility
from distci.access.service import Access
from distci.errors import Invalid, Missing
from distci.jobs import Jobs
from distci.projects import SYSTEM, is_within, project_of


class Sharing:
    """Decides it for the jobs of one system. Any thread may use it."""

    def __init__(self, access: Access, jobs: Jobs) -> None:
        self._access = access
        self._jobs = jobs

    def may_use(self, user: str, used: str) -> bool:
        """Whether builds of the job ``user`` may use those of the job ``used``, whether that exists or not.

        StoreUnavailable when it cannot be found out.
        """
        if user == used:
            return True
        grants = self._access.grants()
        if grants.visibility(used) is not Visibility.PRIVATE:
            return True
        return self._reaches(user, used) or any(
            is_within(user, project) for project in self._named(used, "shared_with")
        )

    def may_start(self, user: str, used: str) -> bool:
        """Whether builds of the job ``user`` may start those of the job ``used``: more than to use them, since it spends what they spend.

        StoreUnavailable when it cannot be found out.
        """
        return self._reaches(user, used) or any(is_within(user, project) for project in self._named(used, "started_by"))

    def _reaches(self, user: str, used: str) -> bool:
        """Whether a job has another beside it; only below it where somebody may change it who has no right to its project."""
        grants, project = self._access.grants(), project_of(user)
        if is_within(used, user):
            return True
        if any(Action.WRITE in role.actions for role in grants.roles.get(user, {}).values()):
            return False
        if self._access.has_token(Action.WRITE, user):
            return False
        # Jobs of no project have each other. The whole system is nobody's own project.
        return is_within(used, project) if project != SYSTEM else project_of(used) == SYSTEM

    def _named(self, job: str, key: str) -> Iterable[str]:
        """The projects that a job's definition names there, also where its tasks are of types that are not installed here."""
        try:
            shared = self._jobs.get(job).document.get(key, ())
        except (Invalid, Missing):
            return ()
        return [project for project in shared if isinstance(project, str)] if isinstance(shared, list) else ()
