"""The store's clock against ours: the Date header that every HTTP answer has, refused or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import urllib3

from consumer.errors import StoreUnavailable
from consumer.settings import StoreSettings


def clock_skew_s(settings: StoreSettings, clock: Callable[[], float] = time.time) -> float:
    """Our clock less the store's, in seconds; to the second, as the header is."""
    scheme = "https" if settings.secure else "http"
    pool = urllib3.PoolManager(ca_certs=settings.ca_file or None)
    try:
        answer = pool.request("HEAD", f"{scheme}://{settings.endpoint}/", timeout=settings.request_timeout_s, retries=0)
        return clock() - parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (urllib3.exceptions.HTTPError, KeyError, ValueError) as error:
        raise StoreUnavailable(f"no time from {settings.endpoint}: {error}; check WHISPERX_STORE__ENDPOINT") from error
    finally:
        pool.clear()
