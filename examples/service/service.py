"""A service that agents call: it verifies their access tokens and says who called.

    pip install 'PyJWT[crypto]>=2.12'
    python service.py --issuer https://agents.example.com --audience https://tickets.example.com \\
        --ca /var/run/agentid/ca.crt --listen 0.0.0.0:8080

Start from `Verifier` when your own service is in Python. By default it verifies by the published keys and the status
list: no call per request, and a withdrawal is noticed within the list's `ttl`. With `--introspect TOKEN_FILE`, a
projected service-account token of one of the AgentResource's `introspectors`, it asks agentid about each request and
notices at once. It speaks plain HTTP: tokens are bearer tokens, so let whatever is in front end TLS.

What it can't tell, it refuses: 503 while keys, list or introspection can't be had.
"""

import argparse
import base64
import http.client
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
import zlib

import jwt

ALGORITHMS = ("ES256", "RS256")
# At least so many seconds between two attempts to get a document that failed, or that lacks a key.
PAUSE = 5
# By how many seconds the clocks of agentid and of this service may differ.
LEEWAY = 5
# Bounds of what is read: no answer of agentid's comes near.
MOST_BYTES, MOST_BITS = 8 << 20, 2 << 20
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Refused(Exception):
    """An answer that is not 200: an error of RFC 6750 with its challenge, or 503."""

    def __init__(self, status, error=None, why="", **more):
        super().__init__(why)
        self.status, self.error, self.why, self.more = status, error, why, more

    def challenge(self):
        said = {"error": self.error, "error_description": self.why, **self.more} if self.error else {}
        return "Bearer " + ", ".join(['realm="tickets"'] + [f'{name}="{value}"' for name, value in said.items()])


class Away(Exception):
    """agentid can't be asked now."""


def invalid(why):
    return Refused(401, "invalid_token", why)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is asked of the issuer is answered by the issuer, not by whom it points to."""

    def redirect_request(self, *_):
        return None


class Web:
    """Requests to the issuer, trusting one CA."""

    def __init__(self, ca):
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        self.opener = urllib.request.build_opener(tls, NoRedirects)

    def ask(self, url, form=None):
        body = urllib.parse.urlencode(form).encode() if form else None
        try:
            with self.opener.open(url, body, timeout=5) as answer:
                text = answer.read(MOST_BYTES + 1)
                if len(text) > MOST_BYTES:
                    raise Away(f"{url}: more than {MOST_BYTES} bytes")
                return text, answer.headers
        except (OSError, http.client.HTTPException) as error:
            raise Away(f"{url}: {error}") from error


class Keys:
    """The published keys: kept as their Cache-Control says, and asked for anew when a token names another."""

    def __init__(self, web, issuer):
        self.web, self.url = web, issuer + "/jwks"
        self.lock = threading.Lock()
        self.keys, self.until, self.asked = {}, 0, -PAUSE

    def of(self, kid):
        with self.lock:
            now = time.monotonic()
            stale = now >= self.until
            # Whoever calls chooses the kid, so that asking because of one needs a limit.
            if (stale or kid not in self.keys) and now >= self.asked + PAUSE:
                self.asked = now
                self.fetch(now)
            elif stale:
                raise Away(f"{self.url}: it was away a moment ago")
            return self.keys.get(kid)

    def fetch(self, now):
        text, headers = self.web.ask(self.url)
        age = re.search(r"\bmax-age=(\d+)", headers.get("Cache-Control", ""))
        try:
            # PyJWK takes the algorithm from the key, never from the token.
            keys = {key["kid"]: jwt.PyJWK(key) for key in json.loads(text)["keys"]}
        except (ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            raise Away(f"{self.url}: not a key set: {error}") from error
        self.keys = {kid: key for kid, key in keys.items() if key.algorithm_name in ALGORITHMS}
        self.until = now + (int(age[1]) if age else 0)
        print(f"read the keys at {self.url}", flush=True)

    def decode(self, token, typ, **expected):
        """The claims of a token of this kind that the issuer signed; jwt.PyJWTError if it is anything else."""
        header = jwt.get_unverified_header(token)
        if header.get("typ") != typ:
            raise jwt.InvalidTokenError(f"typ is not {typ}")
        key = self.of(header.get("kid"))
        if key is None:
            raise jwt.InvalidTokenError("signed by no key of the issuer")
        return jwt.decode(token, key, algorithms=[key.algorithm_name], leeway=LEEWAY, **expected)


class StatusLists:
    """Which tokens are withdrawn: each list is kept for its `ttl`, and until it ends while no newer one can be had."""

    def __init__(self, web, keys, issuer):
        self.web, self.keys, self.under = web, keys, issuer + "/statuslists/"
        self.lock = threading.Lock()
        self.lists = {}  # uri -> (when it is to be read again, the epoch second of its end, the bits)

    def withdrawn(self, entry):
        uri, index = entry.get("uri"), entry.get("idx")
        if type(uri) is not str or not uri.startswith(self.under) or type(index) is not int or index < 0:
            raise invalid("its status is not one of the issuer's")
        with self.lock:
            bits = self.bits(uri)
        if index >= 8 * len(bits):
            raise invalid("its status list has no such entry")
        return bits[index // 8] >> index % 8 & 1 == 1

    def bits(self, uri):
        until, ends, bits = self.lists.get(uri, (0, 0, None))
        now = time.monotonic()
        if now >= until:
            try:
                until, ends, bits = self.fetch(uri, now)
            except Away as error:
                print(error, flush=True)
                until = now + PAUSE
            self.lists[uri] = (until, ends, bits)
        if time.time() >= ends:
            raise Away(f"{uri}: there is no list that still holds")
        return bits

    def fetch(self, uri, now):
        token, _ = self.web.ask(uri)
        try:
            need = {"verify_aud": False, "require": ["exp", "sub"]}
            claims = self.keys.decode(token.decode(), "statuslist+jwt", options=need)
            lst = claims["status_list"]
            if claims["sub"] != uri or lst["bits"] != 1:
                raise ValueError("not the list that was asked for")
            unpack = zlib.decompressobj()
            bits = unpack.decompress(base64.urlsafe_b64decode(lst["lst"] + "=" * (-len(lst["lst"]) % 4)), MOST_BITS)
            if not unpack.eof:
                raise ValueError("the list is cut off or too long")
            ttl = int(claims.get("ttl", 0))
        except (ValueError, KeyError, TypeError, zlib.error, jwt.PyJWTError) as error:
            raise Away(f"{uri}: {error}") from error
        print(f"read the status list {uri}", flush=True)
        return now + ttl, claims["exp"], bits


class Verifier:
    """By keys and status list: nobody is asked about a single request."""

    def __init__(self, web, issuer, audience):
        self.issuer, self.audience = issuer, audience
        self.keys = Keys(web, issuer)
        self.lists = StatusLists(web, self.keys, issuer)

    def claims(self, token):
        need = {"require": ["iss", "aud", "exp", "iat", "sub", "jti"], "strict_aud": True}
        try:
            claims = self.keys.decode(token, "at+jwt", issuer=self.issuer, audience=self.audience, options=need)
        except jwt.PyJWTError as error:
            raise invalid(describable(str(error))) from error
        status = claims.get("status")
        entry = status.get("status_list") if isinstance(status, dict) else None
        # Every access token of agentid has one; without it, its withdrawal would never show.
        if not isinstance(entry, dict):
            raise invalid("it has no status")
        if self.lists.withdrawn(entry):
            raise invalid("it has been withdrawn")
        return claims


class Introspection:
    """By asking agentid about each token (RFC 7662)."""

    def __init__(self, web, issuer, audience, token_file):
        self.web, self.url, self.audience, self.token_file = web, issuer + "/introspect", audience, token_file

    def claims(self, token):
        # Read afresh: the kubelet renews it.
        with open(self.token_file, encoding="ascii") as file:
            own = file.read().strip()
        form = {"token": token, "client_assertion_type": CLIENT_ASSERTION, "client_assertion": own}
        text, _ = self.web.ask(self.url, form)
        try:
            claims = json.loads(text)
        except ValueError as error:
            raise Away(f"{self.url}: not JSON: {error}") from error
        # The question is which tokens are for this service: others may ask about theirs at the same place.
        if claims.get("active") is not True or claims.get("aud") != self.audience:
            raise invalid("it is not active")
        return claims


def describable(text):
    """What may stand in an error_description (RFC 6750 3)."""
    return re.sub(r'[^ !#-\[\]-~]', "?", text)


def bearer(headers):
    sent = headers.get_all("Authorization") or []
    if not sent:
        raise Refused(401)  # says nothing of an error: the client has not been told before (RFC 6750 3.1)
    scheme, _, token = sent[0].partition(" ")
    if len(sent) > 1:
        raise Refused(400, "invalid_request", "more than one Authorization header")
    if scheme.lower() != "bearer":
        raise Refused(401)
    return token.strip()


def caller(claims):
    """Who called. `agentid.dev` is for people: decide by sub, act, scope and roles alone."""
    named = claims.get("agentid.dev", {})
    acts = "act" in claims
    return {
        "agent": claims["act"]["sub"] if acts else claims["sub"],
        "name": f"{named.get('namespace')}/{named.get('name')}",
        "on_behalf_of": claims["sub"] if acts else None,
    }


class Tickets(http.server.BaseHTTPRequestHandler):
    verifier = None
    scope = None
    # A caller that says nothing is not waited for.
    timeout = 10

    def do_GET(self):
        try:
            if urllib.parse.urlsplit(self.path).path != "/tickets":
                raise Refused(404)
            claims = self.verifier.claims(bearer(self.headers))
            if self.scope not in claims.get("scope", "").split(" "):
                raise Refused(403, "insufficient_scope", f"it needs {self.scope}", scope=self.scope)
            self.answer(200, {"caller": caller(claims), "tickets": [{"id": 1, "title": "The printer is on fire"}]})
        except Refused as no:
            challenge = {} if no.status == 404 else {"WWW-Authenticate": no.challenge()}
            self.answer(no.status, {"error": no.error, "error_description": no.why}, challenge)
        except Away as error:
            print(error, flush=True)
            self.answer(503, {"error": "temporarily_unavailable"}, {"Retry-After": str(PAUSE)})

    def answer(self, status, body, headers=None):
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--issuer", required=True, help="agentid's issuer, as tokens say it in iss")
    options.add_argument("--audience", required=True, help="this service's own audience, of its AgentResource")
    options.add_argument("--ca", help="a file of the CA that vouches for the issuer; left out: the system's")
    options.add_argument("--scope", default="tickets.read", help="what a token must allow (default: %(default)s)")
    options.add_argument("--introspect", metavar="TOKEN_FILE", help="ask about each token, as this service account")
    options.add_argument("--listen", default="127.0.0.1:8080", help="(default: %(default)s)")
    given = options.parse_args()
    web = Web(given.ca)
    if given.introspect:
        Tickets.verifier = Introspection(web, given.issuer, given.audience, given.introspect)
    else:
        Tickets.verifier = Verifier(web, given.issuer, given.audience)
    Tickets.scope = given.scope
    host, _, port = given.listen.rpartition(":")
    print(f"listening on {given.listen}", flush=True)
    http.server.ThreadingHTTPServer((host, int(port)), Tickets).serve_forever()


if __name__ == "__main__":
    main()
