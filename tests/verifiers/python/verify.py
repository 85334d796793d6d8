"""Verifies a token with joserfc, and an access token with Authlib's RFC 9068 validator besides.

usage: verify JWKS_FILE ISSUER AUDIENCE access|identity < token

Exit code 0 and `accepted`, 1 and `refused: ...`, or 2 for wrong usage.
"""

import json
import sys

from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt
from joserfc.jwk import KeySet

ALGORITHMS = ["ES256", "RS256"]


class Refused(Exception):
    """A demand of ours that the library leaves to its caller."""


def check_jose(jwks, issuer, audience, kind, token):
    """Signature, times, issuer and audience by joserfc; the kind by the header's typ (RFC 8725 section 3.11)."""
    decoded = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=ALGORITHMS)
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        jti={"essential": True},
    )
    registry.validate(decoded.claims)
    expected = {"access": "at+jwt", "identity": "JWT"}[kind]
    if decoded.header.get("typ") != expected:
        raise Refused(f"typ is {decoded.header.get('typ')!r}, expected {expected!r}")
    if kind == "identity" and not decoded.claims["sub"].startswith("spiffe://"):
        raise Refused("sub is not a SPIFFE ID")


class Resource(JWTBearerTokenValidator):
    """An RFC 9068 resource server whose keys come from a file."""

    def __init__(self, jwks, issuer, audience):
        super().__init__(issuer=issuer, resource_server=audience)
        self._jwks = jwks

    def get_jwks(self):
        return self._jwks


def check_rfc9068(jwks, issuer, audience, token):
    """What a resource server demands of an access token, by Authlib."""
    resource = Resource(jwks, issuer, audience)
    claims = resource.authenticate_token(token)
    if claims is None:
        raise Refused("Authlib knows no such token")
    resource.validate_token(claims, None, None)


def main(arguments):
    if len(arguments) != 4 or arguments[3] not in ("access", "identity"):
        print(__doc__, file=sys.stderr)
        return 2
    path, issuer, audience, kind = arguments
    with open(path, encoding="utf-8") as file:
        jwks = json.load(file)
    token = sys.stdin.read().strip()
    try:
        check_jose(jwks, issuer, audience, kind, token)
        if kind == "access":
            check_rfc9068(jwks, issuer, audience, token)
    # Whatever the libraries raise is a refusal: a verifier that fails open would be none.
    except Exception as error:  # pylint: disable=broad-except
        print(f"refused: {type(error).__name__}: {error}")
        return 1
    print("accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
