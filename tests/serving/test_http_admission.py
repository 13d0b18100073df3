"""Who may ask, what all responses have in common, and where a proxy shows the service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from matmamba_vision.errors import ConfigError
from matmamba_vision.serving.http import admission
from matmamba_vision.serving.http.options import (
    HttpOptions,
    is_loopback,
    read_token,
    require_guarded,
    require_root_path,
)
from matmamba_vision.serving.http.page_files import page_files
from served_http import SEARCH, FakeService, client_of, listening

TOKEN = "a-token-of-many-letters"
GALLERIES = "/v1/galleries"


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer  {TOKEN}", f"Bearer {TOKEN}x", "é"],
)
def test_without_the_token_nothing_is_told(service: FakeService, given: str) -> None:
    client = client_of(service, HttpOptions(token=TOKEN))
    headers = {b"authorization": given.encode()} if given else {}
    for path in (GALLERIES, "/v1/status", "/metrics", "/openapi.json", "/none"):
        said = client.get(path, headers=headers)
        assert (said.status_code, said.json()["error"]["code"]) == (401, "unauthorised"), path
        assert said.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in said.text
    assert client.post(SEARCH, json={"id": "id7"}, headers=headers).status_code == 401
    assert not service.asked


def test_with_the_token_everything_is_told(service: FakeService) -> None:
    client = client_of(service, HttpOptions(token=TOKEN), headers={"authorization": f"Bearer {TOKEN}"})
    for path in (GALLERIES, "/v1/status", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    # By whatever name: who bears the token is no page of elsewhere.
    assert client.get(GALLERIES, headers={"host": "search.example.org"}).status_code == 200


def test_the_scheme_may_be_written_as_one_likes(service: FakeService) -> None:
    client = client_of(service, HttpOptions(token=TOKEN), headers={"authorization": f"bearer {TOKEN}"})
    assert client.get(GALLERIES).status_code == 200


def test_the_page_and_the_health_need_no_token(service: FakeService) -> None:
    client = client_of(service, HttpOptions(token=TOKEN))
    for path in ("/", "/healthz", "/readyz", *(f"/page/{file.name}" for file in page_files())):
        assert client.get(path).status_code == 200, path


def test_tokens_are_compared_in_constant_time(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[tuple[bytes, bytes]]()

    def compare(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return False

    monkeypatch.setattr(admission, "compare_digest", compare)
    client_of(service, HttpOptions(token=TOKEN)).get(GALLERIES, headers={"authorization": "Bearer x"})
    assert compared == [(b"x", TOKEN.encode())]


def test_without_a_token_other_hosts_are_refused(service: FakeService) -> None:
    """A page of elsewhere could have its own name lead to this machine."""
    client = client_of(service, HttpOptions(allowed_hosts=("search.example.org",)))
    for host in ("localhost:8765", "127.0.0.1", "[::1]:8765", "Search.Example.Org"):
        assert client.get(GALLERIES, headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"):
        assert client.get(GALLERIES, headers={"host": host}).status_code == 421, host


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:99", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://shown.by.a.proxy"}, 200),
        ({"origin": "https://photos.example.org", "sec-fetch-site": "cross-site"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_elsewhere_may_not_ask(service: FakeService, headers: dict[str, str], status: int) -> None:
    client = client_of(service, HttpOptions(slo_ms=10_000, cors=("https://photos.example.org",)))
    assert client.post(SEARCH, json={"id": "id7"}, headers=headers).status_code == status


def test_pages_of_named_origins_may_ask(service: FakeService) -> None:
    origin = "https://photos.example.org"
    client = client_of(service, HttpOptions(token=TOKEN, cors=(origin,)))
    asks = {"origin": origin, "access-control-request-method": "POST"}
    asks["access-control-request-headers"] = "authorization"
    before = client.options(SEARCH, headers=asks)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == origin
    asks["origin"] = "https://evil.example"
    assert "access-control-allow-origin" not in client.options(SEARCH, headers=asks).headers
    said = client.get(GALLERIES, headers={"origin": origin, "authorization": f"Bearer {TOKEN}"})
    assert said.headers["access-control-allow-origin"] == origin


def test_without_named_origins_no_page_of_elsewhere_reads(service: FakeService) -> None:
    said = client_of(service).get(GALLERIES, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in said.headers
    assert said.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123", True), ("a" * 101, False), ("a b", False), ('"}\\', False), ("", False)],
)
def test_a_sane_request_id_is_kept(service: FakeService, given: str, kept: bool) -> None:
    said = client_of(service).get("/none", headers={"x-request-id": given})
    found = said.headers["x-request-id"]
    assert (found == given) == kept
    assert re.fullmatch(r"[\w-]{5,100}", found)
    assert said.json()["error"]["request_id"] == found


@pytest.mark.parametrize("prefix", ["", "/search"])
def test_a_proxy_may_show_it_anywhere(service: FakeService, prefix: str) -> None:
    """Whether it takes the prefix off or leaves it on."""
    client = client_of(service, HttpOptions(slo_ms=10_000, root_path="/search", token=TOKEN))
    assert client.get(f"{prefix}/").status_code == 200
    assert client.get(f"{prefix}/healthz").json() == {"alive": True}
    bearing = {"authorization": f"Bearer {TOKEN}"}
    assert client.get(f"{prefix}{GALLERIES}").status_code == 401
    answer = client.post(f"{prefix}{SEARCH}", json={"id": "id7"}, headers=bearing).json()
    link = answer["hits"][0]["thumbnail"]
    picture = client.get(f"{prefix}{GALLERIES}/photos/{link}", headers=bearing)
    assert picture.headers["content-type"] == "image/jpeg"


def test_the_page_loads_nothing_from_elsewhere(service: FakeService) -> None:
    """And by addresses relative to it, so that it works under any path."""
    client = client_of(service)
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for file in page_files():
        said = client.get(f"/page/{file.name}")
        assert said.content == file.read_bytes()
        assert said.headers["x-content-type-options"] == "nosniff"
        again = client.get(f"/page/{file.name}", headers={"if-none-match": said.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    assert not [address for address in loaded if address.startswith("/") or "//" in address]
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:", page.text)


@pytest.mark.parametrize("name", ["../http/app.py", "..%2f..%2fquestion.py", "%2e%2e/app.py", "none.js", ""])
def test_only_files_of_the_page_are_sent(service: FakeService, name: str) -> None:
    assert client_of(service).get(f"/page/{name}").status_code == 404


def test_the_document_shows_all_routes_with_examples(service: FakeService) -> None:
    said = client_of(service, HttpOptions(root_path="/search")).get("/openapi.json").json()
    text = json.dumps(said)
    assert "http://" not in text.replace("http://127.0.0.1", "")
    assert "https://" not in text
    assert {"get", "post", "delete"} <= {method for path in said["paths"].values() for method in path}
    search = said["paths"]["/v1/galleries/{gallery}/search"]["post"]
    assert {"multipart/form-data", "application/json"} == search["requestBody"]["content"].keys()
    examples = search["requestBody"]["content"]["application/json"]["examples"]
    client = client_of(service)
    for example in examples.values():
        assert client.post(SEARCH, json=example["value"]).status_code in (200, 400)
    references = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert references <= said["components"]["schemas"].keys()


def test_the_document_says_whether_a_token_is_wanted(service: FakeService) -> None:
    assert "security" not in client_of(service).get("/openapi.json").json()
    bearing = {"authorization": f"Bearer {TOKEN}"}
    said = client_of(service, HttpOptions(token=TOKEN), headers=bearing).get("/openapi.json").json()
    assert said["security"] == [{"token": []}]
    assert said["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/v1", "/v1/galleries/", "/v1/galleries/a/b/search"])
def test_there_is_nothing_at_other_addresses(service: FakeService, path: str) -> None:
    said = client_of(service).get(path)
    assert said.status_code == 404
    assert said.json()["error"]["code"] == "not_found"


def test_heads_are_told_without_what_they_are_heads_of(service: FakeService) -> None:
    with listening(service) as served, httpx.Client(base_url=served.url, timeout=60) as client:
        for path in ("", "healthz", "v1/galleries"):
            whole, head = client.get(path), client.head(path)
            assert head.status_code == 200
            assert head.content == b""
            assert head.headers["content-length"] == str(len(whole.content))


def test_another_method_is_refused(service: FakeService) -> None:
    said = client_of(service).get(SEARCH)
    assert (said.status_code, said.json()["error"]["code"]) == (405, "bad_request")


def test_elsewhere_needs_a_token() -> None:
    for host in ("127.0.0.1", "localhost", "127.9.9.9", "::1"):
        assert is_loopback(host)
        require_guarded(host, "")
    for host in ("0.0.0.0", "::", "", "192.0.2.1"):
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="token"):
            require_guarded(host, "")
        require_guarded(host, TOKEN)
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid"):
        is_loopback("no.such.host.invalid")


@pytest.mark.parametrize(
    "content", [b"", b"short", b"two words of a token", "schlüssel-mit-umlaut".encode(), b"\xff" * 20]
)
def test_a_token_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        read_token(tmp_path / "token")


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    with pytest.raises(ConfigError, match="none"):
        read_token(tmp_path / "none")
    assert TOKEN not in repr(HttpOptions(token=TOKEN))


def test_a_root_path_is_one() -> None:
    assert [require_root_path(path) for path in ("", "/", "/a", "/a/b/")] == ["", "", "/a", "/a/b"]
    for wrong in ("a", "https://x.example/a", "/a//b", "/a?b", "/a b"):
        with pytest.raises(ConfigError, match="root path"):
            require_root_path(wrong)


@pytest.mark.parametrize(
    ("bad", "culprit"),
    [
        ({"cors": ("photos.example.org",)}, "origin 'photos.example.org'"),
        ({"cors": ("https://photos.example.org/",)}, "origin 'https://photos.example.org/'"),
        ({"cors": ("*",)}, "origin '[*]'"),
        ({"allowed_hosts": ("http://photos.example.org",)}, "host 'http://photos.example.org'"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"max_upload_mb": float("inf")}, "max_upload_mb"),
        ({"root_path": "search"}, "root path 'search'"),
    ],
)
def test_options_that_cannot_be_are_named(bad: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        HttpOptions(**bad)
