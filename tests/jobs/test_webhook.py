"""A job's end is posted; the address stays secret."""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opadpo.jobs import webhook
from opadpo.jobs.record import Attempt, Job, JobRequest


@pytest.fixture
def job():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    attempt = Attempt(number=1, queued_at=at, started_at=at, ended_at=at.replace(minute=2), state="failed")
    return Job(
        job_id="j-1",
        step="opadpo",
        title="opadpo",
        commands=[],
        request=JobRequest(step="opadpo"),
        target="local",
        workspace="/w",
        submitted_by="lea",
        submitted_at=at,
        state_at=at,
        state="failed",
        reason="The loss is not finite",
        attempts=[attempt],
        webhook_env="HOOK",
    )


@pytest.fixture
def server(monkeypatch):
    """A server that answers the statuses in `answers`, then 200; it keeps what it was sent."""
    heard, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{running.server_port}/services/s3cret")
        monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
        yield heard, answers
        running.shutdown()
        thread.join()


@pytest.mark.slow
def test_the_end_is_posted(job, server):
    warnings = []
    webhook.tell_end(job, warnings.append)
    wanted = {"job_id": "j-1", "title": "opadpo", "state": "failed", "reason": "The loss is not finite", "seconds": 120}
    assert (server[0], warnings) == ([wanted], [])


def test_a_server_in_trouble_is_asked_three_times_and_one_that_refuses_once(job, server):
    heard, answers = server
    warnings = []
    answers += [500, 503]
    webhook.tell_end(job, warnings.append)
    assert (len(heard), warnings) == (3, [])
    answers += [404]
    webhook.tell_end(job, warnings.append)
    assert len(heard) == 4
    assert "the server answered 404" in warnings[0]
    assert "s3cret" not in warnings[0]


@pytest.mark.parametrize(
    "address", ["", "s3cret", "ftp://s3cret", "http://127.0.0.1:1/s3cret", "http://s3cret :80/\n", "http://[s3cret"]
)
def test_an_address_that_is_none_is_warned_of_and_not_shown(job, monkeypatch, address):
    monkeypatch.setenv("HOOK", address)
    monkeypatch.setattr(webhook, "PAUSES", (0.0, 0.0))
    warnings = []
    webhook.tell_end(job, warnings.append)
    assert len(warnings) == 1
    assert "HOOK" in warnings[0]
    assert "s3cret" not in warnings[0]
    webhook.tell_end(job.model_copy(update={"webhook_env": None}), warnings.append)
    assert len(warnings) == 1
