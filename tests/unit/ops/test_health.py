from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from consumer.health import Health, HealthServer
from consumer.metrics import Metrics


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(poll_limit_s=10, step_limit_s=60, clock=clock)


def test_a_loop_that_never_polled_is_not_alive_yet(health: Health) -> None:
    health.expect(["transcribe"])
    assert health.live().reasons == ("transcribe: has not polled yet",)
    health.poll_seen("transcribe")
    assert health.live().ok


def test_a_loop_that_stops_polling_is_not_alive(health: Health, clock: Clock) -> None:
    health.poll_seen()
    clock.now_s += 10
    assert health.live().ok
    clock.now_s += 1
    assert not health.live().ok
    health.poll_seen()
    assert health.live().ok


def test_one_silent_loop_among_many_is_enough(health: Health, clock: Clock) -> None:
    health.poll_seen("plan")
    health.poll_seen("transcribe")
    clock.now_s += 11
    health.poll_seen("plan")
    (reason,) = health.live().reasons
    assert reason.startswith("transcribe: ")


def test_work_without_a_sign_of_life_is_not_alive_although_the_loop_polls(health: Health, clock: Clock) -> None:
    health.step_started()
    clock.now_s += 61
    health.poll_seen()
    assert not health.live().ok
    health.step_finished()
    assert health.live().ok


def test_long_work_that_gives_signs_of_life_is_alive(health: Health, clock: Clock) -> None:
    for _ in range(5):
        clock.now_s += 50
        health.step_started()
        health.poll_seen()
    assert health.live().ok


def test_a_loop_that_ended_is_not_missed(health: Health, clock: Clock) -> None:
    health.poll_seen()
    health.loop_ended()
    clock.now_s += 1000
    assert health.live().ok


def test_it_is_ready_when_every_expected_condition_holds(health: Health) -> None:
    health.expect(["loop"], ["models", "assignment"])
    health.poll_seen()
    health.set_ready("models", True)
    assert health.ready().reasons == ("assignment: not yet",)
    health.set_ready("assignment", True)
    assert health.ready().ok
    health.set_ready("store", False, "STORE_UNAVAILABLE")
    assert health.ready().reasons == ("store: STORE_UNAVAILABLE",)


def test_a_draining_process_is_alive_and_not_ready(health: Health) -> None:
    health.poll_seen()
    health.drain()
    assert health.live().ok
    assert not health.ready().ok


def test_a_stuck_process_is_not_ready_either(health: Health, clock: Clock) -> None:
    health.poll_seen()
    clock.now_s += 11
    assert not health.ready().ok


def test_ages_are_zero_before_there_is_anything_to_count_from(health: Health, clock: Clock) -> None:
    assert (health.poll_age_s(), health.step_age_s()) == (0, 0)
    health.poll_seen()
    health.step_started()
    clock.now_s += 3
    assert (health.poll_age_s(), health.step_age_s()) == (3, 3)
    health.step_finished()
    assert health.step_age_s() == 0


@dataclass(frozen=True)
class Answer:
    status: int
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class TestServer:
    @pytest.fixture
    def server(self, health: Health) -> Iterator[HealthServer]:
        metrics = Metrics()
        metrics.describe_build("1.2.3")
        server = HealthServer("127.0.0.1", 0, health, metrics.registry, lambda: {"paused": {"chunk-work.low": "full"}})
        server.start()
        yield server
        server.stop()

    def get(self, server: HealthServer, path: str) -> Answer:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
                return Answer(response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())

    def test_healthz_says_503_and_why(self, server: HealthServer, health: Health) -> None:
        health.expect(["loop"])
        answer = self.get(server, "/healthz")
        assert (answer.status, answer.json) == (503, {"ok": False, "reasons": ["loop: has not polled yet"]})
        health.poll_seen()
        assert self.get(server, "/healthz") == Answer(200, '{"ok": true, "reasons": []}\n')

    def test_readyz_says_503_and_why(self, server: HealthServer, health: Health) -> None:
        health.set_ready("models", False, "loading")
        answer = self.get(server, "/readyz?verbose")
        assert (answer.status, answer.json["reasons"]) == (503, ["models: loading"])
        health.set_ready("models", True)
        assert self.get(server, "/readyz").status == 200

    def test_metrics_are_prometheus_text(self, server: HealthServer) -> None:
        answer = self.get(server, "/metrics")
        assert answer.status == 200
        assert 'whisperx_build_info{python="3.11' in answer.body
        assert "process_resident_memory_bytes" in answer.body

    def test_the_debug_page_shows_what_the_loop_tells(self, server: HealthServer) -> None:
        assert self.get(server, "/debug/consumer").json == {"paused": {"chunk-work.low": "full"}}

    def test_another_path_is_not_found(self, server: HealthServer) -> None:
        assert self.get(server, "/").status == 404


def test_a_server_that_never_started_can_be_stopped(health: Health) -> None:
    HealthServer("127.0.0.1", 0, health, Metrics().registry).stop()
