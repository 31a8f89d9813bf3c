"""Telling a chat or a pager that a job has ended."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from opadpo.jobs.record import Job

TIMEOUT_SECONDS = 10.0
PAUSES = (1.0, 3.0)
"""Seconds before the second and the third try."""


def tell_end(job: Job, warn: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> None:
    """Post what became of a job to the address in the environment variable that `jobs.webhook_env` names.

    The address is a secret: it is never written anywhere. What fails is only warned of.
    """
    if job.webhook_env is None:
        return
    address = environment.get(job.webhook_env, "")
    if not address.lower().startswith(("http://", "https://")):
        seen = "it is not set" if not address else "it holds no http:// or https:// address"
        warn(f"The job's end was not posted: {job.webhook_env} (jobs.webhook_env): {seen} where the job runs.")
        return
    data = json.dumps(_told(job)).encode()
    trouble = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        trouble, again = _post(address, data)
        if not again:
            break
    if trouble:
        warn(f"The job's end was not posted to the address in {job.webhook_env}: {trouble}.")


def _told(job: Job) -> dict[str, object]:
    attempt = job.attempt
    start, end = attempt.started_at or attempt.queued_at, attempt.ended_at or job.state_at
    return {
        "job_id": job.job_id,
        "title": job.title,
        "state": job.state,
        "reason": job.reason,
        "seconds": round((end - start).total_seconds(), 1),
    }


def _post(address: str, data: bytes) -> tuple[str, bool]:
    """(what went wrong, without the address; whether to try again)."""
    try:
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return "", False
    except urllib.error.HTTPError as error:
        return f"the server answered {error.code}", error.code >= 500 or error.code in (408, 429)
    except urllib.error.URLError as error:
        return f"it cannot be reached ({type(error.reason).__name__})", True
    except (OSError, http.client.HTTPException) as error:
        return f"it cannot be reached ({type(error).__name__})", not isinstance(error, http.client.InvalidURL)
    except ValueError:
        return "it is no address", False
