"""Carbon intensities over the network: Electricity Maps' API version 3, and the older CO2 Signal.

    grid = ElectricityMaps("FR", token)          # asks nothing yet
    grid.latest().value                          # g/kWh of this hour
    grid(start, end)                             # the mean over a window: what a footprint asks for
    best_start(*grid.forecast_series(), 2 * 3600)

One GET per question, with the header `auth-token`, over urllib. Tried again: 429 after its Retry-After, 500, 502, 503
and 504 after a pause, and a body cut short; never a refused token, and never a service that does not answer in time.
Redirects are refused, for they would carry the token elsewhere.

Shapes of the answers: portal.electricitymaps.com/docs/api; an intensity's `datetime` is the start of its hour, and can
lie after its `updatedAt`.
"""

import datetime
import functools
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gen_green.intensity import Basis, CarbonIntensity, GridError, Intensity
from gen_green.series import seconds, trace, usual_step

__all__ = ["CO2Signal", "ElectricityMaps"]

DAY = 86_400.0
LIVE_SPREAD, ESTIMATED_SPREAD = 1.15, 1.3
RETRIED = (500, 502, 503, 504)


@dataclass(frozen=True)
class _Service:
    """What both services share: a zone, a token, and how to ask.

    Args:
        zone: "FR", "US-CAL-CISO".
        token: of the account; sent as the header `auth-token`, and shown nowhere.
        base_url: of the API; http or https.
        timeout: seconds that each read may take.
        attempts: questions at most, the first one included.
        patience: seconds that one pause may take; a longer Retry-After is an error that says so.
        fallback: what answers when the service does not, after one warning; without it, `GridError`.
        sleep, clock: of the process; tests pass their own.
    """

    zone: str
    token: str = field(repr=False)
    base_url: str = ""
    timeout: float = 5.0
    attempts: int = 3
    patience: float = 30.0
    fallback: Intensity | None = None
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        if not self.zone or not self.token.strip():
            raise ValueError(f"{type(self).__name__} asks about a zone with a token; name both, or use country(...)")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is an http or https address, got {self.base_url!r}")
        if not (self.timeout > 0 and self.attempts >= 1):
            raise ValueError(f"need a timeout above 0 s and at least 1 attempt, got {self.timeout} and {self.attempts}")

    def latest(self) -> CarbonIntensity:
        raise NotImplementedError

    def __call__(self, start: float = 0.0, end: float = 0.0) -> CarbonIntensity:
        """The mean from `start` to `end` (seconds since 1970); without them, now."""
        try:
            return self._mean(start, end)
        except GridError as error:
            if self.fallback is None:
                raise
            _warn_once(f"{error}; {self.zone} is taken from the fallback instead")
            return self.fallback(start, end)

    def _mean(self, start: float, end: float) -> CarbonIntensity:
        return self.latest()

    def _get(self, path: str, **query: str) -> Mapping[str, Any]:
        import urllib.parse

        url = f"{self.base_url.rstrip('/')}/{path}?{urllib.parse.urlencode(query)}"
        answer = _get_json(url, self)
        if not isinstance(answer, dict):
            raise GridError(f"{self._name} gave {type(answer).__name__} where an object was due; check base_url")
        if answer.get("status", "ok") != "ok":
            raise GridError(f"{self._name} has no data for {self.zone} now ({answer['status']})")
        return answer

    @property
    def _name(self) -> str:
        return "Electricity Maps" if isinstance(self, ElectricityMaps) else "CO2 Signal"

    def _intensity(self, row: Mapping[str, Any], basis: Basis, hour: str = "") -> CarbonIntensity:
        """One row of an answer as an intensity; `hour` is for the source, where it is not one of a series."""
        value = row.get("carbonIntensity")
        if not isinstance(value, int | float):
            raise GridError(f"{self._name} has no carbon intensity for {self.zone} at this time")
        said, estimated = row.get("emissionFactorType"), bool(row.get("isEstimated"))
        method = row.get("estimationMethod") or "method not stated"
        year = str(row.get("datetime", ""))[:4]
        return CarbonIntensity(
            float(value),
            "g/kWh",
            "modelled",
            f"{self._name}, {self.zone}{hour}",
            int(year) if year.isdigit() else None,
            ESTIMATED_SPREAD if estimated else LIVE_SPREAD,
            said if said in ("lifecycle", "direct") else basis,
            self.zone,
            f"consumption; estimated ({method})" if estimated else "consumption",
        )


@dataclass(frozen=True)
class ElectricityMaps(_Service):
    """Electricity Maps' API, version 3; see the module for how it asks.

    Args:
        basis: of the emission factors to ask for; what the answer says counts.
    """

    base_url: str = "https://api.electricitymaps.com/v3"
    basis: Basis = "lifecycle"

    def latest(self) -> CarbonIntensity:
        """This hour's."""
        row = self._ask("latest")
        return self._intensity(row, self.basis, f", {row.get('datetime') or 'latest'}")

    def history(self) -> Intensity:
        """The last 24 hours."""
        return self._trace(self._ask("history"), "history")

    def past_range(self, start: float, end: float) -> Intensity:
        """The hours from `start` to `end`, asked for in pieces of ten days, as many as the service gives at once."""
        rows: list[Mapping[str, Any]] = []
        first, last = start // 3600 * 3600, -(-end // 3600) * 3600
        while first < last:
            stop = min(first + 10 * DAY, last)
            rows += _rows(self._ask("past-range", start=_iso(first), end=_iso(stop)), "data")
            first = stop
        return self._trace({"data": rows}, "data")

    def forecast(self) -> Intensity:
        """The hours to come, as far as the account reaches."""
        return self._trace(self._ask("forecast"), "forecast")

    def forecast_series(self) -> tuple[list[float], list[float]]:
        """The forecast's times (seconds since 1970) and g/kWh, for `best_start`."""
        times, values = self._series(self._ask("forecast"), "forecast")
        return times, [value.value for value in values]

    def _mean(self, start: float, end: float) -> CarbonIntensity:
        if not 0 < start < end:
            return self.latest()
        if start >= self.clock() - DAY:
            return self.history()(start, end)
        return self.past_range(start, end)(start, end)

    def _ask(self, what: Literal["latest", "history", "past-range", "forecast"], **query: str) -> Mapping[str, Any]:
        return self._get(f"carbon-intensity/{what}", zone=self.zone, emissionFactorType=self.basis, **query)

    def _series(self, answer: Mapping[str, Any], key: str) -> tuple[list[float], list[CarbonIntensity]]:
        """The rows under `key` that hold a value, by time."""
        held = [row for row in _rows(answer, key) if isinstance(row.get("carbonIntensity"), int | float)]
        by_time = {seconds(row["datetime"]): self._intensity(row, self.basis) for row in held}
        if not by_time:
            raise GridError(f"{self._name} has no {key} for {self.zone}")
        return sorted(by_time), [by_time[t] for t in sorted(by_time)]

    def _trace(self, answer: Mapping[str, Any], key: str) -> Intensity:
        """The rows under `key` as a step function; those without a value tell the step's length too."""
        step = usual_step(seconds(row["datetime"]) for row in _rows(answer, key))
        return trace(*self._series(answer, key), step=step)


@dataclass(frozen=True)
class CO2Signal(_Service):
    """CO2 Signal, version 1: the latest lifecycle intensity of a country or zone, and nothing else."""

    base_url: str = "https://api.co2signal.com/v1"

    def latest(self) -> CarbonIntensity:
        data = self._get("latest", countryCode=self.zone).get("data")
        row: Mapping[str, Any] = data if isinstance(data, dict) else {}
        return self._intensity(row, "lifecycle", f", {row.get('datetime') or 'latest'}")


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _rows(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The rows under `key`, each with the basis that the answer has for all of them."""
    said = {"emissionFactorType": answer.get("emissionFactorType")}
    return [{**said, **row} for row in answer.get(key) or ()]


def _iso(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%MZ")


def _get_json(url: str, service: _Service) -> Any:
    """The JSON at `url`, or a `GridError` in one sentence that never holds the token."""
    import http.client
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
            return None  # urllib then raises the 3xx as an HTTPError

    opener, name = urllib.request.build_opener(Stay), service._name
    request = urllib.request.Request(url, headers={"auth-token": service.token.strip(), "accept": "application/json"})
    for attempt in range(1, service.attempts + 1):
        try:
            with opener.open(request, timeout=service.timeout) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            status, wait = error.code, _retry_after(error.headers.get("Retry-After"), service.clock())
            error.close()
            if status in (401, 403):
                raise GridError(f"{name} refused the token ({status}); does it cover {service.zone}?") from None
            if status != 429 and status not in RETRIED:
                raise GridError(f"{name} answered {status} for {service.zone}; check the zone and base_url") from None
            pause = wait if wait is not None else 0.5 * 2**attempt
            problem = "asks for a pause of" if status == 429 else f"failed ({status}) and may need"
            if attempt == service.attempts or pause > service.patience:
                raise GridError(f"{name} {problem} {pause:g} s; ask less often, or later") from None
            service.sleep(pause)
        except TimeoutError:
            raise GridError(f"{name} did not answer within {service.timeout:g} s; raise timeout=") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise GridError(f"{name} did not answer within {service.timeout:g} s; raise timeout=") from None
            raise GridError(f"{name} cannot be reached at {service.base_url} ({error.reason})") from None
        except (http.client.HTTPException, ConnectionError, ValueError):  # cut short, or no JSON
            if attempt == service.attempts:
                raise GridError(f"{name} gave an answer that is cut short or no JSON, {attempt} times") from None
    raise AssertionError("the last attempt returns or raises")


def _retry_after(text: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header: a number, or a date."""
    if not text:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        import email.utils

        try:
            return max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0)
        except ValueError:
            return None
