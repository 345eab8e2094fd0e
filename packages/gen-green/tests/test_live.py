"""The clients of Electricity Maps and CO2 Signal, against a server on 127.0.0.1 that plays recorded answers."""

import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from gen_green import live
from gen_green.grid import GridError, best_start, co2_signal, constant, country, electricity_maps
from gen_green.series import seconds

LATEST = {
    "zone": "DE",
    "carbonIntensity": 302,
    "datetime": "2024-01-24T19:00:00.000Z",  # of the hour's start; lies after updatedAt here
    "updatedAt": "2024-01-24T18:48:21.322Z",
    "createdAt": "2024-01-21T19:08:17.432Z",
    "emissionFactorType": "lifecycle",
    "isEstimated": True,
    "estimationMethod": "TIME_SLICER_AVERAGE",
}
TOKEN = "secret-t0ken"


def hours(first, values, **more):
    start = seconds(first)
    stamp = lambda i: live._iso(start + 3600 * i).replace("Z", ":00.000Z")
    return [{"zone": "DE", "carbonIntensity": v, "datetime": stamp(i), **more} for i, v in enumerate(values)]


class Server:
    """Plays `answers` one after the other (the last one for ever) and keeps what it was asked."""

    def __init__(self):
        self.answers, self.asked = [], []
        play, outer = self.play, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers)))
                play(self)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.gate = threading.Event()
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def play(self, handler):
        status, body, headers = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if status == "hang":
            self.gate.wait(10)
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(200 if status == "truncated" else status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(data) + (40 if status == "truncated" else 0)))
        handler.end_headers()
        handler.wfile.write(data)

    def queue(self, status, body=b"{}", **headers):
        self.answers.append((status, body, {k.replace("_", "-"): v for k, v in headers.items()}))
        return self

    def query(self, i=-1):
        return {k: v[0] for k, v in parse_qs(urlsplit(self.asked[i][0]).query).items()}


@pytest.fixture
def server():
    it = Server()
    yield it
    it.gate.set()
    it.http.shutdown()
    it.http.server_close()


@pytest.fixture
def naps():
    return []


@pytest.fixture
def maps(server, naps):
    return electricity_maps("DE", TOKEN, base_url=server.url + "/v3", timeout=2, sleep=naps.append)


def test_latest(server, maps):
    """200: the figure, its hour, that it is estimated and how; the token travels in `auth-token`."""
    server.queue(200, LATEST)
    found = maps.latest()
    assert (found.value, found.unit, found.basis, found.year) == (302.0, "g/kWh", "lifecycle", 2024)
    assert "TIME_SLICER_AVERAGE" in found.note and "2024-01-24T19:00" in found.source and found.place == "DE"
    path, headers = server.asked[0]
    assert urlsplit(path).path == "/v3/carbon-intensity/latest"
    assert server.query() == {"zone": "DE", "emissionFactorType": "lifecycle"}
    assert {k.lower(): v for k, v in headers.items()}["auth-token"] == TOKEN


def test_estimated_is_surer_when_it_is_not(server, maps):
    server.queue(200, LATEST).queue(200, {**LATEST, "isEstimated": False, "estimationMethod": None})
    assert maps.latest().spread > maps.latest().spread


def test_direct_factors_stay_direct(server, maps):
    server.queue(200, {**LATEST, "emissionFactorType": "direct"})
    direct = electricity_maps("DE", TOKEN, base_url=server.url, basis="direct").latest()
    assert direct.basis == "direct" and server.query()["emissionFactorType"] == "direct"
    with pytest.raises(ValueError, match="do not mix"):
        direct + country("DE")


def test_nothing_is_asked_before_it_is_needed(server, maps):
    assert server.asked == [] and TOKEN not in repr(maps)


def test_a_refused_token_is_not_tried_again(server, maps, naps):
    server.queue(401, {"error": "Invalid auth-token"})
    with pytest.raises(GridError, match="refused the token") as caught:
        maps.latest()
    assert len(server.asked) == 1 and naps == [] and TOKEN not in str(caught.value)


def test_too_many_requests_waits_as_told(server, maps, naps):
    server.queue(429, Retry_After="7").queue(200, LATEST)
    assert maps.latest().value == 302 and naps == [7.0]


def test_retry_after_may_be_a_date(server, naps):
    server.queue(429, Retry_After="Wed, 24 Jan 2024 19:00:09 GMT").queue(200, LATEST)
    clock = lambda: seconds("2024-01-24T19:00:00Z")
    grid = electricity_maps("DE", TOKEN, base_url=server.url, sleep=naps.append, clock=clock)
    assert grid.latest().value == 302 and naps == [9.0]


def test_a_long_pause_is_an_error_that_says_how_long(server, maps, naps):
    server.queue(429, Retry_After="3600")
    with pytest.raises(GridError, match="pause of 3600 s"):
        maps.latest()
    assert naps == [] and len(server.asked) == 1


def test_a_server_error_is_tried_again(server, maps, naps):
    server.queue(500).queue(200, LATEST)
    assert maps.latest().value == 302 and len(naps) == 1


def test_a_lasting_server_error_ends(server, maps, naps):
    server.queue(500)
    with pytest.raises(GridError, match="failed"):
        maps.latest()
    assert len(server.asked) == 3 and len(naps) == 2


def test_another_status_is_not_tried_again(server, maps):
    server.queue(404)
    with pytest.raises(GridError, match="404"):
        maps.latest()
    assert len(server.asked) == 1


def test_a_hang_ends_in_time(server):
    server.queue("hang")
    with pytest.raises(GridError, match=r"did not answer within 0\.2 s"):
        electricity_maps("DE", TOKEN, base_url=server.url, timeout=0.2).latest()
    assert not server.gate.is_set() and len(server.asked) == 1  # the server still holds its answer back


def test_a_truncated_answer_is_read_again(server, maps):
    server.queue("truncated", LATEST).queue(200, b'{"zone": "DE", "carbonInt').queue(200, LATEST)
    assert maps.latest().value == 302 and len(server.asked) == 3


def test_an_answer_that_stays_truncated_ends(server, maps):
    server.queue(200, b'{"zone": ')
    with pytest.raises(GridError, match="cut short or no JSON, 3 times"):
        maps.latest()


@pytest.mark.parametrize("body", [{"status": "no-data"}, {**LATEST, "carbonIntensity": None}, [1, 2]])
def test_no_data(server, maps, body):
    server.queue(200, body)
    with pytest.raises(GridError, match=r"has no|no data|where an object was due"):
        maps.latest()


def test_a_redirect_does_not_carry_the_token_away(server, maps):
    other = Server().queue(200, LATEST)
    server.queue(302, Location=other.url)
    with pytest.raises(GridError, match="302"):
        maps.latest()
    assert other.asked == []
    other.http.shutdown()
    other.http.server_close()


def test_nobody_there():
    with pytest.raises(GridError, match="cannot be reached"):
        electricity_maps("DE", TOKEN, base_url="http://127.0.0.1:9", timeout=1).latest()


def test_history_is_a_step_function_over_24_hours(server, maps):
    rows = hours("2024-01-24T00:00Z", range(100, 124), emissionFactorType="lifecycle")
    server.queue(200, {"zone": "DE", "history": rows[::-1]})
    series, start = maps.history(), seconds("2024-01-24T00:00Z")
    assert series(start + 3600, start + 3600).value == 101, "left-closed: an hour's figure holds from its start"
    assert series(start, start + 24 * 3600).value == pytest.approx(111.5)


def test_a_window_within_a_day_is_the_mean_of_the_history(server, naps):
    rows = hours("2024-01-24T00:00Z", [100, 500], emissionFactorType="lifecycle")
    server.queue(200, {"zone": "DE", "history": rows})
    start = seconds("2024-01-24T00:00Z")
    grid = electricity_maps("DE", TOKEN, base_url=server.url, clock=lambda: start + 7200)
    assert grid(start, start + 7200).value == 300
    assert server.asked[0][0].startswith("/carbon-intensity/history")


def test_an_older_window_is_asked_in_pieces_of_ten_days(server, maps):
    def played(handler):
        asked = server.query()
        first, last = seconds(asked["start"]), seconds(asked["end"])
        data = {"zone": "DE", "data": hours(asked["start"], [200] * round((last - first) / 3600))}
        body = json.dumps(data).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server.play = played
    server.http.RequestHandlerClass.do_GET = lambda self: (
        server.asked.append((self.path, dict(self.headers))),
        played(self),
    )
    start = seconds("2024-01-01T00:30Z")
    found = maps(start, start + 24 * 86400)
    assert found.value == 200 and found.kind == "modelled"
    assert [(server.query(i)["start"], server.query(i)["end"]) for i in range(3)] == [
        ("2024-01-01T00:00Z", "2024-01-11T00:00Z"),
        ("2024-01-11T00:00Z", "2024-01-21T00:00Z"),
        ("2024-01-21T00:00Z", "2024-01-25T01:00Z"),
    ]


def test_a_forecast_feeds_best_start(server, maps):
    server.queue(200, {"zone": "DE", "forecast": hours("2024-01-24T00:00Z", [300, 200, 90, 80, 400])})
    times, values = maps.forecast_series()
    assert best_start(times, values, 2 * 3600) == 2
    assert maps.forecast()(times[0], times[0] + 3600).value == 300


def test_rows_without_a_value_are_left_out(server, maps):
    rows = [*hours("2024-01-24T00:00Z", [100, None, 300])]
    server.queue(200, {"zone": "DE", "history": rows}).queue(200, {"zone": "DE", "history": []})
    start = seconds("2024-01-24T00:00Z")
    found = maps.history()(start + 3600, start + 7200)
    assert found.value == 100 and "1 h are missing" in found.note and found.kind == "assumed"
    with pytest.raises(GridError, match="has no history"):
        maps.history()


def test_a_fallback_answers_when_the_service_does_not(server):
    server.queue(401)
    live._warn_once.cache_clear()
    grid = electricity_maps("DE", TOKEN, base_url=server.url, fallback=constant(380.95))
    with pytest.warns(UserWarning, match="refused the token"):
        assert grid().value == 380.95


def test_co2_signal(server):
    answer = {
        "_disclaimer": "non-commercial use only",
        "status": "ok",
        "countryCode": "FR",
        "data": {"datetime": "2024-01-24T18:00:00.000Z", "carbonIntensity": 58.4, "fossilFuelPercentage": 6.2},
        "units": {"carbonIntensity": "gCO2eq/kWh"},
    }
    server.queue(200, answer).queue(200, {"status": "no-data"}).queue(200, {"status": "ok", "data": {}})
    grid = co2_signal("FR", TOKEN, base_url=server.url + "/v1")
    found = grid()
    assert (found.value, found.basis, found.year) == (58.4, "lifecycle", 2024)
    assert urlsplit(server.asked[0][0]).path == "/v1/latest" and server.query() == {"countryCode": "FR"}
    assert {k.lower(): v for k, v in server.asked[0][1].items()}["auth-token"] == TOKEN
    for _ in range(2):
        with pytest.raises(GridError, match=r"no data|no carbon intensity"):
            grid()


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("", TOKEN), {}, "name both"),
        (("FR", " "), {}, "name both"),
        (("FR", TOKEN), {"base_url": "file:///etc/passwd"}, "http or https"),
        (("FR", TOKEN), {"timeout": 0}, "above 0 s"),
    ],
)
def test_bad_arguments_are_said_before_anything_is_asked(arguments, options, said):
    with pytest.raises(ValueError, match=said):
        electricity_maps(*arguments, **options)
