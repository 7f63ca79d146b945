"""The site in a real browser, with JavaScript and without: pages, search, an upload, the stream."""

import base64
import shutil

import pytest

from tests.released import (
    CACHE1,
    LONELY,
    WHOLE,
    WORKER,
    memcached,
    redis,
    running,
    served,
)

pytest_plugins = ["tests.released"]
api = pytest.importorskip("playwright.sync_api")
PNG = base64.b64decode(  # one red pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSu"
    "QmCC"
)


@pytest.fixture
def place(publish):
    """The address of a site with a worker, a cache and a broker, its rows indexed."""
    site = publish(WHOLE)
    with memcached(CACHE1), redis():
        site.manage("migrate", "-v0")
        site.manage("index_flagged")
        with running(site.command(*WORKER)), served(site) as place:
            yield place


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium") or pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without"])
def page(chromium, request):
    context = chromium.new_context(java_script_enabled=request.param)
    page = context.new_page()
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("response", lambda answer: answer.status >= 500 and troubles.append(answer.url))
    page.set_default_timeout(15_000)
    yield page
    context.close()
    assert troubles == []


def join(page, place, name="nia"):
    page.goto(f"{place}/join/")
    page.fill("[name=username]", name)
    page.fill("[name=password1]", "long enough 1")
    page.fill("[name=password2]", "long enough 1")
    page.click("main button")


def test_a_visitor_searches_and_a_member_does_the_rest(page, place):
    page.goto(place)
    page.click("text=Search")
    page.fill("[name=q]", "queues")
    page.click("main button")
    assert page.inner_text("article.session mark") == "Queues"
    page.click("article.session h2 a")
    assert page.inner_text("h1") == "Queues that lose nothing"

    join(page, place)
    upload(page, place)
    follow(page, place)


def upload(page, place):
    page.goto(f"{place}/speakers/1/")
    page.set_input_files("[name=picture]",
                         {"name": "me.png", "mimeType": "image/png", "buffer": PNG})
    page.click("text=Upload a picture")
    page.wait_for_selector("[data-state=done]")
    assert "three sizes" in page.inner_text("[data-state=done]")
    page.goto(f"{place}/speakers/1/")
    assert page.get_attribute("img.face", "src").startswith("/speakers/1/pictures/384-")


def follow(page, place):
    page.goto(f"{place}/people/mara/")
    page.click("main button")
    assert page.inner_text("main button") == "Unfollow"
    page.click("text=Log out")
    join(page, place, "tom")
    page.goto(f"{place}/people/nia/")
    page.click("main button")
    page.click("text=Stream")
    assert "nia" in page.inner_text("ol.stream")


def test_a_search_that_is_down_says_so(publish, chromium):
    site = publish(LONELY)
    with (site.root / ".env").open("a") as env:
        env.write("SEARCH_URL=http://127.0.0.1:1/solr/conference\n")
    site.manage("migrate", "-v0")
    page = chromium.new_page()
    with served(site) as place:
        answer = page.goto(f"{place}/search/?q=python")
        assert answer.status == 503
        assert "does not answer" in page.inner_text("[role=alert]")
        assert page.goto(place).status == 200
    page.close()


def test_a_script_polls_and_a_page_without_one_loads_itself_again(page, place):
    join(page, place)
    page.goto(f"{place}/conferences/1/")
    page.click("text=Get the schedule")
    with page.expect_download() as download:
        page.click("text=Download")
    assert "Queues that lose nothing" in download.value.path().read_text("utf-8-sig")
