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

        code = site.ci.login_links.make("ada")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(f"{request.url} {request.headers}"))
        page.goto(f"/login/link#{code}")
        expect(page.get_by_role("link", name="team/hello")).to_be_visible()
        expect(page.get_by_role("banner")).to_contain_text("ada")
        expect(page.get_by_text("Nobody is logged in.")).to_have_count(0)
        # What lets in was in no address and no Referer, and is nowhere to go back to.
        assert any("/login/link " in request for request in asked)
        assert not [request for request in asked if code in request]
        assert code not in page.url
        page.go_back()
        expect(page.get_by_text("Nobody is logged in.")).to_have_count(0)
        assert code not in page.url
        page.goto("/")

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
        expect(page.get_by_role("link", name="team/hello")).to_have_count(0)


def test_who_opens_a_link_that_lets_nobody_in_is_told_what_to_do(browser: Browser, site: Site) -> None:
    code = site.ci.login_links.make("ada")
    site.ci.login_links.use(code)
    with looking(browser, site, is_known=False) as page:
        for told in (f"#{code}", f"#{code[:-1]}", ""):
            page.goto("about:blank")
            page.goto(f"/login/link{told}")
            expect(page.get_by_text("This link lets nobody in")).to_contain_text("distci login")
            expect(page.get_by_role("button")).to_have_count(0)
        # A good one, pasted into the same tab, does.
        page.evaluate("code => { location.hash = code; }", site.ci.login_links.make("ada"))
        expect(page.get_by_role("banner")).to_contain_text("ada")
    # Who is in already goes on.
    with looking(browser, site) as page:
        page.goto(f"/login/link#{code}")
        expect(page.get_by_role("banner")).to_contain_text("tester")


def test_a_link_goes_on_where_no_front_end_answered(browser: Browser, site: Site) -> None:
    with looking(browser, site, is_known=False) as page:
        page.route(
            "**/login/link", lambda route: route.abort() if route.request.method == "POST" else route.continue_()
        )
        page.goto(f"/login/link#{site.ci.login_links.make('ada')}")
        expect(page.get_by_text("the front end does not answer")).to_be_visible()
        page.unroute("**/login/link")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("banner")).to_contain_text("ada")


def test_without_scripts_a_link_says_what_to_do_and_is_not_used(browser: Browser, site: Site) -> None:
    code = site.ci.login_links.make("ada")
    with looking(browser, site, is_known=False, java_script_enabled=False) as page:
        page.goto(f"/login/link#{code}")
        expect(page.get_by_text("Allow scripts of this page and open the link again")).to_be_visible()
    assert site.ci.login_links.use(code).name == "ada"


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
