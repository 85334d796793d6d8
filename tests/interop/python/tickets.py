"""examples/service before a stand-in for the issuer, which hands out documents that agentid never would."""

import base64
import json
import os
import sys
import time
import zlib

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../examples/service"))
import service

ISSUER, AUDIENCE = "https://agents.example.com", "https://tickets.example.com"
LIST = ISSUER + "/statuslists/1"
KEYS = {kid: ec.generate_private_key(ec.SECP256R1()) for kid in ("one", "two")}


class Issuer:
    """Stands in for service.Web."""

    def __init__(self):
        self.asked, self.away, self.published = [], False, ["one"]
        self.list_header, self.list_claims = {}, {}

    def ask(self, url, form=None):
        self.asked.append(url)
        if self.away:
            raise service.Away(url)
        if url == ISSUER + "/jwks":
            keys = [{**public(KEYS[kid]), "kid": kid, "alg": "ES256", "use": "sig"} for kid in self.published]
            return json.dumps({"keys": keys}).encode(), {"Cache-Control": "public, max-age=30"}
        assert url == LIST, f"the service asked for {url}"
        # 16 entries, of which the second is withdrawn.
        lst = base64.urlsafe_b64encode(zlib.compress(bytes([0b10, 0]))).decode().rstrip("=")
        claims = {"sub": LIST, "iat": now(), "exp": now() + 300, "ttl": 30, "status_list": {"bits": 1, "lst": lst}}
        header = {"typ": "statuslist+jwt", **self.list_header}
        return signed({**claims, **self.list_claims}, **header).encode(), {}

    def count(self, path):
        return self.asked.count(ISSUER + path)


def now():
    return int(time.time())


def public(key):
    return json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))


def signed(claims, key="one", **header):
    header = {"typ": "at+jwt", "kid": "one", **header}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, KEYS[key], "ES256", header)


def token(key="one", header=None, idx=0, uri=LIST, **changed):
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "spiffe://x/agent/1", "jti": "1", "iat": now(), "exp": now() + 60}
    claims["status"] = {"status_list": {"idx": idx, "uri": uri}}
    return signed({**claims, **changed}, key, **(header or {}))


def answer(verifier, presented):
    """Whether a token is taken, refused, or can't be told."""
    try:
        verifier.claims(presented)
        return "taken"
    except service.Refused as no:
        assert (no.status, no.error) == (401, "invalid_token"), no.status
        return "refused"
    except service.Away:
        return "away"


def verifier():
    issuer = Issuer()
    return issuer, service.Verifier(issuer, ISSUER, AUDIENCE)


def expect(wanted, got, what):
    assert got == wanted, f"{what}: {got}, not {wanted}"


def tokens():
    issuer, by_list = verifier()
    secret = base64.urlsafe_b64decode(public(KEYS["one"])["x"] + "==")
    hmac = jwt.encode({"iss": ISSUER, "aud": AUDIENCE}, secret, "HS256", {"typ": "at+jwt", "kid": "one"})
    for what, presented in {
        "another typ": token(header={"typ": "JWT"}),
        "no typ": token(header={"typ": None}),
        "another's key": token(key="two"),
        "a kid that nobody has": token(header={"kid": "../../etc/passwd"}),
        "HMAC with the public key": hmac,
        "crit": token(header={"crit": ["x"], "x": 1}),
        "another issuer": token(iss="https://elsewhere.example.com"),
        "another audience": token(aud="https://wiki.example.com"),
        "two audiences": token(aud=[AUDIENCE, "https://wiki.example.com"]),
        "no audience": token(aud=None),
        "expired": token(exp=now() - 10),
        "no end": token(exp=None),
        "of the future": token(iat=now() + 60),
        "not yet": token(nbf=now() + 60),
        "withdrawn": token(idx=1),
        "the entry behind the last": token(idx=16),
        "an entry before the first": token(idx=-1),
        "an entry that is no number": token(idx="0"),
        "a list elsewhere": token(uri="https://elsewhere.example.com/statuslists/1"),
        "a list on a host that begins alike": token(uri=ISSUER + ".evil.example/statuslists/1"),
        "no list": token(status={}),
        "no status": token(status=None),
    }.items():
        expect("refused", answer(by_list, presented), what)
    expect("taken", answer(by_list, token()), "the same with nothing wrong")
    # The unknown kid came right after the keys had been read: it was no reason to read them again.
    expect(1, issuer.count("/jwks"), "how often the keys were read")
    expect(1, issuer.count("/statuslists/1"), "how often the list was read")


def lists():
    for what, header, claims in [
        ("another typ", {"typ": "at+jwt"}, {}),
        ("another's key", {"key": "two"}, {}),
        ("another list", {}, {"sub": LIST + "1"}),
        ("an end that has come", {}, {"exp": now() - 10}),
        ("no end", {}, {"exp": None}),
        ("two bits an entry", {}, {"status_list": {"bits": 2, "lst": "eNpjYAAAAAIAAQ"}}),
        ("no zlib", {}, {"status_list": {"bits": 1, "lst": "AAAA"}}),
        ("cut off", {}, {"status_list": {"bits": 1, "lst": "eNpj"}}),
        ("no list", {}, {"status_list": None}),
    ]:
        issuer, by_list = verifier()
        issuer.list_claims = claims
        issuer.list_header = header
        expect("away", answer(by_list, token()), f"a list with {what}")
        answer(by_list, token())
        expect(1, issuer.count("/statuslists/1"), f"how often a list with {what} was read")


def caches():
    issuer, by_list = verifier()
    clock = [100.0]
    service.time = type("Time", (), {"monotonic": staticmethod(lambda: clock[0]), "time": staticmethod(time.time)})
    expect("taken", answer(by_list, token()), "a token")
    # A key that is new: asked for at once, and then not for each token that names one that is not there.
    clock[0] += 10
    issuer.published.append("two")
    expect("taken", answer(by_list, token("two", {"kid": "two"})), "a token of the new key")
    for _ in range(50):
        expect("refused", answer(by_list, token("two", {"kid": "none"})), "a token of no key")
    expect(2, issuer.count("/jwks"), "how often the keys were read")
    expect(1, issuer.count("/statuslists/1"), "the list's ttl")
    # Away: the list is good until its end, the keys as long as their Cache-Control says.
    clock[0] += 25
    issuer.away = True
    expect("taken", answer(by_list, token()), "a token while the list can't be had")
    clock[0] += 10
    expect("away", answer(by_list, token()), "a token while the keys can't be had")
    issuer.away = False
    clock[0] += 10
    expect("taken", answer(by_list, token()), "a token when they are back")


tokens()
lists()
caches()
