"""How the service is watched, told what to do, and stopped."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import httpx
import pytest
from matmamba_vision.errors import ConfigError
from matmamba_vision.serving.http.logs import json_lines, log_event
from matmamba_vision.serving.http.options import HttpOptions
from matmamba_vision.serving.http.server import ServedHttp, bound
from prometheus_client.parser import text_string_to_metric_families
from served_http import HOSTILE, SEARCH, FakeService, client_of, jpeg, listening, multipart


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as it is written."""
    stream = io.StringIO()
    with json_lines(stream):
        yield stream


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.values())] = sample.value
    return found


def test_metrics_are_counted_by_route_width_strategy_and_status(service: FakeService) -> None:
    client = client_of(service)
    for _ in range(3):
        client.post(SEARCH, **multipart(jpeg(), width="1/4"))
    client.post(SEARCH, json={"id": "id7"})
    client.post("/v1/galleries/none/search", json={"id": "id7"})
    client.get("/v1/galleries/photos/item", params={"id": "<script>"})
    client.get("/nothing/here/<script>")
    said = client.get("/metrics")
    assert said.headers["content-type"].startswith("text/plain")
    found = samples(said.text)
    route, total = "/v1/galleries/{gallery}/search", "matmamba_requests_total"
    assert found[total, *sorted((route, "1/4", "single-shot", "200"))] == 3
    assert found[total, *sorted((route, "", "single-shot", "200"))] == 1
    assert found[total, *sorted((route, "", "", "404"))] == 1
    assert found[total, *sorted(("none", "", "", "404"))] == 1
    assert "nothing" not in said.text
    assert found["matmamba_encode_seconds_count", "1/4"] == 3
    assert found["matmamba_encode_seconds_sum", "1/4"] == pytest.approx(3 * 1.5e-3)
    assert found["matmamba_queue_seconds_sum", "1/4"] == pytest.approx(3 * 0.5e-3)
    assert found["matmamba_search_seconds_sum", "single-shot"] == pytest.approx(4 * 0.25e-3)
    assert found["matmamba_decode_seconds_count",] == 3
    assert found["matmamba_ready",] == 1
    assert found["matmamba_queue_length",] == 3
    assert found["matmamba_recall", "1/2"] == 0.9
    assert found["matmamba_recall_low", "1/2"] == 0.8
    assert found["matmamba_gallery_images", "1.1", "photos"] == 12


def test_two_services_have_metrics_of_their_own(service: FakeService) -> None:
    first, second = client_of(service), client_of(service)
    first.get("/nothing")
    assert 'status="404"' in first.get("/metrics").text
    assert 'status="404"' not in second.get("/metrics").text


def test_each_request_has_a_line_of_json(service: FakeService, lines: io.StringIO) -> None:
    client = client_of(service)
    client.post(SEARCH, **multipart(jpeg()), headers={"x-request-id": "mine"})
    for name in HOSTILE:
        client.get("/v1/galleries/photos/item", params={"id": f"{name}\nnot there"})
    written = lines.getvalue().splitlines()
    found = [json.loads(line) for line in written]
    assert len(found) == 1 + len(HOSTILE)
    assert found[0]["request_id"] == "mine"
    assert found[0]["route"] == "/v1/galleries/{gallery}/search"
    assert found[0]["gallery"] == "photos"
    assert (found[0]["status"], found[0]["width"], found[0]["version"]) == (200, "1/2", "1.1")
    assert found[0]["stages"]["encode"] == 1.5
    assert {one["code"] for one in found[1:]} == {"not_found"}
    assert all(line.isascii() and "\x1b" not in line for line in written)


def test_a_fault_is_written_down_and_not_told(service: FakeService, lines: io.StringIO) -> None:
    service.failure = KeyError("a secret of the inside")
    said = client_of(service, raise_server_exceptions=False).post(SEARCH, json={"id": "id7"})
    assert (said.status_code, said.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in said.text
    fault, request = map(json.loads, lines.getvalue().splitlines())
    assert "KeyError" in fault["traceback"]
    assert fault["level"] == "error"
    assert fault["request_id"] == request["request_id"] == said.json()["error"]["request_id"]


def test_a_log_line_may_hold_anything(lines: io.StringIO) -> None:
    log_event("odd", value=object(), text="a\nb\x1b", level=logging.WARNING)
    (line,) = lines.getvalue().splitlines()
    assert json.loads(line)["text"] == "a\nb\x1b"


def test_it_ends_once_what_is_under_way_is_answered(service: FakeService) -> None:
    service.go.clear()
    said = list[httpx.Response]()
    with listening(service, HttpOptions(slo_ms=10_000, drain_s=7)) as served:
        thread = threading.Thread(
            target=lambda: said.append(httpx.post(served.url + SEARCH[1:], timeout=60, **multipart(jpeg())))
        )
        thread.start()
        while not service.asked:
            pass
        served.stop()
        while True:
            try:
                httpx.get(f"{served.url}healthz", timeout=60)
            except httpx.TransportError:
                break
        assert not said
        assert service.closed == -1
        service.go.set()
        thread.join(10)
    assert said[0].status_code == 200
    assert service.closed == 7


def test_while_it_stops_it_is_not_ready(service: FakeService) -> None:
    from matmamba_vision.serving.http.app import make_application
    from matmamba_vision.serving.http.work import Front
    from starlette.testclient import TestClient

    front = Front(service, HttpOptions())
    client = TestClient(make_application(front), base_url="http://127.0.0.1")
    assert client.get("/readyz").json() == {"ready": True, "waiting_for": ""}
    front.draining = True
    said = client.get("/readyz")
    assert said.status_code == 503
    assert "before it stops" in said.json()["waiting_for"]
    assert client.get("/healthz").status_code == 200


def test_what_cannot_be_served_is_raised(service: FakeService) -> None:
    service.failure = ConfigError("no such width")
    served = ServedHttp(service, HttpOptions(), host="127.0.0.1", port=0)
    with pytest.raises(ConfigError, match="no such width"):
        served.run(lambda _: pytest.fail("it did not start"))
    assert service.closed == 10


def test_a_port_that_is_taken_is_named(service: FakeService) -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127\\.0\\.0\\.1: address already in use"):
            bound("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"198\.51\.100\.1"):
        bound("198.51.100.1", 0)


def test_its_address_is_told(service: FakeService) -> None:
    with listening(service, HttpOptions(root_path="/search")) as served:
        assert served.url == f"http://127.0.0.1:{served.port}/search/"
        assert httpx.get(f"{served.url}healthz", timeout=60).status_code == 200
