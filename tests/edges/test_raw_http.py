"""What is no HTTP, too much of it, or too slow, on a real listener: one refusal, and the listener serves the next."""

import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_core import edge, protocol

HOST = b"Host: localhost\r\n"
GOOD = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /oauth2/token HTTP/1.1\r\n" + HOST
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = POST + FORM + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown version": b"GET /healthz HTTP/1.9\r\n" + HOST + b"\r\n",
    "unknown method": b"STEAL /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "method in lower case": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "no method": b" /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "not ASCII": b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\n" + HOST * 2 + b"\r\n",
    "space before the colon": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "header without colon": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X\r\n\r\n",
    "header without name": b"GET /healthz HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "bare CR in a header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
    "length and chunks": POST + FORM + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + FORM + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + FORM + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "one length twice": POST + FORM + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + FORM + b"Content-Length: 5, 5\r\n\r\nhello",
    "negative length": POST + FORM + b"Content-Length: -1\r\n\r\n",
    "signed length": POST + FORM + b"Content-Length: +5\r\n\r\nhello",
    "length in hex": POST + FORM + b"Content-Length: 0x5\r\n\r\nhello",
    "length beyond 64 bits": POST + FORM + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "chunked in the middle": POST + FORM + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + FORM + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + FORM + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunk of no size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk of another size": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "chunk of a negative size": CHUNKED + b"-3\r\nhello\r\n0\r\n\r\n",
    "chunk beyond 64 bits": CHUNKED + b"1ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk with a bare LF": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
}


@pytest.fixture
def connect(site):
    """Connect to the management listener; afterwards the log is calm, and others are served."""
    opened = []

    def connected():
        opened.append(site.connect("management"))
        return opened[-1]

    yield connected
    for connection in opened:
        connection.close()
    calm(site)


def calm(site):
    after = site.connect("management")
    after.send(GOOD)
    assert after.read().status == 200
    after.close()
    lines = site.logged.take()
    assert not [line for line in lines if line.get("exc_info") or line["level"] in {"error", "critical"}], lines


def refusal(connection, status, code):
    """The connection says one problem, and ends."""
    answer = connection.read()
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert connection.ended()


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_refused_and_ends_the_connection(connect, name):
    connection = connect()
    connection.send(MALFORMED[name])
    refusal(connection, 400, "http-malformed")


@given(data=st.binary(min_size=1, max_size=200))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_octets_are_refused(connect, data):
    connection = connect()
    connection.send(data + b"\r\n\r\n\x01\r\n\r\n")
    refusal(connection, 400, "http-malformed")
    connection.close()


def test_requests_are_answered_in_their_order(connect):
    connection = connect()
    connection.send(GOOD + GOOD.replace(b"/healthz", b"/nowhere") + GOOD)
    assert [connection.read().status for _ in range(3)] == [200, 404, 200]


def test_a_body_is_no_request(connect):
    inner = GOOD.replace(b"/healthz", b"/nowhere")
    for framed in (b"Content-Length: %d\r\n\r\n%s" % (len(inner), inner), b"Transfer-Encoding: chunked\r\n\r\n"):
        body = b"" if b"Length" in framed else b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
        connection = connect()
        connection.send(POST + FORM + framed + body + GOOD)
        assert connection.read().status == 400
        assert connection.read().status == 200


def test_a_trailer_is_no_header(connect):
    connection = connect()
    connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n7\r\ntoken=t\r\n0\r\n" + FORM + b"\r\n" + GOOD)
    answer = connection.read()
    assert (answer.status, answer.code) == (400, "request-invalid")
    assert connection.read().status == 200
    connection.send(CHUNKED + b"7\r\ntoken=t\r\n0\r\n\r\n")
    assert connection.read().code == "grant-missing"


def test_a_head_is_bounded(connect):
    for head in (
        b"GET /" + b"a" * protocol.MAX_HEAD + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * protocol.MAX_HEAD + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X:\r\n" * protocol.MAX_HEADERS + b"\r\n",
    ):
        connection = connect()
        connection.send(head)
        refusal(connection, 413, "head-too-large")
    connection = connect()
    connection.send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"X:\r\n" * (protocol.MAX_HEADERS - 1) + b"\r\n")
    assert connection.read().status == 200
    connection.send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * (protocol.MAX_HEAD - 100) + b"\r\n\r\n")
    assert connection.read().status == 200


def flood(connection):
    for _ in range(200):
        connection.send(b"a" * 16384)
        time.sleep(0.01)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: ",
        CHUNKED + b"5;",
        CHUNKED + b"7\r\ntoken=t\r\n0\r\nX: ",
    ],
    ids=["target", "header", "chunk extension", "trailer"],
)
def test_what_has_no_end_is_not_kept(connect, monkeypatch, beginning):
    monkeypatch.setattr(protocol, "DISCARD_SECONDS", 0.2)
    connection = connect()
    connection.send(beginning)
    with pytest.raises(OSError):  # noqa: PT011 - a reset, a broken pipe, or the end of TLS
        flood(connection)


def test_small_chunks_are_a_body_like_any_other(connect):
    connection = connect()
    connection.send(CHUNKED + b"1\r\na\r\n" * 15_000 + b"0\r\n\r\n" + GOOD)
    assert connection.read().code == "request-invalid"
    assert connection.read().status == 200


@pytest.mark.parametrize("beginning", [b"", b"\r\n"], ids=["nothing", "line ends"])
def test_who_says_nothing_is_not_waited_for(connect, monkeypatch, beginning):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    connection = connect()
    connection.send(beginning)
    assert connection.ended()
    connection = connect()
    connection.send(GOOD)
    assert connection.read().status == 200
    connection.send(b"\r\n")  # would keep a connection open for ever, without a request
    assert connection.ended()


def test_a_slow_head_is_refused(connect, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    connection = connect()
    for octet in GOOD[:3]:
        connection.send(bytes([octet]))
        time.sleep(0.05)
    refusal(connection, 408, "request-too-slow")
    connection = connect()
    for octet in (GOOD[:3], GOOD[3:20], GOOD[20:]):
        connection.send(octet)
        time.sleep(0.05)
    assert connection.read().status == 200


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 7\r\n\r\ntok", b"Transfer-Encoding: chunked\r\n\r\n3\r\ntok\r\n"]
)
def test_a_slow_body_is_refused(connect, monkeypatch, framing):
    monkeypatch.setattr(edge, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "DISCARD_SECONDS", 0.3)
    connection = connect()
    connection.send(POST + FORM + framing)
    answer = connection.read()
    assert (answer.status, answer.code) == (408, "request-too-slow")
    assert connection.ended()


def test_the_rest_of_a_refused_body_is_not_waited_for(connect, monkeypatch):
    monkeypatch.setattr(protocol, "DISCARD_SECONDS", 0.3)
    connection = connect()
    connection.send(POST + FORM + b"Content-Length: 100000\r\n\r\n" + b"a" * 50_000)
    answer = connection.read()
    assert (answer.status, answer.code) == (413, "body-too-large")
    connection.send(b"a" * 100)
    assert connection.ended()
    connection = connect()
    connection.send(POST + FORM + b"Content-Length: 100000\r\n\r\n" + b"a" * 100_000 + GOOD)
    assert [connection.read().status for _ in range(2)] == [413, 200]


def test_who_leaves_in_the_middle_leaves_no_trace(connect, site):
    for path in (
        b"/oauth2/token",
        b"/attest/v1/challenges",
        b"/attest/v1/reference-sets",
        b"/identity/v1/certificates",
    ):
        connection = connect()
        connection.send(b"POST " + path + b" HTTP/1.1\r\n" + HOST + FORM + b"Content-Length: 100\r\n\r\nabc")
        connection.close()
    registry = site.connect("registry")
    registry.send(b"POST /sigstore/tsa/api/v1/timestamp HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc")
    registry.close()
    time.sleep(0.1)


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"TLS/1.0"])
def test_there_is_nothing_to_upgrade_to(connect, upgrade):
    connection = connect()
    connection.send(GOOD[:-2] + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n")
    assert connection.read().status == 200


def test_http_1_0_is_answered_and_ends(connect):
    connection = connect()
    connection.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    answer = connection.read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert connection.ended()


@pytest.mark.parametrize(
    "data", [GOOD, b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\xff" * 5000, b"\x15\x03\x03\0\x02\x02\x28"]
)
def test_what_is_no_tls_is_not_answered(connect, site, data):
    with socket.create_connection(("127.0.0.1", site.settings.management_port), timeout=5) as plain:
        plain.sendall(data)
        plain.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while piece := plain.recv(4096):
                said += piece
        except ConnectionError:
            pass
    assert b"HTTP" not in said
    connect()
