"""Who is logged in, on the page, and what it says when nobody is."""

from __future__ import annotations

from looking import Site, looking, shell
from playwright.sync_api import Browser, Page, expect

from distci.access import Visibility


def test_where_nobody_is_logged_in_the_way_in_is_told_and_leads_in_and_out(browser: Browser, site: Site) -> None:
    site.save("team/hello", shell("true"))
    with looking(browser, site, is_known=False) as page:
        page.goto("/")
        expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
        expect(page.get_by_text("distci login")).to_be_visible()
        expect(page.get_by_role("link", name="team/hello")).to_have_count(0)

        page.goto(f"/login/{site.ci.login_links.make('ada')}")
        expect(page.get_by_role("link", name="team/hello")).to_be_visible()
        expect(page.get_by_role("banner")).to_contain_text("ada")
        expect(page.get_by_text("Nobody is logged in.")).to_have_count(0)

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
        expect(page.get_by_role("link", name="team/hello")).to_have_count(0)


def test_what_is_public_is_shown_to_nobody_too(browser: Browser, site: Site) -> None:
    site.ci.access.set_visibility("team", Visibility.PUBLIC)
    site.save("team/hello", shell("true"))
    site.save("secret/hello", shell("true"))
    with looking(browser, site, is_known=False) as page:
        page.goto("/")
        expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
        expect(page.get_by_role("link", name="team/hello")).to_be_visible()
        expect(page.get_by_text("secret/hello")).to_have_count(0)


def test_a_session_that_is_ended_elsewhere_is_told_while_the_page_is_open(site: Site, page: Page) -> None:
    site.save("team/hello", shell("true"))
    page.goto("/")
    expect(page.get_by_role("link", name="team/hello")).to_be_visible()
    [cookie] = page.context.cookies()
    site.ci.sessions.end(str(cookie["value"]))
    expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
