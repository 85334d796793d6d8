"""An agent that calls a service and prints the answer. It buys a token with its pod's service-account token:

    python client.py --issuer https://agents.example.com --ca /var/run/agentid/ca.crt \\
        --token-file /var/run/agentid/token --resource https://tickets.example.com \\
        --service http://tickets.tickets.svc:8080/tickets

or reads the one that agentid delivers, in the agent's Secret or by the sidecar, and keeps fresh:

    python client.py --file /var/run/agentid/tickets.jwt --service http://tickets.tickets.svc:8080/tickets

Python's standard library is all it needs. `--every SECONDS` lets it call over and over, with one bought token until shortly
before that expires, and end with the first answer that is not 200. It exits 1 when it is refused, with why on
standard error.
"""

import argparse
import json
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# How often and for how long 503 is waited out: what is new becomes known within about a second.
TRIES, LONGEST_WAIT = 5, 5


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A credential goes to whom it is meant for, and nowhere that one points to."""

    def redirect_request(self, *_):
        return None


def ask(request, ca=None):
    """The status, headers and body of an answer, whatever the status; waits out 503."""
    tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    opener = urllib.request.build_opener(tls, NoRedirects)
    for left in reversed(range(TRIES)):
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code != 503 or not left:
                return error.code, error.headers, error.read().decode(errors="replace")
            time.sleep(min(int(error.headers.get("Retry-After") or 1), LONGEST_WAIT))
        except OSError as error:
            sys.exit(f"{request.full_url}: {error}")


def buy(given):
    """An access token and the second (of time.monotonic) from which another is needed."""
    # Read afresh each time: the kubelet renews the file.
    with open(given.token_file, encoding="ascii") as file:
        own = file.read().strip()
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": CLIENT_ASSERTION,
        "client_assertion": own,
        "resource": given.resource,
    }
    if given.scope:
        form["scope"] = given.scope
    request = urllib.request.Request(given.issuer + "/token", urllib.parse.urlencode(form).encode())
    status, _, text = ask(request, given.ca)
    if status != 200:
        sys.exit(f"no token: {status} {text}")
    answer = json.loads(text)
    return answer["access_token"], time.monotonic() + answer["expires_in"] * 0.8


def read(given):
    """The delivered token. Read afresh for each call: it is renewed, and taken away, in place."""
    try:
        with open(given.file, encoding="ascii") as file:
            return file.read().strip(), time.monotonic()
    except FileNotFoundError:
        sys.exit(f"no token: {given.file} is not there; agent.json beside it says why")


def call(given, token):
    request = urllib.request.Request(given.service, headers={"Authorization": f"Bearer {token}"})
    # With TLS in front of the service, its certificate is judged by the system's CAs.
    status, headers, text = ask(request)
    if status != 200:
        sys.exit(f"the service refuses: {status} {headers.get('WWW-Authenticate', '')} {text}")
    print(text, flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--file", help="a delivered token; without it one is bought, by the next four")
    options.add_argument("--issuer", help="agentid's issuer")
    options.add_argument("--ca", help="a file of the CA that vouches for it; left out: the system's")
    options.add_argument("--token-file", help="the pod's projected service-account token")
    options.add_argument("--resource", help="the audience of the service")
    options.add_argument("--scope", help="scopes, separated by spaces; left out: all that the grant holds")
    options.add_argument("--service", required=True, help="the URL to call")
    options.add_argument("--every", type=float, help="call again after so many seconds")
    given = options.parse_args()
    if not given.file and not (given.issuer and given.token_file and given.resource):
        options.error("either --file, or --issuer, --token-file and --resource")
    get = read if given.file else buy
    token, until = get(given)
    call(given, token)
    while given.every:
        time.sleep(given.every)
        if time.monotonic() >= until:
            token, until = get(given)
        call(given, token)


if __name__ == "__main__":
    main()
